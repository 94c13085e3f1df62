"""Weights in safetensors files: the same bits, names other libraries can use, and no damage that is not seen."""

import json
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
from children import settings

from elman import Sequential
from elman.layers import GRU, LSTM, Bidirectional, Dense, Embedding, Input


def model(seed=0, dtype="float32"):
    layers = [Input((6,)), Embedding(5, 3), Bidirectional(LSTM(2, return_sequences=True)), GRU(3), GRU(3), Dense(1)]
    layers[3].return_sequences = True
    return Sequential(layers, dtype, seed=seed)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.safetensors"


def same(a, b):
    return all(np.array_equal(p, q) for p, q in zip(a.get_weights(), b.get_weights(), strict=True))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_come_back_with_the_same_bits(path, dtype):
    first, second = model(0, dtype), model(1, dtype)
    first.compile("adam", "mse")
    x = np.arange(24).reshape(4, 6) % 5
    first.fit(x, np.arange(4), verbose=0)
    first.save_weights(path)
    assert not same(first, second)
    second.load_weights(str(path))
    assert same(first, second)
    np.testing.assert_array_equal(first.predict(x), second.predict(x))
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_another_program_reads_the_names_and_shapes_of_the_model(path):
    first = model()
    first.save_weights(path)
    tensors = safetensors.numpy.load_file(path)
    assert {name: t.tolist() for name, t in tensors.items()} == {w.name: w.value.tolist() for w in first.weights}
    raw = path.read_bytes()  # by the written description of the format alone
    size = int.from_bytes(raw[:8], "little")
    begin, end = json.loads(raw[8 : 8 + size])["gru/bias"]["data_offsets"]
    np.testing.assert_array_equal(
        np.frombuffer(raw[8 + size :][begin:end], "<f4"), dict(first.weights)["gru/bias"].ravel()
    )


@pytest.mark.parametrize("kind", ["float16", "float32", "float64", "int8"])
def test_files_of_other_programs_and_types_are_read(path, kind):
    first, second = model(0), model(1)
    tensors = {w.name: (100 * w.value).round().astype(kind) for w in reversed(first.weights)}
    safetensors.numpy.save_file(tensors, path)  # without our digest
    second.load_weights(path)
    for name, value in second.weights:
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, tensors[name])


def flips(whole):
    """Every byte of the header and some of the values, each with one bit flipped."""
    begin = 8 + int.from_bytes(whole[:8], "little")
    for at in [*range(begin), *range(begin, len(whole), 7)]:
        damaged = bytearray(whole)
        damaged[at] ^= 1 << at % 8
        yield bytes(damaged)


def test_flipped_bits_are_found_or_harmless(path):
    first, second = model(), model(1)
    first.save_weights(path)
    before, whole = second.get_weights(), path.read_bytes()
    found = harmless = 0
    for damaged in flips(whole):
        path.write_bytes(damaged)
        try:
            second.load_weights(path)
        except ValueError as error:
            assert str(error).startswith(f"path: {str(path)!r}"), error
            assert all(map(np.array_equal, before, second.get_weights()))
            found += 1
        else:
            assert same(first, second)
            second.set_weights(before)
            harmless += 1
    assert found > 10 * harmless


@pytest.mark.parametrize("content", [b"", b"12345678", b"\xff" * 100, bytes(8), (2).to_bytes(8, "little") + b"{}"])
def test_files_that_are_something_else(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"path: .*weights\.safetensors' (is no safetensors file|does not fit)"):
        model().load_weights(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("gru/bias"), r"does not fit the model: it lacks \['gru/bias'\], and has \[\] too many"),
        (lambda t: t.update(more=np.zeros(2)), r"it lacks \[\], and has \['more'\] too many"),
        (lambda t: t.update({"gru/bias": np.zeros(3)}), r"'gru/bias': expected shape \(2, 9\), got \(3,\)"),
        (lambda t: t.update({"gru/bias": np.full((2, 9), np.nan)}), "'gru/bias': 18 of 18 values are not finite"),
        (lambda t: t.update({"gru/bias": np.full((2, 9), 1e300)}), "'gru/bias'.*float32.* not finite"),
    ],
)
def test_files_that_do_not_fit_change_nothing(path, change, message):
    first = model()
    tensors = {w.name: w.value + 1 for w in first.weights}
    change(tensors)
    safetensors.numpy.save_file(tensors, path)
    before = first.get_weights()
    with pytest.raises(ValueError, match=rf"^path: .*weights\.safetensors.*{message}"):
        first.load_weights(path)
    assert all(map(np.array_equal, before, first.get_weights()))


def test_places_and_models_that_cannot_be(path):
    with pytest.raises(FileNotFoundError):
        model().load_weights(path)
    with pytest.raises(OSError, match="directory"):
        model().load_weights(path.parent)
    with pytest.raises(FileNotFoundError):
        model().save_weights(path.parent / "none" / "w")
    for method in ("save_weights", "load_weights"):
        with pytest.raises(ValueError, match="not built"):
            getattr(Sequential([GRU(3)]), method)(path)


def test_without_the_package_one_message_says_what_to_install():
    script = """
import sys
sys.modules["safetensors"] = None
import elman
model = elman.Sequential([elman.layers.Input((5, 2)), elman.layers.GRU(3)])
for method in (model.save_weights, model.load_weights):
    try:
        method("weights.safetensors")
    except ImportError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], env=settings(), capture_output=True, text=True, timeout=900)
    message = "safetensors files need the package safetensors; pip install 'elman[safetensors]'"
    assert done.stdout.splitlines() == [message] * 2, done.stderr
