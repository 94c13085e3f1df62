"""Forecast electricity demand a day ahead with the temperature and holidays to come, and intervals that hold.

With ``vic_electricity.csv`` (half-hourly demand of Victoria, 2012 to 2014): trains on two years, calibrates intervals
on the next 275 days and tests on the last 90, a forecast of 48 half hours a day. Without: the hourly bike hire shipped
with the package, with its weather, in the same way.

    python examples/forecast_energy.py [vic_electricity.csv] [--seeds 3] [--epochs auto] [--plot energy.png]
"""

from __future__ import annotations

import argparse
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import elman

try:
    import pandas as pd
except ImportError as error:
    raise SystemExit(f'{error}: pip install -e ".[frames]"') from None


def demand(path: Path | None) -> tuple[pd.DataFrame, list[str], int]:
    """A frame with ds, y and what is known ahead; the names of these; steps per day."""
    if path is None:
        data = elman.datasets.load_bike_demand()
        known = ["holiday", "workingday", "rain", "temperature"]
        columns = dict(zip(data.feature_names, data.features.T, strict=True))
        frame = pd.DataFrame({"ds": data.time.astype("datetime64[ns]"), "y": data.users})
        return frame.assign(**{name: columns[name] for name in known}), known, 24
    raw = pd.read_csv(path)
    times = pd.to_datetime(raw["Time"]).dt.tz_localize(None)
    frame = pd.DataFrame({"ds": times, "y": raw["Demand"], "temperature": raw["Temperature"]})
    return frame.assign(holiday=raw["Holiday"].astype(float)), ["temperature", "holiday"], 48


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", nargs="?", type=Path, help="vic_electricity.csv")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", default="auto", help="passes over all windows")
    parser.add_argument("--plot", default="forecast_energy.png", help="where the plot goes, if matplotlib is here")
    options = parser.parse_args()
    epochs = options.epochs if options.epochs == "auto" else float(options.epochs)
    frame, known, day = demand(options.path)
    tested, calibrated = len(frame) - 90 * day, len(frame) - 365 * day
    print(f"{day} steps ahead, known: {', '.join(known)}; test: 90 days from {frame['ds'].iloc[tested]}")
    print(f"{'':8}{'MAE':>9}{'naive':>9}{'ratio':>8}{'covered by 80 %':>18}{'seconds':>9}")
    ratios, result = [], None
    for seed in range(options.seeds):
        begin = time.perf_counter()
        forecaster = elman.Forecaster(day, epochs=epochs, seed=seed).fit(frame[:calibrated], future=known)
        forecaster.calibrate(frame[:tested], windows=275)
        result = forecaster.backtest(frame, windows=90)
        low, high = forecaster.intervals(result, 80)
        covered = 100 * np.mean((low <= result.y) & (result.y <= high))
        mae = result.score("mae")["mae"]
        ratios.append(mae["forecast"] / mae["seasonal naive"])
        seconds = time.perf_counter() - begin
        print(
            f"seed {seed:<3}{mae['forecast']:9.1f}{mae['seasonal naive']:9.1f}{ratios[-1]:8.3f}{covered:16.1f} %"
            f"{seconds:9.0f}"
        )
    print(f"ratio {np.mean(ratios):.3f}, largest less smallest {np.ptp(ratios):.3f}")
    if find_spec("matplotlib"):
        import matplotlib

        matplotlib.use("Agg")
        result.plot(path=options.plot)
        print(f"plot: {options.plot}")


if __name__ == "__main__":
    main()
