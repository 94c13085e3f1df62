"""How good forecasts are: points, quantiles and intervals, and the naive forecast they should beat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from elman import checks
from elman.errors import BadValue
from elman.forecasting.flat import observed, owners, panel
from elman.registry import number

__all__ = ["SCORES", "Score", "Scored", "insample_scale", "score", "seasonal_naive"]


@dataclass(frozen=True)
class Score:
    """One row of `SCORES`.

    Attributes
    ----------
    kind : str
        ``"point"``: forecasts (N, H); ``"quantile"``: (N, H, Q), with `quantiles`; ``"interval"``: (N, H, 2), low and
        high.
    terms : callable
        From y (N, H, 1), forecast (N, H, k), scale (N, 1, 1), quantiles (Q,) and level, all float64, the terms (N, H)
        or (N, H, Q); NaN is left out.
    formula : str
        What is averaged and how.
    source : str
        Who defined it so.
    needs : str
        The argument of `score` that it cannot do without: ``"insample_scale"``, ``"level"`` or none.
    squared : bool
        Whether the scale is the mean squared difference, ``insample_scale(..., squared=True)``.
    root : str
        ``"mean"``: the root of the mean; ``"series"``: of the mean over each row, then the mean over rows.
    share : bool
        Whether the terms are summed and divided by the sum of ``|y|`` in place of their number.

    Examples
    --------
    >>> SCORES["rmse"].formula
    'sqrt(mean (y - f)^2)'
    """

    kind: str
    terms: Callable[..., np.ndarray]
    formula: str
    source: str = "textbook"
    needs: str = ""
    squared: bool = False
    root: str = ""
    share: bool = False


class Scored(NamedTuple):
    """What `score` returns; numbers, or arrays (H,) by lead time or (N,) by series.

    Attributes
    ----------
    value : float or ndarray of float64
        NaN where nothing was left to score.
    used, left_out : int or ndarray of int64
        Actual values scored, and those that could not be: missing, or the score is not defined there.

    Examples
    --------
    >>> score("mae", [[1.0, float("nan")]], [[2.0, 2.0]])
    Scored(value=1.0, used=1, left_out=1)
    """

    value: Any
    used: Any
    left_out: Any


def _over(numerator: np.ndarray, denominator: np.ndarray, zero: float = np.nan) -> np.ndarray:
    """The quotient; `zero` where the denominator is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator == 0, zero, numerator / denominator)


def _pinball(y: np.ndarray, f: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    e = y - f
    return np.maximum(quantiles * e, (quantiles - 1) * e)


def _winkler(y: np.ndarray, f: np.ndarray, level: float) -> np.ndarray:
    low, high = f[..., :1], f[..., 1:]
    return high - low + 2 / (1 - level) * (np.maximum(low - y, 0) + np.maximum(y - high, 0))


SCORES: dict[str, Score] = {
    "mae": Score("point", lambda y, f, s, q, a: np.abs(y - f), "mean |y - f|"),
    "mse": Score("point", lambda y, f, s, q, a: (y - f) ** 2, "mean (y - f)^2"),
    "rmse": Score("point", lambda y, f, s, q, a: (y - f) ** 2, "sqrt(mean (y - f)^2)", root="mean"),
    "smape": Score(
        "point", lambda y, f, s, q, a: _over(200 * np.abs(y - f), np.abs(y) + np.abs(f), 0.0),
        "mean 200 |y - f| / (|y| + |f|), 0 where both are 0",
        "Makridakis, Spiliotis & Assimakopoulos (2020), The M4 competition, International Journal of Forecasting 36",
    ),
    "mape": Score(
        "point", lambda y, f, s, q, a: 100 * _over(np.abs(y - f), np.abs(y)),
        "mean 100 |y - f| / |y|, left out where y is 0",
    ),
    "mase": Score(
        "point", lambda y, f, s, q, a: np.abs(y - f) / s, "mean |y - f| / s, s the mean of |y_t - y_(t-m)| in sample",
        "Hyndman & Koehler (2006), International Journal of Forecasting 22", needs="insample_scale",
    ),
    "rmsse": Score(
        "point", lambda y, f, s, q, a: (y - f) ** 2 / s,
        "mean over series of sqrt(mean (y - f)^2 / s), s the mean of (y_t - y_(t-m))^2 in sample",
        "Makridakis, Spiliotis & Assimakopoulos (2022), The M5 competition, International Journal of Forecasting 38",
        needs="insample_scale", squared=True, root="series",
    ),
    "pinball": Score(
        "quantile", lambda y, f, s, q, a: _pinball(y, f, q),
        "mean over steps and quantiles of max(q (y - f_q), (q - 1) (y - f_q))",
        "Koenker & Bassett (1978), Econometrica 46",
    ),
    "wql": Score(
        "quantile", lambda y, f, s, q, a: 2 * _pinball(y, f, q),
        "mean over quantiles of 2 sum max(q (y - f_q), (q - 1) (y - f_q)) / sum |y|",
        "GluonTS mean_wQuantileLoss; at one quantile the q-risk of Salinas et al. (2020), DeepAR", share=True,
    ),
    "coverage": Score(
        "interval", lambda y, f, s, q, a: np.where(np.isnan(y), np.nan, (f[..., :1] <= y) & (y <= f[..., 1:])),
        "share of the y with low <= y <= high",
    ),
    "width": Score(
        "interval", lambda y, f, s, q, a: f[..., 1:] - f[..., :1] + 0 * y, "mean (high - low), where y is observed"
    ),
    "winkler": Score(
        "interval", lambda y, f, s, q, a: _winkler(y, f, a),
        "mean (high - low) + 2 / (1 - level) * the distance of y from the interval",
        "Winkler (1972); Gneiting & Raftery (2007), Journal of the American Statistical Association 102", needs="level",
    ),
}  # fmt: skip
"""Every score by its name; a new one is one row."""


def score(
    name: str,
    y: Any,
    forecast: Any,
    *,
    quantiles: Any = None,
    level: float | None = None,
    insample_scale: Any = None,
    axis: str | None = None,
) -> Scored:
    """Score forecasts against what came.

    Parameters
    ----------
    name : str
        A key of `SCORES`, whose rows have the formulas and their sources.
    y : array_like, (N, H)
        Actual values of N series (or windows) at H lead times; NaN is missing.
    forecast : array_like
        (N, H) for points, (N, H, Q) for quantiles, (N, H, 2) for intervals; finite.
    quantiles : array_like, (Q,)
        In (0, 1), for ``pinball`` and ``wql``.
    level : float
        Nominal coverage in (0, 1), for ``winkler``.
    insample_scale : array_like, (N,)
        For ``mase`` and, of the squares, for ``rmsse``; see the function `insample_scale`. Rows where it is NaN, 0 or
        infinite are left out.
    axis : None, "lead" or "series"
        Over all, one value per lead time (H,), or one per row (N,).

    Returns
    -------
    Scored
        value, used, left_out.

    Raises
    ------
    TypeError, ValueError
        For an unknown name, shapes that do not fit, forecasts that are not finite, a low above its high, or an argument
        that the score needs and did not get.

    Notes
    -----
    Every observed value has the same weight: over all, ``mase`` is the mean of ``|y - f| / s`` over rows and steps,
    which is the mean over series where none is missing.

    Examples
    --------
    >>> y, forecast = [[1.0, 2.0], [3.0, 4.0]], [[1.0, 3.0], [3.0, 6.0]]
    >>> score("mae", y, forecast).value
    0.75
    >>> score("mae", y, forecast, axis="lead").value.tolist()
    [0.0, 1.5]
    >>> score("mase", y, forecast, insample_scale=[1.0, 2.0]).value
    0.5
    """
    row = SCORES[checks.choose("name", name, SCORES)]
    if axis is not None:
        checks.choose("axis", axis, ("lead", "series"))
    actual = observed("y", y, ndim=(2,)).astype(np.float64)[..., None]
    levels = _quantiles(name, quantiles) if row.kind == "quantile" else np.empty(0)
    f = _forecast(row.kind, forecast, actual.shape[:2], len(levels))
    if row.needs == "level":
        if level is None:
            raise BadValue(f"level: {name} needs the nominal coverage of the intervals, between 0 and 1")
        level = _inside("level", level)
    scale = None
    if row.needs == "insample_scale":
        if insample_scale is None:
            raise BadValue(f"insample_scale: {name} needs one number per row of y, got None")
        scale = checks.numeric("insample_scale", insample_scale).astype(np.float64)
        if scale.shape != actual.shape[:1]:
            raise BadValue(f"insample_scale: expected shape {actual.shape[:1]}, got {scale.shape}")
        scale = np.where((scale > 0) & np.isfinite(scale), scale, np.nan)[:, None, None]
    terms = row.terms(actual, f, scale, levels, level).mean(2)
    return _gathered(row, terms, np.abs(actual[..., 0]), axis)


def _gathered(row: Score, terms: np.ndarray, size: np.ndarray, axis: str | None) -> Scored:
    """Means of the terms (N, H) over what `axis` leaves; `size` (N, H) is ``|y|``."""
    over: Any = {None: (0, 1), "lead": 0, "series": 1}[axis]
    seen = ~np.isnan(terms)
    used = seen.sum(over)
    filled = np.where(seen, terms, 0)
    weights = np.where(seen, size, 0) if row.share else seen
    if row.root == "series" and axis is None:
        by_row = np.sqrt(_over(filled.sum(1), seen.sum(1)))
        value = _over(np.where(np.isnan(by_row), 0, by_row).sum(), (~np.isnan(by_row)).sum())
    else:
        value = _over(filled.sum(over), weights.sum(over))
        value = np.sqrt(value) if row.root else value
    left_out = seen.size // used.size - used
    if axis is None:
        return Scored(float(value), int(used), int(left_out))
    return Scored(value, used, left_out)


def _inside(argument: str, value: Any) -> float:
    """`value` as a float between 0 and 1, both excluded."""
    inside = number(argument, value, 0, 1, open_low=True)
    if inside == 1:
        raise BadValue(f"{argument}: expected a number below 1, got {inside}")
    return inside


def _quantiles(name: str, quantiles: Any) -> np.ndarray:
    if quantiles is None:
        raise BadValue(f"quantiles: {name} needs the quantiles of the forecast's last axis, got None")
    levels = checks.real_array("quantiles", quantiles, np.dtype(np.float64), ndim=(1,))
    if not ((levels > 0) & (levels < 1)).all():
        raise BadValue(f"quantiles: expected numbers between 0 and 1, got {levels.tolist()}")
    return levels


def _forecast(kind: str, forecast: Any, shape: tuple[int, ...], count: int) -> np.ndarray:
    """`forecast` as float64, (N, H, k)."""
    wanted = {"point": shape, "quantile": (*shape, count), "interval": (*shape, 2)}[kind]
    f = checks.shaped("forecast", forecast, wanted, np.dtype(np.float64))
    if kind == "interval" and (f[..., 0] > f[..., 1]).any():
        first = tuple(int(i) for i in np.argwhere(f[..., 0] > f[..., 1])[0])
        raise BadValue(f"forecast: expected low <= high, got {f[first].tolist()} at {first}")
    return f[..., None] if kind == "point" else f


def insample_scale(values: Any, offsets: Any, period: int, squared: bool = False) -> np.ndarray:
    """Mean absolute (or squared) difference one season apart: the denominators of ``mase`` (``rmsse``).

    Parameters
    ----------
    values : array_like, (n,)
        The rows of S series that the forecasts were made from; NaN is missing.
    offsets : array_like of int, (S + 1,), or None
        Series s is ``values[offsets[s] : offsets[s + 1]]``. None: one series.
    period : int
        Steps of a season. A series with no two observed values so far apart, as one of at most `period` rows, is
        measured by differences of one step.
    squared : bool
        Squares in place of absolute differences.

    Returns
    -------
    ndarray of float64, (S,)
        NaN for a series that is constant or has no two values to compare: no ratio is defined, so `score` leaves it
        out and counts it.

    Raises
    ------
    TypeError, ValueError
        For arrays that are no panel, or a period below 1.

    Notes
    -----
    Hyndman & Koehler (2006), "Another look at measures of forecast accuracy", International Journal of Forecasting 22.

    Examples
    --------
    >>> insample_scale([1.0, 5.0, 2.0, 7.0, 4.0, 4.0], [0, 4, 6], 2).tolist()
    [1.5, nan]
    """
    array, bounds = panel(values, offsets)
    period, squared = checks.integer("period", period), checks.flag("squared", squared)
    array, series, count = array.astype(np.float64), owners(bounds), len(bounds) - 1

    def means(lag: int) -> np.ndarray:
        differences = array[lag:] - array[:-lag]
        kept = (series[lag:] == series[:-lag]) & ~np.isnan(differences)
        owner, differences = series[lag:][kept], differences[kept]
        terms = differences**2 if squared else np.abs(differences)
        return _over(np.bincount(owner, terms, count), np.bincount(owner, minlength=count))

    found = means(period)
    if np.isnan(found).any():
        found = np.where(np.isnan(found), means(1), found)
    return np.where(found == 0, np.nan, found)


def seasonal_naive(values: Any, offsets: Any, period: int, horizon: int) -> np.ndarray:
    """The last season again: what every forecast should beat.

    Parameters
    ----------
    values : array_like, (n,)
        The rows of S series, one series after the other; NaN is missing.
    offsets : array_like of int, (S + 1,), or None
        Series s is ``values[offsets[s] : offsets[s + 1]]``. None: one series.
    period : int
        Steps of a season; 1 repeats the last value.
    horizon : int
        Steps to forecast.

    Returns
    -------
    ndarray of float32 or float64, (S, horizon)
        The most recent observed value of the same phase; without one the last observed value; without any 0.

    Raises
    ------
    TypeError, ValueError
        For arrays that are no panel, or a period or horizon below 1.

    Notes
    -----
    Hyndman & Athanasopoulos, "Forecasting: principles and practice", 5.2.

    Examples
    --------
    >>> seasonal_naive([1, 2, 3, 4, 5, float("nan")], None, 2, 3).tolist()
    [[5.0, 4.0, 5.0]]
    """
    array, bounds = panel(values, offsets)
    period, horizon = checks.integer("period", period), checks.integer("horizon", horizon)
    kept = ~np.isnan(array)
    series = owners(bounds)[kept]
    # Counted from the end of the series, so that the first step ahead has phase 0.
    phase = (np.arange(len(array))[kept] - bounds[1:][series]) % period
    last = np.zeros(len(bounds) - 1, array.dtype)
    # Of repeated indices the last one stays: the most recent.
    last[series] = array[kept]
    table = np.full((len(last), min(period, horizon)), np.nan, array.dtype)
    near = phase < table.shape[1]
    table[series[near], phase[near]] = array[kept][near]
    table = np.where(np.isnan(table), last[:, None], table)
    return table[:, np.arange(horizon) % period]
