"""Callbacks that follow one quantity: `EarlyStopping`, `ReduceLROnPlateau`, and their base."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from elman import checks, registry
from elman.errors import BadType, BadValue
from elman.training.callbacks import Callback, Logs
from elman.training.progress import check_verbose

# What "auto" can tell from a name; for any other it asks.
_FALLING = re.compile(r"(.*_)?loss|.*error|.*crossentropy|.*divergence|perplexity|mse|rmse|mae|mape|msle")
_RISING = re.compile(r".*acc|.*accuracy|.*auc|.*precision|.*recall|.*f1(_score)?|.*r2(_score)?")


def look_up(argument: str, name: str, logs: Logs, *, pending: bool) -> float | None:
    """The value called `name` in `logs`.

    None with `pending`, that is, where validation results are still to come, if it is one of these; ValueError with all
    names there are if it is unknown.
    """
    if name in logs:
        return float(logs[name])
    known = set(logs)
    if pending:
        known |= {f"val_{own}" for own in logs}
    if name in known:
        return None
    if name.startswith("val_") and not any(own.startswith("val_") for own in known):
        raise BadValue(
            f"{argument}: {name!r} needs validation_data or validation_split and the end of an epoch; without them "
            f"there are: {', '.join(sorted(known))}"
        )
    checks.choose(argument, name, known)
    return None


class Monitor(Callback):
    """Base of callbacks that follow one quantity: its value in an epoch, and what is better.

    Parameters
    ----------
    monitor : str
    mode : "auto", "min" or "max"
    min_delta : float
        By how much a value must be better than the best one; its sign does not matter.
    verbose : int
    """

    def __init__(self, monitor: str, mode: str, min_delta: float, verbose: Any) -> None:
        if not isinstance(monitor, str):
            raise BadType(f"monitor: expected a name such as 'val_loss', got {type(monitor).__name__} {monitor!r}")
        self.monitor = monitor
        self.mode = checks.choose("mode", mode, ("auto", "min", "max"))
        self.min_delta = abs(registry.number("min_delta", min_delta, -math.inf))
        self.verbose = check_verbose(verbose)
        self.best: float | None = None

    def pending(self, epoch: int) -> bool:
        """Whether `fit` validates, but not in this epoch."""
        return self.validation_freq > 0 and (epoch + 1) % self.validation_freq != 0

    def current(self, epoch: int, logs: Logs) -> float | None:
        """The monitored value; None in an epoch without the validation it needs, ValueError for an unknown name."""
        value = look_up("monitor", self.monitor, logs, pending=self.pending(epoch))
        if value is not None:
            self._sign()
        return value

    def improves(self, value: float, reference: float | None) -> bool:
        """Whether `value` is better than `reference` by more than `min_delta`; NaN never is, nor is it in the way."""
        sign = self._sign()
        bound = math.inf if reference is None else sign * reference
        return sign * value + self.min_delta < bound

    def _sign(self) -> int:
        """1 if the monitored quantity is to fall, -1 if it is to rise."""
        if self.mode != "auto":
            return 1 if self.mode == "min" else -1
        name = self.monitor.removeprefix("val_")
        if _FALLING.fullmatch(name):
            return 1
        if _RISING.fullmatch(name):
            return -1
        raise BadValue(f"mode: 'auto' cannot tell whether {self.monitor!r} is to fall or to rise; give 'min' or 'max'")


class EarlyStopping(Monitor):
    """End training when a quantity no longer improves.

    Parameters
    ----------
    monitor : str
        "loss", the name of a metric, or one of these with "val_" in front for the validation data.
    min_delta : float
        An improvement is a value better than the best so far by more than this. Its sign does not matter.
    patience : int
        Training ends at the `patience`-th epoch in a row without improvement; with 0, as with 1, at the first one,
        the first epoch of training included.
    verbose : int
        1 prints a line when training is ended and when weights are restored.
    mode : "auto", "min" or "max"
        Whether smaller or larger values are better. "auto" knows losses, errors, accuracies and their like by name.
    baseline : float, optional
        Epochs that do not improve on it either count as epochs without improvement.
    restore_best_weights : bool
        At the end of training, stopped early or not, go back to the best epoch, the first one of equals, whatever the
        baseline: weights and the state of the optimizer, which belongs to them, but not a learning rate that was set.
    start_from_epoch : int
        Epochs before this index are ignored.

    Attributes
    ----------
    best : float or None
        Best value of this training.
    best_epoch, stopped_epoch : int
        Indices; 0 if there is none.
    best_weights : list of ndarray or None
        Weights of the best epoch, with `restore_best_weights`. They stay here when an error or an interrupt ends `fit`,
        in which case nothing is restored: ``model.set_weights(callback.best_weights)`` does it.
    wait : int
        Epochs without improvement in a row.

    Raises
    ------
    ValueError, TypeError
        For arguments out of range; at the end of the first epoch for a `monitor` that is not there (the names that are
        there are listed), or whose direction "auto" cannot tell. The model is then as that epoch left it.

    Notes
    -----
    A NaN is never the best value, not as the first one either; nor is an epoch that leaves weights that are not finite,
    with `restore_best_weights`. Epochs without validation (``validation_freq``) are passed over where the quantity
    comes from validation. All counts start afresh with every `fit`.

    Examples
    --------
    >>> import numpy as np
    >>> import elman
    >>> model = elman.Sequential([elman.layers.SimpleRNN(2), elman.layers.Dense(1)], seed=0)
    >>> model.compile(elman.optimizers.SGD(0), "mse")
    >>> stop = elman.callbacks.EarlyStopping("loss", patience=3)
    >>> model.fit(np.ones((4, 3, 1)), np.ones(4), epochs=9, verbose=0, callbacks=[stop]).epoch
    [0, 1, 2, 3]
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        super().__init__(monitor, mode, min_delta, verbose)
        self.patience = checks.integer("patience", patience, 0)
        self.baseline = None if baseline is None else registry.number("baseline", baseline, -math.inf)
        self.restore_best_weights = checks.flag("restore_best_weights", restore_best_weights)
        self.start_from_epoch = checks.integer("start_from_epoch", start_from_epoch, 0)
        self._forget()

    def _forget(self) -> None:
        self.best: float | None = None
        self.best_epoch = self.stopped_epoch = self.wait = 0
        self.best_weights: list[np.ndarray] | None = None
        self._optimizer_state: dict[str, np.ndarray] | None = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Forget the last training."""
        self._forget()

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Compare; end training where it is time."""
        value = self.current(epoch, logs)
        if value is None or epoch < self.start_from_epoch:
            return
        better = self.improves(value, self.best) and (not self.restore_best_weights or self._keep_weights())
        if better:
            self.best, self.best_epoch = value, epoch
            if self.baseline is None or self.improves(value, self.baseline):
                self.wait = 0
                return
        self.wait += 1
        if self.wait >= self.patience:
            self.stopped_epoch = epoch
            self.model.stop_training = True
            if self.verbose:
                best = "" if self.best is None else f", the best was {self.best:.6g} in epoch {self.best_epoch + 1}"
                print(f"Epoch {epoch + 1}: early stopping, {self.monitor} is {value:.6g}{best}", flush=True)

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Go back to the best epoch."""
        if self.best_weights is None:
            return
        self.model.set_weights(self.best_weights)
        if self._optimizer_state is not None:
            self.model.optimizer.set_state(self._optimizer_state)
        if self.verbose:
            print(f"Weights of epoch {self.best_epoch + 1}, the best one, are restored", flush=True)

    def get_state(self) -> dict[str, Any]:
        """Best values and weights, and the counts."""
        names = ("best", "best_epoch", "stopped_epoch", "wait", "best_weights")
        return {**{name: getattr(self, name) for name in names}, "optimizer": self._optimizer_state}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self._optimizer_state = state["optimizer"]
        self.best, self.best_weights = state["best"], state["best_weights"]
        self.best_epoch, self.stopped_epoch, self.wait = state["best_epoch"], state["stopped_epoch"], state["wait"]

    def _keep_weights(self) -> bool:
        """Copy weights and optimizer state, unless weights are not finite."""
        weights = self.model.get_weights()
        if not all(np.isfinite(w).all() for w in weights):
            return False
        optimizer = self.model.optimizer
        self.best_weights = weights
        # Without a step there is no state, and the optimizer may not be built.
        self._optimizer_state = optimizer.state() if optimizer is not None and optimizer.calls else None
        return True


class ReduceLROnPlateau(Monitor):
    """Multiply the learning rate by a factor when a quantity no longer improves.

    Parameters
    ----------
    monitor : str
        As in `EarlyStopping`.
    factor : float
        In [0, 1).
    patience : int
        The rate is reduced at the `patience`-th epoch in a row without improvement; with 0, as with 1, at the first.
    verbose : int
        1 prints a line when the rate is reduced.
    mode : "auto", "min" or "max"
        As in `EarlyStopping`.
    min_delta : float
        An improvement is a value better than the best so far by more than this. Its sign does not matter.
    cooldown : int
        Epochs after a reduction that do not count.
    min_lr : float
        Lower bound of the rate.

    Raises
    ------
    ValueError, TypeError
        As in `EarlyStopping`.
    AttributeError
        When the rate is to be reduced, if a schedule gives it.

    Notes
    -----
    Adds "learning_rate", the rate the epoch was trained with, to the logs, hence to `History`. A NaN is no improvement.
    Counts and the best value start afresh with every `fit`; the learning rate stays reduced.

    Examples
    --------
    >>> import numpy as np
    >>> import elman
    >>> model = elman.Sequential([elman.layers.SimpleRNN(2), elman.layers.Dense(1)], seed=0)
    >>> model.compile(elman.optimizers.SGD(0.5), "mse")
    >>> reduce = elman.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=1e9)
    >>> history = model.fit(np.ones((4, 3, 1)), np.ones(4), epochs=3, verbose=0, callbacks=[reduce])
    >>> history.history["learning_rate"]
    [0.5, 0.5, 0.25]
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(monitor, mode, min_delta, verbose)
        self.factor = registry.number("factor", factor, 0)
        if self.factor >= 1:
            raise BadValue(f"factor: expected a number from 0 to below 1, got {factor!r}")
        self.patience = checks.integer("patience", patience, 0)
        self.cooldown = checks.integer("cooldown", cooldown, 0)
        self.min_lr = registry.number("min_lr", min_lr, 0)
        self._forget()

    def _forget(self) -> None:
        self.best: float | None = None
        self.wait = self.cooldown_counter = 0

    def get_state(self) -> dict[str, Any]:
        """Best value and counts; the learning rate is the optimizer's."""
        return {"best": self.best, "wait": self.wait, "cooldown_counter": self.cooldown_counter}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.best, self.wait, self.cooldown_counter = state["best"], state["wait"], state["cooldown_counter"]

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Forget the last training."""
        self._forget()

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Compare; reduce the rate where it is time."""
        value = self.current(epoch, logs)
        rate = self.model.optimizer.learning_rate
        logs.setdefault("learning_rate", rate)
        if value is None:
            return
        if self.cooldown_counter:
            self.cooldown_counter -= 1
        if self.improves(value, self.best):
            self.best, self.wait = value, 0
        elif not self.cooldown_counter:
            self.wait += 1
            if self.wait >= self.patience and rate > self.min_lr:
                self.model.optimizer.learning_rate = max(rate * self.factor, self.min_lr)
                self.wait, self.cooldown_counter = 0, self.cooldown
                if self.verbose:
                    now = self.model.optimizer.learning_rate
                    print(f"Epoch {epoch + 1}: the learning rate is reduced from {rate:.6g} to {now:.6g}", flush=True)
