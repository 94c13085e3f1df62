"""What a Forecaster costs beside its network: windows by index, one pass over a series, forecasts of many."""

from __future__ import annotations

from typing import Any


class Fit:
    """One pass over 6,400 windows of an hourly series: 168 steps in, 24 out, batches of 64."""

    params = (("gru", "lstm"), (32, 64))
    param_names = ("cell", "units")

    def setup(self, cell: str, units: int) -> None:
        import elman

        self.series = elman.datasets.load_bike_demand().users[: 6400 + 191]
        self.options = {"cell": cell, "units": units, "season": None, "head": "direct", "epochs": 1}
        self._fit()

    def _fit(self) -> None:
        import elman

        elman.Forecaster(24, 168, **self.options).fit(self.series, val=None)

    def time_fit(self, cell: str, units: int) -> None:
        self._fit()


class Gather:
    """A batch of 64 windows with lags, calendar and covariates, cut and scaled."""

    def setup(self) -> None:
        import numpy as np

        import elman

        data = elman.datasets.load_bike_demand()
        options: dict[str, Any] = {"season": (24, 168), "epochs": 0.01, "head": "segment", "segment": 1}
        forecaster = elman.Forecaster(24, 168, **options).fit(data.users, future=data.features)
        self.source = forecaster._engine.source(forecaster._panel)
        self.windows = np.zeros(64, np.int64), np.random.default_rng(0).integers(200, 17_000, 64)
        self.source.gather(*self.windows)

    def time_gather(self) -> None:
        self.source.gather(*self.windows)
