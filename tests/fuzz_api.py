"""Hostile arguments for the public functions: ``fuzz_api.py COUNT FOLDER``; see tests/fuzzing.py.

Every case calls one function with arguments that fit, but for one to three of them.
"""

import copy
import inspect
import os
import sys
import warnings
from pathlib import Path

import numpy as np
from fuzzing import Judge, confine, explore, report
from hypothesis import strategies as st

import elman
from elman import (
    callbacks,
    constraints,
    data,
    initializers,
    layers,
    losses,
    metrics,
    optimizers,
    regularizers,
    schedules,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 6, 2)).astype(np.float32)
Y = RNG.normal(size=(4, 1)).astype(np.float32)
SERIES = np.sin(np.arange(40.0)) + 2

# ---- hostile values

DTYPES = [
    "f4", "f8", "f2", ">f4", ">f8", "i1", "i2", "i4", "i8", ">i4", "u1", "u8", "?", "c8", "c16", "U3", "S3", "M8[s]",
    "m8[s]", "O", "V4", "longdouble",
]  # fmt: skip
SIZES = [0, -1, 1, 2, 3, 7, 1 << 31, 1 << 40, (1 << 62) + 1, 1 << 63, -(1 << 63), 10**30]
FLOATS = [0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e30, 1e38, 1e308, float("nan"), float("inf"), float("-inf")]
SCALARS = [
    None, True, False, "", "x", "adam", "lstm", "mean", "\0", b"x", 1j, object(), np.float32(2), np.int8(-3), ..., {},
    {"class_name": "Adam", "config": {"learning_rate": "x"}}, {"class_name": []}, {1: 2}, set(), [], (), [[]], [None],
    [[1, 2], [3]], ["a", 1], range(3), slice(2), np.float64("nan"), np.datetime64("2020-01-01"), np.array(None),
]  # fmt: skip
ENTRIES = [1.5, None, "x", 10**400, b"", [1]]


def filled(draw, dtype, shape):
    """An array of any dtype, with some values that are extreme."""
    size = int(np.prod(shape))
    with np.errstate(all="ignore"):
        if dtype == "V4":
            return np.zeros(shape, [("a", "f4")])
        array = (RNG.normal(size=size) * 3).astype("f8")
        if dtype == "O":
            array = np.empty(size, object)
            for k in range(size):
                array[k] = draw(st.sampled_from(ENTRIES))
        elif dtype[0] in "Mm":
            array = array.astype("i8").astype(dtype)
        else:
            array = array.astype(dtype)
        if array.dtype.kind == "f" and size and draw(st.booleans()):
            array[draw(st.integers(0, size - 1))] = draw(st.sampled_from(FLOATS))
    return array.reshape(shape)


def laid_out(draw, array):
    """The same numbers in memory of another layout."""
    kind = draw(st.sampled_from(["c", "c", "fortran", "negative", "broadcast", "step", "unaligned", "readonly"]))
    if kind == "fortran":
        return np.asfortranarray(array)
    if kind == "negative" and array.ndim:
        return array[tuple(slice(None, None, -1) for _ in array.shape)]
    if kind == "broadcast":
        return (
            np.broadcast_to(array, (3, *array.shape))
            if draw(st.booleans())
            else np.broadcast_to(array[:1], array.shape)
            if array.ndim
            else array
        )
    if kind == "step" and array.ndim:
        return np.repeat(array, 2, axis=-1)[..., ::2]
    if kind == "unaligned" and not array.dtype.hasobject and array.size:
        return np.frombuffer(b"1" + array.tobytes(), array.dtype, offset=1).reshape(array.shape)
    if kind == "readonly":
        array.flags.writeable = False
    return array


def drawn_array(draw, like=None):
    if like is not None and draw(st.booleans()):
        shape = like.shape
    else:
        shape = tuple(draw(st.lists(st.integers(0, 5), max_size=4)))
    return laid_out(draw, filled(draw, draw(st.sampled_from(DTYPES)), shape))


def hostile(draw, good=None):
    """Any value, by preference one near to `good`."""
    kind = draw(st.sampled_from(["scalar", "size", "float", "array", "near", "list"]))
    if kind == "scalar":
        return draw(st.sampled_from(SCALARS))
    if kind == "size":
        return draw(st.sampled_from(SIZES))
    if kind == "float":
        return draw(st.sampled_from(FLOATS))
    if kind == "list":
        return [hostile(draw) for _ in range(draw(st.integers(0, 3)))]
    like = good if isinstance(good, np.ndarray) else None
    if kind == "near" and like is None:
        return draw(st.sampled_from(["tahn", "nan", "-1", 3, 10**6, [good], (good, good), {"a": good}]))
    found = drawn_array(draw, like)
    return found.tolist() if draw(st.integers(0, 4)) == 0 else found


# Numbers of these only say how long something runs.
PATIENCE = {"epochs", "seeds", "windows", "length", "batch", "max_epochs", "beam_width"}


def spoiled(draw, good):
    """The arguments `good` with one to three of them hostile."""
    most = draw(st.sampled_from([1, 1, 1, 2, 3]))
    names = draw(st.lists(st.sampled_from(sorted(good)), min_size=1, max_size=most, unique=True))
    found = dict(good)
    for name in names:
        value = hostile(draw, good[name])
        long = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) > 100
        found[name] = 2 if name in PATIENCE and long else value
    return found


# ---- what is called

GOOD = {
    "units": 3, "activation": "tanh", "rate": 0.1, "columns": [(1, 5, 2)], "input_dim": 5, "output_dim": 2, "n": 2,
    "stddev": 0.1, "target_shape": (2, 6), "horizon": 2, "segment": 2, "shape": (6, 2), "initial_learning_rate": 0.1,
    "decay_steps": 5, "first_decay_steps": 5, "decay_rate": 0.5, "boundaries": [1], "values": [0.1, 0.2], "x": X,
    "cell": "gru", "learning_rate": 0.1, "backup_dir": "backup", "filename": "log.csv", "filepath": "model.npz",
    "schedule": lambda epoch: 0.1, "y": Y,
}  # fmt: skip


def constructors(module, base, table):
    for name in module.__all__:
        cls = getattr(module, name)
        if inspect.isclass(cls) and issubclass(cls, base) and cls is not base and not inspect.isabstract(cls):
            yield name, cls, table(cls)


def arguments(cls):
    """Arguments of a constructor that fit: its defaults, and GOOD for those it must have."""
    found = {}
    for p in inspect.signature(cls).parameters.values():
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            found[p.name] = GOOD.get(p.name) if p.default in (p.empty, None) else p.default
    if "layer" in found:
        found["layer"] = layers.SimpleRNN(2) if cls is layers.Bidirectional else layers.Dense(2)
    return found


def parts():
    """Every class of layers, losses, metrics, optimizers and the rest, made and used once."""

    def layer(made):
        if isinstance(made, layers.Input):
            return elman.Sequential([made, layers.Dense(1)]).predict(X)
        ids = isinstance(made, layers.Embedding)
        codes = isinstance(made, layers.EmbedColumns)
        vectors = isinstance(made, layers.RepeatVector)
        model = elman.Sequential([layers.Input((6,) if ids or vectors else (6, 2)), made], seed=0)
        return model.predict(np.zeros((4, 6), int) if ids or vectors else np.zeros_like(X) if codes else X)

    def lost(made):
        return made(*example(made))

    def trained(made):
        model = small()
        model.compile(made, "mse")
        return model.train_on_batch(X, Y)

    def called_back(made):
        return small().fit(X, Y, epochs=2, verbose=0, callbacks=[made], validation_data=(X, Y))

    def initialised(made):
        return elman.Sequential([layers.Input((6, 2)), layers.GRU(3, recurrent_initializer=made)], seed=0)

    def penalised(made):
        model = elman.Sequential([layers.Input((2,)), layers.Dense(3, kernel_regularizer=made)], seed=0)
        model.compile("sgd", "mse")
        return model.train_on_batch(X[:, 0], np.ones((4, 3)))

    def constrained(made):
        model = elman.Sequential([layers.Input((2,)), layers.Dense(3, kernel_constraint=made)], seed=0)
        model.compile("sgd", "mse")
        return model.train_on_batch(X[:, 0], np.ones((4, 3)))

    rows = [
        (layers, layers.Layer, layer), (losses, losses.Loss, lost), (metrics, metrics.Metric, None),
        (optimizers, optimizers.Optimizer, trained), (schedules, schedules.LearningRateSchedule, lambda s: s(3)),
        (callbacks, callbacks.Callback, called_back), (initializers, initializers.Initializer, initialised),
        (regularizers, regularizers.Regularizer, penalised), (constraints, constraints.Constraint, constrained),
    ]  # fmt: skip
    for module, base, use in rows:
        for name, cls, good in constructors(module, base, arguments):
            if cls in (callbacks.TensorBoard, losses.Likelihood):
                continue
            yield name, good, lambda a, cls=cls, use=use: cls(**a) if use is None else use(cls(**a))


def small():
    model = elman.Sequential([layers.Input((None, 2)), layers.GRU(3), layers.Dense(1)], seed=0)
    model.compile("adam", "mse", metrics=["mae"])
    return model


def unchanged(model, call):
    """`call()`, after whose error the model must be what it was."""
    before = model._vector.values.tobytes(), repr(model.get_compile_config())
    try:
        return call()
    except BaseException:
        assert before == (model._vector.values.tobytes(), repr(model.get_compile_config())), "changed"
        raise


FIT = {
    "x": X, "y": Y, "batch_size": 2, "epochs": 1, "verbose": 0, "callbacks": None, "validation_split": 0.0,
    "validation_data": (X, Y), "shuffle": True, "class_weight": None, "sample_weight": np.ones(4), "initial_epoch": 0,
    "steps_per_epoch": None, "validation_steps": None, "validation_batch_size": None, "validation_freq": 1,
    "lengths": None, "mask": np.ones((4, 6), bool), "tbptt": None,
}  # fmt: skip


def calls(folder):
    """Name, arguments that fit, function of the arguments."""
    yield from parts()
    model, text = small(), elman.Sequential([layers.Embedding(5, 2), layers.GRU(3), layers.Dense(5, "softmax")], seed=0)
    text.build((None,))
    kept = {name: value for name, value in FIT.items() if name in inspect.signature(model.fit).parameters}
    yield "fit", kept, lambda a: unchanged(model, lambda: model.fit(**a))
    batch = {"x": X, "y": Y, "sample_weight": np.ones(4), "lengths": None, "mask": np.ones((4, 6), bool)}
    yield "evaluate", {**batch, "batch_size": 2, "verbose": 0}, lambda a: unchanged(model, lambda: model.evaluate(**a))
    for name in ("train_on_batch", "test_on_batch", "gradients", "gradient_flow"):
        yield name, batch, lambda a, name=name: unchanged(model, lambda: getattr(model, name)(**a))
    yield "predict", {"x": X, "batch_size": 2, "verbose": 0}, lambda a: model.predict(**a)
    yield "predict_on_batch", {"x": X}, lambda a: model.predict_on_batch(**a)
    compiling = {"optimizer": "sgd", "loss": "mae", "metrics": ["mae"], "weighted_metrics": None, "loss_weights": None}
    yield "compile", {**compiling, "checkpoint": None}, lambda a: unchanged(model, lambda: model.compile(**a))
    yield "set_weights", {"weights": model.get_weights()}, lambda a: unchanged(model, lambda: model.set_weights(**a))
    yield "Sequential", {"layers": [layers.GRU(2)], "dtype": "float32", "seed": 0}, lambda a: elman.Sequential(**a)
    yield "build", {"shape": (6, 2)}, lambda a: elman.Sequential([layers.GRU(2), layers.Dense(1)]).build(**a)
    yield "save", {"path": folder / "model"}, lambda a: model.save(within(folder, a["path"]))
    yield "load_model", {"path": folder / "model"}, lambda a: elman.load_model(**a)
    yield from streaming(model, text)
    yield from functions(folder, text)
    yield from forecasting()


def within(folder, path):
    """A path that writes nowhere else."""
    return folder / path.replace("/", "_") if isinstance(path, str) and path else path


def streaming(model, text):
    step, tokens = model.stream(2), text.stream(2)
    states = [[s.copy() for s in layer] for layer in step.states]
    yield "stream", {"batch_size": 2}, lambda a: model.stream(**a)
    yield "step", {"x": X[:2, 0]}, lambda a: step(a["x"])
    yield "step of tokens", {"x": np.array([1, 2])}, lambda a: tokens(a["x"])
    yield "set_states", {"states": states}, lambda a: step.set_states(a["states"])


def functions(folder, text):
    windows = {"data": SERIES, "targets": SERIES, "sequence_length": 4, "sequence_stride": 1, "sampling_rate": 1}
    windows |= {"start_index": None, "end_index": None}
    yield "timeseries_windows", windows, lambda a: data.timeseries_windows(**a)[0]
    yield "Lanes", {"x": SERIES, "y": SERIES, "lanes": 4}, lambda a: data.Lanes(**a)
    yield "next_token", {"tokens": np.arange(20), "lanes": 4}, lambda a: data.Lanes.next_token(**a)
    padding = {
        "sequences": [[1, 2], [3]],
        "maxlen": 3,
        "dtype": "float32",
        "padding": "pre",
        "truncating": "pre",
        "value": 0.0,
    }
    yield "pad_sequences", padding, lambda a: elman.utils.pad_sequences(**a)
    drawing = {"seed_tokens": [0, 1], "length": 3, "temperature": 1.0, "top_k": None, "seed": 0}
    yield "generate", drawing, lambda a: elman.generate(text, **a)
    yield "generate with", {"model": text}, lambda a: elman.generate(a["model"], [0, 1], 2)
    decoding = {"outputs": X, "lengths": [6, 2, 3, 0], "blank": 0}
    yield "greedy_decode", decoding, lambda a: elman.ctc.greedy_decode(**a)
    yield "beam_decode", {**decoding, "beam_width": 3}, lambda a: elman.ctc.beam_decode(**a)
    weights = [w.copy() for w in elman.Sequential([layers.Input((6, 2)), layers.GRU(3)], seed=0).get_weights()]
    running = {
        "cell": "gru", "x": X, "parameters": weights, "initial_state": [np.zeros((4, 3))], "activation": "tanh",
        "recurrent_activation": "sigmoid", "go_backwards": False, "mask": np.ones((4, 6), bool), "lengths": None,
        "recurrent_dropout": np.ones((4, 3)), "checkpoint": None,
    }  # fmt: skip
    yield "recurrent", running, lambda a: elman.functional.recurrent(**a)[0]
    rest = {"d_outputs": np.ones((4, 6, 3)), "d_state": [np.ones((4, 3))]}
    yield "backward", rest, lambda a: elman.functional.recurrent("gru", X, weights)[2].backward(**a)
    yield (
        "fit_many",
        {"models": 1, "data": [(X, Y)], "workers": 1, "epochs": 1},
        lambda a: elman.fit_many(
            [small()] if isinstance(a["models"], int) else a["models"],
            a["data"],
            workers=1 if isinstance(a["workers"], int) else a["workers"],
            epochs=a["epochs"],
        ),
    )
    yield (
        "confusion_matrix",
        {"y_true": [0, 1], "y_pred": [1, 1], "classes": 2},
        lambda a: metrics.confusion_matrix(**a),
    )
    yield "set_num_threads", {"n": 1}, lambda a: elman.num_threads(a["n"])
    for base, use in ((losses.Loss, losses), (metrics.Metric, metrics)):
        for name, cls, _ in constructors(use, base, arguments):
            if cls in (losses.Likelihood, metrics.MeanMetric):
                continue
            y, p = example(cls())
            yield f"{name}()", {"y": y, "p": p}, lambda a, cls=cls: scored(cls(), **a)


def example(made):
    """Targets and outputs that a loss or metric takes."""
    if isinstance(made, losses.CTC):
        return np.ones((4, 1), int), np.full((4, 3, 2), 0.5)
    if made.labels:
        return np.array([0, 1, 1, 0]), np.full((4, 2), 0.5)
    return np.ones((4, 1)), np.full((4, len(getattr(made, "blocks", "1"))), 0.5)


def scored(made, y, p):
    if isinstance(made, losses.Loss):
        return made(y, p)
    made.update_state(y, p)
    return made.result()


def forecasting():
    fitted = elman.Forecaster(2, units=2, epochs=1).fit(SERIES, verbose=0)
    options = {"horizon": 2, "lookback": 4, "units": 2, "epochs": 1}
    defaults = {p.name: p.default for p in inspect.signature(elman.Forecaster).parameters.values()}
    yield "Forecaster", {**defaults, **options}, lambda a: elman.Forecaster(**a).fit(SERIES[:16], verbose=0).predict()
    fitting = {"y": SERIES[:16], "past": None, "future": None, "static": None, "val": None, "verbose": 0}
    yield "Forecaster.fit", fitting, lambda a: elman.Forecaster(2, units=2, epochs=1).fit(**a)
    ahead = {"y": SERIES[:16], "past": None, "future": None, "static": None, "quantiles": None, "interval": None}
    yield "Forecaster.predict", ahead, lambda a: fitted.predict(**a)
    yield (
        "backtest",
        {"y": SERIES, "windows": 2, "step": 1, "past": None, "future": None},
        lambda a: fitted.backtest(**a),
    )
    yield "calibrate", {"y": SERIES, "windows": 2, "step": 1}, lambda a: fitted.calibrate(**a)
    more = {"y": SERIES[:3], "past": None, "epochs": 0, "learning_rate": 1e-4, "verbose": 0}
    yield "update", more, lambda a: copy.copy(fitted).update(**a)


def main(count, folder):
    folder = Path(folder)
    os.chdir(folder)  # names drawn for files are written there
    judge, table = Judge(), []
    with warnings.catch_warnings(action="ignore"):
        for name, good, call in calls(folder):
            if good:
                call(good)  # compiled now, so that what follows costs what it costs
                table.append((name, good, call))
    confine()

    @st.composite
    def hostile_call(draw):
        name, good, call = draw(st.sampled_from(table))
        return name, spoiled(draw, good), call

    def case(drawn):
        _, given, call = drawn
        judge.run(lambda: call(given), allowed=(MemoryError, OSError))

    explore(hostile_call(), case, count)
    report(judge, count)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
