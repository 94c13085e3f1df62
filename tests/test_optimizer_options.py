"""Averages, accumulation, frozen tensors and the guard: trajectories against twins, saving, borders."""

import copy
import json

import numpy as np
import pytest

from elman import optimizers, schedules
from elman.optimizers import OPTIMIZERS, SGD, Adagrad, Adam, Lion, Nadam, RMSprop
from elman.testing import check_optimizer
from elman.threads import get_num_threads, num_threads

OFFSETS = [0, 3, 7, 7, 12, 20]


def fresh(optimizer, parameters, offsets=None, trainable=None):
    made = optimizers.get(optimizers.serialize(optimizer))
    made.build(parameters, np.array([0, parameters.size]) if offsets is None else np.asarray(offsets), trainable)
    return made


def draw(n, steps, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(n).astype(dtype), rng.standard_normal((steps, n)).astype(dtype)


def updates(o, p, gradients):
    """The parameters after each update of Adam or SGD with momentum, in float64, from the published formulas."""
    m, v, after = np.zeros_like(p), np.zeros_like(p), []
    for t, g in enumerate(gradients, 1):
        p = p * (1 - o.learning_rate * (o.weight_decay or 0))
        if isinstance(o, Adam):
            m = o.beta_1 * m + (1 - o.beta_1) * g
            v = o.beta_2 * v + (1 - o.beta_2) * g**2
            root = np.sqrt(v / (1 - o.beta_2**t)) + o.epsilon / np.sqrt(1 - o.beta_2**t)
            p = p - o.learning_rate * m / (1 - o.beta_1**t) / root
        else:
            m = o.momentum * m - o.learning_rate * g
            p = p + m
        after.append(p)
    return after


TWINS = [Adam(0.05), SGD(0.1, momentum=0.9), Adam(0.05, weight_decay=0.1)]
twins = pytest.mark.parametrize("optimizer", TWINS, ids=["adam", "sgd", "decay"])


def remade(optimizer, **options):
    return type(optimizer).from_config({**optimizer.get_config(), **options})


# ---- averages


@twins
def test_ten_steps_of_averages(optimizer):
    p, gradients = draw(20, 10)
    trajectory = updates(optimizer, p, gradients)
    average = trajectory[0]
    o = fresh(remade(optimizer, use_ema=True, ema_momentum=0.7), p, OFFSETS)
    for k, g in enumerate(gradients):
        o.apply(p, g.copy())
        if k:
            average = 0.7 * average + 0.3 * trajectory[k]
        np.testing.assert_allclose(p, trajectory[k], rtol=1e-12)
        np.testing.assert_allclose(o.state()["average"], average, rtol=1e-12)
    o.finalize(p)
    np.testing.assert_array_equal(p, o.state()["average"])
    assert abs(average - trajectory[-1]).max() > 0.01


def test_averages_overwrite_the_parameters_when_they_are_due():
    p, gradients = draw(20, 10)
    expected, average = p.copy(), None
    o = fresh(SGD(0.1, use_ema=True, ema_momentum=0.6, ema_overwrite_frequency=3), p, OFFSETS)
    for k, g in enumerate(gradients, 1):
        expected = expected - 0.1 * g
        average = expected if k == 1 else 0.6 * average + 0.4 * expected
        if k % 3 == 0:
            expected = average
        o.apply(p, g)
        np.testing.assert_allclose(p, expected, rtol=1e-12)


def test_the_frequency_does_nothing_without_averages():
    p, gradients = draw(20, 6)
    q = p.copy()
    a, b = fresh(SGD(), p), fresh(SGD(ema_overwrite_frequency=2, ema_momentum=0.1), q)
    for g in gradients:
        a.apply(p, g)
        b.apply(q, g)
    b.finalize(q)
    np.testing.assert_array_equal(p, q)
    assert set(b.state()) == {"iterations"}


def test_finalize_before_any_step_leaves_the_parameters():
    p, gradients = draw(20, 1)
    start = p.copy()
    o = fresh(SGD(use_ema=True), p)
    assert not o.apply(p, np.full(20, np.nan))
    o.finalize(p)
    np.testing.assert_array_equal(p, start)
    o.apply(p, gradients[0])
    o.reset()
    o.finalize(p)
    np.testing.assert_allclose(p, start - 0.01 * gradients[0], rtol=1e-15)
    assert not o.state()["average"].any()


# ---- accumulation


@twins
def test_ten_steps_of_accumulated_gradients(optimizer):
    p, gradients = draw(20, 32)
    start, means = p.copy(), gradients[:30].reshape(10, 3, 20).mean(1)
    trajectory = [start, *updates(optimizer, p, means)]
    o = fresh(remade(optimizer, gradient_accumulation_steps=3), p, OFFSETS)
    for k, g in enumerate(gradients, 1):
        assert o.apply(p, g.copy()) is True
        assert o.calls == k and o.iterations == k // 3
        np.testing.assert_allclose(p, trajectory[k // 3], rtol=1e-11)
    np.testing.assert_allclose(o.state()["gradient_accumulator"], gradients[30:].sum(0), rtol=1e-14)
    assert o.state()["accumulated"] == 2 and o.state()["iterations"] == 10


def test_the_mean_is_clipped_not_its_parts():
    p, g = np.zeros(2), np.array([[30.0, 40.0], [-30.0, -36.0]])
    o = fresh(SGD(1.0, clipnorm=1.0, gradient_accumulation_steps=2), p)
    for row in g:
        o.apply(p, row)
    np.testing.assert_allclose(p, [0, -1], atol=1e-15)


def test_a_schedule_counts_calls_and_adam_counts_updates():
    # As in Keras: the learning rate of the k-th update is that of call n k - 1, from 0.
    rate = schedules.ExponentialDecay(0.5, 1, 0.5)
    p, seen = np.zeros(1), []
    o = fresh(SGD(rate, gradient_accumulation_steps=2), p)
    for _ in range(4):
        seen.append(o.learning_rate)
        o.apply(p, np.ones(1))
    np.testing.assert_allclose(seen, [0.5, 0.25, 0.125, 0.0625])
    np.testing.assert_allclose(p, -0.25 - 0.0625)


def test_averages_move_in_every_call_as_in_keras():
    # Within the first window the average is the parameters; later each call moves it, updates or not.
    p, gradients = draw(20, 10)
    trajectory = [p.copy(), *updates(SGD(0.1), p, gradients.reshape(5, 2, 20).mean(1))]
    o = fresh(SGD(0.1, use_ema=True, ema_momentum=0.8, gradient_accumulation_steps=2), p)
    average = None
    for k, g in enumerate(gradients):
        o.apply(p, g)
        now = trajectory[(k + 1) // 2]
        average = now if k < 2 else 0.8 * average + 0.2 * now
        np.testing.assert_allclose(o.state()["average"], average, rtol=1e-12)


def test_setting_iterations_drops_what_is_accumulated():
    p = np.zeros(1)
    o = fresh(SGD(1.0, gradient_accumulation_steps=2), p)
    o.apply(p, np.ones(1))
    o.iterations = 5
    assert o.calls == 10 and o.state()["accumulated"] == 0
    o.apply(p, np.full(1, 3.0))
    o.apply(p, np.full(1, 5.0))
    assert p == -4 and o.iterations == 6


# ---- frozen tensors

CLIPS = [{}, {"clipnorm": 0.5}, {"global_clipnorm": 0.5}, {"clipvalue": 0.3}]


@pytest.mark.parametrize("clip", CLIPS, ids=str)
@twins
def test_ten_steps_beside_frozen_tensors(optimizer, clip):
    chosen = [True, False, False, True, False]
    kept = np.r_[0:3, 7:12]
    p, gradients = draw(20, 10)
    start = p.copy()
    used = gradients[:, kept]
    if "clipnorm" in clip:
        for piece in (used[:, :3], used[:, 3:]):
            piece *= np.minimum(1, 0.5 / np.linalg.norm(piece, axis=1, keepdims=True))
    elif "global_clipnorm" in clip:
        used *= np.minimum(1, 0.5 / np.linalg.norm(used, axis=1, keepdims=True))
    elif "clipvalue" in clip:
        used = np.clip(used, -0.3, 0.3)
    trajectory = updates(optimizer, start[kept], used)
    o = fresh(remade(optimizer, use_ema=True, ema_momentum=0.5, **clip), p, OFFSETS, chosen)
    frozen = np.setdiff1d(np.arange(20), kept)
    for k, g in enumerate(gradients):
        g[frozen] = np.nan
        assert o.apply(p, g)
        np.testing.assert_allclose(p[kept], trajectory[k], rtol=1e-12)
    o.finalize(p)
    np.testing.assert_array_equal(p[frozen], start[frozen])
    average = trajectory[0]
    for now in trajectory[1:]:
        average = (average + now) / 2
    np.testing.assert_allclose(p[kept], average, rtol=1e-12)
    assert not any(vector[frozen].any() for vector in o.state().values() if vector.ndim)


def test_frozen_tensors_in_a_vector_of_many_chunks_and_threads():
    sizes = [5, 40_000, 30_001, 70_000, 3]
    offsets = np.cumsum([0, *sizes])
    chosen = [True, True, False, True, False]
    kept = np.r_[0 : offsets[2], offsets[3] : offsets[4]]
    ends = []
    for threads in range(1, min(2, get_num_threads()) + 1):
        p, gradients = draw(offsets[-1], 4, np.float32)
        start, alone = p.copy(), p[kept]
        o = fresh(SGD(0.1, momentum=0.9, use_ema=True, gradient_accumulation_steps=2), p, offsets, chosen)
        other = fresh(SGD(0.1, momentum=0.9), alone)
        with num_threads(threads):
            for g in gradients:
                o.apply(p, g.copy())
            for g in gradients.reshape(2, 2, -1):
                other.apply(alone, (g[0] + g[1])[kept] / 2)
        np.testing.assert_array_equal(p[kept], alone)
        np.testing.assert_array_equal(np.delete(p, kept), np.delete(start, kept))
        ends.append([p, *o.state().values()])
    for a, b in zip(ends[0], ends[-1], strict=True):
        np.testing.assert_array_equal(a, b)


def test_all_frozen_and_none():
    p, gradients = draw(20, 1)
    start = p.copy()
    for clip in CLIPS:
        o = fresh(Adam(weight_decay=0.1, use_ema=True, **clip), p, OFFSETS, [False] * 5)
        assert o.apply(p, np.full(20, np.nan)) is True
        o.finalize(p)
        np.testing.assert_array_equal(p, start)
    q = p.copy()
    a, b = fresh(Adam(), p, OFFSETS), fresh(Adam(), q, OFFSETS, np.ones(5, bool))
    a.apply(p, gradients[0])
    b.apply(q, gradients[0])
    np.testing.assert_array_equal(p, q)


# ---- the guard


@pytest.mark.parametrize("options", [{}, *CLIPS[1:], {"gradient_accumulation_steps": 2}], ids=str)
@pytest.mark.parametrize("where", [0, 70_001, 99_999])
def test_one_bad_value_anywhere_stops_the_step(options, where):
    p, gradients = draw(100_000, 3, np.float32)
    # The last value is in another piece than the first.
    offsets = [0, 50_000, 50_010, 80_000, 100_000]
    o = fresh(SGD(0.1, momentum=0.9, use_ema=True, **options), p, offsets, [True, False, True, True])
    for threads in range(1, min(2, get_num_threads()) + 1):
        with num_threads(threads):
            assert o.apply(p, gradients[0].copy())
            before = [p.copy(), *o.state().values()]
            for bad in (np.nan, -np.inf):
                g = gradients[1].copy()
                g[where] = bad
                assert o.apply(p, g) is False
                # Who looks for the cause finds it where it was.
                assert not np.isfinite(g[where]) and np.isfinite(g).sum() == g.size - 1
                for a, b in zip([p, *o.state().values()], before, strict=True):
                    np.testing.assert_array_equal(a, b)


def test_large_finite_gradients_pass_the_guard():
    # Their sum overflows float32, each of them does not.
    for options in CLIPS:
        p = np.zeros(40, np.float32)
        assert fresh(SGD(1e-38, **options), p).apply(p, np.full(40, 3e38, np.float32)), options
        assert p.all()


def test_a_sum_that_overflows_is_refused_and_the_accumulator_kept():
    p = np.zeros(2, np.float32)
    o = fresh(SGD(1e-37, gradient_accumulation_steps=2), p)
    assert o.apply(p, np.array([3e38, 1], np.float32))
    assert not o.apply(p, np.array([3e38, 1], np.float32))
    np.testing.assert_array_equal(o.state()["gradient_accumulator"], np.array([3e38, 1], np.float32))
    assert o.apply(p, np.array([3e37, 1], np.float32))
    np.testing.assert_allclose(p, [-16.5, -1e-37], rtol=1e-6)


# ---- saving, copies, borders

ALL = {"use_ema": True, "ema_momentum": 0.8, "ema_overwrite_frequency": 2, "gradient_accumulation_steps": 4}


@pytest.mark.parametrize("cls", OPTIMIZERS.values(), ids=lambda c: c.__name__)
def test_a_partly_filled_accumulator_survives_saving(cls):
    p, gradients = draw(20, 18, np.float32)
    o = fresh(cls(**ALL), p, OFFSETS)
    for g in gradients[:6]:
        o.apply(p, g.copy())
    q, r = p.copy(), p.copy()
    other, copied = fresh(cls(**ALL), q, OFFSETS), copy.deepcopy(o)
    other.set_state(json.loads(json.dumps({k: v.tolist() for k, v in o.state().items()})))
    for g in gradients[6:]:
        for one, vector in ((o, p), (other, q), (copied, r)):
            assert one.apply(vector, g.copy())
    np.testing.assert_array_equal(p, q)
    np.testing.assert_array_equal(p, r)
    assert o.calls == other.calls == copied.calls == 18 and o.iterations == 4


@pytest.mark.parametrize(
    "optimizer",
    [
        Adam(use_ema=True),
        SGD(0.1, weight_decay=0.1, **ALL),
        Nadam(0.02, gradient_accumulation_steps=2, global_clipnorm=1.0),
        RMSprop(0.01, use_ema=True, ema_overwrite_frequency=3, clipnorm=0.5),
        Lion(0.01, gradient_accumulation_steps=3, clipvalue=0.5),
        Adagrad(0.1, use_ema=True, gradient_accumulation_steps=2),
    ],
    ids=lambda o: type(o).__name__,
)
def test_the_battery_holds(optimizer):
    check_optimizer(optimizer)


def test_adagrad_starts_only_its_own_vector():
    p = np.zeros(3)
    o = fresh(Adagrad(**ALL), p)
    for _ in range(2):
        state = o.state()
        np.testing.assert_array_equal(state["accumulator"], np.full(3, 0.1))
        assert not state["average"].any() and not state["gradient_accumulator"].any()
        o.apply(p, np.ones(3))
        o.reset()


def test_bad_states_change_nothing():
    p, gradients = draw(20, 3)
    o = fresh(SGD(use_ema=True, gradient_accumulation_steps=2), p)
    for g in gradients:
        o.apply(p, g)
    good = o.state()
    for state, message in [
        ({**good, "accumulated": np.array(2)}, "accumulated must be below the 2 accumulation steps, got 2"),
        ({**good, "accumulated": np.zeros(1, int)}, "accumulated must be a scalar"),
        ({**good, "accumulated": np.array(-1)}, "accumulated: expected an integer"),
        ({k: v for k, v in good.items() if k != "average"}, "expected the names"),
        ({**good, "gradient_accumulator": np.zeros(3)}, "gradient_accumulator must hold floats"),
    ]:
        with pytest.raises(ValueError, match=message):
            o.set_state(state)
        for name, value in o.state().items():
            np.testing.assert_array_equal(value, good[name])
    with pytest.raises(ValueError, match="expected the names"):
        fresh(SGD(), p).set_state(good)


def test_bad_options():
    for options, error, message in [
        ({"use_ema": 1}, TypeError, "use_ema: expected True or False"),
        ({"ema_momentum": 1.1}, ValueError, "ema_momentum: expected a finite number >= 0 and <= 1"),
        ({"ema_momentum": None}, TypeError, "ema_momentum: expected a number"),
        ({"ema_overwrite_frequency": 0}, ValueError, "ema_overwrite_frequency: expected an integer of at least 1"),
        ({"ema_overwrite_frequency": 1.5}, TypeError, "ema_overwrite_frequency: expected an integer"),
        ({"gradient_accumulation_steps": 1}, ValueError, "gradient_accumulation_steps: expected an integer of at leas"),
        ({"gradient_accumulation_steps": True}, TypeError, "gradient_accumulation_steps: expected an integer"),
    ]:
        with pytest.raises(error, match=message):
            Adam(**options)
    assert Adam(ema_momentum=0).ema_momentum == 0 and Adam(ema_momentum=1).ema_momentum == 1
    assert type(Adam(gradient_accumulation_steps=np.int32(2)).gradient_accumulation_steps) is int
    p = np.zeros(20)
    for trainable in ([True] * 4, [1, 0, 1, 0, 1], True, ["a"] * 5):
        with pytest.raises(ValueError, match="trainable: expected 5 booleans"):
            fresh(SGD(), p, OFFSETS, trainable)
    o = fresh(SGD(), p)
    for name, value in (("use_ema", True), ("gradient_accumulation_steps", 2), ("ema_momentum", 0.5)):
        with pytest.raises(AttributeError, match=f"{name}: fixed once the optimizer is built"):
            setattr(o, name, value)


def test_averages_of_float32_stay_close_to_exact_ones():
    p, gradients = draw(50, 100, np.float32)
    trajectory = p.astype(float) - 0.1 * gradients.astype(float).cumsum(0)
    average = trajectory[0]
    o = fresh(SGD(0.1, use_ema=True, ema_momentum=0.9), p)
    for k, g in enumerate(gradients):
        average = 0.9 * average + 0.1 * trajectory[k] if k else average
        o.apply(p, g)
    np.testing.assert_allclose(o.state()["average"], average, atol=1e-5)
