"""Trainings that stand for all others where threads, processes and signals are tried: small, on the parallel path."""

import hashlib

import numpy as np

import elman
from elman.layers import GRU, LSTM, Bidirectional, Dense, Dropout, Embedding, Input

B, T, F = 37, 22, 9


def _draw():
    return np.random.default_rng(7)


def stacked(seed=0):
    """An LSTM on an LSTM, with dropout between and within."""
    layers = [Input((T, F)), LSTM(49, return_sequences=True, recurrent_dropout=0.1), Dropout(0.2), LSTM(40), Dense(2)]
    model = elman.Sequential(layers, seed=seed)
    model.compile(elman.optimizers.Adam(0.01, clipnorm=1.0), "mse", metrics=["mae"])
    return model


def bidirectional(seed=0):
    """A GRU both ways over sequences of unequal length."""
    model = elman.Sequential([Input((None, F)), Bidirectional(GRU(33)), Dense(1)], seed=seed)
    model.compile("adam", "mse")
    return model


def classifier(seed=0):
    """Token ids in, one of five classes out."""
    layers = [Input((T,)), Embedding(30, 16), LSTM(40), Dense(5, activation="softmax")]
    model = elman.Sequential(layers, seed=seed)
    model.compile("rmsprop", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def data(kind):
    """Arguments of `fit` and of `predict`."""
    rng = _draw()
    n = 2 * B + 5
    if kind == "classifier":
        x = rng.integers(0, 30, (n, T))
        return {"x": x, "y": x[:, 0] % 5}, {"x": x}
    x = rng.standard_normal((n, T, F), np.float32)
    if kind == "stacked":
        return {"x": x, "y": x[:, -2:, 0]}, {"x": x}
    lengths = rng.integers(1, T + 1, n)
    return {"x": x, "y": x[:, 0, :1], "lengths": lengths}, {"x": x, "lengths": lengths}


MODELS = {"stacked": stacked, "bidirectional": bidirectional, "classifier": classifier}
KINDS = [*MODELS, "forecaster"]


def digest(*arrays):
    """The bits of arrays, in short."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:20]


def model_bits(model, kind):
    """The bits of a model: parameters, state of the optimizer, predictions."""
    return digest(*model.get_weights(), *model.optimizer.state().values(), model.predict(**data(kind)[1]))


def series():
    """Six series of 120 values."""
    rng = _draw()
    t = np.arange(120)[:, None]
    return 10 + np.sin(t / 6 * np.pi + np.arange(6)) + 0.2 * rng.standard_normal((120, 6))


def forecaster(seed=0, seeds=1):
    """Not fitted yet."""
    size = {"lookback": 24, "units": 32, "batch_size": 64, "epochs": 0.5, "season": 12}
    return elman.Forecaster(6, **size, head="segment", loss="normal", dropout=0.2, seeds=seeds, seed=seed)


def fit(model, kind, epochs=2, **more):
    """Train a model of a kind."""
    return model.fit(**data(kind)[0], batch_size=B, epochs=epochs, verbose=0, **more)


def train(kind, seed=0):
    """Train one of KINDS; the bits of everything that comes out."""
    if kind == "forecaster":
        y = series()
        made = forecaster(seed).fit(y[:-6])
        first = made.predict(quantiles=[0.2, 0.9])
        made.update(y[-6:], epochs=0.2)
        return digest(first, made.predict(), *made.model_.get_weights())
    model = MODELS[kind](seed)
    history = fit(model, kind, validation_split=0.1).history
    return model_bits(model, kind) + digest(*(np.array(v) for v in history.values()))
