"""A kernel cache of the tests' own, and what many tests share."""

import os
import signal
import stat
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest


def _own_cache():
    """A private directory that outlives the run, so that the second run compiles nothing.

    Cached kernels are pickles: a directory that somebody else could have filled is never used.
    """
    user = os.getuid() if hasattr(os, "getuid") else "user"
    place = Path(tempfile.gettempdir()) / f"elman-tests-{user}"
    place.mkdir(mode=0o700, exist_ok=True)
    found = place.lstat()
    if hasattr(os, "getuid") and (found.st_uid != user or not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o022):
        return tempfile.mkdtemp(prefix="elman-tests-")
    return str(place)


# Before the first import of elman, which reads it.
if "ELMAN_CACHE_DIR" not in os.environ:
    os.environ["ELMAN_CACHE_DIR"] = _own_cache()
# A shell's background job ignores Ctrl-C, and so would all that tests interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Tests import tests/reference.py by its name.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def rng():
    """Random numbers, the same for every test."""
    return np.random.default_rng(20240229)


@pytest.fixture
def blocks_of_four(monkeypatch):
    """Weight gradients summed in blocks of 4 steps, so that short sequences have segments between checkpoints."""
    from elman.recurrence import Recurrence

    monkeypatch.setattr(Recurrence, "time_block", lambda self, batch: 4)


@pytest.fixture(scope="session")
def kernel_cache():
    """The directory of this run's kernels; subprocesses put theirs below it."""
    return Path(os.environ["ELMAN_CACHE_DIR"])


@pytest.fixture(scope="session")
def thread_counts():
    """Every number of threads worth comparing on this machine."""
    from elman.jit import maximum_threads

    return range(1, min(3, maximum_threads()) + 1)
