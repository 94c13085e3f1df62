"""Long short-term memory: ``c = f c' + i act(zg)``, ``h = o act(c)``; gates in the order i, f, g, o.

S. Hochreiter, J. Schmidhuber, Long short-term memory, Neural Computation 9 (1997); forget gate: F. Gers et al. (2000).
"""

from elman.cells.spec import Cell, register
from elman.kernels.pointwise import activate, derivative


def _kernels(act, gate):
    def forward(z, prev, new, w, at):
        for j in range(at.lo, at.hi):
            i = activate(gate, z[0, j])
            f = activate(gate, z[1, j])
            g = activate(act, z[2, j])
            o = activate(gate, z[3, j])
            c = f * prev[1, j] + i * g
            new[1, j] = c
            z[0, j] = i
            z[1, j] = f
            z[2, j] = g
            z[3, j] = o
        # In a loop of its own, as in the one above all else would wait for c: 1.40 ns per unit, 1.46 in one.
        for j in range(at.lo, at.hi):
            new[0, j] = z[3, j] * activate(act, new[1, j])

    def backward(z, prev, new, dnew, dprev, w, dw, at):
        for j in range(at.lo, at.hi):
            i, f, g, o = z[0, j], z[1, j], z[2, j], z[3, j]
            # act(c) again: 0.2 ns to compute, 4 bytes per unit and step to keep.
            a = activate(act, new[1, j])
            dh = dnew[0, j]
            dc = dnew[1, j] + dh * o * derivative(act, a)  # h = o act(c)
            z[3, j] = dh * a * derivative(gate, o)
            z[2, j] = dc * i * derivative(act, g)  # c = f c' + i g
            z[1, j] = dc * prev[1, j] * derivative(gate, f)
            z[0, j] = dc * g * derivative(gate, i)
            dprev[1, j] = dc * f
            dprev[0, j] = 0

    return forward, backward


def _reference(x, r, state, act, gate):
    h, c = state
    i, f, g, o = (a(x[k] + r(h, k)) for k, a in enumerate((gate, gate, act, gate)))
    c = f * c + i * g
    return o * act(c), c


LSTM = register(
    Cell(
        "lstm",
        states=2,
        x=(0, 1, 2, 3),
        h=(0, 1, 2, 3),
        kernels=_kernels,
        reference=_reference,
        elementwise=True,
        forget=1,
        gate_rows=(("i", 0), ("f", 1), ("g", 2), ("o", 3)),
    )
)
"""LSTM cell; four gates i, f, g, o and two states h, c."""
