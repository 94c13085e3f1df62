"""The time axis, panels, and arrays as panels."""

import json
import re

import numpy as np
import pytest

from elman.forecasting.arrays import from_arrays, future_array
from elman.forecasting.encode import encode
from elman.forecasting.grid import Grid, show_time
from elman.forecasting.panel import Panel, check_filling, offsets_of


def dates(start, count, step):
    """`count` times of `step` numpy units from `start`, datetime64[ns]."""
    return (np.datetime64(start) + np.arange(count) * step).astype("datetime64[ns]")


def infer(*series):
    return Grid.infer(np.concatenate(series), offsets_of(np.array([len(one) for one in series])))


def month_ends(first, count, step=1):
    months = np.datetime64(first, "M") + np.arange(count) * step
    return ((months + 1).astype("datetime64[D]") - 1).astype("datetime64[ns]")


def days_of_months(first, count, day, step=1):
    months = np.datetime64(first, "M") + np.arange(count) * step
    return (months.astype("datetime64[D]") + (day - 1)).astype("datetime64[ns]")


def weekdays(first, count):
    days = np.busday_offset(first, np.arange(count), roll="forward")
    return days.astype("datetime64[ns]")


GRIDS = {
    "1 hour": dates("2024-01-01T05:30", 50, np.timedelta64(1, "h")),
    "30 minutes": dates("2024-01-01", 50, np.timedelta64(30, "m")),
    "1 day": dates("2024-02-20", 50, np.timedelta64(1, "D")),
    "1 week": dates("1968-02-20", 300, np.timedelta64(7, "D")),
    "250 milliseconds": dates("1969-12-31T23:59:50", 90, np.timedelta64(250, "ms")),
    "90 seconds": dates("2024-01-01", 9, np.timedelta64(90, "s")),
    "1 month": days_of_months("1969-02", 50, 1),
    "3 months": days_of_months("1969-02", 50, 15, 3),
    "1 year": days_of_months("1950-02", 50, 28, 12),
    "2 years": days_of_months("1950-07", 5, 1, 24),
    "1 weekday": weekdays("1969-11-05", 200),
    "1 step": np.arange(-3, 40),
    "5 steps": np.arange(1900, 2000, 5),
}


@pytest.mark.parametrize("name", GRIDS)
def test_a_grid_is_inferred_and_inverts(name):
    times = GRIDS[name]
    grid = infer(times)
    assert str(grid) == name
    ticks = grid.ticks(times)
    assert ticks.dtype == np.int64
    assert np.array_equal(ticks, np.arange(len(times)))
    assert np.array_equal(grid.times(ticks), times)
    assert grid.times(ticks).dtype == times.dtype
    assert Grid.from_config(json.loads(json.dumps(grid.config()))) == grid
    # Shapes are kept, ticks before the origin too.
    assert np.array_equal(grid.times(ticks[:4].reshape(2, 2) - 7).ravel()[0:1], grid.times(np.array([-7])))
    assert np.array_equal(grid.ticks(grid.times(np.arange(-20, 0))), np.arange(-20, 0))


@pytest.mark.parametrize("name", [name for name in GRIDS if name != "2 years"])
def test_gaps_and_single_rows_do_not_hide_the_step(name, rng):
    times = GRIDS[name]
    keep = np.sort(rng.choice(len(times), int(len(times) * 0.8), replace=False))
    grid = infer(times[keep], times[7:8], times[-1:], times[3:6])
    assert str(grid) == name
    assert np.array_equal(grid.ticks(times), np.arange(len(times)) - grid.ticks(times)[0] * -1)
    assert np.array_equal(np.diff(grid.ticks(times[keep])), np.diff(keep))


@pytest.mark.parametrize(("step", "name"), [(1, "1 month"), (3, "3 months"), (12, "1 year"), (6, "6 months")])
@pytest.mark.parametrize("first", ["2023-01", "2023-02", "2023-06"])
def test_ends_of_months_stay_ends_of_months(first, step, name):
    times = month_ends(first, 14, step)
    grid = infer(times)
    assert (grid.kind, grid.day, str(grid)) == ("months", 31, name)
    assert np.array_equal(grid.times(np.arange(30)), month_ends(first, 30, step))


def test_days_beyond_short_months_are_their_last_days():
    times = np.array(["2023-01-30", "2023-02-28", "2023-03-30", "2023-04-30"], "datetime64[ns]")
    grid = infer(times)
    assert (grid.day, str(grid)) == (30, "1 month")
    assert np.array_equal(grid.ticks(times), [0, 1, 2, 3])
    assert show_time(grid.times(np.array([13]))[0]) == "2024-02-29"


def test_months_keep_the_time_of_day():
    times = days_of_months("2024-01", 5, 1) + np.timedelta64(90, "m")
    grid = infer(times)
    assert str(grid) == "1 month"
    assert np.array_equal(grid.times(grid.ticks(times)), times)
    with pytest.raises(ValueError, match=r"2024-01-01, which is off the grid of 1 month"):
        grid.ticks(days_of_months("2024-01", 1, 1))


def test_what_is_not_months():
    assert str(infer(dates("2024-01-01", 20, np.timedelta64(28, "D")))) == "4 weeks"
    assert str(infer(dates("2024-01-01", 20, np.timedelta64(30, "D")))) == "30 days"
    assert infer(dates("2024-01-01", 20, np.timedelta64(365, "D"))).kind == "fixed"


def test_months_whose_days_differ():
    starts, ends = days_of_months("2024-01", 6, 1), month_ends("2024-01", 6)
    with pytest.raises(
        ValueError, match=r"1 month apart, but the days of the month differ, as 2024-01-01 and 2024-01-31"
    ):
        infer(starts, ends)
    weekdays = np.busday_offset(ends.astype("datetime64[D]"), 0, roll="backward").astype("datetime64[ns]")
    with pytest.raises(ValueError, match=r"as 2024-01-31 and 2024-03-29; move all"):
        infer(weekdays)


def test_weekdays_need_evidence():
    assert infer(weekdays("2024-01-01", 6)).kind == "weekdays"
    assert infer(weekdays("2024-01-01", 5)).kind == "fixed"  # no weekend
    assert infer(np.delete(weekdays("2024-01-01", 9), 2)).kind == "fixed"  # few, and another day is missing too
    assert infer(np.delete(weekdays("2024-01-01", 12), 2)).kind == "weekdays"
    assert infer(weekdays("2024-01-01", 5), weekdays("2024-01-08", 5)).kind == "fixed"  # no weekend between rows
    grid = infer(weekdays("2024-01-01", 10))
    assert grid.kind == "weekdays"
    with pytest.raises(ValueError, match=r"id 'a' has 2024-01-06, which is off the grid of 1 weekday"):
        grid.ticks(np.array(["2024-01-05", "2024-01-06"], "datetime64[ns]"), lambda row: "id 'a'")


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", GRIDS)
def test_no_time_leaves_what_64_bits_hold(name, sign):
    grid = infer(GRIDS[name])

    def held(tick):
        try:
            times = grid.times(np.array([0, sign * tick]))
        except ValueError as error:
            assert re.search("time: the grid of .* leaves the range of (dates|integers)", str(error))
            return False
        assert not tick or (times[1] > times[0]) == (sign > 0)
        return True

    low, high = 0, 2**63 - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if held(middle) else (low, middle)
    if grid.dated:  # within a year of the limit
        last = grid.times(np.array([sign * low]))[0]
        assert abs(int(last.astype("datetime64[Y]").astype(int)) + 1970 - (2262 if sign > 0 else 1677)) <= 2


def test_seconds():
    assert infer(GRIDS["1 hour"]).seconds == 3600
    assert infer(GRIDS["1 weekday"]).seconds == 86400
    assert infer(GRIDS["1 year"]).seconds == pytest.approx(365.2425 * 86400)
    assert infer(GRIDS["1 step"]).seconds is None
    assert Grid("index").seconds is None
    assert str(Grid("index")) == "1 step"


def test_times_off_the_grid():
    grid = infer(GRIDS["1 hour"])
    with pytest.raises(
        ValueError, match=r"^time: id 7 has 2024-01-01 06:00, which is off the grid of 1 hour from 2024"
    ):
        grid.ticks(np.array(["2024-01-01T06:00"], "datetime64[ns]"), lambda row: "id 7")
    with pytest.raises(ValueError, match=r"has 3, which is off the grid of 2 steps|^time: 3, which is off"):
        infer(np.array([0, 2, 4, 6])).ticks(np.array([3]))
    with pytest.raises(TypeError, match="give dates"):
        grid.ticks(np.array([3]))
    with pytest.raises(TypeError, match="give integers"):
        Grid("integer").ticks(GRIDS["1 hour"])


def test_no_step_can_be_told():
    with pytest.raises(ValueError, match="no series has two rows"):
        infer(GRIDS["1 day"][:1], GRIDS["1 day"][4:5])
    with pytest.raises(ValueError, match="kind: unknown grid 'hours'"):
        Grid("hours")
    with pytest.raises(ValueError, match="step: "):
        Grid("fixed", 0)


def test_differences_between_series_do_not_count():
    # Five steps back, and one forward, from the end of one series to the begin of the next.
    grid = infer(np.array([10, 20]), np.array([15 + 6, 31]), np.array([32, 42]))
    assert grid.step == 10


@pytest.mark.parametrize(
    ("time", "words"),
    [
        (np.datetime64("2024-01-01", "ns"), "2024-01-01"),
        (np.datetime64("2024-01-01T10:00", "ns"), "2024-01-01 10:00"),
        (np.datetime64("2024-01-01T00:00:10", "ns"), "2024-01-01 00:00:10"),
        (np.datetime64("2024-01-01T00:20:00.5", "ns"), "2024-01-01 00:20:00.5"),
        (np.datetime64("NaT"), "NaT"),
        (np.int64(1990), "1990"),
    ],
)
def test_times_in_words(time, words):
    assert show_time(time) == words


# ---- arrays


def test_one_series():
    for y in ([1, 2, 3], (1.0, 2, 3), np.array([1, 2, 3]), np.array([1, 2, 3], np.float16)):
        panel = from_arrays(y)
        assert panel.values.dtype == np.float32
        assert panel.values.tolist() == [1, 2, 3]
        assert (panel.ids, panel.grid.kind, panel.first.tolist(), panel.ends.tolist()) == ([0], "index", [0], [3])
        assert not panel.channels
        assert panel.past.shape == panel.known.shape == (3, 0)
        assert panel.static.shape == (1, 0)


def test_float32_is_not_copied():
    y = np.arange(5, dtype=np.float32)
    assert np.shares_memory(from_arrays(y).values, y)


def test_several_series(rng):
    y = rng.normal(size=(7, 3)).astype(np.float32)
    panel = from_arrays(y)
    assert len(panel) == 3
    for i in range(3):
        assert np.array_equal(panel.series(i), y[:, i])
    assert from_arrays(y, multivariate=True).channels
    lists = from_arrays([y[:, 0], y[:2, 1].tolist()])
    assert lists.lengths.tolist() == [7, 2]
    named = from_arrays({"a": y[:, 0], 5: y[:1, 1]})
    assert named.ids == ["a", 5]
    assert named.lengths.tolist() == [7, 1]


def test_masked_entries_are_missing():
    panel = from_arrays(np.ma.masked_array([1, 2, 3], [False, True, False]))
    assert np.array_equal(panel.values, [1, np.nan, 3], equal_nan=True)
    panel = from_arrays({"a": np.ma.masked_array([1.0, np.inf], [False, True])})
    assert np.array_equal(panel.values, [1, np.nan], equal_nan=True)


def test_masked_covariates_are_missing():
    panel = from_arrays([1.0, 2.0], past=np.ma.masked_array([1, 2], [False, True]))
    assert np.array_equal(panel.past.ravel(), [1, np.nan], equal_nan=True)


def test_covariates_of_one_series():
    panel = from_arrays([1, 2, 3], past=[1, np.nan, 3], future=np.arange(6).reshape(3, 2), static=[["north", 4.0]])
    assert panel.past_names == ("past0",)
    assert panel.known_names == ("future0", "future1")
    assert panel.static_names == ("static0", "static1")
    assert np.array_equal(panel.past, [[1], [np.nan], [3]], equal_nan=True)
    assert panel.known.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert panel.static.tolist() == [[0, 4]]
    assert panel.categories == {"static0": ("north",)}


def test_covariates_of_several_series(rng):
    y = rng.normal(size=(4, 2))
    one, each = rng.normal(size=(4, 3)).astype(np.float32), rng.normal(size=(4, 2, 3)).astype(np.float32)
    panel = from_arrays(y, past=one, future=each)
    assert np.array_equal(panel.past, np.concatenate([one, one]))
    assert np.array_equal(panel.known, np.concatenate([each[:, 0], each[:, 1]]))
    shared = from_arrays(y, multivariate=True, past=one[:, 0])
    assert np.array_equal(shared.past[:, 0], np.tile(one[:, 0], 2))
    panel = from_arrays(
        {"a": [1, 2], "b": [3]}, past={"b": [5], "a": [6, 7]}, future={"a": [[1], [2]], "b": [[3]]},
        static={"b": ["x"], "a": ["y"]},
    )  # fmt: skip
    assert panel.past.ravel().tolist() == [6, 7, 5]
    assert panel.known.ravel().tolist() == [1, 2, 3]
    assert panel.static.ravel().tolist() == [1, 0]
    panel = from_arrays([[1, 2], [3]], past=[[6, 7], [5]], static=np.array(["a", "b"]))
    assert panel.past.ravel().tolist() == [6, 7, 5]
    assert panel.categories == {"static0": ("a", "b")}


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"y": ["1", "2"]}, TypeError, r"y: expected numbers.*'1' at index 0"),
        ({"y": [1.0, None]}, TypeError, r"y: expected numbers.*None at index 1; write nan"),
        ({"y": {"a": [1.0, "x"]}}, TypeError, r"y\['a'\]: expected numbers"),
        ({"y": [[1.0], ["x"]]}, TypeError, r"y\[1\]: expected numbers"),
        ({"y": np.array(["2024-01-01"], "datetime64[D]")}, TypeError, "y: expected numbers"),
        ({"y": [[1, [2]], [3]]}, ValueError, r"y\[0\]: expected an array of numbers, got list"),
        ({"y": {"a": 3.0}}, ValueError, r"y\['a'\]: expected a 1-D array"),
        ({"y": 3.0}, ValueError, r"got shape \(\)"),
        ({"y": np.zeros((2, 2, 2))}, ValueError, r"got shape \(2, 2, 2\)"),
        ({"y": {"a": np.zeros((2, 2))}}, ValueError, r"y\['a'\]: expected a 1-D array"),
        ({"y": []}, ValueError, "series 0 is empty"),
        ({"y": {}}, ValueError, "no series"),
        ({"y": np.zeros((3, 0))}, ValueError, "no series"),
        ({"y": {"a": [1.0], "b": []}}, ValueError, "series 'b' is empty; leave it out"),
        ({"y": {1.5: [1.0]}}, TypeError, "key 1.5"),
        ({"y": {True: [1.0]}}, TypeError, "key True"),
        ({"y": {"a": [1.0, 2.0, np.inf]}}, ValueError, r"^y: 1 of . values are infinite.*of id 'a' at 2"),
        ({"y": [1e39]}, ValueError, "too large for float32"),
        ({"y": [[1.0, 2.0], [3.0]], "multivariate": True}, ValueError, "channels have equal lengths"),
        ({"y": [1.0], "multivariate": 1}, TypeError, "multivariate: "),
        ({"y": [1.0, 2.0], "past": [1.0]}, ValueError, "past: series 0 has 2 values and 1 rows"),
        (
            {"y": [1.0, 2.0], "past": [1.0, -np.inf]},
            ValueError,
            "column 'past0': 1 of . values are infinite.*id 0 at 1",
        ),
        ({"y": [1.0, 2.0], "future": [1.0, np.nan]}, ValueError, "future: column 'future0': 1 of . values are missing"),
        ({"y": [1.0, 2.0], "future": np.array(["a", None])}, ValueError, "column 'future0': 1 of . values are missing"),
        ({"y": [1.0], "static": [[1.0, np.nan]]}, ValueError, "static: column 'static1' of id 0 is missing"),
        ({"y": [1.0], "static": [[np.inf]]}, ValueError, "static: column 'static0' of id 0 is infinite"),
        ({"y": [1.0], "static": [[1.0], [2.0]]}, ValueError, r"static: expected shape \(1, Q\)"),
        ({"y": [1.0], "static": [[object()]]}, TypeError, "static: column 'static0' holds object"),
        ({"y": {"a": [1.0]}, "static": {"b": [1.0]}}, ValueError, "static: no entry for id 'a'"),
        ({"y": {"a": [1.0]}, "past": {"b": [1.0]}}, ValueError, "past: no entry for id 'a'"),
        ({"y": [[1.0], [2.0]], "past": [[1.0]]}, ValueError, "past: expected a list of 2 arrays"),
        ({"y": [[1.0], [2.0]], "past": np.zeros(1)}, ValueError, "past: expected shape .* in a list or dict of 2"),
        ({"y": [[1.0], [2.0]], "past": [[1.0], [[2.0, 3.0]]]}, ValueError, "past: series 1 has an array of shape"),
        ({"y": [1.0], "past": np.array(["2024-01-01"], "datetime64[D]")}, TypeError, "past: expected numbers or"),
    ],
)
def test_bad_arrays(arguments, error, words):
    with pytest.raises(error, match=words):
        from_arrays(**arguments)


def test_future_arrays():
    panel = from_arrays({"a": [1, 2], "b": [3]}, future={"a": [["x", 1], ["y", 2]], "b": [["x", 3]]})
    assert panel.categories == {"future0": ("x", "y")}
    known = future_array({"b": [["x", 9], ["y", 8]], "a": [["y", 7], ["y", 6]]}, panel, 2)
    assert known.dtype == np.float32
    assert known.tolist() == [[[1, 7], [1, 6]], [[0, 9], [1, 8]]]
    with pytest.warns(UserWarning, match="'future0' has values that the fit did not see: 'z'"):
        assert future_array(np.array([["z", 1.0]], object), panel, 1)[:, 0, 0].tolist() == [2, 2]
    plain = from_arrays(np.zeros((4, 2)), future=np.zeros((4, 2)))
    for given in (np.ones((3, 2)), np.ones((2, 3, 2)), list(np.ones((2, 3, 2)))):
        assert future_array(given, plain, 3).tolist() == np.ones((2, 3, 2)).tolist()


@pytest.mark.parametrize(
    ("future", "error", "words"),
    [
        (np.ones(1), ValueError, r"series 0 has covariates of shape \(1, 1\), expected \(2, 1\)"),
        (np.ones((2, 2)), ValueError, r"expected \(2, 1\)"),
        (np.ones(6), ValueError, r"series 0 has covariates of shape \(6, 1\), expected \(2, 1\)"),  # with the past
        (np.ones((3, 2, 1)), ValueError, r"expected shape \(2, 2, 1\), got \(3, 2, 1\)"),
        ([np.ones(2), [1.0, np.nan]], ValueError, r"column 'future0'.*of id 1 at 4"),
        ({0: [1.0, 2.0]}, ValueError, "no entry for id 1"),
        (np.array(["a", "b"]), TypeError, "had numbers in the fit and now has labels such as 'a'"),
    ],
)
def test_bad_future_arrays(future, error, words):
    panel = from_arrays(np.zeros((3, 2)), future=np.zeros(3))
    with pytest.raises(error, match=words):
        future_array(future, panel, 2)


# ---- categories


def test_codes_of_labels():
    codes, labels = encode("past", "c", ["b", "a", None, float("nan"), "b"])
    assert labels == ("a", "b")
    assert codes.tolist() == [1, 0, 2, 2, 1]
    codes, _ = encode("static", "c", ["b", None])
    assert np.array_equal(codes, [0, np.nan], equal_nan=True)
    codes, labels = encode("past", "c", [True, None, 3, 2.5])
    assert labels is None
    assert np.array_equal(codes, [1, np.nan, 3, 2.5], equal_nan=True)
    # Numbers in a column of labels are labels.
    codes, _ = encode("static", "c", np.array([2, 1]), {"c": ("1", "2")})
    assert codes.tolist() == [1, 0]


def test_unknown_labels_warn_once():
    with pytest.warns(UserWarning, match="static: column 'c' has values that the fit did not see: 'x', 'y'") as caught:
        codes, labels = encode("static", "c", ["a", "x", "y", "x"], {"c": ("a", "b")})
    assert len(caught) == 1
    assert codes.tolist() == [0, 2, 2, 2]
    assert labels == ("a", "b")
    many = [f"n{i}" for i in range(10)]
    with pytest.warns(UserWarning, match=r"'n4' and 5 more;"):
        encode("static", "c", many, {"c": ()})


# ---- panels


def naive_append(old, new):
    """The rows of both as a dict from (id, tick), by a loop."""
    rows = {}
    for panel in (old, new):
        for row in range(len(panel.values)):
            if panel.given is None or panel.given[row]:
                i = int(np.searchsorted(panel.offsets, row, "right")) - 1
                tick = int(panel.first[i] + row - panel.offsets[i])
                rows[panel.ids[i], tick] = (panel.values[row], panel.past[row], panel.known[row])
    return rows


def random_panel(rng, ids, grid):
    lengths = rng.integers(0, 6, len(ids))
    n = int(lengths.sum())
    offsets = offsets_of(lengths)
    given = rng.random(n) < 0.6
    given[offsets[:-1][lengths > 0]] = True
    given[offsets[1:][lengths > 0] - 1] = True
    values, past, known = (rng.normal(size=(n, k)).astype(np.float32) for k in (1, 2, 1))
    values[~given], past[~given] = np.nan, np.nan
    return Panel(
        values.ravel(), offsets, list(ids), rng.integers(-4, 5, len(ids)), grid, past, known,
        rng.normal(size=(len(ids), 1)).astype(np.float32), ("p", "q"), ("k",), ("s",), given=given,
    )  # fmt: skip


def test_append_is_what_a_loop_does(rng):
    grid = Grid("integer")
    for _ in range(200):
        old = random_panel(rng, ["a", "b", 3], grid)
        new = random_panel(rng, rng.permutation(np.array(["b", "c", 3, "d"], object))[: rng.integers(1, 5)], grid)
        both = old.append(new)
        rows = naive_append(old, new)
        assert both.ids[:3] == old.ids
        assert set(both.ids) == {*old.ids, *new.ids}
        for i, name in enumerate(both.ids):
            mine = {tick: row for (owner, tick), row in rows.items() if owner == name}
            source = new if name in new.ids else old
            assert both.static[i] == source.static[source.ids.index(name)]
            if not mine:
                assert both.lengths[i] == 0
                continue
            assert (both.first[i], both.ends[i]) == (min(mine), max(mine) + 1)
            known = None
            for tick in range(min(mine), max(mine) + 1):
                row = both.offsets[i] + tick - both.first[i]
                value, past, this = mine.get(tick, (np.nan, [np.nan] * 2, known))
                known = this
                assert np.array_equal(both.values[row], value, equal_nan=True)
                assert np.array_equal(both.past[row], past, equal_nan=True)
                assert np.array_equal(both.known[row], known)
                assert both.given is None or both.given[row] == (tick in mine)


def test_take_and_until(rng):
    panel = random_panel(rng, ["a", "b", 3, "d"], Grid("integer"))
    for indices in ([2, 0, 2], np.array([False, True, True, False]), 1, []):
        chosen = np.arange(4)[np.asarray(indices, None if np.size(indices) else int)].reshape(-1)
        part = panel.take(np.asarray(indices, None if np.size(indices) else int))
        assert part.ids == [panel.ids[i] for i in chosen]
        for k, i in enumerate(chosen):
            rows = slice(panel.offsets[i], panel.offsets[i + 1])
            assert np.array_equal(part.series(k), panel.values[rows], equal_nan=True)
            assert part.static[k] == panel.static[i]
            mine = slice(part.offsets[k], part.offsets[k + 1])
            assert np.array_equal(part.known[mine], panel.known[rows])
            assert np.array_equal(part.past[mine], panel.past[rows], equal_nan=True)
            assert np.array_equal(part.given[mine], panel.given[rows])
    ticks = panel.first + np.array([-1, 1, 2, 100])
    cut = panel.until(ticks)
    for i in range(4):
        length = int(min(max(ticks[i] - panel.first[i], 0), panel.lengths[i]))
        assert cut.lengths[i] == length
        assert np.array_equal(cut.series(i), panel.series(i)[:length], equal_nan=True)
    assert cut.ids == panel.ids
    assert panel.until(-100).values.size == 0


def test_rows_without_times_follow_the_last_ones():
    panel = from_arrays({"a": [1, 2], "b": [3]}).append(from_arrays({"b": [4, 5], "c": [6]}))
    assert panel.ids == ["a", "b", "c"]
    assert [panel.series(i).tolist() for i in range(3)] == [[1, 2], [3, 4, 5], [6]]
    assert panel.given is None


def test_gaps_of_an_append_have_missing_categories():
    def one(first, label):
        return Panel(
            np.ones(1, np.float32), np.array([0, 1]), ["a"], np.array([first]), Grid("integer"),
            np.array([[label]], np.float32), np.zeros((1, 0), np.float32), np.zeros((1, 0), np.float32), ("c",),
            categories={"c": ("x", "y")},
        )  # fmt: skip

    assert one(0, 1).append(one(3, 0)).past.ravel().tolist() == [1, 2, 2, 0]


def test_appending_what_does_not_fit():
    panel = from_arrays([1.0, 2.0], past=[1.0, 2.0])
    with pytest.raises(ValueError, match=r"past: the new rows have \(\), the data of the fit have \('past0',\)"):
        panel.append(from_arrays([1.0]))
    with pytest.raises(ValueError, match=r"^future: "):
        panel.append(from_arrays([1.0], past=[1.0], future=[1.0]))
    with pytest.raises(ValueError, match=r"^static: "):
        panel.append(from_arrays([1.0], past=[1.0], static=[1.0]))
    with pytest.raises(ValueError, match=r"^multivariate: "):
        panel.append(from_arrays([1.0], past=[1.0], multivariate=True))
    with pytest.raises(ValueError, match=r"^categories: "):
        panel.append(from_arrays([1.0], past=np.array(["a"])))
    with pytest.raises(ValueError, match="channels"):
        from_arrays({"a": [1.0]}, True).append(from_arrays({"b": [1.0]}, True))
    other = Panel(**{**vars(panel), "grid": Grid("integer", 2)})
    with pytest.raises(ValueError, match=r"^grid: .*step=2"):
        panel.append(other)


def test_a_far_gap_is_refused():
    check_filling(np.array([9_000_000]), 2, ["a"], Grid("integer"))
    with pytest.raises(ValueError, match=r"most of them in id 'b', which spans 20,000,000 steps of 1 step"):
        check_filling(np.array([10, 20_000_000]), 30, ["a", "b"], Grid("integer"))
    check_filling(np.array([20_000_000]), 1_000_000, ["a"], Grid("integer"))
