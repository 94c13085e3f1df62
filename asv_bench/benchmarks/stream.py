"""Inference step by step: one call per time step, with the states carried."""

from __future__ import annotations

import numpy as np

from benchmarks import DTYPES, STREAMS


class Stream:
    """A step of `Sequential.stream`; float32: at most 3 us for LSTM(64), 2 us for GRU(16), with Dense(1)."""

    params = (tuple(STREAMS), DTYPES)
    param_names = ("model", "dtype")

    def setup(self, model: str, dtype: str) -> None:
        import elman

        cell, units, features = STREAMS[model]
        layers = [elman.layers.Input((None, features)), elman.layers.RNN(units, cell=cell), elman.layers.Dense(1)]
        self.model = elman.Sequential(layers, dtype=dtype, seed=0)
        self.x = np.random.default_rng(0).standard_normal(features).astype(dtype)
        self.foreign = self.x.astype(np.float32 if dtype == "float64" else np.float64)
        self.pieces = self.x[None, None]
        self.step = self.model.stream()
        self.step(self.x)
        self.step(self.foreign)
        self.model.stream_step(self.pieces)

    def time_step(self, model: str, dtype: str) -> None:
        self.step(self.x)

    def time_step_of_the_other_float_type(self, model: str, dtype: str) -> None:
        self.step(self.foreign)

    def time_stream_step(self, model: str, dtype: str) -> None:
        """The general path, which takes any number of steps, and masks."""
        self.model.stream_step(self.pieces)

    def time_make(self, model: str, dtype: str) -> None:
        self.model.stream()


class Tokens:
    """A step that reads a token id and gives the probabilities of the next of 256."""

    def setup(self) -> None:
        import elman

        layers = elman.layers
        stack = [layers.Embedding(256, 32), layers.LSTM(128), layers.Dense(256, activation="softmax")]
        self.step = elman.Sequential([layers.Input((None,)), *stack], seed=0).stream()
        self.step(65)

    def time_step(self) -> None:
        self.step(65)
