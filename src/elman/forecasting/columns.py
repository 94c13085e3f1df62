"""Columns of a data frame as arrays: which is which, ids, times, numbers."""

from __future__ import annotations

import datetime
import difflib
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from elman.errors import BadType, BadValue

if TYPE_CHECKING:
    import narwhals as nw

_DAY = np.timedelta64(1, "D")


@dataclass(frozen=True)
class Columns:
    """Names of the three columns every long data frame has.

    Where a default name is not in the frame, the only column of dates is the time, the only remaining column of
    numbers is the target, and a frame without an id is one series. Any other name must be in the frame.

    Attributes
    ----------
    id : str or None
        Which series a row belongs to, strings or integers; None for one series.
    time : str
        Dates, datetimes or integers.
    target : str
        What is forecast.

    Examples
    --------
    >>> Columns(id="shop")
    Columns(id='shop', time='ds', target='y')
    """

    id: str | None = "unique_id"
    time: str = "ds"
    target: str = "y"


@dataclass(frozen=True)
class FrameSpec:
    """What a data frame was like, to build another of its kind: the library, names and types of id and time.

    Attributes
    ----------
    library : str
        "pandas", "polars", "pyarrow" or another that narwhals can build frames of.
    id : str or None
        Column of ids; None for one series without one.
    time, target : str
        The other two columns.
    zone : str or None
        Time zone of the times.
    wall : bool
        Whether the grid counts local time: all times have one time of day there, so that a day may have 23 hours.
        Otherwise the grid of times with a zone counts UTC.
    time_type : str
        "s", "ms", "us" or "ns" for datetimes of that unit, "date", "object" (dates in a column of objects), or the
        name of an integer type.
    id_type : str
        Name of the type of the ids.

    Examples
    --------
    >>> spec = FrameSpec("polars", "shop", "day", "sales", time_type="date")
    >>> FrameSpec.from_config(spec.config()) == spec
    True
    """

    library: str
    id: str | None = "unique_id"
    time: str = "ds"
    target: str = "y"
    zone: str | None = None
    wall: bool = False
    time_type: str = "ns"
    id_type: str = "String"

    def config(self) -> dict[str, Any]:
        """What `from_config` makes the same description of; fit for JSON."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> FrameSpec:
        """The description that `config` holds."""
        return cls(**config)


class Times(NamedTuple):
    """Times of rows (n,), datetime64[ns] or int64, and how the frame writes them."""

    values: np.ndarray
    type: str
    zone: str | None = None
    wall: bool = False


def is_time(series: nw.Series[Any]) -> bool:
    """Whether a column holds dates or datetimes."""
    import narwhals as nw

    if series.dtype == nw.Object:
        item = next((item for item in series.head(100).to_list() if item is not None), None)
        return isinstance(item, datetime.date)
    return series.dtype in (nw.Datetime, nw.Date) or _zoned(series) is not None


def _zoned(series: nw.Series[Any]) -> Any:
    """The type of a pandas column of times whose zone narwhals cannot tell, as America/New_York; else None."""
    import narwhals as nw

    native = getattr(series.to_native(), "dtype", None) if series.dtype == nw.Unknown else None
    return native if getattr(native, "tz", None) is not None and hasattr(native, "unit") else None


def resolve(frame: nw.DataFrame[Any], columns: Columns, listed: Sequence[str]) -> Columns:
    """The names that `columns` means in `frame`, where the columns `listed` are covariates.

    Raises
    ------
    ValueError
        If a name is not in the frame and more or less than one column may be meant; names the argument to give.
    """
    default = Columns()
    name_id = columns.id
    if name_id is not None and name_id not in frame.columns:
        if name_id != default.id:
            raise missing(frame, "id", name_id)
        name_id = None
    taken = {name_id, *listed}
    time = columns.time
    if time not in frame.columns:
        if time != default.time:
            raise missing(frame, "time", time)
        free = [name for name in frame.columns if name not in taken]
        time = _only(frame, "time", time, "dates", [name for name in free if is_time(frame[name])])
    taken.add(time)
    target = columns.target
    if target not in frame.columns:
        if target != default.target:
            raise missing(frame, "target", target)
        free = [name for name in frame.columns if name not in taken]
        target = _only(frame, "target", target, "numbers", [name for name in free if frame[name].dtype.is_numeric()])
    return Columns(name_id, time, target)


def _only(frame: nw.DataFrame[Any], argument: str, default: str, what: str, found: list[str]) -> str:
    if len(found) == 1:
        return found[0]
    count = f"{len(found)} other columns hold {what}: {', '.join(map(repr, found))}" if found else f"none holds {what}"
    raise BadValue(
        f"{argument}: there is no column {default!r}, and {count}; say which is meant with {argument}="
        f"{', or melt several series to rows of id, time and value' * (len(found) > 1)}. Columns:"
        f" {', '.join(map(repr, frame.columns))}"
    )


def missing(frame: nw.DataFrame[Any], argument: str, name: Any) -> BadValue:
    """An error for a column that is not there."""
    near = difflib.get_close_matches(str(name), map(str, frame.columns), 1, 0.5)
    hint = f", did you mean {near[0]!r}?" if near else "."
    return BadValue(f"{argument}: there is no column {name!r}{hint} Columns: {', '.join(map(repr, frame.columns))}")


def _refuse_null(argument: str, name: str, null: np.ndarray) -> None:
    if null.any():
        raise BadValue(
            f"{argument}: column {name!r} has {int(null.sum())} missing values, the first in row"
            f" {int(np.argmax(null))}; drop these rows"
        )


def read_ids(name: str, series: nw.Series[Any]) -> tuple[np.ndarray, list[Any], str]:
    """Codes (n,) of the ids by first appearance, the ids, strings or integers, and the name of their type."""
    import narwhals as nw

    kind = str(series.dtype).split("(")[0]
    # Before the cast, which makes strings of missing values in some versions of pandas.
    _refuse_null("id", name, series.is_null().to_numpy())
    if series.dtype in (nw.Categorical, nw.Enum):
        series = series.cast(nw.String)
    elif not (series.dtype in (nw.String, nw.Object) or series.dtype.is_integer()):
        raise BadType(f"id: column {name!r} is of type {series.dtype}; cast it to strings or integers")
    if series.dtype == nw.Object:
        heads, labels = np.arange(len(series)), series.to_list()
        odd = next((label for label in labels if not isinstance(label, (str, int, np.integer))), None)
        if odd is not None:
            raise BadType(f"id: column {name!r} holds {type(odd).__name__} {odd!r}; cast it to strings or integers")
        labels = [label if isinstance(label, str) else int(label) for label in labels]
    else:
        # Only where the id changes is it looked up: 1,000 times, not a million, in a frame sorted by id.
        change = np.array((series != series.shift(1)).fill_null(True).to_numpy(), bool)
        change[0] = True
        heads = np.flatnonzero(change)
        labels = series.to_list() if len(heads) == len(series) else series[heads.tolist()].to_list()
    table: dict[Any, int] = {}
    codes = np.array([table.setdefault(label, len(table)) for label in labels], np.int64)
    return np.repeat(codes, np.diff(np.append(heads, len(series)))), list(table), kind


def check_ids(name: str | None, ids: Sequence[Any], known: Sequence[Any]) -> None:
    """TypeError unless new ids are strings or integers as the `known` ones are: 1 and "1" would be two series."""
    strings = {isinstance(label, str) for label in known}
    odd = next((label for label in ids if isinstance(label, str) not in strings), None)
    if odd is not None:
        got, wanted = ("strings", "integers") if isinstance(odd, str) else ("integers", "strings")
        raise BadType(f"id: column {name!r} holds {got}, such as {odd!r}, and that of the fit {wanted}; cast it")


def read_times(name: str, series: nw.Series[Any], spec: FrameSpec | None = None) -> Times:
    """Times of the rows, with a zone in UTC or, where all have one local time of day, in local time.

    `spec` says how times of the fit were read; these are read likewise.
    """
    import narwhals as nw

    if series.dtype == nw.String:
        raise BadType(
            f"time: column {name!r} holds strings such as {series[0]!r}; parse them, as with pandas.to_datetime"
        )
    dates = is_time(series)
    if not (dates or series.dtype.is_integer()):
        raise BadType(f"time: column {name!r} is of type {series.dtype}; cast it to datetimes, dates or integers")
    _refuse_null("time", name, series.is_null().to_numpy())
    if spec is not None and dates == spec.time_type.endswith(("Int8", "Int16", "Int32", "Int64")):
        raise BadType(
            f"time: column {name!r} is of type {series.dtype}, in the fit it was {spec.time_type}; give the same"
        )
    if not dates:
        values = series.to_numpy()
        if values.dtype.kind == "u" and values.max() > np.iinfo(np.int64).max:
            raise BadValue(f"time: column {name!r} holds {values.max()}, which is beyond 64-bit integers")
        return Times(values.astype(np.int64), str(series.dtype))
    if series.dtype == nw.Object:
        items = series.to_list()
        odd = next((v for v in items if not isinstance(v, datetime.date) or isinstance(v, datetime.datetime)), None)
        if odd is not None:
            raise BadType(
                f"time: column {name!r} holds objects such as {odd!r}; convert it, as with pandas.to_datetime, with"
                " utc=True for several time zones"
            )
        values = np.array(items, "datetime64[D]")
        return Times(_nanoseconds(name, values), "object")
    if series.dtype == nw.Date:
        return Times(_nanoseconds(name, series.to_numpy()), "date")
    return _datetimes(name, series, spec)


def _datetimes(name: str, series: nw.Series[Any], spec: FrameSpec | None) -> Times:
    import narwhals as nw

    dtype: Any = series.dtype
    odd = _zoned(series)
    if odd is None:
        zone, unit = dtype.time_zone, dtype.time_unit
    else:
        zone, unit = str(odd.tz), odd.unit
        series = nw.from_native(series.to_native().dt.tz_convert("UTC"), series_only=True)
    if spec is not None and (zone is None) != (spec.zone is None):
        wanted = f"in the fit they had the zone {spec.zone}" if spec.zone else "in the fit they had none"
        raise BadValue(f"time: column {name!r} has the time zone {zone}, {wanted}; give times of the same kind")
    if zone is None:
        return Times(_nanoseconds(name, series.to_numpy()), unit)
    utc = _nanoseconds(name, series.dt.convert_time_zone("UTC").dt.replace_time_zone(None).to_numpy())
    if spec is not None and not spec.wall:
        return Times(utc, unit, zone)
    into = zone if spec is None or spec.zone is None else spec.zone
    rules = zone_rules(into)
    if isinstance(rules, datetime.timezone):  # a fixed offset, which Arrow does not find in its tables
        wall = utc + np.timedelta64(rules.utcoffset(None), "ns")
    else:
        series = series.dt.convert_time_zone(into)
        wall = _nanoseconds(name, series.dt.replace_time_zone(None).to_numpy())
    if spec is None:
        clocks = wall.astype(np.int64) % int(_DAY / np.timedelta64(1, "ns"))
        # Days between local midnights are not of equal length; hours are, in UTC.
        if clocks.min() != clocks.max():
            return Times(utc, unit, zone)
    return Times(wall, unit, zone, True)


def zone_rules(name: str) -> datetime.tzinfo:
    """The time zone of a name, or of a fixed offset such as "+02:00"."""
    fixed = re.fullmatch(r"(?:UTC)?([+-])(\d\d):?(\d\d)", name)
    if fixed is None:
        import zoneinfo  # it loads sysconfig, which importing elman need not

        return zoneinfo.ZoneInfo(name)
    sign, hours, minutes = fixed.groups()
    offset = datetime.timedelta(hours=int(hours), minutes=int(minutes))
    return datetime.timezone(-offset if sign == "-" else offset)


def _nanoseconds(name: str, times: np.ndarray) -> np.ndarray:
    low, high = np.datetime64("1678-01-01"), np.datetime64("2262-01-01")
    if times.min() < low or times.max() >= high:
        odd = times.min() if times.min() < low else times.max()
        raise BadValue(f"time: column {name!r} has {odd}, expected years from 1678 to 2261")
    return times.astype("datetime64[ns]", copy=False)


def read_numbers(argument: str, name: str, series: nw.Series[Any]) -> np.ndarray | list[Any]:
    """A column as an array of floats (n,), NaN where missing; or a list of labels, None where missing."""
    import narwhals as nw

    if series.dtype == nw.Float32:
        return series.to_numpy()
    if series.dtype.is_numeric() or series.dtype == nw.Boolean:
        return series.cast(nw.Float64).to_numpy()
    if series.dtype in (nw.String, nw.Categorical, nw.Enum, nw.Object):
        null = series.is_null().to_list()
        labels = series if series.dtype == nw.Object else series.cast(nw.String)
        return [None if lost or item != item else item for lost, item in zip(null, labels.to_list(), strict=True)]
    raise BadType(
        f"{argument}: column {name!r} is of type {series.dtype}; give a column of numbers, of booleans or of strings"
    )


def read_target(name: str, series: nw.Series[Any]) -> np.ndarray:
    """The target as float32 (n,), a view where it is float32; NaN where missing."""
    values = read_numbers("target", name, series)
    if isinstance(values, list):
        wrong = [i for i, v in enumerate(values) if not (v is None or isinstance(v, (int, float, np.number)))]
        if wrong:
            item = values[wrong[0]]
            raise BadType(
                f"target: column {name!r} holds {type(item).__name__} {item!r} in row {wrong[0]}, expected numbers;"
                " convert the column, or name another with target="
            )
        values = np.array(values, np.float64)
    with np.errstate(over="ignore"):
        return values.astype(np.float32, copy=False)
