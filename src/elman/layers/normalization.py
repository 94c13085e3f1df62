"""Layer normalisation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from elman import checks, initializers
from elman.errors import BadValue
from elman.kernels.normalization import (
    backward_function,
    block_rows,
    collect_function,
    forward_function,
    normalize,
    normalize_gradient,
)
from elman.layers.base import Layer, Shape
from elman.parameters import Spec
from elman.registry import number
from elman.threads import usable_threads

# Below this size a parallel launch (2 to 14 us) costs more than it saves; an element takes an estimated 2 ns.
_PARALLEL_SIZE = 10_000


@dataclass(eq=False)
class LayerNormalization(Layer):
    """``y = gamma (x - mean) / sqrt(variance + epsilon) + beta``, mean and variance over the last axis of each step.

    Ba, Kiros & Hinton (2016), "Layer Normalization".

    Parameters
    ----------
    epsilon : float
        Added to the variance; > 0.
    center : bool
        Whether there is a beta.
    scale : bool
        Whether there is a gamma.
    beta_initializer, gamma_initializer : str, dict or initializer
        See `elman.initializers`.
    name : str, optional

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or an unknown name.

    Notes
    -----
    Input (F,) or (T, F). Weights: gamma (F,), beta (F,). Training and inference do the same. Sums run in float64, so
    that a feature vector far from 0 keeps its digits.

    Examples
    --------
    >>> import elman
    >>> elman.layers.LayerNormalization()([[1.0, 2.0, 3.0]]).round(3).tolist()
    [[-1.224, 0.0, 1.224]]
    """

    streams = True

    epsilon: float = field(default=1e-3, kw_only=True)
    center: bool = field(default=True, kw_only=True)
    scale: bool = field(default=True, kw_only=True)
    beta_initializer: Any = field(default="zeros", kw_only=True)
    gamma_initializer: Any = field(default="ones", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.epsilon = number("epsilon", self.epsilon, 0, open_low=True)
        self.center = checks.flag("center", self.center)
        self.scale = checks.flag("scale", self.scale)
        self.beta_initializer = initializers.get(self.beta_initializer)
        self.gamma_initializer = initializers.get(self.gamma_initializer)

    def compute_output_shape(self, shape: Shape) -> Shape:
        """The input shape."""
        if len(shape) not in (1, 2) or shape[-1] is None:
            name = self.name or "LayerNormalization"
            raise BadValue(f"layer {name}: takes (features,) or (time, features), got {shape}")
        return shape

    def specs(self, shape: Shape) -> list[Spec]:
        """Gamma, beta."""
        gamma = [Spec("gamma", shape[-1:], self.gamma_initializer)] if self.scale else []
        return gamma + ([Spec("beta", shape[-1:], self.beta_initializer)] if self.center else [])

    def prepare(self, shape: Shape, dtype: np.dtype) -> None:
        """Fill the places of what the layer has not: gamma is 1, beta 0, and their gradients go nowhere."""
        self._gamma = self.parameters[0] if self.scale else np.ones(shape[-1], dtype)
        self._beta = self.parameters[-1] if self.center else np.zeros(shape[-1], dtype)
        self._d_gamma = self.gradients[0] if self.scale else np.empty(shape[-1], dtype)
        self._d_beta = self.gradients[-1] if self.center else np.empty(shape[-1], dtype)

    def forward(self, x: np.ndarray, *, training: bool) -> np.ndarray:
        """Every vector along the last axis, normalised."""
        rows = np.require(x, None, "CW").reshape(-1, x.shape[-1])
        y, moments = np.empty_like(rows), np.empty((len(rows), 2))
        threads = usable_threads() if rows.size > _PARALLEL_SIZE else 1
        normalize(
            threads, forward_function.handle(rows.dtype), rows, self._gamma, self._beta, self.epsilon,
            block_rows(len(rows)), moments, y,
        )  # fmt: skip
        if training:
            self._kept = rows, moments
        return y.reshape(x.shape)

    def backward(self, dy: np.ndarray, *, input_gradient: bool) -> np.ndarray | None:
        """Gradients of gamma and beta; that of x if asked for."""
        rows, moments = self._kept
        block = block_rows(len(rows))
        flat = np.require(dy, None, "CW").reshape(rows.shape)
        dx, sums = np.empty_like(rows), np.empty((-(-len(rows) // block), 2, rows.shape[1]))
        threads = usable_threads() if rows.size > _PARALLEL_SIZE else 1
        normalize_gradient(
            threads, backward_function.handle(rows.dtype), collect_function.handle(rows.dtype), rows, self._gamma, flat,
            moments, block, sums, self._d_gamma, self._d_beta, dx,
        )  # fmt: skip
        return dx.reshape(dy.shape) if input_gradient else None
