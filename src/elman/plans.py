"""The tables kernels need for a cell of given sizes, and how its work is shared out to threads."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from elman.cells import Cell
from elman.kernels.shares import cut_items, share
from elman.kernels.simd import ROWS, VECTORS, lanes

# Masked batches of up to so many bands per thread are dealt out; of more a cut between bands is off by 2 % at most.
_DEALT_BANDS = 32
# The weight gradients of a batch are summed in up to so many parts, which have up to so many sums together (1 MB).
_MOST_PARTS, _MOST_SUMS = 8, 1 << 18


@dataclass(frozen=True)
class Plan:
    """The tables kernels need for one cell, input width, unit count and dtype; see `elman.kernels.scan`."""

    width: int
    padded: int
    early: int
    groups: np.ndarray
    panels: np.ndarray
    packed: int
    sums: int
    x_gates: np.ndarray
    h_gates: np.ndarray
    x_rows: tuple[int, int]
    h_rows: tuple[int, int]
    operand: int
    cost: np.ndarray
    """What the weight gradients of each panel take, in no unit."""

    def shares(self, threads: int) -> int:
        """Shares of the units of one sequence for at most that many threads; see `elman.kernels.units`."""
        panels = -(-self.padded // (self.width * VECTORS))
        return -(-self.padded // (self.width * self.share(min(threads, panels))))

    def share(self, shares: int) -> int:
        """Vectors of every gate in each of so many shares, whole panels; the last one may have fewer."""
        return -(-self.padded // (self.width * VECTORS * shares)) * VECTORS

    def parts(self, batch: int) -> int:
        """Parts of a batch whose weight gradients are summed apart.

        A function of sizes, not of the number of steps, so that more of them that no sequence uses change no bit.
        """
        bands = -(-batch // band_rows(batch))
        most = min(bands, max(2, bands // 2), _MOST_PARTS, max(1, _MOST_SUMS // self.sums))
        return 1 << (most.bit_length() - 1)


@lru_cache(maxsize=256)
def make_plan(cell: Cell, inputs: int, units: int, dtype: np.dtype) -> Plan:
    """The tables for a cell with that many inputs and units."""
    width = lanes(dtype)
    block = -(-units // width)
    padded = block * width
    groups, panels, offset, sums = [], [], 0, 0
    for g in sorted(cell.groups, key=lambda g: g.late):
        kx, kh = inputs * g.has_input, units * g.has_recurrent
        groups.append((g.first, g.size, kx, kh, offset))
        for q in range(0, g.size * block, VECTORS):
            count = min(VECTORS, g.size * block - q)
            panels.append((g.first * block + q, count, kx, kh, int(g.late), sums))
            sums += (kx + kh + 1) * count * width
        offset += g.size * padded * (kx + kh)
    late = int(cell.late is not None)

    def by_row(rows: tuple[int, ...]) -> np.ndarray:
        table = np.full(cell.rows, -1, np.int64)
        table[list(rows)] = np.arange(len(rows))
        return table

    return Plan(
        width=width,
        padded=padded,
        early=len(groups) - late,
        groups=np.array(groups, np.int64),
        panels=np.array(panels, np.int64),
        packed=offset,
        sums=sums,
        x_gates=by_row(cell.x),
        h_gates=by_row(cell.h),
        x_rows=(min(cell.x), len(cell.x)),
        h_rows=(min(cell.h, default=0), len(cell.h) - late),
        operand=-1 if cell.operand is None else cell.operand,
        cost=np.array([(kx + kh + 4.0) * count for _, count, kx, kh, *_ in panels]),
    )


@lru_cache(maxsize=256)
def packed_panels(plan_key: tuple[Any, ...], shares: int = 1) -> np.ndarray:
    """Panels of the forward products as they are packed (n, 6): what `elman.kernels.matmul.pack` takes.

    With several shares (`elman.kernels.units`) the vectors of each one lie together, gate after gate. A panel's two may
    then be far from each other: each has a row of the table, and half of the panel.
    """
    plan = make_plan(*plan_key)
    block, width, rows = plan.padded // plan.width, plan.width, []
    size = plan.share(shares)
    for first, gates, kx, kh, to in plan.groups:
        for begin in range(0, block, size):
            end = min(begin + size, block)
            vectors = [(first + gate) * block + v for gate in range(gates) for v in range(begin, end)]
            for a, b in zip(vectors[::2], [*vectors[1::2], None][: -(-len(vectors) // 2)], strict=True):
                line = 1 if b is None else VECTORS
                if b is None or b == a + 1:
                    rows.append((a, line, kx, kh, to, line))
                else:
                    rows += [(a, 1, kx, kh, to, line), (b, 1, kx, kh, to + width, line)]
                to += line * width * (kx + kh)
    return np.array(rows, np.int64)


def band_rows(batch: int) -> int:
    """Sequences of a batch that share a piece of memory, and a thread: whole tiles where the batch has several.

    A function of the batch alone, as sums over a batch run band after band.
    """
    return ROWS if batch >= 2 * ROWS else 4 if batch >= 4 else 1


@lru_cache(maxsize=256)
def equal_pieces(batch: int, threads: int) -> np.ndarray:
    """Pieces of the batch (threads, 1, 2) as `elman.kernels.shares.share` has them: as many bands for each thread."""
    band = band_rows(batch)
    rows = -(-batch // (band * threads)) * band
    begins = np.arange(0, batch, rows)
    return np.stack([begins, np.minimum(begins + rows, batch)], axis=1)[:, None].astype(np.int64)


@lru_cache(maxsize=256)
def equal_items(plan_key: tuple[Any, ...], batch: int, threads: int) -> np.ndarray:
    """Items of the weight gradients (threads, 1, 2), all panels of each part of the batch, of as much work for each."""
    plan, band = make_plan(*plan_key), band_rows(batch)
    bands, parts = -(-batch // band), plan.parts(batch)
    bounds = np.minimum(np.arange(parts + 1) * bands // parts * band, batch)
    items = np.empty((threads, 1, 2), np.int64)
    cut_items(np.diff(bounds).astype(float), plan.cost, items)
    return items


class Shares(NamedTuple):
    """How a masked batch is shared out to threads; see `elman.kernels.shares.share`."""

    pieces: np.ndarray
    """(threads, pieces, 2) of the batch."""
    items: np.ndarray
    """(threads, 1, 2) of the weight gradients."""
    gaps: np.ndarray
    """(T, bands): where a band has gaps."""
    read: np.ndarray
    """(T, bands): how many sequences of a band the weight gradients read."""


def shared(mask: np.ndarray, threads: int, time_block: int, idle: float, plan: Plan) -> Shares:
    """What a mask (T, B) makes of the batch.

    Few bands are dealt out: of 4, ordered by length, two threads would get 42 and 58 % by one cut.
    """
    steps, batch = mask.shape
    band = band_rows(batch)
    bands = -(-batch // band)
    pieces = np.zeros((threads, bands if threads > 1 and bands <= _DEALT_BANDS * threads else 1, 2), np.int64)
    items = np.empty((threads, 1, 2), np.int64)
    gaps, read = np.empty((2, steps, bands), np.uint8)
    share(
        1, mask, time_block, band, idle, pieces, gaps, read, np.empty(batch), np.empty(threads),
        np.empty(plan.parts(batch)), plan.cost, items,
    )  # fmt: skip
    return Shares(pieces, items, gaps, read)


@lru_cache(maxsize=256)
def equal_panels(panels: int, threads: int) -> np.ndarray:
    """As many panels for each thread, as pieces (threads, 1, 2)."""
    bounds = np.arange(threads + 1) * panels // threads
    return np.stack([bounds[:-1], bounds[1:]], axis=1)[:, None].astype(np.int64)
