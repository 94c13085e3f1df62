"""Scores against loops and hand-computed values, and M4's published seasonal naive."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from elman.forecasting.scores import SCORES, insample_scale, score, seasonal_naive

ORIGINALS = Path(__file__).resolve().parents[2] / "shared" / "data"
NAN = float("nan")
QUANTILES = np.array([0.1, 0.5, 0.8])
LEVEL = 0.8


def element(name, y, f, s):
    """One term, or None where the score is not defined."""
    if math.isnan(y) or (name in ("mase", "rmsse") and not s > 0):
        return None
    if name == "mape":
        return None if y == 0 else 100 * abs(y - f[0]) / abs(y)
    if name == "smape":
        return 0.0 if y == 0 == f[0] else 200 * abs(y - f[0]) / (abs(y) + abs(f[0]))
    if name in ("pinball", "wql"):
        losses = [q * (y - v) if y >= v else (1 - q) * (v - y) for q, v in zip(QUANTILES, f, strict=True)]
        return sum(losses) / len(losses) * (2 if name == "wql" else 1)
    if name == "winkler":
        low, high = f
        missed = low - y if y < low else y - high if y > high else 0.0
        return high - low + 2 / (1 - LEVEL) * missed
    return {
        "mae": lambda: abs(y - f[0]),
        "mse": lambda: (y - f[0]) ** 2,
        "rmse": lambda: (y - f[0]) ** 2,
        "mase": lambda: abs(y - f[0]) / s,
        "rmsse": lambda: (y - f[0]) ** 2 / s,
        "coverage": lambda: float(f[0] <= y <= f[-1]),
        "width": lambda: f[-1] - f[0],
    }[name]()


def slow(name, y, f, s, cells):
    """The score over the cells (row, lead), and how many were used."""
    found = [(element(name, y[i, h], f[i, h], s[i]), abs(y[i, h]), i) for i, h in cells]
    found = [item for item in found if item[0] is not None]
    if not found:
        return NAN, 0
    if name == "wql":
        return sum(v for v, _, _ in found) / sum(size for _, size, _ in found), len(found)
    if name == "rmsse" and len({h for _, h in cells}) > 1:
        rows = {}
        for v, _, i in found:
            rows.setdefault(i, []).append(v)
        return float(np.mean([math.sqrt(np.mean(v)) for v in rows.values()])), len(found)
    mean = float(np.mean([v for v, _, _ in found]))
    return (math.sqrt(mean) if name in ("rmse", "rmsse") else mean), len(found)


@pytest.mark.parametrize("name", SCORES)
def test_scores_against_loops(name, rng):
    y = rng.normal(size=(6, 5)).round(1)
    y[rng.random((6, 5)) < 0.25] = NAN
    y[0, 0] = 0.0
    y[3] = NAN
    kind = SCORES[name].kind
    width = {"point": 1, "quantile": 3, "interval": 2}[kind]
    f = np.sort(rng.normal(size=(6, 5, width)), axis=2)
    f[0, 0] = 0.0
    f[1, 1] = np.nan_to_num(y[1, 1])
    s = rng.random(6) + 0.5
    s[4] = NAN
    s[5] = 0.0
    options = {"quantiles": QUANTILES, "level": LEVEL, "insample_scale": s}
    given = f[..., 0] if kind == "point" else f
    cells = [(i, h) for i in range(6) for h in range(5)]
    value, used = slow(name, y, f, s, cells)
    found = score(name, y, given, **options)
    assert isinstance(found.value, float)
    assert found.value == pytest.approx(value, rel=1e-12)
    assert (found.used, found.left_out) == (used, 30 - used)
    by_lead = score(name, y, given, axis="lead", **options)
    by_row = score(name, y, given, axis="series", **options)
    for result, groups in (
        (by_lead, [[(i, h) for i in range(6)] for h in range(5)]),
        (by_row, [[(i, h) for h in range(5)] for i in range(6)]),
    ):
        for j, group in enumerate(groups):
            value, used = slow(name, y, f, s, group)
            assert result.value[j] == pytest.approx(value, rel=1e-12, nan_ok=True)
            assert (result.used[j], result.left_out[j]) == (used, len(group) - used)


def test_hand_computed_values():
    y, f = [[2.0, 4.0]], [[1.0, 8.0]]
    assert score("mae", y, f).value == 2.5
    assert score("mse", y, f).value == 8.5
    assert score("rmse", y, f).value == pytest.approx(8.5**0.5)
    assert score("mape", y, f).value == 75.0
    assert score("smape", y, f).value == pytest.approx((200 / 3 + 800 / 12) / 2)
    assert score("mase", y, f, insample_scale=[2.0]).value == 1.25
    assert score("rmsse", y, f, insample_scale=[2.0]).value == pytest.approx(4.25**0.5)
    quantiles = [[[1.0, 3.0], [4.0, 5.0]]]
    # 0.1 * 1, 0.1 * 1 (3 above 2 at q = 0.9), 0, 0.1 * 1.
    assert score("pinball", y, quantiles, quantiles=[0.1, 0.9]).value == pytest.approx(0.3 / 4)
    assert score("wql", y, quantiles, quantiles=[0.1, 0.9]).value == pytest.approx((2 * 0.1 / 6 + 2 * 0.2 / 6) / 2)
    assert score("coverage", y, [[[1.0, 2.0], [5.0, 6.0]]]).value == 0.5
    assert score("width", y, [[[1.0, 2.0], [5.0, 8.0]]]).value == 2.0
    assert score("winkler", y, [[[1.0, 2.0], [5.0, 8.0]]], level=0.5).value == (1 + 3 + 4) / 2


def test_pinball_of_the_median_is_half_the_absolute_error(rng):
    y, f = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    half = score("pinball", y, f[..., None], quantiles=[0.5]).value
    assert half == pytest.approx(score("mae", y, f).value / 2)
    assert score("wql", y, f[..., None], quantiles=[0.5]).value == pytest.approx(np.abs(y - f).sum() / np.abs(y).sum())


def test_nothing_to_score_is_nan_and_counted():
    assert math.isnan(score("mae", [[NAN]], [[1.0]]).value)
    assert score("mase", [[1.0, 2.0]], [[1.0, 2.0]], insample_scale=[NAN])[1:] == (0, 2)
    assert math.isnan(score("wql", [[0.0]], [[[1.0]]], quantiles=[0.5]).value)


def test_bad_input_of_scores():
    y, f = [[1.0, 2.0]], [[1.0, 2.0]]
    with pytest.raises(ValueError, match="name: unknown name 'smap', did you mean 'smape'"):
        score("smap", y, f)
    with pytest.raises(ValueError, match="axis: unknown name 'leads', did you mean 'lead'"):
        score("mae", y, f, axis="leads")
    with pytest.raises(ValueError, match=r"forecast: expected shape \(1, 2\), got \(1, 3\)"):
        score("mae", y, [[1.0, 2.0, 3.0]])
    with pytest.raises(ValueError, match="forecast: 1 of 2 values are not finite"):
        score("mae", y, [[1.0, NAN]])
    with pytest.raises(ValueError, match="y: expected 2 axes"):
        score("mae", [1.0], [1.0])
    with pytest.raises(ValueError, match="y: 1 of 2 values are infinite"):
        score("mae", [[1.0, np.inf]], f)
    with pytest.raises(ValueError, match="insample_scale: mase needs one number per row"):
        score("mase", y, f)
    with pytest.raises(ValueError, match=r"insample_scale: expected shape \(1,\), got \(2,\)"):
        score("mase", y, f, insample_scale=[1.0, 2.0])
    with pytest.raises(ValueError, match="quantiles: wql needs"):
        score("wql", y, [[[1.0], [2.0]]])
    with pytest.raises(ValueError, match="quantiles: expected numbers between 0 and 1"):
        score("wql", y, [[[1.0], [2.0]]], quantiles=[1.0])
    with pytest.raises(ValueError, match="level: winkler needs"):
        score("winkler", y, [[[1.0, 2.0], [2.0, 3.0]]])
    with pytest.raises(ValueError, match="level: expected a"):
        score("winkler", y, [[[1.0, 2.0], [2.0, 3.0]]], level=90)
    with pytest.raises(ValueError, match=r"forecast: expected low <= high, got \[3.0, 2.0\] at \(0, 1\)"):
        score("width", y, [[[1.0, 2.0], [3.0, 2.0]]])


# ---- denominators and the naive forecast


def slow_scale(y, period, squared):
    for lag in (period, 1):
        d = [y[t] - y[t - lag] for t in range(lag, len(y)) if not math.isnan(y[t] - y[t - lag])]
        if d:
            mean = float(np.mean([v * v if squared else abs(v) for v in d]))
            return mean if mean > 0 else NAN
    return NAN


def slow_naive(y, period, horizon):
    seen = [t for t in range(len(y)) if not math.isnan(y[t])]
    out = []
    for h in range(len(y), len(y) + horizon):
        same = [t for t in seen if (h - t) % period == 0]
        out.append(y[max(same)] if same else y[max(seen)] if seen else 0.0)
    return out


@pytest.fixture
def ragged(rng):
    lengths = np.array([20, 0, 1, 4, 5, 6, 33, 9, 3])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    values = rng.normal(size=offsets[-1])
    values[rng.random(len(values)) < 0.3] = NAN
    values[offsets[7] : offsets[8]] = NAN
    values[offsets[8] :] = 2.5
    return values, offsets


@pytest.mark.parametrize("period", [1, 2, 4, 5, 50])
@pytest.mark.parametrize("squared", [False, True])
def test_insample_scale_against_loops(ragged, period, squared):
    values, offsets = ragged
    wanted = [slow_scale(y, period, squared) for y in np.split(values, offsets[1:-1])]
    np.testing.assert_allclose(insample_scale(values, offsets, period, squared), wanted, rtol=1e-12)


@pytest.mark.parametrize("period", [1, 2, 4, 5, 50])
@pytest.mark.parametrize("horizon", [1, 3, 11])
def test_seasonal_naive_against_loops(ragged, period, horizon):
    values, offsets = ragged
    wanted = [slow_naive(y, period, horizon) for y in np.split(values, offsets[1:-1])]
    found = seasonal_naive(values, offsets, period, horizon)
    np.testing.assert_array_equal(found, wanted)
    assert found.dtype == np.float64
    assert seasonal_naive(values.astype(np.float32), offsets, period, horizon).dtype == np.float32


def test_bad_input_of_the_naive_forecast():
    with pytest.raises(ValueError, match="period"):
        seasonal_naive([1.0], None, 0, 1)
    with pytest.raises(ValueError, match="horizon"):
        seasonal_naive([1.0], None, 1, 0)
    with pytest.raises(TypeError, match="squared"):
        insample_scale([1.0], None, 1, 2)


@pytest.mark.skipif(not ORIGINALS.is_dir(), reason="the original files are not at hand")
def test_seasonal_naive_of_m4_hourly_scores_as_published():
    """Makridakis et al. (2020), results of the benchmark sNaive: sMAPE 13.912, MASE 1.193."""

    def series(name):
        with (ORIGINALS / "m4_hourly" / name).open(newline="") as file:
            return [np.array([float(v) for v in row[1:] if v]) for row in list(csv.reader(file))[1:]]

    train, test = series("Hourly-train.csv"), np.array(series("Hourly-test.csv"))
    values, offsets = np.concatenate(train), np.concatenate([[0], np.cumsum([len(y) for y in train])])
    forecast = seasonal_naive(values, offsets, 24, 48)
    assert forecast.shape == test.shape == (414, 48)
    assert round(score("smape", test, forecast).value, 3) == 13.912
    scale = insample_scale(values, offsets, 24)
    assert round(score("mase", test, forecast, insample_scale=scale).value, 3) == 1.193
