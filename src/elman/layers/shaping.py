"""Layers that only move data: `Input`, `Flatten`, `Reshape`, `RepeatVector`, `LastSteps`, `TimeDistributed`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from elman import checks
from elman.errors import BadType, BadValue
from elman.layers.base import Layer, Shape, Views, deserialize
from elman.parameters import Spec


@dataclass(eq=False)
class Input(Layer):
    """Declares the shape of a model's input, without the batch.

    Parameters
    ----------
    shape : tuple of int or None
        (T, I) for sequences, (T,) for token ids, where T may be None for any length; (F,) for vectors.
    name : str, optional

    Raises
    ------
    ValueError, TypeError
        If an entry is no positive integer.

    Examples
    --------
    >>> import elman
    >>> elman.Sequential([elman.layers.Input((None, 3)), elman.layers.GRU(4)]).output_shape
    (4,)
    """

    shape: Shape

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.shape, (tuple, list)) or len(self.shape) not in (1, 2):
            raise BadValue(f"shape: expected (time, features) or (features,), got {self.shape!r}")
        self.shape = tuple(s if s is None else checks.integer("shape", s) for s in self.shape)
        if len(self.shape) == 2 and self.shape[-1] is None:
            raise BadValue(f"shape: the number of features must be known, got {self.shape}")

    def compute_output_shape(self, shape: Shape) -> Shape:
        """The declared shape."""
        return self.shape

    def forward(self, x: np.ndarray, *, training: bool) -> np.ndarray:
        """x."""
        return x

    def backward(self, dy: np.ndarray, *, input_gradient: bool) -> np.ndarray | None:
        """dy."""
        return dy


@dataclass(eq=False)
class Flatten(Layer):
    """(T, F) to (T * F,); vectors stay as they are.

    Examples
    --------
    >>> import numpy as np
    >>> import elman
    >>> elman.layers.Flatten()(np.zeros((2, 3, 4))).shape
    (2, 12)
    """

    def compute_output_shape(self, shape: Shape) -> Shape:
        """One axis with all elements."""
        if None in shape:
            raise BadValue(f"layer {self.name or 'Flatten'}: the number of time steps must be known, got {shape}")
        return (int(np.prod(shape)),)

    def forward(self, x: np.ndarray, *, training: bool) -> np.ndarray:
        """x, reshaped."""
        return x.reshape(x.shape[0], -1)

    def backward(self, dy: np.ndarray, *, input_gradient: bool) -> np.ndarray | None:
        """dy, reshaped back."""
        return dy.reshape(dy.shape[0], *self.shape)


@dataclass(eq=False)
class Reshape(Layer):
    """All elements of a sample in another shape, in the same order.

    Parameters
    ----------
    target_shape : tuple of int
        (T, F) or (F,); one entry may be -1, which takes what is left.
    name : str, optional

    Raises
    ------
    ValueError, TypeError
        If an entry is no integer of at least 1 and not the only -1; when built, if the elements do not fit.

    Notes
    -----
    Any input whose number of steps is known. A mask is handed on where the number of steps stays; else it has no
    meaning any more.

    Examples
    --------
    >>> import numpy as np
    >>> import elman
    >>> elman.layers.Reshape((6, -1))(np.arange(12.0).reshape(1, 3, 4))[0, :2].tolist()
    [[0.0, 1.0], [2.0, 3.0]]
    """

    target_shape: tuple[int, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        given = self.target_shape
        if not isinstance(given, (tuple, list)) or len(given) not in (1, 2):
            raise BadValue(f"target_shape: expected (time, features) or (features,), got {given!r}")
        self.target_shape = tuple(
            -1 if isinstance(s, (int, np.integer)) and s == -1 else checks.integer("target_shape", s) for s in given
        )
        if self.target_shape.count(-1) > 1:
            raise BadValue(f"target_shape: expected -1 once at most, got {self.target_shape}")

    def compute_output_shape(self, shape: Shape) -> Shape:
        """The target shape, -1 replaced."""
        if None in shape:
            raise BadValue(f"layer {self.name or 'Reshape'}: the number of time steps must be known, got {shape}")
        size, known = math.prod(shape), math.prod(s for s in self.target_shape if s != -1)
        if size % known or (size != known and -1 not in self.target_shape):
            raise BadValue(
                f"layer {self.name or 'Reshape'}: the {size} elements of {shape} do not fill "
                f"target_shape={self.target_shape}"
            )
        return tuple(size // known if s == -1 else s for s in self.target_shape)

    def forward(self, x: np.ndarray, *, training: bool) -> np.ndarray:
        """x, reshaped."""
        return x.reshape(x.shape[0], *self.output_shape)

    def backward(self, dy: np.ndarray, *, input_gradient: bool) -> np.ndarray | None:
        """dy, reshaped back."""
        return dy.reshape(dy.shape[0], *self.shape)


@dataclass(eq=False)
class RepeatVector(Layer):
    """(F,) to (n, F): the vector at every one of n steps.

    Parameters
    ----------
    n : int
    name : str, optional

    Examples
    --------
    >>> import numpy as np
    >>> import elman
    >>> elman.layers.RepeatVector(3)(np.ones((2, 4))).shape
    (2, 3, 4)
    """

    n: int

    def __post_init__(self) -> None:
        super().__post_init__()
        self.n = checks.integer("n", self.n, 1, 1 << 40)

    def compute_output_shape(self, shape: Shape) -> Shape:
        """(n, F)."""
        if len(shape) != 1:
            raise BadValue(f"layer {self.name or 'RepeatVector'}: takes (features,), got {shape}")
        return (self.n, *shape)

    def forward(self, x: np.ndarray, *, training: bool) -> np.ndarray:
        """x at every step, without copying."""
        return np.broadcast_to(x[:, None], (x.shape[0], self.n, x.shape[1]))

    def backward(self, dy: np.ndarray, *, input_gradient: bool) -> np.ndarray | None:
        """Sum over the steps."""
        return dy.sum(axis=1)


@dataclass(eq=False)
class LastSteps(Layer):
    """(T, F) to (n, F): the last n steps of a sequence, such as those that are forecast.

    Parameters
    ----------
    n : int
        At most T.
    name : str, optional

    Raises
    ------
    ValueError, TypeError
        If `n` is no integer of at least 1, or a sequence has fewer steps.

    Examples
    --------
    >>> import numpy as np
    >>> import elman
    >>> elman.layers.LastSteps(2)(np.arange(4.0).reshape(1, 4, 1)).tolist()
    [[[2.0], [3.0]]]
    """

    n: int

    def __post_init__(self) -> None:
        super().__post_init__()
        self.n = checks.integer("n", self.n)

    def compute_output_shape(self, shape: Shape) -> Shape:
        """(n, F)."""
        if len(shape) != 2:
            raise BadValue(f"layer {self.name or 'LastSteps'}: takes (time, features), got {shape}")
        if shape[0] is not None and shape[0] < self.n:
            raise BadValue(f"layer {self.name or 'LastSteps'}: needs at least n={self.n} steps, got {shape[0]}")
        return (self.n, *shape[1:])

    def forward(self, x: np.ndarray, *, training: bool) -> np.ndarray:
        """The end of x, without copying."""
        self.compute_output_shape(x.shape[1:])
        if training:
            self._steps = x.shape[1]
        return x[:, -self.n :]

    def backward(self, dy: np.ndarray, *, input_gradient: bool) -> np.ndarray | None:
        """dy at the last steps, 0 before."""
        if not input_gradient:
            return None
        dx = np.zeros((len(dy), self._steps, dy.shape[2]), dy.dtype)
        dx[:, -self.n :] = dy
        return dx

    def output_mask(self, x: np.ndarray) -> np.ndarray | None:
        """The end of the input's mask."""
        return None if self.mask is None else self.mask[:, -self.n :]


@dataclass(eq=False)
class TimeDistributed(Layer):
    """Applies a layer to every time step alone.

    Parameters
    ----------
    layer : Layer
        Any layer that takes one step's shape; steps become rows of its batch.
    name : str, optional

    Raises
    ------
    TypeError
        If `layer` is no layer.

    Examples
    --------
    >>> import numpy as np
    >>> import elman
    >>> elman.layers.TimeDistributed(elman.layers.Dense(2))(np.zeros((3, 5, 4))).shape
    (3, 5, 2)
    """

    streams = True

    layer: Layer

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.layer, dict):
            self.layer = deserialize(self.layer)
        if not isinstance(self.layer, Layer):
            raise BadType(f"layer: expected a layer, got {type(self.layer).__name__}")
        if getattr(self.layer, "stateful", False):
            raise BadValue("layer: a stateful layer carries states from batch to batch, steps are no batches")

    def inner(self) -> tuple[Layer, ...]:
        """The wrapped layer, and what that holds."""
        return (self.layer, *self.layer.inner())

    def compute_output_shape(self, shape: Shape) -> Shape:
        """(T, *output of the layer)."""
        if len(shape) < 2:
            raise BadValue(f"layer {self.name or 'TimeDistributed'}: takes (time, ...), got {shape}")
        return (shape[0], *self.layer.compute_output_shape(shape[1:]))

    def specs(self, shape: Shape) -> list[Spec]:
        """Those of the inner layer."""
        return self.layer.specs(shape[1:])

    def build(self, shape: Shape, dtype: np.dtype, views: Views) -> Shape:
        """Bind this layer and the inner one to the same arrays."""
        arrays = views()
        self.layer.build(shape[1:], dtype, lambda: arrays)
        return super().build(shape, dtype, lambda: arrays)

    def check_values(self, argument: str, x: np.ndarray) -> None:
        """What the layer says of the values of all steps."""
        self.layer.check_values(argument, x)

    def forward(self, x: np.ndarray, *, training: bool) -> np.ndarray:
        """The inner layer on (B * T, ...)."""
        self.layer.draw = self.draw
        y = self.layer.forward(x.reshape(-1, *x.shape[2:]), training=training)
        return y.reshape(*x.shape[:2], *y.shape[1:])

    def backward(self, dy: np.ndarray, *, input_gradient: bool) -> np.ndarray | None:
        """The inner layer's gradient, reshaped."""
        dx = self.layer.backward(dy.reshape(-1, *dy.shape[2:]), input_gradient=input_gradient)
        return dx.reshape(*dy.shape[:2], *dx.shape[1:]) if input_gradient else None
