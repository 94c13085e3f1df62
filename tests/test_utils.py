"""pad_sequences."""

import numpy as np
import pytest

from elman.utils import pad_sequences


def twin(sequences, steps, padding, truncating, value):
    """Step by step, from the definition."""
    rows = []
    for s in sequences:
        s = list(s)
        s = s[len(s) - min(len(s), steps) :] if truncating == "pre" else s[: min(len(s), steps)]
        fill = [np.full(np.shape(sequences[0])[1:], value)] * (steps - len(s))
        rows.append(fill + s if padding == "pre" else s + fill)
    return np.array(rows)


@pytest.mark.parametrize("padding", ["pre", "post"])
@pytest.mark.parametrize("truncating", ["pre", "post"])
@pytest.mark.parametrize("maxlen", [None, 1, 3, 9])
@pytest.mark.parametrize("features", [(), (2,)])
def test_against_a_twin(padding, truncating, maxlen, features, rng):
    sequences = [rng.normal(size=(n, *features)).astype(np.float32) for n in (3, 7, 0, 1)]
    out = pad_sequences(sequences, maxlen, padding=padding, truncating=truncating, value=-1.5)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, twin(sequences, maxlen or 7, padding, truncating, -1.5))


@pytest.mark.parametrize(
    ("sequences", "dtype"),
    [
        ([[0.5], [1, 2]], np.float64),
        ([[1], [2, 3]], np.int64),
        ([[1], []], np.int64),  # an empty list would be float64
        ([[], []], np.float64),
        ([np.ones(2, np.float16), []], np.float16),
        ([np.ones(2, np.float32), np.ones(1, np.int64)], np.float64),
        ([np.ones(2, np.uint8), np.ones(1, np.int16)], np.int16),
        ([np.ones(2, bool)], np.bool_),
    ],
)
def test_the_common_dtype_is_kept(sequences, dtype):
    assert pad_sequences(sequences).dtype == dtype


def test_a_dtype_is_used():
    out = pad_sequences([[1.0, 2.0], [3]], dtype="int32")
    assert out.dtype == np.int32
    assert out.tolist() == [[1, 2], [0, 3]]
    assert pad_sequences([[0.1]], dtype="float32")[0, 0] == np.float32(0.1)


def test_empty_sequences_are_all_filling():
    assert pad_sequences([[], [1, 2]], value=7).tolist() == [[7, 7], [1, 2]]
    assert pad_sequences([np.zeros((0, 3)), np.ones((1, 3))], 2).shape == (2, 2, 3)
    assert pad_sequences([[], np.ones((1, 3))]).shape == (2, 1, 3)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ([], {}, ValueError, "sequences: there are none"),
        (3, {}, TypeError, "sequences: expected a list of sequences, got int"),
        ("abc", {}, TypeError, "sequences: .*str"),
        ([[1], 2], {}, ValueError, r"sequences\[1\]: expected shape \(T,\) or \(T, F\), got \(\)"),
        ([np.ones((1, 2, 3))], {}, ValueError, r"sequences\[0\]"),
        ([[1], ["a"]], {}, TypeError, r"sequences\[1\]: expected numbers"),
        ([[1], [[1], [2, 3]]], {}, ValueError, r"sequences\[1\]: its steps have unequal lengths"),
        ([[], np.ones((1, 2)), np.ones((1, 3))], {}, ValueError, r"sequences\[2\]: .*\(3,\).*sequences\[1\] \(2,\)"),
        ([[1]], {"padding": "past"}, ValueError, "padding.*'post'"),
        ([[1]], {"truncating": 1}, TypeError, "truncating"),
        ([[1]], {"maxlen": 0}, ValueError, "maxlen"),
        ([[1]], {"value": 0.5}, ValueError, "value: 0.5 is no int64"),
        ([[1]], {"value": np.nan}, ValueError, "value: nan is no int64"),
        ([[1], [2, 1.5]], {"dtype": "int32"}, ValueError, r"sequences\[1\]: 1.5 is no int32"),
        ([[1], [2, 1 << 40]], {"dtype": "int32"}, ValueError, r"sequences\[1\]: 1099511627776 is no int32"),
        ([np.array([2**64 - 1], np.uint64)], {"dtype": "int64"}, ValueError, r"sequences\[0\]: 18446744073709551615"),
        ([[1]], {"dtype": "U3"}, TypeError, "dtype"),
    ],
)
def test_bad_input_is_named(arguments, options, error, message):
    with pytest.raises(error, match=message):
        pad_sequences(arguments, **options)
