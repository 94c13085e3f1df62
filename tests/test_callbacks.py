"""Callbacks: scripted sequences of logs with a small real model, and real fits."""

import csv
import functools
import math
import os

import numpy as np
import pytest

import elman
from elman import Sequential
from elman.callbacks import (
    Callback,
    CSVLogger,
    EarlyStopping,
    LambdaCallback,
    LearningRateScheduler,
    ModelCheckpoint,
    ReduceLROnPlateau,
    TerminateOnNaN,
)
from elman.layers import Dense, Input, SimpleRNN
from elman.optimizers import SGD, Adam

NAN, INF = math.nan, math.inf


def data(n=24, steps=3, features=2, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, steps, features)).astype(np.float32)
    return x, x.sum(axis=(1, 2)) / 3


def model(optimizer="adam", seed=0, **options):
    made = Sequential([Input((None, 2)), SimpleRNN(3), Dense(1)], seed=seed)
    made.compile(optimizer, "mse", **options)
    return made


def mark(m, number):
    """Weights that tell which epoch left them."""
    m.set_weights([np.full_like(w, number) for w in m.get_weights()])


def drive(callback, values, *, name="val_loss", m=None, first=0):
    """Run a callback over one value per epoch as `fit` does; the number of epochs run."""
    callback.set_model(m or model())
    callback.model.stop_training = False
    callback.on_train_begin({})
    done = 0
    for epoch, value in enumerate(values, first):
        callback.on_epoch_begin(epoch, {})
        mark(callback.model, epoch)
        logs = {"loss": 9.0} if value is None else {"loss": 9.0, name: value}
        callback.on_epoch_end(epoch, logs)
        done += 1
        if callback.model.stop_training:
            break
    callback.on_train_end({})
    return done


def state(m):
    return [*m.get_weights(), *m.optimizer.state().values()]


def same(a, b):
    for p, q in zip(state(a), state(b), strict=True):
        np.testing.assert_array_equal(p, q)


def differ(a, b):
    return any(not np.array_equal(p, q) for p, q in zip(a.get_weights(), b.get_weights(), strict=True))


class Script(Callback):
    """Puts scripted values into the logs of each epoch, as a user's callback may."""

    def __init__(self, name, values):
        self.name, self.values = name, values

    def on_epoch_end(self, epoch, logs):
        logs[self.name] = self.values[epoch]


class Break(Callback):
    """Raises at the end of an epoch or of a batch."""

    def __init__(self, epoch=None, batch=None):
        self.epoch, self.batch = epoch, batch
        if batch is not None:
            self.on_train_batch_end = self._at_batch

    def _at_batch(self, batch, logs):
        if batch == self.batch:
            raise RuntimeError("broken")

    def on_epoch_end(self, epoch, logs):
        if epoch == self.epoch:
            raise RuntimeError("broken")


# ---- EarlyStopping


@pytest.mark.parametrize(
    ("values", "options", "epochs"),
    [
        ([3, 2, 1, 0.5], {}, 4),
        ([3, 2, 2, 1], {}, 3),  # equal is no improvement; patience 0 stops at the first epoch without
        ([3, 2, 2, 1], {"patience": 1}, 3),
        ([3, 2, 2, 1, 1, 0], {"patience": 2}, 6),  # an improvement starts the count afresh
        ([3, 4, 4, 2, 2, 2, 2, 2], {"patience": 3}, 7),
        ([3, 2.5, 2.2, 1], {"min_delta": 0.5}, 2),  # 2.5 + 0.5 is not below 3
        ([3, 2.4, 1.8, 1.5], {"min_delta": 0.5}, 4),
        ([3, 2.4, 1.8, 1.5], {"min_delta": -0.5}, 4),  # the sign does not matter
        ([1, 2, 3, 3], {"mode": "max"}, 4),
        ([1, 2, 3, 2, 9], {"mode": "max"}, 4),
        ([1, 1.5, 3, 3], {"mode": "max", "min_delta": 0.5}, 2),
        ([1, 1.6, 2.2, 2.2, 9], {"mode": "max", "min_delta": -0.5}, 4),
        ([NAN, 3, 2, 2, 0], {"patience": 2}, 5),  # NaN first does not block what follows
        ([NAN, 3, 2, 2, 2, 0], {"patience": 2}, 5),
        ([NAN, 1], {}, 1),  # the first epoch too may be the one without improvement
        ([3, NAN, 2, NAN, NAN, 1], {"patience": 2}, 5),
        ([NAN, 1, 2, 3, 3], {"mode": "max", "patience": 2}, 5),
        ([INF, 1, 1], {"patience": 2}, 3),
        ([5, 6, 7, 4, 5, 9], {"start_from_epoch": 3}, 5),
        ([1, 6, 5, 4, 5, 9], {"start_from_epoch": 1}, 5),  # the best value before does not count
        ([3, 2.5, 2.2, 2.1], {"baseline": 2, "patience": 3}, 3),  # better each time, but never than the baseline
        ([3, 1.9, 1.95, 1.95, 0], {"baseline": 2, "patience": 2}, 4),
        ([3, 1.9, 1.8, 1.7], {"baseline": 2, "patience": 2}, 4),
        ([3, 4], {"baseline": 2}, 1),
        ([None, 3, None, None, 2, None, 2], {}, 7),  # epochs without the value are passed over
    ],
)
def test_early_stopping_ends_at(values, options, epochs):
    callback = EarlyStopping(**options)
    callback.validation_freq = 10 if None in values else 0
    assert drive(callback, [*values]) == epochs
    stopped = epochs < len(values) or callback.model.stop_training
    assert callback.stopped_epoch == (epochs - 1 if stopped else 0)


@pytest.mark.parametrize(
    ("values", "options", "best"),
    [
        ([3, 1, 2, 2, 2], {"patience": 2}, 1),
        ([3, 1, 2], {"patience": 9}, 1),  # not stopped early, restored all the same
        ([3, 2, 1], {"patience": 9}, 2),
        ([3, 1, 1, 2], {"patience": 9}, 1),  # the first of equals
        ([NAN, 2, 3], {"patience": 9}, 1),
        ([1, 2, 1.5], {"patience": 9, "mode": "max"}, 1),
        ([1, 9, 5, 7], {"patience": 9, "start_from_epoch": 2}, 2),
        ([5, 3, 4], {"patience": 3, "baseline": 1}, 1),  # whatever the baseline
        ([3, 2.9, 2.8], {"patience": 9, "min_delta": 0.5}, 0),
    ],
)
def test_early_stopping_restores_the_best_weights(values, options, best):
    callback = EarlyStopping(restore_best_weights=True, **options)
    drive(callback, values)
    assert all(np.all(w == best) for w in callback.model.get_weights())
    assert callback.best_epoch == best
    assert callback.best == values[best]
    kept = EarlyStopping(**options)
    done = drive(kept, values)
    assert all(np.all(w == done - 1) for w in kept.model.get_weights())
    assert kept.best_weights is None


def test_early_stopping_restores_nothing_where_nothing_was_good():
    callback = EarlyStopping(patience=9, restore_best_weights=True)
    drive(callback, [NAN, NAN])
    assert all(np.all(w == 1) for w in callback.model.get_weights())
    assert callback.best is None


def test_early_stopping_never_keeps_weights_that_are_not_finite():
    callback = EarlyStopping(patience=9, restore_best_weights=True)
    callback.set_model(model())
    callback.on_train_begin()
    callback.on_epoch_end(0, {"val_loss": 2.0})
    before = callback.model.get_weights()
    callback.model.weights[0].value[:] = NAN
    callback.on_epoch_end(1, {"val_loss": 1.0})
    callback.on_train_end()
    assert callback.best == 2
    for a, b in zip(callback.model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_early_stopping_starts_afresh_with_every_training():
    callback = EarlyStopping(restore_best_weights=True, patience=1)
    assert drive(callback, [1, 2]) == 2
    assert drive(callback, [5, 4, 6]) == 3
    assert callback.best == 4
    assert all(np.all(w == 1) for w in callback.model.get_weights())


def test_early_stopping_in_a_fit_restores_weights_and_optimizer_state_of_the_best_epoch():
    x, y = data()
    values = [3, 1, 2, 2, 9]
    m, twin, unrestored = model(), model(), model()
    stop = EarlyStopping("score_loss", patience=2, restore_best_weights=True)
    history = m.fit(x, y, batch_size=8, epochs=5, verbose=0, callbacks=[Script("score_loss", values), stop])
    assert history.epoch == [0, 1, 2, 3]
    assert history.history["score_loss"] == values[:4]
    twin.fit(x, y, batch_size=8, epochs=2, verbose=0)
    same(m, twin)
    assert m.optimizer.iterations == 6
    unrestored.fit(x, y, batch_size=8, epochs=4, verbose=0)
    assert differ(m, unrestored)


def test_early_stopping_with_real_validation():
    x, y = data()
    m, twin = model(SGD(0.3)), model(SGD(0.3))
    stop = EarlyStopping(patience=3, restore_best_weights=True)
    history = m.fit(x, y, epochs=60, batch_size=8, validation_data=(x, -y), verbose=0, callbacks=[stop])
    losses = history.history["val_loss"]
    best = int(np.argmin(losses))
    assert len(losses) == best + 4 < 60
    assert stop.best == losses[best]
    assert m.evaluate(x, -y, verbose=0) == losses[best]
    twin.fit(x, y, epochs=best + 1, batch_size=8, verbose=0)
    same(m, twin)


# ---- names, directions, arguments


@pytest.mark.parametrize("made", [EarlyStopping, ReduceLROnPlateau, functools.partial(ModelCheckpoint, "never.npz",
                                                                                  save_best_only=True)])  # fmt: skip
def test_an_unknown_monitor_is_an_error_at_the_end_of_the_first_epoch_and_leaves_the_model_usable(made):
    x, y = data()
    twin = model(metrics=["mae"])
    twin.fit(x, y, batch_size=8, verbose=0)
    cases = [
        ({"monitor": "val_los"}, {"validation_data": (x, y)},
         r"monitor: unknown name 'val_los', did you mean 'val_loss'\? Known: loss, mae, val_loss, val_mae"),
        ({}, {}, r"monitor: 'val_loss' needs validation_data or validation_split .* there are: loss, mae"),
        ({"monitor": "f1"}, {"validation_data": (x, y), "validation_freq": 3}, "Known: loss, mae, val_loss, val_mae"),
    ]  # fmt: skip
    for options, validation, message in cases:
        m = model(metrics=["mae"])
        with pytest.raises(ValueError, match=message):
            m.fit(x, y, batch_size=8, epochs=5, verbose=0, callbacks=[made(**options)], **validation)
        same(m, twin)
        goes_on, whole = m.fit(x, y, batch_size=8, epochs=2, initial_epoch=1, verbose=0), model(metrics=["mae"])
        whole = whole.fit(x, y, batch_size=8, epochs=2, verbose=0)
        assert goes_on.history["loss"] == whole.history["loss"][1:]
    assert not os.path.exists("never.npz")


@pytest.mark.parametrize(
    ("name", "rises"),
    [
        ("loss", False), ("val_loss", False), ("val_mae", False), ("root_mean_squared_error", False), ("mape", False),
        ("weighted_mean_absolute_error", False), ("binary_crossentropy", False),
        ("acc", True), ("val_accuracy", True), ("val_sparse_categorical_accuracy", True), ("auc", True),
        ("perplexity", False), ("f1_score", True), ("val_r2_score", True), ("precision", True), ("recall", True),
    ],
)  # fmt: skip
def test_auto_knows_the_direction_by_the_name(name, rises):
    rising, falling = EarlyStopping(name, patience=1), EarlyStopping(name, patience=1)
    assert drive(rising, [1, 2, 3], name=name) == (3 if rises else 2)
    assert drive(falling, [3, 2, 1], name=name) == (2 if rises else 3)


def test_auto_asks_where_a_name_does_not_tell():
    with pytest.raises(ValueError, match="mode: 'auto' cannot tell whether 'elegance' is to fall or to rise"):
        drive(EarlyStopping("elegance"), [1, 2], name="elegance")
    assert drive(EarlyStopping("elegance", mode="max"), [1, 2], name="elegance") == 2


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: EarlyStopping(mode="minimum"), ValueError, "mode: unknown name 'minimum', did you mean 'min'"),
        (lambda: EarlyStopping(monitor=3), TypeError, "monitor: expected a name"),
        (lambda: EarlyStopping(patience=-1), ValueError, "patience: expected an integer of at least 0, got -1"),
        (lambda: EarlyStopping(patience=1.5), TypeError, "patience: expected an integer, got float 1.5"),
        (lambda: EarlyStopping(min_delta=NAN), ValueError, "min_delta: expected a finite number"),
        (lambda: EarlyStopping(start_from_epoch=-2), ValueError, "start_from_epoch"),
        (lambda: EarlyStopping(verbose="loud"), ValueError, "verbose"),
        (lambda: ReduceLROnPlateau(factor=1), ValueError, "factor: expected a number from 0 to below 1, got 1"),
        (lambda: ReduceLROnPlateau(cooldown=-1), ValueError, "cooldown"),
        (lambda: ReduceLROnPlateau(min_lr=-1), ValueError, "min_lr"),
        (lambda: ModelCheckpoint("x", save_freq="batch"), ValueError, "save_freq: expected 'epoch' or a number"),
        (lambda: ModelCheckpoint("x", save_freq=0), ValueError, "save_freq: expected an integer of at least 1"),
        (lambda: ModelCheckpoint(b"x"), TypeError, "filepath: expected text"),
        (lambda: ModelCheckpoint("{epoch"), ValueError, "filepath: cannot read the braces"),
        (lambda: ModelCheckpoint("{}"), ValueError, "filepath: expected names such as 'epoch'"),
        (lambda: ModelCheckpoint("{loss.real}"), ValueError, "filepath: expected names such as 'epoch'"),
        (lambda: ModelCheckpoint("{batch}"), ValueError, "'batch' needs a number of batches"),
        (lambda: CSVLogger("x", ", "), ValueError, "separator: expected one character"),
        (lambda: CSVLogger("x", 1), TypeError, "separator: expected one character, got int 1"),
        (lambda: LearningRateScheduler(0.1), TypeError, "schedule: expected a function, got float"),
        (lambda: LearningRateScheduler(lambda: 1), TypeError, r"schedule: expected a function of \(epoch, learning_"),
        (lambda: LambdaCallback(on_epoch_ends=print), TypeError, "'on_epoch_ends', did you mean 'on_epoch_end'"),
        (lambda: LambdaCallback(on_epoch_end=3), TypeError, "on_epoch_end: expected a function, got int 3"),
    ],
)
def test_arguments_are_checked(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_names_and_order_of_arguments_are_kerass():
    stop = EarlyStopping("loss", 0.1, 2, 1, "max", 0.5, True, 3)
    assert (stop.monitor, stop.min_delta, stop.patience, stop.verbose) == ("loss", 0.1, 2, 1)
    assert (stop.mode, stop.baseline, stop.restore_best_weights, stop.start_from_epoch) == ("max", 0.5, True, 3)
    reduce = ReduceLROnPlateau("loss", 0.2, 3, 1, "min", 0.3, 4, 0.05)
    assert (reduce.monitor, reduce.factor, reduce.patience, reduce.verbose) == ("loss", 0.2, 3, 1)
    assert (reduce.mode, reduce.min_delta, reduce.cooldown, reduce.min_lr) == ("min", 0.3, 4, 0.05)
    plain = ReduceLROnPlateau()
    assert (plain.monitor, plain.factor, plain.patience, plain.min_delta) == ("val_loss", 0.1, 10, 1e-4)
    assert (plain.cooldown, plain.min_lr) == (0, 0)


# ---- ReduceLROnPlateau


def rates(values, rate=1.0, **options):
    """The learning rate after each epoch."""
    m, seen = model(SGD(rate)), []
    callback = ReduceLROnPlateau(**{"factor": 0.5, "patience": 2, "min_delta": 0, **options})
    callback.set_model(m)
    callback.on_train_begin({})
    for epoch, value in enumerate(values):
        logs = {"val_loss": value}
        before = m.optimizer.learning_rate
        callback.on_epoch_end(epoch, logs)
        assert logs["learning_rate"] == before
        seen.append(m.optimizer.learning_rate)
    return seen


def test_reduce_on_plateau():
    assert rates([3, 2, 2, 2, 2, 2, 1]) == [1, 1, 1, 0.5, 0.5, 0.25, 0.25]
    assert rates([3, 4, 2, 3, 3]) == [1, 1, 1, 1, 0.5]  # an improvement starts the count afresh
    assert rates([3, 3, 3], patience=0) == rates([3, 3, 3], patience=1) == [1, 0.5, 0.25]
    assert rates([1, 2, 3, 3, 3], mode="max") == [1, 1, 1, 1, 0.5]
    assert rates([3, 2.9, 2.8, 2.7], min_delta=0.5) == [1, 1, 0.5, 0.5]
    assert rates([1, 1.1, 1.2, 1.3], mode="max", min_delta=-0.5) == [1, 1, 0.5, 0.5]
    assert rates([3] * 8, min_lr=0.3) == [1, 1, 0.5, 0.5, 0.3, 0.3, 0.3, 0.3]
    assert rates([3, 3, 3, 3], min_lr=0.3, rate=0.2) == [0.2] * 4  # never raised to the bound
    assert rates([NAN, NAN, 3, 3, 3]) == [1, 0.5, 0.5, 0.5, 0.25]
    assert rates([3, 2.9999, 2.9998], patience=1, min_delta=1e-3) == [1, 0.5, 0.25]


def test_reduce_on_plateau_cools_down():
    # Epochs 3 and 4 are the cooldown's; the last of them counts again, as in Keras.
    assert rates([3] * 8, cooldown=2) == [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]
    assert rates([3] * 6, cooldown=3, patience=1) == [1, 0.5, 0.5, 0.5, 0.25, 0.25]


def test_reduce_on_plateau_in_a_fit_trains_with_the_reduced_rate_and_tells_the_history():
    x, y = data()
    m, twin = model(SGD(0.1)), model(SGD(0.1))
    reduce = ReduceLROnPlateau("score_loss", factor=0.5, patience=1)
    history = m.fit(x, y, epochs=4, verbose=0, callbacks=[Script("score_loss", [2, 2, 2, 1]), reduce])
    assert history.history["learning_rate"] == [0.1, 0.1, 0.05, 0.025]
    for epoch, rate in enumerate([0.1, 0.1, 0.05, 0.025]):
        twin.optimizer.learning_rate = rate
        twin.fit(x, y, initial_epoch=epoch, epochs=epoch + 1, verbose=0)
    same(m, twin)
    m.fit(x, y, epochs=2, verbose=0, callbacks=[Script("score_loss", [8, 7]), reduce])
    assert m.optimizer.learning_rate == 0.025  # best and counts start afresh, the rate stays


# ---- ModelCheckpoint


def test_checkpoint_every_epoch_with_fields_and_folders(tmp_path):
    x, y = data()
    m = model(metrics=["mae"])
    save = ModelCheckpoint(tmp_path / "a" / "{epoch:02d}-{val_loss:.3f}-{mae:.2f}.npz")
    history = m.fit(x, y, epochs=3, validation_split=0.25, verbose=0, callbacks=[save]).history
    expected = [f"{e + 1:02d}-{history['val_loss'][e]:.3f}-{history['mae'][e]:.2f}.npz" for e in range(3)]
    assert sorted(os.listdir(tmp_path / "a")) == expected
    same(elman.load_model(tmp_path / "a" / expected[2]), m)
    resumed = elman.load_model(tmp_path / "a" / expected[1])
    resumed.fit(x, y, initial_epoch=2, epochs=3, validation_split=0.25, verbose=0)
    same(resumed, m)  # training goes on with the same bits


@pytest.mark.parametrize(
    ("values", "options", "saved"),
    [
        ([3, 2, 2, 4, 1], {}, [1, 2, 5]),
        ([NAN, 2, NAN, 1], {}, [2, 4]),
        ([1, 3, 3, 2, 4], {"mode": "max"}, [1, 2, 5]),
        ([3, 2, 1], {"initial_value_threshold": 2}, [3]),
    ],
)
def test_checkpoint_saves_the_best_only(tmp_path, values, options, saved):
    callback = ModelCheckpoint(str(tmp_path / "{epoch}.npz"), save_best_only=True, **options)
    assert drive(callback, values) == len(values)
    assert sorted(os.listdir(tmp_path)) == [f"{k}.npz" for k in saved]
    assert all(np.all(w == saved[-1] - 1) for w in elman.load_model(tmp_path / f"{saved[-1]}.npz").get_weights())
    assert callback.best == values[saved[-1] - 1]


def test_checkpoint_keeps_the_best_across_fits(tmp_path):
    callback = ModelCheckpoint(tmp_path / "best.npz", save_best_only=True)
    drive(callback, [3, 2])
    drive(callback, [2.5, 2.2], first=7)
    assert np.all(elman.load_model(tmp_path / "best.npz").get_weights()[0] == 1)
    drive(callback, [2.5, 1.5], first=20)
    assert np.all(elman.load_model(tmp_path / "best.npz").get_weights()[0] == 21)


def test_checkpoint_every_so_many_batches_counted_across_epochs(tmp_path):
    x, y = data()  # three batches of 8
    m = model()
    save = ModelCheckpoint(tmp_path / "{epoch}-{batch}.npz", save_freq=2)
    m.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0, callbacks=[save])
    assert sorted(os.listdir(tmp_path)) == ["1-2.npz", "2-1.npz", "2-3.npz"]
    twin = model()
    for start in (0, 8, 16, 0):
        twin.train_on_batch(x[start : start + 8], y[start : start + 8])
    same(elman.load_model(tmp_path / "2-1.npz"), twin)
    with pytest.raises(ValueError, match=r"monitor: 'val_loss' needs .* there are: loss"):
        save = ModelCheckpoint(tmp_path / "x.npz", save_best_only=True, save_freq=1)
        model().fit(x, y, verbose=0, validation_split=0.5, callbacks=[save])
    save = ModelCheckpoint(tmp_path / "best.npz", "loss", save_best_only=True, save_freq=1)
    history = model().fit(x, y, verbose=0, callbacks=[save])
    assert save.best == history.history["loss"][0]
    assert elman.load_model(tmp_path / "best.npz").optimizer.iterations == 1


def test_checkpoint_refuses_unknown_fields_and_formats_and_keeps_best_when_a_file_cannot_be_written(tmp_path):
    x, y = data()
    for path, message in [
        ("{epoch}-{los}.npz", r"filepath: unknown name 'los', did you mean 'loss'\? Known: loss"),
        ("{val_loss}.npz", "filepath: 'val_loss' needs validation_data"),
        ("{loss:d}.npz", "filepath: cannot fill in .*Unknown format code 'd'"),
    ]:
        save = ModelCheckpoint(tmp_path / path, "loss", save_best_only=True)
        with pytest.raises(ValueError, match=message):
            model().fit(x, y, verbose=0, callbacks=[save])
        assert save.best is None
    assert os.listdir(tmp_path) == []
    (tmp_path / "folder").mkdir()
    save = ModelCheckpoint(tmp_path / "folder", "loss", save_best_only=True)
    with pytest.raises(OSError, match="folder"):
        model().fit(x, y, verbose=0, callbacks=[save])
    assert save.best is None
    assert os.listdir(tmp_path) == ["folder"]


def test_epochs_without_validation_are_passed_over(tmp_path):
    x, y = data()
    m = model(SGD(1e-3))
    stop = EarlyStopping(patience=1, restore_best_weights=True)
    reduce, save = ReduceLROnPlateau(), ModelCheckpoint(tmp_path / "{epoch}.npz", save_best_only=True)
    named, plain = ModelCheckpoint(tmp_path / "{epoch}-{val_loss}.npz"), ModelCheckpoint(tmp_path / "p{epoch}.npz")
    callbacks = [stop, reduce, save, named, plain]
    history = m.fit(x, y, epochs=5, validation_data=(x, y), validation_freq=2, verbose=0, callbacks=callbacks)
    assert history.epoch == [0, 1, 2, 3, 4]
    losses = history.history["val_loss"]
    assert losses[1] < losses[0]  # so that nothing stops
    assert len(history.history["learning_rate"]) == 5
    assert stop.best_epoch == 3
    assert sorted(os.listdir(tmp_path)) == sorted(
        ["2.npz", "4.npz", f"2-{losses[0]}.npz", f"4-{losses[1]}.npz", *(f"p{k}.npz" for k in range(1, 6))]
    )
    assert m.evaluate(x, y, verbose=0) == losses[1]


# ---- CSVLogger


def rows(path, separator=","):
    with open(path, newline="") as file:
        return list(csv.reader(file, delimiter=separator))


def test_csv_logger_writes_every_digit(tmp_path):
    x, y = data()
    path = tmp_path / "log.csv"
    path.write_text("old\n")
    log = CSVLogger(path, separator=";")
    history = model(metrics=["mae"]).fit(x, y, epochs=3, validation_split=0.25, verbose=0, callbacks=[log]).history
    header, *lines = rows(path, ";")
    assert header == ["epoch", "loss", "mae", "val_loss", "val_mae"]
    assert [line[0] for line in lines] == ["0", "1", "2"]
    for k, name in enumerate(header[1:], 1):
        assert [float(line[k]) for line in lines] == history[name]


def test_csv_logger_has_columns_for_validation_to_come_and_na_without(tmp_path):
    x, y = data()
    log = CSVLogger(tmp_path / "log.csv")
    m = model(SGD(0.25))
    keep = LearningRateScheduler(lambda epoch: 0.25)
    options = {"validation_data": (x, y), "validation_freq": 2, "verbose": 0}
    history = m.fit(x, y, epochs=3, callbacks=[keep, log], **options).history
    header, *lines = rows(tmp_path / "log.csv")
    assert header == ["epoch", "learning_rate", "loss", "val_loss"]
    assert [line[1] for line in lines] == ["0.25"] * 3
    assert [line[3] for line in lines] == ["NA", repr(history["val_loss"][0]), "NA"]


def test_csv_logger_appends_under_the_same_header_only(tmp_path):
    x, y = data()
    path = tmp_path / "log.csv"
    m = model()
    m.fit(x, y, epochs=2, verbose=0, callbacks=[CSVLogger(path, append=True)])
    m.fit(x, y, initial_epoch=2, epochs=3, verbose=0, callbacks=[CSVLogger(path, append=True)])
    assert [row[0] for row in rows(path)] == ["epoch", "0", "1", "2"]
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"has the columns \['epoch', 'loss'\], this training gives .*'val_loss'"):
        m.fit(x, y, validation_split=0.5, verbose=0, callbacks=[CSVLogger(path, append=True)])
    assert path.read_bytes() == before
    anew = CSVLogger(path)
    for options in ({}, {"validation_split": 0.5}):
        m.fit(x, y, epochs=2, verbose=0, callbacks=[anew], **options)
        assert [row[0] for row in rows(path)] == ["epoch", "0", "1"]
    assert rows(path)[0] == ["epoch", "loss", "val_loss"]


def test_csv_logger_finds_an_unwritable_file_before_anything_is_trained(tmp_path):
    x, y = data()
    m, untouched = model(), model()
    with pytest.raises(FileNotFoundError):
        m.fit(x, y, verbose=0, callbacks=[CSVLogger(tmp_path / "nowhere" / "log.csv")])
    for a, b in zip(m.get_weights(), untouched.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


# ---- LearningRateScheduler, TerminateOnNaN, LambdaCallback


def test_scheduler_with_and_without_the_rate(capsys):
    x, y = data()
    with_rate = lambda epoch, rate: rate * epoch / (1 + epoch) if epoch else 0.5
    for schedule in (lambda epoch: 0.5 / (epoch + 1), with_rate):
        m = model(SGD(9))
        history = m.fit(x, y, epochs=3, verbose=0, callbacks=[LearningRateScheduler(schedule)]).history
        np.testing.assert_allclose(history["learning_rate"], [0.5, 0.25, 0.5 / 3], rtol=1e-15)
        assert m.optimizer.learning_rate == pytest.approx(0.5 / 3)
    assert capsys.readouterr().out == ""
    model().fit(x, y, verbose=0, callbacks=[LearningRateScheduler(lambda epoch: 1, verbose=1)])
    assert capsys.readouterr().out == "Epoch 1: the learning rate is 1\n"
    seen = []
    scheduler = LearningRateScheduler(lambda *given: seen.append(given) or 0.125)
    model(SGD(0.5)).fit(x, y, initial_epoch=3, epochs=5, verbose=0, callbacks=[scheduler])
    assert seen == [(3, 0.5), (4, 0.125)]


def test_scheduler_refuses_what_is_no_rate_and_passes_on_the_schedules_own_errors():
    x, y = data()
    for value, error in ((None, TypeError), (-1, ValueError), (NAN, ValueError), ("1", TypeError)):
        with pytest.raises(error, match="schedule, in epoch 0: expected a"):
            model().fit(x, y, verbose=0, callbacks=[LearningRateScheduler(functools.partial(lambda v, _: v, value))])

    def schedule(epoch, rate):
        return rate + "text"

    with pytest.raises(TypeError, match="unsupported operand"):
        model().fit(x, y, verbose=0, callbacks=[LearningRateScheduler(schedule)])


def test_a_rate_that_a_schedule_gives_is_not_overwritten():
    x, y = data()
    for callback in (LearningRateScheduler(lambda epoch: 0.1), ReduceLROnPlateau("loss", patience=1, min_delta=1e9)):
        m = model(SGD(elman.schedules.ExponentialDecay(0.1, 10, 0.5)))
        with pytest.raises(AttributeError, match="learning_rate: follows ExponentialDecay"):
            m.fit(x, y, epochs=3, verbose=0, callbacks=[callback])


class Poison(Callback):
    """Spoils a weight before the second batch of the second epoch."""

    def __init__(self, value):
        self.value = value

    def on_train_batch_begin(self, batch, logs):
        if batch == 1 and self.model.optimizer.iterations > 3:
            self.model.weights[-1].value[:] = self.value


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_terminate_on_nan_ends_training_at_an_update_that_was_left_out_and_says_why(capsys):
    x, y = data()
    for value in (NAN, INF):
        batches, m = [], model(SGD(1e-3))
        count = LambdaCallback(on_train_batch_end=lambda batch, logs, batches=batches: batches.append(batch))
        stop = EarlyStopping("loss", patience=9, restore_best_weights=True)
        calls = [Poison(value), TerminateOnNaN(), count, stop]
        history = m.fit(x, y, batch_size=8, epochs=9, verbose=0, callbacks=calls)
        assert history.epoch == [0, 1]
        assert history.skipped_updates == [0, 1]
        assert batches == [0, 1, 2, 0, 1]
        assert capsys.readouterr().out == (
            "Epoch 2, batch 2: the update was left out, training ends; "
            f"parameter {m.weights[-1].name!r} is {value} at index (0,)\n"
        )
        twin = model(SGD(1e-3))
        twin.fit(x, y, batch_size=8, verbose=0)
        same(m, twin)  # EarlyStopping went back to the epoch before
    # Updates left out in an earlier training do not end this one.
    m.weights[-1].value[:] = 0
    assert m.skipped_updates == 1
    assert m.fit(x, y, epochs=2, verbose=0, callbacks=[TerminateOnNaN()]).epoch == [0, 1]
    assert capsys.readouterr().out == ""


def test_terminate_on_nan_ends_training_at_a_loss_that_is_not_finite(capsys):
    x, y = data()
    m = model(SGD(0.0))
    m.weights[-1].value[:] = 1e30  # its square is too much for float32, twice itself is not
    assert m.fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=[TerminateOnNaN()]).epoch == [0]
    expected = "Epoch 1, batch 1: the loss is inf, training ends; all parameters are finite\n"
    assert capsys.readouterr().out == expected
    m = model(SGD(1e30))
    m.weights[-1].value[:] = 1e30
    m.fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=[TerminateOnNaN()])
    out = capsys.readouterr().out
    assert out.startswith("Epoch 1, batch 1: the loss is inf, training ends; not finite: ")
    assert m.weights[-1].name in out


def test_lambda_callback_is_called_with_what_the_hooks_get():
    calls = []

    def note(name):
        return lambda *given: calls.append((name, *given[:-1], *given[-1]))

    names = ["on_train_begin", "on_train_end", "on_epoch_begin", "on_epoch_end", "on_train_batch_begin",
             "on_train_batch_end", "on_test_begin", "on_test_batch_end"]  # fmt: skip
    callback = LambdaCallback(**{name: note(name) for name in names}, on_test_end=None)
    x, y = data()
    model().fit(x, y, batch_size=16, validation_split=0.5, verbose=0, callbacks=[callback])
    assert calls == [
        ("on_train_begin",), ("on_epoch_begin", 0), ("on_train_batch_begin", 0), ("on_train_batch_end", 0, "loss"),
        ("on_test_begin",), ("on_test_batch_end", 0, "loss"), ("on_epoch_end", 0, "loss", "val_loss"),
        ("on_train_end", "loss", "val_loss"),
    ]  # fmt: skip


# ---- errors, history, messages


@pytest.mark.parametrize("where", [{"epoch": 1}, {"batch": 1}])
def test_a_callback_that_raises_leaves_weights_and_optimizer_state_of_one_moment_and_whole_files(where, tmp_path):
    x, y = data()
    m, ended = model(), []
    log, end = CSVLogger(tmp_path / "log.csv"), LambdaCallback(on_train_end=ended.append)
    stop = EarlyStopping("loss", patience=9, restore_best_weights=True)
    fit = {"batch_size": 8, "shuffle": False, "verbose": 0}
    with pytest.raises(RuntimeError, match="broken"):
        m.fit(x, y, epochs=5, callbacks=[log, stop, Break(**where), end], **fit)
    twin, epochs = model(), where.get("epoch", -1) + 1
    history = twin.fit(x, y, epochs=epochs, **fit).history
    for k in range(where.get("batch", -1) + 1):
        twin.train_on_batch(x[8 * k : 8 * k + 8], y[8 * k : 8 * k + 8])
    same(m, twin)
    assert ended == []  # no further hook
    assert [float(row[1]) for row in rows(tmp_path / "log.csv")[1:]] == history.get("loss", [])
    assert (stop.best_weights is not None) == (epochs > 0)  # for the user to restore
    goes_on = m.fit(x, y, initial_epoch=epochs, epochs=epochs + 1, **fit).history
    assert goes_on == twin.fit(x, y, initial_epoch=epochs, epochs=epochs + 1, **fit).history
    same(m, twin)


def test_best_weights_survive_an_error_for_the_user_to_restore():
    x, y = data()
    m, twin = model(), model()
    stop = EarlyStopping("score_loss", patience=9, restore_best_weights=True)
    with pytest.raises(RuntimeError, match="broken"):
        m.fit(x, y, epochs=5, verbose=0, callbacks=[Script("score_loss", [2, 1, 3, 3]), stop, Break(epoch=3)])
    m.set_weights(stop.best_weights)
    twin.fit(x, y, epochs=2, verbose=0)
    assert not differ(m, twin)


def test_callbacks_that_only_watch_change_no_bit(tmp_path):
    x, y = data()
    watched, alone = model(Adam(0.01)), model(Adam(0.01))
    watchers = [EarlyStopping(patience=99), ModelCheckpoint(tmp_path / "m.npz"), CSVLogger(tmp_path / "log.csv")]
    watchers += [
        TerminateOnNaN(),
        LambdaCallback(on_epoch_end=lambda epoch, logs: None),
        ReduceLROnPlateau(patience=99),
    ]
    watchers += [LearningRateScheduler(lambda epoch, rate: rate)]
    a = watched.fit(x, y, epochs=3, validation_split=0.25, verbose=0, callbacks=watchers).history
    b = alone.fit(x, y, epochs=3, validation_split=0.25, verbose=0).history
    assert a == {**b, "learning_rate": [0.01] * 3}
    same(watched, alone)


def test_messages(capsys, tmp_path):
    drive(EarlyStopping(patience=1, restore_best_weights=True, verbose=1), [2, 1, 3])
    assert capsys.readouterr().out == (
        "Epoch 3: early stopping, val_loss is 3, the best was 1 in epoch 2\n"
        "Weights of epoch 2, the best one, are restored\n"
    )
    drive(EarlyStopping(verbose=1), [NAN])
    assert capsys.readouterr().out == "Epoch 1: early stopping, val_loss is nan\n"
    drive(ReduceLROnPlateau(patience=1, verbose=1), [2, 3], m=model(SGD(0.5)))
    assert capsys.readouterr().out == "Epoch 2: the learning rate is reduced from 0.5 to 0.05\n"
    path = tmp_path / "m.npz"
    drive(ModelCheckpoint(path, save_best_only=True, verbose=1), [NAN, 2, 3])
    assert capsys.readouterr().out == (
        "Epoch 1: nothing saved, val_loss is nan\n"
        f"Epoch 2: saved to {path}, val_loss is 2\n"
        "Epoch 3: nothing saved, val_loss is 3; the best is 2\n"
    )
    callbacks = [EarlyStopping(restore_best_weights=True), ReduceLROnPlateau(patience=1), ModelCheckpoint(path)]
    for callback in callbacks:
        drive(callback, [2, 3])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("name", "near"), [("on_batch_end", "on_train_batch_end"), ("on_epoch_ends", "on_epoch_end")])
def test_hooks_that_would_never_be_called(name, near):
    with pytest.raises(ValueError, match=f"Mine: '{name}' is no hook, which '{near}' is; fit would not call it"):
        type("Mine", (elman.callbacks.Callback,), {name: lambda self, *args: None})


@pytest.mark.parametrize("name", ["on_improvement", "on_step", "on_fit_start", "on_validation_end"])
def test_methods_of_a_callbacks_own(name):
    assert type("Mine", (elman.callbacks.Callback,), {name: lambda self, *args: None, "on_epoch": 3})
