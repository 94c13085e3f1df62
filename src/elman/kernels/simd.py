"""Vector intrinsics: the register tile of every matrix product, and bit casts. Width and shape come from the CPU."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import numpy as np
from llvmlite import ir

from elman.jit import DISABLED, cgutils, cpu_name, inlined, intrinsic, types, vector_bytes

# Rows and vectors of the largest tile: 8 x 2 accumulators, 2 panel vectors and a broadcast fit the 32 registers of
# AVX-512, 6 x 2 the 16 of AVX2. On Zen 5 8 x 2 runs at 253-256 GFLOP/s per core for K = 64..256, 8 x 3 at 248-257: the
# narrower one needs fewer tails.
VECTORS = 2
ROWS = 8 if vector_bytes() == 64 else 6
# Vectors of one row whose multiply-adds, each of which waits for the last one in its chain, keep the processor busy: 4
# cycles, two of them in each. Zen 4 does one of 64 bytes per cycle.
CHAINS = 4 if cpu_name() == "znver4" else 8


def lanes(dtype: np.dtype) -> int:
    """Elements of `dtype` in one vector register."""
    return vector_bytes() // np.dtype(dtype).itemsize


def _at(array: np.ndarray, offset: int, shape: tuple, strides: tuple) -> np.ndarray:
    """View of `array`'s memory from element `offset`; strides in elements. Serves the Python twins only."""
    size = array.itemsize
    start = np.lib.stride_tricks.as_strided(array, (abs(offset) + 1,), (size if offset >= 0 else -size,))[abs(offset) :]
    return np.lib.stride_tricks.as_strided(start, shape, tuple(s * size for s in strides))


def tile(
    rows, vectors, a, ao, ars, aks, ka, b, bo, brs, bks, kb, bss, segments, p, po, ps, soon, d, do, ldd, c, co, ldc
):
    """Matrix product of one register tile: ``C = D + A P_a + B P_b``.

    ``rows`` x ``vectors`` (both literal) vectors of C are kept in registers over the whole sum, which runs in one fixed
    order: first the ``ka`` columns of A, then, segment by segment, the ``kb`` columns of each of the ``segments``
    blocks of B. The rows of the panel ``p`` from offset ``po`` on are met in the same order. Every element of C is one
    chain of fused multiply-adds, so it has the same bits whichever tile computes it.

    A, B, P, C, D are what `pointer` gave. Offsets and strides count elements. A is at ``ao + row * ars + k * aks``, B
    at ``bo + row * brs + k * bks + segment * bss``; vector ``v`` of row ``r`` of C at ``co[v] + r * ldc``, of D at
    ``do[v] + r * ldd`` (``ldd = 0``: a bias).
    More than ``VECTORS`` vectors come from neighbouring panels, ``ps`` elements apart: a single row needs 8 independent
    chains to hide the latency of its multiply-adds.

    The largest tile fetches two things into the cache while it multiplies: the lines of C it is going to write, unless
    it has D there, and one line for each column of B, ``soon = (n, no, nks, nss, ...)``: that of N at ``no + k * nks +
    segment * nss``, which the caller needs next. Fetches are hints: no address is wrong.
    """
    width = lanes(c.dtype)
    left = [_at(a, ao, (rows, ka), (ars, aks))] if ka else []
    left += [_at(b, bo + s * bss, (rows, kb), (brs, bks)) for s in range(segments)] if kb else []
    k = ka + kb * segments
    each = min(vectors, VECTORS) * width
    panels = [_at(p, po + j * ps, (k, each), (each, 1)) for j in range(-(-vectors // VECTORS))]
    panel = np.concatenate(panels, axis=1)
    product = np.concatenate(left, axis=1) @ panel if k else np.zeros((rows, vectors * width), c.dtype)
    for v in range(vectors):
        start = _at(d, do[v], (rows, width), (ldd, 1)).copy()
        _at(c, co[v], (rows, width), (ldc, 1))[...] = start + product[:, v * width : (v + 1) * width]


def pointer(array: np.ndarray) -> Any:
    """Address of `array`'s first element for the tile, typed by its dtype; any layout."""
    return array


@intrinsic
def _pointer(typingctx, array):
    def codegen(context, builder, sig, args):
        return context.make_array(sig.args[0])(context, builder, args[0]).data

    return types.CPointer(array.dtype)(array), codegen


@inlined(pointer)
def _pointer_compiled(array):
    return lambda array: _pointer(array)


class _Emitter:
    """Emits the loads, broadcasts, fused multiply-adds and the loop of a tile, and the copies."""

    def __init__(self, builder: Any, scalar: Any, width: int) -> None:
        self.builder, self.scalar, self.width = builder, scalar, width
        self.type = ir.VectorType(scalar, width)
        self.bytes = 4 if isinstance(scalar, ir.FloatType) else 8
        # fmuladd, not fma: on a CPU without FMA it is a multiply and an add, where fma would be a library call.
        suffix = f"v{width}f{8 * self.bytes}"
        signature = ir.FunctionType(self.type, [self.type] * 3)
        self._fma = cgutils.get_or_insert_function(builder.module, signature, f"llvm.fmuladd.{suffix}")

    def element(self, base: Any, offset: Any) -> Any:
        return self.builder.gep(base, [offset])

    def load(self, pointer: Any) -> Any:
        value = self.builder.load(self.builder.bitcast(pointer, self.type.as_pointer()))
        value.align = self.bytes
        return value

    def store(self, value: Any, pointer: Any) -> None:
        self.builder.store(value, self.builder.bitcast(pointer, self.type.as_pointer())).align = self.bytes

    def broadcast(self, pointer: Any) -> Any:
        one = self.builder.insert_element(
            ir.Constant(self.type, ir.Undefined), self.builder.load(pointer), ir.Constant(ir.IntType(32), 0)
        )
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.width), [0] * self.width)
        return self.builder.shuffle_vector(one, ir.Constant(self.type, ir.Undefined), zeros)

    def fetch(self, pointer: Any, *, to_write: bool = False) -> None:
        """Have the cache line at `pointer` brought to the first-level cache."""
        place, i32 = ir.IntType(8).as_pointer(), ir.IntType(32)
        signature = ir.FunctionType(ir.VoidType(), [place, i32, i32, i32])
        prefetch = cgutils.get_or_insert_function(self.builder.module, signature, "llvm.prefetch.p0i8")
        self.builder.call(prefetch, [self.builder.bitcast(pointer, place), i32(int(to_write)), i32(3), i32(1)])

    def fma(self, x: Any, y: Any, z: Any) -> Any:
        return self.builder.call(self._fma, [x, y, z])

    def loop(self, count: Any, carried: list, body: Any) -> list:
        """``for i in range(count): carried = body(i, carried)``; returns the last `carried`."""
        builder, zero = self.builder, ir.Constant(count.type, 0)
        before = builder.block
        head, inner, after = (builder.append_basic_block(n) for n in ("tile.head", "tile.body", "tile.end"))
        builder.branch(head)
        builder.position_at_end(head)
        index = builder.phi(count.type)
        phis = [builder.phi(v.type) for v in carried]
        index.add_incoming(zero, before)
        for phi, v in zip(phis, carried, strict=True):
            phi.add_incoming(v, before)
        builder.cbranch(builder.icmp_signed("<", index, count), inner, after)
        builder.position_at_end(inner)
        results = body(index, phis)
        index.add_incoming(builder.add(index, ir.Constant(count.type, 1)), builder.block)
        for phi, v in zip(phis, results, strict=True):
            phi.add_incoming(v, builder.block)
        builder.branch(head)
        builder.position_at_end(after)
        return phis


@intrinsic(prefer_literal=True)
def _tile(
    typingctx, rows, vectors, a, ao, ars, aks, ka, b, bo, brs, bks, kb, bss, segments, p, po, ps, soon, d, do, ldd, c,
    co, ldc,
):  # fmt: skip
    if not isinstance(rows, types.IntegerLiteral) or not isinstance(vectors, types.IntegerLiteral):
        return None
    m, n = rows.literal_value, vectors.literal_value
    width = lanes(np.dtype(str(c.dtype)))
    i = types.int64
    signature = types.void(
        rows, vectors, a, i, i, i, i, b, i, i, i, i, i, i, p, i, i, soon, d, do, i, c, co, i
    )  # fmt: skip

    def codegen(context, builder, sig, v):
        emit = _Emitter(builder, context.get_value_type(c.dtype), width)
        add, mul = builder.add, builder.mul
        a_data, b_data, p_data, d_data, c_data = (v[k] for k in (2, 7, 14, 18, 21))
        ao, ars, aks, ka, bo, brs, bks, kb, bss, segments, po, ps, ldd, ldc = (
            v[k] for k in (3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 15, 16, 20, 23)
        )
        n_data, no, nks, nss = (builder.extract_value(v[17], k) for k in range(4))
        count, columns, fetches = ka.type, min(n, VECTORS), (m, n) == (ROWS, VECTORS)

        def const(x: int) -> Any:
            return ir.Constant(count, x)

        def positions(data: Any, offsets: Any, stride: Any) -> list:
            starts = [builder.extract_value(offsets, j) for j in range(n)]
            return [emit.element(data, add(starts[j], mul(const(r), stride))) for r in range(m) for j in range(n)]

        def rank_one(left: list, right: Any, k_offset: Any, sums: list) -> list:
            panel = [
                emit.load(emit.element(right, add(mul(const(j // columns), ps), const(j % columns * width))))
                for j in range(n)
            ]
            out = []
            for r in range(m):
                x = emit.broadcast(emit.element(left[r], k_offset))
                out += [emit.fma(x, panel[j], sums[r * n + j]) for j in range(n)]
            return out

        def product(left: list, stride: Any, length: Any, state: list, following: Any = None) -> list:
            def step(k: Any, state: list) -> list:
                right, offset, sums = state[0], state[1], state[2:]
                if following is not None:
                    emit.fetch(emit.element(following, mul(k, nks)))
                sums = rank_one(left, right, offset, sums)
                return [emit.element(right, const(columns * width)), add(offset, stride), *sums]

            return emit.loop(length, state, step)

        places, starts = positions(c_data, v[22], ldc), positions(d_data, v[19], ldd)
        if fetches:
            with builder.if_then(builder.icmp_unsigned("!=", starts[0], places[0])):
                for place in places:
                    emit.fetch(place, to_write=True)
        sums = [emit.load(x) for x in starts]
        right = emit.element(p_data, po)
        a_rows = [emit.element(a_data, add(ao, mul(const(r), ars))) for r in range(m)]
        right, _, *sums = product(a_rows, aks, ka, [right, const(0), *sums])
        b_rows = [emit.element(b_data, add(bo, mul(const(r), brs))) for r in range(m)]

        def segment(s: Any, state: list) -> list:
            start = mul(s, bss)
            following = emit.element(n_data, add(no, mul(s, nss))) if fetches else None
            right, _, *sums = product(b_rows, bks, kb, [state[0], start, *state[1:]], following)
            return [right, *sums]

        right, *sums = emit.loop(segments, [right, *sums], segment)
        for value, place in zip(sums, places, strict=True):
            emit.store(value, place)
        return context.get_dummy_value()

    return signature, codegen


@inlined(tile)
def _tile_compiled(
    rows, vectors, a, ao, ars, aks, ka, b, bo, brs, bks, kb, bss, segments, p, po, ps, soon, d, do, ldd, c, co, ldc
):
    def run(
        rows, vectors, a, ao, ars, aks, ka, b, bo, brs, bks, kb, bss, segments, p, po, ps, soon, d, do, ldd, c, co, ldc
    ):
        _tile(
            rows, vectors, a, ao, ars, aks, ka, b, bo, brs, bks, kb, bss, segments, p, po, ps, soon, d, do, ldd, c, co,
            ldc,
        )  # fmt: skip

    return run


# NumPy's C interface promises that the pointer to the data follows the head of the object: there compiled extensions
# read it too. `ndarray.ctypes.data` takes 0.9 us, this 0.1, and a step asks for eight addresses.
_HEAD = object.__basicsize__
_pointer_in = ctypes.c_void_p.from_address
_sample = np.empty(1)
_DIRECT = sys.implementation.name == "cpython" and _pointer_in(id(_sample) + _HEAD).value == _sample.ctypes.data


def address(array: np.ndarray) -> Any:
    """What Python passes to a kernel for an array of any layout: one compiled variant serves them all.

    The caller keeps the array alive. Under ``NUMBA_DISABLE_JIT=1`` it is the array itself.
    """
    if DISABLED:
        return array
    return _pointer_in(id(array) + _HEAD).value or 0 if _DIRECT else array.ctypes.data


def pointer_at(place: Any, like: np.ndarray) -> Any:
    """The pointer from what `address` gave; `like` is an array or a number of the type of what it points to."""
    return place


@intrinsic
def _pointer_at(typingctx, place, like):
    def codegen(context, builder, sig, args):
        return builder.inttoptr(args[0], context.get_value_type(sig.return_type))

    return types.CPointer(like.dtype if isinstance(like, types.Array) else like)(place, like), codegen


@inlined(pointer_at)
def _pointer_at_compiled(place, like):
    return lambda place, like: _pointer_at(place, like)


def element(place: Any, index: int) -> Any:
    """Element `index` of what a pointer points to."""
    return _at(place, index, (1,), (1,))[0]


@inlined(element)
def _element_compiled(place, index):
    return lambda place, index: place[index]


def gather(vectors, source, so, stride, count, target, to, sums, mo):
    """Copy ``count`` rows of ``vectors`` (literal) vectors to adjoining places, and add them up on the way.

    Vector ``v`` of row ``r`` is at ``so[v] + r * stride`` of the source; the sum over rows is added to ``sums`` at
    ``mo``. This packs one panel of gate gradients and yields the bias gradient in the same pass.
    """
    width = lanes(target.dtype)
    total = _at(sums, mo, (vectors, width), (width, 1))
    for v in range(vectors):
        rows = _at(source, so[v], (count, width), (stride, 1))
        _at(target, to + v * width, (count, width), (vectors * width, 1))[...] = rows
        for row in rows:
            total[v] += row


@intrinsic(prefer_literal=True)
def _gather(typingctx, vectors, source, so, stride, count, target, to, sums, mo):
    if not isinstance(vectors, types.IntegerLiteral):
        return None
    n, width, i = vectors.literal_value, lanes(np.dtype(str(target.dtype))), types.int64
    signature = types.void(vectors, source, types.UniTuple(i, VECTORS), i, i, target, i, sums, i)

    def codegen(context, builder, sig, v):
        emit = _Emitter(builder, context.get_value_type(target.dtype), width)
        _, source, so, stride, count, target_, to, sums_, mo = v
        starts = [emit.element(source, builder.extract_value(so, j)) for j in range(n)]
        totals = [emit.element(sums_, builder.add(mo, ir.Constant(mo.type, j * width))) for j in range(n)]

        def step(k: Any, state: list) -> list:
            place, out = state[0], []
            for j in range(n):
                x = emit.load(emit.element(starts[j], builder.mul(k, stride)))
                emit.store(x, emit.element(place, ir.Constant(count.type, j * width)))
                out.append(builder.fadd(state[j + 1], x))
            return [emit.element(place, ir.Constant(count.type, n * width)), *out]

        _, *final = emit.loop(count, [emit.element(target_, to), *map(emit.load, totals)], step)
        for value, place in zip(final, totals, strict=True):
            emit.store(value, place)
        return context.get_dummy_value()

    return signature, codegen


@inlined(gather)
def _gather_compiled(vectors, source, so, stride, count, target, to, sums, mo):
    def run(vectors, source, so, stride, count, target, to, sums, mo):
        _gather(vectors, source, so, stride, count, target, to, sums, mo)

    return run


def pile(source, so, stride, count, target, to):
    """Copy ``count`` pieces of ROWS elements, ``stride`` apart, to adjoining places.

    A loop over elements, for which LLVM checks each time whether source and target overlap, took a fifth of the weight
    gradients of LSTM (64,100,8,128).
    """
    _at(target, to, (count, ROWS), (ROWS, 1))[...] = _at(source, so, (count, ROWS), (stride, 1))


@intrinsic
def _pile(typingctx, source, so, stride, count, target, to):
    i = types.int64

    def codegen(context, builder, sig, v):
        emit = _Emitter(builder, context.get_value_type(target.dtype), ROWS)
        source, so, stride, count, target_, to = v

        def step(k: Any, state: list) -> list:
            emit.store(emit.load(state[0]), state[1])
            return [emit.element(state[0], stride), emit.element(state[1], ir.Constant(count.type, ROWS))]

        emit.loop(count, [emit.element(source, so), emit.element(target_, to)], step)
        return context.get_dummy_value()

    return types.void(source, i, i, i, target, i), codegen


@inlined(pile)
def _pile_compiled(source, so, stride, count, target, to):
    return lambda source, so, stride, count, target, to: _pile(source, so, stride, count, target, to)


def merge(source, so, stride, count, parts, apart, target, to, line):
    """Add up ``parts`` matrices of ``count`` rows of one vector, ``apart`` from each other, to rows of the target.

    Row ``r`` of part ``p`` is at ``so + r * stride + p * apart``, the sum goes to ``to + r * line``. As a loop over
    elements, a vector each, it took 3 ns per element.
    """
    width = lanes(target.dtype)
    sums = _at(source, so, (count, width), (stride, 1)).copy()
    for p in range(1, parts):
        sums += _at(source, so + p * apart, (count, width), (stride, 1))
    _at(target, to, (count, width), (line, 1))[...] = sums


@intrinsic
def _merge(typingctx, source, so, stride, count, parts, apart, target, to, line):
    i, width = types.int64, lanes(np.dtype(str(target.dtype)))

    def codegen(context, builder, sig, v):
        emit = _Emitter(builder, context.get_value_type(target.dtype), width)
        source, so, stride, count, parts, apart, target_, to, line = v
        others = builder.sub(parts, ir.Constant(parts.type, 1))

        def row(r: Any, state: list) -> list:
            def another(p: Any, inner: list) -> list:
                place = emit.element(inner[0], apart)
                return [place, builder.fadd(inner[1], emit.load(place))]

            _, total = emit.loop(others, [state[0], emit.load(state[0])], another)
            emit.store(total, state[1])
            return [emit.element(state[0], stride), emit.element(state[1], line)]

        emit.loop(count, [emit.element(source, so), emit.element(target_, to)], row)
        return context.get_dummy_value()

    return types.void(source, i, i, i, i, i, target, i, i), codegen


@inlined(merge)
def _merge_compiled(source, so, stride, count, parts, apart, target, to, line):
    def run(source, so, stride, count, parts, apart, target, to, line):
        _merge(source, so, stride, count, parts, apart, target, to, line)

    return run
