"""One tiny network per series: elman one by one, `elman.fit_many`, and Keras (JAX backend) one by one.

Every series has a season and a seed of its own: 96 windows of 24 points, SimpleRNN(6) and Dense(1), Adam, batches of
32, float32. elman's kernels are compiled before. The first call of `fit_many` starts its processes, the later ones find
them. Keras trains a few of the series, each with a fresh model, which compiles its step as it would for every series;
its time for all of them is extrapolated from the mean of these. ::

    python asv_bench/many.py [--series 1000] [--epochs 100] [--rounds 1] [--sample 8] [--python-peers PYTHON]
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

from benchmarks.many import BATCH, UNITS, WINDOW, make_models, series_windows


def one_by_one(data: list[Any], epochs: int) -> tuple[float, list[Any]]:
    """Seconds, and the trained models."""
    models = make_models(len(data))
    begin = time.perf_counter()
    for model, (x, y) in zip(models, data, strict=True):
        model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0)
    return time.perf_counter() - begin, models


def together(data: list[Any], epochs: int, workers: int) -> tuple[float, list[Any]]:
    """The same by `fit_many`."""
    import elman

    models = make_models(len(data))
    begin = time.perf_counter()
    elman.fit_many(models, data, workers=workers, batch_size=BATCH, epochs=epochs)
    return time.perf_counter() - begin, models


def keras_seconds(sample: int, epochs: int) -> list[float]:
    """Seconds of making and fitting each of some Keras models; one before them bears what comes only once."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    found = []
    for k in range(sample + 1):
        x, y = series_windows(k)
        begin = time.perf_counter()
        layers = [keras.layers.Input((WINDOW, 1)), keras.layers.SimpleRNN(UNITS), keras.layers.Dense(1)]
        model = keras.Sequential(layers)
        model.compile("adam", "mse")
        model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0)
        found.append(time.perf_counter() - begin)
    return found[1:]


def show(what: str, seconds: float, than: float | None = None, more: str = "") -> None:
    """A line of the table."""
    ratio = "" if than is None else f"{than / seconds:7.2f}x"
    print(f"{what:44}{seconds:9.1f} s{ratio:>9}  {more}".rstrip(), flush=True)


def main() -> None:
    """Run the table, or Keras alone."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--series", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1, help="of elman's two, in turn; medians")
    parser.add_argument("--sample", type=int, default=8, help="series that Keras trains; 0 for none")
    parser.add_argument("--python-peers", default=sys.executable, help="interpreter that has Keras and JAX")
    parser.add_argument("--keras", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.keras:
        print(json.dumps(keras_seconds(options.sample, options.epochs)))
        return
    print(f"{options.series} series, {options.epochs} epochs; load average before {os.getloadavg()[0]:.1f}", flush=True)
    data = [series_windows(k) for k in range(options.series)]
    one_by_one(data[:1], 1)
    first, _ = together(data, options.epochs, options.workers)
    alone, many = [], []
    for _ in range(options.rounds):
        seconds, expected = one_by_one(data, options.epochs)
        alone.append(seconds)
        seconds, got = together(data, options.epochs, options.workers)
        many.append(seconds)
        for a, b in zip(expected, got, strict=True):
            assert all((v == w).all() for v, w in zip(a.get_weights(), b.get_weights(), strict=True))
    single, later = statistics.median(alone), statistics.median(many)
    show("elman one by one", single)
    for what, seconds in (("first call", first), ("later calls", later)):
        scaling = f"scaling {single / seconds / options.workers:.2f}"
        show(f"elman fit_many, {options.workers} workers, {what}", seconds, single, scaling)
    if options.sample:
        command = [options.python_peers, __file__, "--keras", "--sample", str(options.sample)]
        command += ["--epochs", str(options.epochs)]
        found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)
        each = statistics.mean(found)
        show("Keras one by one, extrapolated", each * options.series, single, f"{each:.2f} s each of {len(found)}")
    print(f"load average after {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
