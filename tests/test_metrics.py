"""Metrics: formulas over batches and weights, choice of accuracy, borders."""

import json

import numpy as np
import pytest

from elman import losses, metrics
from elman.metrics import (
    METRICS,
    BinaryAccuracy,
    CategoricalAccuracy,
    MeanSquaredError,
    RootMeanSquaredError,
    SparseCategoricalAccuracy,
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
names = pytest.mark.parametrize("name", sorted(METRICS))


def draw(name, n, o, rng):
    p = rng.uniform(size=(n, o))
    if name == "sparse_categorical_accuracy":
        return rng.integers(0, o, n), p
    if name == "binary_accuracy":
        return rng.integers(0, 2, (n, o)).astype(float), p
    return rng.uniform(size=(n, o)), p


@names
@pytest.mark.parametrize("o", [1, 4])
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
        if name == "root_mean_squared_error":
            expected = np.sqrt(expected)
        assert metric.result() == pytest.approx(expected, rel=1e-13)
        assert isinstance(metric.result(), float)
        metric.reset_state()
        assert metric.result() == 0.0


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
