"""`BackupAndRestore`: training that goes on after its process was killed, with the same bits."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from elman import archive, checks
from elman.errors import BadFile, BadType, BadValue
from elman.training.callbacks import Callback, Logs

_KIND = "backup"
_ARRAY = "array of the archive"


class BackupAndRestore(Callback):
    """Keep a backup of the training, and go on from it when the same script is started again.

    Everything that the epochs to come depend on is in one file: parameters, optimizer and its state, learning rate, the
    states of layers, of shuffling and of random layers, the history, and what other callbacks remember. A run that was
    killed at any moment and started again ends with the same bits as one that never was.

    Parameters
    ----------
    backup_dir : str or path-like
        Folder of the file, ``backup.npz``; made where there is none. Of one training only.
    save_freq : "epoch" or int
        Back up at the end of every epoch, or every so many epochs. An epoch that was not finished is trained again from
        its begin, so that a number of batches, as in Keras, would gain nothing.
    delete_checkpoint : bool
        Remove the file when training has ended, early or not, but not when it has ended in an error. If it stays, the
        next `fit` finds a training that is over, unless it is given more epochs.

    Raises
    ------
    ValueError, TypeError
        For arguments out of range; when `fit` begins, if the file is damaged or no backup, or belongs to another model
        or other callbacks. The message names the file.
    OSError
        If the file cannot be written: when `fit` begins, before anything is trained.

    Notes
    -----
    The script must give the same data again; a generator of batches is not rewound to where it was. A backup is also
    made when training begins, so that a model without a `seed` goes on with the parameters it began with.

    The callback comes after all others, wherever it stands in the list: their ``on_train_begin`` is called as for a new
    training, then they get their state back. A callback of your own takes part by `get_state` and `set_state`.

    The file is replaced as a whole or not at all. It replaces Keras's ``double_checkpoint``.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import elman
    >>> folder = tempfile.mkdtemp()
    >>> class Fail(elman.callbacks.Callback):
    ...     def on_epoch_begin(self, epoch, logs):
    ...         if epoch == 2:
    ...             raise RuntimeError("power cut")
    >>> def run(*others):
    ...     model = elman.Sequential([elman.layers.SimpleRNN(2), elman.layers.Dense(1)], seed=0)
    ...     model.compile("sgd", "mse")
    ...     backup = elman.callbacks.BackupAndRestore(folder)
    ...     return model.fit(np.ones((4, 3, 1)), np.ones(4), epochs=4, verbose=0, callbacks=[backup, *others])
    >>> run(Fail())
    Traceback (most recent call last):
    RuntimeError: power cut
    >>> run().epoch
    [0, 1, 2, 3]
    """

    def __init__(
        self, backup_dir: str | os.PathLike[str], save_freq: str | int = "epoch", *, delete_checkpoint: bool = True
    ) -> None:
        if isinstance(save_freq, str) and save_freq != "epoch":
            raise BadValue(f"save_freq: expected 'epoch' or a number of epochs, got {save_freq!r}")
        self.save_freq = save_freq if checks.named(save_freq, "epoch") else checks.integer("save_freq", save_freq)
        self.delete_checkpoint = checks.flag("delete_checkpoint", delete_checkpoint)
        self.backup_dir = checks.path("backup_dir", backup_dir)
        self._path = Path(self.backup_dir, "backup.npz")
        self._stateful: list[Callback] = []

    def set_callbacks(self, callbacks: Sequence[Callback]) -> None:
        """Called once before training, with all its callbacks."""
        self._stateful = [c for c in callbacks if type(c).get_state is not Callback.get_state]

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Go on from the backup if there is one, else make the first."""
        self._path = Path(os.path.abspath(self.backup_dir), "backup.npz")  # the working folder may change
        self._path.parent.mkdir(parents=True, exist_ok=True)
        for unfinished in self._path.parent.glob(f".{self._path.name}.*.tmp"):  # of processes killed while they wrote
            unfinished.unlink(missing_ok=True)
        try:
            header, arrays = archive.read(self._path, _KIND)
        except FileNotFoundError:
            self._save(None)
            return
        try:
            self._restore(header, arrays)
        except MemoryError:
            raise
        except Exception as error:  # a description may be anything
            raise BadFile(
                f"backup_dir: {str(self._path)!r} does not fit this training ({error}); remove it to begin anew"
            ) from error

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Back up."""
        if self.save_freq == "epoch" or (epoch + 1) % self.save_freq == 0:
            self._save(epoch)

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Remove the backup."""
        if self.delete_checkpoint:
            self._path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # not empty
                self._path.parent.rmdir()

    def _save(self, epoch: int | None) -> None:
        """Write the state after `epoch`, or before the first one."""
        model = self.model
        arrays: dict[str, np.ndarray] = {}
        header, values = model._state()
        arrays |= {f"model/{name}": value for name, value in values.items()}
        callbacks = [
            {"class_name": type(c).__name__, "state": _pack(c.get_state(), f"callbacks/{k} {type(c).__name__}", arrays)}
            for k, c in enumerate(self._stateful)
        ]
        content = {
            "epoch": epoch,
            "stopped": bool(model.stop_training),
            "learning_rate": float(model.optimizer.learning_rate),
            "model": header,
            "callbacks": callbacks,
        }
        archive.write(self._path, _KIND, content, arrays)

    def _restore(self, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        model = self.model
        found = [entry["class_name"] for entry in header["callbacks"]]
        mine = [type(c).__name__ for c in self._stateful]
        if found != mine:
            raise BadValue(f"it was made with the callbacks {', '.join(found)}, these are {', '.join(mine)}")
        states = [_unpack(entry["state"], arrays) for entry in header["callbacks"]]
        own = {name.removeprefix("model/"): a for name, a in arrays.items() if name.startswith("model/")}
        with model.lock:
            model._load_state(header["model"], own)
            if isinstance(model.optimizer.get_config()["learning_rate"], float):  # no schedule gives it
                model.optimizer.learning_rate = header["learning_rate"]
        for callback, state in zip(self._stateful, states, strict=True):
            callback.set_state(state)
        if header["stopped"]:
            model.stop_training, model.resume_epoch = True, self.params["epochs"]
        elif header["epoch"] is not None:
            model.resume_epoch = header["epoch"] + 1


def _pack(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """`value` as JSON; arrays in it go to `arrays` under names that begin with `name`."""
    if isinstance(value, np.ndarray):
        arrays[name] = value
        return {_ARRAY: name}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _pack(part, f"{name}/{key}", arrays) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_pack(part, f"{name}/{k}", arrays) for k, part in enumerate(value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise BadType(f"get_state: {name} is {type(value).__name__} {value!r}, which a file cannot hold")


def _unpack(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """What `_pack` was given, tuples as lists."""
    if isinstance(value, dict):
        return arrays[value[_ARRAY]] if _ARRAY in value else {k: _unpack(part, arrays) for k, part in value.items()}
    if isinstance(value, list):
        return [_unpack(part, arrays) for part in value]
    return value
