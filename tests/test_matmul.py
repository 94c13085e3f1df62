"""Products of any size and the packing of their panels, against NumPy."""

import numpy as np
import pytest
from callable_kernels import called
from hypothesis import given, settings
from hypothesis import strategies as st

from elman.cells import CELLS
from elman.cells.dense import DENSE
from elman.jit import invoke
from elman.kernels.matmul import multiply, multiply_row, pack, pack_shard, pack_transposed, transposed_shard
from elman.kernels.simd import ROWS, VECTORS, lanes, pointer
from elman.plans import equal_panels, make_plan, packed_panels

DTYPES = [np.float32, np.float64]
GUARD = 777.5


@called
def call(
    function, rows, band, vectors, width, block, a, ao, ar, aks, ka, b, bo, br, bks, kb, bss, segments, p, po, pk,
    first, d, do, dgs, dr, c, co, cgs, cr,
):  # fmt: skip
    invoke(function, (
        rows, band, vectors, width, block, pointer(a), ao, ar, aks, ka, pointer(b), bo, br, bks, kb, bss,
        segments, pointer(p), po, pk, first, (pointer(p), po, 3, 7, 1), pointer(d), do, dgs, dr, pointer(c), co, cgs,
        cr,
    ))  # fmt: skip


def panels(matrix, width):
    """The columns of `matrix` (K, vectors * width) as panels of VECTORS vectors, row by row."""
    step = VECTORS * width
    return np.concatenate([matrix[:, q : q + step].ravel() for q in range(0, matrix.shape[1], step)])


def positions(rows, band, row, gap):
    """Where rows of `row` elements begin that lie in bands, `gap` guards behind each; strides; the size of all."""
    r = np.arange(rows)
    stride = min(band, rows) * row + gap
    return r // band * stride + r % band * row, (row, stride), -(-rows // band) * stride


def banded(matrix, band, extra, gap):
    """`matrix` (rows, columns) with its rows in bands, `extra` guards behind each row: memory, starts, strides."""
    starts, strides, size = positions(len(matrix), band, matrix.shape[1] + extra, gap)
    out = np.full(size, GUARD, matrix.dtype)
    for start, row in zip(starts, matrix, strict=True):
        out[start : start + len(row)] = row
    return out, starts, strides


def blocked(matrix, block, band, gap):
    """`matrix` with its columns in blocks one after another, the rows of each in bands."""
    parts = [matrix[:, k : k + block] for k in range(0, matrix.shape[1], block)]
    parts[-1] = np.pad(parts[-1], ((0, 0), (0, block - parts[-1].shape[1])), constant_values=GUARD)
    done = [banded(part, band, 0, gap) for part in parts]
    return np.concatenate([out for out, _, _ in done]), done[0][1], done[0][2], done[0][0].size


class Product:
    """Random operands of ``C = D + A P + B P'`` and its result in float64."""

    def __init__(self, dtype, rows, band, vectors, ka, kb, segments, block, first, bias, seed=0):
        rng = np.random.default_rng([seed, rows, vectors, ka, kb, segments])
        self.dtype, self.shape, self.width, self.band = dtype, (rows, vectors, ka, kb, segments), lanes(dtype), band
        k, columns = ka + kb * segments, vectors * self.width
        a = rng.standard_normal((rows, ka)).astype(dtype)
        b = rng.standard_normal((segments, rows, kb)).astype(dtype)
        self.a = banded(a, band, 1, 2)
        parts = [banded(part, band, 2, 1) for part in b] or [banded(np.zeros((rows, kb), dtype), band, 2, 1)]
        self.b = np.concatenate([part[0] for part in parts]), *parts[0][1:]
        self.bss = parts[0][0].size
        self.w = rng.standard_normal((first + k + 2, columns)).astype(dtype)
        self.first, self.block = first, block
        start = rng.standard_normal((1 if bias else rows, columns)).astype(dtype)
        self.d, starts, strides, self.dgs = blocked(start, block * self.width, band, 3)
        self.d_at = (np.zeros(rows, np.int64), (0, 0)) if bias else (starts, strides)
        c = np.zeros((rows, columns), dtype)
        self.c, self.c_starts, self.c_strides, self.cgs = blocked(c, block * self.width, band, 5)
        left = np.concatenate([a, *b], axis=1).astype(np.float64)
        exact = start + left @ self.w[first : first + k].astype(np.float64)
        self.expected = blocked(exact, block * self.width, band, 5)[0]
        self.written = blocked(np.ones_like(exact), block * self.width, band, 5)[0] == 1

    def run(self, c=None, d=None, rows=None, row=0, function=multiply):
        total, vectors, ka, kb, segments = self.shape
        c, d = self.c.copy() if c is None else c, self.d if d is None else d
        (a, a_starts, a_strides), (b, b_starts, b_strides), (d_starts, d_strides) = self.a, self.b, self.d_at
        call(
            function.handle(np.dtype(self.dtype)), total if rows is None else rows, self.band, vectors, self.width,
            self.block, a, a_starts[row], a_strides, 1, ka, b, b_starts[row], b_strides, 1, kb, self.bss, segments,
            panels(self.w, self.width), 0, len(self.w), self.first,
            d, d_starts[row], self.dgs, d_strides, c, self.c_starts[row], self.cgs, self.c_strides,
        )  # fmt: skip
        return c


sizes = {
    "dtype": st.sampled_from(DTYPES),
    "rows": st.integers(1, 37),
    "band": st.sampled_from([1, 2, 3, 4, ROWS, 2 * ROWS, 1 << 40]),
    "vectors": st.integers(1, 17),
    "ka": st.integers(0, 9),
    "kb": st.integers(0, 7),
    "segments": st.integers(0, 3),
    "block": st.integers(1, 5),
    "first": st.sampled_from([0, 0, 1, 4]),
    "bias": st.booleans(),
}


@settings(max_examples=200, deadline=None, derandomize=True)
@given(**sizes)
def test_products_of_any_size(dtype, rows, band, vectors, ka, kb, segments, block, first, bias):
    p = Product(dtype, rows, band, vectors, ka, kb, segments, block, first, bias)
    c = p.run()
    budget = 40 * np.finfo(dtype).eps
    np.testing.assert_allclose(c[p.written], p.expected[p.written], rtol=budget, atol=budget)
    np.testing.assert_array_equal(c[~p.written], p.c[~p.written])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(**{k: v for k, v in sizes.items() if k != "bias"})
def test_a_row_has_the_same_bits_whatever_lies_beside_it(dtype, rows, band, vectors, ka, kb, segments, block, first):
    for function in (multiply, multiply_row):
        block = block if function is multiply else vectors  # vectors side by side
        p = Product(dtype, rows, band, vectors, ka, kb, segments, block, first, bias=False)
        whole = p.run()
        if function is multiply_row:  # as blocks do that follow one another
            p.block, p.dgs, p.cgs = min(block, 2), 2 * p.width, 2 * p.width
        alone = p.c.copy()
        for r in range(rows):
            p.run(c=alone, rows=1, row=r, function=function)
        np.testing.assert_array_equal(alone, whole)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 3, 8, 13])
def test_products_accumulate(dtype, rows):
    """With D = C the product is added to what lies there."""
    p = Product(dtype, rows, 4, 5, 6, 4, 2, 2, 1, bias=False)
    p.dgs, p.d_at = p.cgs, (p.c_starts, p.c_strides)
    start = np.random.default_rng(1).standard_normal(p.c.size).astype(dtype)
    apart = p.run(c=start.copy(), d=start.copy())
    together = start.copy()
    p.run(c=together, d=together)
    np.testing.assert_array_equal(together, apart)
    assert not np.array_equal(together, start)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", [*CELLS.values(), DENSE], ids=lambda c: c.name)
@pytest.mark.parametrize(("inputs", "units"), [(1, 1), (3, 7), (9, 33), (2, 16)])
@pytest.mark.parametrize("bias_rows", [0, 1, 2])
def test_packing(dtype, cell, inputs, units, bias_rows, thread_counts, rng):
    if bias_rows > cell.bias_rows:
        bias_rows = 0
    plan = make_plan(cell, inputs, units, np.dtype(dtype))
    width, columns = plan.width, cell.gates * units
    kernel = rng.standard_normal((inputs, columns)).astype(dtype)
    recurrent = rng.standard_normal((units if cell.h else 0, columns)).astype(dtype)
    bias = rng.standard_normal((bias_rows, columns)).astype(dtype)
    block = plan.padded // width

    def column(gates, q, j):
        gate, unit = gates[q // block], (q % block) * width + j
        return None if gate < 0 or unit >= units else gate * units + unit

    expected = np.zeros(plan.packed, dtype)
    panels = packed_panels((cell, inputs, units, np.dtype(dtype)))
    for q, count, kx, kh, to, _ in panels:
        for v in range(count):
            for j in range(width):
                for k in range(kx + kh):
                    gates, matrix = (plan.x_gates, kernel) if k < kx else (plan.h_gates, recurrent)
                    where = column(gates, q + v, j)
                    value = 0 if where is None else matrix[k if k < kx else k - kx, where]
                    expected[to + (k * count + v) * width + j] = value
    # The sums of the weight gradients lie one after the other: a row per row of the panel, and one for the bias.
    begins = np.cumsum([0, *((kx + kh + 1) * count * width for _, count, kx, kh, _, _ in plan.panels)])
    assert plan.panels[:, 5].tolist() == begins[:-1].tolist() and plan.sums == begins[-1]
    sums = np.zeros((cell.rows, plan.padded), dtype)
    for row in range(cell.rows):
        for r, gates in enumerate((plan.x_gates, plan.h_gates)[:bias_rows]):
            if gates[row] >= 0:
                sums[row, :units] += bias[r, gates[row] * units : (gates[row] + 1) * units]
    for threads in thread_counts:
        for shards in (1, 2, 3, 7):
            target, found = np.full(plan.packed, np.nan, dtype), np.full_like(sums, GUARD)
            pack(
                threads, equal_panels(len(panels), shards), pack_shard.handle(np.dtype(dtype)), panels,
                kernel, recurrent, plan.x_gates, plan.h_gates, bias, found, units, width, target,
            )  # fmt: skip
            np.testing.assert_array_equal(target, expected)
            # A row without a product, such as an operand, is nobody's.
            rows = [r for r in range(cell.rows) if plan.x_gates[r] >= 0 or plan.h_gates[r] >= 0]
            np.testing.assert_array_equal(found[rows], sums[rows])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "units", "gates"), [(1, 1, [0]), (7, 5, [1, 0]), (33, 70, [2, 0, 1]), (20, 64, [0])])
def test_packing_transposed(dtype, rows, units, gates, thread_counts, rng):
    width, gates = lanes(dtype), np.array(gates)
    matrix = rng.standard_normal((rows, len(gates) * units)).astype(dtype)
    depth, vectors = len(gates) * units, -(-rows // width)
    columns = np.zeros((depth, vectors * width), dtype)
    for g, gate in enumerate(gates):
        columns[g * units : (g + 1) * units, :rows] = matrix[:, gate * units : (gate + 1) * units].T
    expected = panels(columns, width)
    for threads in thread_counts:
        for shards in (1, 2, 5):
            target = np.full(expected.size, np.nan, dtype)
            pieces, shard = equal_panels(-(-vectors // VECTORS), shards), transposed_shard.handle(np.dtype(dtype))
            pack_transposed(threads, pieces, shard, matrix, gates, units, width, target)
            np.testing.assert_array_equal(target, expected)
