"""Border control: every argument from outside is checked here, before anything is touched, with one clear message."""

from __future__ import annotations

import difflib
import operator
import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from elman.errors import BadType, BadValue


def choose(argument: str, name: Any, table: Iterable[str], more: str = "") -> str:
    """`name`, if it is in `table`; else a ValueError that names the nearest entry, and `more` behind.

    Examples
    --------
    >>> choose("activation", "tahn", ["tanh", "relu"])
    Traceback (most recent call last):
    elman.errors.BadValue: activation: unknown name 'tahn', did you mean 'tanh'? Known: relu, tanh
    """
    known = sorted(table)
    if isinstance(name, str) and name in known:
        return name
    if not isinstance(name, str):
        raise BadType(f"{argument}: expected a name, got {type(name).__name__} {name!r}")
    near = difflib.get_close_matches(name, known, 1, 0.4)
    hint = f", did you mean {near[0]!r}?" if near else "."
    raise BadValue(f"{argument}: unknown name {name!r}{hint} Known: {', '.join(known)}{more}")


def shown(value: Any) -> str:
    """`repr` of a value; Python refuses that of integers of more than 4,300 digits."""
    try:
        return repr(value)
    except ValueError:
        return f"a {type(value).__name__} too long to show"


def integer(argument: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """`value` as an int of at least `least` and at most `most`; ValueError or TypeError otherwise."""
    if isinstance(value, (bool, np.bool_)):
        raise BadType(f"{argument}: expected an integer, got {value!r}")
    try:
        number = operator.index(value)
    except TypeError:
        raise BadType(f"{argument}: expected an integer, got {type(value).__name__} {value!r}") from None
    if number < least:
        raise BadValue(f"{argument}: expected an integer of at least {least}, got {shown(number)}")
    if most is not None and number > most:
        raise BadValue(f"{argument}: expected an integer of at most {most:,}, got {shown(number)}")
    return number


def flag(argument: str, value: Any) -> bool:
    """`value` as a bool; TypeError for anything but True and False."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise BadType(f"{argument}: expected True or False, got {type(value).__name__} {value!r}")


def path(argument: str, value: Any) -> str:
    """`value` as the name of a file or folder; TypeError or ValueError for what cannot be one."""
    name = value if isinstance(value, str) else value.__fspath__() if isinstance(value, os.PathLike) else None
    if not isinstance(name, str):
        raise BadType(f"{argument}: expected text or a path, got {type(value).__name__} {shown(value)}")
    if not name or "\0" in name:
        raise BadValue(f"{argument}: expected the name of a file or folder, got {name!r}")
    return name


def entries(argument: str, value: Any) -> list[Any]:
    """What a sequence holds; TypeError for what is none, or a string."""
    try:
        if isinstance(value, (str, bytes)):
            raise BadType
        return list(value)
    except TypeError:
        raise BadType(f"{argument}: expected a sequence, got {type(value).__name__} {shown(value)}") from None


def axes(value: Any) -> int:
    """Number of axes of `value` as an array; 2 for nested sequences of unequal length."""
    try:
        return np.ndim(value)
    except ValueError:
        return 2


def named(value: Any, *names: str) -> bool:
    """Whether `value` is one of some words; an array, which may stand there too, does not compare to one truth."""
    return isinstance(value, str) and value in names


def float_dtype(argument: str, dtype: Any) -> np.dtype:
    """float32 or float64 as a NumPy dtype; ValueError for anything else."""
    try:
        found = np.dtype(dtype)
    except (TypeError, ValueError):
        found = None
    if found not in (np.dtype(np.float32), np.dtype(np.float64)) or dtype is None:
        raise BadValue(f"{argument}: expected 'float32' or 'float64', got {dtype!r}")
    return found


def working_dtype(array: np.ndarray) -> np.dtype:
    """The float type to compute in for `array`: its own if it is float32 or float64 of any byte order, else float32."""
    native = array.dtype.newbyteorder("=")
    return native if native in (np.float32, np.float64) else np.dtype(np.float32)


def numeric(argument: str, value: Any) -> np.ndarray:
    """`value` as a non-empty array of real numbers; integers, booleans and float16 included, object dtype refused."""
    array = array_of(argument, value)
    if isinstance(value, np.ma.MaskedArray) and (hidden := int(np.ma.getmaskarray(value).sum())):
        raise BadValue(
            f"{argument}: {hidden} of {array.size} values are masked, and what stands there would count; fill them, "
            "and leave out steps with mask= or lengths="
        )
    if array.dtype.kind not in "fiub":
        odd = next((v for v in array.flat if not isinstance(v, (int, float, np.number))), None)
        found = "" if odd is None else f", with {odd!r} in it"
        raise BadType(
            f"{argument}: expected numbers, got an array of dtype {array.dtype} and shape {array.shape}{found}"
        )
    if array.size == 0:
        raise BadValue(f"{argument}: the array is empty, its shape is {array.shape}")
    return array


def array_of(argument: str, value: Any) -> np.ndarray:
    """`value` as an array of any kind; ValueError for nested sequences of unequal length."""
    try:
        return np.asarray(value)
    except (ValueError, RuntimeError) as error:  # RuntimeError: a tensor of PyTorch that has gradients
        if not isinstance(value, (list, tuple)) or isinstance(error, RuntimeError):
            raise BadValue(f"{argument}: expected an array, got {type(value).__name__} ({error})") from None
        raise BadValue(
            f"{argument}: expected an array, got nested sequences of unequal length; elman.utils.pad_sequences makes "
            "one of them, and a model also takes x as a list of NumPy arrays, one per sequence"
        ) from None


def finite(argument: str, array: np.ndarray) -> None:
    """ValueError with the count and first index if `array` holds NaN or infinity."""
    if array.dtype.kind != "f":
        return
    # One pass without a temporary: a sum is finite only if every term is. Overflow falls through to the exact test.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(array.sum(dtype=np.float64)):
            return
    bad = ~np.isfinite(array)
    count = int(bad.sum())
    if count:
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise BadValue(
            f"{argument}: {count} of {array.size} values are not finite (NaN or infinite), the first at index {first}: "
            f"{array[first]}"
        )


def real_array(argument: str, value: Any, dtype: np.dtype, *, ndim: tuple[int, ...] | None = None) -> np.ndarray:
    """`value` as a finite array of `dtype` that `addressable` passes; a copy only where it must be one.

    Raises
    ------
    TypeError, ValueError
        For object dtype, empty arrays, a wrong number of axes, NaN or infinities, and values beyond `dtype`'s range.
    """
    array = numeric(argument, value)
    if ndim is not None and array.ndim not in ndim:
        wanted = " or ".join(map(str, ndim))
        raise BadValue(f"{argument}: expected {wanted} axes, got {array.ndim}: shape {array.shape}")
    finite(argument, array)
    if array.dtype == dtype:
        return addressable(array)
    with np.errstate(over="ignore"):
        converted = array.astype(dtype)
    if array.dtype.kind == "f" and array.dtype.itemsize > dtype.itemsize:
        finite(f"{argument} (as {dtype})", converted)
    return converted


def addressable(array: np.ndarray) -> np.ndarray:
    """`array`, or a copy where an element is not at a whole multiple of its size, as in a field of a record array."""
    if array.flags.aligned and all(stride % array.itemsize == 0 for stride in array.strides):
        return array
    return array.copy()


def shaped(argument: str, value: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """`value` as a finite array of `dtype` with exactly that shape."""
    array = real_array(argument, value, dtype)
    if array.shape != shape:
        raise BadValue(f"{argument}: expected shape {shape}, got {array.shape}")
    return array
