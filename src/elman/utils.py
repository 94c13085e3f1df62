"""Small helpers for data on their way into a model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from elman import checks
from elman.errors import BadType, BadValue

__all__ = ["pad_sequences"]

_SIDES = ("pre", "post")


def pad_sequences(
    sequences: Iterable[Any],
    maxlen: int | None = None,
    dtype: Any = None,
    padding: str = "pre",
    truncating: str = "pre",
    value: float = 0.0,
) -> np.ndarray:
    """One array of sequences of unequal length, filled up with `value`.

    Parameters
    ----------
    sequences : list of array_like, each (T_i,) or (T_i, F)
        Numbers; a length of 0 is allowed.
    maxlen : int, optional
        Steps of the result; longer sequences are cut. By default the length of the longest one.
    dtype : dtype, optional
        Of the result. By default the common type of all sequences that are not empty: floats stay floats.
    padding : "pre" or "post"
        Where short sequences are filled up.
    truncating : "pre" or "post"
        Where long sequences are cut.
    value : float
        What they are filled up with.

    Returns
    -------
    ndarray of shape (N, maxlen) or (N, maxlen, F)

    Raises
    ------
    ValueError, TypeError
        If there are no sequences, if one of them has other axes or another number of features than the first, holds no
        numbers or values that an integer `dtype` cannot hold (its index is named), or if `value` has no place in the
        type of the result.

    Notes
    -----
    A recurrent layer needs a mask or the lengths to pass over what was filled up; ``padding="post"`` goes with lengths.

    Examples
    --------
    >>> pad_sequences([[1, 2, 3], [4]])
    array([[1, 2, 3],
           [0, 0, 4]])
    >>> pad_sequences([[0.5], [1.5, 2.5]], padding="post", value=-1)
    array([[ 0.5, -1. ],
           [ 1.5,  2.5]])
    """
    arrays = _arrays(sequences)
    checks.choose("padding", padding, _SIDES)
    checks.choose("truncating", truncating, _SIDES)
    filled = [a for a in arrays if a.size] or arrays
    try:
        chosen = np.result_type(*{a.dtype for a in filled}) if dtype is None else np.dtype(dtype)
    except (TypeError, ValueError):
        raise BadType(f"dtype: expected a type of numbers, got {dtype!r}") from None
    if chosen.kind not in "fiub":
        raise BadType(f"dtype: expected real numbers, got {chosen}")
    steps = max(map(len, arrays)) if maxlen is None else checks.integer("maxlen", maxlen, 1, 1 << 40)
    filling = checks.numeric("value", value)
    if filling.ndim:
        raise BadValue(f"value: expected one number, got an array of shape {filling.shape}")
    out = np.empty((len(arrays), steps, *filled[0].shape[1:]), chosen)
    out[...] = _converted("value", filling, chosen)
    for k, array in enumerate(arrays):
        kept = array[max(0, len(array) - steps) :] if truncating == "pre" else array[:steps]
        if kept.size:
            place = slice(steps - len(kept), None) if padding == "pre" else slice(len(kept))
            out[k, place] = _converted(f"sequences[{k}]", kept, chosen)
    return out


def _arrays(sequences: Iterable[Any]) -> list[np.ndarray]:
    """Each sequence as an array of numbers, all of the same axes after the first."""
    if isinstance(sequences, (str, bytes)) or not isinstance(sequences, (Iterable, Sequence)):
        raise BadType(f"sequences: expected a list of sequences, got {type(sequences).__name__}")
    arrays: list[np.ndarray] = []
    first = None
    for k, sequence in enumerate(checks.entries("sequences", sequences)):
        try:
            array = np.asarray(sequence)
        except ValueError as error:
            raise BadValue(f"sequences[{k}]: its steps have unequal lengths ({error})") from None
        if array.dtype.kind not in "fiub":
            raise BadType(f"sequences[{k}]: expected numbers, got dtype {array.dtype}")
        if array.ndim not in (1, 2):
            raise BadValue(f"sequences[{k}]: expected shape (T,) or (T, F), got {array.shape}")
        if array.size:
            first = (k, array.shape[1:]) if first is None else first
            if array.shape[1:] != first[1]:
                raise BadValue(
                    f"sequences[{k}]: its steps have shape {array.shape[1:]}, those of sequences[{first[0]}] {first[1]}"
                )
        arrays.append(array)
    if not arrays:
        raise BadValue("sequences: there are none")
    return arrays


def _converted(argument: str, array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """`array` as `dtype`; an integer or boolean type must keep every value."""
    if array.dtype == dtype:
        return array
    with np.errstate(invalid="ignore", over="ignore"):
        converted = array.astype(dtype)
    if dtype.kind != "f":
        changed = converted != array
        if changed.any():
            raise BadValue(f"{argument}: {array[changed].flat[0]} is no {dtype}; give a dtype that holds it")
    return converted
