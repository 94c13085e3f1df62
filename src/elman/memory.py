"""Reusable, cache-aligned memory."""

from __future__ import annotations

import math

import numpy as np

# No machine addresses more; NumPy has other errors for it.
_MOST = 1 << 56


def aligned(size: int, dtype: np.dtype) -> np.ndarray:
    """An uninitialised vector that begins at a cache line: a 64-byte vector across two lines loads at half speed."""
    itemsize = np.dtype(dtype).itemsize
    if size * itemsize > _MOST:
        raise MemoryError(f"{size * itemsize:,} bytes")
    raw = np.empty(size * itemsize + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size * itemsize].view(dtype)


class Buffers:
    """Reusable memory by name. A request may return the memory of the previous request of that name.

    Attributes
    ----------
    version : int
        Counts the times memory was exchanged for larger memory.
    """

    def __init__(self) -> None:
        self._flat: dict[str, np.ndarray] = {}
        self.version = 0

    def take(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array with undefined contents."""
        size = math.prod(shape)
        flat = self._flat.get(name)
        if flat is None or flat.size < size or flat.dtype != dtype:
            self._flat.pop(name, None)
            flat = self._flat[name] = aligned(size, dtype)
            self.version += 1
        return flat[:size].reshape(shape)
