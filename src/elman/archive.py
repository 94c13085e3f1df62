"""The file a model is saved in: one ``.npz`` of plain arrays and a JSON header, written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from zipfile import ZipFile

import numpy as np

FORMAT = 2
"""Version of the file format; readers accept it and all before it. CONTRIBUTING.md describes them."""

_HEADER, _DIGEST = "header", "digest"


def digest(text: bytes, arrays: dict[str, np.ndarray]) -> bytes:
    """SHA-256 of a text and of names, types, shapes and values of arrays."""
    found = hashlib.sha256(text)
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        found.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        found.update(array.tobytes())
    return found.digest()


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file under a temporary name beside `path`, renamed when the block ends: `path` is old or new, never half."""
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such directory to save in", str(target.parent))
    # Not tempfile: its files are private, and a saved model is to be as readable as others are.
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def write(path: str | os.PathLike[str], kind: str, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Write a file of `kind`, as a whole or not at all."""
    text = json.dumps({"format": FORMAT, "kind": kind, "arrays": sorted(arrays), **header}).encode()
    content = {_HEADER: np.frombuffer(text, np.uint8), _DIGEST: np.frombuffer(digest(text, arrays), np.uint8)}
    with replacing(path) as file:
        np.savez(file, **content, **arrays)  # type: ignore[arg-type]  # it has an argument of its own


def read(path: str | os.PathLike[str], kind: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and arrays of a file of `kind`.

    Raises
    ------
    OSError
        If the file cannot be opened; FileNotFoundError if there is none.
    ValueError
        If it is no elman file, damaged, of another kind or of a newer format. Nothing in it is executed.
    """
    name = os.fspath(path)
    with open(name, "rb") as opened:
        try:
            with np.load(opened, allow_pickle=False) as file:
                arrays = {key: file[key] for key in file.files}
                text = arrays.pop(_HEADER).tobytes()
                header = json.loads(text)
                found, version = header["kind"], header["format"]
                _check(version, arrays.pop(_DIGEST, None), text, arrays, file.zip)
        # Damaged archives raise nearly anything: zlib's, struct's and zipfile's errors, RuntimeError, MemoryError.
        except Exception as error:
            # NumPy advises to load what it cannot read with pickle, which would execute it.
            reason = "" if "pickle" in str(error) or isinstance(error, KeyError) else f" ({error})"
            raise ValueError(f"path: {name!r} is no elman file, or it is damaged{reason}") from None
    if not isinstance(version, int) or version > FORMAT:
        raise ValueError(
            f"path: {name!r} has format {version}, this version of elman reads formats up to {FORMAT}; a newer one can"
            " load it"
        )
    if found != kind:
        raise ValueError(f"path: {name!r} holds a {found}, not a {kind}")
    # No checksum covers the archive's own list of arrays: a damaged byte there may hide some.
    if header.get("arrays") != sorted(arrays):
        raise ValueError(f"path: {name!r} is damaged: it should hold {header.get('arrays')}, it holds {sorted(arrays)}")
    return header, arrays


def _check(version: Any, found: np.ndarray | None, text: bytes, arrays: dict[str, np.ndarray], file: ZipFile) -> None:
    """Raise ValueError if the content is not what was written.

    NumPy reads as much of a member as its own header says, and a checksum is compared at the end of a member only: with
    "f4" in place of "f8" in a header half the bytes were read as wrong values, and nothing was seen.
    """
    if version in range(2, FORMAT + 1):
        if found is None or found.tobytes() != digest(text, arrays):
            raise ValueError("its digest is that of another content")
    elif (damaged := file.testzip()) is not None:  # format 1 has no digest
        raise ValueError(f"bad checksum of {damaged!r}")
