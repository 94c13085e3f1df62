"""Losses: formulas, gradients, Keras's numbers, borders. The twins here are written apart from the library's."""

import copy
import json
import pickle

import numpy as np
import pytest

from elman import losses
from elman.losses import (
    LOSSES,
    BinaryCrossentropy,
    CategoricalCrossentropy,
    CosineSimilarity,
    Hinge,
    Huber,
    KLDivergence,
    LogCosh,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    Poisson,
    Quantile,
    SparseCategoricalCrossentropy,
    SquaredHinge,
)
from elman.threads import get_num_threads, num_threads

CASES = [
    MeanSquaredError(),
    MeanAbsoluteError(),
    Huber(),
    Huber(delta=0.3),
    LogCosh(),
    BinaryCrossentropy(),
    BinaryCrossentropy(label_smoothing=0.1),
    BinaryCrossentropy(from_logits=True),
    BinaryCrossentropy(from_logits=True, label_smoothing=0.2),
    CategoricalCrossentropy(),
    CategoricalCrossentropy(label_smoothing=0.1),
    CategoricalCrossentropy(from_logits=True),
    CategoricalCrossentropy(from_logits=True, label_smoothing=0.2),
    SparseCategoricalCrossentropy(),
    SparseCategoricalCrossentropy(from_logits=True),
    MeanAbsolutePercentageError(),
    MeanSquaredLogarithmicError(),
    Poisson(),
    KLDivergence(),
    CosineSimilarity(),
    Hinge(),
    SquaredHinge(),
    Quantile(),
    Quantile((0.2,)),
    Quantile((0.1, 0.5, 0.8)),
]
SHAPES = [(1, 1), (5, 1), (6, 3), (7, 19)]
cases = pytest.mark.parametrize("loss", CASES, ids=str)


def draw(loss, n, o, dtype=np.float64, seed=0):
    """Random targets, outputs and weights that suit a loss; targets of crossentropies need not sum to 1."""
    rng = np.random.default_rng([seed, n, o])
    if isinstance(loss, (MeanSquaredLogarithmicError, Poisson, KLDivergence, Hinge, SquaredHinge)):
        high = 1 if isinstance(loss, KLDivergence) else 3
        y, p = high * rng.uniform(size=(n, o)), rng.uniform(0.05, high, (n, o))
        y = np.where(y > 1.5, 1.0, -1.0) if isinstance(loss, (Hinge, SquaredHinge)) else y
        return y.astype(dtype), p.astype(dtype), rng.uniform(0.1, 2, n).astype(dtype)
    if isinstance(loss, Quantile) and len(loss.quantiles) > 1:
        o = len(loss.quantiles)
    is_probability = hasattr(loss, "from_logits") and not loss.from_logits
    p = rng.uniform(0.05, 0.95, (n, o)) if is_probability else 2 * rng.standard_normal((n, o))
    y = rng.uniform(size=(n, o)) if hasattr(loss, "from_logits") else rng.standard_normal((n, o))
    y = y[:, :1].repeat(o, axis=1) if isinstance(loss, Quantile) and len(loss.quantiles) > 1 else y
    if loss.labels:
        y = rng.integers(0, o, n)
        return y, p.astype(dtype), rng.uniform(0.1, 2, n).astype(dtype)
    return y.astype(dtype), p.astype(dtype), rng.uniform(0.1, 2, n).astype(dtype)


def given(loss, y):
    """Targets as a caller gives them: one column for all quantiles."""
    return y[:, :1] if isinstance(loss, Quantile) and len(loss.quantiles) > 1 else y


def twin(loss, y, p):
    """Losses of the rows, one Python number at a time."""
    n, o = p.shape
    if loss.labels:
        y = np.array([[float(k == label) for k in range(o)] for label in y])
    s = getattr(loss, "label_smoothing", 0.0)
    out = np.zeros(n)
    for i in range(n):
        if isinstance(loss, (CategoricalCrossentropy, SparseCategoricalCrossentropy)):
            q = np.exp(p[i]) if loss.from_logits else p[i]
            out[i] = sum(-((1 - s) * y[i, k] + s / o) * np.log(q[k] / q.sum()) for k in range(o))
            continue
        if isinstance(loss, CosineSimilarity):
            out[i] = -np.dot(y[i], p[i]) / np.sqrt(np.dot(y[i], y[i]) * np.dot(p[i], p[i]))
            continue
        for k in range(o):
            e = p[i, k] - y[i, k]
            if isinstance(loss, MeanSquaredError):
                term = e**2
            elif isinstance(loss, MeanAbsoluteError):
                term = max(e, -e)
            elif isinstance(loss, Huber):
                term = e**2 / 2 if abs(e) <= loss.delta else loss.delta * (abs(e) - loss.delta / 2)
            elif isinstance(loss, LogCosh):
                term = np.log((np.exp(e) + np.exp(-e)) / 2)
            elif isinstance(loss, MeanAbsolutePercentageError):
                term = 100 * abs(e / y[i, k])
            elif isinstance(loss, MeanSquaredLogarithmicError):
                term = (np.log(1 + p[i, k]) - np.log(1 + y[i, k])) ** 2
            elif isinstance(loss, Poisson):
                term = p[i, k] - y[i, k] * np.log(p[i, k] + 1e-7)
            elif isinstance(loss, KLDivergence):
                term = o * y[i, k] * np.log(y[i, k] / p[i, k])
            elif isinstance(loss, Hinge):
                term = max(0, 1 - y[i, k] * p[i, k])
            elif isinstance(loss, SquaredHinge):
                term = max(0, 1 - y[i, k] * p[i, k]) ** 2
            elif isinstance(loss, Quantile):
                q = loss.quantiles[k % len(loss.quantiles)]
                term = (1 - q) * e if e > 0 else -q * e
            else:
                q = 1 / (1 + np.exp(-p[i, k])) if loss.from_logits else p[i, k]
                t = (1 - s) * y[i, k] + s / 2
                term = -t * np.log(q) - (1 - t) * np.log(1 - q)
            out[i] += term / o
    return out


@cases
@pytest.mark.parametrize(("n", "o"), SHAPES)
def test_value_is_the_weighted_mean_of_the_formula(loss, n, o):
    if isinstance(loss, (CategoricalCrossentropy, SparseCategoricalCrossentropy)) and not loss.from_logits and o == 1:
        o = 2  # a single probability, divided by itself, is clipped at 1 - 1e-7
    y, p, w = draw(loss, n, o)
    rows = twin(loss, y, p)
    np.testing.assert_allclose(loss.reference(y, p), rows, rtol=1e-10, atol=1e-14)
    for weights in (None, w):
        expected = np.mean(rows * (1 if weights is None else weights))
        with_gradient = loss.value_and_gradient(y, p, weights, np.empty_like(p))
        np.testing.assert_allclose(with_gradient, expected, rtol=1e-12, atol=1e-14)
        assert loss.value_and_gradient(y, p, weights, None) == with_gradient
        assert loss(given(loss, y), p, weights) == with_gradient


@cases
@pytest.mark.parametrize(("n", "o"), [(5, 1), (6, 3), (7, 19)])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradient_is_the_derivative_in_random_directions(loss, n, o, weighted):
    y, p, w = draw(loss, n, o, seed=1)
    weights = w if weighted else None
    gradient = np.full_like(p, 7.0)
    loss.value_and_gradient(y, p, weights, gradient)
    rng = np.random.default_rng(2)
    for _ in range(3):
        v, h = rng.standard_normal(p.shape), 1e-4
        f = [loss.value_and_gradient(y, p + k * h * v, weights, None) for k in (-2, -1, 1, 2)]
        numeric = (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h)
        # Steps of at most 1e-3 may cross a kink of mae and huber; the seeds are such that none does.
        np.testing.assert_allclose(np.vdot(gradient, v), numeric, rtol=1e-6, atol=1e-9)


@cases
def test_float32_stays_within_its_rounding(loss):
    y, p, w = draw(loss, 40, 6, np.float32, seed=3)
    wide = y if loss.labels else y.astype(np.float64)
    narrow_gradient, wide_gradient = np.empty_like(p), np.empty(p.shape)
    narrow = loss.value_and_gradient(y, p, w, narrow_gradient)
    exact = loss.value_and_gradient(wide, p.astype(np.float64), w.astype(np.float64), wide_gradient)
    assert abs(narrow - exact) <= 1e-6 * abs(exact)
    assert np.abs(narrow_gradient - wide_gradient).max() <= 2e-6 * np.abs(wide_gradient).max()
    assert narrow_gradient.dtype == np.float32


Y3, P3 = np.array([[0.0, 1, 0], [1, 0, 0]]), np.array([[0.2, 0.7, 0.3], [0.1, 0.6, 0.4]])
X3, W2 = np.array([[2.0, -1, 0.5], [-3, 0.25, 4]]), np.array([1.0, 0.5])
KERAS = [
    (MeanSquaredError(), X3, 6.71875, 4.046875),
    (MeanAbsoluteError(), X3, 2.125, 1.4375),
    (Huber(delta=0.75), X3, 1.3385417, 0.8828125),
    (LogCosh(), X3, 1.5692377, 1.0154622),
    (BinaryCrossentropy(), P3, 0.7776992, 0.4668907),
    (BinaryCrossentropy(label_smoothing=0.1), P3, 0.7850631, 0.4834097),
    (BinaryCrossentropy(from_logits=True), X3, 2.0511572, 1.3934342),
    (BinaryCrossentropy(from_logits=True, label_smoothing=0.1), X3, 1.9615740, 1.3340592),
    (CategoricalCrossentropy(), P3, 1.4684459, 0.8689721),
    (CategoricalCrossentropy(label_smoothing=0.1), P3, 1.4504794, 0.8774893),
    (CategoricalCrossentropy(from_logits=True), X3, 5.1327238, 3.3766897),
    (CategoricalCrossentropy(from_logits=True, label_smoothing=0.1), X3, 4.8868904, 3.2162731),
    (SparseCategoricalCrossentropy(), P3, 1.4684459, 0.8689721),
    (SparseCategoricalCrossentropy(from_logits=True), X3, 5.1327238, 3.3766897),
]


@pytest.mark.parametrize(("loss", "p", "plain", "weighted"), KERAS, ids=[str(row[0]) for row in KERAS])
def test_numbers_of_keras_3_15(loss, p, plain, weighted):
    y = Y3.argmax(axis=1) if loss.labels else Y3
    assert loss(y, p) == pytest.approx(plain, rel=3e-7)
    assert loss(y, p, sample_weight=W2) == pytest.approx(weighted, rel=3e-7)


Y23, P23 = [[1.0, 9, 2], [-5, -2, 6]], [[4.0, 8, 12], [8, 1, 3]]
Y24, P24 = [[0, 1, 0, 1], [0, 0, 1, 1]], [[-0.3, 0.2, -0.1, 1.6], [-0.25, -1.0, 0.5, 0.6]]
PUBLISHED = [
    (MeanAbsolutePercentageError(), Y23, P23, 211.8518),
    (Poisson(), [[4.0, 8, 12], [8, 1, 3]], [[1.0, 9, 2], [5, 2, 6]], -3.3065819),
    (KLDivergence(), [[0.5, 0.8, 0.12], [0.7, 0.43, 0.8]], [[0.4, 0.9, 0.12], [0.36, 0.3, 0.4]], 0.5960738),
    (Hinge(), Y24, P24, 0.50625),
    (SquaredHinge(), Y24, P24, 0.364062),
]


@pytest.mark.parametrize(("loss", "y", "p", "value"), PUBLISHED, ids=[str(row[0]) for row in PUBLISHED])
def test_numbers_that_keras_publishes(loss, y, p, value):
    assert loss(y, p) == pytest.approx(value, rel=2e-6)


def test_targets_of_zero():
    p, gradient = np.array([[0.5, -0.5]]), np.empty((1, 2))
    zeros = np.zeros_like(p)
    assert MeanAbsolutePercentageError()(zeros, p) == pytest.approx(100 * 0.5 / 1e-7)
    assert CosineSimilarity().value_and_gradient(zeros, p, None, gradient) == 0 and not gradient.any()
    assert CosineSimilarity()(p, zeros) == 0
    assert KLDivergence()(zeros, np.abs(p)) == pytest.approx(2e-7 * np.log(2e-7), rel=1e-9)
    assert MeanSquaredLogarithmicError()(zeros, zeros) == 0
    for loss in (Hinge(), SquaredHinge()):
        assert loss([[0, 1]], p) == loss([[-1, 1]], p) == 1.5 ** (1 if isinstance(loss, Hinge) else 2)


def test_no_gradient_beyond_a_clip_or_a_margin():
    p, gradient = np.array([[-0.5, 1.5, 0.5]]), np.empty((1, 3))
    KLDivergence().value_and_gradient(np.full((1, 3), 0.25), p, None, gradient)
    np.testing.assert_allclose(gradient, [[0, 0, -0.5]], rtol=1e-15)
    MeanSquaredLogarithmicError().value_and_gradient(np.full((1, 3), 0.5), p, None, gradient)
    assert gradient[0, 0] == 0 and gradient[0, 1] > 0 and gradient[0, 2] == 0
    for loss in (Hinge(), SquaredHinge()):
        loss.value_and_gradient(np.array([[1.0, 1.0, -1.0]]), np.array([[1.0, 2.0, -1.5]]), None, gradient)
        np.testing.assert_array_equal(gradient, 0)
    Quantile((0.2, 0.5, 0.9)).value_and_gradient(p, p, None, gradient)
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 5), (4, 5, 1)])
def test_one_target_for_all_quantiles(shape):
    rng = np.random.default_rng(11)
    loss, y = Quantile((0.1, 0.5, 0.9)), rng.standard_normal(shape)
    rows = shape[:-1] if shape[-1] == 1 else shape
    p, w = rng.standard_normal((*rows, 3)), rng.uniform(size=4)
    found = loss.check_target(y, p.shape)
    np.testing.assert_array_equal(found, np.repeat(y.reshape(*rows, 1), 3, axis=-1))
    parts = [Quantile((q,))(y.reshape(*rows, 1), p[..., k : k + 1], w) for k, q in enumerate(loss.quantiles)]
    assert loss(y, p, w) == pytest.approx(np.mean(parts), rel=1e-13)


def test_a_quantile_minimises_its_loss():
    y, grid = np.random.default_rng(12).standard_normal(999), np.linspace(-2, 2, 401)
    for q in (0.1, 0.5, 0.8):
        best = grid[np.argmin([Quantile((q,))(y, np.full(999, c)) for c in grid])]
        assert abs(best - np.quantile(y, q)) < 0.02


def test_bad_quantiles_and_their_targets():
    for bad in ((), (0.0,), (1.0,), (0.5, 1.2), (np.nan,)):
        with pytest.raises(ValueError, match=r"quantiles: expected .* > 0"):
            Quantile(bad)
    for bad in (0.5, "0.5", (True,)):
        with pytest.raises(TypeError, match="quantiles: expected a"):
            Quantile(bad)
    loss = Quantile((0.1, 0.9))
    with pytest.raises(ValueError, match=r"2 of them need as many outputs, .* the model's output is \(5, 3\)"):
        loss.check_target(np.zeros(5), (5, 3))
    for shape in ((5, 2), (4,), (5, 1, 1)):
        with pytest.raises(ValueError, match=r"y: shape .* \(5, 2\): one target.* expected \(5, 1\) or \(5,\)"):
            loss.check_target(np.zeros(shape), (5, 2))
    with pytest.raises(ValueError, match="y: 1 of 2 values are not finite"):
        loss.check_target([0, np.nan], (2, 2))
    # One quantile is elementwise, as any other loss.
    assert Quantile((0.3,)).check_target(np.zeros((5, 2)), (5, 2)).shape == (5, 2)


@pytest.mark.parametrize(
    ("loss", "bad", "message"),
    [
        (MeanSquaredLogarithmicError(), [0.5, -0.5], r"must lie in \[0, inf\), these span \[-0.5, 0.5\]"),
        (Poisson(), [3.0, -1.0], r"the Poisson loss must lie in \[0, inf\)"),
        (KLDivergence(), [0.5, 1.5], r"must lie in \[0, 1\]"),
        (Hinge(), [0.5, 1.0], "a hinge must be all -1 or 1, or all 0 or 1"),
        (SquaredHinge(), [0.0, -1.0], "a hinge must be all -1 or 1, or all 0 or 1"),
    ],
    ids=str,
)
def test_targets_a_formula_is_not_made_for_are_refused(loss, bad, message):
    with pytest.raises(ValueError, match=message):
        loss.check_target(bad, (2, 1))


@cases
def test_nan_stays_nan_and_stays_in_its_row(loss):
    for dtype in (np.float32, np.float64):
        y, p, w = draw(loss, 6, 3, dtype, seed=4)
        gradient = np.empty_like(p)
        loss.value_and_gradient(y, p, w, gradient)
        before = gradient.copy()
        for column in range(3):
            broken = p.copy()
            broken[2, column] = np.nan
            assert np.isnan(loss.value_and_gradient(y, broken, w, gradient))
            assert np.isnan(gradient[2, column])
            rest = np.arange(6) != 2
            np.testing.assert_allclose(gradient[rest], before[rest], rtol=1e-5)


def test_absolute_error_has_derivative_zero_at_zero():
    p, gradient = np.array([[1.0, 2.0, 3.0]]), np.empty((1, 3))
    MeanAbsoluteError().value_and_gradient(np.array([[1.0, 1.0, 4.0]]), p, None, gradient)
    np.testing.assert_array_equal(gradient * 3, [[0, 1, -1]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_cosh_is_accurate_for_tiny_and_huge_errors(dtype):
    p = np.array([[1e-3], [1e3], [1e30], [-1e30]], dtype)
    for value, exact in zip(p, [0.5e-6 - 1e-12 / 12, 1e3 - np.log(2), 1e30, 1e30], strict=True):
        assert LogCosh()(np.zeros((1, 1), dtype), value[None]) == pytest.approx(exact, rel=4e-7)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("target", [0.0, 1.0])
def test_logits_keep_accuracy_where_the_sigmoid_saturates(dtype, target):
    x = np.array([[-30.0], [-12.0], [12.0], [30.0], [80.0], [-80.0]], dtype)
    y, gradient = np.full_like(x, target), np.empty_like(x)
    value = BinaryCrossentropy(from_logits=True).value_and_gradient(y, x, None, gradient)
    sign = 1 if target == 0 else -1
    wide = x.astype(np.float64)
    np.testing.assert_allclose(value, np.logaddexp(0, sign * wide).mean(), rtol=1e-6)
    np.testing.assert_allclose(gradient, sign / (1 + np.exp(-sign * wide)) / 6, rtol=2e-6)


@pytest.mark.parametrize("loss", [CategoricalCrossentropy(True), SparseCategoricalCrossentropy(True)], ids=str)
def test_logits_of_any_size_stay_finite(loss):
    x = np.array([[1e4, -1e4, 0.0], [-3e4, -3e4, -3e4]], np.float32)
    gradient = np.empty_like(x)
    y = np.array([1, 2]) if loss.labels else np.array([[0, 1, 0], [0, 0, 1]], np.float32)
    value = loss.value_and_gradient(y, x, None, gradient)
    assert value == pytest.approx((2e4 + np.log(3)) / 2, rel=1e-6)
    third = 1 / 3
    np.testing.assert_allclose(2 * gradient, [[1, -1, 0], [third, third, third - 1]], atol=1e-6)


def test_probabilities_outside_the_clip_have_no_gradient():
    p, gradient = np.array([[0.0, 1.0, 1.5, -0.5, 0.5]]), np.empty((1, 5))
    value = BinaryCrossentropy().value_and_gradient(np.array([[1.0, 0, 1, 0, 1]]), p, None, gradient)
    assert value == pytest.approx((2 * -np.log(1e-7) + 2 * 1e-7 + np.log(2)) / 5, rel=1e-6)
    np.testing.assert_array_equal(gradient[0, :4], 0)
    assert gradient[0, 4] == pytest.approx(-2 / 5)
    for loss, y in [
        (CategoricalCrossentropy(), np.array([[1.0, 0, 0]])),
        (SparseCategoricalCrossentropy(), np.array([0])),
    ]:
        g = np.empty((1, 3))
        assert loss.value_and_gradient(y, np.array([[0.0, 0.4, 0.4]]), None, g) == pytest.approx(-np.log(1e-7))
        np.testing.assert_array_equal(g, 0)


@pytest.mark.parametrize("loss", [CategoricalCrossentropy(), SparseCategoricalCrossentropy()], ids=str)
def test_a_certain_class_is_clipped_below_one(loss):
    y, gradient = np.array([1]) if loss.labels else np.array([[0.0, 1.0]]), np.empty((1, 2))
    value = loss.value_and_gradient(y, np.array([[0.0, 3.0]]), None, gradient)
    assert value == pytest.approx(1e-7, rel=1e-6)
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("loss", [MeanSquaredError(), SparseCategoricalCrossentropy(from_logits=True)], ids=str)
@pytest.mark.parametrize("weighted", [False, True])
def test_many_chunks_make_one_whole(loss, weighted):
    y, p, w = draw(loss, 9_001, 5, seed=9)
    gradient, part = np.empty_like(p), np.empty((1_000, 5))
    value = loss.value_and_gradient(y, p, w if weighted else None, gradient)
    np.testing.assert_allclose(value, np.mean(loss.reference(y, p) * (w if weighted else 1)), rtol=1e-12)
    for start in (0, 3_000, 8_001):
        rows = slice(start, start + 1_000)
        loss.value_and_gradient(y[rows], p[rows], w[rows] if weighted else None, part)
        np.testing.assert_allclose(gradient[rows], part / 9.001, rtol=1e-12, atol=1e-18)


# ---- batches with masks

MASKED = [MeanSquaredError(), SparseCategoricalCrossentropy(from_logits=True), CosineSimilarity()]
masked = pytest.mark.parametrize("loss", MASKED, ids=str)


def batch(loss, shape, seed, dtype=np.float64):
    """Targets, outputs and weights of a shape (b, ..., O)."""
    y, p, w = draw(loss, int(np.prod(shape[:-1])), shape[-1], dtype, seed)
    return y.reshape(shape[:-1] if loss.labels else shape), p.reshape(shape), w.reshape(shape[:-1])


@masked
@pytest.mark.parametrize("shape", [(4, 6, 3), (4, 6, 2, 3)])
@pytest.mark.parametrize("weighted", [False, True])
def test_masked_steps_do_not_count(loss, shape, weighted):
    y, p, w = batch(loss, shape, 13)
    mask = np.random.default_rng(14).uniform(size=(4, 6)) < 0.6
    mask[1] = False
    spread = np.broadcast_to(mask.reshape(4, 6, *(1,) * (len(shape) - 3)), shape[:-1]).ravel()
    rows = twin(loss, y.reshape(spread.size, *y.shape[len(shape) - 1 :]), p.reshape(-1, 3))
    weights = w.ravel() if weighted else np.ones(spread.size)
    expected = sum(w * v for w, v, valid in zip(weights, rows, spread, strict=True) if valid) / spread.sum()
    broken, gradient = p.copy(), np.full_like(p, np.nan)
    broken.reshape(-1, 3)[~spread] = np.nan
    value = loss.on_batch(y, broken, w if weighted else None, mask, gradient)
    assert value == pytest.approx(expected, rel=1e-12)
    assert loss.on_batch(y, broken, w if weighted else None, mask, None) == value
    alone = np.empty((spread.sum(), 3))
    chosen = (v.reshape(spread.size, *v.shape[len(shape) - 1 :])[spread] for v in (y, p))
    loss.value_and_gradient(*chosen, weights[spread] if weighted else None, alone)
    np.testing.assert_allclose(gradient.reshape(-1, 3)[spread], alone, rtol=1e-13)
    assert not gradient.reshape(-1, 3)[~spread].any()


@masked
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_mask_of_true_changes_no_bit(loss, weighted, dtype):
    y, p, w = batch(loss, (1_001, 9, 3), 15, dtype)  # two chunks
    w = w if weighted else None
    plain, full = np.empty_like(p), np.full_like(p, np.nan)
    value = loss.on_batch(y, p, w, None, plain)
    assert loss.on_batch(y, p, w, np.ones((1_001, 9), bool), full) == value
    assert plain.tobytes() == full.tobytes()
    flat = y.reshape(-1) if loss.labels else y.reshape(-1, 3)
    assert loss.value_and_gradient(flat, p.reshape(-1, 3), None if w is None else w.ravel(), None) == value


@masked
def test_a_batch_without_a_valid_step_is_zero(loss):
    y, p, w = batch(loss, (2, 3, 4), 16)
    gradient = np.full_like(p, np.nan)
    for weights in (None, w):
        assert loss.on_batch(y, np.full_like(p, np.nan), weights, np.zeros((2, 3), bool), gradient) == 0.0
        assert not gradient.any()


def test_masked_batches_have_the_bits_of_any_number_of_threads(thread_counts):
    loss = MeanSquaredError()
    y, p, w = batch(loss, (700, 200, 2), 17, np.float32)
    mask = np.random.default_rng(18).uniform(size=(700, 200)) < 0.5
    results = []
    for threads in thread_counts:
        gradient = np.empty_like(p)
        with num_threads(threads):
            value = loss.on_batch(y, p, w, mask, gradient)
        results.append((value, gradient.tobytes()))
    assert results.count(results[0]) == len(results)


def test_sparse_equals_categorical_on_one_hot_rows():
    rng = np.random.default_rng(5)
    labels, p = rng.integers(0, 7, 30), rng.uniform(0.01, 1, (30, 7))
    for logits in (False, True):
        a, b = np.empty_like(p), np.empty_like(p)
        one = SparseCategoricalCrossentropy(logits).value_and_gradient(labels, p, None, a)
        two = CategoricalCrossentropy(logits).value_and_gradient(np.eye(7)[labels], p, None, b)
        assert one == pytest.approx(two, rel=1e-13)
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-16)


@pytest.mark.skipif(get_num_threads() < 2, reason="needs two threads")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", [MeanSquaredError(), LogCosh(), CategoricalCrossentropy(from_logits=True)], ids=str)
@pytest.mark.parametrize("shape", [(230_001, 1), (9_001, 29)])
def test_bits_do_not_depend_on_threads(loss, weighted, shape):
    y, p, w = draw(loss, *shape, np.float32, seed=6)
    results = []
    for threads in (1, 2):
        gradient = np.empty_like(p)
        with num_threads(threads):
            value = loss.value_and_gradient(y, p, w if weighted else None, gradient)
        results.append((value, gradient.tobytes()))
    assert results[0] == results[1]


def test_large_values_are_summed_in_float64():
    p = np.full((300_000, 1), 0.1, np.float32)
    assert MeanAbsoluteError()(np.zeros_like(p), p) == pytest.approx(float(np.float32(0.1)), rel=1e-9)


@pytest.mark.parametrize(
    ("shape", "output", "result"),
    [
        ((5, 1), (5, 1), (5, 1)),
        ((5,), (5, 1), (5, 1)),
        ((5, 4), (5, 4, 1), (5, 4, 1)),
        ((5, 4, 2), (5, 4, 2), (5, 4, 2)),
    ],
)
def test_targets_are_aligned(shape, output, result):
    y = np.random.default_rng(0).standard_normal(shape)
    found = losses.get("mse").check_target(y, output)
    assert found.shape == result
    np.testing.assert_array_equal(found.ravel(), y.ravel())


@pytest.mark.parametrize(
    ("shape", "output"),
    [((5, 4), (5, 1)), ((5,), (5, 2)), ((1, 5), (5, 1)), ((4, 1), (5, 1)), ((5, 1, 1), (5, 1)), ((5, 1), (5, 1, 1, 1))],
)
def test_targets_that_do_not_fit_are_refused_with_both_shapes(shape, output):
    with pytest.raises(ValueError, match="does not fit") as caught:
        losses.get("mse").check_target(np.zeros(shape), output, "y_val")
    message = str(caught.value)
    assert message.startswith("y_val") and str(shape) in message and str(output) in message


def test_labels_are_aligned_and_checked():
    sparse = SparseCategoricalCrossentropy()
    for y in ([0, 2, 1], [[0], [2], [1]], [0.0, 2.0, 1.0], np.array([0, 2, 1], np.uint8)):
        found = sparse.check_target(y, (3, 3))
        assert found.dtype == np.int64 and found.tolist() == [0, 2, 1]
    assert sparse.check_target(np.zeros((3, 4)), (3, 4, 2)).shape == (3, 4)
    for y, part in [
        ([0, 3, 1], "index (1,): 3"),
        ([0, 0, -1], "index (2,): -1"),
        ([0.5, 0, 1], "integers from 0 to 2"),
    ]:
        with pytest.raises(ValueError, match="y: class indices") as caught:
            sparse.check_target(y, (3, 3))
        assert part in str(caught.value)
    with pytest.raises(ValueError, match=r"\(3, 3\).*class indices of shape \(3,\) or \(3, 1\)"):
        sparse.check_target(np.eye(3), (3, 3))


def test_bad_targets_and_weights_are_refused():
    with pytest.raises(ValueError, match="y: 1 of 3 values are not finite"):
        CategoricalCrossentropy().check_target([[0, np.nan, 1]], (1, 3))
    with pytest.raises(ValueError, match=r"in \[0, 1\].*\[1.0, 2.0\]"):
        BinaryCrossentropy().check_target([[1.0], [2.0]], (2, 1))
    with pytest.raises(TypeError, match="y: expected numbers"):
        MeanSquaredError().check_target(np.array(["a"]), (1, 1))
    with pytest.raises(ValueError, match=r"sample_weight: shape \(3,\).*\(2, 1\).*expected \(2,\)"):
        MeanSquaredError()([[1.0], [2.0]], [[1.0], [2.0]], [1, 1, 1])
    with pytest.raises(ValueError, match="sample_weight: 1 of 2"):
        MeanSquaredError()([[1.0], [2.0]], [[1.0], [2.0]], [1, np.inf])
    with pytest.raises(ValueError, match=r"y_true: shape \(2, 2\) does not fit y_pred of shape \(2, 1\)"):
        MeanSquaredError()([[1.0, 2], [2.0, 1]], [[1.0], [2.0]])
    with pytest.raises(ValueError, match="y_pred: expected shape"):
        CategoricalCrossentropy()([1.0], [1.0])


def test_weights_per_sample_spread_over_steps():
    rng = np.random.default_rng(7)
    y, p = rng.standard_normal((2, 4, 3, 2))
    w = rng.uniform(size=4)
    rows = ((p - y) ** 2).mean(axis=-1)
    assert MeanSquaredError()(y, p, w) == pytest.approx((rows * w[:, None]).mean())
    w = rng.uniform(size=(4, 3))
    assert MeanSquaredError()(y, p, w) == pytest.approx((rows * w).mean())
    assert MeanSquaredError()(y, p, np.zeros(4)) == 0


def test_any_array_is_taken():
    rng = np.random.default_rng(8)
    y, p = rng.standard_normal((2, 6, 4))
    locked = p.copy()
    locked.flags.writeable = False
    for pred in (np.asfortranarray(p), locked, np.repeat(p, 2, axis=0)[::2], p.astype(">f8"), p.tolist()):
        assert MeanSquaredError()(y, pred) == MeanSquaredError()(y, p)
    assert MeanSquaredError()([1, 2], [1, 4]) == 2.0
    assert MeanSquaredError()([1, 2], np.array([1, 4], np.float16)) == 2.0


@cases
def test_configs_and_copies_make_equal_losses(loss):
    y, p, _ = draw(loss, 5, 3)
    y = given(loss, y)
    value = loss(y, p)
    for other in (
        losses.get(json.loads(json.dumps(losses.serialize(loss)))),
        pickle.loads(pickle.dumps(loss)),
        copy.deepcopy(loss),
    ):
        assert other == loss and other(y, p) == value
    assert losses.get(loss) is loss


def test_names():
    for name, cls in LOSSES.items():
        assert losses.get(name) == losses.get(cls.__name__) == losses.get(cls) == cls()
    for name in ("mse", "MSE"):
        assert losses.get(name) == MeanSquaredError()
    for name in ("mae", "MAE"):
        assert losses.get(name) == MeanAbsoluteError()
    assert losses.get("bce") == BinaryCrossentropy()
    assert losses.get("mape") == MeanAbsolutePercentageError() and losses.get("MSLE") == MeanSquaredLogarithmicError()
    assert losses.get("kld") == KLDivergence() and losses.get("pinball") == Quantile((0.5,))


def test_bad_identifiers_and_options():
    with pytest.raises(ValueError, match="did you mean 'mean_squared_error'"):
        losses.get("mean_square_error")
    with pytest.raises(ValueError, match="does not fit Huber"):
        losses.get({"class_name": "Huber", "config": {"dleta": 1}})
    for bad in (None, 3, {"name": "mse"}):
        with pytest.raises(TypeError, match="loss: expected a name"):
            losses.get(bad)
    for delta in (0, -1, np.nan, np.inf):
        with pytest.raises(ValueError, match="delta: expected a finite number > 0"):
            Huber(delta)
    with pytest.raises(TypeError, match="delta: expected a number, got str"):
        Huber("1")
    with pytest.raises(ValueError, match=r"label_smoothing.*>= 0 and <= 1"):
        BinaryCrossentropy(label_smoothing=1.5)
    with pytest.raises(TypeError, match="from_logits"):
        SparseCategoricalCrossentropy(from_logits=1)
