"""Forecasters and threads: the same bits for any number of them, and nothing else in the process is touched."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import elman
from elman import Forecaster
from elman.frames import _PARALLEL_FLOPS
from elman.jit import maximum_threads

LOOKBACK, UNITS, BATCH = 24, 32, 64
SIZE = {"lookback": LOOKBACK, "units": UNITS, "batch_size": BATCH, "epochs": 1, "season": 12}
OPTIONS = {
    "direct": {},
    "segment": {"head": "segment", "loss": "normal", "layers": 2, "dropout": 0.2},
    "recursive": {"head": "recursive", "loss": "studentt"},
    "quantile": {"head": "segment", "loss": "quantile", "scale": "revin"},
}
each = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
threads = pytest.mark.skipif(maximum_threads() < 2, reason="one thread")


def series(n=6):
    rng = np.random.default_rng(0)
    t = np.arange(120)[:, None]
    return 10 + np.sin(t / 6 * np.pi + np.arange(n)) + 0.2 * rng.standard_normal((120, n))


def run(options, seeds=1):
    """Forecasts, quantiles, paths and weights: of the fit and after an update."""
    y = series()
    forecaster = Forecaster(6, **SIZE, **options, seeds=seeds).fit(y[:-6])
    found = [forecaster.predict()]
    if "loss" in options:
        found.append(forecaster.predict(quantiles=[0.2, 0.9]))
    if options.get("head") == "recursive":
        found.append(forecaster.sample(5))
    forecaster.update(y[-6:], epochs=0.5)
    return [*found, forecaster.predict(), *forecaster.model_.get_weights()]


def assert_same(got, expected):
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.isfinite(a).all()


# ---- the same bits


def test_the_sizes_take_the_parallel_path():
    assert 2 * BATCH * LOOKBACK * UNITS * UNITS > _PARALLEL_FLOPS


@threads
@pytest.mark.parametrize("seeds", [1, 3])
@each
def test_any_number_of_threads_gives_the_same_bits(options, seeds):
    results = []
    for count in (1, 2):
        with elman.num_threads(count):
            results.append(run(options, seeds))
    assert_same(results[1], results[0])


@threads
def test_members_side_by_side_are_those_one_by_one():
    y = series()
    with elman.num_threads(2):
        together = Forecaster(6, **SIZE, seeds=3, seed=4).fit(y)
    alone = [Forecaster(6, **SIZE, seed=seed).fit(y).predict() for seed in (4, 5, 6)]
    np.testing.assert_array_equal(together.predict(), np.median(alone, axis=0))


@pytest.mark.parametrize("count", range(1, min(2, maximum_threads()) + 1))
def test_several_forecasters_at_once(count):
    jobs = [(options, seeds) for options in OPTIONS.values() for seeds in (1, 2)]
    expected = [run(*job) for job in jobs]
    with elman.num_threads(count), ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda job: run(*job), jobs))
    for got, wanted in zip(found, expected, strict=True):
        assert_same(got, wanted)


@each
def test_one_forecaster_asked_by_many_threads(options):
    y = series()
    forecaster = Forecaster(6, **SIZE, **options, seeds=2).fit(y)
    cuts = [100, 104, 110, 120] * 3
    expected = [forecaster.predict(y[:cut]) for cut in cuts]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda cut: forecaster.predict(y[:cut]), cuts))
    np.testing.assert_array_equal(found, expected)


# ---- nothing else is touched


@each
def test_the_global_random_state_is_neither_read_nor_changed(options):
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()  # noqa: NPY002
    first = run(options, 2)
    after = np.random.get_state()  # noqa: NPY002
    for a, b in zip(after, before, strict=True):
        np.testing.assert_array_equal(a, b)
    np.random.seed(2)  # noqa: NPY002
    assert_same(run(options, 2), first)


QUIET = """
import os, numpy as np, elman
y = 10 + np.sin(np.arange(90) / 6)
f = elman.Forecaster(4, units=4, epochs=1, head="recursive", loss="normal", seeds=2).fit(y[:70])
f.predict(); f.predict(quantiles=[0.5]); f.sample(3); f.update(y[70:74], epochs=1)
f.backtest(y, windows=3); f.backtest(y, windows=2, refit=True); f.calibrate(y, windows=3).predict(interval=50)
"""


def test_no_file_is_written_and_nothing_is_printed(tmp_path, kernel_cache):
    """Without a terminal; compiled kernels go to their cache alone."""
    work, temporary, home = (tmp_path / name for name in ("work", "temporary", "home"))
    for place in (work, temporary, home):
        place.mkdir()
    env = {**os.environ, "ELMAN_CACHE_DIR": str(kernel_cache), "TMPDIR": str(temporary), "HOME": str(home)}
    env |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(Path(elman.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", QUIET], cwd=work, env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == ("", "")
    assert [str(p) for place in (work, temporary, home) for p in place.rglob("*")] == []


def test_nothing_is_printed_in_this_process(capfd):
    run(OPTIONS["direct"])
    assert capfd.readouterr() == ("", "")
