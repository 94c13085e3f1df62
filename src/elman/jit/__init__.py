"""The only door to Numba: kernel decorators; in the files beside it flags, disk cache and threads.

Nothing compiles when this module is imported. Three kinds of compiled function exist:

``helper``
    Scalar or block arithmetic that other kernels call. Never called from Python, never cached by itself. One that is
    long and called in few places is `spliced` into its callers before they are compiled.
``Function``
    A helper whose *address* is handed to another kernel, with one explicit signature per float type. This is how a
    cell reaches the scan and an optimizer reaches the update loop without recompiling either. The work of one shard
    is such a function too: in the serial and the parallel entry LLVM would optimise it six times.
``Entry``
    What Python calls. It compiles per argument types, lands in the disk cache, and exists in a serial and a parallel
    variant made from one source: ``prange`` is ``range`` in the serial one. One that is `spreading` exists once: it
    hands a ``Function`` and its arguments to the threads of a team, in a loop compiled once for all of them.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba import carray, prange, types
from numba.core import cgutils
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic, overload

from elman import locks
from elman.errors import BadType
from elman.interrupts import Interrupts
from elman.jit.address import bundle, invoke, words
from elman.jit.cache import PACKAGE, Cache, cache_directory, trusted
from elman.jit.layer import current_threads, maximum_threads, threading_layer
from elman.jit.target import DISABLED, INNER, PARALLEL, SERIAL, STRICT, cpu_name, vector_bytes, versions
from elman.jit.team import keep_apart

__all__ = [
    "DISABLED",
    "Entry",
    "Function",
    "bundle",
    "cache_directory",
    "carray",
    "cgutils",
    "compile_counts",
    "cpu_name",
    "fixed",
    "force_inlined",
    "helper",
    "inlined",
    "intrinsic",
    "invoke",
    "matrix",
    "maximum_threads",
    "prange",
    "spliced",
    "spread",
    "spreading",
    "tensor",
    "threading_layer",
    "types",
    "vector",
    "vector_bytes",
    "versions",
]

_compile_lock = locks.share(threading.RLock())
locks.share(global_compiler_lock._lock)  # a compilation of Numba, ours or not, would never end in a forked child
_dispatchers: list[Any] = []


def helper(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile `function` as part of the kernels that call it."""
    return _inner(function, SERIAL)


def spliced(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make `function` part of each kernel that calls it, with that one's flags, and compile it nowhere else.

    For what is long and called in one or two places: types are inferred anew in each, LLVM optimises it once less for
    every level of calls above it.
    """
    return _inner(function, {**STRICT, "inline": "always"})


def inlined(twin: Callable[..., Any], *, gives_array: bool = False) -> Callable[..., Any]:
    """Bind compiled code to its Python `twin`; used as ``@inlined(twin) def _(*types): return implementation``.

    The code is inlined into every caller, so that loops around it vectorise. The twin runs under
    ``NUMBA_DISABLE_JIT=1``. Only code that `gives_array` may return one, of memory that is not counted.
    """
    return overload(twin, jit_options={**STRICT, "forceinline": True, "_nrt": gives_array}, prefer_literal=True)


def force_inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile `function` so that LLVM always inlines it into the kernel that calls it."""
    return numba.njit(**STRICT, forceinline=True)(function)


def _inner(function: Callable[..., Any], options: dict[str, Any]) -> Any:
    """A dispatcher for compiled code alone: it lacks the wrapper that Python would call, and so end the process."""
    dispatcher = numba.njit(**options, **INNER)(function)
    if not DISABLED:
        dispatcher._insert = lambda *overload: None
        dispatcher._compile_for_args = partial(_refused, function)
    return dispatcher


def _refused(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    raise BadType(f"{function.__name__}: expected a call from compiled code, got one from Python")


def tensor(dtype: Any, axes: int) -> types.Array:
    """Numba type of a contiguous array of `dtype` with so many axes."""
    return types.Array(numba.from_dtype(np.dtype(dtype)), axes, "C")


def vector(dtype: Any) -> types.Array:
    """Numba type of a contiguous 1-D array of `dtype`."""
    return tensor(dtype, 1)


def matrix(dtype: Any) -> types.Array:
    """Numba type of a contiguous 2-D array of `dtype`."""
    return tensor(dtype, 2)


# ---- functions by address --------------------------------------------------------------------------------------


class Function:
    """A function handed to kernels by address, compiled once per float type with an explicit signature.

    Parameters
    ----------
    python : callable
        The function; it returns nothing and never raises.
    signature : callable
        Maps a NumPy dtype to the tuple of Numba argument types.
    parallel : bool
        Whether its `prange` runs on threads.
    """

    def __init__(
        self, python: Callable[..., None], signature: Callable[[np.dtype], tuple], *, parallel: bool = False
    ) -> None:
        self.python = python
        self._signature, self._options = signature, {"parallel": PARALLEL} if parallel else {}
        self._handles: dict[Any, Any] = {}
        self._dispatcher: Any = None
        self.elsewhere: dict[Any, Callable[[], bool]] = {}
        """By float type, whether another process that compiles this function is worth waiting for; `elman.ahead`."""

    def handle(self, dtype: np.dtype) -> Any:
        """Address of the compiled function for `dtype`; the Python function itself under ``NUMBA_DISABLE_JIT=1``."""
        found = self._handles.get(dtype)
        if found is None:
            with _compile_lock:
                found = self._handles[dtype] = self._run if DISABLED else self._compile(np.dtype(dtype))
        return found

    def missing(self, dtype: np.dtype) -> bool:
        """Whether it has to be compiled for `dtype` and will then lie on disk."""
        if DISABLED or dtype in self._handles:
            return False
        with _compile_lock:
            cache = self._made()._cache
            return isinstance(cache, Cache) and not cache.holds(types.void(*self._signature(dtype)), self._dispatcher)

    def _run(self, *args: Any) -> None:
        self.python(*args)

    def _made(self) -> Any:
        if self._dispatcher is None:
            self._dispatcher = _cached(self.python, {**STRICT, **INNER, **self._options})
        return self._dispatcher

    def _compile(self, dtype: np.dtype) -> int:
        dispatcher, args = self._made(), self._signature(dtype)
        if self._options:
            current_threads()  # numba would start its threads with settings of its own
        with _announced():
            while dtype in self.elsewhere and self.elsewhere[dtype]() and self.missing(dtype):
                time.sleep(0.005)
            dispatcher.compile(types.void(*args))
        compiled = dispatcher.overloads[args]
        return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)


# ---- entries ---------------------------------------------------------------------------------------------------


@helper
def _take_pieces(i, pieces, most, call, place):
    for p in range(pieces.shape[1]):
        end = pieces[i, p, 1]
        for begin in range(pieces[i, p, 0], end, most):
            invoke(call, (i, begin, min(begin + most, end), place))


def _share_out(pieces, most, call, place):
    for i in prange(pieces.shape[0]):
        _take_pieces(np.int64(i), pieces, most, call, place)


@helper
def spread_out(team, pieces, most, call, place):
    """Call (call, place) for all pieces: on the team at an address, or here where that is 0."""
    if team == 0:
        for i in range(pieces.shape[0]):
            _take_pieces(i, pieces, most, call, place)
    else:
        invoke(team, (pieces, most, call, place))


@helper
def spread(team, pieces, most, call, place):
    """Call what `bundle` gave, (call, place), with (thread, begin, end) for all `pieces` of work.

    ``pieces[i, p]`` (int64) are begin and end of the p-th piece of thread i, taken at most `most` at a time: by all
    threads of the `team` that an `Entry` which is `spreading` gets, or one after another without one. Where ``team[1]``
    is memory for the call, it gets what `elman.jit.calls` needs to make the call again.
    """
    if team[1] != 0:
        head = words(team[1])
        head[0], head[1], head[2], head[3] = team[0], call, most, pieces.ctypes.data
        head[4], head[5] = pieces.shape[0], pieces.shape[1]
    spread_out(team[0], pieces, most, call, place)


class Entry:
    """A kernel that Python calls: ``entry(threads, *args)``; use as a decorator.

    With ``threads == 1`` the serial variant runs, otherwise the parallel one on that many threads. Both give the same
    bits as long as the body is one loop over independent shards. One made by `spreading` has one variant for both.
    """

    def __init__(self, python: Callable[..., Any], *, spreads: bool = False) -> None:
        self.python = python
        self.__doc__ = python.__doc__
        self.spreads = spreads
        self._serial: Any = None
        self._parallel: Any = None

    def __call__(self, threads: int, *args: Any) -> Any:
        run, args = self.bound(threads, args)
        return run(*args) if threads == 1 else on_team(((threads, run, args),))

    def bound(self, threads: int, args: tuple[Any, ...], memory: int = 0) -> tuple[Any, tuple[Any, ...]]:
        """What runs on so many threads, and its arguments; one that is spreading leaves these in `memory`, if any."""
        if self.spreads:
            args = ((0 if threads == 1 else _team.handle(_ANY), memory), *args)
        serial = threads == 1 or self.spreads
        return (self._serial if serial else self._parallel) or self._first(parallel=not serial), args

    def _first(self, *, parallel: bool) -> Any:
        """Make the variant and return a caller that announces and locks its first, compiling, call."""
        if DISABLED:
            self._serial = self._parallel = self.python
            return self.python

        def first(*args: Any) -> Any:
            with _compile_lock, _announced():
                # Another thread may have been first.
                dispatcher = (self._parallel if parallel else self._serial) or self._make(parallel)
                result = dispatcher(*args)
            if parallel:
                self._parallel = dispatcher
            else:
                self._serial = dispatcher
            return result

        return first

    def _make(self, parallel: bool) -> Any:
        options = {**SERIAL, "parallel": PARALLEL} if parallel else SERIAL
        return _cached(self.python, {**options, "no_cfunc_wrapper": True})


def on_team(calls: Sequence[tuple[int, Any, tuple[Any, ...]]]) -> Any:
    """Make (threads, function, arguments), one after another; what the last one returns."""
    result, before, now = None, 0, 0
    try:
        for threads, run, args in calls:
            if threads > 1:
                if now == 0:
                    before = now = current_threads()
                keep_apart(threads)
                if threads != now:
                    now = threads  # first: an interrupt may come between the two
                    numba.set_num_threads(threads)
            result = run(*args)
    finally:
        if now != before:
            numba.set_num_threads(before)
    return result


def spreading(python: Callable[..., Any]) -> Entry:
    """An `Entry` ``python(team, *args)`` whose body ends with a call of `spread`; use as a decorator.

    Numba compiles a `prange` about as slowly as what is in it, once more for each use: 2 of 14 s of a first fit.
    """
    return Entry(python, spreads=True)


_ANY = np.dtype(np.int64)
_team = Function(_share_out, lambda dtype: (tensor(dtype, 3), *(types.int64,) * 3), parallel=True)


def fixed(python: Callable[..., Any], signatures: Sequence[tuple], *, release: bool) -> Any:
    """`python` compiled for `signatures` alone: other arguments raise TypeError and compile nothing.

    Without `release` it keeps the GIL, which saves 0.03 us per call.
    """
    with _compile_lock, _announced():
        dispatcher = _cached(python, {**STRICT, "nogil": release})
        for signature in signatures:
            dispatcher.compile(signature)
    dispatcher.disable_compile()
    return dispatcher


def _cached(python: Callable[..., Any], options: dict[str, Any]) -> Any:
    """A dispatcher of `python` with our options and our cache."""
    dispatcher = numba.njit(**options)(python)
    # Functions from outside, such as a user's cell, compile anew in each process: no hash covers what they call.
    ours = Path(python.__code__.co_filename).resolve().is_relative_to(PACKAGE)
    if ours and cache_directory() is not None and trusted():
        # A file locator that fails at this point means "uncached", never an error.
        with contextlib.suppress(RuntimeError, OSError):
            dispatcher._cache = Cache(python, "p" if "parallel" in options else "s" if options["nogil"] else "g")
    dispatcher._compile_for_args = _undisturbed(dispatcher._compile_for_args)
    _dispatchers.append(dispatcher)
    return dispatcher


def _undisturbed(compile_: Callable[..., Any]) -> Callable[..., Any]:
    """What Numba calls for arguments of new types, without interrupts."""

    def whole(*args: Any, **kwargs: Any) -> Any:
        with Interrupts(held=True, firm=True):
            return compile_(*args, **kwargs)

    return whole


_announce = {"pending": True, "depth": 0}


@contextlib.contextmanager
def _announced() -> Iterator[None]:
    """Print one line, once per process and only on a terminal, when compiling takes longer than a second."""
    _announce["depth"] += 1
    timer = None
    if _announce["pending"] and _announce["depth"] == 1 and sys.stderr.isatty():

        def tell() -> None:
            _announce["pending"] = False
            print("elman: compiling kernels, once per machine and version …", file=sys.stderr)

        timer = threading.Timer(1.0, tell)
        timer.daemon = True
        timer.start()
    try:
        with Interrupts(held=True, firm=True):
            yield
    finally:
        _announce["depth"] -= 1
        if timer is not None:
            timer.cancel()


def compile_counts() -> dict[str, int]:
    """How many kernels this process compiled, and how many it read from the disk cache."""
    stats = [dispatcher.stats for dispatcher in _dispatchers]
    return {
        "compiled": sum(sum(s.cache_misses.values()) for s in stats),
        "loaded": sum(sum(s.cache_hits.values()) for s in stats),
    }
