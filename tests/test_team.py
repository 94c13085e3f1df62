"""Workers of libgomp are kept off the core of the thread they work for, and nothing else is bound."""

import os
import subprocess
import sys

import pytest

from elman import jit

linux = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux only")
pytestmark = [linux, pytest.mark.skipif(jit.DISABLED or jit.maximum_threads() < 2, reason="one thread")]

SCRIPT = """
import os, subprocess, sys, threading
import numpy as np
import elman
from elman.jit import team, threading_layer

whole = os.sched_getaffinity(0)
model = elman.Sequential([elman.layers.SimpleRNN(64)], seed=0)
x = np.random.default_rng(0).normal(size=(32, 24, 8)).astype("f")
with elman.num_threads(1):
    expected = model.predict(x)
with elman.num_threads(2):
    assert (model.predict(x) == expected).all()
workers, own = team._team.workers, threading.get_native_id()
"""

KEPT_APART = """
assert os.sched_getaffinity(0) == whole
child = "import os; print(len(os.sched_getaffinity(0)))"
assert int(subprocess.run([sys.executable, "-c", child], capture_output=True).stdout) == len(whole)
assert len(workers) == 1 and workers[0] != own and str(workers[0]) in os.listdir("/proc/self/task"), workers
assert os.sched_getaffinity(workers[0]) == whole - {team._team.cpu}
for here in whole:  # wherever this thread goes
    os.sched_setaffinity(0, {here})
    team._team.cpu = -1
    with elman.num_threads(2):
        model.predict(x)
    assert os.sched_getaffinity(workers[0]) == {here}, "there is no other core"
    os.sched_setaffinity(0, whole)
    team._team.cpu = -1
    with elman.num_threads(2):
        model.predict(x)
    assert os.sched_getaffinity(workers[0]) == whole - {team._team.cpu}
team._team.workers, team._team.cpu = [2**22 - 1], -1  # a worker that has ended
with elman.num_threads(2):
    model.predict(x)
assert team._team.workers == workers
found = []
def other():
    with elman.num_threads(2):
        assert (model.predict(x) == expected).all()
    found.extend(team._team.workers)
thread = threading.Thread(target=other)
thread.start(), thread.join()
assert len(found) == 1 and found != workers
"""

LEFT_ALONE = "assert workers == ()\n"


def run(script, **environment):
    names = {"OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "NUMBA_THREADING_LAYER"}
    outer = {k: v for k, v in os.environ.items() if k not in names}
    return subprocess.run(
        [sys.executable, "-c", SCRIPT + script], env={**outer, **environment}, capture_output=True, text=True
    )


@pytest.mark.skipif(jit.threading_layer() != "omp", reason="Numba runs on another layer")
def test_workers_may_not_run_where_the_thread_does_that_they_work_for():
    done = run(KEPT_APART)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "environment",
    [{"OMP_PROC_BIND": "true"}, {"OMP_PLACES": "cores"}, {"NUMBA_THREADING_LAYER": "workqueue"}],
    ids=lambda given: next(iter(given)),
)
def test_threads_that_the_user_binds_and_other_layers_are_left_alone(environment):
    done = run(LEFT_ALONE, **environment)
    assert done.returncode == 0, done.stderr
