"""Long data frames of pandas, polars or pyarrow as panels."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from elman.errors import BadType, BadValue
from elman.forecasting.columns import (
    Columns,
    FrameSpec,
    check_ids,
    is_time,
    missing,
    read_ids,
    read_numbers,
    read_target,
    read_times,
    resolve,
)
from elman.forecasting.encode import missing_code, stack
from elman.forecasting.grid import Grid, show_time
from elman.forecasting.panel import Panel, check_filling, fill_known, offsets_of

if TYPE_CHECKING:
    import narwhals as nw


class Table(NamedTuple):
    """A data frame as a panel, a description of the frame, and the columns that were not used."""

    panel: Panel
    spec: FrameSpec
    ignored: tuple[str, ...]


def is_frame(obj: Any) -> bool:
    """Whether `obj` is a data frame of a library that narwhals knows, eager or lazy.

    Examples
    --------
    >>> is_frame([1.0, 2.0])
    False
    """
    # Narwhals is imported only for what may be a frame.
    if isinstance(obj, (np.ndarray, list, tuple, dict, str)) or not hasattr(type(obj), "columns"):
        return False
    import narwhals as nw

    return isinstance(nw.from_native(obj, pass_through=True), (nw.DataFrame, nw.LazyFrame))


def is_dated(obj: Any) -> bool:
    """Whether `obj` is a series of pandas with dates for its index, which is as good as a frame."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(obj, pandas.Series) and isinstance(obj.index, pandas.DatetimeIndex)


def from_frame(
    frame: Any,
    columns: Columns | None = None,
    past: Sequence[str] = (),
    future: Sequence[str] = (),
    static: Sequence[str] = (),
) -> Table:
    """A long data frame as a panel: one row per series and time.

    Rows may be in any order. Times between the first and the last of a series that are not in the frame become rows
    whose target and past covariates are missing, and whose future-known covariates are those of the row before. The
    target is a view of the frame where it is float32, sorted and without gaps.

    Parameters
    ----------
    frame : data frame
        Of pandas, polars (also lazy) or pyarrow. A pandas frame, or a series, may have its times as a
        DatetimeIndex.
    columns : Columns, optional
        Names of the columns for id, time and target.
    past, future, static : sequence of str
        Covariates known up to the present, known in advance, and constant within a series.

    Returns
    -------
    Table
        Panel of n rows (after filling) and S series by first appearance, the frame's description, and the names of the
        unused columns.

    Raises
    ------
    TypeError, ValueError
        For columns that are not there or of the wrong type, missing ids or times, repeated times, times off the grid,
        infinite values, missing values in future-known or static covariates; names the id, the column and the date.

    Examples
    --------
    >>> import datetime, pytest
    >>> pl = pytest.importorskip("polars")
    >>> days = [datetime.date(2024, 1, day) for day in (1, 2, 4)]
    >>> table = from_frame(pl.DataFrame({"unique_id": ["a"] * 3, "ds": days, "y": [1.0, 2.0, 4.0]}))
    >>> str(table.panel.grid), table.panel.values.tolist()
    ('1 day', [1.0, 2.0, nan, 4.0])
    """
    names = {"past": _names("past", past), "future": _names("future", future), "static": _names("static", static)}
    listed = [name for group in names.values() for name in group]
    columns = columns or Columns()
    table = read_frame(frame, columns)
    columns = resolve(table, columns, listed)
    _distinct(columns, names)
    return _panel(table, columns, names, None, None)


def from_frame_like(frame: Any, panel: Panel, spec: FrameSpec) -> Table:
    """A data frame as a panel of the grid, the columns and the categories of `panel`.

    Parameters
    ----------
    frame : data frame
        Of any library; its columns are named as in the frame that `spec` describes.
    panel : Panel
        Whose grid, covariates and categories apply.
    spec : FrameSpec
        What the frame of the fit was like.

    Returns
    -------
    Table
        As of `from_frame`; labels that `panel` does not know have the code of missing ones, with one warning.

    Raises
    ------
    TypeError, ValueError
        As of `from_frame`.

    Examples
    --------
    >>> import pytest
    >>> pl = pytest.importorskip("polars")
    >>> panel, spec, _ = from_frame(pl.DataFrame({"ds": [1990, 1991], "y": [1.0, 2.0]}))
    >>> from_frame_like(pl.DataFrame({"ds": [1993], "y": [4.0]}), panel, spec).panel.first
    array([3])
    """
    columns = Columns(spec.id, spec.time, spec.target)
    table = read_frame(frame.rename(spec.target) if is_dated(frame) else frame, columns)
    for argument in ("id", "time", "target"):
        name = getattr(columns, argument)
        if name is not None and name not in table.columns:
            raise missing(table, argument, name)
    names = {"past": panel.past_names, "future": panel.known_names, "static": panel.static_names}
    return _panel(table, columns, names, panel, spec)


def _names(argument: str, names: Sequence[str] | str) -> tuple[str, ...]:
    if not isinstance(names, (str, list, tuple)):
        raise BadType(f"{argument}: expected names of columns, got {type(names).__name__}")
    found = (names,) if isinstance(names, str) else tuple(names)
    odd = next((name for name in found if not isinstance(name, str)), None)
    if odd is not None:
        raise BadType(f"{argument}: expected names of columns, got {type(odd).__name__} {odd!r}")
    return found


def _distinct(columns: Columns, names: dict[str, tuple[str, ...]]) -> None:
    roles: dict[str, str] = {}
    used = [("id", columns.id), ("time", columns.time), ("target", columns.target)]
    used += [(argument, name) for argument, group in names.items() for name in group]
    for argument, name in used:
        if name is None:
            continue
        if name in roles:
            raise BadValue(f"{argument}: column {name!r} is already given as {roles[name]}=; name it once")
        roles[name] = argument


def read_frame(frame: Any, columns: Columns) -> nw.DataFrame[Any]:
    """`frame` in narwhals, eager, with a DatetimeIndex of pandas as a column."""
    import narwhals as nw

    pandas = sys.modules.get("pandas")
    if is_dated(frame):
        named = isinstance(frame.name, str) and frame.name not in (columns.id, columns.time)
        frame = frame.to_frame(frame.name if named and columns.target == "y" else columns.target)
    if pandas is not None and isinstance(frame, pandas.DataFrame):
        frame = _index_as_column(frame, columns.time, pandas)
    try:
        table = nw.from_native(frame)
        table = table.collect() if isinstance(table, nw.LazyFrame) else table
        names = table.columns
    except nw.exceptions.DuplicateError as error:
        raise BadValue(f"y: the frame has columns of the same name; rename them ({error})") from None
    odd = next((name for name in names if not isinstance(name, str)), None)
    if odd is not None:
        raise BadValue(f"y: the frame has a column with the name {odd!r}, expected strings; rename it")
    return table


def _index_as_column(frame: Any, time: str, pandas: Any) -> Any:
    """A pandas frame with its DatetimeIndex as the column `time`, where no other column is the time."""
    import narwhals as nw

    index = frame.index
    if time in frame.columns or not isinstance(index, pandas.DatetimeIndex) or not frame.columns.is_unique:
        return frame
    if index.name != time and any(is_time(nw.from_native(frame[name], series_only=True)) for name in frame.columns):
        return frame
    return frame.assign(**{time: index})


class _Layout(NamedTuple):
    """Which row of the frame, and of the panel, the given rows are, in the order of the panel."""

    order: np.ndarray | None  # rows of the frame; None where they are in order
    at: np.ndarray | None  # rows of the panel; None where nothing is filled
    given: np.ndarray | None
    offsets: np.ndarray
    first: np.ndarray
    heads: np.ndarray  # the first given row of each series, in the order of the panel

    def sort(self, column: np.ndarray) -> np.ndarray:
        return column if self.order is None else column[self.order]

    def spread(self, column: np.ndarray, fill: Any = np.nan) -> np.ndarray:
        column = self.sort(column)
        if self.at is None:
            return column
        out = np.full((self.offsets[-1], *column.shape[1:]), fill, column.dtype)
        out[self.at] = column
        return out


def _panel(
    table: nw.DataFrame[Any],
    columns: Columns,
    names: dict[str, tuple[str, ...]],
    like: Panel | None,
    spec: FrameSpec | None,
) -> Table:
    n = len(table)
    if n == 0:
        raise BadValue("y: the frame has no rows")
    codes, ids, id_type = np.zeros(n, np.int64), [0], "Int64"
    if columns.id is not None:
        codes, ids, id_type = read_ids(columns.id, table[columns.id])
        if like is not None:
            check_ids(columns.id, ids, like.ids)
    times = read_times(columns.time, table[columns.time], spec)
    grid, layout = _lay_out(table, columns, codes, ids, times.values, None if like is None else like.grid)
    learned = None if like is None else like.categories
    categories: dict[str, tuple[str, ...]] = {}
    read = {}
    for argument, group in names.items():
        read[argument], found = stack(argument, read_columns(table, argument, group), n, learned)
        categories.update(found)
    blank = np.array([missing_code("past", categories.get(name)) for name in names["past"]], np.float32)
    known = layout.spread(read["future"])
    if layout.given is not None:
        fill_known(known, layout.given)
    panel = Panel(
        layout.spread(read_target(columns.target, table[columns.target])), layout.offsets, ids, layout.first, grid,
        layout.spread(read["past"], blank), known, _constant(layout, ids, names["static"], read["static"]),
        names["past"], names["future"], names["static"], categories, target=columns.target, given=layout.given,
    )  # fmt: skip
    described = FrameSpec(
        table.implementation.value, columns.id, columns.time, columns.target, times.zone, times.wall, times.type,
        id_type,
    )  # fmt: skip
    used = {columns.id, columns.time, columns.target}.union(*names.values())
    return Table(panel.check(), described, tuple(name for name in table.columns if name not in used))


def read_columns(table: nw.DataFrame[Any], argument: str, names: Sequence[str]) -> dict[str, Any]:
    """Covariates by name, as `read_numbers` reads them."""
    for name in names:
        if name not in table.columns:
            raise missing(table, argument, name)
    return {name: read_numbers(argument, name, table[name]) for name in names}


def _lay_out(
    table: nw.DataFrame[Any], columns: Columns, codes: np.ndarray, ids: list[Any], times: np.ndarray, grid: Grid | None
) -> tuple[Grid, _Layout]:
    """The grid of the rows, and where each of them goes."""
    order = None
    if not _ascending(codes, times.astype(np.int64, copy=False)).all():
        order = np.lexsort((times, codes))
        codes, times = codes[order], times[order]
        _refuse_repeated(table, columns, codes, times, ids)
    counts = np.bincount(codes, minlength=len(ids))
    heads = offsets_of(counts)
    if grid is None:
        grid = Grid.infer(times, heads)
    ticks = grid.ticks(times, lambda row: f"id {ids[codes[row]]!r}")
    first, last = ticks[heads[:-1]], ticks[heads[1:] - 1]
    lengths = last - first + 1
    if np.array_equal(lengths, counts):
        return grid, _Layout(order, None, None, heads, first, heads[:-1])
    check_filling(lengths, len(times), ids, grid)
    offsets = offsets_of(lengths)
    at = ticks + (offsets[:-1] - first)[codes]
    given = np.zeros(offsets[-1], bool)
    given[at] = True
    return grid, _Layout(order, at, given, offsets, first, heads[:-1])


def _ascending(codes: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Whether each row but the first follows the one before, in another series or at a later time."""
    return (codes[1:] > codes[:-1]) | ((codes[1:] == codes[:-1]) & (times[1:] > times[:-1]))


def _refuse_repeated(
    table: nw.DataFrame[Any], columns: Columns, codes: np.ndarray, times: np.ndarray, ids: list[Any]
) -> None:
    later = _ascending(codes, times.astype(np.int64, copy=False))
    if later.all():
        return
    row = int(np.argmin(later))
    same = int(((codes == codes[row]) & (times == times[row])).sum())
    repeated = int((~later).sum())
    if columns.id is not None:
        raise BadValue(
            f"time: {repeated} rows repeat the id and time of another, the first are {same} rows of id"
            f" {ids[codes[row]]!r} at {show_time(times[row])}; keep one row for each"
        )
    others = [name for name in table.columns if name not in (columns.time, columns.target)]
    hint = f" (columns that may say: {', '.join(map(repr, others))})" if others else ""
    raise BadValue(
        f"time: {repeated} rows repeat the time of another, the first are {same} rows at {show_time(times[row])}; if"
        f" the frame holds several series, say which column tells them apart with id={hint}; if not, keep one row for"
        " each"
    )


def _constant(layout: _Layout, ids: list[Any], names: Sequence[str], columns: np.ndarray) -> np.ndarray:
    """Static covariates (S, Q) of rows (n, Q)."""
    rows = layout.sort(columns)
    static = rows[layout.heads]
    counts = np.diff(np.append(layout.heads, len(rows)))
    for j, name in enumerate(names):
        column, mine = rows[:, j], np.repeat(static[:, j], counts)
        varies = (column != mine) & ~(np.isnan(column) & np.isnan(mine))
        if varies.any():
            who = ids[int(np.searchsorted(layout.heads, np.argmax(varies), "right")) - 1]
            raise BadValue(
                f"static: column {name!r} is not constant within id {who!r}; list it under past= or future=, or make it"
                " constant"
            )
    return static
