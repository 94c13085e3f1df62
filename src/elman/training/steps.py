"""What a model does with one batch: forward, loss, backward, update. The loops are built on it."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np

from elman import checks, locks, losses, metrics, optimizers, registry
from elman.errors import BadState, BadValue, ElmanError
from elman.loss import Loss
from elman.memory import Buffers
from elman.optimizers import Optimizer
from elman.parameters import ParameterVector
from elman.recurrence import checked_interval
from elman.threads import sharing
from elman.training import loop
from elman.training.batches import Batch, Form
from elman.training.states import PHASES, States
from elman.warn import warn

_PLAIN = nullcontext()
_FITTED = "model: fit() while it is being fitted; wait for its end, or fit a copy (copy.deepcopy(model))"


class Steps(ABC):
    """The loss and the optimizer around a model's forward and backward."""

    dtype: np.dtype
    output_shape: tuple[int | None, ...]
    optimizer: Optimizer | None = None
    loss: Loss | None = None
    stop_training: bool = False
    resume_epoch: int | None = None
    """Set by a callback in `on_train_begin`: the epoch `fit` begins with."""
    nonfinite: str | None = None
    """Where the last update that was skipped went wrong."""
    skip_warning_due: bool = True
    _vector: ParameterVector | None = None
    _checkpoint: int | str | None = None
    # Shapes and dtypes of the last batch that needed no conversion: x and y of training, x of prediction.
    _form: Form | None = None
    _x_form: tuple[Any, ...] | None = None

    def __init__(self, seed: int | None) -> None:
        self._buffers = Buffers()
        self.lock = locks.make()  # one batch at a time: its memory is the next one's
        self._shuffle = np.random.default_rng(None if seed is None else [seed, 1])
        self._states = States()
        self._draws = 0  # training steps so far; noise is a function of it
        self.skipped_updates = 0
        self._runs: dict[Any, object] = {}
        self._evaluations = 0

    # ---- what a model defines

    @abstractmethod
    def _forward(self, x: np.ndarray, mask: np.ndarray | None, *, training: bool) -> np.ndarray:
        """Outputs for one batch, and `_output_mask`; may return memory that the next call reuses."""

    @abstractmethod
    def _backward(self, dy: np.ndarray) -> None:
        """Write the gradients of all parameters for the last training forward."""

    @abstractmethod
    def _built(self) -> ParameterVector:
        """The parameters; ValueError if there are none yet."""

    @abstractmethod
    def _recurrent_layers(self, *, stateful: bool) -> list[Any]:
        """The layers that carry states; with `stateful` those that do so from batch to batch."""

    @abstractmethod
    def _activity_loss(self) -> float:
        """Penalties of layers' outputs in the last forward."""

    @abstractmethod
    def _trainable_flags(self) -> list[bool]:
        """For every parameter, whether its layer trains it."""

    @abstractmethod
    def _note_trained(self, flags: Sequence[bool]) -> None:
        """Which parameters are trained from now on: the backward pass may leave out what only others need."""

    _output_mask: np.ndarray | None = None
    _all_recurrent: list[Any]

    # ---- while loops run

    @contextmanager
    def running(self, *, trains: bool = False) -> Iterator[None]:
        """Meanwhile `compile` is refused: loss and optimizer must be those that the data were checked for.

        With `trains` a second training is, too: RuntimeError, from a callback as from another thread.
        """
        token = object()
        key = "training" if trains else token
        try:
            # Tests and sets at once, and an interrupt before the next line is cleaned up too.
            if self._runs.setdefault(key, token) is not token:
                raise BadState(_FITTED)
            with sharing():
                yield
        finally:
            if self._runs.get(key) is token:
                del self._runs[key]

    def refuse_second_training(self) -> None:
        """RuntimeError while one runs; before anything of the second one has happened."""
        if "training" in self._runs:
            raise BadState(_FITTED)

    def whole(self, rows: Any = None) -> Any:
        """The context of a call whose batches belong together: no other thread's comes between those that carry states.

        `rows` that come in pieces carry states too.
        """
        return self.lock if self._stateful or getattr(rows, "pieces", None) is not None else _PLAIN

    @contextmanager
    def own_states(self, phase: str) -> Iterator[None]:
        """States of its own for an evaluation that a callback starts within another one."""
        outer = self._states.kept.get(phase) if self._evaluations else None
        self._evaluations += 1
        try:
            yield
        finally:
            self._evaluations -= 1
            if outer is not None:
                self._states.kept[phase] = outer

    # ---- one batch

    def _carrying(self, batch: Batch, phase: str) -> Any:
        """The context in which a batch's forward pass finds and leaves states."""
        if batch.window is not None:
            if batch.window.begins:
                self._states.reset(phase)
            keep = batch.window.keep if batch.window.keep < batch.x.shape[1] else None
            return self._states.carried(phase, self._recurrent_layers(stateful=False), len(batch.x), keep)
        if self._stateful:
            return self._states.carried(phase, self._recurrent_layers(stateful=True), len(batch.x))
        return _PLAIN

    @property
    def _stateful(self) -> bool:
        return bool(self._recurrent_layers(stateful=True))

    def _loss_mask(self, outputs: np.ndarray, batch: Batch) -> np.ndarray | None:
        """The steps of the outputs whose loss counts; None for all."""
        mask = self._output_mask if outputs.ndim > 2 else None
        skip = 0 if batch.window is None else batch.window.skip
        if skip == 0:
            return mask
        counted = np.arange(outputs.shape[1]) >= skip
        return np.broadcast_to(counted, outputs.shape[:2]) if mask is None else mask & counted

    def _loss_and_gradients(self, batch: Batch) -> tuple[float, np.ndarray, np.ndarray | None]:
        """Loss, outputs and loss mask; gradients of all parameters."""
        with self._carrying(batch, "train"):
            outputs = self._forward(batch.x, batch.mask, training=True)
        outputs = np.ascontiguousarray(outputs)
        mask = self._loss_mask(outputs, batch)
        gradient = self._buffers.take("dy", outputs.shape, self.dtype)
        value = self.loss.on_batch(batch.y, outputs, batch.w, mask, gradient)
        if self._loss_weight != 1:
            value *= self._loss_weight
            gradient *= self.dtype.type(self._loss_weight)
        self._backward(gradient)
        return value + self._vector.regularize() + self._activity_loss(), outputs, mask

    def train_step(self, batch: Batch) -> tuple[float, np.ndarray, np.ndarray | None] | None:
        """One update without checks, for the loops; loss, outputs and loss mask. None for a window without loss."""
        self._draws += 1
        try:
            return self._train_step(batch)
        except ElmanError:  # before anything was changed: the next step draws the numbers of this one
            self._draws -= 1
            raise

    def _train_step(self, batch: Batch) -> tuple[float, np.ndarray, np.ndarray | None] | None:
        if batch.window is not None and not batch.window.update:
            with self._carrying(batch, "train"):
                self._forward(batch.x, batch.mask, training=True)
            return None
        found = self._loss_and_gradients(batch)
        updated = self.optimizer.apply(self._vector.values, self._vector.gradients)
        if self.optimizer.gradient_accumulation_steps is not None:
            # The vector now holds sums, and an embedding writes only the rows of its own tokens.
            self._vector.gradients[:] = 0
        if updated:
            self._vector.constrain()
        else:
            self.skipped_updates += 1
            self.nonfinite = self._locate_nonfinite(batch)
            if self.skip_warning_due:
                self.skip_warning_due = False
                warn(f"an update was skipped: {self.nonfinite}", RuntimeWarning)
        return found

    @abstractmethod
    def _locate_nonfinite(self, batch: Batch) -> str:
        """Say in which layer, gate and step of the last training batch the first NaN or infinity stands."""

    def test_step(self, batch: Batch) -> tuple[float, np.ndarray, np.ndarray | None]:
        """Loss, outputs and loss mask without checks and without an update."""
        with self._carrying(batch, "validation"):
            outputs = self._forward(batch.x, batch.mask, training=False)
        outputs = np.ascontiguousarray(outputs)
        mask = self._loss_mask(outputs, batch)
        value = self.loss.on_batch(batch.y, outputs, batch.w, mask, None) * self._loss_weight
        return value + self._vector.penalty() + self._activity_loss(), outputs, mask

    def predict_step(self, batch: Batch) -> np.ndarray:
        """Outputs for x (b, ...) without checks; may return memory that the next call reuses."""
        with self._carrying(batch, "predict"):
            return self._forward(batch.x, batch.mask, training=False)

    def reset_states(self, phase: str | None = None) -> None:
        """Forget the states that stateful layers carry.

        Parameters
        ----------
        phase : "train", "validation", "predict" or "stream", optional
            All by default. `fit` resets "train" at every epoch and "validation" before each evaluation by itself;
            "predict" is never reset but here, so that `predict` goes on where it stopped.

        Examples
        --------
        >>> import numpy as np
        >>> import elman
        >>> model = elman.Sequential([elman.layers.GRU(3, stateful=True)], seed=0)
        >>> x = np.ones((1, 2, 1))
        >>> first, second = model.predict(x), model.predict(x)
        >>> model.reset_states()
        >>> bool((model.predict(x) == first).all()), bool((second == first).all())
        (True, False)
        """
        with self.lock:
            self._states.reset(phase if phase is None else checks.choose("phase", phase, PHASES))

    # ---- how to train

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        metrics: Sequence[Any] | None = None,
        weighted_metrics: Sequence[Any] | None = None,
        loss_weights: float | None = None,
        checkpoint: int | str | None = None,
    ) -> None:
        """Choose how to train. Starts the optimizer afresh; parameters stay.

        Parameters
        ----------
        optimizer : str, Optimizer or dict
            See `elman.optimizers`.
        loss : str, Loss or dict
            See `elman.losses`.
        metrics : list of str, Metric or dict, optional
            See `elman.metrics`; sample weights do not enter them.
        weighted_metrics : list, optional
            The same, with sample weights.
        loss_weights : float, optional
            Factor of the loss.
        checkpoint : int or "sqrt", optional
            For all recurrent layers that have none of their own; see `elman.layers.RNN`.

        Raises
        ------
        ValueError, TypeError
            For unknown names, with the nearest known one. The model is then as before.
        RuntimeError
            While `fit` or `evaluate` runs.

        Examples
        --------
        >>> import elman
        >>> model = elman.Sequential([elman.layers.GRU(3), elman.layers.Dense(1)])
        >>> model.compile(elman.optimizers.Adam(1e-2, clipnorm=1.0), loss="huber", metrics=["mae"])
        """
        if self._runs:
            raise BadState("model: compile() while it is fitted or evaluated; call it before or afterwards")
        if loss is None:
            raise BadValue("loss: expected a loss or its name, got None")
        chosen = optimizers.get(optimizer), losses.get(loss)
        owner = chosen[0].owner and chosen[0].owner()
        if owner is not None and owner is not self:
            raise BadValue(f"optimizer: this {type(chosen[0]).__name__} trains another model; make a second one")
        limit = float(np.finfo(self.dtype).max)
        weight = 1.0 if loss_weights is None else registry.number("loss_weights", loss_weights, -limit, limit)
        names = loop.metric_list("metrics", metrics), loop.metric_list("weighted_metrics", weighted_metrics)
        loop.make_scores(names, chosen[1], (1,))  # refuses unknown names
        interval = checked_interval(checkpoint)
        with self.lock:
            self._checkpoint = interval
            self.optimizer, self.loss = chosen
            self.optimizer.owner = weakref.ref(self)
            self._loss_weight, self._metric_names = weight, names
            self._scores: loop.Scores | None = None
            self._form = None
            self._optimizer_ready = False
            if self._vector is not None:
                self._ready_optimizer()

    def get_compile_config(self) -> dict[str, Any]:
        """The arguments of `compile` as JSON values; ValueError if the model is not compiled."""
        loss = self._compiled()

        def plain(m: Any) -> Any:
            return m if isinstance(m, str) else metrics.serialize(metrics.get(m))

        return {
            "optimizer": optimizers.serialize(self.optimizer),
            "loss": losses.serialize(loss),
            "loss_weights": self._loss_weight,
            "metrics": [plain(m) for m in self._metric_names[0]],
            "weighted_metrics": [plain(m) for m in self._metric_names[1]],
            "checkpoint": self._checkpoint,
        }

    def _compiled(self) -> Loss:
        if self.loss is None:
            raise BadValue("model: not compiled yet; call compile(optimizer, loss)")
        return self.loss

    def _ready_optimizer(self, flags: list[bool] | None = None) -> None:
        """Build the optimizer for the parameters that are trained: those of `flags`, or as the layers say now."""
        if not self._optimizer_ready or flags is not None:
            with self.lock:  # two threads that begin to train at once
                if not self._optimizer_ready or flags is not None:
                    self._make_optimizer_ready(flags)

    def _make_optimizer_ready(self, flags: list[bool] | None) -> None:
        vector = self._built()
        flags = self._trainable_flags() if flags is None else flags
        for gradient, free in zip(vector.views(vector.gradients), flags, strict=True):
            if not free:
                gradient[...] = 0
        vector.trainable = flags
        self._note_trained(flags)
        self.optimizer.build(vector.values, vector.offsets, vector.trainable)
        for layer in self._all_recurrent:
            layer.default_checkpoint = self._checkpoint
        self._optimizer_ready = True
