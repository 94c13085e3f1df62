"""Seasonal components of series, subtracted before a model sees them and added to its forecasts."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

_MEMORY = 0.7
"""Weight of a cycle relative to the next later one."""


@dataclass(frozen=True)
class Seasonal:
    """The seasonal component of one series.

    R. B. Cleveland et al., STL: A seasonal-trend decomposition procedure based on loess, Journal of Official Statistics
    6 (1990), with a moving mean for its trend and exponential weights over the cycles for its loess.

    Attributes
    ----------
    cycles : ndarray of float64, (k, period)
        The component in every cycle; what comes behind the last one repeats it.

    Examples
    --------
    >>> import numpy as np
    >>> y = np.tile([1.0, -1.0], 10) + np.arange(20.0)
    >>> Seasonal.fit(y, 2).component(0, 4).round(6).tolist()
    [1.0, -1.0, 1.0, -1.0]
    """

    cycles: np.ndarray

    @classmethod
    def fit(cls, y: np.ndarray, period: int) -> Seasonal:
        """Of a series (n,), NaN left out; zero for fewer than two observed cycles."""
        y = y.astype(np.float64)
        count = -(-len(y) // period)
        seen = ~np.isnan(y)
        if seen.sum() < 2 * period or len(y) < 2 * period:
            return cls(np.zeros((1, period)))
        rest = np.full(count * period, np.nan)
        rest[: len(y)] = y - _trend(y, period)
        table = rest.reshape(count, period)
        # Smoothed over the cycles both ways, the nearest ones the heaviest.
        distance = np.abs(np.arange(count)[:, None] - np.arange(count))
        weights = _MEMORY**distance
        there = ~np.isnan(table)
        total = weights @ there
        smooth = weights @ np.where(there, table, 0.0) / np.maximum(total, 1e-300)
        smooth[total == 0] = 0
        return cls(smooth - smooth.mean(axis=1, keepdims=True))

    def component(self, start: int, steps: int) -> np.ndarray:
        """The component at the steps from `start` on, float64."""
        cycle, phase = np.divmod(np.arange(start, start + steps), self.cycles.shape[1])
        return self.cycles[np.minimum(cycle, len(self.cycles) - 1), phase]


def _trend(y: np.ndarray, period: int) -> np.ndarray:
    """The mean over a period around every step, NaN left out; at the ends the straight line of the nearest ones."""
    n = len(y)
    seen = ~np.isnan(y)
    # Of an even period the outermost two count half: a centred mean that no season passes.
    kernel = np.ones(period) if period % 2 else np.concatenate([[0.5], np.ones(period - 1), [0.5]])
    half = len(kernel) // 2
    total = np.convolve(np.where(seen, y, 0.0), kernel, "same") if n >= len(kernel) else np.zeros(n)
    weight = np.convolve(seen.astype(np.float64), kernel, "same") if n >= len(kernel) else np.zeros(n)
    inside = np.arange(half, n - half)
    inside = inside[weight[inside] > 0]
    if len(inside) < 2:
        return np.full(n, np.nanmean(y))
    trend = np.interp(np.arange(n), inside, total[inside] / weight[inside])
    for part, near in ((slice(0, inside[0]), inside[: period + 1]), (slice(inside[-1] + 1, n), inside[-period - 1 :])):
        slope = (trend[near[-1]] - trend[near[0]]) / max(1, near[-1] - near[0])
        edge = inside[0] if part.start == 0 else inside[-1]
        trend[part] = trend[edge] + slope * (np.arange(n)[part] - edge)
    return trend


@dataclass(frozen=True)
class Components:
    """The seasonal components of the series of a panel."""

    parts: list[Seasonal]

    def component(self, series: int, start: int, steps: int) -> np.ndarray:
        """That of a series at the steps from its row `start` on."""
        return self.parts[series].component(start, steps)


def deseasonalise(values: np.ndarray, offsets: np.ndarray, period: int) -> tuple[np.ndarray, Components]:
    """Values (n,) less their seasonal components, float64, and these.

    Examples
    --------
    >>> import numpy as np
    >>> values = np.tile([1.0, 5.0], 8)
    >>> plain, components = deseasonalise(values, np.array([0, 16]), 2)
    >>> plain.round(6).tolist()[:2], components.component(0, 16, 2).round(6).tolist()
    ([3.0, 3.0], [-2.0, 2.0])
    """
    plain, parts = values.astype(np.float64), []
    for a, b in pairwise(offsets):
        parts.append(Seasonal.fit(plain[a:b], period))
        plain[a:b] -= parts[-1].component(0, b - a)
    return plain, Components(parts)
