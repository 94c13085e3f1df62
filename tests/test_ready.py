"""Kernel calls made again as they were put together before give the numbers of calls put together anew."""

from collections import Counter
from itertools import product

import numpy as np
import pytest

import elman
from elman import jit
from elman.frames import Ready
from elman.jit import calls
from elman.layers import GRU, LSTM, Bidirectional, Dense, SimpleRNN
from elman.recurrence import Recurrence

SERIAL, PARALLEL = (6, 5, 3, 7), (32, 30, 8, 48)  # B, T, I, H: below and above the work that is shared out


def _model(cell, size, **options):
    layers = [cell(size[3], return_sequences=True, **options), cell(5), Dense(4, "tanh"), Dense(2)]
    model = elman.Sequential(layers, seed=1)
    model.compile("adam", "mse")
    return model


def _life(model, size):
    """All that may change between one batch and the next; outputs, losses and weights after each."""
    batch, steps, inputs, _ = size
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(batch, steps, inputs)).astype(np.float32), rng.normal(size=(batch, 2)).astype(np.float32)
    strided = np.zeros((steps, 2 * batch, inputs), np.float32).transpose(1, 0, 2)[::2]
    found = []

    def train(x, y=y, **more):
        found.append(model.train_on_batch(x, y, **more))
        found.extend(w.copy() for w in model.get_weights())

    def predict(x):
        found.append(model.predict(x))

    for _ in range(3):
        train(x)
    x += 1  # in place
    train(x)
    train(x.copy())
    strided[...] = x
    train(strided)
    train(x, lengths=np.arange(batch) % steps + 1)
    train(x)
    predict(x)
    predict(x[: batch // 2])
    train(x)
    train(x[:-1], y[:-1])
    train(x[:, 1:])
    train(x, sample_weight=np.linspace(0, 1, batch))
    train(np.concatenate([x, x, x]), np.concatenate([y, y, y]))  # memory grows
    train(np.concatenate([x, x], axis=1))
    train(x)
    predict(np.concatenate([x] * 9))
    train(x)
    for threads in (1, elman.get_num_threads()):
        with elman.num_threads(threads):
            train(x)
            predict(x)
    model.set_weights([w / 2 for w in model.get_weights()])
    train(x)
    predict(x)
    model.layers[0].trainable = False  # the gradient of the second layer's input is not needed any more
    model.compile("sgd", "mae")
    for _ in range(2):
        train(x)
    found.extend(layer.norms for layer in model.gradient_flow(x, y).layers)
    train(x)
    found.extend(model.gradients(x, y))
    return found


@pytest.mark.skipif(jit.DISABLED, reason="calls are kept for compiled kernels alone")
@pytest.mark.parametrize("often", [1, 2, 100])
@pytest.mark.parametrize("size", [SERIAL, PARALLEL], ids=["serial", "parallel"])
@pytest.mark.parametrize("cell", [SimpleRNN, GRU, LSTM, "bidirectional", "peephole"])
def test_calls_made_again_give_the_numbers_of_calls_put_together_anew(cell, size, often, monkeypatch):
    """With arguments that are handed over each time, and with arguments that are kept."""
    make = {
        "bidirectional": lambda units, **options: Bidirectional(GRU(units, **options)),
        "peephole": lambda units, **options: elman.layers.RNN(units, cell="peephole_lstm", **options),
    }.get(cell, cell)
    fits, hits, misses = Ready.fits, Counter(), Counter()
    monkeypatch.setattr(calls, "_OFTEN", often)

    def counted(ready, *given):
        found = fits(ready, *given)
        (hits if found else misses)[id(ready.parameters), ready.gradients is None] += 1
        return found

    monkeypatch.setattr(Ready, "fits", counted)
    model = _model(make, size)
    found = _life(model, size)
    inner = [part for part in model._parts() if isinstance(part, elman.layers.RNN)]
    # Weights per unit are spread in NumPy each time.
    parts = [*([] if cell == "peephole" else inner), *model.layers[2:]]
    for part, forward in product(parts, (True, False)):
        assert hits[id(part._arguments), forward] >= 5
    assert misses
    monkeypatch.setattr(Ready, "fits", lambda *given: False)
    expected = _life(_model(make, size), size)
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_lists_of_parameters_and_gradients_are_known_by_identity(rng):
    """Equal lists of other arrays are other calls; so are other arrays at the place of the targets' gradient."""
    r = Recurrence(elman.cells.get("gru"), 2, 3, np.dtype(np.float64), "tanh", "sigmoid")
    x, d = rng.normal(size=(4, 5, 2)), rng.normal(size=(4, 5, 3))
    shapes = (2, 9), (3, 9), (2, 9), (0, 3)
    one, other = ([rng.normal(size=shape) for shape in shapes] for _ in range(2))
    found = []
    for parameters in (one, other, one, one):
        targets = [np.full(shape, np.nan) for shape in shapes]
        tape = r.forward(x, parameters, None, training=True, sequences=True)
        y = tape.outputs.copy()
        dx = tape.run_backward(d, None, targets, input_gradient=True).copy()
        found.append([y, dx, *targets])
    for k in (2, 3):
        for a, b in zip(found[0], found[k], strict=True):
            np.testing.assert_array_equal(a, b)
    assert not any((a == b).any() for a, b in zip(found[0][:4], found[1][:4], strict=True))


@pytest.mark.skipif(jit.DISABLED, reason="calls are kept for compiled kernels alone")
def test_calls_made_often_do_the_same_in_the_same_order(monkeypatch):
    monkeypatch.setattr(calls, "_OFTEN", 3)

    def scale(thread, begin, end, factor, out):
        for k in range(begin, end):
            out[k] = out[k] * factor + thread

    numbers = jit.types.int64
    function = jit.Function(scale, lambda dtype: (*(numbers,) * 4, jit.vector(dtype)))

    @jit.spreading
    def scaled(team, pieces, most, function, factor, out):
        call, place = jit.bundle(function, (factor, out), team)
        jit.spread(team, pieces, most, call, place)

    @jit.Entry
    def raised(out):
        for k in range(out.size):
            out[k] += 1

    pieces = np.array([[[0, 3], [5, 6]], [[3, 5], [0, 0]]])
    out, handle = np.zeros(6, np.int64), function.handle(np.dtype(np.int64))
    threads = jit.maximum_threads()
    made = calls.Calls(
        (scaled, 1, (pieces, 2, handle, 2, out)),
        (scaled, threads, (pieces, 1, handle, 3, out)),
        (scaled, threads, (pieces, 9, handle, -1, out)),
        (raised, 1, (out,)),
        (scaled, 1, (pieces[:, ::-1].copy(), 1, handle, 5, out)),
    )
    owner = np.array([0, 0, 0, 1, 1, 0])
    expected = np.zeros(6, np.int64)
    for _ in range(6):
        made()
        for factor, plus in ((2, owner), (3, owner), (-1, owner), (1, 1), (5, owner)):
            expected = expected * factor + plus
        np.testing.assert_array_equal(out, expected)
    assert made._bound[0][1] is made._bound[-1][1] is calls._repeat._serial  # it reads kept arguments
    # Whatever has kept arguments goes together, on as many threads as any of it.
    assert [count for count, _, _ in made._bound] == [threads, 1, 1]


def test_calls_restore_the_number_of_threads():
    """Of Numba, which others use too; also where one of them raises."""
    numba = pytest.importorskip("numba")
    most, seen, before = jit.maximum_threads(), [], numba.get_num_threads()

    def one(*given):
        seen.append(numba.get_num_threads())
        if given == ("error",):
            raise ValueError

    try:
        numba.set_num_threads(1)
        jit.on_team([(1, one, ()), (most, one, ()), (1, one, ())])
        assert seen == [1, most, most]
        assert numba.get_num_threads() == 1
        with pytest.raises(ValueError):
            jit.on_team([(most, one, ()), (most, one, ("error",))])
        assert numba.get_num_threads() == 1
    finally:
        numba.set_num_threads(before)
