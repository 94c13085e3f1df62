"""What happens to the values of series before they are cut into windows, and its exact inverse."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from elman.forecasting.decompose import deseasonalise
from elman.forecasting.panel import Panel


@dataclass
class Transform:
    """Logarithm and deseasonalising of a panel's values.

    Parameters
    ----------
    log : bool
        Work on ``log(1 + y)``.
    period : int
        Subtract a seasonal component of this many steps (after the logarithm); 1 for none.
    """

    log: bool = False
    period: int = 1
    _components: Any = field(default=None, repr=False)

    def forward(self, panel: Panel) -> np.ndarray:
        """The values transformed, float32 (n,); the seasonal components of the series are kept for `backward`."""
        values = panel.values
        if self.log:
            self._check_log(panel)
            values = np.log1p(values)
        if self.period > 1:
            values, self._components = deseasonalise(values, panel.offsets, self.period)
        return np.ascontiguousarray(values, np.float32)

    @staticmethod
    def _check_log(panel: Panel) -> None:
        with np.errstate(invalid="ignore"):
            bad = np.flatnonzero(panel.values <= -1)
        if bad.size:
            series = int(np.searchsorted(panel.offsets, bad[0], side="right")) - 1
            raise ValueError(
                f"transform: log1p needs values above -1, but {bad.size} are not, the first in series "
                f"{panel.ids[series]!r}: {panel.values[bad[0]]:g}; leave transform=None"
            )

    def backward(self, values: np.ndarray, series: np.ndarray, origins: np.ndarray) -> np.ndarray:
        """Undo `forward` for forecasts (b, H, ...), float64, of the steps from `origins` on of `series`."""
        if self.period > 1:
            steps = values.shape[1]
            parts = [self._components.component(int(s), int(o), steps) for s, o in zip(series, origins, strict=True)]
            values = values + np.array(parts).reshape(*values.shape[:2], *(1,) * (values.ndim - 2))
        # Beyond exp(700) float64 has no number; such a forecast is cut, not infinite.
        return np.expm1(np.minimum(values, 700.0)) if self.log else values
