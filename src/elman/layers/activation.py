"""Activations as a layer, and the softmax that `Dense` shares."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from elman import checks
from elman.kernels.elementwise import (
    activation_functions,
    elementwise,
    softmax,
    softmax_function,
    softmax_gradient,
)
from elman.kernels.pointwise import ACTIVATIONS
from elman.layers.base import Layer, Shape
from elman.threads import usable_threads

# Below this many elements a parallel launch costs more than it saves (0.2 ns per element against 2 to 14 us).
_PARALLEL_SIZE = 100_000
ACTIVATION_NAMES = (*ACTIVATIONS, "softmax")


def _threads(size: int) -> int:
    return usable_threads() if size > _PARALLEL_SIZE else 1


def softmax_forward(x: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, as a new contiguous array."""
    rows = np.require(x, None, "CW").reshape(-1, x.shape[-1])
    y = np.empty_like(rows)
    softmax(_threads(rows.size), softmax_function.handle(rows.dtype), rows, y)
    return y.reshape(x.shape)


def softmax_backward(y: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """Gradient of the logits, as a new array."""
    gradient = np.array(dy, order="C").reshape(-1, y.shape[-1])
    softmax_gradient(_threads(y.size), y.reshape(gradient.shape), gradient)
    return gradient.reshape(y.shape)


@dataclass(eq=False)
class Activation(Layer):
    """An elementwise activation, or softmax over the last axis.

    Parameters
    ----------
    activation : str
        A name of `elman.kernels.pointwise.ACTIVATIONS`, or "softmax".
    name : str, optional

    Raises
    ------
    ValueError
        For an unknown name, with the nearest known one.

    Examples
    --------
    >>> import elman
    >>> elman.layers.Activation("relu")([[-1.0, 2.0]]).tolist()
    [[0.0, 2.0]]
    """

    streams = True

    activation: str

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.choose("activation", self.activation, ACTIVATION_NAMES)

    def compute_output_shape(self, shape: Shape) -> Shape:
        """The input shape."""
        return shape

    def forward(self, x: np.ndarray, *, training: bool) -> np.ndarray:
        """The activation of every element."""
        if self.activation == "softmax":
            self._y = softmax_forward(x)
        else:
            x = np.require(x, None, "CW")
            self._y = np.empty_like(x)
            apply, _ = activation_functions(ACTIVATIONS[self.activation])
            elementwise(_threads(x.size), apply.handle(x.dtype), x.reshape(-1), self._y.reshape(-1))
        return self._y

    def backward(self, dy: np.ndarray, *, input_gradient: bool) -> np.ndarray | None:
        """Gradient of x from the kept output."""
        if not input_gradient:
            return None
        if self.activation == "softmax":
            return softmax_backward(self._y, dy)
        dx = np.array(dy, order="C")
        _, apply = activation_functions(ACTIVATIONS[self.activation])
        elementwise(_threads(dx.size), apply.handle(dx.dtype), self._y.reshape(-1), dx.reshape(-1))
        return dx


def activation_of(layer: Layer) -> str | None:
    """The activation of a layer, or of the one that `TimeDistributed` holds; None where there is no such choice."""
    found: str | None = getattr(getattr(layer, "layer", layer), "activation", None)
    return found
