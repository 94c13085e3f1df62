"""Numba's threads."""

from __future__ import annotations

import os
import threading
from functools import cache

import numba
from numba.core import config

from elman import locks
from elman.jit.target import DISABLED


def maximum_threads() -> int:
    """Threads Numba started with: ``NUMBA_NUM_THREADS``, by default the cores of this process's affinity."""
    return int(config.NUMBA_NUM_THREADS)


# How often a thread of libgomp looks for work, or for the end of others' work, before it gives its core away: for about
# 0.2 ms in place of several. Beside another busy process a step of GRU (32,48,1,32) took 24 ms with libgomp's own
# 300,000 looks (they keep the core from the thread that is waited for), 2.2 ms with 10,000; alone 0.37 and 0.39 ms.
# Fewer looks are slower alone: threads then sleep between two kernels, 0.4 to 0.6 ms with 3,000.
_LOOKS = "10000"


_starting = locks.share(threading.RLock())  # a second thread would find, and then miss, the first one's variable


@cache
def _start_threads() -> None:
    if "GOMP_SPINCOUNT" in os.environ or "OMP_WAIT_POLICY" in os.environ:
        return
    # Read once, when libgomp is loaded; other libraries and child processes must not see it.
    os.environ["GOMP_SPINCOUNT"] = _LOOKS
    try:
        numba.get_num_threads()
    finally:
        del os.environ["GOMP_SPINCOUNT"]


def current_threads() -> int:
    """Numba's number of threads, which this starts."""
    with _starting:
        _start_threads()
    return numba.get_num_threads()


@cache
def threading_layer() -> str:
    """Name of Numba's thread layer, which this starts: "tbb", "omp" or "workqueue"; "none" without compilation."""
    if DISABLED:
        return "none"
    current_threads()
    return numba.threading_layer()
