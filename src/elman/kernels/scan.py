"""The recurrence, forward and backward, written once for all cells.

Notation, used everywhere: T steps, B sequences (batch), I inputs, H units, Hp = H padded to whole vectors, R buffer
rows per unit. Row and unit of a sequence form one flat index ``j = b * Hp + unit``.

``x[b, t, i]``
    input, any strides.
``s[t, k, j]``
    state number k *before* step t; ``s[t + 1]`` is what step t produced; ``s[., 0]`` is the output h.
``z[t, r, j]``
    the buffer of a step. The products ``x W + b`` and ``h R`` arrive in it, each gate in the row its cell declares; two
    products declared for one row meet as a sum in registers. The cell's forward replaces them by what BPTT needs, its
    backward replaces that by the gradients of the products: one buffer serves all three.
``d[p, k, j]``
    gradient of state k; p alternates between "after the step" and "before the step".

A cell may declare one *late* row, whose recurrent product takes a row computed in this step (the *operand*, such as
``reset * h``) in place of h. It then has a second pair of functions.

Rows of the batch are independent: each shard runs all steps on its own rows. Inference passes two slots of s and one
of z, which are used in turn; training passes T + 1 and T.
"""

from __future__ import annotations

import numpy as np

from elman.jit import Entry, helper, invoke, matrix, prange, types
from elman.kernels.simd import element, gather, pointer, pointer_at


def forward_signature(dtype: np.dtype) -> tuple:
    """Types of ``forward(z, prev, new, lo, hi)``."""
    return (matrix(dtype),) * 3 + (types.uint64,) * 2


def backward_signature(dtype: np.dtype) -> tuple:
    """Types of ``backward(z, prev, new, dnew, dprev, lo, hi)``."""
    return (matrix(dtype),) * 5 + (types.uint64,) * 2


@helper
def _forward_shard(
    begin, end, cell, late, multiply, x, x_strides, steps, w, bias, groups, early, operand, h, width, s, z, y
):
    units, n = bias.shape[1], s.shape[2]
    rows, block = end - begin, units // width
    xb, xt, xi = x_strides
    xp, wp, bp, sp, zp = pointer_at(x, s), pointer(w), pointer(bias), pointer(s), pointer(z)
    lo, hi, start = np.uint64(begin * units), np.uint64(end * units), begin * units
    for t in range(steps):
        before, after, slot = t % s.shape[0], (t + 1) % s.shape[0], t % z.shape[0]
        zo = slot * z.shape[1] * n + start
        for g in range(groups.shape[0]):
            row, count, kx, kh, offset = groups[g]
            # The late product, last in the table, takes its operand from the buffer once the cell has written it.
            is_late = g >= early
            if is_late:
                invoke(cell, z[slot], s[before], s[after], lo, hi)
            invoke(
                multiply, rows, count * block, width, block,
                xp, begin * xb + t * xt, xb, xi, kx,
                zp if is_late else sp, zo + operand * n if is_late else before * s.shape[1] * n + start,
                units, np.int64(1), kh, np.int64(0), np.int64(1),
                wp, offset, kx + kh, np.int64(0),
                bp, row * units, units, np.int64(0),
                zp, zo + row * n, n, units,
            )  # fmt: skip
        invoke(late if early < groups.shape[0] else cell, z[slot], s[before], s[after], lo, hi)
        if y.shape[1] > 0:
            for b in range(begin, end):
                out, state = y[b, t], s[after, 0, b * units : b * units + h]
                for j in range(h):
                    out[j] = state[j]


@Entry
def forward(bounds, cell, late, multiply, x, x_strides, steps, w, bias, groups, early, operand, h, width, s, z, y):
    """All `steps` forward. `y` (B, T, H) gets the outputs, or has no steps if they are not wanted or stay in `s`.

    `x` is an address, `x_strides` its strides (batch, time, feature) in elements.
    """
    for shard in prange(bounds.size - 1):
        i = np.int64(shard)
        _forward_shard(
            bounds[i], bounds[i + 1], cell, late, multiply,
            x, x_strides, steps, w, bias, groups, early, operand, h, width, s, z, y,
        )  # fmt: skip


@helper
def _backward_shard(
    begin, end, cell, late, multiply, units, s, dy, dy_strides, dy_steps, rt, wt, x_rows, h_rows, operand, h, width,
    z, d, dx,
):  # fmt: skip
    steps, n = z.shape[0], z.shape[2]
    rows, block, start = end - begin, units // width, begin * units
    lo, hi = np.uint64(begin * units), np.uint64(end * units)
    zp, dp, xp, rp, wp, yp = pointer(z), pointer(d), pointer(dx), pointer(rt), pointer(wt), pointer_at(dy, z)
    yb, yt, yj = dy_strides
    one, zero = np.int64(1), np.int64(0)
    h_first, h_count = h_rows
    x_first, x_count = x_rows
    depth = (h_count + (operand >= 0)) * h
    now = 0
    for i in range(steps):
        t = steps - 1 - i
        zo = t * z.shape[1] * n + start
        after, before = d[now], d[1 - now]
        if dy_steps > 0:
            for b in range(begin, end):
                out, gradient = after[0, b * units : b * units + h], b * yb + t * yt
                for j in range(h):
                    out[j] += element(yp, gradient + j * yj)
        if operand >= 0:
            invoke(late, z[t], s[t], s[t + 1], after, before, lo, hi)
            # Gradient of the operand, from the late row through its block of the recurrent weights, into d[after].
            so = now * d.shape[1] * n + start
            for j in range(lo, hi):
                after[0, j] = 0
            invoke(
                multiply, rows, block, width, block,
                zp, zero, zero, zero, zero,
                zp, zo + (h_first + h_count) * n, units, one, h, zero, one,
                rp, zero, depth, h_count * h,
                dp, so, zero, units, dp, so, zero, units,
            )  # fmt: skip
        invoke(cell, z[t], s[t], s[t + 1], after, before, lo, hi)
        if h_count > 0:
            so = (1 - now) * d.shape[1] * n + start
            invoke(
                multiply, rows, block, width, block,
                zp, zero, zero, zero, zero,
                zp, zo + h_first * n, units, one, h, n, h_count,
                rp, zero, depth, zero,
                dp, so, zero, units, dp, so, zero, units,
            )  # fmt: skip
        if dx.size > 0:
            inputs = dx.shape[2]
            xo = (t * dx.shape[1] + begin) * inputs
            for b in range(begin, end):
                for k in range(inputs):
                    dx[t, b, k] = 0
            invoke(
                multiply, rows, inputs // width, width, inputs // width,
                zp, zero, zero, zero, zero,
                zp, zo + x_first * n, units, one, h, n, x_count,
                wp, zero, x_count * h, zero,
                xp, xo, zero, inputs, xp, xo, zero, inputs,
            )  # fmt: skip
        now = 1 - now


@Entry
def backward(
    bounds, cell, late, multiply, units, s, dy, dy_strides, dy_steps, rt, wt, x_rows, h_rows, operand, h, width,
    z, d, dx,
):  # fmt: skip
    """All steps in reverse. `d[0]` enters as the gradient of the last state and `d[T % 2]` leaves as that of the first.

    `dy` is the address of the gradient of the outputs, with its strides (batch, time, unit) and steps (0: none); `dx`
    (T, B, Ip) gets that of the input unless it is empty. `x_rows` and `h_rows` are (first, count) of the buffer rows
    with an input and an early recurrent product; `operand` is -1 for cells without a late row.
    """
    for shard in prange(bounds.size - 1):
        i = np.int64(shard)
        _backward_shard(
            bounds[i], bounds[i + 1], cell, late, multiply, units, s, dy, dy_strides, dy_steps, rt, wt,
            x_rows, h_rows, operand, h, width, z, d, dx,
        )  # fmt: skip


# ---- weight gradients ------------------------------------------------------------------------------------------


@helper
def _pack_gradients(z, t, steps, b, rows, units, width, q, count, panel, po, sums, mo):
    """Copy `rows` sequences of `steps` steps of one panel's gate gradients side by side, and sum them for the bias."""
    n, block = z.shape[2], units // width
    q1 = q + count - 1
    zp, pp, mp = pointer(z), pointer(panel), pointer(sums)
    for i in range(steps):
        base = (t + i) * z.shape[1] * n + b * units
        places = (
            base + (q // block) * n + (q % block) * width,
            base + (q1 // block) * n + (q1 % block) * width,
        )
        to = po + i * rows * count * width
        if count == 2:
            gather(2, zp, places, units, rows, pp, to, mp, mo)
        else:
            gather(1, zp, places, units, rows, pp, to, mp, mo)


@helper
def _accumulate(multiply, features, count, width, ap, ao, feature, sequence, step, rows, steps, panel, po, sums, mo):
    """``sums += A^T panel`` over `steps` steps of `rows` sequences; A's strides are named by what they step over."""
    zero, one = np.int64(0), np.int64(1)
    inner, inner_stride, outer, outer_stride = rows, sequence, steps, step
    if rows == 1:  # one long sum, not many of length one
        inner, inner_stride, outer, outer_stride = steps, step, one, zero
    pp, mp = pointer(panel), pointer(sums)
    invoke(
        multiply, features, count, width, count,
        ap, zero, zero, zero, zero,
        ap, ao, feature, inner_stride, inner, outer_stride, outer,
        pp, po, inner * outer, zero,
        mp, mo, zero, count * width, mp, mo, zero, count * width,
    )  # fmt: skip


@helper
def _unpack(sums, mo, row, features, q, count, width, units, h, gates, target):
    """Move `features` rows of one panel's sums to the rows of a user's matrix from `row` on."""
    block = units // width
    for k in range(features):
        for v in range(count):
            gate, unit = gates[(q + v) // block], ((q + v) % block) * width
            if gate >= 0:
                start = mo + (k * count + v) * width
                for j in range(min(width, h - unit)):
                    target[row + k, gate * h + unit + j] = sums[start + j]


@helper
def _chunk_gradient(
    tasks, multiply, x, x_strides, units, s, z, operand, h, width, x_gates, h_gates, time_block,
    panel, po, sums, mo, share, dw, dr, db,
):  # fmt: skip
    """Gradient of all weights in the columns of a few panels, summed over (t, b) in one fixed order.

    Panels go together so that a block of x and h, fetched once, serves all of them from the second-level cache.
    """
    # Typed constants: a literal would compile the callee once more for its value.
    zero, one = np.int64(0), np.int64(1)
    steps, n = z.shape[0], z.shape[2]
    batch = n // units
    xb, xt, xi = x_strides
    row_block = min(batch, STEP_ROWS)
    for i in range(tasks.shape[0]):
        start = mo + i * share
        for k in range(start, start + (tasks[i, 2] + tasks[i, 3] + 1) * tasks[i, 1] * width):
            sums[k] = 0
    for t in range(0, steps, time_block):
        nt = min(time_block, steps - t)
        for b in range(0, batch, row_block):
            nb = min(row_block, batch - b)
            for i in range(tasks.shape[0]):
                q, count, kx, kh, is_late, _ = tasks[i]
                start = mo + i * share
                hidden = start + kx * count * width
                bias = hidden + kh * count * width
                _pack_gradients(z, t, nt, b, nb, units, width, q, count, panel, po, sums, bias)
                if kx > 0:
                    _accumulate(
                        multiply, kx, count, width, pointer_at(x, z), b * xb + t * xt, xi, xb, xt, nb, nt,
                        panel, po, sums, start,
                    )  # fmt: skip
                if kh > 0:
                    source, step = (z, z.shape[1] * n) if is_late else (s, s.shape[1] * n)
                    ao = t * step + b * units + (operand * n if is_late else 0)
                    _accumulate(
                        multiply, kh, count, width, pointer(source), ao, np.int64(1), units, step, nb, nt,
                        panel, po, sums, hidden,
                    )  # fmt: skip
    for i in range(tasks.shape[0]):
        q, count, kx, kh, _, _ = tasks[i]
        start = mo + i * share
        hidden = start + kx * count * width
        bias = hidden + kh * count * width
        _unpack(sums, start, zero, kx, q, count, width, units, h, x_gates, dw)
        _unpack(sums, hidden, zero, kh, q, count, width, units, h, h_gates, dr)
        if db.shape[0] > 0:
            _unpack(sums, bias, zero, one, q, count, width, units, h, x_gates, db)
        if db.shape[0] > 1:
            _unpack(sums, bias, one, one, q, count, width, units, h, h_gates, db)


@Entry
def weight_gradients(
    bounds, tasks, chunk, multiply, x, x_strides, units, s, z, operand, h, width, x_gates, h_gates, time_block,
    panel, sums, dw, dr, db,
):  # fmt: skip
    """Gradients of kernel (I, G), recurrent kernel (H, G) and bias (0..2, G) from the buffers BPTT left behind.

    Parallel over column panels: shard i works on ``tasks[bounds[i]:bounds[i + 1]]`` with its own part of the scratch
    vectors `panel` and `sums` (cut once more into `chunk` panels). No sum crosses a panel, so the bits do not depend on
    the shards.
    """
    panel_size, share = panel.size // (bounds.size - 1), sums.size // ((bounds.size - 1) * chunk)
    for shard in prange(bounds.size - 1):
        i = np.int64(shard)
        for k in range(bounds[i], bounds[i + 1], chunk):
            _chunk_gradient(
                tasks[k : min(k + chunk, bounds[i + 1])], multiply, x, x_strides, units, s, z, operand, h, width,
                x_gates, h_gates, time_block,
                panel, i * panel_size, sums, i * chunk * share, share, dw, dr, db,
            )  # fmt: skip


STEP_ROWS = 256
"""Rows (t, b) of gate gradients packed at a time: 256 x 2 vectors of float32 are 32 KiB, the first-level cache."""
