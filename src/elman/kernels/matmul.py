"""Products of strided matrices with packed panels, of any size, and the packing.

A panel holds ``VECTORS`` vectors of columns (the last one may hold fewer) for all K, row by row, zero-padded. Panels
follow one another, so the panel that begins at vector ``q`` lies at ``q * width * K``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from elman import jit
from elman.jit import Function, helper, matrix, spliced, types, vector
from elman.kernels.simd import ROWS, VECTORS, tile

UNBANDED = np.int64(1 << 40)
"""The band of rows that all lie evenly."""


@spliced
def _wide_row(
    vectors, width, block, a, ao, aks, ka, b, bo, bks, kb, bss, segments, p, po, pk, first, soon, d, do, dgs, c, co,
    cgs,
):  # fmt: skip
    """One row of the product, up to 8 vectors at a time."""
    ps = VECTORS * width * pk
    skip = first * VECTORS * width
    q, at = 0, _FIRST
    while vectors - q >= 8:
        ats = _next8(at, block)
        cs, ds = _places8(co, cgs, width, ats), _places8(do, dgs, width, ats)
        pq = po + q * width * pk + skip
        tile(1, 8, a, ao, 0, aks, ka, b, bo, 0, bks, kb, bss, segments, p, pq, ps, soon, d, ds, 0, c, cs, 0)
        q, at = q + 8, _after(ats[7], block)
    if vectors - q >= 4:
        ats = _next4(at, block)
        cs, ds = _places4(co, cgs, width, ats), _places4(do, dgs, width, ats)
        pq = po + q * width * pk + skip
        tile(1, 4, a, ao, 0, aks, ka, b, bo, 0, bks, kb, bss, segments, p, pq, ps, soon, d, ds, 0, c, cs, 0)
        q, at = q + 4, _after(ats[3], block)
    if vectors - q >= 2:
        ats = _next2(at, block)
        cs, ds = _places2(co, cgs, width, ats), _places2(do, dgs, width, ats)
        pq = po + q * width * pk + skip
        tile(1, 2, a, ao, 0, aks, ka, b, bo, 0, bks, kb, bss, segments, p, pq, ps, soon, d, ds, 0, c, cs, 0)
        q, at = q + 2, _after(ats[1], block)
    if vectors > q:
        cs, ds = (_place(co, cgs, width, at),), (_place(do, dgs, width, at),)
        pq = po + q * width * pk + first * width
        tile(1, 1, a, ao, 0, aks, ka, b, bo, 0, bks, kb, bss, segments, p, pq, ps, soon, d, ds, 0, c, cs, 0)


# Where a vector of columns is: (block, number in it). Counted on, as two divisions per vector take a third of the
# product of one row of 40 numbers with eight vectors.
_FIRST = (np.int64(0), np.int64(0))


@helper
def _after(at, block):
    return (at[0], at[1] + 1) if at[1] + 1 < block else (at[0] + 1, np.int64(0))


@helper
def _split(q, block):
    """(block, number in it) of vector q, by division."""
    return q // block, q % block


@helper
def _next2(at, block):
    return at, _after(at, block)


@helper
def _next4(at, block):
    two = _next2(at, block)
    return two + _next2(_after(two[1], block), block)


@helper
def _next8(at, block):
    four = _next4(at, block)
    return four + _next4(_after(four[3], block), block)


@helper
def _place(offset, stride, width, at):
    """Where a vector of a matrix lies whose columns come in blocks, `stride` apart."""
    return offset + at[0] * stride + at[1] * width


@helper
def _places2(offset, stride, width, ats):
    return _place(offset, stride, width, ats[0]), _place(offset, stride, width, ats[1])


@helper
def _places4(offset, stride, width, ats):
    return _places2(offset, stride, width, ats[:2]) + _places2(offset, stride, width, ats[2:])


@helper
def _places8(offset, stride, width, ats):
    return _places4(offset, stride, width, ats[:4]) + _places4(offset, stride, width, ats[4:])


@helper
def _beside2(offset, width):
    return offset, offset + width


@helper
def _beside4(offset, width):
    return _beside2(offset, width) + _beside2(offset + 2 * width, width)


@helper
def _beside8(offset, width):
    return _beside4(offset, width) + _beside4(offset + 4 * width, width)


@helper
def _row(offset, strides, band, r):
    """Where row r lies if `band` rows at a time do so evenly: strides of a row and of a band."""
    k = r // band
    return offset + k * strides[1] + (r - k * band) * strides[0]


@spliced
def _pair(rows, band, a, ao, ar, aks, ka, b, bo, br, bks, kb, bss, segments, p, po, soon, d, ds, dr, c, cs, cr):
    """`rows` rows of a panel of two vectors, in tiles of ROWS and 4 rows; none crosses a band."""
    r = 0
    while r < rows:
        at, bt, cq, dq = _row(ao, ar, band, r), _row(bo, br, band, r), _row(0, cr, band, r), _row(0, dr, band, r)
        ct, dt, ars, brs, ldc, ldd = (cs[0] + cq, cs[1] + cq), (ds[0] + dq, ds[1] + dq), ar[0], br[0], cr[0], dr[0]
        if band >= ROWS and rows - r >= ROWS:
            next_ = soon[0], soon[1] + r // ROWS % VECTORS * soon[4], soon[2], soon[3], soon[4]
            tile(
                ROWS, 2, a, at, ars, aks, ka, b, bt, brs, bks, kb, bss, segments, p, po, 0, next_, d, dt, ldd, c, ct,
                ldc,
            )  # fmt: skip
            r += ROWS
        else:
            tile(4, 2, a, at, ars, aks, ka, b, bt, brs, bks, kb, bss, segments, p, po, 0, soon, d, dt, ldd, c, ct, ldc)
            r += 4


@spliced
def _single(rows, band, a, ao, ar, aks, ka, b, bo, br, bks, kb, bss, segments, p, po, soon, d, do, dr, c, co, cr):
    """`rows` rows of a panel of one vector, in tiles of ROWS and 4 rows; none crosses a band."""
    r = 0
    while r < rows:
        at, bt, ct, dt = (
            _row(ao, ar, band, r),
            _row(bo, br, band, r),
            (_row(co, cr, band, r),),
            (_row(do, dr, band, r),),
        )
        ars, brs, ldc, ldd = ar[0], br[0], cr[0], dr[0]
        if band >= ROWS and rows - r >= ROWS:
            tile(
                ROWS, 1, a, at, ars, aks, ka, b, bt, brs, bks, kb, bss, segments, p, po, 0, soon, d, dt, ldd, c, ct,
                ldc,
            )  # fmt: skip
            r += ROWS
        else:
            tile(4, 1, a, at, ars, aks, ka, b, bt, brs, bks, kb, bss, segments, p, po, 0, soon, d, dt, ldd, c, ct, ldc)
            r += 4


def _multiply(
    rows, band, vectors, width, block,
    a, ao, ar, aks, ka,
    b, bo, br, bks, kb, bss, segments,
    p, po, pk, first,
    soon,
    d, do, dgs, dr,
    c, co, cgs, cr,
):  # fmt: skip
    """``C = D + A P + B P'`` for `rows` rows and `vectors` vectors of columns.

    Operands are those of `tile`, with offsets and strides in elements; ``ar``, ``br``, ``dr``, ``cr`` are the strides
    of a row and of a band: `band` rows at a time (a multiple of ROWS, 4, or fewer) lie evenly. The panels begin at
    ``po`` and have ``pk`` rows each, of which those from ``first`` on are used. The columns of C lie in blocks of
    `block` vectors, ``cgs`` apart; those of D, ``dgs`` apart. With ``dr = (0, 0)`` D is a bias; with D = C the product
    accumulates. `soon` is that of `tile` and a fifth number, how much further every second tile of a panel fetches.
    """
    # The rows that tiles of ROWS and 4 rows leave over; none of a band of fewer than 4.
    whole = rows - rows % band % ROWS % 4 if band >= 4 else 0
    if whole > 0:
        for q in range(0, vectors, VECTORS):
            pq = po + q * width * pk + first * min(VECTORS, vectors - q) * width
            if vectors - q >= 2:
                ats = _split(q, block), _split(q + 1, block)
                cs, ds = _places2(co, cgs, width, ats), _places2(do, dgs, width, ats)
                _pair(
                    whole, band, a, ao, ar, aks, ka, b, bo, br, bks, kb, bss, segments, p, pq, soon, d, ds, dr, c, cs,
                    cr,
                )  # fmt: skip
            else:
                ct, dt = _place(co, cgs, width, _split(q, block)), _place(do, dgs, width, _split(q, block))
                _single(
                    whole, band, a, ao, ar, aks, ka, b, bo, br, bks, kb, bss, segments, p, pq, soon, d, dt, dr, c, ct,
                    cr,
                )  # fmt: skip
    for r in range(whole, rows):
        _wide_row(
            vectors, width, block, a, _row(ao, ar, band, r), aks, ka, b, _row(bo, br, band, r), bks, kb, bss, segments,
            p, po, pk, first, soon, d, _row(do, dr, band, r), dgs, c, _row(co, cr, band, r), cgs,
        )  # fmt: skip


def _multiply_row(
    rows, band, vectors, width, block,
    a, ao, ar, aks, ka,
    b, bo, br, bks, kb, bss, segments,
    p, po, pk, first,
    soon,
    d, do, dgs, dr,
    c, co, cgs, cr,
):  # fmt: skip
    """`multiply` of one row, where all vectors of C lie side by side, and those of D.

    So they do in a batch of 1. Finding a vector by its block took 86 of 500 cycles (40 numbers times eight vectors).
    """
    ps, pq, skip, q = VECTORS * width * pk, po, first * VECTORS * width, np.int64(0)
    while vectors - q >= 8:
        cs, ds = _beside8(co + q * width, width), _beside8(do + q * width, width)
        tile(1, 8, a, ao, 0, aks, ka, b, bo, 0, bks, kb, bss, segments, p, pq + skip, ps, soon, d, ds, 0, c, cs, 0)
        q, pq = q + 8, pq + 8 * width * pk
    if vectors - q >= 4:
        cs, ds = _beside4(co + q * width, width), _beside4(do + q * width, width)
        tile(1, 4, a, ao, 0, aks, ka, b, bo, 0, bks, kb, bss, segments, p, pq + skip, ps, soon, d, ds, 0, c, cs, 0)
        q, pq = q + 4, pq + 4 * width * pk
    if vectors - q >= 2:
        cs, ds = _beside2(co + q * width, width), _beside2(do + q * width, width)
        tile(1, 2, a, ao, 0, aks, ka, b, bo, 0, bks, kb, bss, segments, p, pq + skip, ps, soon, d, ds, 0, c, cs, 0)
        q, pq = q + 2, pq + 2 * width * pk
    if vectors > q:
        cs, ds, pq = (co + q * width,), (do + q * width,), pq + first * width
        tile(1, 1, a, ao, 0, aks, ka, b, bo, 0, bks, kb, bss, segments, p, pq, ps, soon, d, ds, 0, c, cs, 0)


def _multiply_signature(dtype: np.dtype) -> tuple:
    f, i = types.CPointer(types.float32 if np.dtype(dtype) == np.float32 else types.float64), types.int64
    two = types.UniTuple(i, 2)
    return (
        *(i,) * 5,
        *(f, i, two, i, i),
        *(f, i, two, i, i, i, i),
        *(f, i, i, i),
        types.Tuple((f, i, i, i, i)),
        *(f, i, i, two),
        *(f, i, i, two),
    )  # fmt: skip


multiply = Function(_multiply, _multiply_signature)
"""The product by address: compiled once per float type, shared by every kernel (0.9 s less per entry than inlining)."""


multiply_row = Function(_multiply_row, _multiply_signature)
"""The product of a batch of 1. In `multiply` LLVM computes what any tile may need before it looks which it is."""


def _multiply_units(
    rows, band, vectors, width, block,
    a, ao, ar, aks, ka,
    b, bo, br, bks, kb, bss, segments,
    p, po, pk, first,
    soon,
    d, do, dgs, dr,
    c, co, cgs, cr,
):  # fmt: skip
    """`multiply` of one row, and of some of the units of each gate: 0.31 us for LSTM(64), by `multiply` 0.35."""
    _wide_row(
        vectors, width, block, a, ao, aks, ka, b, bo, bks, kb, bss, segments, p, po, pk, first, soon, d, do, dgs, c, co,
        cgs,
    )  # fmt: skip


multiply_units = Function(_multiply_units, _multiply_signature)
"""The product of a batch of 1 whose units are shared out (`elman.kernels.units`)."""


def product(dtype: np.dtype, batch: int) -> Any:
    """Address of the product for so many rows."""
    return (multiply_row if batch == 1 else multiply).handle(dtype)


# ---- packing ---------------------------------------------------------------------------------------------------


_PACKED_ROWS = 32


@helper
def _pack_rows(matrix, begin, end, gates, h, block, width, q, count, first, target, to, line):
    """Rows ``begin..end`` of one panel: columns of `matrix` (K, gates * h), gate by gate, padded to whole vectors."""
    for v in range(count):
        unit = ((q + v) % block) * width
        column = gates[(q + v) // block] * h + unit
        valid = min(width, h - unit)
        for k in range(begin, end):
            start = np.uint64(to + ((first + k) * line + v) * width)
            row = matrix[k, column : column + valid]
            for j in range(np.uint64(valid)):
                target[start + j] = row[j]
            for j in range(np.uint64(valid), np.uint64(width)):
                target[start + j] = 0


def _pack_shard(_, begin, end, panels, kernel, recurrent, x_gates, h_gates, bias, sums, h, width, target):
    """Panels ``begin..end``."""
    block, zero = sums.shape[1] // width, np.int64(0)
    # Some rows of all panels at a time: their columns lie side by side in memory.
    for first in range(0, max(kernel.shape[0], recurrent.shape[0]), _PACKED_ROWS):
        for i in range(begin, end):
            q, count, rows_x, rows_h, to, line = panels[i]
            x_end, h_end = min(first + _PACKED_ROWS, rows_x), min(first + _PACKED_ROWS, rows_h)
            if first < x_end:
                _pack_rows(kernel, first, x_end, x_gates, h, block, width, q, count, zero, target, to, line)
            if first < h_end:
                _pack_rows(recurrent, first, h_end, h_gates, h, block, width, q, count, rows_x, target, to, line)
    for i in range(begin, end):
        q, count = panels[i, 0], panels[i, 1]
        for v in range(q, q + count):
            gx, gh, unit = x_gates[v // block], h_gates[v // block], (v % block) * width
            for j in range(unit, min(unit + width, h)):
                if bias.shape[0] > 0 and gx >= 0:
                    sums[v // block, j] = bias[0, gx * h + j]
                else:
                    sums[v // block, j] = 0
                if bias.shape[0] > 1 and gh >= 0:
                    sums[v // block, j] += bias[1, gh * h + j]
            # What memory held before may be denormal numbers there, which are slow, or NaN.
            for j in range(min(unit + width, h), unit + width):
                sums[v // block, j] = 0


def _pack_types(dtype: np.dtype) -> tuple:
    index, gates, two = types.int64, vector(np.int64), matrix(dtype)
    return *(index,) * 3, matrix(np.int64), two, two, gates, gates, two, two, index, index, vector(dtype)


pack_shard = Function(_pack_shard, _pack_types)


@jit.spreading
def pack(team, pieces, shard, panels, kernel, recurrent, x_gates, h_gates, bias, sums, h, width, target):
    """Pack input and recurrent weights into the panels of the forward products, and add up the biases.

    `panels` (n, 6) holds, per panel or half of one, the vector it begins at, the number of vectors, the input rows, the
    recurrent rows, its offset in `target`, and the vectors of a row of the panel; `pieces` share them out to
    threads, `shard` is the address of `pack_shard`. `bias` (0..2, G) goes to `sums` (rows, Hp), one value per column of
    the products.
    """
    given = panels, kernel, recurrent, x_gates, h_gates, bias, sums, h, width, target
    call, place = jit.bundle(shard, given, team)
    jit.spread(team, pieces, UNBANDED, call, place)


def _transposed_shard(_, begin, end, weights, gates, h, width, target):
    """Panels ``begin..end``."""
    n = weights.shape[0]
    vectors = (n + width - 1) // width
    depth = gates.size * h
    for q in range(VECTORS * begin, min(VECTORS * end, vectors), VECTORS):
        count = min(VECTORS, vectors - q)
        columns = count * width
        panel = target[q * width * depth : (q * width + columns) * depth]
        valid = min(columns, n - q * width)
        for g in range(gates.size):
            # 64 rows of the panel stay in the first-level cache while its columns are written one by one.
            for start in range(0, h, 64):
                stop = min(start + 64, h)
                for j in range(valid):
                    row = weights[q * width + j, gates[g] * h : (gates[g] + 1) * h]
                    for k in range(start, stop):
                        panel[(g * h + k) * columns + j] = row[k]
                for j in range(valid, columns):
                    for k in range(start, stop):
                        panel[(g * h + k) * columns + j] = 0


def _transposed_types(dtype: np.dtype) -> tuple:
    index = types.int64
    return *(index,) * 3, matrix(dtype), vector(np.int64), index, index, vector(dtype)


transposed_shard = Function(_transposed_shard, _transposed_types)


@jit.spreading
def pack_transposed(team, pieces, shard, weights, gates, h, width, target):
    """Pack the transpose of `weights` (N, gates * h) for the backward products: K runs over `gates` and their units.

    `pieces` share out panels of VECTORS vectors of its N columns; `shard` is the address of `transposed_shard`.
    """
    call, place = jit.bundle(shard, (weights, gates, h, width, target), team)
    jit.spread(team, pieces, UNBANDED, call, place)
