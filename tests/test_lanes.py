"""Series cut into lanes."""

import numpy as np
import pytest

from elman.data import Lanes


def pieces(array, lengths):
    """The valid steps of all lanes, in order."""
    return np.concatenate([lane[:n] for lane, n in zip(array, lengths, strict=True)])


def shortest(counts, lanes):
    """The smallest lane length that works, by trying all."""
    return next(m for m in range(1, max(counts) + 1) if sum(-(-n // m) for n in counts) <= lanes)


@pytest.mark.parametrize("features", [(), (3,)])
@pytest.mark.parametrize(("n", "lanes"), [(1, 1), (7, 7), (12, 4), (10, 4), (9, 4), (100, 32), (101, 1), (5, 4)])
def test_one_series(n, lanes, features, rng):
    x, y = rng.normal(size=(n, *features)).astype(np.float32), rng.integers(1, 9, n)
    made = Lanes(x, y, lanes)
    length = -(-n // lanes)
    assert made.x.shape == (len(made), length, *features) and made.y.shape == made.x.shape[:2]
    assert made.x.dtype == np.float32 and made.y.dtype == y.dtype
    assert len(made) == len(made.lengths) == -(-n // length) <= lanes
    assert made.lengths.dtype == np.int64 and (made.lengths[:-1] == length).all() and made.lengths.min() >= 1
    np.testing.assert_array_equal(pieces(made.x, made.lengths), x)
    np.testing.assert_array_equal(pieces(made.y, made.lengths), y)
    assert not made.x[-1, made.lengths[-1] :].any() and not made.y[-1, made.lengths[-1] :].any()
    assert np.shares_memory(made.x, x) == (n % length == 0)


@pytest.mark.parametrize(
    ("counts", "lanes"),
    [([5, 9], 2), ([5, 9], 5), ([5, 9, 1], 3), ([40, 3, 17, 17], 11), ([8, 8, 8], 8), ([6] * 5, 30)],
)
def test_several_series(counts, lanes, rng):
    x = [rng.normal(size=(n, 2)) for n in counts]
    y = [rng.normal(size=n) for n in counts]
    made = Lanes(x, y, lanes)
    length = shortest(counts, lanes)
    owners = [k for k, n in enumerate(counts) for _ in range(-(-n // length))]
    assert made.x.shape == (len(owners), length, 2) and made.y.shape == (len(owners), length)
    for k, n in enumerate(counts):
        mine = np.flatnonzero(np.array(owners) == k)
        assert made.lengths[mine].sum() == n
        np.testing.assert_array_equal(pieces(made.x[mine], made.lengths[mine]), x[k])
        np.testing.assert_array_equal(pieces(made.y[mine], made.lengths[mine]), y[k])
    padding = np.arange(length) >= made.lengths[:, None]
    assert not made.x[padding].any() and not made.y[padding].any()


def test_dtypes_meet_and_targets_may_be_missing():
    made = Lanes([np.ones(3, np.float32), np.ones(2, np.int16)], lanes=2)
    assert made.x.dtype == np.float32 and made.y is None
    assert Lanes([1, 2, 3, 4], [1.0, 2.0, 3.0, 4.0], 2).y.tolist() == [[1, 2], [3, 4]]


def test_next_token():
    tokens = np.array([4, 5, 6, 7, 8, 9, 2], np.uint8)
    made = Lanes.next_token(tokens, 2)
    assert made.x.tolist() == [[4, 5, 6], [7, 8, 9]] and made.y.tolist() == [[5, 6, 7], [8, 9, 2]]
    assert np.shares_memory(made.x, tokens)
    texts = Lanes.next_token([[1, 2, 3], [4, 5]], 2)
    assert texts.x.tolist() == [[1, 2], [4, 0]] and texts.y.tolist() == [[2, 3], [5, 0]]
    assert texts.lengths.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Lanes(np.ones(9), lanes=0), ValueError, "lanes"),
        (lambda: Lanes(np.ones(9), lanes=10), ValueError, "lanes: x has 9 steps in all, too few for 10"),
        (lambda: Lanes([np.ones(9)] * 3, lanes=2), ValueError, "lanes: 3 series need at least as many"),
        (lambda: Lanes(np.ones((9, 2, 2))), ValueError, r"x: expected a series .*\(9, 2, 2\)"),
        (lambda: Lanes([np.ones(9), np.ones(0)], lanes=2), ValueError, r"x\[1\].*empty"),
        (lambda: Lanes([np.ones((9, 2)), np.ones((9, 3))], lanes=2), ValueError, r"x\[1\]: .*\(3,\).*\(2,\)"),
        (lambda: Lanes([np.ones(9), ["a"]], lanes=2), TypeError, r"x\[1\]"),
        (lambda: Lanes(np.ones(9), np.ones(8), 2), ValueError, "y: expected series of 9 steps, as in x, got 8"),
        (lambda: Lanes([np.ones(2)] * 2, np.ones(4), 2), ValueError, "y: expected series of 2, 2 steps.*got 4"),
        (lambda: Lanes.next_token(np.ones(9), 2), TypeError, "tokens: expected integers"),
        (lambda: Lanes.next_token([[1, 2], [3]], 2), ValueError, "tokens: series 1 has 1"),
    ],
)
def test_bad_input_is_named(make, error, message):
    with pytest.raises(error, match=message):
        make()
