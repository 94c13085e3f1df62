"""The options of a forecaster: checked, and those left to the data decided."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from elman import cells, checks
from elman.errors import BadType, BadValue
from elman.forecasting import layout as layouts
from elman.forecasting.layout import Layout, Places, Source, describe
from elman.forecasting.network import HEADS, Body
from elman.forecasting.panel import Panel
from elman.forecasting.seasons import calendar, season_lengths
from elman.forecasting.targets import TARGETS, Target, target
from elman.forecasting.training import Budget
from elman.forecasting.transform import Transform
from elman.layers.segments import MOST_LAYERS
from elman.model import Sequential
from elman.registry import number

FEW_WINDOWS = 1000
"""Below this many windows the data are few: a small model, scaled by size, trained for fewer steps."""

# Measured on AirPassengers (73 windows) and M4 hourly (250,000): CONTRIBUTING, "Decisions".
_MOST_STEPS, _MOST_PASSES = 1500, 50

# Beyond it counts cannot be drawn.
_COUNT = 1e15

# Few windows fill a batch by many passes, each of which takes some 20 us.
_LARGEST_BATCH = 1 << 20


def check(options: dict[str, Any]) -> None:
    """TypeError or ValueError for the first option of a Forecaster that is out of range."""
    for name in ("units", "seeds"):
        checks.integer(name, options[name])
    checks.integer("batch_size", options["batch_size"], 1, _LARGEST_BATCH)
    checks.integer("horizon", options["horizon"], 1, LONGEST)
    checks.integer("layers", options["layers"], 1, MOST_LAYERS)
    for name in ("lookback", "segment"):
        if options[name] is not None:
            checks.integer(name, options[name], 1, LONGEST)
    checks.integer("seed", options["seed"], 0)
    checks.choose("head", options["head"], ("auto", *HEADS))
    checks.choose("loss", options["loss"], TARGETS)
    scales = [s for s in layouts.SCALES if s not in ("none", "counts")]
    if options["scale"] is not None:
        checks.choose("scale", options["scale"], ("auto", *scales))
    if options["transform"] is not None:
        checks.choose("transform", options["transform"], ("log1p",))
    for name in ("multivariate", "residual", "deseasonalize"):
        checks.flag(name, options[name])
    if not checks.named(options["calendar"], "auto"):
        checks.flag("calendar", options["calendar"])
    _check_season(options["season"])
    _check_quantiles(options["quantiles"])
    if not 0 <= number("dropout", options["dropout"], 0) < 1:
        raise BadValue(f"dropout: expected a fraction from 0 to below 1, got {options['dropout']!r}")
    number("learning_rate", options["learning_rate"], 0, open_low=True)
    if not checks.named(options["epochs"], "auto"):
        number("epochs", options["epochs"], 0, open_low=True)
    cells.get(options["cell"])
    target(options["loss"], options["quantiles"])
    model = options["model"]
    if model is not None and not isinstance(model, Sequential):
        raise BadType(f"model: expected an elman.Sequential, got {type(model).__name__}")
    if model is not None and options["head"] not in ("auto", "direct"):
        raise BadValue(f"head: a model of your own takes the place of head={options['head']!r}; leave head='auto'")
    if options["scale"] == "revin":
        _check_revin(options)


def _check_revin(options: dict[str, Any]) -> None:
    if options["loss"] not in ("mae", "mse", "huber", "quantile"):
        raise BadValue(f"scale: 'revin' goes with the losses mae, mse, huber and quantile, not {options['loss']!r}")
    if options["head"] == "recursive":
        raise BadValue("scale: 'revin' needs whole windows, not head='recursive'; use 'direct', 'segment' or 'auto'")
    if options["model"] is not None:
        raise BadValue("scale: 'revin' is a part of the forecaster's own models; use 'standard' with model=")


LONGEST = 1_000_000_000
"""Longest season, horizon, lookback and segment that are taken."""


def _lengths(season: Any) -> list[Any]:
    return list(season) if isinstance(season, (tuple, list, np.ndarray)) and checks.axes(season) else [season]


def _check_season(season: Any) -> None:
    if season is None or (isinstance(season, str) and season == "auto"):
        return
    for length in _lengths(season):
        checks.integer("season", length, 1, LONGEST)


def _check_quantiles(quantiles: Any) -> None:
    if isinstance(quantiles, (str, bytes)) or checks.axes(quantiles) != 1 or not len(quantiles):
        raise BadValue(f"quantiles: expected one or more numbers between 0 and 1, got {quantiles!r}")
    found = [number("quantiles", q, 0, 1, open_low=True) for q in quantiles]
    if 1.0 in found or len(set(found)) < len(found):
        raise BadValue(f"quantiles: expected different numbers between 0 and 1, got {quantiles!r}")


def _seasons(season: Any, panel: Panel) -> tuple[int, ...]:
    """Lengths of the seasons, longest first; none where there is none."""
    if season is None:
        return ()
    found: Sequence[int]
    if isinstance(season, str):
        found = season_lengths(panel.values, panel.offsets, panel.grid.seconds, candidates=panel.grid.seasons)
    else:
        found = _lengths(season)
    return tuple(sorted((int(m) for m in found if m > 1), reverse=True))


def _by_size(panel: Panel) -> bool:
    """Whether a series is never negative, and varies by 5 % of its size at least, in the median of all series.

    A season of 10 on a level of 60 / 100 / 200 / 1,000,000, mean absolute error over that of the naive forecast: 1.03,
    1.06, 1.28, 300 by size, 1.05 each by deviation.
    """
    values = [v[~np.isnan(v)].astype(np.float64) for v in map(panel.series, range(len(panel)))]
    known = [v for v in values if v.size]
    return all((v >= 0).all() for v in known) and bool(
        np.median([v.std() / (v.mean() or 1.0) for v in known] or [0.0]) >= 0.05
    )


class Plan:
    """What `fit` decided.

    Attributes
    ----------
    layout, transform, target, body, budget
    places : dict of id to (float, float)
        Shift and scale of the series trained on.
    seasons : tuple of int
        Longest first.
    options : dict
        What it was decided from, whatever becomes of the forecaster's attributes.
    """

    def __init__(self, options: dict[str, Any], panel: Panel) -> None:
        self.options = options
        self.target: Target = target(options["loss"], options["quantiles"])
        self.seasons = _seasons(options["season"], panel)
        horizon = options["horizon"]
        lookback = options["lookback"] or self._lookback(horizon, int(panel.lengths.max()))
        windows = int(np.maximum(panel.lengths - horizon - lookback // 2, 1).sum())
        self.few = windows < FEW_WINDOWS
        head = self._head(options, panel)
        self.transform = Transform(
            options["transform"] == "log1p", min(self.seasons) if options["deseasonalize"] and self.seasons else 1
        )
        scale = self._scale(options, panel)
        self.check(panel)
        self.layout = self._layout(options, panel, head, lookback, scale)
        self.places = places(self.layout, panel, self.transform)
        self.body = self._body(options, head, panel)
        self.budget = self._budget(options, windows)

    def check(self, panel: Panel) -> None:
        """ValueError for values that the loss or the transform is not made for; names id and time."""
        self.transform.check(panel)
        if not self.target.counts:
            return
        values = panel.values
        bad = np.flatnonzero(~np.isnan(values) & ((values < 0) | (values > _COUNT) | (values != np.floor(values))))
        if bad.size:
            who, when = panel.where(int(bad[0]))
            raise BadValue(
                f"loss: a loss of counts needs whole numbers from 0 to {_COUNT:g}, but {bad.size} values are others,"
                f" the first of id {who!r} at {when}: {values[bad[0]]:g}; take another loss, such as 'normal'"
            )

    def _lookback(self, horizon: int, longest: int) -> int:
        """Two horizons, if these are short, and every season; at most what most windows of the data have."""
        wanted = max(min(2 * horizon, 96), *self.seasons, 8) if self.seasons else max(min(2 * horizon, 96), 8)
        return max(1, min(wanted, max(longest - horizon, longest // 2)))

    def _head(self, options: dict[str, Any], panel: Panel) -> str:
        if options["head"] != "auto":
            return options["head"]
        return "direct" if options["model"] is not None or self.few else "segment"

    def _scale(self, options: dict[str, Any], panel: Panel) -> str:
        if self.target.counts:
            if options["scale"] not in ("auto", "mean-abs"):
                raise BadValue(f"scale: loss={options['loss']!r} scales by the mean itself; leave scale='auto'")
            if self.transform.log or self.transform.period > 1:
                raise BadValue(f"transform: loss={options['loss']!r} needs the counts as they are; leave it out")
            return "counts"
        if options["scale"] != "auto":
            return "none" if options["scale"] is None else options["scale"]
        # What grows by a share of its size needs its size kept; many windows tell more by their deviations.
        plain = self.transform.log or self.transform.period > 1
        return "mean-abs" if self.few and not plain and _by_size(panel) else "standard"

    def _layout(self, options: dict[str, Any], panel: Panel, head: str, lookback: int, scale: str) -> Layout:
        stepwise = head == "recursive"
        lags = [k * m for m in self.seasons for k in (1, 2)]
        base = (*self.seasons, 1) if options["residual"] and not self.target.counts else ()
        wants = options["calendar"]
        dated = panel.grid.seconds is not None
        if wants is True and not dated:
            raise BadValue("calendar: the data have no dates; leave calendar='auto' or give a frame with times")
        uses = dated and not self.few if wants == "auto" else wants
        names = calendar(panel.grid.times(np.arange(2)), panel.grid.seconds)[0] if uses else ()
        self.transform.learn(panel)
        values = self.transform.forward(panel)[0]
        seen = values[~np.isnan(values)].astype(np.float64)
        deviation = float(seen.std()) if seen.size else 0.0
        return Layout(
            lookback=lookback,
            horizon=options["horizon"],
            stepwise=stepwise,
            scale=scale,
            lags=tuple(sorted(set(lags))),
            seasons=base,
            calendar=tuple(names),
            # Between series the size tells something; within one it would only be learned by heart.
            log_scale=scale in ("mean-abs", "counts") and len(panel) >= 20,
            past=describe(panel.past_names, panel.past, panel.categories),
            known=describe(panel.known_names, panel.known, panel.categories),
            static=describe(panel.static_names, panel.static, panel.categories),
            shift=float(seen.mean()) if seen.size else 0.0,
            deviation=deviation if deviation > 0 else 1.0,
        )

    def _body(self, options: dict[str, Any], head: str, panel: Panel) -> Body:
        segment = options["segment"]
        if head != "segment":
            segment = 1
        elif segment is None:
            segment = _segment(self.layout, self.seasons)
        if head == "segment" and segment > self.layout.lookback:
            raise BadValue(f"segment: {segment} steps are more than the lookback of {self.layout.lookback}")
        return Body(
            head, options["cell"], options["units"], options["layers"], options["dropout"], segment,
            self.target.outputs, options["scale"] == "revin", len(panel) if panel.channels else 0,
        )  # fmt: skip

    def _budget(self, options: dict[str, Any], windows: int) -> Budget:
        size = options["batch_size"]
        if options["epochs"] == "auto":
            steps = min(max(1, _MOST_PASSES * windows // size), _MOST_STEPS)
        else:
            steps = max(1, round(options["epochs"] * windows / size))
        return Budget(steps, size, options["learning_rate"])


def _segment(layout: Layout, seasons: Sequence[int]) -> int:
    """Steps of a segment: one up to a horizon of 48; beyond, the season of at most 24 steps that fits, or 24."""
    if layout.horizon <= 48:
        return 1
    fitting = [m for m in seasons if m <= min(24, layout.lookback)]
    return max(fitting, default=min(24, layout.lookback))


def places(layout: Layout, panel: Panel, transform: Transform) -> Places:
    """Shift and scale of the series trained on, where windows are scaled by those."""
    if layout.scale not in ("series", "last-value"):
        return {}
    fixed = Source(layout, panel, transform).fixed
    return {label: (float(shift), float(scale)) for label, (shift, scale) in zip(panel.ids, fixed, strict=True)}
