"""The border where data come in, and training, tests and predictions on one batch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from elman.data import Lanes, Windows
from elman.errors import BadValue
from elman.kernels.elementwise import all_within
from elman.masks import checked_steps, smallest
from elman.training import loop
from elman.training.batches import Batch, Form, plain_form
from elman.training.data import Rows, prepare
from elman.training.inputs import unpack
from elman.training.steps import Steps

# Lanes are evaluated so many steps at a time: enough that a call's overhead is small, few enough for the cache.
_LANE_STEPS = 256


class Batchwise(Steps):
    """The border where data come in, and what is done with one batch of them."""

    layers: list[Any]

    # ---- what a model defines

    @abstractmethod
    def _check_x(self, x: Any, argument: str = "x", like: np.ndarray | None = None) -> np.ndarray | Windows:
        """x as (N, *input shape) in its own dtype. A model not built yet stays so; `like`, or x, gives its shape."""

    @abstractmethod
    def _check_values(self, x: np.ndarray, y: np.ndarray | None = None) -> None:
        """ValueError for finite values that the first layer or, as targets, the loss cannot take."""

    @abstractmethod
    def _build_for(self, x: np.ndarray) -> None:
        """Build the model for x if it is not built yet."""

    @abstractmethod
    def _output_shape(self, x: np.ndarray) -> tuple[int, ...]:
        """Shape of the outputs for x."""

    @abstractmethod
    def _check_ends(self, steps: np.ndarray, count: int, prefix: str) -> None:
        """ValueError where a layer needs sequences that end together, and `steps`, a mask or lengths, has others."""

    @abstractmethod
    def _warn_of_logits(self) -> None:
        """Warn of a loss of probabilities behind outputs that are none, or the reverse."""

    @abstractmethod
    def _check_streams(self, x: np.ndarray) -> None:
        """ValueError unless sequences such as x may be given piece by piece."""

    @abstractmethod
    def _takes_tokens(self, x: np.ndarray) -> bool:
        """Whether x (N, T) holds token ids, one per step."""

    @abstractmethod
    def _counts(self, x: np.ndarray) -> np.ndarray | None:
        """How many steps each sequence uses as far as its own values tell; None for all."""

    # ---- data

    def _inputs(
        self, x: Any, lengths: Any, mask: Any, prefix: str = "", like: np.ndarray | None = None
    ) -> tuple[np.ndarray | Windows, np.ndarray | None, np.ndarray | None]:
        """x, which steps its sequences use, and how many."""
        x = self._check_x(x, f"{prefix}x", like)
        if lengths is None and mask is None:
            return x, None, self._counts(x)
        if x.ndim < 3 and not self._takes_tokens(x):
            given = "lengths" if mask is None else "mask"
            raise BadValue(f"{prefix}{given}: x of shape {x.shape} has no steps; expected sequences (N, T, features)")
        steps = checked_steps(mask, lengths, x.shape[:2], prefix)
        self._check_ends(steps, x.shape[1], prefix)
        return x, steps, steps if steps.ndim == 1 else steps.sum(axis=1, dtype=smallest(x.shape[1]))

    def _rows(
        self, x: Any, y: Any = None, sample_weight: Any = None, class_weight: Any = None, *, lengths: Any = None,
        mask: Any = None, prefix: str = "", like: np.ndarray | None = None,
    ) -> Rows:  # fmt: skip
        loss, lanes = self._compiled(), isinstance(x, Lanes)
        x, y, lengths = unpack(x, y, lengths, mask, prefix, per_row=loss.per_row)
        x, steps, counts = self._inputs(x, lengths, mask, prefix, like)
        rows = prepare(
            x, y, sample_weight, class_weight, loss, self._output_shape(x), self.dtype, steps, counts, prefix
        )
        if lanes:
            self._check_streams(rows.x)
            rows.pieces = _LANE_STEPS
        return rows

    def _inputs_only(self, x: Any, lengths: Any = None, mask: Any = None) -> Rows:
        x, _, lengths = unpack(x, None, lengths, mask) if not isinstance(x, Windows) else (x, None, lengths)
        x, steps, counts = self._inputs(x, lengths, mask)
        return Rows(x, None, None, self.dtype, mask=steps, counts=counts)

    def _ready(self, rows: Rows) -> loop.Scores:
        """Parameters and optimizer for data that were checked, and metrics of their own: a callback may evaluate."""
        shape = self._output_shape(rows.x)
        scores = loop.make_scores(self._metric_names, self.loss, shape[1:])
        scores.rehearse(rows.y[:1], np.zeros((1, *shape[1:]), self.dtype))
        self._warn_of_logits()
        self._build_for(rows.x)
        self._ready_optimizer()
        return scores

    def _check_batches(self, n: int, size: int, what: str) -> None:
        """ValueError unless stateful layers find batches of one size."""
        if self._stateful and n > size and n % size:
            raise BadValue(
                f"{what}: stateful layers need batches of one size, but {n} samples are no multiple of {size}"
            )

    def stream_step(self, x: Any, *, mask: Any = None) -> np.ndarray:
        """Outputs for the next piece of sequences that are given piece by piece, with the states carried.

        Parameters
        ----------
        x : array_like
            (B, t, I), or (B, t) where the model takes that; any t, one at a time in a control loop.
        mask : array_like of bool, shape (B, t), optional
            True where a sequence uses a step.

        Returns
        -------
        ndarray
            (B, t, O), or (B, O) for a model with one output per sequence. ``reset_states("stream")`` begins new ones.

        Raises
        ------
        ValueError
            If a layer needs whole sequences, or the batch differs from the one before.

        Examples
        --------
        >>> import numpy as np
        >>> import elman
        >>> model = elman.Sequential([elman.layers.GRU(3, return_sequences=True)], seed=0)
        >>> x = np.random.default_rng(0).normal(size=(1, 6, 2))
        >>> whole = model.predict(x)
        >>> pieces = [model.stream_step(x[:, :4]), model.stream_step(x[:, 4:])]
        >>> bool((np.concatenate(pieces, axis=1) == whole).all())
        True
        """
        rows = self._inputs_only(x, None, mask)
        self._build_for(rows.x)
        self._check_streams(rows.x)
        batch = next(rows.batches(len(rows), sort=False))
        with self.lock, self._states.carried("stream", self._recurrent_layers(stateful=False), len(rows)):
            return np.array(self._forward(batch.x, batch.mask, training=False))

    # ---- one batch

    def train_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, class_weight: Any = None, return_dict: bool = False,
        *, lengths: Any = None, mask: Any = None,
    ) -> float | list[float] | dict[str, float]:  # fmt: skip
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
        plain = sample_weight is class_weight is lengths is mask is None
        batch = self._repeated(self._form, x, y) if plain else None
        if batch is None:
            rows = self._rows(x, y, sample_weight, class_weight, lengths=lengths, mask=mask)
            batch = self._checked_batch(x, y, rows)
        return self._on_batch(self.train_step, batch, return_dict=return_dict)

    def test_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False,
        *, lengths: Any = None, mask: Any = None,
    ) -> float | list[float] | dict[str, float]:  # fmt: skip
        """Loss and metrics on one batch; arguments and errors as in `fit`, result as in `evaluate`."""
        batch = self._repeated(self._form, x, y) if sample_weight is lengths is mask is None else None
        if batch is None:
            batch = self._checked_batch(x, y, self._rows(x, y, sample_weight, lengths=lengths, mask=mask))
        return self._on_batch(self.test_step, batch, return_dict=return_dict)

    def _checked_batch(self, x: Any, y: Any, rows: Rows) -> Batch:
        """The batch that x and y are, checked as `rows`; what `_repeated` needs to know of them is kept."""
        if self._scores is None:
            self._scores = self._ready(rows)
        batch = self._whole(rows)
        self._form = plain_form(x, y, rows, batch)
        return batch

    def _repeated(self, form: Form | None, x: Any, y: Any) -> Batch | None:
        """The batch, if x and y have the form of others that needed no conversion; then only values are checked.

        None also for wrong values: the general way finds out what to say. After large kernels all code is cold; this
        one takes 10 us of a step, the general way 150 (LSTM (32,100,8,64)).
        """
        if form is None or type(x) is not np.ndarray or type(y) is not np.ndarray:
            return None
        if (x.shape, x.dtype, y.shape, y.dtype) != form or not (all_within(x) and all_within(y)):
            return None
        self._check_values(x, y)
        return Batch(x, y)

    def _on_batch(self, step: Callable[..., Any], batch: Batch, *, return_dict: bool) -> Any:
        with self.lock:
            self._ready_optimizer()
            scores = self._scores
            scores.reset()
            scores.add(batch, *step(batch))
            return loop.results(scores.logs(), return_dict=return_dict)

    def _whole(self, rows: Rows) -> Batch:
        return next(rows.batches(len(rows), sort=not self._stateful))

    def predict_on_batch(self, x: Any) -> np.ndarray:
        """Outputs for one batch; see `predict`."""
        form = (x.shape, x.dtype) if type(x) is np.ndarray else None
        if form is not None and form == self._x_form and all_within(x):
            self._check_values(x)
            with self.lock:
                return np.array(self.predict_step(Batch(x)))
        outputs: np.ndarray = self.predict(x, batch_size=1 << 62)  # type: ignore[attr-defined]  # of the class above it
        if form is not None and x.dtype == self.dtype and x.ndim > len(self.layers[0].shape):
            self._x_form = form
        return outputs

    def gradients(
        self, x: Any, y: Any, sample_weight: Any = None, *, lengths: Any = None, mask: Any = None
    ) -> list[np.ndarray]:
        """Exact gradients of the loss on one batch, penalties included, without an update.

        Parameters
        ----------
        x, y, sample_weight, lengths, mask
            As in `fit`.

        Returns
        -------
        list of ndarray
            Aligned with `get_weights`; 0 for parameters that are not trained. Noise is that of the last training step.

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
        return self.loss_and_gradients(x, y, sample_weight, lengths=lengths, mask=mask)[1]

    def loss_and_gradients(
        self, x: Any, y: Any, sample_weight: Any = None, *, lengths: Any = None, mask: Any = None
    ) -> tuple[float, list[np.ndarray]]:
        """The loss that training sees, noise included, with its gradients; see `gradients`."""
        rows = self._rows(x, y, sample_weight, lengths=lengths, mask=mask)
        self._build_for(rows.x)
        self._ready_optimizer()
        with self.lock:
            kept = dict(self._states.kept)
            value, _, _ = self._loss_and_gradients(self._whole(rows))
            self._states.kept = kept
            views = zip(self._vector.views(self._vector.gradients), self._vector.trainable, strict=True)
            return value, [g.copy() if free else np.zeros_like(g) for g, free in views]
