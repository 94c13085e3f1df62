"""The windows kernel against a slow twin, row by row."""

import numpy as np
import pytest

from elman.kernels import windows as kernel
from elman.threads import usable_threads

KINDS = [kernel.FIXED, kernel.MEAN_ABS, kernel.STANDARD, kernel.LAST, kernel.COUNTS]


def place(kind, seen, fixed):
    """Shift and scale from the observed values before the origin."""
    if kind == kernel.FIXED or not len(seen):
        return tuple(fixed)
    if kind == kernel.LAST:
        return seen[-1], fixed[1]
    size = np.abs(seen).mean()
    if kind == kernel.MEAN_ABS:
        return 0.0, size or fixed[1]
    if kind == kernel.COUNTS:
        return 0.0, 1 + size
    return seen.mean(), max(seen.std(), 1e-3 * size) or fixed[1]


def naive(known, row, seasons):
    """The nearest known value a whole number of seasons before a row, by the first season that has one; else None."""
    for period in seasons:
        for r in range(row - period, -1, -period):
            if r < len(known) and not np.isnan(known[r]):
                return known[r]
    return None


class Panel:
    """Random series with everything a window can read."""

    def __init__(self, rng, lengths, missing=0.2, size=1.0):
        self.offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        n, count = int(self.offsets[-1]), len(lengths)
        self.values = (size * rng.normal(2, 3, n)).astype(np.float32)
        self.values[rng.random(n) < missing] = np.nan
        self.fixed = np.stack([rng.normal(size=count), rng.uniform(0.5, 2, count)], 1)
        self.past = rng.normal(size=(n, 2)).astype(np.float32)
        self.past[rng.random((n, 2)) < missing] = np.nan
        extended = np.asarray(lengths) + 9
        self.at = (np.cumsum(extended) - extended).astype(np.int64)
        self.calendar = rng.normal(size=(extended.sum(), 2)).astype(np.float32)
        self.known = rng.normal(size=(extended.sum(), 1)).astype(np.float32)
        self.static = rng.normal(size=(count, 2)).astype(np.float32)

    def fill(self, series, origins, lookback, horizon, stepwise, kind, lags, seasons, log_scale=True):
        back = lookback if stepwise else 0
        width = 2 + len(lags) + 2 * 2 + 2 + 1 + 2 + log_scale
        n, rows = len(series), lookback + horizon
        x = np.full((n, rows, width), np.nan, np.float32)
        y, w, base = (np.full((n, back + horizon), np.nan, np.float32) for _ in range(3))
        where, mask = np.full((n, 2), np.nan), np.full((n, rows), 7, np.uint8)
        kernel.fill(
            usable_threads(), self.values, self.offsets, np.array(series, np.int64), np.array(origins, np.int64),
            lookback, back, kind, self.fixed, np.array(lags, np.int64), np.array(seasons, np.int64), self.past,
            self.calendar, self.at, self.known, self.at, self.static, width - 1 if log_scale else -1, x, y, w, base,
            where, mask,
        )  # fmt: skip
        return x, y, w, base, where, mask

    def twin(self, s, origin, lookback, horizon, stepwise, kind, lags, seasons, log_scale=True):
        """One window: its rows, targets, weights, base, place and mask."""
        a, b = self.offsets[s : s + 2]
        v, past = self.values[a:b].astype(np.float64), self.past[a:b]
        before = v[max(0, origin - lookback) : min(origin, len(v))]
        shift, scale = place(kind, before[~np.isnan(before)], self.fixed[s])
        value = lambda r, end: (v[r] - shift) / scale if 0 <= r < min(end, len(v)) and not np.isnan(v[r]) else None
        x, mask = [], []
        for row in range(origin - lookback, origin + horizon):
            # A stepwise window reads the row before, also behind the origin; a direct one nothing there.
            end = len(v) if stepwise else origin
            here = row - 1 if stepwise else row
            found = value(here, end)
            columns = [found or 0.0, float(found is not None)]
            for lag in lags:
                step = lag
                while not stepwise and row - step >= origin:
                    step += lag
                columns.append(value(row - step, end) or 0.0)
            p = past[here] if 0 <= here < min(origin, len(v)) else np.full(2, np.nan)
            columns += [*np.nan_to_num(p), *(~np.isnan(p)).astype(float)]
            inside = row >= 0
            columns += list(self.calendar[self.at[s] + row] if inside else [0.0, 0.0])
            columns += list(self.known[self.at[s] + row] if inside else [0.0])
            columns += list(self.static[s])
            x.append(columns + ([np.log(scale)] if log_scale else []))
            mask.append(inside)
        targets, weights, bases = [], [], []
        for row in range(origin - (lookback if stepwise else 0), origin + horizon):
            found = naive(v if stepwise or row < origin else v[:origin], row, seasons) if row >= 0 else None
            bases.append(0.0 if found is None else (found - shift) / scale)
            seen = 0 <= row < len(v) and not np.isnan(v[row])
            targets.append((v[row] - shift) / scale - bases[-1] if seen else 0.0)
            weights.append(float(seen))
        return x, targets, weights, bases, (shift, scale), mask


def compare(panel, series, origins, *options):
    found = panel.fill(series, origins, *options)
    for i, (s, origin) in enumerate(zip(series, origins, strict=True)):
        for name, got, wanted in zip(
            ("x", "y", "w", "base", "place", "mask"), found, panel.twin(s, origin, *options), strict=True
        ):
            np.testing.assert_allclose(got[i], wanted, 2e-5, 1e-5, err_msg=f"{name} of series {s} at {origin}")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stepwise", [False, True])
@pytest.mark.parametrize(
    ("lags", "seasons"), [((), ()), ((1,), (1,)), ((3, 6), (3, 1)), ((2, 7, 14), (7, 2, 1)), ((50,), (50, 1))]
)
def test_against_a_twin(kind, stepwise, lags, seasons, rng):
    panel = Panel(rng, [1, 2, 5, 17, 30])
    windows = [(s, o) for s, n in enumerate(np.diff(panel.offsets)) for o in range(1, n + 1)]
    series, origins = np.array(windows).T
    compare(panel, series, origins, 6, 4, stepwise, kind, lags, seasons)


@pytest.mark.parametrize("stepwise", [False, True])
@pytest.mark.parametrize(("lookback", "horizon"), [(1, 1), (1, 9), (40, 2), (3, 9)])
def test_lengths(lookback, horizon, stepwise, rng):
    panel = Panel(rng, [3, 25])
    compare(
        panel, [0, 0, 1, 1, 1], [1, 3, 1, 12, 25], lookback, horizon, stepwise, kernel.STANDARD, (4,), (4, 1), False
    )


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_observed(kind, rng):
    panel = Panel(rng, [8, 8])
    panel.values[:8], panel.values[8:] = np.nan, 0
    compare(panel, [0, 1], [8, 8], 4, 3, False, kind, (2,), (2, 1))
    x, y, _, _, where, _ = panel.fill([0, 1], [8, 8], 4, 3, False, kind, (2,), (2, 1))
    assert np.isfinite(x).all() and np.isfinite(y).all() and (where[:, 1] > 0).all()


def test_a_direct_window_reads_nothing_behind_its_origin(rng):
    panel = Panel(rng, [30], missing=0)
    options = (6, 5, False, kernel.STANDARD, (2, 7), (7, 1))
    before = panel.fill([0], [20], *options)
    panel.values[20:], panel.past[20:] = 1e6, -1e6
    after = panel.fill([0], [20], *options)
    for k in (0, 3, 4):  # x, base, place
        np.testing.assert_array_equal(before[k], after[k])
    assert not np.array_equal(before[1], after[1])


def test_a_stepwise_window_reads_the_past_covariates_of_the_row_before(rng):
    panel = Panel(rng, [12], missing=0)
    x = panel.fill([0], [10], 4, 3, True, kernel.FIXED, (), ())[0][0]
    np.testing.assert_array_equal(x[:5, 2:4], panel.past[5:10])
    np.testing.assert_array_equal(x[:, 4], [1, 1, 1, 1, 1, 0, 0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stepwise", [False, True])
@pytest.mark.parametrize("sizes", [(1e-30, 1e30), (1e30, 1e-30), (3.4e38, -3.4e38), (1e-45, 3e38)])
def test_scaled_values_are_finite_and_so_are_their_squares(kind, stepwise, sizes, rng):
    panel = Panel(rng, [20], missing=0)
    panel.values[:10], panel.values[10:] = sizes
    x, y, _, base, _, _ = panel.fill([0] * 5, [5, 9, 10, 11, 15], 4, 6, stepwise, kind, (3,), (3, 1), False)
    assert np.isfinite(base).all() and np.isfinite(x * x).all() and np.isfinite(y * y).all()
    panel.fixed[:] = 0, 1
    raw = panel.fill([0], [15], 2, 2, stepwise, kernel.FIXED, (), (1,), False)[3]
    np.testing.assert_allclose(raw[0, -1], np.clip(panel.values[-1], -3e38, 3e38))
