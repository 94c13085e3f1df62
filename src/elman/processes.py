"""A list of jobs shared out among processes, by joblib."""

from __future__ import annotations

import gc
import os
import pickle
from collections.abc import Callable, Iterator
from typing import Any

from elman.errors import MissingPackage
from elman.threads import num_threads


def packages() -> tuple[Any, Any]:
    """joblib and cloudpickle, or an ImportError that names the extra to install."""
    try:
        import cloudpickle
        import joblib
    except ImportError as error:
        raise MissingPackage(
            "workers: more than one needs joblib and cloudpickle; pip install 'elman[many]', or workers=1"
        ) from error
    return joblib, cloudpickle


def pickled(value: Any) -> bytes:
    """`value` as bytes for `pickle.loads`, with functions and classes of scripts and notebooks."""
    return packages()[1].dumps(value)


def spread(
    work: Callable[[list[Any]], list[Any]], jobs: list[Any], workers: int, arrive: Callable[[], None]
) -> list[Any]:
    """``work(jobs)`` in processes, each on one thread.

    They wait for the next call, but end with an error or an interrupt.

    Parameters
    ----------
    work : callable
        Maps any part of the jobs to as many results.
    jobs : list
    workers : int
        Number of processes.
    arrive : callable
        Called in a process before each part.

    Raises
    ------
    Exception
        The first that `work` raises, with its notes; RuntimeError with its text if it does not pickle.
    """
    joblib, _ = packages()
    home = os.getpid()
    tasks = (joblib.delayed(_run)(work, part, arrive, home) for part in _cut(jobs, workers))
    parts = joblib.Parallel(workers, backend="loky", batch_size=1, pre_dispatch="all")(tasks)
    return [result for part in parts for result in part]


def _cut(jobs: list[Any], workers: int) -> Iterator[list[Any]]:
    """Large parts first, as each costs a millisecond, and single jobs last, so that all processes end together."""
    start = 0
    while start < len(jobs):
        stop = start + max(1, (len(jobs) - start) // (4 * workers))
        yield jobs[start:stop]
        start = stop


def _run(work: Callable[[list[Any]], list[Any]], part: list[Any], arrive: Callable[[], None], home: int) -> list[Any]:
    if os.getpid() == home:  # where there are no processes to be had, joblib works in this one
        return work(part)
    arrive()
    try:
        with num_threads(1):
            done = work(part)
        _settle()
        return done
    except Exception as error:
        if _travels(error):
            raise
        plain = RuntimeError(f"{type(error).__name__}: {error}")
        for note in getattr(error, "__notes__", []):
            plain.add_note(note)
        raise plain from error


_settled = False


def _settle() -> None:
    """Once per process, keep what it has imported and compiled out of garbage collections.

    Where psutil is missing, loky collects after a task, once a second: 50 ms each with all that Numba holds, 0 without.
    """
    global _settled
    if not _settled:
        gc.collect()
        gc.freeze()
        _settled = True


def _travels(error: Exception) -> bool:
    """Whether an error can be pickled and read again; one that cannot would break the process."""
    try:
        pickle.loads(pickled(error))
    except Exception:
        return False
    return True
