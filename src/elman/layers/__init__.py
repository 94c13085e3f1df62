"""Layers of a model; all options of the recurrent ones are documented on `RNN`."""

from elman.layers.activation import Activation
from elman.layers.base import LAYERS, Layer
from elman.layers.dense import Dense
from elman.layers.recurrent import GRU, LSTM, RNN, SimpleRNN
from elman.layers.shaping import Flatten, Input, RepeatVector, TimeDistributed

__all__ = [
    "GRU",
    "LAYERS",
    "LSTM",
    "RNN",
    "Activation",
    "Dense",
    "Flatten",
    "Input",
    "Layer",
    "RepeatVector",
    "SimpleRNN",
    "TimeDistributed",
]
