"""Batches one by one: generators and other iterables in fit, evaluate and predict."""

import numpy as np
import pytest

import elman
from elman import Sequential
from elman.layers import GRU, Dense


def data(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


X, Y, W = data(10, 5, 2), data(10, 1, seed=1), data(10, seed=2) ** 2
CUTS = [slice(0, 4), slice(4, 8), slice(8, 10)]


def build():
    model = Sequential([GRU(3), Dense(1)], "float64", seed=3)
    model.compile("adam", "mse", metrics=["mae"])
    return model


class Batches:
    """Any iterable; begins anew each time."""

    def __init__(self, weighted=False):
        self.weighted = weighted

    def __iter__(self):
        return ((X[c], Y[c], W[c]) if self.weighted else (X[c], Y[c]) for c in CUTS)


def same(a, b):
    for v, w in zip(a.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_array_equal(v, w)


def test_batches_of_a_known_form_are_checked_and_computed_like_the_first():
    """The second batch of one form takes a short way; others among them do not, and bad values are found on it."""
    x, y, w = (np.tile(a, (3, *[1] * (a.ndim - 1)))[:24] for a in (X, Y, W))
    weights = np.where(np.arange(24) // 4 == 3, w, 1.0)

    def batches(x=x, y=y):
        for k in range(6):
            c = slice(4 * k, 4 * k + 4)
            if k == 3:
                yield x[c], y[c], weights[c]
            else:
                yield {"x": x[c], "y": y[c, 0].tolist() if k == 4 else y[c], "mask": None}

    a, b = build(), build()
    expected = a.fit(x, y, batch_size=4, shuffle=False, sample_weight=weights, verbose=0).history
    assert b.fit(batches(), verbose=0).history == expected
    same(a, b)
    doubled = {0: 1.0, 1: 2.0}
    labels = (y > 0).astype(float)
    a.fit(x, labels, batch_size=4, shuffle=False, class_weight=doubled, verbose=0)
    b.fit(((x[k : k + 4], labels[k : k + 4]) for k in range(0, 24, 4)), class_weight=doubled, verbose=0)
    same(a, b)
    for bad in (np.nan, np.inf):
        for spoiled in ({"x": x.copy()}, {"y": y.copy()}):
            ((name, array),) = spoiled.items()
            array[10] = bad
            steps = b.optimizer.iterations
            with pytest.raises(ValueError, match=f"{name}: .* values are not finite"):
                b.fit(batches(**spoiled), verbose=0)
            assert b.optimizer.iterations == steps + 2


@pytest.mark.parametrize("weighted", [False, True])
def test_batches_one_by_one_train_as_arrays_do(weighted):
    a, b, c = build(), build(), build()
    weights = W if weighted else None
    expected = a.fit(X, Y, batch_size=4, epochs=3, shuffle=False, sample_weight=weights, verbose=0).history
    assert b.fit(Batches(weighted), epochs=3, verbose=0).history == expected
    forever = (batch for _ in range(3) for batch in Batches(weighted))
    assert c.fit(forever, steps_per_epoch=3, epochs=3, verbose=0).history == expected
    same(a, b), same(a, c)
    assert a.optimizer.iterations == c.optimizer.iterations == 9


def test_a_generator_is_read_on_from_epoch_to_epoch_and_not_too_far():
    taken = []

    def endless():
        k = 0
        while True:
            taken.append(k)
            yield X[CUTS[k % 3]], Y[CUTS[k % 3]]
            k += 1

    a, b = build(), build()
    a.fit(endless(), steps_per_epoch=2, epochs=2, verbose=0)
    assert taken == [0, 1, 2, 3]
    for k in taken:
        b.train_on_batch(X[CUTS[k % 3]], Y[CUTS[k % 3]])
    same(a, b)


def test_evaluate_and_predict_on_batches_one_by_one():
    model = build()
    expected = model.evaluate(X, Y, batch_size=4, verbose=0)
    assert model.evaluate(Batches(), verbose=0) == expected
    assert model.evaluate(iter(Batches()), verbose=0) == expected
    assert model.evaluate(Batches(), steps=2, verbose=0) == pytest.approx(
        model.evaluate(X[:8], Y[:8], verbose=0), 1e-12
    )
    np.testing.assert_array_equal(model.predict(X[c] for c in CUTS), model.predict(X))
    np.testing.assert_array_equal(model.predict((X[c] for c in CUTS), steps=2), model.predict(X)[:8])

    def endless():
        for _ in range(4):
            yield X[:4]
        raise AssertionError("read too far")

    np.testing.assert_array_equal(model.predict(endless(), steps=2), np.tile(model.predict(X[:4]), (2, 1)))
    pairs = model.predict(Batches())  # as Keras: targets are passed over
    np.testing.assert_array_equal(pairs, model.predict(X))


def test_validation_on_batches_one_by_one():
    a, b = build(), build()
    first = a.fit(X, Y, validation_data=Batches(), epochs=2, verbose=0).history
    second = b.fit(X, Y, validation_data=(X, Y), validation_batch_size=4, epochs=2, verbose=0).history
    assert first == second
    few = build().fit(X, Y, validation_data=Batches(), validation_steps=2, verbose=0).history
    other = build().fit(X, Y, validation_data=(X[:8], Y[:8]), validation_batch_size=4, verbose=0).history
    assert few == other


def test_class_weights_and_windows_of_time():
    model, other = build(), build()
    labels = (Y > 0).astype(int)
    model.fit(((X[c], labels[c]) for c in CUTS), class_weight={0: 0.5, 1: 2.0}, verbose=0)
    other.fit(X, labels, batch_size=4, shuffle=False, class_weight={0: 0.5, 1: 2.0}, verbose=0)
    same(model, other)
    steps = data(10, 5, 1, seed=4)
    found = []
    for given in ([((X[c], steps[c]) for c in CUTS)], [X, steps]):
        m = Sequential([GRU(3, return_sequences=True), Dense(1)], "float64", seed=3)
        m.compile("adam", "mse")
        m.fit(*given, batch_size=4, shuffle=False, tbptt=(2, 3), verbose=0)
        found.append(m)
    same(*found)
    assert found[0].optimizer.iterations == 9


BAD = [
    ([], "the iterable gives no batch"),
    ([()], "each batch must be x, .*got 0 parts"),
    ([(X, Y, W, W)], "each batch must be x, .*got 4 parts"),
    ([(X,)], "y: targets are missing"),
    ([(X, Y[:3])], r"y: shape \(3, 1\) does not fit"),
    ([(X, np.full_like(Y, np.nan))], "y: 10 of 10 values are not finite"),
    ([(np.where(np.arange(100).reshape(X.shape) == 7, np.inf, X), Y)], "x: 1 of 100 values are not finite"),
    ([(X, Y, W[:3])], "sample_weight: shape"),
    ([("abc", Y)], "x"),
    ([None], "x|y"),
]


@pytest.mark.parametrize(("batches", "message"), BAD)
def test_batches_that_do_not_fit(batches, message):
    model = build()
    model.fit(X, Y, verbose=0)
    before = model.get_weights()
    with pytest.raises((ValueError, TypeError), match=message):
        model.fit(iter(batches), verbose=0)
    with pytest.raises((ValueError, TypeError), match=message):
        model.evaluate(iter(batches), verbose=0)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_bad_batch_later_leaves_the_updates_before_it():
    model, other = build(), build()
    with pytest.raises(ValueError, match=r"x: expected shape"):
        model.fit(iter([(X[:4], Y[:4]), (X[:4, :, :1], Y[:4])]), verbose=0)
    other.train_on_batch(X[:4], Y[:4])
    same(model, other)
    # Batches may have any number of steps and of sequences.
    model.fit(iter([(X[:4, :3], Y[:4]), (X[:7], Y[:7])]), verbose=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"y": Y}, "y: x gives batches one by one"),
        ({"sample_weight": W}, "sample_weight: x gives batches one by one"),
        ({"lengths": [1] * 10}, "lengths: x gives batches one by one"),
        ({"mask": np.ones((10, 5), bool)}, "mask: x gives batches one by one"),
        ({"validation_split": 0.5}, "validation_split: batches that come one by one cannot be split"),
        ({"epochs": 2}, "steps_per_epoch: a generator is read once"),
        ({"steps_per_epoch": 0}, "steps_per_epoch: expected an integer of at least 1"),
    ],
)
def test_arguments_that_batches_carry_themselves(arguments, message):
    model = build()
    with pytest.raises(ValueError, match=message):
        model.fit(iter(Batches()), verbose=0, **arguments)
    name = next(iter(arguments))
    if name in ("y", "sample_weight", "lengths", "mask"):
        for call in (model.evaluate, model.predict) if name in ("lengths", "mask") else (model.evaluate,):
            with pytest.raises(ValueError, match=message):
                call(iter(Batches()), verbose=0, **arguments)


def test_predictions_of_no_batch():
    with pytest.raises(ValueError, match="no batch"):
        build().predict(iter([]))


def small(*, stateful=False):
    layers = [elman.layers.GRU(3, stateful=stateful), elman.layers.Dense(1)]
    model = elman.Sequential(layers, seed=0)
    model.compile("adam", "mse")
    return model


def test_an_exhausted_iterator_is_an_error_and_no_loss_of_zero():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 4, 2)), rng.normal(size=(8, 1))
    batches = lambda: ((x[i : i + 4], y[i : i + 4]) for i in (0, 4))
    with pytest.raises(ValueError, match=r"^validation_data: the iterable gives no more batches"):
        small().fit(x, y, epochs=3, verbose=0, validation_data=batches())
    with pytest.raises(ValueError, match=r"^x: the iterable gives no more batches"):
        small().fit(batches(), steps_per_epoch=2, epochs=3, verbose=0)
    with pytest.raises(ValueError, match=r"^validation_data: the iterable gives no batch"):
        small().fit(x, y, verbose=0, validation_data=iter([]))
    history = small().fit(x, y, epochs=3, verbose=0, validation_data=_Again(batches))
    assert len(set(history.history["val_loss"])) == 3


class _Again:
    """Batches that can be iterated anew."""

    def __init__(self, make):
        self.make = make

    def __iter__(self):
        return self.make()


def test_the_first_fit_of_a_stateful_model_is_checked_as_the_second():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 4, 2)), rng.normal(size=(8, 1))
    for options, message in (
        ({"batch_size": 4}, "^shuffle: "),
        ({"batch_size": 3, "shuffle": False}, "^batch_size: "),
        ({"batch_size": 4, "shuffle": False, "tbptt": (2, 2)}, "^tbptt: "),
    ):
        with pytest.raises(ValueError, match=message):
            small(stateful=True).fit(x, y, verbose=0, **options)


@pytest.mark.parametrize("name", ["f1_score", "precision", "auc", "mae"])
def test_a_metric_that_does_not_fit_is_refused_before_anything_is_trained(name):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 4, 2)), rng.integers(0, 3, 8)
    model = elman.Sequential([elman.layers.Input((4, 2)), elman.layers.GRU(3)], seed=0)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=[name])
    before = model.get_weights()
    with pytest.raises(ValueError, match=rf"^metrics: '{name}' does not fit the model and its targets: "):
        model.fit(x, y, verbose=0)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match=r"^metrics: "):
        model.train_on_batch(x, y)


def test_validation_without_lengths_warns():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 4, 2)), rng.normal(size=(8, 1))
    with pytest.warns(UserWarning, match=r"^validation_data comes without lengths or mask"):
        small().fit(x, y, verbose=0, lengths=[1, 2, 3, 4] * 2, validation_data=(x, y))
    small().fit(x, y, verbose=0, lengths=[1, 2, 3, 4] * 2, validation_data={"x": x, "y": y, "lengths": [2] * 8})
