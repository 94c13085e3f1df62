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


def run(mask, block, band, threads):
    bounds = np.full(threads + 1, -7, np.int64)
    read = np.full((len(mask), -(-mask.shape[1] // band)), 7, np.uint8)
    return bounds, read, share(1, mask.view(np.uint8), block, band, bounds, read)


@pytest.mark.parametrize("block", [1, 4, 64])
@pytest.mark.parametrize("band", [1, 4, 8])
@pytest.mark.parametrize(("steps", "batch"), SHAPES)
def test_what_the_weight_gradients_read(steps, batch, block, band):
    for mask in masks(steps, batch):
        read = run(mask, block, band, 2)[1]
        for t in range(steps):
            rest = mask[t : (t // block + 1) * block].any(axis=0)
            assert read[t].tolist() == [rest[b : b + band].any() for b in range(0, batch, band)]


def test_holes():
    rising = np.tri(7, 7, dtype=bool)
    for mask, holes in (
        (np.ones((7, 7), bool), False), (np.zeros((7, 7), bool), False), (rising, False), (rising[::-1], False),
        (rising[:, ::-1], True), (np.eye(7, dtype=bool), True),
    ):  # fmt: skip
        assert run(mask, 2, 4, 2)[2] == holes


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
