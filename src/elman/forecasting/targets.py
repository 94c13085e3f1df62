"""What a forecaster is trained for: its losses by name, and the forecasts that a model's outputs stand for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from elman import losses
from elman.errors import BadValue
from elman.loss import Loss
from elman.losses import Likelihood

_NEAR = 1e-9
"""Rounding in levels such as 0.5 - 0.8 / 2."""


class Target(ABC):
    """What the outputs of a model (N, H, P), in the scale of its windows, stand for.

    Attributes
    ----------
    outputs : int
        P.
    loss : Loss
    counts : bool
        Whether targets are counts, which are not scaled; outputs then come with the scale of their windows.
    """

    outputs: int = 1
    counts: bool = False
    loss: Loss

    @abstractmethod
    def point(self, out: np.ndarray) -> np.ndarray:
        """The forecast (N, H) that is reported as `y_hat`."""

    def quantiles(self, out: np.ndarray, levels: Sequence[float]) -> np.ndarray:
        """Quantiles (N, H, Q), ascending; ValueError for losses that give none."""
        raise BadValue(
            "quantiles: a model trained with this loss forecasts single numbers; use loss='quantile', 'normal', "
            "'studentt', 'negbin' or 'poisson', or calibrate() and predict(interval=...)"
        )

    def sample(self, out: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One draw per step, (N, H); ValueError for losses that have no distribution."""
        raise BadValue("sample: needs loss='normal', 'studentt', 'negbin' or 'poisson'")


class Point(Target):
    """One number per step."""

    def __init__(self, loss: Loss) -> None:
        self.loss = loss

    def point(self, out: np.ndarray) -> np.ndarray:
        return out[..., 0]


class Quantiles(Target):
    """Some quantiles per step, sorted, so that they never cross; the point forecast is the median, or the nearest."""

    def __init__(self, levels: Sequence[float]) -> None:
        self.levels = np.array(levels, np.float64)
        self.outputs = len(levels)
        self.loss = losses.Quantile(tuple(levels))

    def point(self, out: np.ndarray) -> np.ndarray:
        return self.quantiles(out, [min(max(0.5, self.levels.min()), self.levels.max())])[..., 0]

    def quantiles(self, out: np.ndarray, levels: Sequence[float]) -> np.ndarray:
        """Those trained for; between them by linear interpolation."""
        low, high = self.levels.min(), self.levels.max()
        outside = [q for q in levels if not low - _NEAR <= q <= high + _NEAR]
        if outside:
            raise BadValue(
                f"quantiles: the model knows those from {low:g} to {high:g}, not {outside[0]:g}; make the Forecaster "
                f"with quantiles=(..., {outside[0]:g})"
            )
        known = np.sort(out, axis=-1)
        order = np.sort(self.levels)
        right = np.clip(np.searchsorted(order, levels), 1, max(1, len(order) - 1))
        if len(order) == 1:
            return np.repeat(known, len(levels), axis=-1)
        share = np.clip((np.asarray(levels) - order[right - 1]) / (order[right] - order[right - 1]), 0, 1)
        return known[..., right - 1] * (1 - share) + known[..., right] * share


class Distribution(Target):
    """The parameters of a distribution per step."""

    loss: Likelihood

    def __init__(self, loss: Likelihood) -> None:
        self.loss, self.outputs = loss, len(loss.blocks)

    def point(self, out: np.ndarray) -> np.ndarray:
        return self.loss.mean(out)[..., 0]

    def quantiles(self, out: np.ndarray, levels: Sequence[float]) -> np.ndarray:
        return np.moveaxis(self.loss.quantile(out, list(levels))[..., 0], 0, -1)

    def sample(self, out: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return self.loss.sample(out, rng, 1)[0, ..., 0]


@dataclass(frozen=True)
class ScaledCounts(Likelihood):
    """A likelihood of counts whose mean is that of the inner one times a scale: targets are (count, scale).

    With it a model's outputs have the size of its scaled inputs, as in D. Salinas, V. Flunkert, J. Gasthaus, DeepAR
    (2017).
    """

    inner: Likelihood

    @property
    def blocks(self) -> tuple[str, ...]:  # type: ignore[override]
        """Those of the inner likelihood."""
        return self.inner.blocks

    @property
    def kernel(self) -> Any:
        """That of the inner likelihood."""
        return self.inner.kernel

    def target_width(self, output_shape: tuple[int, ...], other: str) -> int:
        """Two: the count and the scale."""
        super().target_width(output_shape, other)
        return 2

    def _parameters(self, p: np.ndarray, width: int) -> dict[str, np.ndarray]:
        return self.inner._parameters(p, 1)

    def _losses(self, y: np.ndarray, *parameters: np.ndarray) -> np.ndarray:
        return self.inner._losses(y, *parameters)

    def _draw(self, parameters: dict[str, np.ndarray], rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return self.inner._draw(parameters, rng, shape)

    def _quantile(self, parameters: dict[str, np.ndarray], level: float) -> np.ndarray:
        return self.inner._quantile(parameters, level)

    def reference(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        """That of the inner likelihood, for outputs made larger by the scale."""
        return self.inner.reference(y_true[:, :1], scaled_up(y_pred, y_true[:, 1])[0])

    def value_and_gradient(
        self, y_true: np.ndarray, y_pred: np.ndarray, weights: np.ndarray | None, gradient: np.ndarray | None,
        mask: np.ndarray | None = None,
    ) -> float:  # fmt: skip
        """That of the inner likelihood; the derivative passes the scale."""
        scaled, slope = scaled_up(y_pred, y_true[:, 1])
        counts = np.ascontiguousarray(y_true[:, :1])
        value = self.inner.value_and_gradient(counts, scaled, weights, gradient, mask)
        if gradient is not None:
            gradient[:, 0] *= slope
        return value


def scaled_up(out: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Outputs (n, P) whose first one, r, gives ``softplus = scale * softplus(r)``, and its derivative by r, (n,)."""
    r, scale = out[..., 0].astype(np.float64), scale.astype(np.float64)
    mean = np.maximum(scale * np.logaddexp(0, r), 1e-30)
    # The inverse of softplus; its derivative is 1 / (1 - exp(-mean)).
    share = -np.expm1(-mean)
    scaled = out.copy()
    scaled[..., 0] = mean + np.log(share)
    slope = scale / (1 + np.exp(-r)) / share
    return scaled, slope.astype(out.dtype)


class Counts(Distribution):
    """The parameters of a distribution of counts."""

    counts = True

    def __init__(self, inner: Likelihood) -> None:
        super().__init__(inner)
        self.loss = ScaledCounts(inner)


def target(name: str, quantiles: Sequence[float]) -> Target:
    """The target of a loss's name; `quantiles` are those of "quantile"."""
    return TARGETS[name](quantiles)


TARGETS: dict[str, Callable[[Sequence[float]], Target]] = {
    "mae": lambda q: Point(losses.get("mae")),
    "mse": lambda q: Point(losses.get("mse")),
    "huber": lambda q: Point(losses.get("huber")),
    "quantile": Quantiles,
    "normal": lambda q: Distribution(losses.GaussianNLL()),
    "studentt": lambda q: Distribution(losses.StudentT()),
    "negbin": lambda q: Counts(losses.NegativeBinomial()),
    "poisson": lambda q: Counts(losses.PoissonNLL()),
}
