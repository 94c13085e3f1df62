"""Shipped series: known facts, and the original files where they are at hand."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from elman import datasets

ORIGINALS = Path(__file__).resolve().parents[2] / "shared" / "data"
needs_originals = pytest.mark.skipif(not ORIGINALS.is_dir(), reason="the original files are not at hand")


def original(name):
    with (ORIGINALS / name).open(newline="") as file:
        return list(csv.reader(file))[1:]


def test_air_passengers():
    time, values = datasets.load_air_passengers()
    assert time.dtype == "datetime64[M]"
    assert (str(time[0]), str(time[-1])) == ("1949-01", "1960-12")
    assert values.dtype == np.float32
    assert values.shape == time.shape == (144,)
    assert (values[0], values[-1], values.min(), values.max(), values.sum()) == (112, 432, 104, 622, 40363)


def test_co2():
    time, values = datasets.load_co2()
    assert time.dtype == "datetime64[D]"
    assert (str(time[0]), str(time[-1])) == ("1958-03-29", "2001-12-29")
    assert (np.diff(time) == np.timedelta64(7, "D")).all()
    assert values.dtype == np.float32
    assert values.shape == time.shape == (2284,)
    assert np.isnan(values).sum() == 59
    assert (values[0], values[-1]) == (np.float32(316.1), np.float32(371.5))
    assert (np.nanmin(values), np.nanmax(values)) == (np.float32(313.0), np.float32(373.9))


def test_sunspots():
    time, values = datasets.load_sunspots()
    assert time.dtype == "datetime64[Y]"
    assert (str(time[0]), str(time[-1])) == ("1700", "2008")
    assert values.dtype == np.float32
    assert values.shape == time.shape == (309,)
    assert (values[0], values[-1]) == (5, np.float32(2.9))
    # The maximum of solar cycle 19.
    assert str(time[values.argmax()]) == "1957"
    assert values.max() == np.float32(190.2)


def test_bike_demand():
    data = datasets.load_bike_demand()
    assert data.time.dtype == "datetime64[h]"
    assert (str(data.time[0]), str(data.time[-1])) == ("2011-01-01T00", "2012-12-31T23")
    assert (np.diff(data.time) == np.timedelta64(1, "h")).all()
    assert data.users.dtype == data.features.dtype == np.float32
    assert data.users.shape == (17544,)
    assert data.features.shape == (17544, 11) == (17544, len(data.feature_names))
    assert (data.users[0], data.users[-1], data.users.min(), data.users.max()) == (16, 49, 1, 977)
    column = dict(zip(data.feature_names, data.features.T, strict=True))
    assert [int(column[k].sum()) for k in ("clear", "mist", "rain")] == [11455, 4563, 1526]
    assert [int(column[k].sum()) for k in ("holiday", "workingday")] == [522, 11982]
    assert not (column["holiday"] * column["workingday"]).any()
    assert not column["workingday"][column["weekday"] >= 5].any()
    # 4 July 2012, a Wednesday, is a holiday all day.
    july = data.time.astype("datetime64[D]") == np.datetime64("2012-07-04")
    assert (column["holiday"][july] == 1).all()
    assert (column["weekday"][july] == 2).all()
    np.testing.assert_array_equal(column["hour"][july], np.arange(24))
    np.testing.assert_array_equal(column["month"][july], 7)
    # Mean absolute errors of the two naive forecasts, whole series.
    assert round(float(np.abs(data.users[24:] - data.users[:-24]).mean()), 1) == 63.7
    assert round(float(np.abs(data.users[168:] - data.users[:-168]).mean()), 1) == 52.3


def test_every_load_gives_arrays_of_its_own():
    for load in (datasets.load_air_passengers, datasets.load_co2, datasets.load_sunspots, datasets.load_bike_demand):
        before = load()[1][0]
        load()[1][0] += 1
        assert load()[1][0] == before


@needs_originals
@pytest.mark.parametrize(
    ("load", "name"),
    [
        (datasets.load_air_passengers, "airpassengers/Airline.csv"),
        (datasets.load_co2, "co2_maunaloa/co2.csv"),
        (datasets.load_sunspots, "sunspots/sunspots.csv"),
    ],
)
def test_series_equal_their_original(load, name):
    rows = original(name)
    time, values = load()
    assert [str(t).replace("-", "") for t in time] == [row[0].replace("-", "") for row in rows]
    np.testing.assert_array_equal(values, np.array([float(row[1] or "nan") for row in rows]).astype(np.float32))


@needs_originals
def test_bike_demand_equals_its_original():
    with (ORIGINALS / "bike_sharing/bike_sharing_dataset_clean.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    data = datasets.load_bike_demand()
    column = dict(zip(data.feature_names, data.features.T, strict=True))
    assert [str(t).replace("T", " ") + ":00:00" for t in data.time] == [row["date_time"] for row in rows]
    pairs = {"holiday": "holiday", "workingday": "workingday", "month": "month", "hour": "hour", "weekday": "weekday"}
    for name, key in pairs.items():
        np.testing.assert_array_equal(column[name], [float(row[key]) for row in rows])
    for kind in ("clear", "mist", "rain"):
        np.testing.assert_array_equal(column[kind], [row["weather"] == kind for row in rows])
    np.testing.assert_array_equal(data.users, [float(row["users"]) for row in rows])
    # The copy carries float64 noise (55.00000000000001): equal once rounded to float32.
    for name, key in (("temperature", "temp"), ("humidity", "hum"), ("wind_speed", "windspeed")):
        np.testing.assert_array_equal(column[name], np.array([float(row[key]) for row in rows]).astype(np.float32))


def test_importing_opens_no_data_file():
    code = (
        "import sys; opened = []; "
        "sys.addaudithook(lambda event, args: event == 'open' and opened.append(str(args[0]))); "
        "import elman.datasets; at_import = sum(p.endswith('.npz') for p in opened); "
        "elman.datasets.load_co2(); at_load = sum(p.endswith('.npz') for p in opened); "
        "sys.exit(0 if (at_import, at_load) == (0, 1) else f'{at_import} files at import, {at_load} after a load')"
    )
    source = str(Path(datasets.__file__).resolve().parents[2])
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": source})
