"""Recurrent networks in plain NumPy, float64, written from the equations alone: what the library is compared with.

Nothing here looks at the library's kernels. A cell is a pair of functions, one step forward and one back: `run` goes
through the sequence with the first and keeps what each step used, `back` goes through that in reverse with the second.
"""

import numpy as np

from elman.cells import CELLS
from elman.testing import twins


def draw(cell, rng, inputs, units, scale=0.5):
    """Random parameters of a cell in the order its users know; biases too: zeros would hide which bias is which."""
    columns = cell.gates * units
    shapes = [(inputs, columns)]
    if cell.h:
        shapes.append((units, columns))
    if cell.bias_rows:
        shapes.append((2, columns) if cell.bias_rows == 2 else (columns,))
    if cell.unit_weights:
        shapes.append((len(cell.unit_weights), units))
    return [scale * rng.standard_normal(s) for s in shapes]


def named(cell, parameters):
    """The list of `draw` as W, R, b, w; None where a cell has none."""
    rest = iter(parameters)
    return next(rest), *(next(rest) if has else None for has in (cell.h, cell.bias_rows, cell.unit_weights))


def sigmoid(x):
    return 0.5 * (1 + np.tanh(0.5 * x))


# ---- one step each: forward -> (h, c), kept; backward -> dz (gradient of x W + b), dh', dc', dR, d(recurrent bias),
# dw (weights per unit)


def simple_step(zx, h, c, R, b, w):
    new = np.tanh(zx + h @ R)
    return new, c, (h, new)


def simple_back(kept, dh, dc, R, w):
    h, new = kept
    da = dh * (1 - new**2)
    return da, da @ R.T, dc, h.T @ da, None, None


def lstm_step(zx, h, c, R, b, w):
    i, f, g, o = np.split(zx + h @ R, 4, axis=1)
    i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
    new = f * c + i * g
    return o * np.tanh(new), new, (h, c, i, f, g, o, new)


def lstm_back(kept, dh, dc, R, w):
    h, c, i, f, g, o, new = kept
    t = np.tanh(new)
    total = dc + dh * o * (1 - t**2)
    da = np.concatenate(
        [total * g * i * (1 - i), total * c * f * (1 - f), total * i * (1 - g**2), dh * t * o * (1 - o)], axis=1
    )
    return da, da @ R.T, total * f, h.T @ da, None, None


def gru_step(zx, h, c, R, b, w):
    xz, xr, xh = np.split(zx, 3, axis=1)
    hz, hr, hh = np.split(h @ R + b, 3, axis=1)
    z, r = sigmoid(xz + hz), sigmoid(xr + hr)
    n = np.tanh(xh + r * hh)
    return z * h + (1 - z) * n, c, (h, z, r, n, hh)


def gru_back(kept, dh, dc, R, w):
    h, z, r, n, hh = kept
    dn = dh * (1 - z) * (1 - n**2)
    dz = dh * (h - n) * z * (1 - z)
    dr = dn * hh * r * (1 - r)
    d_input = np.concatenate([dz, dr, dn], axis=1)
    d_recurrent = np.concatenate([dz, dr, dn * r], axis=1)
    return d_input, d_recurrent @ R.T + dh * z, dc, h.T @ d_recurrent, d_recurrent.sum(axis=0), None


def before_step(zx, h, c, R, b, w):
    xz, xr, xh = np.split(zx, 3, axis=1)
    Rz, Rr, Rh = np.split(R, 3, axis=1)
    z, r = sigmoid(xz + h @ Rz), sigmoid(xr + h @ Rr)
    n = np.tanh(xh + (r * h) @ Rh)
    return z * h + (1 - z) * n, c, (h, z, r, n)


def before_back(kept, dh, dc, R, w):
    h, z, r, n = kept
    Rz, Rr, Rh = np.split(R, 3, axis=1)
    dn = dh * (1 - z) * (1 - n**2)
    dm = dn @ Rh.T
    dz, dr = dh * (h - n) * z * (1 - z), dm * h * r * (1 - r)
    dR = np.concatenate([h.T @ dz, h.T @ dr, (r * h).T @ dn], axis=1)
    return np.concatenate([dz, dr, dn], axis=1), dh * z + dm * r + dz @ Rz.T + dr @ Rr.T, dc, dR, None, None


def mgu_step(zx, h, c, R, b, w):
    (xf, xn), (Rf, Rn) = np.split(zx, 2, axis=1), np.split(R, 2, axis=1)
    f = sigmoid(xf + h @ Rf)
    n = np.tanh(xn + (f * h) @ Rn)
    return (1 - f) * h + f * n, c, (h, f, n)


def mgu_back(kept, dh, dc, R, w):
    h, f, n = kept
    Rf, Rn = np.split(R, 2, axis=1)
    dn = dh * f * (1 - n**2)
    dm = dn @ Rn.T
    df = (dh * (n - h) + dm * h) * f * (1 - f)
    dR = np.concatenate([h.T @ df, (f * h).T @ dn], axis=1)
    return np.concatenate([df, dn], axis=1), dh * (1 - f) + dm * f + df @ Rf.T, dc, dR, None, None


def mingru_step(zx, h, c, R, b, w):
    xz, xn = np.split(zx, 2, axis=1)
    z, n = sigmoid(xz), np.tanh(xn)
    return (1 - z) * h + z * n, c, (h, z, n)


def mingru_back(kept, dh, dc, R, w):
    h, z, n = kept
    dz = np.concatenate([dh * (n - h) * z * (1 - z), dh * z * (1 - n**2)], axis=1)
    return dz, dh * (1 - z), dc, None, None, None


def peephole_step(zx, h, c, R, b, w):
    i, f, g, o = np.split(zx + h @ R, 4, axis=1)
    i, f, g = sigmoid(i + w[0] * c), sigmoid(f + w[1] * c), np.tanh(g)
    new = f * c + i * g
    o = sigmoid(o + w[2] * new)
    return o * np.tanh(new), new, (h, c, i, f, g, o, new)


def peephole_back(kept, dh, dc, R, w):
    h, c, i, f, g, o, new = kept
    t = np.tanh(new)
    do = dh * t * o * (1 - o)
    total = dc + dh * o * (1 - t**2) + do * w[2]
    di, df = total * g * i * (1 - i), total * c * f * (1 - f)
    da = np.concatenate([di, df, total * i * (1 - g**2), do], axis=1)
    dw = np.stack([(di * c).sum(axis=0), (df * c).sum(axis=0), (do * new).sum(axis=0)])
    return da, da @ R.T, total * f + di * w[0] + df * w[1], h.T @ da, None, dw


def normalized(v):
    """Rows of mean 0 and variance 1, and what they were divided by."""
    root = np.sqrt(v.var(axis=1, keepdims=True) + 1e-5)
    return (v - v.mean(axis=1, keepdims=True)) / root, root


def through_normalized(d, n, root):
    return (d - d.mean(axis=1, keepdims=True) - n * (d * n).mean(axis=1, keepdims=True)) / root


def norm_step(zx, h, c, R, b, w):
    x, r = ([normalized(v) for v in np.split(z, 4, axis=1)] for z in (zx, h @ R))
    a = [w[k] * x[k][0] + w[4 + k] * r[k][0] + w[8 + k] for k in range(4)]
    i, f, g, o = sigmoid(a[0]), sigmoid(a[1]), np.tanh(a[2]), sigmoid(a[3])
    new = f * c + i * g
    q = normalized(new)
    t = np.tanh(w[12] * q[0] + w[13])
    return o * t, new, (h, c, i, f, g, o, t, x, r, q)


def norm_back(kept, dh, dc, R, w):
    h, c, i, f, g, o, t, x, r, q = kept
    dq = dh * o * (1 - t**2)
    total = dc + through_normalized(dq * w[12], *q)
    da = total * g * i * (1 - i), total * c * f * (1 - f), total * i * (1 - g**2), dh * t * o * (1 - o)
    dx, dr = (
        np.concatenate([through_normalized(a * w[m + k], *n[k]) for k, a in enumerate(da)], axis=1)
        for m, n in ((0, x), (4, r))
    )
    gains = [(a * n[k][0]).sum(axis=0) for n in (x, r) for k, a in enumerate(da)]
    dw = np.stack([*gains, *(a.sum(axis=0) for a in da), (dq * q[0]).sum(axis=0), dq.sum(axis=0)])
    return dx, dr @ R.T, total * f, h.T @ dr, None, dw


STEPS = {
    "simple": (simple_step, simple_back),
    "lstm": (lstm_step, lstm_back),
    "gru": (gru_step, gru_back),
    "gru_reset_before": (before_step, before_back),
    "mgu": (mgu_step, mgu_back),
    "mingru": (mingru_step, mingru_back),
    "peephole_lstm": (peephole_step, peephole_back),
    "layer_norm_lstm": (norm_step, norm_back),
}


def run(name, x, W, R, b, h=None, c=None, w=None):
    """Outputs (B, T, H) and what each step kept; `b` is None, (G,) or, for "gru", (2, G)."""
    step, units = STEPS[name][0], W.shape[1] // CELLS[name].gates
    input_bias, recurrent_bias = b if np.ndim(b) == 2 else (0 if b is None else b, 0)
    h = np.zeros((len(x), units)) if h is None else h
    c = np.zeros((len(x), units)) if c is None else c
    outputs, kept = [], []
    for t in range(x.shape[1]):
        h, c, k = step(x[:, t] @ W + input_bias, h, c, R, recurrent_bias, w)
        outputs.append(h)
        kept.append(k)
    return np.stack(outputs, axis=1), c, kept


def back(name, kept, x, W, R, b, d_outputs, dh=0.0, dc=0.0, w=None):
    """Backpropagation through time: gradients of x, W, R, b, of the initial h and c, and of w."""
    step = STEPS[name][1]
    dW, dx, dR, dw, input_bias, recurrent_bias = np.zeros_like(W), np.zeros_like(x), 0.0, 0.0, 0.0, 0.0
    for t in reversed(range(x.shape[1])):
        da, dh, dc, *more = step(kept[t], d_outputs[:, t] + dh, dc, R, w)
        dRt, db, dwt = (0.0 if m is None else m for m in more)
        dW += x[:, t].T @ da
        dx[:, t] = da @ W.T
        input_bias = input_bias + da.sum(axis=0)
        dR, dw, recurrent_bias = dR + dRt, dw + dwt, recurrent_bias + db
    return dx, dW, dR, np.stack([input_bias, recurrent_bias]) if np.ndim(b) == 2 else input_bias, dh, dc, dw


def gradients(name, x, parameters, state, d_outputs, d_state):
    """Outputs, then gradients of x, of each of the parameters as `draw` gives them, and of the states."""
    cell = CELLS[name]
    W, R, b, w = named(cell, parameters)
    outputs, _, kept = run(name, x, W, R, b, *state, w=w)
    dx, dW, dR, db, dh, dc, dw = back(name, kept, x, W, R, b, d_outputs, *d_state, w=w)
    present = [g for g, p in zip((dW, dR, db, dw), (W, R, b, w), strict=True) if p is not None]
    return outputs, [dx, *present, *(dh, dc)[: cell.states]]


def complex_step(cell, arrays, d_outputs, d_state, direction, activations=("tanh", "sigmoid")):
    """Derivative of ``sum(d_outputs * outputs) + sum(d_state * states)`` along `direction`, to the last bit or so.

    `arrays` are x, kernel, recurrent kernel, bias (0..2, G) and the initial states. An imaginary step of 1e-30 through
    the cell's own NumPy reference: no difference is taken, so nothing cancels, and no kink can be crossed.
    """
    x, kernel, recurrent, bias, *state = (a + 1e-30j * v for a, v in zip(arrays, direction, strict=True))
    outputs, last = twins.sequence(cell, x, kernel, recurrent, bias, state, *activations)
    total = (d_outputs * outputs).sum() + sum((d * s).sum() for d, s in zip(d_state, last, strict=True))
    return total.imag / 1e-30


# ---- training


def sgd(p, g, memory, t, lr, momentum=0.0, nesterov=False):
    """One step as Sutskever et al. (2013) write it."""
    v = memory.setdefault("v", np.zeros_like(p))
    v[:] = momentum * v - lr * g
    return p + (momentum * v - lr * g if nesterov else v)


def adam(p, g, memory, t, lr, beta1=0.9, beta2=0.999, epsilon=1e-7):
    """One step of Kingma & Ba (2015), section 2, last paragraph: epsilon beside the uncorrected root."""
    m, v = memory.setdefault("m", np.zeros_like(p)), memory.setdefault("v", np.zeros_like(p))
    m[:] = beta1 * m + (1 - beta1) * g
    v[:] = beta2 * v + (1 - beta2) * g**2
    return p - lr * np.sqrt(1 - beta2**t) / (1 - beta1**t) * m / (np.sqrt(v) + epsilon)


def train(name, weights, x, y, update, steps):
    """Train a recurrent layer and a linear layer on its last output: mean squared error, whole batch.

    `weights` is [W, R, b, V, a]. Returns the weights after each step, and the losses before each.
    """
    memories = [{} for _ in weights]
    trajectory, losses = [], []
    for t in range(1, steps + 1):
        W, R, b, V, a = weights
        outputs, _, kept = run(name, x, W, R, b)
        last = outputs[:, -1]
        e = last @ V + a - y
        losses.append((e**2).mean())
        de = 2 * e / e.size
        d_outputs = np.zeros_like(outputs)
        d_outputs[:, -1] = de @ V.T
        _, dW, dR, db, _, _, _ = back(name, kept, x, W, R, b, d_outputs)
        gradients = [dW, dR, db, last.T @ de, de.sum(axis=0)]
        weights = [update(p, g, m, t) for p, g, m in zip(weights, gradients, memories, strict=True)]
        trajectory.append(weights)
    return trajectory, losses
