"""NumPy arrays, lists and dicts of them as panels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from elman import checks
from elman.errors import BadType, BadValue
from elman.forecasting.encode import Categories, encode, stack
from elman.forecasting.grid import Grid
from elman.forecasting.panel import Panel, check_future, offsets_of


def from_arrays(
    y: Any,
    multivariate: bool = False,
    past: Any = None,
    future: Any = None,
    static: Any = None,
    like: Panel | None = None,
) -> Panel:
    """Series without times as a panel; rows are counted from 0.

    Parameters
    ----------
    y : array_like
        (T,) is one series; (T, n) are n series, or with `multivariate` n channels of one; a list or dict of 1-D arrays
        are series of any lengths, a dict's keys their ids. NaN and masked entries are missing.
    multivariate : bool
        Whether the series are channels of one.
    past, future : array_like, optional
        Covariates of the same rows: (T,) or (T, P) for one series or shared by all, (T, n, P) for a `y` of (T, n), a
        list or dict like `y` of (T,) or (T, P).
    static : array_like (S, Q) or (S,), optional
        Covariates of the series; columns of strings are categories. A dict of (Q,) for a dict.
    like : Panel, optional
        Whose categories apply; None to find them.

    Returns
    -------
    Panel
        Of S series, ids 0 to S - 1 or the keys of a dict, a grid of kind "index"; covariates are called "past0",
        "future0", "static0" and so on.

    Raises
    ------
    TypeError
        For anything but numbers in `y`; names the place.
    ValueError
        For empty series, wrong shapes, infinite values, missing values in `future` and `static`.

    Examples
    --------
    >>> import numpy as np
    >>> from_arrays(np.zeros((10, 3))).lengths
    array([10, 10, 10])
    """
    multivariate = checks.flag("multivariate", multivariate)
    ids, series = _series(y)
    lengths = np.array([len(one) for one in series], np.int64)
    for label, length in zip(ids, lengths, strict=True):
        if not length:
            raise BadValue(f"y: series {label!r} is empty; leave it out")
        if multivariate and length != lengths[0]:
            raise BadValue(
                f"y: channels have equal lengths, but {label!r} has {length} values and {ids[0]!r} {lengths[0]}; pad"
                " with nan, or give multivariate=False"
            )
    learned = None if like is None else like.categories
    shared = isinstance(y, np.ndarray) and y.ndim == 2
    values = series[0] if len(series) == 1 else np.concatenate(series)
    aligned = {
        argument: _aligned(argument, given, ids, lengths, shared, learned)
        for argument, given in (("past", past), ("future", future))
    }
    rows, static_names, categories = _static(static, ids, learned)
    for _, _, found in aligned.values():
        categories.update(found)
    panel = Panel(
        values, offsets_of(lengths), ids, np.zeros(len(ids), np.int64), Grid("index"), aligned["past"][0],
        aligned["future"][0], rows, aligned["past"][1], aligned["future"][1], static_names, categories, multivariate,
    )  # fmt: skip
    return panel.check()


def _series(y: Any) -> tuple[list[Any], list[np.ndarray]]:
    """Ids, and one float32 array for each of them."""
    if isinstance(y, Mapping):
        for key in y:
            if not isinstance(key, (str, int, np.integer)) or isinstance(key, bool):
                raise BadType(f"y: ids are strings or integers, got the key {key!r} of type {type(key).__name__}")
        ids = [key if isinstance(key, str) else int(key) for key in y]
        parts = [_one(f"y[{key!r}]", one) for key, one in y.items()]
    elif isinstance(y, (list, tuple)) and any(nested(one) for one in y):
        ids, parts = list(range(len(y))), [_one(f"y[{i}]", one) for i, one in enumerate(y)]
    else:
        array = _numbers("y", y)
        if array.ndim not in (1, 2):
            raise BadValue(
                f"y: expected one series (T,) or several (T, n), got shape {array.shape}; a list of 1-D arrays are"
                " series of unequal lengths"
            )
        parts = [array] if array.ndim == 1 else list(array.T)
        ids = list(range(len(parts)))
    if not ids:
        raise BadValue("y: there are no series")
    return ids, parts


def nested(value: Any) -> bool:
    """Whether a value is a sequence or an array, perhaps of unequal parts, and no number."""
    return isinstance(value, (list, tuple)) or checks.axes(value) > 0


def _one(place: str, values: Any) -> np.ndarray:
    array = _numbers(place, values)
    if array.ndim != 1:
        raise BadValue(
            f"{place}: expected a 1-D array, got shape {array.shape}; channels of one series are one array (T, n) with"
            " multivariate=True"
        )
    return array


def _numbers(place: str, values: Any) -> np.ndarray:
    """`values` as float32, NaN where masked."""
    try:
        array = np.asanyarray(values)
    except ValueError as error:
        raise BadValue(f"{place}: expected an array of numbers, got {type(values).__name__} ({error})") from None
    if array.size == 0:
        return np.zeros(array.shape, np.float32)
    if array.dtype.kind in "USO" and isinstance(values, (list, tuple)):
        array = np.array(values, object)  # NumPy turns numbers beside strings into strings
    if array.dtype.kind not in "fiub":
        odd = (i for i in np.ndindex(array.shape) if not isinstance(array[i], (int, float, np.integer, np.floating)))
        at = next(odd, None)
        if at is not None:
            where = f" at index {at[0] if len(at) == 1 else at}" if at else ""
            raise BadType(
                f"{place}: expected numbers, got {type(array[at]).__name__} {array[at]!r}{where}; write nan where"
                " a value is missing"
            )
        try:
            array = array.astype(np.float64)
        except OverflowError as error:
            raise BadValue(f"{place}: {error}") from None
    masked = np.ma.getmask(array)
    with np.errstate(over="ignore"):
        plain = np.asarray(array.data if isinstance(array, np.ma.MaskedArray) else array).astype(np.float32, copy=False)
    return plain if masked is np.ma.nomask else np.where(masked, np.float32(np.nan), plain)


def _object(place: str, values: Any) -> np.ndarray:
    """Covariates as an array of numbers, or of objects where there are labels."""
    try:
        array = np.asanyarray(values)
    except ValueError as error:
        raise BadValue(f"{place}: expected an array, got {type(values).__name__} ({error})") from None
    if isinstance(array, np.ma.MaskedArray):
        array = np.ma.filled(array.astype(np.float64), np.nan)
    if array.dtype.kind in "USO":
        # NumPy turns numbers beside strings into strings; as objects they stay numbers.
        return np.array(values, object) if array.dtype.kind in "US" else array
    if array.dtype.kind not in "fiub":
        raise BadType(f"{place}: expected numbers or strings, got an array of dtype {array.dtype}")
    return array


def _parts(argument: str, given: Any, ids: list[Any], shared: bool) -> list[np.ndarray]:
    """One array (T, P) for each series; `shared` where one may serve all."""
    if isinstance(given, Mapping):
        lost = [name for name in ids if name not in given]
        if lost:
            raise BadValue(f"{argument}: no entry for id {lost[0]!r}; give one for each series")
        parts = [_object(f"{argument}[{name!r}]", given[name]) for name in ids]
    elif isinstance(given, (list, tuple)) and (len(ids) > 1 or _arrays(given)):
        if len(given) != len(ids):
            raise BadValue(f"{argument}: expected a list of {len(ids)} arrays, one per series, got {len(given)}")
        parts = [_object(f"{argument}[{i}]", one) for i, one in enumerate(given)]
    else:
        array = _object(argument, given)
        if array.ndim == 3 and shared and array.shape[1] == len(ids):
            parts = [array[:, i] for i in range(len(ids))]
        elif array.ndim in (1, 2) and (shared or len(ids) == 1):
            parts = [array] * len(ids)
        else:
            wanted = "(T,) or (T, P)" + (f" or (T, {len(ids)}, P)" if shared else "")
            hint = "" if shared or len(ids) == 1 else f", in a list or dict of {len(ids)}"
            raise BadValue(f"{argument}: expected shape {wanted}{hint}, got shape {array.shape}")
    for name, part in zip(ids, parts, strict=True):
        if part.ndim not in (1, 2):
            raise BadValue(f"{argument}: series {name!r} has an array of shape {part.shape}, expected (T,) or (T, P)")
    parts = [part[:, None] if part.ndim == 1 else part for part in parts]
    for name, part in zip(ids, parts, strict=True):
        if part.shape[1] != parts[0].shape[1]:
            raise BadValue(
                f"{argument}: series {name!r} has an array of shape {part.shape}, expected (T, {parts[0].shape[1]})"
            )
    return parts


def _arrays(given: Sequence[Any]) -> bool:
    """Whether a list is one of arrays, one for each series, rather than rows of numbers."""
    return bool(given) and all(getattr(one, "ndim", 0) > 0 for one in given)


def _aligned(
    argument: str, given: Any, ids: list[Any], lengths: np.ndarray, shared: bool, learned: Categories | None
) -> tuple[np.ndarray, tuple[str, ...], dict[str, tuple[str, ...]]]:
    """Covariates (n, P) of the rows of all series, their names and categories."""
    if given is None:
        return np.zeros((int(lengths.sum()), 0), np.float32), (), {}
    parts = _parts(argument, given, ids, shared)
    for name, part, length in zip(ids, parts, lengths, strict=True):
        if len(part) != length:
            raise BadValue(f"{argument}: series {name!r} has {length} values and {len(part)} rows of covariates")
    return _stacked(argument, parts, learned)


def _stacked(
    argument: str, parts: list[np.ndarray], learned: Categories | None
) -> tuple[np.ndarray, tuple[str, ...], dict[str, tuple[str, ...]]]:
    rows = np.concatenate(parts)
    names = tuple(f"{argument}{j}" for j in range(rows.shape[1]))
    array, categories = stack(argument, {name: rows[:, j] for j, name in enumerate(names)}, len(rows), learned)
    return array, names, categories


def _static(
    static: Any, ids: list[Any], learned: Categories | None
) -> tuple[np.ndarray, tuple[str, ...], dict[str, tuple[str, ...]]]:
    if static is None:
        return np.zeros((len(ids), 0), np.float32), (), {}
    if isinstance(static, Mapping):
        lost = [name for name in ids if name not in static]
        if lost:
            raise BadValue(f"static: no entry for id {lost[0]!r}; give one for each series")
        static = [static[name] for name in ids]
    array = _object("static", static)
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or len(array) != len(ids):
        raise BadValue(f"static: expected shape ({len(ids)}, Q), one row per series, got {np.shape(static)}")
    return _stacked("static", [array], learned)


def future_array(future: Any, panel: Panel, horizon: int) -> np.ndarray:
    """Covariates known in advance over the `horizon` steps after the end of each series.

    Parameters
    ----------
    future : array_like
        (h,) or (h, K) for one series or shared by all, (S, h, K), or a list or dict of (h,) or (h, K).
    panel : Panel
        The series to forecast.
    horizon : int
        Steps h.

    Returns
    -------
    ndarray (S, h, K), float32
        Categories as codes.

    Raises
    ------
    TypeError, ValueError
        For a wrong shape, and for missing or infinite values: names id, column and step.

    Examples
    --------
    >>> panel = from_arrays([1.0, 2.0, 1.0], future=[0.0, 1.0, 0.0])
    >>> future_array([1.0, 0.0], panel, 2).shape
    (1, 2, 1)
    """
    count, width = len(panel), len(panel.known_names)
    if not isinstance(future, (Mapping, list, tuple)) and checks.axes(future) == 3:
        if len(future) != count:
            raise BadValue(f"future: expected shape ({count}, {horizon}, {width}), got {np.shape(future)}")
        future = list(future) if count > 1 else future[0]
    parts = _parts("future", future, panel.ids, True)
    for name, part in zip(panel.ids, parts, strict=True):
        # More rows may be those of the past, as predict(y, future=...) takes them.
        if part.shape != (horizon, width):
            raise BadValue(
                f"future: series {name!r} has covariates of shape {part.shape}, expected ({horizon}, {width}): the"
                f" {horizon} steps after its end"
            )
    rows = np.concatenate(parts)
    columns = [encode("future", name, rows[:, j], panel.categories)[0] for j, name in enumerate(panel.known_names)]
    return check_future(np.stack(columns, 1).reshape(count, horizon, width), panel)


def split_future(future: Any, panel: Panel, horizon: int, shared: bool) -> dict[Any, np.ndarray]:
    """Covariates of T_i + horizon rows for each series, by id; `shared`: one array may serve all.

    Raises
    ------
    ValueError
        If a series has another number of rows.
    """
    parts = _parts("future", future, panel.ids, shared)
    for label, part, length in zip(panel.ids, parts, panel.lengths, strict=True):
        if len(part) != length + horizon:
            raise BadValue(
                f"future: series {label!r} has {length} values, so with the horizon {length + horizon} rows of "
                f"covariates, got {len(part)}"
            )
    return dict(zip(panel.ids, parts, strict=True))
