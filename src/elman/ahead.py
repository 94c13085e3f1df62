"""A second process that compiles the kernels of the way back, while the first one compiles those of the way forward.

LLVM uses one core, and Numba one thread at a time: what a first fit compiles, 12 s on Zen 4, is cut in two. The two
processes meet in the disk cache.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np

from elman.kernels import scan, weights
from elman.kernels.matmul import transposed_shard
from elman.threads import usable_threads

# In the order of need; 4.9 of the 12 s.
_FUNCTIONS = transposed_shard, scan.backward_shard, weights.shard, weights.collect_shard

_started: set[np.dtype] = set()


def start(dtype: np.dtype) -> None:
    """Have the way back compiled in another process, if there is a core for it and nobody has done it before."""
    if dtype in _started or usable_threads() == 1:
        return
    _started.add(dtype)
    # An application that embeds Python is no interpreter that could be started.
    if not Path(sys.executable or "").name.startswith("python") or not any(f.missing(dtype) for f in _FUNCTIONS):
        return
    thread = threading.Thread(target=_run, args=(dtype.name,), daemon=True)
    for function in _FUNCTIONS:
        function.elsewhere = thread
    thread.start()


def _run(dtype: str) -> None:
    """Run `compile_here` in another process. Where that fails, this one compiles everything."""
    script = f"from elman.ahead import compile_here; compile_here({dtype!r})"
    nothing = subprocess.DEVNULL
    with contextlib.suppress(OSError):
        # -P: no module in the folder of the user's script may take the place of one that is needed here.
        subprocess.run([sys.executable, "-P", "-c", script], stdin=nothing, stdout=nothing, stderr=nothing, check=False)


def compile_here(dtype: str) -> None:
    """Compile the functions of the way back for `dtype`."""
    for function in _FUNCTIONS:
        function.handle(np.dtype(dtype))
