"""Every registered cell through the public battery, and declarations that cannot work."""

from dataclasses import replace

import numpy as np
import pytest

from elman.cells import (
    CELLS,
    GRU_RESET_BEFORE,
    LAYER_NORM_LSTM,
    LSTM,
    PEEPHOLE_LSTM,
    SIMPLE,
    Cell,
    get,
    register,
)
from elman.kernels.pointwise import ACTIVATIONS
from elman.testing import cells as battery
from elman.testing import check_cell
from elman.testing.exact import Runner
from elman.testing.twins import ACTIVATION_TWINS

OTHERS = ("relu", "sigmoid", "hard_sigmoid", "linear", "softsign", "elu")
# Each on both slots, never the same one on both, so that swapped slots show.
PAIRS = [*zip(OTHERS, (*OTHERS[1:], OTHERS[0]), strict=True)]
# A gate without bound that sees c squares it at every step: 1e28 after four, where no digit of float32 is left.
BOUNDED = [*zip(OTHERS, ("sigmoid", "hard_sigmoid", "softsign", "tanh", "sigmoid", "hard_sigmoid"), strict=True)]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("seed", range(3))
def test_the_battery(cell, seed):
    check_cell(cell, seed=seed)


@pytest.mark.parametrize("cell", CELLS)
def test_other_activations(cell):
    check_cell(cell, activations=BOUNDED if cell == "peephole_lstm" else PAIRS)


def test_every_activation_has_a_twin():
    assert set(ACTIVATION_TWINS) == set(ACTIVATIONS)


# ---- the battery sees what it must see: cells wrong on purpose


def broken(cell, *, backward=None, forward=None, name="broken"):
    def kernels(act, gate):
        right = cell.kernels(act, gate)
        return (forward or right[0], backward(*right) if backward else right[1], *right[2:])

    return replace(cell, name=name, kernels=kernels)


def test_a_wrong_value_is_caught():
    def forward(z, prev, new, w, at):
        for j in range(at.lo, at.hi):
            new[0, j] = z[0, j]

    with pytest.raises(AssertionError, match=r"cell 'broken' \(tanh/sigmoid\), B=1 T=1 I=1 H=1, float64, outputs: got"):
        check_cell(broken(SIMPLE, forward=forward))


def test_a_gradient_of_zero_is_caught():
    def backward(forward, right):
        def wrong(z, prev, new, dnew, dprev, w, dw, at):
            for j in range(at.lo, at.hi):
                z[0, j] = 0
                dprev[0, j] = 0

        return wrong

    with pytest.raises(AssertionError, match=r"gradient of all outputs: the gradient gives .* central differences"):
        check_cell(broken(SIMPLE, backward=backward))


def linear_cell(name, forward):
    """h = x W + b + h' R, with a forward kernel that should compute it."""

    def backward(z, prev, new, dnew, dprev, w, dw, at):
        for j in range(at.lo, at.hi):
            z[0, j] = dnew[0, j]
            dprev[0, j] = 0

    return Cell(
        name,
        states=1,
        x=(0,),
        h=(0,),
        kernels=lambda act, gate: (forward, backward),
        reference=lambda x, r, state, act, gate: (x[0] + r(state[0], 0),),
    )


def test_a_linear_cell_of_ones_own_passes():
    def forward(z, prev, new, w, at):
        for j in range(at.lo, at.hi):
            new[0, j] = z[0, j]

    check_cell(linear_cell("linear", forward))


def test_a_swallowed_nan_is_caught():
    def forward(z, prev, new, w, at):
        for j in range(at.lo, at.hi):
            new[0, j] = z[0, j] if z[0, j] == z[0, j] else 0

    with pytest.raises(AssertionError, match=r"NaN in sequence 1 at step 2 is lost"):
        check_cell(linear_cell("swallow", forward))


def test_a_unit_that_looks_at_its_neighbour_is_caught():
    """The neighbour may belong to another sequence, which a second thread computes at the same time.

    0 times it shows only where it is NaN: on purpose in one check, by chance in others.
    """

    def forward(z, prev, new, w, at):
        zero = prev.dtype.type(0)
        for j in range(at.lo, at.hi):
            new[0, j] = z[0, j] + zero * prev[0, (j + 1) % prev.shape[1]]

    with pytest.raises(AssertionError, match="cell 'neighbour'"):
        check_cell(linear_cell("neighbour", forward))


# ---- declarations


def declare(**changes):
    return replace(SIMPLE, name="wrong", **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": (0, 0), "h": (0, 1)}, r"x=\(0, 0\) must name neighbouring buffer rows, each once"),
        ({"x": (0, 1), "h": (0, 2)}, r"h=\(0, 2\) must name neighbouring"),
        ({"x": (1,), "h": (1,)}, "must fill the rows from 0 on"),
        ({"x": (), "h": ()}, "x not empty"),
        ({"x": (), "h": (0,)}, "x not empty"),
        ({"x": (0, 1), "h": (0,)}, "x and h must name as many gates, got 2 and 1"),
        ({"late": 0}, "late and operand come together"),
        ({"operand": 1}, "late and operand come together"),
        ({"x": (0, 1), "h": (0, 1), "late": 0, "operand": 2}, r"late must be the last row of h \(1\)"),
        ({"late": 0, "operand": 2}, r"operand the next one \(1\), got 0 and 2"),
        ({"keep": -1}, "keep: expected an integer of at least 0, got -1"),
        ({"recurrent_bias": True, "bias": False}, "recurrent_bias needs bias=True"),
        ({"forget": 1}, "forget must name one of 1 gates with a bias, got 1"),
        ({"forget": 0, "bias": False}, "forget must name one of 1 gates with a bias, got 0"),
        ({"gate_rows": (("h", 1),)}, "gate 'h' must be in one of 1 rows, got 1"),
        ({"keep": 1, "gate_rows": (("h", -1),)}, "h: expected an integer of at least 0, got -1"),
        ({"states": 0}, "states: expected an integer of at least 1, got 0"),
        ({"late": 0, "operand": 1}, "kernels must return 4 functions"),
        ({"kernels": GRU_RESET_BEFORE.kernels}, "kernels must return 2 functions"),
    ],
)
def test_a_wrong_declaration_dies_at_construction(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        declare(**changes)
    assert str(caught.value).startswith("cell 'wrong': ")


def test_names():
    with pytest.raises(ValueError, match="the name 'lstm' is taken by another cell"):
        register(replace(SIMPLE, name="lstm"))
    assert CELLS["lstm"] is LSTM
    assert register(LSTM) is LSTM
    for other in (replace(LSTM, forget=None), replace(SIMPLE, name="gru", kernels=CELLS["gru"].kernels)):
        with pytest.raises(ValueError, match=f"the name '{other.name}' is taken by another cell"):
            register(other)  # of the library's functions, so no rerun of a definition
    assert CELLS["lstm"] is LSTM
    mine = replace(SIMPLE, name="mine", kernels=lambda act, gate: SIMPLE.kernels(act, gate))
    try:
        register(mine)
        again = replace(mine, reference=lambda *given: SIMPLE.reference(*given))
        assert CELLS[register(again).name] is again  # a declaration run again, as in a notebook
    finally:
        CELLS.pop("mine", None)
    with pytest.raises(
        ValueError, match=r"unknown name 'lsmt', did you mean 'lstm'.*; a cell of your own needs its mod"
    ):
        get("lsmt")
    with pytest.raises(TypeError, match="cell: expected a name"):
        get(3)
    with pytest.raises(ValueError, match="activation: unknown name 'tahn', did you mean 'tanh'"):
        SIMPLE.compiled("tahn", "sigmoid")
    with pytest.raises(ValueError, match="recurrent_activation: unknown name"):
        SIMPLE.compiled("tanh", "sigmiod")


@pytest.mark.parametrize("cell", CELLS.values(), ids=lambda c: c.name)
def test_declarations_count_right(cell):
    used = {*cell.x, *cell.h}
    assert cell.gates == len(cell.x) and cell.rows == len(used) + (cell.late is not None) + cell.keep
    assert cell.bias_rows == (2 if cell.recurrent_bias else 1 if cell.bias else 0)
    assert not cell.gate_rows or len(cell.gate_rows) == cell.gates
    assert sum(g.size for g in cell.groups) == len(used)
    rows = [r for g in cell.groups for r in range(g.first, g.first + g.size)]
    assert sorted(rows) == sorted(used)
    for g in cell.groups:
        for r in range(g.first, g.first + g.size):
            assert g.has_input == (r in cell.x) and g.has_recurrent == (r in cell.h) and g.late == (r == cell.late)


@pytest.mark.parametrize("cell", CELLS.values(), ids=lambda c: c.name)
def test_gates_are_where_the_cell_says(cell):
    """After forward a row holds what the reference got from its activation; the reference takes them in this order."""
    problem = battery.Problem.draw(cell, (3, 1, 4, 5), ("tanh", "sigmoid"), 1)
    x, parameters, state = problem.split(np.float64)
    tape = problem.recurrence(np.float64).forward(x, parameters, state, training=True, sequences=True)
    buffer = tape.held()[0][0].copy()
    found = []

    def recorded(name):
        def activation(v):
            found.append(ACTIVATION_TWINS[name](v))
            return found[-1]

        return activation

    x, kernel, recurrent, bias, w, *state = problem.arrays
    columns, (b, rb) = np.split(np.arange(kernel.shape[1]), cell.gates), (*bias, *np.zeros((2, kernel.shape[1])))[:2]
    cell.reference(
        [x[:, 0] @ kernel[:, c] + b[c] for c in columns],
        lambda u, k: u @ recurrent[:, columns[k]] + rb[columns[k]],
        state,
        recorded("tanh"),
        recorded("sigmoid"),
        *([w] if len(w) else []),
    )
    for (name, row), expected in zip(cell.gate_rows, found, strict=False):
        np.testing.assert_allclose(buffer[row], expected, rtol=1e-12, err_msg=name)
    assert [name for name, _ in cell.gate_rows] == {
        "simple": [], "lstm": [*"ifgo"], "gru": [*"zrh"], "gru_reset_before": [*"zrh"], "mgu": [*"fh"],
        "mingru": [*"zh"], "peephole_lstm": [*"ifgo"], "layer_norm_lstm": [*"ifgo"],
    }[cell.name]  # fmt: skip


# ---- what single cells promise


def everything(cell, arrays, problem, dtype):
    """Outputs, states and gradients of `problem` with another cell and other arrays."""
    r = Runner(replace(problem, cell=cell, arrays=tuple(arrays)), dtype)
    return r.everything()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_without_peepholes_it_is_an_lstm_to_the_bit(dtype):
    problem = battery.Problem.draw(LSTM, (5, 6, 3, 19), ("tanh", "sigmoid"), 2)
    plain = everything(LSTM, problem.arrays, problem, dtype)
    arrays = list(problem.arrays)
    arrays[4] = np.zeros((3, 19))
    found = everything(PEEPHOLE_LSTM, arrays, problem, dtype)
    place = -3  # the gradient of the weights per unit, before those of two states
    assert found[place].shape == (3, 19) and found[place].all()
    for a, b in zip(found[:place] + found[place + 1 :], plain[:place] + plain[place + 1 :], strict=True):
        np.testing.assert_array_equal(a, b)


def test_layer_norm_sees_neither_shift_nor_scale():
    """Of the products of a gate: a shift of all its columns changes nothing, a scale only as epsilon is not 0."""
    problem = battery.Problem.draw(LAYER_NORM_LSTM, (5, 6, 3, 19), ("tanh", "sigmoid"), 2)
    outputs, states = battery.run(problem, np.float64)
    rng = np.random.default_rng(3)
    x, kernel, recurrent, *rest = problem.arrays
    shifted = [m + np.repeat(rng.standard_normal((len(m), 4)), 19, axis=1) for m in (kernel, recurrent)]
    for got, expected in zip(
        battery.run(problem.with_arrays([x, *shifted, *rest]), np.float64)[1], states, strict=True
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-10)
    scales = np.repeat([0.5, 2, 3, 4], 19)
    scaled = battery.run(problem.with_arrays([x, kernel * scales, recurrent * scales, *rest]), np.float64)[0]
    np.testing.assert_allclose(scaled, outputs, atol=0.02)
    assert not np.allclose(scaled, outputs, atol=1e-7)
    # Each gate has its own scale: one scale for all four would leave the smallest gate nearly without input.
    other = battery.run(problem.with_arrays([x, kernel + 1, -recurrent, *rest]), np.float64)[0]
    assert np.abs(other - outputs).max() > 0.1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@np.errstate(all="ignore")
def test_a_masked_step_may_hold_anything(dtype):
    """Gates that overflow at steps a mask excludes reach no gradient, those of weights per unit included."""
    for cell in CELLS.values():
        problem = battery.Problem.draw(cell, (4, 5, 3, 6), ("linear", "sigmoid"), 4)
        mask = np.random.default_rng(5).random((4, 5)) < 0.6
        for zoneout in (None, (0.3,) * cell.states):
            path = replace(problem, path=battery.Path("holes", mask, zoneout=zoneout))
            clean, dirty = Runner(path, dtype), Runner(path, dtype)
            clean.x[~mask], dirty.x[~mask] = 0, np.finfo(dtype).max
            for r in (clean, dirty):
                r.parameters[0] *= 4
            for k, (a, b) in enumerate(zip(dirty.everything(), clean.everything(), strict=True)):
                np.testing.assert_array_equal(a, b, err_msg=f"{cell.name}, array {k}, zoneout {zoneout}")


def test_problem_has_no_constant_weights():
    problem = battery.Problem.draw(LSTM, (2, 3, 4, 5), ("tanh", "sigmoid"), 0)
    assert all(np.unique(a).size == a.size for a in problem.arrays)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": None}, "cell: name must be a string that is not empty, got None"),
        ({"name": ""}, "cell: name must be a string"),
        ({"x": None}, "x: expected a sequence, got NoneType"),
        ({"x": (0.0,)}, "x: expected an integer, got float 0.0"),
        ({"states": "1"}, "states: expected an integer, got str '1'"),
        ({"states": True}, "states: expected an integer, got True"),
        ({"keep": 1.5}, "keep: expected an integer, got float 1.5"),
        ({"forget": "f"}, "forget: expected an integer, got str 'f'"),
        ({"elementwise": "no"}, "elementwise: expected True or False, got str 'no'"),
        ({"bias": 2}, "bias: expected True or False, got int 2"),
        ({"reference": "formula"}, "kernels and reference must be functions, got .* and 'formula'"),
        ({"unit_weights": ("ab",)}, "unit_weights must be pairs of a name and a number, got 'ab'"),
        ({"gate_rows": ("a",)}, "gate_rows must be pairs of a name and a number, got 'a'"),
    ],
)
def test_declarations_of_other_types(changes, message):
    with pytest.raises(TypeError, match=message):
        replace(SIMPLE, **changes)


def test_declarations_in_numpys_types_and_lists():
    plain = replace(LSTM, name="plain")
    other = replace(
        plain, states=np.int64(2), x=list(np.arange(4)), h=range(4), elementwise=np.bool_(True), bias=np.bool_(True),
        gate_rows=[[name, np.int8(row)] for name, row in LSTM.gate_rows], forget=np.int32(1),
    )  # fmt: skip
    assert other == plain
    assert hash(other) == hash(plain)


def test_declarations_that_say_too_much_or_too_little():
    with pytest.raises(ValueError, match="gate_rows name each gate once"):
        replace(SIMPLE, gate_rows=(("g", 0), ("g", 0)))
    with pytest.raises(ValueError, match="kernels must return 2 functions, got <function"):
        replace(SIMPLE, kernels=lambda act, gate: lambda z: None)
    for other in ("gru", None):
        with pytest.raises(TypeError, match="cell: expected a Cell, got"):
            register(other)


def test_kernels_that_leave_their_arrays_are_found_in_plain_python():
    """Compiled they would end the process."""

    def kernels(act, gate):
        _, backward = SIMPLE.kernels(act, gate)

        def forward(z, prev, new, w, at):
            for j in range(at.lo, at.hi):
                new[1, j] = z[0, j]

        return forward, backward

    with pytest.raises(AssertionError, match=r"cell 'beyond': forward in plain Python: index 1 is out of bounds"):
        check_cell(replace(SIMPLE, name="beyond", kernels=kernels))


@pytest.mark.parametrize("given", ["tanh", [], [("tanh", "nope")], [("tanh",)]])
def test_activations_to_check_a_cell_with(given):
    with pytest.raises((ValueError, TypeError), match="activations: "):
        check_cell("simple", activations=given)


def test_a_cell_without_a_reference_cannot_be_checked():
    with pytest.raises(ValueError, match="cell: 'simple' has no reference"):
        check_cell(replace(SIMPLE, reference=None))
