"""Memory: no kernel reads or writes beyond an array, and nothing is kept that is no longer needed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from effort import thorough
from fuzzing import launch

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="protects pages as Linux does")

CASES, STEPS = thorough(120, 10_000), thorough(2_000, 10_000)


@linux
def test_nothing_beyond_an_array_is_touched():
    """Random shapes of everything that is compiled, on memory between forbidden pages: tests/guards.py."""
    report = launch("guards.py", CASES, timeout=thorough(900, 7200))
    assert report["cases"] == CASES and report["written"] == 0
    assert report["arrays"] > 20 * CASES


BEYOND = """
import sys, numpy as np
sys.path.insert(0, {folder!r})
import guards
a = guards.guarded((1000,), np.float32)
view = np.lib.stride_tricks.as_strided(a, (5000,), (4,))
for k in range(1000):
    a[k] = 1
del a
{code}
print(guards.counts["written"])
"""


WRITES = """
guards.Block.turn = 1
b = guards.guarded((9,), np.uint8)
np.lib.stride_tricks.as_strided(b, (99,), (1,))[9] = 1
del b
"""


@linux
@pytest.mark.parametrize(
    ("code", "expected"),
    [("del view", (0, "0")), ("view[1000] = 1", (-11, "")), ("view[1000]", (-11, "")), (WRITES, (0, "1"))],
    ids=["nothing", "written behind", "read behind", "written in the same page"],
)
def test_the_guards_see_what_they_are_for(code, expected):
    script = BEYOND.format(folder=str(Path(__file__).parent), code=code)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout.strip()) == expected, done.stderr


LEAK = """
import gc, json, os, resource, sys, warnings
import numpy as np
import elman
from elman.errors import ElmanError
from elman.layers import GRU, LSTM, Dense, Input

def rss():
    gc.collect()
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

x, y = np.random.default_rng(0).normal(size=(16, 20, 4)).astype(np.float32), np.ones((16, 1), np.float32)
model = elman.Sequential([Input((None, 4)), LSTM(8, return_sequences=True), GRU(8), Dense(1)], seed=0)
model.compile("adam", "mse", metrics=["mae"])
step = model.stream(16)
bad = [np.full_like(x, np.nan), x[:, :, :3], x.astype(object), x[:0], None, [[1.0], [2.0, 3.0]], x[0], "x"]

def work(count, errors):
    for k in range(count):
        n = 4 + k % 13  # other shapes are other frames
        model.train_on_batch(x[:, :n], y)
        step(x[:, k % 20])
        if k % 50 == 0:
            model.predict(x)
            model.stream(3)
    for k in range(errors):
        for call in (model.train_on_batch, lambda x, y: model.fit(x, y, verbose=0), lambda x, y: model.predict(x)):
            try:
                call(bad[k % len(bad)], y)
            except ElmanError:
                pass
            else:
                raise AssertionError(k)

work(300, 20)
before = rss()
work(STEPS, 100)
print(json.dumps(rss() - before))
"""


@linux
def test_steps_and_errors_leave_no_memory_behind():
    """Measured over 10,000 steps and 300 errors (``ELMAN_THOROUGH=1``): the process grows by 0 bytes."""
    code = LEAK.replace("STEPS", str(STEPS))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=thorough(900, 3600))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) < 4 << 20
