"""Windows per second: a Forecaster against Keras (JAX backend) fitting the same network to the same windows.

One recurrent layer and a dense map to 24 steps, mean absolute error, Adam, batches of 32, float32, an hourly series.
elman cuts the windows out of it as it trains; Keras gets them as arrays. Each runs in a process of its own, in turn;
the first fit of each, which compiles, is not counted. ::

    python asv_bench/forecast_peers.py [--rounds 5] [--python-peers PYTHON]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

BATCH, HORIZON, WINDOWS = 32, 24, 32 * 200
ROWS = {
    f"{cell} {units}, {lookback} steps": (cell, units, lookback)
    for cell, units in (("lstm", 64), ("gru", 32))
    for lookback in (24, 48, 168)
}


def elman_fit(cell: str, units: int, lookback: int) -> Any:
    """A function that fits a Forecaster to all windows once."""
    import elman

    series = elman.datasets.load_bike_demand().users[: WINDOWS + lookback + HORIZON - 1]

    def fit() -> None:
        elman.Forecaster(
            HORIZON, lookback, cell=cell, units=units, head="direct", scale="global", season=None, residual=False,
            batch_size=BATCH, epochs=1,
        ).fit(series, val=None)  # fmt: skip

    return fit


def keras_fit(cell: str, units: int, lookback: int) -> Any:
    """A function that fits a Keras model to the same windows once."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras
    import numpy as np

    rng = np.random.default_rng(0)
    series = rng.standard_normal(WINDOWS + lookback + HORIZON - 1).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(series, lookback + HORIZON)
    x, y = np.ascontiguousarray(windows[:, :lookback, None]), np.ascontiguousarray(windows[:, lookback:])
    layer = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU}[cell]
    model = keras.Sequential([keras.layers.Input((lookback, 1)), layer(units), keras.layers.Dense(HORIZON)])
    model.compile(keras.optimizers.Adam(3e-3, global_clipnorm=1.0), "mae")
    return lambda: model.fit(x, y, batch_size=BATCH, epochs=1, verbose=0)


def worker(library: str) -> None:
    """Answer the commands of the table, a line of JSON each."""
    fits: dict[str, Any] = {}
    for line in sys.stdin:
        row = json.loads(line)
        fit = fits.get(row)
        if fit is None:
            fit = fits[row] = {"elman": elman_fit, "keras": keras_fit}[library](*ROWS[row])
            fit()
        begin = time.perf_counter()
        fit()
        print(json.dumps(WINDOWS / (time.perf_counter() - begin)), flush=True)


def main() -> None:
    """Run the table, or a worker of it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--python-peers", default=sys.executable, help="interpreter that has Keras and JAX")
    parser.add_argument("--worker", choices=("elman", "keras"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker)
        return
    pythons = {"elman": sys.executable, "keras": options.python_peers}
    workers = {
        name: subprocess.Popen(
            [python, __file__, "--worker", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name, python in pythons.items()
    }
    print(f"windows per second, {HORIZON} steps out, batches of {BATCH}; medians of {options.rounds} rounds")
    print("network                elman     Keras   ratio")
    for row in ROWS:
        found: dict[str, list[float]] = {name: [] for name in workers}
        for _ in range(options.rounds):
            for name, process in workers.items():
                process.stdin.write(json.dumps(row) + "\n")
                process.stdin.flush()
                found[name].append(float(process.stdout.readline()))
        ours, theirs = (statistics.median(found[name]) for name in ("elman", "keras"))
        print(f"{row:20}{ours:8.0f}  {theirs:8.0f}  {ours / theirs:5.1f}x", flush=True)
    for process in workers.values():
        process.stdin.close()
        process.wait()


if __name__ == "__main__":
    main()
