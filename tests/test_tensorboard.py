"""Event files, read back by a reader of their own."""

import builtins
import gc
import struct

import numpy as np
import pytest

from elman import Sequential
from elman.callbacks import BackupAndRestore, Callback, LearningRateScheduler, TensorBoard
from elman.layers import Dense, Input, SimpleRNN


def crc32c(data):
    """Castagnoli's checksum, bit by bit, masked as in TFRecord."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def events(folder):
    """All events of a folder's files, in the order of the files."""
    pb = pytest.importorskip("tensorboardX.proto.event_pb2")
    found = []
    for path in sorted(folder.glob("events.out.tfevents.*"), key=lambda p: p.stat().st_mtime_ns):
        data, at = path.read_bytes(), 0
        versions = 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            head, body = data[at : at + 8], data[at + 12 : at + 12 + length]
            assert struct.unpack_from("<I", data, at + 8)[0] == crc32c(head)
            assert struct.unpack_from("<I", data, at + 12 + length)[0] == crc32c(body)
            event = pb.Event.FromString(body)
            versions += event.file_version == "brain.Event:2"
            found += [event] if event.HasField("summary") else []
            at += length + 16
        assert versions == 1
    return found


def scalars(folder):
    """{tag: [(step, value)]}"""
    found = {}
    for event in events(folder):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def fit(*callbacks, epochs=3, validation=True, rows=20, **options):
    pytest.importorskip("tensorboardX")
    rng = np.random.default_rng(1)
    x = rng.normal(size=(rows, 4, 2)).astype(np.float32)
    y = x.sum(axis=(1, 2))
    model = Sequential([Input((None, 2)), SimpleRNN(3), Dense(1)], seed=0)
    model.compile("adam", "mse", metrics=["mae"])
    data = {"validation_data": (x, y), **options} if validation else {}
    return model, model.fit(x, y, 8, epochs, 0, callbacks, **data)


def series(values, steps):
    return list(zip(steps, np.array(values, np.float32).tolist(), strict=True))


def make(*args, **options):
    pytest.importorskip("tensorboardX")
    return TensorBoard(*args, **options)


def test_epochs_go_to_their_folders_under_kerass_names(tmp_path):
    halve = LearningRateScheduler(lambda epoch, rate: rate / 2 if epoch else rate)
    _, history = fit(make(tmp_path), halve)
    train, validation = scalars(tmp_path / "train"), scalars(tmp_path / "validation")
    h = history.history
    assert train == {f"epoch_{name}": series(h[name], range(3)) for name in ("loss", "mae", "learning_rate")}
    assert validation == {f"epoch_{name}": series(h[f"val_{name}"], range(3)) for name in ("loss", "mae")}
    assert h["loss"] != h["val_loss"] and h["learning_rate"] == [1e-3, 5e-4, 2.5e-4]


def test_without_a_scheduler_the_rate_is_the_optimizers_and_without_validation_there_is_no_folder(tmp_path):
    fit(make(tmp_path / "a"), validation=False)
    assert scalars(tmp_path / "a" / "train")["epoch_learning_rate"] == series([1e-3] * 3, range(3))
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["train"]
    _, history = fit(make(tmp_path / "b"), validation_freq=2)
    assert scalars(tmp_path / "b" / "validation")["epoch_loss"] == series(history.history["val_loss"], [1])


class Batches(Callback):
    def __init__(self):
        self.loss = []
        self.on_train_batch_end = lambda batch, logs: self.loss.append(logs["loss"])


@pytest.mark.parametrize(("freq", "every"), [("batch", 1), (1, 1), (2, 2), (4, 4)])
def test_batches_are_counted_across_epochs(freq, every, tmp_path):
    seen = Batches()
    fit(make(tmp_path, freq), seen)
    train = scalars(tmp_path / "train")
    steps = range(every, 10, every)
    assert train["batch_loss"] == series([seen.loss[s - 1] for s in steps], steps)
    assert len(train["batch_mae"]) == len(steps) and len(train["epoch_loss"]) == 3


def test_histograms_hold_all_values_of_a_parameter(tmp_path):
    model, _ = fit(make(tmp_path, histogram_freq=2), epochs=3)
    found = {}
    for event in events(tmp_path / "train"):
        for value in event.summary.value:
            if value.HasField("histo"):
                found.setdefault(value.tag, []).append((event.step, value.histo))
    assert set(found) == {f"{w.name}/histogram" for w in model.weights}
    for name, value in model.weights:
        (zero, two) = found[f"{name}/histogram"]
        assert (zero[0], two[0]) == (0, 2)
        histogram = two[1]  # of the last epoch: the weights that fit left
        assert histogram.num == value.size == sum(histogram.bucket)
        np.testing.assert_allclose([histogram.min, histogram.max], [value.min(), value.max()])
        np.testing.assert_allclose(histogram.sum, value.sum(dtype=np.float64), rtol=1e-12)
        np.testing.assert_allclose(histogram.sum_squares, (value.astype(np.float64) ** 2).sum(), rtol=1e-12)
        limits, bucket = np.array(histogram.bucket_limit), np.array(histogram.bucket)
        below = (value.ravel()[:, None] < limits[:-1]).sum(axis=0)
        np.testing.assert_array_equal(bucket.cumsum()[:-1], below)


def test_a_parameter_that_is_not_finite_has_no_histogram(tmp_path):
    class Spoil(Callback):
        def on_epoch_end(self, epoch, logs):
            self.model.weights[0].value[0, 0] = np.nan

    model, _ = fit(Spoil(), make(tmp_path, histogram_freq=1), epochs=1)
    tags = {value.tag for event in events(tmp_path / "train") for value in event.summary.value}
    first, *others = [f"{w.name}/histogram" for w in model.weights]
    assert first not in tags and set(others) <= tags


def test_each_training_begins_new_files_and_an_error_loses_nothing(tmp_path):
    class Fail(Callback):
        def on_epoch_end(self, epoch, logs):
            if epoch == 1:
                raise RuntimeError("broken")

    board = make(tmp_path)
    with pytest.raises(RuntimeError, match="broken"):
        fit(board, Fail())
    assert len(scalars(tmp_path / "train")["epoch_loss"]) == 2
    fit(board, epochs=1)
    assert [step for step, _ in scalars(tmp_path / "train")["epoch_loss"]] == [0, 1, 0]
    assert len(list((tmp_path / "train").iterdir())) == 2  # within one second, too
    with pytest.raises(RuntimeError, match="broken"):
        fit(make(tmp_path), Fail())
    gc.collect()  # an open file would warn, and warnings are errors


def test_a_restored_training_goes_on_counting_batches(tmp_path):
    class Fail(Callback):
        def on_epoch_begin(self, epoch, logs):
            if epoch == 2:
                raise RuntimeError("broken")

    seen = Batches()
    fit(make(tmp_path / "whole", 2), seen)
    with pytest.raises(RuntimeError, match="broken"):
        fit(make(tmp_path / "cut", 2), Fail(), BackupAndRestore(tmp_path / "backup"))
    fit(make(tmp_path / "cut", 2), BackupAndRestore(tmp_path / "backup"))
    assert scalars(tmp_path / "cut" / "train") == scalars(tmp_path / "whole" / "train")


def test_without_the_package_the_error_names_the_extra(monkeypatch):
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("tensorboardX"):
            raise ImportError("No module named 'tensorboardX'")
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r'pip install "elman\[tensorboard\]"'):
        TensorBoard()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"update_freq": "epochs"}, ValueError, "update_freq: .*'epoch'"),
        ({"update_freq": 0}, ValueError, "update_freq"),
        ({"update_freq": 1.5}, TypeError, "update_freq"),
        ({"histogram_freq": -1}, ValueError, "histogram_freq"),
        ({"log_dir": 3}, TypeError, "log_dir: expected text or a path"),
    ],
)
def test_arguments_are_checked(options, error, message):
    with pytest.raises(error, match=message):
        make(**options)
