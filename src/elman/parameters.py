"""One contiguous vector of parameters with named views, and its gradient of the same layout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from elman.memory import aligned


class Spec(NamedTuple):
    """A parameter a layer asks for: its name, shape and initializer ``(shape, dtype, rng) -> array``."""

    name: str
    shape: tuple[int, ...]
    initializer: Any


class Weight(NamedTuple):
    """A parameter of a built model: its name and the live array (a view of the model's vector)."""

    name: str
    value: np.ndarray


class ParameterVector:
    """Values and gradients of all parameters, contiguous, in the order of the specs.

    Attributes
    ----------
    values, gradients : ndarray of shape (n,)
    offsets : ndarray of int64, shape (parameters + 1,)
        Where each parameter begins in the vector.
    """

    def __init__(self, specs: Sequence[Spec], dtype: np.dtype, rng: np.random.Generator) -> None:
        self.specs = list(specs)
        sizes = [int(np.prod(s.shape, dtype=np.int64)) for s in self.specs]
        self.offsets = np.cumsum([0, *sizes]).astype(np.int64)
        self.values = aligned(int(self.offsets[-1]), dtype)
        self.gradients = aligned(int(self.offsets[-1]), dtype)
        self.gradients[:] = 0
        for view, spec in zip(self.views(self.values), self.specs, strict=True):
            view[...] = spec.initializer(spec.shape, dtype, rng)

    def views(self, vector: np.ndarray) -> list[np.ndarray]:
        """`vector` cut into arrays of the parameters' shapes."""
        starts = self.offsets.tolist()
        return [vector[a:b].reshape(s.shape) for s, a, b in zip(self.specs, starts[:-1], starts[1:], strict=True)]

    def __iter__(self) -> Iterator[Weight]:
        return (Weight(s.name, v) for s, v in zip(self.specs, self.views(self.values), strict=True))
