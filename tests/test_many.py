"""Many small models in processes: the bits of `fit` one by one, or nothing at all."""

import gc
import importlib.util
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

import elman
from elman import processes
from elman.callbacks import EarlyStopping, ReduceLROnPlateau
from elman.layers import GRU, LSTM, Dense, Dropout, Input, SimpleRNN
from elman.optimizers import SGD, Adam
from elman.schedules import ExponentialDecay

RNG = np.random.default_rng(0)
COUNT = 5
X, Y = RNG.normal(size=(COUNT, 24, 6, 2)), RNG.normal(size=(COUNT, 24, 1))
DATA = list(zip(X, Y, strict=True))
JOBLIB = all(importlib.util.find_spec(name) for name in ("joblib", "cloudpickle"))
needs_joblib = pytest.mark.skipif(not JOBLIB, reason="no joblib")
WORKERS = pytest.mark.parametrize("workers", [1, pytest.param(2, marks=needs_joblib)])


def model(seed=0, optimizer="adam", dtype="float32", layers=None, **compiled):
    layers = [SimpleRNN(3, dropout=0.2), Dropout(0.1), Dense(1)] if layers is None else layers
    made = elman.Sequential(layers, dtype, seed)
    made.compile(optimizer, "mse", **compiled)
    return made


def several(**options):
    return [model(seed, **options) for seed in range(COUNT)]


def everything(of):
    """All that a training could change, as something that `assert_equal` compares."""
    header, arrays = of._state()
    besides = of.stop_training, of.resume_epoch, of.nonfinite, of.skip_warning_due, of.skipped_updates
    return header, arrays, besides, of._vector is None, of.optimizer.learning_rate, of._noise if of._vector else None


def assert_same(some, others):
    for a, b in zip(some, others, strict=True):
        np.testing.assert_equal(everything(a), everything(b))


def assert_histories(got, expected, models):
    for history, wanted, owner in zip(got, expected, models, strict=True):
        given, wanted = dict(vars(history)), dict(vars(wanted))
        assert given.pop("model") is owner
        wanted.pop("model")
        assert given == wanted


def stateful(seed, dtype):
    layers = [GRU(3, return_sequences=True, stateful=True), LSTM(2, stateful=True, recurrent_dropout=0.3), Dense(1)]
    return model(seed, dtype=dtype, layers=layers)


def built(seed, dtype):
    layers = [Input((None, 2)), SimpleRNN(4, zoneout=0.2), Dense(1, trainable=False)]
    adam = Adam(1e-2, use_ema=True, gradient_accumulation_steps=2, clipnorm=1.0)
    return model(seed, adam, dtype, layers)


def with_optimizer(optimizer, **compiled):
    return lambda seed, dtype: model(seed, optimizer(), dtype, **compiled)


plain = with_optimizer(Adam)
VALIDATED = {"validation_split": 0.25, "epochs": 6}
CASES = {
    "shuffled": (plain, {"epochs": 3, "batch_size": 8}),
    "stateful": (stateful, {"epochs": 2, "batch_size": 8, "shuffle": False}),
    "built": (built, {"epochs": 2, "batch_size": 5}),
    "tbptt": (with_optimizer(Adam, metrics=["mae", "r2_score"]), {"tbptt": (2, 3)}),
    "plateau": (with_optimizer(lambda: SGD(0.5)), {**VALIDATED, "callbacks": [ReduceLROnPlateau(patience=1)]}),
    "stopped": (plain, {**VALIDATED, "callbacks": [EarlyStopping(patience=1, restore_best_weights=True)]}),
    "schedule": (with_optimizer(lambda: Adam(ExponentialDecay(0.1, 3, 0.9))), {"epochs": 2, "batch_size": 8}),
    "nothing": (plain, {"epochs": 0}),
}


@WORKERS
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_every_model_is_what_fit_makes_of_it_to_the_bit(case, dtype, workers):
    make, options = CASES[case]
    ours, theirs = ([make(seed, dtype) for seed in range(COUNT)] for _ in range(2))
    for _ in range(2):
        expected = [m.fit(x, y, verbose=0, **options) for m, (x, y) in zip(theirs, DATA, strict=True)]
        got = elman.fit_many(ours, DATA, workers=workers, **options)
        assert_same(ours, theirs)
        assert_histories(got, expected, ours)
    for mine, other, x in zip(ours, theirs, X, strict=True):
        np.testing.assert_array_equal(mine.predict(x[:8]), other.predict(x[:8]))


@WORKERS
def test_models_go_on_alone_after_it(workers):
    ours, theirs = several(), several()
    elman.fit_many(ours, DATA, workers=workers, verbose=0)
    for mine, other, (x, y) in zip(ours, theirs, DATA, strict=True):
        other.fit(x, y, verbose=0)
        assert mine.train_on_batch(x, y) == other.train_on_batch(x, y)
        assert mine.fit(x, y, epochs=2, verbose=0).history == other.fit(x, y, epochs=2, verbose=0).history
    assert_same(ours, theirs)


def test_a_callback_may_give_another_schedule():
    class Decay(elman.callbacks.Callback):
        def on_train_end(self, logs):
            self.model.optimizer.learning_rate = ExponentialDecay(0.2, 5, 0.5)

    ours, theirs = several(optimizer="sgd"), several(optimizer="sgd")
    elman.fit_many(ours, DATA, workers=1, callbacks=[Decay()])
    for other, (x, y) in zip(theirs, DATA, strict=True):
        other.fit(x, y, verbose=0, callbacks=[Decay()])
    assert_same(ours, theirs)


# ---- data


@WORKERS
def test_data_come_in_every_form(workers):
    series = np.sin(np.arange(40.0))
    windows = elman.data.timeseries_windows(series, series[6:], sequence_length=6)
    lanes = elman.data.Lanes(series, np.roll(series, -1), 2)
    weights = RNG.uniform(size=24)
    own = {"x": X[2], "y": Y[2], "lengths": np.arange(1, 25) % 7, "epochs": 3, "shuffle": False}
    data = [DATA[0], [X[1], Y[1], weights], own, windows, lanes]
    ours, theirs = several(), several()
    for group in (ours, theirs):
        group[4] = model(layers=[SimpleRNN(3, return_sequences=True), Dense(1)])
    got = elman.fit_many(ours, data, workers=workers, epochs=2, batch_size=8)
    common = {"epochs": 2, "batch_size": 8, "verbose": 0}
    expected = [
        theirs[0].fit(*DATA[0], **common),
        theirs[1].fit(X[1], Y[1], sample_weight=weights, **common),
        theirs[2].fit(**{**common, **own}),
        theirs[3].fit(windows, **common),
        theirs[4].fit(lanes, **common),
    ]
    assert_same(ours, theirs)
    assert_histories(got, expected, ours)


def test_data_for_all_models_are_a_fit_argument():
    ours, theirs = several(), several()
    elman.fit_many(iter(ours), [{}] * COUNT, workers=1, x=X[0], y=Y[0])
    for other in theirs:
        other.fit(X[0], Y[0], verbose=0)
    assert_same(ours, theirs)


@needs_joblib
def test_what_cannot_be_sent_is_named():
    batches = lambda k: ((X[k], Y[k]) for _ in range(2))
    ours, theirs = several(), several()
    with pytest.raises(TypeError, match=r"data\[3\]: x cannot go to another process .*generator.*workers=1"):
        elman.fit_many(ours, [*DATA[:3], {"x": batches(3)}, DATA[4]], workers=2)
    with pytest.raises(TypeError, match=r"fit_arguments: validation_data cannot go to another process"):
        elman.fit_many(ours, DATA, workers=2, validation_data=batches(0))
    assert_same(ours, theirs)
    elman.fit_many(ours, [{"x": batches(k)} for k in range(COUNT)], workers=1)
    for k, other in enumerate(theirs):
        other.fit(batches(k), verbose=0)
    assert_same(ours, theirs)


# ---- callbacks


@WORKERS
def test_every_training_has_copies_of_the_callbacks(workers):
    class Count(elman.callbacks.Callback):
        epochs = 0

        def on_epoch_end(self, epoch, logs):
            self.epochs += 1
            logs |= {"epochs": self.epochs, "process": os.getpid(), "threads": elman.get_num_threads()}
            logs["frozen"] = gc.get_freeze_count()

    given = Count()
    got = elman.fit_many(several(), DATA, workers=workers, epochs=3, callbacks=[given])
    assert [h.history["epochs"] for h in got] == [[1, 2, 3]] * COUNT
    assert given.epochs == 0 and given.model is None
    here = {h.history["process"][0] for h in got} == {os.getpid()}
    assert here == (workers == 1)
    if workers == 2:
        assert {h.history["threads"][0] for h in got} == {1}
        assert max(h.history["frozen"][0] for h in got) > 10_000  # one of the two trains more than once


@WORKERS
def test_warnings_come_once_and_name_a_model(workers):
    data = [(x, np.full_like(y, 1e30)) if k in (1, 3) else (x, y) for k, (x, y) in enumerate(DATA)]
    ours, theirs = several(optimizer="sgd"), several(optimizer="sgd")
    for _ in range(2):  # the updates that were skipped add up
        with pytest.warns(RuntimeWarning, match=r"models\[1\]( and 1 more)?: an update was skipped") as seen:
            got = elman.fit_many(ours, data, workers=workers, epochs=2)
        assert seen[0].filename == __file__
        with pytest.warns(RuntimeWarning, match="an update was skipped"):
            expected = [m.fit(x, y, epochs=2, verbose=0) for m, (x, y) in zip(theirs, data, strict=True)]
        assert_histories(got, expected, ours)
        assert_same(ours, theirs)
    assert [m.skipped_updates for m in ours] == [0, 3, 0, 3, 0]


# ---- errors


@WORKERS
def test_an_error_names_the_model_and_leaves_all_as_they_were(workers):
    ours, theirs = several(), several()
    for group in (ours, theirs):
        group[1].fit(*DATA[1], verbose=0)
    broken = X[3].copy()
    broken[2, 1, 0] = np.nan
    with pytest.raises(ValueError, match=r"x: 1 of 288 values are not finite[\s\S]*models\[3\]"):
        elman.fit_many(ours, [*DATA[:3], (broken, Y[3]), DATA[4]], workers=workers, epochs=2)
    assert_same(ours, theirs)
    with pytest.raises(ValueError, match=r"epochs: expected an integer[\s\S]*models\["):
        elman.fit_many(ours, DATA, workers=workers, epochs=-1)
    assert_same(ours, theirs)
    elman.fit_many(ours, DATA, workers=workers)


@WORKERS
def test_an_error_that_cannot_be_pickled_keeps_its_text(workers):
    class Odd(Exception):
        def __init__(self, one, two):
            super().__init__(f"{one} and {two}")
            self.file = sys.stdout

    class Fail(elman.callbacks.Callback):
        def on_epoch_end(self, epoch, logs):
            raise Odd("this", "that")

    ours = several()
    with pytest.raises(Odd if workers == 1 else RuntimeError, match=r"this and that[\s\S]*models\[\d\]"):
        elman.fit_many(ours, DATA, workers=workers, callbacks=[Fail()])
    assert_same(ours, several())


def test_a_loss_that_cannot_be_sent_is_refused_before():
    class Mine(elman.losses.MeanSquaredError):
        pass

    ours = several()
    ours[2].compile("sgd", Mine())
    with pytest.raises(ValueError, match=r"Mine is in no registry[\s\S]*models\[2\]"):
        elman.fit_many(ours, DATA, workers=1)


def refused():
    layer = SimpleRNN(2)
    one = model(9)
    plain = elman.Sequential([Dense(1)])
    return {
        "models none": (ValueError, "models: expected at least one", [], [], {}),
        "models one": (TypeError, "models: expected a sequence of models, got Sequential", one, DATA[:1], {}),
        "models name": (TypeError, r"models\[1\]: expected a Sequential, got str", [one, "gru"], DATA[:2], {}),
        "models twice": (ValueError, r"models\[2\]: the same model as models\[0\]", [one, model(), one], DATA[:3], {}),
        "not compiled": (ValueError, r"models\[1\]: not compiled", [one, plain], DATA[:2], {}),
        "shared layer": (
            ValueError, r"models\[1\]: its layer 'SimpleRNN' stands in models\[0\]",
            [model(layers=[layer]), model(layers=[layer])], DATA[:2], {},
        ),
        "lengths": (ValueError, "data: expected one entry per model, 1, got 2", [one], DATA[:2], {}),
        "data dict": (TypeError, "data: expected a sequence", [one], {"x": X[0], "y": Y[0]}, {}),
        "data array": (ValueError, r"data\[0\]: expected \(x, y\).*got ndarray", [one], X[:1], {}),
        "data long": (ValueError, r"data\[0\]: expected \(x, y\).*got tuple of 4", [one], [(1, 2, 3, 4)], {}),
        "data name": (ValueError, r"data\[0\]: unknown name 'length'.*'lengths'", [one], [{"length": 3}], {}),
        "argument": (ValueError, "fit_arguments: unknown name 'epoch', did", [one], DATA[:1], {"epoch": 3}),
        "workers 0": (ValueError, "workers: expected an integer of at least 1, got 0", [one], DATA[:1], {"workers": 0}),
        "workers 1.5": (TypeError, "workers: expected an integer", [one], DATA[:1], {"workers": 1.5}),
    }  # fmt: skip


@pytest.mark.parametrize("case", refused())
def test_bad_arguments_are_refused_before_anything_runs(case, monkeypatch):
    error, match, models, data, options = refused()[case]
    monkeypatch.setattr(processes, "spread", lambda *a: pytest.fail("it began"))
    with pytest.raises(error, match=match):
        elman.fit_many(models, data, **{"workers": 2, **options})


def test_layers_that_were_built_before_go_after_a_build():
    layers = [SimpleRNN(3), SimpleRNN(3)]
    for layer in layers:
        layer(X[0])
    ours, theirs = (model(layers=[layer, Dense(1)]) for layer in layers)
    with pytest.raises(ValueError, match=r"models\[0\]: its layer 'SimpleRNN' was built before the model"):
        elman.fit_many([ours], DATA[:1])
    ours.build((None, 2))
    elman.fit_many([ours], DATA[:1])
    theirs.fit(*DATA[0], verbose=0)
    assert_same([ours], [theirs])


def test_without_joblib_one_process_trains_and_two_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "joblib", None)
    ours = several()
    with pytest.raises(ImportError, match=r"workers: .*pip install 'elman\[many\]'"):
        elman.fit_many(ours, DATA, workers=2)
    assert_same(ours, several())
    assert len(elman.fit_many(ours, DATA, workers=1)) == COUNT
    assert len(elman.fit_many(ours[:1], DATA[:1], workers=2)) == 1


def test_a_model_is_not_compiled_meanwhile():
    class Compile(elman.callbacks.Callback):
        def on_train_begin(self, logs):
            ours[1].compile("sgd", "mse")  # the caller's, while another one trains

        def __deepcopy__(self, memo):
            return self

    ours = several()
    with pytest.raises(RuntimeError, match="while it is fitted"):
        elman.fit_many(ours, DATA, workers=1, callbacks=[Compile()])
    ours[1].compile("sgd", "mse")


# ---- tasks


@pytest.mark.parametrize(("count", "workers"), [(1, 2), (7, 2), (1000, 2), (1000, 16), (33, 5)])
def test_tasks_cover_all_jobs_once_and_end_small(count, workers):
    parts = list(processes._cut(list(range(count)), workers))
    assert [job for part in parts for job in part] == list(range(count))
    sizes = [len(part) for part in parts]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 1
    assert len(parts) <= 4 * workers * (2 + np.log(count))


# ---- processes


def run(script, **options):
    """A script without a guard around what it does, given on the command line."""
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(script)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


SCRIPT = """
import os, time
import numpy as np, elman
from elman.cells import CELLS, Cell, register
from elman.layers import RNN, Dense, Layer

def kernels(act, gate):
    def forward(z, prev, new, w, at):
        for j in range(at.lo, at.hi):
            new[0, j] = SLOPE * z[0, j]
    def backward(z, prev, new, dnew, dprev, w, dw, at):
        for j in range(at.lo, at.hi):
            z[0, j] = SLOPE * dnew[0, j]
            dprev[0, j] = 0
    return forward, backward

SLOPE = 0.5
register(Cell("half", states=1, x=(0,), h=(0,), kernels=kernels, reference=None))

class Halve(Layer):
    def compute_output_shape(self, shape):
        return shape
    def forward(self, x, *, training):
        return x / np.float32(2)
    def backward(self, dy, *, input_gradient):
        return dy / np.float32(2)

class Mine(elman.losses.MeanSquaredError):
    pass

elman.losses.LOSSES["mine"] = Mine

class Log(elman.callbacks.Callback):
    def on_epoch_end(self, epoch, logs):
        logs["process"] = os.getpid()

def make(seed):
    model = elman.Sequential([RNN(3, cell="half"), Halve(), Dense(1)], seed=seed)
    model.compile("adam", Mine())
    return model

rng = np.random.default_rng(0)
data = [(rng.normal(size=(16, 4, 1)), rng.normal(size=16)) for _ in range(4)]
ours, theirs = ([make(k) for k in range(4)] for _ in range(2))
"""


@needs_joblib
def test_classes_and_cells_of_a_script_go_along():
    body = """
    for turn in range(2):
        got = elman.fit_many(ours, data, workers=2, epochs=2, callbacks=[Log()])
        assert os.getpid() not in {h.history["process"][0] for h in got}
        for mine, other, history, (x, y) in zip(ours, theirs, got, data):
            expected = other.fit(x, y, epochs=2, verbose=0)
            assert history.history["loss"] == expected.history["loss"]
            assert all((a == b).all() for a, b in zip(mine.get_weights(), other.get_weights()))
    print("equal")
    """
    output, errors = run(SCRIPT + textwrap.dedent(body)).communicate(timeout=240)
    assert output.split() == ["equal"], errors


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="reads /proc")
@needs_joblib
@pytest.mark.parametrize("all_of_them", [False, True], ids=["parent", "group"])
def test_an_interrupt_ends_the_processes_and_leaves_the_models(all_of_them):
    body = """
    class Slow(Log):
        def on_epoch_end(self, epoch, logs):
            os.write(1, f"{os.getpid()}\\n".encode())
            time.sleep(60)

    try:
        elman.fit_many(ours, data, workers=2, callbacks=[Slow()])
    except KeyboardInterrupt:
        assert all(m._vector is None for m in ours)
        print("interrupted", flush=True)
    """
    process = run(SCRIPT + textwrap.dedent(body), start_new_session=True)
    workers = [int(process.stdout.readline()) for _ in range(2)]
    (os.killpg if all_of_them else os.kill)(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert output.split() == ["interrupted"], errors
    deadline = time.monotonic() + 20
    while any(os.path.exists(f"/proc/{w}") for w in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(os.path.exists(f"/proc/{w}") for w in workers)
