"""The loss of sequences of labels that come without their positions in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from elman.checks import finite, integer, numeric
from elman.errors import BadValue
from elman.kernels import ctc as kernels
from elman.loss import Loss, row_weights
from elman.threads import usable_threads

# Below this many states of all samples and steps a second thread costs more than it saves.
_PARALLEL = 5_000


def _lengths(y: np.ndarray, blank: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of each sample, and the steps that they need at least: a blank stands between two equal ones."""
    counts = (y != blank).sum(axis=1)
    repeats = ((y[:, 1:] == y[:, :-1]) & (y[:, 1:] != blank)).sum(axis=1)
    return counts, counts + repeats


def _check_room(name: str, needed: np.ndarray, steps: np.ndarray, counts: np.ndarray, what: str) -> None:
    short = np.flatnonzero(needed > steps)
    if short.size:
        i = int(short[0])
        raise BadValue(
            f"{name}: sample {i} has {counts[i]} labels, which take at least {needed[i]} steps with a blank between "
            f"equal neighbours, but {what} has {steps[i]} for it ({short.size} of {len(needed)} samples are too long)"
        )


@dataclass(frozen=True)
class CTC(Loss):
    """Connectionist temporal classification: ``-log P`` of a sample's labels, P the sum over all their alignments.

    Graves, Fernandez, Gomez and Schmidhuber (2006). Outputs (N, T, C) are logits of C classes, one of them the blank;
    the softmax belongs to the loss. An alignment names a class per step; equal neighbours are one label and blanks
    none. The value is the mean over the samples of a batch, not divided by the number of labels or steps.

    Parameters
    ----------
    blank : int
        Class that stands for no label, and fills up short rows of targets.

    Notes
    -----
    Targets are class indices (N, L) without blanks, each row filled up at its end with `blank` or -1. As in Keras,
    whose blank is always 0; there a blank inside a row gives a wrong number, here an error. PyTorch, by default,
    divides by the number of labels.

    With a mask or lengths, the valid steps of a sample are its input, wherever they stand. A sample without a step
    and without a label counts as absent. `elman.ctc` has the decoders.

    Examples
    --------
    >>> from elman.losses import CTC
    >>> round(CTC()([[1]], [[[0.0, 0.0], [0.0, 0.0]]]), 4)  # 1-1, 1-blank and blank-1: 3 of 4 alignments
    0.2877
    >>> CTC().check_target([[1, 1]], (1, 2, 2))
    Traceback (most recent call last):
    elman.errors.BadValue: y: sample 0 has 2 labels, which take at least 3 steps with a blank between equal \
neighbours, but the model's output has 2 for it (1 of 1 samples are too long)
    """

    blank: int = 0
    elementwise = False
    labels = True
    per_row = False
    kernel = kernels.paths

    def __post_init__(self) -> None:
        object.__setattr__(self, "blank", integer("blank", self.blank, 0))

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> float:
        """Loss of a batch.

        Parameters
        ----------
        y_true : array_like of int, (N, L)
            Labels; see the class.
        y_pred : array_like, (N, T, C)
            Logits. NaN gives NaN.
        sample_weight : array_like or None
            (N,).

        Returns
        -------
        float
            ``sum_i w_i l_i / N``, in float64.
        """
        pred = numeric("y_pred", y_pred)
        dtype = np.dtype(np.float32 if pred.dtype in (np.float32, np.float16) else np.float64)
        y = self._target("y_true", y_true, pred.shape, "y_pred")
        weights = row_weights(sample_weight, (len(pred), 1))
        return self.value_and_gradient(y, np.require(pred, dtype, ["C", "W"]), weights, None)

    def _target(self, name: str, y_true: Any, output_shape: tuple[int, ...], other: str) -> np.ndarray:
        shape = tuple(output_shape)
        if len(shape) != 3:
            raise BadValue(f"CTC: expected outputs of shape (N, T, C), but the shape of {other} is {shape}")
        if self.blank >= shape[-1]:
            raise BadValue(f"blank: class {self.blank} is none of the {shape[-1]} classes of {other}, {shape}")
        y = numeric(name, y_true)
        if y.ndim != 2 or len(y) != shape[0]:
            raise BadValue(
                f"{name}: shape {y.shape} does not fit {other} of shape {shape}; expected labels of shape "
                f"({shape[0]}, L)"
            )
        finite(name, y)
        filled = (y == self.blank) | (y == -1)
        wrong = ~filled & ((y < 0) | (y >= shape[-1]) | (y != np.floor(y)))
        late = ~filled[:, 1:] & filled[:, :-1]
        for places, offset, what in (
            (wrong, 0, f"labels must be integers from 0 to {shape[-1] - 1}, or -1 to fill a row"),
            (late, 1, f"a label follows the blank, {self.blank}, or -1: only the end of a row may be filled"),
        ):
            if places.any():
                i, j = (int(k) for k in np.argwhere(places)[0])
                raise BadValue(f"{name}: {what}, got {y[i, j + offset]} at index ({i}, {j + offset})")
        labels = np.where(filled, self.blank, y).astype(np.int64)
        counts, needed = _lengths(labels, self.blank)
        _check_room(name, needed, np.full(len(y), shape[1]), counts, other)
        return labels

    def check_steps(self, name: str, y: np.ndarray, counts: np.ndarray) -> None:
        """ValueError, with the first sample, if the labels of one need more steps than it uses."""
        labels, needed = _lengths(y, self.blank)
        _check_room(name, np.where(counts > 0, needed, 0), counts, labels, "its length or mask")

    def check_weights(self, name: str, weights: np.ndarray, mask: np.ndarray | None) -> None:
        """ValueError, with the first sample, if the weights of one differ between steps that it uses."""
        differ = weights != _first_used(weights, mask)[:, None]
        odd = (differ if mask is None else differ & mask).any(axis=1)
        if odd.any():
            raise BadValue(
                f"{name}: CTC has one loss per sample, but the weights of sample {int(np.argmax(odd))} differ between "
                "its steps"
            )

    def on_batch(
        self,
        y: np.ndarray,
        outputs: np.ndarray,
        weights: np.ndarray | None,
        mask: np.ndarray | None,
        gradient: np.ndarray | None,
    ) -> float:
        """Loss of a batch of b samples and its exact derivative with respect to `outputs`: what training calls.

        Parameters
        ----------
        y : ndarray of int64, (b, L)
            The batch's part of what `check_target` gave.
        outputs : ndarray, (b, T, C)
            C-contiguous, float32 or float64.
        weights : ndarray or None
            (b, T), the same for all valid steps of a sample; for None all 1.
        mask : ndarray of bool or None
            (b, T): which steps are valid; for None all.
        gradient : ndarray or None
            As `outputs`, overwritten by the derivative; None where only the value is wanted.

        Returns
        -------
        float
            ``sum_i w_i l_i / n`` over the n samples that have a valid step; 0, as the gradient, where none has.

        Raises
        ------
        ValueError
            If the labels of a sample need more steps than are valid, or weights differ between its steps. `gradient`
            is then as it was.

        Examples
        --------
        >>> from elman.losses import CTC
        >>> y, outputs = np.array([[1]]), np.zeros((1, 3, 2))
        >>> round(CTC().on_batch(y, outputs, None, np.array([[True, True, False]]), None), 4)
        0.2877
        """
        if weights is not None:
            self.check_weights("sample_weight", weights, mask)
            weights = _first_used(weights, mask)
        return self.value_and_gradient(y, outputs, weights, gradient, mask)

    def value_and_gradient(
        self,
        y_true: np.ndarray,
        y_pred: np.ndarray,
        weights: np.ndarray | None,
        gradient: np.ndarray | None,
        mask: np.ndarray | None = None,
    ) -> float:
        """Loss of n samples and its exact derivative; as `on_batch`, but with weights (n,)."""
        samples, steps, classes = y_pred.shape
        counts, needed = _lengths(y_true, self.blank)
        if mask is None:
            times, lengths = np.arange(steps), np.full(samples, steps)
            times = np.ascontiguousarray(np.broadcast_to(times, (samples, steps)))
        else:
            times, lengths = np.argsort(~mask, axis=1, kind="stable"), mask.sum(axis=1)
            _check_room("y", needed, lengths, counts, "the mask")
        if gradient is None:
            gradient = np.empty_like(y_pred)
        count = max(1, int(np.count_nonzero(lengths)))
        factors = np.full(samples, 1.0) if weights is None else weights.astype(np.float64)
        width = 2 * y_true.shape[1] + 1
        threads = 1 if samples * steps * width < _PARALLEL else min(samples, usable_threads())
        scratch = np.empty((threads, (steps + 2) * width + steps + classes))
        losses = np.empty(samples)
        kernels.losses_and_gradient(
            threads, self.kernel.handle(y_pred.dtype), y_true, y_pred, times, lengths, counts, factors / count,
            np.array([samples, steps, classes, y_true.shape[1]]), self.blank, scratch, losses, gradient,
        )  # fmt: skip
        return float((losses * factors).sum() / count)

    def reference(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        top = y_pred.max(axis=-1, keepdims=True)
        log_p = y_pred - top - np.log(np.exp(y_pred - top).sum(axis=-1, keepdims=True))
        rows, states = np.arange(len(y_true)), 2 * y_true.shape[1] + 1
        # Blanks at the end of a row are states like others, which no path that counts has reached.
        path = np.full((len(y_true), states), self.blank)
        path[:, 1::2] = y_true
        emitted = np.take_along_axis(log_p, path[:, None, :].repeat(y_pred.shape[1], axis=1), axis=2)
        skip = np.zeros(path.shape, bool)
        skip[:, 2:] = (path[:, 2:] != self.blank) & (path[:, 2:] != path[:, :-2])
        alpha = np.full(path.shape, -np.inf)
        alpha[:, :2] = emitted[:, 0, :2]
        for t in range(1, y_pred.shape[1]):
            one, two = (np.pad(alpha, ((0, 0), (k, 0)), constant_values=-np.inf)[:, :states] for k in (1, 2))
            alpha = np.logaddexp(np.logaddexp(alpha, one), np.where(skip, two, -np.inf)) + emitted[:, t]
        last = 2 * (y_true != self.blank).sum(axis=1)
        before = np.where(last > 0, alpha[rows, last - 1], -np.inf)
        return -np.logaddexp(alpha[rows, last], before)


def _first_used(weights: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """The weight (N,) at the first step that each sample uses."""
    first = np.zeros(len(weights), np.intp) if mask is None else mask.argmax(axis=1)
    found: np.ndarray = weights[np.arange(len(weights)), first]
    return found
