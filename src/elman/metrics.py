"""Metrics: running means over the batches of an epoch. The registry is `METRICS`.

A metric gives one number per row of outputs; the result is the mean of those numbers over all rows seen, weighted where
weights are given: ``sum(w v) / sum(w)``, and 0 before the first update. Sums are kept in float64. A NaN among the
outputs makes the result NaN, for accuracies too: a comparison would hide it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np

from elman import registry
from elman.checks import choose, numeric
from elman.loss import Loss, align, row_weights
from elman.losses import BinaryCrossentropy

__all__ = [
    "METRICS",
    "BinaryAccuracy",
    "CategoricalAccuracy",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredError",
    "Metric",
    "RootMeanSquaredError",
    "SparseCategoricalAccuracy",
    "get",
    "serialize",
]


class Metric(ABC):
    """Abstract running mean. A subclass defines `values`; `METRICS` lists it.

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
            raise TypeError(f"name: expected a string or None, got {type(name).__name__} {name!r}")
        self.name = name or self.default_name
        self.reset_state()

    @abstractmethod
    def values(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        """One number per row, in float64: (N, ...) for outputs (N, ..., O)."""

    def reset_state(self) -> None:
        """Forget everything seen."""
        self._total = 0.0
        self._count = 0.0

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch.

        Parameters
        ----------
        y_true : array_like
            Targets of the shape of `y_pred`; a last axis of size 1 may be missing. Class indices: one per row.
        y_pred : array_like, (N, ..., O)
            Outputs.
        sample_weight : array_like or None
            One weight per sample, or per sample and step.

        Raises
        ------
        ValueError
            If the shapes do not fit; the message has both.
        """
        pred = y_pred if type(y_pred) is np.ndarray else numeric("y_pred", y_pred)
        true = y_true if type(y_true) is np.ndarray else numeric("y_true", y_true)
        if pred.ndim < 2:
            raise ValueError(f"y_pred: expected shape (N, ..., O), got {pred.shape}")
        if true.shape != (pred.shape[:-1] if self.labels else pred.shape):
            true = align("y_true", true, pred.shape, labels=self.labels, other="y_pred")
        values = self.values(true, pred)
        if sample_weight is None:
            self._total += float(np.add.reduce(values, axis=None))
            self._count += values.size
            return
        weights = sample_weight
        if type(weights) is not np.ndarray or weights.shape != values.shape:
            weights = row_weights(weights, pred.shape).reshape(values.shape)  # type: ignore[union-attr]
        self._total += float(np.add.reduce(values * weights, axis=None))
        self._count += float(np.add.reduce(weights, axis=None, dtype=np.float64))

    def result(self) -> float:
        """Mean over all rows since the last reset; 0 if their weights add up to nothing."""
        return self._total / self._count if self._count != 0 else 0.0

    def get_config(self) -> dict[str, Any]:
        """Arguments that make an equal metric without its state; JSON can hold them."""
        return {"name": self.name}

    def __repr__(self) -> str:
        options = ", ".join(f"{key}={value!r}" for key, value in self.get_config().items())
        return f"{type(self).__name__}({options})"


def _row_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis, which costs nothing where it has size 1."""
    columns = values.shape[-1]
    return values[..., 0] if columns == 1 else np.add.reduce(values, axis=-1) / columns


class MeanSquaredError(Metric):
    """Mean of ``(p - y)^2``.

    Examples
    --------
    >>> from elman.metrics import MeanSquaredError
    >>> metric = MeanSquaredError()
    >>> metric.update_state([[1.0], [2.0]], [[1.5], [2.0]])
    >>> metric.result()
    0.125
    """

    default_name = "mean_squared_error"
    aliases = ("mse",)

    def values(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        e = np.subtract(y_pred, y_true, dtype=np.float64)
        return _row_mean(np.multiply(e, e, out=e))


class RootMeanSquaredError(MeanSquaredError):
    """Square root of the mean of ``(p - y)^2`` over all rows: not the mean of roots of batches.

    Examples
    --------
    >>> from elman.metrics import RootMeanSquaredError
    >>> metric = RootMeanSquaredError()
    >>> metric.update_state([[0.0], [0.0]], [[3.0], [3.0]])
    >>> metric.result()
    3.0
    """

    default_name = "root_mean_squared_error"
    aliases = ("rmse",)

    def result(self) -> float:
        """Root of the mean over all rows since the last reset."""
        mean = super().result()
        # Negative only through negative weights.
        return math.sqrt(mean) if not mean < 0 else math.nan


class MeanAbsoluteError(Metric):
    """Mean of ``|p - y|``.

    Examples
    --------
    >>> from elman.metrics import MeanAbsoluteError
    >>> metric = MeanAbsoluteError()
    >>> metric.update_state([[1.0], [2.0]], [[1.5], [2.0]], sample_weight=[1.0, 3.0])
    >>> metric.result()
    0.125
    """

    default_name = "mean_absolute_error"
    aliases = ("mae",)

    def values(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        e = np.subtract(y_pred, y_true, dtype=np.float64)
        return _row_mean(np.absolute(e, out=e))


class MeanAbsolutePercentageError(Metric):
    """Mean of ``100 |p - y| / max(|y|, 1e-7)``, in percent.

    Examples
    --------
    >>> from elman.metrics import MeanAbsolutePercentageError
    >>> metric = MeanAbsolutePercentageError()
    >>> metric.update_state([[2.0], [4.0]], [[3.0], [4.0]])
    >>> metric.result()
    25.0
    """

    default_name = "mean_absolute_percentage_error"
    aliases = ("mape",)

    def values(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        e = np.subtract(y_pred, y_true, dtype=np.float64)
        size = np.absolute(y_true, dtype=np.float64)
        return _row_mean(100.0 * np.absolute(e, out=e) / np.maximum(size, 1e-7, out=size))


def _or_nan(hits: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
    """`hits` as float64; NaN for rows of which an output is NaN."""
    values = hits.astype(np.float64)
    missing = np.isnan(y_pred)
    if np.logical_or.reduce(missing, axis=None):
        values[np.logical_or.reduce(missing, axis=-1)] = np.nan
    return values


class BinaryAccuracy(Metric):
    """Share of outputs on the right side of a threshold: ``(p > threshold) == y``.

    Parameters
    ----------
    threshold : float
        For probabilities 0.5; for logits 0.
    name : str or None
        Key in the training history.

    Examples
    --------
    >>> from elman.metrics import BinaryAccuracy
    >>> metric = BinaryAccuracy()
    >>> metric.update_state([[1.0], [0.0], [1.0], [1.0]], [[0.9], [0.2], [0.4], [0.8]])
    >>> metric.result()
    0.75
    """

    default_name = "binary_accuracy"

    def __init__(self, threshold: float = 0.5, name: str | None = None) -> None:
        super().__init__(name)
        self.threshold = registry.number("threshold", threshold, -math.inf)

    def values(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        hits = (y_pred > self.threshold) == y_true
        return _or_nan(_row_mean(hits), y_pred)

    def get_config(self) -> dict[str, Any]:
        return {"threshold": self.threshold, "name": self.name}


class CategoricalAccuracy(Metric):
    """Share of rows whose largest output is at the largest target; y one-hot or a distribution.

    Examples
    --------
    >>> from elman.metrics import CategoricalAccuracy
    >>> metric = CategoricalAccuracy()
    >>> metric.update_state([[0.0, 1.0], [1.0, 0.0]], [[0.3, 0.7], [0.4, 0.6]])
    >>> metric.result()
    0.5
    """

    default_name = "categorical_accuracy"

    def values(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return _or_nan(y_true.argmax(axis=-1) == y_pred.argmax(axis=-1), y_pred)


class SparseCategoricalAccuracy(Metric):
    """Share of rows whose largest output is at the class index y.

    Examples
    --------
    >>> from elman.metrics import SparseCategoricalAccuracy
    >>> metric = SparseCategoricalAccuracy()
    >>> metric.update_state([1, 0], [[0.3, 0.7], [0.4, 0.6]])
    >>> metric.result()
    0.5
    """

    default_name = "sparse_categorical_accuracy"
    labels = True

    def values(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return _or_nan(y_true == y_pred.argmax(axis=-1), y_pred)


METRICS: dict[str, type[Metric]] = {
    "mean_squared_error": MeanSquaredError,
    "mean_absolute_error": MeanAbsoluteError,
    "root_mean_squared_error": RootMeanSquaredError,
    "mean_absolute_percentage_error": MeanAbsolutePercentageError,
    "binary_accuracy": BinaryAccuracy,
    "categorical_accuracy": CategoricalAccuracy,
    "sparse_categorical_accuracy": SparseCategoricalAccuracy,
}
"""Metrics by name. `get` also takes class names, aliases such as "rmse", and "accuracy" or "acc"."""


def get(identifier: Any, *, loss: Loss | None = None, output_shape: tuple[int, ...] | None = None) -> Metric:
    """Metric for a name, a `Metric` (returned as it is), a class, or a dict from `serialize`.

    A metric made from a name carries that name, so that the history of "mse" is under "mse".

    Parameters
    ----------
    identifier : str, Metric, type or dict
        "accuracy" and "acc" stand for the accuracy that suits the model: sparse categorical for a loss of class
        indices; binary for outputs of size 1 and for binary crossentropy, with threshold 0 for its logits (Keras
        compares logits with 0.5); categorical otherwise.
    loss : Loss or None
        The model's loss, for "accuracy".
    output_shape : tuple of int or None
        Shape of the outputs, of which the last size is used, for "accuracy".

    Raises
    ------
    TypeError
        If `identifier` is of another kind.
    ValueError
        If the name is unknown, with the nearest valid one, or "accuracy" is asked for without `output_shape`.

    Examples
    --------
    >>> from elman import losses, metrics
    >>> metrics.get("rmse")
    RootMeanSquaredError(name='rmse')
    >>> metrics.get("accuracy", loss=losses.get("mse"), output_shape=(None, 3))
    CategoricalAccuracy(name='accuracy')
    """
    if not isinstance(identifier, str):
        return registry.resolve("metric", identifier, METRICS, Metric)
    if identifier.lower() in _ACCURACY:
        metric = _accuracy(identifier, loss, output_shape)
    else:
        known = registry.names(METRICS)
        # A misspelt "accuracy" must be told of it.
        metric = known[choose("metric", identifier, (*known, *_ACCURACY))]()
    metric.name = identifier
    return metric


_ACCURACY = ("accuracy", "acc")


def _accuracy(identifier: str, loss: Loss | None, output_shape: tuple[int, ...] | None) -> Metric:
    if loss is not None and loss.labels:
        return SparseCategoricalAccuracy()
    if output_shape is None:
        raise ValueError(f"metric: {identifier!r} needs the shape of the model's outputs, got output_shape=None")
    binary = isinstance(loss, BinaryCrossentropy)
    if binary or output_shape[-1] == 1:
        return BinaryAccuracy(0.0 if binary and loss.from_logits else 0.5)  # type: ignore[union-attr]
    return CategoricalAccuracy()


def serialize(metric: Metric) -> dict[str, Any]:
    """Dict that JSON can hold and `get` turns back into an equal metric, without its state.

    Examples
    --------
    >>> from elman.metrics import BinaryAccuracy, serialize
    >>> serialize(BinaryAccuracy())
    {'class_name': 'BinaryAccuracy', 'config': {'threshold': 0.5, 'name': 'binary_accuracy'}}
    """
    return registry.serialize(metric)
