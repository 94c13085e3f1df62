"""Batteries that a cell, a model, a loss or an optimizer of your own must pass; the library's own ones do.

Each function returns nothing when all is well. Otherwise it raises AssertionError with the path that failed and both
numbers.
"""

from elman.testing.cells import check_cell
from elman.testing.losses import check_loss
from elman.testing.models import check_gradients
from elman.testing.optimizers import check_optimizer

__all__ = ["check_cell", "check_gradients", "check_loss", "check_optimizer"]
