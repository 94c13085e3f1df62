"""Gradients of the weights, from the gate gradients that BPTT left in its buffer; notation as in `elman.kernels.scan`.

The batch is cut into *parts*, a few bands each, with sums of their own: a thread sums what it wrote itself on the way
back. Its core has that in its cache; and lines that no other core has read need not be taken back when the next step
writes them. The parts follow from sizes alone, so that the bits do not depend on the number of threads.

In a part, blocks of `time_block` steps are summed from the last to the first, so that the segments of a recurrence with
checkpoints, which become known in that order, give the same sums; in a block band after band.
"""

from __future__ import annotations

import numpy as np

from elman import jit
from elman.jit import Function, helper, invoke, matrix, spliced, tensor, types, vector
from elman.kernels.matmul import UNBANDED
from elman.kernels.simd import ROWS, element, gather, merge, pile, pointer, pointer_at

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
def _choose(which, first, second, third):
    return first if which == 0 else second if which == 1 else third


@spliced
def _add_run(
    tasks, multiply, x, x_strides, most, k, k0, k1, rows, t, steps, units, s, hidden, z, operand, width, panel, po,
    packed, ao, sums,
):  # fmt: skip
    """Add to the sums of a few panels what `rows` sequences of band k, one of ``k0..k1``, give in `steps` from t on.

    `most` are the most rows of x, of h and of a late operand that a panel takes.
    """
    m = z.shape[3]
    b, length = k * (m // units), rows * steps
    xb, xt, xi = x_strides
    inputs, early, late = most
    one, tile = np.int64(1), np.int64(ROWS)
    s_step, z_step = s.shape[2] * m, z.shape[2] * m
    run = (k * z.shape[1] + t) * z_step
    # The run behind this one: that of the next band, or of the part's first one in the block before. With masks, and
    # behind a last block that is shorter, it is another one; a wrong guess costs nothing but the fetch.
    ahead = z.shape[1] * z_step if k + 1 < k1 else -((k - k0) * z.shape[1] + steps) * z_step
    # What is multiplied with gate gradients: x, h, and the operand of a late product; each with its features and the
    # strides of a feature, a sequence and a step.
    given = pointer_at(x, z), b * xb + t * xt, inputs, xi, xb, xt
    states = pointer(s), (k * s.shape[1] + t) * s_step + hidden * m, early, one, units, s_step
    operands = pointer(z), run + operand * m, late, one, units, z_step
    # Where their copies begin, each in whole bands of features.
    ho = ao + (inputs + ROWS - 1) // ROWS * ROWS * length
    mo = ho + (early + ROWS - 1) // ROWS * ROWS * length
    if packed.size > 0:
        for which in range(3):
            source, place, features, feature, sequence, step = _choose(which, given, states, operands)
            to = _choose(which, ao, ho, mo)
            _pack_features(source, place, feature, sequence, step, features, rows, steps, packed, to)
    for i in range(tasks.shape[0]):
        q, count, kx, kh, is_late, start = tasks[i]
        recurrent = start + kx * count * width
        bias = recurrent + kh * count * width
        _pack_gradients(z, k, t, steps, rows, units, width, q, count, panel, po, sums, bias)
        soon = _following(tasks, i, z, run, ahead, units, width)
        # In a loop, as LLVM would compile a call in each of four branches on its own: 0.5 s of a first fit.
        for recurs in range(2):
            which = recurs + (recurs & is_late)
            source, place, _, feature, sequence, step = _choose(which, given, states, operands)
            band, apart = UNBANDED, np.int64(0)
            if packed.size > 0:  # a band of features behind the other
                source, place, feature = pointer(packed), _choose(which, ao, ho, mo), one
                band, apart, sequence, step = tile, length * ROWS, tile, tile * rows
            features, to = (kh, recurrent) if recurs else (kx, start)
            if features > 0:
                _accumulate(
                    multiply, features, count, width, source, place, feature, band, apart, sequence, step, rows, steps,
                    panel, po, sums, to, soon,
                )  # fmt: skip


@spliced
def _chunk_gradient(
    tasks, multiply, x, x_strides, steps, batch, k0, k1, units, s, hidden, z, operand, width, read, time_block, panel,
    po, packed, ao, sums,
):  # fmt: skip
    """Sums of all weights in the columns of a few panels over bands ``k0..k1`` and all steps, in one fixed order.

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
        for k in range(k0, k1):
            begin, rows = block * time_block, min(batch - k * band, band)
            while begin < end and rows > 0:
                t = end
                if read.size > 0:
                    t = begin + 1
                    rows = np.int64(read[begin, k])
                    while t < end and read[t, k] == rows:
                        t += 1
                if rows > 0:
                    _add_run(
                        tasks, multiply, x, x_strides, most, k, k0, k1, rows, begin, t - begin, units, s, hidden, z,
                        operand, width, panel, po, packed, ao, sums,
                    )  # fmt: skip
                begin = t


def _shard(
    i, begin, end, threads, chunk, tasks, multiply, x, x_strides, steps, batch, units, s, hidden, z, operand, width,
    read, time_block, begins, panel, packed, sums,
):  # fmt: skip
    """Items ``begin..end`` for thread i: panels of one part after another, `chunk` at a time."""
    size, own = panel.size // threads, packed.size // threads
    panels, parts, bands = tasks.shape[0], sums.shape[0], z.shape[0]
    item = begin
    while item < end:
        p = item // panels
        first = item - p * panels
        some, mine = tasks[first : min(first + chunk, first + end - item, panels)], sums[p]
        if begins:
            for j in range(some.shape[0]):
                start = some[j, 5]
                for e in range(start, start + (some[j, 2] + some[j, 3] + 1) * some[j, 1] * width):
                    mine[e] = 0
        _chunk_gradient(
            some, multiply, x, x_strides, steps, batch, p * bands // parts, (p + 1) * bands // parts, units, s, hidden,
            z, operand, width, read, time_block, panel, i * size, packed, i * own, mine,
        )  # fmt: skip
        item += some.shape[0]


def _types(dtype):
    index, one = types.int64, vector(dtype)
    return (
        *(index,) * 5, matrix(np.int64), index, index, types.UniTuple(index, 3), index, index, index,
        tensor(dtype, 4), index, tensor(dtype, 4), index, index, matrix(np.uint8), index, types.boolean, one, one,
        matrix(dtype),
    )  # fmt: skip


shard = Function(_shard, _types)


@jit.spreading
def weight_gradients(
    team, pieces, shard, chunk, tasks, multiply, x, x_strides, steps, batch, units, s, hidden, z, operand, width, read,
    time_block, begins, panel, packed, sums,
):  # fmt: skip
    """Sums of the gradients of kernel, recurrent kernel and bias from the buffers BPTT left behind, (parts, .).

    Parallel over items: the panels in `tasks` of the first part of the batch, those of the next one, and so on. Thread
    i works on items ``pieces[i, 0, 0]`` to ``pieces[i, 0, 1]``, `chunk` panels at a time, with its own part of the
    scratch vectors `panel` and `packed`. No sum crosses an item, so the bits do not depend on the shards. The sums are
    set to zero if this segment of the time `begins` them.
    `shard` is the address of the function of that name, `hidden` the row of s the recurrent products took;
    ``read[t, k]`` (or none) is the number of sequences of band k up to the last one that uses a step of t's block from
    t on: it falls within a block, and each run of steps with as many sequences is one product.
    """
    given = (
        pieces.shape[0], chunk, tasks, multiply, x, x_strides, steps, batch, units, s, hidden, z, operand, width, read,
        time_block, begins, panel, packed, sums,
    )  # fmt: skip
    call, place = jit.bundle(shard, given, team)
    jit.spread(team, pieces, UNBANDED, call, place)


@spliced
def _hand_over(sums, mo, row, features, q, count, width, units, h, gates, target):
    """Add up `features` rows of one panel's sums, all parts of them, to the rows of a user's matrix from `row` on."""
    block, parts, apart = units // width, sums.shape[0], sums.shape[1]
    sp, tp, line = pointer(sums), pointer(target), target.shape[1]
    for v in range(count):
        gate, unit = gates[(q + v) // block], ((q + v) % block) * width
        if gate >= 0:
            so, to = mo + v * width, row * line + gate * h + unit
            if h - unit >= width:
                merge(sp, so, count * width, features, parts, apart, tp, to, line)
            else:
                for k in range(features):
                    for j in range(h - unit):
                        at = so + k * count * width + j
                        total = element(sp, at)
                        for p in range(1, parts):
                            total += element(sp, at + p * apart)
                        target[row + k, gate * h + unit + j] = total


def _collect_shard(_, begin, end, tasks, width, units, h, x_gates, h_gates, sums, dw, dr, db):
    """Panels ``begin..end``."""
    for i in range(begin, end):
        q, count, kx, kh, _, start = tasks[i]
        recurrent = start + kx * count * width
        bias = recurrent + kh * count * width
        for which in range(2 + db.shape[0]):  # kernel, recurrent kernel, bias, recurrent bias
            features, mo = _choose(which, kx, kh, np.int64(1)), _choose(which, start, recurrent, bias)
            gates, target = h_gates if which % 2 else x_gates, dw if which == 0 else dr if which == 1 else db
            _hand_over(sums, mo, max(which - 2, 0), features, q, count, width, units, h, gates, target)


def _collect_types(dtype):
    index, gates = types.int64, vector(np.int64)
    return *(index,) * 3, matrix(np.int64), *(index,) * 3, gates, gates, *(matrix(dtype),) * 4


collect_shard = Function(_collect_shard, _collect_types)


@jit.spreading
def collect(team, pieces, shard, tasks, width, units, h, x_gates, h_gates, sums, dw, dr, db):
    """Gradients of kernel (I, G), recurrent kernel (H, G) and bias (0..2, G) from the sums of `weight_gradients`.

    Parallel over the panels in `tasks`; `shard` is the address of `collect_shard`.
    """
    call, place = jit.bundle(shard, (tasks, width, units, h, x_gates, h_gates, sums, dw, dr, db), team)
    jit.spread(team, pieces, UNBANDED, call, place)
