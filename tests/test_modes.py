"""The library under other compilers' settings, each in a process of its own and, where code differs, with its cache."""

import json
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from elman.jit import maximum_threads, vector_bytes

INTEL = platform.machine().lower() in ("x86_64", "amd64")
intel = pytest.mark.skipif(not INTEL, reason="names of x86 processors")
avx2 = pytest.mark.skipif(not INTEL or vector_bytes() < 32, reason="needs AVX2")
two_threads = pytest.mark.skipif(maximum_threads() < 2, reason="needs two threads")

# Arguments of tests/smoke.py, folder of the kernels, environment; by the test that reads the report.
MODES = {
    "test_without_compilation": (["float64,float32"], "modes/python", {"NUMBA_DISABLE_JIT": "1"}),
    "test_avx2": (["float64,float32"], "modes/haswell", {"NUMBA_CPU_NAME": "haswell"}),
    "test_a_generic_processor": (["float64,float32"], "modes/generic", {"NUMBA_CPU_NAME": "x86-64"}),
    # The layer shapes no kernel: those of this run serve.
    "test_workqueue": (["float32", "parallel"], "", {"NUMBA_THREADING_LAYER": "workqueue"}),
    "test_bounds_are_kept": (["float64"], "modes/bounds", {"NUMBA_BOUNDSCHECK": "1"}),
}


def run(arguments, cache, variables):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_")}
    environment |= {"ELMAN_CACHE_DIR": str(cache), **variables}
    script = Path(__file__).with_name("smoke.py")
    return subprocess.run(
        [sys.executable, "-W", "error", str(script), *arguments],
        env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip


@pytest.fixture(scope="module")
def processes(request, kernel_cache):
    """A process for each test that will run, as many at once as there are CPUs: most compile for half a minute."""
    chosen = [i for i in request.session.items if i.path == request.path and not _skipped(i)]
    with ThreadPoolExecutor(maximum_threads()) as pool:
        jobs = {i.name: (arguments, kernel_cache / place, v) for i in chosen for arguments, place, v in [MODES[i.name]]}
        yield {name: pool.submit(run, *job) for name, job in jobs.items()}
        pool.shutdown(cancel_futures=True)


def _skipped(item):
    return any(mark.args[0] for mark in item.iter_markers("skipif"))


@pytest.fixture
def report(request, processes):
    """What tests/smoke.py says in the mode of the test."""
    done = processes[request.node.name].result()
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_without_compilation(report):
    assert report["disabled"]


@avx2
def test_avx2(report):
    assert report["bytes"] == 32


@intel
def test_a_generic_processor(report):
    assert report["bytes"] == 16


@two_threads
def test_workqueue(report):
    """This layer ends the process if two threads of Python use it: the library must not let them."""
    assert report["layer"] == "workqueue"
    assert report["threads"] == {"main": 2, "thread": 1}


def test_bounds_are_kept(report):
    assert not report["disabled"]
