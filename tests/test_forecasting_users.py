"""What people hand to a Forecaster: ids, dates and arrays that nearly fit, and what it keeps of them."""

import copy
import warnings

import numpy as np
import pytest

import elman
from elman import Forecaster

pd = pytest.importorskip("pandas")
SMALL = {"units": 4, "epochs": 1}


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def days(start, n, **options):
    return pd.date_range(start, periods=n, **options)


@pytest.mark.parametrize("head", ["direct", "segment"])
def test_short_windows_are_learned_from_with_a_learned_norm(head):
    """The mask of the rows in front of short series must not hide what is to be forecast."""
    y = [20 + 3 * np.sin(np.arange(20) * 2 * np.pi / 6 + k) + noise(20, seed=k) for k in range(40)]
    options = {"lookback": 16, "units": 8, "head": head, "season": None, "scale": "revin"}
    with pytest.warns(UserWarning, match="are padded"):
        long, short = (Forecaster(6, epochs=n, **options).fit(y, val=None) for n in (30, 1))
    assert 0 < long.history_[0]["loss"][-1] < 0.95 * short.history_[0]["loss"][-1]


@pytest.mark.filterwarnings("ignore:y. 1 of 1 series have fewer")
def test_a_long_horizon_behind_a_short_window_gives_equal_bits():
    y = 100 + noise(71)
    losses = {Forecaster(60, units=4, season=None, scale="revin").fit(y).history_[0]["loss"][0] for _ in range(3)}
    assert len(losses) == 1


def test_weekdays_have_weeks_of_five_days():
    dates = days("2019-01-01", 1200, freq="B")
    frame = pd.DataFrame({"ds": dates, "y": 100 + 5 * np.isin(dates.day_of_week, [0, 4]) + noise(1200)})
    assert Forecaster(10, **SMALL).fit(frame).seasons_ == (5,)


def test_few_weekdays_are_forecast_on_weekdays():
    frame = pd.DataFrame({"ds": days("2024-01-01", 8, freq="B"), "y": np.arange(8.0)})
    found = Forecaster(4, **SMALL).fit(frame).predict()
    assert found["ds"].dt.day.tolist() == [11, 12, 15, 16]


def test_a_large_level_is_not_taken_for_the_scale():
    y = 1e6 + 10 * np.sin(2 * np.pi * np.arange(240) / 12)
    assert np.abs(Forecaster(12).fit(y[:-12]).predict() - y[-12:]).mean() < 0.5
    assert np.abs(Forecaster(4).fit(np.full(120, 1e6)).predict() - 1e6).max() < 10


def test_values_that_float32_cannot_tell_apart_are_told():
    y = [1e9 + 10 * np.arange(100.0), np.arange(100.0)]
    with pytest.warns(UserWarning, match="1 of 2 series, the first 0, vary by less than float32 tells apart"):
        Forecaster(4, **SMALL).fit(y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Forecaster(4, **SMALL).fit([np.full(100, 1e9), np.arange(100.0), 1e9 + 1e5 * noise(100), 2e6 + np.arange(100)])


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_ids_are_of_the_kind_they_were(library):
    make = pytest.importorskip(library).DataFrame
    whole = make({"unique_id": [1] * 60, "ds": np.arange(60), "y": noise(60), "known": np.zeros(60)})
    forecaster = Forecaster(4, **SMALL).fit(whole, future=["known"])
    later = make({"unique_id": ["1"] * 4, "ds": np.arange(60, 64), "y": noise(4), "known": np.zeros(4)})
    for call in (forecaster.update, lambda frame: forecaster.predict(future=frame)):
        with pytest.raises(TypeError, match="id: column 'unique_id' holds strings, such as '1', and that of the fit"):
            call(later)
    ahead = make({"unique_id": [1] * 4, "ds": np.arange(60, 64), "known": np.zeros(4)})
    assert len(forecaster.predict(future=ahead)) == 4


def test_integers_may_grow_out_of_their_type():
    frame = pd.DataFrame({"ds": np.arange(196, 256).astype(np.uint8), "y": noise(60)})
    assert Forecaster(3, **SMALL).fit(frame).predict()["ds"].tolist() == [256, 257, 258]


def test_dates_beyond_the_last_one():
    frame = pd.DataFrame({"ds": days("2202-01-01", 60, freq="YS"), "y": noise(60)})
    with pytest.raises(ValueError, match=r"time: the grid of 1 year leaves the range of dates in nanoseconds"):
        Forecaster(4, **SMALL).fit(frame).predict()


def test_covariates_ahead_are_those_of_the_horizon_alone():
    known, y = noise(104, 2), noise(100)
    forecaster = Forecaster(4, **SMALL).fit(y, future=known[:100])
    with pytest.raises(ValueError, match=r"future: series 0 has covariates of shape \(104, 2\), expected \(4, 2\)"):
        forecaster.predict(future=known)
    np.testing.assert_array_equal(forecaster.predict(future=known[100:]), forecaster.predict(y, future=known))


def test_categories_of_integers_are_found_among_floats():
    """A merge makes floats of integers, and the reverse."""
    codes = pd.Series(np.arange(104) % 3)
    frame = pd.DataFrame({"ds": np.arange(100), "y": noise(100), "kind": codes[:100].astype("category")})
    forecaster = Forecaster(4, **SMALL).fit(frame, future=["kind"])
    ahead = pd.DataFrame({"ds": np.arange(100, 104), "kind": codes[100:].to_numpy()})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = forecaster.predict(future=ahead)
        for other in ("float64", "category", "str"):
            assert plain.equals(forecaster.predict(future=ahead.astype({"kind": other})))
        written = frame.assign(kind=frame["kind"].astype(float).astype(str))
        forecaster = Forecaster(4, **SMALL).fit(written, future=["kind"])
        assert plain.equals(forecaster.predict(future=ahead))


def test_a_series_with_dates_is_a_frame():
    series = pd.Series(np.arange(60.0), days("2024-01-01", 60), name="sales")
    given = series.drop(series.index[20:30]).sample(frac=1, random_state=0)
    with pytest.warns(UserWarning, match="10 of 60 values are missing"):
        found = Forecaster(3, **SMALL).fit(given).predict()
    with pytest.warns(UserWarning, match="10 of 60 values are missing"):
        expected = Forecaster(3, **SMALL).fit(given.rename_axis("ds").reset_index()).predict()
    assert list(found) == ["ds", "sales_hat"]
    assert found.equals(expected)


@pytest.mark.parametrize("name", [None, 0, "ds", "unique_id", ("a", 1)])
def test_names_of_a_series(name):
    series = pd.Series(noise(60), days("2024-01-01", 60), name=name)
    forecaster = Forecaster(3, **SMALL).fit(series[:50])
    assert list(forecaster.predict()) == ["ds", "y_hat"]
    assert forecaster.update(series[50:].rename("other")).predict()["ds"].iloc[0] == pd.Timestamp("2024-03-01")


def test_a_series_beside_arrays_is_an_array():
    series, known = pd.Series(noise(60), days("2024-01-01", 60)), noise(63)
    forecaster, plain = (Forecaster(3, **SMALL).fit(y, future=known[:60]) for y in (series, series.to_numpy()))
    expected = plain.predict(future=known[60:])
    assert np.array_equal(forecaster.predict(future=known[60:]), expected)
    assert np.array_equal(plain.predict(series, future=known), expected)
    assert np.array_equal(Forecaster(3, **SMALL).fit(noise(60)).predict(series).shape, (3,))


@pytest.mark.parametrize("given", ["array", "frame"])
def test_the_data_of_a_fit_are_kept_as_they_were(given):
    y = noise(100).astype(np.float32)
    forecaster = Forecaster(3, **SMALL).fit(y if given == "array" else pd.DataFrame({"ds": np.arange(100), "y": y}))
    before = forecaster.predict()
    y[:] = 7
    assert np.array_equal(forecaster.predict(), before)


@pytest.mark.parametrize(("column", "call"), [("sample", "sample"), ("cutoff", "backtest")])
def test_columns_that_forecasts_need(column, call):
    names = {"target": "sample"} if column == "sample" else {"id": "cutoff"}
    frame = pd.DataFrame({"ds": np.arange(60), names.get("target", "y"): noise(60), names.get("id", "unique_id"): 1})
    forecaster = Forecaster(3, **SMALL, head="recursive", loss="normal").fit(frame, **names)
    with pytest.raises(ValueError, match=f"column '{column}'; rename that of the data"):
        forecaster.sample(2) if call == "sample" else forecaster.backtest(windows=1, refit=True).frame()


def test_quantiles_of_any_float_type_are_different_numbers():
    forecaster = Forecaster(3, **SMALL, loss="quantile").fit(noise(100))
    with pytest.raises(ValueError, match="quantiles: expected different numbers"):
        forecaster.predict(quantiles=np.array([0.1, 0.1], np.float32))


def test_what_is_saved_is_what_was_fitted(tmp_path):
    forecaster = Forecaster(3, **SMALL).fit(noise(100))
    forecaster.horizon = 10
    forecaster.save(tmp_path / "f.npz")
    loaded = elman.Forecaster.load(tmp_path / "f.npz")
    assert loaded.horizon == 3
    np.testing.assert_array_equal(loaded.predict(), forecaster.predict())
    copied = copy.deepcopy(forecaster)
    assert copied.horizon == 10
    np.testing.assert_array_equal(copied.predict(), forecaster.predict())
    copied.save(tmp_path / "g.npz")
    assert elman.Forecaster.load(tmp_path / "g.npz").horizon == 3


def test_a_dict_of_series_gives_a_dict_of_forecasts():
    series = {"b": noise(60), 7: 3 * noise(80, seed=1)}
    forecaster = Forecaster(3, **SMALL, head="recursive", loss="normal").fit(series)
    found, listed = (
        forecaster.predict(),
        Forecaster(3, **SMALL, head="recursive", loss="normal").fit([*series.values()]),
    )
    assert list(found) == ["b", 7]
    np.testing.assert_array_equal(np.stack([*found.values()]), listed.predict())
    assert found["b"].shape == (3,)
    assert forecaster.predict(quantiles=[0.1, 0.9])[7].shape == (3, 2)
    assert {k: v.shape for k, v in forecaster.sample(5, {7: series[7]}).items()} == {7: (5, 3)}


@pytest.mark.parametrize("share", [0.8, 1, [80, 0.95]])
def test_intervals_are_percent(share):
    forecaster = Forecaster(3, **SMALL).fit(noise(60)).calibrate(noise(90), windows=10)
    with pytest.raises(ValueError, match=r"interval: expected percent, such as 80, got (0\.8|1|0\.95)"):
        forecaster.predict(interval=share)


def test_a_backtest_shows_itself_in_a_line_and_scores_intervals_of_its_own_alone():
    forecaster = Forecaster(3, **SMALL, loss="quantile").fit([noise(60), noise(60, seed=1)])
    result = forecaster.backtest([noise(90), noise(90, seed=1)], windows=4, quantiles=[0.1, 0.9])
    assert repr(result) == "Backtest(8 windows of 3 steps, 2 series)"
    for by, shape in ((None, ()), ("lead", (3,)), ("series", (2,))):
        scores = result.score("coverage", "width", "winkler", "wql", by=by)
        for name, found in scores.items():
            assert np.shape(found["forecast"]) == np.shape(found["seasonal naive"]) == shape
            assert np.isnan(found["seasonal naive"]).all() == (name != "wql")
    assert "nan" in str(result.score("coverage"))
