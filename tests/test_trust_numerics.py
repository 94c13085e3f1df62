"""Numbers at the ends of their range: right to a stated budget, or not finite and named; never finite and wrong."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import reference
from effort import thorough

import elman
from elman import optimizers
from elman.cells import CELLS
from elman.layers import RNN, Dense, Input, LayerNormalization, SimpleRNN
from elman.testing import exact
from elman.testing.cells import Path, Problem
from elman.testing.compare import check_derivative
from elman.testing.exact import Runner

B, F, H = 3, 2, 5
# Scale of x, scale of the weights, steps, and the largest error allowed, in units of the type's precision relative to
# the largest number of an array; measured: 79, 15, 125, 31,000 (weights of 30 make a small error grow), 6 and 55.
EXTREMES = {
    "plain": (1.0, 0.5, 50, 150),
    "tiny": (1e-30, 0.5, 50, 60),
    "huge": (1e30, 0.5, 50, 300),
    "saturated": (30.0, 30.0, 50, 100_000),
    "subnormal": (1e-40, 0.5, 20, 60),
    "long": (1.0, 0.5, thorough(2_000, 10_000), 150),
}


def draw(name, case, dtype):
    """x, parameters, states and gradients of the outputs and last states, in `dtype`."""
    scale, weight, steps, _ = EXTREMES[case]
    rng, cell = np.random.default_rng(0), CELLS[name]
    x = scale * rng.standard_normal((B, steps, F))
    parameters = reference.draw(cell, rng, F, H, weight)
    state, d_state = (list(0.5 * rng.standard_normal((cell.states, B, H))) for _ in range(2))
    d_outputs = rng.standard_normal((B, steps, H))
    return tuple([a.astype(dtype) for a in arrays] for arrays in ([x], parameters, state, [d_outputs], d_state))


def error(found, expected, dtype, floor=0.0):
    """Largest difference over the largest number, in units of precision."""
    size = max(np.abs(expected).max(), floor, float(np.finfo(dtype).tiny))
    return np.abs(found.astype(np.float64) - expected).max() / size / np.finfo(dtype).eps


def floor_of(case, dtype):
    """What counts as nothing beside the gradients of outputs, which are near 1.

    Products with x of numbers that are no normal ones. A saturated gate's derivative g (1 - g) is known to the
    precision of 1, not to a share of itself.
    """
    info, scale = np.finfo(dtype), EXTREMES[case][0]
    return 1.0 if case == "saturated" else float(info.tiny) / info.eps * max(1.0, 10 * scale)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", EXTREMES)
@pytest.mark.parametrize("name", CELLS)
def test_extremes_against_float64(name, case, dtype):
    """Outputs and all gradients against backpropagation through time in plain NumPy."""
    if case == "long" and name not in thorough(("lstm", "gru", "simple"), tuple(CELLS)):
        name = "lstm"
    x, parameters, state, d_outputs, d_state = draw(name, case, dtype)
    outputs, _, tape = elman.functional.recurrent(name, x[0], parameters, state)
    if name == "layer_norm_lstm" and case == "huge" and dtype == "float32":
        assert np.isnan(outputs[:, 1:]).all()  # the variance has no number in float32
        return
    gradients = tape.backward(d_outputs[0], d_state)
    wide = [[a.astype(np.float64) for a in arrays] for arrays in (x, parameters, state, d_outputs, d_state)]
    with np.errstate(over="ignore", under="ignore"):
        expected, wanted = reference.gradients(name, wide[0][0], wide[1], wide[2], wide[3][0], wide[4])
    budget = EXTREMES[case][3]
    assert error(outputs, expected, dtype) < budget
    floor = floor_of(case, dtype)
    for found, want in zip([gradients.x, *gradients.parameters, *gradients.state], wanted, strict=True):
        assert error(found, want, dtype, floor) < budget


@pytest.mark.parametrize("case", ["tiny", "huge", "saturated"])
@pytest.mark.parametrize("name", CELLS)
def test_extremes_against_finite_differences(name, case):
    """Central differences in float64, in a direction as large as what it changes."""
    x, parameters, state, d_outputs, d_state = draw(name, case, "float64")
    arrays = [x[0][:, :6], *parameters, *state]
    d_outputs, cut = d_outputs[0][:, :6], 1 + len(parameters)
    rng = np.random.default_rng(1)
    direction = [rng.standard_normal(a.shape) * np.abs(a).mean() for a in arrays]

    def run(step):
        moved = [a + step * d for a, d in zip(arrays, direction, strict=True)]
        return elman.functional.recurrent(name, moved[0], moved[1:cut], moved[cut:])

    def value(step):
        outputs, last, _ = run(step)
        return (outputs * d_outputs).sum() + sum((s * d).sum() for s, d in zip(last, d_state, strict=True))

    found = run(0.0)[2].backward(d_outputs, d_state)
    products = [np.vdot(g, d) for g, d in zip([found.x, *found.parameters, *found.state], direction, strict=True)]
    check_derivative(f"{name}, {case}", value, sum(products), np.abs(products).sum(), 1e-6)


# ---- float32 on every path, against the same kernels in float64

PATHS = {
    "plain": {}, "holes": {"mask": True}, "recurrent dropout": {"drop": True}, "checkpoints": {"checkpoint": 2},
    "zoneout": {"zoneout": True}, "all": {"mask": True, "drop": True, "checkpoint": 2, "zoneout": True},
}  # fmt: skip
MOST = 40
"""Units of precision, relative to the largest number of an array; the largest measured is 17."""


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", CELLS)
def test_the_budget_of_float32_on_every_path(name, path):
    rng, cell, options = np.random.default_rng(2), CELLS[name], dict(PATHS[path])
    batch, steps, units = 9, 11, 21
    if options.get("mask"):
        options["mask"] = rng.random((batch, steps)) < 0.7
    if options.get("drop"):
        options["drop"] = (rng.random((batch, units)) < 0.5) * 2.0
    if options.get("zoneout"):
        options["zoneout"] = exact.zone_rates(cell.states)
    problem = replace(Problem.draw(cell, (batch, steps, 4, units), ("tanh", "sigmoid"), 0), path=Path(**options))
    narrow = problem.with_arrays([a.astype(np.float32).astype(np.float64) for a in problem.arrays])
    narrow = replace(
        narrow,
        d_outputs=problem.d_outputs.astype(np.float32).astype(np.float64),
        d_state=tuple(d.astype(np.float32).astype(np.float64) for d in problem.d_state),
    )
    found, expected = (Runner(narrow, dtype).everything() for dtype in ("float32", "float64"))
    assert max(error(f, e, "float32") for f, e in zip(found, expected, strict=True) if e.size) < MOST


# ---- the smallest numbers


def test_subnormal_numbers_are_kept(thread_counts):
    """A processor told to flush them would give 0."""
    x = np.full((64, 300, 1), 1e-41, np.float32)
    layer = SimpleRNN(32, "linear", kernel_initializer="ones", recurrent_initializer="zeros", return_sequences=True)
    for threads in thread_counts:
        with elman.num_threads(threads):
            np.testing.assert_array_equal(layer(x), np.broadcast_to(x, (64, 300, 32)))


# ---- the largest numbers


@pytest.mark.parametrize("scale", 10.0 ** np.arange(0, 39, 2))
@pytest.mark.parametrize("cell", ["simple", "lstm", "gru", "mingru"])
def test_what_overflows_is_not_finite(cell, scale):
    """States that grow by a factor per step: every finite output is right, others are beyond the type."""
    rng = np.random.default_rng(3)
    x = (scale * rng.uniform(0.5, 1, (2, 12, 3))).astype(np.float32)
    spec = CELLS[cell]
    parameters = [np.abs(p).astype(np.float32) for p in reference.draw(spec, rng, 3, 4, 2.0)]
    narrow, wide = (
        elman.functional.recurrent(cell, a, parameters, activation="relu")[0] for a in (x, x.astype(np.float64))
    )
    finite = np.isfinite(narrow)
    np.testing.assert_allclose(narrow[finite], wide[finite], rtol=1e-4, atol=4e-6 * scale)
    if cell == "simple":  # others may overflow on the way to a number that would not
        assert (wide[finite] < 3.5e38).all() and (wide[~finite] > 1e37).all() and (scale < 1e29 or not finite.all())


def overflowing(*stack, loss="mse", **options):
    model = elman.Sequential([Input((4, 2)), *stack], seed=0)
    model.compile(options.pop("optimizer", "adam"), loss, **options)
    return model


@pytest.mark.parametrize(
    ("stack", "scale", "words"),
    [
        ([SimpleRNN(3, "relu", kernel_initializer="ones", recurrent_initializer="ones")], 1e38, "simplernn"),
        ([RNN(3, cell="layer_norm_lstm")], 1e30, "rnn"),
        ([Dense(3, kernel_initializer="ones"), SimpleRNN(2)], 3e38, "dense"),
    ],
)
def test_an_overflow_on_the_way_is_named_and_counted(stack, scale, words):
    model = overflowing(*stack)
    before = model.get_weights()
    x = np.full((5, 4, 2), scale) * [[[1.0, 0.9]]]
    with pytest.warns(RuntimeWarning, match=f"an update was skipped: .*{words}"):
        history = model.fit(x, np.zeros((5, model.output_shape[-1])), epochs=2, batch_size=5, verbose=0)
    assert history.skipped_updates == [1, 1] and not np.isfinite(history.history["loss"]).any()
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.isfinite(model.predict(x)).any()


def test_a_variance_that_overflows_is_no_result():
    """1 / sqrt(inf) is 0, and a row of zeros would look like any other."""
    x = np.array([[1e200, -1e200, 3e200], [1.0, 2.0, 4.0]])
    y = LayerNormalization()(x)
    assert np.isnan(y[0]).all() and np.isfinite(y[1]).all()
    assert np.isfinite(LayerNormalization()(np.array([[1e38, -1e38, 3e38]], np.float32))).all()  # in float64 it has one


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_gradients_whose_squares_overflow_are_refused(name, dtype):
    """They made the state infinite: learning ended in silence, or the parameters became NaN two steps later."""
    optimizer, limit = optimizers.get(name), {"float32": 2.0**54, "float64": 2.0**502}[dtype]
    p = np.ones(40, dtype)
    optimizer.build(p, np.array([0, 40]))
    for large in (limit, 10 * limit, np.finfo(dtype).max):
        for at in (0, 39):
            g = np.ones(40, dtype)
            g[at] = -large
            before = optimizer.state()
            assert optimizer.apply(p.copy(), g) == (name == "sgd")
            if name != "sgd":
                for key, value in optimizer.state().items():
                    np.testing.assert_array_equal(value, before[key])
    for _ in range(3):  # the largest that are taken, all at once
        assert optimizer.apply(p, np.full(40, 0.99 * limit, dtype))
    assert all(np.isfinite(v).all() for v in optimizer.state().values())
    assert name == "sgd" or np.isfinite(p).all()


@pytest.mark.parametrize("name", [n for n in optimizers.OPTIMIZERS if n != "sgd"])
def test_a_gradient_whose_square_overflows_is_named_and_counted(name):
    model = overflowing(SimpleRNN(2), Dense(1), loss="mae", optimizer=name, loss_weights=1e20)
    before = model.get_weights()
    with pytest.warns(RuntimeWarning, match=r"backward: gradient of '\w+/\w+' is .* at index .*, its square overflows"):
        history = model.fit(np.ones((5, 4, 2)), np.full((5, 1), 9.0), epochs=2, batch_size=5, verbose=0)
    assert history.skipped_updates == [1, 1]
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("loss", ["mse", "mae", "huber", "logcosh", "mape", "cosine_similarity", "poisson"])
@pytest.mark.parametrize("scale", [1e18, 1e25, 1e37])
def test_losses_of_large_numbers(loss, scale):
    """Value and gradient in float32 against float64: right, or not finite."""
    rng = np.random.default_rng(4)
    y, p = (scale * rng.uniform(0.5, 1, (2, 6, 3))).astype(np.float32)
    function, narrow, wide = elman.losses.get(loss), np.empty_like(p), np.empty(p.shape)
    with warnings.catch_warnings(action="ignore"):
        value = function.value_and_gradient(y, p, None, narrow)
        expected = function.value_and_gradient(y.astype(float), p.astype(float), None, wide)
    for found, want in ((np.array(value), np.array(expected)), (narrow, wide)):
        if np.isfinite(found).all():
            np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-6 * np.abs(want).max())
