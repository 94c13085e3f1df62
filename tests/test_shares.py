"""How sequences that use different steps are shared out to threads, against plain Python."""

import numpy as np
import pytest

from elman.cells import CELLS
from elman.kernels.shares import share
from elman.masks import checked_steps, expanded, time_major
from elman.recurrence import Recurrence

SHAPES = [(1, 1), (7, 5), (100, 32), (13, 300)]


def masks(steps, batch):
    rng = np.random.default_rng(steps)
    lengths = np.sort(rng.integers(0, steps + 1, batch))[::-1]
    yield np.ones((steps, batch), bool)
    yield np.zeros((steps, batch), bool)
    yield rng.random((steps, batch)) < 0.3
    yield np.arange(steps)[:, None] < lengths


IDLE = 1 / 16
COST = np.array([3.0, 1, 1, 2, 5])


def check_items(items, parts):
    """All panels of all parts in a row, once each; nobody's work is off by more than one of them, on either side."""
    begins, ends = items[:, 0].T
    assert begins[0] == 0 and ends[-1] == parts.size * COST.size
    assert (begins[1:] == ends[:-1]).all() and (begins <= ends).all()
    work = np.outer(parts, COST).ravel()
    shares = np.array([work[a:b].sum() for a, b in zip(begins, ends, strict=True)])
    assert (np.abs(shares - work.sum() / len(shares)) <= work.max()).all()


def run(mask, block, band, threads, dealt=False, idle=IDLE):
    bands = -(-mask.shape[1] // band)
    pieces = np.zeros((threads, bands if dealt else 1, 2), np.int64)
    gaps, read = np.full((2, len(mask), bands), 7, np.uint8)
    work = np.full(mask.shape[1], 7.0)
    load, parts, items = np.full(threads, 7.0), np.full(min(bands, 2), 7.0), np.full((threads, 1, 2), 7)
    share(1, mask.view(np.uint8), block, band, idle, pieces, gaps, read, work, load, parts, COST, items)
    half = bands // 2 if bands > 1 else bands
    np.testing.assert_array_equal(parts, [read[:, :half].sum(dtype=int), read[:, half:].sum(dtype=int)][: parts.size])
    check_items(items, parts)
    np.testing.assert_allclose(work, np.where(mask, 1, idle).sum(axis=0), rtol=1e-12)
    return pieces, gaps, read


@pytest.mark.parametrize("block", [1, 4, 64])
@pytest.mark.parametrize("band", [1, 4, 8])
@pytest.mark.parametrize(("steps", "batch"), SHAPES)
def test_what_the_weight_gradients_read(steps, batch, block, band):
    for mask in masks(steps, batch):
        read = run(mask, block, band, 2)[2]
        for t in range(steps):
            rest = mask[t : (t // block + 1) * block].any(axis=0)
            for k, b in enumerate(range(0, batch, band)):
                used = np.flatnonzero(rest[b : b + band])
                last = used[-1] + 1 if used.size else 0
                assert read[t, k] == min(-(-last // 4) * 4, len(rest[b : b + band]))


@pytest.mark.parametrize("band", [1, 4, 8])
@pytest.mark.parametrize(("steps", "batch"), SHAPES)
def test_where_a_band_has_gaps(steps, batch, band):
    for mask in masks(steps, batch):
        expected = [[not row[b : b + band].all() for b in range(0, batch, band)] for row in mask]
        np.testing.assert_array_equal(run(mask, 8, band, 2)[1], expected)


@pytest.mark.parametrize("dealt", [False, True])
@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("step", [1, 4, 8])
@pytest.mark.parametrize(("steps", "batch"), SHAPES)
def test_every_sequence_belongs_to_one_thread_and_work_is_even(steps, batch, step, threads, dealt):
    for mask in masks(steps, batch):
        pieces = run(mask, 8, step, threads, dealt)[0]
        owners, work = np.zeros(batch, int), np.where(mask, 1, IDLE).sum(axis=0)
        shares = np.zeros(threads)
        for i, p in np.ndindex(*pieces.shape[:2]):
            begin, end = pieces[i, p]
            assert begin == end or (begin < end and begin % step == 0 and (end % step == 0 or end == batch))
            owners[begin:end] += 1
            shares[i] += work[begin:end].sum()
        assert (owners == 1).all()
        if dealt:  # what is more than a thread's share is one band, which went to the one with the least work
            assert max(shares) <= work.sum() / threads + step * work.max()
        else:  # a cut is off by at most half a step of sequences and the one that crosses the line, at both ends
            assert max(shares) <= work.sum() / threads + (step + 2) * work.max()


def test_dealt_bands_of_sequences_by_length_leave_threads_even():
    """Cut between bands, two threads would get 42 and 58 %."""
    mask = np.arange(100)[:, None] < np.linspace(100, 1, 32).astype(int)
    assert run(mask, 8, 8, 2, True)[0].tolist() == [[[0, 8], [24, 32], [0, 0], [0, 0]], [[8, 24], *[[0, 0]] * 3]]


def test_the_shortest_sequences_even_the_threads_out():
    """A cut between bands gives one thread 1.026 of the mean; bands dealt one by one are pieces of 8, not of 80."""
    mask = np.arange(24)[:, None] < np.linspace(23, 1, 256).round()
    pieces, work = run(mask, 8, 8, 2, True)[0], np.where(mask, 1, IDLE).sum(axis=0)
    loads = [sum(work[a:b].sum() for a, b in mine) for mine in pieces]
    assert max(loads) <= 1.01 * work.sum() / 2
    assert (pieces[:, :, 1] > 0).sum() <= 6 and (pieces[:, 0, 1] - pieces[:, 0, 0]).min() >= 80


@pytest.mark.parametrize("idle", [4 / 9, 8 / 45])
@pytest.mark.parametrize(("batch", "threads"), [(32, 2), (48, 3), (256, 4), (257, 2), (40, 2)])
def test_equal_sequences_are_one_piece_per_thread(batch, threads, idle):
    """Whatever rounding makes of the sums; a band too many goes to the piece that it continues."""
    pieces = run(np.ones((24, batch), bool), 8, 8, threads, True, idle)[0]
    assert (pieces[:, 1:] == 0).all() and (pieces[:, 0, 1] > pieces[:, 0, 0]).all()


def test_what_a_step_that_is_not_used_takes():
    """A part of a step, ever less with more units and gates."""
    parts = [
        Recurrence(CELLS[cell], 3, units, np.dtype("float32"), "tanh", "sigmoid").idle
        for cell in ("simple", "gru", "lstm")
        for units in (1, 16, 128)
    ]
    assert all(0 < part <= 1 for part in parts)
    assert parts[0] == 1 and parts[1] == 0.5 > parts[4] > parts[7] and parts[1] > parts[2]


def test_masks_and_lengths():
    np.testing.assert_array_equal(
        expanded(checked_steps(None, [3, 0, 1], (3, 3)), 3), np.arange(3) < np.array([[3], [0], [1]])
    )
    mask = np.random.default_rng(0).random((4, 6)) < 0.5
    assert checked_steps(mask, None, (4, 6)) is mask
    major = time_major(mask, go_backwards=True)
    np.testing.assert_array_equal(major, mask.T[::-1])
    assert major.dtype == np.uint8
    assert major.flags.c_contiguous
