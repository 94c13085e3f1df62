"""`ModelCheckpoint`: saves the model while it is trained."""

from __future__ import annotations

import math
import os
import string
from pathlib import Path
from typing import Any

from elman import checks, registry
from elman.errors import BadValue
from elman.training.callbacks import Logs
from elman.training.monitors import Monitor, look_up


class ModelCheckpoint(Monitor):
    """Save the whole model, optimizer and its state included, after epochs or every so many batches.

    Parameters
    ----------
    filepath : str or path-like
        With fields in braces, such as ``"model-{epoch:02d}-{val_loss:.3f}.npz"``: "epoch", counted from 1, "batch",
        from 1, with a number as `save_freq`, and what is in the logs. Folders are made where there are none. See
        `Sequential.save`; `elman.load_model` reads the file.
    monitor : str
        As in `EarlyStopping`; used with `save_best_only`.
    verbose : int
        1 prints a line per file, and with `save_best_only` also where none is saved.
    save_best_only : bool
        Save only where the monitored quantity is better than ever, also than in earlier calls of `fit` with this
        callback. A NaN is never better.
    mode : "auto", "min" or "max"
        As in `EarlyStopping`.
    save_freq : "epoch" or int
        Save at the end of every epoch, or after so many batches, counted across epochs. Between epochs the logs hold
        means so far and no validation results.
    initial_value_threshold : float, optional
        Best value to begin with, as when an earlier training is continued.

    Attributes
    ----------
    best : float or None
        Best value so far.

    Raises
    ------
    ValueError, TypeError
        For arguments out of range or an unreadable `filepath`; when the first file is due, for a `monitor` or a field
        that is not there: the names that are there are listed. `best` and the files are then as before.
    OSError
        If a file cannot be written. `best` is then as before.

    Notes
    -----
    A file is replaced as a whole or not at all. Files with weights alone are not offered: a file with everything serves
    the same ends, and training can go on from it. Epochs without validation (``validation_freq``) are passed over where
    the monitored quantity or a field comes from validation.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> import elman
    >>> model = elman.Sequential([elman.layers.SimpleRNN(2), elman.layers.Dense(1)], seed=0)
    >>> model.compile("sgd", "mse")
    >>> folder = tempfile.mkdtemp()
    >>> save = elman.callbacks.ModelCheckpoint(os.path.join(folder, "{epoch:02d}.npz"))
    >>> history = model.fit(np.ones((4, 3, 1)), np.ones(4), epochs=2, verbose=0, callbacks=[save])
    >>> sorted(os.listdir(folder))
    ['01.npz', '02.npz']
    """

    def __init__(
        self,
        filepath: str | os.PathLike[str],
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        *,
        mode: str = "auto",
        save_freq: str | int = "epoch",
        initial_value_threshold: float | None = None,
    ) -> None:
        super().__init__(monitor, mode, 0, verbose)
        self.filepath = checks.path("filepath", filepath)
        self.save_best_only = checks.flag("save_best_only", save_best_only)
        if isinstance(save_freq, str) and save_freq != "epoch":
            raise BadValue(f"save_freq: expected 'epoch' or a number of batches, got {save_freq!r}")
        self.save_freq = save_freq if checks.named(save_freq, "epoch") else checks.integer("save_freq", save_freq)
        self._fields = _fields(self.filepath)
        if "batch" in self._fields and self.save_freq == "epoch":
            raise BadValue("filepath: the field 'batch' needs a number of batches as save_freq, got 'epoch'")
        if initial_value_threshold is not None:
            self.best = registry.number("initial_value_threshold", initial_value_threshold, -math.inf)
        self._epoch = self._batches = 0
        if self.save_freq != "epoch":
            # Only then, since the loop makes logs of every batch for those who define this hook.
            self.on_train_batch_end = self._count_batch

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Remember the epoch for the file name."""
        self._epoch = epoch

    def _count_batch(self, batch: int, logs: Logs) -> None:
        self._batches += 1
        if self._batches % self.save_freq == 0:
            value = look_up("monitor", self.monitor, logs, pending=False) if self.save_best_only else None
            self._save(f"Epoch {self._epoch + 1}, batch {batch + 1}", value, self._path(logs, batch, pending=False))

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Save, if files go by epochs."""
        self._epoch = epoch
        if self.save_freq == "epoch":
            value = self.current(epoch, logs) if self.save_best_only else None
            path = self._path(logs, None, pending=self.pending(epoch))
            if value is not None or not self.save_best_only:
                self._save(f"Epoch {epoch + 1}", value, path)

    def get_state(self) -> dict[str, Any]:
        """Best value and the count of batches."""
        return {"best": self.best, "batches": self._batches}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.best, self._batches = state["best"], state["batches"]

    def _path(self, logs: Logs, batch: int | None, *, pending: bool) -> Path | None:
        """The file name; None where a field waits for validation."""
        values: dict[str, float | None] = {"epoch": self._epoch + 1}
        if batch is not None:
            values["batch"] = batch + 1
        for name in self._fields - set(values):
            values[name] = look_up("filepath", name, logs, pending=pending)
        if None in values.values():
            return None
        try:
            return Path(self.filepath.format_map(values))
        except ValueError as error:
            raise BadValue(f"filepath: cannot fill in {self.filepath!r}: {error}") from None

    def _save(self, when: str, value: float | None, path: Path | None) -> None:
        if path is None:
            return
        if value is not None and not self.improves(value, self.best):
            if self.verbose:
                best = "" if self.best is None else f"; the best is {self.best:.6g}"
                print(f"{when}: nothing saved, {self.monitor} is {value:.6g}{best}", flush=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        self.model.save(path)
        if value is not None:
            self.best = value
        if self.verbose:
            shown = "" if value is None else f", {self.monitor} is {value:.6g}"
            print(f"{when}: saved to {path}{shown}", flush=True)


def _fields(filepath: str) -> set[str]:
    """The names of the fields in a file name."""
    try:
        names = {name for _, name, _, _ in string.Formatter().parse(filepath) if name is not None}
    except ValueError as error:
        raise BadValue(f"filepath: cannot read the braces of {filepath!r}: {error}") from None
    for name in names:
        if not name or name.isdigit() or "." in name or "[" in name:
            raise BadValue(f"filepath: expected names such as 'epoch' or 'val_loss' in braces, got {{{name}}}")
    return names
