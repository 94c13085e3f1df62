"""Updates of one flat vector of parameters, the one driver that runs them, the guard, and gradient clipping.

An update is one function by address, ``update(p, g, slots, hyper, lo, hi)``: parameters, gradients, the state vectors
as the rows of `slots`, and the numbers of this step. ``hyper[0]`` is weight decay times learning rate and belongs to
the driver; the update finds its own numbers, named in the first line of each, from ``hyper[1]`` on. The functions for
`each` have the same signature and find theirs from ``hyper[0]`` on.

`chunks` are the pieces of the vector that are worked on, rows of (begin, end): frozen tensors are in none of them.
Chunks have a fixed size and are computed entirely by functions reached by address, so the bits are the same for any
number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from elman.jit import Entry, Function, helper, invoke, matrix, prange, types, vector

CHUNK = 16384
"""Most parameters in a chunk."""


class Layout(NamedTuple):
    """Where the kernels work on a vector, and their scratch.

    Attributes
    ----------
    runs : list of (begin, end)
        The trainable parts, longest possible.
    chunks : ndarray of int64, (chunks, 2)
        The runs, cut.
    bad : ndarray of int64, (chunks,)
    pieces : ndarray of int64, (pieces, 2)
        What norms are taken over: tensors, or the runs where there is one norm for all.
    groups : ndarray of int64
        Where the pieces of each norm begin, and the end.
    norms : ndarray of float64
    """

    runs: list[tuple[int, int]]
    chunks: np.ndarray
    bad: np.ndarray
    pieces: np.ndarray
    groups: np.ndarray
    norms: np.ndarray


def layout(tensors: list[tuple[int, int]], per_tensor: bool) -> Layout:
    """The layout for the trainable tensors, in ascending order, with a norm for each or one for all."""
    runs: list[tuple[int, int]] = []
    for begin, end in tensors:
        if runs and runs[-1][1] == begin:
            begin = runs.pop()[0]
        runs.append((begin, end))
    cuts = [(k, min(k + CHUNK, end)) for begin, end in runs for k in range(begin, end, CHUNK)]
    chunks, pieces = (np.array(p, np.int64).reshape(-1, 2) for p in (cuts, tensors if per_tensor else runs))
    groups = np.arange(len(pieces) + 1) if per_tensor else np.array([0, len(pieces)])
    return Layout(runs, chunks, np.empty(len(cuts), np.int64), pieces, groups, np.empty(groups.size - 1))


LARGEST = {4: 2.0**54, 8: 2.0**502}
"""By bytes of the float type: gradients from here on are refused by what keeps squares of them. The sum of a million
squares would overflow: an infinite one ends all learning in silence, or makes parameters NaN."""

# Below it, in float32, no square of a sum can come from a value beyond LARGEST.
_SAFE = 2.0**107


def update_function(python: Callable[..., None]) -> Function:
    """Make an update reachable by address."""
    return Function(
        python, lambda dtype: (*(vector(dtype),) * 2, matrix(dtype), vector(dtype), types.uint64, types.uint64)
    )


@update_function
def decay(p, g, slots, hyper, lo, hi):
    """p -= rate p."""
    rate = hyper[0]
    for k in range(lo, hi):
        p[k] -= rate * p[k]


@update_function
def sgd(p, g, slots, hyper, lo, hi):
    """p -= lr g."""
    lr = hyper[1]
    for k in range(lo, hi):
        p[k] -= lr * g[k]


@update_function
def sgd_momentum(p, g, slots, hyper, lo, hi):
    """m = mu m - lr g; p += m."""
    lr, mu, m = hyper[1], hyper[2], slots[0]
    for k in range(lo, hi):
        m[k] = mu * m[k] - lr * g[k]
        p[k] += m[k]


@update_function
def sgd_nesterov(p, g, slots, hyper, lo, hi):
    """m = mu m - lr g; p += mu m - lr g."""
    lr, mu, m = hyper[1], hyper[2], slots[0]
    for k in range(lo, hi):
        step = lr * g[k]
        m[k] = mu * m[k] - step
        p[k] += mu * m[k] - step


@update_function
def adam(p, g, slots, hyper, lo, hi):
    """m += a (g - m); v += b (g^2 - v); p -= alpha m / (sqrt(v) + epsilon)."""
    alpha, a, b, epsilon, m, v = hyper[1], hyper[2], hyper[3], hyper[4], slots[0], slots[1]
    for k in range(lo, hi):
        m[k] += a * (g[k] - m[k])
        v[k] += b * (g[k] * g[k] - v[k])
        p[k] -= alpha * m[k] / (np.sqrt(v[k]) + epsilon)


@update_function
def adam_amsgrad(p, g, slots, hyper, lo, hi):
    """As `adam` with the greatest v so far, h, in place of v."""
    alpha, a, b, epsilon, m, v, h = hyper[1], hyper[2], hyper[3], hyper[4], slots[0], slots[1], slots[2]
    for k in range(lo, hi):
        m[k] += a * (g[k] - m[k])
        v[k] += b * (g[k] * g[k] - v[k])
        h[k] = h[k] if h[k] >= v[k] else v[k]
        p[k] -= alpha * m[k] / (np.sqrt(h[k]) + epsilon)


@update_function
def nadam(p, g, slots, hyper, lo, hi):
    """m += a (g - m); v += b (g^2 - v); p -= (x m + y g) / (sqrt(z v) + epsilon)."""
    x, y, z, a, b, epsilon = hyper[1], hyper[2], hyper[3], hyper[4], hyper[5], hyper[6]
    m, v = slots[0], slots[1]
    for k in range(lo, hi):
        m[k] += a * (g[k] - m[k])
        v[k] += b * (g[k] * g[k] - v[k])
        p[k] -= (x * m[k] + y * g[k]) / (np.sqrt(z * v[k]) + epsilon)


@update_function
def adamax(p, g, slots, hyper, lo, hi):
    """m += a (g - m); u = max(beta_2 u, |g|); p -= alpha m / (u + epsilon)."""
    alpha, a, beta_2, epsilon, m, u = hyper[1], hyper[2], hyper[3], hyper[4], slots[0], slots[1]
    for k in range(lo, hi):
        m[k] += a * (g[k] - m[k])
        faded, size = beta_2 * u[k], np.abs(g[k])
        u[k] = faded if faded >= size else size
        p[k] -= alpha * m[k] / (u[k] + epsilon)


@update_function
def adagrad(p, g, slots, hyper, lo, hi):
    """v += g^2; p -= lr g / sqrt(v + epsilon)."""
    lr, epsilon, v = hyper[1], hyper[2], slots[0]
    for k in range(lo, hi):
        v[k] += g[k] * g[k]
        p[k] -= lr * g[k] / np.sqrt(v[k] + epsilon)


@update_function
def adadelta(p, g, slots, hyper, lo, hi):
    """v += a (g^2 - v); d = g sqrt(s + epsilon) / sqrt(v + epsilon); s += a (d^2 - s); p -= lr d."""
    lr, a, epsilon, v, s = hyper[1], hyper[2], hyper[3], slots[0], slots[1]
    for k in range(lo, hi):
        v[k] += a * (g[k] * g[k] - v[k])
        d = g[k] * np.sqrt(s[k] + epsilon) / np.sqrt(v[k] + epsilon)
        s[k] += a * (d * d - s[k])
        p[k] -= lr * d


@update_function
def lion(p, g, slots, hyper, lo, hi):
    """p -= lr sign(beta_1 m + a g); m += b (g - m). The sign of NaN is NaN."""
    lr, beta_1, a, b, m = hyper[1], hyper[2], hyper[3], hyper[4], slots[0]
    zero, one = hyper.dtype.type(0), hyper.dtype.type(1)
    for k in range(lo, hi):
        c = beta_1 * m[k] + a * g[k]
        sign = one if c > zero else c
        sign = -one if c < zero else sign
        m[k] += b * (g[k] - m[k])
        p[k] -= lr * sign


@update_function
def rmsprop(p, g, slots, hyper, lo, hi):
    """v += a (g^2 - v); p -= lr g / sqrt(v + epsilon)."""
    lr, a, epsilon, v = hyper[1], hyper[2], hyper[3], slots[0]
    for k in range(lo, hi):
        v[k] += a * (g[k] * g[k] - v[k])
        p[k] -= lr * g[k] / np.sqrt(v[k] + epsilon)


@update_function
def rmsprop_momentum(p, g, slots, hyper, lo, hi):
    """As `rmsprop`, but the step s = lr g / sqrt(v + epsilon) goes through m = mu m + s; p -= m."""
    lr, a, epsilon, mu, v, m = hyper[1], hyper[2], hyper[3], hyper[4], slots[0], slots[1]
    for k in range(lo, hi):
        v[k] += a * (g[k] * g[k] - v[k])
        m[k] = mu * m[k] + lr * g[k] / np.sqrt(v[k] + epsilon)
        p[k] -= m[k]


@update_function
def rmsprop_centered(p, g, slots, hyper, lo, hi):
    """As `rmsprop` with the variance v - c^2, c += a (g - c). Where rounding makes it negative it is 0, not NaN."""
    lr, a, epsilon, v, c = hyper[1], hyper[2], hyper[3], slots[0], slots[1]
    zero = hyper.dtype.type(0)
    for k in range(lo, hi):
        v[k] += a * (g[k] * g[k] - v[k])
        c[k] += a * (g[k] - c[k])
        variance = v[k] - c[k] * c[k]
        variance = zero if variance < zero else variance
        p[k] -= lr * g[k] / np.sqrt(variance + epsilon)


@update_function
def rmsprop_centered_momentum(p, g, slots, hyper, lo, hi):
    """`rmsprop_centered` and `rmsprop_momentum` together."""
    lr, a, epsilon, mu, v, c, m = hyper[1], hyper[2], hyper[3], hyper[4], slots[0], slots[1], slots[2]
    zero = hyper.dtype.type(0)
    for k in range(lo, hi):
        v[k] += a * (g[k] * g[k] - v[k])
        c[k] += a * (g[k] - c[k])
        variance = v[k] - c[k] * c[k]
        variance = zero if variance < zero else variance
        m[k] = mu * m[k] + lr * g[k] / np.sqrt(variance + epsilon)
        p[k] -= m[k]


@update_function
def collect(p, g, slots, hyper, lo, hi):
    """g += p, for gradients g and their accumulator p."""
    for k in range(lo, hi):
        g[k] += p[k]


@update_function
def keep(p, g, slots, hyper, lo, hi):
    """p = g, for a sum of gradients g and their accumulator p."""
    for k in range(lo, hi):
        p[k] = g[k]


@update_function
def release(p, g, slots, hyper, lo, hi):
    """g /= n; p = 0, for a sum of n gradients g and their accumulator p."""
    n, zero = hyper[0], hyper.dtype.type(0)
    for k in range(lo, hi):
        g[k] /= n
        p[k] = zero


@update_function
def average(p, g, slots, hyper, lo, hi):
    """g = mu g + rest p, for averages g of the parameters p."""
    mu, rest = hyper[0], hyper[1]
    for k in range(lo, hi):
        g[k] = mu * g[k] + rest * p[k]


@helper
def _bad(g, lo, hi, most):
    """How many of the values from lo to hi are NaN, or not smaller than `most` in size.

    A sum of squares is far below overflow only if every term is; where it is not, the values are looked at one by one.
    """
    total = g.dtype.type(0)
    for k in range(lo, hi):
        total += g[k] * g[k]
    count = 0
    if not total < g.dtype.type(_SAFE):
        for k in range(lo, hi):
            count += 0 if np.abs(g[k]) < most else 1
    return count


@helper
def _bad_pieces(g, pieces, first, last):
    """How many of the values in the pieces from first to last are NaN or infinite."""
    count = 0
    for j in range(first, last):
        count += _bad(g, np.uint64(pieces[j, 0]), np.uint64(pieces[j, 1]), np.inf)
    return count


@Entry
def step(update, decay, p, g, slots, hyper, chunks, bad, most):
    """Weight decay, where there is any, and the update, in place; False and nothing done if a gradient is too large.

    Gradients must be smaller than `most` in size, which may be infinity; NaN never is. `bad` (chunks,) is scratch.
    """
    for c in prange(bad.size):
        bad[c] = _bad(g, np.uint64(chunks[c, 0]), np.uint64(chunks[c, 1]), most)
    count = 0
    for c in range(bad.size):
        count += bad[c]
    if count > 0:
        return False
    for c in prange(bad.size):
        lo, hi = np.uint64(chunks[c, 0]), np.uint64(chunks[c, 1])
        if hyper[0] != 0:
            invoke(decay, (p, g, slots, hyper, lo, hi))
        invoke(update, (p, g, slots, hyper, lo, hi))
    return True


@Entry
def each(function, p, g, slots, hyper, chunks):
    """One function on all chunks, in place."""
    for c in prange(chunks.shape[0]):
        invoke(function, (p, g, slots, hyper, np.uint64(chunks[c, 0]), np.uint64(chunks[c, 1])))


@Entry
def finite(g, chunks, bad):
    """False if a value in a chunk is NaN or infinite; `bad` (chunks,) is scratch."""
    for c in prange(bad.size):
        bad[c] = _bad(g, np.uint64(chunks[c, 0]), np.uint64(chunks[c, 1]), np.inf)
    count = 0
    for c in range(bad.size):
        count += bad[c]
    return count == 0


@helper
def _squares(g, pieces, first, last, scale):
    """Sum of (scale x)^2 over the pieces from first to last, in float64: that of float32 values never overflows."""
    total = 0.0
    for j in range(first, last):
        lo, hi = np.uint64(pieces[j, 0]), np.uint64(pieces[j, 1])
        for k in range(lo, hi):
            x = np.float64(g[k]) * scale
            total += x * x
    return total


@Entry
def clip_norms(g, pieces, groups, norms, limit):
    """Scale each group's values to a norm of at most `limit`; False, and g as it was, if a value is not finite.

    Group i is the pieces, rows of (begin, end), from groups[i] to groups[i + 1]. `norms` (groups,) is scratch.
    """
    for i in range(norms.size):
        norms[i] = np.sqrt(_squares(g, pieces, groups[i], groups[i + 1], 1.0))
        if not norms[i] < np.inf:
            if _bad_pieces(g, pieces, groups[i], groups[i + 1]) > 0:
                return False
            # The squares of float64 values above 1e154 overflow.
            norms[i] = np.sqrt(_squares(g, pieces, groups[i], groups[i + 1], 1e-160)) * 1e160
    for i in range(norms.size):
        if norms[i] > limit:
            factor = g.dtype.type(limit / norms[i])
            for j in range(groups[i], groups[i + 1]):
                lo, hi = np.uint64(pieces[j, 0]), np.uint64(pieces[j, 1])
                for k in range(lo, hi):
                    g[k] *= factor
    return True


@Entry
def clip_values(g, pieces, limit):
    """Hold every value of the pieces in [-limit, limit]; False, and g as it was, if one is not finite."""
    if _bad_pieces(g, pieces, 0, pieces.shape[0]) > 0:
        return False
    high = g.dtype.type(limit)
    for j in range(pieces.shape[0]):
        lo, hi = np.uint64(pieces[j, 0]), np.uint64(pieces[j, 1])
        for k in range(lo, hi):
            x = high if g[k] > high else g[k]
            g[k] = -high if x < -high else x
    return True
