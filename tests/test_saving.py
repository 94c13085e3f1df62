"""Saved models: the same bits afterwards, and one clear error for every file that is no model."""

import io
import json
import os
import shutil
import zipfile

import numpy as np
import pytest

from elman import Sequential, archive, load_model, losses, optimizers
from elman.cells import CELLS
from elman.layers import (
    GRU,
    LAYERS,
    LSTM,
    RNN,
    Activation,
    Bidirectional,
    Dense,
    Dropout,
    EmbedColumns,
    Embedding,
    Flatten,
    GaussianNoise,
    Input,
    LastSteps,
    LayerNormalization,
    Masking,
    RepeatVector,
    Reshape,
    SegmentRNN,
    SimpleRNN,
    SpatialDropout1D,
    TimeDistributed,
)


def data(n=20):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 5, 2)), rng.normal(size=(n, 1))


def small(dtype="float32", optimizer="adam"):
    model = Sequential([Input((5, 2)), GRU(3), Dense(1)], dtype, seed=0)
    model.compile(optimizer, "mse")
    return model


def every_layer(dtype):
    return Sequential(
        [
            Input((5, 2)),
            GaussianNoise(0.1),
            Masking(-1.0),
            LSTM(3, return_sequences=True, unit_forget_bias=False, recurrent_activation="hard_sigmoid"),
            SpatialDropout1D(0.2),
            Bidirectional(GRU(2, return_sequences=True, learn_initial_state=True, dropout=0.2, recurrent_dropout=0.1)),
            LayerNormalization(epsilon=0.1),
            RNN(4, cell="gru", return_sequences=True, go_backwards=True),
            LastSteps(4),
            Reshape((8, 2)),
            SegmentRNN(3, 4, 2, outputs=2, cell="lstm", layers=2, known=[0], dropout=0.1),
            Dropout(0.2, seed=1),
            TimeDistributed(Dense(3, "elu", use_bias=False)),
            SimpleRNN(3, "relu", return_sequences=True),
            Flatten(),
            RepeatVector(2),
            GRU(3, reset_after=False, kernel_initializer="he_uniform"),
            Activation("softsign"),
            Dense(1),
        ],
        dtype,
        seed=4,
    )


def content(path):
    with np.load(path) as file:
        arrays = dict(file)
    del arrays["digest"]
    return json.loads(arrays.pop("header").tobytes()), arrays


def rewrite(path, header, arrays):
    header["arrays"] = sorted(arrays)
    text = json.dumps(header).encode()
    own = {"header": text, "digest": archive.digest(text, arrays)}
    np.savez(path, **{name: np.frombuffer(value, np.uint8) for name, value in own.items()}, **arrays)


def same_state(a, b):
    for p, q in zip(a.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_array_equal(p, q)
    p, q = a.optimizer.state(), b.optimizer.state()
    assert p.keys() == q.keys()
    for name in p:
        np.testing.assert_array_equal(p[name], q[name])


# ---- the same bits


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_training_goes_on_with_the_same_bits(dtype, tmp_path):
    (x, y), model = data(), every_layer(dtype)
    # Embeddings take token ids: they have a model of their own below.
    assert {type(layer).__name__ for layer in model.layers} | {"Input", "Embedding", "EmbedColumns"} == {
        n for n, c in LAYERS.items() if c.__module__.startswith("elman.layers.")
    }
    model.compile(
        optimizers.AdamW(0.01, global_clipnorm=1.0), losses.Huber(0.5), metrics=["mae"], weighted_metrics=["rmse"],
        loss_weights=0.5,
    )  # fmt: skip
    model.fit(x, y, batch_size=8, epochs=2, verbose=0)
    model.optimizer.learning_rate = 0.02
    model.save(tmp_path / "model.npz")
    again = load_model(tmp_path / "model.npz")
    assert again.get_config() == model.get_config()
    assert again.get_compile_config() == model.get_compile_config()
    assert [(w.name, w.value.shape) for w in again.weights] == [(w.name, w.value.shape) for w in model.weights]
    same_state(model, again)
    np.testing.assert_array_equal(model.predict(x), again.predict(x))
    weights = np.random.default_rng(1).random(20)
    histories = [m.fit(x, y, batch_size=8, epochs=2, sample_weight=weights, verbose=0).history for m in (model, again)]
    assert histories[0] == histories[1]
    same_state(model, again)


def test_training_on_tokens_goes_on_with_the_same_bits(tmp_path):
    rng = np.random.default_rng(2)
    x, y = rng.integers(0, 5, (20, 6)), rng.normal(size=20)
    model = Sequential([Embedding(5, 3, mask_zero=True), GRU(3, stateful=True), Dense(1)], seed=4)
    model.compile("adam", "mse")
    model.fit(x, y, batch_size=10, shuffle=False, verbose=0)
    model.predict(x, batch_size=10)
    model.save(tmp_path / "model")
    again = load_model(tmp_path / "model")
    assert again.layers[0].mask_zero
    # The states go on too.
    np.testing.assert_array_equal(model.predict(x, batch_size=10), again.predict(x, batch_size=10))
    for m in (model, again):
        m.train_on_batch(x[:10], y[:10])
    same_state(model, again)


def test_training_on_columns_of_categories_goes_on_with_the_same_bits(tmp_path):
    rng = np.random.default_rng(3)
    x, y = np.concatenate([rng.normal(size=(20, 6, 1)), rng.integers(0, 5, (20, 6, 2))], axis=2), rng.normal(size=20)
    model = Sequential([EmbedColumns([(2, 5, 3), (1, 5, 2)]), GRU(3), Dense(1)], seed=4)
    model.compile("adam", "mse")
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model")
    again = load_model(tmp_path / "model")
    assert again.layers[0].columns == ((2, 5, 3), (1, 5, 2))
    np.testing.assert_array_equal(model.predict(x), again.predict(x))
    for m in (model, again):
        m.train_on_batch(x, y)
    same_state(model, again)


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_every_optimizer_keeps_its_state(name, tmp_path):
    (x, y), model = data(), small(optimizer=name)
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "m")
    again = load_model(tmp_path / "m")
    for m in (model, again):
        m.train_on_batch(x, y)
    same_state(model, again)


def test_models_without_compile_or_without_a_step(tmp_path):
    x, y = data()
    model = Sequential([LSTM(3), Dense(1)], seed=1)
    model.predict(x)  # built by data: any number of steps
    model.save(tmp_path / "plain")
    again = load_model(str(tmp_path / "plain"))
    np.testing.assert_array_equal(model.predict(x[:, :3]), again.predict(x[:, :3]))
    with pytest.raises(ValueError, match="not compiled"):
        again.fit(x, y, verbose=0)
    fresh = small()
    fresh.save(tmp_path / "fresh")
    loaded = load_model(tmp_path / "fresh")
    for m in (fresh, loaded):
        m.fit(x, y, epochs=2, batch_size=8, verbose=0)
    same_state(fresh, loaded)


def test_name_path_and_size(tmp_path):
    model = small()
    model.save(tmp_path / "any.name")
    assert [p.name for p in tmp_path.iterdir()] == ["any.name"]  # no ".npz" is put behind
    assert os.stat(tmp_path / "any.name").st_mode & 0o777 == 0o666 & ~_umask()
    model.save(tmp_path / "any.name")
    model.fit(*data(), verbose=0)
    model.save(str(tmp_path / "any.name"))
    assert load_model(tmp_path / "any.name").optimizer.iterations == 1


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


# ---- damage


@pytest.fixture
def saved(tmp_path):
    model = small()
    model.fit(*data(), verbose=0)
    model.save(tmp_path / "model.npz")
    return tmp_path / "model.npz"


def test_truncated_files(saved):
    whole = saved.read_bytes()
    for size in [*range(0, len(whole), 97), len(whole) - 1]:
        saved.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"path: '.*model.npz' is no elman file, or it is damaged"):
            load_model(saved)


def test_flipped_bytes_are_found_or_harmless(saved):
    """Every byte of the file in turn: a checksum, or a check, meets it; or it is one the format does not use."""
    whole, expected = saved.read_bytes(), load_model(saved)
    errors = 0
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 0x41
        saved.write_bytes(damaged)
        try:
            model = load_model(saved)
        except ValueError as error:
            assert str(error).startswith("path: "), error
            errors += 1
        else:
            same_state(model, expected)
    assert errors > 0.6 * len(whole)


@pytest.mark.parametrize("number", [1, 2])
def test_an_array_that_claims_half_its_bytes_is_refused(saved, number):
    """One byte of an array's header; NumPy reads half the values, and compares no checksum before a member's end."""
    model = Sequential([Input((5, 2)), GRU(40), Dense(1)], seed=0)  # 20 kB: a short array is read whole ahead
    model.save(saved)
    if number == 1:  # without a digest
        header, arrays = content(saved)
        text = json.dumps({**header, "format": 1}).encode()
        np.savez(saved, header=np.frombuffer(text, np.uint8), **arrays)
        assert load_model(saved).predict(data()[0]).shape == (20, 1)
    whole = saved.read_bytes()
    at = whole.index(b"'<f4'", whole.index(b"parameters.npy"))
    saved.write_bytes(whole[: at + 3] + b"2" + whole[at + 4 :])
    with np.load(saved) as file:
        assert file["parameters"].dtype == np.float16  # NumPy sees nothing
    with pytest.raises(ValueError, match=r"path: .* or it is damaged \(an array of dtype float16 .* in 21412 bytes"):
        load_model(saved)


def test_a_digest_cannot_be_left_out_or_be_another(saved):
    header, arrays = content(saved)
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    for digest in ({}, {"digest": np.zeros(32, np.uint8)}):
        np.savez(saved, header=text, **arrays, **digest)
        with pytest.raises(ValueError, match="its digest is that of another content"):
            load_model(saved)


@pytest.mark.parametrize("what", [b"", b"model", b"PK\x03\x04" + bytes(50), bytes(1000)])
def test_files_that_are_no_archive(saved, what):
    saved.write_bytes(what)
    with pytest.raises(ValueError, match=r"path: .* is no elman file"):
        load_model(saved)


def test_archives_that_hold_something_else(saved, tmp_path):
    header, arrays = content(saved)
    text = json.dumps({**header, "format": 1}).encode()  # without a digest, there is a list of arrays
    np.savez(saved, header=np.frombuffer(text, np.uint8), parameters=arrays["parameters"])
    with pytest.raises(ValueError, match=r"path: .* is damaged: it should hold .*optimizer/velocity"):
        load_model(saved)
    np.savez(saved, a=np.zeros(3))
    with pytest.raises(ValueError, match=r"path: .* is no elman file"):
        load_model(saved)
    np.save(saved.with_suffix(".npy"), np.zeros(3))
    with pytest.raises(ValueError, match=r"path: .* is no elman file"):
        load_model(saved.with_suffix(".npy"))
    with zipfile.ZipFile(saved, "w") as file:
        file.writestr("header.npy", "no array")
    with pytest.raises(ValueError, match=r"path: .* is no elman file"):
        load_model(saved)


def test_newer_formats_and_other_kinds(saved):
    header, arrays = content(saved)
    rewrite(saved, {**header, "format": archive.FORMAT + 1}, arrays)
    with pytest.raises(ValueError, match=rf"format {archive.FORMAT + 1}, .* up to {archive.FORMAT}; a newer"):
        load_model(saved)
    rewrite(saved, {**header, "kind": "Forecaster"}, arrays)
    with pytest.raises(ValueError, match="holds a Forecaster, not a Sequential"):
        load_model(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h, a: a.pop("parameters"), "parameters"),
        (lambda h, a: a.update(parameters=a["parameters"][:-1]), "the configuration has 67 float32 parameters"),
        (lambda h, a: a.update(parameters=a["parameters"].astype(float)), "float64"),
        (lambda h, a: a.pop("optimizer/velocity"), "state: expected the names"),
        (lambda h, a: a.update({"optimizer/velocity": np.zeros(3)}), "velocity must hold"),
        (lambda h, a: a.update({"optimizer/iterations": np.array(-1)}), "iterations"),
        (lambda h, a: h["config"]["layers"][0].update(class_name="GRUU"), "unknown name 'GRUU', did you mean 'GRU'"),
        (lambda h, a: h["config"]["layers"][0]["config"].update(units="many"), "units"),
        (lambda h, a: h["config"]["layers"][0]["config"].update(colour=1), "colour"),
        (lambda h, a: h["config"].update(dtype="float16"), "dtype"),
        (lambda h, a: h["config"].update(input_shape=None), "not built"),
        (lambda h, a: h.pop("config"), "config"),
        (lambda h, a: h.pop("shuffle"), "shuffle"),
        (lambda h, a: h.update(shuffle={}), "shuffle|state|bit_generator"),
        (lambda h, a: h.update(shuffle=3), ""),
        (lambda h, a: h["compile"].update(loss={"class_name": "Hube", "config": {}}), "did you mean 'Huber'"),
        (lambda h, a: h.update(compile=[1]), ""),
        (lambda h, a: h.update(config=[]), ""),
    ],
)
def test_files_that_do_not_fit_together(saved, change, message):
    header, arrays = content(saved)
    change(header, arrays)
    rewrite(saved, header, arrays)
    with pytest.raises(ValueError, match=rf"^path: .*model.npz' does not describe a model \(.*({message})"):
        load_model(saved)


def test_nothing_in_a_file_is_executed(saved, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    header, arrays = content(saved)
    for name in ("parameters", "more"):
        rewrite(saved, header, {**arrays, name: np.array([Bomb()], object)})
        with pytest.raises(ValueError, match=r"path: .* is no elman file"):
            load_model(saved)
    np.savez(saved, header=np.array([Bomb()], object))
    with pytest.raises(ValueError, match=r"path: .* is no elman file"):
        load_model(saved)
    buffer = io.BytesIO()
    np.save(buffer, np.array([Bomb()], object))
    saved.write_bytes(buffer.getvalue()[buffer.getvalue().index(b"\n") + 1 :])  # a bare pickle
    with pytest.raises(ValueError, match=r"path: .* is no elman file"):
        load_model(saved)
    assert not (tmp_path / "executed").exists()


# ---- places


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_save_leaves_the_old_file_and_nothing_else(saved, monkeypatch, error):
    before, model = saved.read_bytes(), small()

    def half(file, **content):
        file.write(b"PK half")
        raise error

    monkeypatch.setattr(np, "savez", half)
    with pytest.raises(type(error)):
        model.save(saved)
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_a_failing_rename_leaves_nothing(saved, monkeypatch):
    before = saved.read_bytes()
    monkeypatch.setattr(os, "replace", lambda a, b: (_ for _ in ()).throw(PermissionError(13, "no")))
    with pytest.raises(PermissionError):
        small().save(saved)
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_a_model_that_cannot_be_saved_writes_nothing(tmp_path):
    model = Sequential([Input((5, 2)), Dense(1, kernel_initializer=lambda shape, dtype: np.ones(shape))])
    with pytest.raises((TypeError, ValueError), match=r"initializer: .* has no saved form"):
        model.save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_missing_files_and_directories(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "none.npz")
    with pytest.raises(FileNotFoundError):
        small().save(tmp_path / "none" / "model.npz")
    with pytest.raises(OSError, match="directory"):
        load_model(tmp_path)


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        small().save(tmp_path / "file" / "model.npz")
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        small().save(tmp_path / "taken")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "taken"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write and read anything")
def test_permissions(saved):
    saved.chmod(0)
    with pytest.raises(PermissionError):
        load_model(saved)
    saved.parent.chmod(0o500)
    with pytest.raises(PermissionError):
        small().save(saved.parent / "other")
    saved.parent.chmod(0o700)


def test_a_users_own_cell_is_saved_by_its_name(tmp_path):
    model = Sequential([Input((5, 2)), RNN(3, cell=CELLS["gru"])], seed=0)
    model.save(tmp_path / "model")
    shutil.copy(tmp_path / "model", tmp_path / "copy")
    assert load_model(tmp_path / "copy").layers[0].cell == "gru"
