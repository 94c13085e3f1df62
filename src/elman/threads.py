"""How many threads a kernel may use, and where threads may be used at all."""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np

from elman import locks
from elman.errors import BadValue
from elman.jit import maximum_threads, threading_layer

_default_threads: int | None = None
_scoped_threads: contextvars.ContextVar[int | None] = contextvars.ContextVar("elman_threads", default=None)
_forked = False
_gil_enabled: Callable[[], bool] | None = getattr(sys, "_is_gil_enabled", None)  # from Python 3.13 on


def _after_fork() -> None:
    global _forked
    _forked = True
    for token, thread in list(_sharers.items()):
        if thread != threading.get_ident():  # it is not in this process
            _share(token, None)


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


# Microseconds after which a thread that wants the interpreter's lock asks for it; Python's own are 5,000. A step lets
# go of the lock in three long kernels, and waits so long for it after each beside a thread that runs Python: LSTM
# (32,48,1,32) on one of two cores took 31 times as long beside such a thread with 5,000, 2.1 with 50, 1.8 with 5. To
# every wait Linux adds the thread's timer slack, 50 us unless set: without it the last is 1.26. Several fits would
# interrupt each other's Python: four on two cores take 1.9 to 2.6 times as long as one by one with 5, 0.55 with 50.
_INTERVAL, _INTERVAL_OF_MANY = 5, 50
_sharers: dict[object, int] = {}  # by the `sharing` that runs, its thread
_intervals = {"before": 0, "chosen": 0}
_sharing_lock = locks.share(threading.RLock())
_SET_TIMER_SLACK, _GET_TIMER_SLACK = 29, 30  # prctl(2); nanoseconds, of the thread that calls it


@cache
def _prctl() -> Callable[..., int]:
    """The system's call; where that is not Linux, one that returns 0 and does nothing."""
    if sys.platform != "linux":
        return lambda *args: 0
    call = ctypes.PyDLL(None).prctl
    call.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
    return call


def _timer_slack(option: int, nanoseconds: int = 0) -> int:
    return _prctl()(option, nanoseconds, 0, 0, 0)


@contextlib.contextmanager
def sharing() -> Iterator[None]:
    """Meanwhile Python threads take turns often, so that one which is always busy hardly delays the kernels of others.

    The interpreter's setting is as before when the last of those who asked for it has ended, this thread's timer slack
    when this one has. Threads and processes that this one starts meanwhile inherit the slack, as on Linux they do.
    """
    token, slack = object(), _timer_slack(_GET_TIMER_SLACK)
    try:
        # An interrupt from here on is cleaned up after.
        _share(token, threading.get_ident())
        _timer_slack(_SET_TIMER_SLACK, 1)
        yield
    finally:
        try:
            if slack > 0:  # a real-time thread has none
                _timer_slack(_SET_TIMER_SLACK, slack)
        finally:
            _share(token, None)


def _share(token: object, thread: int | None) -> None:
    """Note that the thread shares, or with None that it no longer does, and set the interval that follows."""
    with _sharing_lock:
        found = round(1e6 * sys.getswitchinterval())
        if not _sharers:
            _intervals["before"] = _intervals["chosen"] = found
        if thread is None:
            _sharers.pop(token, None)
        else:
            _sharers[token] = thread
        if found == _intervals["chosen"]:  # else somebody chose another one meanwhile
            threads = len(set(_sharers.values()))
            most = (_intervals["before"], _INTERVAL, _INTERVAL_OF_MANY)[min(threads, 2)]
            # Noted first: an interrupt in between then looks like another's choice, which stays.
            _intervals["chosen"] = min(_intervals["before"], most)
            # Python cuts to whole microseconds, and 33e-6 to 32.
            sys.setswitchinterval(1e-6 * (_intervals["chosen"] + 0.5))


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
    if _forked or (_gil_enabled is not None and not _gil_enabled()):
        return 1
    if threading.current_thread() is not threading.main_thread() and threading_layer() == "workqueue":
        return 1
    return n
