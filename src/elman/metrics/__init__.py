"""Metrics: numbers over the batches of an epoch. The registry is `METRICS`.

Most are means: one number per row of outputs; the result is the mean of those numbers over all rows seen, weighted
where weights are given: ``sum(w v) / sum(w)``. The others keep what their formula needs of all rows seen, so no result
depends on how rows fall into batches. 0 before the first update. Sums are kept in float64. A NaN among the outputs
makes the result NaN, for accuracies too: a comparison would hide it. Rows of weight 0 are absent, NaN or not.
"""

from __future__ import annotations

from typing import Any

from elman import registry
from elman.checks import choose
from elman.errors import BadValue
from elman.loss import Loss
from elman.losses import BinaryCrossentropy
from elman.metrics.base import MeanMetric, Metric
from elman.metrics.binary import AUC, F1Score, Precision, Recall
from elman.metrics.classification import (
    BinaryAccuracy,
    BitsPerCharacter,
    CategoricalAccuracy,
    Perplexity,
    SparseCategoricalAccuracy,
    SparseTopKCategoricalAccuracy,
    TopKCategoricalAccuracy,
    confusion_matrix,
)
from elman.metrics.regression import (
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    R2Score,
    RootMeanSquaredError,
)

__all__ = [
    "AUC",
    "METRICS",
    "BinaryAccuracy",
    "BitsPerCharacter",
    "CategoricalAccuracy",
    "F1Score",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanMetric",
    "MeanSquaredError",
    "Metric",
    "Perplexity",
    "Precision",
    "R2Score",
    "Recall",
    "RootMeanSquaredError",
    "SparseCategoricalAccuracy",
    "SparseTopKCategoricalAccuracy",
    "TopKCategoricalAccuracy",
    "confusion_matrix",
    "get",
    "serialize",
]

METRICS: dict[str, type[Metric]] = {
    "mean_squared_error": MeanSquaredError,
    "mean_absolute_error": MeanAbsoluteError,
    "root_mean_squared_error": RootMeanSquaredError,
    "mean_absolute_percentage_error": MeanAbsolutePercentageError,
    "r2_score": R2Score,
    "binary_accuracy": BinaryAccuracy,
    "categorical_accuracy": CategoricalAccuracy,
    "sparse_categorical_accuracy": SparseCategoricalAccuracy,
    "top_k_categorical_accuracy": TopKCategoricalAccuracy,
    "sparse_top_k_categorical_accuracy": SparseTopKCategoricalAccuracy,
    "perplexity": Perplexity,
    "bits_per_character": BitsPerCharacter,
    "precision": Precision,
    "recall": Recall,
    "f1_score": F1Score,
    "auc": AUC,
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
        if isinstance(metric, BitsPerCharacter) and getattr(loss, "from_logits", False):
            metric = type(metric)(from_logits=True)
    metric.name = identifier
    return metric


_ACCURACY = ("accuracy", "acc")


def _accuracy(identifier: str, loss: Loss | None, output_shape: tuple[int, ...] | None) -> Metric:
    if loss is not None and loss.labels:
        return SparseCategoricalAccuracy()
    if output_shape is None:
        raise BadValue(f"metric: {identifier!r} needs the shape of the model's outputs, got output_shape=None")
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
    registry.registered("metric", metric, METRICS)
    return registry.serialize(metric)
