"""Rolling-origin tests of a forecaster, with the seasonal naive forecast beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from elman import checks, plotting
from elman.errors import BadValue
from elman.forecasting.engine import Engine
from elman.forecasting.layout import naive_forecasts
from elman.forecasting.panel import Panel
from elman.forecasting.reading import Reader
from elman.forecasting.scores import SCORES, insample_scale, score
from elman.warn import warn


@dataclass(repr=False)
class Backtest:
    """Forecasts from past origins with what came.

    Attributes
    ----------
    y, forecast, naive : ndarray of shape (N, H)
        N windows, oldest origins first: what came (NaN where nothing was observed), the forecasts, and those of the
        seasonal naive method.
    quantiles : ndarray of shape (N, H, Q) or None
    levels : list of float
        Those of the quantiles.
    series, origins : ndarray of int64, (N,)
        The number of each window's series, and the row of the first step of its forecast.
    panel : Panel
        The series.
    season : int
        Of the naive forecast and of scaled errors.

    Examples
    --------
    >>> import elman
    >>> y = elman.datasets.load_air_passengers().values
    >>> forecaster = elman.Forecaster(horizon=6, epochs=5).fit(y[:-24])
    >>> result = forecaster.backtest(y, windows=3, step=6)
    >>> result.forecast.shape, sorted(result.score("mae", "mase"))
    ((3, 6), ['mae', 'mase'])
    """

    y: np.ndarray
    forecast: np.ndarray
    naive: np.ndarray
    quantiles: np.ndarray | None
    levels: list[float]
    series: np.ndarray
    origins: np.ndarray
    panel: Panel
    season: int
    reader: Reader = field(repr=False)

    def __repr__(self) -> str:
        windows, horizon = self.y.shape
        return f"Backtest({windows} windows of {horizon} steps, {len(np.unique(self.series))} series)"

    def score(self, *names: str, by: str | None = None) -> Scores:
        """Scores of the forecasts and of the seasonal naive ones.

        Parameters
        ----------
        *names : str
            Names in `elman.forecasting.SCORES`; by default mae, rmse, smape, mase. Intervals (coverage, width, winkler)
            are those between the lowest and the highest quantile; the seasonal naive forecast has none.
        by : "lead", "series" or None
            One number for each lead time (H,), or for each series (S,), or one for all.

        Returns
        -------
        Scores
            ``scores["mae"]["forecast"]`` and ``["seasonal naive"]``; ``print`` shows a table.

        Raises
        ------
        ValueError
            For an unknown name, or one that needs quantiles the backtest was made without.
        """
        if by not in (None, "lead", "series"):
            raise BadValue(f"by: expected 'lead', 'series' or None, got {by!r}")
        found = Scores()
        for name in names or ("mae", "rmse", "smape", "mase"):
            checks.choose("score", name, SCORES)
            ours, interval = self._score(name, self.forecast, self.quantiles, by), SCORES[name].kind == "interval"
            naive = ours * np.nan if interval else self._score(name, self.naive, None, by)
            found[name] = {"forecast": ours, "seasonal naive": naive}
        return found

    def _score(self, name: str, forecast: np.ndarray, quantiles: np.ndarray | None, by: str | None) -> Any:
        rule, options = SCORES[name], {}
        if rule.needs == "insample_scale":
            options["insample_scale"] = self._scales(squared=rule.squared)[self.series]
        if rule.kind != "point":
            if not self.levels or (rule.kind == "interval" and len(self.levels) < 2):
                raise BadValue(f"score: {name!r} needs quantiles; make the backtest with quantiles=(0.1, 0.5, 0.9)")
            if quantiles is None:
                quantiles = np.repeat(forecast[..., None], len(self.levels), axis=-1)
            low, high = int(np.argmin(self.levels)), int(np.argmax(self.levels))
            forecast = quantiles if rule.kind == "quantile" else quantiles[..., [low, high]]
            if rule.kind == "quantile":
                options["quantiles"] = self.levels
            if rule.needs == "level":
                options["level"] = self.levels[high] - self.levels[low]
        if by != "series":
            return score(name, self.y, forecast, axis=by, **options).value
        each = np.full(len(self.panel), np.nan)
        for s in np.unique(self.series):
            rows = self.series == s
            part = {k: v[rows] if k == "insample_scale" else v for k, v in options.items()}
            each[s] = score(name, self.y[rows], forecast[rows], **part).value
        return each

    def _scales(self, *, squared: bool) -> np.ndarray:
        """In-sample seasonal differences of each series before its first origin, (S,)."""
        first = np.full(len(self.panel), np.iinfo(np.int64).max)
        np.minimum.at(first, self.series, self.origins)
        past = self.panel.until(self.panel.first + np.minimum(first, self.panel.lengths))
        return insample_scale(past.values, past.offsets, self.season, squared=squared)

    def frame(self) -> Any:
        """All of it as the data came: a frame with id, time, "cutoff", target and forecasts, or a dict of arrays."""
        values = {"y": self.y, "hat": self.forecast, "naive": self.naive}
        values |= {f"q{q:g}": self.quantiles[..., k] for k, q in enumerate(self.levels)}
        return self.reader.write_windows(self.panel, self.series, self.origins, values)

    def plot(self, series: int = 0, path: str | None = None) -> Any:
        """Draw the forecasts of one series with what came, and the mean absolute error by lead time.

        Parameters
        ----------
        series : int
            Number of the series.
        path : str, optional
            Save the figure there.

        Returns
        -------
        matplotlib Figure

        Raises
        ------
        ImportError
            Without matplotlib: ``pip install elman[plot]``.
        """
        pyplot = plotting.pyplot()
        figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4), width_ratios=(2, 1))
        values, lead = self.panel.series(series), np.arange(self.y.shape[1])
        chosen = np.flatnonzero(self.series == series)
        begin = max(0, int(self.origins[chosen].min()) - 3 * len(lead)) if len(chosen) else 0
        left.plot(np.arange(begin, len(values)), values[begin:], color="black", label="observed")
        for n, k in enumerate(chosen):
            steps = self.origins[k] + lead
            left.plot(steps, self.forecast[k], color="tab:red", label="forecast" if n == 0 else None)
            if self.quantiles is not None:
                low, high = self.quantiles[k, :, 0], self.quantiles[k, :, -1]
                left.fill_between(steps, low, high, color="tab:red", alpha=0.2)
        left.set(xlabel="row", title=str(self.panel.ids[series]))
        left.legend()
        errors = self.score("mae", by="lead")["mae"]
        right.plot(lead + 1, errors["forecast"], color="tab:red", label="forecast")
        right.plot(lead + 1, errors["seasonal naive"], color="gray", label="seasonal naive")
        right.set(xlabel="steps ahead", ylabel="mean absolute error", ylim=(0, None))
        right.legend()
        figure.tight_layout()
        if path is not None:
            figure.savefig(path, dpi=120)
        return figure


class Scores(dict[str, Any]):
    """Scores by name, each with "forecast" and "seasonal naive".

    Examples
    --------
    >>> print(Scores({"mae": {"forecast": 1.0, "seasonal naive": 2.0}}))
                   forecast   seasonal naive
    mae                   1                2
    """

    def __str__(self) -> str:
        kinds = ("forecast", "seasonal naive")
        lines = [f"{'':10}{kinds[0]:>13}{kinds[1]:>17}"]
        for name, values in self.items():
            cells = [float(np.nanmean(v)) if np.isfinite(v := values[kind]).any() else np.nan for kind in kinds]
            lines.append(f"{name:10}{cells[0]:>13.4g}{cells[1]:>17.4g}")
        return "\n".join(lines)


def _origins(panel: Panel, horizon: int, count: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Series and origins of all windows, the oldest first; only those with an observed row before."""
    rows, starts = [], []
    most = max(1, 1 + (int(panel.lengths.max()) - horizon - 1) // stride)
    for k in range(min(count, most) - 1, -1, -1):
        at = panel.lengths - horizon - stride * k
        usable = np.flatnonzero(at >= 1)
        rows.append(usable)
        starts.append(at[usable])
    series, origins = np.concatenate(rows), np.concatenate(starts)
    if not len(series):
        raise BadValue(
            f"windows: the longest series has {int(panel.lengths.max())} rows, too few for a forecast of {horizon} "
            "steps with a row before it"
        )
    return series, origins


def _actual(panel: Panel, series: np.ndarray, origins: np.ndarray, horizon: int) -> np.ndarray:
    """What came, (N, H) in float64."""
    return panel.values[(panel.offsets[series] + origins)[:, None] + np.arange(horizon)].astype(np.float64)


def _run(
    engine: Engine,
    panel: Panel,
    series: np.ndarray,
    origins: np.ndarray,
    levels: list[float],
    seed: int,
    *,
    others: bool = False,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Forecasts and quantiles of windows."""
    plan = engine.plan
    whole = plan.transform.period > 1 or plan.layout.scale in ("series", "last-value")
    if not (engine.stepwise or whole):
        found = engine.forecast(engine.source(panel), series, origins, levels, seed)
        return found.point, found.quantiles
    # What is taken from whole series, and what a model draws, must not know what lies behind an origin: each is
    # forecast as by `predict`.
    point = np.empty((len(series), plan.layout.horizon))
    quantiles = np.empty((*point.shape, len(levels))) if levels else None
    back = panel.lengths[series] - origins
    for distance in np.unique(back):
        rows = np.flatnonzero(back == distance)
        cut = panel.before(series[rows], origins[rows])
        ahead = (panel.offsets[series] + origins)[rows, None] + np.arange(point.shape[1])
        source = engine.source(cut, panel.known[ahead] if panel.known.shape[1] else None, others=others)
        found = engine.forecast(source, *source.ends(), levels, seed)
        point[rows] = found.point
        if quantiles is not None:
            quantiles[rows] = found.quantiles
    return point, quantiles


def backtest(
    engine: Engine, panel: Panel, count: int, stride: int, levels: list[float], reader: Reader, *, seed: int,
    trained: np.ndarray, others: bool,
) -> Backtest:  # fmt: skip
    """All windows by one model; a warning if it was trained on what they test."""
    horizon = engine.plan.layout.horizon
    series, origins = _origins(panel, horizon, count, stride)
    seen = int((panel.first[series] + origins < trained[series]).sum())
    if seen:
        warn(
            f"backtest: {seen} of {len(series)} windows lie in data the forecaster was trained on, so their errors are "
            "too small; fit to data that end before, or pass refit"
        )  # fmt: skip
    point, quantiles = _run(engine, panel, series, origins, levels, seed, others=others)
    return _result(engine, panel, series, origins, point, quantiles, levels, reader)


def refitted(
    fresh: Callable[[Panel], Engine], panel: Panel, count: int, stride: int, levels: list[float], reader: Reader,
    every: int, forecaster: Any,
) -> Backtest:  # fmt: skip
    """Origin after origin, with a model that is trained on before every k-th."""
    horizon = forecaster.horizon
    series, origins = _origins(panel, horizon, count, stride)
    back = panel.lengths[series] - horizon - origins
    parts, engine = [], None
    for k, distance in enumerate(sorted(set(back.tolist()), reverse=True)):
        rows = np.flatnonzero(back == distance)
        if k % every == 0:
            ends = np.maximum(panel.lengths - horizon - distance, 1)
            past = panel.until(panel.first + ends)
            if engine is None:
                engine = fresh(past)
            else:
                plan = engine.plan
                epochs = plan.budget.steps * plan.budget.batch_size / (4 * max(1, int(past.lengths.sum())))
                engine = engine.fit_more(
                    past, epochs=epochs, learning_rate=plan.budget.learning_rate / 10, seed=k, verbose=False
                )
        parts.append((rows, *_run(engine, panel, series[rows], origins[rows], levels, forecaster.seed)))
    point = np.empty((len(series), horizon))
    quantiles = np.empty((len(series), horizon, len(levels))) if levels else None
    for rows, values, more in parts:
        point[rows] = values
        if quantiles is not None:
            quantiles[rows] = more
    return _result(engine, panel, series, origins, point, quantiles, levels, reader)


def _result(
    engine: Engine, panel: Panel, series: np.ndarray, origins: np.ndarray, point: np.ndarray,
    quantiles: np.ndarray | None, levels: Sequence[float], reader: Reader,
) -> Backtest:  # fmt: skip
    horizon, season = engine.plan.layout.horizon, min(engine.plan.seasons, default=1)
    return Backtest(
        y=_actual(panel, series, origins, horizon),
        forecast=point,
        naive=naive_forecasts(panel, series, origins, season, horizon),
        quantiles=quantiles,
        levels=list(levels),
        series=series,
        origins=origins,
        panel=panel,
        season=season,
        reader=reader,
    )
