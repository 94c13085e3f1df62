"""`TensorBoard`: losses, metrics and weights as event files."""

from __future__ import annotations

import os
import time
import uuid
import weakref
from typing import Any

import numpy as np

from elman import checks
from elman.errors import MissingPackage
from elman.training.callbacks import Callback, Logs


class TensorBoard(Callback):
    """Write losses, metrics and the learning rate to event files, which TensorBoard shows.

    Needs the package tensorboardX: ``pip install "elman[tensorboard]"``. Neither TensorBoard nor TensorFlow need be
    there; ``pip install tensorboard`` and ``tensorboard --logdir logs`` show the files.

    Parameters
    ----------
    log_dir : str or path-like
        Folder; "train" and "validation" are made in it. Use one per training to compare them.
    update_freq : "epoch", "batch" or int
        Besides every epoch, write after every batch, or every so many batches, counted across epochs, the means of the
        epoch so far.
    histogram_freq : int
        Write histograms of all parameters every so many epochs; 0 for never.

    Raises
    ------
    ImportError
        When the callback is made, without tensorboardX.
    ValueError, TypeError
        For arguments out of range.
    OSError
        If a file cannot be written.

    Notes
    -----
    Names are Keras's: ``epoch_loss``, ``epoch_mae``, ``epoch_learning_rate`` over epochs, those of validation without
    "val_" in their own folder; ``batch_loss`` over batches; ``<parameter>/histogram``. A parameter that is not finite
    has no histogram. Event files hold float32. The files are flushed after every epoch.

    Examples
    --------
    >>> import os, tempfile
    >>> import pytest
    >>> _ = pytest.importorskip("tensorboardX")
    >>> import numpy as np
    >>> import elman
    >>> model = elman.Sequential([elman.layers.SimpleRNN(2), elman.layers.Dense(1)], seed=0)
    >>> model.compile("sgd", "mse")
    >>> folder = tempfile.mkdtemp()
    >>> board = elman.callbacks.TensorBoard(folder)
    >>> history = model.fit(np.ones((4, 3, 1)), np.ones(4), verbose=0, callbacks=[board])
    >>> os.listdir(folder)
    ['train']
    """

    def __init__(
        self, log_dir: str | os.PathLike[str] = "logs", update_freq: str | int = "epoch", histogram_freq: int = 0
    ) -> None:
        if isinstance(update_freq, str):
            checks.choose("update_freq", update_freq, ("epoch", "batch"))
        self._every = 1 if update_freq == "batch" else 0
        if not isinstance(update_freq, str):
            self._every = checks.integer("update_freq", update_freq)
        self.log_dir, self.update_freq = checks.path("log_dir", log_dir), update_freq
        self.histogram_freq = checks.integer("histogram_freq", histogram_freq, 0)
        _package()
        self._batches = 0
        self._writers: dict[str, Any] = {}
        self._closers: list[weakref.finalize[..., Any]] = []
        self._folder = self.log_dir
        if self._every:
            # Only then, since the loop makes logs of every batch for those who define this hook.
            self.on_train_batch_end = self._count_batch

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Begin new files."""
        self._close()
        self._batches = 0
        self._folder = os.path.abspath(self.log_dir)  # the working folder may change while training

    def _count_batch(self, batch: int, logs: Logs) -> None:
        self._batches += 1
        if self._batches % self._every == 0:
            for name, value in logs.items():
                self._scalar("train", f"batch_{name}", value, self._batches)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Write the epoch."""
        for name, value in {"learning_rate": self.model.optimizer.learning_rate, **logs}.items():
            folder = "validation" if name.startswith("val_") else "train"
            self._scalar(folder, f"epoch_{name.removeprefix('val_')}", value, epoch)
        if self.histogram_freq and epoch % self.histogram_freq == 0:
            for name, value in self.model.weights:
                self._histogram(f"{name}/histogram", value, epoch)
        for writer in self._writers.values():
            writer.flush()

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Close the files."""
        self._close()

    def get_state(self) -> dict[str, Any]:
        """The count of batches."""
        return {"batches": self._batches}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from there, in new files; what is written twice has the same values."""
        self._batches = state["batches"]

    def _scalar(self, folder: str, tag: str, value: float, step: int) -> None:
        self._write(folder, _package().summary.scalar(tag, float(value)), step)

    def _histogram(self, tag: str, values: np.ndarray, step: int) -> None:
        if values.size and np.isfinite(values).all():
            self._write("train", _package().summary.histogram(tag, values, bins=30), step)

    def _write(self, folder: str, summary: Any, step: int) -> None:
        package = _package()
        if folder not in self._writers:
            place = os.path.join(self._folder, folder)
            os.makedirs(place, exist_ok=True)
            # Files are named by the second: two trainings within one would write to the same.
            suffix = f".{uuid.uuid4().hex[:8]}"
            writer = package.event_file_writer.EventsWriter(os.path.join(place, "events"), suffix)
            # An error in another callback ends training without a last hook.
            self._closers.append(weakref.finalize(self, writer.close))
            self._writers[folder] = writer
        event = package.proto.event_pb2.Event(summary=summary, step=step, wall_time=time.time())
        self._writers[folder].write_event(event)

    def _close(self) -> None:
        for close in self._closers:
            close()
        self._closers, self._writers = [], {}


def _package() -> Any:
    """The writer's package; an ImportError that tells how to get it."""
    try:
        import tensorboardX
        import tensorboardX.event_file_writer
        import tensorboardX.proto.event_pb2
        import tensorboardX.summary
    except ImportError as error:
        raise MissingPackage(f'TensorBoard: needs tensorboardX ({error}); pip install "elman[tensorboard]"') from error
    return tensorboardX
