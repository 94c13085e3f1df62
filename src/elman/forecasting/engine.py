"""A fitted forecaster without its clothes: members, what they read, and their forecasts of windows."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from elman.errors import BadValue
from elman.forecasting.layout import Index, Source
from elman.forecasting.network import make_model
from elman.forecasting.options import Plan
from elman.forecasting.panel import Panel
from elman.forecasting.paths import paths
from elman.forecasting.targets import scaled_up
from elman.forecasting.training import Batches, Budget, compiled, outputs, progress, side_by_side, train
from elman.forecasting.transform import Transform
from elman.model import Sequential
from elman.schedules import PiecewiseConstantDecay

_VALIDATED = 4096
"""Windows of later data that are validated on, at most."""
_PATHS = 100
"""Paths whose mean and quantiles a stepwise model with a distribution forecasts."""


class Forecast(NamedTuple):
    """Forecasts of N windows, in the unit of their series."""

    point: np.ndarray
    """(N, H)."""
    quantiles: np.ndarray | None
    """(N, H, Q)."""


class Engine:
    """Members of one plan, each a model of the same shape with another seed.

    Parameters
    ----------
    plan : Plan
    seed, seeds : int
        The members have the seeds from `seed` on.
    template : Sequential, optional
        A user's model in place of the plan's.
    """

    def __init__(self, plan: Plan, seed: int, seeds: int, template: Sequential | None = None) -> None:
        self.plan, self.seed, self._template = plan, seed, template
        self.members = [self._member(seed + k, template) for k in range(seeds)]
        self.history: list[dict[str, list[float]]] = []

    def _member(self, seed: int, template: Sequential | None) -> Sequential:
        plan = self.plan
        if template is None:
            model = make_model(plan.body, plan.layout, seed)
        else:
            rows = plan.layout.lookback
            rows += plan.layout.horizon if any(c.role == "known" for c in plan.layout.columns) else 0
            model = Sequential.from_config({**template.get_config(), "seed": seed, "input_shape": None})
            model.build((rows, len(plan.layout.columns)))
            wanted = plan.layout.horizon * plan.target.outputs
            if None in model.output_shape or int(np.prod(model.output_shape)) != wanted:
                raise BadValue(
                    f"model: expected an output of {plan.layout.horizon} steps of {plan.target.outputs} values each, "
                    f"such as Dense({wanted}), got {model.output_shape}"
                )
            if len(model.output_shape) == 1:
                model = _shaped(model, plan, seed, rows)
        return compiled(model, plan.target, plan.budget)

    # ---- training

    def fit(
        self, panel: Panel, *, budget: Budget, seed: int, verbose: bool, leave: int = 0, later: Panel | None = None
    ) -> None:
        """Train all members on the windows of a panel.

        With `leave` its last rows are kept back and validated on; with `later`, a panel that goes on, what that has
        behind.
        """
        plan = self.plan
        whole = self.source(panel)
        # Short windows reach to the end of their series.
        source = self.source(panel.until(panel.ends - leave)) if leave else whole
        index = Index(source)
        if not _learns(source):
            kept_back = f" before the last {leave}, which val keeps back" if leave else ""
            raise BadValue(
                "y: no series has a value to learn from; at least one needs an observed value after its first row"
                f"{kept_back}"
            )
        validated = self._validated(whole, leave, later, panel)

        stop = threading.Event()

        def job(k: int, model: Sequential, bar: Any) -> dict[str, list[float]]:
            batches = Batches(source, plan.target, plan.body, index=index, seed=seed + k, size=budget.batch_size)
            validation = None
            if validated is not None:
                checked, series, origins = validated
                validation = Batches(checked, plan.target, plan.body, series=series, origins=origins)
            return train(model, batches, validation, budget, stop, bar)

        with progress(budget.steps * len(self.members), verbose) as bar:
            jobs = [lambda k=k, m=m: job(k, m, bar) for k, m in enumerate(self.members)]
            self.history = side_by_side(jobs, stop)

    def _validated(
        self, source: Source, leave: int, later: Panel | None, panel: Panel
    ) -> tuple[Source, np.ndarray, np.ndarray] | None:
        """The windows that are validated on: those that end each series, or those behind a panel's ends."""
        horizon = self.plan.layout.horizon
        if later is None:
            series, origins = source.ends(leave)
            usable = origins >= 1
            return (source, series[usable], origins[usable]) if leave and usable.any() else None
        ends = dict(zip(panel.ids, panel.ends, strict=True))
        windows = [
            (s, o)
            for s, label in enumerate(later.ids)
            for o in range(
                max(1, int(ends.get(label, later.first[s] + 1) - later.first[s])), int(later.lengths[s]) - horizon + 1
            )
        ]
        if not windows:
            raise BadValue(f"val: no series goes on for {horizon} rows behind those of y; give at least the horizon")
        # Enough of them, evenly spread.
        windows = windows[:: max(1, len(windows) // _VALIDATED)]
        series, origins = np.array(windows, np.int64).T
        return self.source(later), np.ascontiguousarray(series), np.ascontiguousarray(origins)

    def fit_more(self, panel: Panel, *, epochs: float, learning_rate: float, seed: int, verbose: bool) -> Engine:
        """A copy that is trained on with a constant rate; its optimizers begin with the states of these."""
        copy = Engine(self.plan, self.seed, len(self.members), self._template)
        for mine, model in zip(self.members, copy.members, strict=True):
            with mine.lock:
                model._vector.values[:] = mine._vector.values
                model._draws = mine._draws
                model._ready_optimizer()
                model.optimizer.set_state(mine.optimizer.state())
        index = Index(self.source(panel))
        steps = max(1, round(epochs * len(index) / self.plan.budget.batch_size))
        budget = Budget(steps, self.plan.budget.batch_size, learning_rate)
        for model in copy.members:
            model.optimizer.learning_rate = PiecewiseConstantDecay([1], [learning_rate, learning_rate])
        copy.fit(panel, budget=budget, seed=seed, verbose=verbose)
        return copy

    # ---- forecasts

    def source(self, panel: Panel, future: np.ndarray | None = None, *, others: bool = False) -> Source:
        """A panel ready to be cut into windows, with the known covariates behind it.

        `others`: its ids are no names, so that what was learned of the series of the fit does not apply.
        """
        plan = self.plan
        if others:
            return Source(plan.layout, panel, Transform(plan.transform.log, plan.transform.period), future)
        return Source(plan.layout, panel, plan.transform, future, plan.places)

    @property
    def stepwise(self) -> bool:
        """Whether members go one step after another."""
        return self.plan.layout.stepwise

    def forecast(
        self, source: Source, series: np.ndarray, origins: np.ndarray, levels: Sequence[float] = (), seed: int = 0
    ) -> Forecast:
        """The median of the members' forecasts. Stepwise members need series that end at the origins."""
        each = [self._one(model, source, series, origins, levels, seed + k) for k, model in enumerate(self.members)]
        point, quantiles = (
            np.median(parts, axis=0) if len(parts) > 1 else parts[0] for parts in zip(*each, strict=True)
        )
        return Forecast(point, quantiles if len(levels) else None)

    def _one(
        self, model: Sequential, source: Source, series: np.ndarray, origins: np.ndarray, levels: Sequence[float],
        seed: int,
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """Points (N, H) and quantiles (N, H, Q) of one member."""
        target, horizon = self.plan.target, source.layout.horizon
        point = np.empty((len(series), horizon))
        quantiles = np.empty((len(series), horizon, len(levels)))
        if self.stepwise:
            drawn = self._paths(model, source, series, origins, seed)
            quantiles[...] = np.moveaxis(np.quantile(drawn, list(levels), axis=1), 0, -1) if len(levels) else 0
            return drawn.mean(axis=1), quantiles
        for part, found, out in outputs(model, self.plan.body, source, series, origins):
            shift = found.base
            if target.counts:
                scale = np.repeat(found.place[:, 1], horizon)
                out = scaled_up(out.reshape(-1, target.outputs), scale)[0].reshape(out.shape)
                found.place[:] = 0, 1

            def back(values: np.ndarray, part: Any = part, found: Any = found) -> np.ndarray:
                return source.original(values, found.place, series[part], origins[part])

            point[part] = back(target.point(out) + shift)
            if len(levels):
                quantiles[part] = back(target.quantiles(out, levels) + shift[..., None])
        return point, quantiles

    def _paths(
        self, model: Sequential, source: Source, series: np.ndarray, origins: np.ndarray, seed: int, count: int = 0
    ) -> np.ndarray:
        """Paths (N, n, H) in the unit of the series: `count` draws, or as many as a forecast needs."""
        target = self.plan.target
        random = hasattr(target.loss, "sample")
        if count and not random:
            target.sample(np.empty(0), np.random.default_rng())  # says which losses can
        rng = np.random.default_rng([seed, 3]) if random else None
        drawn = paths(model, target, source, series, origins, rng, count or (_PATHS if random else 1))
        place = source.gather(series, origins).place
        found = np.moveaxis(source.original(np.moveaxis(drawn, 1, 2), place, series, origins), 2, 1)
        return np.rint(found) if random and target.counts else found

    def sample(self, source: Source, series: np.ndarray, origins: np.ndarray, count: int, seed: int) -> np.ndarray:
        """Paths (N, count, H), shared out among the members."""
        if not self.stepwise:
            raise BadValue(
                "sample: paths need a model that goes step by step; make the Forecaster with head='recursive' and a "
                "loss such as 'normal', 'studentt', 'negbin' or 'poisson'"
            )
        shares = [len(part) for part in np.array_split(np.arange(count), len(self.members))]
        parts = [
            self._paths(model, source, series, origins, seed + k, n)
            for k, (model, n) in enumerate(zip(self.members, shares, strict=True))
            if n
        ]
        return np.concatenate(parts, axis=1)


def _learns(source: Source) -> bool:
    """Whether a value is observed behind the first row of a series, where all windows have targets."""
    seen = ~np.isnan(source.values)
    seen[source.offsets[:-1][source.lengths > 0]] = False
    return bool(seen.any())


def _shaped(model: Sequential, plan: Plan, seed: int, rows: int) -> Sequential:
    """A user's model of vectors (H * P,), with these as steps (H, P)."""
    from elman.layers import Input, Reshape
    from elman.layers.base import deserialize

    inner = [deserialize(part) for part in model.get_config()["layers"]]
    shape = plan.layout.horizon, plan.target.outputs
    return Sequential([Input((rows, len(plan.layout.columns))), *inner, Reshape(shape)], model.dtype.name, seed)
