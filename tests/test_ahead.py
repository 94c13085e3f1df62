"""The second process of a first fit: what it compiles is loaded, and where it fails nothing is missing."""

import os
import subprocess
import sys

import numpy as np
import pytest
from children import run

from elman import ahead, jit
from elman.threads import usable_threads

FLOAT32 = np.dtype("float32")
pytestmark = [
    pytest.mark.skipif(jit.DISABLED, reason="nothing is compiled"),
    pytest.mark.skipif(usable_threads() == 1, reason="there is no second core"),
]

# Patient, as other processes may have the cores.
SCRIPT = """
import sys
import numpy as np, elman
from elman import ahead, jit
ahead._PATIENCE = 600
{before}
model = elman.Sequential([elman.layers.SimpleRNN(2), elman.layers.Dense(1)], seed=0)
model.compile("sgd", "mse")
model.fit(np.linspace(-1, 1, 80).reshape(8, 5, 2), np.linspace(0, 1, 8), verbose=0)
helped = [len(f.elsewhere) for f in ahead._FUNCTIONS[False]]
loaded = sum(sum(d.stats.cache_hits.values()) for d in (f._dispatcher for f in ahead._FUNCTIONS[False]))
print(sum(helped), loaded, jit.compile_counts()["loaded"], *model.get_weights()[0].ravel())
"""
ALL = len(ahead._FUNCTIONS[False])


def first_fit(place, before="", **environment):
    """How many functions had a helper, how many of these were loaded, how many in all; weights."""
    done = run(SCRIPT.format(before=before), place, **environment)
    assert not done.stderr
    helped, own, loaded, *weights = done.stdout.split()
    return int(helped), int(own), int(loaded), weights


@pytest.fixture(scope="module")
def helped(tmp_path_factory):
    place = tmp_path_factory.mktemp("kernels")
    return place, first_fit(place)


def test_the_way_back_comes_from_another_process(helped):
    assert helped[1][:3] == (ALL, ALL, ALL)


def test_one_long_sequence(helped):
    """Of what it needs a batch does without one function, which is loaded too."""
    place, _ = helped
    one = """
model = elman.Sequential([elman.layers.SimpleRNN(64), elman.layers.Dense(1)], seed=0)
model.compile("sgd", "mse")
model.fit(np.zeros((1, 500, 2)), np.zeros(1), verbose=0)
names = [f.python.__module__ for f in ahead._FUNCTIONS[True] if f.elsewhere]
print(*names, sum(f._dispatcher.stats.cache_hits.total() for f in ahead._FUNCTIONS[True]))
"""
    done = run("import numpy as np, elman\nfrom elman import ahead\nahead._PATIENCE = 600" + one, place)
    *names, loaded = done.stdout.split()
    assert not done.stderr and "elman.kernels.units" in names and int(loaded) == len(ahead._FUNCTIONS[True]) == ALL + 1


def test_kernels_on_disk_need_no_other_process(helped):
    place, (*_, weights) = helped
    asked, own, loaded, again = first_fit(place)
    assert asked == 0 and own == ALL < loaded
    assert again == weights


def test_a_process_that_fails_is_not_missed(helped, tmp_path):
    """It would take another folder for the kernels."""
    before = "ahead.cache_directory = lambda before=jit.cache_directory(): before.parent"
    asked, own, loaded, weights = first_fit(tmp_path, before)
    assert asked == ALL and own == loaded == 0 and weights == helped[1][-1]


NO_PLACE = {
    "one thread": "elman.set_num_threads(1)",
    "an application": "sys.executable = '/usr/bin/editor'",
    "a name that begins like Python's": "sys.executable = '/usr/bin/python_app'",
    "frozen": "sys.frozen = True",
    "no interpreter": "sys.executable = None",
    "it does not start": "sys.executable = '/no/such/python'",
    "no trust in the cache": "jit.trusted = lambda: False",
    "no writing": "ahead.places.writable = lambda place: False",
}


def started(before, place):
    """How many functions another process compiles for float64, with kernels for float32 at `place`."""
    script = f"{before}\nahead.start(np.dtype('float64'), single=False)"
    asked = "print(sum(len(f.elsewhere) for f in ahead._FUNCTIONS[False]))"
    done = run(f"import sys\nimport numpy as np, elman\nfrom elman import ahead, jit\n{script}\n{asked}", place)
    assert not done.stderr
    return int(done.stdout)


@pytest.mark.parametrize("before", NO_PLACE.values(), ids=NO_PLACE)
def test_where_there_is_no_place_for_it(before, helped):
    assert started(before, helped[0]) == 0


def test_another_float_type_has_a_process_of_its_own(helped):
    assert started("", helped[0]) == ALL


def test_it_imports_what_this_process_imports(tmp_path):
    """Whatever the environment says, and the folder it runs in."""
    for name in ("elman.py", "numba.py"):
        (tmp_path / name).write_text("raise SystemExit(7)")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = ahead._command("import elman.ahead; print(elman.ahead.__file__)")
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ahead.__file__


def test_a_process_that_hangs_is_waited_for_once(monkeypatch):
    """Not for each function anew."""
    monkeypatch.setattr(ahead, "_PATIENCE", 0.2)
    monkeypatch.setattr(jit.Function, "missing", lambda self, dtype: True)
    naps, sleep = [], jit.time.sleep
    monkeypatch.setattr(jit.time, "sleep", lambda seconds: (naps.append(seconds), sleep(seconds)))
    helper = ahead._Helper([sys.executable, "-c", "import time; time.sleep(600)"])
    for _ in range(3):
        function = jit.Function(lambda a: None, lambda dtype: (jit.vector(dtype),))
        function.elsewhere[FLOAT32] = helper.at_work
        assert function.handle(FLOAT32)
    assert 0 < sum(naps) < 0.3  # three times as much for each anew
    helper.stop()
    assert helper._process.poll() is not None


@pytest.mark.skipif(os.name == "nt", reason="signal 0 would end it")
def test_it_ends_with_this_process():
    script = """
import sys
from elman import ahead
print(ahead._Helper([sys.executable, "-c", "import time; time.sleep(600)"])._process.pid)
"""
    done = run(script)
    assert not done.stderr
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_leaves_it_alone():
    helper = ahead._Helper([sys.executable, "-c", "import time; time.sleep(600)"])
    child = os.fork()
    if child == 0:
        helper.stop()
        os._exit(0)
    os.waitpid(child, 0)
    try:
        assert helper._process.poll() is None
    finally:
        helper.stop()
