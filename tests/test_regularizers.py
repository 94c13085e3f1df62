"""Regularizers: values and derivatives, names, and their part in a vector of parameters and in a dense layer."""

import json

import numpy as np
import pytest

from elman import regularizers
from elman.constraints import MaxNorm, NonNeg
from elman.layers import Dense
from elman.layers.activity import activity_loss, with_activity_gradient
from elman.parameters import ParameterVector, Spec
from elman.regularizers import L1, L1L2, L2, REGULARIZERS

CASES = [
    (L1(0.3), lambda x: 0.3 * np.abs(x).sum()),
    (L2(0.7), lambda x: 0.7 * (x * x).sum()),
    (L1L2(0.3, 0.7), lambda x: 0.3 * np.abs(x).sum() + 0.7 * (x * x).sum()),
]
cases = pytest.mark.parametrize(("penalty", "formula"), CASES, ids=["l1", "l2", "l1_l2"])


def differences(f, x, step=1e-6):
    """The gradient of f at x by central differences."""
    gradient = np.empty_like(x)
    for i in np.ndindex(x.shape):
        ends = []
        for sign in (1, -1):
            moved = x.copy()
            moved[i] += sign * step
            ends.append(f(moved))
        gradient[i] = (ends[0] - ends[1]) / (2 * step)
    return gradient


@cases
@pytest.mark.parametrize("shape", [(), (7,), (3, 5), (2, 3, 4)])
def test_values_and_derivatives(penalty, formula, shape, rng):
    x = np.asarray(rng.standard_normal(shape))
    assert isinstance(penalty(x), float)
    assert penalty(x) == pytest.approx(formula(x), rel=1e-13)
    assert penalty(x.T) == pytest.approx(formula(x), rel=1e-13)
    gradient = np.asarray(rng.standard_normal(shape))
    before = gradient.copy()
    penalty.add_gradient(x, gradient)
    np.testing.assert_allclose(gradient - before, differences(formula, x), rtol=1e-6, atol=1e-7)


@cases
def test_float32_is_summed_in_float64_and_stays_float32(penalty, formula, rng):
    x = (rng.standard_normal(200_003) ** 2 + 1).astype(np.float32)
    assert penalty(x) == pytest.approx(formula(x.astype(float)), rel=1e-12)
    gradient = np.zeros_like(x)
    penalty.add_gradient(x, gradient)
    assert gradient.dtype == np.float32 and gradient.all()


def test_zero_has_no_slope_and_nan_stays():
    x, gradient = np.array([0.0, np.nan, -2.0]), np.zeros(3)
    L1L2(1.0, 1.0).add_gradient(x, gradient)
    np.testing.assert_array_equal(gradient, [0, np.nan, -5])
    for penalty, _ in CASES:
        assert np.isnan(penalty(x))


def test_names_configs_and_defaults():
    assert regularizers.get(None) is None
    for name, cls in REGULARIZERS.items():
        assert regularizers.get(name) == regularizers.get(cls.__name__) == regularizers.get(cls) == cls()
    assert (L1().l1, L2().l2, L1L2().l1, L1L2().l2) == (0.01, 0.01, 0, 0)
    for penalty, _ in CASES:
        assert regularizers.get(penalty) is penalty
        assert regularizers.get(json.loads(json.dumps(regularizers.serialize(penalty)))) == penalty


def test_bad_arguments():
    for make, error, message in [
        (lambda: L1(-0.1), ValueError, "l1: expected a finite number >= 0, got -0.1"),
        (lambda: L2(np.nan), ValueError, "l2: expected a finite number"),
        (lambda: L1L2(l2="a"), TypeError, "l2: expected a number"),
        (lambda: regularizers.get("l3"), ValueError, "regularizer: unknown name 'l3', did you mean"),
        (lambda: regularizers.get(0.1), TypeError, "regularizer: expected a name"),
        (lambda: regularizers.get({"class_name": "L1", "config": {"l2": 1}}), ValueError, "does not fit L1"),
        (lambda: Dense(1, kernel_regularizer="x"), ValueError, "kernel_regularizer: unknown name"),
        (lambda: Dense(1, bias_regularizer="x"), ValueError, "bias_regularizer: unknown name"),
        (lambda: Dense(1, activity_regularizer=1), TypeError, "activity_regularizer: expected a name"),
    ]:
        with pytest.raises(error, match=message):
            make()

    class Mine(L1):
        pass

    with pytest.raises(ValueError, match="Mine is in no registry"):
        regularizers.serialize(Mine())


# ---- in a vector of parameters


def vector(rng, *rows):
    specs = [Spec(f"p{k}", shape, lambda s, d, r: r.standard_normal(s), *rest) for k, (shape, *rest) in enumerate(rows)]
    made = ParameterVector(specs, np.dtype(float), rng)
    made.gradients[:] = rng.standard_normal(made.gradients.size)
    return made


def test_a_vector_adds_up_penalties_and_their_gradients(rng):
    made = vector(rng, ((3, 4), L2(0.5)), ((5,),), ((2, 2), L1(0.3)), ((6,), L2(9.0), None, False))
    a, _, c, _ = made.views(made.values)
    before, values = made.gradients.copy(), made.values.copy()
    expected = 0.5 * (a**2).sum() + 0.3 * abs(c).sum()
    assert made.penalty() == pytest.approx(expected, rel=1e-13)
    np.testing.assert_array_equal(made.gradients, before)
    assert made.regularize() == made.penalty()
    added = np.concatenate([a.ravel(), np.zeros(5), 0.3 * np.sign(c).ravel(), np.zeros(6)])
    np.testing.assert_allclose(made.gradients - before, added, rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(made.values, values)


def test_a_vector_without_penalties_does_nothing(rng):
    made = vector(rng, ((3, 4),), ((5,),))
    before = made.values.copy(), made.gradients.copy()
    made.constrain()
    assert made.regularize() == made.penalty() == 0.0 and isinstance(made.penalty(), float)
    np.testing.assert_array_equal([made.values, made.gradients], before)


def test_what_is_trainable_may_change(rng):
    made = vector(rng, ((3,), L2(1.0), NonNeg()), ((3,), L2(1.0), NonNeg(), False))
    np.testing.assert_array_equal(made.trainable, [True, False])
    a, b = made.views(made.values)
    made.trainable = [False, True]
    assert made.penalty() == pytest.approx((b**2).sum())
    b[:] = -1
    kept = a.copy()
    a[0] = kept[0] = -1
    made.constrain()
    np.testing.assert_array_equal(b, 0)
    np.testing.assert_array_equal(a, kept)
    with pytest.raises(ValueError, match="trainable: expected 2 booleans"):
        made.trainable = [True]


# ---- in a dense layer


def test_a_dense_layer_hands_its_options_to_the_vector():
    layer = Dense(
        3, kernel_regularizer="l1", bias_regularizer=L2(0.5), kernel_constraint="max_norm", bias_constraint=NonNeg()
    )
    kernel, bias = layer.specs((4,))
    assert (kernel.name, kernel.shape, kernel.regularizer, kernel.constraint) == ("kernel", (4, 3), L1(), MaxNorm())
    assert (bias.name, bias.shape, bias.regularizer, bias.constraint) == ("bias", (3,), L2(0.5), NonNeg())
    assert kernel.trainable is True
    assert [s.name for s in Dense(3, use_bias=False, bias_regularizer="l2").specs((4,))] == ["kernel"]
    assert [s.trainable for s in Dense(3, trainable=False).specs((4,))] == [False, False]
    other = Dense.from_config(json.loads(json.dumps(layer.get_config())))
    assert other.get_config() == layer.get_config() and other.specs((4,))[0].regularizer == L1()


@pytest.mark.parametrize("activation", ["tanh", "softmax"])
@pytest.mark.parametrize("shape", [(4, 3), (4, 5, 3)])
def test_the_penalty_of_an_output_and_its_gradients(activation, shape, rng):
    layer = Dense(2, activation, activity_regularizer=L1L2(0.3, 0.7))
    x, dy = rng.standard_normal(shape), rng.standard_normal((*shape[:-1], 2))
    layer.build_alone(shape[1:], np.dtype(float))
    assert layer.activity_loss == 0.0
    layer.set_weights([rng.standard_normal(w.shape) for w in layer.get_weights()])

    def loss(weights, x):
        z = x @ weights[0] + weights[1]
        e = np.exp(z)
        y = np.tanh(z) if activation == "tanh" else e / e.sum(-1, keepdims=True)
        return (dy * y).sum() + (0.3 * abs(y) + 0.7 * y * y).sum() / 4, y

    weights = layer.get_weights()
    y = layer.forward(x, training=True)
    value, expected = loss(weights, x)
    np.testing.assert_allclose(y, expected, rtol=1e-12)
    assert (dy * y).sum() + layer.activity_loss == pytest.approx(value, rel=1e-12)
    kept = dy.copy()
    dx = layer.backward(dy, input_gradient=True)
    np.testing.assert_array_equal(dy, kept)
    np.testing.assert_allclose(dx, differences(lambda v: loss(weights, v)[0], x), rtol=1e-6, atol=1e-8)
    by_kernel = differences(lambda v: loss([v, weights[1]], x)[0], weights[0])
    by_bias = differences(lambda v: loss([weights[0], v], x)[0], weights[1])
    np.testing.assert_allclose(layer.gradients[0], by_kernel, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(layer.gradients[1], by_bias, rtol=1e-6, atol=1e-8)


def test_an_output_without_a_penalty_costs_nothing(rng):
    y, dy = rng.standard_normal((2, 3, 2))
    assert activity_loss(None, y) == 0.0
    assert with_activity_gradient(None, y, dy) is dy
