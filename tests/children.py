"""Child processes of tests: with kernels, sources and an environment of their own."""

import os
import subprocess
import sys
from pathlib import Path

import elman

PACKAGE = Path(elman.__file__).parent

# One small kernel and a scan: enough to see every kind of compiled function in a second of compiling.
SCRIPT = """
import numpy as np, elman
from elman import jit
y = elman.layers.Activation("softsign")(np.linspace(-2, 2, 9))
print(round(float(y.sum() + y[0]), 6), *jit.compile_counts().values(), jit.cache_directory())
"""


def settings(place=None, source=PACKAGE.parent, **environment):
    """The environment of a child whose kernels are at `place` and whose package lies in `source`."""
    own = {} if place is None else {"ELMAN_CACHE_DIR": str(place)}
    return {**os.environ, "PYTHONPATH": str(source), **own, **environment}


def run(script, place=None, source=PACKAGE.parent, check=True, **environment):
    """A Python process that ran `script`; with `check` it ended well."""
    environment = settings(place, source, **environment)
    # Generous: other processes may have the cores.
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=900)
    if check:
        assert done.returncode == 0, done.stderr
    return done


def outcome(*arguments, **options):
    """Of SCRIPT: result, kernels compiled, kernels loaded, directory."""
    value, compiled, loaded, place = run(SCRIPT, *arguments, **options).stdout.split()
    return float(value), int(compiled), int(loaded), place
