"""Scores of forecasts: one table row each, and the forecast that all are compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np


class Score(NamedTuple):
    """A score: a value for every step of every window, and what becomes of their mean.

    Attributes
    ----------
    values : callable
        ``values(y, forecast, scale, quantiles, levels)`` (N, H) of what came and was forecast; NaN where y is.
    final : callable
        Of the mean.
    needs : "", "scale" or "quantiles"
    formula : str
    """

    values: Callable[..., np.ndarray]
    final: Callable[[Any], Any]
    needs: str
    formula: str


def _same(value: Any) -> Any:
    return value


def _smape(y: np.ndarray, f: np.ndarray, *_: Any) -> np.ndarray:
    size = np.abs(y) + np.abs(f)
    return np.where(size > 0, 200 * np.abs(y - f) / np.where(size > 0, size, 1), np.where(np.isnan(y), np.nan, 0.0))


def _mape(y: np.ndarray, f: np.ndarray, *_: Any) -> np.ndarray:
    return np.where(y != 0, 100 * np.abs(y - f) / np.where(y != 0, np.abs(y), 1), np.nan)


def _pinball(y: np.ndarray, f: np.ndarray, scale: Any, q: np.ndarray, levels: np.ndarray) -> np.ndarray:
    e = y[..., None] - q
    return np.maximum(levels * e, (levels - 1) * e).mean(axis=-1)


def _coverage(y: np.ndarray, f: np.ndarray, scale: Any, q: np.ndarray, levels: np.ndarray) -> np.ndarray:
    low, high = np.argmin(levels), np.argmax(levels)
    return np.where(np.isnan(y), np.nan, 100.0 * ((q[..., low] <= y) & (y <= q[..., high])))


def _width(y: np.ndarray, f: np.ndarray, scale: Any, q: np.ndarray, levels: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(y), np.nan, q[..., np.argmax(levels)] - q[..., np.argmin(levels)])


SCORES: dict[str, Score] = {
    "mae": Score(lambda y, f, *_: np.abs(y - f), _same, "", "mean |y - f|"),
    "mse": Score(lambda y, f, *_: (y - f) ** 2, _same, "", "mean (y - f)^2"),
    "rmse": Score(lambda y, f, *_: (y - f) ** 2, np.sqrt, "", "root of mse"),
    "smape": Score(_smape, _same, "", "mean 200 |y - f| / (|y| + |f|), 0 where both are 0 (Makridakis et al., 2020)"),
    "mape": Score(_mape, _same, "", "mean 100 |y - f| / |y| where y is not 0"),
    "mase": Score(
        lambda y, f, s, *_: np.abs(y - f) / s[:, None], _same, "scale",
        "mean |y - f| over the in-sample mean |y_t - y_(t-m)| (Hyndman and Koehler, 2006)",
    ),
    "rmsse": Score(
        lambda y, f, s, *_: (y - f) ** 2 / s[:, None], np.sqrt, "scale",
        "root of mean (y - f)^2 over the in-sample mean (y_t - y_(t-m))^2 (Makridakis et al., 2022)",
    ),
    "pinball": Score(_pinball, _same, "quantiles", "mean over quantiles q of max(q e, (q - 1) e), e = y - f_q"),
    "wql": Score(_pinball, _same, "quantiles", "2 sum of pinball / sum |y| (Salinas et al., 2017)"),
    "coverage": Score(_coverage, _same, "quantiles", "percent of y between the lowest and the highest quantile"),
    "width": Score(_width, _same, "quantiles", "mean distance of the lowest and the highest quantile"),
}  # fmt: skip


def score(
    name: str,
    y: np.ndarray,
    forecast: np.ndarray,
    *,
    quantiles: np.ndarray | None = None,
    levels: Sequence[float] | None = None,
    insample_scale: np.ndarray | None = None,
    axis: str | None = None,
) -> Any:
    """A score of N windows.

    Parameters
    ----------
    name : str
        In `SCORES`.
    y, forecast : ndarray, (N, H)
        What came, NaN where nothing was observed: left out, as are series whose scale is not defined.
    quantiles, levels : ndarray (N, H, Q) and sequence of Q floats, optional
        For "pinball", "wql", "coverage" and "width".
    insample_scale : ndarray, (N,), optional
        For "mase" and "rmsse", as `insample_scale` gives it for each window's series.
    axis : "lead" or None
        A number for each lead time, (H,), or one.

    Raises
    ------
    ValueError
        If what the score needs is missing.

    Examples
    --------
    >>> import numpy as np
    >>> float(score("mae", np.array([[1.0, np.nan]]), np.array([[3.0, 0.0]])))
    2.0
    """
    rule = SCORES[name]
    if rule.needs == "quantiles" and (quantiles is None or levels is None):
        raise ValueError(f"score: {name!r} needs quantiles; make the backtest with quantiles=(0.1, 0.5, 0.9)")
    if rule.needs == "scale" and insample_scale is None:
        raise ValueError(f"score: {name!r} needs insample_scale")
    y, forecast = np.asarray(y, np.float64), np.asarray(forecast, np.float64)
    values = rule.values(y, forecast, insample_scale, quantiles, None if levels is None else np.asarray(levels))
    over = 0 if axis == "lead" else None
    counted = ~np.isnan(values)
    total = np.where(counted, values, 0.0).sum(axis=over)
    if name == "wql":
        return 2 * total / np.maximum(np.where(counted, np.abs(y), 0.0).sum(axis=over), 1e-300)
    count = counted.sum(axis=over)
    return rule.final(np.where(count > 0, total / np.maximum(count, 1), np.nan))[()]


def insample_scale(values: np.ndarray, offsets: np.ndarray, period: int, *, squared: bool = False) -> np.ndarray:
    """The mean absolute, or squared, difference of each series from one season to the next, (S,).

    A series of a season or less takes differences from step to step; NaN where there are none, or all are 0.

    Examples
    --------
    >>> import numpy as np
    >>> insample_scale(np.array([1.0, 2.0, 4.0, 4.0]), np.array([0, 4]), 2)
    array([2.5])
    """
    found = np.full(len(offsets) - 1, np.nan)
    for i, (a, b) in enumerate(pairwise(offsets)):
        y = values[a:b].astype(np.float64)
        step = period if len(y) > period else 1
        difference = np.abs(y[step:] - y[:-step])
        difference = difference[~np.isnan(difference)]
        if difference.size and difference.max() > 0:
            found[i] = (difference**2 if squared else difference).mean()
    return found


def seasonal_naive(values: np.ndarray, offsets: np.ndarray, period: int, horizon: int) -> np.ndarray:
    """The value a whole number of seasons before every step, (S, horizon), float64.

    Where it is missing the one of the season before, and so on; then the last observed value; 0 for a series without
    any.

    Examples
    --------
    >>> import numpy as np
    >>> seasonal_naive(np.array([1.0, 2.0, np.nan, 4.0]), np.array([0, 4]), 2, 3).tolist()
    [[1.0, 4.0, 1.0]]
    """
    found = np.zeros((len(offsets) - 1, horizon))
    for i, (a, b) in enumerate(pairwise(offsets)):
        y = values[a:b].astype(np.float64)
        seen = np.flatnonzero(~np.isnan(y))
        if not len(seen):
            continue
        last = np.full(min(period, horizon), y[seen[-1]])
        for k in range(len(last)):
            column = y[::-1][period - 1 - k :: period]  # the phase of step k, the latest first
            column = column[~np.isnan(column)]
            if len(column):
                last[k] = column[0]
        found[i] = np.resize(last, horizon) if len(last) == period else last[:horizon]
    return found
