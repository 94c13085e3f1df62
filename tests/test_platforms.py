"""Other systems, as far as they can be had here: no POSIX, files that are held open, another encoding, no network."""

import subprocess
import sys
from pathlib import Path

import pytest
from children import settings
from effort import thorough

# Everything that touches files, threads or the system, with the smallest of kernels.
WORK = """
def work(folder):
    import numpy as np
    import elman
    layers = elman.layers
    x, y = np.sin(np.arange(96.0)).reshape(16, 6, 1), np.cos(np.arange(16.0))
    def made():
        model = elman.Sequential([layers.Input((6, 1)), layers.SimpleRNN(2), layers.Dense(1)], "float64", seed=0)
        model.compile("sgd", "mse", metrics=["mae"])
        return model
    callbacks = [
        elman.callbacks.ModelCheckpoint(folder + "/checkpoint.npz"),
        elman.callbacks.CSVLogger(folder + "/log.csv"),
        elman.callbacks.BackupAndRestore(folder + "/backup"),
    ]
    model = made()
    model.summary()
    model.fit(x, y, epochs=3, verbose=1, validation_split=0.25, callbacks=callbacks)
    model.fit(x, y, epochs=1, verbose=2)
    for _ in range(2):
        model.save(folder + "/model.npz")
    again = elman.load_model(folder + "/model.npz")
    assert np.array_equal(again.predict(x), model.predict(x))
    assert elman.load_model(folder + "/checkpoint.npz").optimizer.iterations == 3 * model.optimizer.iterations // 4
    series = elman.datasets.load_air_passengers().values
    forecaster = elman.Forecaster(horizon=3, lookback=12, units=2, epochs=1, head="direct").fit(series, verbose=1)
    for _ in range(2):
        forecaster.save(folder + "/forecaster.npz")
    assert np.array_equal(elman.Forecaster.load(folder + "/forecaster.npz").predict(), forecaster.predict())
    for name in ("co2", "sunspots", "bike_demand"):
        getattr(elman.datasets, "load_" + name)()
    from elman.__main__ import main
    assert main(["info"]) == 0
"""

FOREIGN = """
import os, sys, tempfile, warnings
import numba, numpy, tqdm, narwhals
numba.get_num_threads()
for name in ("fork", "forkpty", "register_at_fork", "getuid", "geteuid", "getpgid", "sched_getaffinity", "uname"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("fcntl", "resource", "pwd", "grp", "termios", "syslog"):
    sys.modules[name] = None
# Windows neither renames over nor deletes a file that is open.
held = "/proc/self/fd"
def refusing(function):
    def call(*paths, **options):
        for path in paths:
            open_files = [os.path.realpath(f"{held}/{f}") for f in os.listdir(held)] if os.path.isdir(held) else []
            if os.path.realpath(path) in open_files:
                raise PermissionError(13, "it is open in a process", str(path))
        return function(*paths, **options)
    return call
os.replace, os.rename, os.unlink, os.remove = map(refusing, (os.replace, os.rename, os.unlink, os.remove))
warnings.filterwarnings("error", category=EncodingWarning, module="elman")
"""

UNCONNECTED = """
import sys, tempfile
def refuse(event, arguments):
    if event.startswith(("socket.", "urllib.", "http.", "ftplib.", "smtplib.")):
        raise RuntimeError(f"network: {event} {arguments}")
sys.addaudithook(refuse)
import socket
try:
    socket.socket()
except RuntimeError:
    pass
else:
    raise AssertionError("the hook is deaf")
"""

# Where kernels go without $ELMAN_CACHE_DIR: package, home, temporary directory.
PLACES = """
import pathlib
from elman import places
tempfile.tempdir = tempfile.mkdtemp()
kernels = os.environ.pop("ELMAN_CACHE_DIR")
found = list(places.roots(pathlib.Path("package"), ""))
assert len(found) == 3 and found[2].name == "elman-cache", found
os.environ["ELMAN_CACHE_DIR"] = kernels
"""

RUN = """
folder = tempfile.mkdtemp()
work(folder)
print(sorted(os.listdir(folder)) if "os" in globals() else "done")
"""


def run(script, *flags, **environment):
    done = subprocess.run(
        [sys.executable, *flags, "-c", script],
        env=settings(**environment), capture_output=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode("cp1252", "replace")[-3000:]
    return done.stdout.decode("cp1252")


@pytest.mark.parametrize("layer", thorough(["workqueue"], ["workqueue", "default"]))
def test_without_posix_and_in_another_encoding(layer):
    """As on Windows; threads by "workqueue", the layer that is everywhere."""
    out = run(
        WORK + FOREIGN + PLACES + RUN, "-X", "warn_default_encoding",
        PYTHONIOENCODING="cp1252", PYTHONUTF8="0", NUMBA_THREADING_LAYER=layer,
    )  # fmt: skip
    assert out.splitlines()[-1] == "['checkpoint.npz', 'forecaster.npz', 'log.csv', 'model.npz']"
    if layer == "workqueue":
        assert "layer workqueue" in out


def test_nothing_asks_the_network():
    assert run(WORK + UNCONNECTED + RUN).splitlines()[-1] == "done"


def test_sources_name_nothing_that_other_systems_lack():
    """Modules and functions of POSIX: only where the code looks whether they are there."""
    import ast

    import elman

    guarded = {
        "threads.py": {"register_at_fork", "sched_getaffinity"}, "places.py": {"getuid"},
        "locks.py": {"register_at_fork"}, "team.py": {"sched_getaffinity"},
    }  # fmt: skip
    posix = {"fork", "register_at_fork", "sched_getaffinity", "getuid", "geteuid", "getppid", "O_DIRECTORY", "mkfifo"}
    root = Path(elman.__file__).parent
    for file in root.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "os" and node.attr in posix:
                assert node.attr in guarded.get(file.name, ()), f"{file}: os.{node.attr}"
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", "")]
            assert not {"fcntl", "resource", "pwd", "grp", "termios"} & {n for n in names if n}, file
