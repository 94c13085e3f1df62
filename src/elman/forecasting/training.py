"""Training of the members of a forecaster: batches of windows, and models side by side."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from elman import optimizers, schedules
from elman.callbacks import Callback, EarlyStopping
from elman.data import Permutation
from elman.forecasting.layout import Gathered, Index, Source
from elman.forecasting.network import Body, reads_future
from elman.forecasting.targets import Target
from elman.model import Sequential
from elman.threads import get_num_threads, num_threads

_CHECKS = 20
"""How often a training is validated."""
_CHUNK = 1024
"""Windows gathered at a time for forecasts."""


def model_input(body: Body, source: Source, found: Gathered) -> np.ndarray:
    """The rows of windows that the model reads."""
    return found.x if reads_future(body, source.layout) else found.x[:, : source.layout.lookback]


def model_mask(body: Body, source: Source, found: Gathered) -> np.ndarray | None:
    """Their mask; None where nothing is padding."""
    if found.mask.all():
        return None
    return found.mask if reads_future(body, source.layout) else found.mask[:, : source.layout.lookback]


class Batches:
    """Batches for `Sequential.fit`, an endless random order of windows or one pass over some.

    Parameters
    ----------
    source, target, body
        What the windows are cut from, trained for and read by.
    series, origins : ndarray of int64, optional
        The windows of one pass.
    index, seed, size
        In place of them: all windows, shuffled from a seed, `size` at a time.
    """

    def __init__(
        self, source: Source, target: Target, body: Body, *, series: np.ndarray | None = None,
        origins: np.ndarray | None = None, index: Index | None = None, seed: int = 0, size: int = 64,
    ) -> None:  # fmt: skip
        self._source, self._target, self._body = source, target, body
        self._series, self._origins, self._index, self._size = series, origins, index, size
        self._rng = np.random.default_rng([seed, 2])
        if index is not None:
            self._order, self._place = Permutation(len(index), self._rng), 0

    def _next(self) -> np.ndarray:
        """The numbers of the next windows; a pass ends within a batch, and the next begins."""
        parts, missing = [], self._size
        while missing:
            parts.append(self._order[self._place : self._place + missing])
            missing -= len(parts[-1])
            self._place += len(parts[-1])
            if self._place >= len(self._order):
                self._order, self._place = Permutation(len(self._index), self._rng), 0
        return np.concatenate(parts)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if self._index is None:
            for start in range(0, len(self._series), _CHUNK):
                part = slice(start, start + _CHUNK)
                yield self._batch(self._series[part], self._origins[part])
            return
        while True:
            yield self._batch(*self._index.windows(self._next()))

    def _batch(self, series: np.ndarray, origins: np.ndarray) -> dict[str, Any]:
        found = self._source.gather(series, origins)
        weights = None
        observed = int(np.count_nonzero(found.w))
        if observed < found.w.size:
            # The mean over the targets there are.
            weights = found.w * np.float32(found.w.size / max(1, observed))
        y = found.y[..., None]
        if self._target.counts:
            scale = np.broadcast_to(found.place[:, 1:], found.y.shape)
            y = np.stack([np.rint(found.y * scale), scale], axis=-1).astype(np.float32)
        return {
            "x": model_input(self._body, self._source, found), "y": y, "sample_weight": weights,
            "mask": model_mask(self._body, self._source, found),
        }  # fmt: skip


@dataclass(frozen=True)
class Budget:
    """How long a member is trained."""

    steps: int
    batch_size: int
    learning_rate: float
    checks: int = _CHECKS

    @property
    def parts(self) -> list[int]:
        """Steps from one validation to the next."""
        count = max(1, min(self.checks, self.steps))
        edges = np.linspace(0, self.steps, count + 1).round().astype(int)
        return np.diff(edges).tolist()


class _Report(Callback):
    """Counts steps on a bar."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
        self._bar.update(1)


def train(
    model: Sequential, batches: Batches, validation: Batches | None, budget: Budget, bar: Any = None
) -> dict[str, list[float]]:
    """Train one member; with validation its best weights are restored. Returns the history."""
    steps = max(1, budget.steps // max(1, min(budget.checks, budget.steps)))
    epochs = -(-budget.steps // steps)
    callbacks: list[Callback] = [] if bar is None else [_Report(bar)]
    more: dict[str, Any] = {}
    if validation is not None:
        callbacks.append(EarlyStopping(patience=epochs, restore_best_weights=True))
        more = {"validation_data": validation}
    history = model.fit(
        batches, epochs=epochs, steps_per_epoch=steps, verbose=0, shuffle=False, callbacks=callbacks, **more
    )
    return history.history


def compiled(model: Sequential, target: Target, budget: Budget) -> Sequential:
    """The model with Adam, its rate falling along a cosine, for the loss of the target."""
    rate = schedules.CosineDecay(budget.learning_rate, max(1, budget.steps), alpha=0.02)
    model.compile(optimizers.Adam(rate, global_clipnorm=1.0), target.loss)
    return model


@contextlib.contextmanager
def progress(total: int, verbose: bool) -> Iterator[Any]:
    """One line that is redrawn, on a terminal only; None where there is none."""
    if not verbose:
        yield None
        return
    from tqdm import tqdm

    with tqdm(total=total, disable=None, unit="step", desc="fit", leave=False, dynamic_ncols=True) as bar:
        yield None if bar.disable else bar


def side_by_side(jobs: list[Any]) -> list[Any]:
    """Run functions of no arguments, one per thread, each of whose kernels then take one; in order of the jobs."""
    threads = min(len(jobs), get_num_threads())
    if threads == 1:
        return [job() for job in jobs]

    def alone(job: Any) -> Any:
        with num_threads(1):
            return job()

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(alone, jobs))


def outputs(model: Sequential, body: Body, source: Source, series: np.ndarray, origins: np.ndarray) -> Iterator[tuple]:
    """Outputs of a model for windows, some at a time: their slice, the windows, and (b, H, P)."""
    for start in range(0, len(series), _CHUNK):
        part = slice(start, start + _CHUNK)
        found = source.gather(series[part], origins[part])
        out = model.predict(model_input(body, source, found), batch_size=_CHUNK, mask=model_mask(body, source, found))
        yield part, found, out.reshape(len(out), source.layout.horizon, -1)
