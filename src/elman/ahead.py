"""A second process that compiles the kernels of the way back, while the first one compiles those of the way forward.

LLVM uses one core, and Numba one thread at a time: what a first fit compiles, 12 s on Zen 4, is cut in two. The two
processes meet in the disk cache.
"""

from __future__ import annotations

import atexit
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from elman import places
from elman.jit import cache_directory
from elman.kernels import scan, units, weights
from elman.kernels.matmul import transposed_shard
from elman.threads import usable_threads

# In the order of need, 4.9 of the 12 s; for one long sequence, whose dense layers are no recurrences, one more.
_LAST = weights.shard, weights.collect_shard
_FUNCTIONS = {
    False: (transposed_shard, scan.backward_shard, *_LAST),
    True: (transposed_shard, scan.backward_shard, units.backward_shard, *_LAST),
}
# Seconds that the first process waits in all: as long as it would compile all of that itself.
_PATIENCE = 5.0

_started: set[np.dtype] = set()


class _Helper:
    """The other process, which ends with this one at the latest."""

    def __init__(self, command: list[str]) -> None:
        nothing = subprocess.DEVNULL
        self._process = subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing)
        self._until = 0.0
        atexit.register(self.stop)

    def at_work(self) -> bool:
        """Whether it is worth waiting for, from the first time that this is asked on for `_PATIENCE`."""
        self._until = self._until or time.monotonic() + _PATIENCE
        return self._process.poll() is None and time.monotonic() < self._until

    def stop(self) -> None:
        """End it, unless it has ended. In a forked child, whose process it is not, `poll` finds nothing to end."""
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait()


def start(dtype: np.dtype, *, single: bool) -> None:
    """Have the way back compiled in another process, if there is a core for it and nobody has done it before.

    `single` for one long sequence.
    """
    if dtype in _started or usable_threads() == 1:
        return
    _started.add(dtype)
    place, functions = cache_directory(), _FUNCTIONS[single]
    if not (_interpreter() and place and any(f.missing(dtype) for f in functions) and places.writable(place)):
        return
    work = f"from elman.ahead import compile_here; compile_here({dtype.name!r}, {single}, {str(place)!r})"
    try:
        helper = _Helper(_command(work))
    except OSError:  # then this process compiles everything
        return
    for function in functions:
        function.elsewhere[dtype] = helper.at_work


def _command(work: str) -> list[str]:
    """Python that does some work with the modules that this process would import, whatever the environment says."""
    return [sys.executable, "-I", "-c", f"import sys; sys.path[:] = {sys.path!r}; {work}"]


def _interpreter() -> bool:
    """Whether this is a Python that can be started anew: no application that embeds it or is frozen."""
    name = Path(sys.executable or "").name
    return not hasattr(sys, "frozen") and re.fullmatch(r"python(w)?[\d.]*t?(\.exe)?", name) is not None


def compile_here(dtype: str, single: bool, place: str) -> None:
    """Compile the functions of the way back for `dtype`, where they end up in the directory `place`."""
    if str(cache_directory()) == place:
        for function in _FUNCTIONS[single]:
            function.handle(np.dtype(dtype))
