"""What a model reads: the columns of its windows, and the tables of a panel that they are filled from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from elman.forecasting.panel import Panel
from elman.forecasting.seasons import calendar as calendar_columns
from elman.forecasting.transform import Transform
from elman.kernels import windows as kernel
from elman.threads import usable_threads

SCALES = {
    "mean-abs": kernel.MEAN_ABS,
    "standard": kernel.STANDARD,
    "revin": kernel.STANDARD,
    "last-value": kernel.LAST,
    "counts": kernel.COUNTS,
    "series": kernel.FIXED,
    "global": kernel.FIXED,
    "none": kernel.FIXED,
}
"""Kinds of scaling by name; "counts" is what losses for counts use."""

# A window costs about 10 ns per row and column; a parallel launch is worth it from some 100 us on.
_PARALLEL_SIZE = 20_000


class Covariate(NamedTuple):
    """A covariate's column: standardised with mean and deviation, or the codes of `categories` labels."""

    name: str
    mean: float = 0.0
    deviation: float = 1.0
    categories: int = 0


Places = dict[Any, tuple[float, float]]
"""Shift and scale of series by id."""


class Column(NamedTuple):
    """A column of x: what it holds, and how many categories its codes have (0: it is a number)."""

    name: str
    role: str
    categories: int = 0


@dataclass(frozen=True)
class Layout:
    """Everything that decides which numbers a model reads; it is saved with the model.

    Attributes
    ----------
    lookback, horizon : int
        L and H.
    stepwise : bool
        One step after another, as `elman.kernels.windows` says.
    scale : str
        A name in `SCALES`.
    lags : tuple of int
        Lags that are columns.
    seasons : tuple of int
        Seasons of the naive forecast that outputs are added to, longest first; none for no such base.
    calendar : tuple of str
        Names of the calendar's columns.
    log_scale : bool
        Whether the logarithm of a window's scale is a column.
    past, known, static : tuple of Covariate
    shift, deviation : float
        Mean and standard deviation of all training values, which scale where a series has none of its own.
    """

    lookback: int
    horizon: int
    stepwise: bool
    scale: str
    lags: tuple[int, ...]
    seasons: tuple[int, ...]
    calendar: tuple[str, ...]
    log_scale: bool
    past: tuple[Covariate, ...]
    known: tuple[Covariate, ...]
    static: tuple[Covariate, ...]
    shift: float
    deviation: float

    @property
    def columns(self) -> list[Column]:
        """The columns of x, in their order."""

        def numbered(role: str, given: Sequence[Covariate]) -> list[Column]:
            return [Column(c.name, role, c.categories) for c in given]

        return [
            Column("value", "value"),
            Column("observed", "value"),
            *(Column(f"lag {lag}", "lag") for lag in self.lags),
            *numbered("past", self.past),
            *(Column(f"{c.name} observed", "past") for c in self.past),
            *(Column(name, "known") for name in self.calendar),
            *numbered("known", self.known),
            *numbered("static", self.static),
            *([Column("log scale", "static")] if self.log_scale else []),
        ]

    def config(self) -> dict[str, Any]:
        """JSON values; `from_config` reads them."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Layout:
        """The layout that `config` described."""
        tuples = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
        covariates = {k: tuple(Covariate(*c) for c in tuples[k]) for k in ("past", "known", "static")}
        return cls(**{**tuples, **covariates})


class Gathered(NamedTuple):
    """Some windows: what the model reads, its targets less their base, and how to undo the scaling."""

    x: np.ndarray
    """(b, L + H, F), or (b, L, F)."""
    y: np.ndarray
    """(b, rows), scaled, less the base; 0 where it is not observed."""
    w: np.ndarray
    """(b, rows): 1 where a target is observed, else 0."""
    base: np.ndarray
    """(b, rows): the naive forecast, scaled."""
    place: np.ndarray
    """(b, 2) in float64: shift and scale of each window."""
    mask: np.ndarray
    """Bool (b, L + H) or (b, L): False in the padding."""


def describe(names: Sequence[str], table: np.ndarray, categories: dict[str, tuple[Any, ...]]) -> tuple[Covariate, ...]:
    """Covariates of the columns of a table, NaN left out of their mean and deviation."""
    found = []
    for name, column in zip(names, table.T, strict=True):
        if name in categories:
            found.append(Covariate(name, categories=len(categories[name]) + 1))  # one more for unseen ones
            continue
        seen = column[np.isfinite(column)].astype(np.float64)
        deviation = float(seen.std()) if seen.size else 0.0
        found.append(Covariate(name, float(seen.mean()) if seen.size else 0.0, deviation if deviation > 0 else 1.0))
    return tuple(found)


def standardised(table: np.ndarray, covariates: Sequence[Covariate]) -> np.ndarray:
    """The columns of a table by their covariates' mean and deviation; codes stay as they are."""
    mean = np.array([c.mean for c in covariates], np.float64)
    deviation = np.array([c.deviation for c in covariates], np.float64)
    scaled = np.clip((table - mean) / deviation, -kernel.MOST, kernel.MOST)
    return np.ascontiguousarray(scaled, np.float32).reshape(len(table), len(covariates))


class Source:
    """A panel ready to be cut into windows of a layout.

    Parameters
    ----------
    layout : Layout
    panel : Panel
    transform : Transform
    future : ndarray of float32, (S, H, K), optional
        Known covariates behind the end of each series.
    places : dict of id to (float, float), optional
        Shift and scale of the series trained on; others have those of their values.
    """

    def __init__(
        self,
        layout: Layout,
        panel: Panel,
        transform: Transform,
        future: np.ndarray | None = None,
        places: Places | None = None,
    ) -> None:
        self.layout, self.panel, self.transform = layout, panel, transform
        self.offsets, self.lengths = panel.offsets, panel.lengths
        self.values, self._components = transform.forward(panel)
        self.fixed = self._fixed(places or {})
        self._past = standardised(panel.past, layout.past)
        self._static = standardised(panel.static, layout.static)
        self._known, self._known_at = self._extended(future)
        self._calendar, self._calendar_at = self._dates()
        self._lags = np.array(layout.lags, np.int64)
        self._seasons = np.array(layout.seasons, np.int64)
        self._width = len(layout.columns)

    def _fixed(self, places: Places) -> np.ndarray:
        """Shift and scale of every series (S, 2): its own, those of the training data, or none."""
        scale = self.layout.scale
        fixed = np.empty((len(self.panel), 2))
        fixed[:] = (0.0, 1.0) if scale == "none" else (self.layout.shift, self.layout.deviation)
        if scale in ("series", "last-value"):
            for i, label in enumerate(self.panel.ids):
                a, b = self.offsets[i : i + 2]
                seen = self.values[a:b][~np.isnan(self.values[a:b])].astype(np.float64)
                if label in places:
                    fixed[i] = places[label]
                elif seen.size > 1 and seen.std() > 0:
                    fixed[i] = seen.mean(), seen.std()
        return fixed

    def _extended(self, future: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Known covariates of every series with H rows more, and where each series' rows begin."""
        horizon, known = self.layout.horizon, self.panel.known
        starts = self.offsets[:-1] + horizon * np.arange(len(self.panel))
        if not self.layout.known:
            return np.empty((0, 0), np.float32), starts
        table = np.zeros((len(known) + horizon * len(self.panel), known.shape[1]), np.float32)
        rows = np.arange(len(known)) + horizon * np.repeat(np.arange(len(self.panel)), self.lengths)
        table[rows] = standardised(known, self.layout.known)
        if future is not None:
            behind = (starts + self.lengths)[:, None] + np.arange(horizon)
            table[behind.ravel()] = standardised(future.reshape(-1, known.shape[1]), self.layout.known)
        return table, starts

    def _dates(self) -> tuple[np.ndarray, np.ndarray]:
        """The calendar of all times of the series with H more, and the row of each series' begin."""
        start, horizon = self.panel.first.min(), self.layout.horizon
        at = self.panel.first - start
        if not self.layout.calendar:
            return np.empty((0, 0), np.float32), at
        count, rows = int((at + self.lengths).max()) + horizon, self.lengths + horizon
        if rows.sum() < count:  # far apart: each series has its own part of the table
            at = np.cumsum(rows) - rows
            ticks = np.arange(rows.sum()) + np.repeat(self.panel.first - at, rows)
        else:
            ticks = start + np.arange(count)
        grid = self.panel.grid
        names, table = calendar_columns(grid.times(ticks), grid.seconds)
        return np.ascontiguousarray(table[:, [names.index(n) for n in self.layout.calendar]]), at

    def gather(self, series: np.ndarray, origins: np.ndarray, *, future: bool = True) -> Gathered:
        """The windows with these series and origins; x and mask end at the origin without `future`."""
        layout = self.layout
        n, rows = len(series), layout.lookback + layout.horizon * future
        back = layout.lookback if layout.stepwise else 0
        targets = back + layout.horizon
        x = np.empty((n, rows, self._width), np.float32)
        y, w, base = (np.empty((n, targets), np.float32) for _ in range(3))
        place, mask = np.empty((n, 2)), np.empty((n, rows), np.uint8)
        threads = usable_threads() if x.size > _PARALLEL_SIZE else 1
        kernel.fill(
            threads, self.values, self.offsets, np.asarray(series, np.int64), np.asarray(origins, np.int64),
            layout.lookback, back, SCALES[layout.scale], self.fixed, self._lags, self._seasons, self._past,
            self._calendar, self._calendar_at, self._known, self._known_at, self._static,
            self._width - 1 if layout.log_scale else -1, x, y, w, base, place, mask,
        )  # fmt: skip
        return Gathered(x, y, w, base, place, mask.view(np.bool_))

    def ends(self, leave: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Series and origins of one window per series, whose forecast begins `leave` rows before the series' end."""
        return np.arange(len(self.panel)), self.lengths - leave

    def original(self, scaled: np.ndarray, place: np.ndarray, series: np.ndarray, origins: np.ndarray) -> np.ndarray:
        """Forecasts (b, H, ...) in the unit of the series, in float64."""
        shape = (-1,) + (1,) * (scaled.ndim - 1)
        values = scaled.astype(np.float64) * place[:, 1].reshape(shape) + place[:, 0].reshape(shape)
        return self.transform.backward(values, self._components, series, origins)


class Index:
    """All windows of a panel that have something to learn from, by number.

    Parameters
    ----------
    source : Source
    """

    def __init__(self, source: Source) -> None:
        layout, lengths = source.layout, source.lengths
        last = np.maximum(lengths - layout.horizon, np.minimum(lengths - 1, 1))
        # Long series need no padding; short ones begin where a season has been seen.
        few = last < 2 * layout.lookback
        begin = np.where(few, np.minimum(layout.lookback, max([1, *layout.seasons])), layout.lookback)
        self._first = np.minimum(begin, last)
        counts = np.where(last >= 1, last - self._first + 1, 0)
        self._ends = np.cumsum(counts)
        self._begins = self._ends - counts

    def __len__(self) -> int:
        return int(self._ends[-1])

    def windows(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Series and origins of the windows with these numbers."""
        series = np.searchsorted(self._ends, numbers, side="right")
        return series, self._first[series] + numbers - self._begins[series]


def naive_forecasts(panel: Panel, series: np.ndarray, origins: np.ndarray, season: int, horizon: int) -> np.ndarray:
    """The seasonal naive forecasts (N, H) of windows, float64: the latest observed value of the same phase.

    Else the last observed value, else 0.
    """
    seasons = (season, 1) if season > 1 else (1,)
    layout = Layout(1, horizon, False, "none", (), seasons, (), False, (), (), (), 0.0, 1.0)
    bare = replace(
        panel, past=panel.past[:, :0], known=panel.known[:, :0], static=panel.static[:, :0], past_names=(),
        known_names=(), static_names=(),
    )  # fmt: skip
    found = Source(layout, bare, Transform()).gather(series, origins)
    return found.base * found.place[:, 1:] + found.place[:, :1]
