"""Layer normalisation of rows: Ba, Kiros & Hinton (2016), "Layer Normalization", equations 2 to 4.

``y = gamma n + beta`` with ``n = (x - mean) / sqrt(variance + epsilon)`` over the F values of a row. The arithmetic is
float64 for either type and rounds once, at the end: a row far from zero, as of a trend, keeps its digits. Kept for the
way back are x itself and two numbers per row, mean and ``r = 1 / sqrt(variance + epsilon)``; n is computed again.

Rows are cut into blocks of a number that only their count decides, so the sums over rows do not depend on threads.
"""

from __future__ import annotations

import numpy as np

from elman.jit import Entry, Function, invoke, matrix, prange, types, vector

_FLOAT64 = np.dtype(np.float64)
_MOST_BLOCKS, _LEAST_ROWS = 256, 32


def block_rows(rows: int) -> int:
    """Rows per block: at least 32, and so many that there are at most 256 blocks.

    Examples
    --------
    >>> block_rows(100), block_rows(25_600)
    (32, 100)
    """
    return max(_LEAST_ROWS, -(-rows // _MOST_BLOCKS))


def _forward(x, gamma, beta, epsilon, lo, hi, moments, y):
    kind, width = y.dtype.type, np.uint64(x.shape[1])
    size, even = np.float64(x.shape[1]), width // np.uint64(4) * np.uint64(4)
    for i in range(lo, hi):
        # Four sums at a time: one alone waits for its own last addition.
        a = b = c = d = np.float64(0)
        for j in range(np.uint64(0), even, np.uint64(4)):
            a += x[i, j]
            b += x[i, j + np.uint64(1)]
            c += x[i, j + np.uint64(2)]
            d += x[i, j + np.uint64(3)]
        for j in range(even, width):
            a += x[i, j]
        mean = ((a + b) + (c + d)) / size
        a = b = c = d = np.float64(0)
        for j in range(np.uint64(0), even, np.uint64(4)):
            e, f = x[i, j] - mean, x[i, j + np.uint64(1)] - mean
            g, h = x[i, j + np.uint64(2)] - mean, x[i, j + np.uint64(3)] - mean
            a += e * e
            b += f * f
            c += g * g
            d += h * h
        for j in range(even, width):
            e = x[i, j] - mean
            a += e * e
        variance = ((a + b) + (c + d)) / size + epsilon
        r = 1.0 / np.sqrt(variance) + (variance - variance)  # NaN, not 0, where it overflows
        moments[i, 0], moments[i, 1] = mean, r
        for j in range(np.uint64(0), width):
            y[i, j] = kind(gamma[j] * ((x[i, j] - mean) * r) + beta[j])


forward_function = Function(
    _forward,
    lambda dtype: (
        matrix(dtype), *(vector(dtype),) * 2, types.float64, *(types.uint64,) * 2, matrix(_FLOAT64), matrix(dtype),
    ),
)  # fmt: skip


def _backward(x, gamma, dy, moments, lo, hi, sums, dx):
    """With g = gamma dy: ``dx = r (g - mean(g) - n mean(g n))``; ``sums`` gets the rows' n dy and dy."""
    kind, width = dx.dtype.type, np.uint64(x.shape[1])
    size, even = np.float64(x.shape[1]), width // np.uint64(2) * np.uint64(2)
    for j in range(np.uint64(0), width):
        sums[0, j], sums[1, j] = 0.0, 0.0
    for i in range(lo, hi):
        mean, r = moments[i, 0], moments[i, 1]
        a = b = c = d = np.float64(0)
        for j in range(np.uint64(0), even, np.uint64(2)):
            k = j + np.uint64(1)
            e, f = np.float64(gamma[j]) * dy[i, j], np.float64(gamma[k]) * dy[i, k]
            a += e
            b += f
            c += e * (x[i, j] - mean)
            d += f * (x[i, k] - mean)
        for j in range(even, width):
            e = np.float64(gamma[j]) * dy[i, j]
            a += e
            c += e * (x[i, j] - mean)
        mean_g, mean_gn = (a + b) / size, r * (c + d) / size
        for j in range(np.uint64(0), width):
            n, g = (x[i, j] - mean) * r, np.float64(dy[i, j])
            sums[0, j] += n * g
            sums[1, j] += g
            dx[i, j] = kind(r * (gamma[j] * g - mean_g - n * mean_gn))


backward_function = Function(
    _backward,
    lambda dtype: (
        matrix(dtype), vector(dtype), matrix(dtype), matrix(_FLOAT64), *(types.uint64,) * 2, matrix(_FLOAT64),
        matrix(dtype),
    ),
)  # fmt: skip


def _collect(sums, d_gamma, d_beta):
    """Add the blocks' sums in their order, the first block's in place."""
    kind, width = d_gamma.dtype.type, np.uint64(d_gamma.size)
    for block in range(1, sums.shape[0]):
        for j in range(np.uint64(0), width):
            sums[0, 0, j] += sums[block, 0, j]
            sums[0, 1, j] += sums[block, 1, j]
    for j in range(np.uint64(0), width):
        d_gamma[j], d_beta[j] = kind(sums[0, 0, j]), kind(sums[0, 1, j])


collect_function = Function(_collect, lambda dtype: (types.Array(types.float64, 3, "C"), *(vector(dtype),) * 2))


@Entry
def normalize(function, x, gamma, beta, epsilon, block, moments, y):
    """y (n, F) of x (n, F); ``moments`` (n, 2) gets every row's mean and r."""
    n = x.shape[0]
    for c in prange((n + block - 1) // block):
        lo = np.int64(c) * block
        invoke(function, (x, gamma, beta, epsilon, np.uint64(lo), np.uint64(min(lo + block, n)), moments, y))


@Entry
def normalize_gradient(function, collect, x, gamma, dy, moments, block, sums, d_gamma, d_beta, dx):
    """dx (n, F) and the gradients of gamma and beta (F,); ``sums`` is scratch (blocks, 2, F)."""
    n = x.shape[0]
    for c in prange(sums.shape[0]):
        lo = np.int64(c) * block
        invoke(function, (x, gamma, dy, moments, np.uint64(lo), np.uint64(min(lo + block, n)), sums[c], dx))
    invoke(collect, (sums, d_gamma, d_beta))
