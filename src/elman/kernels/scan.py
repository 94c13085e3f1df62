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
    gradient of state k; p alternates between "after the step" and "before the step". ``d[2]`` is scratch.
``u[k, j]``
    the cell's weights per unit, repeated for every sequence; ``du`` their gradients, per sequence.

A cell may declare one *late* row, whose recurrent product takes a row computed in this step (the *operand*, such as
``reset * h``) in place of h. It then has a second pair of functions.

``mask[t, b]`` is 1 where sequence b uses step t; elsewhere every state is carried over. A step computes the sequences
up to the last one that uses it: with sequences ordered by length, padding costs no arithmetic.

``drop[j]`` holds the factors of recurrent dropout. The products with R then take ``h * drop``, kept as one more row of
s behind the states; the cell sees h itself.

``zone`` holds zoneout (Krueger et al., 2016), as `elman.kernels.random.zoneout` makes it: after the cell every element
of state k either keeps what it was before the step or takes what the cell computed. Element (t, k, b, unit) of the
stream decides, whatever the shard and the padding; the way back draws it again. The cell's backward needs what the cell
computed, which is as many rows of s as there are states, the last ones; the cell writes and reads them as its states.

Rows of the batch are independent: each shard runs all steps on its own rows. Inference passes two slots of s and one
of z, which are used in turn; training passes T + 1 and T.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from elman.jit import Entry, force_inlined, helper, invoke, matrix, prange, types
from elman.kernels.simd import element, pointer, pointer_at


class Span(NamedTuple):
    """Where a cell works: flat indices from `lo` to `hi`, which are whole sequences of `padded` units, `units` used."""

    lo: int
    hi: int
    units: int
    padded: int


_SPAN = types.NamedUniTuple(types.uint64, 4, Span)


def forward_signature(dtype: np.dtype) -> tuple:
    """Types of ``forward(z, prev, new, w, at)``."""
    return (matrix(dtype),) * 4 + (_SPAN,)


def backward_signature(dtype: np.dtype) -> tuple:
    """Types of ``backward(z, prev, new, dnew, dprev, w, dw, at)``."""
    return (matrix(dtype),) * 7 + (_SPAN,)


@helper
def _active(mask, t, begin, end):
    """Number of sequences of the shard up to the last one that uses step t; all of them without a mask."""
    if mask.size == 0:
        return end - begin
    last = end
    while last > begin and mask[t, last - 1] == 0:
        last -= 1
    rows = last - begin
    # A row more is cheaper than the third of three left over by tiles of 4: it counts as one with a hole.
    return min(end - begin, rows + 1) if rows % 4 == 3 else rows


@helper
def _products(g, is_late, rows, multiply, units, width, xp, xo, xb, xi, sp, so, zp, zo, operand_row, n, wp, bp, groups):
    """One group of gates: ``x W + b + h R`` into its rows of the buffer."""
    row, count, kx, kh, offset = groups[g]
    block = units // width
    invoke(
        multiply, rows, count * block, width, block,
        xp, xo, xb, xi, kx,
        zp if is_late else sp, zo + operand_row * n if is_late else so, units, np.int64(1), kh, np.int64(0),
        np.int64(1),
        wp, offset, kx + kh, np.int64(0),
        bp, row * units, units, np.int64(0),
        zp, zo + row * n, n, units,
    )  # fmt: skip


@helper
def _forward_shard(
    begin, end, cell, late, multiply, rare, x, x_strides, steps, w, bias, groups, early, operand, h, width, mask, drop,
    zone, u, s, z, y, first,
):  # fmt: skip
    carry_, zone_out_ = rare
    units, n = bias.shape[1], s.shape[2]
    states = zone.size - 3 if zone.size > 0 else s.shape[1] - (drop.size > 0)
    hidden = states if drop.size > 0 else np.int64(0)
    own = s.shape[1] - states if zone.size > 0 else np.int64(0)
    xb, xt, xi = x_strides
    xp, wp, bp, sp, zp = pointer_at(x, s), pointer(w), pointer(bias), pointer(s), pointer(z)
    lo, hi, start = np.uint64(begin * units), np.uint64(end * units), begin * units
    if drop.size > 0:
        for j in range(lo, hi):
            s[0, hidden, j] = s[0, 0, j] * drop[j]
    for t in range(steps):
        before, after, slot = t % s.shape[0], (t + 1) % s.shape[0], t % z.shape[0]
        rows = _active(mask, t, begin, end)
        at = Span(lo, np.uint64((begin + rows) * units), np.uint64(h), np.uint64(units))
        xo, zo = begin * xb + t * xt, slot * z.shape[1] * n + start
        so = (before * s.shape[1] + hidden) * n + start
        new = s[after, own:]
        if rows > 0:
            for g in range(early):
                _products(
                    g, False, rows, multiply, units, width, xp, xo, xb, xi, sp, so, zp, zo, operand, n, wp, bp, groups
                )
            invoke(cell, z[slot], s[before], new, u, at)
            # The late product, last in the table, takes its operand from the buffer once the cell has written it.
            if early < groups.shape[0]:
                if drop.size > 0:
                    for j in range(lo, at.hi):
                        z[slot, operand, j] *= drop[j]
                _products(
                    early, True, rows, multiply, units, width, xp, xo, xb, xi, sp, so, zp, zo, operand, n, wp, bp,
                    groups,
                )  # fmt: skip
                invoke(late, z[slot], s[before], new, u, at)
            if zone.size > 0:
                invoke(zone_out_, zone, t, begin, rows, units, h, s[before], new, s[after])
        if mask.size > 0:
            invoke(carry_, mask, t, begin, rows, end, units, states, s[before], s[after])
            if zone.size > 0:
                # What overflowed at an excluded step would be NaN on the way back, times whatever gradient.
                invoke(carry_, mask, t, begin, rows, end, units, states, s[before], new)
        if drop.size > 0:
            for j in range(lo, hi):
                s[after, hidden, j] = s[after, 0, j] * drop[j]
        if y.shape[1] > 0:
            for b in range(begin, end):
                out, state = y[b, first + t], s[after, 0, b * units : b * units + h]
                for j in range(h):
                    out[j] = state[j]


@Entry
def forward(
    bounds, most_rows, cell, late, multiply, rare, x, x_strides, steps, w, bias, groups, early, operand, h, width, mask,
    drop, zone, u, s, z, y, first,
):  # fmt: skip
    """All `steps` forward. `y` (B, ., H) gets the outputs from its step `first` on; none if it has no steps.

    `x` is an address, `x_strides` its strides (batch, time, feature) in elements. `bounds` are those of the sequences
    of each thread, which are taken at most `most_rows` at a time. `rare` are the addresses of `carry` and `zone_out`.
    """
    for shard in prange(bounds.size - 1):
        i = np.int64(shard)
        for begin in range(bounds[i], bounds[i + 1], most_rows):
            _forward_shard(
                begin, min(begin + most_rows, bounds[i + 1]), cell, late, multiply, rare,
                x, x_strides, steps, w, bias, groups, early, operand, h, width, mask, drop, zone, u, s, z, y, first,
            )  # fmt: skip


@force_inlined
def _through_weights(
    multiply, rows, columns, width, zp, zo, first, count, units, h, n, panels, depth, skip, target, to, stride
):
    """Add the gradients of `count` products, from buffer row `first` on, times transposed weights to `target`."""
    one, zero = np.int64(1), np.int64(0)
    invoke(
        multiply, rows, columns, width, columns,
        zp, zero, zero, zero, zero,
        zp, zo + first * n, units, one, h, n, count,
        panels, zero, depth, skip,
        target, to, zero, stride, target, to, zero, stride,
    )  # fmt: skip


@force_inlined
def _backward_step(
    t, begin, rows, cell, late, multiply, units, s, own, rt, h_rows, operand, h, width, drop, u, z, d, now, du
):
    """From the gradients of the states after step t, ``d[now]``, to those before it and to those of the products."""
    n, block, start = z.shape[2], units // width, begin * units
    after, before, new = d[now], d[1 - now], s[t + 1, own:]
    lo, hi = np.uint64(start), np.uint64(start + rows * units)
    at = Span(lo, hi, np.uint64(h), np.uint64(units))
    zp, dp, rp = pointer(z), pointer(d), pointer(rt)
    zo, plane = t * z.shape[1] * n + start, d.shape[1] * n
    h_first, h_count = h_rows
    depth = (h_count + (operand >= 0)) * h
    if operand >= 0:
        invoke(late, z[t], s[t], new, after, before, u, du, at)
        # Gradient of the operand, from the late row through its block of the recurrent weights, into d[after].
        for j in range(lo, hi):
            after[0, j] = 0
        _through_weights(
            multiply, rows, block, width, zp, zo, h_first + h_count, np.int64(1), units, h, n, rp, depth, h_count * h,
            dp, now * plane + start, units,
        )  # fmt: skip
        if drop.size > 0:
            for j in range(lo, hi):
                after[0, j] *= drop[j]
    invoke(cell, z[t], s[t], new, after, before, u, du, at)
    if h_count > 0:
        # Dropped, the product goes to scratch first: h itself gets its gradient times the factor.
        to = (1 - now) * plane + start
        if drop.size > 0:
            to = (2 * d.shape[1] + d.shape[1] - 1) * n + start
            scratch = d[2, d.shape[1] - 1]
            for j in range(lo, hi):
                scratch[j] = 0
        _through_weights(
            multiply, rows, block, width, zp, zo, h_first, h_count, units, h, n, rp, depth, np.int64(0), dp, to, units
        )
        if drop.size > 0:
            for j in range(lo, hi):
                before[0, j] += d[2, d.shape[1] - 1, j] * drop[j]


@helper
def _backward_shard(
    begin, end, cell, late, multiply, rare, units, s, dy, dy_strides, dy_steps, rt, wt, x_rows, h_rows, operand, h,
    width, mask, used, drop, zone, u, z, d, du, dx, norms,
):  # fmt: skip
    set_aside_, restore_, hold_, release_ = rare
    steps, n, states = z.shape[0], z.shape[2], d.shape[1] - 1
    own = s.shape[1] - states if zone.size > 0 else np.int64(0)
    start = begin * units
    xp, wp, yp = pointer(dx), pointer(wt), pointer_at(dy, z)
    yb, yt, yj = dy_strides
    x_first, x_count = x_rows
    now = 0
    for i in range(steps):
        t = steps - 1 - i
        after, before = d[now], d[1 - now]
        rows = _active(mask, t, begin, end)
        if dy_steps > 0:
            for b in range(begin, end):
                out, gradient = after[0, b * units : b * units + h], b * yb + t * yt
                for j in range(h):
                    out[j] += element(yp, gradient + j * yj)
        if norms.size > 0:
            for b in range(begin, end):
                total = 0.0
                for j in range(b * units, b * units + h):
                    total += np.float64(after[0, j]) * np.float64(after[0, j])
                norms[t, b] = np.sqrt(total)
        if mask.size > 0:
            invoke(set_aside_, mask, t, begin, rows, units, states, after, d[2], z[t])
        if rows > 0:
            if zone.size > 0:
                invoke(hold_, zone, mask, t, begin, rows, units, h, after, d[2])
            _backward_step(
                t, begin, rows, cell, late, multiply, units, s, own, rt, h_rows, operand, h, width, drop, u, z, d,
                now, du,
            )  # fmt: skip
            if zone.size > 0:
                invoke(release_, states, np.uint64(start), np.uint64(start + rows * units), d[2], before)
        if mask.size > 0:
            invoke(restore_, mask, t, begin, rows, end, used[t], units, states, after, d[2], before, z[t])
        if dx.size > 0:
            inputs = dx.shape[2]
            xo = (t * dx.shape[1] + begin) * inputs
            for b in range(begin, end):
                for k in range(inputs):
                    dx[t, b, k] = 0
            if rows > 0:
                _through_weights(
                    multiply, rows, inputs // width, width, pointer(z), t * z.shape[1] * n + start, x_first, x_count,
                    units, h, n, wp, x_count * h, np.int64(0), xp, xo, inputs,
                )  # fmt: skip
        now = 1 - now


@Entry
def backward(
    bounds, most_rows, cell, late, multiply, rare, units, s, dy, dy_strides, dy_steps, rt, wt, x_rows, h_rows, operand,
    h, width, mask, used, drop, zone, u, z, d, du, dx, norms,
):  # fmt: skip
    """All steps in reverse. `d[0]` enters as the gradient of the last state and `d[T % 2]` leaves as that of the first.

    `dy` is the address of the gradient of the outputs, with its strides (batch, time, unit) and steps (0: none); `dx`
    (T, B, Ip) gets that of the input unless it is empty, `norms` (T, B) the length of the gradient of h after every
    step. ``used[t]`` (T, with a mask) bounds the sequences whose z `elman.kernels.weights` reads. `x_rows` and `h_rows`
    are (first, count) of the buffer rows with an input and an early recurrent product; `operand` is -1 for cells
    without a late row. `rare` are the addresses of `set_aside`, `restore`, `hold` and `release`.
    """
    for shard in prange(bounds.size - 1):
        i = np.int64(shard)
        for begin in range(bounds[i], bounds[i + 1], most_rows):
            _backward_shard(
                begin, min(begin + most_rows, bounds[i + 1]), cell, late, multiply, rare, units, s, dy, dy_strides,
                dy_steps, rt, wt, x_rows, h_rows, operand, h, width, mask, used, drop, zone, u, z, d, du, dx, norms,
            )  # fmt: skip
