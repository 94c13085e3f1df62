"""Layer-normalised LSTM; gates in the order i, f, g, o.

J. L. Ba, J. R. Kiros, G. E. Hinton, Layer normalization (2016), equations 20 to 22. With ``N(v) = (v - mean) /
sqrt(variance + 1e-5)`` over the H units of a sequence and weights per unit gamma and beta, each gate k has

``a_k = gamma_x_k N(x W_k) + gamma_h_k N(h' R_k) + beta_k``,

then ``c = f c' + i g`` and ``h = o act(gamma_c N(c) + beta_c)``. The paper's two shifts and its bias only occur as one
sum, which is beta; a bias before N would change nothing. The paper normalises the 4H products of all gates together;
here each gate has its own mean and variance, so that the spread of one gate does not depend on another's. The epsilon
is this library's. beta_f begins at 1, as the bias of a forget gate does.
"""

import numpy as np

from elman.cells.spec import Cell, register
from elman.jit import force_inlined, helper
from elman.kernels.pointwise import activate, derivative

EPSILON = 1e-5

# Rows of the buffer: 0 to 3 x W, 4 to 7 h' R, 8 to 11 the gates. Means and variances are computed again in the way
# back: one pass over what the first-level cache holds. Products are 0 in the padding, and stay so.
#
# Sums run over the units of one sequence alone, always from its first one on: compiled to reorder them (`helper`), a
# row still has the same bits wherever it lies.


@helper
def _sum(a, k, lo, hi):
    total = a[k, lo]
    for j in range(lo + np.uint64(1), hi):
        total += a[k, j]
    return total


@helper
def _squares(a, k, mean, lo, hi):
    total = mean - mean
    for j in range(lo, hi):
        total += (a[k, j] - mean) * (a[k, j] - mean)
    return total


@helper
def _products(a, k, mean, e, w, m, lo, hi):
    """Sums over a row of g and ``g (a[k] - mean)``, where ``g = w[m] a[e]``."""
    first = second = mean - mean
    for j in range(lo, hi):
        g = w[m, j] * a[e, j]
        first += g
        second += g * (a[k, j] - mean)
    return first, second


def _moments(a, k, lo, hi):
    """Mean of a row and ``r = 1 / sqrt(variance + epsilon)``, in its type; NaN, not 0, where the variance overflows."""
    kind = a.dtype.type
    size = kind(hi - lo)
    mean = _sum(a, k, lo, hi) / size
    variance = _squares(a, k, mean, lo, hi) / size + kind(EPSILON)
    return mean, kind(1) / np.sqrt(variance) + (variance - variance)


def _through_norm(a, k, e, w, dw, m, lo, hi):
    """Replace ``a[k]`` by its gradient, where ``a[e]`` is that of ``w[m] N(a[k])``; add that of w[m].

    With two arrays in place of one the loop does not vectorise: 1.06 ns per unit, not 0.40.
    """
    mean, r = _moments(a, k, lo, hi)
    first, second = _products(a, k, mean, e, w, m, lo, hi)
    size = w.dtype.type(hi - lo)
    first, second = first / size, second * r / size
    for j in range(lo, hi):
        n, g = (a[k, j] - mean) * r, a[e, j]
        dw[m, j] += g * n
        a[k, j] = r * (w[m, j] * g - first - n * second)


_moments, _through_norm = force_inlined(_moments), force_inlined(_through_norm)


def _kernels(act, gate):
    def forward(z, prev, new, w, at):
        for lo in range(at.lo, at.hi, at.padded):
            hi = lo + at.units
            for k in range(4):
                mx, rx = _moments(z, k, lo, hi)
                mh, rh = _moments(z, 4 + k, lo, hi)
                for j in range(lo, hi):
                    x, h = (z[k, j] - mx) * rx, (z[4 + k, j] - mh) * rh
                    z[8 + k, j] = w[k, j] * x + w[4 + k, j] * h + w[8 + k, j]
            for j in range(lo, hi):
                i = activate(gate, z[8, j])
                f = activate(gate, z[9, j])
                g = activate(act, z[10, j])
                new[1, j] = f * prev[1, j] + i * g
                z[8, j] = i
                z[9, j] = f
                z[10, j] = g
                z[11, j] = activate(gate, z[11, j])
            mc, rc = _moments(new, 1, lo, hi)
            for j in range(lo, hi):
                new[0, j] = z[11, j] * activate(act, w[12, j] * ((new[1, j] - mc) * rc) + w[13, j])
            for j in range(hi, lo + at.padded):
                new[0, j] = 0
                new[1, j] = 0

    def backward(z, prev, new, dnew, dprev, w, dw, at):
        for lo in range(at.lo, at.hi, at.padded):
            hi = lo + at.units
            mc, rc = _moments(new, 1, lo, hi)
            for j in range(lo, hi):
                a = activate(act, w[12, j] * ((new[1, j] - mc) * rc) + w[13, j])
                dh, o = dnew[0, j], z[11, j]
                dq = dh * o * derivative(act, a)  # h = o act(q), q = gamma_c N(c) + beta_c
                z[11, j] = dh * a * derivative(gate, o)
                dw[13, j] += dq
                dprev[0, j] = dq
                dprev[1, j] = new[1, j]
            _through_norm(dprev, 1, 0, w, dw, 12, lo, hi)
            for j in range(lo, hi):
                i, f, g = z[8, j], z[9, j], z[10, j]
                dc = dnew[1, j] + dprev[1, j]
                z[10, j] = dc * i * derivative(act, g)  # c = f c' + i g
                z[9, j] = dc * prev[1, j] * derivative(gate, f)
                z[8, j] = dc * g * derivative(gate, i)
                dprev[1, j] = dc * f
                dprev[0, j] = 0
            for k in range(4):
                for j in range(lo, hi):
                    dw[8 + k, j] += z[8 + k, j]
                _through_norm(z, k, 8 + k, w, dw, k, lo, hi)
                _through_norm(z, 4 + k, 8 + k, w, dw, 4 + k, lo, hi)

    return forward, backward


def _reference(x, r, state, act, gate, w):
    h, c = state

    def normal(v):
        v = v - v.mean(axis=-1, keepdims=True)
        return v / np.sqrt((v * v).mean(axis=-1, keepdims=True) + EPSILON)

    i, f, g, o = (
        a(w[k] * normal(x[k]) + w[4 + k] * normal(r(h, k)) + w[8 + k]) for k, a in enumerate((gate, gate, act, gate))
    )
    c = f * c + i * g
    return o * act(w[12] * normal(c) + w[13]), c


LAYER_NORM_LSTM = register(
    Cell(
        "layer_norm_lstm",
        states=2,
        x=(0, 1, 2, 3),
        h=(4, 5, 6, 7),
        kernels=_kernels,
        reference=_reference,
        bias=False,
        keep=4,
        unit_weights=(
            *((f"gamma_x_{gate}", 1.0) for gate in "ifgo"),
            *((f"gamma_h_{gate}", 1.0) for gate in "ifgo"),
            *((f"beta_{gate}", float(gate == "f")) for gate in "ifgo"),
            ("gamma_c", 1.0),
            ("beta_c", 0.0),
        ),
        gate_rows=(("i", 8), ("f", 9), ("g", 10), ("o", 11)),
    )
)
"""LSTM cell with layer normalisation; four gates i, f, g, o, two states h, c, no bias, 14 weights per unit."""
