"""Metrics of real targets."""

from __future__ import annotations

import math

import numpy as np

from elman.errors import BadValue
from elman.metrics.base import MeanMetric, Metric, row_mean


class MeanSquaredError(MeanMetric):
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
        return row_mean(np.multiply(e, e, out=e))


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


class MeanAbsoluteError(MeanMetric):
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
        return row_mean(np.absolute(e, out=e))


class MeanAbsolutePercentageError(MeanMetric):
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
        return row_mean(100.0 * np.absolute(e, out=e) / np.maximum(size, 1e-7, out=size))


class R2Score(Metric):
    """Coefficient of determination, ``1 - sum w (y - p)^2 / sum w (y - mean(y))^2``, the mean of it over the outputs.

    The mean is that of all targets seen, whatever their batches. For an output whose targets do not vary it is 1 where
    all errors are 0, and 0 otherwise.

    Examples
    --------
    >>> from elman.metrics import R2Score
    >>> metric = R2Score()
    >>> metric.update_state([[1.0], [2.0]], [[1.0], [2.0]])
    >>> metric.update_state([[3.0], [4.0]], [[3.0], [3.0]])
    >>> metric.result()
    0.8
    """

    default_name = "r2_score"

    def reset_state(self) -> None:
        self._weight, self._columns = 0.0, 0
        self._mean = self._spread = self._residual = np.zeros(1)

    def accumulate(self, y_true: np.ndarray, y_pred: np.ndarray, weights: np.ndarray | None) -> None:
        columns = y_pred.shape[-1]
        if self._columns not in (0, columns):
            raise BadValue(f"y_pred: expected {self._columns} outputs as before, got shape {y_pred.shape}")
        self._columns = columns
        y, p = (v.reshape(-1, columns).astype(np.float64) for v in (y_true, y_pred))
        w = np.ones((len(y), 1)) if weights is None else weights.reshape(-1, 1).astype(np.float64)
        self._residual = self._residual + (w * (y - p) ** 2).sum(axis=0)
        batch = float(w.sum())
        if batch == 0:
            return
        # Mean and spread of the batch, then both means and spreads together (Chan, Golub and LeVeque, 1983): a sum of
        # squares less a squared sum would lose every digit for targets far from 0. Differences from the first target
        # are exactly 0 where targets do not vary.
        mean = y[0] + (w * (y - y[0])).sum(axis=0) / batch
        shift, total = mean - self._mean, self._weight + batch
        self._spread = self._spread + (w * (y - mean) ** 2).sum(axis=0) + shift**2 * (self._weight * batch / total)
        # For the first batch exactly its mean.
        self._mean = self._mean + shift * (batch / total) if self._weight else mean
        self._weight = total

    def result(self) -> float:
        """Score of all rows since the last reset; 0 if their weights add up to nothing."""
        if self._weight == 0:
            return 0.0
        constant = self._spread == 0
        scores = 1 - self._residual / np.where(constant, 1.0, self._spread)
        # A comparison would hide NaN.
        missed = np.where(np.isnan(self._residual), np.nan, 0.0)
        scores = np.where(constant & (self._residual != 0), missed, scores)
        return float(scores.mean())
