"""The disk cache of compiled kernels.

Numba keys a cached kernel by its own source file alone: neither an edited callee, nor changed options, nor another
NumPy invalidate it. Here the directory name is a hash of all package sources, options and versions.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from numba.core import config
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator

from elman import places
from elman.jit.target import FASTMATH, PARALLEL, vector_bytes, versions

PACKAGE = Path(__file__).resolve().parents[1]
# At import, not at the first compilation: a source edited in between would file old machine code under its new hash.
_SOURCES = places.hash_sources(PACKAGE)
# Switches that change where or how kernels run, not what they compile to.
_NEUTRAL = {"NUMBA_CACHE_DIR", "NUMBA_NUM_THREADS", "NUMBA_THREADING_LAYER", "NUMBA_THREADING_LAYER_PRIORITY"}


@cache
def _stamp() -> str:
    switches = {k: v for k, v in os.environ.items() if k.startswith("NUMBA_") and k not in _NEUTRAL}
    options = sorted(FASTMATH), sorted(PARALLEL), vector_bytes()
    key = tuple(versions().values()), platform.python_version(), sorted(switches.items()), options
    return places.stamp(_SOURCES, repr(key))


@cache
def cache_directory() -> Path | None:
    """Directory of the compiled kernels; None when there is no place for them. See `elman.places`."""
    return places.find(places.roots(PACKAGE, config.CACHE_DIR), _stamp())


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


class Cache(FunctionCache):
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
