"""The command line: what it prints, its exit codes, and that a warm-up leaves nothing to compile."""

import os
import re
import subprocess
import sys

import pytest

import elman
from elman import __main__ as cli
from elman import jit, places
from elman.warmup import warmup

FIT = """
import numpy as np, elman
from elman import jit
for batch, units in ((5, 7), (64, 150)):
    model = elman.Sequential([elman.layers.SimpleRNN(units), elman.layers.Dense(2, "softmax")], seed=0)
    model.compile("rmsprop", "sparse_categorical_crossentropy", metrics=["accuracy"])
    x = np.random.default_rng(0).normal(size=(3 * batch, 9, 4))
    model.fit(x, np.arange(3 * batch) % 2, batch_size=batch, validation_split=0.2, verbose=0)
    model.evaluate(x, np.arange(3 * batch) % 2, verbose=0)
print(jit.compile_counts()["compiled"])
"""


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *arguments], env={**os.environ, **environment}, capture_output=True, text=True, timeout=300
    )


def test_info_prints_what_the_library_runs_on(capsys):
    assert cli.main(["info"]) == 0
    rows = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines() if line[0] != " ")
    assert rows["elman"] == elman.__version__
    assert rows["SIMD"] == f"{8 * jit.vector_bytes()} bits"
    assert rows["threads"].startswith(f"{elman.get_num_threads()} of {jit.maximum_threads()}, layer ")
    assert rows["cache"] == str(jit.cache_directory())
    assert {"python", "numba", "llvmlite", "numpy", "CPU"} <= set(rows)


@pytest.mark.parametrize(
    ("writable", "expected"), [(True, "1 files, 0.0 MB, writable"), (False, "1 files, 0.0 MB, read-only")]
)
def test_info_tells_the_state_of_the_cache(tmp_path, monkeypatch, capsys, writable, expected):
    (tmp_path / "a.nbc").write_bytes(b"12")
    monkeypatch.setattr(jit, "cache_directory", lambda: tmp_path)
    monkeypatch.setattr(places, "writable", lambda place: writable)
    assert cli.main(["info"]) == 0
    assert expected in capsys.readouterr().out


def test_info_without_a_cache(monkeypatch, capsys):
    monkeypatch.setattr(jit, "cache_directory", lambda: None)
    assert cli.main(["info"]) == 0
    assert "no directory can be written" in capsys.readouterr().out


@pytest.mark.skipif(jit.DISABLED, reason="nothing is compiled under NUMBA_DISABLE_JIT")
def test_warmup_command_leaves_nothing_to_compile(tmp_path):
    arguments = ("warmup", "--dtype", "float32", "--cells", "simple", "--workers", "2")
    first = run("-m", "elman", *arguments, ELMAN_CACHE_DIR=str(tmp_path))
    assert first.returncode == 0, first.stderr
    assert "Traceback" not in first.stderr
    lines = first.stdout.splitlines()
    parts = [" ".join(line.split()[:2]) for line in lines[:-1]]
    assert parts[0] == "simple float32"  # alone, then the others side by side
    assert sorted(parts[1:]) == ["dense float32", "losses float32", "optimizers float32"]
    assert int(re.search(r"all +(\d+) compiled", lines[-1])[1]) > 10
    fit = run("-c", FIT, ELMAN_CACHE_DIR=str(tmp_path))
    assert fit.returncode == 0, fit.stderr
    assert fit.stdout.strip() == "0"


def test_warmup_says_when_the_result_cannot_be_kept(monkeypatch, capsys):
    monkeypatch.setattr(cli, "warmup", lambda *arguments: [])
    monkeypatch.setattr(jit, "cache_directory", lambda: None)
    monkeypatch.setattr(jit, "DISABLED", False)
    assert cli.main(["warmup"]) == 1
    assert "no cache directory can be written" in capsys.readouterr().err
    monkeypatch.setattr(jit, "DISABLED", True)
    assert cli.main(["warmup"]) == 0
    assert "nothing to compile" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required"),
        (["warmpu"], "invalid choice: 'warmpu'"),
        (["warmup", "--dtype", "float16"], "--dtype"),
        (["warmup", "--cells", "ltsm"], "--cells"),
        (["warmup", "--cells"], "--cells"),
        (["warmup", "--workers", "0"], "--workers: expected at least 1, got 0"),
        (["info", "more"], "unrecognized arguments: more"),
    ],
)
def test_wrong_arguments_exit_with_2_and_a_message(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.strip() == elman.__version__


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cells": ["ltsm"]}, "cells: .*'lstm'"),
        ({"dtypes": ["half"]}, "dtypes: .*float32"),
        ({"workers": 0}, "workers: .*0"),
    ],
)
def test_warmup_refuses_unknown_names_before_any_work(arguments, message):
    before = jit.compile_counts()
    with pytest.raises(ValueError, match=message):
        warmup(**arguments)
    assert jit.compile_counts() == before
