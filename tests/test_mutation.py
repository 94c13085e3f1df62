"""One-token mutants of every cell's backward kernel, derivative formula and loss, and of what the recurrence does for
masks, recurrent dropout and zoneout: the checks must catch each of them.

Mutants run as plain Python in one subprocess without compilation (tests/mutants.py), where one takes about 4 ms.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from elman.cells import CELLS
from elman.jit import Function
from elman.kernels import losses
from elman.kernels.pointwise import ACTIVATIONS


@pytest.fixture(scope="module")
def report():
    here = Path(__file__).parent
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(
        [sys.executable, str(here / "mutants.py")], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_there_are_mutants_of_every_backward_kernel(report):
    expected = {
        *(f"cell {name}" for name in CELLS),
        *("norms", "_copy", "_carry", "_set_aside", "_restore", "_forward_shard", "_backward_step"),
        *("_expected", "_element", "_zone_out", "_hold", "_release"),
        *("units._forward_shard", "units._backward_shard"),
        # The derivative of the exponential is its output: one name, nothing to mutate.
        *(f"derivative {name}" for name in ACTIVATIONS if name != "exponential"),
        *(f"loss {name}" for name, value in vars(losses).items() if isinstance(value, Function) and name != "weigh"),
    }
    assert set(report["counts"]) == expected
    assert sum(report["counts"].values()) > 1000


def test_what_is_not_mutated_passes(report):
    assert report["originals"] == []


def test_no_mutant_survives(report):
    assert report["survivors"] == []
