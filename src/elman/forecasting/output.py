"""Forecasts as a data frame of the kind that the data came in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from elman.errors import BadValue
from elman.forecasting.columns import FrameSpec, zone_rules
from elman.forecasting.grid import Grid

if TYPE_CHECKING:
    import narwhals as nw


def to_frame(
    spec: FrameSpec,
    grid: Grid,
    ids: Sequence[Any],
    ticks: np.ndarray,
    columns: Mapping[str, np.ndarray],
    cutoff: np.ndarray | None = None,
) -> Any:
    """A long data frame of the library, the names and the types of `spec`.

    Parameters
    ----------
    spec : FrameSpec
        What the frame is to be like.
    grid : Grid
        The time axis.
    ids : sequence of S str or int
        One label per series.
    ticks : ndarray (S, ...), int64
        The time of each row; the frame has ``ticks.size`` rows in this order, as (S, h) or (S, samples, h).
    columns : mapping of str to ndarray
        Columns after the time, each of a shape that broadcasts to that of `ticks`.
    cutoff : ndarray, optional
        Ticks of a column "cutoff" after the time, of a shape that broadcasts to that of `ticks`.

    Returns
    -------
    data frame
        Columns: id (if there is one), time, cutoff (if given), then `columns`.

    Raises
    ------
    ValueError
        If a column of `columns` has the name of the id or the time.
    ModuleNotFoundError
        If the library is not installed.

    Examples
    --------
    >>> import numpy as np, pytest
    >>> pl = pytest.importorskip("polars")
    >>> spec = FrameSpec("polars", time_type="Int64")
    >>> to_frame(spec, Grid("integer"), ["a", "b"], np.array([[3, 4], [7, 8]]), {"y_hat": np.ones((2, 2))}).rows()
    [('a', 3, 1.0), ('a', 4, 1.0), ('b', 7, 1.0), ('b', 8, 1.0)]
    """
    ticks = np.asarray(ticks, np.int64)
    content: dict[str, Any] = {}
    if spec.id is not None:
        rows = np.repeat(np.arange(len(ids)), ticks[0].size if len(ids) else 0)
        content[spec.id] = _ids(spec, np.array(ids, object)[rows].tolist())
    content[spec.time] = _times(spec, spec.time, grid.times(ticks))
    if cutoff is not None:
        if "cutoff" in content:
            raise BadValue("columns: the frame already has a column 'cutoff'; rename that of the data")
        content["cutoff"] = _times(spec, "cutoff", grid.times(np.broadcast_to(cutoff, ticks.shape)))
    for name, array in columns.items():
        if name in content:
            raise BadValue(f"columns: the frame already has a column {name!r}; rename that of the data")
        flat = np.ascontiguousarray(np.broadcast_to(array, ticks.shape)).reshape(-1)
        content[name] = _new(spec, name, flat)
    # Not from_dict, which drops the time zone and the categories of pandas.
    return content[spec.time].to_frame().select(*content.values()).to_native()


def _new(spec: FrameSpec, name: str, values: Any, dtype: Any = None) -> nw.Series[Any]:
    import narwhals as nw

    library: Any = spec.library
    return nw.new_series(name, values, dtype, backend=library)


def _ids(spec: FrameSpec, labels: list[Any]) -> nw.Series[Any]:
    import narwhals as nw

    # An Enum names its labels, which new ids may not be among.
    kind = "Categorical" if spec.id_type == "Enum" else spec.id_type
    if kind == "Object":
        return _new(spec, str(spec.id), labels)
    dtype = getattr(nw, kind)
    if dtype == nw.Categorical:
        return _new(spec, str(spec.id), labels, nw.String).cast(dtype)
    return _new(spec, str(spec.id), labels, dtype)


def _times(spec: FrameSpec, name: str, times: np.ndarray) -> nw.Series[Any]:
    import narwhals as nw

    times = times.reshape(-1)
    if times.dtype.kind != "M":
        # Forecasts of small integers may need larger ones.
        limits = np.iinfo(spec.time_type.lower())
        fits = not times.size or (times.min() >= limits.min and times.max() <= limits.max)
        return _new(spec, name, times, getattr(nw, spec.time_type if fits else "Int64"))
    if spec.time_type == "object":
        return _new(spec, name, times.astype("datetime64[D]").tolist())
    if spec.time_type == "date":
        return _new(spec, name, times.astype("datetime64[D]").tolist(), nw.Date)
    if spec.wall:
        times = _utc(times, spec.zone)
    times = times.astype(f"datetime64[{spec.time_type}]")
    unit: Any = spec.time_type
    series = _new(spec, name, times).cast(nw.Datetime(unit))
    if spec.zone is not None:
        series = series.dt.replace_time_zone("UTC").dt.convert_time_zone(spec.zone)
    return series


def _utc(local: np.ndarray, zone: str | None) -> np.ndarray:
    """UTC of local times (n,), datetime64[ns]; of two the earlier, and of none that of the clock before the change."""
    rules = zone_rules(zone or "UTC")
    unique, places = np.unique(local, return_inverse=True)
    seconds = [
        time.replace(tzinfo=rules).utcoffset().total_seconds()
        for time in unique.astype("datetime64[us]").tolist()
    ]  # fmt: skip
    return local - np.array(seconds, np.int64).astype("timedelta64[s]")[places]
