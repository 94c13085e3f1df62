"""Products of any size and the packing of their panels, against NumPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elman.cells import CELLS
from elman.cells.dense import DENSE
from elman.jit import helper, invoke
from elman.kernels.matmul import multiply, pack, pack_transposed
from elman.kernels.simd import VECTORS, lanes, pointer
from elman.plans import make_plan

DTYPES = [np.float32, np.float64]
GUARD = 777.5


@helper
def call(
    function, rows, vectors, width, block, a, ao, ars, aks, ka, b, bo, brs, bks, kb, bss, segments, p, po, pk, first,
    d, do, dgs, ldd, c, co, cgs, ldc,
):  # fmt: skip
    invoke(
        function, rows, vectors, width, block, pointer(a), ao, ars, aks, ka, pointer(b), bo, brs, bks, kb, bss,
        segments, pointer(p), po, pk, first, pointer(d), do, dgs, ldd, pointer(c), co, cgs, ldc,
    )  # fmt: skip


def panels(matrix, width):
    """The columns of `matrix` (K, vectors * width) as panels of VECTORS vectors, row by row."""
    step = VECTORS * width
    return np.concatenate([matrix[:, q : q + step].ravel() for q in range(0, matrix.shape[1], step)])


def blocked(matrix, block, gap):
    """`matrix` (rows, columns) with its columns in blocks, each followed by `gap` guards; rows lie in each block."""
    rows, columns = matrix.shape
    parts = [matrix[:, k : k + block] for k in range(0, columns, block)]
    size = rows * block + gap
    out = np.full(len(parts) * size, GUARD, matrix.dtype)
    for k, part in enumerate(parts):
        for r in range(rows):
            out[k * size + r * block : k * size + r * block + part.shape[1]] = part[r]
    return out, size


class Product:
    """Random operands of ``C = D + A P + B P'`` and its result in float64."""

    def __init__(self, dtype, rows, vectors, ka, kb, segments, block, first, bias, seed=0):
        rng = np.random.default_rng([seed, rows, vectors, ka, kb, segments])
        self.dtype, self.shape, self.width = dtype, (rows, vectors, ka, kb, segments), lanes(dtype)
        k, columns = ka + kb * segments, vectors * self.width
        self.a = rng.standard_normal((rows, ka + 1)).astype(dtype)
        self.b = rng.standard_normal((segments + 1, rows, kb + 2)).astype(dtype)
        self.w = rng.standard_normal((first + k + 2, columns)).astype(dtype)
        self.first, self.block = first, block
        start = rng.standard_normal((1 if bias else rows, columns)).astype(dtype)
        self.d, self.dgs = blocked(start, block * self.width, 3)
        self.ldd = 0 if bias else block * self.width
        self.c, self.cgs = blocked(np.zeros((rows, columns), dtype), block * self.width, 5)
        left = [self.a[:, :ka], *(self.b[s, :, :kb] for s in range(segments))]
        left = np.concatenate(left, axis=1).astype(np.float64)
        exact = start + left @ self.w[first : first + k].astype(np.float64)
        self.expected = blocked(exact, block * self.width, 5)[0]
        self.written = blocked(np.ones_like(exact), block * self.width, 5)[0] == 1

    def run(self, c=None, d=None, rows=None, row=0):
        total, vectors, ka, kb, segments = self.shape
        c, d = self.c.copy() if c is None else c, self.d if d is None else d
        call(
            multiply.handle(np.dtype(self.dtype)), total if rows is None else rows, vectors, self.width, self.block,
            self.a, row * self.a.shape[1], self.a.shape[1], 1, ka,
            self.b, row * self.b.shape[2], self.b.shape[2], 1, kb, self.b[0].size, segments,
            panels(self.w, self.width), 0, len(self.w), self.first,
            d, row * self.ldd, self.dgs, self.ldd, c, row * self.block * self.width, self.cgs, self.block * self.width,
        )  # fmt: skip
        return c


sizes = {
    "dtype": st.sampled_from(DTYPES),
    "rows": st.integers(1, 21),
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
def test_products_of_any_size(dtype, rows, vectors, ka, kb, segments, block, first, bias):
    p = Product(dtype, rows, vectors, ka, kb, segments, block, first, bias)
    c = p.run()
    budget = 40 * np.finfo(dtype).eps
    np.testing.assert_allclose(c[p.written], p.expected[p.written], rtol=budget, atol=budget)
    np.testing.assert_array_equal(c[~p.written], p.c[~p.written])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(**{k: v for k, v in sizes.items() if k != "bias"})
def test_a_row_has_the_same_bits_whatever_lies_beside_it(dtype, rows, vectors, ka, kb, segments, block, first):
    p = Product(dtype, rows, vectors, ka, kb, segments, block, first, bias=False)
    whole, alone = p.run(), p.c.copy()
    for r in range(rows):
        p.run(c=alone, rows=1, row=r)
    np.testing.assert_array_equal(alone, whole)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 3, 8, 13])
def test_products_accumulate(dtype, rows):
    """With D = C the product is added to what lies there."""
    p = Product(dtype, rows, 5, 6, 4, 2, 2, 1, bias=False)
    p.dgs, p.ldd = p.cgs, p.block * p.width
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
    for q, count, kx, kh, _, to, _ in plan.panels:
        for v in range(count):
            for j in range(width):
                for k in range(kx + kh):
                    gates, matrix = (plan.x_gates, kernel) if k < kx else (plan.h_gates, recurrent)
                    where = column(gates, q + v, j)
                    value = 0 if where is None else matrix[k if k < kx else k - kx, where]
                    expected[to + (k * count + v) * width + j] = value
    # The sums of the weight gradients lie one after the other: a row per row of the panel, and one for the bias.
    begins = np.cumsum([0, *((kx + kh + 1) * count * width for _, count, kx, kh, _, _, _ in plan.panels)])
    assert plan.panels[:, 6].tolist() == begins[:-1].tolist() and plan.sums == begins[-1]
    sums = np.zeros((cell.rows, plan.padded), dtype)
    for row in range(cell.rows):
        for r, gates in enumerate((plan.x_gates, plan.h_gates)[:bias_rows]):
            if gates[row] >= 0:
                sums[row, :units] += bias[r, gates[row] * units : (gates[row] + 1) * units]
    for threads in thread_counts:
        for shards in (1, 2, 3, 7):
            target, found = np.full(plan.packed, np.nan, dtype), np.full_like(sums, GUARD)
            pack(
                threads, shards, plan.panels, kernel, recurrent, plan.x_gates, plan.h_gates, bias, found, units, width,
                target,
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
            pack_transposed(threads, shards, matrix, gates, units, width, target)
            np.testing.assert_array_equal(target, expected)
