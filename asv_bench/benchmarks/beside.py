"""A fit on one thread beside a Python thread that is always busy: how much longer it takes than alone.

Rounds alternate. Python's own interval is tried too, in place of that of `elman.threads.sharing`.

    asv run -E existing --quick --bench beside
    python asv_bench/benchmarks/beside.py
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import SIZES, batch, make_model

BESIDE_SIZES = ("32x48x1x32", "32x100x8x64", "64x100x8x128", "64x100x32x256")
BATCHES, ROUNDS, SECONDS = 8, 5, 0.3


def busy(work: Callable[[], Any]) -> float:
    """Seconds of `work` while another thread counts."""
    stop: list[bool] = []

    def count() -> None:
        k = 0
        while not stop:
            k += 1

    thread = threading.Thread(target=count)
    thread.start()
    try:
        return seconds(work)
    finally:
        stop.append(True)
        thread.join()


def seconds(work: Callable[[], Any]) -> float:
    """Seconds of `work`."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def ratio(size: str) -> float:
    """The median over rounds of: an LSTM's epochs beside a busy thread over epochs alone."""
    import elman

    shape = SIZES[size]
    model = make_model("lstm", shape, "float32")
    x, y = batch(shape, "float32", BATCHES)
    with elman.num_threads(1):
        fit = lambda epochs: lambda: model.fit(x, y, batch_size=shape.B, epochs=epochs, verbose=0)
        fit(1)()
        epochs = max(1, round(SECONDS / seconds(fit(1))))
        found = []
        for _ in range(ROUNDS):
            alone = seconds(fit(epochs))
            found.append(busy(fit(epochs)) / alone)
    return statistics.median(found)


class Beside:
    """One fit on one of at least two cores."""

    params = (BESIDE_SIZES,)
    param_names = ("BxTxIxH",)
    unit = "times as long as alone"
    timeout = 300

    def setup(self, size: str) -> None:
        from elman.threads import usable_cores

        if usable_cores() < 2:
            raise NotImplementedError("the busy thread needs a core of its own")

    def track_ratio_to_alone(self, size: str) -> float:
        return ratio(size)


def main() -> None:
    """Print a row per size."""
    from elman import threads

    usual = threads._INTERVAL
    print("BxTxIxH          beside a busy thread / alone    with Python's interval")
    for size in BESIDE_SIZES:
        threads._INTERVAL = usual
        here = ratio(size)
        threads._INTERVAL = 10**6
        print(f"{size:17}{here:12.2f}{ratio(size):26.2f}", flush=True)


if __name__ == "__main__":
    main()
