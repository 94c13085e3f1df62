"""Rows of a table by number, and the gradient of the table, summed into the rows that were used."""

from __future__ import annotations

import numpy as np

from elman.jit import Entry, prange

TOKENS = 256
"""Tokens per chunk of `gather`."""
COLUMNS = 32
"""Columns per chunk of `scatter`: two cache lines of float32."""


@Entry
def gather(tokens, table, limit, ids, bad, y):
    """``y[i] = table[tokens[i]]``, and the tokens as integers in ``ids``.

    Tokens are floats, `limit` the number of rows in their type. ``bad[c]`` is the first place in chunk c whose token is
    no integer in [0, limit), or -1; such a token, NaN included, reads row 0.
    """
    n, width = tokens.size, np.uint64(table.shape[1])
    for c in prange(bad.size):
        lo = np.int64(c) * TOKENS
        hi = min(lo + TOKENS, n)
        bad[c] = -1
        for i in range(np.uint64(lo), np.uint64(hi)):
            token = tokens[i]
            row = np.uint64(0)
            if token >= 0 and token < limit and np.floor(token) == token:
                row = np.uint64(np.int64(token))
            elif bad[c] < 0:
                bad[c] = np.int64(i)
            ids[i] = row
            for j in range(width):
                y[i, j] = table[row, j]


@Entry
def scatter(before, ids, dy, gradient):
    """Zero the rows `before` of ``gradient`` and add ``dy[i]`` to row ``ids[i]``, token after token.

    Columns are independent, so they are what is cut: every sum runs over the tokens in their order.
    """
    width = gradient.shape[1]
    for c in prange((width + COLUMNS - 1) // COLUMNS):
        begin = np.int64(c) * COLUMNS
        lo, hi = np.uint64(begin), np.uint64(min(begin + COLUMNS, width))
        for i in range(np.uint64(before.size)):
            row = before[i]
            for j in range(lo, hi):
                gradient[row, j] = gradient.dtype.type(0)
        for i in range(np.uint64(ids.size)):
            row = ids[i]
            for j in range(lo, hi):
                gradient[row, j] += dy[i, j]
