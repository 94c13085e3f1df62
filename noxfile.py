"""Versions and packages: ``pip install nox && nox`` runs every session, on the Pythons that are there.

`.ci/run` runs "types", "package", "oldest" and "newest" on one more Python; kernels are cached per version.
"""

import glob
import shutil

import nox

nox.options.default_venv_backend = "venv"
# Of what CI runs on every version: kernels of all cells, training, files, forecasts.
TESTS = ["tests/test_functional.py", "tests/test_formats.py"]
# Whatever runs kernels against a reference.
COMPILED = [
    "bidirectional", "cells", "constraints", "ctc", "diagnostics", "functional", "layers", "layers_embedding",
    "layers_noise", "layers_normalization", "likelihoods", "losses", "matmul", "metrics", "optimizers", "regularizers",
    "segments", "sequences", "shares", "state", "stream", "tbptt", "units", "windows", "zoneout",
]  # fmt: skip
# The lower bounds of pyproject.toml.
OLDEST = [
    "numba==0.67.*", "numpy==2.0.*", "tqdm==4.60.*", "narwhals==2.0.*", "pandas==2.2.*", "safetensors==0.5.*",
    "pytest==8.*",
]  # fmt: skip


@nox.session(python="3.11")
def oldest(session: nox.Session) -> None:
    """The oldest versions the package admits."""
    session.install(*OLDEST, "hypothesis")
    session.install("--no-deps", "-e", ".")
    session.run("pytest", *TESTS, "tests/test_model.py", "tests/test_forecaster.py")


@nox.session(python=["3.11", "3.12", "3.13", "3.14"])
def newest(session: nox.Session) -> None:
    """The newest versions of everything, on every Python."""
    session.install("--upgrade", "-e", ".[test]")
    session.run("pytest", *TESTS)


@nox.session
def bounds(session: nox.Session) -> None:
    """Everything that is compiled with every index checked, in its serial variant."""
    session.install("-e", ".[test]")
    kept = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_NUM_THREADS": "1"}
    session.run("pytest", *(f"tests/test_{name}.py" for name in COMPILED), env=kept)


@nox.session
def types(session: nox.Session) -> None:
    """Type hints, as strict as pyproject.toml says."""
    session.install("mypy>=1.14", "-e", ".[many,safetensors]", "polars", "pyarrow")
    session.run("mypy")


@nox.session
def package(session: nox.Session) -> None:
    """Source and binary distribution: built, installed without a compiler, tested with no checkout beside."""
    session.install("build")
    folder = session.create_tmp()
    shutil.rmtree(folder)
    session.run("python", "-m", "build", "--outdir", f"{folder}/dist", silent=True)
    (wheel,) = glob.glob(f"{folder}/dist/elman-*-py3-none-any.whl")
    (source,) = glob.glob(f"{folder}/dist/elman-*.tar.gz")
    session.run("python", "-c", CONTENTS, wheel, source)
    for built in (source, wheel):  # the second replaces the first
        session.install("--force-reinstall", "--no-deps", built, env={"CC": "false", "CXX": "false"})
    session.install("--only-binary", ":all:", f"{wheel}[test]")
    shutil.copytree("tests", f"{folder}/tests")
    shutil.copy("pyproject.toml", folder)
    session.chdir(folder)
    session.run("python", "-c", f"import elman; assert elman.__file__.startswith({session.virtualenv.location!r})")
    session.run("pytest", *TESTS, "tests/test_datasets.py", "tests/test_platforms.py", env={"PYTHONPATH": ""})


CONTENTS = """
import sys, tarfile, zipfile
names = set(zipfile.ZipFile(sys.argv[1]).namelist())
root = sys.argv[2].rpartition("/")[2].removesuffix(".tar.gz")
source = {name.removeprefix(f"{root}/src/") for name in tarfile.open(sys.argv[2]).getnames()}
for wanted in ("elman/py.typed", "elman/datasets/co2.npz", "elman/kernels/scan.py", "elman/forecasting/sktime.py"):
    assert wanted in names and wanted in source, wanted
assert all(name.split("/")[0] in ("elman", f"{root}.dist-info") for name in names), names
assert any(name.endswith("/licenses/LICENSE") for name in names), names
"""
