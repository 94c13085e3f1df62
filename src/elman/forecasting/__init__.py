"""Forecasting: `Forecaster`, its backtests and its scores."""

from elman.forecasting.backtest import Backtest, Scores
from elman.forecasting.forecaster import Forecaster
from elman.forecasting.scores import SCORES, score

__all__ = ["SCORES", "Backtest", "Forecaster", "Scores", "score"]
