"""Inference through the public methods."""

from __future__ import annotations

from benchmarks import DTYPES, SIZES, batch, make_model
from elman.cells import CELLS


class Predict:
    """`predict_on_batch` and `predict` over all cells, sizes and float types."""

    params = (tuple(CELLS), tuple(SIZES), DTYPES)
    param_names = ("cell", "BxTxIxH", "dtype")

    def setup(self, cell: str, size: str, dtype: str) -> None:
        self.rows = SIZES[size].B
        self.model = make_model(cell, SIZES[size], dtype)
        self.x, _ = batch(SIZES[size], dtype)
        self.model.predict_on_batch(self.x)
        self.model.predict(self.x, batch_size=self.rows, verbose=0)

    def time_predict_on_batch(self, cell: str, size: str, dtype: str) -> None:
        self.model.predict_on_batch(self.x)

    def time_predict(self, cell: str, size: str, dtype: str) -> None:
        self.model.predict(self.x, batch_size=self.rows, verbose=0)
