"""Callbacks: hooks into training with Keras's method names, and `History`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from elman import checks
from elman.errors import BadType, BadValue

Logs = dict[str, float]

HOOKS = [
    f"on_{where}_{when}"
    for where in ("train", "test", "predict", "epoch", "train_batch", "test_batch", "predict_batch")
    for when in ("begin", "end")
]


class Callback:
    """Base class of callbacks; every hook does nothing.

    A subclass overrides the hooks it needs: ``on_train_begin(logs)``, ``on_train_end(logs)``, ``on_epoch_begin(epoch,
    logs)``, ``on_epoch_end(epoch, logs)``, ``on_train_batch_begin(batch, logs)``, ``on_train_batch_end(batch, logs)``,
    and the same for ``test`` and ``predict``. Epochs and batches count from 0. `logs` holds the loss and metrics so
    far. A hook may set ``self.model.stop_training = True``, which ends training after the running epoch's step.

    Attributes
    ----------
    model : Sequential
        The model in training.
    params : dict
        "epochs", "steps" and "verbose".
    validation_freq : int
        `fit` validates every so many epochs; 0 where it does not.

    Notes
    -----
    A hook that raises ends `fit` at once, and the error reaches the caller. The weights and the state of the optimizer
    are then those after the last batch that was finished, so that a `fit` with ``initial_epoch`` goes on from there. No
    further hook is called, `on_train_end` neither: what it would do, such as restoring weights, would hide the state
    that led to the error. A callback should therefore hold nothing open between two hooks. After an interrupt from
    the keyboard no hook is called either; it waits for the end of a batch, but not for that of a hook.

    A hook may predict, evaluate, copy and save the model, and fit other ones; fitting its own is an error.

    Examples
    --------
    >>> import numpy as np
    >>> import elman
    >>> class Stop(elman.callbacks.Callback):
    ...     def on_epoch_end(self, epoch, logs):
    ...         self.model.stop_training = epoch == 1
    >>> model = elman.Sequential([elman.layers.SimpleRNN(2), elman.layers.Dense(1)], seed=0)
    >>> model.compile("sgd", "mse")
    >>> history = model.fit(np.ones((4, 3, 1)), np.ones(4), epochs=9, verbose=0, callbacks=[Stop()])
    >>> history.epoch
    [0, 1]
    """

    model: Any = None
    params: dict[str, Any] | None = None
    validation_freq: int = 0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, value in vars(cls).items():
            if name.startswith("on_") and name not in HOOKS and callable(value):
                near = difflib.get_close_matches(name.replace("on_batch", "on_train_batch"), HOOKS, 1, 0.9)
                if near:  # other names are the subclass's own
                    raise BadValue(f"{cls.__name__}: {name!r} is no hook, which {near[0]!r} is; fit would not call it")

    def set_model(self, model: Any) -> None:
        """Called once before training."""
        self.model = model

    def set_params(self, params: dict[str, Any]) -> None:
        """Called once before training."""
        self.params = params

    def get_state(self) -> dict[str, Any]:
        """What `BackupAndRestore` is to keep: JSON values, arrays, and lists and dicts of these. Nothing by default."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what `get_state` gave; called after ``on_train_begin`` when a training is restored."""


def _nothing(self: Callback, *args: Any) -> None:
    """Do nothing."""


for _name in HOOKS:
    setattr(Callback, _name, _nothing)


class History(Callback):
    """What `fit` returns: the loss and metrics of every epoch.

    Attributes
    ----------
    history : dict of str to list of float
        One list per quantity, "val_" in front for the validation data.
    epoch : list of int
    skipped_updates : list of int
        For each of these epochs, the updates left out because a gradient was NaN or infinite.
    params : dict

    Examples
    --------
    >>> import elman
    >>> history = elman.callbacks.History()
    >>> history.on_epoch_end(0, {"loss": 0.5})
    >>> history.history
    {'loss': [0.5]}
    """

    def __init__(self) -> None:
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []
        self.skipped_updates: list[int] = []

    def get_state(self) -> dict[str, Any]:
        """Everything so far."""
        return {"history": self.history, "epoch": self.epoch, "skipped_updates": self.skipped_updates}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.history, self.epoch = state["history"], state["epoch"]
        self.skipped_updates = state["skipped_updates"]

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Append the epoch's values."""
        self.epoch.append(epoch)
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)


class Hooks:
    """Calls a hook on all callbacks that override it, in their class or, as `LambdaCallback`, in the instance."""

    def __init__(
        self, callbacks: Iterable[Callback] | None, model: Any, params: dict[str, Any], first: Iterable[Callback] = ()
    ) -> None:
        if not isinstance(callbacks, (Iterable, type(None))):
            raise BadType(f"callbacks: expected a list of callbacks, got {type(callbacks).__name__} {callbacks!r}")
        given = [*first, *([] if callbacks is None else checks.entries("callbacks", callbacks))]
        # History comes late: others add to the logs of an epoch, such as its learning rate. Last come those who look
        # at all others: what they back up, and restore over the begin of a training, is then complete.
        late = lambda callback: 2 if hasattr(callback, "set_callbacks") else int(isinstance(callback, History))
        self._callbacks = sorted(given, key=late)
        for callback in self._callbacks:
            if not isinstance(callback, Callback):
                raise BadType(f"callbacks: expected elman.callbacks.Callback instances, got {type(callback).__name__}")
        for callback in self._callbacks:
            callback.set_model(model)
            callback.set_params(params)
            if hasattr(callback, "set_callbacks"):
                callback.set_callbacks(self._callbacks)
        self._by_hook = {
            name: [m for m in (getattr(c, name) for c in self._callbacks) if getattr(m, "__func__", m) is not _nothing]
            for name in HOOKS
        }

    def announce_validation(self, every: int) -> None:
        """Tell all callbacks that the fit to come validates every so many epochs, 0 for never."""
        for callback in self._callbacks:
            callback.validation_freq = every

    def wants(self, hook: str) -> bool:
        """Whether any callback overrides `hook`."""
        return bool(self._by_hook[hook])

    def call(self, hook: str, *args: Any) -> None:
        """Call `hook` on all who override it, in order."""
        for method in self._by_hook[hook]:
            method(*args)
