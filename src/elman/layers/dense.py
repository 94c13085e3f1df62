"""The dense layer: a cell without recurrence, on the kernels of the scan."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from elman import checks, constraints, initializers, regularizers
from elman.cells.dense import DENSE
from elman.errors import BadValue
from elman.layers.activation import ACTIVATION_NAMES, softmax_backward, softmax_forward
from elman.layers.activity import activity_loss, with_activity_gradient
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
    kernel_regularizer, bias_regularizer : str, dict, Regularizer or None
        Penalties added to the loss; see `elman.regularizers`.
    activity_regularizer : str, dict, Regularizer or None
        Penalty of the output, divided by the batch size.
    kernel_constraint, bias_constraint : str, dict, Constraint or None
        Projections after each update; see `elman.constraints`.
    name : str, optional

    Attributes
    ----------
    activity_loss : float
        The output's penalty in the last `forward`; 0.0 without `activity_regularizer`.

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

    streams = True

    units: int
    activation: str | None = None
    use_bias: bool = field(default=True, kw_only=True)
    kernel_initializer: Any = field(default="glorot_uniform", kw_only=True)
    bias_initializer: Any = field(default="zeros", kw_only=True)
    kernel_regularizer: Any = field(default=None, kw_only=True)
    bias_regularizer: Any = field(default=None, kw_only=True)
    activity_regularizer: Any = field(default=None, kw_only=True)
    kernel_constraint: Any = field(default=None, kw_only=True)
    bias_constraint: Any = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.units = checks.integer("units", self.units)
        self.activation = checks.choose(
            "activation", "linear" if self.activation is None else self.activation, ACTIVATION_NAMES
        )
        self.use_bias = checks.flag("use_bias", self.use_bias)
        self.kernel_initializer = initializers.get(self.kernel_initializer)
        self.bias_initializer = initializers.get(self.bias_initializer)
        for name in ("kernel_regularizer", "bias_regularizer", "activity_regularizer"):
            setattr(self, name, regularizers.get(getattr(self, name), name))
        for name in ("kernel_constraint", "bias_constraint"):
            setattr(self, name, constraints.get(getattr(self, name), name))
        self.activity_loss = 0.0

    def compute_output_shape(self, shape: Shape) -> Shape:
        """The last axis becomes O."""
        if len(shape) not in (1, 2) or shape[-1] is None:
            raise BadValue(f"layer {self.name or 'Dense'}: takes (features,) or (time, features), got {shape}")
        return (*shape[:-1], self.units)

    def specs(self, shape: Shape) -> list[Spec]:
        """Kernel, bias."""
        shapes = {"kernel": (shape[-1], self.units), **({"bias": (self.units,)} if self.use_bias else {})}
        return [
            Spec(
                name,
                wanted,
                getattr(self, f"{name}_initializer"),
                getattr(self, f"{name}_regularizer"),
                getattr(self, f"{name}_constraint"),
                self.trainable,
            )
            for name, wanted in shapes.items()
        ]

    def prepare(self, shape: Shape, dtype: np.dtype) -> None:
        """Make the map."""
        inner = "linear" if self.activation == "softmax" else self.activation
        self._map = Recurrence(DENSE, shape[-1], self.units, dtype, inner, "linear")
        self._arguments = self._as_arguments(self.parameters)
        self._targets = self._as_arguments(self.gradients)

    def _as_arguments(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        none = np.empty((0, self.units), arrays[0].dtype)
        return [arrays[0], none, arrays[1].reshape(1, -1) if self.use_bias else none, none]

    def forward(self, x: np.ndarray, *, training: bool) -> np.ndarray:
        """(B, F) to (B, O) or (B, T, F) to (B, T, O)."""
        tape = self._map.forward(
            x[:, None] if x.ndim == 2 else x, self._arguments, None, training=training, sequences=True
        )
        self._tape = tape if training else None
        y = tape.outputs[:, 0] if x.ndim == 2 else tape.outputs
        if self.activation == "softmax":
            y = softmax_forward(y)
        self._output = y if training else None
        self.activity_loss = activity_loss(self.activity_regularizer, y)
        return y

    def backward(self, dy: np.ndarray, *, input_gradient: bool) -> np.ndarray | None:
        """Gradients of kernel and bias; that of x if asked for."""
        dy = with_activity_gradient(self.activity_regularizer, self._output, dy)
        if self.activation == "softmax":
            dy = softmax_backward(self._output, dy)
        flat = dy.ndim == 2
        dx = self._tape.run_backward(dy[:, None] if flat else dy, None, self._targets, input_gradient=input_gradient)
        return dx[:, 0] if flat and input_gradient else dx
