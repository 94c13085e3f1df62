"""Every registered cell through the public battery, and declarations that cannot work."""

from dataclasses import replace

import numpy as np
import pytest

from elman.cells import CELLS, GRU_RESET_BEFORE, LSTM, SIMPLE, Cell, get, register
from elman.kernels.pointwise import ACTIVATIONS
from elman.testing import cells as battery
from elman.testing import check_cell
from elman.testing.twins import ACTIVATION_TWINS

OTHERS = ("relu", "sigmoid", "hard_sigmoid", "linear", "softsign", "elu")
# Each on both slots, never the same one on both, so that swapped slots show.
PAIRS = [*zip(OTHERS, (*OTHERS[1:], OTHERS[0]), strict=True)]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("seed", range(3))
def test_the_battery(cell, seed):
    check_cell(cell, seed=seed)


@pytest.mark.parametrize("cell", CELLS)
def test_other_activations(cell):
    check_cell(cell, activations=PAIRS)


def test_every_activation_has_a_twin():
    assert set(ACTIVATION_TWINS) == set(ACTIVATIONS)


# ---- the battery sees what it must see: cells wrong on purpose


def broken(cell, *, backward=None, forward=None, name="broken"):
    def kernels(act, gate):
        right = cell.kernels(act, gate)
        return (forward or right[0], backward(*right) if backward else right[1], *right[2:])

    return replace(cell, name=name, kernels=kernels)


def test_a_wrong_value_is_caught():
    def forward(z, prev, new, lo, hi):
        for j in range(lo, hi):
            new[0, j] = z[0, j]

    with pytest.raises(AssertionError, match=r"cell 'broken' \(tanh/sigmoid\), B=1 T=1 I=1 H=1, float64, outputs: got"):
        check_cell(broken(SIMPLE, forward=forward))


def test_a_gradient_of_zero_is_caught():
    def backward(forward, right):
        def wrong(z, prev, new, dnew, dprev, lo, hi):
            for j in range(lo, hi):
                z[0, j] = 0
                dprev[0, j] = 0

        return wrong

    with pytest.raises(AssertionError, match=r"gradient of all outputs: the gradient gives .* central differences"):
        check_cell(broken(SIMPLE, backward=backward))


def linear_cell(name, forward):
    """h = x W + b + h' R, with a forward kernel that should compute it."""

    def backward(z, prev, new, dnew, dprev, lo, hi):
        for j in range(lo, hi):
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
    def forward(z, prev, new, lo, hi):
        for j in range(lo, hi):
            new[0, j] = z[0, j]

    check_cell(linear_cell("linear", forward))


def test_a_swallowed_nan_is_caught():
    def forward(z, prev, new, lo, hi):
        for j in range(lo, hi):
            new[0, j] = z[0, j] if z[0, j] == z[0, j] else 0

    with pytest.raises(AssertionError, match=r"NaN in sequence 1 at step 2 is lost"):
        check_cell(linear_cell("swallow", forward))


def test_a_unit_that_looks_at_its_neighbour_is_caught():
    """The neighbour may belong to another sequence, which a second thread computes at the same time.

    0 times it shows only where it is NaN: on purpose in one check, by chance in others.
    """

    def forward(z, prev, new, lo, hi):
        zero = prev.dtype.type(0)
        for j in range(lo, hi):
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
        ({"states": 0}, "states must be at least 1, got 0"),
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
    with pytest.raises(ValueError, match="cell: unknown name 'lsmt', did you mean 'lstm'"):
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
    assert cell.gates == len(cell.x) and cell.rows == len(used) + (cell.late is not None)
    assert sum(g.count for g in cell.groups) == len(used)
    rows = [r for g in cell.groups for r in range(g.first, g.first + g.count)]
    assert sorted(rows) == sorted(used)
    for g in cell.groups:
        for r in range(g.first, g.first + g.count):
            assert g.has_input == (r in cell.x) and g.has_recurrent == (r in cell.h) and g.late == (r == cell.late)


def test_problem_has_no_constant_weights():
    problem = battery.Problem.draw(LSTM, (2, 3, 4, 5), ("tanh", "sigmoid"), 0)
    assert all(np.unique(a).size == a.size for a in problem.arrays)
