"""Callbacks for `Sequential.fit`."""

from elman.training.backup import BackupAndRestore
from elman.training.callbacks import Callback, History
from elman.training.checkpoint import ModelCheckpoint
from elman.training.control import LambdaCallback, LearningRateScheduler, TerminateOnNaN
from elman.training.csvlogger import CSVLogger
from elman.training.flow import GradientFlow
from elman.training.monitors import EarlyStopping, ReduceLROnPlateau
from elman.training.tensorboard import TensorBoard

__all__ = [
    "BackupAndRestore",
    "CSVLogger",
    "Callback",
    "EarlyStopping",
    "GradientFlow",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ReduceLROnPlateau",
    "TensorBoard",
    "TerminateOnNaN",
]
