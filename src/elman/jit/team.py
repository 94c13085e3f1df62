"""Workers of libgomp, kept off the core of the thread they work for.

A virtual CPU that has been idle for some time counts as taken, so Linux wakes a worker on the core of the thread that
calls it. That thread then waits for the worker and goes to sleep, the worker runs, and as one of them sleeps at any
time, nothing ever moves them apart: two threads are half as fast as one, for good. A worker that must not run there
wakes where it ran before. Two cores of a virtual machine, LSTM (32,24,8,64): 2.6 ms per step, with one thread 1.1,
kept apart 0.65.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from functools import cache
from pathlib import Path
from typing import Any

from elman.jit.layer import threading_layer

_BOUND = ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY")
"""Variables by which users bind threads to cores themselves."""


class _Team(threading.local):
    """The workers of a Python thread, and the core it had when they were told."""

    size, cpu, workers = 0, -1, ()


_team = _Team()


@cache
def _calls() -> tuple[Any, Any] | None:
    """``sched_getcpu`` and ``GOMP_parallel`` of the libgomp that Numba runs on; None where there is nothing to do."""
    bound = any(name in os.environ for name in _BOUND)
    if bound or not hasattr(os, "sched_setaffinity") or threading_layer() != "omp":
        return None
    with contextlib.suppress(OSError, AttributeError):
        paths = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
        found = [path for path in paths if Path(path).name.startswith("libgomp.so")]
        if len(found) == 1:
            return ctypes.CDLL(None).sched_getcpu, ctypes.CDLL(found[0]).GOMP_parallel
    return None


def _workers(parallel: Any, threads: int) -> list[int]:
    """Thread ids of the workers for a region of so many threads, each asked for its own."""
    found: list[int] = []
    ask = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: found.append(threading.get_native_id()))
    parallel(ask, None, ctypes.c_uint(threads), ctypes.c_uint(0))
    return [worker for worker in found if worker != threading.get_native_id()]


def keep_apart(threads: int) -> None:
    """Before a parallel region of libgomp: see that its workers run on other cores than this thread, if there are any.

    Nothing changes for this thread itself and for what it starts. Costs 0.3 us while both stay where they are.
    """
    calls = _calls()
    if calls is None:
        return
    getcpu, parallel = calls
    cpu, team = getcpu(), _team
    if cpu == team.cpu and threads == team.size:
        return
    # libgomp ends workers that a smaller region does not need, perhaps another library's; their numbers go to others.
    if threads != team.size or not all(os.path.exists(f"/proc/self/task/{worker}") for worker in team.workers):
        team.workers, team.size = _workers(parallel, threads), threads
    team.cpu = cpu
    allowed = os.sched_getaffinity(0)
    with contextlib.suppress(OSError):
        for worker in team.workers:
            os.sched_setaffinity(worker, allowed - {cpu} or allowed)
