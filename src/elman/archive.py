"""The file a model is saved in: one ``.npz`` of plain arrays and a JSON header, written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from elman import checks
from elman.errors import BadFile

FORMAT = 2
"""Version of the file format; readers accept it and all before it. CONTRIBUTING.md describes them."""

_HEADER, _DIGEST = "header", "digest"
_LONGEST_HEADER = 10_000
"""Bytes of the description of an array; longer ones could take Python's parser long."""


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
    target = Path(checks.path("path", path))
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

    Notes
    -----
    What a file claims is checked before memory is asked for: the arrays take no more than the file itself.
    """
    name = checks.path("path", path)
    with open(name, "rb") as opened:
        try:
            arrays = _arrays(opened)
            text = arrays.pop(_HEADER).tobytes()
            header = json.loads(text)
            found, version = header["kind"], header["format"]
            stated = arrays.pop(_DIGEST, None)
            # Format 1 has none.
            if version in range(2, FORMAT + 1) and (stated is None or stated.tobytes() != digest(text, arrays)):
                raise BadFile("its digest is that of another content")
        # Damaged archives raise nearly anything: zlib's, struct's and zipfile's errors, RuntimeError, MemoryError.
        except Exception as error:
            reason = f" ({error})" if str(error) and not isinstance(error, KeyError) else ""
            raise BadFile(f"path: {name!r} is no elman file, or it is damaged{reason}") from None
    if not isinstance(version, int) or version > FORMAT:
        raise BadFile(
            f"path: {name!r} has format {version}, this version of elman reads formats up to {FORMAT}; a newer one can"
            " load it"
        )
    if found != kind:
        raise BadFile(f"path: {name!r} holds a {found}, not a {kind}")
    # No checksum covers the archive's own list of arrays: a damaged byte there may hide some.
    if header.get("arrays") != sorted(arrays):
        raise BadFile(f"path: {name!r} is damaged: it should hold {header.get('arrays')}, it holds {sorted(arrays)}")
    return header, arrays


def _arrays(opened: Any) -> dict[str, np.ndarray]:
    """All arrays of an archive; any exception if there is one that `write` cannot have written."""
    size, arrays = os.fstat(opened.fileno()).st_size, {}
    with zipfile.ZipFile(opened) as archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > size:
            raise BadFile("its arrays are larger than the file")
        for member in members:
            name = member.filename.removesuffix(".npy")
            # Compressed ones could be of any size, and would be read before a checksum is seen.
            if name == member.filename or name in arrays or member.compress_type != zipfile.ZIP_STORED:
                raise BadFile(f"{member.filename!r} is no array of it")
            with archive.open(member) as file:
                arrays[name] = _array(file, member.file_size)
    return arrays


def _array(file: Any, size: int) -> np.ndarray:
    """The array of a member of `size` bytes; read to its end, where zipfile compares the checksum."""
    version = npy.read_magic(file)
    if version != (1, 0):
        raise BadFile(f"an array of format {version}")
    shape, by_columns, dtype = npy.read_array_header_1_0(file, max_header_size=_LONGEST_HEADER)
    count = math.prod(shape)
    if dtype.hasobject or dtype.kind not in "fiub" or file.tell() + count * dtype.itemsize != size:
        raise BadFile(f"an array of dtype {dtype} and shape {shape} in {size} bytes")
    array = np.empty(count, dtype)
    view, read = memoryview(array.view(np.uint8)), 0  # type: ignore[arg-type]  # an array is a buffer
    while read < len(view) and (got := file.readinto(view[read:])):
        read += got
    if read < len(view) or file.read(1):
        raise BadFile("an array is cut off")
    array = array.astype(dtype.newbyteorder("="), copy=False)
    return array.reshape(shape[::-1]).T if by_columns else array.reshape(shape)
