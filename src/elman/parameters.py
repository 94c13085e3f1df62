"""One contiguous vector of parameters with named views, and its gradient of the same layout."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np

from elman.errors import BadValue
from elman.memory import aligned


class Spec(NamedTuple):
    """A parameter a layer asks for.

    Attributes
    ----------
    name : str
    shape : tuple of int
    initializer : callable
        ``(shape, dtype, rng) -> array``.
    regularizer : Regularizer or None
        Its penalty is part of the loss.
    constraint : Constraint or None
        Projects the parameter after each update.
    trainable : bool
        False freezes it.
    """

    name: str
    shape: tuple[int, ...]
    initializer: Any
    regularizer: Any = None
    constraint: Any = None
    trainable: bool = True


_most: ContextVar[int] = ContextVar("most parameters", default=1 << 60)


@contextmanager
def at_most(count: int) -> Iterator[None]:
    """Models made within have so many parameters at most: those of a file, as its description may claim any number."""
    token = _most.set(count)
    try:
        yield
    finally:
        _most.reset(token)


class Weight(NamedTuple):
    """A parameter of a built model: its name and the live array (a view of the model's vector)."""

    name: str
    value: np.ndarray


def _memory(specs: Sequence[Spec], sizes: Sequence[int], dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Uninitialised memory for values and gradients; ValueError where there is not that much."""
    total = sum(sizes)
    try:
        if total <= _most.get():
            return aligned(total, dtype), aligned(total, dtype)
        reason = f"at most {_most.get():,} are possible"
    except (MemoryError, ValueError, OverflowError) as error:
        reason = str(error)
    largest = specs[max(range(len(sizes)), key=sizes.__getitem__)]
    raise BadValue(
        f"layers: the model would have {total:,} parameters, {largest.name!r} alone of shape {largest.shape}; {reason}"
    )


class ParameterVector:
    """Values and gradients of all parameters, contiguous, in the order of the specs.

    Attributes
    ----------
    values, gradients : ndarray of shape (n,)
    offsets : ndarray of int64, shape (parameters + 1,)
        Where each parameter begins in the vector.

    Raises
    ------
    ValueError
        If a constraint does not fit the shape of its parameter, or memory does not suffice.
    """

    def __init__(self, specs: Sequence[Spec], dtype: np.dtype, rng: np.random.Generator) -> None:
        self.specs = list(specs)
        for spec in self.specs:
            if spec.constraint is not None:
                spec.constraint.check(spec.shape)
        sizes = [math.prod(s.shape) for s in self.specs]
        self.values, self.gradients = _memory(self.specs, sizes, dtype)
        self.offsets = np.cumsum([0, *sizes]).astype(np.int64)
        self.gradients[:] = 0
        for view, spec in zip(self.views(self.values), self.specs, strict=True):
            view[...] = spec.initializer(spec.shape, dtype, rng)
        self.trainable = [s.trainable for s in self.specs]

    @property
    def trainable(self) -> np.ndarray:
        """Array of bool, (parameters,); set it to freeze parameters: those have no penalty and no projection."""
        return self._trainable

    @trainable.setter
    def trainable(self, chosen: Sequence[bool] | np.ndarray) -> None:
        flags = np.array(chosen, bool)
        if flags.shape != (len(self.specs),):
            raise BadValue(f"trainable: expected {len(self.specs)} booleans, got shape {flags.shape}")
        self._trainable = flags
        rows = zip(self.specs, self.views(self.values), self.views(self.gradients), flags, strict=True)
        used = [(s, value, gradient) for s, value, gradient, free in rows if free]
        # Empty for most models: what they do in each step is then one test.
        self._penalised = [(s.regularizer, v, g) for s, v, g in used if s.regularizer is not None]
        self._constrained = [(s.constraint, v) for s, v, _ in used if s.constraint is not None]

    def penalty(self) -> float:
        """Sum of the regularizers' penalties."""
        return sum((regularizer(value) for regularizer, value, _ in self._penalised), 0.0)

    def regularize(self) -> float:
        """`penalty`, with its derivative added to the gradients."""
        for regularizer, value, gradient in self._penalised:
            regularizer.add_gradient(value, gradient)
        return self.penalty()

    def constrain(self) -> None:
        """Project the parameters that have a constraint, in place."""
        for constraint, value in self._constrained:
            constraint.project(value)

    def views(self, vector: np.ndarray) -> list[np.ndarray]:
        """`vector` cut into arrays of the parameters' shapes."""
        starts = self.offsets.tolist()
        return [vector[a:b].reshape(s.shape) for s, a, b in zip(self.specs, starts[:-1], starts[1:], strict=True)]

    def __iter__(self) -> Iterator[Weight]:
        return (Weight(s.name, v) for s, v in zip(self.specs, self.views(self.values), strict=True))
