"""The abstract metric, and the running mean that most metrics are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np

from elman.checks import numeric
from elman.errors import BadType, BadValue
from elman.loss import align, row_weights


def _numbers(argument: str, value: Any) -> np.ndarray:
    return value if type(value) is np.ndarray and value.dtype.kind in "fiub" else numeric(argument, value)


class Metric(ABC):
    """Abstract metric: a number over all batches since the last reset. `METRICS` lists the subclasses.

    A subclass defines `reset_state`, `accumulate` and `result`; one that is a mean over rows derives from `MeanMetric`.

    Parameters
    ----------
    name : str or None
        Key in the training history; None for the class's own.

    Examples
    --------
    >>> from elman.metrics import MeanAbsoluteError
    >>> metric = MeanAbsoluteError()
    >>> metric.update_state([[1.0], [2.0]], [[1.5], [2.0]])
    >>> metric.update_state([[0.0]], [[1.0]])
    >>> metric.result()
    0.5
    """

    default_name: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    labels: ClassVar[bool] = False
    """Whether targets are class indices."""

    def __init__(self, name: str | None = None) -> None:
        if name is not None and not isinstance(name, str):
            raise BadType(f"name: expected a string or None, got {type(name).__name__} {name!r}")
        self.name = name or self.default_name
        self.reset_state()

    @abstractmethod
    def reset_state(self) -> None:
        """Forget everything seen."""

    @abstractmethod
    def accumulate(self, y_true: np.ndarray, y_pred: np.ndarray, weights: np.ndarray | None) -> None:
        """Add a batch: outputs (N, ..., O), targets of that shape or class indices (N, ...), weights (N, ...) or None.

        No weight is 0: rows with that weight are taken out before. The arrays are the caller's: their memory may change
        afterwards.
        """

    @abstractmethod
    def result(self) -> float:
        """The number over all rows since the last reset; 0 where nothing was seen."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch.

        Parameters
        ----------
        y_true : array_like
            Targets of the shape of `y_pred`; a last axis of size 1 may be missing. Class indices: one per row.
        y_pred : array_like, (N, ..., O)
            Outputs.
        sample_weight : array_like or None
            One weight per sample, or per sample and step; booleans, as of a mask, are 1 and 0. Rows of weight 0 are
            absent: whatever their targets and outputs hold, NaN included, has no effect.

        Raises
        ------
        ValueError
            If the shapes do not fit; the message has both.
        """
        pred, true = _numbers("y_pred", y_pred), _numbers("y_true", y_true)
        if pred.ndim < 2:
            raise BadValue(f"y_pred: expected shape (N, ..., O), got {pred.shape}")
        if true.shape != (pred.shape[:-1] if self.labels else pred.shape):
            true = align("y_true", true, pred.shape, labels=self.labels, other="y_pred")
        weights, rows = sample_weight, pred.shape[:-1]
        if weights is not None and (type(weights) is not np.ndarray or weights.shape != rows):
            weights = row_weights(weights, pred.shape).reshape(rows)  # type: ignore[union-attr]
        if weights is not None:
            present = weights != 0
            if not present.any():
                return
            if not present.all():
                true, pred, weights = true[present], pred[present], weights[present]
            if weights.dtype == bool:
                weights = None
        self.accumulate(true, pred, weights)

    def get_config(self) -> dict[str, Any]:
        """Arguments that make an equal metric without its state; JSON can hold them."""
        return {"name": self.name}

    def __repr__(self) -> str:
        options = ", ".join(f"{key}={value!r}" for key, value in self.get_config().items())
        return f"{type(self).__name__}({options})"


class MeanMetric(Metric):
    """Abstract mean of one number per row, ``sum(w v) / sum(w)``; a subclass defines `values`.

    Examples
    --------
    >>> from elman.metrics import MeanMetric
    >>> class Bias(MeanMetric):
    ...     default_name = "bias"
    ...
    ...     def values(self, y_true, y_pred):
    ...         return (y_pred - y_true).mean(axis=-1)
    >>> metric = Bias()
    >>> metric.update_state([[1.0], [2.0]], [[1.5], [2.0]])
    >>> metric.result()
    0.25
    """

    @abstractmethod
    def values(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        """One number per row, in float64: (N, ...) for outputs (N, ..., O)."""

    def reset_state(self) -> None:
        self._total = 0.0
        self._count = 0.0

    def accumulate(self, y_true: np.ndarray, y_pred: np.ndarray, weights: np.ndarray | None) -> None:
        values = self.values(y_true, y_pred)
        if weights is None:
            self._total += float(np.add.reduce(values, axis=None))
            self._count += values.size
            return
        self._total += float(np.add.reduce(values * weights, axis=None))
        self._count += float(np.add.reduce(weights, axis=None, dtype=np.float64))

    def result(self) -> float:
        """Mean over all rows since the last reset; 0 if their weights add up to nothing."""
        return self._total / self._count if self._count != 0 else 0.0


def row_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis, which costs nothing where it has size 1."""
    columns = values.shape[-1]
    return values[..., 0] if columns == 1 else np.add.reduce(values, axis=-1) / columns


def or_nan(hits: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
    """`hits` as float64; NaN for rows of which an output is NaN."""
    values = hits.astype(np.float64)
    missing = np.isnan(y_pred)
    if np.logical_or.reduce(missing, axis=None):
        values[np.logical_or.reduce(missing, axis=-1)] = np.nan
    return values
