"""The disk cache, thread counts, forks and Python threads: nothing is compiled twice, nothing stale, nothing aborts."""

import contextvars
import os
import random
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numba
import numpy as np
import pytest
from callable_kernels import called
from children import PACKAGE, SCRIPT, outcome, run

import elman
from elman import jit, places, threads
from elman.jit import target

pytestmark = pytest.mark.skipif(jit.DISABLED, reason="nothing is compiled under NUMBA_DISABLE_JIT")


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A cache that holds the kernels of SCRIPT."""
    place = tmp_path_factory.mktemp("cache")
    assert outcome(place)[1:3] == (2, 0)
    return place


def copied(warm, tmp_path):
    shutil.copytree(warm, tmp_path / "cache")
    return tmp_path / "cache"


# ---- the cache


def test_a_second_process_compiles_nothing(warm):
    value, compiled, loaded, place = outcome(warm)
    assert (compiled, loaded) == (0, 2)
    assert value == pytest.approx(-2 / 3, abs=1e-6)
    assert Path(place).parent == warm


def test_editing_a_callee_makes_new_kernels(warm, tmp_path):
    place, bare = copied(warm, tmp_path), {"PYTHONDONTWRITEBYTECODE": "1"}  # or two edits in a second are one to Python
    source = tmp_path / "source"
    shutil.copytree(PACKAGE, source / "elman", ignore=shutil.ignore_patterns("__pycache__"))
    file = source / "elman" / "kernels" / "pointwise.py"
    before = outcome(place, source=source, **bare)
    assert before[1:3] == (0, 2)  # the same sources elsewhere share the kernels
    text = file.read_text()
    assert text.count("x / (kind(1) + abs(x))") == 1
    file.write_text(text.replace("x / (kind(1) + abs(x))", "x / (kind(2) + abs(x))"))
    after = outcome(place, source=source, **bare)
    assert after[0] == pytest.approx(-0.5, abs=1e-6)  # -2 / (2 + 2)
    assert after[1] == 2
    assert after[3] != before[3]
    file.write_text(text)
    assert outcome(place, source=source, **bare) == before


def test_an_edit_after_the_import_does_not_file_old_code_under_the_new_sources(tmp_path):
    source = tmp_path / "source"
    shutil.copytree(PACKAGE, source / "elman", ignore=shutil.ignore_patterns("__pycache__"))
    file = source / "elman" / "kernels" / "pointwise.py"
    edit = f"""
import elman, pathlib
file = pathlib.Path({str(file)!r})
file.write_text(file.read_text().replace("x / (kind(1) + abs(x))", "x / (kind(2) + abs(x))"))
"""
    early = run(edit + SCRIPT, tmp_path / "cache", source=source).stdout.split()
    assert float(early[0]) == pytest.approx(-2 / 3, abs=1e-6)  # the process still runs what it imported
    later = outcome(tmp_path / "cache", source=source)
    assert later[0] == pytest.approx(-0.5, abs=1e-6)
    assert later[1] == 2


def test_any_source_any_switch_and_any_version_changes_the_directory(tmp_path):
    (tmp_path / "a.py").write_text("1")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b.py").write_text("2")
    stamps = [places.stamp(places.hash_sources(tmp_path), key) for key in ("key", "other")]
    (tmp_path / "deep" / "b.py").write_text("3")
    stamps.append(places.stamp(places.hash_sources(tmp_path), "key"))
    (tmp_path / "deep" / "b.py").rename(tmp_path / "deep" / "c.py")
    stamps.append(places.stamp(places.hash_sources(tmp_path), "key"))
    assert len(set(stamps)) == 4
    assert len(stamps[0]) == 20
    show = "from elman import jit; print(jit.cache_directory().name)"
    names = [
        run(show, tmp_path / "cache", **switches).stdout
        for switches in ({}, {"NUMBA_NUM_THREADS": "1"}, {"NUMBA_CPU_NAME": "generic"}, {"NUMBA_OPT": "1"})
    ]
    assert names[0] == names[1]  # the number of threads shapes no kernel
    assert len(set(names)) == 3


def test_without_a_place_to_write_it_runs_uncached(tmp_path):
    (tmp_path / "file").write_text("")
    value, compiled, loaded, place = outcome(tmp_path / "file" / "cache")
    assert (compiled, loaded, place) == (2, 0, "None")
    assert value == pytest.approx(-2 / 3, abs=1e-6)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


def test_places_are_tried_in_order(tmp_path, monkeypatch):
    monkeypatch.delenv("ELMAN_CACHE_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(places.tempfile, "gettempdir", lambda: str(tmp_path))
    found = list(places.roots(Path("/package"), "/numba"))
    assert found[:2] == [Path("/numba/elman"), Path("/package/__pycache__/kernels")]
    assert found[2] == tmp_path / "home" / ".cache" / "elman"
    assert found[3].parent == tmp_path
    assert found[3].stat().st_mode & 0o777 == 0o700
    found[3].chmod(0o777)  # others could put their pickles there
    assert found[3] not in places.roots(Path("/package"), "")
    monkeypatch.setenv("ELMAN_CACHE_DIR", "/mine")
    assert list(places.roots(Path("/package"), "/numba")) == [Path("/mine")]


def test_the_first_usable_place_is_taken(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    version = "0" * 20
    roots = [tmp_path / "file", tmp_path / "one", tmp_path / "two"]
    assert places.find(roots, version) == tmp_path / "one" / version
    monkeypatch.setattr(places, "writable", lambda place: "two" in str(place))
    assert places.find(roots, version) == tmp_path / "two" / version
    (tmp_path / "one" / version / "kernel.nbc").write_bytes(b"")  # read-only, but of this version
    assert places.find(roots, version) == tmp_path / "one" / version
    assert places.find(roots[:1], version) is None
    assert places.contents(tmp_path / "one" / version) == (1, 0)


def test_old_versions_are_deleted_and_nothing_else(tmp_path):
    names = [f"{k:020x}" for k in range(12)]
    for age, name in enumerate(names):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0a.nbc").write_bytes(b"")
        (tmp_path / name / "0a.nbc.1f").write_bytes(b"")  # of a process that was killed while it wrote
        os.utime(tmp_path / name, (1000 + age, 1000 + age))
    (tmp_path / names[0] / "thesis.txt").write_text("a user's file")
    os.utime(tmp_path / names[0], (1, 1))
    mine = tmp_path / "holiday_pictures_200"  # as long a name as a version's
    mine.mkdir()
    (mine / "beach.nbc").write_text("")
    os.utime(mine, (1, 1))
    places.find([tmp_path], "f" * 20)
    left = {p.name for p in tmp_path.iterdir()}
    assert left == {"f" * 20, *names[5:], mine.name, names[0]}
    assert (tmp_path / names[0] / "thesis.txt").exists()
    assert (mine / "beach.nbc").exists()


@pytest.mark.parametrize("damage", ["random", "truncated", "empty", "missing"])
def test_damaged_cache_files_are_replaced(warm, tmp_path, damage):
    place = copied(warm, tmp_path)
    files = [file for file in place.rglob("*.nbc")]
    assert len(files) == 2
    for k, file in enumerate(files):
        content = file.read_bytes()
        if damage == "missing":
            file.unlink()
        else:
            file.write_bytes(
                {
                    "random": random.Random(k).randbytes(len(content)),
                    "truncated": content[: len(content) * 2 // 3],
                    "empty": b"",
                }[damage]
            )
    value, compiled, loaded, _ = outcome(place)
    assert (compiled, loaded) == (2, 0)
    assert value == pytest.approx(-2 / 3, abs=1e-6)
    assert outcome(place)[1:3] == (0, 2)  # repaired, not compiled for ever


def test_strict_code_stays_strict_whoever_calls_it_first():
    """A function without a flag of its own would keep, for good, that of the first kernel that compiles it."""

    @jit.force_inlined
    def strict(x, y, z):
        return x * y + z

    @called
    def loose(a):
        return strict(a[0], a[1], a[2])

    assert loose(np.array([1 + 2.0**-30, 1 - 2.0**-30, -1.0])) == 0  # one multiply-add gives -2**-60


@pytest.mark.parametrize("make", [jit.helper, jit.spliced])
def test_what_only_kernels_call_refuses_python(make):
    """It lacks what such a call needs: it would end the process."""
    inner = make(lambda x: x + 1)
    for _ in range(2):
        with pytest.raises(elman.errors.BadType, match="expected a call from compiled code"):
            inner(1)
        outer = called(lambda x: inner(x))
        assert outer(1) == 2


def test_kernels_cannot_allocate():
    """Their flags count no references: what they made would never be freed."""
    with pytest.raises(numba.TypingError, match="empty"):
        called(lambda n: np.empty(n).size)(3)


# ---- thread counts


def test_one_variant_of_a_spreading_entry_serves_one_thread_and_many():
    """Every piece is taken once, at most so many at a time, by the thread it is for, with all arguments."""

    def note(thread, begin, end, factor, flag, pair, out):
        for k in range(begin, end):
            out[0, k] += pair[1] * factor if flag else 0
            out[1, k], out[2, k] = thread, begin

    numbers = jit.types.int64, jit.types.float64, jit.types.boolean, jit.types.UniTuple(jit.types.int64, 2)
    function = jit.Function(note, lambda dtype: (*numbers[:1] * 3, *numbers[1:], jit.matrix(dtype)))

    @jit.spreading
    def noted(team, pieces, most, function, factor, out):
        call, place = jit.bundle(function, (factor, True, (7, 3), out), team)
        jit.spread(team, pieces, most, call, place)

    pieces = np.array([[[0, 5], [9, 12]], [[5, 6], [6, 6]], [[6, 9], [0, 0]]])
    before = sum(jit.compile_counts().values())
    for count in (1, 2, 1, MOST):
        out = np.zeros((3, 12))
        noted(count, pieces, 2, function.handle(np.dtype("float64")), 0.5, out)
        np.testing.assert_array_equal(out[0], 1.5)
        np.testing.assert_array_equal(out[1], [0] * 5 + [1] + [2] * 3 + [0] * 3)
        np.testing.assert_array_equal(out[2], [0, 0, 2, 2, 4, 5, 6, 6, 8, 9, 9, 11])
    # The function, the entry and, unless it was there, the loop over threads.
    assert sum(jit.compile_counts().values()) - before in (2, 3)


@pytest.fixture(autouse=True)
def _restored():
    before = threads._default_threads
    yield
    threads._default_threads = before


MOST = jit.maximum_threads()


def test_libgomp_is_told_how_long_threads_wait_before_the_first_kernel():
    """The first use of threads is a prediction; its parallel kernels are compiled, then loaded."""
    script = """
import os
import numpy as np, elman
from numba.np.ufunc import parallel
seen, start = [], parallel._launch_threads
def launch():
    seen.append(os.environ.get("GOMP_SPINCOUNT"))
    start()
parallel._launch_threads = launch
elman.set_num_threads(2)
model = elman.Sequential([elman.layers.GRU(32)], seed=0)
model.predict(np.ones((32, 48, 8), np.float32))
print(seen[0])
"""
    environment = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    environment["NUMBA_NUM_THREADS"] = "2"
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
        assert (done.stdout.split(), done.stderr) == (["10000"], "")


@pytest.mark.parametrize("given", [{}, {"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "passive"}])
def test_how_long_threads_wait_is_said_to_libgomp_alone(given):
    script = """
import os, numba
from elman.jit import layer
seen, start = [], numba.get_num_threads
numba.get_num_threads = lambda: seen.append(os.environ.get("GOMP_SPINCOUNT")) or start()
layer.threading_layer()
print(seen[0], os.environ.get("GOMP_SPINCOUNT"))
"""
    environment = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", script], env={**environment, **given}, capture_output=True, text=True, check=True
    )
    own = given.get("GOMP_SPINCOUNT")
    assert done.stdout.split() == [str(own) if given else "10000", str(own)]


def test_thread_counts_nest_and_come_back():
    elman.set_num_threads(MOST)
    assert elman.get_num_threads() == MOST
    with elman.num_threads(1):
        assert elman.get_num_threads() == 1
        with elman.num_threads(MOST):
            assert elman.get_num_threads() == MOST
            elman.set_num_threads(1)  # the innermost context has the say
            assert elman.get_num_threads() == MOST
        assert elman.get_num_threads() == 1
    assert elman.get_num_threads() == 1
    elman.set_num_threads(np.int64(MOST))
    with pytest.raises(KeyError), elman.num_threads(1):
        raise KeyError
    assert elman.get_num_threads() == MOST


@pytest.mark.parametrize("n", [0, -1, MOST + 1, 1.0, "2", None, True])
def test_impossible_thread_counts(n):
    before = elman.get_num_threads()
    for call in (elman.set_num_threads, lambda n: elman.num_threads(n).__enter__()):
        with pytest.raises(
            ValueError, match=rf"^n: the number of threads must be an integer from 1 to {MOST}, got {n!r}"
        ):
            call(n)
    assert elman.get_num_threads() == before


def test_a_context_holds_in_its_python_thread_and_a_set_number_in_all():
    seen = []
    elman.set_num_threads(MOST)
    with elman.num_threads(1):
        other = threading.Thread(target=lambda: seen.append(elman.get_num_threads()))
        other.start(), other.join()
        same = threading.Thread(
            target=contextvars.copy_context().run, args=(lambda: seen.append(elman.get_num_threads()),)
        )
        same.start(), same.join()
    assert seen == [MOST, 1]


def test_numbas_own_setting_is_left_alone():
    script = """
import numba, numpy as np, elman
model = elman.Sequential([elman.layers.SimpleRNN(128)], seed=0)
x = np.ones((64, 20, 8), np.float32)
before = numba.get_num_threads()
with elman.num_threads(1):
    one = model.predict(x)
    assert numba.get_num_threads() == before
assert np.array_equal(one, model.predict(x))
numba.set_num_threads(1)
assert np.array_equal(one, model.predict(x)) and numba.get_num_threads() == 1
print("fine")
"""
    assert run(script).stdout.strip() == "fine"


# ---- forks and Python threads

FORK = """
import os, sys
import numpy as np, elman
x = np.random.default_rng(0).normal(size=(64, 20, 8)).astype(np.float32)
y = x.sum(axis=(1, 2))
def made():
    model = elman.Sequential([elman.layers.SimpleRNN(128), elman.layers.Dense(1)], seed=0)
    model.compile("sgd", "mse")
    return model
first = made()
first.fit(x, y, batch_size=64, epochs=2, verbose=0)       # parallel work in the parent
expected = [w.tobytes() for w in first.get_weights()], first.predict(x).tobytes()
child = os.fork()
if child == 0:
    code = 1
    try:
        second = made()
        second.fit(x, y, batch_size=64, epochs=2, verbose=0)
        same = ([w.tobytes() for w in second.get_weights()], second.predict(x).tobytes()) == expected
        code = 0 if same and first.predict(x).tobytes() == expected[1] and elman.threads.usable_threads() == 1 else 3
    finally:
        os._exit(code)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
assert first.predict(x).tobytes() == expected[1]
print("fine")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_trains_and_predicts_the_same_bits():
    assert run(FORK).stdout.strip() == "fine"


THREADS = """
import threading
import numpy as np, elman
x = np.random.default_rng(0).normal(size=(64, 20, 8)).astype(np.float32)
y = x.sum(axis=(1, 2))
def train(seed, results):
    model = elman.Sequential([elman.layers.SimpleRNN(128), elman.layers.Dense(1)], seed=seed)
    model.compile("sgd", "mse")
    model.fit(x, y, batch_size=64, epochs=20, verbose=0)
    results[seed] = [w.tobytes() for w in model.get_weights()]
def together(seeds):
    results = {}
    workers = [threading.Thread(target=train, args=(seed, results)) for seed in seeds]
    for worker in workers: worker.start()
    for worker in workers: worker.join()
    return results
cold = together([0, 1])          # both compile, or load, at once
alone = {}
train(0, alone), train(1, alone)
assert cold == alone
assert together([0]) == {0: alone[0]}
assert together([0, 1]) == alone
print("fine")
"""


@pytest.mark.parametrize("layer", ["default", "workqueue"])
def test_models_train_in_python_threads(layer):
    """Outside the main thread, two at once; workqueue would abort the process if both launched threads."""
    environment = {} if layer == "default" else {"NUMBA_THREADING_LAYER": layer}
    assert run(THREADS, **environment).stdout.strip() == "fine"


def test_the_cpus_register_width_is_read_from_its_name(monkeypatch):
    for name, width in [("generic", 16), ("haswell", 32), ("znver3", 32), ("znver5", 64), ("x86-64-v4", 64)]:
        monkeypatch.setattr(target.config, "CPU_NAME", name)
        monkeypatch.setattr(target.config, "CPU_FEATURES", "")
        assert jit.vector_bytes.__wrapped__() == width, name
    assert jit.cpu_name() == "x86-64-v4"
