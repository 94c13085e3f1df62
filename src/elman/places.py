"""Where compiled kernels are kept on disk: one directory per version of everything that shapes them."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
import struct
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

_VERSION = re.compile("[0-9a-f]{20}")


def hash_sources(package: Path) -> bytes:
    """Hash of all sources of `package`; 3 ms."""
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        digest.update(str(file.relative_to(package)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.digest()


def settled(package: Path, sources: bytes) -> bool:
    """Whether Python runs the sources of `package` that were hashed to `sources`; kernels of others must not be kept.

    They were edited meanwhile, perhaps before they were imported; or there is bytecode older than a source that Python
    takes all the same, as it compares sizes and whole seconds.
    """
    with contextlib.suppress(OSError):  # the package may be removed, or replaced, at this moment
        return hash_sources(package) == sources and not any(map(_outdated, package.rglob("*.py")))
    return False


def _outdated(source: Path) -> bool:
    bytecode = Path(importlib.util.cache_from_source(str(source)))
    with contextlib.suppress(OSError, struct.error):
        with open(bytecode, "rb") as file:
            flags, seconds, size = struct.unpack("<4xIII", file.read(16))
            written = os.fstat(file.fileno()).st_mtime_ns
        found = source.stat()
        taken = (flags, seconds, size) == (0, int(found.st_mtime) & 0xFFFFFFFF, found.st_size & 0xFFFFFFFF)
        return taken and written < found.st_mtime_ns
    return False


def stamp(sources: bytes, key: str) -> str:
    """The name of a version's directory, from the hash of the sources and a `key` of everything else."""
    return hashlib.sha256(sources + key.encode()).hexdigest()[:20]


def roots(package: Path, numba_directory: str) -> Iterator[Path]:
    """Where to look for a place, in order.

    ``$ELMAN_CACHE_DIR`` alone if it is set; else ``$NUMBA_CACHE_DIR/elman``, the package's ``__pycache__``,
    ``~/.cache/elman`` and a private directory under the temporary one.
    """
    if os.environ.get("ELMAN_CACHE_DIR"):
        yield Path(os.environ["ELMAN_CACHE_DIR"])
        return
    if numba_directory:
        yield Path(numba_directory) / "elman"
    yield package / "__pycache__" / "kernels"
    with contextlib.suppress(RuntimeError):
        yield Path.home() / ".cache" / "elman"
    with contextlib.suppress(OSError):  # there may be no temporary directory either
        private = Path(tempfile.gettempdir()) / f"elman-{os.getuid() if hasattr(os, 'getuid') else 'cache'}"
        private.mkdir(mode=0o700, exist_ok=True)
        # Cached kernels are pickles: use the shared temporary directory only if nobody else can write to ours.
        if not hasattr(os, "getuid") or (private.stat().st_uid == os.getuid() and not private.stat().st_mode & 0o022):
            yield private


def find(candidates: Iterable[Path], version: str) -> Path | None:
    """The first place for `version` that can be written or already holds kernels; None if there is none."""
    for root in candidates:
        place = root / version
        try:
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError:
            continue
        if writable(place):
            _prune(root)
            return place
        if any(place.glob("*.nbc")):
            return place
    return None


def writable(place: Path) -> bool:
    """Whether a file can be made in `place`."""
    try:
        tempfile.TemporaryFile(dir=place).close()
    except OSError:
        return False
    return True


def contents(place: Path) -> tuple[int, int]:
    """Number of files in `place`, and their bytes."""
    sizes = []
    for file in place.iterdir():
        with contextlib.suppress(OSError):  # another process may replace it at this moment
            sizes.append(file.stat().st_size)
    return len(sizes), sum(sizes)


def _prune(root: Path, keep: int = 8) -> None:
    """Delete all but the newest `keep` versions, so that editing sources does not fill the disk.

    Only kernels in directories of our own naming: `root` may be a directory the user shares with other files.
    """
    try:
        versions = [p for p in root.iterdir() if p.is_dir() and _VERSION.fullmatch(p.name)]
        oldest = sorted(versions, key=lambda p: p.stat().st_mtime)[:-keep]
    except OSError:  # another process prunes as well
        return
    for old in oldest:
        with contextlib.suppress(OSError):
            for file in old.glob("*.nbc*"):
                file.unlink()
            old.rmdir()
