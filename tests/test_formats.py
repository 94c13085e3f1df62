"""Files of every released format are read by this version, to the same outputs; see tests/saved/make.py."""

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
from effort import thorough

from elman import Forecaster, archive, callbacks, load_model

SAVED = Path(__file__).parent / "saved"
FORMATS = range(1, archive.FORMAT + 1)


def _make():
    found = importlib.util.spec_from_file_location("make", SAVED / "make.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


make = _make()


@pytest.fixture(params=FORMATS, ids=lambda number: f"format{number}")
def folder(request, tmp_path):
    """A copy of the files of one format."""
    shutil.copytree(SAVED / f"format{request.param}", tmp_path / "files")
    return tmp_path / "files"


def test_files_of_every_format_give_the_same_outputs(folder):
    with np.load(folder / "expected.npz") as file:
        expected = dict(file)
    found = make.outputs(folder)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        # Other CPUs sum in another order; forecasters compute in float32.
        tolerance = 1e-4 if name in ("forecast", "updated") else 1e-9
        np.testing.assert_allclose(value, expected[name], rtol=tolerance, atol=1e-12, err_msg=name)


def test_a_training_goes_on_from_a_backup_of_every_format(folder):
    epochs = []
    count = callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: epochs.append(epoch))
    whole, resumed = make.train(folder.parent / "new"), make.train(folder, count)
    assert epochs == [2, 3]
    for a, b in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_a_file_that_is_loaded_and_saved_has_the_newest_format(folder):
    load_model(folder / "model.npz").save(folder / "model.npz")
    Forecaster.load(folder / "forecaster.npz").save(folder / "forecaster.npz")
    for name, kind in (("model", "Sequential"), ("forecaster", "Forecaster")):
        assert archive.read(folder / f"{name}.npz", kind)[0]["format"] == archive.FORMAT
    test_files_of_every_format_give_the_same_outputs(folder)


@pytest.mark.parametrize("kind", ["Sequential", "Forecaster", "backup"])
def test_flipped_bits_in_files_of_every_format_are_found_or_harmless(folder, kind):
    """A file is read to what it held, or not at all, with an error that names it."""
    path = folder / {"Sequential": "model.npz", "Forecaster": "forecaster.npz", "backup": "backup.npz"}[kind]
    whole, (header, arrays) = path.read_bytes(), archive.read(path, kind)
    expected = header, {name: (a.dtype, a.shape, a.tobytes()) for name, a in arrays.items()}
    found = 0
    rng = np.random.default_rng(0)
    for at in range(0, len(whole), thorough(23, 1)):
        damaged = bytearray(whole)
        damaged[at] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            header, arrays = archive.read(path, kind)
        except ValueError as error:
            assert str(error).startswith(f"path: {str(path)!r}"), error
            found += 1
        else:
            assert (header, {name: (a.dtype, a.shape, a.tobytes()) for name, a in arrays.items()}) == expected
    assert found > 0.6 * len(range(0, len(whole), thorough(23, 1)))
