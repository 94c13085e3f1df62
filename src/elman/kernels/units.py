"""The recurrence of one sequence, whose units are shared out to threads; notation as in `elman.kernels.scan`.

A batch of 1 has no rows to share out. Here every thread has some panels of each gate's columns: their products, then
the arithmetic of these units, and on the way back the same columns of the transposed weights. In each step it needs the
h of all units, or the gradients of all products, for which the threads meet (`elman.kernels.meeting`). The weights of
LSTM(64) come from the second-level cache in every step; half of them nearly fit the first-level one.

A cell that mixes units, and a network that is too small, has one share. Sequences with a mask or noise are left to
`elman.kernels.scan`, which is why this can do with fewer questions in each step: one thread takes 0.9 of the time for
an Elman net of 64 units on the way back.
"""

from __future__ import annotations

import numpy as np

from elman import jit
from elman.jit import Function, helper, invoke, matrix, spliced, tensor, types, vector
from elman.kernels.meeting import WORDS, arrive, gathered, meet, part
from elman.kernels.scan import Span
from elman.kernels.simd import CHAINS, VECTORS, element, pointer, pointer_at


@helper
def _share(columns, width, shares):
    """Columns of a share, whole panels; the last one may have fewer."""
    panel = VECTORS * width
    return ((columns + panel - 1) // panel + shares - 1) // shares * panel


@helper
def _own(i, shares, together):
    """The shares that thread i does now, from, to."""
    return (i, i + 1) if together else (np.int64(0), shares)


@helper
def _columns(own, share, columns):
    """The columns of some shares, from, to."""
    return min(own[0] * share, columns), min(own[1] * share, columns)


@helper
def _span(own, share, h, units):
    """Where the cell works for some shares: one row of as many units, for a cell that takes rows against its word."""
    lo, hi = _columns(own, share, units)
    return Span(np.uint64(lo), np.uint64(hi), np.uint64(min(hi, h) - lo), np.uint64(hi - lo))


@spliced
def _products(
    begin, end, own, share, back, is_late, multiply, units, width, xp, xo, xi, sp, so, zp, zo, operand_row, wp, bp,
    groups,
):  # fmt: skip
    """``x W + b + h R`` for some shares of the groups of gates ``begin..end``, into their units of the buffer.

    A few gates at a time, and `back` from the last to the first: in every other step, so that half of the weights that
    fit the first-level cache are still there.
    """
    zero, one, none = np.int64(0), np.int64(1), (np.int64(0), np.int64(0))
    several = max(one, CHAINS * width // share)
    begins, ends = _columns(own, share, units)
    for first in range(begins, ends, share):
        some = min(share, ends - first)
        size = some // width
        whole = size % VECTORS == 0
        for n in range(end - begin):
            row, gates, kx, kh, offset = groups[end - 1 - n if back else begin + n]
            few = several if whole else gates  # all of them where a panel belongs to two
            turns = (gates + few - 1) // few
            for c in range(turns):
                gate = (turns - 1 - c if back else c) * few
                to = (row + gate) * units + first
                invoke(multiply, (
                    one, one, min(few, gates - gate) * size, width, size,
                    xp, xo, none, xi, kx,
                    zp if is_late else sp, zo + operand_row * units if is_late else so, none, one, kh, zero, one,
                    wp, offset + (gates * first + gate * some) * (kx + kh), kx + kh, zero,
                    (wp, offset, zero, zero, zero),
                    bp, to, units, none,
                    zp, zo + to, units, none,
                ))  # fmt: skip


def _forward_shard(
    i, _, __, meeting, patience, cell, late, multiply, x, x_strides, steps, slots, w, bias, groups, early, operand, h,
    width, fresh, u, s, z, y, first,
):  # fmt: skip
    rows, units, shares, zero = s.shape[2], s.shape[3], meeting.size // WORDS, np.int64(0)
    xp, wp, bp, sp, zp = pointer_at(x, s), pointer(w), pointer(bias), pointer(s), pointer(z)
    share, meetings = _share(units, width, shares), groups.shape[0] - early + 1
    start, begin = arrive(meeting, i, steps * meetings)
    if begin < 0:
        return
    home, together = start + steps * meetings + 1, i > 0
    if i == 0 and fresh:
        for r in range(rows):
            for j in range(units):
                s[0, 0, r, j] = 0
    before, slot = begin % slots[0], begin % slots[1]
    for t in range(begin, steps):
        count, after = start + t * meetings, before + 1 if before + 1 < slots[0] else 0
        if shares > 1 and not together:
            together = gathered(meeting, start, t, t * meetings)
        own = _own(i, shares, together)
        at = _span(own, share, h, units)
        xo, so, zo = t * x_strides[1], before * rows * units, slot * z.shape[2] * units
        _products(
            zero, early, own, share, t % 2 == 1, False, multiply, units, width, xp, xo, x_strides[2], sp, so, zp, zo,
            operand, wp, bp, groups,
        )  # fmt: skip
        invoke(cell, (z[0, slot], s[0, before], s[0, after], u[0], at))
        if meetings == 2:
            together = together and meet(meeting, i, count + 1, home, patience)
            if i > 0 and not together:
                return
            own = _own(i, shares, together)
            at = _span(own, share, h, units)
            _products(
                early, early + 1, own, share, False, True, multiply, units, width, xp, xo, x_strides[2], sp, so, zp, zo,
                operand, wp, bp, groups,
            )  # fmt: skip
            invoke(late, (z[0, slot], s[0, before], s[0, after], u[0], at))
        if y.shape[1] > 0 and first + t >= 0:
            out, state = y[0, first + t], s[0, after, 0]
            for j in range(at.lo, at.lo + at.units):
                out[j] = state[j]
        together = together and meet(meeting, i, count + meetings, home, patience)
        if i > 0 and not together:
            return
        before, slot = after, slot + 1 if slot + 1 < slots[1] else 0
    part(meeting, i, home, together)


def _forward_types(dtype):
    index = types.int64
    return (
        *(index,) * 3, vector(np.int64), *(index,) * 5, types.UniTuple(index, 3), index, types.UniTuple(index, 2),
        vector(dtype), matrix(dtype), matrix(np.int64), *(index,) * 4, types.boolean, tensor(dtype, 3),
        tensor(dtype, 4), tensor(dtype, 4), tensor(dtype, 3), index,
    )  # fmt: skip


forward_shard = Function(_forward_shard, _forward_types)


@jit.spreading
def forward(
    team, pieces, shard, meeting, patience, cell, late, multiply, x, x_strides, steps, slots, w, bias, groups, early,
    operand, h, width, fresh, u, s, z, y, first,
):  # fmt: skip
    """`elman.kernels.scan.forward` of one sequence, with the weights in the order of `elman.plans.packed_panels`.

    There is one share per thread, and each of them gets the whole sequence as its piece. `shard` is the address of
    `forward_shard`; `meeting` and `patience`, in looks per meeting, are those of `elman.kernels.meeting`.
    """
    given = (
        meeting, patience, cell, late, multiply, x, x_strides, steps, slots, w, bias, groups, early, operand, h, width,
        fresh, u, s, z, y, first,
    )  # fmt: skip
    call, place = jit.bundle(shard, given, team)
    jit.spread(team, pieces, np.int64(1), call, place)


@helper
def _through_weights(
    multiply, columns, width, zp, zo, first, count, units, h, panels, depth, skip, target, to,
):  # fmt: skip
    """Add to some columns (from, to) the gradients of `count` products times transposed weights.

    The products are those from buffer row `first` on.
    """
    zero, one, none = np.int64(0), np.int64(1), (np.int64(0), np.int64(0))
    begin, end = columns
    vectors = (end - begin) // width
    to += begin
    if vectors > 0:
        invoke(multiply, (
            one, one, vectors, width, vectors,
            zp, zero, none, zero, zero,
            zp, zo + first * units, none, one, h, units, count,
            panels, begin * depth, depth, skip,
            (panels, zero, zero, zero, zero),
            target, to, zero, none, target, to, zero, none,
        ))  # fmt: skip


def _backward_shard(
    i, _, __, meeting, patience, cell, late, multiply, units, s, dy, dy_strides, dy_steps, steps, rt, wt, x_rows,
    h_rows, operand, h, width, fresh, u, z, d, du, dx,
):  # fmt: skip
    shares, plane, inputs = meeting.size // WORDS, d.shape[2] * units, dx.shape[2]
    share, share_x = _share(units, width, shares), _share(inputs, width, shares)
    yp, zp, dp, rp, wp, xp = pointer_at(dy, d), pointer(z), pointer(d), pointer(rt), pointer(wt), pointer(dx)
    (h_first, h_count), (x_first, x_count), one = h_rows, x_rows, np.int64(1)
    depth = (h_count + (operand >= 0)) * h
    meetings = 2 if operand >= 0 else 1
    start, begin = arrive(meeting, i, steps * meetings)
    if begin < 0:
        return
    home, together = start + steps * meetings + 1, i > 0
    if i == 0 and fresh:
        for r in range(d.shape[2] - 1):
            for j in range(units):
                d[0, 0, r, j] = 0
    for step in range(begin, steps):
        t, now, count = steps - 1 - step, step % 2, start + step * meetings
        if shares > 1 and not together:
            together = gathered(meeting, start, step, step * meetings)
        own = _own(i, shares, together)
        at = _span(own, share, h, units)
        after, zo = d[0, now], t * z.shape[2] * units
        if dy_steps - 1 - step >= 0:
            gradient = (dy_steps - 1 - step) * dy_strides[1]
            for j in range(at.lo, at.lo + at.units):
                after[0, j] += element(yp, gradient + np.int64(j) * dy_strides[2])
        if operand >= 0:
            invoke(late, (z[0, t], s[0, t], s[0, t + 1], after, d[0, 1 - now], u[0], du[0], at))
            for j in range(at.lo, at.hi):
                after[0, j] = 0
            together = together and meet(meeting, i, count + 1, home, patience)
            if i > 0 and not together:
                return
            own = _own(i, shares, together)
            at = _span(own, share, h, units)
            # Gradient of the operand, from the late row through its block of the recurrent weights.
            _through_weights(
                multiply, _columns(own, share, units), width, zp, zo, h_first + h_count, one, units, h, rp, depth,
                h_count * h, dp, now * plane,
            )  # fmt: skip
        invoke(cell, (z[0, t], s[0, t], s[0, t + 1], after, d[0, 1 - now], u[0], du[0], at))
        together = together and meet(meeting, i, count + meetings, home, patience)
        if i > 0 and not together:
            return
        own = _own(i, shares, together)
        if h_count > 0:
            _through_weights(
                multiply, _columns(own, share, units), width, zp, zo, h_first, h_count, units, h, rp, depth,
                np.int64(0), dp, (1 - now) * plane,
            )  # fmt: skip
        if inputs > 0:
            mine = _columns(own, share_x, inputs)
            for j in range(mine[0], mine[1]):
                dx[t, 0, j] = 0
            _through_weights(
                multiply, mine, width, zp, zo, x_first, x_count, units, h, wp, x_count * h, np.int64(0),
                xp, t * inputs,
            )  # fmt: skip
    part(meeting, i, home, together)


def _backward_types(dtype):
    index, pair, some = types.int64, types.UniTuple(types.int64, 2), tensor(dtype, 3)
    return (
        *(index,) * 3, vector(np.int64), *(index,) * 5, tensor(dtype, 4), index, types.UniTuple(index, 3), index, index,
        vector(dtype), vector(dtype), pair, pair, index, index, index, types.boolean, some, tensor(dtype, 4),
        tensor(dtype, 4), some, some,
    )  # fmt: skip


backward_shard = Function(_backward_shard, _backward_types)


@jit.spreading
def backward(
    team, pieces, shard, meeting, patience, cell, late, multiply, units, s, dy, dy_strides, dy_steps, steps, rt, wt,
    x_rows, h_rows, operand, h, width, fresh, u, z, d, du, dx,
):  # fmt: skip
    """`elman.kernels.scan.backward` of one sequence. `shard` is the address of `backward_shard`; see `forward`."""
    given = (
        meeting, patience, cell, late, multiply, units, s, dy, dy_strides, dy_steps, steps, rt, wt, x_rows, h_rows,
        operand, h, width, fresh, u, z, d, du, dx,
    )  # fmt: skip
    call, place = jit.bundle(shard, given, team)
    jit.spread(team, pieces, np.int64(1), call, place)
