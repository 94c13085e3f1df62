"""Masks from values."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from elman.errors import BadValue
from elman.layers.base import Layer, Shape
from elman.registry import number


@dataclass(eq=False)
class Masking(Layer):
    """Masks the steps whose features all equal a value, in the layers that follow.

    Parameters
    ----------
    mask_value : float
        Compared exactly, in the model's dtype. A step with a NaN is not masked.
    name : str, optional

    Raises
    ------
    ValueError, TypeError
        If `mask_value` is no finite number.

    Notes
    -----
    Input (T, F), handed on as it is (Keras sets masked steps to 0, which a masked step does not show). Where the input
    has a mask already, a step must pass both.

    Examples
    --------
    >>> import numpy as np
    >>> import elman
    >>> layer, x = elman.layers.Masking(-1), np.array([[[-1.0, -1.0], [-1.0, 2.0]]])
    >>> bool((layer(x) == x).all()), layer.output_mask(x).tolist()
    (True, [[False, True]])
    """

    streams = passes = True
    masks = True

    mask_value: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.mask_value = number("mask_value", self.mask_value, -math.inf)

    def compute_output_shape(self, shape: Shape) -> Shape:
        """The input shape."""
        if len(shape) != 2:
            raise BadValue(f"layer {self.name or 'Masking'}: takes (time, features), got {shape}")
        return shape

    def forward(self, x: np.ndarray, *, training: bool) -> np.ndarray:
        """x."""
        return x

    def backward(self, dy: np.ndarray, *, input_gradient: bool) -> np.ndarray | None:
        """dy."""
        return dy if input_gradient else None

    def output_mask(self, x: np.ndarray) -> np.ndarray:
        """(B, T): False where all features equal `mask_value`, or where the input's mask is False."""
        value = x.dtype.type(self.mask_value)
        mask = x[:, :, 0] != value
        # Only steps that begin like a masked one need a look at their other features.
        rest = ~mask
        mask[rest] = (x[rest] != value).any(axis=-1)
        return mask if self.mask is None else mask & self.mask
