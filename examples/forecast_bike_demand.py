"""Forecast hourly bike hire: a week of users, weather and calendar in, the next 24 hours out.

Trains a GRU (or LSTM) with a Dense head on the first 80 % of two years and tests on the last 20 %, beside two forecasts
that cost nothing: the same hour yesterday and the same hour last week.

    python examples/forecast_bike_demand.py [--cell gru|lstm] [--epochs 12] [--plot forecast.png]
"""

from __future__ import annotations

import argparse
import time
from importlib.util import find_spec

import numpy as np

import elman
from elman.layers import GRU, LSTM, Dense, Input

WEEK, DAY = 168, 24


def hourly_inputs(data: elman.datasets.BikeDemand, train: int) -> np.ndarray:
    """Weather and calendar of every hour, (n, features); weather scaled by the first `train` hours."""
    column = dict(zip(data.feature_names, data.features.T, strict=True))
    weather = np.stack([column[c] for c in ("temperature", "humidity", "wind_speed", "clear", "rain")], axis=1)
    weather = (weather - weather[:train].mean(axis=0)) / weather[:train].std(axis=0)
    hour, weekday = (2 * np.pi * column[c] / period for c, period in (("hour", 24), ("weekday", 7)))
    # The calendar of the day to forecast is known today.
    tomorrow = np.minimum(np.arange(len(hour)) + DAY, len(hour) - 1)
    calendar = [np.sin(hour), np.cos(hour), np.sin(weekday), np.cos(weekday)]
    calendar += [column["workingday"], column["workingday"][tomorrow], column["holiday"][tomorrow]]
    return np.column_stack([weather, *calendar]).astype(np.float32)


def windows(users: np.ndarray, inputs: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x (N, 168, 1 + features), y (N, 24) and the scale (N, 1) of each window: its mean number of users."""
    hours = starts[:, None] + np.arange(WEEK)
    scale = users[hours].mean(axis=1, keepdims=True)
    x = np.empty((len(starts), WEEK, 1 + inputs.shape[1]), np.float32)
    x[..., 0] = users[hours] / scale
    x[..., 1:] = inputs[hours]
    return x, users[starts[:, None] + WEEK + np.arange(DAY)] / scale, scale


def plot(path: str, actual: np.ndarray, forecast: np.ndarray, week_ago: np.ndarray) -> None:
    """Save a week of forecasts, one made every 24 hours, and the error by lead time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4), width_ratios=(2, 1))
    days = np.arange(0, 7 * DAY, DAY)
    left.plot(actual[days].ravel(), color="black", label="bikes hired")
    left.plot(forecast[days].ravel(), color="tab:red", label="forecast a day ahead")
    left.set(xlabel="hour", title="First week of the test data")
    left.legend()
    lead = np.arange(1, DAY + 1)
    right.plot(lead, np.abs(actual - forecast).mean(axis=0), color="tab:red", label="forecast")
    right.plot(lead, np.abs(actual - week_ago).mean(axis=0), color="gray", label="same hour last week")
    right.set(xlabel="hours ahead", ylabel="mean absolute error, bikes", ylim=(0, None))
    right.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    print(f"plot: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cell", choices=("gru", "lstm"), default="gru")
    parser.add_argument("--units", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--stride", type=int, default=1, help="hours from one training window to the next")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", default="forecast_bike_demand.png", help="where the plot goes, if matplotlib is here")
    options = parser.parse_args()
    begin = time.perf_counter()

    data = elman.datasets.load_bike_demand()
    users, n = data.users, len(data.users)
    split = int(0.8 * n)
    inputs = hourly_inputs(data, split)
    # Training targets end before the split; test targets begin after it.
    train = np.arange(0, split - WEEK - DAY + 1, options.stride)
    test = np.arange(split - WEEK, n - WEEK - DAY + 1)
    x, y, _ = windows(users, inputs, train)
    x_test, y_test, scale = windows(users, inputs, test)

    layer = {"gru": GRU, "lstm": LSTM}[options.cell]
    model = elman.Sequential([Input(x.shape[1:]), layer(options.units), Dense(DAY)], seed=options.seed)
    model.compile(elman.optimizers.Adam(2e-3, global_clipnorm=1.0), "mae")
    model.summary()
    half = options.epochs // 2
    fitted = time.perf_counter()
    model.fit(x, y, batch_size=64, epochs=half)
    model.optimizer.learning_rate = 5e-4
    model.fit(x, y, batch_size=64, epochs=options.epochs, initial_epoch=half)
    seconds = time.perf_counter() - fitted

    actual, forecast = y_test * scale, model.predict(x_test) * scale
    hours = test[:, None] + WEEK + np.arange(DAY)
    errors = {
        "same hour yesterday": np.abs(actual - users[hours - DAY]).mean(),
        "same hour last week": np.abs(actual - users[hours - WEEK]).mean(),
        f"{options.cell.upper()}({options.units})": np.abs(actual - forecast).mean(),
    }
    print(f"\nTest: {len(test):,} forecasts of 24 hours, {data.time[split]} to {data.time[-1]}; mean absolute error:")
    for name, error in errors.items():
        print(f"  {name:20} {error:6.1f} bikes")
    yesterday, week_ago, ours = errors.values()
    print(f"{ours / min(yesterday, week_ago):.2f} of the better baseline")
    total = time.perf_counter() - begin
    print(f"{seconds / max(1, options.epochs):.2f} s per epoch, {total:.1f} s in all, with compiling")
    if find_spec("matplotlib"):
        plot(options.plot, actual, forecast, users[hours - WEEK])


if __name__ == "__main__":
    main()
