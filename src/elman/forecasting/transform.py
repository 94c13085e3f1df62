"""What happens to the values of series before they are cut into windows, and its exact inverse."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from elman import checks
from elman.errors import BadValue
from elman.forecasting.decomposition import Seasonal
from elman.forecasting.panel import Panel

FARTHEST = 1 << 61
"""Most that ticks may be: the difference of two is an int64 still."""
_MOST = float(np.finfo(np.float32).max)


@dataclass
class Transform:
    """Logarithm and deseasonalising of values.

    Parameters
    ----------
    log : bool
        Work on ``log(1 + y)``.
    period : int
        Subtract a seasonal component of this many steps (after the logarithm); 1 for none.

    Notes
    -----
    `learn` keeps the components of the training data, so that later rows change nothing of them: a backtest does not
    look ahead. Other series get components of their own.
    """

    log: bool = False
    period: int = 1
    _known: dict[Any, tuple[Seasonal, int]] = field(default_factory=dict, repr=False)

    def learn(self, panel: Panel) -> None:
        """Keep the seasonal components of these series."""
        self._known = {}
        if self.period > 1:
            plain = self._logged(panel)
            for i, label in enumerate(panel.ids):
                a, b = panel.offsets[i : i + 2]
                self._known[label] = Seasonal.fit(plain[a:b], self.period), int(panel.first[i])

    def _logged(self, panel: Panel) -> np.ndarray:
        self.check(panel)
        return np.log1p(panel.values) if self.log else panel.values

    def check(self, panel: Panel) -> None:
        """ValueError for values that have no logarithm; names id and time."""
        if not self.log:
            return
        with np.errstate(invalid="ignore"):
            bad = np.flatnonzero(panel.values <= -1)
        if bad.size:
            label, when = panel.where(int(bad[0]))
            raise BadValue(
                f"transform: log1p needs values above -1, but {bad.size} are not, the first of id {label!r} at {when}: "
                f"{panel.values[bad[0]]:g}; leave transform=None"
            )

    def forward(self, panel: Panel) -> tuple[np.ndarray, Components | None]:
        """The values transformed, float32 (n,), and the seasonal components that were subtracted."""
        plain = self._logged(panel)
        if self.period == 1:
            return np.require(plain, np.float32, "CW"), None
        plain, parts = plain.astype(np.float64), []
        for i, label in enumerate(panel.ids):
            a, b = panel.offsets[i : i + 2]
            found = self._known.get(label)
            if found is None:
                found = Seasonal.fit(plain[a:b], self.period), int(panel.first[i])
            parts.append((found[0], int(panel.first[i]) - found[1]))
            plain[a:b] -= _component(*parts[-1], 0, b - a)
        return np.clip(plain, -_MOST, _MOST).astype(np.float32), Components(parts)

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """JSON values and arrays; `from_state` reads them."""
        found = list(self._known.values())
        patterns = [seasonal.patterns for seasonal, _ in found] or [np.zeros((0, self.period))]
        arrays = {
            "patterns": np.concatenate(patterns),
            "counts": np.array([len(seasonal.patterns) for seasonal, _ in found], np.int64),
            "first": np.array([first for _, first in found], np.int64),
        }
        return {"log": self.log, "period": self.period, "ids": list(self._known)}, arrays

    @classmethod
    def from_state(cls, config: dict[str, Any], arrays: dict[str, np.ndarray]) -> Transform:
        """The transform that `state` described."""
        period = checks.integer("period", config["period"])
        if arrays["patterns"].ndim != 2 or arrays["patterns"].shape[1] != period or (arrays["counts"] < 1).any():
            raise BadValue(f"patterns: expected seasons of {period} steps, got {arrays['patterns'].shape}")
        if ((arrays["first"] < -FARTHEST) | (arrays["first"] > FARTHEST)).any():
            raise BadValue(f"first: expected ticks of at most {FARTHEST:,}")
        parts = np.split(arrays["patterns"], np.cumsum(arrays["counts"])[:-1]) if config["ids"] else []
        known = {
            label: (Seasonal(period, False, part), int(first))
            for label, part, first in zip(config["ids"], parts, arrays["first"], strict=True)
        }
        return cls(config["log"], period, known)

    def backward(
        self, values: np.ndarray, components: Components | None, series: np.ndarray, origins: np.ndarray
    ) -> np.ndarray:
        """Undo `forward` for forecasts (b, H, ...), float64, of the steps from `origins` on of `series`."""
        if components is not None:
            season = components.of(series, origins, values.shape[1])
            values = values + season.reshape(*season.shape, *(1,) * (values.ndim - 2))
        # Beyond exp(700) float64 has no number; such a forecast is cut, not infinite.
        return np.expm1(np.minimum(values, 700.0)) if self.log else values


class Components:
    """The seasonal component of every series of a panel, and how many steps after it the series begins."""

    def __init__(self, parts: list[tuple[Seasonal, int]]) -> None:
        self._parts = parts

    def of(self, series: np.ndarray, origins: np.ndarray, steps: int) -> np.ndarray:
        """Those of the steps from `origins` on, (b, steps)."""
        return np.array([_component(*self._parts[int(s)], int(o), steps) for s, o in zip(series, origins, strict=True)])


def _component(seasonal: Seasonal, shift: int, start: int, steps: int) -> np.ndarray:
    """The component from row `start` on of a series that begins `shift` steps after that it was fitted to."""
    begin = shift + start
    if begin >= 0:
        return seasonal.component(begin, steps)
    # Before its first season that repeats as well.
    return seasonal.component(0, seasonal.period)[(begin + np.arange(steps)) % seasonal.period]
