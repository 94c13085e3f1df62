"""CTC: loss, gradient and decoders against the enumeration of all alignments."""

import itertools
import json

import numpy as np
import pytest

from elman import losses
from elman.ctc import beam_decode, greedy_decode
from elman.losses import CTC
from elman.threads import get_num_threads, num_threads


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def labels_of(alignment, blank):
    return tuple(k for k, _ in itertools.groupby(alignment) if k != blank)


def alignments(x, blank):
    """Every path through (T, C) with its labels and probability."""
    p = softmax(x)
    for path in itertools.product(range(x.shape[1]), repeat=len(x)):
        yield path, labels_of(path, blank), np.prod([p[t, k] for t, k in enumerate(path)])


def loss_of(x, labels, blank):
    return -np.log(sum(p for _, found, p in alignments(x, blank) if found == tuple(labels)))


def gradient_of(x, labels, blank):
    """softmax less the share of the probability whose path is in class k at step t."""
    share, total = np.zeros(x.shape), 0.0
    for path, found, p in alignments(x, blank):
        if found == tuple(labels):
            total += p
            for t, k in enumerate(path):
                share[t, k] += p
    return softmax(x) - share / total


def some(blank):
    """Labels of all kinds, for three classes: none, one, repeated, different."""
    a, b = (k for k in range(3) if k != blank)
    return [(), (a,), (b,), (a, a), (b, a), (a, b, a), (b, b, a), (a, a, a)]


def filled(rows, fill, width=3):
    return np.array([[*row, *[fill] * (width - len(row))] for row in rows])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("blank", [0, 1, 2])
def test_every_alignment_counts(blank, dtype):
    rng = np.random.default_rng(blank)
    rows, loss = some(blank), CTC(blank)
    x = (2 * rng.standard_normal((len(rows), 5, 3))).astype(dtype)
    w = rng.uniform(0.5, 2, len(rows))
    each = np.array([loss_of(row.astype(float), labels, blank) for row, labels in zip(x, rows, strict=True)])
    slopes = np.array([gradient_of(row.astype(float), labels, blank) for row, labels in zip(x, rows, strict=True)])
    for fill in (-1, blank):
        y = loss.check_target(filled(rows, fill), x.shape)
        np.testing.assert_allclose(loss.reference(y, x), each, rtol=1e-12 if dtype == np.float64 else 1e-5)
        gradient = np.full_like(x, 7.0)
        assert loss.on_batch(y, x, None, None, gradient) == pytest.approx(each.mean(), rel=1e-12)
        close = {"rtol": 1e-11, "atol": 1e-15} if dtype == np.float64 else {"rtol": 3e-7}
        np.testing.assert_allclose(gradient, slopes / len(rows), **close)
        spread = np.repeat(w[:, None], 5, axis=1)
        assert loss.on_batch(y, x, spread, None, gradient) == pytest.approx((w * each).mean(), rel=1e-12)
        np.testing.assert_allclose(gradient, w[:, None, None] * slopes / len(rows), **close)
        assert loss(filled(rows, fill), x, w) == pytest.approx((w * each).mean(), rel=1e-12)


def test_gradient_is_the_derivative():
    rng, loss, h = np.random.default_rng(1), CTC(3), 1e-4
    x, w = 3 * rng.standard_normal((4, 14, 6)), rng.uniform(0.5, 2, 4)
    y = loss.check_target([[0, 1, 1, 5], [2, 4, -1, -1], [5, 5, 5, 5], [0, 4, 0, 3]], x.shape)
    gradient = np.empty_like(x)
    value = loss.value_and_gradient(y, x, w, gradient)
    assert (
        loss.value_and_gradient(y, x, w, None) == value == pytest.approx(np.mean(w * loss.reference(y, x)), rel=1e-12)
    )
    for _ in range(3):
        v = rng.standard_normal(x.shape)
        f = [loss.value_and_gradient(y, x + k * h * v, w, None) for k in (-2, -1, 1, 2)]
        numeric = (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h)
        np.testing.assert_allclose(np.vdot(gradient, v), numeric, rtol=1e-8)


def test_masked_steps_are_not_there():
    rng, loss = np.random.default_rng(2), CTC()
    x = rng.standard_normal((4, 7, 3))
    y = loss.check_target(filled([(1, 2), (2, 2), (1,), ()], 0), x.shape)
    mask = np.zeros((4, 7), bool)
    for i, steps in enumerate(([0, 1, 2, 3], [1, 3, 4, 6], [2], [])):
        mask[i, steps] = True
    w = rng.uniform(0.5, 2, 4)
    spread = np.where(mask, w[:, None], rng.uniform(size=(4, 7)))
    broken, gradient = np.where(mask[..., None], x, np.nan), np.full_like(x, np.nan)
    value = loss.on_batch(y, broken, spread, mask, gradient)
    expected = np.zeros_like(x)
    total = 0.0
    for i in range(3):
        labels = y[i][y[i] != 0]
        total += w[i] * loss_of(x[i, mask[i]], labels, 0) / 3
        expected[i, mask[i]] = w[i] * gradient_of(x[i, mask[i]], labels, 0) / 3
    assert value == pytest.approx(total, rel=1e-12)
    np.testing.assert_allclose(gradient, expected, rtol=1e-12, atol=1e-16)
    full, plain = np.empty_like(x), np.empty_like(x)
    assert loss.on_batch(y, x, None, np.ones((4, 7), bool), full) == loss.on_batch(y, x, None, None, plain)
    np.testing.assert_array_equal(full, plain)
    nothing = loss.on_batch(y[3:], broken[3:], None, mask[3:], gradient[3:])
    assert nothing == 0 and not gradient[3].any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_long_sequences_and_extreme_logits_stay_finite(dtype):
    loss = CTC()
    x = np.zeros((2, 3000, 4), dtype)
    x[0, :, 0] = 1e4
    y, gradient = np.array([[1, 2, 2], [3, 0, 0]]), np.empty_like(x)
    each = [loss(y[i : i + 1], x[i : i + 1]) for i in range(2)]
    # Three labels at 1e4 each among blanks, in one of as many ways as there are places: 3000 - 1 choose 3.
    ways = 2999 * 2998 * 2997 / 6
    assert each[0] == pytest.approx(3e4 - np.log(ways), rel=1e-9)
    # All classes equally probable: one label is a run of any length anywhere.
    assert each[1] == pytest.approx(3000 * np.log(4) - np.log(3000 * 3001 / 2), rel=1e-9)
    assert loss.value_and_gradient(y, x, None, gradient) == pytest.approx(np.mean(each), rel=1e-12)
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(gradient.sum(axis=2), 0, atol=1e-6)
    # Labels are where the alignments are: the whole of three steps' probability moves from the blank to them.
    np.testing.assert_allclose(2 * gradient[0].sum(axis=0), [3, -1, -2, 0], atol=1e-3)
    # What is added to all classes of a step changes nothing.
    x = np.random.default_rng(7).integers(-3, 3, (2, 6, 4)).astype(dtype)
    offsets = np.array([[0, 1e4, -1e4, 0, -1e4, 1e4], [1e4, -1e4, 0, 0, 1e4, 0]], dtype)[..., None]
    far, near = np.empty_like(x), np.empty_like(x)
    value = loss.value_and_gradient(y, x + offsets, None, far)
    assert value == pytest.approx(loss.value_and_gradient(y, x, None, near), rel=1e-10)
    np.testing.assert_allclose(far, near, rtol=1e-6, atol=1e-9)
    x = np.array([[[1e4, -1e4], [-1e4, 1e4], [1e4, -1e4]]], dtype)
    assert loss([[1]], x) == 0
    assert loss([[0]], x) == pytest.approx(2e4)


def test_nan_stays_in_its_sample():
    rng, loss = np.random.default_rng(3), CTC()
    x = rng.standard_normal((3, 5, 4))
    y, clean, gradient = np.array([[1, 2], [2, 2], [3, 0]]), np.empty_like(x), np.empty_like(x)
    loss.value_and_gradient(y, x, None, clean)
    for t, k in itertools.product((0, 2, 4), range(4)):
        broken = x.copy()
        broken[1, t, k] = np.nan
        assert np.isnan(loss.value_and_gradient(y, broken, None, gradient))
        assert np.isnan(gradient[1, t]).all()
        np.testing.assert_array_equal(gradient[::2], clean[::2])


@pytest.mark.skipif(get_num_threads() < 2, reason="needs two threads")
def test_bits_do_not_depend_on_threads():
    rng, loss = np.random.default_rng(4), CTC()
    x = rng.standard_normal((7, 60, 5)).astype(np.float32)
    y = loss.check_target(rng.integers(1, 5, (7, 20)), x.shape)
    results = []
    for threads in (1, 2):
        gradient = np.empty_like(x)
        with num_threads(threads):
            value = loss.value_and_gradient(y, x, None, gradient)
        results.append((value, gradient.tobytes()))
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("y", "shape", "message"),
    [
        ([[1, 1]], (1, 2, 3), "y: sample 0 has 2 labels, which take at least 3 steps.* the model's output has 2"),
        ([[1, 0], [1, 2]], (2, 1, 3), r"y: sample 1 has 2 labels.*\(1 of 2 samples"),
        ([[1, 3]], (1, 4, 3), r"y: labels must be integers from 0 to 2.* got 3 at index \(0, 1\)"),
        ([[1, -2]], (1, 4, 3), r"got -2 at index \(0, 1\)"),
        ([[1, 1.5]], (1, 4, 3), "got 1.5"),
        ([[2, 1, 0], [1, 0, 2]], (2, 4, 3), r"y: a label follows the blank, 0, or -1.* got 2 at index \(1, 2\)"),
        ([[-1, 2]], (1, 4, 3), r"a label follows .*index \(0, 1\)"),
        ([[1, np.nan]], (1, 4, 3), "y: 1 of 2 values are not finite"),
        ([1, 2], (2, 4, 3), r"y: shape \(2,\) does not fit the model's output of shape \(2, 4, 3\); .*\(2, L\)"),
        ([[1], [2]], (3, 4, 3), r"y: shape \(2, 1\) does not fit"),
        ([[1]], (1, 3), r"CTC: expected outputs of shape \(N, T, C\)"),
    ],
)
def test_bad_targets(y, shape, message):
    with pytest.raises(ValueError, match=message):
        CTC().check_target(y, shape)


def test_bad_options_and_batches():
    with pytest.raises(ValueError, match="blank: expected an integer of at least 0"):
        CTC(-1)
    with pytest.raises(TypeError, match="blank: expected an integer"):
        CTC(1.5)
    with pytest.raises(ValueError, match="blank: class 3 is none of the 3 classes"):
        CTC(3).check_target([[1]], (1, 4, 3))
    loss, x, y = CTC(), np.zeros((2, 4, 3)), np.array([[1, 0], [2, 2]])
    mask, gradient = np.array([[True] * 4, [True, True, False, False]]), np.full((2, 4, 3), 7.0)
    with pytest.raises(ValueError, match=r"y: sample 1 has 2 labels, which take at least 3 steps.* the mask has 2"):
        loss.on_batch(y, x, None, mask, gradient)
    with pytest.raises(ValueError, match="sample_weight: CTC has one loss per sample"):
        loss.on_batch(y, x, np.array([[1.0] * 4, [1.0, 1.0, 2.0, 1.0]]), None, gradient)
    np.testing.assert_array_equal(gradient, 7)
    with pytest.raises(ValueError, match=r"sample_weight: shape \(3,\)"):
        loss(y, x, [1, 2, 3])
    with pytest.raises(ValueError, match=r"CTC: expected outputs .* y_pred is \(2, 3\)"):
        loss([[1], [2]], np.zeros((2, 3)))
    assert losses.get("ctc") == CTC() and losses.get(json.loads(json.dumps(losses.serialize(CTC(2))))) == CTC(2)


# ---- decoders


@pytest.mark.parametrize("blank", [0, 2])
def test_a_wide_beam_finds_the_most_probable_labels(blank):
    x = 1.5 * np.random.default_rng(5).standard_normal((12, 5, 3))
    greedy = greedy_decode(x, blank=blank)
    differ = 0
    for sample, (labels, log_p), path in zip(x, beam_decode(x, None, 1000, blank), greedy, strict=True):
        totals = {}
        for _, found, p in alignments(sample, blank):
            totals[found] = totals.get(found, 0.0) + p
        best = max(totals, key=totals.get)
        assert tuple(labels) == best and labels.dtype == np.int64
        assert log_p == pytest.approx(np.log(totals[best]), rel=1e-12) and isinstance(log_p, float)
        assert log_p == pytest.approx(-CTC(blank)([list(best) or [-1]], sample[None]), rel=1e-12)
        assert tuple(path) == max(alignments(sample, blank), key=lambda row: row[2])[1] and path.dtype == np.int64
        differ += tuple(path) != best
    assert differ > 0


def test_a_narrow_beam_keeps_less():
    x = np.random.default_rng(6).standard_normal((8, 12, 5))
    wide, narrow = beam_decode(x, beam_width=200), beam_decode(x, beam_width=1)
    assert all(a[1] >= b[1] - 1e-12 for a, b in zip(wide, narrow, strict=True))
    assert any(a[1] > b[1] for a, b in zip(wide, narrow, strict=True))
    for (labels, log_p), sample in zip(narrow, x, strict=True):
        # Less than all alignments of these labels.
        assert log_p <= -CTC()([list(labels) or [0]], sample[None]) + 1e-12
    default = beam_decode(x)
    ten = beam_decode(x, beam_width=10)
    assert all(a[1] == b[1] and (a[0] == b[0]).all() for a, b in zip(default, ten, strict=True))


def test_repeats_need_a_blank_and_lengths_end_a_sample():
    path = np.array([[1, 1, 0, 1, 2, 2, 0, 0, 2], [0, 0, 0, 0, 0, 0, 0, 0, 0], [2, 1, 2, 0, 1, 1, 1, 1, 1]])
    x = 50.0 * np.eye(3)[path]
    expected = [[1, 1, 2, 2], [], [2, 1, 2, 1]]
    cut = [[1, 1, 2], [], [2, 1, 2]]
    for decode in (greedy_decode, lambda *args: [labels for labels, _ in beam_decode(*args)]):
        assert [row.tolist() for row in decode(x)] == expected
        assert [row.tolist() for row in decode(x, [6, 0, 4])] == cut
    assert beam_decode(x, [6, 0, 4])[1][1] == 0.0
    # Of equally probable labels the first.
    assert greedy_decode(np.zeros((1, 2, 3)))[0].tolist() == []
    labels, log_p = beam_decode(np.zeros((1, 1, 3)), beam_width=2)[0]
    assert labels.tolist() == [] and log_p == pytest.approx(-np.log(3))


@pytest.mark.parametrize("decode", [greedy_decode, beam_decode])
def test_bad_arguments_of_decoders(decode):
    x = np.zeros((2, 4, 3))
    for options, message in [
        ({"blank": 3}, "blank: class 3 is none of the 3 classes"),
        ({"lengths": [1]}, r"lengths: expected shape \(2,\), got \(1,\)"),
        ({"lengths": [1, 5]}, "lengths: expected integers from 0 to 4, got 5 at index 1"),
        ({"lengths": [-1, 5]}, "got -1 at index 0"),
        ({"lengths": [0.5, 1]}, "got 0.5 at index 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            decode(x, **options)
    with pytest.raises(ValueError, match=r"outputs: expected shape \(N, T, C\)"):
        decode(x[0])
    with pytest.raises(ValueError, match="outputs: 1 of 24 values are not finite"):
        decode(np.where(np.arange(24).reshape(2, 4, 3) == 5, np.nan, x))
    with pytest.raises(ValueError, match="beam_width: expected an integer of at least 1"):
        beam_decode(x, beam_width=0)
