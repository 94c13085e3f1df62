"""The loops behind fit, evaluate and predict."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from elman import checks, metrics
from elman.loss import Loss
from elman.metrics import Metric
from elman.training.callbacks import Hooks, Logs
from elman.training.data import Rows
from elman.training.progress import Progress, check_verbose


class Trainable(Protocol):
    """What the loops need of a model."""

    stop_training: bool
    lock: Any

    def train_step(self, x: np.ndarray, y: np.ndarray, w: np.ndarray | None) -> tuple[float, np.ndarray]:
        """One update; loss and outputs (rows, O)."""

    def test_step(self, x: np.ndarray, y: np.ndarray, w: np.ndarray | None) -> tuple[float, np.ndarray]:
        """Loss and outputs without an update."""

    def predict_step(self, x: np.ndarray) -> np.ndarray:
        """Outputs; may return memory that the next call reuses."""


class Scores:
    """Running means of the loss and the metrics over batches."""

    def __init__(self, metrics: list[Metric], weighted: list[Metric]) -> None:
        self.metrics, self.weighted = metrics, weighted
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._sum, self._count = 0.0, 0
        for metric in (*self.metrics, *self.weighted):
            metric.reset_state()

    def add(self, loss: float, size: int, y: np.ndarray, outputs: np.ndarray, w: np.ndarray | None) -> None:
        """One batch of `size` samples."""
        self._sum += loss * size
        self._count += size
        for metric in self.metrics:
            metric.update_state(y, outputs)
        for metric in self.weighted:
            metric.update_state(y, outputs, w)

    def logs(self, prefix: str = "") -> Logs:
        """The means so far, "loss" first."""
        results = {"loss": self.loss, **{m.name: m.result() for m in self.metrics}}
        for m in self.weighted:
            results["weighted_" * (m.name in results) + m.name] = m.result()
        return {prefix + name: value for name, value in results.items()}

    @property
    def loss(self) -> float:
        """The mean loss so far."""
        return self._sum / max(1, self._count)


def make_scores(names: tuple[list, list], loss: Loss, output_shape: tuple[int | None, ...]) -> Scores:
    """Scores for what `compile` was given. A metric instance is copied: two models must not add up in one."""
    made = ([copy.deepcopy(metrics.get(m, loss=loss, output_shape=output_shape)) for m in group] for group in names)
    return Scores(*made)


@dataclass(frozen=True)
class Schedule:
    """The numbers `fit` runs by."""

    batch_size: int
    epochs: int
    initial_epoch: int
    shuffle: bool
    steps: int
    verbose: int
    validation_batch_size: int
    validation_steps: int | None
    validation_freq: int


def count_steps(argument: str, n: int, batch_size: int, steps: Any) -> int:
    """Batches of an epoch: all of them, or the first `steps`."""
    whole = -(-n // batch_size)
    if steps is None:
        return whole
    steps = checks.integer(argument, steps)
    if steps > whole:
        raise ValueError(f"{argument}: {n} samples give {whole} batches of {batch_size}, got {steps}")
    return steps


def plan(
    n: int, n_validation: int | None, batch_size: Any, epochs: Any, verbose: Any, shuffle: Any, initial_epoch: Any,
    steps_per_epoch: Any, validation_steps: Any, validation_batch_size: Any, validation_freq: Any,
) -> Schedule:  # fmt: skip
    """Check the numbers given to `fit`, for n samples and as many for validation."""
    size = 32 if batch_size is None else checks.integer("batch_size", batch_size)
    validation_size = size
    if validation_batch_size is not None:
        validation_size = checks.integer("validation_batch_size", validation_batch_size)
    validation = None
    if n_validation is not None:
        validation = count_steps("validation_steps", n_validation, validation_size, validation_steps)
    return Schedule(
        batch_size=size,
        epochs=checks.integer("epochs", epochs, 0),
        initial_epoch=checks.integer("initial_epoch", initial_epoch, 0),
        shuffle=checks.flag("shuffle", shuffle),
        steps=count_steps("steps_per_epoch", n, size, steps_per_epoch),
        verbose=check_verbose(verbose),
        validation_batch_size=validation_size,
        validation_steps=validation,
        validation_freq=checks.integer("validation_freq", validation_freq),
    )


def fit(
    model: Trainable, rows: Rows, validation: Rows | None, plan: Schedule, hooks: Hooks, scores: Scores,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    """Train epoch by epoch."""
    model.stop_training = False
    hooks.announce_validation(0 if validation is None else plan.validation_freq)
    hooks.call("on_train_begin", {})
    logs: Logs = {}
    for epoch in range(plan.initial_epoch, plan.epochs):
        hooks.call("on_epoch_begin", epoch, {})
        progress = Progress(plan.verbose, plan.steps, f"Epoch {epoch + 1}/{plan.epochs}")
        scores.reset()
        order = rng.permutation(len(rows)) if plan.shuffle else None
        _train_epoch(model, rows, plan, order, hooks, scores, progress)
        logs = scores.logs()
        if validation is not None and (epoch + 1) % plan.validation_freq == 0:
            steps = plan.validation_steps
            logs |= evaluate(model, validation, plan.validation_batch_size, steps, hooks, scores, "val_")
        progress.end(logs)
        hooks.call("on_epoch_end", epoch, logs)
        if model.stop_training:
            break
    hooks.call("on_train_end", logs)


def _train_epoch(
    model: Trainable, rows: Rows, plan: Schedule, order: np.ndarray | None, hooks: Hooks, scores: Scores,
    progress: Progress,
) -> None:  # fmt: skip
    before, after = hooks.wants("on_train_batch_begin"), hooks.wants("on_train_batch_end")
    for k, (x, y, w) in enumerate(rows.batches(plan.batch_size, order, plan.steps)):
        if before:
            hooks.call("on_train_batch_begin", k, {})
        with model.lock:
            loss, outputs = model.train_step(x, y, w)
            scores.add(loss, len(x), y, outputs, w)
        progress.step(k + 1, scores.loss)
        if after:
            hooks.call("on_train_batch_end", k, scores.logs())
        if model.stop_training:
            return


def evaluate(
    model: Trainable, rows: Rows, batch_size: int, steps: int | None, hooks: Hooks, scores: Scores, prefix: str = ""
) -> Logs:
    """Loss and metrics over `rows`, under names with `prefix`."""
    scores.reset()
    hooks.call("on_test_begin", {})
    for k, (x, y, w) in enumerate(rows.batches(batch_size, None, steps)):
        hooks.call("on_test_batch_begin", k, {})
        with model.lock:
            loss, outputs = model.test_step(x, y, w)
            scores.add(loss, len(x), y, outputs, w)
        if hooks.wants("on_test_batch_end"):
            hooks.call("on_test_batch_end", k, scores.logs())
    logs = scores.logs(prefix)
    hooks.call("on_test_end", logs)
    return logs


def predict(model: Trainable, rows: Rows, batch_size: int, steps: int, hooks: Hooks) -> np.ndarray:
    """Outputs of the first `steps` batches of `rows`."""
    hooks.call("on_predict_begin", {})
    count, outputs = min(len(rows), steps * batch_size), None
    for k, (x, _, _) in enumerate(rows.batches(batch_size, None, steps)):
        hooks.call("on_predict_batch_begin", k, {})
        with model.lock:
            part = model.predict_step(x)
            if outputs is None:
                outputs = np.empty((count, *part.shape[1:]), part.dtype)
            outputs[k * batch_size : k * batch_size + len(part)] = part
        hooks.call("on_predict_batch_end", k, {})
    hooks.call("on_predict_end", {})
    return outputs


def metric_list(argument: str, given: Any) -> list[Any]:
    """`given` as a list; a bare name, whose letters would pass for names, is a TypeError."""
    if given is not None and not isinstance(given, (list, tuple)):
        raise TypeError(f"{argument}: expected a list of metrics or their names, got {type(given).__name__} {given!r}")
    return list(given or [])


def results(logs: Logs, *, return_dict: bool) -> float | list[float] | Logs:
    """What `evaluate` returns: a dict, a number, or the loss and the metrics."""
    values = list(logs.values())
    return logs if return_dict else values[0] if len(values) == 1 else values
