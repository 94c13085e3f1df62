"""Random numbers: a twin from the paper, statistics, threads; and the layers that use them."""

import json
import math

import numpy as np
import pytest

from elman import Sequential, num_threads
from elman.jit import DISABLED
from elman.kernels.random import CHUNK, add_normal, dropout, dropout_mask
from elman.layers import Dense, Dropout, GaussianNoise, SpatialDropout1D

DTYPES = (np.float32, np.float64)

# ---- the twin: SplitMix64 as published, on arrays

M = np.uint64


def mix(z):
    z = (z ^ (z >> M(30))) * M(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> M(27))) * M(0x94D049BB133111EB)
    return z ^ (z >> M(31))


def words(key, draw, n):
    golden = M(0x9E3779B97F4A7C15)
    key, draw = np.array([key], np.int64).astype(M), np.array([draw], np.int64).astype(M)
    start = mix(mix(key + golden) + draw * golden)
    return mix(start + (np.arange(n, dtype=M) + M(1)) * golden)


def mask_twin(key, draw, rate, shape, dtype):
    kept = words(key, draw, math.prod(shape)) >= M(int(rate * 2.0**64))
    return (kept * (1 / (1 - rate))).astype(dtype).reshape(shape)


def normal_twin(key, draw, n):
    w = words(key, draw, n)
    u = ((w >> M(32)).astype(float) + 0.5) / 2**32
    v = ((w & M(2**32 - 1)).astype(float) + 0.5) / 2**32
    return np.sqrt(-2 * np.log(u)) * -np.cos(np.pi * v)


def test_the_published_numbers_of_splitmix64():
    """The first outputs for seed 1234567, from its author's C program."""
    z = (np.arange(3, dtype=M) + M(1)) * M(0x9E3779B97F4A7C15) + M(1234567)
    assert mix(z).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("key", "draw", "rate"), [(0, 0, 0.5), (7, 1, 0.1), (2**63 - 1, 12345, 0.93), (-3, 2, 0.3)])
def test_masks_equal_the_twin_to_the_bit(dtype, key, draw, rate):
    shape = (3, 4001)
    mask = dropout_mask(key, draw, rate, shape, dtype)
    assert mask.dtype == dtype
    expected = mask_twin(key, draw, rate, shape, dtype)
    np.testing.assert_array_equal(mask, expected)
    x = np.random.default_rng(0).normal(size=shape).astype(dtype)
    np.testing.assert_array_equal(dropout(key, draw, rate, x), x * expected)


def test_normal_numbers_equal_the_twin():
    n = 3 * CHUNK + 5
    got = add_normal(5, 3, 1.0, np.zeros(n))
    np.testing.assert_allclose(got, normal_twin(5, 3, n), rtol=1e-13, atol=1e-15)
    x = np.random.default_rng(1).normal(size=n).astype(np.float32)
    noise = (0.3 * normal_twin(5, 3, n)).astype(np.float32)
    # A half-way case may round the other way; the sum then moves by an ulp of the noise.
    np.testing.assert_allclose(add_normal(5, 3, 0.3, x), x + noise, rtol=1.2e-7, atol=1.2e-7)


@pytest.mark.skipif(DISABLED, reason="plain Python takes seconds")
def test_masks_look_random():
    """Mean, neighbours, keys and draws: all within 4.5 standard deviations of independent decisions."""
    n, rate = 400_000, 0.3
    dropped = dropout_mask(11, 0, rate, (n,), np.float32) == 0
    spread = math.sqrt(rate * (1 - rate) / n)
    assert abs(dropped.mean() - rate) < 4.5 * spread
    others = {
        "next draw": dropout_mask(11, 1, rate, (n,), np.float32) == 0,
        "next key": dropout_mask(12, 0, rate, (n,), np.float32) == 0,
        **{f"lag {k}": np.roll(dropped, k) for k in (1, 2, 3, 16, 64, 1000, CHUNK)},
    }
    for what, other in others.items():
        correlation = ((dropped - rate) * (other - rate)).mean() / (rate * (1 - rate))
        assert abs(correlation) < 4.5 / math.sqrt(n), what
    # Runs of 16 decisions: the number dropped has the variance of a binomial.
    counts = dropped.reshape(-1, 16).sum(axis=1)
    variance = 16 * rate * (1 - rate)
    assert abs(counts.var() / variance - 1) < 4.5 * math.sqrt(2 / counts.size)


@pytest.mark.skipif(DISABLED, reason="plain Python takes seconds")
def test_normal_numbers_look_normal():
    n = 400_000
    z = add_normal(3, 9, 1.0, np.zeros(n))
    for power, moment, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:
        assert abs((z**power).mean() - moment) < 4.5 * math.sqrt(variance / n), power
    for lag in (1, 2, 16, CHUNK):
        assert abs((z * np.roll(z, lag)).mean()) < 4.5 / math.sqrt(n), lag
    # Kolmogorov's statistic against the normal distribution function; 2.2 is exceeded by 1 sample in 8,000.
    cdf = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in np.sort(z)])
    assert np.abs(cdf - (np.arange(n) + 0.5) / n).max() * math.sqrt(n) < 2.2


def test_bits_do_not_depend_on_threads(thread_counts):
    x = np.random.default_rng(2).normal(size=(7, 3 * CHUNK + 3)).astype(np.float32)
    for layer in (Dropout(0.4, seed=3), GaussianNoise(0.7, seed=3)):
        found = []
        for threads in thread_counts:
            with num_threads(threads):
                found.append(layer.forward(x, training=True).copy())
        for other in found[1:]:
            np.testing.assert_array_equal(other, found[0])


# ---- layers

X = np.random.default_rng(3).normal(size=(4, 5, 3))


def drawn(layer, key=8, draw=2, x=X):
    layer.build_alone(x.shape[1:], x.dtype)
    layer.key, layer.draw = key, draw
    return layer.forward(x, training=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dropout_and_its_gradient_use_the_mask_of_key_and_draw(dtype):
    x, layer = X.astype(dtype), Dropout(0.4)
    mask = mask_twin(8, 2, 0.4, x.shape, dtype)
    assert 0 < (mask == 0).sum() < mask.size
    np.testing.assert_array_equal(drawn(layer, x=x), x * mask)
    layer.draw += 1  # the gradient belongs to the forward that was
    layer.forward(2 * x, training=False)
    dy = np.cos(x)
    np.testing.assert_array_equal(layer.backward(dy, input_gradient=True), dy * mask)
    assert layer.backward(dy, input_gradient=False) is None
    np.testing.assert_array_equal(layer.forward(x, training=True), x * mask_twin(8, 3, 0.4, x.shape, dtype))


def test_spatial_dropout_drops_features_for_all_steps():
    layer = SpatialDropout1D(0.4)
    mask = mask_twin(8, 2, 0.4, (4, 1, 3), float)
    assert 0 < (mask == 0).sum() < mask.size
    np.testing.assert_array_equal(drawn(layer), X * mask)
    np.testing.assert_array_equal(layer.backward(np.cos(X), input_gradient=True), np.cos(X) * mask)
    assert layer.backward(X, input_gradient=False) is None


def test_gaussian_noise_adds_numbers_of_key_and_draw():
    layer = GaussianNoise(0.5)
    np.testing.assert_allclose(drawn(layer), X + 0.5 * normal_twin(8, 2, X.size).reshape(X.shape), rtol=0, atol=1e-14)
    np.testing.assert_array_equal(layer.backward(np.cos(X), input_gradient=True), np.cos(X))
    assert layer.backward(X, input_gradient=False) is None


@pytest.mark.parametrize("make", [Dropout, SpatialDropout1D, GaussianNoise])
def test_seed_takes_the_place_of_the_models_key(make):
    np.testing.assert_array_equal(drawn(make(0.5, seed=8), key=1), drawn(make(0.5), key=8))
    assert (drawn(make(0.5, seed=0), key=8) != drawn(make(0.5), key=8)).any()
    assert (drawn(make(0.5, seed=8), draw=3) != drawn(make(0.5, seed=8))).any()


@pytest.mark.parametrize(
    "layer", [Dropout(0.5), SpatialDropout1D(0.5), GaussianNoise(0.5)], ids=lambda v: type(v).__name__
)
def test_inference_and_rate_0_return_the_input_itself(layer):
    assert layer.forward(X, training=False) is X
    none = type(layer)(0)
    assert none.forward(X, training=True) is X
    assert none.backward(X, input_gradient=True) is X
    np.testing.assert_array_equal(layer(X), X)


@pytest.mark.parametrize(
    "layer", [Dropout(0.5), SpatialDropout1D(0.5), GaussianNoise(0.5)], ids=lambda v: type(v).__name__
)
def test_nan_stays_nan_and_inputs_of_any_strides_are_left_alone(layer):
    x = np.full((3, 4, 2), np.nan)
    assert np.isnan(drawn(layer, x=x)).all()
    wide = np.random.default_rng(4).normal(size=(4, 3, 5)).transpose(0, 2, 1)
    before = wide.copy()
    wide.flags.writeable = False
    np.testing.assert_array_equal(drawn(layer, x=wide), drawn(layer, x=before))
    np.testing.assert_array_equal(wide, before)


@pytest.mark.parametrize(
    "layer", [Dropout(0.3), SpatialDropout1D(0.3), GaussianNoise(0.3)], ids=lambda v: type(v).__name__
)
def test_masks_pass(layer):
    layer.build_alone((5, 3), np.dtype(float))
    layer.mask = np.ones((4, 5), bool)
    assert layer.output_mask(X) is layer.mask


def test_gradients_through_noise_by_finite_differences():
    """A model that draws the same numbers at every step: its loss is a smooth function of the weights."""
    noise = [Dropout(0.3, seed=1), SpatialDropout1D(0.4, seed=2), GaussianNoise(0.2, seed=3)]
    layers = [Dense(4, "tanh"), noise[0], Dense(3, "tanh"), noise[1], Dense(4, "tanh"), noise[2], Dense(2)]
    shape = X.shape[1:]
    for layer in layers:
        layer.build_alone(shape, np.dtype(float))
        shape = layer.output_shape

    def forward():
        y = X
        for layer in layers:
            y = layer.forward(y, training=True)
        return y

    y = forward()
    dy = np.sin(np.arange(y.size)).reshape(y.shape)
    back = dy
    for layer in layers[::-1]:
        back = layer.backward(back, input_gradient=True)
    kernel, gradient = layers[0].parameters[0], layers[0].gradients[0].copy()
    direction = np.random.default_rng(5).normal(size=kernel.shape)
    values = []
    for step in (1e-5, -2e-5):
        kernel += step * direction
        values.append(float((forward() * dy).sum()))
    numeric, exact = (values[0] - values[1]) / 2e-5, float((gradient * direction).sum())
    assert abs(numeric) > 1e-2
    assert abs(numeric - exact) < 1e-7 * abs(numeric)


def test_inside_a_model_inference_is_without_noise():
    layers = [Dense(4), Dropout(0.5), GaussianNoise(1.0), Dense(2)]
    model, plain = Sequential(layers, seed=0), Sequential([Dense(4), Dense(2)], seed=0)
    np.testing.assert_array_equal(model.predict(X[:, 0]), plain.predict(X[:, 0]))


# ---- configuration and bad input


@pytest.mark.parametrize(
    "layer",
    [Dropout(0.25, seed=3, name="mine"), SpatialDropout1D(0.1), GaussianNoise(2, seed=1)],
    ids=lambda v: type(v).__name__,
)
def test_configurations_survive_json(layer):
    config = json.loads(json.dumps(layer.get_config()))
    again = type(layer).from_config(config)
    assert again.get_config() == layer.get_config() == config
    np.testing.assert_array_equal(drawn(again), drawn(layer))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Dropout(1.0), ValueError, r"rate: expected a rate from 0 to below 1, got 1.0"),
        (lambda: SpatialDropout1D(1.5), ValueError, r"rate: expected a finite number >= 0 and <= 1, got 1.5"),
        (lambda: Dropout(-0.1), ValueError, r"rate: .* got -0.1"),
        (lambda: Dropout(float("nan")), ValueError, r"rate: .* got nan"),
        (lambda: Dropout("half"), TypeError, r"rate: expected a number, got str 'half'"),
        (lambda: Dropout(0.5, seed=-1), ValueError, r"seed: expected an integer of at least 0, got -1"),
        (lambda: GaussianNoise(-1), ValueError, r"stddev: expected a finite number >= 0, got -1"),
        (lambda: GaussianNoise(0.1, seed=0.5), TypeError, r"seed: expected an integer, got float 0.5"),
        (lambda: SpatialDropout1D(0.5)(np.ones((2, 3))), ValueError, r"takes \(time, features\), got \(3,\)"),
    ],
)
def test_bad_input(make, error, message):
    with pytest.raises(error, match=message):
        make()
