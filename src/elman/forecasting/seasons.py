"""Which seasons a series has, and where in the calendar its steps lie."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from elman import checks
from elman.errors import BadType, BadValue
from elman.forecasting.flat import panel
from elman.registry import number

__all__ = ["calendar", "season_length", "season_lengths"]

_HOUR, _DAY, _WEEK, _YEAR = 3600.0, 86400.0, 604800.0, 365.2425 * 86400.0

# 100 series of M4 (hourly, 700 to 960 rows) take 15 ms.
_SERIES, _ROWS = 100, 4096
_LONGEST = 400
"""Longest season, in steps, that is looked for without a candidate."""


def season_length(
    values: Any, offsets: Any = None, seconds: float | None = None, *, candidates: Iterable[int] | None = None
) -> int:
    """Length of the main season in steps; 1 if there is none.

    Parameters
    ----------
    values, offsets, seconds, candidates
        As for `season_lengths`, of whose answer this is the first.

    Returns
    -------
    int
        At least 1.

    Examples
    --------
    >>> from elman.datasets import load_air_passengers
    >>> season_length(load_air_passengers().values)
    12
    """
    found = season_lengths(values, offsets, seconds, candidates=candidates)
    return found[0] if found else 1


def season_lengths(
    values: Any, offsets: Any = None, seconds: float | None = None, *, candidates: Iterable[int] | None = None
) -> tuple[int, ...]:
    """Lengths, in steps, of up to two seasons, the main one first.

    Parameters
    ----------
    values : array_like, (n,)
        The rows of S series, one series after the other; NaN is missing.
    offsets : array_like of int, (S + 1,), or None
        Series s is ``values[offsets[s] : offsets[s + 1]]``. None: one series.
    seconds : float or None
        One step in seconds. It gives the candidates: day and week for steps below a day, week and year for days, the
        year for longer steps (52 weeks, 12 months, 4 quarters). Yearly data have none.
    candidates : iterable of int or None
        Lengths to test, in place of those of `seconds`.

    Returns
    -------
    tuple of int
        Empty if there is no season; a second, longer one only if the series resembles itself clearly more there.

    Raises
    ------
    TypeError, ValueError
        For arrays that are no panel, a step that is not positive, a candidate below 2.

    Notes
    -----
    A straight line and then a moving mean are subtracted from each series, at most the last 4096 rows of 100 series
    evenly spread. Let r(k) be the autocorrelation of the rest, pooled over the series, over all N(k) pairs observed k
    steps apart. A peak alone proves nothing: the r of a random walk has some as well. So the series is whitened by
    ``z_t - phi z_(t-d)``, ``phi = r(d)``, whose autocorrelation follows from r,

    ``w(k) = ((1 + phi^2) r(k) - phi (r(k - d) + r(k + d))) / (1 - phi^2)``.

    A season of k steps needs ``w(k) >= 3 / sqrt(N(k))`` for d = 1, or ``w(k) >= 3 sqrt(2 d / (3 N(k)))`` for
    d = k // 8, which sees slow waves under noise; the bounds are Bartlett's (1946), for differences of a random walk
    over d steps. A candidate also needs two whole seasons of data, r(k) >= 0.1 (0.3 from 40 steps on) and as much above
    the lowest r of the half season before. If none passes, or there are none, the season is the first k up to a third
    of the length and 400 with r(k) >= 0.3, the highest within a quarter of k on both sides, and at least 3/4 of the
    highest such peak.

    Examples
    --------
    >>> from elman.datasets import load_bike_demand
    >>> season_lengths(load_bike_demand().users, seconds=3600)
    (24, 168)
    """
    array, bounds = panel(values, offsets)
    if seconds is not None:
        seconds = number("seconds", seconds, 0, open_low=True)
    if candidates is not None:
        tested = tuple(sorted(checks.integer("candidates", k, 2) for k in candidates))
    elif seconds is None:
        tested = ()
    elif seconds > 0.9 * _YEAR:
        return ()
    else:
        tested = _calendar_seasons(seconds)
    longest = int(np.diff(bounds).max())
    tested = tuple(k for k in tested if 2 * k <= longest)
    free = min(longest // 3, _LONGEST)
    last = max((free, *tested))
    if last < 2:
        return ()
    r, pairs = _autocorrelation(array, bounds, last + last // 8)
    significant = _significant(r, pairs)
    passed = [k for k in tested if significant[k] and _stands_out(r, k)]
    passed = passed or _found(r[: free + 2], significant)
    if not passed:
        return ()
    main, second = passed[0], next(iter(passed[1:]), None)
    # 0.05 on real hourly demand (weekends) is 0.1 to 0.4; multiples of a single season stay within 0.02.
    if second is not None and r[second] - r[main] >= max(0.05, 2 / math.sqrt(pairs[second])):
        return main, second
    return (main,)


def _calendar_seasons(seconds: float) -> tuple[int, ...]:
    """Seasons that people's calendar gives to a step: whole numbers of steps, the year rounded."""
    if seconds < _DAY:
        found = [cycle / seconds for cycle in (_DAY, _WEEK)]
    elif seconds < _WEEK:
        found = [_WEEK / seconds, float(round(_YEAR / seconds))]
    else:
        found = [float(round(_YEAR / seconds))]
    return tuple(int(k) for k in found if k >= 2 and k == int(k))


def _autocorrelation(values: np.ndarray, offsets: np.ndarray, last: int) -> tuple[np.ndarray, np.ndarray]:
    """Pooled autocorrelation and numbers of pairs at the lags 0 to last + 1, each (last + 2,)."""
    lengths = np.diff(offsets)
    usable = np.flatnonzero(lengths >= min(6, lengths.max()))
    chosen = usable[np.linspace(0, len(usable) - 1, min(len(usable), _SERIES)).astype(np.int64)]
    rows = max(_ROWS, 4 * last)
    products, pairs = np.zeros(last + 2), np.zeros(last + 2)
    for s in chosen:
        z, seen = _detrended(values[max(offsets[s], offsets[s + 1] - rows) : offsets[s + 1]], last)
        n = min(len(z), last + 2)
        size = 1 << (2 * len(z) - 1).bit_length()
        # Both real sequences at one transform each; the counts are whole numbers but for rounding.
        products[:n] += np.fft.irfft(np.abs(np.fft.rfft(z, size)) ** 2)[:n]
        pairs[:n] += np.rint(np.fft.irfft(np.abs(np.fft.rfft(seen, size)) ** 2)[:n])
    return products / np.maximum(pairs, 1), pairs


def _detrended(y: np.ndarray, span: int) -> tuple[np.ndarray, np.ndarray]:
    """`y` (n,) less its line and its moving mean over about `span` rows, with variance 1; and 1.0 where observed."""
    seen = ~np.isnan(y)
    t, x = np.flatnonzero(seen).astype(np.float64), y[seen].astype(np.float64)
    z = np.zeros(len(y))
    if len(x) < 4:
        return z, np.zeros(len(y))
    size = np.abs(x).max()
    x, t_mean = x - x.mean(), t.mean()
    x -= (t - t_mean) * (((t - t_mean) * x).sum() / ((t - t_mean) ** 2).sum())
    z[seen] = x
    half, n = (span + 1) // 2, len(y)
    low, high = np.maximum(np.arange(n) - half, 0), np.minimum(np.arange(n) + half + 1, n)
    sums, counts = (np.concatenate([[0.0], np.cumsum(v)]) for v in (z, seen))
    z -= (sums[high] - sums[low]) / np.maximum(counts[high] - counts[low], 1)
    z[~seen] = 0
    deviation = math.sqrt((z * z).sum() / len(x))
    # A constant or straight series leaves rounding only, which has no season.
    if deviation <= 1e-6 * size:
        return np.zeros(len(y)), np.zeros(len(y))
    return z / deviation, seen.astype(np.float64)


def _significant(r: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Whether the whitened series resembles itself at the lags 0 to len(r) - 2; see `season_lengths`."""
    k = np.arange(len(r) - 1)
    passed = np.zeros(len(k), bool)
    for d in (np.ones_like(k), np.maximum(k // 8, 1)):
        phi = np.clip(r[d], 0, 0.9999)
        around = r[np.abs(k - d)] + r[np.minimum(k + d, len(r) - 1)]
        w = ((1 + phi * phi) * r[:-1] - phi * around) / (1 - phi * phi)
        passed |= (k > d) & (w * np.sqrt(pairs[:-1] / np.maximum(1, 2 * d / 3)) >= 3)
    return passed


def _stands_out(r: np.ndarray, k: int) -> bool:
    """Whether the candidate `k` is a season by r alone."""
    least = 0.1 if k < 40 else 0.3
    return bool(r[k] >= least and r[k] - r[max(1, k // 2) : k].min() >= least)


def _found(r: np.ndarray, significant: np.ndarray) -> list[int]:
    """The season that r shows without a candidate, and then the best of its multiples; see `season_lengths`."""
    peaks = []
    for k in range(2, len(r) - 1):
        reach = max(1, k // 4)
        highest = r[k] == r[max(1, k - reach) : k + reach + 1].max()
        if highest and significant[k] and r[k] >= 0.3 and r[k] - r[1 : k + 1].min() >= 0.2:
            peaks.append(k)
    high = max((r[k] for k in peaks), default=0.0)
    main = [k for k in peaks if r[k] >= 0.75 * high][:1]
    multiples = [k for k in peaks if main and k > main[0] and k % main[0] == 0]
    # Two weeks resemble each other as much as two fortnights do: the shorter one of near equals.
    best = max((r[k] for k in multiples), default=0.0)
    return main + [k for k in multiples if r[k] >= best - 0.03][:1]


def calendar(times: Any, seconds: float) -> tuple[tuple[str, ...], np.ndarray]:
    """Sine and cosine of where each time lies in the hour, the day, the week and the year.

    Parameters
    ----------
    times : array_like of datetime64, (n,)
        Any unit; the future as well as the past.
    seconds : float
        One step in seconds. Cycles of fewer than 2 steps are left out, and so is the hour for steps of an hour or
        more, the day for steps of a day, the week for steps beyond a day.

    Returns
    -------
    names : tuple of str, length k
        ``minute_of_hour``, ``hour_of_day``, ``day_of_week``, ``day_of_year`` (``month_of_year`` for steps from 28
        days), each with ``_sin`` and ``_cos``.
    columns : ndarray of float32, (n, k)
        ``sin(2 pi p)`` and ``cos(2 pi p)`` of the part p in [0, 1) of the cycle that has passed: since Monday 00:00
        for the week, since 1 January over the length of that very year for the year, whole months for months.

    Raises
    ------
    TypeError, ValueError
        If `times` are not dates, or hold NaT, or the step is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> names, columns = calendar(np.array(["2024-01-01T00", "2024-01-01T06"], "datetime64[ns]"), 6 * 3600)
    >>> names[:2], columns[:, :2].round(3).tolist()
    (('hour_of_day_sin', 'hour_of_day_cos'), [[0.0, 1.0], [1.0, 0.0]])
    """
    t = np.asarray(times)
    if t.dtype.kind != "M" or t.ndim != 1:
        raise BadType(f"times: expected datetime64 of shape (n,), got dtype {t.dtype} and shape {t.shape}")
    if np.isnat(t).any():
        raise BadValue(f"times: {int(np.isnat(t).sum())} of {len(t)} are NaT")
    seconds = number("seconds", seconds, 0, open_low=True)
    days = t.astype("datetime64[D]")
    parts: dict[str, np.ndarray] = {}
    if 2 * seconds <= _HOUR:
        parts["minute_of_hour"] = (t - t.astype("datetime64[h]")) / np.timedelta64(1, "h")
    if 2 * seconds <= _DAY:
        parts["hour_of_day"] = (t - days) / np.timedelta64(1, "D")
    if seconds <= _DAY:
        # 1970-01-01 was a Thursday.
        parts["day_of_week"] = ((days.astype(np.int64) + 3) % 7 + (t - days) / np.timedelta64(1, "D")) / 7
    years = t.astype("datetime64[Y]")
    if seconds < 28 * _DAY:
        start, end = years.astype("datetime64[D]"), (years + 1).astype("datetime64[D]")
        parts["day_of_year"] = (t - start) / (end - start)
    elif 2 * seconds <= 1.02 * _YEAR:
        parts["month_of_year"] = (t.astype("datetime64[M]") - years.astype("datetime64[M]")).astype(np.int64) / 12
    columns = np.empty((len(t), 2 * len(parts)), np.float32)
    for j, part in enumerate(parts.values()):
        columns[:, 2 * j], columns[:, 2 * j + 1] = np.sin(2 * np.pi * part), np.cos(2 * np.pi * part)
    return tuple(f"{name}_{wave}" for name in parts for wave in ("sin", "cos")), columns
