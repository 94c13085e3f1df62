"""`Sequential`: what compile, fit, evaluate, predict and the single-batch methods mean; callbacks; progress; memory."""

import os
import re
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

import elman
from elman import Sequential, losses
from elman.callbacks import Callback
from elman.layers import GRU, LSTM, Dense, Flatten, Input, SimpleRNN


def data(n=50, steps=6, features=2, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, steps, features)).astype(np.float32)
    return x, (x.sum(axis=(1, 2)) / 3 + 0.1 * rng.normal(size=n)).astype(np.float32)


def model(optimizer="sgd", loss="mse", seed=0, **options):
    made = Sequential([Input((None, 2)), SimpleRNN(4), Dense(1)], seed=seed)
    made.compile(optimizer, loss, **options)
    return made


def same(a, b):
    for p, q in zip(a.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_array_equal(p, q)


# ---- fit against the steps it stands for


def test_fit_is_train_on_batch_over_shuffled_batches_the_last_partial_one_included():
    x, y = data()
    fitted, stepped = model(), model()
    history = fitted.fit(x, y, batch_size=16, epochs=3, verbose=0)
    rng = np.random.default_rng([0, 1])
    for epoch in range(3):
        order, total = rng.permutation(50), 0.0
        for start in range(0, 50, 16):
            rows = order[start : start + 16]
            total += stepped.train_on_batch(x[rows], y[rows]) * len(rows)
        assert history.history["loss"][epoch] == total / 50  # weighted by batch size
    same(fitted, stepped)
    assert fitted.optimizer.iterations == 12


def test_unshuffled_fit_takes_batches_in_order_and_steps_per_epoch_the_first_ones():
    x, y = data()
    fitted, stepped = model(), model()
    history = fitted.fit(x, y, batch_size=8, epochs=2, shuffle=False, steps_per_epoch=3, verbose=0)
    for epoch in range(2):
        values = [stepped.train_on_batch(x[k : k + 8], y[k : k + 8]) for k in (0, 8, 16)]
        assert history.history["loss"][epoch] == sum(v * 8 for v in values) / 24
    same(fitted, stepped)
    assert history.params == {"epochs": 2, "steps": 3, "verbose": 0}


def test_shuffling_follows_the_seed_and_epochs_differ():
    x, y = data()
    a, b, c = model(seed=1), model(seed=1), model(seed=2)
    c.set_weights(a.get_weights())
    for m in (a, b, c):
        m.fit(x, y, epochs=2, batch_size=8, verbose=0)
    same(a, b)
    assert not np.array_equal(a.get_weights()[0], c.get_weights()[0])
    # Two fits of one epoch are one fit of two: shuffling goes on.
    d = model(seed=1)
    d.fit(x, y, epochs=1, batch_size=8, verbose=0)
    history = d.fit(x, y, epochs=2, initial_epoch=1, batch_size=8, verbose=0)
    same(a, d)
    assert history.epoch == [1]


def test_epochs_is_the_last_index():
    x, y = data()
    assert model().fit(x, y, epochs=5, initial_epoch=3, verbose=0).epoch == [3, 4]
    untouched, fitted = model(), model()
    assert fitted.fit(x, y, epochs=2, initial_epoch=2, verbose=0).history == {}
    same(untouched, fitted)


def test_global_random_state_is_neither_read_nor_changed():
    x, y = data()
    np.random.seed(5)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    a = model(seed=3)
    a.fit(x, y, verbose=0)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    np.random.seed(6)  # noqa: NPY002
    b = model(seed=3)
    b.fit(x, y, verbose=0)
    same(a, b)


# ---- validation


def test_validation_split_takes_the_tail_before_shuffling():
    x, y = data(n=37)
    cut = int(np.floor(37 * 0.7))  # n - floor(n (1 - split)) samples validate
    split, given = model(metrics=["mae"]), model(metrics=["mae"])
    a = split.fit(x, y, epochs=2, batch_size=8, validation_split=0.3, verbose=0)
    b = given.fit(x[:cut], y[:cut], epochs=2, batch_size=8, validation_data=(x[cut:], y[cut:]), verbose=0)
    assert a.history == b.history
    assert list(a.history) == ["loss", "mae", "val_loss", "val_mae"]
    same(split, given)
    last = given.evaluate(x[cut:], y[cut:], batch_size=8, verbose=0)
    assert [a.history["val_loss"][-1], a.history["val_mae"][-1]] == last


def test_validation_changes_no_bit_of_training():
    x, y = data()
    a, b = model("adam"), model("adam")
    a.fit(x, y, epochs=2, verbose=0)
    b.fit(x, y, epochs=2, validation_data=(x[:20], y[:20]), verbose=0)
    same(a, b)


@pytest.mark.parametrize("split", [0.001, 0.999])
def test_validation_split_refuses_an_empty_side(split):
    x, y = data(n=20)
    if split == 0.001:  # one sample validates: floor(20 * 0.999) = 19
        assert len(model().fit(x, y, validation_split=split, verbose=0).history["val_loss"]) == 1
        return
    with pytest.raises(ValueError, match=r"validation_split: 0.999 of 20 samples leaves one side empty"):
        model().fit(x, y, validation_split=split, verbose=0)


def test_validation_options():
    x, y = data()
    m = model()
    history = m.fit(
        x,
        y,
        epochs=5,
        validation_data=(x, y),
        validation_freq=2,
        validation_steps=2,
        validation_batch_size=7,
        verbose=0,
    )
    assert len(history.history["val_loss"]) == 2
    weights = np.random.default_rng(0).random(50)
    weighted = m.fit(x, y, validation_data=(x, y, weights), verbose=0).history["val_loss"][0]
    e = (m.predict(x)[:, 0].astype(float) - y) ** 2
    assert weighted == pytest.approx((weights * e).mean(), rel=1e-6)
    part = {"validation_data": (x, y), "validation_steps": 2, "validation_batch_size": 7}
    first = m.fit(x, y, verbose=0, **part).history["val_loss"][0]
    assert first == m.evaluate(x[:14], y[:14], batch_size=7, verbose=0)


# ---- loss, weights, metrics


def test_loss_with_sample_weights_is_the_weighted_sum_over_the_number_of_rows():
    x, y = data()
    m, w = model(), np.random.default_rng(1).random(50)
    e = (m.predict(x)[:, 0].astype(float) - y) ** 2
    assert m.evaluate(x, y, verbose=0) == pytest.approx(e.mean(), rel=1e-6)
    assert m.evaluate(x, y, sample_weight=w, batch_size=16, verbose=0) == pytest.approx((w * e).sum() / 50, rel=1e-6)
    assert m.evaluate(x, y, sample_weight=np.zeros(50), verbose=0) == 0
    assert m.test_on_batch(x, y, sample_weight=w) == pytest.approx((w * e).mean(), rel=1e-6)
    doubled = model(loss_weights=2.0)
    assert doubled.evaluate(x, y, verbose=0) == pytest.approx(2 * e.mean(), rel=1e-6)
    for g, h in zip(doubled.gradients(x, y), m.gradients(x, y, np.full(50, 2.0)), strict=True):
        np.testing.assert_allclose(g, h, rtol=1e-6)


def test_step_weights():
    x = data()[0]
    y = np.random.default_rng(2).normal(size=(50, 6, 1))
    m = Sequential([Input((None, 2)), SimpleRNN(3, return_sequences=True), Dense(1)], seed=0)
    m.compile("sgd", "mse", weighted_metrics=["mae"])
    w = np.random.default_rng(3).random((50, 6))
    e = m.predict(x).astype(float) - y
    loss, mae = m.evaluate(x, y, sample_weight=w, verbose=0, batch_size=7)
    assert loss == pytest.approx((w * e[..., 0] ** 2).mean(), rel=1e-6)
    assert mae == pytest.approx((w * np.abs(e[..., 0])).sum() / w.sum(), rel=1e-6)
    assert m.evaluate(x, y, sample_weight=w[:, 0], verbose=0)[0] == pytest.approx(
        (w[:, :1] * e[..., 0] ** 2).mean(), rel=1e-6
    )
    assert m.evaluate(x, y[..., 0], verbose=0) == m.evaluate(x, y, verbose=0)  # a last axis of 1 may be missing


def test_class_weight_is_a_sample_weight_by_class():
    x, _ = data()
    labels = np.random.default_rng(0).integers(0, 3, 50)
    table = {0: 0.5, 2: 3.0}
    weights = np.array([0.5, 1.0, 3.0])[labels]

    def made(loss):
        m = Sequential([Input((None, 2)), SimpleRNN(3), Dense(3, "softmax")], seed=0)
        m.compile("sgd", loss)
        return m

    by_class, by_sample = made("sparse_categorical_crossentropy"), made("sparse_categorical_crossentropy")
    by_class.fit(x, labels, class_weight=table, verbose=0)
    by_sample.fit(x, labels, sample_weight=weights, verbose=0)
    same(by_class, by_sample)
    one_hot = made("categorical_crossentropy")
    by_sample = made("categorical_crossentropy")
    one_hot.train_on_batch(x, np.eye(3)[labels], class_weight=table)
    by_sample.train_on_batch(x, np.eye(3)[labels], sample_weight=weights)
    same(one_hot, by_sample)
    with pytest.raises(ValueError, match="class_weight and sample_weight cannot be given together"):
        by_class.fit(x, labels, class_weight=table, sample_weight=weights, verbose=0)


def test_metrics_ignore_sample_weights_and_weighted_metrics_use_them():
    x, y = data()
    m, w = model(metrics=["mae", "rmse"], weighted_metrics=["mae", "mape"]), np.random.default_rng(1).random(50)
    e = np.abs(m.predict(x)[:, 0].astype(float) - y)
    logs = m.evaluate(x, y, sample_weight=w, batch_size=16, return_dict=True, verbose=0)
    assert list(logs) == ["loss", "mae", "rmse", "weighted_mae", "mape"]
    assert logs["mae"] == pytest.approx(e.mean(), rel=1e-6)
    assert logs["rmse"] == pytest.approx(np.sqrt((e**2).mean()), rel=1e-6)
    assert logs["weighted_mae"] == pytest.approx((w * e).sum() / w.sum(), rel=1e-6)
    assert m.evaluate(x, y, sample_weight=w, batch_size=16, verbose=0) == list(logs.values())
    history = m.fit(x, y, sample_weight=w, verbose=0, validation_split=0.2).history
    assert set(history) == {*logs, *(f"val_{name}" for name in logs)}


def test_accuracy_follows_loss_and_output():
    x = data()[0]
    made = Sequential([Input((None, 2)), SimpleRNN(3), Dense(3, "softmax")], seed=0)
    made.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    labels = np.arange(50) % 3
    expected = (made.predict(x).argmax(axis=1) == labels).mean()
    assert made.evaluate(x, labels, verbose=0)[1] == pytest.approx(expected)
    made.compile("sgd", "categorical_crossentropy", metrics=["acc"])
    assert made.evaluate(x, np.eye(3)[labels], verbose=0, return_dict=True)["acc"] == pytest.approx(expected)


def test_evaluate_and_predict_do_not_depend_on_the_batch_size():
    x, y = data()
    m = model(metrics=["mae"])
    whole = m.predict(x)
    assert whole.shape == (50, 1)
    assert whole.dtype == np.float32
    for size in (1, 7, 50, 999):
        np.testing.assert_array_equal(m.predict(x, batch_size=size), whole)
        np.testing.assert_allclose(m.evaluate(x, y, batch_size=size, verbose=0), m.test_on_batch(x, y), rtol=1e-6)
    np.testing.assert_array_equal(m.predict_on_batch(x), whole)
    np.testing.assert_array_equal(m.predict(x, batch_size=8, steps=2), whole[:16])
    kept = m.predict_on_batch(x)
    m.predict_on_batch(-x)
    np.testing.assert_array_equal(kept, whole)  # results are not views of memory that is used again


# ---- single batches, gradients, weights


def test_train_on_batch_is_one_step_along_the_gradients():
    x, y = data()
    m = model(elman.optimizers.SGD(0.1))
    before, gradients = m.get_weights(), m.gradients(x, y)
    loss = m.test_on_batch(x, y)
    assert m.train_on_batch(x, y) == pytest.approx(loss, rel=1e-6)
    for w, b, g in zip(m.get_weights(), before, gradients, strict=True):
        np.testing.assert_allclose(w, b - np.float32(0.1) * g, rtol=1e-5, atol=1e-7)
    assert set(m.train_on_batch(x, y, return_dict=True)) == {"loss"}


def test_test_and_predict_change_nothing():
    x, y = data()
    m, untouched = model("adam"), model("adam")
    m.evaluate(x, y, verbose=0), m.predict(x), m.test_on_batch(x, y), m.gradients(x, y), m.predict_on_batch(x)
    same(m, untouched)
    assert m.optimizer.iterations == 0
    m.fit(x, y, verbose=0), untouched.fit(x, y, verbose=0)
    same(m, untouched)


def test_weights_are_copies_and_set_weights_writes_all_or_nothing():
    m = model()
    weights = m.get_weights()
    weights[0][:] = 7
    assert not np.any(m.get_weights()[0] == 7)
    assert [w.value.shape for w in m.weights] == [w.shape for w in weights]
    assert m.count_params() == sum(w.size for w in weights) == 33
    m.set_weights(weights)
    assert np.all(m.get_weights()[0] == 7)
    m.weights[0].value[:] = 3  # live
    assert np.all(m.get_weights()[0] == 3)
    before = m.get_weights()
    for wrong, message in [
        (weights[:-1], "weights: expected 5 arrays, got 4"),
        ([*weights[:-1], np.zeros((1, 1))], r"weights\[4\]: expected shape \(1,\), got \(1, 1\)"),
        ([*weights[:-1], np.array([np.nan])], r"weights\[4\]: 1 of 1 values are not finite"),
    ]:
        with pytest.raises(ValueError, match=message):
            m.set_weights(wrong)
        for a, b in zip(m.get_weights(), before, strict=True):
            np.testing.assert_array_equal(a, b)


def test_summary():
    lines = []
    Sequential([Input((None, 2)), GRU(4), Dense(3, name="head"), Dense(1)]).summary(print_fn=lines.append)
    text = "\n".join(lines)
    assert re.search(r"gru \(GRU\) +\(N, 4\) +96", text)
    assert re.search(r"head \(Dense\) +\(N, 3\) +15", text)
    assert re.search(r"dense \(Dense\) +\(N, 1\) +4", text)
    assert lines[-1] == "Input (N, *, 2), 115 parameters, float32"


def test_layers_get_names_of_their_own():
    m = Sequential([Input((None, 2)), GRU(4, return_sequences=True), GRU(4), Dense(2), Dense(1, name="dense")])
    assert [layer.name for layer in m.layers] == ["gru", "gru_1", "dense_1", "dense"]
    with pytest.raises(ValueError, match="names must differ"):
        Sequential([Input((2,)), Dense(2, name="a"), Dense(1, name="a")])


def test_a_model_is_built_by_its_first_data_or_by_build():
    x, y = data()
    a, b, c = (Sequential([SimpleRNN(4), Dense(1)], seed=0) for _ in range(3))
    b.build((None, 2))
    c.compile("sgd", "mse")
    with pytest.raises(ValueError, match="not built yet"):
        a.get_weights()
    with pytest.raises(ValueError, match="not built yet"):
        a.save("nowhere.npz")
    a.predict(x), c.fit(x, y, epochs=0, verbose=0)
    same(a, b), same(a, c), same(a, model())
    assert a.predict(x[:, :3]).shape == (50, 1)  # any number of steps
    flat = Sequential([Flatten(), Dense(1)], seed=0)
    assert flat.predict(x).shape == (50, 1)
    with pytest.raises(ValueError, match=r"x: expected shape \(N, 6, 2\), got \(50, 3, 2\)"):
        flat.predict(x[:, :3])
    with pytest.raises(ValueError, match="built already"):
        a.add(Dense(1))
    with pytest.raises(ValueError, match="built already"):
        a.build((None, 2))


def test_a_model_without_parameters_evaluates_and_trains_to_no_effect():
    x, _ = data()
    m = Sequential([Flatten()])
    m.compile("adam", "mse")
    assert m.evaluate(x, x.reshape(50, 12), verbose=0) == 0
    assert m.fit(x, x.reshape(50, 12), verbose=0).history["loss"] == [0]
    assert m.gradients(x, x.reshape(50, 12)) == []
    assert m.count_params() == 0


def test_compile_starts_afresh_and_keeps_parameters():
    x, y = data()
    m = model("adam")
    m.fit(x, y, verbose=0)
    before = m.get_weights()
    m.compile("rmsprop", losses.Huber(0.5), metrics=["mae"])
    assert m.optimizer.iterations == 0
    for a, b in zip(m.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert list(m.fit(x, y, verbose=0).history) == ["loss", "mae"]


# ---- input of any kind


def forms(x):
    yield "float64", x.astype(np.float64)
    yield "float16", x.astype(np.float16)
    yield "big-endian", x.astype(">f4")
    yield "Fortran", np.asfortranarray(x)
    yield "strides", np.repeat(np.repeat(x, 2, axis=0), 3, axis=1)[::2, ::3]
    yield "reversed", x[::-1].copy()[::-1]
    yield "transposed", np.ascontiguousarray(x.transpose(2, 0, 1)).transpose(1, 2, 0)
    frozen = x.copy()
    frozen.setflags(write=False)
    yield "read-only", frozen
    records = np.zeros(x.shape, [("flag", "u1"), ("value", "f4")])
    records["value"] = x
    yield "field", records["value"]
    yield "list", x.tolist()


@pytest.mark.parametrize("name", ["float64", "float16", "big-endian", "Fortran", "strides", "reversed", "transposed",
                                  "read-only", "field", "list", "memmap", "int8"])  # fmt: skip
def test_any_array_gives_the_bits_of_its_contiguous_copy(name, tmp_path):
    x, y = data()
    x, y = x.astype(np.float16).astype(np.float32), y.astype(np.float16).astype(np.float32)[:, None]
    if name == "int8":
        x, y = np.round(x), np.round(y)
        a, b = x.astype(np.int8), y.astype(np.int8)
    elif name == "memmap":
        x.tofile(tmp_path / "x"), y.tofile(tmp_path / "y")
        a = np.memmap(tmp_path / "x", np.float32, "r", shape=x.shape)
        b = np.memmap(tmp_path / "y", np.float32, "r", shape=y.shape)
    else:
        a, b = dict(forms(x))[name], dict(forms(y[:, None]))[name]
        b = [row[0] for row in b] if name == "list" else b[:, 0]
    plain, other = model("adam"), model("adam")
    expected = plain.fit(x, y, batch_size=16, epochs=2, validation_split=0.2, verbose=0).history
    assert other.fit(a, b, batch_size=16, epochs=2, validation_split=0.2, verbose=0).history == expected
    same(plain, other)
    np.testing.assert_array_equal(plain.predict(x), other.predict(a))
    np.testing.assert_array_equal(plain.predict_on_batch(x), other.predict_on_batch(a))
    assert plain.evaluate(x, y, verbose=0) == other.evaluate(a, b, verbose=0)
    for g, h in zip(plain.gradients(x, y), other.gradients(a, b), strict=True):
        np.testing.assert_array_equal(g, h)


def test_two_axes_are_one_feature_for_recurrent_models_and_vectors_for_dense_ones():
    x, y = data(features=1)
    a, b = (Sequential([SimpleRNN(3), Dense(1)], seed=0) for _ in range(2))
    for m, given in ((a, x), (b, x[:, :, 0])):
        m.compile("sgd", "mse")
        m.fit(given, y, verbose=0)
    same(a, b)
    np.testing.assert_array_equal(a.predict(x[:, :, 0]), a.predict(x))
    dense = Sequential([Dense(2)], seed=0)
    assert dense.predict(x[:, :, 0]).shape == (50, 2)
    assert [w.shape for w in dense.get_weights()] == [(6, 2), (2,)]


def test_float64_model_keeps_float64():
    x, y = data()
    m = Sequential([SimpleRNN(4), Dense(1)], "float64", seed=0)
    m.compile("sgd", "mse")
    m.fit(x, y, verbose=0)
    assert {w.dtype for w in m.get_weights()} == {m.predict(x).dtype} == {np.dtype(np.float64)}


# ---- callbacks


class Recorder(Callback):
    def __init__(self, calls):
        self.calls = calls

    def set_params(self, params):
        super().set_params(params)
        self.calls.append("params")

    def set_model(self, model):
        super().set_model(model)
        self.calls.append("model")


def _record(name):
    def hook(self, *arguments):
        *index, logs = arguments
        assert isinstance(logs, dict)
        self.calls.append((name, *index, *logs))

    return hook


for _where in ("train", "test", "predict", "epoch", "train_batch", "test_batch", "predict_batch"):
    for _when in ("begin", "end"):
        setattr(Recorder, f"on_{_where}_{_when}", _record(f"{_where}_{_when}"))


def test_hooks_are_called_in_order():
    x, y = data(n=20)
    m, calls = model(metrics=["mae"]), []
    m.fit(x, y, batch_size=8, validation_split=0.4, epochs=1, verbose=0, callbacks=[Recorder(calls)])
    assert calls == [
        "model", "params", ("train_begin",), ("epoch_begin", 0),
        ("train_batch_begin", 0), ("train_batch_end", 0, "loss", "mae"),
        ("train_batch_begin", 1), ("train_batch_end", 1, "loss", "mae"),
        ("test_begin",), ("test_batch_begin", 0), ("test_batch_end", 0, "loss", "mae"),
        ("test_end", "val_loss", "val_mae"),
        ("epoch_end", 0, "loss", "mae", "val_loss", "val_mae"), ("train_end", "loss", "mae", "val_loss", "val_mae"),
    ]  # fmt: skip
    calls.clear()
    m.predict(x, batch_size=16, callbacks=[Recorder(calls)])
    assert calls == [
        "model", "params", ("predict_begin",), ("predict_batch_begin", 0), ("predict_batch_end", 0),
        ("predict_batch_begin", 1), ("predict_batch_end", 1), ("predict_end",),
    ]  # fmt: skip
    calls.clear()
    m.evaluate(x, y, callbacks=[Recorder(calls)], verbose=0)
    assert [c[0] for c in calls[2:]] == ["test_begin", "test_batch_begin", "test_batch_end", "test_end"]


def test_callbacks_can_stop_training_in_an_epoch_and_after_it():
    class Stop(Callback):
        def on_train_batch_end(self, batch, logs):
            self.model.stop_training = batch == 1

    x, y = data()
    m, stepped = model(), model()
    history = m.fit(x, y, batch_size=8, epochs=5, shuffle=False, verbose=0, callbacks=[Stop()])
    for k in (0, 8):
        stepped.train_on_batch(x[k : k + 8], y[k : k + 8])
    same(m, stepped)
    assert history.epoch == [0]
    assert m.fit(x, y, epochs=2, verbose=0).epoch == [0, 1]  # the next fit is not stopped


def test_history_holds_what_the_epochs_gave():
    x, y = data()
    history = model(metrics=["mae"]).fit(x, y, epochs=3, verbose=0, validation_split=0.2)
    assert history.epoch == [0, 1, 2]
    assert {name: len(values) for name, values in history.history.items()} == {
        "loss": 3, "mae": 3, "val_loss": 3, "val_mae": 3,
    }  # fmt: skip
    assert all(isinstance(v, float) for values in history.history.values() for v in values)
    assert history.model is not None


# ---- progress


def test_a_line_per_epoch_where_there_is_no_terminal(capsys):
    x, y = data()
    for verbose in ("auto", 1, 2):
        model(metrics=["mae"]).fit(x, y, epochs=2, verbose=verbose, validation_split=0.2)
        out, err = capsys.readouterr()
        assert err == ""
        lines = out.splitlines()
        assert len(lines) == 2
        number = r"[\d.e+-]+"
        pattern = (
            rf"Epoch 2/2 - 2 steps - {number} s - {number} ms/step - "
            rf"loss: {number} - mae: {number} - val_loss: {number} - val_mae: {number}"
        )
        assert re.fullmatch(pattern, lines[1]), lines[1]


def test_verbose_0_is_silent(capsys):
    x, y = data()
    m = model()
    m.fit(x, y, verbose=0), m.evaluate(x, y, verbose=0), m.predict(x, verbose=0)
    assert capsys.readouterr() == ("", "")
    m.evaluate(x, y)
    assert re.fullmatch(r"loss: \S+\n", capsys.readouterr().out)


BAR = """
import time
import numpy as np, elman
model = elman.Sequential([elman.layers.SimpleRNN(2), elman.layers.Dense(1)], seed=0)
model.compile("sgd", "mse")
class Slow(elman.callbacks.Callback):
    def on_train_batch_end(self, batch, logs):
        time.sleep(0.15)
model.fit(np.zeros((12, 3, 1)), np.zeros(12), batch_size=3, epochs=2, callbacks=[Slow()])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX")
def test_a_bar_redraws_on_a_terminal():
    import pty

    leader, follower = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", BAR], stdout=follower, stderr=subprocess.PIPE, close_fds=True)
    os.close(follower)
    chunks = []
    while True:
        try:
            chunk = os.read(leader, 4096)
        except OSError:  # the other end is closed
            break
        if not chunk:
            break
        chunks.append(chunk)
    os.close(leader)
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 0, errors
    text = b"".join(chunks).decode()
    for title in ("Epoch 1/2", "Epoch 2/2"):
        drawn = [part for part in text.split("\r") if part.startswith(title)]
        assert len(drawn) >= 3, repr(text)  # redrawn in place
        assert "4/4" in drawn[-1]
        assert "loss: 0" in drawn[-1]
    assert text.count("\n") == 2


# ---- learning, memory


def test_learns_a_sine():
    t = np.arange(400) * 0.2
    series = np.sin(t) + 0.5 * np.sin(2.1 * t)
    windows = np.lib.stride_tricks.sliding_window_view(series, 21)
    x, y = windows[:, :20], windows[:, 20]
    m = Sequential([GRU(12), Dense(1)], seed=0)
    m.compile(elman.optimizers.Adam(0.02), "mse")
    history = m.fit(x[:300], y[:300], epochs=25, verbose=0)
    naive = np.mean((x[300:, -1] - y[300:]) ** 2)
    assert m.evaluate(x[300:], y[300:], verbose=0) < 0.1 * naive
    assert history.history["loss"][-1] < 0.05 * history.history["loss"][0]


def test_forecasts_air_passengers_better_than_last_years_month():
    _, passengers = elman.datasets.load_air_passengers()
    logs = np.log(passengers)
    change = logs[12:] - logs[:-12]  # yearly growth, month by month
    windows = np.lib.stride_tricks.sliding_window_view(change, 13)
    x, y = (windows[:, :12] - 0.12) / 0.06, (windows[:, 12] - 0.12) / 0.06
    cut = len(x) - 24
    m = Sequential([LSTM(8), Dense(1)], seed=0)
    m.compile(elman.optimizers.Adam(0.01), "mse")
    m.fit(x[:cut], y[:cut], epochs=40, verbose=0)
    forecast = np.exp(logs[24 + cut - 12 : -12] + m.predict(x[cut:])[:, 0] * 0.06 + 0.12)
    truth, naive = passengers[-24:], passengers[-36:-12]
    assert len(forecast) == 24
    assert np.abs(forecast - truth).mean() < 0.5 * np.abs(naive - truth).mean()


@pytest.mark.parametrize("cell", [LSTM, GRU, SimpleRNN])
def test_peak_memory_of_a_fit_is_that_of_stored_states_and_data(cell):
    batch, steps, features, units = 64, 200, 8, 64
    x = np.random.default_rng(0).normal(size=(3 * batch, steps, features)).astype(np.float32)
    y = x[:, :, 0].mean(axis=1)
    small = Sequential([cell(units), Dense(1)], seed=0)
    small.compile("adam", "mse")
    small.fit(x[:2], y[:2], verbose=0)  # what is compiled and imported once is not the fit's
    m = Sequential([cell(units), Dense(1)], seed=0)
    m.compile("adam", "mse")
    rows = m.layers[0]._cell().rows + m.layers[0]._cell().states
    states = 4 * batch * units * (steps * rows + m.layers[0]._cell().states)
    one_batch = x[:batch].nbytes
    tracemalloc.start()
    m.fit(x, y, batch_size=batch, validation_split=1 / 3, verbose=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert states > 5e6
    assert peak <= 1.3 * (states + x.nbytes) - x.nbytes, (peak / 1e6, states / 1e6, one_batch / 1e6)
    assert peak > 0.9 * states  # the measurement sees the states
