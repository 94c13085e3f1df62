"""The cache of kernels under faults: never old machine code, another CPU's or a damaged one; work always goes on."""

import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from children import PACKAGE, SCRIPT, outcome, run, settings
from effort import thorough

from elman import jit, places
from elman.jit import cache

pytestmark = pytest.mark.skipif(jit.DISABLED, reason="nothing is compiled under NUMBA_DISABLE_JIT")

RIGHT = pytest.approx(-2 / 3, abs=1e-6)
EDITED = pytest.approx(-1 / 2, abs=1e-6)  # -2 / (2 + 2)
OLD, NEW = "x / (kind(1) + abs(x))", "x / (kind(2) + abs(x))"


@pytest.fixture
def source(tmp_path):
    """A copy of the package, to be edited."""
    shutil.copytree(PACKAGE, tmp_path / "source" / "elman", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "source"


@pytest.fixture
def place(tmp_path):
    return tmp_path / "cache"


def edit(file):
    text = file.read_text(encoding="utf-8")
    assert text.count(OLD) == 1
    file.write_text(text.replace(OLD, NEW), encoding="utf-8")


# ---- edits


@pytest.mark.parametrize("name", thorough(["utils.py"], ["utils.py", "kernels/pointwise.py", "jit/target.py"]))
def test_an_edit_of_any_file_is_answered_by_new_kernels(source, place, name):
    before = outcome(place, source=source)
    assert before[:3] == (RIGHT, 2, 0)
    file = source / "elman" / name
    text = file.read_text(encoding="utf-8")
    file.write_text(text + "\n", encoding="utf-8")
    assert outcome(place, source=source)[:3] == (RIGHT, 2, 0)
    file.write_text(text, encoding="utf-8")
    assert outcome(place, source=source) == (before[0], 0, 2, before[3])


def test_an_edit_within_a_second_does_not_file_old_code_under_the_new_sources(source, place):
    """Python takes bytecode for fresh if size and whole second of its source are unchanged: it runs the old code."""
    file, second = source / "elman" / "kernels" / "pointwise.py", 10**9 * (int(time.time()) - 100)
    os.utime(file, ns=(second, second))
    writing = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": ""}
    assert outcome(place, source=source, **writing)[:3] == (RIGHT, 2, 0)
    (bytecode,) = file.parent.glob("__pycache__/pointwise.*.pyc")
    os.utime(bytecode, ns=(second + 10**8, second + 10**8))
    edit(file)
    os.utime(file, ns=(second + 2 * 10**8, second + 2 * 10**8))
    assert outcome(place, source=source, **writing)[:3] == (RIGHT, 2, 0)  # Python's own mistake, and it is not kept
    os.utime(file, ns=(second + 10**9, second + 10**9))
    assert outcome(place, source=source, **writing)[:3] == (EDITED, 2, 0)


WHILE_IMPORTED = """
import sys
class Editor:
    def find_spec(self, name, *others):
        if name == "elman.kernels.pointwise":
            file = {file!r}
            text = open(file, encoding="utf-8").read()
            open(file, "w", encoding="utf-8").write(text.replace({old!r}, {new!r}))
sys.meta_path.insert(0, Editor())
"""


def test_an_edit_while_the_package_is_imported_is_not_filed_under_the_old_sources(source, place):
    file = source / "elman" / "kernels" / "pointwise.py"
    text = file.read_text(encoding="utf-8")
    script = WHILE_IMPORTED.format(file=str(file), old=OLD, new=NEW) + SCRIPT
    bare = {"PYTHONDONTWRITEBYTECODE": "1"}  # or two edits within a second are one to Python
    assert float(run(script, place, source, **bare).stdout.split()[0]) == EDITED
    file.write_text(text, encoding="utf-8")
    assert outcome(place, source=source, **bare)[:3] == (RIGHT, 2, 0)


def test_a_package_that_is_gone_is_not_settled(tmp_path):
    sources = places.hash_sources(PACKAGE)
    assert places.settled(PACKAGE, sources)
    assert not places.settled(tmp_path, sources)


# ---- many processes

BOTH = """
import sys, numpy as np, elman
model = elman.Sequential([elman.layers.Input((9, 1)), elman.layers.Activation("softsign")], sys.argv[1])
y = model.predict(np.linspace(-2, 2, 9).reshape(1, 9, 1), batch_size=1)
assert y.dtype == sys.argv[1], y.dtype
print(float(y.sum() + y[0, 0, 0]), *elman.jit.compile_counts().values())
"""


def test_eight_processes_with_one_empty_cache(place):
    """Half of them in float64: the kernels of both types belong to one function."""
    for _ in range(thorough(1, 10)):
        dtypes = ["float32", "float64"] * 4
        children = [
            subprocess.Popen(
                [sys.executable, "-c", BOTH, dtype], env=settings(place), stdout=subprocess.PIPE, text=True
            )
            for dtype in dtypes
        ]
        outputs = [child.communicate(timeout=900)[0].split() for child in children]
        assert [child.returncode for child in children] == [0] * 8
        assert [float(output[0]) for output in outputs] == [RIGHT] * 8
        for dtype in dtypes[:2]:
            done = subprocess.run(
                [sys.executable, "-c", BOTH, dtype], env=settings(place), capture_output=True, text=True, timeout=900
            )
            assert float(done.stdout.split()[0]) == RIGHT
            assert done.stdout.split()[1:] == ["0", "3"]
        shutil.rmtree(place)


def test_processes_that_add_kernels_of_one_function_at_once_do_not_meet(tmp_path):
    """Each step of one between any two steps of the other: files are written, and read, as if by one process."""
    a, b = cache._Files(tmp_path, "f"), cache._Files(tmp_path, "f")
    replace = os.replace
    for wanted in ("write", "rename"):

        def interleaved(source, target, wanted=wanted):
            os.replace = replace
            if wanted == "rename":
                replace(source, target)
            b.save("float64", "kernel of float64")
            if wanted == "write":
                replace(source, target)

        os.replace = interleaved
        try:
            a.save("float32", "kernel of float32")
        finally:
            os.replace = replace
        for files in (a, b):
            assert files.load("float32") == "kernel of float32"
            assert files.load("float64") == "kernel of float64"
        assert len(list(tmp_path.iterdir())) == 2


def test_processes_killed_while_they_compile_leave_nothing_wrong(place):
    random.seed(0)
    for _ in range(thorough(2, 60)):
        child = subprocess.Popen([sys.executable, "-c", SCRIPT], env=settings(place), stdout=subprocess.DEVNULL)
        try:
            child.wait(random.uniform(0.5, 3))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if random.random() < 0.3:
            shutil.rmtree(place, ignore_errors=True)
        else:
            for file in place.rglob("*.nbc"):  # what was finished is whole
                content = file.read_bytes()
                assert content[:32] == cache._digest(file, content[32:])
    value, compiled, loaded, _ = outcome(place)
    assert (value, compiled + loaded) == (RIGHT, 2)
    assert outcome(place)[:3] == (RIGHT, 0, 2)


# ---- damage


def test_every_flipped_byte_and_every_exchanged_file_is_found(tmp_path):
    files = cache._Files(tmp_path, "function")
    key, kernel = ("float32", "znver5"), np.random.default_rng(0).bytes(thorough(2_000, 100_000))
    files.save(key, kernel)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << at % 8
        path.write_bytes(damaged)
        assert files.load(key) is None
    path.write_bytes(whole)
    assert files.load(key) == kernel
    files.save(("float64", "znver5"), b"another")
    (other,) = set(tmp_path.iterdir()) - {path}
    shutil.copy(other, path)
    assert files.load(key) is None


# A second kernel, after the first was used and something was done to the cache.
LATER = (
    SCRIPT.replace("print", "0 and print")
    + """
import pathlib, shutil
place = jit.cache_directory()
{fault}
y = elman.layers.Activation("tanh")(np.linspace(-2, 2, 9))
assert np.allclose(y, np.tanh(np.linspace(-2, 2, 9)), atol=1e-6)
"""
    + SCRIPT
)


FAULTS = [
    "shutil.rmtree(place.parent)",
    "for file in place.iterdir(): file.write_bytes(b'garbage' * 9999)",
    "shutil.rmtree(place); place.write_bytes(b'a file in its place')",
    "shutil.rmtree(place)",
    "for file in place.iterdir(): file.write_bytes(file.read_bytes()[:1000])",
]


@pytest.mark.parametrize("fault", thorough(FAULTS[:3], FAULTS))
def test_faults_while_running(place, fault):
    done = run(LATER.format(fault=fault), place)
    assert float(done.stdout.split()[0]) == RIGHT
    assert done.stderr == ""
    if "a file in its place" not in fault:
        assert list(place.rglob("*.nbc"))  # later kernels are kept again
    assert outcome(place)[0] == RIGHT


# ---- places

# Root may write anywhere: without these capabilities (of writing and of reading past permissions) it may not.
UNPRIVILEGED = """
import ctypes, os, sys
if hasattr(os, "geteuid") and os.geteuid() == 0:
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in (1, 2):
        assert libc.prctl(24, capability, 0, 0, 0) == 0, ctypes.get_errno()
os.execv(sys.executable, [sys.executable, "-c", sys.argv[1]])
"""


def unprivileged(script, environment):
    done = subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED, script], env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def read_only(source, tmp_path):
    """An environment in which no place for kernels can be written: neither package nor home nor temporary directory."""
    home = tmp_path / "home"
    home.mkdir()
    folders = [home, *(p for p in (source, *source.rglob("*")) if p.is_dir())]
    for folder in folders:
        folder.chmod(0o500)
    environment = settings(source=source, HOME=str(home), PYTHONDONTWRITEBYTECODE="1")
    del environment["ELMAN_CACHE_DIR"]
    environment.pop("NUMBA_CACHE_DIR", None)
    yield environment
    for folder in folders:
        folder.chmod(0o700)


@pytest.mark.parametrize("temporary", ["none", "read-only"])
def test_without_any_place_to_write_it_runs_uncached_and_says_nothing(read_only, temporary):
    # tempfile tries the working directory at last, and raises FileNotFoundError.
    lose = "import tempfile; tempfile._candidate_tempdir_list = lambda: []\n"
    fix = f"import tempfile; tempfile.tempdir = {read_only['HOME']!r}\n"
    done = unprivileged((lose if temporary == "none" else fix) + SCRIPT, read_only)
    value, *rest = done.stdout.split()
    assert (float(value), rest) == (RIGHT, ["2", "0", "None"])
    assert done.stderr == ""


def test_a_read_only_package_keeps_its_kernels_in_the_home_directory(read_only):
    Path(read_only["HOME"]).chmod(0o700)
    for counts in (["2", "0"], ["0", "2"]):
        value, *rest, place = unprivileged(SCRIPT, read_only).stdout.split()
        assert (float(value), rest) == (RIGHT, counts)
        assert Path(place).parent == Path(read_only["HOME"]) / ".cache" / "elman"


FULL = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, resource.RLIM_INFINITY))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on the size of files")
@pytest.mark.parametrize("size", thorough([4096], [0, 4096]))
def test_a_full_disk_stops_nothing_and_leaves_nothing(place, size):
    value, *counts, _ = run(FULL.format(size=size) + SCRIPT, place).stdout.split()
    assert (float(value), counts) == (RIGHT, ["2", "0"])
    assert [p for p in place.rglob("*") if p.is_file()] == []
    assert outcome(place)[:3] == (RIGHT, 2, 0)
    assert outcome(place)[:3] == (RIGHT, 0, 2)


# ---- versions and CPUs


def test_another_cpu_gets_kernels_of_its_own(place):
    directories, environments = set(), ({}, {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma"})
    for counts in ((2, 0), (0, 2)):
        for environment in environments:
            value, *found, where = outcome(place, **environment)
            assert (value, *found) == (RIGHT, *counts)
            directories.add(where)
    assert len(directories) == 2


def test_cpus_that_share_a_directory_do_not_share_kernels(place):
    """Registers of one width, a home directory in the network."""
    other = 'import llvmlite.binding as llvm; llvm.get_host_cpu_name = lambda: "generic"\n'
    for counts in (["2", "0"], ["0", "2"]):
        found = [run(script, place).stdout.split() for script in (SCRIPT, other + SCRIPT)]
        assert [float(f[0]) for f in found] == [RIGHT, RIGHT]
        assert [f[1:3] for f in found] == [counts, counts]
        assert found[0][3] == found[1][3]


def test_versions_of_numba_side_by_side(place):
    other = 'import numba; numba.__version__ = "0.999.0"\n'
    for counts in (["2", "0"], ["0", "2"]):
        found = [run(script, place).stdout.split() for script in (SCRIPT, other + SCRIPT)]
        assert [float(f[0]) for f in found] == [RIGHT, RIGHT]
        assert [f[1:3] for f in found] == [counts, counts]
        assert found[0][3] != found[1][3]
