"""Gradients of the weights, from the gate gradients that BPTT left in its buffer; notation as in `elman.kernels.scan`.

Blocks of `time_block` steps are summed from the last to the first, so that the segments of a recurrence with
checkpoints, which become known in that order, give the same sums; in a block band after band.
"""

from __future__ import annotations

import numpy as np

from elman import jit
from elman.jit import Function, helper, invoke, matrix, spliced, tensor, types, vector
from elman.kernels.matmul import UNBANDED
from elman.kernels.simd import ROWS, element, gather, pile, pointer, pointer_at

STEP_ROWS = 256
"""Rows (t, b) of gate gradients packed at a time: 256 x 2 vectors of float32 are 32 KiB, the first-level cache."""


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
def _pack_features(source, so, feature, sequence, step, features, rows, steps, target, to):
    """Copy the features of `steps` steps of `rows` sequences to bands of ROWS features, each in one piece of memory.

    Strides are named by what they step over. A sequence's features a power of two apart, as those of h often are, meet
    in a few sets of the first-level cache: LSTM (64,100,8,128) took 1.3 times as long without the copy.
    """
    length = rows * steps
    whole = features // ROWS * ROWS if feature == 1 else 0
    for i in range(steps):
        place, line = so + i * step, to + i * rows * ROWS
        for f in range(0, whole, ROWS):
            pile(source, place + f, sequence, rows, pointer(target), line + f * length)
        for f in range(whole, features):
            k = f // ROWS
            for b in range(rows):
                target[line + (k * length + b - k) * ROWS + f] = element(source, place + b * sequence + f * feature)


@helper
def _accumulate(
    multiply, features, count, width, ap, ao, feature, band, apart, sequence, step, rows, steps, panel, po, sums, mo,
    soon,
):  # fmt: skip
    """``sums += A^T panel`` over `steps` steps of `rows` sequences; A's strides are named by what they step over.

    Its features lie in bands of `band`, `apart` from each other. `soon` is what to fetch meanwhile, by `_following`.
    """
    zero, one = np.int64(0), np.int64(1)
    inner, inner_stride, outer, outer_stride = rows, sequence, steps, step
    if rows == 1:  # one long sum, not many of length one
        inner, inner_stride, outer, outer_stride = steps, step, one, zero
        soon = soon[0], soon[1], soon[3], zero, soon[4]
    pp, mp, strides = pointer(panel), pointer(sums), (count * width, count * width * band)
    invoke(multiply, (
        features, band, count, width, count,
        ap, zero, (zero, zero), zero, zero,
        ap, ao, (feature, apart), inner_stride, inner, outer_stride, outer,
        pp, po, inner * outer, zero,
        soon,
        mp, mo, zero, strides, mp, mo, zero, strides,
    ))  # fmt: skip


@helper
def _following(tasks, i, z, place, ahead, units, width):
    """Where the gate gradients of the panel behind panel i lie, for `_accumulate`.

    Their lines are too far apart for the processor to foresee: waiting for them took a tenth of the time. `place` is
    where this run begins in z; the panel behind the last one is the first, `ahead` further.
    """
    m, block, last = z.shape[3], units // width, i + 1 == tasks.shape[0]
    q = tasks[0 if last else i + 1, 0]
    place += (q // block) * m + (q % block) * width + (ahead if last else 0)
    return pointer(z), place, units, z.shape[2] * m, width


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


@spliced
def _add_run(
    tasks, multiply, x, x_strides, most, b, rows, t, steps, units, s, hidden, z, operand, width, panel, po, packed, ao,
    sums,
):  # fmt: skip
    """Add to the sums of a few panels what `rows` sequences of a band, from number b on, give in `steps` from t on.

    `most` are the most rows of x, of h and of a late operand that a panel takes.
    """
    m = z.shape[3]
    k, length = b // (m // units), rows * steps
    xb, xt, xi = x_strides
    inputs, early, late = most
    xp, zero, one = pointer_at(x, z), np.int64(0), np.int64(1)
    s_step, z_step = s.shape[2] * m, z.shape[2] * m
    so, run = (k * s.shape[1] + t) * s_step + hidden * m, (k * z.shape[1] + t) * z_step
    zo = run + operand * m
    # The run behind this one: that of the next band, or of the first one in the block before. With masks, and behind a
    # last block that is shorter, it is another one; a wrong guess costs nothing but the fetch.
    ahead = z.shape[1] * z_step if k + 1 < z.shape[0] else -(k * z.shape[1] + steps) * z_step
    xo = b * xb + t * xt
    # Where x, h and the operand of a late product begin, each in whole bands of features.
    ho = ao + (inputs + ROWS - 1) // ROWS * ROWS * length
    mo = ho + (early + ROWS - 1) // ROWS * ROWS * length
    if packed.size > 0:
        _pack_features(xp, xo, xi, xb, xt, inputs, rows, steps, packed, ao)
        _pack_features(pointer(s), so, one, units, s_step, early, rows, steps, packed, ho)
        _pack_features(pointer(z), zo, one, units, z_step, late, rows, steps, packed, mo)
    for i in range(tasks.shape[0]):
        q, count, kx, kh, is_late, _, start = tasks[i]
        recurrent = start + kx * count * width
        bias = recurrent + kh * count * width
        _pack_gradients(z, k, t, steps, rows, units, width, q, count, panel, po, sums, bias)
        soon = _following(tasks, i, z, run, ahead, units, width)
        if packed.size > 0:
            # A band of features behind the other.
            pp, tile, apart = pointer(packed), np.int64(ROWS), length * ROWS
            if kx > 0:
                _accumulate(
                    multiply, kx, count, width, pp, ao, one, tile, apart, tile, tile * rows, rows, steps, panel, po,
                    sums, start, soon,
                )  # fmt: skip
            if kh > 0:
                place = mo if is_late else ho
                _accumulate(
                    multiply, kh, count, width, pp, place, one, tile, apart, tile, tile * rows, rows, steps, panel, po,
                    sums, recurrent, soon,
                )  # fmt: skip
        else:
            if kx > 0:
                _accumulate(
                    multiply, kx, count, width, xp, xo, xi, UNBANDED, zero, xb, xt, rows, steps, panel, po, sums, start,
                    soon,
                )  # fmt: skip
            if kh > 0:
                source, place, step = (z, zo, z_step) if is_late else (s, so, s_step)
                _accumulate(
                    multiply, kh, count, width, pointer(source), place, one, UNBANDED, zero, units, step, rows, steps,
                    panel, po, sums, recurrent, soon,
                )  # fmt: skip


@spliced
def _chunk_gradient(
    tasks, multiply, x, x_strides, steps, batch, units, s, hidden, z, operand, width, read, time_block, panel, po,
    packed, ao, sums,
):  # fmt: skip
    """Sums of all weights in the columns of a few panels over (t, b), in one fixed order.

    Panels go together so that a block of x and h, fetched and packed once, serves all of them from the second-level
    cache. Nothing is packed without memory for it, `packed`.
    """
    band = z.shape[3] // units
    inputs, early, late = np.int64(0), np.int64(0), np.int64(0)
    for i in range(tasks.shape[0]):
        inputs = max(inputs, tasks[i, 2])
        if tasks[i, 4] == 0:
            early = max(early, tasks[i, 3])
        else:
            late = max(late, tasks[i, 3])
    most = (inputs, early, late)
    for block in range((steps - 1) // time_block, -1, -1):
        end = min((block + 1) * time_block, steps)
        for b in range(0, batch, band):
            begin, rows = block * time_block, min(batch - b, band)
            while begin < end and rows > 0:
                t = end
                if read.size > 0:
                    k, t = b // band, begin + 1
                    rows = np.int64(read[begin, k])
                    while t < end and read[t, k] == rows:
                        t += 1
                if rows > 0:
                    _add_run(
                        tasks, multiply, x, x_strides, most, b, rows, begin, t - begin, units, s, hidden, z, operand,
                        width, panel, po, packed, ao, sums,
                    )  # fmt: skip
                begin = t


@spliced
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


def _shard(
    i, begin, end, threads, tasks, multiply, x, x_strides, steps, batch, units, s, hidden, z, operand, h, width,
    x_gates, h_gates, read, time_block, begins, ends, panel, packed, sums, dw, dr, db,
):  # fmt: skip
    """Some panels of thread i."""
    part, size, own = tasks[begin:end], panel.size // threads, packed.size // threads
    if begins:
        for j in range(part.shape[0]):
            start = part[j, 6]
            for e in range(start, start + (part[j, 2] + part[j, 3] + 1) * part[j, 1] * width):
                sums[e] = 0
    _chunk_gradient(
        part, multiply, x, x_strides, steps, batch, units, s, hidden, z, operand, width, read, time_block, panel,
        i * size, packed, i * own, sums,
    )  # fmt: skip
    if ends:
        _finish(part, width, units, h, x_gates, h_gates, sums, dw, dr, db)


def _types(dtype):
    index, gates, one = types.int64, vector(np.int64), vector(dtype)
    return (
        *(index,) * 4, matrix(np.int64), index, index, types.UniTuple(index, 3), index, index, index,
        tensor(dtype, 4), index, tensor(dtype, 4), index, index, index, gates, gates, matrix(np.uint8), index,
        types.boolean, types.boolean, one, one, one, *(matrix(dtype),) * 3,
    )  # fmt: skip


shard = Function(_shard, _types)


@jit.spreading
def weight_gradients(
    team, pieces, chunk, shard, tasks, multiply, x, x_strides, steps, batch, units, s, hidden, z, operand, h, width,
    x_gates, h_gates, read, time_block, begins, ends, panel, packed, sums, dw, dr, db,
):  # fmt: skip
    """Gradients of kernel (I, G), recurrent kernel (H, G) and bias (0..2, G) from the buffers BPTT left behind.

    Parallel over column panels: thread i works on `tasks` from ``pieces[i, 0, 0]`` to ``pieces[i, 0, 1]``, `chunk`
    panels at a time, with its own part of the scratch vectors `panel` and `packed`. No sum crosses a panel, so the bits
    do not depend on the shards. The sums are set to zero if this segment of the time `begins` them and handed over if
    it `ends` them.
    `shard` is the address of the function of that name, `hidden` the row of s the recurrent products took;
    ``read[t, k]`` (or none) is the number of sequences of band k up to the last one that uses a step of t's block from
    t on: it falls within a block, and each run of steps with as many sequences is one product.
    """
    given = (
        pieces.shape[0], tasks, multiply, x, x_strides, steps, batch, units, s, hidden, z, operand, h, width, x_gates,
        h_gates, read, time_block, begins, ends, panel, packed, sums, dw, dr, db,
    )  # fmt: skip
    call, place = jit.bundle(shard, given, team)
    jit.spread(team, pieces, chunk, call, place)
