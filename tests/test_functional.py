"""`elman.functional.recurrent`: values, tapes, every kind of array, and what it refuses."""

import numpy as np
import pytest
import reference

from elman.cells import CELLS
from elman.functional import recurrent

B, T, F, H = 3, 5, 4, 6


def draw(name, rng, dtype=np.float64):
    parameters = reference.draw(CELLS[name], rng, F, H)
    state = [rng.standard_normal((B, H)) for _ in range(CELLS[name].states)]
    x = rng.standard_normal((B, T, F))
    return x.astype(dtype), [p.astype(dtype) for p in parameters], [s.astype(dtype) for s in state]


def assert_same(got, expected):
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def everything(name, x, parameters, state=None, seed=1, **options):
    """Outputs, states and all gradients for fixed random gradients of the outputs and states."""
    outputs, last, tape = recurrent(name, x, parameters, state, **options)
    rng = np.random.default_rng(seed)
    d_outputs = rng.standard_normal(outputs.shape)
    gradients = tape.backward(d_outputs, [rng.standard_normal(s.shape) for s in last])
    return [outputs, *last, gradients.x, *gradients.parameters, *gradients.state]


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("with_state", [False, True])
def test_outputs_and_states(name, with_state, rng):
    x, parameters, state = draw(name, rng)
    W, R, b, w = reference.named(CELLS[name], parameters)
    expected, c, _ = reference.run(name, x, W, R, b, *(state if with_state else ()), w=w)
    outputs, last, _ = recurrent(name, x, parameters, state if with_state else None)
    np.testing.assert_allclose(outputs, expected, rtol=1e-12)
    np.testing.assert_allclose(last[0], expected[:, -1], rtol=1e-12)
    assert len(last) == CELLS[name].states
    if len(last) == 2:
        np.testing.assert_allclose(last[1], c, rtol=1e-12)
    by_cell = recurrent(CELLS[name], x, parameters, state if with_state else None)
    assert_same(by_cell[:1], [outputs])


@pytest.mark.parametrize("name", [name for name, cell in CELLS.items() if cell.bias])
def test_the_bias_is_optional(name, rng):
    x, parameters, _ = draw(name, rng)
    bias = 1 + bool(CELLS[name].h)
    with_zeros = everything(name, x, [*parameters[:bias], np.zeros_like(parameters[bias]), *parameters[bias + 1 :]])
    without = everything(name, x, [*parameters[:bias], *parameters[bias + 1 :]])
    place = 2 + CELLS[name].states + bias  # after the outputs, the states and the gradient of x
    assert with_zeros.pop(place).shape == parameters[bias].shape
    for a, e in zip(without, with_zeros, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-13)


def test_activations_reach_their_slots(rng):
    x, (W, R, b), _ = draw("lstm", rng)
    one = recurrent("lstm", x, [W, R, b], activation="softsign", recurrent_activation="hard_sigmoid")[0]
    z = x[:, 0] @ W + b
    i, _, g, o = np.split(z, 4, axis=1)

    def gate(v):
        return np.clip(v / 6 + 0.5, 0, 1)

    def act(v):
        return v / (1 + np.abs(v))

    np.testing.assert_allclose(one[:, 0], gate(o) * act(gate(i) * act(g)), rtol=1e-12)


# ---- the tape


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("go_backwards", [False, True])
def test_gradients_belong_to_their_arrays(name, go_backwards, rng):
    """Central differences in x, the parameters and the states, each alone: so that a swap of two steps shows."""
    x, parameters, state = draw(name, rng)
    a, weights = rng.standard_normal((B, T, H)), [rng.standard_normal((B, H)) for _ in state]

    def value(arrays):
        first = 1 + len(parameters)
        outputs, last, _ = recurrent(name, arrays[0], arrays[1:first], arrays[first:], go_backwards=go_backwards)
        return np.vdot(a, outputs) + sum(np.vdot(w, s) for w, s in zip(weights, last, strict=True))

    tape = recurrent(name, x, parameters, state, go_backwards=go_backwards)[2]
    g = tape.backward(a, weights)
    arrays = [x, *parameters, *state]
    for k, gradient in enumerate([g.x, *g.parameters, *g.state]):
        assert gradient.shape == arrays[k].shape
        direction, h = rng.standard_normal(gradient.shape), 1e-5
        ends = [value([*arrays[:k], arrays[k] + s * h * direction, *arrays[k + 1 :]]) for s in (-1, 1)]
        numeric = (ends[1] - ends[0]) / (2 * h)
        assert np.vdot(gradient, direction) == pytest.approx(numeric, rel=1e-6), f"array {k}"


def test_go_backwards_reads_from_the_end(rng):
    x, parameters, state = draw("gru", rng)
    backwards = recurrent("gru", x, parameters, state, go_backwards=True)
    forwards = recurrent("gru", x[:, ::-1].copy(), parameters, state)
    assert_same([backwards[0], *backwards[1]], [forwards[0], *forwards[1]])


def test_a_tape_is_used_once(rng):
    x, parameters, _ = draw("lstm", rng)
    outputs, _, tape = recurrent("lstm", x, parameters)
    tape.backward(np.ones_like(outputs))
    with pytest.raises(ValueError, match=r"tape: backward\(\) was called before; run the forward pass again"):
        tape.backward(np.ones_like(outputs))


def test_a_refused_gradient_leaves_the_tape_usable(rng):
    x, parameters, _ = draw("lstm", rng)
    outputs, _, tape = recurrent("lstm", x, parameters)
    ones = np.ones_like(outputs)
    with pytest.raises(ValueError, match=r"d_outputs: expected shape \(3, 5, 6\), got \(3, 5\)"):
        tape.backward(ones[..., 0])
    with pytest.raises(ValueError, match="d_state: expected 2 arrays, one per state, got 1"):
        tape.backward(ones, [ones[:, 0]])
    with pytest.raises(ValueError, match=r"d_state\[1\]: expected shape \(3, 6\)"):
        tape.backward(ones, [None, ones])
    with pytest.raises(ValueError, match="d_outputs: 1 of 90 values are not finite"):
        tape.backward(np.where(np.arange(90).reshape(ones.shape) == 7, np.nan, ones))
    expected = recurrent("lstm", x, parameters)[2].backward(ones)
    assert_same(tape.backward(ones).parameters, expected.parameters)


def test_gradients_add_up(rng):
    """The gradient is linear in what comes in; what is left out counts as zero."""
    x, parameters, state = draw("lstm", rng)
    a, h, c = rng.standard_normal((B, T, H)), *rng.standard_normal((2, B, H))

    def run(*given):
        g = recurrent("lstm", x, parameters, state)[2].backward(*given)
        return [g.x, *g.parameters, *g.state]

    whole = run(a, [h, c])
    parts = [run(a), run(None, [h, None]), run(None, [None, c])]
    for w, *p in zip(whole, *parts, strict=True):
        np.testing.assert_allclose(w, sum(p), rtol=1e-10, atol=1e-12)
    assert all((g == 0).all() for g in run())
    last = np.zeros_like(a)
    last[:, -1] = h
    for one, other in zip(run(last), parts[1], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)


def test_the_input_gradient_may_be_left_out(rng):
    x, parameters, _ = draw("gru", rng)
    outputs, _, tape = recurrent("gru", x, parameters)
    with_x = tape.backward(np.ones_like(outputs))
    without = recurrent("gru", x, parameters)[2].backward(np.ones_like(outputs), input_gradient=False)
    assert without.x is None
    assert_same(without.parameters, with_x.parameters)
    assert_same(without.state, with_x.state)


def test_results_are_the_callers_own(rng):
    x, parameters, _ = draw("lstm", rng)
    outputs, last, tape = recurrent("lstm", x, parameters)
    kept = [outputs.copy(), *(s.copy() for s in last)]
    g = tape.backward(np.ones_like(outputs))
    first = [g.x.copy(), *(p.copy() for p in g.parameters)]
    other = recurrent("lstm", -x, [2 * p for p in parameters])
    other[2].backward(other[0])
    assert_same([outputs, *last], kept)
    assert_same([g.x, *g.parameters], first)
    outputs[:] = 0
    last[0][:] = 0


@pytest.mark.parametrize("name", CELLS)
def test_gradients_of_any_layout(name, rng):
    x, parameters, _ = draw(name, rng)
    d = rng.standard_normal((B, T, H))
    expected = recurrent(name, x, parameters)[2].backward(d)
    for view in layouts(d):
        g = recurrent(name, x, parameters)[2].backward(view)
        assert_same([g.x, *g.parameters], [expected.x, *expected.parameters])


# ---- arrays


def layouts(a):
    """The same numbers in every layout NumPy has."""
    yield np.asfortranarray(a)
    yield np.ascontiguousarray(a.transpose(1, 0, 2)).transpose(1, 0, 2)
    yield np.ascontiguousarray(a[::-1, ::-1, ::-1])[::-1, ::-1, ::-1]
    yield np.repeat(np.repeat(a, 2, axis=1), 3, axis=2)[:, ::2, ::3]
    locked = a.copy()
    locked.flags.writeable = False
    yield locked
    # Strides that are no multiple of the item size, and an address that is none.
    record = np.zeros(a.shape, np.dtype([("tag", "u1"), ("value", a.dtype)]))
    record["value"] = a
    yield record["value"]
    odd = np.zeros(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
    odd[...] = a
    yield odd
    yield a.astype(a.dtype.newbyteorder())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("layout", range(8))
def test_x_of_any_layout(dtype, layout, rng):
    x, parameters, state = draw("gru", rng, dtype)
    expected = everything("gru", x, parameters, state)
    view = list(layouts(x))[layout]
    np.testing.assert_array_equal(view, x)
    assert_same(everything("gru", view, parameters, state), expected)


def test_x_may_repeat_one_sequence(rng):
    x, parameters, _ = draw("lstm", rng)
    repeated = np.broadcast_to(x[:1], x.shape)
    assert_same(everything("lstm", repeated, parameters), everything("lstm", repeated.copy(), parameters))


@pytest.mark.parametrize("name", CELLS)
def test_parameters_and_states_of_any_layout(name, rng):
    x, parameters, state = draw(name, rng)
    expected = everything(name, x, parameters, state)
    locked = [p.copy() for p in parameters]
    for p in locked:
        p.flags.writeable = False
    for given in (
        [np.asfortranarray(p) for p in parameters],
        [np.repeat(p, 2, axis=-1)[..., ::2] for p in parameters],
        [p[..., ::-1].copy()[..., ::-1] for p in parameters],
        locked,
        tuple(p.tolist() for p in parameters),
    ):
        assert_same(everything(name, x, given, [np.asfortranarray(s) for s in state]), expected)


@pytest.mark.parametrize("dtype", [np.float16, np.int8, np.int64, np.uint16, bool])
def test_other_dtypes_become_float32(dtype, rng):
    _, parameters, _ = draw("simple", rng)
    x = rng.integers(0, 2 if dtype is bool else 9, (B, T, F)).astype(dtype)
    outputs, last, tape = recurrent("simple", x, parameters)
    assert outputs.dtype == last[0].dtype == np.float32
    expected = recurrent("simple", x.astype(np.float32), parameters)
    assert_same([outputs], expected[:1])
    assert tape.backward(outputs).parameters[0].dtype == np.float32


def test_x_decides_the_dtype(rng):
    x, parameters, _ = draw("simple", rng)
    assert recurrent("simple", x.astype(np.float32), parameters)[0].dtype == np.float32
    assert recurrent("simple", x, [p.astype(np.float32) for p in parameters])[0].dtype == np.float64


# ---- what is refused


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"cell": "lstn"}, ValueError, "cell: unknown name 'lstn', did you mean 'lstm'"),
        ({"x": np.zeros((3, 4))}, ValueError, r"x: expected 3 axes, got 2: shape \(3, 4\)"),
        ({"x": np.zeros((3, 0, 4))}, ValueError, r"x: the array is empty, its shape is \(3, 0, 4\)"),
        ({"x": np.zeros((0, 5, 4))}, ValueError, "x: the array is empty"),
        ({"x": np.zeros((3, 5, 4), object)}, TypeError, "x: expected numbers, got an array of dtype object"),
        ({"x": np.full((1, 1, 4), np.nan)}, ValueError, r"x: 4 of 4 values are not finite.*\(0, 0, 0\)"),
        ({"x": np.zeros((3, 5, 3))}, ValueError, r"parameters\[0\]: .* have shape \(3, 4 \* units\), got \(4, 24\)"),
        ({"parameters": [np.zeros((4, 24))]}, ValueError, "parameters: cell 'lstm' takes 2 or 3 arrays .* got 1"),
        ({"parameters": [np.zeros((4, 23)), np.zeros((6, 23))]}, ValueError, r"parameters\[0\]: .*got \(4, 23\)"),
        ({"parameters": [np.zeros((4, 24)), np.zeros((5, 24))]}, ValueError, r"shape \(6, 24\), got \(5, 24\)"),
        (
            {"parameters": [np.zeros((4, 24)), np.zeros((6, 24)), np.zeros((2, 24))]},
            ValueError,
            r"parameters\[2\]: the bias must have shape \(24,\), got \(2, 24\)",
        ),
        (
            {"parameters": [np.zeros((4, 24)), np.full((6, 24), np.inf)]},
            ValueError,
            r"parameters\[1\]: 144 of 144 values are not finite",
        ),
        ({"initial_state": [np.zeros((3, 6))]}, ValueError, "initial_state: cell 'lstm' has 2 states, got 1"),
        ({"initial_state": [np.zeros((3, 6)), np.zeros((3, 5))]}, ValueError, r"initial_state\[1\]: .* \(3, 6\)"),
        ({"activation": "thanh"}, ValueError, "activation: unknown name 'thanh', did you mean 'tanh'"),
    ],
)  # fmt: skip
def test_bad_arguments(change, kind, message):
    arguments = {"cell": "lstm", "x": np.zeros((3, 5, 4)), "parameters": [np.zeros((4, 24)), np.zeros((6, 24))]}
    with pytest.raises(kind, match=message):
        recurrent(**{**arguments, **change})
