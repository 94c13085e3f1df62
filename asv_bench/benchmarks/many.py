"""One tiny network per series: one by one in this process, and by `elman.fit_many` in several."""

from __future__ import annotations

from typing import Any

POINTS, WINDOW, BATCH, UNITS = 120, 24, 32, 6


def series_windows(k: int) -> tuple[Any, Any]:
    """Windows (96, 24, 1) of series k and the value behind each (96, 1): a season of 12, a trend, noise."""
    import numpy as np

    rng = np.random.default_rng(k)
    t = np.arange(POINTS)
    values = np.sin(2 * np.pi * (t / 12 + rng.uniform())) + rng.normal() * t / POINTS + rng.normal(0, 0.2, POINTS)
    values = ((values - values.mean()) / values.std()).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(values, WINDOW + 1)
    return np.ascontiguousarray(windows[:, :WINDOW, None]), np.ascontiguousarray(windows[:, WINDOW:])


def make_models(count: int) -> list[Any]:
    """Compiled elman models, SimpleRNN(6) and Dense(1), each with a seed of its own."""
    import elman

    models = []
    for seed in range(count):
        models.append(elman.Sequential([elman.layers.SimpleRNN(UNITS), elman.layers.Dense(1)], seed=seed))
        models[-1].compile("adam", "mse")
    return models


class Many:
    """48 networks, 50 epochs each; the processes have started before."""

    timeout = 300

    def setup(self) -> None:
        self.models = make_models(48)
        self.data = [series_windows(k) for k in range(48)]
        self.time_one_by_one(epochs=1)
        self.time_two_processes(epochs=1)

    def time_one_by_one(self, epochs: int = 50) -> None:
        for model, (x, y) in zip(self.models, self.data, strict=True):
            model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0)

    def time_two_processes(self, epochs: int = 50) -> None:
        import elman

        elman.fit_many(self.models, self.data, workers=2, batch_size=BATCH, epochs=epochs)
