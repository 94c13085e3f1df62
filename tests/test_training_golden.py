"""Ten optimizer steps against an independent implementation, and that implementation against complex steps."""

from functools import partial

import numpy as np
import pytest
import reference

import elman
from elman.cells import CELLS
from elman.optimizers import SGD, Adam

B, T, F, H, OUT = 5, 6, 3, 4, 2
LAYERS = {
    "simple": elman.layers.SimpleRNN,
    "lstm": elman.layers.LSTM,
    "gru": elman.layers.GRU,
    "gru_reset_before": partial(elman.layers.GRU, reset_after=False),
}
OPTIMIZERS = [
    (lambda: SGD(0.3), partial(reference.sgd, lr=0.3)),
    (lambda: SGD(0.1, momentum=0.9, nesterov=True), partial(reference.sgd, lr=0.1, momentum=0.9, nesterov=True)),
    (lambda: Adam(0.02), partial(reference.adam, lr=0.02)),
]


def draw(name, rng):
    """Random weights everywhere, biases too: zeros would hide which bias is which."""
    columns = CELLS[name].gates * H
    bias = (2, columns) if name == "gru" else (columns,)
    shapes = (F, columns), (H, columns), bias, (H, OUT), (OUT,)
    return [0.6 * rng.standard_normal(s) for s in shapes], rng.standard_normal((B, T, F)), rng.standard_normal((B, OUT))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(("optimizer", "update"), OPTIMIZERS, ids=["sgd", "nesterov", "adam"])
def test_ten_steps_in_float64(name, optimizer, update, rng):
    weights, x, y = draw(name, rng)
    trajectory, losses = reference.train(name, weights, x, y, update, 10)
    model = elman.Sequential([LAYERS[name](H), elman.layers.Dense(OUT)], dtype="float64")
    model.build((T, F))
    model.set_weights(weights)
    model.compile(optimizer(), "mse")
    for expected, loss in zip(trajectory, losses, strict=True):
        assert model.train_on_batch(x, y) == pytest.approx(loss, rel=1e-9)
        for got, wanted in zip(model.get_weights(), expected, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-9)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", LAYERS)
def test_ten_steps_in_float32_stay_close(name, rng):
    weights, x, y = draw(name, rng)
    trajectory, _ = reference.train(name, weights, x, y, partial(reference.sgd, lr=0.1), 10)
    model = elman.Sequential([LAYERS[name](H), elman.layers.Dense(OUT)])
    model.build((T, F))
    model.set_weights(weights)
    model.compile(SGD(0.1), "mse")
    for _ in range(10):
        model.train_on_batch(x, y)
    for got, wanted in zip(model.get_weights(), trajectory[-1], strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_the_reference_agrees_with_complex_steps(name, rng):
    (W, R, b, _, _), x, _ = draw(name, rng)
    cell = CELLS[name]
    state = rng.standard_normal((cell.states, B, H))
    d_outputs, d_state = rng.standard_normal((B, T, H)), rng.standard_normal((cell.states, B, H))
    _, _, kept = reference.run(name, x, W, R, b, *state)
    found = reference.back(name, kept, x, W, R, b, d_outputs, *d_state)[: 4 + cell.states]
    for _ in range(3):
        direction = [rng.standard_normal(a.shape) for a in (x, W, R, b, *state)]
        exact = reference.complex_step(
            cell,
            [x, W, R, b.reshape(-1, W.shape[1]), *state],
            d_outputs,
            d_state,
            [d.reshape(-1, W.shape[1]) if k == 3 else d for k, d in enumerate(direction)],
        )
        assert sum(np.vdot(g, v) for g, v in zip(found, direction, strict=True)) == pytest.approx(exact, rel=1e-11)


@pytest.mark.parametrize("name", LAYERS)
def test_bptt_equals_the_hand_written_one(name, rng):
    (W, R, b, _, _), x, _ = draw(name, rng)
    states = CELLS[name].states
    state, d_state = rng.standard_normal((2, states, B, H))
    d_outputs = rng.standard_normal((B, T, H))
    expected, c, kept = reference.run(name, x, W, R, b, *state)
    outputs, last, tape = elman.functional.recurrent(name, x, [W, R, b], list(state))
    np.testing.assert_allclose(outputs, expected, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(last[-1], c if states == 2 else expected[:, -1], rtol=1e-13, atol=1e-14)
    got = tape.backward(d_outputs, list(d_state))
    wanted = reference.back(name, kept, x, W, R, b, d_outputs, *d_state)
    for a, e in zip([got.x, *got.parameters, *got.state], wanted[: 4 + states], strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-11, atol=1e-12)
