"""LSTM with peepholes: gates that see the cell state, each unit its own; gates in the order i, f, g, o.

F. Gers, J. Schmidhuber, Recurrent nets that time and count (2000); F. Gers, N. Schraudolph, J. Schmidhuber, Learning
precise timing with LSTM recurrent networks (2002), equations 2.3 to 2.8: i and f see c before the step, o sees c after
it, with weights per unit p:

``i = gate(zi + p_i c')``, ``f = gate(zf + p_f c')``, ``c = f c' + i act(zg)``,
``o = gate(zo + p_o c)``, ``h = o act(c)``.
"""

from elman.cells.spec import Cell, register
from elman.kernels.pointwise import activate, derivative


def _kernels(act, gate):
    def forward(z, prev, new, w, at):
        for j in range(at.lo, at.hi):
            i = activate(gate, z[0, j] + w[0, j] * prev[1, j])
            f = activate(gate, z[1, j] + w[1, j] * prev[1, j])
            g = activate(act, z[2, j])
            c = f * prev[1, j] + i * g
            o = activate(gate, z[3, j] + w[2, j] * c)
            new[1, j] = c
            new[0, j] = o * activate(act, c)
            z[0, j] = i
            z[1, j] = f
            z[2, j] = g
            z[3, j] = o

    def backward(z, prev, new, dnew, dprev, w, dw, at):
        for j in range(at.lo, at.hi):
            i, f, g, o = z[0, j], z[1, j], z[2, j], z[3, j]
            c, p = new[1, j], prev[1, j]
            a = activate(act, c)
            dh = dnew[0, j]
            do = dh * a * derivative(gate, o)  # h = o act(c)
            dc = dnew[1, j] + dh * o * derivative(act, a) + do * w[2, j]  # o = gate(zo + p_o c)
            df = dc * p * derivative(gate, f)  # c = f c' + i g
            di = dc * g * derivative(gate, i)
            z[3, j] = do
            z[2, j] = dc * i * derivative(act, g)
            z[1, j] = df
            z[0, j] = di
            dw[2, j] += do * c
            dw[1, j] += df * p
            dw[0, j] += di * p
            dprev[1, j] = dc * f + df * w[1, j] + di * w[0, j]
            dprev[0, j] = 0

    return forward, backward


def _reference(x, r, state, act, gate, w):
    h, c = state
    i, f = (gate(x[k] + r(h, k) + w[k] * c) for k in (0, 1))
    c = f * c + i * act(x[2] + r(h, 2))
    return gate(x[3] + r(h, 3) + w[2] * c) * act(c), c


PEEPHOLE_LSTM = register(
    Cell(
        "peephole_lstm",
        states=2,
        x=(0, 1, 2, 3),
        h=(0, 1, 2, 3),
        kernels=_kernels,
        reference=_reference,
        elementwise=True,
        forget=1,
        unit_weights=(("peephole_i", 0.0), ("peephole_f", 0.0), ("peephole_o", 0.0)),
        gate_rows=(("i", 0), ("f", 1), ("g", 2), ("o", 3)),
    )
)
"""LSTM cell whose gates see c; four gates i, f, g, o, two states h, c, three weights per unit."""
