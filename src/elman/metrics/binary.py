"""Metrics of yes and no that are no means over rows: counts above a threshold, and the area under the ROC curve."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from elman import registry
from elman.errors import BadValue
from elman.metrics.base import Metric


def _positive(y_true: np.ndarray) -> np.ndarray:
    """Which targets are 1; ValueError unless all others are 0."""
    positive = y_true == 1
    if not (positive | (y_true == 0)).all():
        raise BadValue(f"y_true: targets must be 0 or 1, got {np.unique(y_true)[:5]}")
    return positive


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole != 0 else 0.0


class _Counts(Metric):
    """Outputs above a threshold that are right and that are wrong, and positive targets missed, all weighted."""

    def __init__(self, threshold: float, name: str | None) -> None:
        super().__init__(name)
        self._threshold = threshold

    def reset_state(self) -> None:
        self._right = self._wrong = self._missed = 0.0

    def accumulate(self, y_true: np.ndarray, y_pred: np.ndarray, weights: np.ndarray | None) -> None:
        positive, above = _positive(y_true), y_pred > self._threshold
        counted = np.ones(1) if weights is None else weights[..., None]

        def count(chosen: np.ndarray) -> float:
            return float(np.add.reduce(chosen * counted, axis=None, dtype=np.float64))

        self._right += math.nan if np.isnan(y_pred).any() else count(positive & above)
        self._wrong += count(~positive & above)
        self._missed += count(positive & ~above)


class Precision(_Counts):
    """Share of the outputs above the threshold whose target is 1; 0 where none is above.

    Parameters
    ----------
    thresholds : float
        For probabilities 0.5; for logits 0. One number; Keras takes a list as well.
    name : str or None
        Key in the training history.

    Examples
    --------
    >>> from elman.metrics import Precision
    >>> metric = Precision()
    >>> metric.update_state([[0.0], [1.0], [1.0], [1.0]], [[0.9], [0.8], [0.3], [0.7]])
    >>> round(metric.result(), 4)
    0.6667
    """

    default_name = "precision"

    def __init__(self, thresholds: float = 0.5, name: str | None = None) -> None:
        super().__init__(registry.number("thresholds", thresholds, -math.inf), name)

    def result(self) -> float:
        """Right over all above the threshold, since the last reset."""
        return _ratio(self._right, self._right + self._wrong)

    def get_config(self) -> dict[str, Any]:
        return {"thresholds": self._threshold, "name": self.name}


class Recall(Precision):
    """Share of the targets 1 whose output is above the threshold; 0 where no target is 1. Arguments of `Precision`.

    Examples
    --------
    >>> from elman.metrics import Recall
    >>> metric = Recall()
    >>> metric.update_state([[0.0], [1.0], [1.0], [1.0]], [[0.9], [0.8], [0.3], [0.2]])
    >>> round(metric.result(), 4)
    0.3333
    """

    default_name = "recall"

    def result(self) -> float:
        """Right over all targets 1, since the last reset."""
        return _ratio(self._right, self._right + self._missed)


class F1Score(_Counts):
    """Harmonic mean of `Precision` and `Recall`, ``2 TP / (2 TP + FP + FN)``, over all outputs together.

    Parameters
    ----------
    threshold : float
        For probabilities 0.5; for logits 0.
    name : str or None
        Key in the training history.

    Notes
    -----
    Keras's gives one score per output, and by default takes the largest output of a row instead of a threshold.

    Examples
    --------
    >>> from elman.metrics import F1Score
    >>> metric = F1Score()
    >>> metric.update_state([[0.0], [1.0], [1.0], [1.0]], [[0.9], [0.8], [0.3], [0.2]])
    >>> metric.result()
    0.4
    """

    default_name = "f1_score"

    def __init__(self, threshold: float = 0.5, name: str | None = None) -> None:
        super().__init__(registry.number("threshold", threshold, -math.inf), name)

    def result(self) -> float:
        """Score since the last reset; 0 where no output is above the threshold and no target is 1."""
        return _ratio(2 * self._right, 2 * self._right + self._wrong + self._missed)

    def get_config(self) -> dict[str, Any]:
        return {"threshold": self._threshold, "name": self.name}


class AUC(Metric):
    """Area under the ROC curve: how often an output with target 1 is above one with target 0, ties counting half.

    Exact, from the ranks of all outputs seen (Mann and Whitney, 1947), so logits give what probabilities give. All
    outputs of a row count alike. 0 while one of the two targets is missing.

    Notes
    -----
    Every output seen is kept until the reset, with 9 more bytes. Keras counts in 200 bins instead.

    Examples
    --------
    >>> from elman.metrics import AUC
    >>> metric = AUC()
    >>> metric.update_state([[0.0], [0.0], [1.0], [1.0]], [[0.1], [0.4], [0.35], [0.8]])
    >>> metric.result()
    0.75
    """

    default_name = "auc"

    def reset_state(self) -> None:
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._area: float | None = 0.0

    def accumulate(self, y_true: np.ndarray, y_pred: np.ndarray, weights: np.ndarray | None) -> None:
        positive = _positive(y_true).reshape(-1)
        w = np.ones(y_pred.shape)
        if weights is not None:
            w *= weights[..., None]
        self._parts.append((y_pred.flatten(), positive, w.reshape(-1)))
        self._area = None

    def result(self) -> float:
        """Area for all rows since the last reset: n log(n) steps, the first time after an update."""
        if self._area is None:
            scores, positive, w = (np.concatenate(arrays) for arrays in zip(*self._parts, strict=True))
            self._parts = [(scores, positive, w)]
            self._area = math.nan if np.isnan(scores).any() else _area(scores, positive, w)
        return self._area


def _area(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(scores)
    ordered, w = scores[order], weights[order]
    first = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    yes = np.add.reduceat(np.where(positive[order], w, 0.0), first)
    no = np.add.reduceat(np.where(positive[order], 0.0, w), first)
    below = np.cumsum(no) - no
    return _ratio(float((yes * (below + 0.5 * no)).sum()), float(yes.sum() * no.sum()))
