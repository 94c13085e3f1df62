"""A Forecaster among scikit-learn's tools: cloned, copied, pickled, tried over a grid in threads and processes."""

import copy
import inspect
import pickle
import warnings

import numpy as np
import pytest

import elman
from elman import Forecaster

SMALL = {"units": 6, "epochs": 2}
GRID = [{"cell": cell, "units": units} for cell in ("gru", "lstm") for units in (4, 6)]


def series():
    t = np.arange(72)
    return 10 + np.sin(t / 6 * np.pi) + 0.1 * np.random.default_rng(0).standard_normal(72)


def forecast(options, y):
    return Forecaster(4, **{**SMALL, **options}).fit(y).predict()


def model():
    return elman.Sequential([elman.layers.GRU(4), elman.layers.Dense(4)], seed=3)


# Arguments of every kind: names, numbers, flags, sequences, objects.
OPTIONS = [
    {},
    {"lookback": 9, "cell": elman.cells.CELLS["mgu"], "units": 5, "layers": 2, "dropout": 0.1, "head": "segment"},
    {"head": "recursive", "loss": "studentt", "scale": None, "transform": "log1p", "residual": False},
    {"loss": "quantile", "quantiles": [0.1, 0.5, 0.9], "season": [12], "seeds": 2, "seed": 7},
    {"season": None, "deseasonalize": True, "calendar": False, "scale": "revin", "batch_size": 8},
]
each = pytest.mark.parametrize("options", OPTIONS, ids=lambda v: "-".join(v) or "defaults")


# ---- parameters


@each
def test_parameters_go_round(options):
    forecaster = Forecaster(4, **options)
    found = forecaster.get_params()
    assert list(found) == list(inspect.signature(Forecaster).parameters)
    assert all(found[name] is value for name, value in options.items())
    assert found == forecaster.get_params(deep=False)
    again = Forecaster(1).set_params(**found)
    assert all(again.get_params()[name] is value for name, value in found.items())


def test_set_params():
    forecaster = Forecaster(4, **SMALL).fit(series())
    assert forecaster.set_params() is forecaster
    with pytest.raises(ValueError, match="unit"):
        forecaster.set_params(seed=3, unit=3)
    assert forecaster.seed == 0
    np.testing.assert_array_equal(
        forecaster.set_params(cell="lstm", horizon=3).fit(series()).predict(),
        Forecaster(3, **SMALL, cell="lstm").fit(series()).predict(),
    )


@each
def test_repr_shows_what_is_not_default(options):
    text = repr(Forecaster(4, **options))
    assert text.startswith("Forecaster(horizon=4")
    assert all(f"{name}=" in text for name in options)
    assert text.count("=") == 1 + len(options) + (repr(options.get("cell", "")).count("="))


def test_repr_can_be_evaluated():
    forecaster = Forecaster(4, 8, cell="lstm", loss="quantile", quantiles=(0.1, 0.5), season=[12], scale=None)
    assert eval(repr(forecaster), {"Forecaster": Forecaster}).get_params() == forecaster.get_params()


@each
def test_clone(options):
    base = pytest.importorskip("sklearn.base")
    fitted = Forecaster(4, **{**SMALL, **options}).fit(series())
    found = base.clone(fitted)
    assert found is not fitted
    assert type(found) is Forecaster
    assert repr(found) == repr(fitted)
    with pytest.raises(ValueError, match="not fitted"):
        found.predict()
    np.testing.assert_array_equal(found.fit(series()).predict(), fitted.predict())


def test_clone_with_a_model():
    base = pytest.importorskip("sklearn.base")
    fitted = Forecaster(4, **SMALL, model=model()).fit(series())
    np.testing.assert_array_equal(base.clone(fitted).fit(series()).predict(), fitted.predict())


# ---- copies

copies = pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, copy.copy, *(lambda f, p=p: pickle.loads(pickle.dumps(f, p)) for p in (2, 5))],
    ids=["deepcopy", "copy", "pickle2", "pickle5"],
)


@copies
@each
def test_copies_unfitted(duplicate, options):
    forecaster = Forecaster(4, **{**SMALL, **options})
    found = duplicate(forecaster)
    assert repr(found) == repr(forecaster)
    np.testing.assert_array_equal(found.fit(series()).predict(), forecaster.fit(series()).predict())


@copies
@each
def test_copies_fitted(duplicate, options):
    forecaster = Forecaster(4, **{**SMALL, **options}).fit(series()[:-8]).calibrate(series(), windows=5, step=1)
    found = duplicate(forecaster)
    assert repr(found) == repr(forecaster)
    assert found.history_ == forecaster.history_
    assert found.seasons_ == forecaster.seasons_
    expected = forecaster.predict(interval=80)
    np.testing.assert_array_equal(found.predict(interval=80), expected)
    # They train on alike, each on its own.
    found.update(series()[-8:], epochs=1)
    np.testing.assert_array_equal(forecaster.predict(interval=80), expected)
    forecaster.update(series()[-8:], epochs=1)
    np.testing.assert_array_equal(found.predict(), forecaster.predict())


@copies
def test_copies_of_one_with_a_model(duplicate):
    forecaster = Forecaster(4, **SMALL, model=model()).fit(series())
    found = duplicate(forecaster)
    np.testing.assert_array_equal(found.predict(), forecaster.predict())
    np.testing.assert_array_equal(found.fit(series()).predict(), forecaster.predict())


@copies
def test_copies_with_a_frame(duplicate):
    pd = pytest.importorskip("pandas")
    times = pd.date_range("2020-01-01", periods=72, freq="MS")
    frame = pd.DataFrame({"ds": times, "y": series(), "label": np.where(np.arange(72) % 3, "a", "b")})
    forecaster = Forecaster(4, **SMALL).fit(frame, past=["label"])
    pd.testing.assert_frame_equal(duplicate(forecaster).predict(), forecaster.predict())


# ---- a grid of parameters


def test_a_plain_loop_over_a_grid():
    y = series()
    found = [forecast(options, y) for options in GRID]
    again = [forecast(options, y) for options in reversed(GRID)][::-1]
    np.testing.assert_array_equal(found, again)
    assert len({f.tobytes() for f in found}) == len(GRID)


def test_the_grid_of_sklearn():
    selection = pytest.importorskip("sklearn.model_selection")
    y = series()
    one = Forecaster(4, **SMALL)
    found = [
        one.set_params(**options).fit(y).predict()
        for options in selection.ParameterGrid({"cell": ["gru", "lstm"], "units": [4, 6]})
    ]
    np.testing.assert_array_equal(found, [forecast(options, y) for options in GRID])


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_joblib_gives_the_same_bits(backend):
    joblib = pytest.importorskip("joblib")
    y = series()
    serial = [forecast(options, y) for options in GRID]
    with warnings.catch_warnings():
        # loky forks its tracker of resources while threads run, of which Python 3.12 warns.
        warnings.simplefilter("ignore", DeprecationWarning)
        found = joblib.Parallel(n_jobs=2, backend=backend)(joblib.delayed(forecast)(o, y) for o in GRID)
    np.testing.assert_array_equal(found, serial)


def fitted(options, y):
    return Forecaster(4, **{**SMALL, **options}).fit(y)


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_fitted_forecasters_come_back_from_workers(backend):
    joblib = pytest.importorskip("joblib")
    y = series()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        found = joblib.Parallel(n_jobs=2, backend=backend)(joblib.delayed(fitted)(o, y) for o in GRID[:2])
        ahead = joblib.Parallel(n_jobs=2, backend=backend)(joblib.delayed(Forecaster.predict)(f) for f in found)
    expected = [forecast(options, y) for options in GRID[:2]]
    np.testing.assert_array_equal([f.predict() for f in found], expected)
    np.testing.assert_array_equal(ahead, expected)
