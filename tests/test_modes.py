"""The library under other compilers' settings, each in a process and with a kernel cache of its own."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from elman.jit import maximum_threads, vector_bytes

intel = pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="names of x86 processors")


@pytest.fixture
def smoke(kernel_cache):
    """Run tests/smoke.py under environment variables and return what it reports."""

    def run(name, arguments, **variables):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_")}
        environment |= {"ELMAN_CACHE_DIR": str(kernel_cache / "modes" / name), **variables}
        script = Path(__file__).with_name("smoke.py")
        done = subprocess.run(
            [sys.executable, "-W", "error", str(script), *arguments],
            env=environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout)

    return run


def test_without_compilation(smoke):
    assert smoke("python", ["float64,float32"], NUMBA_DISABLE_JIT="1")["disabled"]


@intel
@pytest.mark.skipif(vector_bytes() < 32, reason="needs AVX2")
def test_avx2(smoke):
    assert smoke("haswell", ["float64,float32"], NUMBA_CPU_NAME="haswell")["bytes"] == 32


@intel
def test_a_generic_processor(smoke):
    assert smoke("generic", ["float64,float32"], NUMBA_CPU_NAME="x86-64")["bytes"] == 16


@pytest.mark.skipif(maximum_threads() < 2, reason="needs two threads")
def test_workqueue(smoke):
    """This layer ends the process if two threads of Python use it: the library must not let them."""
    report = smoke("workqueue", ["float32", "parallel"], NUMBA_THREADING_LAYER="workqueue")
    assert report["layer"] == "workqueue"
    assert report["threads"] == {"main": 2, "thread": 1}


def test_bounds_are_kept(smoke):
    smoke("bounds", ["float64"], NUMBA_BOUNDSCHECK="1")
