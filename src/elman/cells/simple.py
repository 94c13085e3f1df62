"""The Elman cell: ``h = act(x W + b + h' R)``.

J. L. Elman, Finding structure in time, Cognitive Science 14 (1990).
"""

from elman.cells.spec import Cell, register
from elman.kernels.pointwise import activate, derivative


def _kernels(act, gate):
    def forward(z, prev, new, w, at):
        for j in range(at.lo, at.hi):
            new[0, j] = activate(act, z[0, j])

    def backward(z, prev, new, dnew, dprev, w, dw, at):
        for j in range(at.lo, at.hi):
            z[0, j] = dnew[0, j] * derivative(act, new[0, j])
            dprev[0, j] = 0

    return forward, backward


def _reference(x, r, state, act, gate):
    (h,) = state
    return (act(x[0] + r(h, 0)),)


SIMPLE = register(Cell("simple", states=1, x=(0,), h=(0,), kernels=_kernels, reference=_reference, elementwise=True))
"""Elman cell; one gate, one state."""
