"""The file a model is saved in: one ``.npz`` of plain arrays and a JSON header, written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from elman.errors import BadFile

FORMAT = 1
"""Version of the file format; readers accept it and all before it."""

_HEADER = "header"


def write(path: str | os.PathLike, kind: str, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Write a file of `kind` under a temporary name beside `path`, then rename it: `path` is old or new, never half."""
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such directory to save in", str(target.parent))
    text = json.dumps({"format": FORMAT, "kind": kind, "arrays": sorted(arrays), **header})
    content = {_HEADER: np.frombuffer(text.encode(), np.uint8), **arrays}
    # Not tempfile: its files are private, and a saved model is to be as readable as others are.
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            np.savez(file, **content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def read(path: str | os.PathLike, kind: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
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
            header = json.loads(arrays.pop(_HEADER).tobytes())
            found, version = header["kind"], header["format"]
        # Damaged archives raise nearly anything: zlib's, struct's and zipfile's errors, RuntimeError, MemoryError.
        except Exception as error:
            # NumPy advises to load what it cannot read with pickle, which would execute it.
            reason = "" if "pickle" in str(error) or isinstance(error, KeyError) else f" ({error})"
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
