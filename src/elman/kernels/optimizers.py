"""Updates of one flat vector of parameters, the one driver that runs them, and gradient clipping.

An update is one function by address, ``update(p, g, slots, hyper, lo, hi)``: parameters, gradients, the state vectors
as the rows of `slots`, and the numbers of this step. ``hyper[0]`` is weight decay times learning rate and belongs to
the driver; the update finds its own numbers, named in the first line of each, from ``hyper[1]`` on.

Chunks have a fixed size and are computed entirely by functions reached by address, so the bits are the same for any
number of threads.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from elman.jit import Entry, Function, invoke, matrix, prange, types, vector

CHUNK = 16384
"""Parameters per chunk."""


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


@Entry
def step(update, decay, p, g, slots, hyper):
    """Weight decay, where there is any, and the update of all parameters, in place."""
    for c in prange((p.size + CHUNK - 1) // CHUNK):
        begin = np.int64(c) * CHUNK
        lo, hi = np.uint64(begin), np.uint64(min(begin + CHUNK, p.size))
        if hyper[0] != 0:
            invoke(decay, p, g, slots, hyper, lo, hi)
        invoke(update, p, g, slots, hyper, lo, hi)


@Entry
def clip_norms(g, offsets, limit):
    """Scale each piece of g between two offsets so that its norm is at most `limit`; leave it if the norm is no number.

    The squares are summed in float64, so a norm of float32 values never overflows.
    """
    for i in range(offsets.size - 1):
        lo, hi = np.uint64(offsets[i]), np.uint64(offsets[i + 1])
        total = 0.0
        for k in range(lo, hi):
            x = np.float64(g[k])
            total += x * x
        norm = np.sqrt(total)
        if norm > limit and norm < np.inf:
            factor = g.dtype.type(limit / norm)
            for k in range(lo, hi):
                g[k] *= factor


@Entry
def clip_values(g, limit):
    """Hold every value of g in [-limit, limit]; NaN stays NaN."""
    high = g.dtype.type(limit)
    for k in range(g.size):
        x = high if g[k] > high else g[k]
        g[k] = -high if x < -high else x
