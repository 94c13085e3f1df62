"""Minimal gated unit: ``h = (1 - f) h' + f n``; gates in the order f, n (candidate).

G.-B. Zhou, J. Wu, C.-L. Zhang, Z.-H. Zhou, Minimal gated unit for recurrent neural networks (2016): the gated recurrent
unit with one gate for both purposes, ``n = act(x_n + (f h') R_n)``.
"""

from elman.cells.spec import Cell, register
from elman.kernels.pointwise import activate, derivative

# Rows of the buffer: 0 f, 1 n, 2 f h' (the operand of n's recurrent product), 3 in the way back what n's half knows of
# the gradient of f. The operand stays as it is, perhaps dropped: the gradient of R_n needs it.


def _kernels(act, gate):
    def forward(z, prev, new, w, at):
        for j in range(at.lo, at.hi):
            f = activate(gate, z[0, j])
            z[0, j] = f
            z[2, j] = f * prev[0, j]

    def backward(z, prev, new, dnew, dprev, w, dw, at):
        for j in range(at.lo, at.hi):
            f, dm = z[0, j], dnew[0, j]  # dm: gradient of the operand m = f h'
            z[0, j] = (z[3, j] + dm * prev[0, j]) * derivative(gate, f)
            dprev[0, j] += dm * f

    def late_forward(z, prev, new, w, at):
        for j in range(at.lo, at.hi):
            n = activate(act, z[1, j])
            new[0, j] = prev[0, j] + z[0, j] * (n - prev[0, j])
            z[1, j] = n

    def late_backward(z, prev, new, dnew, dprev, w, dw, at):
        for j in range(at.lo, at.hi):
            n, f, dh = z[1, j], z[0, j], dnew[0, j]
            z[1, j] = dh * f * derivative(act, n)  # h = (1 - f) h' + f n
            z[3, j] = dh * (n - prev[0, j])
            dprev[0, j] = dh - dh * f

    return forward, backward, late_forward, late_backward


def _reference(x, r, state, act, gate):
    (h,) = state
    f = gate(x[0] + r(h, 0))
    return ((1 - f) * h + f * act(x[1] + r(f * h, 1)),)


MGU = register(
    Cell(
        "mgu",
        states=1,
        x=(0, 1),
        h=(0, 1),
        kernels=_kernels,
        reference=_reference,
        elementwise=True,
        late=1,
        operand=2,
        keep=1,
        gate_rows=(("f", 0), ("h", 1)),
    )
)
"""Minimal gated unit; two gates f, n, one state; bias (2H,)."""
