"""Many series end to end in one array: the checks every function on such a panel starts with."""

from __future__ import annotations

from typing import Any

import numpy as np

from elman import checks
from elman.errors import BadType, BadValue


def panel(values: Any, offsets: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """`values` (n,) as float32 or float64 and `offsets` (S + 1,) as int64, checked; NaN means missing.

    Parameters
    ----------
    values : array_like, (n,)
        The rows of S series, one series after the other.
    offsets : array_like of int, (S + 1,), or None
        Series s is ``values[offsets[s] : offsets[s + 1]]``; it may be empty. None: one series.

    Raises
    ------
    TypeError, ValueError
        For infinite values, offsets that do not begin at 0, end at n and never fall, or arrays of other shapes.

    Examples
    --------
    >>> panel([1, 2, 3], [0, 1, 3])
    (array([1., 2., 3.], dtype=float32), array([0, 1, 3]))
    """
    array = observed("values", values, ndim=(1,))
    if offsets is None:
        return array, np.array([0, len(array)], np.int64)
    bounds = np.asarray(offsets)
    if bounds.dtype.kind not in "iu":
        raise BadType(f"offsets: expected integers, got an array of dtype {bounds.dtype}")
    if bounds.ndim != 1 or len(bounds) < 2:
        raise BadValue(f"offsets: expected shape (series + 1,), got {bounds.shape}")
    bounds = bounds.astype(np.int64)
    if bounds[0] != 0 or bounds[-1] != len(array) or (np.diff(bounds) < 0).any():
        raise BadValue(f"offsets: expected a rising list from 0 to the number of rows {len(array)}, got {bounds}")
    return array, bounds


def observed(argument: str, value: Any, *, ndim: tuple[int, ...]) -> np.ndarray:
    """`value` as a float array of its own precision with `ndim` axes; NaN (missing) passes, infinity does not."""
    array = checks.numeric(argument, value)
    if array.ndim not in ndim:
        wanted = " or ".join(map(str, ndim))
        raise BadValue(f"{argument}: expected {wanted} axes, got {array.ndim}: shape {array.shape}")
    array = array.astype(checks.working_dtype(array) if array.dtype.kind == "f" else np.float32, copy=False)
    infinite = np.isinf(array)
    if infinite.any():
        first = tuple(int(i) for i in np.argwhere(infinite)[0])
        raise BadValue(f"{argument}: {int(infinite.sum())} of {array.size} values are infinite, first at {first}")
    return array


def owners(offsets: np.ndarray) -> np.ndarray:
    """The series each row belongs to, (n,)."""
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
