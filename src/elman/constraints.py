"""Projections of weights after each update. The registry is `CONSTRAINTS`.

Names, defaults and formulas are Keras's; with axis 0 a norm is taken over the inputs of each unit. A constraint is a
frozen dataclass: its fields are its options. The arithmetic is plain NumPy, with norms in float64; NaN stays NaN.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from elman import registry
from elman.checks import integer, numeric, working_dtype
from elman.errors import BadValue

__all__ = ["CONSTRAINTS", "Constraint", "MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm", "get", "serialize"]

# Keeps the division by a norm of 0 defined; as in Keras.
_EPSILON = 1e-7


class Constraint(ABC):
    """Abstract projection: `project` works in place, calling the constraint gives a projected copy.

    A subclass is a frozen dataclass of its options and defines `project`. Put its class into `CONSTRAINTS` so that
    saved models find it.

    Examples
    --------
    >>> import numpy as np
    >>> from elman.constraints import NonNeg
    >>> w = np.array([1.0, -2.0])
    >>> NonNeg()(w)
    array([1., 0.])
    >>> w
    array([ 1., -2.])
    """

    def __call__(self, w: np.ndarray) -> np.ndarray:
        """A projected copy of w."""
        array = numeric("w", w)
        self.check(array.shape)
        copy = np.array(array, working_dtype(array))
        self.project(copy)
        return copy

    @abstractmethod
    def project(self, w: np.ndarray) -> None:
        """Project w, an array of floats, in place."""

    def check(self, shape: tuple[int, ...]) -> None:
        """ValueError if weights of this shape cannot be projected; by default all can."""
        return None

    def get_config(self) -> dict[str, Any]:
        """Arguments that make an equal constraint; JSON can hold them."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}  # type: ignore[call-overload]


@dataclass(frozen=True)
class NonNeg(Constraint):
    """Negative weights become 0.

    Examples
    --------
    >>> from elman.constraints import NonNeg
    >>> NonNeg()([[-1.0, 2.0]])
    array([[0., 2.]])
    """

    def project(self, w: np.ndarray) -> None:
        np.maximum(w, 0, out=w)


class _NormConstraint(Constraint):
    """Scales each vector of weights along `axis` by a function of its norm."""

    axis: int | tuple[int, ...]

    @abstractmethod
    def desired(self, norms: np.ndarray) -> np.ndarray | float:
        """What the norms shall be."""

    def project(self, w: np.ndarray) -> None:
        # An infinite weight has no direction: its vector becomes NaN, as in Keras.
        with np.errstate(over="ignore", invalid="ignore"):
            norms = np.sqrt(np.square(w, dtype=np.float64).sum(axis=self.axis, keepdims=True))
            w *= (self.desired(norms) / (_EPSILON + norms)).astype(w.dtype)

    def check(self, shape: tuple[int, ...]) -> None:
        """ValueError if there is no such axis, or one is named twice."""
        axes = self.axis if isinstance(self.axis, tuple) else (self.axis,)
        rank = len(shape)
        if any(not -rank <= a < rank for a in axes) or len({a % rank for a in axes}) < len(axes):
            raise BadValue(f"axis: {self} does not fit weights of shape {shape}")

    def _check(self, *factors: str) -> None:
        for name in factors:
            object.__setattr__(self, name, registry.number(name, getattr(self, name), 0))
        several = self.axis if isinstance(self.axis, (tuple, list)) else None
        axes = tuple(integer("axis", a, -32) for a in ([self.axis] if several is None else several))
        if not axes:
            raise BadValue("axis: expected an integer or several, got none")
        object.__setattr__(self, "axis", axes[0] if several is None else axes)


@dataclass(frozen=True)
class MaxNorm(_NormConstraint):
    """Norms are at most `max_value`: ``w clip(n, 0, max_value) / (1e-7 + n)`` for the norm n.

    Parameters
    ----------
    max_value : float
        At least 0.
    axis : int or tuple of int
        Axes that a norm is taken over.

    Raises
    ------
    TypeError, ValueError
        If an option is out of range; where it is used, if the weights have no such axis.

    Examples
    --------
    >>> from elman.constraints import MaxNorm
    >>> MaxNorm(1)([[3.0], [4.0]]).round(4)
    array([[0.6],
           [0.8]])
    """

    max_value: float = 2.0
    axis: int | tuple[int, ...] = 0

    def __post_init__(self) -> None:
        self._check("max_value")

    def desired(self, norms: np.ndarray) -> np.ndarray | float:
        """At most `max_value`."""
        return np.minimum(norms, self.max_value)


@dataclass(frozen=True)
class UnitNorm(_NormConstraint):
    """Norms are 1: ``w / (1e-7 + n)`` for the norm n.

    Parameters
    ----------
    axis : int or tuple of int
        Axes that a norm is taken over.

    Raises
    ------
    TypeError, ValueError
        If `axis` is no integer; where it is used, if the weights have no such axis.

    Examples
    --------
    >>> from elman.constraints import UnitNorm
    >>> UnitNorm(axis=1)([[3.0, 4.0]]).round(4)
    array([[0.6, 0.8]])
    """

    axis: int | tuple[int, ...] = 0

    def __post_init__(self) -> None:
        self._check()

    def desired(self, norms: np.ndarray) -> np.ndarray | float:
        """1."""
        return 1.0


@dataclass(frozen=True)
class MinMaxNorm(_NormConstraint):
    """Norms move into [min_value, max_value]: ``w (rate clip(n) + (1 - rate) n) / (1e-7 + n)`` for the norm n.

    Parameters
    ----------
    min_value, max_value : float
        At least 0.
    rate : float
        In [0, 1]: the part of the way that one projection goes.
    axis : int or tuple of int
        Axes that a norm is taken over.

    Raises
    ------
    TypeError, ValueError
        If an option is out of range, or `min_value` above `max_value`; where it is used, if the weights have no such
        axis.

    Examples
    --------
    >>> from elman.constraints import MinMaxNorm
    >>> MinMaxNorm(min_value=10, max_value=20)([3.0, 4.0]).round(4)
    array([6., 8.])
    """

    min_value: float = 0.0
    max_value: float = 1.0
    rate: float = 1.0
    axis: int | tuple[int, ...] = 0

    def __post_init__(self) -> None:
        self._check("min_value", "max_value")
        object.__setattr__(self, "rate", registry.number("rate", self.rate, 0, 1))
        if self.min_value > self.max_value:
            raise BadValue(f"min_value: expected at most max_value = {self.max_value}, got {self.min_value}")

    def desired(self, norms: np.ndarray) -> np.ndarray | float:
        """Between the two values, or on the way there."""
        return self.rate * np.clip(norms, self.min_value, self.max_value) + (1 - self.rate) * norms


CONSTRAINTS: dict[str, type[Constraint]] = {
    "max_norm": MaxNorm,
    "non_neg": NonNeg,
    "unit_norm": UnitNorm,
    "min_max_norm": MinMaxNorm,
}
"""Constraints by name. `get` also takes class names."""


def get(identifier: Any, argument: str = "constraint") -> Constraint | None:
    """Constraint for a name, a `Constraint` (returned as it is), a class, or a dict from `serialize`; None for None.

    Parameters
    ----------
    identifier : str, Constraint, type, dict or None
    argument : str
        What error messages call it.

    Raises
    ------
    TypeError
        If `identifier` is of another kind.
    ValueError
        If the name is unknown, with the nearest valid one, or a config does not fit.

    Examples
    --------
    >>> from elman.constraints import get
    >>> get("max_norm")
    MaxNorm(max_value=2.0, axis=0)
    """
    return None if identifier is None else registry.resolve(argument, identifier, CONSTRAINTS, Constraint)


def serialize(constraint: Constraint) -> dict[str, Any]:
    """Dict that JSON can hold and `get` turns back into an equal constraint.

    Examples
    --------
    >>> from elman.constraints import NonNeg, serialize
    >>> serialize(NonNeg())
    {'class_name': 'NonNeg', 'config': {}}
    """
    registry.registered("constraint", constraint, CONSTRAINTS)
    return registry.serialize(constraint)
