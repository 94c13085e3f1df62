"""Peak memory of a fit and of predictions, beside that of the same process without either."""

from __future__ import annotations

from benchmarks import SIZES, Size, batch, make_model
from elman.cells import CELLS

BATCHES = 4


class Memory:
    """`peakmem_fit` minus `peakmem_before` is what the fit itself takes: states of one batch and copies of data."""

    params = (tuple(CELLS), tuple(SIZES))
    param_names = ("cell", "BxTxIxH")

    def setup_cache(self) -> None:
        """Compile in a process of its own: compiling takes far more memory than a fit."""
        for cell in CELLS:
            for size in self.params[1]:
                self.setup(cell, size)

    setup_cache.timeout = 600

    def setup(self, cell: str, size: str) -> None:
        self.size = SIZES[size]
        self.x, self.y = batch(self.size, "float32", BATCHES)
        # Loading kernels takes memory too; a tenth of the steps loads the same ones and keeps a tenth of the states.
        short = Size(self.size.B, self.size.T // 10, self.size.I, self.size.H)
        model, (x, y) = make_model(cell, short, "float32"), batch(short, "float32")
        model.fit(x, y, batch_size=short.B, epochs=1, verbose=0)
        model.predict(x, batch_size=short.B)
        self.model = make_model(cell, self.size, "float32")

    def peakmem_before(self, cell: str, size: str) -> None:
        """Nothing: the peak of `setup`."""

    def peakmem_fit(self, cell: str, size: str) -> None:
        self.model.fit(self.x, self.y, batch_size=self.size.B, epochs=1, verbose=0)

    def peakmem_predict(self, cell: str, size: str) -> None:
        self.model.predict(self.x, batch_size=self.size.B)
