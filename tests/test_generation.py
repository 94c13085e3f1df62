"""Tokens drawn from a model's predictions: a model of known probabilities, then a real one."""

import threading
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from elman import Sequential, layers
from elman.generation import generate


class Known:
    """Predicts from the last two tokens by a table (V, V, V) of logits; remembers what it was asked."""

    def __init__(self, vocabulary=5, *, ids=True, logits=True, told=True, steps=True, seed=0):
        rng = np.random.default_rng(seed)
        self.table = rng.normal(size=(vocabulary, vocabulary, vocabulary)) * 2
        self.logits, self.ids, self.steps = logits, ids, steps
        first = SimpleNamespace(shape=(None,), input_dim=vocabulary)
        if not ids:
            first = SimpleNamespace(shape=(None, vocabulary))
        last = SimpleNamespace(activation="linear" if logits else "softmax")
        self.layers = [first, last]
        self.loss = SimpleNamespace(from_logits=logits) if told else None
        self.output_shape = (None, vocabulary) if steps else (vocabulary,)
        self.dtype, self.lock = np.dtype(np.float32), threading.RLock()
        self.read, self.states = [], None

    def reset_states(self, which):
        assert which == "stream"
        self.read, self.states = [], None

    def stream_step(self, x):
        if not self.ids:
            assert x.ndim == 3 and ((x == 0) | (x == 1)).all() and (x.sum(axis=2) == 1).all()
            x = x.argmax(axis=2)
        assert x.ndim == 2
        out = []
        for now in x.T.astype(int):
            self.read.append(now)
            before = np.zeros_like(now) if self.states is None else self.states
            self.states = now
            out.append(self.table[before, now])
        out = np.stack(out, axis=1)
        if not self.logits:
            out = np.exp(out) / np.exp(out).sum(axis=2, keepdims=True)
        out = out.astype(np.float32)
        return out if self.steps else out[:, -1]


def probabilities(model, before, now, temperature=1.0, top_k=None):
    z = model.table[before, now] / temperature
    p = np.exp(z - z.max())
    if top_k is not None:
        p[np.argsort(-p)[top_k:]] = 0
    return p / p.sum()


@pytest.mark.parametrize("ids", [True, False])
@pytest.mark.parametrize("steps", [True, False])
@pytest.mark.parametrize(("logits", "told"), [(True, True), (True, False), (False, True), (False, False)])
def test_the_most_likely_tokens_follow_the_table(ids, steps, logits, told):
    model = Known(ids=ids, steps=steps, logits=logits, told=told)
    drawn = generate(model, [[3, 1, 4], [0, 2, 2]], 6, temperature=0)
    assert drawn.shape == (2, 6) and drawn.dtype == np.int64
    for row, seed in zip(drawn, [[3, 1, 4], [0, 2, 2]], strict=True):
        tokens = [*seed, *row]
        assert tokens[3:] == [model.table[a, b].argmax() for a, b in pairwise(tokens[1:-1])]
    # Each token is read once and in order, and the last is not read at all.
    np.testing.assert_array_equal(np.array(model.read).T[:, :3], [[3, 1, 4], [0, 2, 2]])
    np.testing.assert_array_equal(np.array(model.read).T[:, 3:], drawn[:, :-1])


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, None), (0.5, None), (2.0, 3), (1.0, 1), (1.0, 99)])
@pytest.mark.parametrize("logits", [True, False])
def test_draws_have_the_models_probabilities(temperature, top_k, logits):
    model = Known(logits=logits)
    n = 4000
    drawn = generate(model, np.tile([3, 1], (n, 1)), 2, temperature, top_k, seed=2)
    first = probabilities(model, 3, 1, temperature, top_k)
    counts = np.bincount(drawn[:, 0], minlength=5)
    # Five standard deviations; tokens of probability 0 never come.
    assert (np.abs(counts - n * first) <= 5 * np.sqrt(n * first * (1 - first))).all()
    second = sum(first[a] * probabilities(model, 1, a, temperature, top_k) for a in range(5))
    counts = np.bincount(drawn[:, 1], minlength=5)
    assert (np.abs(counts - n * second) <= 5 * np.sqrt(n * second * (1 - second)) + 1e-9).all()
    # Rows have draws of their own.
    pairs = np.bincount(drawn[:-1, 0] * 5 + drawn[1:, 0], minlength=25)
    both = np.outer(first, first).ravel()
    assert (np.abs(pairs - n * both) <= 5 * np.sqrt(n * both) + 1).all()


def test_seeds_of_tokens_and_of_draws():
    model = Known()
    one = generate(model, [3, 1], 20, seed=4)
    assert one.shape == (20,)
    np.testing.assert_array_equal(generate(model, [3, 1], 20, seed=4), one)  # states begin afresh
    np.testing.assert_array_equal(generate(model, [[3, 1]], 20, seed=4)[0], one)
    np.testing.assert_array_equal(generate(model, np.array([3, 1], np.uint8), 20, seed=np.int64(4)), one)
    assert not np.array_equal(generate(model, [3, 1], 20, seed=5), one)
    assert not np.array_equal(generate(model, [3, 1], 20), generate(model, [3, 1], 20))


def test_certain_and_impossible_tokens():
    model = Known(logits=False)
    model.table[:] = -np.inf
    model.table[:, :, 2] = 0  # probability 1
    assert (generate(model, [0], 50, temperature=3, seed=0) == 2).all()
    huge = Known()
    huge.table *= 1e30
    drawn = generate(huge, [0], 9, temperature=1e-3, seed=0)
    np.testing.assert_array_equal(drawn, generate(huge, [0], 9, temperature=0))


def unbuilt():
    model = Known()
    model.layers[0].shape = None
    return model


def outputs(values, **options):
    model = Known(**options)
    model.stream_step = lambda x: np.array([[values]], np.float32)
    return model


def activated(name):
    model = Known(told=False)
    model.layers[-1].activation = name
    return model


def predicting(vocabulary, inputs):
    model = Known(vocabulary)
    model.layers[0].input_dim = inputs
    return model


def vectors():
    model = Known()
    model.layers[0] = SimpleNamespace(shape=(3,))
    return model


@pytest.mark.parametrize(
    ("model", "arguments", "error", "message"),
    [
        (Known(), ([0], 0), ValueError, "length"),
        (Known(), ([0], 1, -1), ValueError, "temperature"),
        (Known(), ([0], 1, 1.0, 0), ValueError, "top_k"),
        (Known(), ([0], 1, 1.0, None, -1), ValueError, "seed"),
        (Known(), ([[0, 1], [2, 5]], 1), ValueError, r"seed_tokens: 5 at index \(1, 1\) is not one of 0 to 4"),
        (Known(), ([0, -1], 1), ValueError, r"seed_tokens: -1 at index \(1,\)"),
        (Known(), ([0.0], 1), TypeError, "seed_tokens: expected integers"),
        (Known(), ([], 1), ValueError, "seed_tokens.*empty"),
        (Known(), (3, 1), ValueError, r"seed_tokens: expected shape \(S,\) or \(B, S\)"),
        (unbuilt(), ([0], 1), ValueError, "not built yet"),
        (vectors(), ([0], 1), ValueError, "expected an Embedding or one-hot steps"),
        (predicting(5, 4), ([0], 1), ValueError, "predicts 5 tokens but reads only 4"),
        (activated("tanh"), ([0], 1), ValueError, "softmax or without activation, got 'tanh'"),
        (outputs([0, 0, np.nan, 0, 0]), ([0], 1), ValueError, "outputs for token 0 are not finite"),
        (outputs([0.5, -0.5, 1, 0, 0], logits=False), ([0], 1), ValueError, "no probabilities: the least is -0.5"),
        (outputs([0.5, 0.5, 1, 0, 0], logits=False), ([0], 1), ValueError, "no probabilities.* sum 2"),
    ],
)
def test_bad_input_is_named(model, arguments, error, message):
    with pytest.raises(error, match=message):
        generate(model, *arguments)


# ---- a real model


def test_a_real_model_continues_as_its_own_predictions_say():
    first = [[layers.Input((None,)), layers.Embedding(6, 3)], [layers.Input((None, 6))]]
    for k, begin in enumerate(first):
        model = Sequential(
            [*begin, layers.GRU(5, return_sequences=True), layers.Dense(6, activation="softmax")], seed=k
        )
        model.set_weights([3 * w for w in model.get_weights()])
        seed = np.array([1, 4, 2])
        tokens = [*seed, *generate(model, seed, 8, temperature=0)]
        for n in range(3, len(tokens)):
            x = np.array([tokens[:n]]) if k == 0 else np.eye(6)[[tokens[:n]]]
            assert tokens[n] == model.predict(x)[0, -1].argmax()
