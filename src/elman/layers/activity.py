"""Penalties on a layer's output: the two calls a layer makes for its ``activity_regularizer``."""

from __future__ import annotations

import numpy as np

from elman.regularizers import Regularizer


def activity_loss(regularizer: Regularizer | None, y: np.ndarray) -> float:
    """The penalty of an output y (batch, ...) over the batch size, as Keras adds it to the loss; 0.0 for None."""
    return 0.0 if regularizer is None else regularizer(y) / len(y)


def with_activity_gradient(regularizer: Regularizer | None, y: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """dy with the derivative of `activity_loss` added, as a new array; dy itself for None."""
    if regularizer is None:
        return dy
    gradient = np.zeros_like(y)
    regularizer.add_gradient(y, gradient)
    gradient /= len(y)
    gradient += dy
    return gradient
