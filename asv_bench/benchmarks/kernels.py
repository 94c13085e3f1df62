"""The recurrence alone, under layers and model: `elman.functional.recurrent` and its tape."""

from __future__ import annotations

import numpy as np

from benchmarks import DTYPES, SIZES, batch
from elman.cells import CELLS


class Recurrent:
    """Forward, and forward with backward, of one layer with a gradient at every output."""

    params = (tuple(CELLS), tuple(SIZES), DTYPES)
    param_names = ("cell", "BxTxIxH", "dtype")

    def setup(self, cell: str, size: str, dtype: str) -> None:
        import elman

        self.recurrent = elman.functional.recurrent
        layer = elman.layers.RNN(SIZES[size].H, cell=cell)
        layer.build_alone((None, SIZES[size].I), np.dtype(dtype))
        self.parameters = layer.get_weights()
        self.x, _ = batch(SIZES[size], dtype)
        outputs, _, tape = self.recurrent(cell, self.x, self.parameters)
        self.d_outputs = np.random.default_rng(1).standard_normal(outputs.shape).astype(dtype)
        tape.backward(self.d_outputs)

    def time_forward(self, cell: str, size: str, dtype: str) -> None:
        self.recurrent(cell, self.x, self.parameters)

    def time_forward_backward(self, cell: str, size: str, dtype: str) -> None:
        tape = self.recurrent(cell, self.x, self.parameters)[2]
        tape.backward(self.d_outputs)
