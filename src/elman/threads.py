"""How many threads a kernel may use, and where threads may be used at all."""

from __future__ import annotations

import contextlib
import contextvars
import os
import sys
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from elman import locks
from elman.errors import BadValue
from elman.jit import maximum_threads, threading_layer

_default_threads: int | None = None
_scoped_threads: contextvars.ContextVar[int | None] = contextvars.ContextVar("elman_threads", default=None)
_forked = False


def _after_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@cache
def _available_threads() -> int:
    """Cores this process may use: Numba's maximum (affinity), cut by the cgroup quota if there is one."""
    return _within_quota(maximum_threads())


def usable_cores() -> int:
    """Cores this process may use, however many threads Numba or the user chose."""
    return _within_quota(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def _within_quota(limit: int) -> int:
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        if quota != "max":
            limit = min(limit, max(1, -(-int(quota) // int(period))))
    return limit


def get_num_threads() -> int:
    """Number of threads a kernel may use, at least 1.

    Returns
    -------
    int
        The value of the innermost `num_threads` context, else of `set_num_threads`, else the number of cores this
        process may use.

    Examples
    --------
    >>> import elman
    >>> with elman.num_threads(1):
    ...     elman.get_num_threads()
    1
    """
    return _scoped_threads.get() or _default_threads or _available_threads()


def set_num_threads(n: int) -> None:
    """Set how many threads kernels use, in every Python thread of this process.

    Results do not depend on it: the bits are equal for any number of threads.

    Parameters
    ----------
    n : int
        From 1 to the number Numba started with (``NUMBA_NUM_THREADS``, by default the cores of this process).

    Raises
    ------
    ValueError
        If `n` is no integer in that range.

    Examples
    --------
    >>> import elman
    >>> before = elman.get_num_threads()
    >>> elman.set_num_threads(1)
    >>> elman.get_num_threads()
    1
    >>> elman.set_num_threads(before)
    """
    global _default_threads
    _default_threads = _checked_threads(n)


@contextlib.contextmanager
def num_threads(n: int) -> Iterator[None]:
    """Use `n` threads inside a ``with`` block, in this Python thread only.

    Parameters
    ----------
    n : int
        As in `set_num_threads`.

    Raises
    ------
    ValueError
        If `n` is no integer in range.

    Examples
    --------
    >>> import elman
    >>> with elman.num_threads(1):
    ...     pass
    """
    token = _scoped_threads.set(_checked_threads(n))
    try:
        yield
    finally:
        _scoped_threads.reset(token)


# Seconds after which a thread that wants the interpreter's lock asks for it; Python's own are 0.005. A step lets go of
# the lock in three long kernels, and waits so long for it after each beside a thread that runs Python: LSTM
# (32,48,1,32) on one of two cores took 31 times as long beside such a thread with 5 ms, 5.5 with 0.5, 2.4 with 0.1. Two
# threads that run nothing but Python lose nothing by it.
_INTERVAL = 5e-5
_intervals: list[float] = []
_interval_lock = locks.share(threading.RLock())


@contextlib.contextmanager
def sharing() -> Iterator[None]:
    """Meanwhile Python threads take turns often, so that one which is always busy hardly delays the kernels of others.

    The interpreter's setting is as before when the last of those who asked for it has ended.
    """
    with _interval_lock:
        before = sys.getswitchinterval()
        _intervals.append(before)
        sys.setswitchinterval(min(before, _INTERVAL))
    try:
        yield
    finally:
        with _interval_lock:
            first = _intervals[0]
            _intervals.pop()
            if not _intervals and sys.getswitchinterval() <= _INTERVAL:  # else somebody chose another one
                sys.setswitchinterval(first)


def _checked_threads(n: int) -> int:
    most = maximum_threads()
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or not 1 <= n <= most:
        raise BadValue(f"n: the number of threads must be an integer from 1 to {most}, got {n!r}")
    return int(n)


def usable_threads() -> int:
    """`get_num_threads`, or 1 wherever launching threads could abort the process.

    That is: in a forked child (libgomp ends the child at its first parallel region), outside the main thread when the
    thread layer is workqueue (it aborts on concurrent use), and on free-threaded builds.
    """
    n = get_num_threads()
    if n == 1:
        return 1
    if _forked or not getattr(sys, "_is_gil_enabled", lambda: True)():
        return 1
    if threading.current_thread() is not threading.main_thread() and threading_layer() == "workqueue":
        return 1
    return n
