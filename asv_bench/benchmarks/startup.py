"""Import time, and the first fit of a fresh process with an empty and with a warm kernel cache."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from elman.cells import CELLS

_BENCHMARKS = Path(__file__).resolve().parents[1]
_FIRST_FIT = """
import sys
sys.path.insert(0, {path!r})
from benchmarks import SIZES, batch, make_model
size = SIZES["32x24x1x16"]
model = make_model({cell!r}, size, "float32")
model.fit(*batch(size, "float32", 2), batch_size=size.B, epochs=1, verbose=0)
"""


class Import:
    """Import of elman in a fresh process; that of numba alone is the baseline it is measured against."""

    def timeraw_elman(self) -> str:
        return "import elman"

    def timeraw_numba(self) -> str:
        return "import numba"


def _first_fit(cell: str, cache: str) -> float:
    """Seconds of a whole process, interpreter start included, that fits one small model."""
    environment = {**os.environ, "ELMAN_CACHE_DIR": cache}
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", _FIRST_FIT.format(path=str(_BENCHMARKS), cell=cell)], check=True, env=environment
    )
    return time.perf_counter() - start


class FirstFit:
    """Seconds of a process that imports elman, builds a model and fits two batches."""

    params = (tuple(CELLS),)
    param_names = ("cell",)
    unit = "s"

    def setup(self, cell: str) -> None:
        self.cache = tempfile.TemporaryDirectory(prefix="elman-bench-")

    def teardown(self, cell: str) -> None:
        self.cache.cleanup()

    def track_cold_start(self, cell: str) -> float:
        return _first_fit(cell, self.cache.name)

    def track_warm_start(self, cell: str) -> float:
        _first_fit(cell, self.cache.name)
        return statistics.median(_first_fit(cell, self.cache.name) for _ in range(3))
