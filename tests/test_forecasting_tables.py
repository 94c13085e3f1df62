"""Long data frames in, forecasts out as frames of the same kind: pandas, polars, pyarrow."""

import datetime
import json
import subprocess
import sys
import zoneinfo

import numpy as np
import pytest

from elman.forecasting.columns import Columns, FrameSpec
from elman.forecasting.future import future_frame
from elman.forecasting.grid import Grid
from elman.forecasting.output import to_frame
from elman.forecasting.panel import Panel
from elman.forecasting.tables import from_frame, from_frame_like, is_frame

DAY = datetime.timedelta(days=1)
HOUR = datetime.timedelta(hours=1)
BEGIN = datetime.datetime(2024, 1, 1)
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")


def make_pandas(data):
    return pytest.importorskip("pandas").DataFrame(data)


def make_polars(data):
    return pytest.importorskip("polars").DataFrame(data, strict=False)


def make_lazy(data):
    return make_polars(data).lazy()


def make_pyarrow(data):
    return pytest.importorskip("pyarrow").table(data)


MAKERS = {"pandas": make_pandas, "polars": make_polars, "lazy": make_lazy, "pyarrow": make_pyarrow}


@pytest.fixture(params=MAKERS)
def make(request):
    """A function from a dict of columns to a frame of a library."""
    return MAKERS[request.param]


@pytest.fixture
def pd():
    return pytest.importorskip("pandas")


@pytest.fixture
def pl():
    return pytest.importorskip("polars")


@pytest.fixture
def pa():
    return pytest.importorskip("pyarrow")


def rows_of(frame):
    """A frame of any library as a list of dicts."""
    for name in ("to_dicts", "to_pylist"):
        if hasattr(frame, name):
            return getattr(frame, name)()
    return frame.to_dict("records")


def columns_of(frame):
    return list(getattr(frame, "column_names", None) or frame.columns)


def two(**more):
    """Two series of days, a of three and b of two rows."""
    days = [BEGIN, BEGIN + DAY, BEGIN + 2 * DAY, BEGIN + 5 * DAY, BEGIN + 6 * DAY]
    return {"unique_id": ["a", "a", "a", "b", "b"], "ds": days, "y": [1.0, 2.0, 3.0, 4.0, 5.0], **more}


# ---- in


def test_a_long_frame(make):
    panel, spec, ignored = from_frame(make(two(price=[1, 2, 3, 4, 5], note=list("vwxyz"))))
    assert panel.ids == ["a", "b"]
    assert panel.values.dtype == np.float32
    assert panel.values.tolist() == [1, 2, 3, 4, 5]
    assert panel.offsets.tolist() == [0, 3, 5]
    assert panel.first.tolist() == [0, 5]
    assert str(panel.grid) == "1 day"
    assert ignored == ("price", "note")
    assert panel.given is None
    assert (spec.id, spec.time, spec.target, spec.zone) == ("unique_id", "ds", "y", None)
    assert FrameSpec.from_config(json.loads(json.dumps(spec.config()))) == spec


def test_rows_in_any_order_with_gaps(make, rng):
    days, count = 30, 4
    keep = np.flatnonzero(rng.random(days * count) < 0.7)
    keep = rng.permutation(keep)
    y = rng.normal(size=days * count).astype(np.float32)
    x, k = rng.normal(size=(2, days * count)).astype(np.float32)
    labels = rng.choice(["u", "v"], days * count)
    frame = make({
        "shop": [int(7 + row // days) for row in keep], "t": [BEGIN + int(row % days) * HOUR for row in keep],
        "sales": y[keep], "x": x[keep], "k": k[keep], "c": labels[keep].tolist(),
        "size": [float(row // days) for row in keep],
    })  # fmt: skip
    panel, _, ignored = from_frame(frame, Columns("shop", "t", "sales"), past=["x", "c"], future=["k"], static="size")
    assert ignored == ()
    assert str(panel.grid) == "1 hour"
    assert panel.ids == list(dict.fromkeys(7 + keep // days))
    assert all(type(name) is int for name in panel.ids)
    for i, shop in enumerate(panel.ids):
        mine = np.sort(keep[keep // days + 7 == shop])
        low, high = mine[0], mine[-1]
        assert panel.first[i] - min(keep % days) * -1 - min(keep % days) == low % days - min(keep % days)
        known = k[low]
        for row in range(low, high + 1):
            at = panel.offsets[i] + row - low
            here = row in mine
            known = k[row] if here else known
            assert np.array_equal(panel.values[at], y[row] if here else np.nan, equal_nan=True)
            assert np.array_equal(panel.past[at, 0], x[row] if here else np.nan, equal_nan=True)
            assert panel.past[at, 1] == ("uv".index(labels[row]) if here else 2)
            assert panel.known[at, 0] == known
            assert panel.given[at] == here
        assert panel.lengths[i] == high - low + 1
    assert panel.static.ravel().tolist() == [shop - 7 for shop in panel.ids]
    assert panel.categories == {"c": ("u", "v")}


def test_sorted_float32_is_not_copied(pd, pl, pa):
    y = np.arange(5, dtype=np.float32)
    data = two()
    data["y"] = y
    frame = pd.DataFrame(data, copy=False)
    assert np.shares_memory(from_frame(frame).panel.values, frame["y"].to_numpy())
    frame = pl.DataFrame(data)
    assert np.shares_memory(from_frame(frame).panel.values, frame["y"].to_numpy())
    array = pa.array(y)
    values = from_frame(pa.table({**data, "y": array})).panel.values
    assert np.shares_memory(values, array.to_numpy())


def test_nulls_of_the_target_are_missing(make, pd, pl):
    for y in ([1.0, None, 3.0, 4.0, None], [1, None, 3, 4, None]):
        panel = from_frame(make(two(y=y))).panel
        assert np.array_equal(panel.values, [1, np.nan, 3, 4, np.nan], equal_nan=True)
    for kind in ("Int64", "Float32", "float64", "boolean"):
        frame = pd.DataFrame(two(y=pd.Series([1, None, 1, 1, 0], dtype=kind)))
        assert np.array_equal(from_frame(frame).panel.values, [1, np.nan, 1, 1, 0], equal_nan=True)
    frame = pd.DataFrame(two(y=pd.Series([1, None, 2.5, float("nan"), True], dtype=object)))
    assert np.array_equal(from_frame(frame).panel.values, [1, np.nan, 2.5, np.nan, 1], equal_nan=True)
    frame = pl.DataFrame(two(y=[1.5, None, 2, 3, 4])).with_columns(pl.col("y").cast(pl.Decimal(10, 2)))
    assert np.array_equal(from_frame(frame).panel.values, [1.5, np.nan, 2, 3, 4], equal_nan=True)


def test_names_are_guessed(make):
    data = two()
    frame = make({"when": data["ds"][:3], "count": [1, 2, 3], "note": ["x", "y", "z"], "p": [1, 2, 3]})
    panel, spec, ignored = from_frame(frame, past=["p"])
    assert (spec.id, spec.time, spec.target) == (None, "when", "count")
    assert ignored == ("note",)
    assert panel.ids == [0]
    assert panel.target == "count"
    assert (
        len(from_frame(make({"shop": data["unique_id"], "ds": data["ds"], "y": data["y"]}), Columns("shop")).panel) == 2
    )


@pytest.mark.parametrize(
    ("change", "columns", "words"),
    [
        (
            {"ds": None},
            None,
            r"^time: there is no column 'ds', and none holds dates; say which is meant with time=\. Col",
        ),
        ({"ds": None, "t": "ds", "u": "ds"}, None, "^time: .* 2 other columns hold dates: 't', 'u'; .*time="),
        ({"y": None}, None, "^target: .*none holds numbers; .*target="),
        ({"y": None, "v": "y", "w": "y"}, None, "^target: .*2 other columns hold numbers: 'v', 'w'; .*target="),
        ({}, Columns("unique_ids"), "^id: there is no column 'unique_ids', did you mean 'unique_id'"),
        ({}, Columns(time="dss"), "^time: there is no column 'dss', did you mean 'ds'"),
        ({}, Columns(target="sales"), "^target: there is no column 'sales'. Columns: 'unique_id', 'ds', 'y'"),
        ({"unique_id": None, "shop": "unique_id"}, None, None),
    ],
)
def test_nothing_is_guessed_twice(make, change, columns, words):
    data = two()
    for new, old in change.items():
        if old is not None:
            data[new] = data[old]
    for new, old in change.items():
        if old is None:
            data.pop(new, None)
    if words is None:  # one series without an id
        assert len(from_frame(make(data)).panel) == 1
        return
    with pytest.raises(ValueError, match=words):
        from_frame(make(data), columns)


def test_repeated_times(make):
    data = two()
    data["ds"][1] = BEGIN
    with pytest.raises(ValueError, match=r"1 rows repeat.* 2 rows of id 'a' at 2024-01-01; keep one"):
        from_frame(make(data))
    data = two()
    data["shop"] = data.pop("unique_id")
    data["ds"][3:] = data["ds"][:2]
    with pytest.raises(
        ValueError, match=r"2 rows repeat.* 2 rows at 2024-01-01; .*id= \(columns that may say: 'shop'\)"
    ):
        from_frame(make(data))


def test_off_the_grid(make):
    data = two()
    data["ds"][4] += HOUR
    with pytest.raises(ValueError, match=r"id 'b' has 2024-01-07 01:00, which is off the grid of 1 day"):
        from_frame(make(data))


@pytest.mark.parametrize(
    ("change", "arguments", "error", "words"),
    [
        ({"y": list("12345")}, {}, TypeError, "^target: column 'y' holds str '1' in row 0, expected numbers"),
        ({"y": [1.0, 2.0, float("inf"), 1.0, 1.0]}, {}, ValueError, "^y: 1 of 5 .*of id 'a' at 2024-01-03"),
        ({"x": [1.0, float("inf"), 1.0, 1.0, 1.0]}, {"past": ["x"]}, ValueError, "past: column 'x': .*at 2024-01-02"),
        (
            {"x": [1.0, 1.0, 1.0, 1.0, None]},
            {"future": ["x"]},
            ValueError,
            "future: column 'x': .*id 'b' at 2024-01-07",
        ),
        (
            {"x": ["u", "u", "u", "u", None]},
            {"future": ["x"]},
            ValueError,
            "future: column 'x': .*id 'b' at 2024-01-07",
        ),
        ({"x": [1.0, 1.0, 1.0, None, None]}, {"static": ["x"]}, ValueError, "static: column 'x' of id 'b' is missing"),
        ({"x": ["u", "u", "u", None, None]}, {"static": ["x"]}, ValueError, "static: column 'x' of id 'b' is missing"),
        ({"x": [1, 1, 1, 1, 2]}, {"static": ["x"]}, ValueError, "static: column 'x' is not constant within id 'b'"),
        ({"x": [BEGIN] * 5}, {"past": ["x"]}, TypeError, "past: column 'x' is of type Datetime"),
        ({"xa": [1] * 5}, {"past": ["xb"]}, ValueError, "past: there is no column 'xb', did you mean 'xa'"),
        ({}, {"past": [3]}, TypeError, "past: expected names of columns, got int 3"),
        ({}, {"past": ["y"]}, ValueError, "past: column 'y' is already given as target="),
        ({"x": [1] * 5}, {"past": ["x"], "future": "x"}, ValueError, "future: column 'x' is already given as past="),
        ({"ds": ["2024-01-01"] * 5}, {}, TypeError, "time: column 'ds' holds strings such as '2024-01-01'; parse"),
        ({"ds": [1.0] * 5}, {}, TypeError, "time: column 'ds' is of type Float64"),
        ({"ds": [BEGIN, None, BEGIN, BEGIN, None]}, {}, ValueError, "time: .*2 missing values, the first in row 1"),
        ({"unique_id": ["a", "a", None, "a", "b"]}, {}, ValueError, "id: .*1 missing values, the first in row 2"),
        ({"unique_id": [1.0] * 5}, {}, TypeError, "id: column 'unique_id' is of type Float64"),
        # pandas 2 keeps such dates as objects.
        ({"ds": [BEGIN, BEGIN + 4e5 * DAY] + [BEGIN] * 3}, {}, (ValueError, TypeError), "from 1678 to 2261|objects"),
        ({"ds": [0, 1, 10**12, 0, 1]}, {}, ValueError, "filling the gaps would make .* id 'a'"),
        ({"unique_id": list("abcde")}, {}, ValueError, "no series has two rows"),
    ],
)
def test_bad_frames(make, change, arguments, error, words):
    frame = make(two(**change))
    with pytest.raises(error, match=words):
        from_frame(frame, **arguments)


def test_empty_frames_and_odd_ones(pd, pa):
    with pytest.raises(ValueError, match="no rows"):
        from_frame(pd.DataFrame(two())[:0])
    for frame in (
        pd.DataFrame([[1, 2]], columns=["y", "y"]), pa.table([[1], [2]], names=["y", "y"]),
        pd.DataFrame([[BEGIN, 2]], columns=["y", "y"], index=pd.DatetimeIndex([BEGIN])),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="columns of the same name"):
            from_frame(frame)
    with pytest.raises(ValueError, match="the name 0, expected strings"):
        from_frame(pd.DataFrame([[1, 2]]))
    with pytest.raises(TypeError, match=r"holds float 1\.5"):
        from_frame(pd.DataFrame(two(unique_id=pd.Series(["a", 1.5, "b", "c", "d"], dtype=object))))
    with pytest.raises(TypeError, match="target: column 'y' holds list"):
        from_frame(pd.DataFrame(two(y=[1.0, [2.0], 3, 4, 5])))
    for odd in ("x", datetime.datetime(2024, 1, 1, tzinfo=BERLIN)):
        dates = [BEGIN.date(), BEGIN.date(), odd, BEGIN.date(), BEGIN.date()]
        with pytest.raises(TypeError, match=r"time: column 'ds' holds objects such as .*pandas\.to_datetime"):
            from_frame(pd.DataFrame(two(ds=pd.Series(dates, dtype=object))))
    with pytest.raises(TypeError, match="past: column 'x' holds list"):
        from_frame(pd.DataFrame(two(x=[1.0, [2.0], 3, 4, 5])), past=["x"])


def test_ids_of_many_kinds(pd, pl, pa):
    for kind in ("category", object, "str"):
        assert from_frame(pd.DataFrame(two()).astype({"unique_id": kind})).panel.ids == ["a", "b"]
    mixed = pd.DataFrame(two(unique_id=pd.Series(["a", "a", "a", 1, 1], dtype=object)))
    assert from_frame(mixed).panel.ids == ["a", 1]
    for kind in (pl.Categorical, pl.Enum(["b", "a"])):
        assert from_frame(pl.DataFrame(two()).with_columns(pl.col("unique_id").cast(kind))).panel.ids == ["a", "b"]
    table = pa.table({**two(), "unique_id": pa.array(two()["unique_id"]).dictionary_encode()})
    assert from_frame(table).panel.ids == ["a", "b"]


def test_interleaved_ids(make):
    order = [3, 0, 4, 1, 2]
    panel = from_frame(make({name: [column[i] for i in order] for name, column in two().items()})).panel
    assert panel.ids == ["b", "a"]
    assert panel.values.tolist() == [4, 5, 1, 2, 3]
    assert panel.first.tolist() == [5, 0]


def test_integers_as_times(make):
    panel, spec, _ = from_frame(make(two(ds=[1990, 1992, 1994, 1990, 1996])))
    assert str(panel.grid) == "2 steps"
    assert panel.lengths.tolist() == [3, 4]
    assert spec.time_type == "Int64"


def test_booleans_are_numbers_and_categories_are_codes(make, pd, pl):
    panel = from_frame(make(two(b=[True, False, True, None, True], s=list("zzzxx"))), past=["b"], static=["s"]).panel
    assert np.array_equal(panel.past.ravel(), [1, 0, 1, np.nan, 1], equal_nan=True)
    assert panel.static.ravel().tolist() == [1, 0]
    assert panel.categories == {"s": ("x", "z")}
    with pytest.raises(ValueError, match=r"^id: .*1 missing values"):
        from_frame(pd.DataFrame(two(unique_id=pd.Categorical(["a", "a", None, "b", "b"]))))
    frame = pd.DataFrame(two(c=pd.Categorical([3, 2, 3, None, 2])))
    panel = from_frame(frame, past=["c"]).panel
    assert panel.categories["c"] in (("2", "3"), ("2.0", "3.0"))
    assert panel.past.ravel().tolist() == [1, 0, 1, 2, 0]
    frame = pl.DataFrame(two(c=list("uvuvu"))).with_columns(pl.col("c").cast(pl.Enum(["v", "u"])))
    assert from_frame(frame, future=["c"]).panel.known.ravel().tolist() == [0, 1, 0, 1, 0]


def test_a_datetime_index_is_the_time(pd):
    index = pd.date_range("2024-01-01", periods=5, freq="h")
    panel, spec, _ = from_frame(pd.DataFrame({"y": np.arange(5.0)}, index=index))
    assert (str(panel.grid), spec.time, spec.id) == ("1 hour", "ds", None)
    frame = pd.DataFrame({"y": np.arange(5.0), "made": [BEGIN] * 5}, index=index.rename("when"))
    assert from_frame(frame, Columns(time="when")).spec.time == "when"
    assert from_frame_like(frame[["y"]], panel, spec).panel.values.tolist() == [0, 1, 2, 3, 4]
    assert "ds" not in frame.columns


# ---- time zones


def test_hours_count_through_a_change_of_clocks(make):
    begin = datetime.datetime(2024, 10, 26, 20, tzinfo=datetime.UTC)
    times = [(begin + i * HOUR).astimezone(BERLIN) for i in range(12)]
    panel, spec, _ = from_frame(make({"ds": times, "y": list(range(12))}))
    assert str(panel.grid) == "1 hour"
    assert panel.lengths.tolist() == [12]
    assert (spec.zone, spec.wall) == ("Europe/Berlin", False)
    out = rows_of(to_frame(spec, panel.grid, panel.ids, panel.ends[:, None] - 12 + np.arange(14), {"y_hat": 1.0}))
    found = [row["ds"] for row in out]
    assert [t.astimezone(datetime.UTC) for t in found] == [begin + i * HOUR for i in range(14)]
    assert {t.utcoffset() for t in found} == {HOUR, 2 * HOUR}


def test_local_days_count_through_a_change_of_clocks(make):
    for first, step, name in (
        (datetime.datetime(2024, 3, 28, tzinfo=BERLIN), DAY, "1 day"),
        (datetime.datetime(2024, 10, 20, 7, 30, tzinfo=BERLIN), 7 * DAY, "1 week"),
    ):
        times = [first + i * step for i in range(8)]  # local arithmetic
        panel, spec, _ = from_frame(make({"ds": times, "y": list(range(8))}))
        assert str(panel.grid) == name
        assert spec.wall
        out = rows_of(to_frame(spec, panel.grid, panel.ids, np.arange(10)[None], {"y_hat": 1.0}))
        expected = [first + i * step for i in range(10)]
        assert [row["ds"].astimezone(datetime.UTC) for row in out] == [t.astimezone(datetime.UTC) for t in expected]
        # The same times of another zone.
        utc = [t.astimezone(datetime.UTC) for t in times]
        assert from_frame_like(make({"ds": utc, "y": times and list(range(8))}), panel, spec).panel.first.tolist() == [
            0
        ]


def test_local_months(make):
    times = [datetime.datetime(2024, month, 1, tzinfo=BERLIN) for month in range(1, 13)]
    panel, spec, _ = from_frame(make({"ds": times, "y": list(range(12))}))
    assert str(panel.grid) == "1 month"
    out = rows_of(to_frame(spec, panel.grid, panel.ids, panel.ends[:, None], {}))
    assert out[0]["ds"].isoformat() == "2025-01-01T00:00:00+01:00"


def test_times_with_and_without_a_zone(make):
    naive = from_frame(make({"ds": [BEGIN, BEGIN + HOUR], "y": [1, 2]}))
    aware = from_frame(make({"ds": [BEGIN.replace(tzinfo=BERLIN), BEGIN.replace(tzinfo=BERLIN) + HOUR], "y": [1, 2]}))
    with pytest.raises(ValueError, match="has the time zone None, in the fit they had the zone Europe/Berlin"):
        from_frame_like(make({"ds": [BEGIN], "y": [1]}), aware.panel, aware.spec)
    with pytest.raises(ValueError, match=r"has the time zone .*, in the fit they had none"):
        from_frame_like(make({"ds": [BEGIN.replace(tzinfo=BERLIN)], "y": [1]}), naive.panel, naive.spec)


def test_fixed_offsets(pd, pa):
    zone = datetime.timezone(datetime.timedelta(hours=-3, minutes=-30))
    for make in (make_pandas, make_pyarrow):
        times = [datetime.datetime(2024, 1, 1 + i, tzinfo=zone) for i in range(3)]
        panel, spec, _ = from_frame(make({"ds": times, "y": [1, 2, 3]}))
        assert spec.wall
        out = rows_of(to_frame(spec, panel.grid, panel.ids, np.array([[3]]), {}))
        assert out[0]["ds"] == datetime.datetime(2024, 1, 4, tzinfo=zone)


def test_a_midnight_that_is_not_there():
    # Clocks of Cairo went from 0 to 1 on 2024-04-26: that day begins at 22:00 UTC of the day before.
    spec = FrameSpec("pandas", None, zone="Africa/Cairo", wall=True, time_type="us")
    pytest.importorskip("pandas")
    grid = Grid("fixed", 86_400_000_000_000, int(np.datetime64("2024-04-25", "ns").astype(np.int64)))
    out = to_frame(spec, grid, [0], np.array([[0, 1, 2]]), {})["ds"]
    assert [t.isoformat() for t in out] == [
        "2024-04-25T00:00:00+02:00", "2024-04-26T01:00:00+03:00", "2024-04-27T00:00:00+03:00",
    ]  # fmt: skip


# ---- out


def test_the_frame_out_is_of_the_kind_of_the_frame_in(make):
    frame = make(two())
    panel, spec, _ = from_frame(frame)
    spec = FrameSpec.from_config(json.loads(json.dumps(spec.config())))
    ticks = panel.ends[:, None] + np.arange(2)
    out = to_frame(spec, panel.grid, panel.ids, ticks, {"y_hat": np.array([[1, 2], [3, 4]], np.float32)})
    kind = frame.collect() if hasattr(frame, "collect") else frame
    assert type(out) is type(kind)
    assert columns_of(out) == ["unique_id", "ds", "y_hat"]
    assert rows_of(out) == [
        {"unique_id": name, "ds": BEGIN + day * DAY, "y_hat": value}
        for name, day, value in [("a", 3, 1.0), ("a", 4, 2.0), ("b", 7, 3.0), ("b", 8, 4.0)]
    ]
    types = [str(t) for t in (out.dtypes if hasattr(out, "dtypes") else out.schema.types)]
    before = [str(t) for t in (kind.dtypes if hasattr(kind, "dtypes") else kind.schema.types)]
    assert types[:2] == before[:2]
    # What came out goes in again.
    again = from_frame_like(out, panel, FrameSpec(**{**spec.config(), "target": "y_hat"})).panel
    assert again.first.tolist() == [3, 7]
    assert again.values.tolist() == [1, 2, 3, 4]


def test_samples_and_cutoffs(make):
    panel, spec, _ = from_frame(make(two()))
    ticks = np.broadcast_to((panel.ends[:, None] + np.arange(2))[:, None], (2, 3, 2))
    out = to_frame(spec, panel.grid, panel.ids, ticks, {"sample": np.arange(3)[:, None], "y": np.ones((2, 3, 2))})
    rows = rows_of(out)
    assert columns_of(out) == ["unique_id", "ds", "sample", "y"]
    assert [(r["unique_id"], r["sample"], r["ds"].day) for r in rows[:5]] == [
        ("a", 0, 4), ("a", 0, 5), ("a", 1, 4), ("a", 1, 5), ("a", 2, 4),
    ]  # fmt: skip
    assert len(rows) == 12
    out = to_frame(spec, panel.grid, panel.ids, panel.ends[:, None], {"y": 1.0}, cutoff=panel.ends[:, None] - 1)
    assert columns_of(out) == ["unique_id", "ds", "cutoff", "y"]
    assert [row["cutoff"] for row in rows_of(out)] == [BEGIN + 2 * DAY, BEGIN + 6 * DAY]
    with pytest.raises(ValueError, match="already has a column 'ds'"):
        to_frame(spec, panel.grid, panel.ids, panel.ends[:, None], {"ds": 1.0})


def test_dates_come_back_as_dates(make):
    data = two()
    data["ds"] = [time.date() for time in data["ds"]]
    frame = make(data)
    panel, spec, _ = from_frame(frame)
    assert spec.time_type in ("date", "object")
    out = to_frame(spec, panel.grid, panel.ids, panel.ends[:, None], {})
    assert [row["ds"] for row in rows_of(out)] == [datetime.date(2024, 1, 4), datetime.date(2024, 1, 8)]
    assert not isinstance(rows_of(out)[0]["ds"], datetime.datetime)


def test_types_of_ids_and_times_come_back(pd, pl, pa):
    frame = pd.DataFrame(two(unique_id=[1, 1, 1, 2, 2], ds=[0, 1, 2, 0, 1])).astype(
        {"unique_id": "int32", "ds": "int16"}
    )
    table = from_frame(frame)
    out = to_frame(table.spec, table.panel.grid, table.panel.ids, table.panel.ends[:, None], {})
    assert out.dtypes.tolist() == frame.dtypes.tolist()[:2]
    for frame in (
        pd.DataFrame(two()).astype({"unique_id": "category"}),
        pd.DataFrame(two()).astype({"unique_id": "category", "ds": "datetime64[s]"}),
        pd.DataFrame(two(unique_id=pd.Series(["a", "a", "a", 1, 1], dtype=object))),
    ):
        table = from_frame(frame)
        out = to_frame(table.spec, table.panel.grid, table.panel.ids, table.panel.ends[:, None], {})
        assert str(out["unique_id"].dtype) == str(frame["unique_id"].dtype)
        assert out["ds"].dtype == frame["ds"].dtype
        assert out["unique_id"].tolist() == table.panel.ids
    frame = pl.DataFrame(two()).with_columns(pl.col("unique_id").cast(pl.Categorical), pl.col("ds").cast(pl.Date))
    table = from_frame(frame)
    out = to_frame(table.spec, table.panel.grid, table.panel.ids, table.panel.ends[:, None], {})
    assert out.dtypes == [pl.Categorical, pl.Date]
    frame = pa.table({**two(), "ds": pa.array(two()["ds"], pa.timestamp("ms"))})
    table = from_frame(frame)
    out = to_frame(table.spec, table.panel.grid, table.panel.ids, table.panel.ends[:, None], {})
    assert out.schema.types == [pa.string(), pa.timestamp("ms")]


def test_one_series_without_an_id(make):
    data = two()
    panel, spec, _ = from_frame(make({"ds": data["ds"][:3], "y": data["y"][:3]}))
    out = to_frame(spec, panel.grid, panel.ids, panel.ends[:, None], {"y_hat": [[7.0]]})
    assert rows_of(out) == [{"ds": BEGIN + 3 * DAY, "y_hat": 7.0}]


# ---- more rows


def test_new_rows_on_the_grid_of_the_fit(make):
    panel, spec, _ = from_frame(make(two(c=list("uvuvu"), s=list("xxxzz"))), past=["c"], static=["s"])
    new = {
        "unique_id": ["c", "a", "b"], "ds": [BEGIN + DAY, BEGIN + 4 * DAY, BEGIN + 6 * DAY], "y": [9.0, 8.0, 7.0],
        "c": ["u", "v", None], "s": ["q", "x", "z"],
    }  # fmt: skip
    with pytest.warns(UserWarning, match="static: column 's' has values that the fit did not see: 'q'"):
        more = from_frame_like(make(new), panel, spec).panel
    assert more.grid == panel.grid
    assert more.static.ravel().tolist() == [2, 0, 1]
    both = panel.append(more)
    assert isinstance(both, Panel)
    assert both.ids == ["a", "b", "c"]
    assert np.array_equal(both.series(0), [1, 2, 3, np.nan, 8], equal_nan=True)
    assert both.series(1).tolist() == [4, 7]
    assert both.series(2).tolist() == [9]
    assert both.first.tolist() == [0, 5, 1]
    assert both.past.ravel().tolist() == [0, 1, 0, 2, 1, 1, 2, 0]
    assert both.static.ravel().tolist() == [0, 1, 2]


def test_rows_that_fill_gaps_overwrite_nothing(make):
    panel, spec, _ = from_frame(make(two()))
    new = {"unique_id": ["a", "a"], "ds": [BEGIN, BEGIN + 3 * DAY], "y": [8.0, 9.0]}
    both = panel.append(from_frame_like(make(new), panel, spec).panel)
    assert both.series(0).tolist() == [8, 2, 3, 9]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"unique_id": None}, ValueError, "^id: there is no column 'unique_id'"),
        ({"y": None}, ValueError, "^target: there is no column 'y'"),
        ({"p": None}, ValueError, "^past: there is no column 'p'"),
        ({"p": list("abcde")}, TypeError, "past: column 'p' had numbers in the fit and now has labels such as 'a'"),
        ({"ds": [1, 2, 3, 4, 5]}, TypeError, "time: column 'ds' is of type Int64, in the fit it was"),
        ({"ds": [BEGIN + 90 * i * DAY / 60 for i in range(5)]}, ValueError, "off the grid of 1 day"),
    ],
)
def test_rows_unlike_those_of_the_fit(make, change, error, words):
    panel, spec, _ = from_frame(make(two(p=[1] * 5)), past=["p"])
    data = {**two(p=[1] * 5), **change}
    frame = make({name: column for name, column in data.items() if column is not None})
    with pytest.raises(error, match=words):
        from_frame_like(frame, panel, spec)


def test_integers_in_the_fit_and_dates_later(make):
    panel, spec, _ = from_frame(make(two(ds=[1, 2, 3, 1, 2])))
    with pytest.raises(TypeError, match="in the fit it was Int64"):
        from_frame_like(make(two()), panel, spec)


# ---- the future


def coming(**change):
    """Rows after the ends of `two`, in no order, with rows of others."""
    days = [3, 7, 4, 8, 5, 2, 3]
    return {
        "unique_id": ["a", "b", "a", "b", "a", "b", "q"], "ds": [BEGIN + day * DAY for day in days],
        "k": [1.0, 3.0, 2.0, 4.0, 9.0, 9.0, 9.0], "c": list("uvvuuuu"), **change,
    }  # fmt: skip


def test_covariates_of_the_future(make):
    panel, spec, _ = from_frame(make(two(k=[0.0] * 5, c=list("uvuvu"))), future=["k", "c"])
    known = future_frame(make(coming()), spec, panel, 2)
    assert known.dtype == np.float32
    assert known.tolist() == [[[1, 0], [2, 1]], [[3, 1], [4, 0]]]
    with pytest.warns(UserWarning, match="future: column 'c' has values that the fit did not see: 'w'"):
        assert future_frame(make(coming(c=list("wvvuuuu"))), spec, panel, 2)[0, 0, 1] == 2
    # A column that is not needed, and times off the grid beyond the horizon, do not matter.
    data = coming(extra=[1] * 7)
    data["ds"][4] += HOUR
    assert future_frame(make(data), spec, panel, 2).shape == (2, 2, 2)


@pytest.mark.parametrize(
    ("change", "horizon", "error", "words"),
    [
        ({}, 3, ValueError, r"future: 1 rows are missing for columns 'k', 'c', the first of id 'b' at 2024-01-10"),
        ({"k": [1.0, None, 2.0, 4.0, 9.0, 9.0, 9.0]}, 2, ValueError, r"column 'k'.*missing.*of id 'b' at 2024-01-08"),
        (
            {"k": [1.0, 3.0, float("inf"), 4.0, 9.0, 9.0, 9.0]},
            2,
            ValueError,
            r"column 'k'.*infinite.*'a' at 2024-01-05",
        ),
        ({"c": ["u", "v", None, "u", "u", "u", "u"]}, 2, ValueError, r"column 'c'.*missing.*of id 'a' at 2024-01-05"),
        ({"k": list("abcdefg")}, 2, TypeError, "future: column 'k' had numbers in the fit and now has labels"),
        ({"k": None}, 2, ValueError, "future: there is no column 'k'"),
        ({"ds": None}, 2, ValueError, "future: time: there is no column 'ds'"),
        ({"unique_id": ["a"] * 7}, 1, ValueError, "future: 2 rows of id 'a' at 2024-01-04; keep one row"),
        ({"unique_id": ["z"] * 7}, 1, ValueError, "future: 2 rows are missing .* of id 'a' at 2024-01-04"),
    ],
)
def test_a_future_that_is_not_complete(make, change, horizon, error, words):
    panel, spec, _ = from_frame(make(two(k=[0.0] * 5, c=list("uvuvu"))), future=["k", "c"])
    frame = make({name: column for name, column in coming(**change).items() if column is not None})
    with pytest.raises(error, match=words):
        future_frame(frame, spec, panel, horizon)


def test_a_future_off_the_grid(make):
    panel, spec, _ = from_frame(make(two(k=[0.0] * 5)), future=["k"])
    data = coming()
    data["ds"][0] += HOUR
    with pytest.raises(ValueError, match="future: id 'a' has 2024-01-04 01:00, which is off the grid of 1 day"):
        future_frame(make(data), spec, panel, 2)


def test_a_future_without_rows(pd):
    panel, spec, _ = from_frame(pd.DataFrame(two(k=[0.0] * 5)), future=["k"])
    with pytest.raises(
        ValueError, match="future: 4 rows are missing for column 'k', the first of id 'a' at 2024-01-04"
    ):
        future_frame(pd.DataFrame(coming())[:0], spec, panel, 2)


# ---- imports


def test_what_is_a_frame(make):
    assert is_frame(make(two()))


def test_what_is_no_frame(pd):
    for thing in (None, 1.0, [1.0], np.zeros((2, 2)), {"y": [1.0]}, "y", pd.Series([1.0])):
        assert not is_frame(thing)


def test_narwhals_and_frames_are_imported_when_one_is_given():
    code = """
import sys
import elman.forecasting.tables, elman.forecasting.output, elman.forecasting.arrays as arrays
from elman.forecasting.tables import is_frame
import numpy as np
assert not is_frame(np.zeros(3)) and len(arrays.from_arrays(np.zeros(3))) == 1
assert not {"narwhals", "pandas", "polars", "pyarrow"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
