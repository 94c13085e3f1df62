"""`Forecaster`: a global recurrent forecaster for one or many series."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from elman import checks
from elman.errors import BadValue
from elman.forecasting.backtest import Backtest, backtest, refitted
from elman.forecasting.base import Fitting, loud, settled
from elman.forecasting.conformal import Conformal
from elman.forecasting.panel import Panel
from elman.registry import number


class Forecaster(Fitting):
    """A recurrent network that is fitted to one or many series at once and forecasts any of them, or new ones.

    What is not said is decided from the data: seasons, scaling, head, lookback and length of training. A forecast is
    the (seasonal) naive one plus what the network adds to it; every step of it sees every observed value.

    Parameters
    ----------
    horizon : int
        Steps to forecast.
    lookback : int, optional
        Steps the network reads. By default twice the horizon, if that is short, and at least a season.
    cell : str or Cell
        As in `elman.layers.RNN`.
    units, layers : int
    dropout : float
        In [0, 1).
    head : "auto", "direct", "segment" or "recursive"
        "direct": the last state gives all steps. "segment": reads and writes segments, as `elman.layers.SegmentRNN`;
        each step also reads what is known of it, such as its calendar and the value a season before. "recursive": one
        step after another, each reading the one before, as needed for `sample`. "auto": "direct" for few data (below
        1,000 windows), else "segment".
    segment : int, optional
        Steps of a segment; by default 1 up to a horizon of 48, then a season of at most 24.
    model : Sequential, optional
        A model of your own for windows (lookback, columns), or (lookback + horizon, columns) with what is known ahead;
        its output is (horizon,), (horizon, P) or flat. A copy is trained.
    scale : str or None
        Per window: "mean-abs" divides by the mean of abs(y), "standard" uses mean and deviation, "revin" as well, with
        a learned affine map (Kim et al., 2022), "last-value" subtracts the last value and divides by the series'
        deviation. "series" and "global" use mean and deviation of the series or of all data. "auto": "mean-abs" for few
        data that are never negative and vary by 5 % of their size, else "standard".
    transform : "log1p" or None
        Work on log(1 + y).
    residual : bool
        Whether the network adds to the (seasonal) naive forecast, or makes all of it.
    season : "auto", int, list of int or None
        Lengths of the seasons in steps.
    deseasonalize : bool
        Subtract a seasonal component from each series before, add it again after.
    calendar : "auto" or bool
        Read hour, weekday and day of the year, where the data have times; "auto": unless the data are few.
    loss : str
        "mae", "mse", "huber", "quantile", "normal", "studentt", "negbin" or "poisson".
    quantiles : sequence of float
        Those that ``loss="quantile"`` learns; they never cross.
    multivariate : bool
        The columns of an array (T, n) are channels of one series: they share the network, which is told the channel.
    learning_rate : float
        Where it begins; it falls to a fiftieth of it along a cosine.
    batch_size : int
        At most 2 ** 20.
    epochs : "auto" or float
        Passes over all windows; "auto": 1,500 batches, at most 50 passes.
    seeds : int
        Members that are trained, side by side on the threads; forecasts are their median.
    seed : int
        The same seed gives the same bits for any number of threads. No global random state is read or changed.

    Raises
    ------
    ValueError, TypeError
        `fit` checks all arguments; the message names the one that does not fit.

    Notes
    -----
    Many threads may forecast while one updates or fits: a forecast is that of before or of after, and an error or an
    interrupt leaves the forecaster as it was. Updates from several threads come one after another.

    NaN is allowed in `y` and past covariates: the network reads 0 and that nothing was observed, and nothing is learned
    from such targets. Series may be short, unequal, new at `predict`.

    Direct and segment heads as in S. Lin et al., SegRNN (2023); recursive one as in D. Salinas et al., DeepAR (2017);
    medians over seeds as in H. Hewamalage, C. Bergmeir, K. Bandara, Recurrent neural networks for time series
    forecasting (2021).

    Examples
    --------
    >>> import elman
    >>> passengers = elman.datasets.load_air_passengers().values
    >>> forecaster = elman.Forecaster(horizon=12).fit(passengers[:-12])
    >>> forecast = forecaster.predict()
    >>> forecast.shape
    (12,)
    >>> bool(abs(forecast - passengers[-12:]).mean() < 40)
    True
    """

    # ---- forecasts

    @settled
    def predict(
        self,
        y: Any = None,
        *,
        past: Any = None,
        future: Any = None,
        static: Any = None,
        quantiles: Sequence[float] | None = None,
        interval: float | Sequence[float] | None = None,
    ) -> Any:
        """Forecast the next `horizon` steps of each series.

        Parameters
        ----------
        y : frame or array_like, optional
            Other series of the same form, not fitted to; by default those of `fit`, with what `update` added.
        past, static : array_like, optional
            Covariates of `y`, for arrays. Those of a frame are its columns.
        future : frame or array_like, optional
            The covariates known ahead: a frame with id, time and their columns, or an array (H, K) for one series or
            all, (n, H, K), a list or dict. For arrays with `y`, T + H rows: they begin with it.
        quantiles : sequence of float, optional
            Needs a loss that has them: "quantile", between the lowest and the highest that it learned, or a
            distribution.
        interval : float or sequence of float, optional
            Percent, such as 80: intervals around the forecast, after `calibrate`.

        Returns
        -------
        frame, ndarray or dict
            As the data came: a frame with id, time, ``y_hat``, ``y_q0.1``, ``y_lo80``, ``y_hi80`` (after the target's
            name); an array (n, H), (H,) for one series (T,), with an axis more for quantiles or (point, low, high); or
            for a dict one of such arrays (H,).

        Raises
        ------
        ValueError, TypeError
            If not fitted, or if the data do not fit; the message names the series, the column and the time.
        """
        engine = self._fitted()
        panel, ahead = self._read(y, past, future, static)
        engine.plan.check(panel)
        source = engine.source(panel, ahead, others=self._others(y))
        series, origins = source.ends()
        levels = [] if quantiles is None else _fractions("quantiles", quantiles, 1)
        found = engine.forecast(source, series, origins, levels, self.seed)
        values = {"hat": found.point}
        values |= {f"q{q:g}": found.quantiles[..., k] for k, q in enumerate(levels)}
        if interval is not None:
            values |= self._intervals(found.point, panel, interval)
        if quantiles is not None and self._reader.form != "frame" and interval is None:
            values.pop("hat")
        return self._reader.write(panel, values, stacked=bool(levels or interval is not None))

    def _read(self, y: Any, past: Any, future: Any, static: Any) -> tuple[Panel, np.ndarray | None]:
        """A panel and its known covariates ahead."""
        reader = self._reader
        if y is None:
            for name, value in (("past", past), ("static", static)):
                if value is not None:
                    raise BadValue(f"{name}: belongs to other series; give y too")
            self._kept()
            return self._panel, reader.future_rows(future, self._panel, self.horizon)
        if reader.form == "frame" or future is None:
            panel = reader.read(y, past, None, static, self._panel)
            return panel, reader.future_rows(future, panel, self.horizon)
        return reader.read_ahead(y, past, future, static, self._panel, self.horizon)

    def _others(self, y: Any) -> bool:
        """Whether series are given without names, so that they may be others than those of the fit."""
        return y is not None and self._reader.form not in ("frame", "dict")

    def _kept(self) -> Panel:
        """The series of `fit`; ValueError for one whose rows were not saved."""
        empty = np.flatnonzero(self._panel.lengths == 0)
        if empty.size:
            raise BadValue(
                f"y: the forecaster was saved with history=False and has no rows of id {self._panel.ids[empty[0]]!r}; "
                "give y, or update(y) first"
            )
        return self._panel

    def _intervals(self, point: np.ndarray, panel: Panel, interval: Any) -> dict[str, np.ndarray]:
        values: dict[str, np.ndarray] = {}
        given = interval if isinstance(interval, str) or checks.axes(interval) else [interval]
        for share in _percent("interval", given):
            low, high = self._around(point, 100 * share, _sizes(panel, np.arange(len(panel.ids)), panel.lengths))
            values |= {f"lo{100 * share:g}": low, f"hi{100 * share:g}": high}
        return values

    def intervals(self, result: Backtest, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Calibrated intervals around the forecasts of a backtest, to see how often they hold what came.

        Parameters
        ----------
        result : Backtest
        level : float
            Percent.

        Returns
        -------
        low, high : ndarray, (N, H)

        Raises
        ------
        ValueError
            Before `calibrate`, or for a level that is no percentage between 1 and 100.
        """
        return self._around(result.forecast, level, _sizes(result.panel, result.series, result.origins))

    def _around(self, point: np.ndarray, level: float, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self._fitted()
        if self._conformal is None:
            raise BadValue("interval: call calibrate(y) first, or use predict(quantiles=...)")
        share = _percent("level", [level])[0]
        return self._conformal.interval(point, share, sizes)

    @settled
    def sample(
        self, n: int = 100, y: Any = None, *, past: Any = None, future: Any = None, static: Any = None,
        seed: int | None = None,
    ) -> Any:  # fmt: skip
        """Draw paths: each step is drawn given the steps before it (ancestral sampling).

        Parameters
        ----------
        n : int
            Paths per series.
        y, past, future, static
            As in `predict`.
        seed : int, optional
            By default the forecaster's.

        Returns
        -------
        frame, ndarray or dict
            A frame with id, time, "sample" and the target's column; an array (series, n, H), (n, H) for one series; or
            a dict of those.

        Raises
        ------
        ValueError
            Unless ``head="recursive"`` and the loss is a distribution.
        """
        engine, count = self._fitted(), checks.integer("n", n)
        panel, ahead = self._read(y, past, future, static)
        engine.plan.check(panel)
        source = engine.source(panel, ahead, others=self._others(y))
        chosen_seed = self.seed if seed is None else checks.integer("seed", seed, 0)
        drawn = engine.sample(source, *source.ends(), count, chosen_seed)
        return self._reader.write_samples(panel, drawn)

    # ---- backtests

    @settled
    def backtest(
        self,
        y: Any = None,
        windows: int = 5,
        step: int | None = None,
        *,
        past: Any = None,
        future: Any = None,
        static: Any = None,
        quantiles: Sequence[float] = (),
        refit: int | bool = False,
        verbose: Any = "auto",
    ) -> Backtest:
        """Forecast from several past origins of each series and compare with what came (rolling origin).

        Parameters
        ----------
        y, past, future, static
            The series with their covariates, as in `fit`; by default those of `fit`. What the forecaster was trained on
            is no test: fit to data that end before.
        windows : int
            Origins per series; the last one is `horizon` rows before its end. Series that are too short have fewer.
        step : int, optional
            Rows from one origin to the next; by default the horizon.
        quantiles : sequence of float
            Quantiles to forecast as well, for the score "wql" and "pinball".
        refit : bool or int
            False: one model, all windows at once. k: train on, from the weights so far, with the rows of each series
            before every k-th of its origins, the first time from scratch; the forecaster itself stays as it is. Where
            some series end earlier than others, their forecasts come from a model that knows later rows of these.
        verbose : "auto", 0 or 1

        Returns
        -------
        Backtest
            With scores beside those of the seasonal naive forecast, frames and plots.

        Raises
        ------
        ValueError, TypeError
            As in `fit`, or if no series has a window.
        """
        engine = self._fitted()
        panel = self._kept() if y is None else self._reader.read(y, past, future, static, self._panel)
        engine.plan.check(panel)
        count = checks.integer("windows", windows)
        stride = self.horizon if step is None else checks.integer("step", step)
        none = quantiles is None or (checks.axes(quantiles) == 1 and not len(quantiles))
        levels = [] if none else _fractions("quantiles", quantiles, 1)
        if refit is False:
            return backtest(
                engine, panel, count, stride, levels, self._reader, seed=self.seed, trained=self._until(panel),
                others=self._others(y),
            )  # fmt: skip
        every = 1 if refit is True else checks.integer("refit", refit)
        fresh = lambda cut: self._trained(cut, None, loud(verbose))
        return refitted(fresh, panel, count, stride, levels, self._reader, every, self)

    def _until(self, panel: Panel) -> np.ndarray:
        """The tick up to which each series of a panel was trained on."""
        known = dict(zip(self._panel.ids, self._trained_until, strict=True))
        return np.array([known.get(i, np.iinfo(np.int64).min) for i in panel.ids], np.int64)

    def calibrate(
        self, y: Any = None, windows: int = 5, step: int | None = None, *, past: Any = None, future: Any = None,
        static: Any = None,
    ) -> Self:  # fmt: skip
        """Measure the errors of a backtest, for ``predict(interval=...)``: split conformal prediction per lead time.

        Parameters
        ----------
        y, windows, step, past, future, static
            As in `backtest`. Errors on data that were trained on are too small: give series that go on behind them.

        Returns
        -------
        Forecaster
            Itself.

        Notes
        -----
        J. Lei et al., Distribution-free predictive inference for regression, JASA 113 (2018). Errors are relative to
        the mean absolute difference of each series from one step to the next, before the origin. Intervals hold as
        often in the future as it resembles the windows: give those of a whole year where seasons differ.
        """
        found = self.backtest(y, windows, step, past=past, future=future, static=static)
        self._conformal = Conformal.fit(found.y, found.forecast, _sizes(found.panel, found.series, found.origins))
        return self


def _fractions(argument: str, given: Any, whole: float) -> list[float]:
    """Numbers between 0 and `whole`, as fractions of it."""
    if isinstance(given, (str, bytes)) or checks.axes(given) != 1 or not len(given):
        raise BadValue(f"{argument}: expected one or more numbers between 0 and {whole:g}, got {given!r}")
    numbers = [f"{float(v):g}" for v in given if isinstance(v, (int, float, np.number))]
    if len(set(numbers)) < len(numbers):
        raise BadValue(f"{argument}: expected different numbers, of six digits at most, got {given!r}")
    found = [number(argument, v, 0, whole, open_low=True) for v in given]
    if whole in found:
        raise BadValue(f"{argument}: expected numbers between 0 and {whole:g}, got {given!r}")
    return [v / whole for v in found]


def _percent(argument: str, given: Any) -> list[float]:
    """Percentages as fractions; none of 1 % or less, which must be meant for fractions."""
    found = _fractions(argument, given, 100)
    if min(found) <= 0.01:
        raise BadValue(f"{argument}: expected percent, such as 80, got {100 * min(found):g}")
    return found


def _sizes(panel: Panel, series: np.ndarray, origins: np.ndarray) -> np.ndarray:
    """The mean absolute difference from step to step before each origin (N,): what errors are measured by; 1 for none.

    Measured by the deviation of the values before each origin, intervals held less often: on demand for electricity 72
    in place of 82 % for 80.
    """
    steps = np.abs(np.diff(panel.values.astype(np.float64), prepend=np.nan))
    steps[panel.offsets[:-1][panel.lengths > 0]] = np.nan  # no step leads from one series to the next
    known = ~np.isnan(steps)
    begins = panel.offsets[series]
    # Window by window: differences of one running sum would lose the small ones beside a series of large numbers.
    pairs = np.stack([begins, begins + origins], axis=1).reshape(-1)
    total, count = (
        np.add.reduceat(np.append(v, 0), pairs)[::2] for v in (np.where(known, steps, 0.0), known.astype(int))
    )
    return np.where(total > 0, total / np.maximum(count, 1), 1.0)
