"""One training step: forward, loss, backpropagation through time, Adam; and what `fit` adds to it."""

from __future__ import annotations

from benchmarks import DTYPES, SIZES, batch, make_model
from elman.cells import CELLS

FIT_BATCHES = 32


class Train:
    """`train_on_batch` over all cells, sizes and float types."""

    params = (tuple(CELLS), tuple(SIZES), DTYPES)
    param_names = ("cell", "BxTxIxH", "dtype")

    def setup(self, cell: str, size: str, dtype: str) -> None:
        self.model = make_model(cell, SIZES[size], dtype)
        self.x, self.y = batch(SIZES[size], dtype)
        self.model.train_on_batch(self.x, self.y)

    def time_train_step(self, cell: str, size: str, dtype: str) -> None:
        self.model.train_on_batch(self.x, self.y)


class Fit:
    """One epoch of 32 batches beside 32 single steps on the same batches: the difference is what the loop costs."""

    params = (tuple(CELLS), ("32x24x1x16", "32x100x8x64"))
    param_names = ("cell", "BxTxIxH")

    def setup(self, cell: str, size: str) -> None:
        self.size = SIZES[size]
        self.model = make_model(cell, self.size, "float32")
        self.x, self.y = batch(self.size, "float32", FIT_BATCHES)
        self.time_epoch(cell, size)

    def time_epoch(self, cell: str, size: str) -> None:
        self.model.fit(self.x, self.y, batch_size=self.size.B, epochs=1, verbose=0)

    def time_steps(self, cell: str, size: str) -> None:
        for start in range(0, len(self.x), self.size.B):
            chosen = slice(start, start + self.size.B)
            self.model.train_on_batch(self.x[chosen], self.y[chosen])
