"""Windows by index and the permutation that needs no table."""

import pickle
import tracemalloc

import numpy as np
import pytest

from elman.data import timeseries_windows, windows
from elman.data.windows import Permutation


def twin(data, targets, length, stride, rate, start, end):
    """All windows and their targets, one by one."""
    data = data.reshape(len(data), -1)
    found, wanted = [], []
    for begin in range(start, end, stride):
        steps = [begin + k * rate for k in range(length)]
        if steps[-1] < end and (targets is None or begin < len(targets)):
            found.append(data[steps])
            wanted.append(None if targets is None else targets[begin])
    return np.array(found), np.array(wanted)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.bool_])
@pytest.mark.parametrize("features", [(), (3,)])
@pytest.mark.parametrize(
    ("length", "stride", "rate", "start", "end", "missing"),
    [
        (4, 1, 1, None, None, 0),
        (1, 1, 1, None, None, 0),
        (4, 3, 1, None, None, 4),
        (4, 2, 3, None, None, 9),
        (3, 5, 2, 4, 29, 0),
        (3, 1, 1, 7, 31, 20),
        (31, 1, 1, None, None, 0),
        (5, 1, 2, None, None, -6),  # more targets than steps
    ],
)
def test_against_a_twin(dtype, features, length, stride, rate, start, end, missing, rng):
    data = (rng.normal(size=(31, *features)) * 9).astype(dtype)
    targets = rng.normal(size=(31 - missing, 2))
    made = timeseries_windows(data, targets, length, stride, rate, start, end)
    x, y = twin(data, targets, length, stride, rate, start or 0, end or 31)
    assert made.shape == x.shape and len(made) == len(x)
    assert made.ndim == 3 and made.dtype == dtype
    np.testing.assert_array_equal(made[:], x)
    np.testing.assert_array_equal(np.asarray(made), x)
    np.testing.assert_array_equal(made.targets, y)
    assert np.shares_memory(made.targets, targets) and np.shares_memory(made.base, data)
    rows = rng.integers(0, len(x), 9)
    for kind in (np.float32, np.float64):
        out = np.full((9, *x.shape[1:]), np.nan, kind)
        assert made.take(rows, out) is out
        np.testing.assert_array_equal(out, x[rows].astype(kind))
    np.testing.assert_array_equal(made[rows], x[rows])
    np.testing.assert_array_equal(made[-1], x[-1])
    np.testing.assert_array_equal(made.base.reshape(-1)[[0, -1]], [x[0].flat[0], x[-1].flat[-1]])


def test_no_window_is_lost():
    """The recipe of cutting the data by the delay keeps 100 - 12 - 11 windows; 100 - 12 have a target."""
    series = np.arange(100.0)
    delay = length = 12
    lost = timeseries_windows(series[:-delay], series[delay:], length)
    made = timeseries_windows(series, series[delay:], length)
    assert (len(lost), len(made)) == (77, 88)
    np.testing.assert_array_equal(made.targets, made[:, -1, 0] + 1)
    assert made[-1][-1] == 98 and made.targets[-1] == 99
    assert len(timeseries_windows(series, None, length)) == 89


def test_several_steps_ahead(rng):
    series = rng.normal(size=50)
    ahead = np.lib.stride_tricks.sliding_window_view(series[8:], 3)
    made = timeseries_windows(series, ahead, 8)
    assert len(made) == 50 - 8 - 3 + 1
    np.testing.assert_array_equal(made.targets[-1], series[-3:])
    np.testing.assert_array_equal(made[-1][:, 0], series[-11:-3])


def test_strided_read_only_and_mapped_series(tmp_path, rng):
    data = rng.normal(size=(40, 4)).astype(np.float32)
    np.save(tmp_path / "series.npy", data)
    mapped = np.load(tmp_path / "series.npy", mmap_mode="r")
    read_only = data.copy()
    read_only.flags.writeable = False
    views = [mapped, read_only, np.asfortranarray(data), np.repeat(data, 2, axis=0)[::2], data[::-1].copy()[::-1]]
    for view in views:
        np.testing.assert_array_equal(
            timeseries_windows(view, None, 5, 2, 3)[:], timeseries_windows(data, None, 5, 2, 3)
        )
    made = timeseries_windows(data, None, 5)
    made[0][:] = 0
    assert data[:5].all()  # what is given out is a copy


def test_parts_are_views_of_the_same_series(rng):
    data, targets = rng.normal(size=60), rng.normal(size=60)
    made = timeseries_windows(data, targets, 5, 3, 2, 4)
    for start, stop in [(0, len(made)), (2, 3), (5, 11)]:
        part = made.part(start, stop)
        np.testing.assert_array_equal(part, made[start:stop])
        np.testing.assert_array_equal(part.targets, made.targets[start:stop])
        assert np.shares_memory(part.base, data)
    for start, stop in [(-1, 3), (3, 3), (0, len(made) + 1)]:
        with pytest.raises(ValueError, match="start, stop"):
            made.part(start, stop)


def test_windows_are_pickled_as_a_series():
    series = np.arange(10_000.0)
    made = timeseries_windows(series, None, 500)
    stored = pickle.dumps(made)
    assert len(stored) < 2 * series.nbytes
    np.testing.assert_array_equal(pickle.loads(stored)[::100], made[::100])


def test_a_long_series_costs_a_batch_of_memory():
    series = np.zeros(2_000_000, np.float32)
    out = np.empty((32, 168, 1), np.float32)
    tracemalloc.start()
    made = timeseries_windows(series, series[168:], 168)
    order = Permutation(len(made), np.random.default_rng(0))
    for start in range(0, 100 * 32, 32):
        made.take(order[start : start + 32], out)
        made.targets[order[start : start + 32]]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # 8 MB of series: 32 x 168 x 4 bytes of a batch, and a few blocks of 64 KiB of indices.
    assert peak < 1_500_000


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((np.ones((2, 2, 2)), None, 1), {}, ValueError, "data: expected shape"),
        ((["a"], None, 1), {}, TypeError, "data"),
        (([], None, 1), {}, ValueError, "data.*empty"),
        ((np.ones(5), None, 0), {}, ValueError, "sequence_length"),
        ((np.ones(5), None, 6), {}, ValueError, "sequence_length: .*covers 6 steps.*from 0 to 5 have 5"),
        ((np.ones(5), None, 3), {"sampling_rate": 3}, ValueError, "covers 7 steps"),
        ((np.ones(5), None, 3), {"sampling_rate": 0}, ValueError, "sampling_rate"),
        ((np.ones(5), None, 3), {"sequence_stride": 1.5}, TypeError, "sequence_stride"),
        ((np.ones(5), None, 3), {"start_index": -1}, ValueError, "start_index"),
        ((np.ones(5), None, 3), {"start_index": 9}, ValueError, "have 0"),
        ((np.ones(5), None, 2), {"start_index": 3, "end_index": 3}, ValueError, "end_index"),
        ((np.ones(5), None, 2), {"end_index": 6}, ValueError, "end_index: the series has 5 steps, got 6"),
        ((np.ones(5), 3.0, 2), {}, ValueError, r"targets: shape \(\)"),
        ((np.ones(5), np.ones(2), 2), {"start_index": 2}, ValueError, "targets: .*begins at 2"),
    ],
)
def test_bad_input_is_named(arguments, options, error, message):
    with pytest.raises(error, match=message):
        timeseries_windows(*arguments, **options)


# ---- the permutation

SIZES = [*range(40), 63, 64, 65, 1000, 4095, 4097]


def test_every_row_comes_once(monkeypatch):
    for table in (windows._TABLE, 0):
        monkeypatch.setattr(windows, "_TABLE", table)
        for n in SIZES:
            order = Permutation(n, np.random.default_rng(n))
            assert len(order) == n and order[:].dtype == np.int64
            np.testing.assert_array_equal(np.sort(order[:]), np.arange(n))


@pytest.mark.parametrize("n", [65_536, 65_537, 100_003, 131_072, 131_073])
def test_batches_and_blocks_make_one_permutation(n):
    order = Permutation(n, np.random.default_rng(3))
    whole = order[:].copy()
    np.testing.assert_array_equal(np.sort(whole), np.arange(n))
    parts = Permutation(n, np.random.default_rng(3))
    np.testing.assert_array_equal(np.concatenate([parts[a : a + 1000] for a in range(0, n, 1000)]), whole)
    # Backwards, beyond the end, empty, and single places.
    np.testing.assert_array_equal(parts[17:40], whole[17:40])
    np.testing.assert_array_equal(parts[n - 5 : n + 5], whole[-5:])
    assert parts[7:7].size == parts[n:].size == parts[9:4].size == 0
    assert (parts[0], parts[-1]) == (whole[0], whole[-1])


def test_the_generator_decides_and_moves_on():
    for n in (1000, 70_000):
        rng = np.random.default_rng(5)
        first, second = Permutation(n, rng)[:100], Permutation(n, rng)[:100]
        assert not np.array_equal(first, second)
        np.testing.assert_array_equal(Permutation(n, np.random.default_rng(5))[:100], first)


def chi_square(counts):
    expected = counts.sum() / counts.size
    return ((counts - expected) ** 2 / expected).sum()


def test_places_are_uniform_and_pairs_independent(monkeypatch):
    """The 16 x 16 counts of place and row over many keys, and those of neighbours in one order."""
    monkeypatch.setattr(windows, "_TABLE", 0)
    n = 100
    places = np.zeros((n, n))
    rng = np.random.default_rng(11)
    for _ in range(2000):
        places[np.arange(n), Permutation(n, rng)[:]] += 1
    # 99^2 degrees of freedom: mean 9801, standard deviation 140.
    assert abs(chi_square(places) - 9801) < 5 * 140
    n = 160_000
    order = Permutation(n, rng)[:] // (n // 16)
    for lag in (1, 2, 8192):
        pairs = np.bincount(order[:-lag] * 16 + order[lag:], minlength=256)
        assert abs(chi_square(pairs) - 255) < 5 * np.sqrt(2 * 255)
    place = np.bincount(np.arange(n) // (n // 16) * 16 + order, minlength=256)
    assert abs(chi_square(place) - 225) < 5 * np.sqrt(2 * 225)


@pytest.mark.parametrize(
    ("n", "key", "error", "message"),
    [
        (-1, None, ValueError, "n: "),
        (5, slice(None, None, 2), ValueError, "step 1"),
        (5, 5, IndexError, "range"),
        (5, -6, ValueError, "place"),
        (5, "a", TypeError, "place"),
    ],
)
def test_bad_indices(n, key, error, message):
    with pytest.raises(error, match=message):
        Permutation(n, np.random.default_rng(0))[key]
