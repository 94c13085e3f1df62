"""The file a model is saved in: one ``.npz`` of plain arrays and a JSON header, written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = 1
"""Version of the file format; readers accept it and all before it."""

_HEADER = "header"


def write(path: str | os.PathLike, kind: str, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Write a file of `kind` under a temporary name beside `path`, then rename it: `path` is old or new, never half."""
    target = Path(path)
    text = json.dumps({"format": FORMAT, "kind": kind, **header})
    content = {_HEADER: np.frombuffer(text.encode(), np.uint8), **arrays}
    descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            np.savez(file, **content)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes files private; a saved model is as others are
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def read(path: str | os.PathLike, kind: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and arrays of a file of `kind`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no elman file, damaged, of another kind or of a newer format. Nothing in it is executed.
    """
    name = os.fspath(path)
    try:
        with np.load(name, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        header = json.loads(arrays.pop(_HEADER).tobytes())
        found, version = header["kind"], header["format"]
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"path: {name!r} is no elman file, or it is damaged ({error})") from None
    if not isinstance(version, int) or version > FORMAT:
        raise ValueError(
            f"path: {name!r} has format {version}, this version of elman reads formats up to {FORMAT}; a newer one can"
            " load it"
        )
    if found != kind:
        raise ValueError(f"path: {name!r} holds a {found}, not a {kind}")
    return header, arrays
