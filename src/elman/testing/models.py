"""The gradient check of a whole model."""

from __future__ import annotations

from typing import Any

import numpy as np

from elman.checks import integer
from elman.errors import BadValue
from elman.model import Sequential
from elman.testing.compare import check_derivative, norm_of, random_direction


def check_gradients(
    model: Sequential,
    x: Any,
    y: Any,
    *,
    sample_weight: Any = None,
    lengths: Any = None,
    mask: Any = None,
    tolerance: float = 1e-6,
    directions: int = 3,
    seed: int = 0,
) -> None:
    """Check ``model.gradients`` against central differences of the loss, in random directions of all parameters.

    Parameters
    ----------
    model : Sequential
        Compiled, of dtype float64. Its present weights are used and restored.
    x, y, sample_weight, lengths, mask
        One batch, as for `Sequential.gradients`. Noise of layers such as `Dropout` stays the same meanwhile.
    tolerance : float
        Allowed relative difference.
    directions : int
        How many directions, each over all parameters together.
    seed : int
        Of the directions.

    Raises
    ------
    ValueError
        If the model is not float64: in float32 differences of a loss say little.
    AssertionError
        With the direction and both numbers, if a gradient is wrong, or not in the shape of its parameter.

    Examples
    --------
    >>> import numpy as np
    >>> import elman
    >>> from elman.testing import check_gradients
    >>> rng = np.random.default_rng(0)
    >>> model = elman.Sequential([elman.layers.SimpleRNN(3), elman.layers.Dense(1)], dtype="float64", seed=0)
    >>> model.compile("sgd", "mse")
    >>> check_gradients(model, rng.normal(size=(4, 5, 2)), rng.normal(size=4))
    """
    if model.dtype != np.float64:
        raise BadValue(f"model: gradients are checked in float64, got a model of {model.dtype}; make it float64")
    integer("directions", directions)
    gradients = model.gradients(x, y, sample_weight, lengths=lengths, mask=mask)
    weights = model.get_weights()
    for k, (g, w) in enumerate(zip(gradients, weights, strict=True)):
        if g.shape != w.shape:
            raise AssertionError(f"gradient {k}: shape {g.shape}, but its parameter has {w.shape}")
    rng = np.random.default_rng(seed)
    scale = norm_of(gradients) / np.sqrt(model.count_params())

    def value(step: float, direction: list[np.ndarray]) -> float:
        model.set_weights([w + step * v for w, v in zip(weights, direction, strict=True)])
        return model.loss_and_gradients(x, y, sample_weight, lengths=lengths, mask=mask)[0]

    try:
        for k in range(directions):
            direction = random_direction(rng, weights)
            analytic = float(sum(np.vdot(g, v) for g, v in zip(gradients, direction, strict=True)))
            check_derivative(
                f"model, direction {k}", lambda h, v=direction: value(h, v), analytic, float(scale), tolerance
            )
    finally:
        model.set_weights(weights)
