"""A compact run of everything against the NumPy reference, for a process of its own: ``smoke.py DTYPES [parallel]``.

Prints what it ran on as JSON; fails with AssertionError.
"""

import json
import sys
import threading
from functools import partial

import numpy as np
import reference

import elman
from elman.cells import CELLS
from elman.jit import DISABLED, threading_layer, vector_bytes
from elman.kernels.simd import VECTORS, lanes
from elman.testing.cells import Problem
from elman.testing.exact import Runner, check_single
from elman.threads import usable_threads

B, T, F, H = 3, 4, 2, 7


def close(got, expected, dtype):
    budget = 1e-11 if dtype == "float64" else 2e-5
    np.testing.assert_allclose(got, expected, rtol=budget, atol=budget)


def check_recurrent(name, dtype):
    """Outputs, states and every gradient against hand-written backpropagation through time."""
    rng, cell = np.random.default_rng(1), CELLS[name]
    parameters = reference.draw(cell, rng, F, H)
    x, state, d_state = rng.standard_normal((B, T, F)), *rng.standard_normal((2, cell.states, B, H))
    d_outputs = rng.standard_normal((B, T, H))
    expected, wanted = reference.gradients(name, x, parameters, state, d_outputs, d_state)
    outputs, _, tape = elman.functional.recurrent(name, x.astype(dtype), parameters, list(state))
    close(outputs, expected, dtype)
    got = tape.backward(d_outputs, list(d_state))
    for a, e in zip([got.x, *got.parameters, *got.state], wanted, strict=True):
        close(a, e, dtype)


def check_training(dtype):
    """Three steps of Adam on an LSTM with a dense layer, and an inference."""
    rng = np.random.default_rng(2)
    shapes = (F, 4 * H), (H, 4 * H), (4 * H,), (H, 1), (1,)
    weights, x, y = [0.5 * rng.standard_normal(s) for s in shapes], rng.standard_normal((B, T, F)), np.ones((B, 1))
    trajectory, losses = reference.train("lstm", weights, x, y, partial(reference.adam, lr=0.02), 3)
    model = elman.Sequential([elman.layers.LSTM(H), elman.layers.Dense(1)], dtype=dtype)
    model.build((T, F))
    model.set_weights(weights)
    model.compile(elman.optimizers.Adam(0.02), "mse")
    for loss in losses:
        close(model.train_on_batch(x, y), loss, dtype)
    for got, wanted in zip(model.get_weights(), trajectory[-1], strict=True):
        close(got, wanted, dtype)
    W, R, b, V, a = trajectory[-1]
    close(model.predict(x), reference.run("lstm", x, W, R, b)[0][:, -1] @ V + a, dtype)


def check_stream(dtype):
    """Step by step as all steps at once, to the bit where the products are the library's own."""
    layers, rng = elman.layers, np.random.default_rng(4)
    for first, x in (
        (layers.Dense(4, "tanh"), rng.standard_normal((B, T, F))),
        (layers.Embedding(6, 4), rng.integers(0, 6, (B, T))),
    ):
        stack = [layers.LSTM(H, return_sequences=True, zoneout=0.2), layers.LayerNormalization(), layers.GRU(5)]
        stack += [layers.Dense(3, "softmax"), layers.Activation("relu")]
        model = elman.Sequential([layers.Input((None, *x.shape[2:])), first, *stack], dtype=dtype, seed=0)
        for batch in (B, 1):
            step = model.stream(batch)
            for t in range(T):
                got, expected = np.copy(step(x[:batch, t])), model.predict(x[:batch, : t + 1])
                close(got.reshape(expected.shape), expected, dtype)
                assert DISABLED or (got.reshape(expected.shape) == expected).all()
            step.set_states(step.states)


def check_parallel(dtype):
    """Two threads against one, to the bit; then the same in a thread of Python, where the layer may forbid threads."""
    problem = Problem.draw(CELLS["gru"], (13, 4, 3, 9), ("tanh", "sigmoid"), 3)
    with elman.num_threads(1):
        serial = Runner(problem, dtype).everything()
    found = {}

    def run(key):
        r = Runner(problem, dtype)
        r.cut(4)
        with elman.num_threads(2):
            found[key] = r.everything(), usable_threads()

    run("main")
    thread = threading.Thread(target=run, args=("thread",))
    thread.start()
    thread.join()
    for arrays, _ in found.values():
        for a, e in zip(arrays, serial, strict=True):
            np.testing.assert_array_equal(a, e)
    return {key: threads for key, (_, threads) in found.items()}


def check_units(dtype):
    """A long sequence, its units shared out to as many threads as there are."""
    size = 1, 4 if DISABLED else 300, 3, 2 * VECTORS * lanes(np.dtype(dtype)) - 1
    check_single(Problem.draw(CELLS["gru_reset_before"], size, ("tanh", "sigmoid"), 3), dtype)


def main(dtypes, mode="serial"):
    with elman.num_threads(1):
        for dtype in dtypes.split(","):
            check_units(dtype)
            for name in CELLS if mode == "serial" else ["gru"]:
                check_recurrent(name, dtype)
            if mode == "serial":
                check_training(dtype)
                check_stream(dtype)
    threads = check_parallel("float32") if mode == "parallel" else {}
    layer = threading_layer() if mode == "parallel" else ""
    json.dump({"disabled": DISABLED, "bytes": vector_bytes(), "layer": layer, "threads": threads}, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
