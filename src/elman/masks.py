"""Which steps sequences use: masks and lengths, checked and in the forms that kernels and losses take."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from elman import checks
from elman.errors import BadType, BadValue


def checked_steps(mask: Any, lengths: Any, shape: Sequence[int], prefix: str = "") -> np.ndarray | None:
    """Which steps sequences use: bool (B, T) from a mask, integers (B,) from lengths; None without both.

    Parameters
    ----------
    mask : array_like of bool, shape (B, T), or None
        True: the sequence uses the step. Integers 0 and 1 are taken too.
    lengths : array_like of int, shape (B,), or None
        Steps used, from the first on; 0 to T.
    shape : (int, int)
        (B, T).
    prefix : str
        Before the names in messages.

    Raises
    ------
    ValueError, TypeError
        If both are given, for another shape or type, or a length outside 0 to T.

    Examples
    --------
    >>> checked_steps(None, [1, 0], (2, 2)).tolist()
    [1, 0]
    """
    shape = tuple(shape)
    if mask is not None and lengths is not None:
        raise BadValue(f"{prefix}mask and {prefix}lengths cannot be given together")
    if mask is not None:
        array = checks.array_of(f"{prefix}mask", mask)
        if array.shape != shape:
            raise BadValue(f"{prefix}mask: expected shape {shape}, one value per sequence and step, got {array.shape}")
        if array.dtype.kind not in "biu" or (array.dtype.kind != "b" and ((array != 0) & (array != 1)).any()):
            raise BadType(f"{prefix}mask: expected booleans, got an array of dtype {array.dtype}")
        return array.astype(bool, copy=False)
    if lengths is None:
        return None
    array = checks.array_of(f"{prefix}lengths", lengths)
    if array.shape != shape[:1]:
        raise BadValue(f"{prefix}lengths: expected shape {shape[:1]}, one per sequence, got {array.shape}")
    if array.dtype.kind not in "iu":
        raise BadType(f"{prefix}lengths: expected integers, got an array of dtype {array.dtype}")
    wrong = (array < 0) | (array > shape[1])
    if wrong.any():
        first = int(np.argmax(wrong))
        raise BadValue(f"{prefix}lengths: expected numbers from 0 to {shape[1]}, got {array[first]} at index {first}")
    return array.astype(smallest(shape[1]))


def expanded(used: np.ndarray | None, steps: int) -> np.ndarray | None:
    """What `checked_steps` gave as a bool array (B, T); from lengths in the order that `time_major` needs.

    Examples
    --------
    >>> expanded(np.array([1, 0]), 2).tolist()
    [[True, False], [False, False]]
    """
    if used is None or used.ndim == 2:
        return used
    return (_numbers(steps, used.dtype) < used).T


def smallest(steps: int) -> np.dtype:
    """The smallest signed type for that many steps: lengths of a batch of 256 are put in order in 2 us instead of 5.

    Examples
    --------
    >>> smallest(100)
    dtype('int8')
    """
    return np.min_scalar_type(-steps - 1)


@lru_cache(maxsize=64)
def _numbers(steps: int, dtype: np.dtype) -> np.ndarray:
    return np.arange(steps, dtype=dtype)[:, None]


def step_mask(mask: Any, lengths: Any, shape: tuple[int, int]) -> np.ndarray | None:
    """Bool array (B, T) from a mask or from lengths, checked; see `checked_steps`."""
    used = checked_steps(mask, lengths, shape)
    return used if used is None else expanded(used, shape[1])


def time_major(mask: np.ndarray | None, *, go_backwards: bool = False) -> np.ndarray | None:
    """A mask (B, T) as kernels take it: (T, B) uint8, contiguous; from the end with `go_backwards`."""
    if mask is None:
        return None
    return np.ascontiguousarray(mask[:, ::-1].T if go_backwards else mask.T).view(np.uint8)
