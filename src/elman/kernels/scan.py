"""The recurrence, forward and backward, written once for all cells.

Notation, used everywhere: T steps, B sequences (batch), I inputs, H units, Hp = H padded to whole vectors, R buffer
rows per unit. The batch is cut into *bands* of as many sequences (the last one may be incomplete), and a band has its
memory for itself: band k holds the sequences b from ``k * band`` on, and row and unit of a sequence form one flat index
``j = (b - k * band) * Hp + unit``. Threads get whole bands, so none writes what lies beside another's memory: with all
rows of a step in one piece, prefetching across that border made two threads slower than one (LSTM (32,48,1,32)).

``x[b, t, i]``
    input, any strides.
``s[k, t, i, j]``
    state number i *before* step t; ``s[., t + 1]`` is what step t produced; ``s[., ., 0]`` is the output h.
``z[k, t, r, j]``
    the buffer of a step. The products ``x W + b`` and ``h R`` arrive in it, each gate in the row its cell declares; two
    products declared for one row meet as a sum in registers. The cell's forward replaces them by what BPTT needs, its
    backward replaces that by the gradients of the products: one buffer serves all three.
``d[k, p, i, j]``
    gradient of state i; p alternates between "after the step" and "before the step". ``d[., 2]`` is scratch.
``u[k, i, j]``
    the cell's weights per unit, repeated for every sequence; ``du`` their gradients, per sequence.

A cell may declare one *late* row, whose recurrent product takes a row computed in this step (the *operand*, such as
``reset * h``) in place of h. It then has a second pair of functions.

``mask[t, b]`` is 1 where sequence b uses step t; elsewhere every state is carried over. A step computes the sequences
up to the last one that uses it: with sequences ordered by length, padding costs no arithmetic. ``gaps[t, k]`` is 1
where a sequence of band k does not use step t; elsewhere a band has nothing to carry.

``drop[k, j]`` holds the factors of recurrent dropout. The products with R then take ``h * drop``, kept as one more row
of s behind the states; the cell sees h itself.

``zone`` holds zoneout (Krueger et al., 2016), as `elman.kernels.random.zoneout` makes it: after the cell every element
of state k either keeps what it was before the step or takes what the cell computed. Element (t, k, b, unit) of the
stream decides, whatever the shard and the padding; the way back draws it again. The cell's backward needs what the cell
computed, which is as many rows of s as there are states, the last ones; the cell writes and reads them as its states.

Rows of the batch are independent: each shard runs all steps on its own rows. Inference uses two slots of s and one of z
in turn; training T + 1 and T.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from elman import jit
from elman.jit import Function, force_inlined, helper, invoke, matrix, spliced, tensor, types, vector
from elman.kernels.simd import element, pointer, pointer_at


class Span(NamedTuple):
    """Where a cell works in a band: flat indices `lo` to `hi`, whole sequences of `padded` units, `units` used."""

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
def _used(rows, first, band):
    """How many of the first `rows` sequences are in the band that begins with number `first`."""
    return max(0, min(band, rows - first))


@helper
def _reach(rows, k, band, units):
    """Flat index in band k behind the last of the first `rows` sequences."""
    return np.uint64(_used(rows, k * band, band) * units)


@spliced
def _products(
    g, is_late, rows, band, multiply, units, width, xp, xo, xr, xi, sp, so, sr, zp, zo, zr, operand_row, m, wp, bp,
    groups,
):  # fmt: skip
    """One group of gates: ``x W + b + h R`` into its rows of the buffer; xr, sr, zr as `multiply` takes strides."""
    row, count, kx, kh, offset = groups[g]
    block = units // width
    zero = np.int64(0)
    nothing = (wp, offset, zero, zero, zero)  # to fetch: a line that is at hand
    invoke(multiply, (
        rows, band, count * block, width, block,
        xp, xo, xr, xi, kx,
        zp if is_late else sp, zo + operand_row * m if is_late else so, zr if is_late else sr, np.int64(1), kh, zero,
        np.int64(1),
        wp, offset, kx + kh, zero,
        nothing,
        bp, row * units, units, (zero, zero),
        zp, zo + row * m, m, zr,
    ))  # fmt: skip


def _forward_shard(
    _, begin, end, cell, late, multiply, rare, x, x_strides, steps, slots, w, bias, groups, early, operand, h, width,
    mask, gaps, drop, zone, batch, fresh, u, s, z, y, first,
):  # fmt: skip
    carry_, zone_out_ = rare
    units, m = bias.shape[1], s.shape[3]
    band = m // units
    states = zone.size - 3 if zone.size > 0 else s.shape[2] - (drop.size > 0)
    hidden = states if drop.size > 0 else np.int64(0)
    own = s.shape[2] - states if zone.size > 0 else np.int64(0)
    xb, xt, xi = x_strides
    xp, wp, bp, sp, zp = pointer_at(x, s), pointer(w), pointer(bias), pointer(s), pointer(z)
    xr, sr, zr = (xb, band * xb), (units, s.shape[1] * s.shape[2] * m), (units, z.shape[1] * z.shape[2] * m)
    k0, k1, size, zero = begin // band, (end + band - 1) // band, np.uint64(m), np.uint64(0)
    if fresh:
        for k in range(k0, k1):
            for i in range(s.shape[2]):
                for j in range(size):
                    s[k, 0, i, j] = 0
    if drop.size > 0:
        for k in range(k0, k1):
            for j in range(size):
                s[k, 0, hidden, j] = s[k, 0, 0, j] * drop[k, j]
    for t in range(steps):
        before, after, slot = t % slots[0], (t + 1) % slots[0], t % slots[1]
        rows = _active(mask, t, begin, end)
        xo, zo = begin * xb + t * xt, k0 * zr[1] + slot * z.shape[2] * m
        so = k0 * sr[1] + (before * s.shape[2] + hidden) * m
        if rows > 0:
            for g in range(early):
                _products(
                    g, False, rows, band, multiply, units, width, xp, xo, xr, xi, sp, so, sr, zp, zo, zr, operand, m,
                    wp, bp, groups,
                )  # fmt: skip
            for k in range(k0, k1):
                at = Span(zero, _reach(begin + rows, k, band, units), np.uint64(h), np.uint64(units))
                if at.hi > 0:
                    invoke(cell, (z[k, slot], s[k, before], s[k, after, own:], u[k], at))
                    if early < groups.shape[0] and drop.size > 0:
                        for j in range(zero, at.hi):
                            z[k, slot, operand, j] *= drop[k, j]
            # The late product, last in the table, takes its operand from the buffer once the cell has written it.
            if early < groups.shape[0]:
                _products(
                    early, True, rows, band, multiply, units, width, xp, xo, xr, xi, sp, so, sr, zp, zo, zr, operand, m,
                    wp, bp, groups,
                )  # fmt: skip
                for k in range(k0, k1):
                    hi = _reach(begin + rows, k, band, units)
                    if hi > 0:
                        at = Span(zero, hi, np.uint64(h), np.uint64(units))
                        invoke(late, (z[k, slot], s[k, before], s[k, after, own:], u[k], at))
        if zone.size > 0 or mask.size > 0:
            for k in range(k0, k1):
                b = k * band
                used, whole = _used(begin + rows, b, band), _used(end, b, band)
                new = s[k, after, own:]
                if zone.size > 0:
                    invoke(zone_out_, (zone, t, b, used, batch, units, h, s[k, before], new, s[k, after]))
                if mask.size > 0 and gaps[t, k] > 0:
                    invoke(carry_, (mask, t, b, used, whole, units, states, s[k, before], s[k, after]))
                    if zone.size > 0:
                        # What overflowed at an excluded step would be NaN on the way back, times whatever gradient.
                        invoke(carry_, (mask, t, b, used, whole, units, states, s[k, before], new))
        if drop.size > 0:
            for k in range(k0, k1):
                for j in range(size):
                    s[k, after, hidden, j] = s[k, after, 0, j] * drop[k, j]
        if y.shape[1] > 0 and first + t >= 0:
            for k in range(k0, k1):
                for i in range(_used(end, k * band, band)):
                    out, state = y[k * band + i, first + t], s[k, after, 0, i * units : i * units + h]
                    for j in range(h):
                        out[j] = state[j]


def _forward_types(dtype):
    index, pair = types.int64, types.UniTuple(types.int64, 2)
    return (
        *(index,) * 6, pair, index, types.UniTuple(index, 3), index, pair, vector(dtype), matrix(dtype),
        matrix(np.int64), *(index,) * 4, matrix(np.uint8), matrix(np.uint8), matrix(dtype), vector(np.uint64), index,
        types.boolean, tensor(dtype, 3), tensor(dtype, 4), tensor(dtype, 4), tensor(dtype, 3), index,
    )  # fmt: skip


forward_shard = Function(_forward_shard, _forward_types)


@jit.spreading
def forward(
    team, pieces, most_rows, shard, cell, late, multiply, rare, x, x_strides, steps, slots, w, bias, groups, early,
    operand, h, width, mask, gaps, drop, zone, batch, fresh, u, s, z, y, first,
):  # fmt: skip
    """All `steps` forward, from zero states if it is `fresh`, else from those in ``s[:, 0]``.

    `y` (B, ., H) gets the outputs: step t is its step ``first + t``, where there is one.

    `shard` is the address of `forward_shard`, `x` an address with its strides (batch, time, feature) in elements.
    `slots` are the numbers of slots of s and z to use. ``pieces[i, p]`` are (begin, end) of sequences of thread i,
    whole bands, which are taken at most `most_rows` at a time. `rare` are the addresses of `carry` and `zone_out`;
    `batch` is B.
    """
    given = (
        cell, late, multiply, rare, x, x_strides, steps, slots, w, bias, groups, early, operand, h, width, mask, gaps,
        drop, zone, batch, fresh, u, s, z, y, first,
    )  # fmt: skip
    call, place = jit.bundle(shard, given, team)
    jit.spread(team, pieces, most_rows, call, place)


@force_inlined
def _through_weights(
    multiply, rows, band, columns, width, zp, zo, zr, first, count, units, h, m, panels, depth, skip, target, to,
    strides,
):  # fmt: skip
    """Add the gradients of `count` products, from buffer row `first` on, times transposed weights to `target`."""
    one, zero = np.int64(1), np.int64(0)
    nothing = (panels, zero, zero, zero, zero)  # to fetch: a line that is at hand
    invoke(multiply, (
        rows, band, columns, width, columns,
        zp, zero, (zero, zero), zero, zero,
        zp, zo + first * m, zr, one, h, m, count,
        panels, zero, depth, skip,
        nothing,
        target, to, zero, strides, target, to, zero, strides,
    ))  # fmt: skip


@spliced
def _backward_step(
    t, begin, end, rows, cell, late, multiply, units, s, own, rt, h_rows, operand, h, width, drop, u, z, d, now, du
):
    """From the gradients of the states after step t, ``d[., now]``, to those before it and to those of the products."""
    m, block = z.shape[3], units // width
    band = m // units
    k0, k1, zero, size, padded = begin // band, (end + band - 1) // band, np.uint64(0), np.uint64(h), np.uint64(units)
    zp, dp, rp = pointer(z), pointer(d), pointer(rt)
    zr, dr = (units, z.shape[1] * z.shape[2] * m), (units, d.shape[1] * d.shape[2] * m)
    zo, do, plane = k0 * zr[1] + t * z.shape[2] * m, k0 * dr[1], d.shape[2] * m
    h_first, h_count = h_rows
    depth = (h_count + (operand >= 0)) * h
    if operand >= 0:
        for k in range(k0, k1):
            after, hi = d[k, now], _reach(begin + rows, k, band, units)
            if hi > 0:
                at = Span(zero, hi, size, padded)
                invoke(late, (z[k, t], s[k, t], s[k, t + 1, own:], after, d[k, 1 - now], u[k], du[k], at))
                for j in range(zero, hi):
                    after[0, j] = 0
        # Gradient of the operand, from the late row through its block of the recurrent weights, into d[., now].
        _through_weights(
            multiply, rows, band, block, width, zp, zo, zr, h_first + h_count, np.int64(1), units, h, m, rp, depth,
            h_count * h, dp, do + now * plane, dr,
        )  # fmt: skip
        if drop.size > 0:
            for k in range(k0, k1):
                after = d[k, now]
                for j in range(zero, _reach(begin + rows, k, band, units)):
                    after[0, j] *= drop[k, j]
    # Dropped, the product goes to scratch first: h itself gets its gradient times the factor.
    scratch = d.shape[2] - 1
    for k in range(k0, k1):
        hi = _reach(begin + rows, k, band, units)
        if hi > 0:
            at = Span(zero, hi, size, padded)
            invoke(cell, (z[k, t], s[k, t], s[k, t + 1, own:], d[k, now], d[k, 1 - now], u[k], du[k], at))
            if drop.size > 0:
                for j in range(zero, hi):
                    d[k, 2, scratch, j] = 0
    if h_count > 0:
        to = do + (2 * plane + scratch * m if drop.size > 0 else (1 - now) * plane)
        _through_weights(
            multiply, rows, band, block, width, zp, zo, zr, h_first, h_count, units, h, m, rp, depth, np.int64(0), dp,
            to, dr,
        )  # fmt: skip
        if drop.size > 0:
            for k in range(k0, k1):
                before = d[k, 1 - now]
                for j in range(np.uint64(m)):  # behind the sequences that use the step, all is overwritten by `restore`
                    before[0, j] += d[k, 2, scratch, j] * drop[k, j]


@spliced
def _incoming(t, begin, end, units, h, dy, dy_strides, dy_step, d, now, norms):
    """Add the gradient of the outputs of step t, `dy_step` of dy, to that of h; the lengths of the sums to `norms`."""
    yp = pointer_at(dy, d)
    yb, yt, yj = dy_strides
    band = d.shape[3] // units
    for b in range(begin, end):
        k = b // band
        lo = (b - k * band) * units
        out = d[k, now, 0, lo : lo + h]
        if dy_step >= 0:
            gradient = b * yb + dy_step * yt
            for j in range(h):
                out[j] += element(yp, gradient + j * yj)
        if norms.size > 0:
            total = 0.0
            for j in range(h):
                total += np.float64(out[j]) * np.float64(out[j])
            norms[t, b] = np.sqrt(total)


def _backward_shard(
    _, begin, end, cell, late, multiply, rare, units, s, dy, dy_strides, dy_steps, steps, rt, wt, x_rows, h_rows,
    operand, h, width, mask, gaps, read, drop, zone, batch, fresh, u, z, d, du, dx, norms,
):  # fmt: skip
    set_aside_, restore_, hold_, release_ = rare
    m, states = z.shape[3], d.shape[2] - 1
    own = s.shape[2] - states if zone.size > 0 else np.int64(0)
    band = m // units
    k0, k1 = begin // band, (end + band - 1) // band
    xp, wp = pointer(dx), pointer(wt)
    zr = (units, z.shape[1] * z.shape[2] * m)
    x_first, x_count = x_rows
    now = 0
    if fresh:
        for k in range(k0, k1):
            for r in range(states):
                for j in range(np.uint64(m)):
                    d[k, 0, r, j] = 0
    for i in range(steps):
        t = steps - 1 - i
        rows = _active(mask, t, begin, end)
        if dy_steps - 1 - i >= 0 or norms.size > 0:
            _incoming(t, begin, end, units, h, dy, dy_strides, dy_steps - 1 - i, d, now, norms)
        if mask.size > 0 or zone.size > 0:
            for k in range(k0, k1):
                count = _used(begin + rows, k * band, band)
                if mask.size > 0 and count > 0 and gaps[t, k] > 0:
                    invoke(set_aside_, (mask, t, k * band, count, units, states, d[k, now], d[k, 2], z[k, t]))
                if zone.size > 0 and count > 0:
                    invoke(hold_, (zone, mask, t, k * band, count, batch, units, h, d[k, now], d[k, 2]))
        if rows > 0:
            _backward_step(
                t, begin, end, rows, cell, late, multiply, units, s, own, rt, h_rows, operand, h, width, drop, u, z, d,
                now, du,
            )  # fmt: skip
        if mask.size > 0 or zone.size > 0:
            for k in range(k0, k1):
                count = _used(begin + rows, k * band, band)
                if zone.size > 0 and count > 0:
                    invoke(release_, (states, np.uint64(0), np.uint64(count * units), d[k, 2], d[k, 1 - now]))
                if mask.size > 0 and gaps[t, k] > 0:
                    whole = _used(end, k * band, band)
                    invoke(restore_, (
                        mask, t, k * band, count, whole, np.int64(read[t, k]), units, states, d[k, now],
                        d[k, 2], d[k, 1 - now], z[k, t],
                    ))  # fmt: skip
        if dx.size > 0:
            inputs, zo = dx.shape[2], k0 * zr[1] + t * z.shape[2] * m
            xo = (t * dx.shape[1] + begin) * inputs
            for b in range(begin, end):
                for j in range(inputs):
                    dx[t, b, j] = 0
            if rows > 0:
                _through_weights(
                    multiply, rows, band, inputs // width, width, pointer(z), zo, zr, x_first, x_count, units, h, m, wp,
                    x_count * h, np.int64(0), xp, xo, (inputs, band * inputs),
                )  # fmt: skip
        now = 1 - now


def _backward_types(dtype):
    index, flag, pair, some = types.int64, types.boolean, types.UniTuple(types.int64, 2), tensor(dtype, 3)
    return (
        *(index,) * 6, types.UniTuple(index, 4), index, tensor(dtype, 4), index, types.UniTuple(index, 3), index, index,
        vector(dtype), vector(dtype), pair, pair, index, index, index, *(matrix(np.uint8),) * 3,
        matrix(dtype), vector(np.uint64), index, flag, some, tensor(dtype, 4), tensor(dtype, 4), some, some,
        matrix(np.float64),
    )  # fmt: skip


backward_shard = Function(_backward_shard, _backward_types)


@jit.spreading
def backward(
    team, pieces, most_rows, shard, cell, late, multiply, rare, units, s, dy, dy_strides, dy_steps, steps, rt, wt,
    x_rows, h_rows, operand, h, width, mask, gaps, read, drop, zone, batch, fresh, u, z, d, du, dx, norms,
):  # fmt: skip
    """All `steps` in reverse. ``d[., 0]`` enters as the last state's gradient, ``d[., T % 2]`` leaves as the first's.

    With `fresh` it enters as zero. `shard` is the address of `backward_shard`; `dy` that of the gradient of the outputs
    of the last `dy_steps` steps, with its strides (batch, time, unit). `dx` (T, B, Ip) gets that of the input unless it
    is empty, `norms` (T, B) the length of the gradient of h after every step. ``read[t, k]`` (with a mask) is the
    number of sequences of band k whose z `elman.kernels.weights` reads. `x_rows` and `h_rows` are (first, count) of the
    buffer rows with an input and an early recurrent product; `operand` is -1 for cells without a late row. `rare` are
    the addresses of `set_aside`, `restore`, `hold` and `release`; `batch` is B.
    """
    given = (
        cell, late, multiply, rare, units, s, dy, dy_strides, dy_steps, steps, rt, wt, x_rows, h_rows, operand, h,
        width, mask, gaps, read, drop, zone, batch, fresh, u, z, d, du, dx, norms,
    )  # fmt: skip
    call, place = jit.bundle(shard, given, team)
    jit.spread(team, pieces, most_rows, call, place)
