"""Penalties on weights and outputs, added to the loss. The registry is `REGULARIZERS`.

Names, defaults and formulas are Keras's, without 1/2. A regularizer is a frozen dataclass: its fields are its options.
Values are summed in float64. The arithmetic is plain NumPy: weights are small beside the batches they meet.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from elman import registry

__all__ = ["L1", "L1L2", "L2", "REGULARIZERS", "Regularizer", "get", "serialize"]


class Regularizer(ABC):
    """Abstract penalty: calling it gives its value, `add_gradient` its derivative.

    A subclass is a frozen dataclass of its options. Put its class into `REGULARIZERS` so that saved models find it.

    Examples
    --------
    >>> import numpy as np
    >>> from elman.regularizers import L2
    >>> penalty, x, gradient = L2(0.1), np.array([1.0, -2.0]), np.zeros(2)
    >>> penalty(x)
    0.5
    >>> penalty.add_gradient(x, gradient)
    >>> gradient
    array([ 0.2, -0.4])
    """

    @abstractmethod
    def __call__(self, x: np.ndarray) -> float:
        """The penalty of x, an array of floats of any shape."""

    @abstractmethod
    def add_gradient(self, x: np.ndarray, gradient: np.ndarray) -> None:
        """Add the penalty's derivative by x to `gradient`, of the shape and dtype of x, in place."""

    def get_config(self) -> dict[str, Any]:
        """Arguments that make an equal regularizer; JSON can hold them."""
        return asdict(self)  # type: ignore[call-overload]


def _sum_of_sizes(x: np.ndarray) -> float:
    return float(np.abs(x).sum(dtype=np.float64))


def _sum_of_squares(x: np.ndarray) -> float:
    # Converts in small blocks: no copy of x in float64.
    flat = x.reshape(-1)
    return float(np.einsum("i,i->", flat, flat, dtype=np.float64))


def _check(regularizer: Any) -> None:
    for name, value in asdict(regularizer).items():
        object.__setattr__(regularizer, name, registry.number(name, value, 0))


@dataclass(frozen=True)
class L1(Regularizer):
    """``l1 sum |x|``. Its derivative at 0 is taken as 0.

    Parameters
    ----------
    l1 : float
        At least 0.

    Raises
    ------
    TypeError, ValueError
        If the factor is no finite number >= 0.

    Examples
    --------
    >>> import numpy as np
    >>> from elman.regularizers import L1
    >>> L1(0.5)(np.array([1.0, -3.0]))
    2.0
    """

    l1: float = 0.01

    def __post_init__(self) -> None:
        _check(self)

    def __call__(self, x: np.ndarray) -> float:
        return self.l1 * _sum_of_sizes(x)

    def add_gradient(self, x: np.ndarray, gradient: np.ndarray) -> None:
        gradient += self.l1 * np.sign(x)


@dataclass(frozen=True)
class L2(Regularizer):
    """``l2 sum x^2``.

    Parameters
    ----------
    l2 : float
        At least 0.

    Raises
    ------
    TypeError, ValueError
        If the factor is no finite number >= 0.

    Examples
    --------
    >>> import numpy as np
    >>> from elman.regularizers import L2
    >>> L2(0.5)(np.array([1.0, -3.0]))
    5.0
    """

    l2: float = 0.01

    def __post_init__(self) -> None:
        _check(self)

    def __call__(self, x: np.ndarray) -> float:
        return self.l2 * _sum_of_squares(x)

    def add_gradient(self, x: np.ndarray, gradient: np.ndarray) -> None:
        gradient += 2 * self.l2 * x


@dataclass(frozen=True)
class L1L2(Regularizer):
    """``l1 sum |x| + l2 sum x^2``.

    Parameters
    ----------
    l1, l2 : float
        At least 0. Both are 0 by default, also where the name "l1_l2" stands for it.

    Raises
    ------
    TypeError, ValueError
        If a factor is no finite number >= 0.

    Examples
    --------
    >>> import numpy as np
    >>> from elman.regularizers import L1L2
    >>> L1L2(l1=0.5, l2=0.5)(np.array([1.0, -3.0]))
    7.0
    """

    l1: float = 0.0
    l2: float = 0.0

    def __post_init__(self) -> None:
        _check(self)

    def __call__(self, x: np.ndarray) -> float:
        return L1(self.l1)(x) + L2(self.l2)(x)

    def add_gradient(self, x: np.ndarray, gradient: np.ndarray) -> None:
        L1(self.l1).add_gradient(x, gradient)
        L2(self.l2).add_gradient(x, gradient)


REGULARIZERS: dict[str, type[Regularizer]] = {"l1": L1, "l2": L2, "l1_l2": L1L2}
"""Regularizers by name. `get` also takes class names."""


def get(identifier: Any, argument: str = "regularizer") -> Regularizer | None:
    """Regularizer for a name, a `Regularizer` (returned as it is), a class, or a dict from `serialize`; None for None.

    Parameters
    ----------
    identifier : str, Regularizer, type, dict or None
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
    >>> from elman.regularizers import get
    >>> get("l2")
    L2(l2=0.01)
    >>> get({"class_name": "L1", "config": {"l1": 0.5}})
    L1(l1=0.5)
    """
    return None if identifier is None else registry.resolve(argument, identifier, REGULARIZERS, Regularizer)


def serialize(regularizer: Regularizer) -> dict[str, Any]:
    """Dict that JSON can hold and `get` turns back into an equal regularizer.

    Examples
    --------
    >>> from elman.regularizers import L2, serialize
    >>> serialize(L2())
    {'class_name': 'L2', 'config': {'l2': 0.01}}
    """
    registry.registered("regularizer", regularizer, REGULARIZERS)
    return registry.serialize(regularizer)
