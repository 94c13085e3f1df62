"""The regular time axis of a data set: every time is a whole number of steps from an origin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from elman.errors import BadType, BadValue

_DAY = 86_400_000_000_000
_UNITS = (
    ("week", 7 * _DAY),
    ("day", _DAY),
    ("hour", _DAY // 24),
    ("minute", _DAY // 1440),
    ("second", 1_000_000_000),
    ("millisecond", 1_000_000),
    ("microsecond", 1000),
    ("nanosecond", 1),
)
# The mean of the Gregorian calendar, 365.2425 / 12 days.
_MONTH_SECONDS = 30.436875 * 86_400
# How far from 1970 whole months, and days from Monday to Friday, are dates in 64 bits of nanoseconds.
_FARTHEST = {"months": 3506, "weekdays": 76_240}
KINDS = ("index", "integer", "fixed", "months", "weekdays")


@dataclass(frozen=True)
class Grid:
    """A regular time axis; `Grid.infer` finds it in the times of a data set.

    Attributes
    ----------
    kind : str
        "index" (no times: rows are counted from 0), "integer", "fixed" (a constant duration), "months" (calendar
        months, quarters, years) or "weekdays" (Monday to Friday).
    step : int
        From one tick to the next: nanoseconds for "fixed", months for "months", a difference of integers for
        "integer", else 1.
    origin : int
        Where tick 0 is: nanoseconds since 1970 for "fixed", months since January 1970 for "months", days from Monday
        to Friday since 1969-12-29 for "weekdays", an integer for "integer".
    day : int
        For "months" the day of the month, 1 to 31; months that are shorter have their last day instead, so 31 are the
        ends of months.
    clock : int
        For "months" and "weekdays" the time of day in nanoseconds.

    Examples
    --------
    >>> import numpy as np
    >>> times = np.array(["2024-01-31", "2024-02-29", "2024-04-30"], "datetime64[ns]")
    >>> grid = Grid.infer(times, np.array([0, 3]))
    >>> str(grid), grid.ticks(times).tolist()
    ('1 month', [0, 1, 3])
    >>> grid.times(np.array([2])).astype("datetime64[D]")
    array(['2024-03-31'], dtype='datetime64[D]')
    """

    kind: str
    step: int = 1
    origin: int = 0
    day: int = 0
    clock: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise BadValue(f"kind: unknown grid {self.kind!r}. Known: {', '.join(KINDS)}")
        if self.step < 1:
            raise BadValue(f"step: expected at least 1, got {self.step}")

    @classmethod
    def infer(cls, times: np.ndarray, offsets: np.ndarray) -> Grid:
        """The grid whose step is the most frequent difference within series, over all series.

        Parameters
        ----------
        times : ndarray (n,), datetime64[ns] or int64
            Of all series one after the other, ascending within each.
        offsets : ndarray (S + 1,), int64
            Series i has the rows ``offsets[i]`` to ``offsets[i + 1]``.

        Raises
        ------
        ValueError
            If no series has two rows, or steps are months but the days of the month differ.
        """
        inside = np.ones(max(len(times) - 1, 0), bool)
        cuts = offsets[1:-1]
        inside[cuts[(cuts > 0) & (cuts < len(times))] - 1] = False
        differences = np.diff(times.astype(np.int64))[inside]
        if not differences.size:
            raise BadValue(
                "time: no series has two rows, so the step of time cannot be told; give at least one series with two"
                " rows or more"
            )
        step = _mode(differences)
        if times.dtype.kind != "M":
            return cls("integer", step, int(times.min()))
        clocks = times.astype(np.int64) % _DAY
        if clocks.min() == clocks.max() and step >= _DAY:
            found = _months(times, inside, step) if step >= 28 * _DAY else _weekdays(times, differences, step)
            if found is not None:
                return cls(*found, int(clocks[0]))
        return cls("fixed", step, int(times.min().astype(np.int64)))

    @property
    def seconds(self) -> float | None:
        """A step in seconds, of months on average; None where times are plain integers."""
        if self.kind == "fixed":
            return self.step / 1e9
        if self.kind == "months":
            return self.step * _MONTH_SECONDS
        return 86_400.0 if self.kind == "weekdays" else None

    @property
    def seasons(self) -> tuple[int, ...] | None:
        """Seasons that the length of a step does not tell: the week and the year of weekdays; else None."""
        return (5, 261) if self.kind == "weekdays" else None

    @property
    def dated(self) -> bool:
        """Whether times are dates, rather than integers."""
        return self.seconds is not None

    def __str__(self) -> str:
        count, unit = self.step, "step"
        if self.kind == "fixed":
            unit, size = next((unit, size) for unit, size in _UNITS if self.step % size == 0)
            count = self.step // size
        elif self.kind == "months":
            count, unit = (self.step // 12, "year") if self.step % 12 == 0 else (self.step, "month")
        elif self.kind == "weekdays":
            unit = "weekday"
        return f"{count} {unit}{'s' if count > 1 else ''}"

    def ticks(self, times: np.ndarray, label: Callable[[int], str] | None = None) -> np.ndarray:
        """Whole steps from the origin, int64, of `times` (n,), datetime64[ns] or int64.

        Parameters
        ----------
        times : ndarray (n,)
            Dates or integers, whichever the grid has.
        label : function, optional
            Words for a row in an error, such as ``"id 'a'"``.

        Raises
        ------
        TypeError
            For dates on a grid of integers, and the reverse.
        ValueError
            For a time off the grid; names the row's label and the time.
        """
        if (times.dtype.kind == "M") != self.dated:
            found, wanted = ("dates", "integers") if not self.dated else ("integers", "dates")
            raise BadType(f"time: got {found}, but the data of the fit have {wanted}; give {wanted}")
        ticks, off = self._divide(times)
        if off.any():
            row = int(np.argmax(off))
            who = f"{label(row)} has " if label is not None else ""
            raise BadValue(
                f"time: {who}{show_time(times[row])}, which is off the grid of {self} from"
                f" {self.show(int(ticks[row]))} ({int(off.sum())} such rows); drop these rows, or resample the series"
                " to a regular step"
            )
        return ticks

    def _divide(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ticks of the last points of the grid not after `times`, roughly, and where they are not `times`."""
        number = times.astype(np.int64)
        if self.kind in ("index", "integer", "fixed"):
            ticks, rest = np.divmod(number - self.origin, self.step)
            return ticks, rest != 0
        if self.kind == "weekdays":
            week, day = np.divmod(number // _DAY + 3, 7)  # 1970-01-01 was a Thursday
            return week * 5 + np.minimum(day, 4) - self.origin, (day > 4) | (number % _DAY != self.clock)
        month = times.astype("datetime64[M]").astype(np.int64)
        ticks = (month - self.origin) // self.step
        return ticks, self.times(ticks).astype(np.int64) != number

    def times(self, ticks: np.ndarray) -> np.ndarray:
        """Times of `ticks`, of any shape: datetime64[ns], or int64 where times are integers.

        Raises
        ------
        ValueError
            Beyond what 64 bits hold: for dates nanoseconds up to the year 2262.
        """
        ticks = np.asarray(ticks, np.int64)
        if ticks.size:
            self._refuse_far(ticks)
        if self.kind == "weekdays":
            week, day = np.divmod(ticks + self.origin, 5)
            return ((week * 7 + day - 3) * _DAY + self.clock).view("datetime64[ns]")
        if self.kind == "months":
            days = _days(ticks * self.step + self.origin, self.day)
            return (days * _DAY + self.clock).view("datetime64[ns]")
        number = ticks * self.step + self.origin
        return number.view("datetime64[ns]") if self.kind == "fixed" else number

    def _refuse_far(self, ticks: np.ndarray) -> None:
        numbers = [int(tick) * self.step + self.origin for tick in (ticks.min(), ticks.max())]
        if max(map(abs, numbers)) > _FARTHEST.get(self.kind, 2**63 - 1):
            what = "dates in nanoseconds, which end in April 2262" if self.dated else "integers of 64 bits"
            raise BadValue(f"time: the grid of {self} leaves the range of {what}")

    def show(self, tick: int) -> str:
        """The time of a tick in words, as short as it is exact."""
        return show_time(self.times(np.array([tick]))[0])

    def config(self) -> dict[str, Any]:
        """What `from_config` makes the same grid of; fit for JSON."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Grid:
        """The grid that `config` describes."""
        return cls(**config)


def show_time(time: Any) -> str:
    """A date or an integer in words, without a clock of zeros.

    Examples
    --------
    >>> import numpy as np
    >>> show_time(np.datetime64("2024-01-01T00:30:00.000000000"))
    '2024-01-01 00:30'
    """
    if not isinstance(time, np.datetime64):
        return str(int(time))
    if np.isnat(time):
        return "NaT"
    day, clock = str(time.astype("datetime64[ns]")).split("T")
    clock = clock.rstrip("0").rstrip(".").removesuffix(":00")
    return day if clock == "00:00" else f"{day} {clock}"


def _mode(values: np.ndarray) -> int:
    if values.min() == values.max():
        return int(values[0])
    found, counts = np.unique(values, return_counts=True)
    return int(found[np.argmax(counts)])


def _days(months: np.ndarray, day: int) -> np.ndarray:
    """Days since 1970 of day `day`, or of the last day, of months since January 1970."""
    first = months.view("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    after = (months + 1).view("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    return np.minimum(first + day, after) - 1


def _months(times: np.ndarray, inside: np.ndarray, step: int) -> tuple[str, int, int, int] | None:
    """Kind, step, origin and day of a grid of months, if the days of the month agree."""
    months = times.astype("datetime64[M]").astype(np.int64)
    days = times.astype("datetime64[D]").astype(np.int64)
    highest = int((days - _days(months, 1)).max()) + 1
    # The ends of months before their highest day: only ends of short months would be day 30, or 28.
    day = next((day for day in (31, highest) if np.array_equal(_days(months, day), days)), None)
    count = _mode(np.diff(months)[inside])
    # 28 or 31 days may be a month; so many days as no number of months has are not.
    if not 28 * count <= step // _DAY <= 31 * count:
        return None
    if day is not None:
        return "months", count, int(months.min()), day
    # Four weeks apart, or 30 days, is a grid; 30 and 31 days apart are months, of which the rows are at odds.
    if (np.diff(days)[inside] % (step // _DAY) == 0).all():
        return None
    ends = days == _days(months, 31)
    odd = int(np.argmax((days - _days(months, 1) != days[0] - _days(months[:1], 1)[0]) & ~(ends & ends[0])))
    raise BadValue(
        f"time: rows are {Grid('months', count)} apart, but the days of the month differ, as {show_time(times[0])} and"
        f" {show_time(times[odd])}; move all to the same, or all to the last, day of the month"
    )


def _weekdays(times: np.ndarray, differences: np.ndarray, step: int) -> tuple[str, int, int, int] | None:
    """Kind, step, origin and day of a grid of weekdays, if steps are days and whole weekends are missing.

    A short one needs six rows, and no other gaps.
    """
    if step != _DAY or not (differences == 3 * _DAY).any():
        return None
    week, day = np.divmod(times.astype(np.int64) // _DAY + 3, 7)
    if (day > 4).any() or (len(times) < 10 and (len(times) < 6 or (np.diff(np.unique(week * 5 + day)) > 1).any())):
        return None
    return "weekdays", 1, int((week * 5 + day).min()), 0
