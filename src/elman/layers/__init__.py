"""Layers of a model; all options of the recurrent ones are documented on `RNN`."""

from elman.layers.activation import Activation
from elman.layers.base import LAYERS, Layer
from elman.layers.bidirectional import Bidirectional
from elman.layers.columns import EmbedColumns
from elman.layers.dense import Dense
from elman.layers.embedding import Embedding
from elman.layers.masking import Masking
from elman.layers.named import GRU, LSTM, SimpleRNN
from elman.layers.noise import Dropout, GaussianNoise, SpatialDropout1D
from elman.layers.normalization import LayerNormalization
from elman.layers.recurrent import RNN
from elman.layers.segments import SegmentRNN
from elman.layers.shaping import Flatten, Input, LastSteps, RepeatVector, Reshape, TimeDistributed

__all__ = [
    "GRU",
    "LAYERS",
    "LSTM",
    "RNN",
    "Activation",
    "Bidirectional",
    "Dense",
    "Dropout",
    "EmbedColumns",
    "Embedding",
    "Flatten",
    "GaussianNoise",
    "Input",
    "LastSteps",
    "Layer",
    "LayerNormalization",
    "Masking",
    "RepeatVector",
    "Reshape",
    "SegmentRNN",
    "SimpleRNN",
    "SpatialDropout1D",
    "TimeDistributed",
]
