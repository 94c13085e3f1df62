"""The adapter for sktime."""

import doctest
import pickle
import subprocess
import sys

import numpy as np
import pytest

import elman

pytest.importorskip("sktime")
pd = pytest.importorskip("pandas")

from sktime.forecasting.model_evaluation import evaluate  # noqa: E402
from sktime.split import ExpandingWindowSplitter  # noqa: E402
from sktime.utils.estimator_checks import check_estimator  # noqa: E402

from elman.forecasting.sktime import ElmanForecaster  # noqa: E402

# sktime's own: of a package that is not there, and of pandas 4; and the count of short series and missing values.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Forecasters' predict_proba", "ignore:Sorting by default", r"ignore:y. \d+ of \d+"
)

STEPS = [1, 2, 3]
SMALL = {"units": 8, "epochs": 4}


@pytest.fixture(scope="module")
def air():
    time, passengers = elman.datasets.load_air_passengers()
    return pd.Series(passengers, pd.PeriodIndex(time, freq="M"), name="passengers")


def covariates(index):
    """A number that tells a lot, and a label."""
    month = index.month.to_numpy()
    return pd.DataFrame({"cosine": np.cos(month / 6 * np.pi), 7: np.where(month > 6, "late", "early")}, index)


def test_importing_elman_imports_no_sktime():
    code = "import sys, elman, elman.forecasting; assert not {'sktime', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_checks_of_sktime():
    found = check_estimator(ElmanForecaster, raise_exceptions=True, verbose=False)
    assert len(found) > 500
    assert set(found.values()) == {"PASSED"}


def test_arguments_are_those_of_the_forecaster():
    mine, theirs = ElmanForecaster().get_params(), elman.Forecaster(1).get_params()
    assert set(theirs) - set(mine) == {"multivariate"}
    assert set(mine) - set(theirs) == {"update_epochs"}
    changed = {k for k in theirs if k in mine and mine[k] != theirs[k]}
    assert changed == {"horizon", "quantiles"}


def test_a_forecast_is_that_of_the_forecaster(air):
    y, actual = air[:-12], air[-12:]
    found = ElmanForecaster().fit(y, fh=range(1, 13)).predict()
    assert found.index.equals(actual.index)
    assert found.name == "passengers"
    assert (found - actual).abs().mean() < 40
    frame = pd.DataFrame({"ds": y.index.to_timestamp(), "y": y.to_numpy()})
    expected = elman.Forecaster(12).fit(frame).predict()["y_hat"]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", ["period", "datetime", "integer", "weekdays"])
def test_any_index_gives_the_same_steps(air, kind):
    index = {
        "period": air.index, "datetime": air.index.to_timestamp(), "integer": pd.RangeIndex(5, 149),
        "weekdays": pd.bdate_range("2024-01-01", periods=144),
    }[kind]  # fmt: skip
    y = pd.Series(air.to_numpy(), index)
    found = ElmanForecaster(**SMALL, season=12, calendar=False).fit(y[:-12], fh=[2, 12]).predict()
    assert found.index.tolist() == [y.index[-11], y.index[-1]]
    expected = elman.Forecaster(12, **SMALL, season=12).fit(air.to_numpy()[:-12]).predict()
    np.testing.assert_array_equal(found, expected[[1, 11]])


@pytest.mark.parametrize("loss", ["quantile", "normal", "studentt", "negbin", "poisson"])
def test_intervals(air, loss):
    forecaster = ElmanForecaster(**SMALL, loss=loss).fit(air, fh=STEPS)
    found = forecaster.predict_interval(coverage=[0.5, 0.9])["passengers"]
    low, high = found[0.9]["lower"], found[0.9]["upper"]
    assert (low < found[0.5]["lower"]).all()
    assert (found[0.5]["upper"] < high).all()
    assert forecaster.predict().between(low, high).all()
    quantiles = forecaster.predict_quantiles(alpha=[0.95, 0.05, 0.5])["passengers"]
    np.testing.assert_array_equal(quantiles[[0.05, 0.95]], np.stack([low, high], 1))
    assert quantiles[0.5].between(low, high).all()


def test_intervals_where_there_are_none(air):
    forecaster = ElmanForecaster(**SMALL).fit(air, fh=STEPS)
    with pytest.raises(NotImplementedError, match="interval"):
        forecaster.predict_interval()
    forecaster = ElmanForecaster(**SMALL, loss="quantile", quantiles=(0.1, 0.5, 0.9)).fit(air, fh=STEPS)
    with pytest.raises(ValueError, match=r"from 0\.1 to 0\.9"):
        forecaster.predict_interval()


def test_a_given_horizon_leaves_the_steps_to_predict(air):
    forecaster = ElmanForecaster(horizon=6, **SMALL).fit(air)
    whole = forecaster.predict(range(1, 7))
    pd.testing.assert_series_equal(forecaster.predict([2, 5]), whole.iloc[[1, 4]])
    with pytest.raises(ValueError, match="7 steps ahead"):
        forecaster.predict(7)
    with pytest.raises(NotImplementedError, match="in-sample"):
        forecaster.predict(0)
    with pytest.raises(ValueError, match="must be passed to `fit`"):
        ElmanForecaster().fit(air)


# ---- more data


def weights(forecaster):
    return np.concatenate([w.ravel() for w in forecaster.forecaster_.model_.get_weights()])


@pytest.mark.parametrize("update_params", [False, True])
def test_update(air, update_params):
    forecaster = ElmanForecaster(**SMALL).fit(air[:-6], fh=STEPS)
    before, old = weights(forecaster), forecaster.predict()
    forecaster.update(air[-6:-3], update_params=update_params)
    assert forecaster.cutoff[0] == air.index[-4]
    found = forecaster.predict()
    assert found.index.equals(air.index[-3:])
    assert not np.array_equal(found, old)
    assert np.array_equal(weights(forecaster), before) != update_params
    reference = elman.Forecaster(3, **SMALL).fit(frame := as_frame(air[:-6]))
    reference.update(as_frame(air[-6:-3]), epochs=float(update_params))
    assert len(frame) == 138
    np.testing.assert_array_equal(found, reference.predict()["y_hat"])


def as_frame(y):
    return pd.DataFrame({"ds": y.index.to_timestamp(), "y": y.to_numpy()})


def test_forecasts_from_the_past_see_nothing_later(air):
    forecaster = ElmanForecaster(**SMALL).fit(air[:-24], fh=[1])
    cv = ExpandingWindowSplitter(fh=[1], initial_window=1, step_length=1)
    found = forecaster.update_predict(air[-24:], cv, update_params=False)
    for n in (23, 10, 1):
        one = elman.Forecaster(1, **SMALL).fit(as_frame(air[:-24])).predict(as_frame(air[:-n]))
        assert found[air.index[-n]] == one["y_hat"].iloc[0]
    # Known rows again: the cutoff goes back.
    again = forecaster.update(air[-24:], update_params=False).update(air[-24:-10], update_params=False).predict()
    assert again.index[0] == air.index[-10]
    assert again.iloc[0] == found[air.index[-10]]


def test_evaluate(air):
    cv = ExpandingWindowSplitter(fh=STEPS, initial_window=120, step_length=12)
    for strategy in ("refit", "update", "no-update_params"):
        found = evaluate(ElmanForecaster(**SMALL), cv, air, strategy=strategy, error_score="raise")
        assert len(found) == 2
        assert (found["test_MeanAbsolutePercentageError"] < 0.5).all()


# ---- covariates, missing values, several series


@pytest.mark.parametrize("head", ["direct", "segment", "recursive"])
def test_covariates_known_ahead(air, head):
    X = covariates(air.index)
    forecaster = ElmanForecaster(**SMALL, head=head).fit(air[:-12], X[:-12], fh=range(1, 7))
    found = forecaster.predict(X=X[-12:])
    other = forecaster.predict(X=X[-12:].assign(cosine=0.0))
    assert np.isfinite(found).all()
    assert not np.array_equal(found, other)
    frame = as_frame(air[:-12]).assign(c=X["cosine"][:-12].to_numpy(), d=X[7][:-12].to_numpy())
    ahead = X[-12:-6].set_axis(["c", "d"], axis=1).reset_index(drop=True)
    ahead.insert(0, "ds", air.index[-12:-6].to_timestamp())
    reference = elman.Forecaster(6, **SMALL, head=head).fit(frame, future=["c", "d"])
    np.testing.assert_array_equal(found, reference.predict(future=ahead)["y_hat"])
    forecaster.update(air[-12:-6], X[-12:-6])
    assert forecaster.predict(X=X[-6:]).index.equals(air.index[-6:])


def test_covariates_that_are_missing(air):
    X = covariates(air.index)
    forecaster = ElmanForecaster(**SMALL, horizon=6).fit(air[:-6], X[:-6])
    with pytest.raises(ValueError, match="no row for 1960-08; give all up to 1960-09"):
        forecaster.predict([1, 3], X[-6:].drop(X.index[-5]))
    with pytest.raises(ValueError, match="known ahead"):
        forecaster.predict([1, 3])
    with pytest.raises(ValueError, match=r"X\['cosine'\]"):
        forecaster.predict([1, 3], X[-6:].assign(cosine=np.nan))
    # Behind the last step that is asked for, the last row holds.
    held = X.iloc[[-6, -5, -4, -4, -4, -4]].set_axis(X.index[-6:])
    pd.testing.assert_series_equal(forecaster.predict(STEPS, X[-6:-3]), forecaster.predict(STEPS, held))


def test_missing_values(air):
    y = air.astype(float).copy()
    y.iloc[[3, 50, 51, -1]] = np.nan
    assert np.isfinite(ElmanForecaster(**SMALL).fit(y, fh=STEPS).predict()).all()
    gaps = air.drop(air.index[[3, 50, 51]])
    found = ElmanForecaster(**SMALL).fit(gaps, fh=STEPS).predict()
    assert found.index[0] == air.index[-1] + 1


def test_several_series(air):
    y = pd.DataFrame({"a": air, "b": 2 * air})
    found = ElmanForecaster(**SMALL).fit(y, fh=STEPS).predict()
    alone = ElmanForecaster(**SMALL).fit(air, fh=STEPS).predict()
    assert found.columns.tolist() == ["a", "b"]
    np.testing.assert_array_equal(found["a"], alone)
    panel = pd.concat({"x": air.to_frame("y"), "y": (3 * air).to_frame("y")}, names=["series", "time"])
    found = ElmanForecaster(**SMALL).fit(panel, fh=STEPS).predict()
    np.testing.assert_array_equal(found.loc["x", "y"], alone)


def test_pickle_and_clone(air):
    forecaster = ElmanForecaster(**SMALL, loss="normal").fit(air, fh=STEPS)
    again = pickle.loads(pickle.dumps(forecaster))
    pd.testing.assert_frame_equal(again.predict_interval(), forecaster.predict_interval())
    again.update(air[-3:] + 10)
    assert not again.predict().equals(forecaster.predict())
    assert not forecaster.clone().is_fitted
    pd.testing.assert_series_equal(forecaster.clone().fit(air, fh=STEPS).predict(), forecaster.predict())


def test_the_example_of_the_adapter():
    from elman.forecasting import sktime as module

    result = doctest.testmod(module)
    assert result.attempted > 3 and result.failed == 0


def test_times_that_sktime_would_write_otherwise():
    """It counts integers by one, whatever the step of the index."""
    y = pd.Series(np.arange(50.0), pd.RangeIndex(0, 100, 2))
    forecaster = ElmanForecaster(horizon=4, units=4, epochs=1).fit(y)
    with pytest.raises(ValueError, match="steps by 2 steps, so that the forecast begins at 100, but for sktime at 99"):
        forecaster.predict(fh=[1, 2])
