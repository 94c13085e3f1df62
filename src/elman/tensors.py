"""Weights alone, in a safetensors file, which other libraries read and write as well."""

from __future__ import annotations

import os
from types import ModuleType

import numpy as np

from elman import archive, checks
from elman.errors import BadFile, MissingPackage

# In the metadata of files of ours: the format itself has no checksum, and a flipped bit would be another weight.
_DIGEST = "sha256"


def _package() -> ModuleType:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise MissingPackage(
            "safetensors files need the package safetensors; pip install 'elman[safetensors]'"
        ) from error
    return safetensors


def write(path: str | os.PathLike[str], arrays: dict[str, np.ndarray]) -> None:
    """Write a file, as a whole or not at all."""
    metadata = {"format": "np", _DIGEST: archive.digest(b"", arrays).hex()}
    content = _package().numpy.save(arrays, metadata)
    with archive.replacing(path) as file:
        file.write(content)


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """All arrays of a file.

    Raises
    ------
    OSError
        If the file cannot be opened; FileNotFoundError if there is none.
    BadFile
        If it is no such file, or damaged: files that `write` wrote have a digest.
    """
    name = checks.path("path", path)
    package = _package()
    open(name, "rb").close()  # the package's own errors do not say which file
    try:
        with package.safe_open(name, framework="np") as file:
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, it is no dict
            digest = (file.metadata() or {}).get(_DIGEST)
    except Exception as error:
        if "bfloat16" in str(error):
            raise BadFile(f"path: {name!r} holds bfloat16, which NumPy has not; save it as float32") from None
        raise BadFile(f"path: {name!r} is no safetensors file, or it is damaged ({error})") from None
    if digest not in (None, archive.digest(b"", arrays).hex()):
        raise BadFile(f"path: {name!r} is damaged: its digest is that of another content")
    return arrays
