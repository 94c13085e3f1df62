"""Recurrent networks in plain NumPy, float64, written from the equations alone: what the library is compared with.

Nothing here looks at the library's kernels. A cell is a pair of functions, one step forward and one back: `run` goes
through the sequence with the first and keeps what each step used, `back` goes through that in reverse with the second.
"""

import numpy as np

from elman.testing import twins


def sigmoid(x):
    return 0.5 * (1 + np.tanh(0.5 * x))


# ---- one step each: forward -> (h, c), kept; backward -> dz (gradient of x W + b), dh', dc', dR, d(recurrent bias)


def simple_step(zx, h, c, R, b):
    new = np.tanh(zx + h @ R)
    return new, c, (h, new)


def simple_back(kept, dh, dc, R):
    h, new = kept
    da = dh * (1 - new**2)
    return da, da @ R.T, dc, h.T @ da, None


def lstm_step(zx, h, c, R, b):
    i, f, g, o = np.split(zx + h @ R, 4, axis=1)
    i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
    new = f * c + i * g
    return o * np.tanh(new), new, (h, c, i, f, g, o, new)


def lstm_back(kept, dh, dc, R):
    h, c, i, f, g, o, new = kept
    t = np.tanh(new)
    total = dc + dh * o * (1 - t**2)
    da = np.concatenate(
        [total * g * i * (1 - i), total * c * f * (1 - f), total * i * (1 - g**2), dh * t * o * (1 - o)], axis=1
    )
    return da, da @ R.T, total * f, h.T @ da, None


def gru_step(zx, h, c, R, b):
    xz, xr, xh = np.split(zx, 3, axis=1)
    hz, hr, hh = np.split(h @ R + b, 3, axis=1)
    z, r = sigmoid(xz + hz), sigmoid(xr + hr)
    n = np.tanh(xh + r * hh)
    return z * h + (1 - z) * n, c, (h, z, r, n, hh)


def gru_back(kept, dh, dc, R):
    h, z, r, n, hh = kept
    dn = dh * (1 - z) * (1 - n**2)
    dz = dh * (h - n) * z * (1 - z)
    dr = dn * hh * r * (1 - r)
    d_input = np.concatenate([dz, dr, dn], axis=1)
    d_recurrent = np.concatenate([dz, dr, dn * r], axis=1)
    return d_input, d_recurrent @ R.T + dh * z, dc, h.T @ d_recurrent, d_recurrent.sum(axis=0)


def before_step(zx, h, c, R, b):
    xz, xr, xh = np.split(zx, 3, axis=1)
    Rz, Rr, Rh = np.split(R, 3, axis=1)
    z, r = sigmoid(xz + h @ Rz), sigmoid(xr + h @ Rr)
    n = np.tanh(xh + (r * h) @ Rh)
    return z * h + (1 - z) * n, c, (h, z, r, n)


def before_back(kept, dh, dc, R):
    h, z, r, n = kept
    Rz, Rr, Rh = np.split(R, 3, axis=1)
    dn = dh * (1 - z) * (1 - n**2)
    dm = dn @ Rh.T
    dz, dr = dh * (h - n) * z * (1 - z), dm * h * r * (1 - r)
    dR = np.concatenate([h.T @ dz, h.T @ dr, (r * h).T @ dn], axis=1)
    return np.concatenate([dz, dr, dn], axis=1), dh * z + dm * r + dz @ Rz.T + dr @ Rr.T, dc, dR, None


STEPS = {
    "simple": (simple_step, simple_back),
    "lstm": (lstm_step, lstm_back),
    "gru": (gru_step, gru_back),
    "gru_reset_before": (before_step, before_back),
}


def run(name, x, W, R, b, h=None, c=None):
    """Outputs (B, T, H) and what each step kept; `b` is (G,) or, for "gru", (2, G)."""
    step, units = STEPS[name][0], R.shape[0]
    input_bias, recurrent_bias = b if b.ndim == 2 else (b, 0)
    h = np.zeros((len(x), units)) if h is None else h
    c = np.zeros((len(x), units)) if c is None else c
    outputs, kept = [], []
    for t in range(x.shape[1]):
        h, c, k = step(x[:, t] @ W + input_bias, h, c, R, recurrent_bias)
        outputs.append(h)
        kept.append(k)
    return np.stack(outputs, axis=1), c, kept


def back(name, kept, x, W, R, b, d_outputs, dh=0.0, dc=0.0):
    """Backpropagation through time: gradients of x, W, R, b, and of the initial h and c."""
    step = STEPS[name][1]
    dW, dR, dx, input_bias, recurrent_bias = np.zeros_like(W), np.zeros_like(R), np.zeros_like(x), 0.0, 0.0
    for t in reversed(range(x.shape[1])):
        da, dh, dc, dRt, db = step(kept[t], d_outputs[:, t] + dh, dc, R)
        dW += x[:, t].T @ da
        dR += dRt
        dx[:, t] = da @ W.T
        input_bias = input_bias + da.sum(axis=0)
        recurrent_bias = recurrent_bias + (0 if db is None else db)
    return dx, dW, dR, np.stack([input_bias, recurrent_bias]) if b.ndim == 2 else input_bias, dh, dc


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
        _, dW, dR, db, _, _ = back(name, kept, x, W, R, b, d_outputs)
        gradients = [dW, dR, db, last.T @ de, de.sum(axis=0)]
        weights = [update(p, g, m, t) for p, g, m in zip(weights, gradients, memories, strict=True)]
        trajectory.append(weights)
    return trajectory, losses
