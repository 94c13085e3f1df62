"""Hostile data and arguments for a forecaster: a clear error that leaves it as it was, or a finite forecast."""

import copy
import pickle
import threading
import warnings

import numpy as np
import pytest

import elman
from elman.forecasting.conformal import Conformal
from elman.layers import GRU, Dense

# Most of the data here are short or have gaps; test_forecaster.py has the warning that counts them.
pytestmark = pytest.mark.filterwarnings(r"ignore:y. \d+ of \d+")
HEADS = ("direct", "segment", "recursive")


def wave(n=60, season=12, seed=0):
    rng = np.random.default_rng(seed)
    return 10 + 0.05 * np.arange(n) + 3 * np.sin(2 * np.pi * np.arange(n) / season) + rng.normal(0, 0.3, n)


def small(horizon=4, **options):
    return elman.Forecaster(horizon, **{"units": 4, "epochs": 1, **options})


Y = wave()
COUNTS = np.round(Y)


def frames():
    return pytest.importorskip("pandas")


def long(pd, ids=("a", "b"), n=60, start="2024-01-01", freq="D", tz=None, **extra):
    parts = [
        pd.DataFrame({"unique_id": i, "ds": pd.date_range(start, periods=n, freq=freq, tz=tz), "y": wave(n, 7, k)})
        for k, i in enumerate(ids)
    ]
    return pd.concat(parts, ignore_index=True).assign(**extra)


# ---- series of every kind

SERIES = {
    "two rows": [1.0, 2.0],
    "constant": np.full(30, 5.0),
    "zeros": np.zeros(30),
    "one value": [np.nan] * 9 + [4.0] + [np.nan] * 9,
    "missing head": [np.nan] * 10 + list(Y),
    "missing tail": list(Y) + [np.nan] * 30,
    "whole numbers": list(range(30)),
    "truths": [True, False] * 15,
    "objects": np.array([1, 2.5, 3, 4, 5], object),
    "negative": -Y,
    "unequal": [Y, Y[:5], Y[:1]],
    "with an empty one": {"a": Y, "b": np.full(30, np.nan)},
    "huge": 1e30 * Y,
    "tiny": 1e-30 * Y,
    "tiny, then huge": np.repeat([1e-30, 1e30], 30),
    "one huge": np.r_[np.zeros(59), 1e30],
    "the largest": np.tile([3.4e38, -3.4e38], 30),
    "subnormal": np.full(60, 1e-45),
    "sixty decades": 10.0 ** np.arange(-30, 30),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", SERIES)
def test_finite_data_give_finite_forecasts(name, head):
    scales = ("auto", "standard", "series") if head == "direct" else ("auto", None)
    for options in ({"scale": s} for s in scales):
        forecast = small(head=head, epochs=4, **options).fit(SERIES[name]).predict()
        assert all(np.isfinite(f).all() for f in (forecast.values() if isinstance(forecast, dict) else [forecast]))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("loss", ["mse", "huber", "quantile", "normal", "studentt"])
@pytest.mark.parametrize("name", ["tiny, then huge", "sixty decades", "one huge"])
def test_every_loss_on_extremes(loss, name):
    for options in ({}, {"scale": None}, {"head": "recursive"}, {"deseasonalize": True, "season": 7}):
        forecaster = small(loss=loss, epochs=4, **options).fit(SERIES[name])
        assert np.isfinite(forecaster.predict()).all()
        if loss not in ("mse", "huber"):
            quantiles = forecaster.predict(quantiles=[0.1, 0.5, 0.9])
            assert np.isfinite(quantiles).all() and (np.diff(quantiles) >= 0).all()


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(
    "options", [{"lookback": 1}, {"lookback": 200}, {"horizon": 200}, {"season": [7, 12]}, {"season": 500}], ids=str
)
def test_lengths_beyond_the_data(head, options):
    for y in (Y, [1.0, 2.0, 3.0]):
        forecaster = small(head=head, **options).fit(y)
        assert np.isfinite(forecaster.predict()).all() and len(forecaster.predict()) == options.get("horizon", 4)


# ---- errors

BAD_Y = [
    ([], ValueError, "y: series 0 is empty"),
    ([1.0], ValueError, "y: no series has a value to learn from"),
    ([np.nan] * 20, ValueError, "y: no series has a value to learn from"),
    ([1.0] + [np.nan] * 20, ValueError, "y: no series has a value to learn from"),
    ([1.0, np.inf], ValueError, "y: .* infinite.*id 0 at 1"),
    ([1.0, "x", 2.0], TypeError, "y: expected numbers, got str 'x' at index 1"),
    ([1.0, None], TypeError, "y: .*None at index 1; write nan"),
    ({(1, 2): Y}, TypeError, r"y: ids are strings or integers, got the key \(1, 2\)"),
    ({"a": Y, "b": []}, ValueError, "y: series 'b' is empty"),
    ([[1, 2], [[1, 2], [3]]], ValueError, r"y\[1\]: expected an array of numbers"),
    (np.zeros((2, 3, 4)), ValueError, "y: expected one series"),
]


@pytest.mark.parametrize(("y", "error", "words"), BAD_Y, ids=[words for _, _, words in BAD_Y])
def test_bad_series(y, error, words):
    with pytest.raises(error, match=words):
        small().fit(y)


BAD_OPTIONS = [
    ({"horizon": 0}, "horizon: "),
    ({"horizon": -1}, "horizon: "),
    ({"segment": 10, "lookback": 5, "head": "segment"}, "segment: 10 steps are more than the lookback of 5"),
    ({"season": 2**70}, "season: expected an integer of at most"),
    ({"season": 0}, "season: "),
    ({"season": "weekly"}, "season: "),
    ({"quantiles": (0.5, 0.5)}, "quantiles: expected different"),
    ({"quantiles": 0.5}, "quantiles: expected one or more"),
    ({"quantiles": None}, "quantiles: "),
    ({"scale": "revin", "head": "recursive"}, "scale: 'revin' .*head='recursive'"),
    ({"scale": "revin", "loss": "normal"}, "scale: 'revin' goes with the losses"),
    ({"scale": "revin", "model": elman.Sequential([GRU(4), Dense(4)])}, "scale: 'revin' .*model="),
    ({"head": "recursive", "model": elman.Sequential([GRU(4), Dense(4)])}, "head: a model of your own"),
    ({"model": elman.Sequential([GRU(4), Dense(5)])}, r"model: expected an output .* Dense\(4\), got \(5,\)"),
    ({"transform": "log1p", "y": Y - 20}, "transform: log1p .* id 0 at 0"),
    ({"loss": "negbin", "y": COUNTS - 20}, "loss: .* id 0 at 0: -10"),
    ({"loss": "poisson", "y": COUNTS + 0.5}, "loss: .* id 0 at 0"),
    ({"loss": "negbin", "y": COUNTS * 1e30}, "loss: .* whole numbers from 0 to 1e"),
    ({"calendar": True}, "calendar: the data have no dates"),
    ({"y": [1.0, 2.0, 3.0, 4.0], "val": "last"}, "before the last 4, which val keeps back"),
]


@pytest.mark.parametrize(("options", "words"), BAD_OPTIONS, ids=[words for _, words in BAD_OPTIONS])
def test_bad_options(options, words):
    options = dict(options)
    y, val = options.pop("y", Y), options.pop("val", None)
    with pytest.raises((ValueError, TypeError), match=words):
        small(**options).fit(y, val=val)


def test_nothing_before_fit():
    for call in ("predict", "sample", "backtest", "calibrate"):
        with pytest.raises(ValueError, match="not fitted yet; call fit"):
            getattr(small(), call)()
    with pytest.raises(ValueError, match="not fitted yet"):
        small().update(Y)
    with pytest.raises(ValueError, match="not fitted yet"):
        small().fit(Y).set_params(horizon=9).predict()


@pytest.mark.parametrize("quantiles", [[0], [1], [1.5], 0.5, [], "ab", [0.5, 0.5], [None], [0.95], [np.nan]], ids=str)
def test_bad_quantiles(quantiles):
    with pytest.raises((ValueError, TypeError), match=r"^quantiles: "):
        small(loss="quantile").fit(Y).predict(quantiles=quantiles)
    with pytest.raises((ValueError, TypeError), match=r"^quantiles: "):
        small(loss="quantile").fit(Y[:40]).backtest(Y, 1, quantiles=quantiles if quantiles != [] else [2])


def test_bad_intervals_and_samples():
    forecaster = small().fit(Y[:40])
    with pytest.raises(ValueError, match="interval: call calibrate"):
        forecaster.predict(interval=80)
    forecaster.calibrate(Y)
    for interval in (0, 100, -1, "80", [], [[80]], np.nan, True, [80, 80]):
        with pytest.raises((ValueError, TypeError), match=r"^interval: "):
            forecaster.predict(interval=interval)
    for head in ("direct", "segment"):
        with pytest.raises(ValueError, match="head='recursive'"):
            small(head=head, loss="normal").fit(Y).sample(3)
    with pytest.raises(ValueError, match="sample: needs loss="):
        small(head="recursive").fit(Y).sample(3)


def test_arrays_of_covariates():
    one = small().fit(Y, future=np.arange(60.0))
    two = small().fit(np.stack([Y, Y], 1), future=np.zeros((60, 1)))
    for forecaster, future, words in [
        (one, None, "future: .*'future0'.* next 4 steps"),
        (one, [1.0, 2.0], r"future: series 0 .* expected \(4, 1\)"),
        (one, [1, np.nan, 2, 3], "future: column 'future0'.* id 0 at 61"),
        (one, ["a"] * 4, "future: column 'future0' had numbers"),
        (two, [0.0, 1.0], r"future: series 0 has an array of shape \(\)"),
        (two, {0: [0.0] * 4}, "future: no entry for id 1"),
        (two, 3.0, "future: expected shape"),
    ]:
        with pytest.raises((ValueError, TypeError), match=words):
            forecaster.predict(future=future)
    ahead = np.arange(64.0)
    for y, future in ((Y, ahead), ({"a": Y}, {"a": ahead}), ([Y], [ahead])):
        np.testing.assert_array_equal(np.ravel(one.predict(y, future=future)), one.predict(future=ahead[60:]))
    with pytest.raises(ValueError, match=r"past\[1\]: expected an array, got list"):
        small().fit(np.stack([Y, Y], 1), past=[[1, 2], [1, [2, 3]]])


# ---- frames


def test_bad_frames():
    pd = frames()
    frame = long(pd)
    for change, error, words in [
        (lambda d: pd.concat([d, d.iloc[[5]]]), ValueError, "time: .*id 'a' at 2024-01-06"),
        (lambda d: d.assign(y=d.y.astype(str)), TypeError, "target: column 'y' holds str"),
        (lambda d: d.assign(unique_id=1.5), TypeError, "id: column 'unique_id'"),
        (lambda d: d.assign(y=np.inf), ValueError, "y: .*id 'a' at 2024-01-01"),
        (lambda d: d.iloc[:0], ValueError, "no rows"),
        (lambda d: d.groupby("unique_id").head(1), ValueError, "time: no series has two rows"),
        (lambda d: pd.DataFrame(np.zeros((20, 3))), ValueError, "expected strings"),
    ]:
        with pytest.raises(error, match=words):
            small().fit(change(frame))
    for covariates in ({"past": np.zeros((120, 1))}, {"future": frame}):
        with pytest.raises(TypeError, match=f"{next(iter(covariates))}: expected names of columns"):
            small().fit(frame, **covariates)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "+05:30"])
@pytest.mark.parametrize("freq", ["D", "h"])
def test_time_zones_come_back(zone, freq):
    pd = frames()
    frame = long(pd, start="2024-03-01", freq=freq, tz=zone)
    found = small().fit(frame).predict()
    assert found.ds.dtype == frame.ds.dtype
    assert list(found.ds[:4]) == list(pd.date_range("2024-03-01", periods=64, freq=freq, tz=zone)[60:])


def test_frames_in_any_order_give_the_same():
    pd = frames()
    frame = long(pd)
    one = small().fit(frame).predict()
    two = small().fit(frame.iloc[::-1]).predict()
    assert list(two.unique_id[:4]) == ["b"] * 4 and np.isfinite(two.y_hat).all()
    three = small().fit(frame.sort_values(["ds", "unique_id"])).predict()
    pd.testing.assert_frame_equal(one, three)


def test_categories():
    pd = frames()
    frame = long(pd).assign(
        fu=lambda d: np.arange(len(d)) % 7, fc=lambda d: ["x", "y", "z"] * (len(d) // 3), pa=lambda d: d.y * 2,
        pc=lambda d: pd.array(["r", None] * (len(d) // 2), "string"), sc=lambda d: "k" + d.unique_id,
    )  # fmt: skip
    ahead = long(pd, n=4, start="2024-03-01", fu=1, fc="x").drop(columns="y")
    names = {"past": ["pa", "pc"], "future": ["fu", "fc"], "static": ["sc"]}
    for head in HEADS:
        for options in ({"loss": "quantile"}, {"loss": "normal"}, {"scale": "revin"} if head != "recursive" else {}):
            forecaster = small(head=head, **options).fit(frame, **names)
            assert np.isfinite(forecaster.predict(future=ahead).y_hat).all()
            with pytest.warns(UserWarning, match="column 'sc' has values that the fit did not see: 'zz'"):
                found = forecaster.predict(frame.assign(sc="zz"), future=ahead)
            assert np.isfinite(found.y_hat).all()
    for change, words in [
        (lambda d: d.groupby("unique_id").head(3), "future: .* 'fu', 'fc', the first of id 'a' at 2024-03-04"),
        (lambda d: d[d.unique_id == "a"], "the first of id 'b' at 2024-03-01"),
        (lambda d: d.assign(fu=np.nan), "future: column 'fu'.* id 'a' at 2024-03-01"),
        (lambda d: d.drop(columns="fc"), "future: there is no column 'fc'"),
        (lambda d: pd.concat([d, d]), "future: 2 rows of id 'a' at 2024-03-01"),
    ]:
        with pytest.raises(ValueError, match=words):
            forecaster.predict(future=change(ahead))


# ---- updates


def test_a_failed_call_changes_nothing(monkeypatch):
    for options, y, bad in [
        ({"transform": "log1p"}, Y, [-5.0]),
        ({"loss": "negbin"}, COUNTS, [-3.0]),
        ({"loss": "poisson"}, COUNTS, [0.5]),
        ({}, Y, [np.inf]),
    ]:
        forecaster = small(**options).fit(y)
        before = forecaster.predict()
        for name, more in (("fit", {}), ("update", {}), ("update", {"epochs": 1}), ("predict", {})):
            with pytest.raises(ValueError, match="id 0"):
                getattr(forecaster, name)(np.r_[1.0, 2.0, bad], **more)
            np.testing.assert_array_equal(forecaster.predict(), before)

    forecaster = small().fit(Y)
    before, weights = forecaster.predict(), forecaster.model_.get_weights()
    fit = elman.Sequential.fit

    def broken(model, *args, **options):
        fit(model, *args, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(elman.Sequential, "fit", broken)
    with pytest.raises(KeyboardInterrupt):
        forecaster.update(Y, epochs=1)
    np.testing.assert_array_equal(forecaster.predict(), before)
    for one, two in zip(weights, forecaster.model_.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_updates_of_frames():
    pd = frames()
    for change, rows in [
        (long(pd, start="2024-02-20"), [110, 110]),
        (long(pd, start="2023-12-01", n=3), [91, 91]),
        (long(pd, start="2024-06-01", n=20), [172, 172]),
        (long(pd, ids=("z",), n=1), [60, 60, 1]),
    ]:
        for epochs in (0, 1):
            forecaster = small().fit(long(pd)).update(change, epochs=epochs)
            found = forecaster.predict()
            assert np.isfinite(found.y_hat).all() and len(found) == 4 * len(rows)
            assert forecaster._panel.lengths.tolist() == rows


def test_more_series_than_in_the_fit():
    three = np.stack([wave(seed=k) for k in range(3)], 1)
    forecaster = small().fit(Y)
    assert forecaster.predict(three).shape == (3, 4)
    assert forecaster.update(three[:2]).predict().shape == (3, 4)


def test_other_series_have_scales_of_their_own():
    other = 7 * wave(seed=5)[::-1]
    for options in ({"scale": "series"}, {"scale": "last-value"}, {"deseasonalize": True, "season": 12}):
        found = small(**options).fit(Y).predict(other)
        named = small(**options).fit({"a": Y}).predict({"b": other})
        np.testing.assert_array_equal(found, named["b"])


def test_far_apart_series_have_short_calendars():
    pd = frames()
    frame = pd.concat([long(pd, ("a",), freq="s"), long(pd, ("b",), start="1990-01-01", freq="s")])
    near = pd.concat([long(pd, ("a",), freq="s"), long(pd, ("b",), start="2024-01-01 00:00:30", freq="s")])
    forecaster = small(calendar=True).fit(frame)
    assert np.isfinite(forecaster.predict().y_hat).all()
    # The same calendar in one table and in parts.
    np.testing.assert_array_equal(forecaster.predict(near).y_hat[:4], forecaster.predict().y_hat[:4])


# ---- the future stays unknown

HONEST = [{"scale": s} for s in ("auto", "standard", "last-value", "series", "global", None)]
HONEST += [{"deseasonalize": True, "season": 12}, {"transform": "log1p"}, {"loss": "quantile"}]
HONEST += [{"multivariate": True}, {"loss": "studentt"}, {"loss": "poisson"}]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("options", HONEST, ids=str)
def test_backtests_do_not_look_ahead(head, options):
    y = np.round(np.stack([wave(120, 12, s) for s in (1, 2)], 1))
    forecaster = small(head=head, **options).fit(y[:80])
    plain = forecaster.backtest(y, 6, 4)
    for behind in (50 + np.arange(20.0)[:, None], np.nan):
        changed = y.copy()
        changed[100:] = behind
        found = forecaster.backtest(changed, 6, 4)
        honest = plain.origins <= 100
        np.testing.assert_array_equal(found.forecast[honest], plain.forecast[honest])
        np.testing.assert_array_equal(found.naive[honest], plain.naive[honest])
    assert honest.any() and not honest.all()
    for origin in np.unique(plain.origins):
        np.testing.assert_allclose(plain.forecast[plain.origins == origin], forecaster.predict(y[:origin]), 1e-4, 1e-4)


def test_new_ids_and_refits_do_not_look_ahead():
    changed = np.r_[Y[:44], np.full(16, 99.0)]
    for options in ({"scale": "series"}, {"deseasonalize": True, "season": 12}, {}):
        forecaster = small(**options).fit({"a": Y})
        for refit in (False, True):
            one, two = (forecaster.backtest({"b": y}, 5, 4, refit=refit) for y in (Y, changed))
            np.testing.assert_array_equal(one.forecast[one.origins <= 44], two.forecast[one.origins <= 44])
            assert not np.array_equal(one.forecast, two.forecast)


@pytest.mark.parametrize("head", HEADS)
def test_past_covariates_do_not_look_ahead(head):
    y, past = wave(120), np.random.default_rng(0).normal(size=(120, 1))
    forecaster = small(head=head).fit(y[:80], past=past[:80])
    changed = past.copy()
    changed[100:] = 9
    one, two = (forecaster.backtest(y, 6, 4, past=p) for p in (past, changed))
    np.testing.assert_array_equal(one.forecast[one.origins <= 100], two.forecast[one.origins <= 100])
    assert not np.array_equal(one.forecast, two.forecast)


@pytest.mark.parametrize("head", HEADS)
def test_val_keeps_the_last_rows_from_the_training(head):
    # A single step: the restored weights are those after it, whatever was validated.
    short = np.array([1.0, 2.0, 4.0, 3.0, 5.0, 4.0])
    one, two = (
        small(head=head, epochs=1e-9, scale=None).fit(y, val="last").model_.get_weights()
        for y in (short, np.r_[short[:2], 90, 80, 70, 60])
    )
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)


def test_recursive_forecasts_read_the_latest_past_covariate():
    rng = np.random.default_rng(0)
    past = rng.normal(size=400)
    y = np.r_[0.0, 3 * past[:-1]] + 0.1 * rng.normal(size=400)  # tomorrow's value is told by today's covariate
    forecaster = small(1, head="recursive", units=8, epochs=30, residual=False, season=None, scale="global")
    result = forecaster.fit(y[:300], past=past[:300]).backtest(y, 90, 1, past=past)
    assert result.score("mae")["mae"]["forecast"] < 0.5 * np.abs(y).mean()


# ---- scores and backtests


@pytest.mark.filterwarnings("error")
def test_scores_of_hopeless_windows():
    forecaster = small(loss="normal").fit(Y[:40])
    for y in (np.zeros(60), np.full(60, 5.0), np.r_[Y[:50], np.full(20, np.nan)]):
        scores = forecaster.backtest(y, 2, quantiles=[0.1, 0.9]).score(
            "mae", "mape", "mase", "smape", "wql", "coverage"
        )
        assert str(scores) and not np.isinf([s["forecast"] for s in scores.values()]).any()
    assert np.isnan(forecaster.backtest(np.zeros(60), 2, quantiles=[0.1]).score("wql")["wql"]["forecast"])


def test_windows():
    forecaster = small().fit(Y[:20])
    with pytest.warns(UserWarning, match="4 of 14 windows lie in data"):
        assert len(forecaster.backtest(Y, 10**9).y) == 14  # as many as there are, at once
    with pytest.raises(ValueError, match="windows: the longest series has 2 rows"):
        forecaster.backtest([1.0, 2.0])
    for argument in ({"windows": 0}, {"step": 0}, {"refit": -1}):
        with pytest.raises(ValueError, match=next(iter(argument))):
            forecaster.backtest(Y, **argument)


def test_scores_by_hand():
    forecaster = small(loss="normal").fit(Y[:40])
    result = forecaster.backtest(Y, 3, quantiles=[0.1, 0.9])
    error = np.abs(result.y - result.forecast)
    scores = result.score("mae", "rmse", "mase")
    assert scores["mae"]["forecast"] == pytest.approx(error.mean())
    assert scores["rmse"]["forecast"] == pytest.approx(np.sqrt((error**2).mean()))
    season, past = result.season, Y[: result.origins.min()].astype(np.float32).astype(float)
    scale = np.abs(past[season:] - past[:-season]).mean()
    assert scores["mase"]["forecast"] == pytest.approx(error.mean() / scale)
    lost = result.y[..., None] - result.quantiles
    pinball = np.maximum(lost * [0.1, 0.9], lost * [-0.9, -0.1]).mean()
    assert result.score("pinball")["pinball"]["forecast"] == pytest.approx(pinball)
    np.testing.assert_allclose(result.score("mae", by="lead")["mae"]["forecast"], error.mean(axis=0))


def test_intervals_cover():
    rng = np.random.default_rng(1)
    y = rng.normal(size=3000)
    errors = Conformal.fit(y[:1500, None], np.zeros((1500, 1)))
    low, high = errors.interval(np.zeros((1500, 1)), 0.8)
    assert abs(((low[:, 0] <= y[1500:]) & (y[1500:] <= high[:, 0])).mean() - 0.8) < 0.04
    series = rng.normal(5, 1, 700)
    forecaster = small(1, season=None).fit(series[:100]).calibrate(series[:400], windows=200)
    result = forecaster.backtest(series, 250)
    half = (forecaster.predict(series, interval=80)[0, 2] - forecaster.predict(series)[0]).item()
    assert abs((np.abs(result.y - result.forecast) <= half).mean() - 0.8) < 0.12


# ---- forecasts in their forms


@pytest.mark.parametrize("loss", ["quantile", "normal", "studentt", "negbin", "poisson"])
@pytest.mark.parametrize("head", HEADS)
def test_quantiles_never_cross(loss, head):
    forecaster = small(head=head, loss=loss).fit(COUNTS)
    found = forecaster.predict(quantiles=[0.1, 0.3, 0.5, 0.89])
    assert found.shape == (4, 4) and (np.diff(found) >= 0).all()
    np.testing.assert_array_equal(forecaster.predict(quantiles=[0.89, 0.1]), found[:, [3, 0]])
    assert forecaster.predict(quantiles=[0.5]).shape == (4, 1)


def test_quantiles_without_a_median():
    assert np.isfinite(small(loss="quantile", quantiles=(0.9,)).fit(Y).predict()).all()
    found = small(loss="quantile", quantiles=(0.6, 0.9)).fit(Y)
    np.testing.assert_array_equal(found.predict(), found.predict(quantiles=[0.6])[:, 0])


@pytest.mark.parametrize("loss", ["negbin", "poisson"])
def test_samples_of_counts_are_whole(loss):
    drawn = small(head="recursive", loss=loss).fit(COUNTS).sample(50)
    np.testing.assert_array_equal(drawn, np.rint(drawn))
    assert drawn.min() >= 0


@pytest.mark.parametrize("options", [{"transform": "log1p"}, {"deseasonalize": True, "season": 12}], ids=str)
def test_transforms_have_exact_inverses(options):
    forecaster = small(**options, scale=None).fit(Y)
    source = forecaster._engine.source(forecaster._panel)
    rows = np.arange(0, 57, 4)
    windows = source.values[rows[:, None] + np.arange(4)]
    back = source.original(windows, np.tile([0.0, 1.0], (len(rows), 1)), np.zeros(len(rows), np.int64), rows)
    np.testing.assert_allclose(back, Y[rows[:, None] + np.arange(4)], 1e-6)


# ---- files

MISSING = np.r_[wave(200), np.full(60, np.nan)]
SAVED = {
    "plain": (Y, {}),
    "missing tail": (MISSING, {"season": 12}),
    "deseasonalized": (Y, {"deseasonalize": True, "season": 12}),
    "series": (wave(300), {"scale": "series"}),
    "last value": (wave(300), {"scale": "last-value"}),
    "channels": (np.stack([wave(100, 12, s) for s in (1, 2)], 1), {"multivariate": True, "scale": "revin"}),
    "members": (Y, {"seeds": 3}),
    "counts": (COUNTS, {"loss": "negbin"}),
    "own model": (Y, {"model": elman.Sequential([GRU(4), Dense(4)])}),
    "numbers of NumPy": (Y, {"lookback": np.int64(9), "quantiles": np.array([0.1, 0.9]), "season": np.array([12, 7])}),
}


def possible(name, head):
    """Other tests show that the rest is refused."""
    options = SAVED[name][1]
    return (head == "direct" or "model" not in options) and (head, options.get("scale")) != ("recursive", "revin")


@pytest.mark.parametrize(("name", "head"), [(n, h) for n in SAVED for h in HEADS if possible(n, h)])
def test_loaded_forecasters_forecast_the_same_bits(name, head, tmp_path):
    y, options = SAVED[name]
    forecaster = small(head=head, **options).fit(y)
    forecaster.save(tmp_path / "f.npz")
    forecast = forecaster.predict()
    np.testing.assert_array_equal(forecaster.predict(y), forecast)
    for other in (
        elman.Forecaster.load(tmp_path / "f.npz"), pickle.loads(pickle.dumps(forecaster)), copy.deepcopy(forecaster)
    ):  # fmt: skip
        np.testing.assert_array_equal(other.predict(), forecast)


def equal(found, expected):
    """Forecasts of a dict of series."""
    assert list(found) == list(expected)
    for label, values in expected.items():
        np.testing.assert_array_equal(found[label], values)


@pytest.mark.parametrize("options", [{"deseasonalize": True, "season": 12}, {"scale": "series"}, {}], ids=str)
def test_updated_forecasters_are_saved(options, tmp_path):
    forecaster = small(**options).fit({"a": wave(300)}).update({"a": [50.0, 60.0], "b": 3 * Y}, epochs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the windows were trained on
        forecaster.calibrate(windows=9)
    forecaster.save(tmp_path / "f.npz")
    loaded = elman.Forecaster.load(tmp_path / "f.npz")
    equal(loaded.predict(interval=60), forecaster.predict(interval=60))
    forecaster.save(tmp_path / "g.npz", history=False)
    loaded, new = elman.Forecaster.load(tmp_path / "g.npz"), {"a": Y, "c": Y}
    equal(loaded.predict(new), forecaster.predict(new))
    with pytest.raises(ValueError, match="history=False and has no rows of id 'a'; give y, or update"):
        loaded.predict()
    with pytest.raises(ValueError, match="no rows of id 'b'"):
        loaded.update({"a": Y}).predict()


def test_files_that_are_none(tmp_path):
    forecaster = small().fit(Y)
    with pytest.raises(FileNotFoundError, match="no such directory"):
        forecaster.save(tmp_path / "none" / "f.npz")
    forecaster.save(tmp_path / "f.npz")
    whole = (tmp_path / "f.npz").read_bytes()
    for part in (whole[: len(whole) // 2], b"", whole.replace(b'"layout"', b'"lay0ut"')):
        (tmp_path / "g.npz").write_bytes(part)
        with pytest.raises(ValueError, match="path: "):
            elman.Forecaster.load(tmp_path / "g.npz")


def test_threads_do_not_share_components():
    forecaster = small(deseasonalize=True, season=12).fit({"a": Y})
    given = [{"b": 10 * wave(seed=5)}, {"c": wave(seed=6)}]
    wanted, wrong = [forecaster.predict(y) for y in given], []

    def work(k):
        for _ in range(100):
            if not np.array_equal(*[next(iter(v.values())) for v in (forecaster.predict(given[k]), wanted[k])]):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
