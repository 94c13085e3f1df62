"""The abstract initializer, fans, and the checks that all rules share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from elman.checks import finite
from elman.errors import BadType, BadValue


def fans(shape: Sequence[int]) -> tuple[int, int]:
    """Numbers of inputs and outputs that a weight of `shape` connects.

    Parameters
    ----------
    shape : sequence of int
        Of a matrix: (inputs, outputs). With more axes the leading ones are a receptive field, counted on both sides;
        a vector counts as both.

    Returns
    -------
    fan_in, fan_out : int

    Examples
    --------
    >>> fans((3, 8)), fans((5, 3, 8)), fans((4,))
    ((3, 8), (15, 40), (4, 4))
    """
    if len(shape) == 0:
        return 1, 1
    if len(shape) == 1:
        return int(shape[0]), int(shape[0])
    field = math.prod(shape[:-2])
    return int(field * shape[-2]), int(field * shape[-1])


class Initializer(ABC):
    """Abstract rule for the initial values of one weight.

    A subclass is a frozen dataclass and defines `draw`. Calling an instance checks the shape, draws and casts.

    Examples
    --------
    >>> import numpy as np
    >>> from elman.initializers import GlorotUniform
    >>> GlorotUniform()((2, 3), np.float32, np.random.default_rng(0)).shape
    (2, 3)
    """

    def __call__(self, shape: Sequence[int], dtype: Any, rng: np.random.Generator) -> np.ndarray:
        """Draw the values of one weight.

        Parameters
        ----------
        shape : sequence of int
            Shape of the weight.
        dtype : dtype
            Float type of the result; the values are drawn in float64.
        rng : numpy.random.Generator
            Source of all randomness; its state moves on.

        Returns
        -------
        ndarray
            C-contiguous, of `shape` and `dtype`.

        Raises
        ------
        TypeError
            If `rng` is no generator.
        ValueError
            If `shape` holds anything but integers >= 0, or does not suit the rule, or values are beyond `dtype`.
        """
        if not isinstance(rng, np.random.Generator):
            raise BadType(f"rng: expected a numpy.random.Generator, got {type(rng).__name__}")
        shape = _checked_shape(shape)
        with np.errstate(over="ignore"):
            values = np.ascontiguousarray(self.draw(shape, rng), dtype=dtype).reshape(shape)
        finite(f"{type(self).__name__}: the weights", values)
        return values

    @abstractmethod
    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """Values of `shape`, in float64."""

    def get_config(self) -> dict[str, Any]:
        """Arguments that make an equal initializer; JSON can hold them."""
        return asdict(self)  # type: ignore[call-overload]


def store(instance: Any, **values: float) -> None:
    """Replace fields of a frozen dataclass by their checked form: plain floats, so that JSON can hold a config."""
    for name, value in values.items():
        object.__setattr__(instance, name, value)


def _checked_shape(shape: Sequence[int]) -> tuple[int, ...]:
    try:
        axes = tuple(shape)
    except TypeError:
        raise BadValue(f"shape: expected a sequence of integers, got {shape!r}") from None
    if not all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) and n >= 0 for n in axes):
        raise BadValue(f"shape: expected integers >= 0, got {shape!r}")
    return tuple(int(n) for n in axes)
