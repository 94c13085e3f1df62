"""Peak memory of a fit, beside that of the same process without the fit."""

from __future__ import annotations

from benchmarks import SIZES, Size, batch, make_model
from elman.cells import CELLS

BATCHES = 4


class FitMemory:
    """`peakmem_fit` minus `peakmem_before_fit` is what the fit itself takes: states of one batch and copies of data."""

    params = (tuple(CELLS), ("32x100x8x64", "64x100x32x256", "64x50x256x512"))
    param_names = ("cell", "BxTxIxH")

    def setup_cache(self) -> None:
        """Compile in a process of its own: compiling takes far more memory than a fit."""
        for cell in CELLS:
            for size in self.params[1]:
                self.setup(cell, size)

    def setup(self, cell: str, size: str) -> None:
        self.size = SIZES[size]
        self.data = batch(self.size, "float32", BATCHES)
        # Loading kernels takes memory too; a tenth of the steps loads the same ones and keeps a tenth of the states.
        short = Size(self.size.B, self.size.T // 10, self.size.I, self.size.H)
        make_model(cell, short, "float32").fit(*batch(short, "float32"), batch_size=short.B, epochs=1, verbose=0)
        self.model = make_model(cell, self.size, "float32")

    def peakmem_before_fit(self, cell: str, size: str) -> None:
        """Nothing: the peak of `setup`."""

    def peakmem_fit(self, cell: str, size: str) -> None:
        self.model.fit(*self.data, batch_size=self.size.B, epochs=1, verbose=0)
