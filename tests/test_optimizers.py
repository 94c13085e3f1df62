"""Optimizers: trajectories against twins and Keras's numbers, clipping, state, borders."""

import copy
import itertools
import json

import numpy as np
import pytest

from elman import optimizers
from elman.optimizers import OPTIMIZERS, SGD, Adadelta, Adagrad, Adam, Adamax, AdamW, Lion, Nadam, RMSprop
from elman.testing import check_optimizer
from elman.threads import get_num_threads, num_threads

CASES = [
    SGD(),
    SGD(0.1, momentum=0.9),
    SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.05),
    Adam(),
    Adam(0.01, 0.8, 0.95, 1e-3),
    AdamW(0.01),
    RMSprop(),
    RMSprop(0.01, rho=0.8, momentum=0.7),
    RMSprop(0.01, centered=True, weight_decay=0.1),
    RMSprop(0.01, momentum=0.5, centered=True, epsilon=1e-3),
    Adam(0.01, 0.8, 0.6, 1e-3, amsgrad=True),
    AdamW(0.01, amsgrad=True),
    Adagrad(),
    Adagrad(0.05, 0.5, 1e-3, weight_decay=0.1),
    Adadelta(),
    Adadelta(1.0, 0.8, 1e-3),
    Adamax(),
    Adamax(0.02, 0.7, 0.9, 1e-3),
    Nadam(),
    Nadam(0.02, 0.7, 0.9, 1e-3, weight_decay=0.1),
    Lion(),
    Lion(0.02, 0.6, 0.8, weight_decay=0.1),
]
cases = pytest.mark.parametrize("optimizer", CASES, ids=str)


def fresh(optimizer, parameters, offsets=None):
    """A built copy, so that no test leaves its state in the table."""
    made = type(optimizer).from_config(optimizer.get_config())
    made.build(parameters, np.array([0, parameters.size]) if offsets is None else np.asarray(offsets))
    return made


def draw(n, steps, dtype, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(n).astype(dtype), rng.standard_normal((steps, n)).astype(dtype)


def twin(o, p, gradients):
    """The trajectory's end, in float64, from the published formulas."""
    m, v, c = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    lr, product = o.learning_rate, 1.0
    if isinstance(o, Adagrad):
        v += o.initial_accumulator_value
    for t, g in enumerate(gradients, 1):
        if o.weight_decay is not None:
            p = p * (1 - lr * o.weight_decay)
        if isinstance(o, Adam):
            m = o.beta_1 * m + (1 - o.beta_1) * g
            v = o.beta_2 * v + (1 - o.beta_2) * g**2
            c = np.maximum(c, v)
            alpha = lr * np.sqrt(1 - o.beta_2**t) / (1 - o.beta_1**t)
            p = p - alpha * m / (np.sqrt(c if o.amsgrad else v) + o.epsilon)
        elif isinstance(o, Nadam):
            now, following = (o.beta_1 * (1 - 0.5 * 0.96**s) for s in (t, t + 1))
            product *= now
            m = o.beta_1 * m + (1 - o.beta_1) * g
            v = o.beta_2 * v + (1 - o.beta_2) * g**2
            ahead = following * m / (1 - product * following) + (1 - now) * g / (1 - product)
            p = p - lr * ahead / (np.sqrt(v / (1 - o.beta_2**t)) + o.epsilon)
        elif isinstance(o, Adamax):
            m = o.beta_1 * m + (1 - o.beta_1) * g
            v = np.maximum(o.beta_2 * v, abs(g))
            p = p - lr / (1 - o.beta_1**t) * m / (v + o.epsilon)
        elif isinstance(o, Adagrad):
            v = v + g**2
            p = p - lr * g / np.sqrt(v + o.epsilon)
        elif isinstance(o, Adadelta):
            v = o.rho * v + (1 - o.rho) * g**2
            s = g * np.sqrt(c + o.epsilon) / np.sqrt(v + o.epsilon)
            c = o.rho * c + (1 - o.rho) * s**2
            p = p - lr * s
        elif isinstance(o, Lion):
            p = p - lr * np.sign(o.beta_1 * m + (1 - o.beta_1) * g)
            m = o.beta_2 * m + (1 - o.beta_2) * g
        elif isinstance(o, RMSprop):
            v = o.rho * v + (1 - o.rho) * g**2
            c = o.rho * c + (1 - o.rho) * g
            s = lr * g / np.sqrt(v - (c**2 if o.centered else 0) + o.epsilon)
            m = o.momentum * m + s
            p = p - m
        else:
            m = o.momentum * m - lr * g
            p = p + (o.momentum * m - lr * g if o.nesterov else m)
    return p


@cases
@pytest.mark.parametrize("n", [1, 7, 40])
@pytest.mark.parametrize(("dtype", "budget"), [(np.float64, 1e-13), (np.float32, 3e-6)])
def test_ten_steps_follow_the_formulas(optimizer, n, dtype, budget):
    p, gradients = draw(n, 10, dtype)
    expected = twin(optimizer, p.astype(float), gradients.astype(float))
    o = fresh(optimizer, p)
    for g in gradients:
        kept = g.copy()
        o.apply(p, g)
        np.testing.assert_array_equal(g, kept)
    np.testing.assert_allclose(p, expected, rtol=budget, atol=budget)
    assert o.iterations == 10 and p.dtype == dtype


KERAS = [
    (SGD(0.1), [0.94, 2.12, 2.82, -1.24, 0.53]),
    (SGD(0.1, momentum=0.9), [0.9049, 2.1902, 2.7147]),
    (SGD(0.1, momentum=0.9, nesterov=True), [0.85441, 2.29118, 2.56323]),
    (Adam(), [0.997077, 2.002923, 2.997077]),
    (AdamW(), [0.997065, 2.002899, 2.997041]),
    (RMSprop(), [0.99139, 2.00861, 2.99139]),
    (RMSprop(momentum=0.9, centered=True), [0.982041, 2.017959, 2.982041, -1.0179591, 0.5179569]),
    (RMSprop(centered=True), [0.9905663, 2.009434, 2.990566, -1.009434, 0.509433]),
    (RMSprop(momentum=0.9), [0.9834115, 2.0165889, 2.9834111, -1.0165889, 0.516587]),
    (Adam(weight_decay=0.1, clipnorm=0.3), [0.9967004, 2.0023994, 2.9961007, -1.0026996, 0.5028495]),
    (SGD(global_clipnorm=0.5, momentum=0.9), [0.9949, 2.0101998, 2.9847, -1.0204, 0.5025499]),
    (SGD(clipvalue=0.25), [0.9945, 2.0070002, 2.9924998, -1.0075002, 0.503]),
]


@pytest.mark.parametrize(("optimizer", "expected"), KERAS, ids=[str(row[0]) for row in KERAS])
def test_numbers_of_keras_3_15(optimizer, expected):
    p = np.array([1, 2, 3, -1, 0.5], np.float32)
    o = fresh(optimizer, p, [0, 3, 5])
    for t in (1, 2, 3):
        o.apply(p, t * np.array([0.1, -0.2, 0.3, 0.4, -0.05], np.float32))
    np.testing.assert_allclose(p[: len(expected)], expected, atol=1.5e-6)


# Twelve steps of Keras in float64.
KERAS_64 = [
    (Adam(amsgrad=True), [0.9927087873, 2.0072912578, 2.9927087271, -1.0072912804, 0.5072911224]),
    (
        Adam(learning_rate=0.02, beta_1=0.7, beta_2=0.6, epsilon=0.001, amsgrad=True),
        [0.908239086, 2.0921066386, 2.9077773426, -1.0922808139, 0.5910797399],
    ),
    (AdamW(amsgrad=True), [0.9926609902, 2.0071950581, 2.9925649322, -1.0072430796, 0.5072669211]),
    (Adagrad(), [0.9985440024, 2.0020343718, 2.9976985756, -1.0024451295, 0.5008797161]),
    (
        Adagrad(learning_rate=0.05, initial_accumulator_value=0.5, epsilon=0.001, weight_decay=0.1),
        [0.9035191432, 1.9478562246, 2.7433508477, -1.0343725333, 0.4909912255],
    ),
    (Adadelta(), [0.9999945042, 2.0000054961, 2.9999945038, -1.0000054962, 0.5000054945]),
    (
        Adadelta(learning_rate=1.0, rho=0.8, epsilon=0.001),
        [0.7598898531, 2.2670999344, 2.7264152564, -1.2760059855, 0.6869595491],
    ),
    (Adamax(), [0.9953974801, 2.004602521, 2.9953974786, -1.0046025216, 0.5046025175]),
    (
        Adamax(learning_rate=0.02, beta_1=0.7, beta_2=0.9, epsilon=0.001),
        [0.9130888963, 2.0871618419, 2.9127541972, -1.0872878552, 0.5864147114],
    ),
    (Nadam(), [0.995712936, 2.0042870656, 2.9957129339, -1.0042870663, 0.5042870609]),
    (
        Nadam(learning_rate=0.02, beta_1=0.7, beta_2=0.9, epsilon=0.001, weight_decay=0.1),
        [0.889381767, 2.0397082347, 2.8415014004, -1.0635984911, 0.5744119901],
    ),
    (Lion(), [0.988, 2.012, 2.988, -1.012, 0.512]),
    (
        Lion(learning_rate=0.02, beta_1=0.6, beta_2=0.8, weight_decay=0.1),
        [0.7388847268, 2.1899020168, 2.6914092226, -1.2136397689, 0.725508645],
    ),
]


@pytest.mark.parametrize(("optimizer", "expected"), KERAS_64, ids=[str(row[0]) for row in KERAS_64])
def test_twelve_steps_of_keras_3_15(optimizer, expected):
    p = np.array([1, 2, 3, -1, 0.5])
    o = fresh(optimizer, p)
    for t in range(1, 13):
        scale = t if t <= 3 else (-1) ** t * 0.7 / t
        o.apply(p, scale * np.array([0.1, -0.2, 0.3, 0.4, -0.05]))
    np.testing.assert_allclose(p, expected, rtol=0, atol=1e-9)


def test_amsgrad_never_lets_its_divisor_shrink():
    p, q = np.zeros(1), np.zeros(1)
    plain, greatest = fresh(Adam(1.0, 0, 0), p), fresh(Adam(1.0, 0, 0, amsgrad=True), q)
    for g in (4.0, 1.0):
        plain.apply(p, np.array([g]))
        greatest.apply(q, np.array([g]))
    np.testing.assert_allclose([p[0], q[0]], [-2, -1.25], rtol=1e-6)
    assert greatest.state()["velocity_hat"] == 16 and greatest.state()["velocity"] == 1
    check_optimizer(greatest)


@pytest.mark.parametrize("beta_1", [0.0, 0.9, 0.9999])
def test_nadam_after_thousands_of_steps(beta_1):
    o, product = Nadam(beta_1=beta_1), 1.0
    for t in range(1, 3001):
        now, following = (beta_1 * (1 - 0.5 * 0.96**s) for s in (t, t + 1))
        product *= now
        if t in (1, 2, 899, 999, 1000, 3000):
            expected = 0.001 * following / (1 - product * following), 0.001 * (1 - now) / (1 - product)
            np.testing.assert_allclose(o.numbers(t)[:2], expected, rtol=1e-12)


def test_adagrad_starts_and_starts_again_where_it_is_told():
    p, gradients = draw(5, 1, np.float64)
    o = fresh(Adagrad(initial_accumulator_value=0.25), p)
    for _ in range(2):
        np.testing.assert_array_equal(o.state()["accumulator"], np.full(5, 0.25))
        o.apply(p, gradients[0])
        np.testing.assert_allclose(o.state()["accumulator"], 0.25 + gradients[0] ** 2, rtol=1e-15)
        o.reset()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_clips_scale_as_said(dtype):
    offsets = [0, 2, 2, 50, 60]
    rng = np.random.default_rng(3)
    start = np.concatenate([[3, 4], rng.standard_normal(48), 1e-3 * rng.standard_normal(10)]).astype(dtype)
    zero = np.zeros(60, dtype)

    def clipped(**clip):
        g = start.copy()
        fresh(SGD(**clip), zero.copy(), offsets).apply(zero.copy(), g)
        return g.astype(float)

    exact, eps = start.astype(float), np.finfo(dtype).eps
    pieces = [exact[a:b] for a, b in itertools.pairwise(offsets)]
    each = np.concatenate([x * 1.5 / max(np.sqrt((x**2).sum()), 1.5) for x in pieces])
    np.testing.assert_allclose(clipped(clipnorm=1.5), each, rtol=4 * eps)
    np.testing.assert_allclose(clipped(global_clipnorm=1.5), exact * 1.5 / np.sqrt((exact**2).sum()), rtol=4 * eps)
    np.testing.assert_array_equal(clipped(global_clipnorm=1e6), exact)
    np.testing.assert_allclose(clipped(clipvalue=0.5), np.clip(exact, -0.5, 0.5), rtol=0)


def test_a_norm_beyond_float32_is_still_a_norm():
    g = np.array([3e30, 4e30], np.float32)
    fresh(SGD(clipnorm=5), np.zeros(2, np.float32)).apply(np.zeros(2, np.float32), g)
    np.testing.assert_allclose(g, [3, 4], rtol=1e-6)
    g = np.array([3e200, 4e200, 0.3])
    assert fresh(SGD(clipnorm=5), np.zeros(3), [0, 2, 3]).apply(np.zeros(3), g)
    np.testing.assert_allclose(g, [3, 4, 0.3], rtol=1e-12)


@cases
def test_a_gradient_that_is_not_finite_changes_nothing(optimizer):
    p, gradients = draw(40, 2, np.float32)
    o = fresh(optimizer, p)
    assert o.apply(p, gradients[0].copy()) is True
    before, state = p.copy(), o.state()
    for bad in (np.nan, np.inf, -np.inf):
        g = gradients[1].copy()
        g[39] = bad
        assert o.apply(p, g) is False
        np.testing.assert_array_equal(p, before)
        for name, value in o.state().items():
            np.testing.assert_array_equal(value, state[name], name)
    assert o.apply(p, gradients[1]) is True and o.iterations == 2


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_centered_rmsprop_survives_a_variance_rounded_below_zero(momentum):
    # The variance of a constant gradient is 0; in float32 it comes out as low as -4 here.
    p = np.linspace(1, 2, 64, dtype=np.float32)
    o = fresh(RMSprop(momentum=momentum, centered=True), p)
    for _ in range(300):
        o.apply(p, np.linspace(1000, 3000, 64, dtype=np.float32))
    assert np.isfinite(p).all()


@pytest.mark.parametrize("optimizer", [SGD(0.1, weight_decay=0.1), Adam(0.1)], ids=str)
def test_many_chunks_make_one_whole(optimizer):
    p, gradients = draw(40_003, 2, np.float64)
    expected = twin(optimizer, p, gradients)
    o = fresh(optimizer, p)
    for g in gradients:
        o.apply(p, g)
    np.testing.assert_allclose(p, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.skipif(get_num_threads() < 2, reason="needs two threads")
@cases
def test_bits_do_not_depend_on_threads(optimizer):
    results = []
    for threads in (1, 2):
        p, gradients = draw(100_003, 3, np.float32)
        o = fresh(optimizer, p)
        with num_threads(threads):
            for g in gradients:
                o.apply(p, g)
        results.append(p.tobytes() + b"".join(s.tobytes() for s in o.state().values()))
    assert results[0] == results[1]


@cases
def test_saved_state_continues_the_trajectory(optimizer):
    p, gradients = draw(40, 6, np.float32)
    o = fresh(optimizer, p)
    for g in gradients[:3]:
        o.apply(p, g)
    q, other = p.copy(), fresh(optimizer, p)
    assert set(o.state()) == {"iterations", *o.slot_names}
    other.set_state(o.state())
    twin_copy = copy.deepcopy(o)
    r = p.copy()
    for g in gradients[3:]:
        for one, vector in ((o, p), (other, q), (twin_copy, r)):
            one.apply(vector, g)
    np.testing.assert_array_equal(p, q)
    np.testing.assert_array_equal(p, r)
    assert o.iterations == other.iterations == 6


def test_state_is_a_copy_and_reset_starts_afresh():
    p, gradients = draw(7, 2, np.float64)
    start = p.copy()
    o = fresh(Adam(), p)
    o.apply(p, gradients[0])
    first, state = p.copy(), o.state()
    o.apply(p, gradients[1])
    assert state["iterations"] == 1 and not np.array_equal(state["momentum"], o.state()["momentum"])
    o.reset()
    assert o.iterations == 0 and not o.state()["velocity"].any()
    o.apply(start, gradients[0])
    np.testing.assert_array_equal(start, first)


def test_bad_states_change_nothing():
    p, gradients = draw(7, 1, np.float32)
    o = fresh(Adam(), p)
    o.apply(p, gradients[0])
    good = o.state()
    bad = [
        ({"iterations": good["iterations"]}, "expected the names"),
        ({**good, "extra": p}, "expected the names"),
        (
            {**good, "velocity": np.zeros(8, np.float32)},
            r"velocity must hold floats of shape \(7,\), got float32 of shape \(8,\)",
        ),
        ({**good, "velocity": np.zeros(7, np.int32)}, "velocity must hold floats"),
        ({**good, "iterations": np.array(-1)}, "iterations"),
        ({**good, "iterations": np.zeros(2, int)}, "scalar"),
    ]
    for state, message in bad:
        with pytest.raises(ValueError, match=message):
            o.set_state(state)
    for name, value in o.state().items():
        np.testing.assert_array_equal(value, good[name])


def test_learning_rate_may_change_and_nothing_else():
    p = np.zeros(2, np.float32)
    o = fresh(SGD(1), p)
    o.apply(p, np.ones(2, np.float32))
    o.learning_rate = 2
    o.apply(p, np.ones(2, np.float32))
    np.testing.assert_array_equal(p, [-3, -3])
    assert o.learning_rate == 2.0 and isinstance(o.learning_rate, float)
    o.learning_rate = np.float32(0)
    for bad in (-1, np.nan, np.inf):
        with pytest.raises(ValueError, match="learning_rate: expected a finite number >= 0"):
            o.learning_rate = bad
    with pytest.raises(AttributeError, match="momentum: fixed once the optimizer is built"):
        o.momentum = 0.5
    assert o.learning_rate == 0.0 and o.momentum == 0.0


def test_apply_refuses_other_vectors():
    p = np.zeros(4, np.float32)
    with pytest.raises(ValueError, match="not built yet"):
        SGD().apply(p, p)
    with pytest.raises(ValueError, match="not built yet"):
        SGD().set_state({})
    o = fresh(SGD(), p)
    for a, b, name in [
        (p[:3], p, "parameters"),
        (p, p[:3], "gradients"),
        (p, np.zeros(8, np.float32)[::2], "gradients"),
    ]:
        with pytest.raises(
            ValueError, match=f"{name}: the optimizer was built for a contiguous float32 array of shape"
        ):
            o.apply(a, b)
    with pytest.raises(ValueError, match=r"gradients: .* got float64 of shape \(4,\)"):
        o.apply(p, np.zeros(4))
    for offsets in ([0, 3], [1, 4], [0, 3, 2, 4], []):
        with pytest.raises(ValueError, match="offsets: expected ascending integers from 0 to 4"):
            SGD().build(p, np.array(offsets, int))
    with pytest.raises(ValueError, match="parameters: expected 'float32' or 'float64'"):
        SGD().build(np.zeros(4, int), np.array([0, 4]))


@cases
def test_configs_make_equal_optimizers(optimizer):
    config = json.loads(json.dumps(optimizers.serialize(optimizer)))
    other = optimizers.get(config)
    assert type(other) is type(optimizer) and other.get_config() == optimizer.get_config()
    assert optimizers.get(optimizer) is optimizer


def test_names_and_defaults():
    for name, cls in OPTIMIZERS.items():
        assert type(optimizers.get(name)) is type(optimizers.get(cls.__name__)) is type(optimizers.get(cls)) is cls
    clips = {"weight_decay": None, "clipnorm": None, "global_clipnorm": None, "clipvalue": None}
    clips |= {"use_ema": False, "ema_momentum": 0.99, "ema_overwrite_frequency": None}
    clips |= {"gradient_accumulation_steps": None}
    adam = {"learning_rate": 0.001, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}
    assert SGD().get_config() == {"learning_rate": 0.01, "momentum": 0.0, "nesterov": False, **clips}
    assert Adamax().get_config() == Nadam().get_config() == {**adam, **clips}
    assert Adam().get_config() == {**adam, "amsgrad": False, **clips}
    assert AdamW().get_config() == {**adam, "amsgrad": False, **clips, "weight_decay": 0.004}
    adagrad = {"learning_rate": 0.001, "initial_accumulator_value": 0.1, "epsilon": 1e-7}
    assert Adagrad().get_config() == {**adagrad, **clips}
    assert Adadelta().get_config() == {"learning_rate": 0.001, "rho": 0.95, "epsilon": 1e-7, **clips}
    assert Lion().get_config() == {"learning_rate": 0.001, "beta_1": 0.9, "beta_2": 0.99, **clips}
    rms = {"learning_rate": 0.001, "rho": 0.9, "momentum": 0.0, "epsilon": 1e-7, "centered": False}
    assert RMSprop().get_config() == {**rms, **clips}


def test_bad_options():
    with pytest.raises(ValueError, match="did you mean 'rmsprop'"):
        optimizers.get("rmsporp")
    with pytest.raises(TypeError, match="optimizer: expected a name"):
        optimizers.get(None)
    with pytest.raises(ValueError, match="does not fit SGD"):
        SGD.from_config({"lr": 1})
    with pytest.raises(ValueError, match=r"only one of .* got clipnorm and clipvalue"):
        Adam(clipnorm=1, clipvalue=1)
    for option in ("clipnorm", "global_clipnorm", "clipvalue"):
        with pytest.raises(ValueError, match=f"{option}: expected a finite number > 0"):
            SGD(**{option: 0})
    for make, name in [
        (lambda: SGD(-1), "learning_rate"),
        (lambda: SGD(momentum=1.5), "momentum"),
        (lambda: Adam(beta_1=1), "beta_1"),
        (lambda: Adam(epsilon=0), "epsilon"),
        (lambda: RMSprop(rho=-0.1), "rho"),
        (lambda: SGD(weight_decay=-1), "weight_decay"),
        (lambda: Adagrad(initial_accumulator_value=-0.1), "initial_accumulator_value"),
        (lambda: Adadelta(rho=1.1), "rho"),
        (lambda: Adamax(beta_2=1), "beta_2"),
        (lambda: Nadam(epsilon=0), "epsilon"),
        (lambda: Lion(beta_1=0), "beta_1"),
    ]:
        with pytest.raises(ValueError, match=f"{name}: expected a finite number"):
            make()
    for make, name in [
        (lambda: SGD(True), "learning_rate"),
        (lambda: SGD(nesterov=1), "nesterov"),
        (lambda: Adam(amsgrad=1), "amsgrad"),
        (lambda: SGD(None), "learning_rate"),
    ]:
        with pytest.raises(TypeError, match=name):
            make()
