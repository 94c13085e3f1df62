"""Recurrent cells: one file each, all declared by `Cell` and found in `CELLS`."""

from elman.cells.gru import GRU, GRU_RESET_BEFORE
from elman.cells.lstm import LSTM
from elman.cells.simple import SIMPLE
from elman.cells.spec import CELLS, Cell, get, register

__all__ = ["CELLS", "GRU", "GRU_RESET_BEFORE", "LSTM", "SIMPLE", "Cell", "get", "register"]
