"""Gradients of the weights, from the gate gradients that BPTT left in its buffer; notation as in `elman.kernels.scan`.

Blocks of `time_block` steps are summed from the last to the first, so that the segments of a recurrence with
checkpoints, which become known in that order, give the same sums; in a block band after band.
"""

from __future__ import annotations

import numpy as np

from elman.jit import Entry, helper, invoke, prange
from elman.kernels.simd import gather, pointer, pointer_at

STEP_ROWS = 256
"""Rows (t, b) of gate gradients packed at a time: 256 x 2 vectors of float32 are 32 KiB, the first-level cache."""
UNBANDED = np.int64(1 << 40)
"""Rows of a product that all lie evenly."""


@helper
def _pack_gradients(z, k, t, steps, rows, units, width, q, count, panel, po, sums, mo):
    """Copy `rows` sequences of `steps` steps of one panel's gate gradients side by side, and sum them for the bias."""
    m, block = z.shape[3], units // width
    q1 = q + count - 1
    zp, pp, mp = pointer(z), pointer(panel), pointer(sums)
    for i in range(steps):
        base = (k * z.shape[1] + t + i) * z.shape[2] * m
        places = (
            base + (q // block) * m + (q % block) * width,
            base + (q1 // block) * m + (q1 % block) * width,
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
        multiply, features, UNBANDED, count, width, count,
        ap, zero, (zero, zero), zero, zero,
        ap, ao, (feature, zero), inner_stride, inner, outer_stride, outer,
        pp, po, inner * outer, zero,
        mp, mo, zero, (count * width, zero), mp, mo, zero, (count * width, zero),
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
    tasks, multiply, x, x_strides, steps, batch, units, s, hidden, z, operand, width, used, time_block, panel, po, sums
):
    """Sums of all weights in the columns of a few panels over (t, b), in one fixed order.

    Panels go together so that a block of x and h, fetched once, serves all of them from the second-level cache.
    """
    m = z.shape[3]
    band = m // units
    xb, xt, xi = x_strides
    for block in range((steps - 1) // time_block, -1, -1):
        t = block * time_block
        nt = min(time_block, steps - t)
        rows = batch if used.size == 0 else used[t]
        for b in range(0, rows, band):
            nb, k = min(rows - b, band), b // band
            for i in range(tasks.shape[0]):
                q, count, kx, kh, is_late, _, start = tasks[i]
                recurrent = start + kx * count * width
                bias = recurrent + kh * count * width
                _pack_gradients(z, k, t, nt, nb, units, width, q, count, panel, po, sums, bias)
                if kx > 0:
                    _accumulate(
                        multiply, kx, count, width, pointer_at(x, z), b * xb + t * xt, xi, xb, xt, nb, nt,
                        panel, po, sums, start,
                    )  # fmt: skip
                if kh > 0:
                    source, row = (z, operand) if is_late else (s, hidden)
                    step = source.shape[2] * m
                    ao = (k * source.shape[1] + t) * step + row * m
                    _accumulate(
                        multiply, kh, count, width, pointer(source), ao, np.int64(1), units, step, nb, nt,
                        panel, po, sums, recurrent,
                    )  # fmt: skip


@helper
def _finish(tasks, width, units, h, x_gates, h_gates, sums, dw, dr, db):
    """The sums of a few panels to the places users know."""
    # Typed constants: a literal would compile the callee once more for its value.
    zero, one = np.int64(0), np.int64(1)
    for i in range(tasks.shape[0]):
        q, count, kx, kh, _, _, start = tasks[i]
        recurrent = start + kx * count * width
        bias = recurrent + kh * count * width
        _unpack(sums, start, zero, kx, q, count, width, units, h, x_gates, dw)
        _unpack(sums, recurrent, zero, kh, q, count, width, units, h, h_gates, dr)
        if db.shape[0] > 0:
            _unpack(sums, bias, zero, one, q, count, width, units, h, x_gates, db)
        if db.shape[0] > 1:
            _unpack(sums, bias, one, one, q, count, width, units, h, h_gates, db)


@Entry
def weight_gradients(
    bounds, tasks, chunk, multiply, x, x_strides, steps, batch, units, s, hidden, z, operand, h, width, x_gates, h_gates,
    used, time_block, begins, ends, panel, sums, dw, dr, db,
):  # fmt: skip
    """Gradients of kernel (I, G), recurrent kernel (H, G) and bias (0..2, G) from the buffers BPTT left behind.

    Parallel over column panels: shard i works on ``tasks[bounds[i]:bounds[i + 1]]``, `chunk` panels at a time, with its
    own part of the scratch vector `panel`. No sum crosses a panel, so the bits do not depend on the shards. The sums
    are set to zero if this segment of the time `begins` them and handed over if it `ends` them. `hidden` is the row of
    s the recurrent products took; ``used[t]`` (T, or none) the sequences up to the last that uses a step of t's block.
    """
    size = panel.size // (bounds.size - 1)
    for shard in prange(bounds.size - 1):
        i = np.int64(shard)
        for k in range(bounds[i], bounds[i + 1], chunk):
            part = tasks[k : min(k + chunk, bounds[i + 1])]
            if begins:
                for j in range(part.shape[0]):
                    start = part[j, 6]
                    for e in range(start, start + (part[j, 2] + part[j, 3] + 1) * part[j, 1] * width):
                        sums[e] = 0
            _chunk_gradient(
                part, multiply, x, x_strides, steps, batch, units, s, hidden, z, operand, width, used, time_block,
                panel, i * size, sums,
            )  # fmt: skip
            if ends:
                _finish(part, width, units, h, x_gates, h_gates, sums, dw, dr, db)
