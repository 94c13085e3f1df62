"""Metrics: formulas over batches and weights, choice of accuracy, borders."""

import json

import numpy as np
import pytest

from elman import losses, metrics
from elman.metrics import (
    AUC,
    METRICS,
    BinaryAccuracy,
    BitsPerCharacter,
    CategoricalAccuracy,
    F1Score,
    MeanSquaredError,
    Perplexity,
    Precision,
    R2Score,
    Recall,
    RootMeanSquaredError,
    SparseCategoricalAccuracy,
    SparseTopKCategoricalAccuracy,
    TopKCategoricalAccuracy,
)

ROWS = {
    "mean_squared_error": lambda y, p: sum((a - b) ** 2 for a, b in zip(y, p, strict=True)) / len(p),
    "mean_absolute_error": lambda y, p: sum(abs(a - b) for a, b in zip(y, p, strict=True)) / len(p),
    "mean_absolute_percentage_error": lambda y, p: (
        100 * sum(abs(a - b) / max(abs(a), 1e-7) for a, b in zip(y, p, strict=True)) / len(p)
    ),
    "binary_accuracy": lambda y, p: sum(a == (b > 0.5) for a, b in zip(y, p, strict=True)) / len(p),
    "categorical_accuracy": lambda y, p: float(list(y).index(max(y)) == list(p).index(max(p))),
    "sparse_categorical_accuracy": lambda y, p: float(y == list(p).index(max(p))),
}
ROWS["root_mean_squared_error"] = ROWS["mean_squared_error"]
ROWS["top_k_categorical_accuracy"] = lambda y, p: float(list(y).index(max(y)) in np.argsort(p)[-5:])
ROWS["sparse_top_k_categorical_accuracy"] = lambda y, p: float(y in np.argsort(p)[-5:])
ROWS["perplexity"] = lambda y, p: -np.log(min(p[y] / sum(p), 1 - 1e-7))
ROWS["bits_per_character"] = lambda y, p: -np.log2(min(p[y] / sum(p), 1 - 1e-7))
LAST = {"root_mean_squared_error": np.sqrt, "perplexity": np.exp}


def counts(y, p, w):
    """True and false positives, false negatives, one by one."""
    tp = fp = fn = 0.0
    for row, outputs, weight in zip(y, p, w, strict=True):
        for a, b in zip(row, outputs, strict=True):
            tp += weight if b > 0.5 and a == 1 else 0
            fp += weight if b > 0.5 and a == 0 else 0
            fn += weight if b <= 0.5 and a == 1 else 0
    return tp, fp, fn


def r2(y, p, w):
    scores = []
    for a, b in zip(y.T, p.T, strict=True):
        mean = np.average(a, weights=w)
        scores.append(1 - np.sum(w * (a - b) ** 2) / np.sum(w * (a - mean) ** 2))
    return np.mean(scores)


def area(y, p, w):
    """Every pair of a positive and a negative."""
    flat = list(zip(y.ravel(), p.ravel(), np.repeat(w, p.shape[1]), strict=True))
    pairs = [(b, d, u * v) for a, b, u in flat for c, d, v in flat if a == 1 and c == 0]
    return sum(v * (1.0 if b > d else 0.5 if b == d else 0.0) for b, d, v in pairs) / sum(v for _, _, v in pairs)


WHOLE = {
    "r2_score": r2,
    "auc": area,
    "precision": lambda *batch: counts(*batch)[0] / sum(counts(*batch)[:2]),
    "recall": lambda *batch: counts(*batch)[0] / sum(counts(*batch)[::2]),
    "f1_score": lambda *batch: 2 / (sum(counts(*batch)[:2]) + sum(counts(*batch)[::2])) * counts(*batch)[0],
}
BINARY = ("binary_accuracy", "precision", "recall", "f1_score", "auc")
names = pytest.mark.parametrize("name", sorted(METRICS))


def draw(name, n, o, rng):
    p = rng.uniform(size=(n, o))
    if METRICS[name].labels:
        return rng.integers(0, o, n), p
    if name == "auc":
        p = np.round(8 * p) / 8  # ties
    if name in BINARY:
        return rng.integers(0, 2, (n, o)).astype(float), p
    return rng.uniform(size=(n, o)), p


def test_every_metric_has_its_twin():
    assert set(ROWS) | set(WHOLE) == set(METRICS)


@pytest.mark.parametrize("name", sorted(ROWS))
@pytest.mark.parametrize("o", [1, 7])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_result_is_the_running_mean_of_the_formula(name, o, weighted, dtype):
    rng = np.random.default_rng(1)
    metric = metrics.get(name)
    for _ in range(2):
        values, weights = [], []
        for n in (5, 1, 8):
            y, p = draw(name, n, o, rng)
            y, p = (y if metric.labels else y.astype(dtype)), p.astype(dtype)
            w = rng.uniform(0.1, 2, n) if weighted else np.ones(n)
            metric.update_state(y, p, w if weighted else None)
            wide = y if metric.labels else y.astype(float)
            values += [ROWS[name](a, b) for a, b in zip(wide, p.astype(float), strict=True)]
            weights += list(w)
        expected = np.dot(values, weights) / np.sum(weights)
        assert metric.result() == pytest.approx(LAST.get(name, float)(expected), rel=1e-13)
        assert isinstance(metric.result(), float)
        metric.reset_state()
        assert metric.result() == 0.0


@pytest.mark.parametrize("name", sorted(WHOLE))
@pytest.mark.parametrize("o", [1, 3])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_result_is_the_formula_of_all_rows(name, o, weighted, dtype):
    rng = np.random.default_rng(4)
    metric = metrics.get(name)
    y, p = draw(name, 20, o, rng)
    w = rng.uniform(0.1, 2, 20) if weighted else np.ones(20)
    y, p = y.astype(dtype), p.astype(dtype)
    expected = WHOLE[name](y.astype(float), p.astype(float), w)
    for _ in range(2):
        for rows in (slice(0, 7), slice(7, 8), slice(8, 20)):
            batch = p[rows].copy()
            metric.update_state(y[rows], batch, w[rows] if weighted else None)
            batch[:] = 0.0  # the memory of outputs is used again
            metric.result()
        assert metric.result() == pytest.approx(expected, rel=1e-11)
        assert isinstance(metric.result(), float)
        metric.reset_state()
        assert metric.result() == 0.0


def test_r2_of_targets_far_from_zero_and_of_constants():
    rng = np.random.default_rng(5)
    y, e = rng.standard_normal((60, 2)), 0.1 * rng.standard_normal((60, 2))
    near, far = R2Score(), R2Score()
    for rows in (slice(0, 10), slice(10, 60)):
        near.update_state(y[rows], y[rows] + e[rows])
        far.update_state(y[rows] + 2.0**24, y[rows] + e[rows] + 2.0**24)
    assert far.result() == pytest.approx(near.result(), rel=1e-6)
    constant = np.full((3, 1), 0.1)
    for off, score in ((0.0, 1.0), (0.5, 0.0), (np.nan, np.nan)):
        metric = R2Score()
        for _ in range(2):
            metric.update_state(constant, constant + off, np.array([0.1, 0.2, 0.3]))
        assert metric.result() == pytest.approx(score, nan_ok=True)
    with pytest.raises(ValueError, match="expected 2 outputs as before"):
        near.update_state(y[:, :1], y[:, :1])


def test_top_k():
    p = np.array([[0.1, 0.4, 0.2, 0.3], [0.25, 0.25, 0.25, 0.25]])
    for k in (1, 2, 3):
        labels = [[1, 3, 2][k - 1], 3]  # the k-th largest; of equal outputs each is among the k largest
        for size in (k, k - 1 or 1):
            sparse, dense = SparseTopKCategoricalAccuracy(k=size), TopKCategoricalAccuracy(k=size)
            sparse.update_state(labels, p)
            dense.update_state(np.eye(4)[labels], p)
            assert sparse.result() == dense.result() == ((size >= k) + 1) / 2
    with pytest.raises(ValueError, match="k: expected an integer of at least 1"):
        TopKCategoricalAccuracy(k=0)
    with pytest.raises(ValueError, match="y_true: class indices must be integers from 0 to 3"):
        SparseTopKCategoricalAccuracy().update_state([0, 4], p)


def test_perplexity():
    rng = np.random.default_rng(6)
    labels, x = rng.integers(0, 5, 12), 3 * rng.standard_normal((12, 5))
    logits, odds = Perplexity(from_logits=True), Perplexity()
    logits.update_state(labels, x)
    odds.update_state(labels, np.exp(x))
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    assert logits.result() == pytest.approx(np.exp(loss(labels, x)), rel=1e-12)
    assert odds.result() == pytest.approx(logits.result(), rel=1e-9)
    assert metrics.get("perplexity", loss=loss).from_logits
    assert not metrics.get("perplexity", loss=losses.get("mse")).from_logits
    logits.update_state([0], [[-5000.0, 5000.0]])
    logits.update_state([0], [[-5000.0, 5000.0]])
    assert logits.result() == np.inf
    with pytest.raises(TypeError, match="from_logits"):
        Perplexity(from_logits=2)


def test_bits_per_character():
    rng = np.random.default_rng(8)
    labels, x = rng.integers(0, 5, (3, 4)), 3 * rng.standard_normal((3, 4, 5))
    logits, odds, whole = BitsPerCharacter(from_logits=True), BitsPerCharacter(), Perplexity(from_logits=True)
    for rows in (slice(0, 1), slice(1, 3)):
        logits.update_state(labels[rows], x[rows])
        odds.update_state(labels[rows], np.exp(x[rows]))
        whole.update_state(labels[rows], x[rows])
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    assert logits.result() == pytest.approx(loss(labels, x) / np.log(2), rel=1e-12)
    assert odds.result() == pytest.approx(logits.result(), rel=1e-9)
    assert 2 ** logits.result() == pytest.approx(whole.result(), rel=1e-12)
    named = metrics.get("bits_per_character", loss=loss)
    assert type(named) is BitsPerCharacter and named.from_logits
    assert not metrics.get("bits_per_character", loss=losses.get("mse")).from_logits
    assert metrics.get(metrics.serialize(logits)).from_logits


def test_confusion_matrix():
    rng = np.random.default_rng(9)
    true, pred = rng.integers(0, 4, (2, 30, 2))
    expected = np.zeros((4, 4), np.int64)
    for a, b in zip(true.ravel(), pred.ravel(), strict=True):
        expected[a, b] += 1
    found = metrics.confusion_matrix(true, pred)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.int64 and (expected != expected.T).any()
    wide = metrics.confusion_matrix(true.astype(float), pred.astype(np.uint8), classes=6)
    np.testing.assert_array_equal(wide, np.pad(expected, (0, 2)))
    assert metrics.confusion_matrix([0], [2]).tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]
    for true, pred, classes, message in [
        ([0, 1], [0], None, r"y_pred: shape \(1,\) does not fit y_true of shape \(2,\)"),
        ([0, 2], [0, 1], 2, r"y_true: class indices must be integers from 0 to 1.*index \(1,\): 2"),
        ([0, 1], [0, -1], None, "y_pred: class indices must be integers from 0 to 1"),
        ([0, 0.5], [0, 1], None, "y_true: class indices"),
        ([0, np.nan], [0, 1], None, "y_true: 1 of 2 values are not finite"),
        ([0, 1], [0, 1], 0, "classes: expected an integer of at least 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            metrics.confusion_matrix(true, pred, classes)


@names
@pytest.mark.parametrize("kind", [bool, np.float32, np.float64])
def test_rows_of_weight_zero_are_absent(name, kind):
    rng = np.random.default_rng(7)
    y, p = draw(name, 12, 3, rng)
    weights = np.where(np.arange(12) % 3 == 1, 0, rng.uniform(1, 2, 12)).astype(kind)
    present = weights != 0
    alone, among, steps = (metrics.get(name) for _ in range(3))
    alone.update_state(y[present], p[present], None if kind is bool else weights[present])
    y, p = y.copy(), p.copy()
    p[~present] = np.nan
    y[~present] = 99  # no class, neither 0 nor 1
    among.update_state(y[:5], p[:5], weights[:5])
    among.update_state(y[5:], p[5:], weights[5:])
    # A batch without any row changes nothing, before the first and after the last.
    steps.update_state(y[1:2], p[1:2], weights[1:2])
    steps.update_state(y.reshape(4, 3, *y.shape[1:]), p.reshape(4, 3, 3), weights.reshape(4, 3))
    steps.update_state(y[1:2], p[1:2], weights[1:2])
    assert alone.result() != 0
    assert among.result() == pytest.approx(alone.result(), rel=1e-12)
    assert steps.result() == pytest.approx(alone.result(), rel=1e-12)
    absent = metrics.get(name)
    absent.update_state(y[1:2], p[1:2], weights[1:2])
    assert absent.result() == 0.0


def test_thresholds_and_missing_classes():
    y, x = np.array([[1.0], [0.0], [1.0]]), np.array([[0.2], [-0.2], [0.4]])
    for metric in (Precision(0.0), Recall(thresholds=0.0), F1Score(threshold=0.0)):
        metric.update_state(y, x)
        assert metric.result() == 1.0
        assert metrics.get(metrics.serialize(metric)).get_config() == metric.get_config()
    for metric in (Precision(), Recall(), F1Score(), AUC()):
        metric.update_state(np.zeros((3, 1)), x)
        assert metric.result() == 0.0
        with pytest.raises(ValueError, match="y_true: targets must be 0 or 1"):
            metric.update_state(2 * y, x)
    with pytest.raises(ValueError, match="thresholds: expected a finite number"):
        Precision(np.inf)
    with pytest.raises(ValueError, match="threshold: expected a finite number"):
        F1Score(np.nan)


@names
def test_steps_weigh_as_rows(name):
    rng = np.random.default_rng(2)
    y, p = draw(name, 6, 3, rng)
    w = rng.uniform(size=(2, 3))
    flat, deep, spread = (metrics.get(name) for _ in range(3))
    flat.update_state(y, p, w.reshape(6))
    deep.update_state(y.reshape(2, 3, *y.shape[1:]), p.reshape(2, 3, 3), w)
    assert deep.result() == pytest.approx(flat.result(), rel=1e-13)
    flat.reset_state()
    flat.update_state(y, p, np.repeat([1.0, 3.0], 3))
    spread.update_state(y.reshape(2, 3, *y.shape[1:]), p.reshape(2, 3, 3), [1.0, 3.0])
    assert spread.result() == pytest.approx(flat.result(), rel=1e-13)


@pytest.mark.parametrize(("name", "value"), [("mse", 0.65), ("rmse", 0.8062258), ("mae", 0.7), ("mape", 32.5)])
def test_numbers_of_keras_3_15(name, value):
    metric = metrics.get(name)
    metric.update_state([[1.0, 2.0], [3.0, -4.0]], [[1.5, 2.0], [2.0, -3.0]], sample_weight=[1.0, 3.0])
    metric.update_state([[0.5, 1.0]], [[1.0, 1.0]])
    assert metric.result() == pytest.approx(value, rel=1e-7)
    assert metric.name == name


@names
def test_infinite_outputs_give_a_number_or_nan_without_a_warning(name):
    y, p = draw(name, 6, 3, np.random.default_rng(3))
    p[4] = np.inf
    metric = metrics.get(name)
    metric.update_state(y, p)
    first = metric.result()
    metric.update_state(y, p)
    np.testing.assert_allclose(metric.result(), first)
    metric = metrics.get(name)
    metric.update_state(y[:1], p[4:5])
    if name not in ("perplexity", "bits_per_character"):
        assert not np.isnan(metric.result())


@names
def test_nan_outputs_give_nan(name):
    y, p = draw(name, 6, 3, np.random.default_rng(3))
    for dtype in (np.float32, np.float64):
        broken = p.astype(dtype)
        broken[4, 1] = np.nan
        metric = metrics.get(name)
        metric.update_state(y, broken)
        assert np.isnan(metric.result())


def test_missing_last_axis_is_aligned_and_others_are_refused():
    metric = MeanSquaredError()
    metric.update_state(np.array([1.0, 2.0]), np.array([[1.0], [4.0]]))
    assert metric.result() == 2.0
    sparse = SparseCategoricalAccuracy()
    sparse.update_state(np.array([[1], [0]]), np.eye(2)[::-1].copy())
    assert sparse.result() == 1.0
    with pytest.raises(ValueError, match=r"y_true: shape \(2,\) does not fit y_pred of shape \(2, 2\)"):
        metric.update_state(np.ones(2), np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"sample_weight: shape \(3,\) does not fit"):
        metric.update_state(np.ones((2, 1)), np.ones((2, 1)), np.ones(3))
    with pytest.raises(ValueError, match="y_pred: expected shape"):
        metric.update_state(np.ones(2), np.ones(2))
    assert metric.result() == 2.0


def test_weights_of_zero_give_zero():
    metric = RootMeanSquaredError()
    metric.update_state(np.ones((2, 1)), np.zeros((2, 1)), np.zeros(2))
    assert metric.result() == 0.0


def test_accuracy_suits_the_model():
    def of(loss, size, name="accuracy"):
        return metrics.get(name, loss=None if loss is None else losses.get(loss), output_shape=(None, size))

    assert type(of("sparse_categorical_crossentropy", 3)) is SparseCategoricalAccuracy
    assert type(of("categorical_crossentropy", 3)) is CategoricalAccuracy
    assert type(of("mse", 3, "acc")) is CategoricalAccuracy and of("mse", 3, "acc").name == "acc"
    for loss, size in [("binary_crossentropy", 1), ("binary_crossentropy", 4), ("mse", 1), (None, 1)]:
        assert type(of(loss, size)) is BinaryAccuracy and of(loss, size).threshold == 0.5
    logits = losses.BinaryCrossentropy(from_logits=True)
    metric = metrics.get("accuracy", loss=logits, output_shape=(None, 1))
    metric.update_state(np.array([[1.0], [0.0]]), np.array([[0.2], [-0.2]]))
    assert metric.result() == 1.0 and metric.name == "accuracy"
    with pytest.raises(ValueError, match="'accuracy' needs the shape"):
        metrics.get("accuracy")


def test_names_and_configs():
    for name, cls in METRICS.items():
        assert type(metrics.get(name)) is type(metrics.get(cls.__name__)) is type(metrics.get(cls)) is cls
        assert cls().name == metrics.get(name).name == name
        config = json.loads(json.dumps(metrics.serialize(cls(name="mine"))))
        assert type(metrics.get(config)) is cls and metrics.get(config).name == "mine"
        assert repr(metrics.get(config)) == repr(cls(name="mine"))
    assert metrics.get(metrics.serialize(BinaryAccuracy(threshold=0.25))).threshold == 0.25
    metric = MeanSquaredError(name="error")
    assert metrics.get(metric) is metric and metric.name == "error"
    for short in ("mse", "MSE", "mae", "MAE", "rmse", "mape", "MAPE"):
        assert metrics.get(short).name == short


def test_bad_arguments():
    with pytest.raises(ValueError, match="did you mean 'accuracy'"):
        metrics.get("acuracy")
    with pytest.raises(ValueError, match="did you mean 'rmse'"):
        metrics.get("rmsee")
    with pytest.raises(TypeError, match="metric: expected a name"):
        metrics.get(4)
    with pytest.raises(TypeError, match="name: expected a string"):
        MeanSquaredError(name=3)
    with pytest.raises(ValueError, match="threshold: expected a finite number"):
        BinaryAccuracy(threshold=np.nan)
