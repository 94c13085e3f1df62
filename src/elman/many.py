"""Many small models at once: one training per core, in processes."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

from elman import checks, processes, registry
from elman.callbacks import History
from elman.cells import CELLS
from elman.constraints import CONSTRAINTS
from elman.data import Lanes, Windows
from elman.errors import BadType, BadValue
from elman.initializers import INITIALIZERS
from elman.layers.base import LAYERS
from elman.losses import LOSSES
from elman.metrics import METRICS
from elman.model import Sequential
from elman.optimizers import OPTIMIZERS
from elman.regularizers import REGULARIZERS
from elman.schedules import SCHEDULES
from elman.threads import usable_cores
from elman.warn import warn

__all__ = ["fit_many"]

_ARGUMENTS = [name for name in inspect.signature(Sequential.fit).parameters if name != "self"]
_BESIDES = ("stop_training", "resume_epoch", "nonfinite", "skip_warning_due", "skipped_updates")
"""What a training changes of a model besides what is saved."""
_CLASSES = (LAYERS, LOSSES, OPTIMIZERS, METRICS, INITIALIZERS, REGULARIZERS, CONSTRAINTS, SCHEDULES)


class _Job(NamedTuple):
    """What makes a model again elsewhere, and the arguments of its training that are its own."""

    number: int
    kind: type[Sequential]
    state: tuple[dict[str, Any], dict[str, Any]]
    given: dict[str, Any]


class _Done(NamedTuple):
    """What became of it."""

    state: tuple[dict[str, Any], dict[str, Any]]
    history: History
    warned: list[tuple[type[Warning], str]]


def fit_many(
    models: Sequence[Sequential], data: Sequence[Any], *, workers: int | None = None, **fit_arguments: Any
) -> list[History]:
    """Train many small models, each on data of its own, in several processes: one training per core.

    Python takes most of a step of a tiny network, so threads would wait for each other. More than one process needs
    joblib: ``pip install "elman[many]"``.

    Parameters
    ----------
    models : sequence of Sequential
        Compiled, built or not. They share nothing: no model stands twice.
    data : sequence
        One entry per model: (x, y), (x, y, sample_weight), `elman.data.Windows`, `elman.data.Lanes`, or a dict of
        arguments of `Sequential.fit`, which go before those for all.
    workers : int, optional
        Processes; by default one per core that this process may use. With 1, or for one model, training runs in this
        process and needs no joblib.
    **fit_arguments
        Arguments of `Sequential.fit` for all models, such as ``epochs``; ``verbose`` is 0 by default.

    Returns
    -------
    list of History
        One per model, in their order.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit, before anything runs: which one, and which entry of it.
    RuntimeError
        While one of them is being fitted.
    ImportError
        Without joblib, for more than one process.
    Exception
        The first error in a training, with a note that names the model. No further training begins, and all models are
        as before.

    Notes
    -----
    Every model holds afterwards what `Sequential.fit` would have made of it, to the bit: parameters, the state of the
    optimizer, of shuffling, of stateful layers. Until all are trained, only copies have changed: an interrupt from the
    keyboard ends the processes and leaves the models as they were.

    Every training has copies of its callbacks, which nobody sees afterwards; for another process they must pickle, and
    the data too, which generators do not. Layers and cells of your own go along. Warnings come at the end. Processes
    start in about a second and wait some minutes for the next call; each compiles kernels that are not in the cache.

    Examples
    --------
    >>> import numpy as np
    >>> import elman
    >>> series = np.sin(np.arange(60) / np.array([[3.0], [4.0], [5.0]]))
    >>> data = [elman.data.timeseries_windows(s, s[12:], sequence_length=12) for s in series]
    >>> models = [elman.Sequential([elman.layers.SimpleRNN(6), elman.layers.Dense(1)], seed=k) for k in range(3)]
    >>> for model in models:
    ...     model.compile("adam", "mse")
    >>> histories = elman.fit_many(models, data, workers=1, epochs=20)
    >>> [h.history["loss"][-1] < h.history["loss"][0] for h in histories]
    [True, True, True]
    >>> models[2].predict(data[2]).shape
    (48, 1)
    """
    models, arguments = _checked(models, data, fit_arguments)
    workers = usable_cores() if workers is None else checks.integer("workers", workers)
    workers = min(workers, len(models))
    if workers > 1:
        processes.packages()
    common = {"verbose": 0, **fit_arguments}
    with ExitStack() as stack:
        for model in models:
            stack.enter_context(model.running(trains=True))  # no `compile`, no `fit`: what comes back must fit
        jobs = [_job(k, model, given) for k, (model, given) in enumerate(zip(models, arguments, strict=True))]
        done = _train(jobs, common) if workers == 1 else _spread(jobs, common, workers)
        _warn(done)
        # In a thread of its own, no interrupt finds some models trained and others not.
        with ThreadPoolExecutor(1) as pool:
            pool.submit(_take, models, done).result()
    return [one.history for one in done]


# ---- what comes in


def _checked(models: Any, data: Any, common: Mapping[str, Any]) -> tuple[list[Sequential], list[dict[str, Any]]]:
    """The models, and for each the arguments of `fit` that are its own."""
    if isinstance(models, Sequential) or not isinstance(models, Iterable):
        raise BadType(f"models: expected a sequence of models, got {type(models).__name__}")
    if isinstance(data, (Mapping, str)) or not isinstance(data, Iterable):
        raise BadType(f"data: expected a sequence with one entry per model, got {type(data).__name__}")
    models, data = checks.entries("models", models), checks.entries("data", data)
    if not models:
        raise BadValue("models: expected at least one model, got none")
    if len(data) != len(models):
        raise BadValue(f"data: expected one entry per model, {len(models)}, got {len(data)}")
    for name in common:
        checks.choose("fit_arguments", name, _ARGUMENTS)
    known: dict[int, int] = {}
    for k, model in enumerate(models):
        _check_model(k, model, known)
    return models, [_arguments(f"data[{k}]", entry) for k, entry in enumerate(data)]


def _check_model(k: int, model: Any, known: dict[int, int]) -> None:
    """Refuse what cannot be trained apart from the others; `known` are models and layers before it, by identity."""
    if not isinstance(model, Sequential):
        raise BadType(f"models[{k}]: expected a Sequential, got {type(model).__name__}")
    first = known.setdefault(id(model), k)
    if first != k:
        raise BadValue(f"models[{k}]: the same model as models[{first}]; each can be trained once")
    if model.loss is None:
        raise BadValue(f"models[{k}]: not compiled yet; call compile(optimizer, loss)")
    for part in model._parts():
        name = part.name or type(part).__name__
        first = known.setdefault(id(part), k)
        if first != k:
            raise BadValue(f"models[{k}]: its layer {name!r} stands in models[{first}] too; make a second one")
        # A copy of such a model would not begin with what the layer holds.
        if model._vector is None and (part.shape is not None or part.owner is not None):
            raise BadValue(f"models[{k}]: its layer {name!r} was built before the model; call model.build(shape)")


def _arguments(place: str, entry: Any) -> dict[str, Any]:
    """The arguments of `fit` that an entry of `data` stands for."""
    if isinstance(entry, Mapping):
        return {checks.choose(place, name, _ARGUMENTS): value for name, value in entry.items()}
    if isinstance(entry, (Windows, Lanes)):
        return {"x": entry}
    count = len(entry) if isinstance(entry, (tuple, list)) else None
    if count in (2, 3):
        return dict(zip(("x", "y", "sample_weight"), entry, strict=False))
    what = type(entry).__name__ + ("" if count is None else f" of {count}")
    raise BadValue(f"{place}: expected (x, y), (x, y, sample_weight), Windows, Lanes or a dict for fit, got {what}")


def _job(k: int, model: Sequential, given: dict[str, Any]) -> _Job:
    try:
        return _Job(k, type(model), _state(model), given)
    except ValueError as error:  # a loss, say, that is in no registry
        error.add_note(f"of models[{k}], in fit_many")
        raise


def _state(model: Sequential) -> tuple[dict[str, Any], dict[str, Any]]:
    with model.lock:
        header, arrays = model._state()
        return {**header, "besides": {name: getattr(model, name) for name in _BESIDES}}, arrays


# ---- training, here or in another process


def _train(jobs: list[_Job], common: dict[str, Any]) -> list[_Done]:
    """Train copies one by one; an error gets a note that names the model."""
    done = []
    for job in jobs:
        try:
            done.append(_train_one(job, {**common, **job.given}))
        except Exception as error:
            error.add_note(f"in the training of models[{job.number}], by fit_many")
            raise
    return done


def _train_one(job: _Job, given: dict[str, Any]) -> _Done:
    model = job.kind._restore(*job.state)
    vars(model).update(job.state[0]["besides"])
    # Callbacks remember, and all trainings of a process may be given the same ones.
    given["callbacks"] = copy.deepcopy(given.get("callbacks"))
    with warnings.catch_warnings(record=True) as seen:
        history = model.fit(**given)
    history.model = None
    return _Done(_state(model), history, [(w.category, str(w.message)) for w in seen])


def _spread(jobs: list[_Job], common: dict[str, Any], workers: int) -> list[_Done]:
    """`_train` in several processes."""
    arrive = partial(_introduce, _own_entries(jobs))
    try:
        return processes.spread(partial(_train, common=common), jobs, workers, arrive)
    except pickle.PicklingError as error:
        _blame(common, jobs, error)
        raise


def _blame(common: dict[str, Any], jobs: list[_Job], error: Exception) -> None:
    """TypeError that names the argument which does not pickle."""
    for place, given in [("fit_arguments", common), *((f"data[{job.number}]", job.given) for job in jobs)]:
        for name, value in given.items():
            try:
                processes.pickled(value)
            except Exception as reason:
                text = f"{place}: {name} cannot go to another process ({reason}); workers=1 trains in this one"
                raise BadType(text) from error


def _own_entries(jobs: list[_Job]) -> bytes:
    """Layers, cells and others that users registered and these models name, pickled: new processes lack them."""

    def foreign(entry: Any) -> bool:
        return entry.__module__.partition(".")[0] != "elman"

    tables: list[dict[str, Any]] = [{name: cell for name, cell in CELLS.items() if foreign(cell.kernels)}]
    tables += [{name: cls for name, cls in registry.names(table).items() if foreign(cls)} for table in _CLASSES]
    if any(tables):
        text = json.dumps([[job.state[0]["config"], job.state[0]["compile"]] for job in jobs])
        tables = [{name: entry for name, entry in table.items() if f'"{name}"' in text} for table in tables]
    return processes.pickled(tables)


_introduced = b""
"""The entries that this process got last from another one."""


def _introduce(own: bytes) -> None:
    global _introduced
    if own != _introduced:  # a cell is compiled for every time it is introduced, 0.5 s
        tables: list[dict[str, Any]] = [CELLS, *_CLASSES]
        for table, entries in zip(tables, pickle.loads(own), strict=True):
            table.update(entries)
        _introduced = own


# ---- what comes back


def _warn(done: list[_Done]) -> None:
    """Every warning of the trainings once, with the first model it is of."""
    found: dict[tuple[type[Warning], str], set[int]] = {}
    for k, one in enumerate(done):
        for warned in one.warned:
            found.setdefault(warned, set()).add(k)
    for (category, text), numbers in found.items():
        more = f" and {len(numbers) - 1} more" if len(numbers) > 1 else ""
        warn(f"models[{min(numbers)}]{more}: {text}", category)


def _take(models: list[Sequential], done: list[_Done]) -> None:
    """Make the models what their copies became."""
    for model, one in zip(models, done, strict=True):
        header, arrays = one.state
        with model.lock:
            model._load_state(header, arrays)
            optimizer: Any = model.optimizer
            rate = header["compile"]["optimizer"]["config"]["learning_rate"]
            if rate != optimizer.get_config()["learning_rate"]:  # a callback's doing
                optimizer.learning_rate = rate
            vars(model).update(header["besides"])
        one.history.model = model
