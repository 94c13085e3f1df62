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
def _sum(work, begin, end):
    total = 0.0
    for b in range(begin, end):
        total += work[b]
    return total


@helper
def _deal(work, band, pieces, load):
    """Give every thread bands in a row while they stay within its share, then each band left to the one with the least.

    With the longest sequences first those left are the shortest. Bands that follow each other make one piece.
    """
    threads, batch = pieces.shape[0], work.size
    # A rounded sum a little above its share would put off the last band of equal ones.
    share, first = _sum(work, 0, batch) / threads * (1 + 1e-9), 0
    for i in range(threads):
        begin, load[i] = first, 0.0
        while first < batch and load[i] + _sum(work, first, min(first + band, batch)) <= share:
            end = min(first + band, batch)
            load[i] += _sum(work, first, end)
            first = end
        if first > begin:
            pieces[i, 0, 0], pieces[i, 0, 1] = begin, first
    for begin in range(first, batch, band):
        i, end = 0, min(begin + band, batch)
        for other in range(1, threads):
            if load[other] <= load[i]:  # of equal ones the last: its piece may end here
                i = other
        load[i] += _sum(work, begin, end)
        p = 0
        while pieces[i, p, 1] > 0 and pieces[i, p, 1] != begin:
            p += 1
        if pieces[i, p, 1] == 0:
            pieces[i, p, 0] = begin
        pieces[i, p, 1] = end


@helper
def _cut(work, band, pieces):
    """Give every thread one piece, with as much work as the others."""
    threads, batch = pieces.shape[0], work.size
    total, done, cut, begin = _sum(work, 0, batch), 0.0, 1, 0
    for b in range(batch):
        done += work[b]
        while cut < threads and done >= total * cut / threads:
            end = min(batch, (b + 1 + band // 2) // band * band)
            pieces[cut - 1, 0, 0], pieces[cut - 1, 0, 1] = begin, end
            begin, cut = end, cut + 1
    pieces[cut - 1, 0, 0], pieces[cut - 1, 0, 1] = begin, batch


def cut_items(work: np.ndarray, cost: np.ndarray, items: np.ndarray) -> None:
    """Cut a list, for each part of `work` once all panels of a `cost`, into `items` (threads, 1, 2) of as much work."""
    threads, panels = items.shape[0], cost.size
    number = work.size * panels
    total, done, cut, begin = 0.0, 0.0, 1, 0
    for i in range(number):
        total += work[i // panels] * cost[i % panels]
    for i in range(number):
        one = work[i // panels] * cost[i % panels]
        while cut < threads and done + one / 2 >= total * cut / threads:
            items[cut - 1, 0, 0], items[cut - 1, 0, 1] = begin, i
            begin, cut = i, cut + 1
        done += one
    while cut <= threads:
        items[cut - 1, 0, 0], items[cut - 1, 0, 1] = begin, number
        begin, cut = number, cut + 1


_cut_items = helper(cut_items)


@Entry
def share(mask, time_block, band, idle, pieces, gaps, read, work, load, parts, cost, items):
    """From a mask (T, B): `pieces` of the batch for threads, with as much work each; `gaps`, `read` (T, bands).

    ``pieces[i, p]`` (threads, pieces, 2) is (begin, end) of the sequences that thread i takes p-th; it enters as zeros,
    and what stays so is empty. Bounds are multiples of `band`; a thread may get no sequence. With one piece per thread
    these are cuts of the batch; otherwise there must be as many as bands, and bands are dealt out.
    ``gaps[t, k]`` is 1 where a sequence of band k, `band` sequences, does not use step t; ``read[t, k]`` is how many of
    them there are up to the last one that uses step t or a later one in its block of `time_block` steps, in fours.
    `work` (B,) gets what every sequence takes: 1 for each step that it uses, `idle` for each other one. `load`
    (threads,) is scratch. `items` are those of `cut_items` for the weight gradients of panels of such a `cost`; `parts`
    (parts of the batch,) gets what these read.
    """
    steps, batch = mask.shape
    _look_at_bands(mask, time_block, band, gaps, read)
    work[:] = idle * steps
    # Row by row: 3 us where columns took 13 (T = 24, B = 256).
    for t in range(steps):
        for b in range(batch):
            work[b] += (1 - idle) * mask[t, b]
    if pieces.shape[1] > 1:
        _deal(work, band, pieces, load)
    else:
        _cut(work, band, pieces)
    bands = read.shape[1]
    for p in range(parts.size):
        parts[p] = 0
        for t in range(steps):
            for k in range(p * bands // parts.size, (p + 1) * bands // parts.size):
                parts[p] += read[t, k]
    _cut_items(parts, cost, items)
