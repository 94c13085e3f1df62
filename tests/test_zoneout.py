"""Zoneout: what the layer draws, what it gives at inference, and what must not change a bit."""

import json

import numpy as np
import pytest

from elman import Sequential, load_model, num_threads
from elman.kernels.random import bits, stream, zoneout
from elman.layers import GRU, LSTM, RNN, Bidirectional, Dense, SimpleRNN
from elman.testing.compare import check_derivative
from elman.testing.twins import Zoneout, sequence


def data(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def build(layers, dtype="float64", seed=3):
    model = Sequential(layers, dtype, seed=seed)
    model.build((None, 2))
    rng = np.random.default_rng(7)
    model.set_weights([0.5 * rng.normal(size=w.shape) for w in model.get_weights()])
    model.compile("sgd", "mse")
    return model


def same(a, b):
    for got, expected in zip(a, b, strict=True):
        np.testing.assert_array_equal(got, expected)


X, Y = data(5, 9, 2), data(5, 1, seed=1)


# ---- the numbers


def test_the_vector_of_the_kernels():
    vector = zoneout(3, 5, (0.25, 0.0))
    assert vector.dtype == np.uint64
    assert vector.tolist() == [int(stream(3, 5)), 0, 0, 2**62, 0]


def counted(rates, batch=40, steps=50, units=9):
    """Fraction of elements, per state, that keep their value in one training pass of an LSTM."""
    layer = LSTM(units, zoneout=rates, return_sequences=True, seed=11)
    layer(np.zeros((1, 1, 3)))
    layer.forward(data(batch, steps, 3), training=True)
    states = np.array([layer.states_at(t) for t in range(steps + 1)])
    return (states[1:] == states[:-1]).mean(axis=(0, 2, 3)), states


def test_fractions_that_keep_their_value():
    for rates in ((0.05, 0.5), (0.9, 0.0), (0.0, 0.3)):
        found, _ = counted(rates)
        # 18,000 draws: four standard deviations are at most 0.015; without draws not one element stays.
        np.testing.assert_allclose(found, rates, atol=0.015)
        assert [f == 0 for f in found] == [r == 0 for r in rates]


def test_draws_are_independent_in_time_units_sequences_and_states():
    _, states = counted(0.5)
    kept = (states[1:] == states[:-1]).astype(np.float64) - 0.5
    # The mean of a product of two independent draws of +-1/2 has a standard deviation of 1/4 over sqrt(n).
    for axis in range(4):
        near = np.moveaxis(kept, axis, 0)
        product = near[1:] * near[:-1]
        assert abs(product.mean()) < 1 / np.sqrt(product.size), axis


def test_elements_are_numbered_by_step_state_sequence_and_unit():
    _, states = counted((0.3, 0.6), 4, 5, 3)
    kept = states[1:] == states[:-1]
    start = stream(11 ^ 0x20E0, 0)
    words = np.array([int(bits(start, j)) for j in range(kept.size)], np.float64).reshape(kept.shape)
    np.testing.assert_array_equal(kept, words * 2.0**-64 < np.array([0.3, 0.6])[:, None, None])


# ---- the layer against the twin


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("go_backwards", [False, True])
def test_outputs_are_those_of_the_equations(training, go_backwards):
    layer = LSTM(4, zoneout=(0.2, 0.6), return_sequences=True, go_backwards=go_backwards, seed=5)
    model = build([layer])
    layer.draw = 2
    mask = np.random.default_rng(3).random((5, 9)) < 0.7
    layer.mask = mask
    got = layer.forward(X, training=training)
    kernel, recurrent, bias = model.get_weights()
    turn = slice(None, None, -1 if go_backwards else 1)
    rule = Zoneout((0.2, 0.6), 5 ^ 0x20E0 if training else None, 2)
    zeros = [np.zeros((5, 4))] * 2
    wanted, _ = sequence(
        layer._cell(), X[:, turn], kernel, recurrent, bias[None], zeros, mask=mask[:, turn], zoneout=rule
    )
    np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-14)


def test_inference_is_the_expectation():
    """Of one step, over all draws: h after it is linear in what is drawn."""
    layer = GRU(6, zoneout=0.4, seed=0)
    build([layer])
    state = [data(1000, 6, seed=2)[:1].repeat(20_000, axis=0)]
    x = data(1, 1, 2).repeat(20_000, axis=0)
    drawn, expected = layer(x, state, training=True), layer(x, state)
    assert len(np.unique(drawn[:, 0])) == 2 and len(np.unique(expected[:, 0])) == 1
    np.testing.assert_allclose(drawn.mean(axis=0), expected[0], atol=0.03)
    same([layer(x, state)], [expected])


# ---- gradients

LAYERS = {
    "simple": lambda: [SimpleRNN(3, zoneout=0.3, checkpoint=2), Dense(1)],
    "lstm": lambda: [LSTM(4, zoneout=(0.1, 0.5), recurrent_dropout=0.3), Dense(1)],
    "reset before": lambda: [GRU(4, zoneout=0.4, reset_after=False, learn_initial_state=True), Dense(1)],
    "both directions": lambda: [Bidirectional(GRU(3, zoneout=0.4, dropout=0.2)), Dense(1)],
    "peepholes": lambda: [RNN(3, cell="peephole_lstm", zoneout=[0.2, 0.3], return_sequences=True), LSTM(2), Dense(1)],
}


@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
def test_gradients_of_what_was_drawn(layers):
    model = build(layers())
    mask = np.random.default_rng(4).random((5, 9)) < 0.8
    _, gradients = model.loss_and_gradients(X, Y, mask=mask)
    weights, rng = model.get_weights(), np.random.default_rng(5)
    direction = [rng.standard_normal(w.shape) for w in weights]

    def value(step):
        model.set_weights([w + step * v for w, v in zip(weights, direction, strict=True)])
        return model.loss_and_gradients(X, Y, mask=mask)[0]

    slope = float(sum(np.vdot(g, v) for g, v in zip(gradients, direction, strict=True)))
    assert abs(slope) > 1e-3
    check_derivative("zoneout", value, slope, 1.0, 1e-6)


# ---- what changes nothing, and what does


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_rate_of_zero_gives_the_bits_of_none(dtype):
    found = []
    for options in ({}, {"zoneout": 0}, {"zoneout": (0.0, 0)}, {"zoneout": 1e-30}):
        model = build([LSTM(7, recurrent_dropout=0.2, **options), Dense(1)], dtype)
        model.fit(X, Y, batch_size=2, epochs=2, verbose=0)
        found.append([*model.get_weights(), model.predict(X)])
    # So small a rate runs the other code and keeps nothing.
    for other in found[1:]:
        same(other, found[0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_inference_rounds_each_product(dtype):
    """``p h' + q h`` with h' = 0, to the bit: contracted it would be ``h - p h``."""
    model, plain = (build([SimpleRNN(64, zoneout=p, return_sequences=True)], dtype) for p in (0.2, 0.0))
    q = np.dtype(dtype).type(1 - 0.2)
    same([model.predict(X)[:, 0]], [q * plain.predict(X)[:, 0]])


def fitted(threads=1, **options):
    x, y = data(64, 20, 2), data(64, 1, seed=1)
    with num_threads(threads):
        model = build([LSTM(32, zoneout=(0.2, 0.5), **options), Dense(1)], "float32")
        model.fit(x, y, epochs=2, verbose=0)
        return [*model.get_weights(), model.predict(x)]


def test_bits_depend_neither_on_threads_nor_on_checkpoints(thread_counts, blocks_of_four):
    first = fitted()
    for threads in thread_counts:
        same(fitted(threads), first)
    for checkpoint in (1, "sqrt"):
        same(fitted(checkpoint=checkpoint), first)
    assert not np.array_equal(fitted(seed=3)[0], first[0])


def test_every_training_step_draws_anew_and_inference_never():
    model = build([GRU(4, zoneout=0.5, return_sequences=True), Dense(1)])
    layer = model.layers[0]
    before = model.predict(X)
    first = layer.forward(X, training=True).copy()
    same([layer.forward(X, training=True)], [first])
    layer.draw += 1
    assert not np.array_equal(layer.forward(X, training=True), first)
    same([model.predict(X)], [before])
    plain = build([GRU(4, return_sequences=True), Dense(1)])
    plain.set_weights(model.get_weights())
    assert np.abs(plain.predict(X) - before).max() > 0.01


def test_a_sequence_in_pieces_at_inference():
    model = build([LSTM(4, zoneout=(0.1, 0.5), return_sequences=True), Dense(1)], "float32")
    pieces = [model.stream_step(X[:, at]) for at in (slice(0, 1), slice(1, 5), slice(5, 9))]
    same([np.concatenate(pieces, axis=1)], [model.predict(X)])


# ---- configuration


def test_saved_and_read_again(tmp_path):
    layers = [LSTM(4, zoneout=(0.05, 0.5), return_sequences=True), Bidirectional(GRU(3, zoneout=0.25)), Dense(1)]
    model = build(layers)
    model.save(tmp_path / "model")
    again = load_model(tmp_path / "model")
    assert again.layers[0].zoneout == (0.05, 0.5) and again.layers[1].layer.zoneout == 0.25
    assert again.layers[1].backward_layer.zoneout == 0.25
    same([again.predict(X)], [model.predict(X)])
    assert json.loads(json.dumps(layers[0].get_config()))["zoneout"] == [0.05, 0.5]
    for m in (model, again):
        m.fit(X, Y, batch_size=2, epochs=2, verbose=0)
    same(again.get_weights(), model.get_weights())


@pytest.mark.parametrize(
    ("rate", "error", "message"),
    [
        (1, ValueError, "zoneout: expected a rate from 0 to below 1, got 1"),
        (-0.1, ValueError, r"zoneout: expected a finite number >= 0 and <= 1, got -0.1"),
        (float("nan"), ValueError, "zoneout: expected a finite number"),
        ("often", TypeError, "zoneout: expected a number, got str 'often'"),
        (None, TypeError, "zoneout: expected a number, got NoneType"),
        ((0.1,), ValueError, "zoneout: expected one rate or as many as cell 'lstm' has states, 2, got 1"),
        ((0.1, 0.2, 0.3), ValueError, "zoneout: expected one rate or as many .* got 3"),
        ((0.1, 1.5), ValueError, r"zoneout\[1\]: expected a finite number"),
        ((True, 0.1), TypeError, r"zoneout\[0\]: expected a number, got bool True"),
    ],
)
def test_bad_rates(rate, error, message):
    with pytest.raises(error, match=message):
        LSTM(4, zoneout=rate)
