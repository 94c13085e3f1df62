"""Figures in which the machine's noise cancels: shares of the FMA peak, and ratios to PyTorch.

The peak is measured in the same process right before and after the steps, so that a slower machine, or one that others
use too, moves both. A ratio to PyTorch is one row of ``peers.py``, whose rounds alternate between two processes.

    asv run -E existing --quick --bench shares

PyTorch may live elsewhere, as it does beside asv's own environments: ``ELMAN_PYTHON_PEERS=/path/to/python``.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import PEER_GATES, SIZES, batch, make_model, step_flops

# The scripts beside this package; asv lets only the package itself be imported. Last, so that they hide nothing.
sys.path.append(str(Path(__file__).resolve().parents[1]))

ROUNDS, SECONDS, STEPS = 3, 0.1, 5


def share_of_peak(step: Callable[[], Any], flops: int, threads: int) -> float:
    """`flops` per median time of a step, over the peak of as many threads; the median of three rounds."""
    from peak import fma_peak

    step()
    begin = time.perf_counter()
    step()
    # Peaks of the length of a step: a time slice that others get hits both or none.
    length = min(0.05, time.perf_counter() - begin)
    found = []
    before = fma_peak(threads, seconds=length, repeats=5)
    for _ in range(ROUNDS):
        times: list[float] = []
        end = time.perf_counter() + SECONDS
        while len(times) < STEPS or time.perf_counter() < end:
            begin = time.perf_counter()
            step()
            times.append(time.perf_counter() - begin)
        after = fma_peak(threads, seconds=length, repeats=5)
        found.append(flops / statistics.median(times) / 1e9 / ((before + after) / 2))
        before = after
    return statistics.median(found)


class _Share:
    """Share of the FMA peak of as many threads, of the operations that `step_flops` counts."""

    params = (tuple(PEER_GATES), tuple(SIZES), (1, 2))
    param_names = ("cell", "BxTxIxH", "threads")
    unit = "of the FMA peak"
    task = "train"

    def setup(self, cell: str, size: str, threads: int) -> None:
        from elman.jit import maximum_threads

        if threads > maximum_threads():
            raise NotImplementedError(f"this process may use {maximum_threads()} thread")
        self.model = make_model(cell, SIZES[size], "float32")
        self.x, self.y = batch(SIZES[size], "float32")

    def step(self) -> None:
        self.model.train_on_batch(self.x, self.y)

    def track_share_of_peak(self, cell: str, size: str, threads: int) -> float:
        import elman

        with elman.num_threads(threads):
            return share_of_peak(self.step, step_flops(cell, SIZES[size], self.task), threads)


class TrainShare(_Share):
    """A training step."""


class PredictShare(_Share):
    """`predict_on_batch`."""

    task = "predict"

    def step(self) -> None:
        self.model.predict_on_batch(self.x)


class Ratio:
    """PyTorch's time over elman's, each in a process of its own and in the fastest of its forms."""

    params = (tuple(PEER_GATES), ("train", "predict"))
    param_names = ("cell", "task")
    unit = "times as fast as PyTorch"
    timeout = 300
    SIZE = "32x100x8x64"

    def setup(self, cell: str, task: str) -> None:
        import peers

        self.measure_row = peers.measure_row
        self.workers = peers.start(["elman", "torch"], os.environ.get("ELMAN_PYTHON_PEERS", sys.executable))
        if len(self.workers) < 2:
            self.teardown(cell, task)
            raise NotImplementedError("PyTorch is missing")

    def teardown(self, cell: str, task: str) -> None:
        for worker in self.workers.values():
            worker.close()

    def track_ratio_to_torch(self, cell: str, task: str) -> float:
        row = self.measure_row(self.workers, task, cell, SIZES[self.SIZE])
        if row["errors"]:
            raise RuntimeError(row["errors"])
        return row["ratio"]
