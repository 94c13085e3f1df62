"""Ctrl-C, SIGTERM and SIGKILL at any moment: models stay whole, files are old or new, resumed runs are the same."""

import os
import random
import signal
import sys
import threading
import time

import numpy as np
import pytest
import workloads as w
from apart import run, start
from effort import thorough

import elman
from elman.callbacks import Callback, LambdaCallback
from elman.interrupts import Interrupts

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")


class At(Callback):
    """Sends this process a signal when the k-th batch begins; counts those that end."""

    def __init__(self, k, number=signal.SIGINT):
        self.left, self.number, self.ended = k, number, 0

    def on_train_batch_begin(self, batch, logs):
        if self.left == 0:
            os.kill(os.getpid(), self.number)
        self.left -= 1

    def on_train_batch_end(self, batch, logs):
        self.ended += 1


class Later(threading.Thread):
    """Sends this process a signal after a while."""

    def __init__(self, seconds, number=signal.SIGINT):
        super().__init__(daemon=True)
        self.seconds, self.number = seconds, number

    def run(self):
        time.sleep(self.seconds)
        os.kill(os.getpid(), self.number)


def bits(model):
    """Those of parameters and optimizer."""
    return w.digest(*model.get_weights(), *model.optimizer.state().values())


def endless(model, kind, **more):
    model.fit(**w.data(kind)[0], batch_size=8, epochs=10**7, verbose=0, **more)


def replayed(kind, count):
    """A model that was trained for so many batches and never interrupted."""

    def stop(batch, logs):
        model.stop_training = model.optimizer.iterations == count

    model = w.MODELS[kind]()
    if count:
        endless(model, kind, callbacks=[LambdaCallback(on_train_batch_end=stop)])
    else:
        w.fit(model, kind, epochs=0)
    return model


def interrupted(kind, seconds, number=signal.SIGINT):
    """A model in whose training a signal came after a while."""
    model = w.MODELS[kind]()
    w.fit(model, kind, epochs=0)  # compiles nothing, but builds
    with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit):
        Later(seconds, number).start()
        endless(model, kind)
    return model


@pytest.mark.parametrize("kind", w.MODELS)
def test_ctrl_c_leaves_the_model_after_a_whole_number_of_batches(kind, tmp_path):
    """At random moments. It can be used, saved, loaded and trained on."""
    moments = np.random.default_rng(3)
    counts, least = set(), thorough(4, 200)
    while len(counts) < 2 or least > 0:  # on a busy machine the first batch may take longer than that
        least -= 1
        assert least > -100
        model = interrupted(kind, moments.random() * 0.05)
        counts.add(model.optimizer.iterations)
        assert bits(model) == bits(replayed(kind, model.optimizer.iterations))
        model.save(tmp_path / "model.npz")
        loaded = elman.load_model(tmp_path / "model.npz")
        for one in (model, loaded):
            w.fit(one, kind, epochs=1)
        assert w.model_bits(model, kind) == w.model_bits(loaded, kind)
        model.compile("sgd", model.loss)  # no run is left open


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
@pytest.mark.parametrize("k", [0, 1, 5])
def test_a_signal_stops_within_one_batch(k, number):
    """A signal within a batch ends the training when that batch is over; no hook is called any more."""
    before = signal.signal(number, signal.default_int_handler)
    model, at = w.stacked(), At(k)
    step, inside = model.train_step, []

    def slow(batch):
        if at.left < 0 and not inside:
            os.kill(os.getpid(), number)
            for _ in range(1000):
                pass  # the handler runs here
            inside.append(True)
        return step(batch)

    model.train_step = slow
    at.number = 0  # nothing: the signal comes from the batch itself
    try:
        with pytest.raises(KeyboardInterrupt):
            model.fit(**w.data("stacked")[0], batch_size=8, epochs=3, verbose=0, callbacks=[at])
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)
    assert inside == [True] and at.ended == k
    assert bits(model) == bits(replayed("stacked", k + 1))


def test_a_second_ctrl_c_does_not_wait():
    model = w.stacked()
    passed = []

    def endless(batch):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(1000):
                pass
            passed.append(True)

    model.train_step = endless
    with pytest.raises(KeyboardInterrupt):
        w.fit(model, "stacked")
    assert len(passed) == 1


COMPILE = """
import os, random, signal, sys, threading, time
import numpy as np
import elman
class Soon(threading.Thread):
    def run(self):
        time.sleep(float(sys.argv[1]))
        os.kill(os.getpid(), signal.SIGINT)
layer = elman.layers.Activation("softsign")
x = np.linspace(-2, 2, 9)
soon = Soon()
try:
    soon.start()
    layer(x)
    time.sleep(900)
except KeyboardInterrupt:
    pass
for kind in (np.float64, np.float32):
    assert np.allclose(layer(x.astype(kind)), x / (1 + abs(x)))
    assert np.allclose(elman.layers.Activation("elu")(x.astype(kind)), np.where(x > 0, x, np.expm1(x)))
print("fine")
"""


def test_ctrl_c_while_kernels_are_compiled_leaves_numba_whole(tmp_path):
    """In the process's first compilation, at several moments of it; later ones succeed."""
    for k in range(thorough(2, 40)):
        run(COMPILE, 0.02 + 0.02 * k, ELMAN_CACHE_DIR=str(tmp_path / str(k)))


def test_what_must_not_be_broken_off_is_not_by_any_number_of_signals():
    passed = []
    with pytest.raises(KeyboardInterrupt), Interrupts(held=True, firm=True):
        for _ in range(5):
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(1000):
                pass
            passed.append(True)
    assert len(passed) == 5 and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_in_a_callback_or_in_the_data_comes_at_once():
    with pytest.raises(KeyboardInterrupt):
        w.fit(w.stacked(), "stacked", callbacks=[At(2)])

    def endless():
        given = w.data("stacked")[0]
        yield given["x"][:8], given["y"][:8]
        os.kill(os.getpid(), signal.SIGINT)
        while True:
            time.sleep(0.001)

    with pytest.raises(KeyboardInterrupt):
        w.stacked().fit(endless(), steps_per_epoch=5, epochs=2, verbose=0)


def test_handlers_of_others_are_called_and_come_back():
    seen = []
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:
            signal.signal(number, lambda number, frame: seen.append((number, frame is not None)))
        mine = signal.getsignal(signal.SIGTERM)
        for number in before:
            model, at = w.stacked(), At(1, number)
            w.fit(model, "stacked", callbacks=[at])  # the handler ends nothing
            assert at.ended == 6
        assert seen == [(signal.SIGINT, True), (signal.SIGTERM, True)]
        assert signal.getsignal(signal.SIGTERM) is mine
        # A handler that a callback sets stays.
        other = lambda number, frame: None
        change = LambdaCallback(on_epoch_begin=lambda epoch, logs: signal.signal(signal.SIGTERM, other))
        w.fit(w.stacked(), "stacked", callbacks=[change])
        assert signal.getsignal(signal.SIGTERM) is other
        # Signals that the system handles, or nobody, are left alone.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        kinds = []
        look = LambdaCallback(on_epoch_begin=lambda epoch, logs: kinds.append(signal.getsignal(signal.SIGTERM)))
        w.fit(w.stacked(), "stacked", callbacks=[look])
        assert set(kinds) == {signal.SIG_DFL}
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_sigterm_with_a_handler_leaves_a_whole_model_too():
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
    moments = np.random.default_rng(4)
    try:
        for _ in range(thorough(4, 100)):
            model = interrupted("bidirectional", moments.random() * 0.05, signal.SIGTERM)
            assert bits(model) == bits(replayed("bidirectional", model.optimizer.iterations))
    finally:
        signal.signal(signal.SIGTERM, before)


def test_fits_in_other_threads_do_not_touch_handlers():
    kinds = []
    look = LambdaCallback(on_epoch_begin=lambda epoch, logs: kinds.append(signal.getsignal(signal.SIGINT)))
    thread = threading.Thread(target=lambda: w.fit(w.stacked(), "stacked", callbacks=[look]))
    thread.start(), thread.join()
    assert set(kinds) == {signal.default_int_handler}


@pytest.mark.parametrize("seeds", [1, 2])
def test_ctrl_c_leaves_a_forecaster_as_it_was(seeds):
    """While it is fitted anew or updated, members side by side; it ends within a moment, not when all are trained."""
    y = w.series()
    made = w.forecaster(seeds=seeds).fit(y[:-6])
    expected = made.predict()
    moments = np.random.default_rng(5)
    for k in range(thorough(4, 200)):
        begin = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            Later(moments.random() * 0.05).start()
            if k % 2:
                made.update(y[-6:], epochs=1e5)
            else:
                made.epochs = 1e5
                made.fit(y, verbose=0)
        assert time.monotonic() - begin < 300  # of hours
        made.epochs = 0.5
        np.testing.assert_array_equal(made.predict(), expected)
    made.update(y[-6:], epochs=0.1)
    assert np.isfinite(made.predict()).all()


# ---- killed

SAVING = """
import sys
from pathlib import Path
import numpy as np
import elman, workloads as w
folder, what = Path(sys.argv[1]), sys.argv[2]
path = folder / "saved.npz"
if what == "model":
    one = elman.load_model(path) if path.exists() else elman.Sequential(
        [elman.layers.Input((None, 200)), elman.layers.Dense(1000)], seed=0)
    value = lambda: one.get_weights()[0][0, 0]
    def change(): one.set_weights([np.full_like(v, np.float32(value() // 1 + 1)) for v in one.get_weights()])
    change()
    save = lambda: one.save(path)
else:
    one = elman.Forecaster.load(path) if path.exists() else w.forecaster().fit(w.series())
    def change(): one.update(one._panel.values.reshape(6, -1)[:, -1:].T + 1)
    save = lambda: one.save(path)
print("begin", flush=True)
while True:
    save()
    change()
"""


def whole(path, what):
    """Load what was saved; every part of it belongs to the same save. A number that grows from save to save."""
    if what == "model":
        weights = elman.load_model(path).get_weights()
        values = {float(v) for array in weights for v in np.unique(array)}
        assert len(values) == 1
        return values.pop()
    made = elman.Forecaster.load(path)
    rows = made._panel.values.reshape(6, -1)
    assert np.isfinite(made.predict()).all() and len(set(made._panel.lengths)) == 1
    return rows.shape[1]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
@pytest.mark.parametrize("what", ["model", "forecaster"])
def test_killed_while_it_saves(what, number, tmp_path):
    """Over and over the same file: after each kill it is the old or the new one, and the next process goes on."""
    moments = random.Random(f"{what} {number}")
    last, path = 0, tmp_path / "saved.npz"
    for _ in range(thorough(2 if what == "model" else 1, 35)):
        with start(SAVING, tmp_path, what) as process:
            assert process.stdout.readline() == "begin\n", process.stderr.read()
            while not path.exists():
                time.sleep(0.001)
            time.sleep(moments.random() * 0.1)
            process.send_signal(number)
            assert process.wait() == (-number if number != signal.SIGINT else process.returncode)
        found = whole(path, what)
        assert found >= last
        last = found
    assert last > 0
    if number == signal.SIGINT:  # Python cleans up
        assert os.listdir(tmp_path) == ["saved.npz"]


TRAINING = """
import sys
from pathlib import Path
import elman, workloads as w
from elman.callbacks import BackupAndRestore, LambdaCallback, ModelCheckpoint
folder, kind = Path(sys.argv[1]), sys.argv[2]
model = w.MODELS[kind]()
tell = LambdaCallback(on_train_batch_end=lambda batch, logs: print(batch, flush=True))
given = w.data(kind)[0]
model.fit(**given, batch_size=8, epochs=8, verbose=0, callbacks=[
    tell, ModelCheckpoint(folder / "last.npz", save_freq=3),
    ModelCheckpoint(folder / "best.npz", "loss", save_best_only=True), BackupAndRestore(folder / "backup")])
(folder / "result").write_text(w.model_bits(model, kind))
"""


@pytest.mark.parametrize("kind", thorough(["stacked"], list(w.MODELS)))
def test_killed_at_random_moments_it_ends_with_the_same_bits(kind, tmp_path):
    """SIGKILL, SIGTERM or SIGINT, at a random batch; checkpoints are whole after each."""
    moments = random.Random(kind)
    killed, kills = 0, thorough(3, 70)
    (tmp_path / "whole").mkdir()
    with start(TRAINING, tmp_path / "whole", kind) as process:
        assert process.communicate()[1] == ""
    expected = (tmp_path / "whole" / "result").read_text()
    number = 0
    while killed < kills:
        number += 1
        folder = tmp_path / str(number)
        folder.mkdir()
        for attempt in range(1000):
            with start(TRAINING, folder, kind) as process:
                if killed < kills and attempt < 3:
                    for _ in range(moments.randint(1, 25)):
                        process.stdout.readline()
                    time.sleep(moments.random() * 0.01)
                    sent = moments.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
                    process.send_signal(sent)
                _, errors = process.communicate()
            if process.returncode == 0:
                break
            assert process.returncode in (-sent, 1, -signal.SIGINT), errors
            assert process.returncode != 1 or "KeyboardInterrupt" in errors, errors
            killed += 1
            for file in folder.glob("*.npz"):
                assert np.isfinite(elman.load_model(file).predict(**w.data(kind)[1])).all()
        assert (folder / "result").read_text() == expected
        for name in ("last.npz", "best.npz"):
            mine, theirs = (elman.load_model(tmp_path / place / name) for place in (str(number), "whole"))
            assert w.model_bits(mine, kind) == w.model_bits(theirs, kind)
        assert not (folder / "backup").exists()
