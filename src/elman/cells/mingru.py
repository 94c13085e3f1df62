"""Minimal GRU: ``h = (1 - z) h' + z n``; gates in the order z, n (candidate), neither of which sees h'.

L. Feng et al., Were RNNs all we needed? (2024), section 3.1: ``z = gate(x_z)``, ``n = act(x_n)``. The paper's candidate
is linear: ``activation="linear"``. There is no recurrent kernel.
"""

from elman.cells.spec import Cell, register
from elman.kernels.pointwise import activate, derivative


def _kernels(act, gate):
    def forward(z, prev, new, w, at):
        for j in range(at.lo, at.hi):
            u = activate(gate, z[0, j])
            n = activate(act, z[1, j])
            new[0, j] = prev[0, j] + u * (n - prev[0, j])
            z[0, j] = u
            z[1, j] = n

    def backward(z, prev, new, dnew, dprev, w, dw, at):
        for j in range(at.lo, at.hi):
            u, n, dh = z[0, j], z[1, j], dnew[0, j]
            z[0, j] = dh * (n - prev[0, j]) * derivative(gate, u)  # h = (1 - u) h' + u n
            z[1, j] = dh * u * derivative(act, n)
            dprev[0, j] = dh - dh * u

    return forward, backward


def _reference(x, r, state, act, gate):
    (h,) = state
    z = gate(x[0])
    return ((1 - z) * h + z * act(x[1]),)


MINGRU = register(
    Cell(
        "mingru",
        states=1,
        x=(0, 1),
        h=(),
        kernels=_kernels,
        reference=_reference,
        elementwise=True,
        gate_rows=(("z", 0), ("h", 1)),
    )
)
"""Minimal GRU; two gates z, n, one state, no recurrent kernel; bias (2H,)."""
