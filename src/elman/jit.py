"""The only door to Numba: kernel decorators, compile options, disk cache, vector width.

Nothing compiles when this module is imported. Three kinds of compiled function exist:

``helper``
    Scalar or block arithmetic that other kernels call. Never called from Python on a hot path, never cached by itself.
``Function``
    A helper whose *address* is handed to another kernel, with one explicit signature per float type. This is how a
    cell reaches the scan and an optimizer reaches the update loop without recompiling either.
``Entry``
    What Python calls. It compiles per argument types, lands in the disk cache, and exists in a serial and a parallel
    variant made from one source: ``prange`` is ``range`` in the serial one.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import llvmlite
import numba
import numpy as np
from numba import carray, prange, types
from numba.core import cgutils, config
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator
from numba.extending import intrinsic, overload

from elman import places

__all__ = [
    "DISABLED",
    "Entry",
    "Function",
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
    "threading_layer",
    "types",
    "vector",
    "vector_bytes",
    "versions",
]

DISABLED = bool(config.DISABLE_JIT)
"""True under ``NUMBA_DISABLE_JIT=1``: every kernel then runs as plain Python."""

# Elementwise code is strict: LLVM runs the last elements of a loop by scalar code, and under "contract" or "reassoc"
# that rounds otherwise than the vector code, so that bits would depend on an element's place, hence on the shards.
# False, said aloud: a flag left out is that of the first caller, and (1 - p) h once became h - p h in float64.
_STRICT: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": False}
# Loops over whole arrays may reorder sums. Never fastmath=True: it implies nnan and ninf, which delete tests for NaN.
_FASTMATH = {"contract", "reassoc", "arcp", "nsz", "afn"}
_SERIAL: dict[str, Any] = {**_STRICT, "fastmath": _FASTMATH}
# Only explicit prange runs in parallel; all automatic parallelisation and fusion is off.
_PARALLEL = {
    "comprehension": False,
    "reduction": False,
    "inplace_binop": False,
    "setitem": False,
    "numpy": False,
    "stencil": False,
    "fusion": False,
}
_compile_lock = threading.RLock()


def helper(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile `function` as part of the kernels that call it."""
    return numba.njit(**_SERIAL)(function)


def inlined(twin: Callable[..., Any]) -> Callable[..., Any]:
    """Bind compiled code to its Python `twin`; used as ``@inlined(twin) def _(*types): return implementation``.

    The code is inlined into every caller, so that loops around it vectorise. The twin runs under
    ``NUMBA_DISABLE_JIT=1``.
    """
    return overload(twin, jit_options={**_STRICT, "forceinline": True}, prefer_literal=True)


def force_inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile `function` so that LLVM always inlines it into the kernel that calls it."""
    return numba.njit(**_STRICT, forceinline=True)(function)


def vector(dtype: np.dtype) -> types.Array:
    """Numba type of a contiguous 1-D array of `dtype`."""
    return types.Array(numba.from_dtype(np.dtype(dtype)), 1, "C")


def matrix(dtype: np.dtype) -> types.Array:
    """Numba type of a contiguous 2-D array of `dtype`."""
    return types.Array(numba.from_dtype(np.dtype(dtype)), 2, "C")


# ---- functions by address --------------------------------------------------------------------------------------


def invoke(function: Any, *args: Any) -> None:
    """Call, inside a kernel, the function whose handle `Function.handle` gave.

    Numba's own first-class functions cost 19 us per call from Python to unbox (measured, Numba 0.68); an address costs
    nothing.
    """
    function(*args)


@intrinsic
def _invoke(typingctx, address, args):
    signature = types.void(address, args)

    def codegen(context, builder, sig, values):
        elements = [builder.extract_value(values[1], i) for i in range(len(args))]
        ftype = context.call_conv.get_function_type(types.void, tuple(args))
        pointer = builder.inttoptr(values[0], ftype.as_pointer())
        context.call_conv.call_function(builder, pointer, types.void, tuple(args), elements)
        return context.get_dummy_value()

    return signature, codegen


@inlined(invoke)
def _invoke_compiled(function, *args):
    def call(function, *args):
        _invoke(function, args)

    return call


class Function:
    """A function handed to kernels by address, compiled once per float type with an explicit signature.

    Parameters
    ----------
    python : callable
        The function; it returns nothing and never raises.
    signature : callable
        Maps a NumPy dtype to the tuple of Numba argument types.
    """

    def __init__(self, python: Callable[..., None], signature: Callable[[np.dtype], tuple]) -> None:
        self.python = python
        self._signature = signature
        self._handles: dict[Any, Any] = {}
        self._dispatcher: Any = None

    def handle(self, dtype: np.dtype) -> Any:
        """Address of the compiled function for `dtype`; the Python function itself under ``NUMBA_DISABLE_JIT=1``."""
        found = self._handles.get(dtype)
        if found is None:
            with _compile_lock:
                found = self._handles[dtype] = self.python if DISABLED else self._compile(np.dtype(dtype))
        return found

    def _compile(self, dtype: np.dtype) -> int:
        if self._dispatcher is None:
            self._dispatcher = _cached(self.python, _STRICT)
        args = self._signature(dtype)
        with _announced():
            self._dispatcher.compile(types.void(*args))
        compiled = self._dispatcher.overloads[args]
        return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)


# ---- entries ---------------------------------------------------------------------------------------------------


class Entry:
    """A kernel that Python calls: ``entry(threads, *args)``; use as a decorator.

    With ``threads == 1`` the serial variant runs, otherwise the parallel one on that many threads. Both give the same
    bits as long as the body is one loop over independent shards.
    """

    def __init__(self, python: Callable[..., Any]) -> None:
        self.python = python
        self.__doc__ = python.__doc__
        self._serial: Any = None
        self._parallel: Any = None

    def __call__(self, threads: int, *args: Any) -> Any:
        if threads == 1:
            return (self._serial or self._first(parallel=False))(*args)
        run = self._parallel or self._first(parallel=True)
        before = _current_threads()
        if before == threads:
            return run(*args)
        numba.set_num_threads(threads)
        try:
            return run(*args)
        finally:
            numba.set_num_threads(before)

    def _first(self, *, parallel: bool) -> Any:
        """Make the variant and return a caller that announces and locks its first, compiling, call."""
        if DISABLED:
            self._serial = self._parallel = self.python
            return self.python

        def first(*args: Any) -> Any:
            with _compile_lock, _announced():
                dispatcher = _cached(self.python, {**_SERIAL, **({"parallel": _PARALLEL} if parallel else {})})
                result = dispatcher(*args)
            if parallel:
                self._parallel = dispatcher
            else:
                self._serial = dispatcher
            return result

        return first


def fixed(python: Callable[..., Any], signatures: Sequence[tuple], *, release: bool) -> Any:
    """`python` compiled for `signatures` alone: other arguments raise TypeError and compile nothing.

    Without `release` it keeps the GIL, which saves 0.03 us per call.
    """
    with _compile_lock, _announced():
        dispatcher = _cached(python, {**_STRICT, "nogil": release})
        for signature in signatures:
            dispatcher.compile(signature)
    dispatcher.disable_compile()
    return dispatcher


def _cached(python: Callable[..., Any], options: dict[str, Any]) -> Any:
    """A dispatcher of `python` with our options and our cache."""
    dispatcher = numba.njit(**options)(python)
    # Functions from outside, such as a user's cell, compile anew in each process: no hash covers what they call.
    ours = Path(python.__code__.co_filename).resolve().is_relative_to(_PACKAGE)
    if ours and cache_directory() is not None:
        # A file locator that fails at this point means "uncached", never an error.
        with contextlib.suppress(RuntimeError, OSError):
            dispatcher._cache = _Cache(python, "p" if "parallel" in options else "s" if options["nogil"] else "g")
    _dispatchers.append(dispatcher)
    return dispatcher


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
        yield
    finally:
        _announce["depth"] -= 1
        if timer is not None:
            timer.cancel()


# ---- disk cache ------------------------------------------------------------------------------------------------
#
# Numba keys a cached kernel by its own source file alone: neither an edited callee, nor changed options, nor another
# NumPy invalidate it. Here the directory name is a hash of all package sources, options and versions.

_PACKAGE = Path(__file__).resolve().parent
# At import, not at the first compilation: a source edited in between would file old machine code under its new hash.
_SOURCES = places.hash_sources(_PACKAGE)
# Switches that change where or how kernels run, not what they compile to.
_NEUTRAL = {"NUMBA_CACHE_DIR", "NUMBA_NUM_THREADS", "NUMBA_THREADING_LAYER", "NUMBA_THREADING_LAYER_PRIORITY"}


@cache
def _stamp() -> str:
    switches = {k: v for k, v in os.environ.items() if k.startswith("NUMBA_") and k not in _NEUTRAL}
    options = sorted(_FASTMATH), sorted(_PARALLEL), vector_bytes()
    key = tuple(versions().values()), platform.python_version(), sorted(switches.items()), options
    return places.stamp(_SOURCES, repr(key))


@cache
def cache_directory() -> Path | None:
    """Directory of the compiled kernels; None when there is no place for them. See `elman.places`."""
    return places.find(places.roots(_PACKAGE, config.CACHE_DIR), _stamp())


def versions() -> dict[str, str]:
    """Versions of what compiles the kernels, by package."""
    return {"numba": numba.__version__, "llvmlite": llvmlite.__version__, "numpy": np.__version__}


_dispatchers: list[Any] = []


def compile_counts() -> dict[str, int]:
    """How many kernels this process compiled, and how many it read from the disk cache."""
    stats = [dispatcher.stats for dispatcher in _dispatchers]
    return {
        "compiled": sum(sum(s.cache_misses.values()) for s in stats),
        "loaded": sum(sum(s.cache_hits.values()) for s in stats),
    }


class _Locator(_CacheLocator):
    """Places a kernel's files in `cache_directory`."""

    def __init__(self, line: int) -> None:
        self._line = line

    def get_cache_path(self) -> str:
        return str(cache_directory())

    def get_source_stamp(self) -> str:
        return _stamp()

    def get_disambiguator(self) -> str:
        return str(self._line)

    @classmethod
    def from_function(cls, py_func, py_file):
        return cls(py_func.__code__.co_firstlineno)


class _CacheImpl(CompileResultCacheImpl):
    _locator_classes: ClassVar[list[type]] = [_Locator]


class _Cache(FunctionCache):
    """Numba's function cache, except that a broken or vanished file means "compile", never an error."""

    _impl_class = _CacheImpl

    def __init__(self, python: Callable[..., Any], variant: str) -> None:
        super().__init__(python)
        # The base class names the file by function and line alone; two variants of one source must not meet.
        base = f"{python.__module__}-{self._impl.filename_base}-{variant}"
        self._cache_file = type(self._cache_file)(
            cache_path=self._cache_path, filename_base=base, source_stamp=_stamp()
        )

    def load_overload(self, sig, target_context):
        try:
            return super().load_overload(sig, target_context)
        except Exception:
            # Without this a broken index would be read again, and the kernel compiled again, by every process.
            with contextlib.suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig, data):
        # What a broken pickle raises is any exception at all.
        with contextlib.suppress(Exception):
            super().save_overload(sig, data)


# ---- thread layer ----------------------------------------------------------------------------------------------


def maximum_threads() -> int:
    """Threads Numba started with: ``NUMBA_NUM_THREADS``, by default the cores of this process's affinity."""
    return int(config.NUMBA_NUM_THREADS)


# How often a thread of libgomp looks for work, or for the end of others' work, before it gives its core away: for about
# 60 us in place of several ms. Beside another busy process a step of GRU (32,48,1,32) took 24 ms with libgomp's own
# 300,000 looks (they kept the core from the thread that was waited for), and 0.7 ms with 1,000.
_LOOKS = "3000"


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


def _current_threads() -> int:
    _start_threads()
    return numba.get_num_threads()


@cache
def threading_layer() -> str:
    """Name of Numba's thread layer, which this starts: "tbb", "omp" or "workqueue"; "none" without compilation."""
    if DISABLED:
        return "none"
    _current_threads()
    return numba.threading_layer()


# ---- vector width ----------------------------------------------------------------------------------------------

_WIDE_NAMES = ("avx512", "x86-64-v4", "znver4", "znver5", "icelake", "sapphirerapids", "graniterapids", "cascadelake")
_AVX_NAMES = ("haswell", "broadwell", "skylake", "x86-64-v3", "znver", "alderlake", "raptorlake")


def cpu_name() -> str:
    """LLVM's name of the CPU that kernels are compiled for."""
    import llvmlite.binding as llvm

    return config.CPU_NAME or llvm.get_host_cpu_name()


@cache
def vector_bytes() -> int:
    """Bytes of the widest vector register of the CPU that kernels are compiled for: 64, 32 or 16."""
    import llvmlite.binding as llvm

    if config.CPU_NAME:
        name = config.CPU_NAME.lower() + (config.CPU_FEATURES or "")
        wide, avx = any(w in name for w in _WIDE_NAMES), any(w in name for w in _AVX_NAMES)
    else:
        features = llvm.get_host_cpu_features()
        wide, avx = features.get("avx512f", False), features.get("avx2", False)
    return 64 if wide else 32 if avx else 16
