"""Training of a model: compile, fit, evaluate, predict, gradients. `elman.Sequential` is built on it."""

from __future__ import annotations

import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from elman import checks, losses, metrics, optimizers, registry
from elman.loss import Loss
from elman.memory import Buffers
from elman.optimizers import Optimizer
from elman.parameters import ParameterVector
from elman.training import loop
from elman.training.callbacks import Callback, History, Hooks
from elman.training.data import Rows, prepare
from elman.training.progress import check_verbose

_PREDICT_BATCH = 256


class Trainer(ABC):
    """What trains a model: the data's border, the loss and the optimizer, around its forward and backward."""

    dtype: np.dtype
    output_shape: tuple[int | None, ...]
    optimizer: Optimizer | None = None
    loss: Loss | None = None
    stop_training: bool = False
    _vector: ParameterVector | None = None

    def __init__(self, seed: int | None) -> None:
        self._buffers = Buffers()
        self.lock = threading.RLock()  # one batch at a time: its memory is the next one's
        self._shuffle = np.random.default_rng(None if seed is None else [seed, 1])

    # ---- what a model defines

    @abstractmethod
    def _check_x(self, x: Any, argument: str = "x", like: np.ndarray | None = None) -> np.ndarray:
        """x as (N, *input shape) in its own dtype. A model not built yet stays so; `like`, or x, gives its shape."""

    @abstractmethod
    def _build_for(self, x: np.ndarray) -> None:
        """Build the model for x if it is not built yet."""

    @abstractmethod
    def _output_shape(self, x: np.ndarray) -> tuple[int, ...]:
        """Shape of the outputs for x."""

    @abstractmethod
    def _built(self) -> ParameterVector:
        """The parameters; ValueError if there are none yet."""

    @abstractmethod
    def _forward(self, x: np.ndarray, *, training: bool) -> np.ndarray:
        """Outputs for one batch; may return memory that the next call reuses."""

    @abstractmethod
    def _backward(self, dy: np.ndarray) -> None:
        """Write the gradients of all parameters for the last training forward."""

    # ---- steps

    def _rows(
        self, x: Any, y: Any, sample_weight: Any = None, class_weight: Any = None, *, prefix: str = "",
        like: np.ndarray | None = None,
    ) -> Rows:  # fmt: skip
        loss = self._compiled()
        x = self._check_x(x, f"{prefix}x", like)
        return prepare(x, y, sample_weight, class_weight, loss, self._output_shape(x), self.dtype, prefix)

    def _loss_and_gradients(self, x: np.ndarray, y: np.ndarray, w: np.ndarray | None) -> tuple[float, np.ndarray]:
        outputs = self._forward(x, training=True)
        flat = np.ascontiguousarray(outputs).reshape(-1, outputs.shape[-1])
        gradient = self._buffers.take("dy", flat.shape, self.dtype)
        value = self.loss.value_and_gradient(y, flat, w, gradient)
        if self._loss_weight != 1:
            value *= self._loss_weight
            gradient *= self.dtype.type(self._loss_weight)
        self._backward(gradient.reshape(outputs.shape))
        return value, flat

    def predict_step(self, x: np.ndarray) -> np.ndarray:
        """Outputs for x (b, ...) without checks; may return memory that the next call reuses."""
        return self._forward(x, training=False)

    def train_step(self, x: np.ndarray, y: np.ndarray, w: np.ndarray | None) -> tuple[float, np.ndarray]:
        """One update without checks, for the loops: x (b, ...), y (rows, O) or labels, w (rows,); loss and outputs."""
        value, outputs = self._loss_and_gradients(x, y, w)
        self.optimizer.apply(self._vector.values, self._vector.gradients)
        return value, outputs

    def test_step(self, x: np.ndarray, y: np.ndarray, w: np.ndarray | None) -> tuple[float, np.ndarray]:
        """Loss and outputs without checks and without an update."""
        outputs = self._forward(x, training=False)
        flat = np.ascontiguousarray(outputs).reshape(-1, outputs.shape[-1])
        return self.loss.value_and_gradient(y, flat, w, None) * self._loss_weight, flat

    # ---- training

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        metrics: Sequence[Any] | None = None,
        weighted_metrics: Sequence[Any] | None = None,
        loss_weights: float | None = None,
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

        Raises
        ------
        ValueError, TypeError
            For unknown names, with the nearest known one. The model is then as before.

        Examples
        --------
        >>> import elman
        >>> model = elman.Sequential([elman.layers.GRU(3), elman.layers.Dense(1)])
        >>> model.compile(elman.optimizers.Adam(1e-2, clipnorm=1.0), loss="huber", metrics=["mae"])
        """
        if loss is None:
            raise ValueError("loss: expected a loss or its name, got None")
        chosen = optimizers.get(optimizer), losses.get(loss)
        owner = chosen[0].owner and chosen[0].owner()
        if owner is not None and owner is not self:
            raise ValueError(f"optimizer: this {type(chosen[0]).__name__} trains another model; make a second one")
        limit = float(np.finfo(self.dtype).max)
        weight = 1.0 if loss_weights is None else registry.number("loss_weights", loss_weights, -limit, limit)
        names = loop.metric_list("metrics", metrics), loop.metric_list("weighted_metrics", weighted_metrics)
        loop.make_scores(names, chosen[1], (1,))  # refuses unknown names
        self.optimizer, self.loss = chosen
        self.optimizer.owner = weakref.ref(self)
        self._loss_weight, self._metric_names = weight, names
        self._scores: loop.Scores | None = None
        self._optimizer_ready = False

    def get_compile_config(self) -> dict[str, Any]:
        """The arguments of `compile` as JSON values; ValueError if the model is not compiled."""
        loss = self._compiled()
        plain = lambda m: m if isinstance(m, str) else metrics.serialize(metrics.get(m))
        return {
            "optimizer": optimizers.serialize(self.optimizer),
            "loss": losses.serialize(loss),
            "loss_weights": self._loss_weight,
            "metrics": [plain(m) for m in self._metric_names[0]],
            "weighted_metrics": [plain(m) for m in self._metric_names[1]],
        }

    def _compiled(self) -> Loss:
        if self.loss is None:
            raise ValueError("model: not compiled yet; call compile(optimizer, loss)")
        return self.loss

    def _ready(self, x: np.ndarray) -> loop.Scores:
        """Parameters and optimizer for data that were checked, and metrics of their own: a callback may evaluate."""
        self._build_for(x)
        self._ready_optimizer()
        return loop.make_scores(self._metric_names, self.loss, self.output_shape)

    def _ready_optimizer(self) -> None:
        if not self._optimizer_ready:
            vector = self._built()
            self.optimizer.build(vector.values, vector.offsets)
            self._optimizer_ready = True

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Iterable[Callback] | None = None,
        validation_split: float = 0.0,
        validation_data: Sequence[Any] | None = None,
        shuffle: bool = True,
        class_weight: dict[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int = 1,
    ) -> History:
        """Train on arrays.

        Parameters
        ----------
        x : array_like
            (N, T, I), (N, T) read as one feature, or (N, F). Any real dtype, order and strides, read-only and memory
            maps included; only batches are copied.
        y : array_like
            Targets (N, ..., O), without the last axis where O = 1; class indices for a sparse loss.
        batch_size : int, optional
            Default 32. The last, partial batch is used.
        epochs, initial_epoch : int
            Index of the last epoch and of the first.
        verbose : "auto", 0, 1 or 2
            1 and "auto" draw a bar on a terminal and print a line per epoch elsewhere; 2 prints lines; 0 is silent.
        callbacks : list of Callback, optional
        validation_split : float
            This fraction from the end of the data, taken before shuffling, is for validation.
        validation_data : (x, y) or (x, y, sample_weight), optional
        shuffle : bool
            New order every epoch, from the model's seed.
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
        """
        hooks, rows, validation, plan, history = self._plan_fit(
            x, y, batch_size, epochs, verbose, callbacks, validation_split, validation_data, shuffle, class_weight,
            sample_weight, initial_epoch, steps_per_epoch, validation_steps, validation_batch_size, validation_freq,
        )  # fmt: skip
        loop.fit(self, rows, validation, plan, hooks, self._ready(rows.x), self._shuffle)
        return history

    def _plan_fit(
        self, x, y, batch_size, epochs, verbose, callbacks, validation_split, validation_data, shuffle, class_weight,
        sample_weight, initial_epoch, steps_per_epoch, validation_steps, validation_batch_size, validation_freq,
    ) -> tuple[Hooks, Rows, Rows | None, loop.Schedule, History]:  # fmt: skip
        """All checks of `fit`, before anything changes."""
        if not 0 <= registry.number("validation_split", validation_split, 0) < 1:
            raise ValueError(f"validation_split: expected a fraction from 0 to below 1, got {validation_split!r}")
        rows = self._rows(x, y, sample_weight, class_weight)
        validation = None
        if validation_data is not None:
            if not isinstance(validation_data, (tuple, list)) or len(validation_data) not in (2, 3):
                what = type(validation_data).__name__
                raise ValueError(f"validation_data: expected (x, y) or (x, y, sample_weight), got {what}")
            validation = self._rows(*validation_data, prefix="validation_data ", like=rows.x)
        elif validation_split:
            rows, validation = rows.split(validation_split)
        plan = loop.plan(
            len(rows), None if validation is None else len(validation), batch_size, epochs, verbose, shuffle,
            initial_epoch, steps_per_epoch, validation_steps, validation_batch_size, validation_freq,
        )  # fmt: skip
        history = History()
        history.params = parameters = {"epochs": plan.epochs, "steps": plan.steps, "verbose": plan.verbose}
        return Hooks(callbacks, self, parameters, first=[history]), rows, validation, plan, history

    def evaluate(
        self,
        x: Any,
        y: Any,
        batch_size: int | None = None,
        verbose: Any = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Iterable[Callback] | None = None,
        return_dict: bool = False,
    ) -> float | list[float] | dict[str, float]:
        """Loss and metrics on arrays; arguments as in `fit`.

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
        rows = self._rows(x, y, sample_weight)
        steps = loop.count_steps("steps", len(rows), batch_size, steps)
        hooks = Hooks(callbacks, self, {"steps": steps, "verbose": verbose})
        logs = loop.evaluate(self, rows, batch_size, steps, hooks, self._ready(rows.x))
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
    ) -> np.ndarray:
        """Outputs for x.

        Parameters
        ----------
        x : array_like
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

        Raises
        ------
        ValueError, TypeError
            As in `fit`.
        """
        batch_size = _PREDICT_BATCH if batch_size is None else checks.integer("batch_size", batch_size)
        check_verbose(verbose)
        x = self._check_x(x)
        steps = loop.count_steps("steps", len(x), batch_size, steps)
        hooks = Hooks(callbacks, self, {"steps": steps})
        self._build_for(x)
        return loop.predict(self, Rows(x, None, None, self.dtype), batch_size, steps, hooks)

    def train_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, class_weight: Any = None, return_dict: bool = False
    ) -> float | list[float] | dict[str, float]:
        """One update on one batch; arguments and errors as in `fit`, result as in `evaluate`.

        Examples
        --------
        >>> import numpy as np
        >>> import elman
        >>> model = elman.Sequential([elman.layers.LSTM(2), elman.layers.Dense(1)], seed=0)
        >>> model.compile("sgd", "mse")
        >>> isinstance(model.train_on_batch(np.ones((4, 3, 2)), np.ones(4)), float)
        True
        """
        rows = self._rows(x, y, sample_weight, class_weight)
        return self._on_batch(self.train_step, rows, return_dict=return_dict)

    def test_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False
    ) -> float | list[float] | dict[str, float]:
        """Loss and metrics on one batch; arguments and errors as in `fit`, result as in `evaluate`."""
        return self._on_batch(self.test_step, self._rows(x, y, sample_weight), return_dict=return_dict)

    def _on_batch(self, step: Callable, rows: Rows, *, return_dict: bool) -> Any:
        if self._scores is None:
            self._scores = self._ready(rows.x)
        scores = self._scores
        x, y, w = next(rows.batches(len(rows)))
        with self.lock:
            scores.reset()
            loss, outputs = step(x, y, w)
            scores.add(loss, len(x), y, outputs, w)
            return loop.results(scores.logs(), return_dict=return_dict)

    def predict_on_batch(self, x: Any) -> np.ndarray:
        """Outputs for one batch; see `predict`."""
        return self.predict(x, batch_size=1 << 62)

    def gradients(self, x: Any, y: Any, sample_weight: Any = None) -> list[np.ndarray]:
        """Exact gradients of the loss on one batch, without an update.

        Parameters
        ----------
        x, y, sample_weight
            As in `fit`.

        Returns
        -------
        list of ndarray
            Aligned with `get_weights`.

        Raises
        ------
        ValueError, TypeError
            As in `fit`.

        Examples
        --------
        >>> import numpy as np
        >>> import elman
        >>> model = elman.Sequential([elman.layers.GRU(2), elman.layers.Dense(1)], seed=0)
        >>> model.compile("sgd", "mse")
        >>> [g.shape for g in model.gradients(np.ones((4, 3, 5)), np.ones(4))]
        [(5, 6), (2, 6), (2, 6), (2, 1), (1,)]
        """
        rows = self._rows(x, y, sample_weight)
        self._build_for(rows.x)
        with self.lock:
            self._loss_and_gradients(*next(rows.batches(len(rows))))
            return [g.copy() for g in self._vector.views(self._vector.gradients)]
