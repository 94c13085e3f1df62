"""Intervals for any forecast, from the errors it made before."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from elman import checks
from elman.errors import BadValue
from elman.forecasting.flat import observed
from elman.registry import number
from elman.warn import warn

__all__ = ["Conformal"]


@dataclass(frozen=True, eq=False)
class Conformal:
    """Split conformal intervals, one half width per lead time; `fit` makes it.

    Attributes
    ----------
    residuals : ndarray of float64, (n, H)
        Absolute errors (over the scale of their series, if `scaled`), ascending at each lead time, NaN behind them.
    counts : ndarray of int64, (H,)
        Errors observed at each lead time.
    scaled : bool
        Whether `interval` needs the scale of each series.

    Notes
    -----
    At a lead time with n errors, the half width for a level is the k-th smallest of them, ``k = ceil((n + 1) level)``.
    If past and future errors are exchangeable, the interval covers with a probability of at least the level and at most
    the level + 1 / (n + 1): Vovk, Gammerman & Shafer (2005), "Algorithmic learning in a random world"; Lei, G'Sell,
    Rinaldo, Tibshirani & Wasserman (2018), Journal of the American Statistical Association 113, theorem 2.2.

    Where ``k > n`` no finite interval keeps the promise. The errors of the neighbouring lead times, one more on both
    sides at a time, are pooled until there are enough; if all together are too few, the largest is taken. A warning
    tells of both.

    Examples
    --------
    >>> import numpy as np
    >>> conformal = Conformal.fit(np.arange(1.0, 20.0)[:, None], np.zeros((19, 1)))
    >>> low, high = conformal.interval([[100.0]], 0.9)
    >>> low.tolist(), high.tolist()
    ([[82.0]], [[118.0]])
    """

    residuals: np.ndarray
    counts: np.ndarray
    scaled: bool

    @classmethod
    def fit(cls, y: Any, forecast: Any, scale: Any = None) -> Conformal:
        """Keep the errors of forecasts whose outcome is known and was not trained on.

        Parameters
        ----------
        y : array_like, (N, H)
            Actual values of N windows at H lead times; NaN is missing and left out.
        forecast : array_like, (N, H)
            Finite.
        scale : array_like, (N,), or None
            Positive: what an error is measured in, such as the mean size of the series, so that series of all sizes
            share one set of errors.

        Returns
        -------
        Conformal

        Raises
        ------
        TypeError, ValueError
            For shapes that do not fit, forecasts that are not finite, a scale that is not positive, or if no actual
            value is observed.

        Examples
        --------
        >>> Conformal.fit([[1.0, 2.0], [4.0, float("nan")]], [[2.0, 2.0], [2.0, 2.0]]).residuals.tolist()
        [[1.0, 0.0], [2.0, nan]]
        """
        actual = observed("y", y, ndim=(2,)).astype(np.float64)
        errors = np.abs(actual - checks.shaped("forecast", forecast, actual.shape, np.dtype(np.float64)))
        if scale is not None:
            errors /= _scale(scale, len(errors))[:, None]
        counts = (~np.isnan(errors)).sum(0)
        if not counts.any():
            raise BadValue(f"y: none of the {actual.size} values is observed, so there is no error to learn from")
        # NaN sorts last.
        return cls(np.sort(errors, axis=0)[: counts.max()], counts, scale is not None)

    def interval(self, forecast: Any, level: float, scale: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """Intervals around forecasts.

        Parameters
        ----------
        forecast : array_like, (S, h)
            The first h <= H lead times; finite.
        level : float
            Probability to cover, in (0, 1).
        scale : array_like, (S,), or None
            As in `fit`, which must have had one too.

        Returns
        -------
        low, high : ndarray of float64, (S, h)

        Raises
        ------
        TypeError, ValueError
            For shapes that do not fit, or a scale missing or not asked for.

        Warns
        -----
        UserWarning
            Once a call, if lead times had to share their errors or the level cannot be kept.

        Examples
        --------
        >>> conformal = Conformal.fit([[1.0], [4.0], [2.0]], [[2.0], [2.0], [2.0]], [1.0, 2.0, 1.0])
        >>> low, high = conformal.interval([[0.0], [0.0]], 0.5, [1.0, 10.0])
        >>> high.tolist()
        [[1.0], [10.0]]
        """
        f = checks.real_array("forecast", forecast, np.dtype(np.float64), ndim=(2,))
        if f.shape[1] > len(self.counts):
            raise BadValue(f"forecast: expected at most {len(self.counts)} lead times, got shape {f.shape}")
        if (scale is not None) != self.scaled:
            raise BadValue(
                f"scale: the errors were fitted with{'' if self.scaled else 'out'} a scale; do the same here"
            )
        half = self.half_widths(level, f.shape[1])[None, :]
        if scale is not None:
            half = half * _scale(scale, len(f))[:, None]
        return f - half, f + half

    def half_widths(self, level: float, horizon: int | None = None) -> np.ndarray:
        """Half widths, in units of the scale if there is one, of the first `horizon` lead times (all by default), (h,).

        Examples
        --------
        >>> Conformal.fit([[1.0], [4.0], [2.0]], [[2.0], [2.0], [2.0]]).half_widths(0.75).tolist()
        [2.0]
        """
        level = number("level", level, 0, 1, open_low=True)
        if level == 1:
            raise BadValue("level: expected a number below 1, got 1.0; only an infinite interval always covers")
        leads = len(self.counts)
        wanted = range(leads if horizon is None else min(checks.integer("horizon", horizon), leads))
        half, shared, short = np.empty(len(wanted)), 0, 0
        for h in wanted:
            reach = 0
            while _rank(self._pooled(h, reach), level) > self._pooled(h, reach) and reach < leads:
                reach += 1
            count = self._pooled(h, reach)
            rank = _rank(count, level)
            shared, short = shared + (reach > 0), short + (rank > count)
            near = self.residuals[:, max(0, h - reach) : h + reach + 1]
            # NaN sorts last here as well.
            half[h] = np.sort(near, axis=None)[min(rank, count) - 1]
        if shared:
            fewest = int(self.counts[: len(wanted)].min())
            need = math.ceil(level / (1 - level) - 1e-9)
            outcome = "; all together are too few, so the largest error stands in and covers less" if short else ""
            warn(
                f"level {level:g} needs {need} errors at a lead time, {shared} of {len(wanted)} have fewer (the least "
                f"is {fewest}) and share those of their neighbours{outcome}; calibrate on more windows"
            )
        return half

    def _pooled(self, lead: int, reach: int) -> int:
        """Errors at the lead times up to `reach` away from `lead`."""
        return int(self.counts[max(0, lead - reach) : lead + reach + 1].sum())

    def arrays(self) -> dict[str, np.ndarray]:
        """What `from_arrays` needs, as plain arrays to save.

        Examples
        --------
        >>> sorted(Conformal.fit([[1.0]], [[2.0]]).arrays())
        ['residuals', 'scaled']
        """
        return {"residuals": self.residuals, "scaled": np.array(self.scaled)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Conformal:
        """The object whose `arrays` these are; ValueError if they are none.

        Examples
        --------
        >>> Conformal.from_arrays(Conformal.fit([[1.0]], [[2.0]]).arrays()).residuals.tolist()
        [[1.0]]
        """
        missing = {"residuals", "scaled"} - set(arrays)
        if missing:
            raise BadValue(f"arrays: expected 'residuals' and 'scaled', got {sorted(arrays)}")
        residuals = observed("residuals", arrays["residuals"], ndim=(2,)).astype(np.float64)
        if (residuals < 0).any():
            raise BadValue(f"arrays: expected residuals of at least 0, got {np.nanmin(residuals)}")
        return cls(np.sort(residuals, axis=0), (~np.isnan(residuals)).sum(0), bool(arrays["scaled"]))


def _rank(count: int, level: float) -> int:
    """``ceil((count + 1) level)``; a product just above a whole number by rounding is that number."""
    return max(1, math.ceil((count + 1) * level - 1e-9))


def _scale(scale: Any, count: int) -> np.ndarray:
    """`scale` as positive float64, (count,)."""
    array = checks.shaped("scale", scale, (count,), np.dtype(np.float64))
    if (array <= 0).any():
        raise BadValue(f"scale: expected positive numbers, got {array.min():g} at index {int(array.argmin())}")
    return array
