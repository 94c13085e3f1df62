"""The abstract loss, and the rules by which targets and weights meet an output of shape (N, ..., O)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from elman.checks import finite, numeric
from elman.errors import BadValue
from elman.jit import Function
from elman.kernels import losses as kernels
from elman.threads import usable_threads

# Below this many values a second thread costs more than it saves.
_PARALLEL = 200_000
_UNMASKED = np.empty(0, np.bool_)


def align(
    argument: str,
    y: np.ndarray,
    output_shape: tuple[int, ...],
    *,
    labels: bool = False,
    other: str = "the model's output",
) -> np.ndarray:
    """View of targets `y` in the shape that belongs to an output, or a ValueError with both shapes.

    Parameters
    ----------
    argument : str
        Name of `y` in the message.
    y : ndarray
        Of `output_shape`; or without its last axis, if that has size 1. With `labels`: of `output_shape` without its
        last axis, or with that axis of size 1.
    output_shape : tuple of int
        (N, ..., O).
    labels : bool
        Whether y holds one class index per row instead of O values.
    other : str
        What has `output_shape`, for the message.

    Examples
    --------
    >>> import numpy as np
    >>> align("y", np.zeros(5), (5, 1)).shape
    (5, 1)
    >>> align("y", np.zeros((5, 1), int), (5, 3), labels=True).shape
    (5,)
    >>> align("y", np.zeros((5, 2)), (5, 1))
    Traceback (most recent call last):
    elman.errors.BadValue: y: shape (5, 2) does not fit the model's output of shape (5, 1); expected (5, 1) or (5,)
    """
    shape = tuple(output_shape)
    rows = shape[:-1]
    allowed: tuple[tuple[int, ...], ...]
    if labels:
        allowed, result = (rows, (*rows, 1)), rows
    else:
        allowed, result = (shape, rows) if shape[-1] == 1 else (shape,), shape
    if y.shape in allowed:
        return y.reshape(result)
    wanted = " or ".join(map(str, allowed))
    what = "class indices of shape " if labels else ""
    raise BadValue(f"{argument}: shape {y.shape} does not fit {other} of shape {shape}; expected {what}{wanted}")


def row_weights(
    sample_weight: Any, output_shape: tuple[int, ...], argument: str = "sample_weight"
) -> np.ndarray | None:
    """One weight for each of the n rows of an output (N, ..., O): (n,), or None for no weights.

    Parameters
    ----------
    sample_weight : array_like or None
        One weight per sample, (N,), or per sample and step, (N, T): any leading part of the output's row axes.
    output_shape : tuple of int
        (N, ..., O).
    argument : str
        Name in messages.

    Raises
    ------
    ValueError
        If the shape is another, or a weight is not finite.

    Examples
    --------
    >>> row_weights([1.0, 2.0], (2, 3, 1))
    array([1., 1., 1., 2., 2., 2.])
    """
    if sample_weight is None:
        return None
    weights, rows = numeric(argument, sample_weight), tuple(output_shape[:-1])
    finite(argument, weights)
    axes = weights.ndim
    if not 1 <= axes <= len(rows) or weights.shape != rows[:axes]:
        allowed = " or ".join(str(rows[:k]) for k in range(1, len(rows) + 1))
        raise BadValue(
            f"{argument}: shape {weights.shape} does not fit an output of shape {tuple(output_shape)}; "
            f"expected {allowed}"
        )
    if weights.dtype not in (np.float32, np.float64):
        weights = weights.astype(np.float64)
    spread = weights.reshape(weights.shape + (1,) * (len(rows) - axes))
    return np.ascontiguousarray(np.broadcast_to(spread, rows)).reshape(-1)


def class_indices(name: str, y: np.ndarray, classes: int) -> np.ndarray:
    """Class indices as int64, or a ValueError with the first that is none of 0 ... `classes` - 1.

    Examples
    --------
    >>> class_indices("y", np.array([0.0, 2.0]), 3)
    array([0, 2])
    """
    wrong = (y < 0) | (y >= classes)
    if y.dtype.kind == "f":
        wrong |= y != np.floor(y)
    if wrong.any():
        first = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise BadValue(
            f"{name}: class indices must be integers from 0 to {classes - 1}, but {int(wrong.sum())} of {y.size} "
            f"are not, the first at index {first}: {y[first]}"
        )
    return np.ascontiguousarray(y, dtype=np.int64)


def within(name: str, y: np.ndarray, what: str, low: float, high: float = np.inf) -> None:
    """ValueError unless all targets `y` of a loss, `what`, lie in [low, high].

    Examples
    --------
    >>> within("y", np.array([3.0, -1.0]), "the Poisson loss", 0)
    Traceback (most recent call last):
    elman.errors.BadValue: y: targets of the Poisson loss must lie in [0, inf), these span [-1.0, 3.0]
    """
    least, most = y.min(), y.max()
    if least < low or most > high:
        span = f"[{low}, {high}]" if high < np.inf else f"[{low}, inf)"
        raise BadValue(f"{name}: targets of {what} must lie in {span}, these span [{least}, {most}]")


class Loss(ABC):
    """Abstract loss. A subclass is a frozen dataclass of options with `kernel` and `reference`; `LOSSES` lists it.

    Calling an instance gives the loss of whole arrays: ``loss(y_true, y_pred, sample_weight=None)``.

    Examples
    --------
    >>> from elman.losses import Huber
    >>> Huber(delta=1.0)([0.0, 0.0], [0.5, 3.0])
    1.3125
    """

    aliases: ClassVar[tuple[str, ...]] = ()
    elementwise: ClassVar[bool] = True
    """Whether a row of outputs has one loss per value, of which the mean is taken, or a single loss."""
    labels: ClassVar[bool] = False
    """Whether targets are class indices."""
    other_targets: ClassVar[str] = ""
    """Which loss takes targets of the other kind, for messages."""
    per_row: ClassVar[bool] = True
    """Whether every row of outputs has a loss of its own, rather than every sample."""

    @property
    @abstractmethod
    def kernel(self) -> Function:
        """Compiled loss with its derivative; see `elman.kernels.losses`."""

    def options(self) -> tuple[float, ...]:
        """Numbers that the kernel gets."""
        return ()

    @abstractmethod
    def reference(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        """Loss of each row, (n,), in plain NumPy, written from the formula: the twin that tests compare with."""

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> float:
        """Loss of a batch.

        Parameters
        ----------
        y_true : array_like
            Targets; see `check_target`.
        y_pred : array_like, (N, ..., O)
            Outputs; for an elementwise loss also (N,), read as (N, 1). NaN gives NaN.
        sample_weight : array_like or None
            See `row_weights`.

        Returns
        -------
        float
            ``sum_i w_i l_i / n``, accumulated in float64.
        """
        pred = numeric("y_pred", y_pred)
        if pred.ndim == 1 and self.elementwise:
            pred = pred.reshape(-1, 1)
        if pred.ndim < 2:
            raise BadValue(f"y_pred: expected shape (N, ..., O), got {pred.shape}")
        dtype = np.dtype(np.float32 if pred.dtype in (np.float32, np.float16) else np.float64)
        target = self._target("y_true", y_true, pred.shape, "y_pred")
        weights = row_weights(sample_weight, pred.shape)
        n, columns = pred.size // pred.shape[-1], pred.shape[-1]
        target = target.reshape(n) if self.labels else target.reshape(n, -1)
        target = np.require(target, np.int64 if self.labels else dtype, ["C", "W"])
        return self.value_and_gradient(target, np.require(pred.reshape(n, columns), dtype, ["C", "W"]), weights, None)

    def check_target(self, y_true: Any, output_shape: tuple[int, ...], name: str = "y") -> np.ndarray:
        """Targets in exactly the shape this loss takes them; the check at the border of training.

        Parameters
        ----------
        y_true : array_like
            Targets of `output_shape`, the last size being `target_width`; that axis may be missing where it has size 1.
            For class indices: one integer per row, with or without a last axis of size 1.
        output_shape : tuple of int
            Shape (N, ..., O) of the outputs.
        name : str
            Name in messages.

        Returns
        -------
        ndarray
            (N, ..., O) in the dtype given, a view where possible; class indices as int64 (N, ...).

        Raises
        ------
        TypeError
            If `y_true` holds no real numbers.
        ValueError
            For any other shape (the message has both), values that are not finite, class indices that are no integers
            in [0, O), or probabilities outside [0, 1].

        Examples
        --------
        >>> from elman.losses import get
        >>> get("sparse_categorical_crossentropy").check_target([[0.0], [2.0]], (2, 3))
        array([0, 2])
        """
        return self._target(name, y_true, output_shape, "the model's output")

    def _target(self, name: str, y_true: Any, output_shape: tuple[int, ...], other: str) -> np.ndarray:
        y = numeric(name, y_true)
        shape, width = tuple(output_shape), self.target_width(output_shape, other)
        if width != shape[-1]:
            shape, other = (*shape[:-1], width), f"{other} of shape {shape}, with targets"
        try:
            y = align(name, y, shape, labels=self.labels, other=other)
        except BadValue as error:
            raise BadValue(f"{error}{self.other_targets}") from None
        finite(name, y)
        if self.labels:
            return class_indices(name, y, output_shape[-1])
        self._check_values(name, y)
        return y

    def target_width(self, output_shape: tuple[int, ...], other: str) -> int:
        """Size of the last axis of targets beside outputs of a shape, (N, ..., O): O, unless a target takes several.

        Raises
        ------
        ValueError
            If outputs of that shape, those of `other`, do not suit the loss.
        """
        return output_shape[-1]

    def _check_values(self, name: str, y: np.ndarray) -> None:  # noqa: B027 - most formulas take any finite target
        """Refuse finite targets that the formula is not made for."""

    @cached_property
    def _plans(self) -> dict[np.dtype, tuple[np.ndarray, np.ndarray]]:
        return {}

    def _plan(self, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
        """Options and absent weights as arrays of `dtype`."""
        plan = self._plans[dtype] = np.array(self.options(), dtype), np.empty(0, dtype)
        return plan

    def check_steps(self, name: str, y: np.ndarray, counts: np.ndarray) -> None:
        """ValueError if the targets y need more steps than sequences use, `counts` (N,). Most losses need none."""
        return None

    def check_weights(self, name: str, weights: np.ndarray, mask: np.ndarray | None) -> None:
        """ValueError for weights (N, ...) that the loss cannot use, at the steps of `mask` (N, T). Most take any."""
        return None

    def predictions(self, outputs: np.ndarray) -> np.ndarray:
        """What metrics compare with targets: the outputs themselves, unless they are parameters of something."""
        return outputs

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
        y : ndarray
            The batch's part of what `check_target` gave, in the dtype of `outputs`; class indices as int64.
        outputs : ndarray, (b, ..., O)
            C-contiguous, float32 or float64.
        weights : ndarray or None
            (b, ...), one per row of outputs; for None all 1.
        mask : ndarray of bool or None
            (b, T) for outputs (b, T, ..., O): which steps are valid; for None all.
        gradient : ndarray or None
            As `outputs`, overwritten by the derivative; None where only the value is wanted.

        Returns
        -------
        float
            ``sum_i w_i l_i / n`` over the valid rows, n their number; 0, as the gradient, where none is valid. Nothing
            that stands in another row, NaN included, has any effect.

        Examples
        --------
        >>> from elman.losses import get
        >>> y, outputs = np.zeros((1, 2, 1)), np.array([[[2.0], [np.nan]]])
        >>> get("mse").on_batch(y, outputs, None, np.array([[True, False]]), None)
        4.0
        """
        columns = outputs.shape[-1]
        rows = outputs.size // columns
        if mask is not None:
            mask = np.ascontiguousarray(mask).reshape(-1)
            if mask.size != rows:
                mask = np.repeat(mask, rows // mask.size)
        return self.value_and_gradient(
            y.reshape(rows) if self.labels else y.reshape(rows, -1),
            outputs.reshape(rows, columns),
            None if weights is None else weights.reshape(rows),
            None if gradient is None else gradient.reshape(rows, columns),
            mask,
        )

    def value_and_gradient(
        self,
        y_true: np.ndarray,
        y_pred: np.ndarray,
        weights: np.ndarray | None,
        gradient: np.ndarray | None,
        mask: np.ndarray | None = None,
    ) -> float:
        """Loss of n rows and its exact derivative with respect to `y_pred`. The hot path: nothing is checked.

        Parameters
        ----------
        y_true : ndarray
            (n, `target_width`) in the dtype of `y_pred`, or the class indices, int64 (n,), from `check_target`.
        y_pred : ndarray, (n, O)
            C-contiguous, float32 or float64.
        weights : ndarray or None
            (n,), for None all 1.
        gradient : ndarray or None
            As `y_pred`, overwritten by the derivative; None where only the value is wanted.
        mask : ndarray of bool or None
            (n,), C-contiguous: the rows that count; for None all.

        Returns
        -------
        float
            ``sum_i w_i l_i / n``, over the rows that count. Its bits depend neither on the number of threads nor on
            `gradient`; a mask of True alone changes none.
        """
        dtype = y_pred.dtype
        options, unweighted = self._plans.get(dtype) or self._plan(dtype)
        if weights is None:
            weights = unweighted
        elif weights.dtype != dtype:
            weights = weights.astype(dtype)
        if gradient is None:
            gradient = np.empty_like(y_pred)
        rows, columns = y_pred.shape
        size = y_pred.size if self.elementwise else rows
        count = size
        if mask is None:
            mask = _UNMASKED
        else:
            valid = int(np.count_nonzero(mask))
            if not valid:
                gradient[...] = 0
                return 0.0
            count = valid * (size // rows)
        block = max(1, kernels.CHUNK // columns)
        values = np.empty(-(-rows // block))
        threads = 1 if y_pred.size < _PARALLEL else usable_threads()
        loss, weigh = self.kernel.handle(dtype), kernels.weigh.handle(dtype)
        losses = np.empty(size, dtype)
        kernels.value_and_gradient(
            threads, loss, weigh, y_true, y_pred, options, weights, mask, count, block, losses, gradient, values
        )
        return values.item(0) if values.size == 1 else float(values.sum())

    def get_config(self) -> dict[str, Any]:
        """Arguments that make an equal loss; JSON can hold them."""
        return asdict(self)  # type: ignore[call-overload]

    def __getstate__(self) -> dict[str, Any]:
        return self.get_config()
