"""Locks that a forked child finds free: the threads that would release them do not exist there."""

from __future__ import annotations

import os
import threading
import time
import weakref
from functools import partial
from typing import Any

_WAIT = 10.0
"""Seconds that a fork waits at most for what other threads hold; it would wait for ever where these wait for it."""

_made: dict[int, weakref.ref[Any]] = {}
_shared: list[Any] = []
_forks = threading.Lock()  # two forks at once would wait for what the other one holds
_taken: list[Any] = []


def make() -> Any:
    """A reentrant lock. A fork waits until no other thread holds it, so that what it guards is whole in the child."""
    lock = threading.RLock()
    key = id(lock)
    # No code in Python: an interrupt that comes while it runs would be lost, as errors in such callbacks are.
    _made[key] = weakref.ref(lock, partial(_made.pop, key))
    return lock


def share(lock: Any) -> Any:
    """Let a fork wait for `lock` too, after all that `make` gave: the holder of one of those may want it."""
    _shared.append(lock)
    return lock


def _all() -> list[Any]:
    made = [found() for found in list(_made.values())]
    return [lock for lock in made if lock is not None] + _shared


def _before() -> None:
    until = time.monotonic() + _WAIT
    if _forks.acquire(timeout=_WAIT):
        _taken.append(_forks)
        for lock in _all():
            if lock.acquire(timeout=max(0.0, until - time.monotonic())):
                _taken.append(lock)


def _in_parent() -> None:
    while _taken:
        _taken.pop().release()


def _in_child() -> None:
    held = {id(lock) for lock in _taken}
    _in_parent()
    for lock in (_forks, *_all()):
        if id(lock) not in held:
            lock._at_fork_reinit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
