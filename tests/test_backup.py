"""A training that was killed and started again ends with the bits of one that never was."""

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from elman import Sequential, archive
from elman.callbacks import (
    BackupAndRestore,
    Callback,
    CSVLogger,
    EarlyStopping,
    LambdaCallback,
    LearningRateScheduler,
    ModelCheckpoint,
    ReduceLROnPlateau,
)
from elman.layers import Dense, Dropout, Input, SimpleRNN
from elman.optimizers import SGD, Adam


class Power(Callback):
    """Fails at a moment of training: a hook, called for the k-th time."""

    def __init__(self, hook, k=0):
        self.left = k
        setattr(self, hook, self._fail)

    def _fail(self, *args):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


class Mean(Callback):
    """A user's callback with a state that decides about training."""

    def __init__(self):
        self.seen = []

    def on_train_begin(self, logs):
        self.seen = []

    def on_epoch_end(self, epoch, logs):
        self.seen.append(logs["loss"])
        rate = self.model.optimizer.learning_rate
        self.model.optimizer.learning_rate = rate * (0.9 + 0.01 * len(self.seen)) + 1e-4 * float(np.mean(self.seen))

    def get_state(self):
        return {"seen": np.array(self.seen), "nested": {"count": np.int64(len(self.seen)), "pair": (1, None)}}

    def set_state(self, state):
        assert state["nested"] == {"count": len(state["seen"]), "pair": [1, None]}
        self.seen = state["seen"].tolist()


def run(folder, *others, epochs=7, optimizer=Adam, seed=0, **options):
    """What the script of a user does, with every callback that has a state; weights, optimizer state, history."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(20, 4, 2)).astype(np.float32)
    y = x.sum(axis=(1, 2))
    model = Sequential([Input((None, 2)), SimpleRNN(3), Dropout(0.3), Dense(1)], seed=seed)
    model.compile(optimizer(0.05), "mse", metrics=["mae"])
    backup = [] if folder is None else [BackupAndRestore(folder / "backup", **options)]
    history = model.fit(x, y, 8, epochs, 0, [*others, *backup], validation_data=(x[::-1] * 1.1, y[::-1]))
    return {
        **{str(k): w for k, w in enumerate([*model.get_weights(), *model.optimizer.state().values()])},
        **{name: np.array(values) for name, values in history.history.items()},
        "epoch": np.array(history.epoch),
        "rate": np.array(model.optimizer.learning_rate),
        "stopped": np.array(model.stop_training),
    }


def with_state(folder):
    """All callbacks of the package that have a state, and a user's."""
    return [
        Mean(),
        EarlyStopping("val_loss", patience=2, min_delta=0.05, restore_best_weights=True),
        ReduceLROnPlateau("val_loss", factor=0.7, patience=1, min_delta=0.3, cooldown=1),
        ModelCheckpoint(folder / "best.npz", "loss", save_best_only=True),
        ModelCheckpoint(folder / "{epoch:02d}-{batch}.npz", save_freq=4),
        CSVLogger(folder / "log.csv"),
        LearningRateScheduler(lambda epoch, rate: rate * 0.95),
    ]


def same(a, b):
    assert set(a) == set(b)
    for name, value in a.items():
        np.testing.assert_array_equal(value, b[name], err_msg=name)


def files(folder):
    """Names and contents of what callbacks wrote, archives by their arrays."""
    found = {}
    for path in sorted(folder.glob("[!.]*.*")):  # without what a killed process left half written
        if path.suffix == ".npz":
            header, arrays = archive.read(path, "Sequential")
            found[path.name] = (str(header["shuffle"]), {k: v.tobytes() for k, v in arrays.items()})
        else:
            found[path.name] = path.read_text()
    return found


MOMENTS = [
    *[("on_epoch_begin", k) for k in (0, 1, 4)],
    *[("on_train_batch_end", k) for k in (0, 3, 7)],
    *[("on_test_end", k) for k in (0, 2)],
    ("on_epoch_end", 3),
    ("on_train_begin", 0),
    ("on_train_end", 0),
]


# One after another: each run goes on from what the one before left.
SERIES = [
    ("on_train_batch_end", 4),
    ("on_epoch_end", 1),
    ("on_test_end", 1),
    ("on_train_begin", 0),
    ("on_epoch_begin", 1),
    ("on_train_end", 0),
]


@pytest.mark.parametrize("moments", [*([m] for m in MOMENTS), SERIES])
@pytest.mark.parametrize("save_freq", ["epoch", 3])
def test_interrupted_anywhere_it_ends_with_the_same_bits_and_files(moments, save_freq, tmp_path):
    """Each failure comes in a run of its own; the last run ends."""
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole = run(tmp_path / "whole", *with_state(tmp_path / "whole"), save_freq=save_freq)
    for hook, k in moments:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "cut", *with_state(tmp_path / "cut"), Power(hook, k), save_freq=save_freq)
    same(run(tmp_path / "cut", *with_state(tmp_path / "cut"), save_freq=save_freq), whole)
    assert files(tmp_path / "cut") == files(tmp_path / "whole")
    assert not (tmp_path / "cut" / "backup").exists()


def test_the_reference_run_stops_early_and_uses_every_callback(tmp_path):
    """Else the tests above would say little."""
    whole = run(None, *with_state(tmp_path), epochs=30)
    assert whole["stopped"] and len(whole["epoch"]) < 30
    assert len(files(tmp_path)) > 3
    same(run(tmp_path, *with_state(tmp_path), epochs=30), whole)  # a backup changes no bit
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, *with_state(tmp_path), Power("on_train_end"), epochs=30)
    same(run(tmp_path, *with_state(tmp_path), epochs=30), whole)  # stopped early, it trains no further


def test_a_schedule_of_the_optimizer(tmp_path):
    from elman.schedules import ExponentialDecay

    def decaying(rate):
        return SGD(ExponentialDecay(rate, 2, 0.9), momentum=0.9)

    whole = run(None, optimizer=decaying)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Power("on_epoch_begin", 3), optimizer=decaying)
    same(run(tmp_path, optimizer=decaying), whole)


def test_a_model_without_seed_goes_on_with_the_numbers_it_began_with(tmp_path):
    """Parameters, shuffling and dropout, also where it was interrupted before the first epoch had ended."""
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "a", Power("on_train_batch_end"), seed=None)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    first = run(tmp_path / "a", seed=None)
    same(run(tmp_path / "b", seed=None), first)
    assert not np.array_equal(run(tmp_path / "a", seed=None)["0"], first["0"])


@pytest.mark.parametrize(
    ("make", "values"),
    [
        (lambda: EarlyStopping("loss", patience=3), [5, 4, 4, 3, 3, 3, 3, 9]),
        (lambda: EarlyStopping("loss", patience=3, restore_best_weights=True), [5, 4, 4, 3, 3, 3, 3, 9]),
        (lambda: ReduceLROnPlateau("loss", patience=2, factor=0.5, cooldown=3), [5, 5, 5, 5, 5, 5, 5, 4, 4, 4, 4]),
    ],
)
def test_a_state_handed_over_after_any_epoch_makes_no_difference(make, values):
    def drive(cut):
        callback = make()
        model = Sequential([Input((None, 2)), SimpleRNN(3), Dense(1)], seed=0)
        model.compile("sgd", "mse")
        callback.set_model(model)
        callback.on_train_begin({})
        trace = []
        for epoch, value in enumerate(values):
            model.set_weights([np.full_like(w, epoch) for w in model.get_weights()])
            callback.on_epoch_end(epoch, {"loss": float(value)})
            trace.append((model.stop_training, model.optimizer.learning_rate, repr(callback.get_state())))
            if epoch == cut:
                state, callback = callback.get_state(), make()
                callback.set_model(model)
                callback.on_train_begin({})
                callback.set_state(state)
        callback.on_train_end({})
        return trace, repr(model.get_weights())

    whole = drive(None)
    assert whole[0][-1][:2] != (False, 0.01)  # it stopped, or reduced the rate
    for cut in range(len(values)):
        assert drive(cut) == whole


def test_the_file_stays_if_asked_and_training_can_be_prolonged(tmp_path):
    first = run(tmp_path, delete_checkpoint=False, epochs=3)
    assert (tmp_path / "backup" / "backup.npz").exists()
    same(run(tmp_path, delete_checkpoint=False, epochs=3), first)
    same(run(tmp_path, epochs=6), run(None, epochs=6))
    assert not (tmp_path / "backup").exists()


def test_other_files_in_the_folder_are_left_alone(tmp_path):
    (tmp_path / "backup").mkdir()
    (tmp_path / "backup" / "notes.txt").write_text("mine")
    run(tmp_path, epochs=1)
    assert os.listdir(tmp_path / "backup") == ["notes.txt"]


def test_a_csv_file_that_is_continued_gets_each_epoch_once(tmp_path):
    path = tmp_path / "log.csv"
    run(None, CSVLogger(path), epochs=2)
    before = path.read_text()
    log = lambda: CSVLogger(path, append=True)
    for hook in ("on_epoch_end", "on_epoch_begin"):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, log(), Power(hook, 1), save_freq=5, epochs=3)
    run(tmp_path, log(), epochs=3)
    text = path.read_text()
    assert text.startswith(before)
    assert [line.split(",")[0] for line in text.splitlines()] == ["epoch", "0", "1", "0", "1", "2"]


def test_a_csv_file_that_has_become_shorter_is_an_error(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, CSVLogger(tmp_path / "log.csv"), Power("on_epoch_begin", 2))
    (tmp_path / "log.csv").unlink()
    with pytest.raises(ValueError, match=r"backup\.npz.* does not fit .*log\.csv.*bytes at the backup, it has 0 now"):
        run(tmp_path, CSVLogger(tmp_path / "log.csv"))


def test_damaged_and_foreign_files_are_named(tmp_path):
    path = tmp_path / "backup" / "backup.npz"
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Power("on_epoch_begin", 2))
    good = path.read_bytes()
    with pytest.raises(ValueError, match=r"backup\.npz' does not fit this training .*callbacks History, these are "):
        run(tmp_path, Mean())
    with pytest.raises(ValueError, match=r"backup\.npz' does not fit this training .*; remove it to begin anew"):
        run(tmp_path, optimizer=SGD)
    for bad in (good[: len(good) // 2], b"", b"PK nonsense"):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=r"backup\.npz' is no elman file, or it is damaged"):
            run(tmp_path)
        assert path.read_bytes() == bad
    model = Sequential([Input((None, 2)), SimpleRNN(3), Dense(1)], seed=0)
    model.save(path)
    with pytest.raises(ValueError, match=r"backup\.npz' holds a Sequential, not a backup"):
        run(tmp_path)
    path.write_bytes(good)
    same(run(tmp_path), run(None))


def test_a_place_that_cannot_be_written_is_found_before_training(tmp_path):
    (tmp_path / "backup").write_text("a file")
    begun = []
    with pytest.raises(OSError):
        run(tmp_path, LambdaCallback(on_epoch_begin=lambda *args: begun.append(1)))
    assert not begun


def test_a_state_that_no_file_can_hold_is_an_error(tmp_path):
    for state, shown in (({"a": {1, 2}}, r"0 Odd/a is set"), ({"a": {3: 1}}, r"0 Odd/a is dict")):

        class Odd(Callback):
            def get_state(self, state=state):
                return state

        with pytest.raises(TypeError, match=f"get_state: .*{shown}.*cannot hold"):
            run(tmp_path, Odd())


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (("",), {}, ValueError, "backup_dir"),
        ((3,), {}, TypeError, "backup_dir: expected text or a path, got int 3"),
        (("b", "batch"), {}, ValueError, "save_freq: expected 'epoch' or a number of epochs"),
        (("b", 0), {}, ValueError, "save_freq"),
        (("b", False), {}, TypeError, "save_freq"),
        (("b",), {"delete_checkpoint": "no"}, TypeError, "delete_checkpoint"),
    ],
)
def test_arguments_are_checked(arguments, options, error, message):
    with pytest.raises(error, match=message):
        BackupAndRestore(*arguments, **options)


# ---- killed from outside

SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_backup as t
from elman import archive
folder = Path(sys.argv[2])
print("begin", flush=True)
tell = t.LambdaCallback(on_train_batch_end=lambda batch, logs: print(batch, flush=True))
out = t.run(folder, tell, *t.with_state(folder), epochs=6)
archive.write(folder / "result", "result", {}, out)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_at_random_moments(tmp_path):
    """The process dies after a random number of batches and a random pause of at most an epoch's time."""
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole = run(None, *with_state(tmp_path / "whole"), epochs=6)
    result = tmp_path / "cut" / "result"
    command = [sys.executable, "-c", SCRIPT, os.path.dirname(__file__), str(tmp_path / "cut")]
    rng = np.random.default_rng(5)
    killed = 0
    for _ in range(4):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            for _ in range(int(rng.integers(1, 8))):
                process.stdout.readline()
            time.sleep(rng.random() * 0.01)
            process.kill()
            killed += process.wait() == -signal.SIGKILL
        if result.exists():
            break
    else:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
    same(archive.read(result, "result")[1], whole)
    assert killed and not (tmp_path / "cut" / "backup").exists()
    assert files(tmp_path / "cut") == files(tmp_path / "whole")
