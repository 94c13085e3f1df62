"""Write the files that `tests/test_formats.py` loads: ``python tests/saved/make.py``, once for every new format.

Files of a format that was released are never written again.
"""

import contextlib
import sys
from pathlib import Path

import numpy as np

import elman
from elman import archive
from elman.layers import GRU, LSTM, Bidirectional, Dense, EmbedColumns, Input, LayerNormalization

# No random numbers: a generator's may change with NumPy.
X = np.sin(np.arange(8 * 6 * 3) ** 1.5).reshape(8, 6, 3)
X[..., 2] = np.arange(48).reshape(8, 6) % 4  # a column of categories
Y = np.cos(np.arange(8) * 0.7)
SERIES = 10 + np.arange(90) / 20 + 2 * np.sin(np.arange(90) * np.pi / 6) + 0.1 * np.cos(np.arange(90) ** 1.3)


def model(dtype="float64"):
    """A model with every kind of state that a file holds."""
    made = elman.Sequential(
        [
            Input((6, 3)),
            EmbedColumns([(2, 4, 2)]),
            LSTM(3, return_sequences=True, zoneout=0.1, kernel_regularizer="l2"),
            Bidirectional(GRU(2, return_sequences=True, learn_initial_state=True)),
            LayerNormalization(),
            GRU(3, stateful=True, bias_constraint="non_neg"),
            Dense(1, "tanh"),
        ],
        dtype,
        seed=3,
    )
    made.compile(elman.optimizers.Adam(elman.schedules.ExponentialDecay(0.01, 10, 0.9)), "mse", metrics=["mae"])
    return made


def forecaster():
    """A forecaster with members, intervals and a transform."""
    made = elman.Forecaster(horizon=3, lookback=8, units=4, seeds=2, transform="log1p", epochs=2, loss="quantile")
    made.fit(SERIES[:-12])
    return made.calibrate(SERIES, windows=4)


class Stop(elman.callbacks.Callback):
    """What kills a training."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise InterruptedError


def train(folder, *callbacks):
    """Four epochs with a backup in `folder`; the model."""
    made = elman.Sequential([Input((6, 3)), GRU(3), Dense(1)], "float64", seed=1)
    made.compile("adam", "mse")
    backup = elman.callbacks.BackupAndRestore(folder, delete_checkpoint=False)
    made.fit(X, Y, batch_size=4, epochs=4, shuffle=False, verbose=0, callbacks=[backup, *callbacks])
    return made


def outputs(folder):
    """What the model and the forecaster in `folder` give, and what they give after more training."""
    loaded = elman.load_model(folder / "model.npz")
    found = {"predictions": loaded.predict(X, batch_size=8)}
    for _ in range(2):
        loaded.train_on_batch(X, Y)
    found["trained"] = np.concatenate([w.ravel() for w in loaded.get_weights()])
    forecast = elman.Forecaster.load(folder / "forecaster.npz")
    found["forecast"] = forecast.predict(interval=80)
    forecast.update(SERIES[-12:-6], epochs=1)
    found["updated"] = forecast.predict(quantiles=[0.1, 0.9])
    return found


if __name__ == "__main__":
    place = Path(__file__).parent / f"format{archive.FORMAT}"
    if place.exists():
        sys.exit(f"{place} is there already")
    place.mkdir()
    written = model()
    written.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    written.save(place / "model.npz")
    forecaster().save(place / "forecaster.npz")
    with contextlib.suppress(InterruptedError):
        train(place, Stop())
    np.savez(place / "expected.npz", **outputs(place))
