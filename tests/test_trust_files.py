"""Damaged and hostile files: `BadFile` that names the path, or a model that works; never code that runs, never memory
beyond the file's own size.

The cases run in a process of their own, tests/fuzz_files.py.
"""

import json
import resource
import warnings
import zipfile

import numpy as np
import pytest
from effort import thorough
from fuzzing import MEMORY, SECONDS, launch

import elman
from elman import archive, errors
from elman.layers import LSTM, Dense, Input

CASES = thorough(1_000, 60_000)


def test_hostile_files(tmp_path):
    report = launch("fuzz_files.py", CASES, tmp_path, timeout=thorough(900, 7200))
    counts = report["counts"]
    assert report["cases"] == CASES and report["slowest"] < SECONDS
    assert counts["BadFile"] > CASES / 3 and counts["results"] > CASES / 20
    assert set(counts) <= {"results", "BadFile", "BadValue", "BadType", "MemoryError"}
    assert report["grown"] <= MEMORY


# ---- what such cases found


@pytest.fixture
def saved(tmp_path):
    model = elman.Sequential([Input((5, 2)), LSTM(3, stateful=True), Dense(1)], seed=0)
    model.compile("adam", "mse")
    model.fit(np.ones((4, 5, 2)), np.ones(4), batch_size=4, verbose=0, shuffle=False)
    model.save(tmp_path / "model")
    return tmp_path / "model"


def change(path, edit, compression=zipfile.ZIP_STORED):
    """Rewrite a file with other arrays or another description; checksums and digest are right."""
    with np.load(path) as file:
        arrays = dict(file)
    header = json.loads(arrays.pop("header").tobytes())
    del arrays["digest"]
    edit(header, arrays)
    header["arrays"] = sorted(arrays)
    text = json.dumps(header).encode()
    own = {"header": text, "digest": archive.digest(text, arrays)}
    write = np.savez if compression == zipfile.ZIP_STORED else np.savez_compressed
    with open(path, "wb") as file:
        write(file, **{name: np.frombuffer(value, np.uint8) for name, value in own.items()}, **arrays)


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_compressed_arrays_are_not_unpacked(saved):
    change(saved, lambda h, a: a.update(more=np.zeros(1 << 26, np.uint8)), zipfile.ZIP_DEFLATED)
    before = peak()
    with pytest.raises(errors.BadFile, match="its arrays are larger than the file"):
        elman.load_model(saved)
    assert peak() - before < 1 << 24


def test_a_size_that_is_only_claimed_costs_nothing(saved):
    text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1073741824,), }\n"
    with zipfile.ZipFile(saved, "a") as file:
        file.writestr("more.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)
    before = peak()
    with pytest.raises(errors.BadFile, match="an array of dtype float32 and shape"):
        elman.load_model(saved)
    assert peak() - before < 1 << 24


@pytest.mark.parametrize("name", ["../../parameters.npy", "/parameters.npy", "parameters.txt", "header.npy"])
def test_members_of_another_name_and_doubled_ones(saved, name):
    with zipfile.ZipFile(saved) as file:
        parts = [(info.filename, file.read(info)) for info in file.infolist()]
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(saved, "w") as file:  # of a doubled name
        for known, content in [*parts, (name, parts[0][1])]:
            file.writestr(known, content)
    with pytest.raises(errors.BadFile, match=r"path: .*(is no array of it|its digest is that of another content)"):
        elman.load_model(saved)


def test_more_units_than_the_file_has_parameters(saved):
    """400 million parameters, claimed by a file of 8 KiB: refused before memory is taken."""
    change(saved, lambda h, a: h["config"]["layers"][0]["config"].update(units=10_000))
    before = peak()
    with pytest.raises(errors.BadFile, match=r"the model would have 40\d,\d{3},\d{3} parameters"):
        elman.load_model(saved)
    assert peak() - before < 1 << 24


@pytest.mark.parametrize("shape", [(4,), (12,), (4, 4), (3, 3), ()])
def test_states_of_another_shape(saved, shape):
    change(saved, lambda h, a: a.update({"states/train/0/1": np.zeros(shape, np.float32)}))
    with pytest.raises(errors.BadFile, match="states: those of 'train' do not fit the layers"):
        elman.load_model(saved)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_states_that_are_not_finite(saved, value):
    change(saved, lambda h, a: a["states/train/0/0"].__setitem__((0, 0), value))
    with pytest.raises(errors.BadFile, match="states: those of 'train' do not fit the layers"):
        elman.load_model(saved)


def test_a_description_nested_without_end(saved):
    def nest(header, arrays):
        for _ in range(400):
            header["config"] = {"layers": [header["config"]]}

    change(saved, nest)
    with pytest.raises(errors.BadFile, match="does not describe a model"):
        elman.load_model(saved)


# ---- forecasters, whose kernels read by the offsets and lags of the file

SERIES = {"a": np.sin(np.arange(40.0)) + 2, "b": np.cos(np.arange(20.0)) + 2}


@pytest.fixture(scope="module")
def forecast(tmp_path_factory):
    path = tmp_path_factory.mktemp("forecast") / "f"
    past = {name: np.ones((len(values), 1)) for name, values in SERIES.items()}
    made = elman.Forecaster(3, units=2, epochs=1, season=7)
    made.fit(SERIES, past=past, static=[["x"], ["y"]], verbose=0).save(path)
    return path.read_bytes()


def set_at(name, at, value):
    return lambda h, a: a[name].__setitem__(at, value)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (set_at("offsets", 2, 1 << 40), "offsets: expected ascending numbers from 0 to 60"),
        (set_at("offsets", 1, -5), "offsets: expected ascending numbers"),
        (set_at("first", 0, 1 << 62), "first: expected ticks of at most"),
        (lambda h, a: h["layout"].update(lags=[1 << 70]), "lags: expected an integer of at most"),
        (lambda h, a: a.update(values=a["values"][:9]), "offsets: expected ascending numbers from 0 to 9"),
        (lambda h, a: a.update(values=a["values"].astype(float)), r"values: expected float32 \(60,\), got float64"),
        (lambda h, a: a.update(past=a["past"][:, :0]), r"past: expected float32 \(60, 1\), got float32 \(60, 0\)"),
        (lambda h, a: a.update(static=np.zeros((2, 3), np.float32)), r"static: expected float32 \(2, 1\)"),
        (lambda h, a: h["layout"].update(lags=[0]), "lags: expected an integer of at least 1, got 0"),
        (lambda h, a: h["layout"].update(seasons=[-1]), "seasons: expected an integer of at least 1, got -1"),
        (lambda h, a: h["layout"].update(seasons={}), "seasons: expected a list"),
        (lambda h, a: h["layout"].update(past=[]), "past: the model reads"),
        (lambda h, a: h["layout"].update(lookback=0), "lookback: expected an integer of at least 1"),
        (lambda h, a: h["layout"].update(horizon=4), "horizon: 4 steps of 1 do not fit the options"),
        (lambda h, a: h["layout"].update(scale="huge"), "scale: unknown name 'huge'"),
        (lambda h, a: h["layout"].update(deviation=float("nan")), "deviation: expected a finite number"),
        (lambda h, a: h["body"].update(units=100_000), "the model would have .* parameters"),
        (lambda h, a: h["body"].update(layers=1 << 40), "layers: expected an integer of at most"),
        (lambda h, a: h["params"].update(layers=1 << 40), "layers: expected an integer of at most 1,000"),
        (lambda h, a: h["grid"].update(step=1 << 70), "step: expected an integer of at most"),
        (lambda h, a: h.update(ids=["a", "a"]), "ids: expected different names"),
        (lambda h, a: h["budget"].update(batch_size=0), "batch_size: 0 does not fit the options, 64"),
    ],
)
def test_forecasters_that_cannot_be(forecast, tmp_path, edit, message):
    path = tmp_path / "f"
    path.write_bytes(forecast)
    change(path, edit)
    with pytest.raises(errors.BadFile, match=f"does not describe a forecaster .*{message}"):
        elman.Forecaster.load(path)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("layout", "lookback", 1 << 70),
        ("layout", "horizon", 1 << 70),
        ("layout", "seasons", [1 << 70]),
        ("body", "segment", 1 << 70),
        ("body", "channels", 1 << 40),
        ("budget", "steps", 1 << 70),
        ("budget", "checks", 1 << 70),
        (None, "seasons", [1 << 70]),
    ],
)
def test_forecasters_with_numbers_out_of_all_bounds(forecast, tmp_path, part, name, value):
    path = tmp_path / "f"
    path.write_bytes(forecast)
    change(path, lambda h, a: (h[part] if part else h).update({name: value}))
    with pytest.raises(errors.BadFile, match=f"{name}: expected an integer of at most"):
        elman.Forecaster.load(path)


def test_seasonal_factors_that_begin_out_of_all_bounds(tmp_path):
    path = tmp_path / "f"
    elman.Forecaster(3, units=2, epochs=1, season=7, deseasonalize=True).fit(SERIES, verbose=0).save(path)
    change(path, set_at("transform/first", 0, 1 << 62))
    with pytest.raises(errors.BadFile, match="first: expected ticks of at most"):
        elman.Forecaster.load(path)


def test_an_unharmed_forecaster_is_loaded(forecast, tmp_path):
    path = tmp_path / "f"
    path.write_bytes(forecast)
    change(path, lambda h, a: None)
    assert all(np.isfinite(found).all() for found in elman.Forecaster.load(path).predict().values())
