"""How sequences that use different steps are shared out to threads."""

from __future__ import annotations

import numpy as np

from elman.jit import Entry, helper


@helper
def _look_at_bands(mask, time_block, band, gaps, read):
    """Fill `gaps` and `read`; see `share`."""
    steps, batch = mask.shape
    for i in range(steps):
        t = steps - 1 - i
        fresh = i == 0 or t % time_block == time_block - 1
        for k in range(read.shape[1]):
            first, used = k * band, 0 if fresh else np.int64(read[t + 1, k])
            size = min(band, batch - first)
            uses = 0
            for b in range(first, first + size):
                uses += mask[t, b]
            gaps[t, k] = uses < size
            rows = size if uses > 0 else used
            while rows > used and mask[t, first + rows - 1] == 0:
                rows -= 1
            # Sums over whole tiles: each run of steps with as many rows is a product of its own.
            read[t, k] = min(size, (rows + 3) // 4 * 4)


@helper
def _deal(counts, idle, band, pieces, load):
    """Give every band to the thread with the least work so far; bands that follow each other make one piece."""
    threads, batch = pieces.shape[0], counts.size
    load[:] = 0
    for first in range(0, batch, band):
        i, end = 0, min(first + band, batch)
        for other in range(1, threads):
            if load[other] < load[i]:
                i = other
        for b in range(first, end):
            load[i] += idle + counts[b]
        p = 0
        while pieces[i, p, 1] > 0 and pieces[i, p, 1] != first:
            p += 1
        if pieces[i, p, 1] == 0:
            pieces[i, p, 0] = first
        pieces[i, p, 1] = end


@helper
def _cut(counts, idle, band, pieces):
    """Give every thread one piece, with as much work as the others."""
    threads, batch = pieces.shape[0], counts.size
    total, work, cut, begin = idle * batch, 0.0, 1, 0
    for b in range(batch):
        total += counts[b]
    for b in range(batch):
        work += idle + counts[b]
        while cut < threads and work >= total * cut / threads:
            end = min(batch, (b + 1 + band // 2) // band * band)
            pieces[cut - 1, 0, 0], pieces[cut - 1, 0, 1] = begin, end
            begin, cut = end, cut + 1
    pieces[cut - 1, 0, 0], pieces[cut - 1, 0, 1] = begin, batch


@Entry
def share(mask, time_block, band, pieces, gaps, read, counts, load):
    """From a mask (T, B): `pieces` of the batch for threads, with as many used steps each; `gaps`, `read` (T, bands).

    ``pieces[i, p]`` (threads, pieces, 2) is (begin, end) of the sequences that thread i takes p-th; it enters as zeros,
    and what stays so is empty. Bounds are multiples of `band`; a thread may get no sequence. With one piece per thread
    these are cuts of the batch; otherwise there must be as many as bands, and bands are dealt out.
    ``gaps[t, k]`` is 1 where a sequence of band k, `band` sequences, does not use step t; ``read[t, k]`` is how many of
    them there are up to the last one that uses step t or a later one in its block of `time_block` steps, in fours.
    `counts` (B,) gets the used steps of every sequence; `load` (threads,) is scratch.
    """
    steps, batch = mask.shape
    _look_at_bands(mask, time_block, band, gaps, read)
    counts[:] = 0
    # Row by row: 3 us where columns took 13 (T = 24, B = 256).
    for t in range(steps):
        for b in range(batch):
            counts[b] += mask[t, b]
    # A sequence that uses no step still carries its state: 1/64 of a step's work per step (measured).
    if pieces.shape[1] > 1:
        _deal(counts, steps / 64, band, pieces, load)
    else:
        _cut(counts, steps / 64, band, pieces)
