"""Callbacks for `Sequential.fit`."""

from elman.training.callbacks import Callback, History
from elman.training.checkpoint import ModelCheckpoint
from elman.training.control import LambdaCallback, LearningRateScheduler, TerminateOnNaN
from elman.training.csvlogger import CSVLogger
from elman.training.monitors import EarlyStopping, ReduceLROnPlateau

__all__ = [
    "CSVLogger",
    "Callback",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ReduceLROnPlateau",
    "TerminateOnNaN",
]
