"""Bad input: one exception that names the argument, what came and what was expected; the model stays as it was."""

import subprocess
import sys

import numpy as np
import pytest

import elman
from elman import Sequential, optimizers
from elman.layers import GRU, LSTM, Dense, Dropout, Input, SimpleRNN

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 5, 2)).astype(np.float32)
Y = RNG.normal(size=(12, 1)).astype(np.float32)


def compiled(layers=None, loss="mse"):
    model = Sequential(layers or [Input((None, 2)), SimpleRNN(3), Dense(1)], seed=0)
    model.compile("adam", loss, metrics=["mae"])
    return model


def spoil(array, value, *at):
    array = array.copy()
    for index in at:
        array[index] = value
    return array


def state(model):
    optimizer = {} if model.optimizer is None else model.optimizer.state()
    return [
        *((w.name, w.value.tobytes()) for w in model.weights),
        *((name, value.tobytes()) for name, value in optimizer.items()),
        ("shuffle", repr(model._shuffle.bit_generator.state)),
        ("compiled", repr(model.get_compile_config())),
    ]


OBJECTS = X.astype(object)
BAD_X = {
    "rank 1": (X[:, 0, 0], r"x: expected shape \(N, \*, 2\), got \(12,\)"),
    "rank 4": (X[None], r"x: expected shape \(N, \*, 2\), got \(1, 12, 5, 2\)"),
    "number": (3.0, r"x: expected shape"),
    "features": (X[:, :, :1], r"x: expected shape \(N, \*, 2\), got \(12, 5, 1\)"),
    "two axes for two features": (X[:, :, 0], r"x: expected shape \(N, \*, 2\), got \(12, 5\)"),
    "no samples": (X[:0], r"x: the array is empty, its shape is \(0, 5, 2\)"),
    "no steps": (X[:, :0], r"x: the array is empty, its shape is \(12, 0, 2\)"),
    "nan": (
        spoil(X, np.nan, (3, 1, 1), (4, 0, 0)),
        r"x: 2 of 120 values are not finite.*first at index \(3, 1, 1\): nan",
    ),
    "inf": (spoil(X, -np.inf, (0, 4, 0)), r"x: 1 of 120 values are not finite.*first at index \(0, 4, 0\): -inf"),
    "inf and -inf": (spoil(spoil(X, np.inf, (0, 4, 0)), -np.inf, (1, 0, 0)), r"x: 2 of 120 values are not finite"),
    "beyond float32": (
        spoil(X.astype(float), 1e300, (1, 2, 0)),
        r"x: 1 of 120 values are not finite in float32.*1e\+300",
    ),
    "object": (OBJECTS, r"x: expected numbers, got an array of dtype object and shape \(12, 5, 2\)"),
    "strings": (X.astype(str), r"x: expected numbers, got an array of dtype <U"),
    "complex": (X.astype(complex), r"x: expected numbers, got an array of dtype complex128"),
    "dates": (X.astype("M8[s]"), r"x: expected numbers, got an array of dtype datetime64"),
    "ragged": ([[[1.0, 2.0]], [[1.0]]], r"x: expected an array, got nested sequences of unequal length"),
    "None": (None, r"x: expected numbers, got an array of dtype object"),
}
BAD_Y = {
    "rows": (Y[:11], r"y: shape \(11, 1\) does not fit the model's output of shape \(12, 1\)"),
    "columns": (np.zeros((12, 2)), r"y: shape \(12, 2\) does not fit the model's output of shape \(12, 1\); expected"),
    "axes": (np.zeros((12, 5, 1)), r"y: shape \(12, 5, 1\) does not fit the model's output of shape \(12, 1\)"),
    "empty": (Y[:0], r"y: the array is empty"),
    "nan": (spoil(Y, np.nan, (7, 0)), r"y: 1 of 12 values are not finite.*first at index \(7, 0\): nan"),
    "inf": (spoil(Y, np.inf, (7, 0), (9, 0)), r"y: 2 of 12 values are not finite.*first at index \(7, 0\): inf"),
    "beyond float32": (spoil(Y.astype(float), -1e39, (7, 0)), r"y: 1 of 12 values are not finite in float32"),
    "object": (Y.astype(object), r"y: expected numbers, got an array of dtype object"),
    "missing": (None, r"y: targets are missing"),
}
BAD_WEIGHTS = {
    "rows": (np.ones(11), r"sample_weight: shape \(11,\) does not fit an output of shape \(12, 1\); expected \(12,\)"),
    "steps": (np.ones((12, 5)), r"sample_weight: shape \(12, 5\) does not fit an output of shape \(12, 1\)"),
    "nan": (spoil(np.ones(12), np.nan, 4), r"sample_weight: 1 of 12 values are not finite.*index \(4,\)"),
    "object": (np.ones(12, object), r"sample_weight: expected numbers"),
}
CALLS = ["fit", "evaluate", "train_on_batch", "test_on_batch", "gradients"]


def call(model, method, x, y, **options):
    quiet = {"verbose": 0} if method in ("fit", "evaluate") else {}
    return getattr(model, method)(x, y, **options, **quiet)


@pytest.fixture(scope="module")
def trained():
    model = compiled()
    model.fit(X, Y, verbose=0)
    return model


@pytest.mark.parametrize("case", BAD_X)
def test_x(trained, case):
    x, message = BAD_X[case]
    before = state(trained)
    for method in CALLS:
        with pytest.raises((ValueError, TypeError), match=f"^{message}"):
            call(trained, method, x, Y)
    for method in (trained.predict, trained.predict_on_batch):
        with pytest.raises((ValueError, TypeError), match=f"^{message}"):
            method(x)
    with pytest.raises((ValueError, TypeError), match=f"^validation_data {message}"):
        trained.fit(X, Y, validation_data=(x, Y), verbose=0)
    assert state(trained) == before


@pytest.mark.parametrize("case", BAD_Y)
def test_y(trained, case):
    y, message = BAD_Y[case]
    before = state(trained)
    for method in CALLS:
        with pytest.raises((ValueError, TypeError), match=f"^{message}"):
            call(trained, method, X, y)
    with pytest.raises((ValueError, TypeError), match=f"^validation_data {message}"):
        trained.fit(X, Y, validation_data=(X, y), verbose=0)
    assert state(trained) == before


@pytest.mark.parametrize("case", BAD_WEIGHTS)
def test_sample_weight(trained, case):
    weights, message = BAD_WEIGHTS[case]
    before = state(trained)
    for method in CALLS:
        with pytest.raises((ValueError, TypeError), match=f"^{message}"):
            call(trained, method, X, Y, sample_weight=weights)
    with pytest.raises((ValueError, TypeError), match=f"^validation_data {message}"):
        trained.fit(X, Y, validation_data=(X, Y, weights), verbose=0)
    assert state(trained) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size: expected an integer of at least 1, got 0"),
        ({"batch_size": 2.5}, "batch_size: expected an integer, got float 2.5"),
        ({"epochs": -1}, "epochs: expected an integer of at least 0, got -1"),
        ({"epochs": True}, "epochs: expected an integer, got True"),
        ({"initial_epoch": -1}, "initial_epoch: "),
        ({"steps_per_epoch": 0}, "steps_per_epoch: expected an integer of at least 1"),
        ({"steps_per_epoch": 99}, "steps_per_epoch: 12 samples give 1 batches of 32, got 99"),
        ({"validation_split": 1.0}, "validation_split: expected a fraction from 0 to below 1, got 1.0"),
        ({"validation_split": -0.5}, "validation_split: "),
        ({"validation_split": float("nan")}, "validation_split: "),
        ({"validation_split": "half"}, "validation_split: expected a number, got str 'half'"),
        ({"validation_split": 0.99}, "validation_split: 0.99 of 12 samples leaves one side empty"),
        ({"validation_data": X}, "validation_data: expected .x, y. or .x, y, sample_weight., got ndarray"),
        ({"validation_data": (X,)}, "validation_data: expected .x, y."),
        (
            {"validation_data": (X, Y), "validation_steps": 9},
            "validation_steps: 12 samples give 1 batches of 32, got 9",
        ),
        ({"validation_data": (X, Y), "validation_batch_size": 0}, "validation_batch_size: "),
        ({"validation_freq": 0}, "validation_freq: expected an integer of at least 1, got 0"),
        ({"verbose": 3}, "verbose: expected 'auto', 0 .silent., 1 .bar. or 2 .a line per epoch., got 3"),
        ({"callbacks": [3]}, "callbacks: expected elman.callbacks.Callback instances, got int"),
        ({"callbacks": 3}, "callbacks: "),
        ({"class_weight": [1, 2]}, "class_weight: expected a dict of class index to weight, got list"),
        ({"class_weight": {"a": 1.0}}, "class_weight: expected an integer, got str 'a'"),
        ({"class_weight": {-1: 1.0}}, "class_weight: expected an integer of at least 0, got -1"),
        ({"class_weight": {0: "heavy"}}, r"class_weight\[0\]: expected a number, got str 'heavy'"),
        ({"class_weight": {0: float("nan")}}, r"class_weight\[0\]: expected a finite number"),
        ({"class_weight": {0: 1.0}, "sample_weight": np.ones(12)}, "class_weight and sample_weight"),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else "",
)
def test_options_of_fit(trained, options, message):
    before = state(trained)
    with pytest.raises((ValueError, TypeError), match=f"^{message}"):
        trained.fit(X, Y, **{"verbose": 0, **options})
    assert state(trained) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "adm"}, "optimizer: unknown name 'adm', did you mean 'adam'"),
        ({"optimizer": 3}, "optimizer: expected a name, a Optimizer or a dict.* got int 3"),
        ({"optimizer": {"class_name": "Adam", "config": {"speed": 1}}}, "optimizer: config .*speed"),
        ({"loss": "mes"}, "loss: unknown name 'mes', did you mean 'mse'"),
        ({"loss": None}, "loss: expected a loss or its name, got None"),
        ({"loss": lambda y, p: 0}, "loss: expected a name"),
        ({"metrics": ["acuracy"]}, "metric: unknown name 'acuracy', did you mean 'accuracy'"),
        ({"metrics": "mae"}, "metrics: expected a list of metrics or their names, got str 'mae'"),
        ({"weighted_metrics": "mae"}, "weighted_metrics: expected a list"),
        ({"weighted_metrics": [None]}, "metric: expected a name"),
        ({"loss_weights": "1"}, "loss_weights: expected a number, got str '1'"),
        ({"loss_weights": float("inf")}, "loss_weights: expected a finite number"),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else "",
)
def test_compile(trained, options, message):
    before = state(trained)
    with pytest.raises((ValueError, TypeError), match=f"^{message}"):
        trained.compile(**{"optimizer": "sgd", "loss": "mae", **options})
    assert state(trained) == before


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optimizers.Adam(-1.0), "learning_rate: expected a finite number >= 0, got -1.0"),
        (lambda: optimizers.SGD(clipnorm=1.0, clipvalue=1.0), "only one of clipnorm"),
        (lambda: Sequential([GRU(2)], dtype="float16"), "dtype: expected 'float32' or 'float64', got 'float16'"),
        (lambda: Sequential([GRU(2)], dtype=None), "dtype: expected 'float32' or 'float64', got None"),
        (lambda: Sequential([GRU(2)], seed=-1), "seed: expected an integer of at least 0, got -1"),
        (lambda: Sequential([GRU(2)], seed=0.5), "seed: expected an integer, got float 0.5"),
        (lambda: Sequential(GRU(2)), "layers: expected a sequence of layers, got one layer"),
        (lambda: Sequential([GRU]), "layers: expected a layer"),
        (lambda: Sequential(["gru"]), "layers: expected a layer, got str 'gru'"),
        (lambda: Sequential([GRU(2), Input((3, 2))]), "layers: Input must be the first layer"),
        (lambda: Sequential([*[Dense(2)] * 2]), "layers: the same Dense instance stands twice"),
        (lambda: Sequential([LSTM(2, return_state=True)]), "layers: LSTM with return_state=True"),
        (lambda: Sequential([Input((3, 2)), GRU(2), LSTM(2)]), "a recurrent layer takes .time, features., got .2,."),
        (lambda: GRU(0), "units: expected an integer of at least 1, got 0"),
        (lambda: LSTM(-2), "units: expected an integer of at least 1, got -2"),
        (lambda: GRU(2, "tnah"), "activation: unknown name 'tnah', did you mean 'tanh'"),
        (lambda: Sequential([]).predict(X), "layers: the model has none"),
        (lambda: Sequential([GRU(2)]).evaluate(X, Y), "model: not compiled yet"),
        (lambda: Sequential([GRU(2)]).train_on_batch(X, Y), "model: not compiled yet"),
        (lambda: Sequential([GRU(2)]).get_compile_config(), "model: not compiled yet"),
        (lambda: elman.functional.recurrent("gru", X[:, :0], []), "x: the array is empty"),
    ],
)
def test_making_and_using_models(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


@pytest.mark.parametrize(
    ("x", "y", "options"),
    [
        (BAD_X["nan"][0], Y, {}),
        (X[:, :0], Y, {}),
        (X, Y[:3], {}),
        (X, BAD_Y["nan"][0], {}),
        (X, Y, {"epochs": -1}),
        (X, Y, {"validation_data": (X[:, :, :1], Y)}),
        (X, Y, {"sample_weight": np.ones(3)}),
        (X, Y, {"callbacks": [3]}),
    ],
)
def test_a_model_not_built_yet_stays_so(x, y, options):
    model = Sequential([SimpleRNN(3), Dense(1)], seed=0)
    model.compile("adam", "mse", metrics=["mae"])
    before = model.get_config()
    with pytest.raises((ValueError, TypeError)):
        model.fit(x, y, verbose=0, **options)
    assert model.get_config() == before
    with pytest.raises(ValueError, match="not built yet"):
        model.get_weights()
    model.fit(X[:, :, :1], Y, verbose=0)  # other data, other features
    assert model.get_weights()[0].shape == (1, 3)


def test_labels_and_probabilities():
    model = compiled([Input((None, 2)), SimpleRNN(3), Dense(3, "softmax")], "sparse_categorical_crossentropy")
    model.compile("adam", "sparse_categorical_crossentropy")
    labels = np.arange(12) % 3
    for wrong, message in [
        (np.where(labels == 2, 3, labels), r"y: class indices must be integers from 0 to 2, but 4 of 12 .* \(2,\): 3"),
        (labels - 1, "y: class indices must be .* 4 of 12"),
        (labels + 0.5, "y: class indices must be .* 12 of 12"),
        (np.eye(3)[labels], r"y: shape \(12, 3\) does not fit .* expected class indices of shape \(12,\) or \(12, 1\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            model.fit(X, wrong, verbose=0)
    model.compile("adam", "categorical_crossentropy")
    with pytest.raises(ValueError, match=r"y: shape \(12,\) does not fit the model's output of shape \(12, 3\)"):
        model.fit(X, labels, verbose=0)
    binary = compiled(loss="binary_crossentropy")
    with pytest.raises(ValueError, match=r"y: targets of binary crossentropy must lie in \[0, 1\]"):
        binary.fit(X, np.full(12, 2.0), verbose=0)


def test_the_only_non_finite_value_is_found_wherever_it_is():
    model = compiled()
    big = np.zeros((3000, 40, 2), np.float32)
    for at in ((0, 0, 0), (1500, 7, 1), (2999, 39, 1)):
        with pytest.raises(ValueError, match=rf"first at index \({at[0]}, {at[1]}, {at[2]}\): nan"):
            model.predict(spoil(big, np.nan, at))
    huge = np.full((2, 3, 2), 3e38, np.float32)  # finite, though their sum is not
    assert model.predict(huge).shape == (2, 1)
    double = Sequential([Input((None, 2)), SimpleRNN(3)], "float64", seed=0)
    assert double.predict(np.full((2, 3, 2), 1.5e308)).shape == (2, 3)
    with pytest.raises(ValueError, match="1 of 12 values are not finite in float64"):
        double.predict(spoil(np.full((2, 3, 2), 1.5e308), np.inf, (1, 0, 0)))


PLAIN = np.random.default_rng(8).normal(size=(6, 4, 2)).astype(np.float32), np.ones((6, 1), np.float32)


def test_batches_of_a_known_form_are_checked_like_the_first():
    """After one plain batch the next of its form takes a short way; it must refuse and compute the same."""
    x, y = PLAIN
    for step in ("train_on_batch", "test_on_batch"):
        model = compiled(loss="poisson")
        call = getattr(model, step)
        call(x, y)
        before = model.get_weights()
        for bad in (np.nan, np.inf, -np.inf):
            with pytest.raises(ValueError, match=r"x: 1 of 48 values are not finite .* index \(2, 3, 1\)"):
                call(spoil(x, bad, (2, 3, 1)), y)
            with pytest.raises(ValueError, match="y: 1 of 6 values are not finite"):
                call(x, spoil(y, bad, (5, 0)))
        with pytest.raises(ValueError, match="y: "):
            call(x, spoil(y, -1, (5, 0)))
        with pytest.raises(ValueError, match="x: expected shape"):
            call(np.ones((6, 4, 3), np.float32), y)
        for a, b in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_labels_of_a_known_form_become_integers_like_the_first(dtype):
    """Labels given as floats have the form of targets but are not what the loss's kernel reads."""
    labels = np.array([0, 2, 1, 1, 0, 2])
    models = []
    for given in (labels, labels.astype(dtype)):
        model = Sequential([Input((None, 2)), SimpleRNN(3), Dense(3, activation="softmax")], seed=0)
        model.compile("adam", "sparse_categorical_crossentropy")
        models.append((model, [model.train_on_batch(PLAIN[0], given) for _ in range(3)]))
    assert models[0][1] == models[1][1]
    with pytest.raises(ValueError, match=r"y: .*\b3\b"):
        models[1][0].train_on_batch(PLAIN[0], np.array([0, 2, 1, 1, 0, 3], dtype))


def test_batches_of_a_known_form_give_the_bits_of_any_other():
    x, y = PLAIN
    unaligned = np.frombuffer(b"1" + x.tobytes(), np.float32, offset=1).reshape(x.shape)
    assert unaligned.flags.c_contiguous and not unaligned.flags.aligned
    forms = (x, x.astype(np.float64), np.asfortranarray(x), np.repeat(x, 2, axis=1)[:, ::2], unaligned)
    first = compiled()
    losses = [first.train_on_batch(x, y) for _ in range(10)]
    other = compiled()
    assert [other.train_on_batch(forms[k % 5], y if k % 3 else y[:, 0].tolist()) for k in range(10)] == losses
    for a, b in zip(first.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    expected = first.predict(x)
    for form in (*forms, x, x[:5], x):
        np.testing.assert_array_equal(first.predict_on_batch(form), expected[: len(form)])
    with pytest.raises(ValueError, match="x: 1 of 48 values are not finite"):
        first.predict_on_batch(spoil(x, np.nan, (0, 0, 0)))
    first.compile("adam", "binary_crossentropy")
    with pytest.raises(ValueError, match="y: "):  # the form was that of another loss
        first.train_on_batch(x, 2 * y)


def test_integers_booleans_and_half_precision_are_converted():
    model = compiled()
    for dtype in (np.float16, np.int8, np.uint16, np.int64, bool):
        x = np.abs(X * 3).astype(dtype)
        np.testing.assert_array_equal(model.predict(x), model.predict(x.astype(np.float32)))
        assert np.isfinite(model.fit(x, x[:, 0, 0], verbose=0).history["loss"]).all()


def test_an_exception_in_a_callback_leaves_a_model_that_works(trained):
    class Fails(elman.callbacks.Callback):
        def on_train_batch_end(self, batch, logs):
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        trained.fit(X, Y, epochs=2, verbose=0, callbacks=[Fails()])
    assert np.isfinite(trained.fit(X, Y, epochs=1, verbose=0).history["loss"][0])


LIMITS = """
import numpy as np, elman
for batch, steps, features, units, outputs in ((1, 1, 1, 1, 1), (1, 3, 1, 7, 1), (3, 1, 17, 33, 5), (5, 2, 9, 65, 17)):
    for layer in (elman.layers.SimpleRNN, elman.layers.LSTM, elman.layers.GRU):
        model = elman.Sequential([layer(units), elman.layers.Dense(outputs)], seed=0)
        model.compile("sgd", "mse")
        x = np.ones((batch, steps, features))
        assert np.isfinite(model.train_on_batch(x, np.ones((batch, outputs))))
print("done")
"""


def test_smallest_and_odd_sizes_do_not_crash():
    done = subprocess.run([sys.executable, "-c", LIMITS], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout.strip()) == (0, "done"), done.stderr


def test_optimizer_of_another_model():
    adam = elman.optimizers.Adam()
    models = [elman.Sequential([elman.layers.Dense(1)], seed=0) for _ in range(2)]
    models[0].compile(adam, "mse")
    with pytest.raises(ValueError, match="optimizer: this Adam trains another model"):
        models[1].compile(adam, "mse")
    assert models[1].optimizer is None
    models[0].compile(adam, "mae")


def test_metric_given_to_two_models_counts_for_each():
    shared = elman.metrics.MeanAbsoluteError()
    models = [elman.Sequential([elman.layers.Dense(1, kernel_initializer="zeros")], seed=0) for _ in range(2)]
    for model in models:
        model.compile("sgd", "mse", metrics=[shared])
    x = np.ones((4, 2))
    assert models[0].evaluate(x, np.full(4, 1.0), verbose=0)[1] == 1
    assert models[1].evaluate(x, np.full(4, 3.0), verbose=0)[1] == 3


def test_metrics_of_one_name_are_numbered():
    """As in Keras; a result that another one replaces would be lost."""
    model, named = compiled(), elman.metrics.MeanSquaredError
    precision = [elman.metrics.Precision(thresholds=t) for t in (0.2, 0.6, 0.9)]
    model.compile(
        "sgd", "mse", metrics=[*precision, "mae", named(name="weighted_mae")], weighted_metrics=["mae", "mae"]
    )
    y, w = (Y > 0).astype(np.float32), np.arange(12.0)
    found = model.evaluate(X, y, sample_weight=w, verbose=0, return_dict=True)
    assert list(found) == [
        "loss", "precision", "precision_1", "precision_2", "mae", "weighted_mae", "weighted_mae_1", "weighted_mae_2",
    ]  # fmt: skip
    p = model.predict(X)
    for name, threshold in (("precision", 0.2), ("precision_1", 0.6), ("precision_2", 0.9)):
        hits = y[p > threshold]
        assert found[name] == pytest.approx(hits.mean() if hits.size else 0)
    assert found["weighted_mae"] == pytest.approx(((p - y) ** 2).mean(), rel=1e-5)
    weighted = (np.abs(p - y)[:, 0] * w).sum() / w.sum()
    assert found["weighted_mae_1"] == found["weighted_mae_2"] == pytest.approx(weighted, rel=1e-5)
    assert model.evaluate(X, y, sample_weight=w, verbose=0) == list(found.values())


@pytest.mark.parametrize("name", ["loss", "epoch"])
def test_names_that_metrics_cannot_have(name):
    model = compiled()
    with pytest.raises(ValueError, match=f"metrics: a metric cannot have the name '{name}'"):
        model.compile("sgd", "mse", weighted_metrics=[elman.metrics.MeanAbsoluteError(name=name)])
    assert len(model.evaluate(X, Y, verbose=0)) == 2


def test_masked_arrays():
    x = np.ma.masked_array(X, np.zeros(X.shape, bool))
    model = compiled()
    np.testing.assert_array_equal(model.predict(x), model.predict(X))
    x[3, 1] = np.ma.masked
    with pytest.raises(ValueError, match=r"x: 2 of 120 values are masked, and what stands there would count; fill"):
        model.predict(x)
    with pytest.raises(ValueError, match=r"y: 1 of 12 values are masked"):
        model.fit(X, np.ma.masked_equal(Y, Y[0, 0]), verbose=0)


def test_tensors_with_gradients():
    torch = pytest.importorskip("torch")
    model = compiled()
    np.testing.assert_array_equal(model.predict(torch.tensor(X)), model.predict(X))
    with pytest.raises(ValueError, match=r"x: expected an array, got Tensor .*detach"):
        model.predict(torch.tensor(X, requires_grad=True))


def test_warnings_name_the_line_of_the_caller():
    """Wherever in the library they arise: Python shows, and counts once, what stands there."""
    model, few = compiled(), lambda: iter([(X, Y)])
    broken = compiled()
    broken.set_weights([np.full_like(w, 1e38) for w in broken.get_weights()])
    for call in (
        lambda: model.fit(few(), steps_per_epoch=2, verbose=0),
        lambda: model.evaluate(few(), steps=2, verbose=0),
        lambda: model.predict(iter([X]), steps=2, verbose=0),
        lambda: broken.fit(X, Y, verbose=0),
        lambda: elman.Forecaster(3, units=2, epochs=1).fit([1.0, np.nan] * 20),
        lambda: elman.Forecaster(3, units=2, epochs=1).fit(np.arange(40) % 5.0).backtest(),
    ):
        with pytest.warns(Warning) as seen:
            call()
        assert {warning.filename for warning in seen} == {__file__}


@pytest.mark.parametrize(
    ("activation", "from_logits", "words"),
    [
        ("linear", False, "the last layer has no activation"),
        ("softmax", True, "from_logits=True, but the last layer ends in softmax"),
        ("softmax", False, None),
        ("linear", True, None),
    ],
)
def test_losses_of_probabilities_want_them(activation, from_logits, words):
    """Training goes on, to a model that is worse than guessing."""
    loss = elman.losses.SparseCategoricalCrossentropy(from_logits=from_logits)
    model = compiled([SimpleRNN(3), Dense(4, activation=activation)], loss)
    model.compile("sgd", loss)
    labels = np.arange(12) % 4
    if words is None:
        model.fit(X, labels, verbose=0)  # warnings are errors
    else:
        with pytest.warns(UserWarning, match=words):
            model.fit(X, labels, verbose=0)


def test_targets_of_the_other_kind_name_the_other_loss():
    labels = np.arange(12) % 4
    for loss, y, other in (
        ("categorical_crossentropy", labels, "class indices are for sparse_categorical_crossentropy"),
        ("sparse_categorical_crossentropy", np.eye(4)[labels], "one-hot rows are for categorical_crossentropy"),
    ):
        model = Sequential([SimpleRNN(3), Dense(4, activation="softmax")])
        model.compile("sgd", loss)
        with pytest.raises(ValueError, match=f"y: shape .*; {other}"):
            model.fit(X, y, verbose=0)


def test_messages_do_not_repeat_a_whole_text():
    text = "To be, or not to be. " * 100_000
    model = compiled()
    for call in (lambda: model.predict(text), lambda: elman.Forecaster(3).fit(text), lambda: elman.layers.GRU(text)):
        with pytest.raises(elman.errors.ElmanError) as caught:
            call()
        assert 10 < len(str(caught.value)) < 2100


@pytest.mark.parametrize("before", [[], [elman.layers.Masking(-7.0)], [elman.layers.Dropout(0.0)]], ids=str)
def test_categories_are_checked_before_the_first_batch(before):
    x = np.ones((64, 5, 2))
    x[60, 3, 1] = 5
    model = Sequential([Input((None, 2)), *before, elman.layers.EmbedColumns([(1, 3, 2)]), GRU(3), Dense(1)], seed=0)
    model.compile("adam", "mse")
    with pytest.raises(ValueError, match=r"x: expected category numbers .* got 5.* at index \(60, 3\)"):
        model.fit(x, np.ones(64), batch_size=8, verbose=0)
    assert model.optimizer.iterations == 0


def test_weights_of_ctc_are_checked_before_the_first_batch():
    model = Sequential([Input((None, 3)), LSTM(4, return_sequences=True), Dense(4)], seed=0)
    model.compile("adam", "ctc")
    x, y, w = RNG.normal(size=(64, 9, 3)), RNG.integers(1, 4, (64, 2)), np.ones((64, 9))
    w[60, 8] = 2
    with pytest.raises(ValueError, match=r"sample_weight: CTC .* but the weights of sample 60 differ"):
        model.fit(x, y, sample_weight=w, batch_size=8, verbose=0)
    assert model.optimizer.iterations == 0
    lengths = np.full(64, 9)
    lengths[60] = 8
    model.fit(x, y, sample_weight=w, lengths=lengths, batch_size=8, verbose=0)
    for layers, padding in (
        ([LSTM(4, return_sequences=True), elman.layers.LastSteps(6), Dense(4)], 0),  # fewer steps than x has
        ([GRU(4, return_sequences=True, go_backwards=True), Dense(4)], 1),  # which then stands in front
    ):
        other = Sequential([Input((9, 3)), *layers], seed=0)
        other.compile("adam", "ctc")
        weights = np.ones((64, other.output_shape[0]))
        weights[60, :padding] = 2
        other.fit(x, y, sample_weight=weights, lengths=lengths, batch_size=8, verbose=0)


def test_a_refused_batch_draws_no_noise():
    def losses(refused):
        model = Sequential([Dropout(0.2), LSTM(4, stateful=True), Dense(1)], seed=0)
        model.compile("sgd", "mse")
        found = []
        for _ in range(3):
            found.append(model.train_on_batch(X, Y))
            if refused:
                with pytest.raises(ValueError, match="cannot continue the states"):
                    model.train_on_batch(X[:3], Y[:3])
        return found

    assert losses(False) == losses(True)


def test_initial_values_beyond_the_type():
    huge = elman.initializers.Constant(1e300)
    with pytest.raises(
        ValueError, match=r"Constant: the weights: 2 of 2 values are not finite in float32|Constant: the w"
    ):
        Sequential([Input((3,)), Dense(2, bias_initializer=huge)])
    assert Sequential([Input((3,)), Dense(2, bias_initializer=huge)], dtype="float64").get_weights()[1][0] == 1e300
