"""Callbacks for `Sequential.fit`."""

from elman.training.callbacks import Callback, History

__all__ = ["Callback", "History"]
