"""Recurrent cells: one file each, all declared by `Cell` and found in `CELLS`."""

from elman.cells.gru import GRU, GRU_RESET_BEFORE
from elman.cells.layer_norm import LAYER_NORM_LSTM
from elman.cells.lstm import LSTM
from elman.cells.mgu import MGU
from elman.cells.mingru import MINGRU
from elman.cells.peephole import PEEPHOLE_LSTM
from elman.cells.simple import SIMPLE
from elman.cells.spec import CELLS, Cell, get, register

__all__ = [
    "CELLS",
    "GRU",
    "GRU_RESET_BEFORE",
    "LAYER_NORM_LSTM",
    "LSTM",
    "MGU",
    "MINGRU",
    "PEEPHOLE_LSTM",
    "SIMPLE",
    "Cell",
    "get",
    "register",
]
