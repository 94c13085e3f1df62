"""What a forecaster is made with, fitted to, updated by and saved as."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any, ParamSpec, Self, TypeVar

import numpy as np

from elman import checks, locks
from elman.errors import BadValue
from elman.forecasting import options as chosen
from elman.forecasting import storage
from elman.forecasting.columns import Columns
from elman.forecasting.engine import Engine
from elman.forecasting.panel import Panel
from elman.forecasting.reading import Reader
from elman.registry import number
from elman.warn import warn

P = ParamSpec("P")
R = TypeVar("R")


def settled(method: Callable[P, R]) -> Callable[P, R]:
    """`method` of a forecaster as it is at the call: what another thread fits or updates meanwhile is not seen."""

    @wraps(method)
    def on_copy(forecaster: Any, *args: Any, **kwargs: Any) -> Any:
        kind: Any = type(forecaster)
        copy = kind.__new__(kind)
        copy.__dict__.update(forecaster.__dict__)
        return method(copy, *args, **kwargs)

    return on_copy  # type: ignore[return-value]


class Fitting:
    """The half of `elman.Forecaster` that comes before its forecasts."""

    horizon: int
    lookback: int | None
    cell: Any
    units: int
    layers: int
    dropout: float
    head: str
    segment: int | None
    model: Any
    scale: str | None
    transform: str | None
    residual: bool
    season: Any
    deseasonalize: bool
    calendar: Any
    loss: str
    quantiles: Sequence[float]
    multivariate: bool
    learning_rate: float
    batch_size: int
    epochs: Any
    seeds: int
    seed: int
    _reader: Reader
    _panel: Panel
    _engine: Engine
    _trained_until: dict[Any, Any]

    def __init__(
        self,
        horizon: int,
        lookback: int | None = None,
        *,
        cell: Any = "gru",
        units: int = 64,
        layers: int = 1,
        dropout: float = 0.0,
        head: str = "auto",
        segment: int | None = None,
        model: Any = None,
        scale: str | None = "auto",
        transform: str | None = None,
        residual: bool = True,
        season: Any = "auto",
        deseasonalize: bool = False,
        calendar: Any = "auto",
        loss: str = "mae",
        quantiles: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        multivariate: bool = False,
        learning_rate: float = 3e-3,
        batch_size: int = 64,
        epochs: Any = "auto",
        seeds: int = 1,
        seed: int = 0,
    ) -> None:
        given = locals()
        for name in self._parameter_names():
            setattr(self, name, given[name])

    @property
    def _changes(self) -> Any:
        """The lock of those who change what is fitted; readers take what there is, see `settled`."""
        return self.__dict__.setdefault("_lock", locks.make())

    # ---- parameters, as scikit-learn's tools want them

    @classmethod
    def _parameter_names(cls) -> list[str]:
        return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments the forecaster was made with; `deep` is there for scikit-learn."""
        return {name: getattr(self, name) for name in self._parameter_names()}

    def set_params(self, **params: Any) -> Self:
        """Change arguments; what was fitted is forgotten. Returns the forecaster."""
        known = self._parameter_names()
        for name in params:
            checks.choose("set_params", name, known)
        for name, value in params.items():
            setattr(self, name, value)
        if params:
            self.__dict__.pop("_engine", None)
        return self

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self).__init__).parameters
        # By what is shown: arrays do not compare to one truth, and copies are no longer the same objects.
        changed = [f"{k}={v!r}" for k, v in self.get_params().items() if repr(v) != repr(defaults[k].default)]
        return f"{type(self).__name__}({', '.join(changed)})"

    # ---- fitting

    def fit(
        self,
        y: Any,
        *,
        past: Any = None,
        future: Any = None,
        static: Any = None,
        id: str | None = None,
        time: str | None = None,
        target: str | None = None,
        val: Any = "auto",
        verbose: Any = "auto",
    ) -> Self:
        """Fit to series; what was fitted before is forgotten.

        Parameters
        ----------
        y : frame or array_like
            A long frame of pandas, polars or pyarrow with a row per series and time, or a pandas series with dates for
            its index; an array (T,), one series; an
            array (T, n), n series or channels; a list or dict of arrays. Irregular times leave gaps, which are missing
            values.
        past, future, static : list of str, or array_like
            Covariates: known up to now, known ahead, constant. Columns of the frame; or arrays aligned with `y`: (T, P)
            for one series or for all, (T, n, P), a list or dict of those, and (n, Q) for `static`. Strings and
            categoricals become learned vectors.
        id, time, target : str, optional
            Columns of the frame; by default "unique_id", "ds" and "y", or the only ones that can be meant.
        val : "auto", "last", None, or data like `y`
            "last": the last `horizon` rows of each series are not trained on; after the training the weights that
            forecast them best are restored. "auto": if at least nine tenths of the windows are left. Data that go on
            behind those of `y`, covariates included, serve in their place, window by window; arrays begin with `y`.
        verbose : "auto", 0 or 1
            One line on a terminal that tells the progress; nothing elsewhere.

        Returns
        -------
        Forecaster
            Itself.

        Raises
        ------
        ValueError, TypeError
            If an argument or the data do not fit; the message names the series, the column and the time. The forecaster
            is then as before.
        """
        chosen.check(self.get_params())
        if isinstance(val, str) and val not in ("auto", "last"):
            raise BadValue(f"val: expected 'auto', 'last', None or data, got {val!r}")
        named = {k: v for k, v in (("id", id), ("time", time), ("target", target)) if v is not None}
        columns = Columns(**named)
        reader, panel = Reader.first(y, columns, past, future, static, multivariate=self.multivariate)
        panel = replace(panel, values=panel.values.copy())  # it may be the caller's own array, and is kept
        if not (val is None or isinstance(val, str)):
            val = reader.validation(val, past, future, static, panel)
        engine = self._trained(panel, val, loud(verbose))
        _tell(panel, engine)
        fitted = {"_reader": reader, "_panel": panel, "_engine": engine, "_trained_until": panel.ends}
        with self._changes:
            self.__dict__.update(fitted, _conformal=None)  # at once, for other threads and interrupts
        return self

    def _trained(self, panel: Panel, val: Any, verbose: bool) -> Engine:
        """A new engine trained on a panel."""
        plan = chosen.Plan(self.get_params(), panel)
        engine = Engine(plan, self.seed, self.seeds, self.model)
        leave, later = 0, val if isinstance(val, Panel) else None
        if later is not None:
            plan.check(later)
        if isinstance(val, str):
            windows = np.maximum(panel.lengths - self.horizon - plan.layout.lookback, 0).sum()
            kept = np.maximum(panel.lengths - 2 * self.horizon - plan.layout.lookback, 0).sum()
            leave = self.horizon if val == "last" or kept >= 0.9 * windows > 0 else 0
        engine.fit(panel, leave=leave, later=later, budget=plan.budget, seed=self.seed, verbose=verbose)
        return engine

    def _fitted(self) -> Engine:
        engine = self.__dict__.get("_engine")
        if engine is None:
            raise BadValue("forecaster: not fitted yet; call fit(y) first")
        return engine

    @property
    def model_(self) -> Any:
        """The first member's `elman.Sequential`."""
        return self._fitted().members[0]

    @property
    def history_(self) -> list[dict[str, list[float]]]:
        """Losses of every member's training, as `fit` of a model gives them."""
        return self._fitted().history

    @property
    def seasons_(self) -> tuple[int, ...]:
        """Lengths of the seasons in use, longest first."""
        return self._fitted().plan.seasons

    # ---- more data

    def update(
        self, y: Any, *, past: Any = None, future: Any = None, static: Any = None, epochs: float = 0,
        learning_rate: float = 1e-4, verbose: Any = "auto",
    ) -> Self:  # fmt: skip
        """Append rows to the series, or new series; with `epochs` train on with all of them.

        Parameters
        ----------
        y, past, future, static
            As in `fit`. Rows of a time that is there already replace it; arrays go on where the series end.
        epochs : float
            Passes over all windows; 0: only the history grows.
        learning_rate : float
            Constant; the optimizers keep their states.
        verbose : "auto", 0 or 1

        Returns
        -------
        Forecaster
            Itself.

        Raises
        ------
        ValueError, TypeError
            If the data do not fit; the forecaster is then as before.
        """
        with self._changes:
            engine = self._fitted()
            passes = number("epochs", epochs, 0)
            rate = number("learning_rate", learning_rate, 0, open_low=True)
            new = self._reader.read(y, past, future, static, self._panel)
            panel = self._panel.append(new)
            engine.plan.check(new)
            until = panel.ends if passes else self._until(panel)  # type: ignore[attr-defined]  # the other half has it
            if passes:
                engine = engine.fit_more(
                    panel, epochs=passes, learning_rate=rate, seed=self.seed, verbose=loud(verbose)
                )
            self.__dict__.update(_engine=engine, _panel=panel, _trained_until=until)
        return self

    # ---- saving

    @settled
    def save(self, path: str | os.PathLike[str], *, history: bool = True) -> None:
        """Write everything to one ``.npz`` file, whole or not at all; `load` reads it.

        Parameters
        ----------
        path : str or path-like
        history : bool
            Keep the series. Without them the file holds no data, and `predict` needs `y`.
        """
        storage.save(self, path, history=history)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """The forecaster that `save` wrote; ValueError if the file is none, damaged or newer. Nothing is executed."""
        return storage.load(cls, path)

    def __getstate__(self) -> dict[str, Any]:
        if self.__dict__.get("_engine") is None:
            return {"params": self.get_params()}
        (header, arrays), fitted = settled(lambda self: (storage.state(self), self._engine.plan.options))(self)
        return {"params": self.get_params(), "fitted": fitted, "header": header, "arrays": arrays}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "header" in state:
            self.__dict__.update(state.get("fitted", state["params"]))
            storage.restore(self, state["header"], state["arrays"])
        self.__dict__.update(state["params"])


def _tell(panel: Panel, engine: Engine) -> None:
    """One warning that counts what was missing or short."""
    layout, parts = engine.plan.layout, []
    missing = np.isnan(panel.values)
    if missing.any():
        series = len(np.unique(np.searchsorted(panel.offsets, np.flatnonzero(missing), side="right")))
        parts.append(f"{int(missing.sum())} of {len(missing)} values are missing, in {series} series, and are masked")
    rows = layout.lookback + layout.horizon
    short = int((panel.lengths < rows).sum())
    if short:
        parts.append(
            f"{short} of {len(panel)} series have fewer than {rows} rows, lookback and horizon, and are padded"
        )
    coarse = _coarse(panel)
    if coarse.size:
        parts.append(
            f"{coarse.size} of {len(panel)} series, the first {panel.ids[coarse[0]]!r}, vary by less than float32 tells"
            " apart at their size; subtract a constant first"
        )
    if parts:
        warn(f"y: {'; '.join(parts)}")


def _coarse(panel: Panel) -> np.ndarray:
    """The series whose mean step is less than twice what float32, in which they are kept, can tell apart."""
    begins, values = panel.offsets[:-1], panel.values.astype(np.float64)
    steps = np.abs(np.diff(values, append=np.nan))
    steps[panel.offsets[1:] - 1] = 0  # from one series to the next
    varies = steps > 0  # NaN does not, nor what was rounded away
    count = np.add.reduceat(varies.astype(np.int64), begins)
    total = np.add.reduceat(np.where(varies, steps, 0), begins)
    size = np.fmax.reduceat(np.abs(values), begins).astype(np.float32)
    return np.flatnonzero((count > 0) & (total < 2 * count * np.spacing(size)))


def loud(verbose: Any) -> bool:
    """Whether to show progress; ValueError for anything but "auto", 0 and 1."""
    if not checks.named(verbose, "auto") and not (isinstance(verbose, (int, float)) and verbose in (0, 1)):
        raise BadValue(f"verbose: expected 'auto', 0 or 1, got {verbose!r}")
    return verbose != 0
