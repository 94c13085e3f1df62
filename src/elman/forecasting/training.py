"""Training of the members of a forecaster: batches of windows, and models side by side."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import numpy as np

from elman import optimizers, schedules
from elman.callbacks import Callback, EarlyStopping
from elman.data import Permutation
from elman.forecasting.layout import Gathered, Index, Source
from elman.forecasting.network import Body, reads_future
from elman.forecasting.targets import Target
from elman.interrupts import Interrupts
from elman.model import Sequential
from elman.threads import get_num_threads, num_threads

_CHECKS = 20
"""How often a training is validated."""
_CHUNK = 1024
"""Windows gathered at a time."""


def gathered(body: Body, source: Source, series: np.ndarray, origins: np.ndarray) -> tuple[Gathered, np.ndarray | None]:
    """Windows with the rows that the model reads, and their mask; None where nothing is padding."""
    found = source.gather(series, origins, future=reads_future(body, source.layout))
    return found, None if found.mask.all() else found.mask


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
            # One for all epochs: an epoch may end among windows that were gathered together.
            self._endless = self._shuffled()

    def _next(self) -> np.ndarray:
        """The numbers of the next windows, of many batches; a pass ends among them, and the next begins."""
        count, parts = max(1, _CHUNK // self._size) * self._size, []
        while count:
            part = self._order[self._place : self._place + count]
            parts.append(part)
            count -= len(part)
            self._place += len(part)
            if self._place >= len(self._order):
                self._order, self._place = Permutation(len(self._index), self._rng), 0
        return np.concatenate(parts)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self._once() if self._index is None else self._endless

    def _once(self) -> Iterator[dict[str, Any]]:
        for start in range(0, len(self._series), _CHUNK):
            part = slice(start, start + _CHUNK)
            yield from self._batches(self._series[part], self._origins[part], _CHUNK)

    def _shuffled(self) -> Iterator[dict[str, Any]]:
        while True:
            series, origins = self._index.windows(self._next())
            yield from self._batches(series, origins, self._size)

    def _batches(self, series: np.ndarray, origins: np.ndarray, size: int) -> Iterator[dict[str, Any]]:
        """Windows gathered at once, `size` at a time."""
        found, mask = gathered(self._body, self._source, series, origins)
        y = found.y[..., None]
        if self._target.counts:
            scale = np.broadcast_to(found.place[:, 1:], found.y.shape)
            y = np.stack([np.rint(found.y * scale), scale], axis=-1).astype(np.float32)
        complete = bool(found.w.all())
        for start in range(0, len(series), size):
            part = slice(start, start + size)
            batch = {"x": found.x[part], "y": y[part]}
            if not complete:
                w = found.w[part]
                observed = int(np.count_nonzero(w))
                if observed < w.size:
                    # The mean over the targets there are.
                    batch["sample_weight"] = w * np.float32(w.size / max(1, observed))
            if mask is not None and not mask[part].all():
                batch["mask"] = mask[part]
            yield batch


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


class _Stop(Callback):
    """Ends a training after its batch once an event is set."""

    def __init__(self, event: threading.Event) -> None:
        self._event = event

    def on_train_batch_begin(self, batch: int, logs: dict[str, float]) -> None:
        if self._event.is_set():
            self.model.stop_training = True


class _Report(Callback):
    """Counts steps on a bar."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
        self._bar.update(1)


def train(
    model: Sequential, batches: Batches, validation: Batches | None, budget: Budget, stop: threading.Event,
    bar: Any = None,
) -> dict[str, list[float]]:  # fmt: skip
    """Train one member until `stop` is set; with validation its best weights are restored. Returns the history."""
    steps = max(1, budget.steps // max(1, min(budget.checks, budget.steps)))
    epochs = -(-budget.steps // steps)
    callbacks: list[Callback] = [_Stop(stop)] if bar is None else [_Stop(stop), _Report(bar)]
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


def side_by_side(jobs: list[Any], stop: threading.Event) -> list[Any]:
    """Run functions of no arguments, one per thread, each of whose kernels then take one; in order of the jobs.

    Those left over share the threads: of 5 on two threads, the last has both. An error in one of them, or an interrupt,
    sets `stop` and waits until they all have ended.
    """
    threads = get_num_threads()
    whole = len(jobs) // threads * threads
    return [result for part in (jobs[:whole], jobs[whole:]) for result in _shared(part, threads, stop)]


def _shared(jobs: list[Any], threads: int, stop: threading.Event) -> list[Any]:
    if len(jobs) < 2 or threads == 1:
        return [job() for job in jobs]
    each = max(1, threads // len(jobs))

    def alone(job: Any) -> Any:
        with num_threads(each):
            return job()

    # Python's own waiting bears no interrupt: one that comes right before it does not end it, one within it becomes a
    # RuntimeError of its lock.
    with Interrupts(held=True) as interrupts:
        pool = ThreadPoolExecutor(min(len(jobs), threads))
        try:
            running = [pool.submit(alone, job) for job in jobs]
            left: Any = running
            while left and not any(one.done() and one.exception() for one in running):
                left = wait(running, 0.1, FIRST_EXCEPTION).not_done
                interrupts.release()
                interrupts.held = True
            return [one.result() for one in running if one.done()]
        except BaseException:
            stop.set()
            raise
        finally:
            interrupts.held = True
            pool.shutdown(cancel_futures=True)


def outputs(
    model: Sequential, body: Body, source: Source, series: np.ndarray, origins: np.ndarray
) -> Iterator[tuple[Any, ...]]:
    """Outputs of a model for windows, some at a time: their slice, the windows, and (b, H, P)."""
    for start in range(0, len(series), _CHUNK):
        part = slice(start, start + _CHUNK)
        found, mask = gathered(body, source, series[part], origins[part])
        out = model.predict(found.x, batch_size=_CHUNK, mask=mask)
        yield part, found, out.reshape(len(out), source.layout.horizon, -1)
