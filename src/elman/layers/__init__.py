"""Layers of a model; all options of the recurrent ones are documented on `RNN`."""

from elman.layers.activation import Activation
from elman.layers.base import LAYERS, Layer
from elman.layers.bidirectional import Bidirectional
from elman.layers.dense import Dense
from elman.layers.embedding import Embedding
from elman.layers.masking import Masking
from elman.layers.named import GRU, LSTM, SimpleRNN
from elman.layers.noise import Dropout, GaussianNoise, SpatialDropout1D
from elman.layers.normalization import LayerNormalization
from elman.layers.recurrent import RNN
from elman.layers.shaping import Flatten, Input, RepeatVector, TimeDistributed

__all__ = [
    "GRU",
    "LAYERS",
    "LSTM",
    "RNN",
    "Activation",
    "Bidirectional",
    "Dense",
    "Dropout",
    "Embedding",
    "Flatten",
    "GaussianNoise",
    "Input",
    "Layer",
    "LayerNormalization",
    "Masking",
    "RepeatVector",
    "SimpleRNN",
    "SpatialDropout1D",
    "TimeDistributed",
]
