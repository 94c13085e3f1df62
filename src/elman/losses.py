"""Losses: what training minimises, with exact gradients. The registry is `LOSSES`.

A loss is a frozen dataclass: its fields are its options, `Loss.kernel` its compiled arithmetic, `Loss.reference` the
same formula in NumPy for tests. Names, defaults and formulas are Keras's. The value of a batch is ``sum_i w_i l_i / n``
over its n rows (samples times steps), never divided by the sum of the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from elman import registry
from elman.jit import Function
from elman.kernels import losses as kernels
from elman.loss import Loss, align, row_weights

__all__ = [
    "LOSSES",
    "BinaryCrossentropy",
    "CategoricalCrossentropy",
    "Huber",
    "LogCosh",
    "Loss",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "SparseCategoricalCrossentropy",
    "align",
    "get",
    "row_weights",
    "serialize",
]


def _clipped(p: np.ndarray) -> np.ndarray:
    low = p.dtype.type(kernels.CLIP)
    return np.clip(p, low, 1 - low)


def _log_softmax(x: np.ndarray) -> np.ndarray:
    shifted = x - x.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


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


def _check_smoothing(loss: Any) -> None:
    if not isinstance(loss.from_logits, (bool, np.bool_)):
        raise TypeError(f"from_logits: expected True or False, got {loss.from_logits!r}")
    object.__setattr__(loss, "from_logits", bool(loss.from_logits))
    object.__setattr__(loss, "label_smoothing", registry.number("label_smoothing", loss.label_smoothing, 0, 1))


@dataclass(frozen=True)
class BinaryCrossentropy(Loss):
    """Mean over the outputs of ``-y log(p) - (1 - y) log(1 - p)``: each output a probability of its own.

    Parameters
    ----------
    from_logits : bool
        Whether outputs are logits, p = sigmoid(output), which loses no accuracy and is never clipped. Otherwise p is
        held in [1e-7, 1 - 1e-7]; outside, the gradient is 0.
    label_smoothing : float
        In [0, 1]: y becomes ``y (1 - s) + s / 2``.

    Notes
    -----
    Targets outside [0, 1] are refused; Keras takes them silently.

    Examples
    --------
    >>> from elman.losses import BinaryCrossentropy
    >>> round(BinaryCrossentropy(from_logits=True)([[1.0], [0.0]], [[0.0], [0.0]]), 4)
    0.6931
    """

    from_logits: bool = False
    label_smoothing: float = 0.0
    aliases = ("bce",)

    def __post_init__(self) -> None:
        _check_smoothing(self)

    @property
    def kernel(self) -> Function:
        return kernels.binary_logits if self.from_logits else kernels.binary

    def options(self) -> tuple[float, ...]:
        return (self.label_smoothing,)

    def _check_values(self, name: str, y: np.ndarray) -> None:
        low, high = y.min(), y.max()
        if low < 0 or high > 1:
            raise ValueError(f"{name}: targets of binary crossentropy must lie in [0, 1], these span [{low}, {high}]")

    def reference(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        t = y_true * (1 - self.label_smoothing) + 0.5 * self.label_smoothing
        if self.from_logits:
            return (t * np.logaddexp(0, -y_pred) + (1 - t) * np.logaddexp(0, y_pred)).mean(axis=-1)
        q = _clipped(y_pred)
        return -(t * np.log(q) + (1 - t) * np.log(1 - q)).mean(axis=-1)


@dataclass(frozen=True)
class CategoricalCrossentropy(Loss):
    """``-sum_k y_k log(p_k)`` over the O classes of a row; y one-hot or a distribution.

    Parameters
    ----------
    from_logits : bool
        Whether outputs are logits, p = softmax(output). Otherwise each row is divided by its sum and held in
        [1e-7, 1 - 1e-7]; outside, the gradient is that of the division alone.
    label_smoothing : float
        In [0, 1]: y becomes ``y (1 - s) + s / O``.

    Examples
    --------
    >>> from elman.losses import CategoricalCrossentropy
    >>> round(CategoricalCrossentropy()([[0.0, 1.0]], [[0.5, 0.5]]), 4)
    0.6931
    """

    from_logits: bool = False
    label_smoothing: float = 0.0
    aliases = ("cce",)
    elementwise = False

    def __post_init__(self) -> None:
        _check_smoothing(self)

    @property
    def kernel(self) -> Function:
        return kernels.categorical_logits if self.from_logits else kernels.categorical

    def options(self) -> tuple[float, ...]:
        return (self.label_smoothing,)

    def reference(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        t = y_true * (1 - self.label_smoothing) + self.label_smoothing / y_pred.shape[-1]
        if self.from_logits:
            return -(t * _log_softmax(y_pred)).sum(axis=-1)
        return -(t * np.log(_clipped(y_pred / y_pred.sum(axis=-1, keepdims=True)))).sum(axis=-1)


@dataclass(frozen=True)
class SparseCategoricalCrossentropy(Loss):
    """``-log(p_y)`` for a class index y per row: `CategoricalCrossentropy` without one-hot targets.

    Parameters
    ----------
    from_logits : bool
        As in `CategoricalCrossentropy`.

    Examples
    --------
    >>> from elman.losses import SparseCategoricalCrossentropy
    >>> round(SparseCategoricalCrossentropy()([1], [[0.5, 0.5]]), 4)
    0.6931
    """

    from_logits: bool = False
    aliases = ("scce",)
    elementwise = False
    labels = True

    def __post_init__(self) -> None:
        if not isinstance(self.from_logits, (bool, np.bool_)):
            raise TypeError(f"from_logits: expected True or False, got {self.from_logits!r}")
        object.__setattr__(self, "from_logits", bool(self.from_logits))

    @property
    def kernel(self) -> Function:
        return kernels.sparse_logits if self.from_logits else kernels.sparse

    def reference(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        one_hot = np.eye(y_pred.shape[-1], dtype=y_pred.dtype)[y_true]
        return CategoricalCrossentropy(self.from_logits).reference(one_hot, y_pred)


LOSSES: dict[str, type[Loss]] = {
    "mean_squared_error": MeanSquaredError,
    "mean_absolute_error": MeanAbsoluteError,
    "huber": Huber,
    "log_cosh": LogCosh,
    "binary_crossentropy": BinaryCrossentropy,
    "categorical_crossentropy": CategoricalCrossentropy,
    "sparse_categorical_crossentropy": SparseCategoricalCrossentropy,
}
"""Losses by name. `get` also takes class names and aliases such as "mse" or "MSE"."""


def get(identifier: Any) -> Loss:
    """Loss for a name, a `Loss` (returned as it is), a class, or a dict from `serialize`.

    Raises
    ------
    TypeError
        If `identifier` is of another kind.
    ValueError
        If the name is unknown, with the nearest valid one, or a config does not fit.

    Examples
    --------
    >>> from elman.losses import get
    >>> get("mse")
    MeanSquaredError()
    >>> get({"class_name": "Huber", "config": {"delta": 2.0}})
    Huber(delta=2.0)
    """
    return registry.resolve("loss", identifier, LOSSES, Loss)


def serialize(loss: Loss) -> dict[str, Any]:
    """Dict that JSON can hold and `get` turns back into an equal loss.

    Examples
    --------
    >>> from elman.losses import Huber, serialize
    >>> serialize(Huber())
    {'class_name': 'Huber', 'config': {'delta': 1.0}}
    """
    return registry.serialize(loss)
