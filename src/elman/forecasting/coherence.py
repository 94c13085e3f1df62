"""What kernels take for granted of a forecaster, checked where one comes from a file, which may claim anything."""

from __future__ import annotations

from typing import Any

import numpy as np

from elman import checks
from elman.errors import BadValue
from elman.forecasting import options as chosen
from elman.forecasting.grid import Grid
from elman.forecasting.layout import SCALES, Layout
from elman.forecasting.panel import Panel
from elman.forecasting.transform import FARTHEST


def _array(name: str, found: Any, dtype: Any, shape: tuple[int, ...]) -> None:
    if not isinstance(found, np.ndarray) or found.dtype != dtype or found.shape != shape:
        got = f"{found.dtype} {found.shape}" if isinstance(found, np.ndarray) else repr(found)
        raise BadValue(f"{name}: expected {np.dtype(dtype)} {shape}, got {got}")


def _names(name: str, found: Any, *, integers: bool = False) -> None:
    kinds = (str, int) if integers else str
    if len(set(found)) < len(found) or not all(isinstance(v, kinds) and not isinstance(v, bool) for v in found):
        raise BadValue(f"{name}: expected different names, got {found!r}")


def _real(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value):
        raise BadValue(f"{name}: expected a finite number, got {value!r}")


def check_panel(panel: Panel) -> None:
    """ValueError unless all arrays of a panel agree."""
    _names("ids", panel.ids, integers=True)
    for kind in ("past", "known", "static"):
        _names(f"names of {kind}", getattr(panel, f"{kind}_names"))
    series, offsets, n = len(panel.ids), panel.offsets, len(panel.values)
    _array("offsets", offsets, np.int64, (series + 1,))
    if not series or offsets[0] != 0 or offsets[-1] != n or (offsets[1:] < offsets[:-1]).any():
        raise BadValue(f"offsets: expected ascending numbers from 0 to {n}")
    _array("values", panel.values, np.float32, (n,))
    _array("first", panel.first, np.int64, (series,))
    if (panel.first < -FARTHEST).any() or (panel.first > FARTHEST).any():
        raise BadValue(f"first: expected ticks of at most {FARTHEST:,}")
    for kind, rows in (("past", n), ("known", n), ("static", series)):
        _array(kind, getattr(panel, kind), np.float32, (rows, len(getattr(panel, f"{kind}_names"))))
    if panel.given is not None:
        _array("given", panel.given, np.bool_, (n,))
    for name, labels in panel.categories.items():
        _names(f"categories of {name!r}", labels)
    if not isinstance(panel.target, str):
        raise BadValue(f"target: expected a name, got {panel.target!r}")
    checks.flag("channels", panel.channels)
    _check_grid(panel.grid)


def _check_grid(grid: Grid) -> None:
    for name in ("step", "origin", "day", "clock"):
        checks.integer(name, getattr(grid, name), -FARTHEST, FARTHEST)


def check_layout(layout: Layout, panel: Panel) -> None:
    """ValueError unless the columns of a layout are those of the panel, and its numbers can be."""
    for name in ("lookback", "horizon"):
        checks.integer(name, getattr(layout, name), 1, chosen.LONGEST)
    for name in ("lags", "seasons", "calendar"):
        if not isinstance(getattr(layout, name), tuple):
            raise BadValue(f"{name}: expected a list, got {getattr(layout, name)!r}")
    for name in ("lags", "seasons"):
        for value in getattr(layout, name):
            checks.integer(name, value, 1, 2 * chosen.LONGEST)
    for name in ("stepwise", "log_scale"):
        checks.flag(name, getattr(layout, name))
    checks.choose("scale", layout.scale, SCALES)
    _names("calendar", layout.calendar)
    if layout.calendar and not panel.grid.dated:
        raise BadValue("calendar: the series have no dates")
    _real("shift", layout.shift)
    _real("deviation", layout.deviation)
    for kind in ("past", "known", "static"):
        columns, names = getattr(layout, kind), getattr(panel, f"{kind}_names")
        if tuple(c.name for c in columns) != names:
            raise BadValue(f"{kind}: the model reads {[c.name for c in columns]}, the data have {list(names)}")
        for column in columns:
            _real("mean", column.mean)
            _real("deviation", column.deviation)
            labels = panel.categories.get(column.name)
            if checks.integer("categories", column.categories, 0) != (0 if labels is None else len(labels) + 1):
                raise BadValue(f"categories: the model knows {column.categories} of {column.name!r}, the data others")


def check_plan(plan: Any, options: dict[str, Any], panel: Panel, parameters: int) -> None:
    """ValueError unless a plan is one that a forecaster of these options, with so many parameters, may have."""
    chosen.check(options)
    check_layout(plan.layout, panel)
    body, budget, transform = plan.body, plan.budget, plan.transform
    if plan.layout.horizon != options["horizon"] or body.outputs != plan.target.outputs:
        raise BadValue(f"horizon: {plan.layout.horizon} steps of {body.outputs} do not fit the options")
    checks.integer("layers", body.layers, 1, max(1, parameters))  # each has some; a number alone must cost nothing
    checks.integer("segment", body.segment, 1, chosen.LONGEST)
    checks.integer("channels", body.channels, 0, max(1, parameters))
    checks.flag("revin", body.revin)
    checks.integer("steps", budget.steps, 1, FARTHEST)
    checks.integer("checks", budget.checks, 1, FARTHEST)
    if budget.batch_size != options["batch_size"]:
        raise BadValue(f"batch_size: {budget.batch_size} does not fit the options, {options['batch_size']}")
    _real("learning_rate", budget.learning_rate)
    checks.flag("log", transform.log)
    checks.integer("period", transform.period, 1, chosen.LONGEST)
    for label, place in plan.places.items():
        for value in place:
            _real(f"place of {label!r}", value)
    for season in plan.seasons:
        checks.integer("seasons", season, 1, chosen.LONGEST)
