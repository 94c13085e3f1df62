"""The second process of a first fit: what it compiles is loaded, and where it fails nothing is missing."""

import os
import sys

import numpy as np
import pytest
from children import run

from elman import ahead, jit
from elman.threads import usable_threads

pytestmark = [
    pytest.mark.skipif(jit.DISABLED, reason="nothing is compiled"),
    pytest.mark.skipif(usable_threads() == 1, reason="there is no second core"),
]

SCRIPT = """
import sys
import numpy as np, elman
from elman import ahead, jit
{before}
model = elman.Sequential([elman.layers.SimpleRNN(2), elman.layers.Dense(1)], seed=0)
model.compile("sgd", "mse")
model.fit(np.linspace(-1, 1, 80).reshape(8, 5, 2), np.linspace(0, 1, 8), verbose=0)
helped = [f.elsewhere is not None for f in ahead._FUNCTIONS]
loaded = sum(sum(d.stats.cache_hits.values()) for d in (f._dispatcher for f in ahead._FUNCTIONS))
print(all(helped), any(helped), loaded, jit.compile_counts()["loaded"], *model.get_weights()[0].ravel())
"""


def first_fit(place, before="", **environment):
    done = run(SCRIPT.format(before=before), place, **environment)
    assert not done.stderr
    all_, any_, own, loaded, *weights = done.stdout.split()
    return all_ == "True", any_ == "True", int(own), int(loaded), weights


@pytest.fixture(scope="module")
def helped(tmp_path_factory):
    place = tmp_path_factory.mktemp("kernels")
    return place, first_fit(place)


def test_the_way_back_comes_from_another_process(helped):
    all_, _, own, loaded, _ = helped[1]
    assert all_ and own == loaded == len(ahead._FUNCTIONS)


def test_kernels_on_disk_need_no_other_process(helped):
    place, (*_, weights) = helped
    _, any_, own, loaded, again = first_fit(place)
    assert not any_ and own == len(ahead._FUNCTIONS) < loaded
    assert again == weights


def test_a_process_that_does_not_start_is_not_missed(helped, tmp_path):
    nowhere = os.path.join(os.path.dirname(sys.executable), "python-that-is-not-there")
    all_, _, own, loaded, weights = first_fit(tmp_path, f"sys.executable = {nowhere!r}")
    assert all_ and own == loaded == 0 and weights == helped[1][-1]


@pytest.mark.parametrize(
    "before",
    [
        "elman.set_num_threads(1)",
        "sys.executable = '/usr/bin/editor'",
        "sys.executable = None",
        "jit.cache.trusted = jit.trusted = lambda: False",
    ],
)
def test_where_there_is_no_place_for_it(before, helped, monkeypatch):
    """No core, an application that embeds Python, none at all, no cache to meet in."""
    script = f"{before}\nahead.start(np.dtype('float64'))\nprint([f.elsewhere for f in ahead._FUNCTIONS])"
    done = run(f"import sys\nimport numpy as np, elman\nfrom elman import ahead, jit\n{script}", helped[0])
    assert done.stdout.strip() == str([None] * len(ahead._FUNCTIONS)) and not done.stderr


def test_a_process_that_hangs_is_not_waited_for(monkeypatch):
    """Not longer than it takes to compile here, which then happens."""
    function = jit.Function(lambda a: None, lambda dtype: (jit.vector(dtype),))
    naps = []

    class Alive:
        is_alive = staticmethod(lambda: True)

    function.elsewhere = Alive()
    monkeypatch.setattr(function, "missing", lambda dtype: True)
    clock = iter(range(100))
    monkeypatch.setattr(jit.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(jit.time, "sleep", naps.append)
    assert function.handle(np.dtype("float32"))
    assert 0 < len(naps) <= jit._PATIENCE
