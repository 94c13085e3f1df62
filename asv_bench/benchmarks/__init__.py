"""Benchmarks of elman, and the one table of sizes and dtypes that they and the scripts beside them share.

Importing this file needs neither elman nor NumPy: the peers' interpreter may have no elman.
"""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = [
    "DTYPES", "PEER_GATES", "SIZES", "STREAMS", "Flops", "Size", "batch", "make_model", "product_flops", "step_flops",
]  # fmt: skip

PEER_GATES = {"simple": 1, "gru": 3, "lstm": 4}
"""Gates of the cells that the peers have too; benchmarks of elman alone take every registered cell."""

DTYPES = ("float32", "float64")


class Size(NamedTuple):
    """Batch, time steps, input features, units."""

    B: int
    T: int
    I: int
    H: int


SIZES = {
    "x".join(map(str, size)): size
    for size in (
        Size(32, 24, 1, 16),
        Size(32, 48, 1, 32),
        Size(32, 100, 8, 64),
        Size(64, 100, 8, 128),
        Size(64, 100, 32, 256),
        Size(1, 500, 8, 64),
        Size(256, 24, 8, 32),
        Size(64, 50, 256, 512),
    )
}
"""Sizes by their label, which is ``BxTxIxH``."""


STREAMS = {"LSTM(64)": ("lstm", 64, 8), "GRU(16)": ("gru", 16, 8)}
"""Cell, units and input features of the models that run step by step, with Dense(1), by their label."""


class Flops(NamedTuple):
    """Operations of the products with the weights, by phase of a training step.

    Gate arithmetic, head, loss and optimizer are not counted, nor is the gradient of the input, which training one
    layer does not need.
    """

    forward: int
    recursion: int
    weight_gradients: int


def product_flops(cell: str, size: Size) -> Flops:
    """Operations of one training step of one recurrent layer."""
    columns = PEER_GATES[cell] * size.H
    forward = 2 * size.B * size.T * (size.I + size.H) * columns
    return Flops(forward, 2 * size.B * size.T * size.H * columns, forward)


def step_flops(cell: str, size: Size, task: str = "train") -> int:
    """Operations of one step of a task: "train", which has all phases, or "predict", which is forward alone."""
    flops = product_flops(cell, size)
    return sum(flops) if task == "train" else flops.forward


def batch(size: Size, dtype: str, batches: int = 1) -> tuple[Any, Any]:
    """Random input (batches * B, T, I) and target (batches * B, 1)."""
    import numpy as np

    rng = np.random.default_rng(0)
    n = batches * size.B
    return rng.standard_normal((n, size.T, size.I)).astype(dtype), rng.standard_normal((n, 1)).astype(dtype)


def make_model(cell: str, size: Size, dtype: str) -> Any:
    """Compiled elman model: one recurrent layer, Dense(1) on its last output, mse, Adam."""
    import elman

    layers = [elman.layers.Input((size.T, size.I)), elman.layers.RNN(size.H, cell=cell), elman.layers.Dense(1)]
    model = elman.Sequential(layers, dtype=dtype, seed=0)
    model.compile("adam", "mse")
    return model
