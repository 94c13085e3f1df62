"""Losses of classes and of probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from elman import registry
from elman.errors import BadType, BadValue
from elman.jit import Function
from elman.kernels import losses as kernels
from elman.loss import Loss, within


def _clipped(p: np.ndarray) -> np.ndarray:
    low = p.dtype.type(kernels.CLIP)
    return np.clip(p, low, 1 - low)


def _log_softmax(x: np.ndarray) -> np.ndarray:
    shifted = x - x.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def _check_smoothing(loss: Any) -> None:
    if not isinstance(loss.from_logits, (bool, np.bool_)):
        raise BadType(f"from_logits: expected True or False, got {loss.from_logits!r}")
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
        within(name, y, "binary crossentropy", 0, 1)

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

    other_targets = "; class indices are for sparse_categorical_crossentropy"

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

    other_targets = "; one-hot rows are for categorical_crossentropy"

    from_logits: bool = False
    aliases = ("scce",)
    elementwise = False
    labels = True

    def __post_init__(self) -> None:
        if not isinstance(self.from_logits, (bool, np.bool_)):
            raise BadType(f"from_logits: expected True or False, got {self.from_logits!r}")
        object.__setattr__(self, "from_logits", bool(self.from_logits))

    @property
    def kernel(self) -> Function:
        return kernels.sparse_logits if self.from_logits else kernels.sparse

    def reference(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        one_hot = np.eye(y_pred.shape[-1], dtype=y_pred.dtype)[y_true]
        return CategoricalCrossentropy(self.from_logits).reference(one_hot, y_pred)


@dataclass(frozen=True)
class KLDivergence(Loss):
    """``sum_k y_k log(y_k / p_k)`` over the O classes of a row; y and p distributions (Kullback and Leibler, 1951).

    Both are held in [1e-7, 1]; for outputs outside, the gradient is 0. Outputs are not divided by their sum.

    Notes
    -----
    Targets outside [0, 1] are refused; Keras takes them silently.

    Examples
    --------
    >>> from elman.losses import KLDivergence
    >>> round(KLDivergence()([[0.5, 0.5]], [[0.25, 0.75]]), 4)
    0.1438
    """

    aliases = ("kld",)
    elementwise = False
    kernel = kernels.divergence

    def _check_values(self, name: str, y: np.ndarray) -> None:
        within(name, y, "the Kullback-Leibler divergence", 0, 1)

    def reference(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        t, q = (np.clip(v, v.dtype.type(kernels.CLIP), 1) for v in (y_true, y_pred))
        return (t * (np.log(t) - np.log(q))).sum(axis=-1)


def _check_signs(name: str, y: np.ndarray) -> None:
    """Refuse targets that are neither all -1 or 1 nor all 0 or 1: in a mixture, a 0 could mean two things."""
    one = y == 1
    if not ((one | (y == 0)).all() or (one | (y == -1)).all()):
        raise BadValue(f"{name}: targets of a hinge must be all -1 or 1, or all 0 or 1, got {np.unique(y)[:5]}")


def _signs(y: np.ndarray) -> np.ndarray:
    return np.where(y == 0, -1, y)


@dataclass(frozen=True)
class Hinge(Loss):
    """Mean over the outputs of ``max(0, 1 - y p)``, y = -1 or 1; the derivative at y p = 1 is 0.

    Notes
    -----
    Targets may be 0 and 1: 0 means -1. Others are refused; Keras takes them silently.

    Examples
    --------
    >>> from elman.losses import Hinge
    >>> Hinge()([[1.0], [-1.0]], [[0.5], [-2.0]])
    0.25
    """

    kernel = kernels.hinge

    def _check_values(self, name: str, y: np.ndarray) -> None:
        _check_signs(name, y)

    def reference(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return np.maximum(0, 1 - _signs(y_true) * y_pred).mean(axis=-1)


@dataclass(frozen=True)
class SquaredHinge(Loss):
    """Mean over the outputs of ``max(0, 1 - y p)^2``; targets as in `Hinge`.

    Examples
    --------
    >>> from elman.losses import SquaredHinge
    >>> SquaredHinge()([[1.0], [0.0]], [[0.5], [-2.0]])
    0.125
    """

    kernel = kernels.squared_hinge

    def _check_values(self, name: str, y: np.ndarray) -> None:
        _check_signs(name, y)

    def reference(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return (np.maximum(0, 1 - _signs(y_true) * y_pred) ** 2).mean(axis=-1)
