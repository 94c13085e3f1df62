"""Windows of many series by index: scaled, with lags, seasonal naive forecasts and covariates, in one pass.

Series lie one behind the other in ``values``, series s from ``offsets[s]`` to ``offsets[s + 1]``; NaN is missing. A
window is a series and its *origin*, the row of the first step of its forecast. Row t of a window is row ``origin - L +
t`` of the series; rows before the series' first one are padding, those behind its last one are unknown.

Columns of x, in this order: the value, whether it is observed, the lags; the past covariates, whether these are
observed, the calendar, the known covariates, the static ones.

A *direct* window knows nothing behind its origin: its values end there, and a lag of s steps is taken as many whole
times as leads before it. A *stepwise* one (``back = L``) reads at every row the value and the past covariates of the
row before, as a model that forecasts one step after another does, and has targets at all rows.

Scaled values are cut, so that none is infinite and no square of one is.
"""

from __future__ import annotations

import numpy as np

from elman.jit import Entry, helper, prange

FIXED, MEAN_ABS, STANDARD, LAST, COUNTS = range(5)
"""How a window is scaled: by a shift and a scale of its series; by the mean of |y|; by mean and deviation; by the last
value and the scale of its series; by 1 + the mean of |y|."""

# A deviation counts as at least this share of the mean of |y|: a window that is nearly constant is not blown up.
_FLOOR = 1e-3

# Where scaled values and targets are cut, and where the naive forecast is: what a model reads is squared in float32,
# the naive forecast is only added.
MOST, LARGEST = 1e12, 3e38


@helper
def _scaling(kind, values, start, lo, hi, shift, scale):
    """Shift and scale of the rows lo to hi of the series that begins at `start`."""
    total, size, count, last = 0.0, 0.0, 0, np.float64(shift)
    for r in range(lo, hi):
        v = np.float64(values[start + r])
        if v == v:
            total += v
            size += abs(v)
            last = v
            count += 1
    if kind == 0 or count == 0:
        return np.float64(shift), np.float64(scale)
    if kind == 3:
        return last, np.float64(scale)
    size /= count
    if kind == 1:
        return 0.0, size if size > 0 else np.float64(scale)
    if kind == 4:
        return 0.0, 1.0 + size
    mean, square = total / count, 0.0
    for r in range(lo, hi):
        v = np.float64(values[start + r])
        if v == v:
            square += (v - mean) * (v - mean)
    deviation = max(np.sqrt(square / count), _FLOOR * size)
    return mean, deviation if deviation > 0 else np.float64(scale)


@helper
def _scaled(value, shift, scale, most):
    """A value by shift and scale, at most `most` from 0."""
    return np.float32(min(max((np.float64(value) - shift) / scale, -most), most))


@helper
def _earlier(values, start, row, step, period):
    """The row of the nearest value that is `step` plus whole periods before `row`; -1 if there is none."""
    r = row - step
    while r >= 0 and values[start + r] != values[start + r]:
        r -= period
    return r


@helper
def _naive(values, start, length, row, lead, stepwise, seasons):
    """Row of the seasonal naive forecast of `row`, by the first season that has one; -1 if there is none."""
    for q in range(seasons.size):
        period = seasons[q]
        step = period if stepwise or lead < 0 else period * (lead // period + 1)
        # What lies behind the end of a series is unknown, wherever the forecast begins.
        while row - step >= length:
            step += period
        r = _earlier(values, start, row, step, period)
        if r >= 0:
            return r
    return np.int64(-1)


@helper
def _covariates(x, i, t, c, start, row, seen_row, length, s, past, calendar, at, known, known_at, static):
    """Columns from c on of row t, with the past covariates of `seen_row`; -1 for none."""
    p = past.shape[1]
    for j in range(p):
        v = past[start + seen_row, j] if 0 <= seen_row < length else np.float32(np.nan)
        seen = v == v
        x[i, t, c + j] = v if seen else np.float32(0)
        x[i, t, c + p + j] = np.float32(1) if seen else np.float32(0)
    c += 2 * p
    inside = row >= 0
    for j in range(calendar.shape[1]):
        x[i, t, c + j] = calendar[at + row, j] if inside else np.float32(0)
    c += calendar.shape[1]
    for j in range(known.shape[1]):
        x[i, t, c + j] = known[known_at + row, j] if inside else np.float32(0)
    c += known.shape[1]
    for j in range(static.shape[1]):
        x[i, t, c + j] = static[s, j]


@helper
def _window(
    i, values, offsets, series, origins, lookback, back, kind, fixed, lags, seasons, past, calendar, calendar_at,
    known, known_at, static, scale_column, x, y, w, base, place, mask,
):  # fmt: skip
    s, origin = series[i], origins[i]
    start, length = offsets[s], offsets[s + 1] - offsets[s]
    stepwise = back > 0
    low, end = max(np.int64(0), origin - lookback), min(origin, length)
    shift, scale = _scaling(kind, values, start, low, end, fixed[s, 0], fixed[s, 1])
    place[i, 0], place[i, 1] = shift, scale
    for t in range(x.shape[1]):
        row = origin - lookback + t
        lead = row - origin
        # The row whose value stands here.
        r = row - 1 if stepwise else row
        seen = 0 <= r < length and (stepwise or lead < 0) and values[start + r] == values[start + r]
        x[i, t, 0] = _scaled(values[start + r], shift, scale, MOST) if seen else np.float32(0)
        x[i, t, 1] = np.float32(1) if seen else np.float32(0)
        for j in range(lags.size):
            lag = lags[j]
            step = lag if stepwise or lead < 0 else lag * (lead // lag + 1)
            q = row - step
            there = 0 <= q < length and values[start + q] == values[start + q]
            x[i, t, 2 + j] = _scaled(values[start + q], shift, scale, MOST) if there else np.float32(0)
        c = 2 + lags.size
        seen_row = r if r < origin else np.int64(-1)
        _covariates(
            x, i, t, c, start, row, seen_row, length, s, past, calendar, calendar_at[s], known, known_at[s], static
        )
        if scale_column >= 0:
            x[i, t, scale_column] = np.float32(np.log(scale))
        mask[i, t] = 1 if row >= 0 else 0
    for j in range(y.shape[1]):
        row = origin - back + j
        naive = np.int64(-1)
        if seasons.size > 0 and row >= 0:
            naive = _naive(values, start, length, row, row - origin, stepwise, seasons)
        base[i, j] = _scaled(values[start + naive], shift, scale, LARGEST) if naive >= 0 else np.float32(0)
        seen = 0 <= row < length and values[start + row] == values[start + row]
        value = _scaled(values[start + row], shift, scale, LARGEST) if seen else np.float32(0)
        y[i, j] = _scaled(value, np.float64(base[i, j]), 1.0, MOST) if seen else np.float32(0)
        w[i, j] = np.float32(1) if seen else np.float32(0)


@Entry
def fill(
    values, offsets, series, origins, lookback, back, kind, fixed, lags, seasons, past, calendar, calendar_at, known,
    known_at, static, scale_column, x, y, w, base, place, mask,
):  # fmt: skip
    """Write x (b, rows, F), targets y less their `base`, weights w, and each window's shift and scale, `place` (b, 2).

    Parameters
    ----------
    values, offsets
        float32 (n,) and int64 (S + 1,), as the module says.
    series, origins : int64 (b,)
    lookback, back : int
        L; rows before the origin that have targets: 0, or L for stepwise windows.
    kind, fixed
        One of the kinds of scaling; float32 (S, 2), shift and scale of every series, which serve where a window has
        nothing to take them from.
    lags, seasons : int64
        Lags that are columns; seasons of the naive forecast that targets are less by, the first that has one counts
        (none: no base).
    past, calendar, known, static : float32
        (n, P) aligned with `values`; (ticks, C) and (m, K), whose row of the series' first row is ``calendar_at[s]``
        and ``known_at[s]``; (S, Q).
    scale_column : int
        Column of x that gets the logarithm of the scale, or -1.
    x, y, w, base, place, mask
        Outputs; y, w, base are (b, back + horizon), mask is uint8 (b, rows), 0 in the padding.
    """
    for shard in prange((series.size + 15) // 16):
        begin = np.int64(shard) * 16
        for i in range(begin, min(begin + 16, series.size)):
            _window(
                i, values, offsets, series, origins, lookback, back, kind, fixed, lags, seasons, past, calendar,
                calendar_at, known, known_at, static, scale_column, x, y, w, base, place, mask,
            )  # fmt: skip
