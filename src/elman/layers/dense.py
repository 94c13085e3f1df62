"""The dense layer: a cell without recurrence, on the kernels of the scan."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from elman import checks, initializers
from elman.cells.dense import DENSE
from elman.layers.activation import ACTIVATION_NAMES, softmax_backward, softmax_forward
from elman.layers.base import Layer, Shape
from elman.parameters import Spec
from elman.recurrence import Recurrence


@dataclass(eq=False)
class Dense(Layer):
    """``y = act(x K + b)`` over the last axis.

    Parameters
    ----------
    units : int
        O, the width of the output.
    activation : str or None
        None for linear; see `Activation`. Softmax runs over the last axis.
    use_bias : bool
    kernel_initializer, bias_initializer : str, dict or initializer
        See `elman.initializers`.
    name : str, optional

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or an unknown name.

    Notes
    -----
    Input (F,) or (T, F); output (O,) or (T, O). Weights: kernel (F, O), bias (O,).

    Examples
    --------
    >>> import numpy as np
    >>> import elman
    >>> elman.layers.Dense(2)(np.zeros((3, 5, 4))).shape
    (3, 5, 2)
    """

    units: int
    activation: str | None = None
    use_bias: bool = field(default=True, kw_only=True)
    kernel_initializer: Any = field(default="glorot_uniform", kw_only=True)
    bias_initializer: Any = field(default="zeros", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.units = checks.integer("units", self.units)
        self.activation = checks.choose("activation", self.activation or "linear", ACTIVATION_NAMES)
        self.use_bias = checks.flag("use_bias", self.use_bias)
        self.kernel_initializer = initializers.get(self.kernel_initializer)
        self.bias_initializer = initializers.get(self.bias_initializer)

    def compute_output_shape(self, shape: Shape) -> Shape:
        """The last axis becomes O."""
        if len(shape) not in (1, 2) or shape[-1] is None:
            raise ValueError(f"layer {self.name or 'Dense'}: takes (features,) or (time, features), got {shape}")
        return (*shape[:-1], self.units)

    def specs(self, shape: Shape) -> list[Spec]:
        """Kernel, bias."""
        bias = [Spec("bias", (self.units,), self.bias_initializer)] if self.use_bias else []
        return [Spec("kernel", (shape[-1], self.units), self.kernel_initializer), *bias]

    def prepare(self, shape: Shape, dtype: np.dtype) -> None:
        """Make the map."""
        inner = "linear" if self.activation == "softmax" else self.activation
        self._map = Recurrence(DENSE, shape[-1], self.units, dtype, inner, "linear")
        self._arguments = self._as_arguments(self.parameters)
        self._targets = self._as_arguments(self.gradients)

    def _as_arguments(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        none = np.empty((0, self.units), arrays[0].dtype)
        return [arrays[0], none, arrays[1].reshape(1, -1) if self.use_bias else none]

    def forward(self, x: np.ndarray, *, training: bool) -> np.ndarray:
        """(B, F) to (B, O) or (B, T, F) to (B, T, O)."""
        tape = self._map.forward(
            x[:, None] if x.ndim == 2 else x, self._arguments, None, training=training, sequences=True
        )
        self._tape = tape if training else None
        y = tape.outputs[:, 0] if x.ndim == 2 else tape.outputs
        if self.activation == "softmax":
            y = self._probabilities = softmax_forward(y)
        return y

    def backward(self, dy: np.ndarray, *, input_gradient: bool) -> np.ndarray | None:
        """Gradients of kernel and bias; that of x if asked for."""
        if self.activation == "softmax":
            dy = softmax_backward(self._probabilities, dy)
        flat = dy.ndim == 2
        dx, _ = self._tape.run_backward(
            dy[:, None] if flat else dy, [None], self._targets, input_gradient=input_gradient
        )
        return dx[:, 0] if flat and input_gradient else dx
