"""Calls of entries that are made again and again with the same arguments."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np

from elman.jit import DISABLED, Entry, carray, inlined, on_team, spread_out
from elman.jit.address import HEAD, KEPT, words

Call = tuple[Entry, int, tuple[Any, ...]]
"""An entry, a number of threads, and arguments."""


def _table(address, rows, columns):
    """The int64 array (rows, columns, 2) at an address; only compiled code needs it."""


@inlined(_table, gives_array=True)
def _table_compiled(address, rows, columns):
    return lambda address, rows, columns: carray(words(address), (rows, columns, 2))


def _again(kept):
    """Do once more what calls did that left their arguments at these addresses."""
    for k in range(kept.size):
        head = words(kept[k])
        pieces = _table(head[3], head[4], head[5])
        spread_out(head[0], pieces, head[2], head[1], kept[k] + 8 * HEAD)


_repeat = Entry(_again)

# Calls after which arguments are kept: it takes a kernel that compiles in 0.3 s and saves 2 us a call of a small layer.
_OFTEN = 100


def compile_repetition() -> None:
    """See that the kernel for calls that are made often is compiled."""
    _repeat(1, np.empty(0, np.int64))


class Calls:
    """Entries with their arguments, called one after another, and as often as wanted.

    Numba's number of threads is looked up once for all of them. When they have been called `_OFTEN`, those which are
    `spreading` read their arguments where the last time left them, several in one call from Python: it takes 1.2 us to
    hand over 30 arguments with a dozen arrays, 0.2 to hand over an address.

    Parameters
    ----------
    *calls : Call
    """

    def __init__(self, *calls: Call) -> None:
        self._calls = calls  # they keep alive what the memory below points to
        self._memory: list[np.ndarray] = []
        self._times = 0
        self._bound: list[tuple[int, Any, tuple[Any, ...]]] = []

    def __call__(self) -> None:
        if self._times == 0:
            for entry, threads, args in self._calls:
                entry(threads, *args)
            self._times = 1
        elif not self._bound:  # all entries are compiled now
            self._bound = [(threads, *entry.bound(threads, args)) for entry, threads, args in self._calls]
            self()
        elif self._times == _OFTEN and not DISABLED:
            self._keep()
        else:
            on_team(self._bound)
            self._times += 1

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy must not write to the arrays that this one's memory points to.
        return Calls, self._calls

    def _keep(self) -> None:
        """Make the calls, and from now on those that read their arguments in memory."""
        compile_repetition()
        first, later = [], []
        for spreads, group in groupby(self._calls, key=lambda call: call[0].spreads):
            calls = list(group)
            places = [0] * len(calls)
            if spreads:
                memory = np.empty((len(calls), KEPT), np.int64)
                self._memory.append(memory)
                places = [row.ctypes.data for row in memory]
                # Each has its own team, or none; one that has fewer threads has as few pieces.
                later.append((max(threads for _, threads, _ in calls), *_repeat.bound(1, (np.array(places),))))
            else:
                later += [(threads, *entry.bound(threads, args)) for entry, threads, args in calls]
            for (entry, threads, args), place in zip(calls, places, strict=True):
                first.append((threads, *entry.bound(threads, args, place)))
        on_team(first)
        self._bound, self._times = later, _OFTEN + 1
