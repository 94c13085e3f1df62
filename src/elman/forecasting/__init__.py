"""Forecasting: `Forecaster`, its backtests and its scores."""

from elman.forecasting.backtest import Backtest, Scores
from elman.forecasting.forecaster import Forecaster
from elman.forecasting.scores import SCORES, insample_scale, score, seasonal_naive

__all__ = ["SCORES", "Backtest", "Forecaster", "Scores", "insample_scale", "score", "seasonal_naive"]
