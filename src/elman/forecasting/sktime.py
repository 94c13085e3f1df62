"""`elman.Forecaster` behind the interface of sktime; needs sktime, which nothing else here imports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
from sktime.datatypes import update_data
from sktime.forecasting.base import BaseForecaster, ForecastingHorizon

from elman.errors import BadValue
from elman.forecasting.forecaster import Forecaster

_OWN = ("update_epochs",)
"""Arguments that `Forecaster` has not."""


class ElmanForecaster(BaseForecaster):
    """A recurrent network as a forecaster of sktime.

    The columns of `X` are covariates known ahead, numbers or strings. Several columns of `y`, panels and hierarchies
    are forecast by one network per series, as sktime does it; one network for all of them is `elman.Forecaster`.

    Parameters
    ----------
    horizon : int, optional
        Steps the network forecasts. By default the last step of the `fh` that `fit` is given; with a number, `fh` may
        come with `predict` and change, up to this many steps.
    lookback, cell, units, layers, dropout, head, segment, model, scale, transform, residual, season
        As in `elman.Forecaster`.
    deseasonalize, calendar, learning_rate, batch_size, epochs, seeds, seed
        As in `elman.Forecaster`.
    loss : str
        As there. Those with intervals and quantiles: "quantile", "normal", "studentt", "negbin" and "poisson".
    quantiles : sequence of float
        Those that ``loss="quantile"`` learns; others between them are interpolated, others outside refused. By default
        they reach as far as sktime's interval of 90 %.
    update_epochs : float
        Passes over all windows, old and new, in ``update(update_params=True)``.

    Attributes
    ----------
    forecaster_ : elman.Forecaster
        The fitted one.

    Notes
    -----
    `predict` needs the rows of `X` of all steps from the cutoff to the last one in `fh`; if the network forecasts
    further than that, it reads the last row again.

    Examples
    --------
    >>> import elman
    >>> import pandas as pd
    >>> from elman.forecasting.sktime import ElmanForecaster
    >>> time, passengers = elman.datasets.load_air_passengers()
    >>> y = pd.Series(passengers, pd.PeriodIndex(time, freq="M"))
    >>> forecaster = ElmanForecaster(loss="normal", epochs=20).fit(y[:-12], fh=[1, 2, 3])
    >>> forecaster.predict().index.astype(str).tolist()
    ['1960-01', '1960-02', '1960-03']
    >>> forecaster.predict_interval(coverage=0.8).shape
    (3, 2)
    """

    _tags = {  # noqa: RUF012
        "authors": "elman developers",
        "maintainers": "elman developers",
        "python_dependencies": "elman",
        "y_inner_mtype": "pd.Series",
        "X_inner_mtype": "pd.DataFrame",
        "capability:multivariate": False,
        "capability:exogenous": True,
        "capability:categorical_in_X": True,
        "capability:non_contiguous_X": False,
        "capability:missing_values": True,
        "capability:insample": False,
        "capability:pred_int": True,
        "capability:pred_int:insample": False,
        "capability:update": True,
        "requires-fh-in-fit": True,
        "X-y-must-have-same-index": True,
        "property:randomness": "deterministic",
    }
    # The history is kept in `_cur_y` and `_cur_X`, as sktime wants it from 1.3 on; who sets "remember_data" gets both.
    _config = {"remember_data": False}  # noqa: RUF012
    _y = _X = None

    def __init__(
        self,
        horizon: int | None = None,
        lookback: int | None = None,
        cell: Any = "gru",
        units: int = 64,
        layers: int = 1,
        dropout: float = 0.0,
        head: str = "auto",
        segment: int | None = None,
        model: Any = None,
        scale: str | None = "auto",
        transform: str | None = None,
        residual: bool = True,
        season: Any = "auto",
        deseasonalize: bool = False,
        calendar: Any = "auto",
        loss: str = "mae",
        quantiles: Sequence[float] = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95),
        learning_rate: float = 3e-3,
        batch_size: int = 64,
        epochs: Any = "auto",
        seeds: int = 1,
        seed: int = 0,
        update_epochs: float = 1,
    ) -> None:
        given = locals()
        for name in self.get_param_names():
            setattr(self, name, given[name])
        super().__init__()

    def __dynamic_tags__(self) -> None:
        """Tags that depend on arguments."""
        self.set_tags(
            **{
                "requires-fh-in-fit": self.horizon is None,
                "capability:pred_int": self.loss not in ("mae", "mse", "huber"),
            }
        )

    # ---- what sktime's methods call

    def _fit(self, y: pd.Series, X: pd.DataFrame | None, fh: ForecastingHorizon | None) -> Self:
        options = {k: v for k, v in self.get_params(deep=False).items() if k not in _OWN}
        if options["horizon"] is None:
            options["horizon"] = self._steps(fh).max()
        frame = _frame(y, X)
        self.forecaster_ = Forecaster(**options).fit(frame, future=list(frame)[2:], verbose=0)
        self._cur_y, self._cur_X = y, X
        return self

    def _predict(self, fh: ForecastingHorizon, X: pd.DataFrame | None) -> pd.Series:
        found = self._forecast(fh, X)
        return pd.Series(found["y_hat"].to_numpy(), fh.to_absolute_index(self.cutoff), name=self._cur_y.name)

    def _predict_quantiles(self, fh: ForecastingHorizon, X: pd.DataFrame | None, alpha: list[float]) -> pd.DataFrame:
        # The ends of an interval come as 0.5 - 0.9 / 2, a bit below 0.05, which a model may know.
        levels = [round(level, 12) for level in alpha]
        found = self._forecast(fh, X, quantiles=sorted(set(levels)))
        return pd.DataFrame(
            found[[f"y_q{level:g}" for level in levels]].to_numpy(),
            fh.to_absolute_index(self.cutoff),
            self._get_columns("predict_quantiles", alpha=alpha),
        )

    def _update(self, y: pd.Series, X: pd.DataFrame | None = None, update_params: bool = True) -> Self:
        self.forecaster_.update(_frame(y, X), epochs=self.update_epochs if update_params else 0, verbose=0)
        self._cur_y = update_data(self._cur_y, y)
        self._cur_X = update_data(self._cur_X, X)
        return self

    # ---- forecasts

    def _steps(self, fh: ForecastingHorizon) -> np.ndarray:
        """The steps of a horizon, counted from 1 behind the cutoff."""
        return np.asarray(fh.to_indexer(self.cutoff)) + 1

    def _forecast(self, fh: ForecastingHorizon, X: pd.DataFrame | None, **asked: Any) -> pd.DataFrame:
        """What `elman.Forecaster.predict` gives for the steps of `fh`, from the rows up to the cutoff."""
        steps, horizon = self._steps(fh), self.forecaster_.horizon
        if steps.max() > horizon:
            raise BadValue(f"fh: {steps.max()} steps ahead, but the forecaster was made with horizon={horizon}")
        # `update_predict` puts the cutoff back behind rows that are known.
        y = self._cur_y[self._cur_y.index <= self.cutoff[0]]
        future = None
        ahead = ForecastingHorizon(np.arange(1, horizon + 1), freq=fh.freq).to_absolute_index(self.cutoff)
        if X is not None:
            needed = ahead[: steps.max()]
            if not needed.isin(X.index).all():
                raise BadValue(f"X: no row for {needed[~needed.isin(X.index)][0]}; give all up to {needed[-1]}")
            at = np.maximum.accumulate(X.index.get_indexer(ahead))
            future = _covariates(X.iloc[at], ahead)
        found = self.forecaster_.predict(_frame(y, self._cur_X), future=future, **asked)
        # Times that the steps of the data lead to, and those that sktime writes beside the forecasts.
        ours, theirs = found["ds"], _times(ahead)
        if not (ours.to_numpy() == theirs.to_numpy()).all():
            raise BadValue(
                f"y: its index steps by {self.forecaster_._panel.grid}, so that the forecast begins at {ours[0]}, but "
                f"for sktime at {theirs[0]}; give an index without gaps in it, or of integers that follow each other"
            )
        return found.iloc[steps - 1]

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Small settings that sktime's checks run with."""
        tiny = {"units": 4, "epochs": 1, "lookback": 4}
        return [tiny, {**tiny, "loss": "normal", "head": "segment"}, {**tiny, "loss": "quantile", "horizon": 12}]


def _times(index: pd.Index) -> pd.Index:
    """Dates or integers; the beginnings of periods."""
    return index.to_timestamp() if isinstance(index, pd.PeriodIndex) else index


def _covariates(X: pd.DataFrame, index: pd.Index) -> pd.DataFrame:
    """A frame of times and covariates, these under names that no other column has."""
    columns = {f"X[{name!r}]": X[name].to_numpy() for name in X.columns}
    return pd.DataFrame({"ds": _times(index), **columns})


def _frame(y: pd.Series, X: pd.DataFrame | None) -> pd.DataFrame:
    """A frame of times, values and the covariates of their times."""
    frame = pd.DataFrame(index=y.index) if X is None else X.loc[y.index]
    frame = _covariates(frame, y.index)
    frame.insert(1, "y", y.to_numpy())
    return frame
