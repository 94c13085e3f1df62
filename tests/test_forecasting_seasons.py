"""Season lengths on real and random series, the calendar, and the decomposition against loops."""

import csv
import math
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from elman import datasets
from elman.forecasting.decomposition import Seasonal, SeasonalPanel, deseasonalise
from elman.forecasting.seasons import calendar, season_length, season_lengths

ORIGINALS = Path(__file__).resolve().parents[2] / "shared" / "data"
needs_originals = pytest.mark.skipif(not ORIGINALS.is_dir(), reason="the original files are not at hand")

DAY = 86400.0


def column(name, index):
    with (ORIGINALS / name).open(newline="") as file:
        return np.array([float(row[index]) for row in list(csv.reader(file))[1:]], np.float32)


# ---- season lengths


def test_lengths_of_shipped_series():
    passengers, co2 = datasets.load_air_passengers().values, datasets.load_co2().values
    assert season_lengths(passengers) == season_lengths(passengers, None, 30.4 * DAY) == (12,)
    assert season_lengths(co2) == season_lengths(co2, seconds=7 * DAY) == (52,)
    users = datasets.load_bike_demand().users
    assert season_lengths(users) == season_lengths(users, None, 3600) == (24, 168)
    sunspots = datasets.load_sunspots().values
    assert season_length(sunspots) in (10, 11)
    assert season_length(sunspots, seconds=365 * DAY) == 1


@needs_originals
@pytest.mark.parametrize(
    ("name", "index", "seconds", "known"),
    [
        ("energy/taylor.csv", 0, 1800, (48, 336)),
        ("energy/vic_electricity.csv", 1, 1800, (48, 336)),
        ("energy/bdg2_hourly_sample.csv", 1, 3600, (24, 168)),
        ("ETTh1/ETTh1.csv", 1, 3600, (24,)),
        ("seattle/seattle-weather.csv", 2, DAY, (365,)),
        ("seattle/seattle-weather.csv", 1, DAY, ()),
    ],
)
def test_lengths_of_real_series(name, index, seconds, known):
    values = column(name, index)
    assert season_lengths(values, None, seconds) == known
    if seconds < DAY:
        assert season_lengths(values) == known


@pytest.mark.parametrize("walk", [False, True], ids=["noise", "walk"])
@pytest.mark.parametrize("n", [3, 30, 100, 1000])
@pytest.mark.parametrize("seconds", [None, 3600, DAY])
def test_noise_and_random_walks_have_no_season(walk, n, seconds, rng):
    found = []
    for _ in range(50):
        y = rng.normal(size=n)
        found.append(season_length(y.cumsum() if walk else y, None, seconds))
    assert np.mean(np.array(found) != 1) <= 0.06


def test_constants_lines_and_nothing_observed_have_no_season():
    for y in (np.full(100, 3.0), np.full(100, 0.1), np.arange(100.0) * 0.1 + 1e4, np.full(100, np.nan), [1.0]):
        assert season_lengths(y) == season_lengths(y, seconds=DAY) == ()


def test_a_season_shows_through_gaps_trend_and_noise(rng):
    t = np.arange(400)
    y = 10 + 0.1 * t + 3 * np.resize([0, 0, 0, 1, 0, 2, 2.0], 400) + rng.normal(size=400)
    y[rng.random(400) < 0.3] = np.nan
    y[200:230] = np.nan
    assert season_length(y) == season_length(y, None, DAY) == 7


def test_short_series_of_a_panel_add_up(rng):
    pattern = np.resize([0, 0, 0, 1, 0, 2, 2.0], 24)
    noisy = (pattern + rng.normal(size=(300, 24)) * 1.5).ravel()
    assert season_length(noisy[:24]) == 1
    assert season_length(noisy, np.arange(301) * 24) == 7
    # An empty and a tiny series are no obstacle.
    assert season_length(np.append(noisy, [1, 2]), np.append(np.arange(301) * 24, [7200, 7202])) == 7


def test_candidates_replace_those_of_the_step(rng):
    y = np.tile([0.0, 1, 5, 2, 1], 36) + 0.1 * rng.normal(size=180)
    assert season_lengths(y, candidates=[10]) == (10,)
    assert season_lengths(y, candidates=[10, 5]) == (5,)
    # Neither day nor week: the series itself tells.
    assert season_lengths(y, None, 3600) == (5,)


@pytest.mark.parametrize(
    ("seconds", "season"), [(60.0, 1440), (1800.0, 48), (6 * 3600, 4), (91 * DAY, 4), (30 * DAY, 12), (10 * DAY, 37)]
)
def test_the_step_gives_the_season(seconds, season, rng):
    y = np.sin(2 * np.pi * np.arange(4 * season + 3) / season) + 0.05 * rng.normal(size=4 * season + 3)
    assert season_length(y, None, seconds) == season


def test_bad_input_of_lengths():
    with pytest.raises(ValueError, match=r"offsets: expected a rising list from 0 to the number of rows 3"):
        season_length([1.0, 2.0, 3.0], [0, 2])
    with pytest.raises(TypeError, match="offsets: expected integers"):
        season_length([1.0, 2.0, 3.0], [0.0, 3.0])
    with pytest.raises(ValueError, match="offsets: expected shape"):
        season_length([1.0], [0])
    with pytest.raises(ValueError, match="values: 1 of 2 values are infinite"):
        season_length([1.0, np.inf])
    with pytest.raises(ValueError, match="values: expected 1 axes"):
        season_length([[1.0]])
    with pytest.raises(ValueError, match="seconds"):
        season_length([1.0], None, 0)
    with pytest.raises(ValueError, match="candidates: expected an integer of at least 2, got 1"):
        season_length([1.0], candidates=[1])


# ---- calendar


def phases(time):
    """Parts of hour, day, week and year by the standard library."""
    midnight = time.replace(hour=0, minute=0, second=0, microsecond=0)
    day = (time - midnight) / timedelta(days=1)
    start, end = datetime(time.year, 1, 1), datetime(time.year + 1, 1, 1)
    return {
        "minute_of_hour": (time.minute * 60 + time.second) / 3600,
        "hour_of_day": day,
        "day_of_week": (time.weekday() + day) / 7,
        "day_of_year": (time - start) / (end - start),
        "month_of_year": (time.month - 1) / 12,
    }


@pytest.mark.parametrize(
    ("seconds", "cycles"),
    [
        (60, ["minute_of_hour", "hour_of_day", "day_of_week", "day_of_year"]),
        (1800, ["minute_of_hour", "hour_of_day", "day_of_week", "day_of_year"]),
        (3600, ["hour_of_day", "day_of_week", "day_of_year"]),
        (DAY, ["day_of_week", "day_of_year"]),
        (7 * DAY, ["day_of_year"]),
        (31 * DAY, ["month_of_year"]),
        (92 * DAY, ["month_of_year"]),
        (184 * DAY, ["month_of_year"]),
        (366 * DAY, []),
    ],
)
def test_calendar_against_the_standard_library(seconds, cycles, rng):
    times = [datetime(1950, 1, 1) + timedelta(seconds=int(s)) for s in rng.integers(0, 3_000_000_000, 200)]
    times += [datetime(2024, 12, 31, 23, 59, 59), datetime(2024, 2, 29), datetime(1970, 1, 1), datetime(2000, 1, 1)]
    names, columns = calendar(np.array(times, "datetime64[ns]"), seconds)
    assert names == tuple(f"{cycle}_{wave}" for cycle in cycles for wave in ("sin", "cos"))
    assert columns.dtype == np.float32
    assert columns.shape == (len(times), len(names))
    for row, time in zip(columns, times, strict=True):
        part = phases(time)
        wanted = [wave(2 * math.pi * part[cycle]) for cycle in cycles for wave in (math.sin, math.cos)]
        np.testing.assert_allclose(row, wanted, atol=2e-7)


@pytest.mark.parametrize("unit", ["Y", "M", "W", "D", "s", "us", "ns"])
def test_calendar_takes_any_unit(unit):
    times = np.array(["2024-01-01", "2025-01-01"], f"datetime64[{unit}]")
    names, columns = calendar(times, DAY)
    np.testing.assert_array_equal(columns, calendar(times.astype("datetime64[ns]"), DAY)[1])
    assert "day_of_year_cos" in names


def test_bad_input_of_the_calendar():
    with pytest.raises(TypeError, match="times: expected datetime64"):
        calendar(np.arange(3), DAY)
    with pytest.raises(ValueError, match="times: 1 of 2 are NaT"):
        calendar(np.array(["2024-01-01", "NaT"], "datetime64[ns]"), DAY)
    with pytest.raises(ValueError, match="seconds"):
        calendar(np.array(["2024-01-01"], "datetime64[ns]"), -1)


# ---- the decomposition


def naive_trend(y, period):
    """Step 1 of the method, one value at a time; no missing windows."""
    n, half = len(y), period // 2
    trend = np.full(n, np.nan)
    for t in range(half, n - half):
        total = weight = 0.0
        for d in range(-half, half + 1):
            w = 0.5 if period % 2 == 0 and abs(d) == half else 1.0
            if not math.isnan(y[t + d]):
                total, weight = total + w * y[t + d], weight + w
        trend[t] = total / weight
    first, last = half, n - 1 - half
    reach = min(period, last - first)
    behind = (trend[first + reach] - trend[first]) / max(reach, 1)
    ahead = (trend[last] - trend[last - reach]) / max(reach, 1)
    for t in range(first):
        trend[t] = trend[first] - behind * (first - t)
    for t in range(last + 1, n):
        trend[t] = trend[last] + ahead * (t - last)
    return trend


def naive_patterns(y, period, memory):
    """Both steps, twice."""
    cycles = -(-len(y) // period)
    pattern = np.zeros((cycles, period))
    for _ in range(2):
        season = pattern.ravel()[: len(y)]
        rest = y - naive_trend(y - season, period)
        for c in range(cycles):
            for p in range(period):
                total = weight = 0.0
                for other in range(cycles):
                    t = other * period + p
                    if t < len(y) and not math.isnan(rest[t]):
                        total += memory ** abs(c - other) * rest[t]
                        weight += memory ** abs(c - other)
                pattern[c, p] = total / weight
            pattern[c] -= pattern[c].mean()
    return pattern


@pytest.mark.parametrize("period", [2, 3, 4, 7, 12])
@pytest.mark.parametrize("memory", [0.3, 0.7, 1.0])
def test_patterns_against_loops(period, memory, rng):
    for n in (2 * period, 2 * period + 1, 5 * period - 1, 6 * period):
        y = rng.normal(size=n).cumsum() + 100
        if n > 4 * period:
            y[[0, period + 1, n - 1]] = np.nan
        found = Seasonal.fit(y, period, memory=memory)
        np.testing.assert_allclose(found.patterns, naive_patterns(y, period, memory), rtol=0, atol=1e-10)
        np.testing.assert_allclose(found.patterns.sum(1), 0, atol=1e-10)


def test_an_exact_season_is_found_exactly(rng):
    pattern = np.array([3.0, -1, 0, -2])
    for n in (8, 9, 22):
        found = Seasonal.fit(5 + 0.5 * np.arange(n) + np.resize(pattern, n), 4)
        np.testing.assert_allclose(found.component(0, n + 10), np.resize(pattern, n + 10), atol=1e-12)
    factors = np.array([1.5, 0.5, 2.0, 1 / 1.5])
    found = Seasonal.fit(np.exp(0.01 * np.arange(22)) * np.resize(factors, 22), 4, multiplicative=True)
    np.testing.assert_allclose(np.exp(found.component(22, 6)), np.resize(factors, 28)[22:], rtol=1e-12)


def test_missing_values_do_not_tilt_the_season(rng):
    pattern = np.array([5.0, -1, 0, -4])
    y = np.resize(pattern, 80) + 0.01 * np.arange(80)
    whole = Seasonal.fit(y, 4)
    y[rng.random(80) < 0.2] = np.nan
    y[40:50] = np.nan
    np.testing.assert_allclose(Seasonal.fit(y, 4).patterns[-1], whole.patterns[-1], atol=0.25)
    # A phase that is never observed has no component.
    y[1::4] = np.nan
    assert (Seasonal.fit(y, 4).patterns[:, 1] == 0).all()
    assert (Seasonal.fit(np.full(20, np.nan), 4).patterns == 0).all()


def test_short_series_and_period_one_have_no_component():
    for y, period in ((np.arange(7.0) ** 2, 4), (np.arange(9.0), 1), (np.array([1.0]), 12)):
        found = Seasonal.fit(y, period)
        assert found.component(0, 30).tolist() == [0.0] * 30
        np.testing.assert_array_equal(found.remove(y), y)


@pytest.mark.parametrize("multiplicative", [False, True])
def test_restore_inverts_remove(multiplicative, rng):
    y = np.exp(rng.normal(size=50))
    y[3] = np.nan
    found = Seasonal.fit(y, 6, multiplicative)
    np.testing.assert_allclose(found.restore(found.remove(y)), y, rtol=1e-14)
    np.testing.assert_allclose(found.restore(found.remove(y[:9], 47), 47), y[:9], rtol=1e-14)
    with pytest.raises(ValueError, match="start: expected an integer of at least 0"):
        found.remove(y, -1)


@pytest.mark.parametrize("multiplicative", [False, True])
def test_a_panel_is_its_series(multiplicative, rng, monkeypatch):
    lengths = np.array([30, 0, 12, 5, 31, 90, 13, 1, 30])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    values = np.exp(rng.normal(size=offsets[-1])).astype(np.float32)
    values[rng.random(len(values)) < 0.1] = np.nan
    left, panel = deseasonalise(values, offsets, 6, multiplicative)
    assert left.dtype == np.float32
    assert len(panel) == len(lengths)
    for s, n in enumerate(lengths):
        y = values[offsets[s] : offsets[s + 1]]
        alone = Seasonal.fit(y, 6, multiplicative) if n else Seasonal(6, multiplicative, np.zeros((1, 6)))
        np.testing.assert_allclose(panel[s].patterns, alone.patterns, atol=1e-12)
        np.testing.assert_allclose(panel.component(count=8)[s], alone.component(int(n), 8), atol=1e-12)
        np.testing.assert_allclose(panel.component([3], 40, series=[s])[0], alone.component(3, 40), atol=1e-12)
        if n:
            np.testing.assert_allclose(left[offsets[s] : offsets[s + 1]], alone.remove(y), rtol=1e-6, atol=1e-6)
            back = panel.restore(left[offsets[s] : offsets[s + 1]][None], [0], series=[s])[0]
            np.testing.assert_allclose(back, y, rtol=1e-5, atol=1e-6)
    # Batches change nothing.
    monkeypatch.setattr("elman.forecasting.decomposition._BATCH", 40)
    small = deseasonalise(values, offsets, 6, multiplicative)[1]
    np.testing.assert_allclose(small.patterns, panel.patterns, atol=1e-12)
    assert isinstance(small, SeasonalPanel)


def test_bad_input_of_the_decomposition():
    with pytest.raises(
        ValueError, match=r"multiplicative: expected positive values, 1 of 3 are not, the first in row 2"
    ):
        Seasonal.fit([1.0, 2.0, 0.0], 1, multiplicative=True)
    with pytest.raises(ValueError, match="period: expected an integer of at least 1, got 0"):
        deseasonalise([1.0], None, 0)
    with pytest.raises(ValueError, match="memory"):
        Seasonal.fit([1.0], 2, memory=1.5)
    with pytest.raises(TypeError, match="multiplicative: expected True or False"):
        Seasonal.fit([1.0], 2, "yes")
    _, panel = deseasonalise(np.arange(8.0), [0, 4, 8], 2)
    with pytest.raises(ValueError, match=r"starts: expected shape \(2,\)"):
        panel.component([1], 2)
    with pytest.raises(ValueError, match="starts: expected steps of at least 0, got -1"):
        panel.component([1, -1], 2)
    with pytest.raises(ValueError, match="values: expected 2 rows"):
        panel.restore(np.ones((3, 2)))
