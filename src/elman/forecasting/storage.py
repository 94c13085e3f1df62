"""The file a forecaster is saved in: one ``.npz`` of plain arrays and a JSON header; nothing in it is executed."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any

import numpy as np

from elman import archive, checks
from elman.cells import CELLS, Cell
from elman.errors import BadFile, BadValue
from elman.forecasting.coherence import check_panel, check_plan
from elman.forecasting.conformal import Conformal
from elman.forecasting.engine import Engine
from elman.forecasting.grid import Grid
from elman.forecasting.layout import Layout
from elman.forecasting.network import Body
from elman.forecasting.options import Plan
from elman.forecasting.panel import Panel
from elman.forecasting.reading import Reader
from elman.forecasting.targets import target
from elman.forecasting.training import Budget
from elman.forecasting.transform import Transform
from elman.model import Sequential
from elman.parameters import at_most

KIND = "Forecaster"

_ROWS = ("values", "past", "known")


def _plain(value: Any) -> Any:
    """A value as JSON takes it: with Python's numbers."""
    if isinstance(value, dict):
        return {name: _plain(v) for name, v in value.items()}
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    return [_plain(v) for v in value] if isinstance(value, (tuple, list)) else value


def state(forecaster: Any, *, history: bool = True) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and arrays of everything a fitted forecaster is."""
    engine = forecaster._fitted()
    panel, plan = forecaster._panel if history else forecaster._panel.last(0), engine.plan
    arrays: dict[str, np.ndarray] = {name: getattr(panel, name) for name in (*_ROWS, "offsets", "first", "static")}
    if panel.given is not None:
        arrays["given"] = panel.given
    arrays["trained_until"] = forecaster._trained_until
    for k, model in enumerate(engine.members):
        with model.lock:
            arrays[f"member/{k}/parameters"] = model._vector.values.copy()
            arrays |= {f"member/{k}/optimizer/{n}": v for n, v in model.optimizer.state().items()}
    if forecaster._conformal is not None:
        arrays |= {f"conformal/{name}": value for name, value in forecaster._conformal.arrays().items()}
    transform, seasonal = plan.transform.state()
    arrays |= {f"transform/{name}": value for name, value in seasonal.items()}
    params = dict(plan.options)
    if isinstance(params["cell"], Cell):
        if CELLS.get(params["cell"].name) is not params["cell"]:
            name = params["cell"].name
            raise BadValue(f"cell: {name!r} is not registered; call elman.cells.register(cell) to save it")
        params["cell"] = params["cell"].name
    params["model"] = None if params["model"] is None else params["model"].get_config()
    header = {
        "params": params,
        "layout": plan.layout.config(),
        "body": {**asdict(plan.body), "cell": params["cell"]},
        "budget": asdict(plan.budget),
        "transform": transform,
        "places": [[label, *place] for label, place in plan.places.items()],
        "seasons": plan.seasons,
        "few": bool(plan.few),
        "seed": engine.seed,
        "history": engine.history,
        "draws": [model._draws for model in engine.members],
        "reader": forecaster._reader.config(),
        "grid": panel.grid.config(),
        "ids": panel.ids,
        "names": {"past": panel.past_names, "known": panel.known_names, "static": panel.static_names},
        "categories": panel.categories,
        "channels": panel.channels,
        "target": panel.target,
    }
    return _plain(header), arrays


def _under(prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def restore(forecaster: Any, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Make an unfitted forecaster the one that `state` described."""
    panel = Panel(
        **{name: arrays[name] for name in (*_ROWS, "offsets", "first", "static")},
        ids=list(header["ids"]),
        grid=Grid.from_config(header["grid"]),
        **{f"{kind}_names": tuple(names) for kind, names in header["names"].items()},
        categories={name: tuple(labels) for name, labels in header["categories"].items()},
        channels=header["channels"],
        target=header["target"],
        given=arrays.get("given"),
    )
    check_panel(panel)
    plan = Plan.__new__(Plan)
    plan.layout, plan.body = Layout.from_config(header["layout"]), Body(**header["body"])
    plan.budget = Budget(**header["budget"])
    plan.transform = Transform.from_state(header["transform"], _under("transform/", arrays))
    plan.places = {label: (shift, scale) for label, shift, scale in header["places"]}
    plan.seasons, plan.few = tuple(header["seasons"]), header["few"]
    plan.options = forecaster.get_params()
    plan.target = target(forecaster.loss, forecaster.quantiles)
    members = sum(name.endswith("/parameters") for name in arrays)
    sizes = [arrays[f"member/{k}/parameters"].size for k in range(members)]
    check_plan(plan, forecaster.get_params(), panel, max(sizes))
    with at_most(2 * max(sizes)):
        engine = Engine(plan, checks.integer("seed", header["seed"], 0), members, forecaster.model)
    engine.history = header["history"]
    for k, model in enumerate(engine.members):
        values, model._draws = arrays[f"member/{k}/parameters"], int(header["draws"][k])
        if values.shape != model._vector.values.shape:
            raise BadValue(f"member {k} has {values.size} parameters, expected {model._vector.values.size}")
        model._vector.values[:] = values
        model._ready_optimizer()
        model.optimizer.set_state(_under(f"member/{k}/optimizer/", arrays))
    found = _under("conformal/", arrays)
    forecaster._reader, forecaster._panel, forecaster._engine = Reader.from_config(header["reader"]), panel, engine
    forecaster._trained_until = arrays["trained_until"].astype(np.int64).reshape(len(panel))
    forecaster._conformal = Conformal.from_arrays(found) if found else None


def save(forecaster: Any, path: str | os.PathLike[str], *, history: bool) -> None:
    """Write the file."""
    header, arrays = state(forecaster, history=checks.flag("history", history))
    archive.write(path, KIND, header, arrays)


def load(cls: type, path: str | os.PathLike[str]) -> Any:
    """Read the file."""
    header, arrays = archive.read(path, KIND)
    try:
        params = dict(header["params"])
        with at_most(sum(a.size for a in arrays.values())):
            params["model"] = None if params["model"] is None else Sequential.from_config(params["model"])
        params["quantiles"] = tuple(params["quantiles"])
        forecaster = cls(**params)
        restore(forecaster, header, arrays)
    except MemoryError:
        raise
    except Exception as error:  # a description may be anything
        raise BadFile(f"path: {os.fspath(path)!r} does not describe a forecaster ({error})") from error
    return forecaster
