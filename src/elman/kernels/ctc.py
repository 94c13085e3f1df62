"""Connectionist temporal classification: the probability of a labelling over all its alignments, with its derivative.

Notation (Graves, Fernandez, Gomez and Schmidhuber, 2006): a labelling of n labels has S = 2 n + 1 states, a blank
before, between and after them; state s stands for the class of label (s - 1) / 2 where s is odd, for the blank where it
is even. A path stays in its state, goes on to the next, or skips the blank between two different labels. With

    alpha_t(s)   log-probability of all paths that are in s at step t, step t included
    beta_t(s)    log-probability of all ways on from s after step t
    loss         - log P,  P = exp(alpha_T(S - 1)) + exp(alpha_T(S - 2))
    derivative   softmax_t(k) - sum over the states s of class k of exp(alpha_t(s) + beta_t(s)) / P

Everything is computed in float64 and in logarithms, whatever the float type of the outputs: T factors underflow.
"""

from __future__ import annotations

import numpy as np

from elman.jit import Entry, Function, force_inlined, invoke, prange, types, vector
from elman.kernels.pointwise import exp


@force_inlined
def _add(a, b, c):
    """log(e^a + e^b + e^c); -inf where all are -inf."""
    top = b if b > a else a
    top = c if c > top else top
    # Three times -inf has no differences.
    if top == -np.inf:
        return top
    return top + np.log(exp(a - top) + exp(b - top) + exp(c - top))


@force_inlined
def _skips(y, labels, s, blank):
    """Whether a path may go to state s from s - 2: s is a label, and not the same as the one before."""
    return s >= 3 and s % 2 == 1 and y[labels + s // 2] != y[labels + s // 2 - 1]


def _paths(y, p, times, lengths, counts, scales, sizes, blank, lo, step, scratch, losses, gradient):
    """Losses and derivatives of the samples lo, lo + step, …; derivatives times `scales`.

    sizes = (N, T, C, L) of outputs (N, T, C) and labels (N, L), all flat. Sample i has counts[i] labels, and the
    lengths[i] steps ``times[i, :]`` of its outputs count; the derivative of all others is 0. `scratch` holds
    ``T (2 L + 1)`` alphas, two rows of 2 L + 1, T logarithms of softmax's denominator and C numbers of one step.
    """
    samples, steps, classes, places = sizes[0], sizes[1], sizes[2], sizes[3]
    width = 2 * places + 1
    beta = steps * width
    ahead, norms = beta + width, beta + 2 * width
    row = norms + steps
    for i in range(lo, samples, step):
        start, labels, length, states = i * steps * classes, i * places, lengths[i], 2 * counts[i] + 1
        for k in range(start, start + steps * classes):
            gradient[k] = 0
        # 1. Forward: alphas, and the denominators of softmax.
        for t in range(length):
            x = start + times[i * steps + t] * classes
            top = np.float64(p[x])
            for k in range(x, x + classes):
                top = np.float64(p[k]) if p[k] > top else top
            total = 0.0
            for k in range(x, x + classes):
                total += exp(np.float64(p[k]) - top)
            norm = top + np.log(total)
            scratch[norms + t] = norm
            now, before = t * width, (t - 1) * width
            for s in range(states):
                k = y[labels + s // 2] if s % 2 == 1 else blank
                if t == 0:
                    reach = 0.0 if s < 2 else -np.inf
                else:
                    one = scratch[before + s - 1] if s >= 1 else -np.inf
                    two = scratch[before + s - 2] if _skips(y, labels, s, blank) else -np.inf
                    reach = _add(scratch[before + s], one, two)
                scratch[now + s] = reach + (np.float64(p[x + k]) - norm)
        if length == 0:
            losses[i] = 0.0
            continue
        last = (length - 1) * width + states - 1
        log_p = _add(scratch[last], scratch[last - 1] if states > 1 else -np.inf, -np.inf)
        losses[i] = -log_p
        # 2. Backward: betas of one step at a time, and the derivative of that step.
        for back in range(length):
            t = length - 1 - back
            x, now = start + times[i * steps + t] * classes, t * width
            for s in range(states):
                if back == 0:
                    scratch[beta + s] = 0.0 if s >= states - 2 else -np.inf
                else:
                    one = scratch[ahead + s + 1] if s + 1 < states else -np.inf
                    two = -np.inf
                    if s + 2 < states and _skips(y, labels, s + 2, blank):
                        two = scratch[ahead + s + 2]
                    scratch[beta + s] = _add(scratch[ahead + s], one, two)
            for k in range(classes):
                scratch[row + k] = exp(np.float64(p[x + k]) - scratch[norms + t])
            for s in range(states):
                k = y[labels + s // 2] if s % 2 == 1 else blank
                scratch[row + k] -= exp(scratch[now + s] + scratch[beta + s] - log_p)
                # What the step before reads: beta with the emission of this step.
                scratch[ahead + s] = scratch[beta + s] + (np.float64(p[x + k]) - scratch[norms + t])
            for k in range(classes):
                gradient[x + k] = scales[i] * scratch[row + k]


_INT64, _FLOAT64 = (vector(np.dtype(kind)) for kind in (np.int64, np.float64))
paths = Function(
    _paths,
    lambda dtype: (
        *(_INT64, vector(dtype), _INT64, _INT64, _INT64, _FLOAT64, _INT64, types.int64, types.int64, types.int64),
        *(_FLOAT64, _FLOAT64, vector(dtype)),
    ),
)


@Entry
def losses_and_gradient(function, y, p, times, lengths, counts, scales, sizes, blank, scratch, losses, gradient):
    """Losses (N,) of outputs p (N, T, C), and the gradient; as many parts as `scratch` has rows.

    A sample's numbers do not depend on the part that it falls into.
    """
    parts = scratch.shape[0]
    p_flat, g_flat = p.reshape(p.size), gradient.reshape(gradient.size)
    y_flat, t_flat = y.reshape(y.size), times.reshape(times.size)
    for c in prange(parts):
        lo, step = np.int64(c), np.int64(parts)
        invoke(function, (
            y_flat, p_flat, t_flat, lengths, counts, scales, sizes, np.int64(blank), lo, step, scratch[c],
            losses, g_flat,
        ))  # fmt: skip
