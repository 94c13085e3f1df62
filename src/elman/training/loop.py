"""The loops behind fit, evaluate and predict."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from elman import checks, metrics
from elman.errors import BadType, BadValue
from elman.interrupts import Interrupts
from elman.loss import Loss
from elman.metrics import Metric
from elman.threads import sharing
from elman.training.batches import Batch, windows
from elman.training.callbacks import History, Hooks, Logs
from elman.training.data import Rows
from elman.training.inputs import Stream
from elman.training.progress import Progress, check_verbose


class Scores:
    """Running means of the loss and the metrics over batches."""

    def __init__(self, metrics: list[Metric], weighted: list[Metric], loss: Loss) -> None:
        self.metrics, self.weighted, self._predictions = metrics, weighted, loss.predictions
        self._names = _names(metrics, weighted)
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._sum, self._count = 0.0, 0
        for metric in (*self.metrics, *self.weighted):
            metric.reset_state()

    def add(self, batch: Batch, loss: float, outputs: np.ndarray, mask: np.ndarray | None) -> None:
        """One batch with its loss, its outputs, and which of their steps count: all without a mask.

        The loss weighs as many as there are samples; in a window, as many as there are steps that count.
        """
        size = len(outputs)
        if batch.window is not None and outputs.ndim > 2:
            size = outputs.shape[0] * outputs.shape[1] if mask is None else int(np.count_nonzero(mask))
        self._sum += loss * size
        self._count += size
        y, w = batch.y, batch.w
        skip = 0 if batch.window is None else batch.window.skip
        if skip:
            y, w, mask = (None if a is None else a[:, skip:] for a in (y, w, mask))
            outputs = outputs[:, skip:]
        if self.metrics or self.weighted:
            outputs = self._predictions(outputs)
        for metric in self.metrics:
            metric.update_state(y, outputs, mask)
        if self.weighted:
            both = w if mask is None else mask if w is None else w * mask
            for metric in self.weighted:
                metric.update_state(y, outputs, both)

    def rehearse(self, y: np.ndarray, outputs: np.ndarray) -> None:
        """ValueError, with its name, for a metric that cannot take such targets and outputs; better now than later."""
        outputs = self._predictions(outputs)
        for metric in (*self.metrics, *self.weighted):
            try:
                metric.update_state(y, outputs)
            except ValueError as error:
                raise BadValue(f"metrics: {metric.name!r} does not fit the model and its targets: {error}") from None
        self.reset()

    def logs(self, prefix: str = "") -> Logs:
        """The means so far, "loss" first."""
        values = [self.loss, *[m.result() for m in (*self.metrics, *self.weighted)]]
        return {prefix + name: value for name, value in zip(self._names, values, strict=True)}

    @property
    def loss(self) -> float:
        """The mean loss so far."""
        return self._sum / max(1, self._count)


def _names(plain: list[Metric], weighted: list[Metric]) -> list[str]:
    """Names of the results, "loss" first: a number behind those that are taken, as Keras has it.

    ValueError for a metric with the name of something else that stands in the logs.
    """
    names = ["loss"]
    for metric in (*plain, *weighted):
        if metric.name in ("loss", "epoch"):
            raise BadValue(f"metrics: a metric cannot have the name {metric.name!r}; give it another one")
        name = base = metric.name
        if len(names) > len(plain) and base in names:
            name = base = f"weighted_{base}"
        number = 0
        while name in names:
            number += 1
            name = f"{base}_{number}"
        names.append(name)
    return names


def make_scores(names: tuple[list[Any], list[Any]], loss: Loss, output_shape: tuple[int | None, ...]) -> Scores:
    """Scores for what `compile` was given. A metric instance is copied: two models must not add up in one."""
    plain, weighted = (
        [copy.deepcopy(metrics.get(m, loss=loss, output_shape=output_shape)) for m in group] for group in names
    )
    return Scores(plain, weighted, loss)


@dataclass(frozen=True)
class Schedule:
    """The numbers `fit` runs by."""

    batch_size: int
    epochs: int
    initial_epoch: int
    shuffle: bool
    steps: int | None
    verbose: int
    validation_batch_size: int
    validation_steps: int | None
    validation_freq: int
    tbptt: tuple[int, int] | None = None
    per_step: bool = False


def count_steps(argument: str, n: int, batch_size: int, steps: Any, windows: int = 1) -> int:
    """Batches of an epoch, each of some windows: all of them, or the first `steps`."""
    whole = -(-n // batch_size) * windows
    if steps is None:
        return whole
    steps = checks.integer(argument, steps)
    if steps > whole:
        kind = "batches" if windows == 1 else "windows, in batches"
        raise BadValue(f"{argument}: {n} samples give {whole} {kind} of {batch_size}, got {steps}")
    return steps


def plan(
    n: int | None, validation: Any, batch_size: Any, epochs: Any, verbose: Any, shuffle: bool, initial_epoch: Any,
    steps_per_epoch: Any, validation_steps: Any, validation_batch_size: Any, validation_freq: Any, windows: int,
    tbptt: tuple[int, int] | None, *, per_step: bool,
) -> Schedule:  # fmt: skip
    """Check the numbers given to `fit`, for n samples (None: batches that come one by one), each of some windows."""
    size = 32 if batch_size is None else checks.integer("batch_size", batch_size)
    validation_size = size
    if validation_batch_size is not None:
        validation_size = checks.integer("validation_batch_size", validation_batch_size)
    validation_count = None
    if isinstance(validation, Rows):
        validation_count = count_steps("validation_steps", len(validation), validation_size, validation_steps)
    elif validation is not None and validation_steps is not None:
        validation_count = checks.integer("validation_steps", validation_steps)
    if n is None:
        steps = None if steps_per_epoch is None else checks.integer("steps_per_epoch", steps_per_epoch)
    else:
        steps = count_steps("steps_per_epoch", n, size, steps_per_epoch, windows)
    return Schedule(
        batch_size=size,
        epochs=checks.integer("epochs", epochs, 0),
        initial_epoch=checks.integer("initial_epoch", initial_epoch, 0),
        shuffle=shuffle,
        steps=steps,
        verbose=check_verbose(verbose),
        validation_batch_size=validation_size,
        validation_steps=validation_count,
        validation_freq=checks.integer("validation_freq", validation_freq),
        tbptt=tbptt,
        per_step=per_step,
    )


def fit(
    model: Any, rows: Rows | Stream, validation: Rows | Stream | None, plan: Schedule, hooks: Hooks, scores: Scores,
    rng: np.random.Generator, history: History,
) -> None:  # fmt: skip
    """Train epoch by epoch."""
    with Interrupts(held=True) as interrupts, model.running(trains=True):
        try:
            interrupts.release()
            _fit(model, rows, validation, plan, hooks, scores, rng, history, interrupts)
        finally:
            interrupts.held = True


def _fit(
    model: Any, rows: Rows | Stream, validation: Rows | Stream | None, plan: Schedule, hooks: Hooks, scores: Scores,
    rng: np.random.Generator, history: History, interrupts: Interrupts,
) -> None:  # fmt: skip
    model.stop_training, model.skip_warning_due = False, True
    hooks.announce_validation(0 if validation is None else plan.validation_freq)
    model.resume_epoch = None
    hooks.call("on_train_begin", {})
    first = plan.initial_epoch if model.resume_epoch is None else model.resume_epoch
    logs: Logs = {}
    for epoch in range(first, plan.epochs):
        hooks.call("on_epoch_begin", epoch, {})
        progress = Progress(plan.verbose, plan.steps, f"Epoch {epoch + 1}/{plan.epochs}")
        scores.reset()
        model.reset_states("train")
        order = rows.shuffled(rng) if plan.shuffle else None
        skipped = model.skipped_updates
        _train_epoch(model, rows, plan, order, hooks, scores, progress, interrupts)
        history.skipped_updates.append(model.skipped_updates - skipped)
        logs = scores.logs()
        if validation is not None and (epoch + 1) % plan.validation_freq == 0:
            steps = plan.validation_steps
            logs |= evaluate(model, validation, plan.validation_batch_size, steps, hooks, scores, "val_")
        progress.end(logs)
        hooks.call("on_epoch_end", epoch, logs)
        if model.stop_training:
            break
    interrupts.held = True
    with model.lock:
        if first < plan.epochs:
            model.optimizer.finalize(model._vector.values)
        if plan.tbptt is not None:
            model.reset_states("train")
    interrupts.release()
    hooks.call("on_train_end", logs)


def _steps(rows: Rows | Stream, plan: Schedule, order: Any, *, sort: bool) -> Iterator[Batch]:
    """What an epoch trains on, one after another: batches, or their windows."""
    if plan.tbptt is None:
        return rows.batches(plan.batch_size, order, plan.steps, sort=sort)
    batches = rows.batches(plan.batch_size, order, sort=sort)
    cut = (part for batch in batches for part in windows(batch, plan.tbptt, per_step=plan.per_step))
    return islice(cut, plan.steps)


def _train_epoch(
    model: Any, rows: Rows | Stream, plan: Schedule, order: Any, hooks: Hooks, scores: Scores, progress: Progress,
    interrupts: Interrupts,
) -> None:  # fmt: skip
    before, after = hooks.wants("on_train_batch_begin"), hooks.wants("on_train_batch_end")
    for k, batch in enumerate(_steps(rows, plan, order, sort=not model._stateful)):
        if before:
            hooks.call("on_train_batch_begin", k, {})
        interrupts.held = True
        with model.lock:
            found = model.train_step(batch)
            if found is not None:
                scores.add(batch, *found)
        interrupts.release()
        progress.step(k + 1, scores.loss)
        if after:
            hooks.call("on_train_batch_end", k, scores.logs())
        if model.stop_training:
            return


def evaluate(
    model: Any, rows: Rows | Stream, batch_size: int, steps: int | None, hooks: Hooks, scores: Scores, prefix: str = ""
) -> Logs:
    """Loss and metrics over `rows`, under names with `prefix`."""
    # Within another evaluation, from a callback, its states go on afterwards.
    with model.running(), model.whole(rows), model.own_states("validation"):
        return _evaluate(model, rows, batch_size, steps, hooks, scores, prefix)


def _evaluate(
    model: Any, rows: Rows | Stream, batch_size: int, steps: int | None, hooks: Hooks, scores: Scores, prefix: str
) -> Logs:
    scores.reset()
    model.reset_states("validation")
    hooks.call("on_test_begin", {})
    batches = rows.batches(batch_size, None, steps, sort=not model._stateful)
    if rows.pieces is not None:
        cut = rows.pieces, rows.pieces
        batches = (part for batch in batches for part in windows(batch, cut, per_step=True))
    for k, batch in enumerate(batches):
        hooks.call("on_test_batch_begin", k, {})
        with model.lock:
            scores.add(batch, *model.test_step(batch))
        if hooks.wants("on_test_batch_end"):
            hooks.call("on_test_batch_end", k, scores.logs())
    if rows.pieces is not None:
        model.reset_states("validation")
    logs = scores.logs(prefix)
    hooks.call("on_test_end", logs)
    return logs


def predict(model: Any, rows: Rows, batch_size: int, steps: int, hooks: Hooks) -> np.ndarray:
    """Outputs of the first `steps` batches of `rows`."""
    with sharing(), model.whole():
        return _predict(model, rows, batch_size, steps, hooks)


def _predict(model: Any, rows: Rows, batch_size: int, steps: int, hooks: Hooks) -> np.ndarray:
    hooks.call("on_predict_begin", {})
    count = min(len(rows), steps * batch_size)
    outputs: Any = None
    for k, batch in enumerate(rows.batches(batch_size, None, steps, sort=not model._stateful)):
        hooks.call("on_predict_batch_begin", k, {})
        with model.lock:
            part = model.predict_step(batch)
            if outputs is None:
                outputs = np.empty((count, *part.shape[1:]), part.dtype)
            outputs[batch.rows] = part
        hooks.call("on_predict_batch_end", k, {})
    hooks.call("on_predict_end", {})
    return outputs


def predict_stream(model: Any, rows: Stream, steps: int | None, hooks: Hooks) -> np.ndarray:
    """Outputs of batches that come one by one."""
    with sharing(), model.whole():
        return _predict_stream(model, rows, steps, hooks)


def _predict_stream(model: Any, rows: Stream, steps: int | None, hooks: Hooks) -> np.ndarray:
    hooks.call("on_predict_begin", {})
    parts: list[np.ndarray] = []
    for k, batch in enumerate(rows.batches(0, None, steps, sort=not model._stateful)):
        hooks.call("on_predict_batch_begin", k, {})
        with model.lock:
            found = model.predict_step(batch)
            parts.append(np.empty_like(found))
            parts[-1][batch.rows] = found
        if parts[-1].shape[1:] != parts[0].shape[1:]:
            shapes = parts[0].shape[1:], parts[-1].shape[1:]
            raise BadValue(f"x: batch {k} gives outputs of shape {shapes[1]}, the first one of {shapes[0]}")
        hooks.call("on_predict_batch_end", k, {})
    hooks.call("on_predict_end", {})
    return np.concatenate(parts)


def metric_list(argument: str, given: Any) -> list[Any]:
    """`given` as a list; a bare name, whose letters would pass for names, is a TypeError."""
    if given is not None and not isinstance(given, (list, tuple)):
        raise BadType(f"{argument}: expected a list of metrics or their names, got {type(given).__name__} {given!r}")
    return list(given or [])


def results(logs: Logs, *, return_dict: bool) -> float | list[float] | Logs:
    """What `evaluate` returns: a dict, a number, or the loss and the metrics."""
    values = list(logs.values())
    return logs if return_dict else values[0] if len(values) == 1 else values
