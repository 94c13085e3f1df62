"""Losses with their derivatives, and the one driver that runs them.

A loss is one function by address, ``loss(y, p, options, columns, lo, hi, losses, gradient)``. All arrays are flat; the
rows ``lo`` to ``hi`` of `columns` values each are its part. It writes plain losses and plain derivatives with respect
to ``p``: an *elementwise* loss one loss per value, a *rowwise* one a single loss per row. Weights and the mean belong
to the driver.

Work is cut into chunks of a fixed number of rows; a chunk is computed entirely by functions reached by address, so the
serial and the parallel driver run the same machine code and give the same bits.

``exp(-abs(x))`` never overflows, and ``high if x > high else x`` lets NaN pass.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from elman.jit import Entry, Function, invoke, prange, types, vector
from elman.kernels.pointwise import exp, expm1, tanh

CHUNK = 16384
"""Values per chunk (rows are never split): 64 KiB of float32, a few microseconds of work."""

CLIP = 1e-7
"""Probabilities are held this far from 0 and 1 before their logarithm is taken."""


def loss_function(python: Callable[..., None]) -> Function:
    """Make a loss of float targets reachable by address."""
    return Function(python, lambda dtype: (*(vector(dtype),) * 3, *(types.uint64,) * 3, *(vector(dtype),) * 2))


def label_function(python: Callable[..., None]) -> Function:
    """Make a loss of int64 labels, one per row, reachable by address."""
    int64 = np.dtype(np.int64)
    return Function(
        python,
        lambda dtype: (vector(int64), *(vector(dtype),) * 2, *(types.uint64,) * 3, *(vector(dtype),) * 2),
    )


# ---- elementwise -----------------------------------------------------------------------------------------------


@loss_function
def squared(y, p, options, columns, lo, hi, losses, gradient):
    """e^2 with e = p - y."""
    for k in range(lo * columns, hi * columns):
        e = p[k] - y[k]
        losses[k] = e * e
        gradient[k] = e + e


@loss_function
def absolute(y, p, options, columns, lo, hi, losses, gradient):
    """|e|; derivative 0 at e = 0."""
    one = options.dtype.type(1)
    for k in range(lo * columns, hi * columns):
        e = p[k] - y[k]
        losses[k] = abs(e)
        # What is left is 0 or NaN: both are their own answer.
        gradient[k] = one if e > 0 else (-one if e < 0 else e)


@loss_function
def percentage(y, p, options, columns, lo, hi, losses, gradient):
    """100 |e| / max(|y|, CLIP); derivative 0 at e = 0."""
    low, hundred = options.dtype.type(CLIP), options.dtype.type(100)
    for k in range(lo * columns, hi * columns):
        e, size = p[k] - y[k], abs(y[k])
        slope = hundred / (low if size < low else size)
        losses[k] = slope * abs(e)
        gradient[k] = slope if e > 0 else (-slope if e < 0 else e)


@loss_function
def squared_logarithmic(y, p, options, columns, lo, hi, losses, gradient):
    """log((1 + q) / (1 + t))^2, q and t: p and y held at CLIP or more, derivative 0 below.

    The logarithm of the ratio, not the difference of two: it keeps its relative accuracy where q comes close to t.
    """
    zero, one, low = options.dtype.type(0), options.dtype.type(1), options.dtype.type(CLIP)
    for k in range(lo * columns, hi * columns):
        q = low if p[k] < low else p[k]
        t = low if y[k] < low else y[k]
        e = np.log1p((q - t) / (one + t))
        losses[k] = e * e
        gradient[k] = zero if p[k] < low else (e + e) / (one + q)


@loss_function
def pinball(y, p, options, columns, lo, hi, losses, gradient):
    """(1 - q) e where e > 0, else - q e; derivative 0 at e = 0. One q in options for all columns, or one for each."""
    one, step = options.dtype.type(1), np.uint64(options.size > 1)
    for i in range(lo, hi):
        for c in range(columns):
            k, q = i * columns + c, options[c * step]
            e = p[k] - y[k]
            losses[k] = (one - q) * e if e > 0 else -q * e
            gradient[k] = one - q if e > 0 else (-q if e < 0 else e)


@loss_function
def huber(y, p, options, columns, lo, hi, losses, gradient):
    """e^2 / 2 up to |e| = delta = options[0], then delta |e| - delta^2 / 2: c e - c^2 / 2 with c = e clipped."""
    half, delta = options.dtype.type(0.5), options[0]
    for k in range(lo * columns, hi * columns):
        e = p[k] - y[k]
        c = delta if e > delta else e
        c = -delta if c < -delta else c
        losses[k] = c * (e - half * c)
        gradient[k] = c


@loss_function
def log_cosh(y, p, options, columns, lo, hi, losses, gradient):
    """log(cosh(e)) = log1p(m^2 / (2 (m + 1))) with m = e^|e| - 1, which keeps its relative accuracy around 0.

    Beyond |e| = 20 it grows by |e| - 20 to the last bit.
    """
    zero, half, one, limit = (
        options.dtype.type(0),
        options.dtype.type(0.5),
        options.dtype.type(1),
        options.dtype.type(20),
    )
    for k in range(lo * columns, hi * columns):
        e = p[k] - y[k]
        size = abs(e)
        over = size - limit if size > limit else zero
        m = expm1(limit if size > limit else size)
        losses[k] = np.log1p(half * m * (m / (m + one))) + over
        gradient[k] = tanh(e)


@loss_function
def poisson(y, p, options, columns, lo, hi, losses, gradient):
    """Loss p - y log(p + CLIP)."""
    one, low = options.dtype.type(1), options.dtype.type(CLIP)
    for k in range(lo * columns, hi * columns):
        q = p[k] + low
        losses[k] = p[k] - y[k] * np.log(q)
        gradient[k] = one - y[k] / q


@loss_function
def hinge(y, p, options, columns, lo, hi, losses, gradient):
    """max(0, 1 - t p), t = -1 where y = 0, else y; derivative 0 at t p = 1."""
    zero, one = options.dtype.type(0), options.dtype.type(1)
    for k in range(lo * columns, hi * columns):
        t = -one if y[k] == 0 else y[k]
        m = one - t * p[k]
        m = zero if m < 0 else m
        losses[k] = m
        # As in `absolute`: what is left is 0 or NaN.
        gradient[k] = -t if m > 0 else m


@loss_function
def squared_hinge(y, p, options, columns, lo, hi, losses, gradient):
    """max(0, 1 - t p)^2, t = -1 where y = 0, else y."""
    zero, one = options.dtype.type(0), options.dtype.type(1)
    for k in range(lo * columns, hi * columns):
        t = -one if y[k] == 0 else y[k]
        m = one - t * p[k]
        m = zero if m < 0 else m
        losses[k] = m * m
        gradient[k] = -m * (t + t)


@loss_function
def binary(y, p, options, columns, lo, hi, losses, gradient):
    """-t log(q) - (1 - t) log(1 - q), q = p held in [CLIP, 1 - CLIP], derivative 0 outside; t = y smoothed."""
    zero, one, low = options.dtype.type(0), options.dtype.type(1), options.dtype.type(CLIP)
    high, keep, add = one - low, one - options[0], options.dtype.type(0.5) * options[0]
    for k in range(lo * columns, hi * columns):
        t = y[k] * keep + add
        q = low if p[k] < low else (high if p[k] > high else p[k])
        losses[k] = -(t * np.log(q) + (one - t) * np.log(one - q))
        gradient[k] = zero if p[k] < low or p[k] > high else (q - t) / (q * (one - q))


@loss_function
def binary_logits(y, p, options, columns, lo, hi, losses, gradient):
    """log(1 + e^-|x|) + x (1 - t) for x > 0, - x t below: sums of terms >= 0. Derivative sigmoid(x) - t.

    The derivative is written over 1 + e^-|x|, so that it keeps its accuracy where sigmoid(x) comes close to t.
    """
    one = options.dtype.type(1)
    keep, add = one - options[0], options.dtype.type(0.5) * options[0]
    for k in range(lo * columns, hi * columns):
        x = p[k]
        t = y[k] * keep + add
        u = exp(-abs(x))
        rest = one - t
        losses[k] = x * (rest if x > 0 else -t) + np.log1p(u)
        gradient[k] = (rest - t * u if x > 0 else u * rest - t) / (one + u)


# ---- rowwise ---------------------------------------------------------------------------------------------------


@loss_function
def categorical(y, p, options, columns, lo, hi, losses, gradient):
    """- sum_k t_k log(q_k), q = p / sum(p) held in [CLIP, 1 - CLIP], derivative of q 0 outside; t = y smoothed."""
    zero, one, low = options.dtype.type(0), options.dtype.type(1), options.dtype.type(CLIP)
    high, keep, add = one - low, one - options[0], options[0] / options.dtype.type(columns)
    for i in range(lo, hi):
        start, total, loss, dot = i * columns, zero, zero, zero
        for k in range(start, start + columns):
            total += p[k]
        for k in range(start, start + columns):
            t = y[k] * keep + add
            q = p[k] / total
            c = low if q < low else (high if q > high else q)
            loss -= t * np.log(c)
            d = zero if q < low or q > high else -t / c
            dot += d * q
            gradient[k] = d
        for k in range(start, start + columns):
            gradient[k] = (gradient[k] - dot) / total
        losses[i] = loss


@loss_function
def categorical_logits(y, p, options, columns, lo, hi, losses, gradient):
    """- sum_k t_k log softmax(p)_k; derivative sum(t) softmax(p) - t."""
    zero, one = options.dtype.type(0), options.dtype.type(1)
    keep, add = one - options[0], options[0] / options.dtype.type(columns)
    for i in range(lo, hi):
        start, total, mass, loss = i * columns, zero, zero, zero
        top = p[start]
        for k in range(start, start + columns):
            top = p[k] if p[k] > top else top
        for k in range(start, start + columns):
            u = exp(p[k] - top)
            gradient[k] = u
            total += u
            mass += y[k] * keep + add
        log_total, share = np.log(total), mass / total
        for k in range(start, start + columns):
            t = y[k] * keep + add
            loss += t * (log_total + (top - p[k]))
            gradient[k] = gradient[k] * share - t
        losses[i] = loss


@label_function
def sparse(y, p, options, columns, lo, hi, losses, gradient):
    """`categorical` without smoothing, the target given as the index y of its 1."""
    zero, one, low = options.dtype.type(0), options.dtype.type(1), options.dtype.type(CLIP)
    high = one - low
    for i in range(lo, hi):
        start, total = i * columns, zero
        for k in range(start, start + columns):
            total += p[k]
        q = p[start + np.uint64(y[i])] / total
        outside = q < low or q > high
        for k in range(start, start + columns):
            gradient[k] = zero if outside else one / total
        if not outside:
            gradient[start + np.uint64(y[i])] = (one - one / q) / total
        losses[i] = -np.log(low if q < low else (high if q > high else q))


@label_function
def sparse_logits(y, p, options, columns, lo, hi, losses, gradient):
    """`categorical_logits` without smoothing, the target given as the index y of its 1."""
    zero, one = options.dtype.type(0), options.dtype.type(1)
    for i in range(lo, hi):
        start, total = i * columns, zero
        top = p[start]
        for k in range(start, start + columns):
            top = p[k] if p[k] > top else top
        for k in range(start, start + columns):
            u = exp(p[k] - top)
            gradient[k] = u
            total += u
        share = one / total
        for k in range(start, start + columns):
            gradient[k] *= share
        hit = start + np.uint64(y[i])
        gradient[hit] -= one
        losses[i] = np.log(total) + (top - p[hit])


@loss_function
def divergence(y, p, options, columns, lo, hi, losses, gradient):
    """sum_k t_k log(t_k / q_k), q = p held in [CLIP, 1], derivative 0 outside; t = y, at least CLIP."""
    zero, one, low = options.dtype.type(0), options.dtype.type(1), options.dtype.type(CLIP)
    for i in range(lo, hi):
        start, loss = i * columns, zero
        for k in range(start, start + columns):
            t = low if y[k] < low else y[k]
            q = low if p[k] < low else (one if p[k] > one else p[k])
            loss += t * np.log(t / q)
            gradient[k] = zero if p[k] < low or p[k] > one else -t / q
        losses[i] = loss


@loss_function
def cosine(y, p, options, columns, lo, hi, losses, gradient):
    """- y p / (|y| |p|), norms held at CLIP or more; derivative (p (y p) / |p|^2 - y) / (|y| |p|)."""
    zero, low = options.dtype.type(0), options.dtype.type(CLIP)
    for i in range(lo, hi):
        start, dot, yy, pp = i * columns, zero, zero, zero
        for k in range(start, start + columns):
            dot += y[k] * p[k]
            yy += y[k] * y[k]
            pp += p[k] * p[k]
        a, b = np.sqrt(yy), np.sqrt(pp)
        # A norm that is held does not change with p.
        along = zero if b < low else dot / pp
        size = (low if a < low else a) * (low if b < low else b)
        for k in range(start, start + columns):
            gradient[k] = (along * p[k] - y[k]) / size
        losses[i] = -dot / size


# ---- driver ----------------------------------------------------------------------------------------------------


def _weigh(losses, weights, mask, columns, count, lo, hi, chunk, gradient, values):
    """Scale the derivatives of a chunk by weight / count, and sum its losses, so scaled, in float64.

    Rows of which the mask is False have the loss 0 and the derivative 0, whatever stands there. An empty mask means
    True, an empty weight 1.
    """
    per = np.uint64(losses.size) // (np.uint64(gradient.size) // columns)
    scale, total = 1.0 / np.float64(count), 0.0
    narrow, zero = gradient.dtype.type(scale), gradient.dtype.type(0)
    if weights.size == 0 and mask.size == 0:
        for k in range(lo * per, hi * per):
            total += losses[k]
        for k in range(lo * columns, hi * columns):
            gradient[k] *= narrow
    elif weights.size == 0:
        # Added one by one, as above: the same bits where every row is valid.
        for i in range(lo, hi):
            if mask[i]:
                for k in range(i * per, i * per + per):
                    total += losses[k]
                for k in range(i * columns, i * columns + columns):
                    gradient[k] *= narrow
            else:
                for k in range(i * columns, i * columns + columns):
                    gradient[k] = zero
    else:
        for i in range(lo, hi):
            if mask.size == 0 or mask[i]:
                part = 0.0
                for k in range(i * per, i * per + per):
                    part += losses[k]
                total += part * weights[i]
                factor = weights[i] * narrow
                for k in range(i * columns, i * columns + columns):
                    gradient[k] *= factor
            else:
                for k in range(i * columns, i * columns + columns):
                    gradient[k] = zero
    values[chunk] = total * scale


weigh = Function(
    _weigh,
    lambda dtype: (
        *(vector(dtype),) * 2,
        vector(np.dtype(np.bool_)),
        *(types.uint64,) * 5,
        vector(dtype),
        vector(np.dtype(np.float64)),
    ),
)


@Entry
def value_and_gradient(loss, weigh, y, p, options, weights, mask, count, block, losses, gradient, values):
    """Loss and gradient of p (rows, columns), chunk by chunk of `block` rows.

    ``values[c]`` is the share of chunk c in the loss, the sum over all rows divided by `count`. `losses` is scratch:
    one per value or one per row, as the loss is elementwise or rowwise. `weights` and `mask` are (rows,), or empty for
    1 and True.
    """
    rows, columns = p.shape[0], np.uint64(p.shape[1])
    y_flat, p_flat, g_flat = y.reshape(y.size), p.reshape(p.size), gradient.reshape(gradient.size)
    number = np.uint64(count)
    for c in prange(values.size):
        begin = np.int64(c) * block
        lo, hi = np.uint64(begin), np.uint64(min(begin + block, rows))
        invoke(loss, (y_flat, p_flat, options, columns, lo, hi, losses, g_flat))
        invoke(weigh, (losses, weights, mask, columns, number, lo, hi, np.uint64(c), g_flat, values))
