"""`CSVLogger`: a line of text per epoch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from elman import checks
from elman.errors import BadType, BadValue
from elman.training.callbacks import Callback, Logs


class CSVLogger(Callback):
    """Write the loss and metrics of every epoch to a file of separated values.

    Parameters
    ----------
    filename : str or path-like
    separator : str
        One character between values.
    append : bool
        Continue the file, if it is there, under the header it has; else the first epoch of a `fit` begins it anew.

    Raises
    ------
    TypeError, ValueError
        If `separator` is not one character; at the end of the first epoch, if the file to continue has other columns
        (both are listed). It is then unchanged.
    OSError
        If the file cannot be written: when `fit` begins, before anything is trained.

    Notes
    -----
    The columns are "epoch", counted from 0, and the names in the logs of the first epoch in alphabetical order, with
    those of validation if there is any in later epochs. An epoch without a value has "NA". Numbers have all their
    digits: reading them gives the same bits. The file is opened for each line and closed again, so it is whole after
    every epoch, also when training ends in an error.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> import elman
    >>> model = elman.Sequential([elman.layers.SimpleRNN(2), elman.layers.Dense(1)], seed=0)
    >>> model.compile(elman.optimizers.SGD(0), "mse", metrics=["mae"])
    >>> path = os.path.join(tempfile.mkdtemp(), "log.csv")
    >>> log = elman.callbacks.CSVLogger(path)
    >>> history = model.fit(np.ones((4, 3, 1)), np.ones(4), epochs=2, verbose=0, callbacks=[log])
    >>> with open(path) as file:
    ...     lines = file.read().splitlines()
    >>> lines[0], len(lines)
    ('epoch,loss,mae', 3)
    """

    def __init__(self, filename: str | os.PathLike[str], separator: str = ",", append: bool = False) -> None:
        if not isinstance(separator, str):
            raise BadType(f"separator: expected one character, got {type(separator).__name__} {separator!r}")
        if len(separator) != 1 or separator in '\r\n"':
            raise BadValue(f"separator: expected one character, no quote or line end, got {separator!r}")
        self.filename = checks.path("filename", filename)
        self.separator = separator
        self.append = checks.flag("append", append)
        self._path = self.filename
        self._columns: list[str] | None = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Begin the file, or see that it can be continued."""
        self._path = os.path.abspath(self.filename)  # the working folder may change while training
        self._columns = None
        with open(self._path, "a", encoding="utf-8"):  # begun anew after the first epoch, if this is no restart
            pass

    def get_state(self) -> dict[str, Any]:
        """The columns and the size of the file."""
        # Where a file is still to be begun anew, what it holds by then does not matter.
        kept = self.append or self._columns is not None
        return {"columns": self._columns, "size": os.path.getsize(self._path) if kept else 0}

    def set_state(self, state: dict[str, Any]) -> None:
        """Cut off the lines of epochs that will be trained again, and continue the file.

        Raises
        ------
        ValueError
            If the file has become shorter.
        """
        size = os.path.getsize(self._path)
        if size < state["size"]:
            raise BadValue(f"filename: {self.filename!r} had {state['size']} bytes at the backup, it has {size} now")
        os.truncate(self._path, state["size"])
        self._columns = state["columns"]

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Write a line."""
        if self._columns is None:
            self._columns = self._begin(logs)
        self._write([epoch, *(logs.get(name, "NA") for name in self._columns)])

    def _begin(self, logs: Logs) -> list[str]:
        """The columns after "epoch"; writes the header, if the file has none."""
        import csv  # paid only by those who use it

        names = set(logs)
        if self.validation_freq and not any(name.startswith("val_") for name in names):
            names |= {f"val_{name}" for name in names - {"learning_rate"}}
        columns = sorted(names)
        if not self.append:
            with open(self._path, "w", encoding="utf-8"):
                pass
        with open(self._path, encoding="utf-8", errors="replace", newline="") as file:  # it may be any file
            header = next(csv.reader(file, delimiter=self.separator), None)
        if not header:
            self._write(["epoch", *columns])
        elif header != ["epoch", *columns]:
            raise BadValue(
                f"append: {self.filename!r} has the columns {header}, this training gives {['epoch', *columns]}"
            )
        return columns

    def _write(self, row: Sequence[Any]) -> None:
        import csv

        with open(self._path, "a", encoding="utf-8", newline="") as file:
            csv.writer(file, delimiter=self.separator, lineterminator="\n").writerow(row)
