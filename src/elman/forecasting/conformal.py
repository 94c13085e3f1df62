"""Prediction intervals from the errors that forecasts made before."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Conformal:
    """Absolute errors by lead time, sorted.

    V. Vovk et al., Algorithmic learning in a random world (2005); J. Lei et al., Distribution-free predictive inference
    for regression, JASA 113 (2018): of n errors the ceil((n + 1) p)-th smallest is the half width of an interval that
    holds a share p. A lead time with too few errors takes those of its neighbours as well; if all are too few, the
    largest error.

    Attributes
    ----------
    errors : ndarray of float64, (H, n)
        Relative to the size of each series; infinite behind the last one of a lead time.

    Examples
    --------
    >>> import numpy as np
    >>> conformal = Conformal.fit(np.arange(9.0)[:, None], np.zeros((9, 1)), np.ones(9))
    >>> low, high = conformal.interval(np.array([[10.0]]), 0.8, np.ones(1))
    >>> low.tolist(), high.tolist()
    ([[3.0]], [[17.0]])
    """

    errors: np.ndarray

    @classmethod
    def fit(cls, y: np.ndarray, forecast: np.ndarray, size: np.ndarray) -> Conformal:
        """From what came and was forecast (N, H), NaN left out, and the size of each window's series (N,)."""
        errors = np.abs(y - forecast) / size[:, None]
        if np.isnan(errors).all():
            raise ValueError("calibrate: nothing was observed in any of the windows")
        return cls(np.sort(np.where(np.isnan(errors), np.inf, errors), axis=0).T.copy())

    def width(self, level: float) -> np.ndarray:
        """Half widths (H,) of intervals that hold a share `level`."""
        horizon = len(self.errors)
        found = np.empty(horizon)
        for lead in range(horizon):
            for reach in range(horizon):
                near = self.errors[max(0, lead - reach) : lead + reach + 1]
                near = near[np.isfinite(near)]
                rank = math.ceil((len(near) + 1) * level)
                if rank <= len(near):
                    break
            found[lead] = np.sort(near)[min(rank, len(near)) - 1]
        return found

    def interval(self, forecast: np.ndarray, level: float, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Low and high ends (S, H) around forecasts (S, H) of series of a size (S,)."""
        half = self.width(level) * size[:, None]
        return forecast - half, forecast + half

    def arrays(self) -> dict[str, np.ndarray]:
        """What is saved."""
        return {"errors": self.errors}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Conformal:
        """From what was saved."""
        return cls(arrays["errors"])
