"""The shape of the package: floors, public names, docstrings, sizes, and what an import costs."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import elman

ROOT = Path(elman.__file__).parent
FILES = sorted(p for p in ROOT.rglob("*.py") if "__pycache__" not in p.parts)

# A file imports from smaller numbers only; files of one folder (the same entry) may import each other. `activations`
# and `callbacks` are names for users, over the folders that hold the code.
FLOORS = {
    "errors": 0.0, "warn": 0.0, "locks": 0.0, "interrupts": 0.01, "places": 0.05, "checks": 0.05, "memory": 0.05,
    "archive": 0.06,
    "jit": 0.1, "tensors": 0.1, "registry": 0.1, "masks": 0.1, "utils": 0.1, "data": 0.1, "threads": 0.2,
    "processes": 0.3, "plotting": 0.4, "kernels": 1, "ctc": 1,
    "cells": 2, "ahead": 2.8, "plans": 2.8, "frames": 2.85, "schedules": 2.9, "tape": 2.9, "recurrence": 3.0,
    "parameters": 3.0, "initializers": 3.0, "loss": 3.0, "regularizers": 3.0, "constraints": 3.0, "optimizer": 3.0,
    "functional": 3.1,
    "losses": 3.1, "optimizers": 3.1, "metrics": 3.2, "layers": 4.0, "activations": 4.1, "diagnostics": 4.5,
    "training": 5.0, "callbacks": 5.1, "packing": 5.7, "streaming": 5.8, "stack": 5.9, "model": 6.0, "generation": 6.1,
    "many": 6.1, "forecasting": 6.5, "datasets": 7.0, "warmup": 7.0, "testing": 7.0, "__init__": 8, "__main__": 9,
}  # fmt: skip


def part(file):
    return file.relative_to(ROOT).with_suffix("").parts[0]


def imports(file):
    """Dotted names of all modules a file imports, wherever in it; those of the package begin with "elman."."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "elman":
            yield from (f"elman.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield node.module


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_a_file_imports_only_from_smaller_floors(file):
    mine = part(file)
    for name in imports(file):
        if name == "elman":
            assert mine in ("__main__", "testing"), f"{name}: only the command line and the batteries import it whole"
        elif name.startswith("elman."):
            other = name.split(".")[1]
            assert other == mine or FLOORS[other] < FLOORS[mine], f"{mine} imports {other}"


def test_the_table_of_floors_is_complete():
    assert {part(file) for file in FILES} == set(FLOORS)


def test_only_jit_imports_numba():
    for file in FILES:
        packages = {name.split(".")[0] for name in imports(file)}
        assert "numba" not in packages or part(file) == "jit", file
        assert "llvmlite" not in packages or part(file) in ("jit", "kernels"), file
        assert packages.isdisjoint({"scipy", "torch", "jax", "tensorflow", "keras"}), file


def test_sizes_of_files_and_functions():
    for file in FILES:
        text = file.read_text()
        assert text.count("\n") <= 420, file
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                # Docstrings may be as long as their subject needs.
                documented = ast.get_docstring(node) is not None
                begin = node.body[0].end_lineno if documented else node.lineno
                assert node.end_lineno - begin + 1 <= 75, f"{file}: {node.name}"


@pytest.mark.parametrize("word", ["TODO", "FIXME", "NotImplementedError"])
def test_no_unfinished_work(word):
    assert [str(f) for f in FILES if word in f.read_text()] == []


OWN_KINDS = {"BadValue", "BadType", "BadState", "BadFile", "MissingPackage"}
# The batteries assert, as what Numba replaces does; a name, a folder that is not there; `missing` makes a BadValue;
# `plain` carries a caller's error that does not pickle out of its process.
OTHER_KINDS = {
    "AssertionError": {"testing", "kernels"},
    "AttributeError": {"optimizer"},
    "KeyError": {"diagnostics"},
    "FileNotFoundError": {"archive"},
    "MemoryError": {"memory"},
    "missing": {"forecasting"},
    "plain": {"processes"},
}


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_a_file_raises_only_the_kinds_of_the_library(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Raise) and node.exc is not None:
            kind = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            name = ast.unparse(kind)
            assert name in OWN_KINDS or part(file) in OTHER_KINDS.get(name, ()), f"line {node.lineno}: {name}"


# ---- public names


def test_public_names():
    assert elman.__all__ == [
        "Forecaster",
        "Sequential",
        "__version__",
        "activations",
        "callbacks",
        "cells",
        "constraints",
        "ctc",
        "data",
        "datasets",
        "diagnostics",
        "errors",
        "fit_many",
        "forecasting",
        "functional",
        "generate",
        "get_num_threads",
        "initializers",
        "layers",
        "load_model",
        "losses",
        "metrics",
        "num_threads",
        "optimizers",
        "regularizers",
        "schedules",
        "set_num_threads",
        "streaming",
        "utils",
    ]


PARTS = [
    "layers", "losses", "optimizers", "schedules", "metrics", "initializers", "datasets", "functional", "cells",
    "callbacks", "constraints", "regularizers", "ctc", "diagnostics", "data", "utils", "forecasting",
    "streaming", "errors",
]  # fmt: skip


def public():
    for name in elman.__all__:
        yield f"elman.{name}", getattr(elman, name)
    for name in PARTS:
        module = importlib.import_module(f"elman.{name}")
        for member in module.__all__:
            yield f"{name}.{member}", getattr(module, member)


# Abstract, or made by other functions only.
WITHOUT_EXAMPLE = {"functional.Tape", "functional.Gradients", "layers.Layer"}


@pytest.mark.parametrize(("name", "member"), list(public()), ids=lambda v: v if isinstance(v, str) else "")
def test_every_public_name_is_documented(name, member):
    if inspect.ismodule(member):
        assert member.__doc__
    elif inspect.isclass(member) or inspect.isfunction(member):
        doc = inspect.getdoc(member)
        assert doc, name
        assert member.__doc__, f"{name} shows the docstring of its base"
        assert (">>>" in doc) == (name not in WITHOUT_EXAMPLE), name


# ---- what an import costs

IMPORT = """
import sys
before = set(sys.modules)
import numba
from numba.core import event
class Compiles(event.Listener):
    count = 0
    def on_start(self, e): Compiles.count += 1
    def on_end(self, e): pass
event.register("numba:compile", Compiles())
import numpy
numba_only = set(sys.modules)
import elman
assert Compiles.count == 0, "compiled at import"
new = {name.split(".")[0] for name in set(sys.modules) - numba_only} - set(sys.stdlib_module_names)
print(*sorted(new))
print(*sorted({"json", "argparse", "matplotlib", "tqdm", "csv", "multiprocessing"} & (set(sys.modules) - numba_only)))
import numpy as np
layer = elman.layers.SimpleRNN(2)
layer(np.zeros((1, 1, 1)))
assert elman.jit.DISABLED or Compiles.count > 0 or elman.jit.compile_counts()["loaded"] > 0, "the listener is deaf"
"""


def test_importing_compiles_nothing_and_loads_nothing_heavy():
    done = subprocess.run([sys.executable, "-W", "error", "-c", IMPORT], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    packages, heavy = done.stdout.splitlines()
    assert packages.split() == ["elman"]
    assert heavy.split() in ([], ["json"])  # the saved header; numba itself loads json in some versions


def test_what_scripts_import_from_each_other_is_there():
    """Workers of the benchmarks import late, in processes of their own: no other test sees a name that has moved."""
    scripts = {f.stem: ast.parse(f.read_text()) for f in (Path(__file__).parents[1] / "asv_bench").glob("*.py")}
    seen = 0
    for name, tree in scripts.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module in scripts:
                there = {getattr(n, "name", None) for n in scripts[node.module].body}
                names = (n for n in ast.walk(scripts[node.module]) if isinstance(n, ast.Name))
                there |= {n.id for n in names if isinstance(n.ctx, ast.Store)}
                missing = {alias.name for alias in node.names} - there
                assert not missing, f"{name}.py: {node.module}.py has no {', '.join(sorted(missing))}"
                seen += 1
    assert seen > 3
