"""Metrics of classes: accuracies, bits per character and perplexity, means over rows; and the confusion matrix."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from elman import registry
from elman.checks import finite, integer, numeric
from elman.errors import BadValue
from elman.kernels.losses import CLIP
from elman.loss import class_indices
from elman.losses import SparseCategoricalCrossentropy
from elman.metrics.base import MeanMetric, or_nan, row_mean


class BinaryAccuracy(MeanMetric):
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
        return or_nan(row_mean(hits), y_pred)

    def get_config(self) -> dict[str, Any]:
        return {"threshold": self.threshold, "name": self.name}


class CategoricalAccuracy(MeanMetric):
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
        return or_nan(y_true.argmax(axis=-1) == y_pred.argmax(axis=-1), y_pred)


class SparseCategoricalAccuracy(MeanMetric):
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
        return or_nan(y_true == y_pred.argmax(axis=-1), y_pred)


def _in_top(labels: np.ndarray, y_pred: np.ndarray, k: int) -> np.ndarray:
    """1 where fewer than k outputs of a row are above that of its class, else 0; NaN for rows with NaN."""
    own = np.take_along_axis(y_pred, labels[..., None], axis=-1)
    return or_nan(np.add.reduce(y_pred > own, axis=-1, dtype=np.int64) < k, y_pred)


class TopKCategoricalAccuracy(MeanMetric):
    """Share of rows whose largest target is among the k largest outputs; y one-hot or a distribution.

    An output that equals the k-th largest is among them.

    Parameters
    ----------
    k : int
        Number of outputs that count; all of them where there are no more.
    name : str or None
        Key in the training history.

    Examples
    --------
    >>> from elman.metrics import TopKCategoricalAccuracy
    >>> metric = TopKCategoricalAccuracy(k=2)
    >>> metric.update_state([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]], [[0.2, 0.3, 0.5], [0.1, 0.3, 0.6]])
    >>> metric.result()
    0.5
    """

    default_name = "top_k_categorical_accuracy"

    def __init__(self, k: int = 5, name: str | None = None) -> None:
        super().__init__(name)
        self.k = integer("k", k)

    def values(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return _in_top(y_true.argmax(axis=-1), y_pred, self.k)

    def get_config(self) -> dict[str, Any]:
        return {"k": self.k, "name": self.name}


class SparseTopKCategoricalAccuracy(TopKCategoricalAccuracy):
    """Share of rows whose class index y is that of one of the k largest outputs: `TopKCategoricalAccuracy` of indices.

    Examples
    --------
    >>> from elman.metrics import SparseTopKCategoricalAccuracy
    >>> metric = SparseTopKCategoricalAccuracy(k=2)
    >>> metric.update_state([1, 0], [[0.2, 0.3, 0.5], [0.1, 0.3, 0.6]])
    >>> metric.result()
    0.5
    """

    default_name = "sparse_top_k_categorical_accuracy"
    labels = True

    def values(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return _in_top(class_indices("y_true", y_true, y_pred.shape[-1]), y_pred, self.k)


class BitsPerCharacter(MeanMetric):
    """Mean of ``-log2(p_y)`` for a class index y per row: bits per character where each class is one character.

    It is `elman.losses.SparseCategoricalCrossentropy` divided by log(2), and the logarithm to base 2 of `Perplexity`.

    Parameters
    ----------
    from_logits : bool
        As in `elman.losses.SparseCategoricalCrossentropy`. By its name, a metric beside a loss of logits is one of
        logits.
    name : str or None
        Key in the training history.

    Examples
    --------
    >>> from elman.metrics import BitsPerCharacter
    >>> metric = BitsPerCharacter()
    >>> metric.update_state([0, 1], [[0.25, 0.75], [0.75, 0.25]])
    >>> metric.result()
    2.0
    """

    default_name = "bits_per_character"
    labels = True

    def __init__(self, from_logits: bool = False, name: str | None = None) -> None:
        super().__init__(name)
        self.from_logits = SparseCategoricalCrossentropy(from_logits).from_logits

    def values(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        labels = class_indices("y_true", y_true, y_pred.shape[-1])[..., None]
        p = y_pred.astype(np.float64)
        # Infinite logits, and probabilities that add up to 0, give NaN: no warning on top of it.
        with np.errstate(invalid="ignore", divide="ignore"):
            if self.from_logits:
                p -= p.max(axis=-1, keepdims=True)
                return np.log(np.exp(p).sum(axis=-1)) - np.take_along_axis(p, labels, axis=-1)[..., 0]
            own = np.take_along_axis(p, labels, axis=-1)[..., 0] / p.sum(axis=-1)
        return -np.log(np.clip(own, CLIP, 1 - CLIP))

    def result(self) -> float:
        """Bits per row of all rows since the last reset; 0 if their weights add up to nothing."""
        return super().result() / math.log(2)

    def get_config(self) -> dict[str, Any]:
        return {"from_logits": self.from_logits, "name": self.name}


class Perplexity(BitsPerCharacter):
    """``exp`` of the mean of ``-log(p_y)`` for a class index y per row: over all rows, not the mean over batches.

    Arguments of `BitsPerCharacter`.

    Examples
    --------
    >>> from elman.metrics import Perplexity
    >>> metric = Perplexity()
    >>> metric.update_state([0, 1], [[0.25, 0.75], [0.75, 0.25]])
    >>> round(metric.result(), 12)
    4.0
    """

    default_name = "perplexity"

    def result(self) -> float:
        """Perplexity of all rows since the last reset; 0 if their weights add up to nothing."""
        if self._count == 0:
            return 0.0
        with np.errstate(over="ignore"):
            return float(np.exp(np.float64(self._total / self._count)))


def confusion_matrix(y_true: Any, y_pred: Any, classes: int | None = None) -> np.ndarray:
    """How often each class was taken for each other.

    Parameters
    ----------
    y_true, y_pred : array_like of int
        Class indices of one shape: the true ones, and those predicted, such as the argmax of outputs.
    classes : int or None
        Number of classes C; for None one more than the largest index given.

    Returns
    -------
    ndarray of int64, (C, C)
        At ``[i, j]`` how many values of class i were predicted as class j; the diagonal is what was right.

    Raises
    ------
    TypeError
        If an argument holds no numbers, or `classes` is no integer.
    ValueError
        If the shapes differ, or a value is no integer from 0 to C - 1.

    Examples
    --------
    >>> from elman.metrics import confusion_matrix
    >>> confusion_matrix([0, 1, 1, 2], [0, 1, 2, 2])
    array([[1, 0, 0],
           [0, 1, 1],
           [0, 0, 1]])
    """
    true, pred = numeric("y_true", y_true), numeric("y_pred", y_pred)
    if true.shape != pred.shape:
        raise BadValue(f"y_pred: shape {pred.shape} does not fit y_true of shape {true.shape}")
    for name, given in (("y_true", true), ("y_pred", pred)):
        finite(name, given)
    found = max(1, int(max(true.max(), pred.max())) + 1) if classes is None else classes
    count = integer("classes", found, 1, 1 << 20)
    rows, columns = class_indices("y_true", true, count), class_indices("y_pred", pred, count)
    return np.bincount((rows * count + columns).ravel(), minlength=count * count).reshape(count, count)
