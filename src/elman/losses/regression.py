"""Losses of real targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from elman import checks, registry
from elman.checks import finite, numeric
from elman.errors import BadValue
from elman.kernels import losses as kernels
from elman.loss import Loss, align, within


@dataclass(frozen=True)
class MeanSquaredError(Loss):
    """Mean over the outputs of ``(p - y)^2``.

    Examples
    --------
    >>> from elman.losses import MeanSquaredError
    >>> MeanSquaredError()([[1.0], [2.0]], [[1.5], [2.0]])
    0.125
    """

    aliases = ("mse",)
    kernel = kernels.squared

    def reference(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return ((y_pred - y_true) ** 2).mean(axis=-1)


@dataclass(frozen=True)
class MeanAbsoluteError(Loss):
    """Mean over the outputs of ``|p - y|``; the derivative at 0 is 0.

    Examples
    --------
    >>> from elman.losses import MeanAbsoluteError
    >>> MeanAbsoluteError()([[1.0], [2.0]], [[1.5], [2.0]])
    0.25
    """

    aliases = ("mae",)
    kernel = kernels.absolute

    def reference(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return np.abs(y_pred - y_true).mean(axis=-1)


@dataclass(frozen=True)
class MeanAbsolutePercentageError(Loss):
    """Mean over the outputs of ``100 |p - y| / max(|y|, 1e-7)``, in percent; the derivative at p = y is 0.

    Examples
    --------
    >>> from elman.losses import MeanAbsolutePercentageError
    >>> MeanAbsolutePercentageError()([[2.0], [4.0]], [[3.0], [4.0]])
    25.0
    """

    aliases = ("mape",)
    kernel = kernels.percentage

    def reference(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return (100 * np.abs((y_pred - y_true) / np.maximum(np.abs(y_true), kernels.CLIP))).mean(axis=-1)


@dataclass(frozen=True)
class MeanSquaredLogarithmicError(Loss):
    """Mean over the outputs of ``(log(1 + p) - log(1 + y))^2``, for targets >= 0 of very different size.

    Both are held at 1e-7 or more; for outputs below, the gradient is 0.

    Notes
    -----
    Targets below 0 are refused; Keras takes them for 1e-7.

    Examples
    --------
    >>> from elman.losses import MeanSquaredLogarithmicError
    >>> round(MeanSquaredLogarithmicError()([[0.0]], [[1.0]]), 4)
    0.4805
    """

    aliases = ("msle",)
    kernel = kernels.squared_logarithmic

    def _check_values(self, name: str, y: np.ndarray) -> None:
        within(name, y, "the squared logarithmic error", 0)

    def reference(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        first, second = (np.log(1 + np.maximum(v, v.dtype.type(kernels.CLIP))) for v in (y_pred, y_true))
        return ((first - second) ** 2).mean(axis=-1)


@dataclass(frozen=True)
class Huber(Loss):
    """Mean of ``e^2 / 2`` where ``|e| <= delta``, else ``delta |e| - delta^2 / 2``, with ``e = p - y`` (Huber, 1964).

    Parameters
    ----------
    delta : float
        Where the square turns into a line; > 0, in the unit of y.

    Examples
    --------
    >>> from elman.losses import Huber
    >>> Huber(delta=2.0)([[0.0]], [[3.0]])
    4.0
    """

    delta: float = 1.0
    kernel = kernels.huber

    def __post_init__(self) -> None:
        object.__setattr__(self, "delta", registry.number("delta", self.delta, 0, open_low=True))

    def options(self) -> tuple[float, ...]:
        return (self.delta,)

    def reference(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        e = np.abs(y_pred - y_true)
        return np.where(e <= self.delta, 0.5 * e**2, self.delta * e - 0.5 * self.delta**2).mean(axis=-1)


@dataclass(frozen=True)
class LogCosh(Loss):
    """Mean of ``log(cosh(p - y))``: half the square for small errors, ``|e| - log(2)`` for large ones; never overflows.

    Examples
    --------
    >>> from elman.losses import LogCosh
    >>> round(LogCosh()([[0.0]], [[1000.0]]), 3)
    999.307
    """

    aliases = ("logcosh",)
    kernel = kernels.log_cosh

    def reference(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        e = y_pred - y_true
        return (e + np.logaddexp(0, -2 * e) - np.log(2)).mean(axis=-1)


@dataclass(frozen=True)
class Poisson(Loss):
    """Mean over the outputs of ``p - y log(p + 1e-7)``: counts y of Poisson's distribution with mean p, less log(y!).

    The outputs must be means, > 0, as from an exponential or softplus; below -1e-7 the loss is NaN.

    Notes
    -----
    Targets below 0 are refused; Keras takes them silently.

    Examples
    --------
    >>> from elman.losses import Poisson
    >>> round(Poisson()([[0.0], [2.0]], [[1.0], [2.0]]), 4)
    0.8069
    """

    kernel = kernels.poisson

    def _check_values(self, name: str, y: np.ndarray) -> None:
        within(name, y, "the Poisson loss", 0)

    def reference(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return (y_pred - y_true * np.log(y_pred + kernels.CLIP)).mean(axis=-1)


@dataclass(frozen=True)
class CosineSimilarity(Loss):
    """``-sum_k y_k p_k / (|y| |p|)`` over the O outputs of a row: -1 for the same direction, 1 for the opposite one.

    Norms are held at 1e-7 or more, so that a row of zeros gives 0. Of a single output only the sign counts: its
    gradient is 0, up to rounding.

    Examples
    --------
    >>> from elman.losses import CosineSimilarity
    >>> CosineSimilarity()([[3.0, 4.0]], [[8.0, 6.0]])
    -0.96
    """

    elementwise = False
    kernel = kernels.cosine

    def reference(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        norms = (np.linalg.norm(v, axis=-1, keepdims=True) for v in (y_true, y_pred))
        y, p = (v / np.maximum(norm, kernels.CLIP) for v, norm in zip((y_true, y_pred), norms, strict=True))
        return -(y * p).sum(axis=-1)


@dataclass(frozen=True)
class Quantile(Loss):
    """Pinball loss: mean over the quantiles q of ``q (y - p)`` where p < y, else ``(1 - q) (p - y)``.

    Its least mean is at the q-quantiles of y given x (Koenker and Bassett, 1978). The derivative at p = y is 0.

    Parameters
    ----------
    quantiles : sequence of float
        Each above 0 and below 1. With several, the last axis of the outputs has one value for each, in this order, and
        all of them share one target; with one, every output has its own target.

    Notes
    -----
    Targets, with Q > 1 quantiles: (N,) or (N, 1) for outputs (N, Q); (N, T) or (N, T, 1) for outputs (N, T, Q). They
    are spread over the quantiles, so a metric beside this loss compares each output with the target.

    Examples
    --------
    >>> from elman.losses import Quantile
    >>> Quantile((0.25, 0.75))([2.0, 3.0], [[1.0, 3.0], [3.0, 3.0]])
    0.125
    >>> Quantile((0.1, 0.5, 0.9)).check_target([2.0, 3.0], (2, 3))
    array([[2., 2., 2.],
           [3., 3., 3.]])
    """

    quantiles: tuple[float, ...] = (0.5,)
    aliases = ("pinball",)
    kernel = kernels.pinball

    def __post_init__(self) -> None:
        levels = checks.entries("quantiles", self.quantiles)
        quantiles = tuple(registry.number("quantiles", q, 0, 1, open_low=True) for q in levels)
        if not quantiles or 1.0 in quantiles:
            raise BadValue(f"quantiles: expected one or more numbers > 0 and < 1, got {quantiles}")
        object.__setattr__(self, "quantiles", quantiles)

    def options(self) -> tuple[float, ...]:
        return self.quantiles

    def _target(self, name: str, y_true: Any, output_shape: tuple[int, ...], other: str) -> np.ndarray:
        count, shape = len(self.quantiles), tuple(output_shape)
        if count == 1:
            return super()._target(name, y_true, shape, other)
        if shape[-1] != count:
            raise BadValue(f"quantiles: {count} of them need as many outputs, but the shape of {other} is {shape}")
        other = f"{other} {shape}: one target for its {count} quantiles,"
        y = align(name, numeric(name, y_true), (*shape[:-1], 1), other=other)
        finite(name, y)
        return np.broadcast_to(y, shape)

    def reference(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        q, e = np.array(self.quantiles, y_pred.dtype), y_true - y_pred
        return np.maximum(q * e, (q - 1) * e).mean(axis=-1)
