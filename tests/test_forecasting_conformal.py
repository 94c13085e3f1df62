"""Conformal intervals against loops, and the coverage they promise."""

import math

import numpy as np
import pytest

from elman.forecasting.conformal import Conformal
from elman.forecasting.scores import score

NAN = float("nan")


def slow_half(errors, level):
    """Half width of each lead time by the rule, pooling outwards while there are too few errors."""
    leads = errors.shape[1]
    out = []
    for h in range(leads):
        for reach in range(leads + 1):
            near = [e for j in range(leads) if abs(j - h) <= reach for e in errors[:, j] if not math.isnan(e)]
            rank = math.ceil(round((len(near) + 1) * level, 9))
            if rank <= len(near):
                break
        out.append(sorted(near)[min(rank, len(near)) - 1])
    return out


@pytest.mark.parametrize("level", [0.01, 0.5, 0.7, 0.9])
def test_half_widths_against_loops(level, rng):
    y, forecast = rng.normal(size=(40, 6)), rng.normal(size=(40, 6))
    y[rng.random((40, 6)) < 0.3] = NAN
    scale = rng.random(40) + 0.5
    plain = Conformal.fit(y, forecast)
    low, high = plain.interval(forecast[:3], level)
    half = np.array(slow_half(np.abs(y - forecast), level))
    np.testing.assert_allclose(low, forecast[:3] - half, rtol=1e-12)
    np.testing.assert_allclose(high, forecast[:3] + half, rtol=1e-12)
    scaled = Conformal.fit(y, forecast, scale)
    low, high = scaled.interval(forecast[:3, :4], level, scale[:3])
    half = np.array(slow_half(np.abs(y - forecast) / scale[:, None], level))[:4] * scale[:3, None]
    np.testing.assert_allclose(high - low, 2 * half, rtol=1e-12)


@pytest.mark.parametrize(
    ("n", "level", "rank"), [(19, 0.95, 19), (9, 0.9, 9), (9, 0.7, 7), (99, 0.99, 99), (10, 0.5, 6)]
)
def test_the_rank_at_whole_numbers(n, level, rank):
    errors = np.arange(1.0, n + 1)
    assert Conformal.fit(errors[:, None], np.zeros((n, 1))).half_widths(level).tolist() == [rank]


def test_neighbours_lend_their_errors_with_one_warning(rng):
    y = np.abs(rng.normal(size=(30, 5)))
    y[4:, 2] = NAN
    y[:, 4] = NAN
    conformal = Conformal.fit(y, np.zeros((30, 5)))
    with pytest.warns(UserWarning, match=r"level 0.9 needs 9 errors .* 2 of 5 have fewer \(the least is 0\)") as caught:
        half = conformal.half_widths(0.9)
    assert len(caught) == 1
    np.testing.assert_allclose(half, slow_half(y, 0.9))
    # The lead times that have enough of their own are as before.
    alone = Conformal.fit(y[:, :1], np.zeros((30, 1))).half_widths(0.9)
    assert half[0] == alone[0]


def test_too_few_errors_at_all_take_the_largest():
    conformal = Conformal.fit([[1.0, 3.0], [2.0, NAN]], np.zeros((2, 2)))
    with pytest.warns(UserWarning, match="all together are too few, so the largest error stands in"):
        low, high = conformal.interval([[0.0, 0.0]], 0.95)
    assert high.tolist() == [[3.0, 3.0]]
    assert low.tolist() == [[-3.0, -3.0]]


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_coverage_is_what_the_theorem_promises(level, rng):
    """Exchangeable errors, heavy tails: coverage in [level, level + 1 / (n + 1)], here n = 39, by 4000 calibrations."""
    covered = []
    for _ in range(400):
        y = rng.standard_cauchy(size=(40, 10))
        low, high = Conformal.fit(y[:39], np.zeros((39, 10))).interval(np.zeros((1, 10)), level)
        covered.append(score("coverage", y[39:], np.stack([low, high], axis=2)).value)
    error = 4 * math.sqrt(level * (1 - level) / 4000)
    assert level - error <= np.mean(covered) <= level + 1 / 40 + error


def test_arrays_there_and_back(rng):
    y = rng.normal(size=(20, 3))
    y[3, 1] = NAN
    conformal = Conformal.fit(y, np.zeros((20, 3)), np.full(20, 2.0))
    again = Conformal.from_arrays(conformal.arrays())
    np.testing.assert_array_equal(again.residuals, conformal.residuals)
    np.testing.assert_array_equal(again.counts, conformal.counts)
    assert again.scaled is True
    assert Conformal.from_arrays(Conformal.fit(y, np.zeros((20, 3))).arrays()).scaled is False


def test_bad_input():
    y, forecast = np.ones((3, 2)), np.zeros((3, 2))
    with pytest.raises(ValueError, match=r"forecast: expected shape \(3, 2\), got \(2, 2\)"):
        Conformal.fit(y, forecast[:2])
    with pytest.raises(ValueError, match="forecast: 1 of 2 values are not finite"):
        Conformal.fit([[1.0, 1.0]], [[NAN, 1.0]])
    with pytest.raises(ValueError, match="y: none of the 2 values is observed"):
        Conformal.fit([[NAN, NAN]], [[1.0, 1.0]])
    with pytest.raises(ValueError, match="scale: expected positive numbers, got 0 at index 1"):
        Conformal.fit(y, forecast, [1.0, 0.0, 1.0])
    conformal = Conformal.fit(y, forecast)
    with pytest.raises(ValueError, match=r"forecast: expected at most 2 lead times, got shape \(1, 3\)"):
        conformal.interval([[1.0, 2.0, 3.0]], 0.5)
    with pytest.raises(ValueError, match="scale: the errors were fitted without a scale"):
        conformal.interval([[1.0]], 0.5, [1.0])
    with pytest.raises(ValueError, match="scale: the errors were fitted with a scale"):
        Conformal.fit(y, forecast, [1.0, 1.0, 1.0]).interval([[1.0]], 0.5)
    for level in (0.0, 1.0, 90):
        with pytest.raises(ValueError, match="level: expected a"):
            conformal.interval([[1.0]], level)
    with pytest.raises(ValueError, match="arrays: expected 'residuals' and 'scaled'"):
        Conformal.from_arrays({"residuals": y})
    with pytest.raises(ValueError, match="arrays: expected residuals of at least 0"):
        Conformal.from_arrays({"residuals": -y, "scaled": np.array(False)})
