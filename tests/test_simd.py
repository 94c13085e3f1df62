"""The register tile and the gather, in every compiled variant, against their NumPy twins."""

import numpy as np
import pytest
from callable_kernels import called

from elman import jit
from elman.jit import vector_bytes
from elman.kernels import simd
from elman.kernels.simd import ROWS, VECTORS, gather, lanes, merge, pile, pointer, tile

DTYPES = [np.float32, np.float64]
VARIANTS = [(ROWS, 2), (4, 2), (ROWS, 1), (4, 1), (1, 8), (1, 4), (1, 2), (1, 1)]
GUARD = 12345.75
FAR = (1 << 50, -(1 << 40), 12345)
"""What tiles fetch early, and strides: nothing lies there."""


@called
def run_tile(which, a, ao, ars, aks, ka, b, bo, brs, bks, kb, bss, segments, p, po, ps, far, d, do, ldd, c, co, ldc):
    """All variants in one compiled function: eight would take eight times as long to compile."""
    x, y, q, e, z = pointer(a), pointer(b), pointer(p), pointer(d), pointer(c)
    soon = (q, far[0], far[1], far[2])
    d1, d2, d4 = (do[0],), (do[0], do[1]), (do[0], do[1], do[2], do[3])
    c1, c2, c4 = (co[0],), (co[0], co[1]), (co[0], co[1], co[2], co[3])
    if which == 0:
        tile(ROWS, 2, x, ao, ars, aks, ka, y, bo, brs, bks, kb, bss, segments, q, po, ps, soon, e, d2, ldd, z, c2, ldc)
    elif which == 1:
        tile(4, 2, x, ao, ars, aks, ka, y, bo, brs, bks, kb, bss, segments, q, po, ps, soon, e, d2, ldd, z, c2, ldc)
    elif which == 2:
        tile(ROWS, 1, x, ao, ars, aks, ka, y, bo, brs, bks, kb, bss, segments, q, po, ps, soon, e, d1, ldd, z, c1, ldc)
    elif which == 3:
        tile(4, 1, x, ao, ars, aks, ka, y, bo, brs, bks, kb, bss, segments, q, po, ps, soon, e, d1, ldd, z, c1, ldc)
    elif which == 4:
        tile(1, 8, x, ao, ars, aks, ka, y, bo, brs, bks, kb, bss, segments, q, po, ps, soon, e, do, ldd, z, co, ldc)
    elif which == 5:
        tile(1, 4, x, ao, ars, aks, ka, y, bo, brs, bks, kb, bss, segments, q, po, ps, soon, e, d4, ldd, z, c4, ldc)
    elif which == 6:
        tile(1, 2, x, ao, ars, aks, ka, y, bo, brs, bks, kb, bss, segments, q, po, ps, soon, e, d2, ldd, z, c2, ldc)
    else:
        tile(1, 1, x, ao, ars, aks, ka, y, bo, brs, bks, kb, bss, segments, q, po, ps, soon, e, d1, ldd, z, c1, ldc)


class Operands:
    """Random operands for one tile, with strides of every sign and gaps between all rows."""

    def __init__(self, rng, dtype, ka, kb, segments, *, bias=False, layout=0):
        self.rng, self.dtype, self.ka, self.kb, self.segments = rng, dtype, ka, kb, segments
        width = lanes(dtype)
        k = ka + kb * segments
        self.a, self.b = rng.standard_normal(4000).astype(dtype), rng.standard_normal(20_000).astype(dtype)
        # (offset, row stride, column stride): rows, columns, reversed time, every third element.
        ka1 = max(ka, 1)
        self.a_places = [(3, ka1 + 2, 1), (0, 1, ROWS + 3), (1 + ka1, ka1 + 5, -1), (2, 3 * ka1 + 1, 3)][layout]
        self.b_places = [(5, kb + 1, 1), (2, 1, ROWS), (7 + 2 * kb, 2 * kb + 3, -2), (1, kb, 1)][layout]
        self.bss = [ROWS * (kb + 1) + 4, ROWS * max(kb, 1) + 1, 700, ROWS * kb][layout]
        self.ps = k * VECTORS * width + 2 * width
        self.p = rng.standard_normal(5 * self.ps + k * width).astype(dtype)
        self.ldc = 9 * width + 5
        self.c = np.full(ROWS * self.ldc + 40 * width, GUARD, dtype)
        self.ldd = 0 if bias else 9 * width + 1
        self.d = rng.standard_normal(ROWS * 9 * width + 40 * width).astype(dtype)
        # Vectors of C and D in any order, none touching another.
        self.co = tuple(int(v) * (width + 0) + 3 for v in rng.permutation(9)[:8])
        self.do = tuple(int(v) * width + 1 for v in rng.permutation(8))

    def arguments(self, c, vectors=8):
        return (
            self.a, *self.a_places, self.ka, self.b, *self.b_places, self.kb, self.bss, self.segments,
            self.p, 2, self.ps, FAR, self.d, self.do[:vectors], self.ldd, c, self.co[:vectors], self.ldc,
        )  # fmt: skip

    def naive(self, rows, vectors):
        """The product, element by element, in float64, from the words of `tile`'s docstring."""
        width, c = lanes(self.dtype), self.c.astype(np.float64)
        (ao, ars, aks), (bo, brs, bks) = self.a_places, self.b_places
        for r in range(rows):
            left = [self.a[ao + r * ars + k * aks] for k in range(self.ka)]
            for s in range(self.segments):
                left += [self.b[bo + r * brs + k * bks + s * self.bss] for k in range(self.kb)]
            for v in range(vectors):
                each = min(vectors, VECTORS) * width
                for j in range(width):
                    total = np.float64(self.d[self.do[v] + r * self.ldd + j])
                    for k, x in enumerate(left):
                        panel = 2 + (v // VECTORS) * self.ps + k * each + (v % VECTORS) * width
                        total += np.float64(x) * np.float64(self.p[panel + j])
                    c[self.co[v] + r * self.ldc + j] = total
        return c


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", range(4))
@pytest.mark.parametrize(("ka", "kb", "segments"), [(5, 3, 2), (1, 0, 0), (0, 7, 1), (0, 1, 3), (2, 4, 0), (0, 0, 0)])
def test_tiles_compute_their_product_and_write_nothing_else(dtype, layout, ka, kb, segments, rng):
    for which, (rows, vectors) in enumerate(VARIANTS):
        o = Operands(rng, dtype, ka, kb, segments, bias=which % 2 == 1, layout=layout)
        expected = o.naive(rows, vectors)
        compiled, twin = o.c.copy(), o.c.copy()
        run_tile(which, *o.arguments(compiled))
        tile(rows, vectors, *o.arguments(twin, vectors))
        budget = 40 * np.finfo(dtype).eps
        np.testing.assert_allclose(compiled, expected, rtol=budget, atol=budget, err_msg=str((rows, vectors)))
        np.testing.assert_allclose(twin, expected, rtol=budget, atol=budget, err_msg=str((rows, vectors)))
        untouched = expected == GUARD
        assert untouched.sum() == o.c.size - rows * vectors * lanes(dtype)
        np.testing.assert_array_equal(compiled[untouched], o.c[untouched])


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_variant_gives_an_element_the_same_bits(dtype, rng):
    """An element is one chain of multiply-adds: it does not matter which tile computes it."""
    width = lanes(dtype)
    results = {}
    o = Operands(rng, dtype, 6, 5, 3)
    # One panel of one vector: what all variants with a single vector share.
    for which, (rows, vectors) in enumerate(VARIANTS):
        if vectors == 1:
            c = o.c.copy()
            run_tile(which, *o.arguments(c))
            results[rows] = [c[o.co[0] + r * o.ldc :][:width].tobytes() for r in range(rows)]
    assert results[ROWS][:4] == results[4] and results[4][:1] == results[1]
    pairs = {}
    for which, (rows, vectors) in enumerate(VARIANTS):
        if vectors >= 2:
            c = o.c.copy()
            run_tile(which, *o.arguments(c))
            pairs[rows, vectors] = [[c[o.co[v] + r * o.ldc :][:width].tobytes() for v in (0, 1)] for r in range(rows)]
    first = pairs[ROWS, 2]
    assert pairs[4, 2] == first[:4]
    assert pairs[1, 2] == pairs[1, 4] == pairs[1, 8] == first[:1]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tile_may_write_where_its_start_lies(dtype, rng):
    """D = C: the product accumulates."""
    for which, (rows, vectors) in enumerate(VARIANTS):
        o = Operands(rng, dtype, 4, 3, 1)
        o.do, o.ldd = o.co, o.ldc
        o.c[:] = rng.standard_normal(o.c.size)
        apart, together = o.c.copy(), o.c.copy()
        o.d = o.c.copy()
        run_tile(which, *o.arguments(apart))
        o.d = together
        run_tile(which, *o.arguments(together))
        np.testing.assert_array_equal(together, apart, err_msg=str((rows, vectors)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_infinity_pass_a_tile(dtype, rng):
    o = Operands(rng, dtype, 3, 0, 0)
    o.a[o.a_places[0] + o.a_places[1] + 1] = np.nan
    o.a[o.a_places[0] + 2 * o.a_places[1] + 1] = np.inf
    run_tile(0, *o.arguments(o.c))
    width = lanes(dtype)
    rows = [o.c[o.co[0] + r * o.ldc :][:width] for r in range(ROWS)]
    assert np.isnan(rows[1]).all() and np.isinf(rows[2]).all()
    assert all(np.isfinite(row).all() for r, row in enumerate(rows) if r not in (1, 2))


@called
def run_gather(vectors, source, so, stride, count, target, to, sums, mo):
    if vectors == 2:
        gather(2, pointer(source), so, stride, count, pointer(target), to, pointer(sums), mo)
    else:
        gather(1, pointer(source), so, stride, count, pointer(target), to, pointer(sums), mo)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vectors", [1, 2])
@pytest.mark.parametrize("count", [0, 1, 2, 13])
def test_gather_copies_and_sums(dtype, vectors, count, rng):
    width = lanes(dtype)
    stride = 3 * width + 1
    source = rng.standard_normal(20 * stride).astype(dtype)
    so = (5, 5 + width + 2)
    results = []
    for function in (run_gather, gather):
        target, sums = np.full(40 * width, GUARD, dtype), np.full(6 * width, 0.5, dtype)
        function(vectors, source, so, stride, count, target, 3, sums, width)
        results.append((target, sums))
    (target, sums), (twin_target, twin_sums) = results
    expected = np.full(40 * width, GUARD, dtype)
    total = np.full(6 * width, 0.5)
    for r in range(count):
        for v in range(vectors):
            row = source[so[v] + r * stride :][:width]
            expected[3 + (r * vectors + v) * width :][:width] = row
            total[width + v * width :][:width] += row
    np.testing.assert_array_equal(target, expected)
    np.testing.assert_array_equal(twin_target, expected)
    np.testing.assert_allclose(sums, total, rtol=40 * np.finfo(dtype).eps)
    np.testing.assert_allclose(twin_sums, total, rtol=40 * np.finfo(dtype).eps)
    np.testing.assert_array_equal(np.delete(sums, np.s_[width : (1 + vectors) * width]), dtype(0.5))


@called
def run_pile(source, so, stride, count, target, to):
    pile(pointer(source), so, stride, count, pointer(target), to)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("count", "stride"), [(0, 5), (1, 5), (4, 37), (9, -20)])
def test_pile_copies(dtype, count, stride, rng):
    source = rng.standard_normal(500).astype(dtype)
    for function in (run_pile, pile):
        target = np.full(20 * ROWS, GUARD, dtype)
        function(source, 200, stride, count, target, 3)
        expected = np.full(20 * ROWS, GUARD, dtype)
        for k in range(count):
            expected[3 + k * ROWS :][:ROWS] = source[200 + k * stride :][:ROWS]
        np.testing.assert_array_equal(target, expected)


@called
def run_merge(source, so, stride, count, parts, apart, target, to, line):
    merge(pointer(source), so, stride, count, parts, apart, pointer(target), to, line)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("count", "parts"), [(0, 2), (1, 1), (5, 1), (3, 2), (4, 7)])
def test_merge_adds_up_parts_one_after_another(dtype, count, parts, rng):
    width, so, stride, apart, to, line = lanes(dtype), 3, 40, 300, 5, 37
    source = rng.standard_normal(3000).astype(dtype)
    expected = np.full(400, GUARD, dtype)
    for r in range(count):
        pieces = [source[so + r * stride + p * apart :][:width] for p in range(parts)]
        expected[to + r * line :][:width] = sum(pieces[1:], pieces[0])
    for function in (run_merge, merge):
        target = np.full(400, GUARD, dtype)
        function(source, so, stride, count, parts, apart, target, to, line)
        np.testing.assert_array_equal(target, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_addresses(dtype, rng):
    array = rng.standard_normal((4, 5)).astype(dtype)

    @called
    def at(place, like, index):
        return simd.element(simd.pointer_at(place, like), index)

    for view in (array, array.T, array[::-1], array[1:, ::2]):
        stride = view.strides[1] // array.itemsize
        assert at(simd.address(view), array, 2 * stride) == view[0, 2]
    assert simd.element(array[1:], 0) == array[1, 0]


def test_lanes():
    assert lanes(np.float32) * 4 == lanes(np.float64) * 8 == vector_bytes()
    assert vector_bytes() in (16, 32, 64)


@pytest.mark.skipif(jit.DISABLED, reason="an address is the array itself")
@pytest.mark.parametrize("direct", [True, False])
def test_addresses_are_those_of_the_first_element(direct, monkeypatch):
    """Read from the object where NumPy keeps it, or asked for."""
    monkeypatch.setattr(simd, "_DIRECT", direct)
    a = np.arange(60.0).reshape(3, 4, 5)
    for array in (a, a[1:], a[:, ::-1], a[::-1, 1:, 2:], a.T, a[:0], np.float32([1]), np.array(2)):
        assert simd.address(array) == array.__array_interface__["data"][0]
