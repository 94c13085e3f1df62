"""Covariates that are known in advance, after the end of each series, from data frames."""

from __future__ import annotations

from typing import Any

import numpy as np

from elman.errors import BadValue
from elman.forecasting.columns import Columns, FrameSpec, check_ids, missing, read_ids, read_times
from elman.forecasting.encode import stack
from elman.forecasting.panel import Panel, check_future
from elman.forecasting.tables import read_columns, read_frame


def future_frame(frame: Any, spec: FrameSpec, panel: Panel, horizon: int) -> np.ndarray:
    """Covariates known in advance over the `horizon` steps after the end of each series.

    Parameters
    ----------
    frame : data frame
        One row for each id and future time, in any order; rows of other ids and times are ignored.
    spec : FrameSpec
        What the frame of the fit was like.
    panel : Panel
        The series to forecast.
    horizon : int
        Steps h.

    Returns
    -------
    ndarray (S, h, K), float32
        In the order of ``panel.known_names``, categories as codes.

    Raises
    ------
    TypeError, ValueError
        For a missing column, and for missing, repeated, or infinite values: names id, column and the first date.

    Examples
    --------
    >>> import pytest
    >>> from elman.forecasting.tables import from_frame
    >>> pl = pytest.importorskip("polars")
    >>> frame = pl.DataFrame({"ds": [1, 2, 3], "y": [5.0, 6.0, 5.0], "holiday": [0, 1, 0]})
    >>> panel, spec, _ = from_frame(frame, future=["holiday"])
    >>> future_frame(pl.DataFrame({"ds": [4, 5], "holiday": [1, 0]}), spec, panel, 2).ravel()
    array([1., 0.], dtype=float32)
    """
    table = read_frame(frame, Columns(spec.id, spec.time))
    for argument, name in (("id", spec.id), ("time", spec.time)):
        if name is not None and name not in table.columns:
            raise BadValue(f"future: {missing(table, argument, name)}")
    n = len(table)
    codes = np.zeros(n, np.int64)
    if n and spec.id is not None:
        codes, ids, _ = read_ids(spec.id, table[spec.id])
        check_ids(spec.id, ids, panel.ids)
        place = {name: i for i, name in enumerate(panel.ids)}
        codes = np.array([place.get(name, -1) for name in ids], np.int64)[codes]
    times = read_times(spec.time, table[spec.time], spec).values if n else np.zeros(0, np.int64)
    rows = np.flatnonzero(codes >= 0)
    if n:
        low, high = panel.grid.times(panel.ends), panel.grid.times(panel.ends + horizon - 1)
        rows = rows[(times[rows] >= low[codes[rows]]) & (times[rows] <= high[codes[rows]])]
    codes, times = codes[rows], times[rows]
    ticks = panel.grid.ticks(times, lambda row: f"future: id {panel.ids[codes[row]]!r}") if len(rows) else codes
    at = codes * horizon + ticks - panel.ends[codes]
    _refuse_incomplete(np.bincount(at, minlength=len(panel) * horizon), panel, horizon)
    columns = read_columns(table, "future", panel.known_names)
    known, _ = stack("future", {name: _chosen(column, rows) for name, column in columns.items()}, len(rows),
                     panel.categories)  # fmt: skip
    out = np.empty((len(panel) * horizon, len(panel.known_names)), np.float32)
    out[at] = known
    return check_future(out.reshape(len(panel), horizon, -1), panel)


def _chosen(column: Any, rows: np.ndarray) -> Any:
    return column[rows] if isinstance(column, np.ndarray) else [column[row] for row in rows]


def _refuse_incomplete(counts: np.ndarray, panel: Panel, horizon: int) -> None:
    wrong = np.flatnonzero(counts != 1)
    if not wrong.size:
        return
    series, step = divmod(int(wrong[0]), horizon)
    when = panel.grid.show(int(panel.ends[series]) + step)
    if counts[wrong[0]]:
        raise BadValue(
            f"future: {counts[wrong[0]]} rows of id {panel.ids[series]!r} at {when}; keep one row for each id and time"
        )
    raise BadValue(
        f"future: {int((counts == 0).sum())} rows are missing for column"
        f"{'s' * (len(panel.known_names) > 1)} {', '.join(map(repr, panel.known_names))}, the first of id"
        f" {panel.ids[series]!r} at {when}; give the {horizon} steps after the end of each series"
    )
