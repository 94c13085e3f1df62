"""How sequences that use different steps are shared out to threads, against plain Python."""

import itertools

import numpy as np
import pytest

from elman.kernels.shares import share
from elman.masks import checked_steps, expanded, time_major

SHAPES = [(1, 1), (7, 5), (100, 32), (13, 300)]


def masks(steps, batch):
    rng = np.random.default_rng(steps)
    lengths = np.sort(rng.integers(0, steps + 1, batch))[::-1]
    yield np.ones((steps, batch), bool)
    yield np.zeros((steps, batch), bool)
    yield rng.random((steps, batch)) < 0.3
    yield np.arange(steps)[:, None] < lengths


def run(mask, block, step, threads):
    bounds, used = np.full(threads + 1, -7, np.int64), np.full(len(mask), -7, np.int64)
    share(1, mask.view(np.uint8), block, step, bounds, used)
    return bounds, used


@pytest.mark.parametrize("block", [1, 4, 64])
@pytest.mark.parametrize(("steps", "batch"), SHAPES)
def test_rows_used_by_a_block(steps, batch, block):
    for mask in masks(steps, batch):
        used = run(mask, block, 1, 2)[1]
        for t in range(steps):
            start = t // block * block
            columns = np.flatnonzero(mask[start : start + block].any(axis=0))
            assert used[t] == (columns[-1] + 1 if columns.size else 0)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("step", [1, 4, 8])
@pytest.mark.parametrize(("steps", "batch"), SHAPES)
def test_every_sequence_belongs_to_one_thread_and_work_is_even(steps, batch, step, threads):
    for mask in masks(steps, batch):
        bounds = run(mask, 8, step, threads)[0]
        assert bounds[0] == 0
        assert bounds[-1] == batch
        assert (np.diff(bounds) >= 0).all()
        assert all(b % step == 0 or b == batch for b in bounds)
        work = mask.sum(axis=0) + steps / 64
        shares = [work[a:b].sum() for a, b in itertools.pairwise(bounds)]
        # A cut is off by at most half a step of sequences and the one that crosses the line, at both ends.
        assert max(shares) <= work.sum() / threads + (step + 2) * work.max()


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
