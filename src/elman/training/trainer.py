"""Training of a model: fit, evaluate, predict. `elman.Sequential` is built on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np

from elman import checks, registry
from elman.data import Lanes, Windows
from elman.errors import BadValue
from elman.training import loop
from elman.training.batches import check_tbptt, count_windows
from elman.training.batchwise import Batchwise
from elman.training.callbacks import Callback, History, Hooks
from elman.training.data import Rows
from elman.training.inputs import BATCH_PARTS, Stream, is_stream, refuse_beside_stream
from elman.training.progress import check_verbose
from elman.warn import warn

_PREDICT_BATCH = 256


class Trainer(Batchwise):
    """The loops over data around a model's steps."""

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Iterable[Callback] | None = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: dict[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int = 1,
        *,
        lengths: Any = None,
        mask: Any = None,
        tbptt: tuple[int, int] | None = None,
    ) -> History:
        """Train on arrays, lists of sequences, windows, lanes, or batches that come one by one.

        Parameters
        ----------
        x : array_like, list of ndarray, `elman.data.Windows`, `elman.data.Lanes` or iterable
            (N, T, I), (N, T) read as one feature or as token ids, or (N, F). Any real dtype, order and strides,
            read-only and memory maps included; only batches are copied. A list of arrays (T, I) may have any T each.
            An iterable gives batches: (x, y), (x, y, sample_weight) or a dict with x, y, lengths, ….
        y : array_like
            Targets (N, ..., O), without the last axis where O = 1; class indices for a sparse loss.
        batch_size : int, optional
            Default 32. The last, partial batch is used. Lanes are one batch by default.
        epochs, initial_epoch : int
            Index of the last epoch and of the first.
        verbose : "auto", 0, 1 or 2
            1 and "auto" draw a bar on a terminal and print a line per epoch elsewhere; 2 prints lines; 0 is silent.
        callbacks : list of Callback, optional
        validation_split : float
            This fraction from the end of the data, taken before shuffling, is for validation.
        validation_data : (x, y), (x, y, sample_weight), dict with x, y, lengths, …, or iterable, optional
        shuffle : bool
            New order every epoch, from the model's seed. Lanes and iterables are never shuffled.
        class_weight : dict, optional
            Weight per class index. Not together with `sample_weight`.
        sample_weight : array_like, optional
            (N,) or (N, T).
        steps_per_epoch, validation_steps : int, optional
            Use only so many batches.
        validation_batch_size : int, optional
            Default `batch_size`.
        validation_freq : int
            Validate every so many epochs.
        lengths : array_like of int, shape (N,), optional
            Sequence n uses its first ``lengths[n]`` steps, 0 to T. Padding behind them costs no arithmetic.
        mask : array_like of bool, shape (N, T), optional
            In place of `lengths`: True where a sequence uses a step, with holes or padding anywhere.
        tbptt : (k1, k2), optional
            Truncated BPTT: an update every k1 steps, whose gradients reach back k2 >= k1 steps; states are carried. The
            loss is that of the k1 steps, of the epoch the mean over all valid steps. With k1 >= T it is full BPTT to
            the bit. Where the model has one output per sequence, the last k2 steps get gradients.

        Returns
        -------
        History
            ``history.history["loss"]`` and the metrics, one number per epoch; means over the epoch weighted by batch
            size.

        Raises
        ------
        ValueError, TypeError
            If anything does not fit: shapes (both are named), NaN or infinities (which array, how many, where), ranges.
            The model is then as before.
        RuntimeError
            If the model is being fitted already, by a callback's doing or in another thread; that goes on.

        Notes
        -----
        An update whose gradient holds NaN or infinity is skipped and counted in ``history.skipped_updates``.

        An interrupt from the keyboard, in the main thread, waits for the end of the batch, and the model is then that
        of so many batches; a second one does not wait.

        Truncated BPTT as in R. J. Williams, J. Peng, An efficient gradient-based algorithm for on-line training of
        recurrent network trajectories, Neural Computation 2 (1990), with the states of the window computed anew.
        """
        self.refuse_second_training()
        stream = is_stream(x)
        if isinstance(x, Lanes):
            batch_size, shuffle = len(x) if batch_size is None else batch_size, False
        if stream:
            refuse_beside_stream(x, y=y, sample_weight=sample_weight, lengths=lengths, mask=mask)
            check = partial(self._rows, class_weight=class_weight)
            rows: Any = Stream(x, check, repeated=None if class_weight is not None else self._repeated)
            first = rows.peek()
        else:
            first = rows = self._rows(x, y, sample_weight, class_weight, lengths=lengths, mask=mask)
        rows, validation = self._validation(rows, first, validation_split, validation_data)
        if first.mask is not None and isinstance(validation, Rows) and validation.mask is None:
            warn(
                "validation_data comes without lengths or mask, though x has them: every step of it counts; give a "
                "dict such as {'x': ..., 'y': ..., 'lengths': ...}"
            )
        cut = self._check_tbptt(tbptt, first)
        each = 1 if cut is None else count_windows(first.x.shape[1], cut, per_step=self._per_step(first))
        plan = loop.plan(
            None if stream else len(rows), validation, batch_size, epochs, verbose,
            checks.flag("shuffle", shuffle) and not stream, initial_epoch, steps_per_epoch, validation_steps,
            validation_batch_size, validation_freq, each, cut, per_step=cut is not None and self._per_step(first),
        )  # fmt: skip
        if stream and plan.steps is None and x is iter(x) and plan.epochs - plan.initial_epoch > 1:
            raise BadValue("steps_per_epoch: a generator is read once; say how many of its batches are an epoch")
        if not stream:
            self._check_stateful(plan, len(rows), validation)
        history = History()
        history.params = parameters = {"epochs": plan.epochs, "steps": plan.steps, "verbose": plan.verbose}
        hooks = Hooks(callbacks, self, parameters, first=[history])
        loop.fit(self, rows, validation, plan, hooks, self._ready(first), self._shuffle, history)
        return history

    def _validation(self, rows: Any, first: Rows, split: Any, given: Any) -> tuple[Any, Any]:
        """Training rows and validation rows."""
        if not 0 <= registry.number("validation_split", split, 0) < 1:
            raise BadValue(f"validation_split: expected a fraction from 0 to below 1, got {split!r}")
        if given is None:
            if split and isinstance(rows, Stream):
                raise BadValue("validation_split: batches that come one by one cannot be split; use validation_data")
            return rows.split(split) if split else (rows, None)
        check = partial(self._rows, prefix="validation_data ", like=first.x)
        if isinstance(given, Mapping):
            for name in given:
                checks.choose("validation_data", name, BATCH_PARTS)
            return rows, check(**given)
        if isinstance(given, (Lanes, Windows)):
            return rows, check(given)
        if is_stream(given):
            validation = Stream(given, check, "validation_data", self._repeated)
            validation.peek()
            return rows, validation
        if not isinstance(given, (tuple, list)) or len(given) not in (2, 3):
            what = type(given).__name__
            raise BadValue(f"validation_data: expected (x, y) or (x, y, sample_weight), got {what}")
        return rows, check(*given)

    def _per_step(self, rows: Rows) -> bool:
        """Whether there is an output at every step of the input."""
        shape = self._output_shape(rows.x)
        return len(shape) == 3 and shape[1] == rows.x.shape[1]

    def _check_tbptt(self, tbptt: Any, rows: Rows) -> tuple[int, int] | None:
        cut = check_tbptt(tbptt)
        if cut is None:
            return None
        self._check_streams(rows.x)
        if not self.loss.per_row:
            raise BadValue(f"tbptt: {type(self.loss).__name__} needs whole sequences")
        if self._per_step(rows) and (rows.y.ndim < 2 or rows.y.shape[1] != rows.x.shape[1]):
            raise BadValue(f"tbptt: targets of shape {rows.y.shape} do not have one value per step of x")
        return cut

    def _check_stateful(self, plan: loop.Schedule, n: int, validation: Any) -> None:
        if not self._stateful:
            return
        if plan.tbptt is not None:
            raise BadValue("tbptt: it carries the states itself; leave stateful=False")
        if plan.shuffle:
            raise BadValue("shuffle: stateful layers need the batches in order; pass shuffle=False")
        self._check_batches(n, plan.batch_size, "batch_size")
        if isinstance(validation, Rows):
            self._check_batches(len(validation), plan.validation_batch_size, "validation_batch_size")

    def evaluate(
        self,
        x: Any,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Any = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Iterable[Callback] | None = None,
        return_dict: bool = False,
        *,
        lengths: Any = None,
        mask: Any = None,
    ) -> float | list[float] | dict[str, float]:
        """Loss and metrics; arguments as in `fit`.

        Returns
        -------
        float, list of float or dict
            The loss; with metrics a list that begins with it; a dict of names with `return_dict`.

        Raises
        ------
        ValueError, TypeError
            As in `fit`.
        """
        batch_size = _PREDICT_BATCH if batch_size is None else checks.integer("batch_size", batch_size)
        verbose = check_verbose(verbose)
        if is_stream(x):
            refuse_beside_stream(x, y=y, sample_weight=sample_weight, lengths=lengths, mask=mask)
            rows: Any = Stream(x, self._rows, repeated=self._repeated)
            first = rows.peek()
            steps = steps if steps is None else checks.integer("steps", steps)
        else:
            first = rows = self._rows(x, y, sample_weight, lengths=lengths, mask=mask)
            steps = loop.count_steps("steps", len(rows), batch_size, steps)
            self._check_batches(len(rows), batch_size, "batch_size")
        hooks = Hooks(callbacks, self, {"steps": steps, "verbose": verbose})
        logs = loop.evaluate(self, rows, batch_size, steps, hooks, self._ready(first))
        if verbose:
            print(" - ".join(f"{name}: {value:.4g}" for name, value in logs.items()), flush=True)
        return loop.results(logs, return_dict=return_dict)

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: Any = 0,
        steps: int | None = None,
        callbacks: Iterable[Callback] | None = None,
        *,
        lengths: Any = None,
        mask: Any = None,
    ) -> np.ndarray:
        """Outputs for x.

        Parameters
        ----------
        x, lengths, mask
            As in `fit`.
        batch_size : int, optional
            Default 256; the result does not depend on it.
        verbose : "auto", 0, 1 or 2
            Accepted for Keras's sake; predict shows nothing.
        steps : int, optional
            Use only so many batches.
        callbacks : list of Callback, optional

        Returns
        -------
        ndarray of shape (N, ..., O)
            At steps that are not used, the last output again.

        Raises
        ------
        ValueError, TypeError
            As in `fit`.
        """
        batch_size = _PREDICT_BATCH if batch_size is None else checks.integer("batch_size", batch_size)
        check_verbose(verbose)
        if is_stream(x):
            refuse_beside_stream(x, lengths=lengths, mask=mask)
            steps = steps if steps is None else checks.integer("steps", steps)
            only = lambda x, y=None, sample_weight=None, **more: self._inputs_only(x, **more)
            stream = Stream(x, only)
            self._build_for(stream.peek().x)
            return loop.predict_stream(self, stream, steps, Hooks(callbacks, self, {"steps": steps}))
        rows = self._inputs_only(x, lengths, mask)
        steps = loop.count_steps("steps", len(rows), batch_size, steps)
        hooks = Hooks(callbacks, self, {"steps": steps})
        self._build_for(rows.x)
        self._check_batches(len(rows), batch_size, "batch_size")
        return loop.predict(self, rows, batch_size, steps, hooks)
