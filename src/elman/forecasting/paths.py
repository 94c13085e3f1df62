"""Forecasts of models that go one step after another on what they forecast themselves."""

from __future__ import annotations

import numpy as np

from elman.forecasting.layout import Source
from elman.forecasting.targets import Target, scaled_up
from elman.kernels.windows import MOST
from elman.model import Sequential

_ROWS = 2048
"""Paths that run side by side."""


def paths(
    model: Sequential, target: Target, source: Source, series: np.ndarray, origins: np.ndarray,
    rng: np.random.Generator | None, count: int,
) -> np.ndarray:  # fmt: skip
    """Paths (b, count, H), scaled, of windows whose series end at the origins.

    With `rng` each step is drawn from its distribution and read back (ancestral sampling); without, each step is the
    point forecast.
    """
    found = np.empty((len(series), count, source.layout.horizon), np.float32)
    each = max(1, _ROWS // count)
    for start in range(0, len(series), each):
        part = slice(start, start + each)
        found[part] = _run(model, target, source, series[part], origins[part], rng, count)
    return found


def _run(
    model: Sequential, target: Target, source: Source, series: np.ndarray, origins: np.ndarray,
    rng: np.random.Generator | None, count: int,
) -> np.ndarray:  # fmt: skip
    layout = source.layout
    begins = np.repeat(origins, count)
    found = source.gather(np.repeat(series, count), begins)
    x, scale, back = found.x, found.place[:, 1], layout.lookback
    drawn = np.empty((len(x), layout.horizon), np.float32)
    read = np.empty_like(drawn)
    with model.lock:
        model.reset_states("stream")
        for k in range(layout.horizon):
            row = back + k
            if k:
                x[:, row, 0], x[:, row, 1] = read[:, k - 1], 1
                for j, lag in enumerate(layout.lags):
                    if lag <= k:
                        x[:, row, 2 + j] = read[:, k - lag]
            piece = slice(0 if k == 0 else row, row + 1)
            mask = None if k or found.mask.all() else found.mask[:, piece]
            out = model.stream_step(x[:, piece], mask=mask)[:, -1]
            drawn[:, k] = _step(target, out, scale, rng) + _base(layout.seasons, found.base[:, row], drawn, k, begins)
            read[:, k] = np.clip(drawn[:, k], -MOST, MOST)
        model.reset_states("stream")
    return drawn.reshape(len(series), count, layout.horizon)


def _base(seasons: tuple[int, ...], known: np.ndarray, drawn: np.ndarray, k: int, origins: np.ndarray) -> np.ndarray:
    """What is added to step k (R,): `known` from a series' past, or a step drawn before, by the first season there."""
    base, open_ = known.copy(), np.ones(len(known), bool)
    for season in seasons:
        if season <= k:
            base[open_] = drawn[open_, k - season]
            break
        open_ &= origins + k < season  # no row that far back
    return base


def _step(target: Target, out: np.ndarray, scale: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
    """One step of all paths from outputs (R, P), in the scale of the windows."""
    if target.counts:
        out = scaled_up(out, scale)[0]
    value = target.point(out[:, None]) if rng is None else target.sample(out[:, None], rng)
    return value[:, 0] / (scale if target.counts else 1)
