"""Forecast many series with one recurrent network, beside the seasonal naive forecast.

With a folder that holds the M4 competition's ``Hourly-train.csv`` and ``Hourly-test.csv``: all 414 series, 48 hours
ahead, one global model per seed and the median of five. Without: the four series shipped with the package, defaults
only.

    python examples/forecast_many_series.py [folder of M4 hourly] [--seeds 3] [--ensemble 5] [--epochs auto]
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import numpy as np

import elman
from elman.forecasting import insample_scale, score, seasonal_naive


def read(path: Path) -> list[np.ndarray]:
    """Series of an M4 file, one per row, of unequal lengths."""
    with path.open() as file:
        rows = csv.reader(file)
        next(rows)
        return [np.array([float(v) for v in row[1:] if v not in ("", "NA")], np.float32) for row in rows]


def flat(series: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Series one after the other, and where each begins."""
    return np.concatenate(series), np.cumsum([0, *map(len, series)])


def m4(folder: Path, seeds: int, ensemble: int, epochs: float | str) -> None:
    """The table of M4 hourly."""
    horizon, day, week = 48, 24, 168
    train, test = read(folder / "Hourly-train.csv"), np.array(read(folder / "Hourly-test.csv"))
    scale = insample_scale(*flat(train), day)

    def figures(forecast: np.ndarray) -> tuple[float, float]:
        return (
            score("smape", test, forecast).value,
            score("mase", test, forecast, insample_scale=scale).value,
        )

    print(f"{len(train)} series, {horizon} hours ahead{'':14}sMAPE    MASE  seconds")
    for name, period in (("day", day), ("week", week)):
        smape, mase = figures(seasonal_naive(*flat(train), period, horizon))
        print(f"{'seasonal naive, a ' + name:38}{smape:7.2f} {mase:7.3f}")
    found = []
    for seed in range(seeds):
        begin = time.perf_counter()
        forecaster = elman.Forecaster(horizon, season=(day, week), epochs=epochs, seed=seed).fit(train)
        found.append(figures(forecaster.predict()))
        seconds = time.perf_counter() - begin
        print(f"{'one GRU(64), seed ' + str(seed):38}{found[-1][0]:7.2f} {found[-1][1]:7.3f} {seconds:8.0f}")
    mean, spread = np.mean(found, axis=0), np.ptp(found, axis=0)
    print(f"{'mean of the seeds':38}{mean[0]:7.2f} {mean[1]:7.3f}")
    print(f"{'largest less smallest':38}{spread[0]:7.2f} {spread[1]:7.3f}")
    if ensemble > 1:
        begin = time.perf_counter()
        options = {"season": (day, week), "epochs": epochs, "seeds": ensemble}
        smape, mase = figures(elman.Forecaster(horizon, **options).fit(train).predict())
        print(f"{f'median of {ensemble} GRUs':38}{smape:7.2f} {mase:7.3f} {time.perf_counter() - begin:8.0f}")


def shipped(seeds: int, epochs: float | str) -> None:
    """The series in the package: what a Forecaster makes of each without an argument but the horizon."""
    data = elman.datasets
    bikes = data.load_bike_demand().users
    series = {
        "airline passengers": (data.load_air_passengers().values, 24),
        "carbon dioxide": (data.load_co2().values, 52),
        "sunspots": (data.load_sunspots().values, 11),
        "bikes hired, hourly": (bikes[-8760:], 24),
    }
    print(f"{'':22}steps ahead  season{'':6}MASE    naive  seconds")
    for name, (values, horizon) in series.items():
        known, actual = values[:-horizon], values[None, -horizon:]
        found, begin = [], time.perf_counter()
        for seed in range(seeds):
            forecaster = elman.Forecaster(horizon, epochs=epochs, seed=seed).fit(known)
            season = min(forecaster.seasons_, default=1)
            bounds = np.array([0, len(known)])
            scale = insample_scale(known, bounds, season)
            found.append(score("mase", actual, forecaster.predict()[None], insample_scale=scale).value)
        naive = score("mase", actual, seasonal_naive(known, bounds, season, horizon), insample_scale=scale).value
        seconds = (time.perf_counter() - begin) / seeds
        spread = f"{np.mean(found):.2f} +-{np.ptp(found) / 2:.2f}"
        print(f"{name:22}{horizon:11}  {season:6}  {spread:>12}   {naive:6.2f} {seconds:8.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="of M4's Hourly-train.csv and Hourly-test.csv")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ensemble", type=int, default=5, help="members of the median, 0 for none")
    parser.add_argument("--epochs", default="auto", help="passes over all windows")
    options = parser.parse_args()
    epochs = options.epochs if options.epochs == "auto" else float(options.epochs)
    if options.folder is None:
        shipped(options.seeds, epochs)
    else:
        m4(options.folder, options.seeds, options.ensemble, epochs)


if __name__ == "__main__":
    main()
