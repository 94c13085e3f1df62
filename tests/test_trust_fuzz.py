"""Any argument at all: a result, or an error of `elman.errors` that names it; never a crash, a hang or a builtin error.

The cases run in a process of their own, tests/fuzz_api.py.
"""

import re

import numpy as np
import pytest
from effort import thorough
from fuzzing import MEMORY, SECONDS, launch

import elman
from elman import errors
from elman.layers import GRU, Dense, Input

CASES = thorough(1_500, 60_000)


def test_hostile_arguments(tmp_path):
    report = launch("fuzz_api.py", CASES, tmp_path, timeout=thorough(900, 7200))
    counts = report["counts"]
    assert report["cases"] == CASES and report["slowest"] < SECONDS
    # Most arguments are refused, some fit after all; memory that there is not is Python's own error.
    assert counts["BadValue"] > CASES / 10 and counts["BadType"] > CASES / 10 and counts["results"] > CASES / 30
    assert set(counts) <= {
        "results", "BadValue", "BadType", "BadState", "BadFile", "MemoryError", "FileNotFoundError", "FileExistsError",
        "IsADirectoryError", "NotADirectoryError", "OSError", "PermissionError",
    }  # fmt: skip
    assert report["grown"] <= MEMORY


# ---- what such cases found


def model():
    made = elman.Sequential([Input((None, 2)), GRU(3), Dense(1)], seed=0)
    made.compile("sgd", "mse")
    return made


RAGGED = [[1.0, 2.0], [3.0]]
SERIES = np.arange(30.0)
FOUND = {
    "weights that are none": (lambda: model().set_weights(None), "weights: expected a sequence, got NoneType"),
    "layers that are none": (lambda: elman.Sequential(3), "layers: expected a sequence, got int 3"),
    "a shape that is none": (lambda: elman.Sequential([Dense(1)]).build(3.0), r"shape: expected \(time, features\)"),
    "a shape in a shape": (lambda: elman.Sequential([Dense(1)]).build(((1, 2),)), "shape: expected an integer"),
    "parameters of a function": (
        lambda: elman.functional.recurrent("gru", np.ones((1, 2, 2)), 5),
        "parameters: expected a sequence, got int 5",
    ),
    "states of a function": (
        lambda: elman.functional.recurrent("simple", np.ones((1, 2, 1)), [np.ones((1, 1))] * 2, 1.5),
        "initial_state: expected a sequence, got float 1.5",
    ),
    "a model that is none": (lambda: elman.generate("model", [0], 3), "model: expected an elman.Sequential, got str"),
    "a dtype that is none": (lambda: elman.utils.pad_sequences([[1]], dtype="floaty"), "dtype: expected a type of"),
    "a filling with axes": (lambda: elman.utils.pad_sequences([[1]], value=[1, 2]), "value: expected one number"),
    "a ragged mask": (lambda: model().fit(np.ones((2, 2, 2)), [1, 2], mask=RAGGED), "mask: expected an array"),
    "ragged lengths": (lambda: model().predict(np.ones((2, 2, 2)), lengths=RAGGED), "lengths: expected an array"),
    "an empty step": (lambda: model().stream()([]), "x: the array is empty"),
    "an array for a word": (lambda: model().fit(np.ones((2, 2, 2)), [1, 2], verbose=np.ones(2)), "verbose: expected"),
    "an array for a flag": (lambda: elman.callbacks.EarlyStopping(restore_best_weights=np.ones(2)), "restore_best"),
    "an array for a name": (lambda: Dense(2, np.array([])), "activation: expected a name"),
    "an array for an interval": (lambda: model().compile("sgd", "mse", checkpoint=np.ones(2)), "checkpoint: expected"),
    "a layer without a class": (lambda: elman.layers.Bidirectional({"units": 3}), "layer: expected a dict with"),
    "a layer with other options": (
        lambda: elman.layers.TimeDistributed({"class_name": "Dense", "config": {"colour": 1}}),
        r"layer: config \{'colour': 1\} does not fit Dense",
    ),
    "texts for a metric": (
        lambda: elman.metrics.MeanAbsoluteError().update_state(np.array([["a"]]), np.array([["b"]])),
        "y_pred: expected numbers, got an array of dtype <U1",
    ),
    "a number beyond floats": (lambda: elman.layers.Dropout(10**400), "rate: expected a number"),
    "a number too long to show": (lambda: GRU(-(10**5000)), "units: .* got a int too long to show"),
    "a path that is none": (lambda: elman.load_model(3), "path: expected text or a path, got int 3"),
    "a path with a zero": (lambda: model().save("a\0b"), "path: expected the name of a file or folder"),
    "a folder that is none": (lambda: elman.callbacks.BackupAndRestore(None), "backup_dir: expected text or a path"),
    "more parameters than memory": (
        lambda: elman.Sequential([Input((None, 2)), GRU(1 << 40)]),
        "layers: the model would have .* parameters, 'gru/recurrent_kernel' alone of shape",
    ),
    "layers without end": (lambda: elman.layers.SegmentRNN(2, 2, 1, layers=1 << 40), "layers: .* at most 1,000"),
    "a horizon beyond integers": (lambda: elman.Forecaster(10**30).fit(SERIES), "horizon: .* at most 1,000,000,000"),
    "a batch of a billion": (
        lambda: elman.Forecaster(2, batch_size=10**9).fit(SERIES),
        "batch_size: .* at most 1,048,576",
    ),
    "a sequence without axes": (lambda: elman.utils.pad_sequences(np.array(3)), "sequences: expected a sequence"),
    "callbacks without axes": (
        lambda: model().fit(np.ones((2, 2, 2)), [1, 2], callbacks=np.array(3)),
        "callbacks: expected a sequence",
    ),
    "a kernel without axes": (
        lambda: elman.functional.recurrent("gru", np.ones((1, 2, 2)), [1.0, 2.0]),
        r"parameters\[0\]: the kernel of cell 'gru' must have shape",
    ),
    "classes beyond memory": (
        lambda: elman.metrics.confusion_matrix([0, 1], [1, 1], 1 << 40),
        "classes: expected an integer of at most 1,048,576",
    ),
    "an array in a shape": (lambda: elman.layers.Reshape((np.ones(2), 2)), "target_shape: expected an integer"),
    "a range beyond floats": (lambda: elman.initializers.RandomUniform(-1e308, 1e308), "maxval: its distance from"),
    "a value beyond floats": (lambda: elman.Forecaster(2).fit([1.0, 10**400, 2.0]), "y: int too large"),
    "ragged tokens": (lambda: elman.data.Lanes.next_token([RAGGED, [1]]), r"tokens\[0\]: expected an array"),
    "an array of no quantiles": (lambda: elman.losses.Quantile(np.array(0.5)), "quantiles: expected a sequence"),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found(name):
    call, message = FOUND[name]
    with pytest.raises(errors.ElmanError, match=f"^{message}"):
        call()


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.BadValue, ValueError), (errors.BadType, TypeError), (errors.BadState, RuntimeError),
        (errors.BadFile, ValueError), (errors.MissingPackage, ImportError),
    ],
)  # fmt: skip
def test_every_kind_is_a_builtin_one_too(kind, builtin):
    assert issubclass(kind, builtin) and issubclass(kind, errors.ElmanError)
    assert re.fullmatch(r"elman\.errors\.\w+", f"{kind.__module__}.{kind.__qualname__}")


def test_zeros_of_either_sign_are_a_range():
    assert (elman.initializers.RandomUniform(0.0, -0.0)((3,), np.float64, np.random.default_rng(0)) == 0).all()


@pytest.mark.parametrize("option", ["sequence_stride", "sampling_rate"])
def test_a_stride_beyond_integers_gives_one_window(option):
    length = 1 if option == "sampling_rate" else 30
    windows = elman.data.timeseries_windows(SERIES, None, length, **{option: 1 << 62})
    np.testing.assert_array_equal(windows[0].ravel(), SERIES[:length])


def test_appending_to_a_file_that_is_no_text(tmp_path):
    (tmp_path / "log").write_bytes(bytes(range(1, 256)))
    log = elman.callbacks.CSVLogger(tmp_path / "log", append=True)
    with pytest.raises(errors.BadValue, match=r"append: .* has the columns"):
        model().fit(np.ones((2, 2, 2)), [1, 2], verbose=0, callbacks=[log])
    assert (tmp_path / "log").read_bytes() == bytes(range(1, 256))
