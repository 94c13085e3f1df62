"""The disk cache of compiled kernels.

Numba keys a cached kernel by its own source file alone: neither an edited callee, nor changed options, nor another
NumPy invalidate it. Here the directory name is a hash of all package sources, options and versions.

Numba keeps the kernels of one function by an index that processes read, extend and write back. Two that add a float32
and a float64 kernel at once can give both the same file, and then one runs the other's machine code; a flipped bit in
such code is not seen at all. Here every kernel has a file of its own, named by all that identifies it, with a digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import platform
import uuid
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from numba.core import config
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator
from numba.core.serialize import dumps

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


@cache
def trusted() -> bool:
    """Whether this process surely runs the sources that the directory is named by; 6 ms."""
    return places.settled(PACKAGE, _SOURCES)


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

    def ensure_cache_path(self) -> None:
        # It may have been deleted since.
        cache_directory().mkdir(mode=0o700, parents=True, exist_ok=True)

    @classmethod
    def from_function(cls, py_func, py_file):
        return cls(py_func.__code__.co_firstlineno)


class _CacheImpl(CompileResultCacheImpl):
    _locator_classes: ClassVar[list[type]] = [_Locator]


class _Files:
    """The files of one function: one per signature and CPU, a digest and the kernel."""

    def __init__(self, place: Path, function: str) -> None:
        self._place, self._function = place, function

    def path(self, key: Any) -> Path:
        """Where the kernel of a key lies."""
        name = hashlib.sha256(f"{self._function} {key!r}".encode()).hexdigest()[:32]
        return self._place / f"{name}.nbc"

    def load(self, key: Any) -> Any:
        """What `save` was given for `key`; None if there is no such file, or a damaged one."""
        path = self.path(key)
        content = path.read_bytes()
        digest, data = content[:32], content[32:]
        return pickle.loads(data) if digest == _digest(path, data) else None

    def save(self, key: Any, kernel: Any) -> None:
        """Write a file under another name, then rename it."""
        path, data = self.path(key), dumps(kernel)
        temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:16]}")
        try:
            temporary.write_bytes(_digest(path, data) + data)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def flush(self) -> None:
        """Nothing: there is no index, and every file stands for itself."""


def _digest(path: Path, data: bytes) -> bytes:
    """Of the name too: a file that was copied over another is damaged."""
    return hashlib.sha256(path.name.encode() + data).digest()


class Cache(FunctionCache):
    """Numba's function cache, except that a broken or vanished file means "compile", never an error."""

    _impl_class = _CacheImpl

    def __init__(self, python: Callable[..., Any], variant: str) -> None:
        super().__init__(python)
        # Two variants of one source must not meet.
        self._cache_file = _Files(Path(self._cache_path), f"{python.__module__}-{self._impl.filename_base}-{variant}")

    def holds(self, sig: Any, dispatcher: Any) -> bool:
        """Whether there is a file for a signature, whole or damaged."""
        return self._cache_file.path(self._index_key(sig, dispatcher.targetctx.codegen())).exists()

    # What a missing file, or a broken pickle, raises is any exception at all.

    def load_overload(self, sig, target_context):
        with contextlib.suppress(Exception):
            return super().load_overload(sig, target_context)

    def save_overload(self, sig, data):
        with contextlib.suppress(Exception):
            super().save_overload(sig, data)
