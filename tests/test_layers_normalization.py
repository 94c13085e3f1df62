"""Layer normalisation: the formula in NumPy, gradients by finite differences, accuracy, threads."""

import json

import numpy as np
import pytest

from elman import Sequential, layers, num_threads
from elman.kernels.normalization import block_rows
from elman.layers import Dense, LayerNormalization


def twin(x, gamma, beta, epsilon):
    x = x.astype(np.float64)
    centred = x - x.mean(axis=-1, keepdims=True)
    return gamma * centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + epsilon) + beta


def built(features, dtype=np.float64, steps=None, **options):
    """A layer with random gamma and beta."""
    layer = LayerNormalization(**options)
    layer.build_alone((features,) if steps is None else (steps, features), np.dtype(dtype))
    rng = np.random.default_rng(features)
    layer.set_weights([rng.normal(1, 0.5, w.shape) for w in layer.get_weights()])
    gamma = layer.get_weights()[0] if layer.scale else np.ones(features)
    beta = layer.get_weights()[-1] if layer.center else np.zeros(features)
    return layer, gamma, beta


# Widths around the kernel's strides of four and two.
@pytest.mark.parametrize("features", [1, 2, 3, 4, 5, 7, 8, 33])
@pytest.mark.parametrize("options", [{}, {"epsilon": 0.5}, {"center": False}, {"scale": False}], ids=str)
def test_forward_equals_the_formula(features, options):
    layer, gamma, beta = built(features, **options)
    x = np.random.default_rng(0).normal(2, 3, (9, features))
    expected = twin(x, gamma, beta, layer.epsilon)
    for training in (False, True):
        np.testing.assert_allclose(layer.forward(x, training=training), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("features", [1, 2, 3, 4, 6, 9])
@pytest.mark.parametrize("options", [{"epsilon": 0.3}, {"center": False}, {"scale": False}], ids=str)
def test_gradients_by_finite_differences(features, options):
    """Random directions over x, gamma and beta, each alone, so that no small one hides behind another."""
    layer, _, _ = built(features, steps=5, **options)
    rng = np.random.default_rng(1)
    x, dy = rng.normal(1, 2, (8, 5, features)), rng.normal(size=(8, 5, features))
    assert block_rows(40) == 32  # so that there are two blocks to sum over

    def value(x):
        return float((layer.forward(x, training=False) * dy).sum())

    layer.forward(x, training=True)
    layer.forward(3 * x, training=False)  # inference in between leaves what backward needs
    dx = layer.backward(dy, input_gradient=True)
    assert dx.shape == x.shape
    arrays, gradients = [x, *layer.parameters], [dx, *(g.copy() for g in layer.gradients)]
    assert len(arrays) == 1 + layer.center + layer.scale
    for array, gradient in zip(arrays, gradients, strict=True):
        direction = rng.normal(size=array.shape)
        kept, values = array.copy(), []
        for step in (1e-5, -1e-5):
            array[...] = kept + step * direction
            values.append(value(x))
        array[...] = kept
        numeric, exact = (values[0] - values[1]) / 2e-5, float((gradient * direction).sum())
        # With one feature everything but beta is without influence.
        assert abs(numeric) > 1e-2 or features == 1
        assert abs(numeric - exact) <= 1e-7 * max(abs(numeric), 1)


def test_gradients_are_written_not_added_and_none_is_returned_unasked():
    layer, _, _ = built(5)
    x, dy = np.random.default_rng(2).normal(size=(2, 70, 5))
    layer.forward(x, training=True)
    first = [layer.backward(dy, input_gradient=True).copy(), *(g.copy() for g in layer.gradients)]
    assert layer.backward(dy, input_gradient=False) is None
    for a, b in zip(layer.gradients, first[1:], strict=True):
        np.testing.assert_array_equal(a, b)


def test_float32_is_the_rounded_float64_result():
    """At most one ulp of the terms of each result, also for rows at 1,000 with a spread of 1."""
    rng = np.random.default_rng(3)
    for centre in (0, 1000):
        layer, gamma, beta = built(96, np.float32)
        x = rng.normal(centre, 1, (300, 96)).astype(np.float32)
        dy = rng.normal(size=x.shape).astype(np.float32)
        wide = LayerNormalization()
        wide.build_alone((96,), np.dtype(np.float64))
        wide.set_weights([gamma, beta])
        expected = wide.forward(x.astype(float), training=True)
        np.testing.assert_allclose(layer.forward(x, training=True), expected, rtol=1.2e-7, atol=1e-14)
        dx, d64 = (m.backward(dy.astype(m.dtype), input_gradient=True) for m in (layer, wide))
        np.testing.assert_allclose(dx, d64, rtol=1.2e-7, atol=1e-13)
        for a, b in zip(layer.gradients, wide.gradients, strict=True):
            np.testing.assert_allclose(a, b, rtol=1.2e-7, atol=1e-11)


@pytest.mark.parametrize("rows", [257 * 32, 11_000])
def test_bits_do_not_depend_on_threads(rows, thread_counts):
    layer, _, _ = built(5, np.float32)
    rng = np.random.default_rng(4)
    x, dy = rng.normal(size=(2, rows, 5)).astype(np.float32)
    found = []
    for threads in thread_counts:
        with num_threads(threads):
            y = layer.forward(x, training=True)
            found.append([y, layer.backward(dy, input_gradient=True), *(g.copy() for g in layer.gradients)])
    for other in found[1:]:
        for a, b in zip(other, found[0], strict=True):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(layer.gradients[1], dy.sum(axis=0, dtype=float), rtol=1e-6)


def test_constant_rows_give_beta_and_nan_stays_in_its_row():
    layer, _, beta = built(3)
    x = np.array([[5.0, 5.0, 5.0], [1.0, np.nan, 2.0], [1.0, 2.0, 4.0]])
    y = layer.forward(x, training=True)
    np.testing.assert_array_equal(y[0], beta)
    assert np.isnan(y[1]).all()
    assert np.isfinite(y[2]).all()
    dx = layer.backward(np.ones((3, 3)), input_gradient=True)
    assert np.isnan(dx[1]).all()
    assert np.isfinite(dx[[0, 2]]).all()
    assert np.isnan(layer.gradients[0]).all()


def test_inside_a_model():
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(6, 4)), rng.normal(size=(6, 2))
    model = Sequential([Dense(3), LayerNormalization(), Dense(2)], "float64", seed=0)
    model.compile("sgd", "mse")
    gradients = model.gradients(x, y)
    before = model.get_weights()
    assert [w.name.split("/")[-1] for w in model.weights][2:4] == ["gamma", "beta"]
    np.testing.assert_array_equal(before[2], np.ones(3))
    np.testing.assert_array_equal(before[3], np.zeros(3))
    directions = [rng.normal(size=w.shape) for w in before]
    values = []
    for step in (1e-5, -1e-5):
        model.set_weights([w + step * d for w, d in zip(before, directions, strict=True)])
        values.append(model.test_on_batch(x, y))
    numeric = (values[0] - values[1]) / 2e-5
    assert abs(numeric) > 1e-3
    assert abs(numeric - sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))) < 1e-7 * abs(numeric)


def test_configuration_shapes_and_masks():
    layer = LayerNormalization(
        epsilon=0.1, center=False, gamma_initializer={"class_name": "Constant", "config": {"value": 2}}
    )
    again = LayerNormalization.from_config(json.loads(json.dumps(layer.get_config())))
    assert again.get_config() == layer.get_config()
    np.testing.assert_array_equal(again(np.eye(3)), layer(np.eye(3)))
    assert layer.count_params() == 3
    assert LayerNormalization(center=False, scale=False).specs((None, 4)) == []
    assert LayerNormalization().compute_output_shape((None, 4)) == (None, 4)
    sequences = LayerNormalization()
    x = np.random.default_rng(6).normal(size=(2, 4, 3))
    sequences(x)
    sequences.mask = np.ones((2, 4), bool)
    assert sequences.output_mask(x) is sequences.mask


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: LayerNormalization(epsilon=0), ValueError, r"epsilon: expected a finite number > 0, got 0"),
        (lambda: LayerNormalization(center="no"), TypeError, r"center: expected True or False"),
        (lambda: LayerNormalization(scale=1), TypeError, r"scale: expected True or False"),
        (lambda: LayerNormalization(gamma_initializer="one"), ValueError, r"unknown name 'one', did you mean 'ones'"),
        (lambda: layers.LayerNormalization().compute_output_shape((3, None)), ValueError, r"takes \(features,\) or"),
        (lambda: layers.LayerNormalization().compute_output_shape((2, 3, 4)), ValueError, r"got \(2, 3, 4\)"),
    ],
)
def test_bad_input(make, error, message):
    with pytest.raises(error, match=message):
        make()
