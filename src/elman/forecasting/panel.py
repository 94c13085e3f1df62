"""Many series on one regular time axis, one after the other in flat arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from elman.errors import BadValue
from elman.forecasting.grid import Grid

# Rows that filling gaps may make: below this number always, above it 50 for each given one.
_FREE_ROWS = 10_000_000
_FILL = 50


@dataclass(frozen=True, eq=False)
class Panel:
    """S series of unequal lengths on one grid, n rows in all; rows of a series follow each other without gaps.

    Arrays may be views of the user's data, and read-only.

    Attributes
    ----------
    values : ndarray (n,), float32
        The target; NaN where it is missing.
    offsets : ndarray (S + 1,), int64
        Series i has the rows ``offsets[i]`` to ``offsets[i + 1]``.
    ids : list of str or int
        One label per series.
    first : ndarray (S,), int64
        The tick of the first row of each series.
    grid : Grid
        The time axis.
    past : ndarray (n, P), float32
        Covariates known up to the present; NaN where missing.
    known : ndarray (n, K), float32
        Covariates known in advance, over the rows of the history; complete.
    static : ndarray (S, Q), float32
        Covariates of the series; complete.
    past_names, known_names, static_names : tuple of str
        Names of these columns.
    categories : dict of str to tuple of str
        Labels of each categorical column, whose numbers are codes: the index of the label, or the number of labels for
        a label that is missing or was unknown when the categories were learned.
    channels : bool
        Whether the series are the channels of one multivariate series: equal lengths and times.
    target : str
        What messages call the target.
    given : ndarray (n,), bool, or None
        False where a row was not in the data and fills a gap; None where none does.

    Examples
    --------
    >>> from elman.forecasting.arrays import from_arrays
    >>> panel = from_arrays({"a": [1.0, 2.0, 3.0], "b": [5.0]})
    >>> len(panel), panel.ids, panel.lengths.tolist(), panel.series(0).tolist()
    (2, ['a', 'b'], [3, 1], [1.0, 2.0, 3.0])
    """

    values: np.ndarray
    offsets: np.ndarray
    ids: list[Any]
    first: np.ndarray
    grid: Grid
    past: np.ndarray
    known: np.ndarray
    static: np.ndarray
    past_names: tuple[str, ...] = ()
    known_names: tuple[str, ...] = ()
    static_names: tuple[str, ...] = ()
    categories: dict[str, tuple[str, ...]] = field(default_factory=dict)
    channels: bool = False
    target: str = "y"
    given: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> np.ndarray:
        """Rows of each series (S,), int64."""
        return np.diff(self.offsets)

    @property
    def ends(self) -> np.ndarray:
        """The tick after the last row of each series (S,), int64: the first one to forecast."""
        return self.first + self.lengths

    def series(self, i: int) -> np.ndarray:
        """The target of series `i`, a view."""
        return self.values[self.offsets[i] : self.offsets[i + 1]]

    def where(self, row: int) -> tuple[Any, str]:
        """Id, and time in words, of a row."""
        i = int(np.searchsorted(self.offsets, row, "right")) - 1
        return self.ids[i], self.grid.show(int(self.first[i] + row - self.offsets[i]))

    def take(self, indices: Any) -> Panel:
        """The series `indices` (m,), integers or a mask, in that order."""
        chosen = np.arange(len(self))[np.asarray(indices)].reshape(-1)
        cut = self._rows(self.offsets[chosen], self.lengths[chosen])
        return replace(
            cut, ids=[self.ids[i] for i in chosen], first=self.first[chosen], static=self.static[chosen]
        )  # fmt: skip

    def until(self, ticks: Any) -> Panel:
        """Each series up to, not including, the tick of `ticks` (S,) or (): its past at a cutoff, perhaps empty."""
        lengths = np.clip(np.asarray(ticks, np.int64) - self.first, 0, self.lengths)
        return self._rows(self.offsets[:-1], lengths)

    def last(self, rows: int) -> Panel:
        """The last `rows` rows of each series."""
        lengths = np.minimum(self.lengths, rows)
        return replace(self._rows(self.offsets[1:] - lengths, lengths), first=self.ends - lengths)

    def before(self, series: np.ndarray, origins: np.ndarray) -> Panel:
        """For every window, a series of the rows before its origin."""
        return replace(
            self._rows(self.offsets[series], origins), ids=[self.ids[i] for i in series], first=self.first[series],
            static=self.static[series],
        )  # fmt: skip

    def _rows(self, starts: np.ndarray, lengths: np.ndarray) -> Panel:
        offsets = offsets_of(lengths)
        rows = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        return replace(
            self, values=self.values[rows], past=self.past[rows], known=self.known[rows], offsets=offsets,
            given=None if self.given is None else self.given[rows],
        )  # fmt: skip

    def append(self, other: Panel) -> Panel:
        """The series of both: rows of `other` follow, or overwrite those of the same id and tick.

        Gaps between the rows of a series become rows whose target and past covariates are missing and whose known ones
        are those of the row before. Ids that are new are added. Where there are no times (a grid of kind "index"),
        rows of `other` follow the last ones of their id.

        Raises
        ------
        ValueError
            If the grids, the covariates or their categories differ, or a gap is far longer than the data.
        """
        self._match(other)
        place = {name: i for i, name in enumerate(self.ids)}
        ids = self.ids + [name for name in other.ids if name not in place]
        place = {name: i for i, name in enumerate(ids)}
        code = np.array([place[name] for name in other.ids], np.int64)
        first = np.concatenate([self.first, np.zeros(len(ids) - len(self), np.int64)])
        begin = np.array(other.first)
        if self.grid.kind == "index":
            known = code < len(self)
            begin[known] += self.ends[code[known]]
        return _merged(self, other, ids, code, first, begin)

    def _match(self, other: Panel) -> None:
        for what, mine, new in (
            ("grid", self.grid, other.grid), ("past", self.past_names, other.past_names),
            ("future", self.known_names, other.known_names), ("static", self.static_names, other.static_names),
            ("categories", self.categories, other.categories), ("multivariate", self.channels, other.channels),
        ):  # fmt: skip
            if mine != new:
                raise BadValue(
                    f"{what}: the new rows have {new!r}, the data of the fit have {mine!r}; give rows of the same kind"
                )
        if self.channels and self.ids != other.ids:
            raise BadValue(f"y: the new rows have the channels {other.ids}, the data of the fit have {self.ids}")

    def check(self) -> Panel:
        """The panel itself.

        Raises
        ------
        ValueError
            For infinite values anywhere, and for missing ones in known and static covariates; names id, column and
            date.
        """
        self._refuse(self.target, self.values, np.isinf, "infinite, or too large for float32")
        for argument, names, array in (("past", self.past_names, self.past), ("future", self.known_names, self.known)):
            for j, name in enumerate(names):
                self._refuse(
                    f"{argument}: column {name!r}", array[:, j], np.isinf, "infinite, or too large for float32"
                )
                if argument == "future":
                    self._refuse(f"{argument}: column {name!r}", array[:, j], np.isnan, "missing")
        bad = np.argwhere(~np.isfinite(self.static))
        if bad.size:
            i, j = bad[0]
            raise BadValue(
                f"static: column {self.static_names[j]!r} of id {self.ids[i]!r} is"
                f" {'missing' if np.isnan(self.static[i, j]) else 'infinite'}; give a finite number"
            )
        return self

    def _refuse(self, column: str, values: np.ndarray, test: np.ufunc, word: str) -> None:
        bad = test(values)
        if not bad.any():
            return
        who, when = self.where(int(np.argmax(bad)))
        first = f"the first of id {who!r} at {when}"
        action = "write nan where a value is missing"
        if word == "missing":
            action = "fill it, or list the column under past="
        raise BadValue(f"{column}: {int(bad.sum())} of {len(values)} values are {word}, {first}; {action}")


def check_future(known: np.ndarray, panel: Panel) -> np.ndarray:
    """`known` (S, h, K), covariates after the end of each series; ValueError if any is missing or infinite."""
    bad = np.argwhere(~np.isfinite(known))
    if bad.size:
        i, step, j = bad[0]
        word = "missing" if np.isnan(known[i, step, j]) else "infinite"
        raise BadValue(
            f"future: column {panel.known_names[j]!r}: {len(bad)} values are missing or infinite, the first ({word}) of"
            f" id {panel.ids[i]!r} at {panel.grid.show(int(panel.ends[i]) + int(step))}; fill it"
        )
    return known


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """Cumulative sums of `lengths` (S,), with a leading 0 (S + 1,), int64."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def check_filling(lengths: np.ndarray, rows: int, ids: Sequence[Any], grid: Grid) -> None:
    """ValueError if filling the gaps would make far more rows than there are: a wrong date, or a wrong step."""
    total = int(lengths.astype(np.float64).sum())
    if total > max(_FREE_ROWS, _FILL * rows):
        worst = int(np.argmax(lengths))
        raise BadValue(
            f"time: filling the gaps would make {total:,} rows of {rows:,}, most of them in id {ids[worst]!r}, which"
            f" spans {int(lengths[worst]):,} steps of {grid}; correct its times, or resample the series to a longer"
            " step"
        )


def fill_known(known: np.ndarray, given: np.ndarray) -> None:
    """Copy to each row of `known` (n, K) that is not `given` (n,) the last given row before it, in place."""
    source = np.where(given, np.arange(len(given)), 0)
    np.maximum.accumulate(source, out=source)
    known[...] = known[source]


def _merged(
    old: Panel, new: Panel, ids: list[Any], code: np.ndarray, first: np.ndarray, begin: np.ndarray
) -> Panel:  # fmt: skip
    """`old` with the series of `new`, which have the places `code` in `ids` and begin at the ticks `begin`."""
    # Empty series have no place in time.
    was, got = old.lengths > 0, new.lengths > 0
    big = np.iinfo(np.int64).max
    low, high = np.full(len(ids), big), np.full(len(ids), -big)
    low[: len(old)][was], high[: len(old)][was] = old.first[was], old.ends[was]
    np.minimum.at(low, code[got], begin[got])
    np.maximum.at(high, code[got], (begin + new.lengths)[got])
    used = low < high
    first[used] = low[used]
    lengths = np.where(used, high - np.where(used, low, high), 0)
    check_filling(lengths, len(old.values) + len(new.values), ids, old.grid)
    offsets = offsets_of(lengths)
    n = int(offsets[-1])
    values = np.full(n, np.nan, np.float32)
    past = np.full((n, old.past.shape[1]), np.nan, np.float32)
    for j, name in enumerate(old.past_names):
        if name in old.categories:
            past[:, j] = len(old.categories[name])
    known = np.zeros((n, old.known.shape[1]), np.float32)
    given = np.zeros(n, bool)
    for part, series, start in ((old, np.arange(len(old)), old.first), (new, code, begin)):
        at = np.arange(len(part.values)) + np.repeat(
            offsets[series] + start - first[series] - part.offsets[:-1], part.lengths
        )
        # Rows that fill gaps were made from nothing: they overwrite nothing.
        rows = slice(None) if part.given is None else part.given
        at = at[rows]
        values[at], past[at], known[at], given[at] = part.values[rows], part.past[rows], part.known[rows], True
    fill_known(known, given)
    static = np.zeros((len(ids), old.static.shape[1]), np.float32)
    static[: len(old)] = old.static
    static[code] = new.static
    return replace(
        old, values=values, offsets=offsets, ids=ids, first=first, past=past, known=known, static=static,
        given=None if given.all() else given,
    )  # fmt: skip
