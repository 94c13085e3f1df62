"""Layers that add noise to training and do nothing at inference: `Dropout`, `SpatialDropout1D`, `GaussianNoise`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from elman import checks
from elman.errors import BadValue
from elman.kernels.random import add_normal, dropout, dropout_mask
from elman.layers.base import Layer, Shape
from elman.registry import number
from elman.threads import usable_threads

# Below this size a parallel launch (2 to 14 us) costs more than it saves; an element takes an estimated 0.5 ns.
_PARALLEL_SIZE = 50_000


def _threads(size: int) -> int:
    return usable_threads() if size > _PARALLEL_SIZE else 1


def dropout_rate(argument: str, value: Any) -> float:
    """`value` as a float in [0, 1); TypeError or ValueError otherwise.

    Examples
    --------
    >>> dropout_rate("rate", 0)
    0.0
    """
    rate = number(argument, value, 0, 1)
    if rate == 1:
        raise BadValue(f"{argument}: expected a rate from 0 to below 1, got {value!r}: nothing would be left")
    return rate


@dataclass(eq=False)
class Dropout(Layer):
    """Sets elements to 0 at random while training, and scales the others up so that the mean stays.

    Srivastava et al. (2014), "Dropout: A Simple Way to Prevent Neural Networks from Overfitting"; scaled in training
    ("inverted"), so that inference is the identity.

    Parameters
    ----------
    rate : float
        Probability of 0, in [0, 1); the others are multiplied by 1 / (1 - rate).
    seed : int, optional
        Of the random numbers; by default they follow from the model's seed. Equal seeds give equal masks.
    name : str, optional

    Raises
    ------
    ValueError, TypeError
        If `rate` is no number in [0, 1), or `seed` no integer >= 0.

    Notes
    -----
    Any shape. What is dropped depends on the seed, the number of the training step and the place of the element alone,
    not on threads. Inference draws no random numbers. A NaN stays one, dropped or not.

    Examples
    --------
    >>> import numpy as np
    >>> import elman
    >>> layer = elman.layers.Dropout(0.5, seed=1)
    >>> layer(np.ones((1, 4))).tolist()
    [[1.0, 1.0, 1.0, 1.0]]
    >>> layer.forward(np.ones((1, 4)), training=True).tolist()
    [[0.0, 0.0, 2.0, 2.0]]
    """

    streams = passes = True

    rate: float
    seed: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.rate = dropout_rate("rate", self.rate)
        self.seed = self.seed if self.seed is None else checks.integer("seed", self.seed, 0)

    def compute_output_shape(self, shape: Shape) -> Shape:
        """The input shape."""
        return shape

    def forward(self, x: np.ndarray, *, training: bool) -> np.ndarray:
        """x itself, or in training what is left of it."""
        if not training:
            return x
        self._drawn = self.key if self.seed is None else self.seed, self.draw
        return self._drop(x)

    def backward(self, dy: np.ndarray, *, input_gradient: bool) -> np.ndarray | None:
        """dy through the same mask, which is computed again."""
        return self._drop(dy) if input_gradient else None

    def _drop(self, x: np.ndarray) -> np.ndarray:
        if self.rate == 0:
            return x
        return dropout(*self._drawn, self.rate, np.require(x, None, "CW"), _threads(x.size))


@dataclass(eq=False)
class SpatialDropout1D(Dropout):
    """`Dropout` of whole features: one decision per sample and feature, for all time steps.

    Tompson et al. (2015), "Efficient Object Localization Using Convolutional Networks". Neighbouring steps resemble
    each other, so that dropping single ones hides little.

    Parameters
    ----------
    rate : float
    seed : int, optional
        Both as in `Dropout`.
    name : str, optional

    Notes
    -----
    Input (T, F).

    Examples
    --------
    >>> import numpy as np
    >>> import elman
    >>> layer = elman.layers.SpatialDropout1D(0.5, seed=1)
    >>> layer.forward(np.ones((1, 2, 4)), training=True).tolist()
    [[[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]]]
    """

    def compute_output_shape(self, shape: Shape) -> Shape:
        """The input shape."""
        if len(shape) != 2:
            raise BadValue(f"layer {self.name or 'SpatialDropout1D'}: takes (time, features), got {shape}")
        return shape

    def _drop(self, x: np.ndarray) -> np.ndarray:
        if self.rate == 0:
            return x
        return x * dropout_mask(*self._drawn, self.rate, (x.shape[0], 1, x.shape[2]), x.dtype)


@dataclass(eq=False)
class GaussianNoise(Layer):
    """Adds normal numbers of mean 0 while training.

    Parameters
    ----------
    stddev : float
        Standard deviation, >= 0. (Keras refuses values above 1, which data in other units may need.)
    seed : int, optional
        As in `Dropout`.
    name : str, optional

    Raises
    ------
    ValueError, TypeError
        If `stddev` is no finite number >= 0, or `seed` no integer >= 0.

    Notes
    -----
    Any shape. As with `Dropout` the numbers do not depend on threads, and inference draws none.

    Examples
    --------
    >>> import numpy as np
    >>> import elman
    >>> layer = elman.layers.GaussianNoise(0.1, seed=1)
    >>> layer.forward(np.ones((1, 3)), training=True).round(3).tolist()
    [[1.008, 1.095, 1.111]]
    """

    streams = True

    stddev: float
    seed: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.stddev = number("stddev", self.stddev, 0)
        self.seed = self.seed if self.seed is None else checks.integer("seed", self.seed, 0)

    def compute_output_shape(self, shape: Shape) -> Shape:
        """The input shape."""
        return shape

    def forward(self, x: np.ndarray, *, training: bool) -> np.ndarray:
        """x itself, or in training x with noise."""
        if not training or self.stddev == 0:
            return x
        key = self.key if self.seed is None else self.seed
        return add_normal(key, self.draw, self.stddev, np.require(x, None, "CW"), _threads(x.size))

    def backward(self, dy: np.ndarray, *, input_gradient: bool) -> np.ndarray | None:
        """dy."""
        return dy if input_gradient else None
