"""Schedules: values against Keras's and against formulas written anew, optimizers that follow them, saving, borders."""

import copy
import json
import math
from dataclasses import dataclass

import numpy as np
import pytest

import elman
from elman import optimizers, schedules
from elman.optimizers import SGD, Adam
from elman.schedules import (
    SCHEDULES,
    CosineDecay,
    CosineDecayRestarts,
    ExponentialDecay,
    InverseTimeDecay,
    LearningRateSchedule,
    PiecewiseConstantDecay,
    PolynomialDecay,
)
from elman.testing import check_optimizer


@dataclass(frozen=True)
class Listed(LearningRateSchedule):
    """A schedule of one's own."""

    rates: tuple

    def at(self, step):
        return self.rates[step]


# ---- values


def exponential(s, step):
    t = step // s.decay_steps if s.staircase else step / s.decay_steps
    return s.initial_learning_rate * math.exp(t * math.log(s.decay_rate))


def piecewise(s, step):
    """The value of the last boundary that was passed, strictly."""
    value = s.values[0]
    for boundary, following in zip(s.boundaries, s.values[1:], strict=True):
        if step > boundary:
            value = following
    return value


def polynomial(s, step):
    length = s.decay_steps
    while s.cycle and length < step:
        length += s.decay_steps
    left = (length - min(step, length)) / length
    return left**s.power * s.initial_learning_rate + (1 - left**s.power) * s.end_learning_rate


def inverse_time(s, step):
    t = step // s.decay_steps if s.staircase else step / s.decay_steps
    return 1 / (1 / s.initial_learning_rate + s.decay_rate * t / s.initial_learning_rate)


def cosine(s, step):
    top = s.initial_learning_rate
    if s.warmup_target is not None:
        if step < s.warmup_steps:
            share = step / s.warmup_steps
            return (1 - share) * s.initial_learning_rate + share * s.warmup_target
        top, step = s.warmup_target, step - s.warmup_steps
    low = s.alpha * top
    # (1 + cos x) / 2 = cos(x / 2)^2
    return low + (top - low) * math.cos(math.pi / 2 * min(step, s.decay_steps) / s.decay_steps) ** 2


def restarts(s, step):
    """Walks from period to period."""
    left, length, height = step, s.first_decay_steps, 1.0
    while left >= length:
        left, length, height = left - length, length * s.t_mul, height * s.m_mul
    wave = height * math.cos(math.pi / 2 * left / length) ** 2
    return s.initial_learning_rate * (s.alpha + (1 - s.alpha) * wave)


# Schedule, formula, and what Keras 3.15 gives at steps 0, 3, 7, 12 and 29.
CASES = [
    (ExponentialDecay(0.1, 7, 0.5), exponential, [0.1, 0.07429971, 0.05, 0.03047534, 0.00566077]),
    (ExponentialDecay(0.1, 7, 0.5, staircase=True), exponential, [0.1, 0.1, 0.05, 0.05, 0.00625]),
    (PiecewiseConstantDecay([3, 10], [0.5, 0.25, 0.1]), piecewise, [0.5, 0.5, 0.25, 0.1, 0.1]),
    (PolynomialDecay(0.1, 7), polynomial, [0.1, 0.05718571, 0.0001, 0.0001, 0.0001]),
    (PolynomialDecay(0.1, 7, 0.01, 2.5), polynomial, [0.1, 0.03221505, 0.01, 0.01, 0.01]),
    (PolynomialDecay(0.1, 7, 0.01, 0.5, True), polynomial, [0.1, 0.07803361, 0.01, 0.0440168, 0.04726354]),
    (InverseTimeDecay(0.1, 7, 0.5), inverse_time, [0.1, 0.08235294, 0.06666667, 0.05384615, 0.03255814]),
    (InverseTimeDecay(0.1, 7, 0.5, staircase=True), inverse_time, [0.1, 0.1, 0.06666667, 0.06666667, 0.03333333]),
    (CosineDecay(0.1, 7), cosine, [0.1, 0.06112605, 0.0, 0.0, 0.0]),
    (CosineDecay(0.1, 7, 0.2), cosine, [0.1, 0.06890085, 0.02, 0.02, 0.02]),
    (
        CosineDecay(0.01, 7, 0.2, warmup_target=0.3, warmup_steps=4),
        cosine,
        [0.01, 0.2275, 0.20670252, 0.06, 0.06],
    ),
    (CosineDecay(0.01, 7, warmup_steps=4), cosine, [0.01, 0.0061126, 0.0, 0.0, 0.0]),
    (CosineDecayRestarts(0.1, 4), restarts, [0.1, 0.01464466, 0.06913417, 0.1, 0.09975923]),
    (CosineDecayRestarts(0.1, 4, 1.0, 0.8, 0.1), restarts, [0.1, 0.0231802, 0.02054416, 0.05608, 0.02611028]),
    (CosineDecayRestarts(0.1, 4, 1.5, 0.7, 0.05), restarts, [0.1, 0.01891243, 0.03825, 0.04610468, 0.01011191]),
]
cases = pytest.mark.parametrize(("schedule", "formula", "expected"), CASES, ids=[str(row[0]) for row in CASES])


@cases
def test_values(schedule, formula, expected):
    np.testing.assert_allclose([schedule(step) for step in (0, 3, 7, 12, 29)], expected, rtol=1e-6, atol=2e-8)
    steps = [*range(40), 200, 12_345, 10**7]
    np.testing.assert_allclose([schedule(n) for n in steps], [formula(schedule, n) for n in steps], 1e-9, 1e-15)
    assert type(schedule(np.int64(3))) is float and schedule(np.int64(3)) == schedule(3)


def test_every_schedule_is_tested():
    assert {type(row[0]) for row in CASES} == set(SCHEDULES.values())


@pytest.mark.parametrize("t_mul", [1.5, 2.0, 3.0, 5.0, 6.0, 10.0])
def test_restarts_at_the_very_step(t_mul):
    # Some logarithms here, such as log(243) / log(3), are rounded to the wrong side of an integer.
    schedule, begin = CosineDecayRestarts(1.0, 2**10, t_mul, m_mul=0.5), 0
    for i in range(1, 9):
        begin += round(2**10 * t_mul ** (i - 1))
        assert schedule(begin) == 0.5**i
        assert schedule(begin - 1) < 0.01


def test_growth_beyond_every_float_is_infinite_and_stops_the_training():
    o, p = SGD(ExponentialDecay(1.0, 1, 1e200)), np.ones(1)
    o.build(p, np.array([0, 1]))
    assert ExponentialDecay(1.0, 1, 1e200)(2) == math.inf
    o.apply(p, np.zeros(1))
    o.apply(p, np.zeros(1))
    with pytest.raises(ValueError, match="learning_rate of step 2: expected a finite number >= 0, got inf"):
        o.apply(p, np.ones(1))
    assert p == 1 and o.iterations == 2


# ---- optimizers


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_rate_of_a_step_is_that_before_the_increment(dtype):
    rates = 0.5, 0.25, 0.0, 1.0, 2.0
    o, p = SGD(Listed(rates), weight_decay=0.5), np.array([8, -4], dtype)
    o.build(p, np.array([0, 2]))
    expected = p.astype(float)
    for k in range(4):
        assert o.iterations == k and o.learning_rate == rates[k] and isinstance(o.learning_rate, float)
        o.apply(p, np.array([1, 2], dtype))
        expected = expected * (1 - 0.5 * rates[k]) - rates[k] * np.array([1, 2])
        np.testing.assert_array_equal(p, expected)
    again = copy.deepcopy(o)
    o.reset()
    assert o.learning_rate == 0.5 and again.learning_rate == 2.0
    again.set_state({"iterations": np.array(2)})
    assert again.learning_rate == 0.0


def test_a_bad_rate_changes_nothing():
    for bad in (-1.0, math.nan):
        o, p = SGD(Listed((0.1, bad, 0.1)), clipvalue=1), np.ones(2)
        o.build(p, np.array([0, 2]))
        o.apply(p, np.ones(2))
        before, gradients = p.copy(), np.full(2, 5.0)
        with pytest.raises(ValueError, match=f"learning_rate of step 1: expected a finite number >= 0, got {bad}"):
            o.apply(p, gradients)
        np.testing.assert_array_equal(p, before)
        np.testing.assert_array_equal(gradients, [5, 5])
        assert o.iterations == 1


def test_a_number_never_replaces_a_schedule():
    o = Adam(ExponentialDecay(0.5, 1, 0.5))
    with pytest.raises(AttributeError, match=r"learning_rate: follows ExponentialDecay\(.*\) and cannot be set to 0.1"):
        o.learning_rate = 0.1
    assert o.learning_rate == 0.5
    o.learning_rate = CosineDecay(0.25, 10)
    assert o.learning_rate == 0.25
    plain = Adam(0.1)
    plain.iterations = 3
    plain.learning_rate = ExponentialDecay(0.5, 1, 0.5)
    assert plain.learning_rate == 0.0625
    assert Adam(0.1).learning_rate == 0.1  # the schedule belongs to the instance


@cases
@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_configs_make_equal_schedules(name, schedule, formula, expected):
    saved = json.loads(json.dumps(schedules.serialize(schedule)))
    assert schedules.get(saved) == schedule and schedules.get(schedule) is schedule
    o = optimizers.OPTIMIZERS[name](schedule)
    again = optimizers.get(json.loads(json.dumps(optimizers.serialize(o))))
    assert again.get_config() == o.get_config() and again.get_config()["learning_rate"] == saved
    again.iterations = 7
    assert again.learning_rate == schedule(7)


def test_the_battery_takes_schedules():
    check_optimizer(SGD(InverseTimeDecay(0.1, 10, 0.5), momentum=0.9))


# ---- models


def data():
    rng = np.random.default_rng(5)
    return rng.standard_normal((20, 4, 2)), rng.standard_normal(20)


def small(optimizer):
    model = elman.Sequential([elman.layers.SimpleRNN(3), elman.layers.Dense(1)], seed=2)
    model.compile(optimizer, "mse")
    return model


def test_models_are_saved_with_their_schedule(tmp_path):
    (x, y), schedule = data(), CosineDecay(0.0, 20, 0.1, warmup_target=0.05, warmup_steps=7)
    model = small(Adam(schedule))
    model.fit(x, y, batch_size=4, epochs=2, verbose=0)
    assert model.optimizer.iterations == 10 and model.optimizer.learning_rate == schedule(10)
    model.save(tmp_path / "model.npz")
    again = elman.load_model(tmp_path / "model.npz")
    assert again.get_compile_config() == model.get_compile_config()
    assert again.optimizer.iterations == 10 and again.optimizer.learning_rate == schedule(10)
    for m in (model, again):
        m.fit(x, y, batch_size=4, epochs=1, verbose=0)
    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(AttributeError, match="learning_rate: follows CosineDecay"):
        again.optimizer.learning_rate = 0.1


def test_a_fit_follows_the_schedule():
    (x, y), rates = data(), (0.1, 0.05, 0.2)
    follows, told = small(SGD(PiecewiseConstantDecay([0, 1], rates))), small(SGD(0.0))
    for rate in rates:
        told.optimizer.learning_rate = rate
        for model in (follows, told):
            model.train_on_batch(x, y)
    for a, b in zip(follows.get_weights(), told.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_schedules_of_ones_own_are_loaded_once_they_are_entered(tmp_path, monkeypatch):
    (x, y), model = data(), small(SGD(Listed((0.1, 0.2, 0.3))))
    model.train_on_batch(x, y)
    model.save(tmp_path / "m")
    with pytest.raises(ValueError, match="schedule: unknown name 'Listed'"):
        elman.load_model(tmp_path / "m")
    monkeypatch.setitem(SCHEDULES, "listed", Listed)
    assert elman.load_model(tmp_path / "m").optimizer.learning_rate == 0.2


# ---- borders


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ExponentialDecay(-0.1, 10, 0.5), ValueError, "initial_learning_rate: expected a finite number >= 0"),
        (lambda: ExponentialDecay(0.1, 0, 0.5), ValueError, "decay_steps: expected a finite number > 0, got 0"),
        (lambda: ExponentialDecay(0.1, 10, -0.5), ValueError, "decay_rate: expected a finite number >= 0"),
        (lambda: ExponentialDecay(0.1, 10, 0.5, 1), TypeError, "staircase: expected True or False, got int 1"),
        (lambda: ExponentialDecay("0.1", 10, 0.5), TypeError, "initial_learning_rate: expected a number, got str"),
        (lambda: ExponentialDecay(None, 10, 0.5), TypeError, "initial_learning_rate: expected a number"),
        (lambda: InverseTimeDecay(0.1, 10, math.nan), ValueError, "decay_rate: expected a finite number"),
        (lambda: InverseTimeDecay(0.1, True, 0.5), TypeError, "decay_steps: expected a number, got bool"),
        (lambda: PolynomialDecay(0.1, 10, -1), ValueError, "end_learning_rate: expected a finite number >= 0"),
        (lambda: PolynomialDecay(0.1, 10, power=-1), ValueError, "power: expected a finite number >= 0"),
        (lambda: PolynomialDecay(0.1, 10, cycle=None), TypeError, "cycle: expected True or False"),
        (lambda: CosineDecay(0.1, 10, -1), ValueError, "alpha: expected a finite number >= 0"),
        (lambda: CosineDecay(0.1, 10, warmup_target=-1), ValueError, "warmup_target: expected a finite number >= 0"),
        (lambda: CosineDecay(0.1, 10, warmup_steps=-1), ValueError, "warmup_steps: expected a finite number >= 0"),
        (lambda: CosineDecayRestarts(0.1, 0), ValueError, "first_decay_steps: expected a finite number > 0"),
        (lambda: CosineDecayRestarts(0.1, 5, 0.5), ValueError, "t_mul: expected a finite number >= 1"),
        (lambda: CosineDecayRestarts(0.1, 5, 2, -1), ValueError, "m_mul: expected a finite number >= 0"),
        (lambda: PiecewiseConstantDecay([], [0.1]), ValueError, "boundaries: expected strictly ascending numbers"),
        (lambda: PiecewiseConstantDecay([2, 2], [1, 2, 3]), ValueError, "boundaries: expected strictly ascending"),
        (lambda: PiecewiseConstantDecay([-1], [1, 2]), ValueError, "boundaries: expected a finite number >= 0"),
        (lambda: PiecewiseConstantDecay([1], [1, -2]), ValueError, "values: expected a finite number >= 0"),
        (lambda: PiecewiseConstantDecay([1, 2], [1, 2]), ValueError, "values: expected 3 numbers, one more than"),
        (lambda: PiecewiseConstantDecay(5, [1, 2]), TypeError, "boundaries: expected a sequence of numbers, got 5"),
        (lambda: PiecewiseConstantDecay([1], "12"), ValueError, "values: expected 2 numbers"),
        (lambda: ExponentialDecay(0.1, 10, 0.5)(-1), ValueError, "step: expected an integer of at least 0, got -1"),
        (lambda: ExponentialDecay(0.1, 10, 0.5)(1.5), TypeError, "step: expected an integer, got float"),
        (lambda: schedules.get("cosine_decay"), TypeError, "schedule: expected a LearningRateSchedule or a dict"),
        (lambda: schedules.get(CosineDecay), TypeError, "schedule: expected a LearningRateSchedule or a dict"),
        (
            lambda: schedules.get({"class_name": "CosinDecay"}),
            ValueError,
            "schedule: unknown name 'CosinDecay', did you mean 'CosineDecay'",
        ),
        (lambda: schedules.get({"class_name": "CosineDecay"}), ValueError, "schedule: config {} does not fit"),
        (lambda: schedules.get({}), TypeError, "schedule: expected"),
        (lambda: SGD(lambda step: 0.1), TypeError, "learning_rate: expected a number"),
        (lambda: SGD(CosineDecay), TypeError, "learning_rate: expected a number"),
        (lambda: SGD({"class_name": "Nothing"}), ValueError, "schedule: unknown name 'Nothing'"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=f"^{message}"):
        make()
