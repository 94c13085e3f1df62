"""Scripts in processes of their own: what could take the process down must not take the tests with it."""

import os
import subprocess
import sys
from pathlib import Path

import elman

# A starved machine must not fail a test; what hangs is found all the same.
PATIENCE = 900
_FOLDERS = [str(Path(elman.__file__).parents[1]), str(Path(__file__).parent)]


def environment(**more):
    """Of a script that imports this elman, `workloads` and its neighbours."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(_FOLDERS), **more}


def run(script, *arguments, check=True, **more):
    """Run a script to its end; with `check` it must end well and say last that it is fine."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *map(str, arguments)],
        env=environment(**more), capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    if check:
        assert done.returncode == 0, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        assert done.stdout.split()[-1:] == ["fine"], done.stdout + done.stderr
    return done


def start(script, *arguments, **more):
    """A script that runs beside the test, with its output as pipes."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", script, *map(str, arguments)],
        env=environment(**more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
