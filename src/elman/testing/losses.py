"""The battery of a loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from elman.jit import maximum_threads
from elman.loss import Loss
from elman.losses import (
    CTC,
    CosineSimilarity,
    Hinge,
    KLDivergence,
    Likelihood,
    MeanSquaredLogarithmicError,
    NegativeBinomial,
    Poisson,
    PoissonNLL,
    Quantile,
    SquaredHinge,
)
from elman.testing.compare import check_close, check_derivative, check_same_bits, norm_of, random_direction
from elman.threads import num_threads

# (n, O): few values, tails of every vector.
_SIZES = ((1, 2), (5, 1), (7, 19))
# More than one chunk of 16384 values, and rows of the second and third.
_CHUNKS_SIZE, _CHUNKS_ROWS = (9_001, 5), slice(3_000, 8_000)
# Large enough for the parallel driver.
_PARALLEL_SIZE = (120_001, 2)


def draw_outputs(loss: Loss, rng: np.random.Generator, n: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Targets and outputs that suit a loss: probabilities where it has ``from_logits=False``, labels where it says so.

    The losses of the registry that take other numbers than these, or normal ones, get what they are made for; there are
    as many columns as quantiles, at least two for an angle, and for a likelihood as many outputs per column as it has
    parameters. For CTC, outputs are (n, T, C), C > columns, and labels (n, T / 2), some of them absent.

    Examples
    --------
    >>> from elman.losses import MeanSquaredError
    >>> y, p = draw_outputs(MeanSquaredError(), np.random.default_rng(0), 4, 2)
    >>> y.shape, p.shape
    ((4, 2), (4, 2))
    """
    shape = n, columns
    if isinstance(loss, (MeanSquaredLogarithmicError, Poisson)):
        return 3 * rng.uniform(size=shape), rng.uniform(0.1, 3, shape)
    if isinstance(loss, Likelihood):
        counts = isinstance(loss, (NegativeBinomial, PoissonNLL))
        y = rng.poisson(np.exp(rng.standard_normal(shape))).astype(np.float64) if counts else rng.standard_normal(shape)
        return y, 2 * rng.standard_normal((n, len(loss.blocks) * columns))
    if isinstance(loss, CTC):
        size, classes = min(columns, 3), max(columns, loss.blank) + 1
        labels = (loss.blank + rng.integers(1, classes, (n, size))) % classes
        labels[np.arange(size) >= rng.integers(0, size + 1, (n, 1))] = loss.blank
        return labels, 2 * rng.standard_normal((n, 2 * size, classes))
    if isinstance(loss, (Hinge, SquaredHinge)):
        return rng.integers(0, 2, shape).astype(np.float64), 2 * rng.standard_normal(shape)
    if isinstance(loss, Quantile) and len(loss.quantiles) > 1:
        shape = n, len(loss.quantiles)
    if isinstance(loss, CosineSimilarity):
        # Of one value the derivative is 0, and nothing but rounding remains to compare.
        shape = n, max(columns, 2)
    crossentropy = hasattr(loss, "from_logits") or isinstance(loss, KLDivergence)
    probability = crossentropy and not getattr(loss, "from_logits", False)
    p = rng.uniform(0.05, 0.95, shape) if probability else 2 * rng.standard_normal(shape)
    if loss.labels:
        return rng.integers(0, columns, n), p
    return (rng.uniform(size=shape) if crossentropy else rng.standard_normal(shape)), p


def check_loss(
    loss: Loss,
    *,
    draw: Callable[[np.random.Generator, int, int], tuple[np.ndarray, np.ndarray]] | None = None,
    seed: int = 0,
) -> None:
    """Check a loss, compiled, against its NumPy `reference` and finite differences.

    Parameters
    ----------
    loss : Loss
        Of your own, or from `elman.losses`.
    draw : callable, optional
        ``draw(rng, n, columns)`` gives targets and outputs (n, columns) in float64 that the loss is made for, or labels
        (n,). By default normal numbers; probabilities and labels for a loss with `from_logits` or `labels`.
    seed : int
        Of the random numbers.

    Raises
    ------
    AssertionError
        With the path and both numbers. Checked are, with and without weights, for 1, 2 and 19 values per row: the
        weighted mean (1e-11), its derivative in random directions (relative 1e-6), float32 against float64 (2e-6 of the
        largest), the same value with and without a gradient, a batch of 9001 rows against a part of it, a NaN in one
        row, and the same bits for any number of threads. For a loss of rows also a mask: nothing changes where it is
        True alone, and rows where it is False might as well not be there.

    Examples
    --------
    >>> from elman.losses import Huber
    >>> from elman.testing import check_loss
    >>> check_loss(Huber(delta=0.5))
    """
    made = draw or (lambda rng, n, columns: draw_outputs(loss, rng, n, columns))
    for n, columns in _SIZES:
        rng = np.random.default_rng([seed, n, columns])
        y, p = made(rng, n, columns)
        for w in (None, rng.uniform(0.1, 2, n)):
            name = f"{loss}, {n} rows of {p.shape[1]}, {'no ' if w is None else ''}weights"
            _check_value(name, loss, y, p, w)
            _check_gradient(name, loss, y, p, w, rng)
            _check_float32(name, loss, y, p, w)
            if p.ndim == 2:
                _check_mask(name, loss, y, p, w)
    y, p = made(np.random.default_rng([seed, 3]), *_CHUNKS_SIZE)
    _check_part(str(loss), loss, y, p)
    y, p = made(np.random.default_rng([seed, 1]), 6, 3)
    _check_nan(str(loss), loss, y, p)
    y, p = made(np.random.default_rng([seed, 2]), *_PARALLEL_SIZE)
    _check_threads(str(loss), loss, y, p)


def _as(y: np.ndarray, dtype: Any) -> np.ndarray:
    return y if y.dtype.kind == "i" else y.astype(dtype)


def _check_value(name: str, loss: Loss, y: np.ndarray, p: np.ndarray, w: np.ndarray | None) -> None:
    expected = np.mean(loss.reference(y, p) * (1 if w is None else w))
    value = loss.value_and_gradient(y, p, w, np.empty_like(p))
    check_close(f"{name}, value", np.array(value), expected, 1e-11)
    check_same_bits(
        f"{name}, value without gradient", [np.array(loss.value_and_gradient(y, p, w, None))], [np.array(value)]
    )


def _check_gradient(
    name: str, loss: Loss, y: np.ndarray, p: np.ndarray, w: np.ndarray | None, rng: np.random.Generator
) -> None:
    gradient = np.full_like(p, np.nan)
    loss.value_and_gradient(y, p, w, gradient)
    for _ in range(2):
        (v,) = random_direction(rng, [p])
        check_derivative(
            f"{name}, gradient",
            lambda h, v=v: loss.value_and_gradient(y, p + h * v, w, None),
            float(np.vdot(gradient, v)),
            norm_of([gradient]) / np.sqrt(p.size),
            1e-6,
        )


def _check_float32(name: str, loss: Loss, y: np.ndarray, p: np.ndarray, w: np.ndarray | None) -> None:
    y, p, w = _as(y, np.float32), p.astype(np.float32), None if w is None else w.astype(np.float32)
    narrow, wide = np.empty_like(p), np.empty(p.shape)
    value = loss.value_and_gradient(y, p, w, narrow)
    w64 = None if w is None else w.astype(np.float64)
    exact = loss.value_and_gradient(_as(y, np.float64), p.astype(np.float64), w64, wide)
    check_close(f"{name}, float32 value", np.array(value), np.array(exact), 2e-6)
    largest = np.abs(wide).max() or 1.0
    check_close(f"{name}, float32 gradient over its largest value", narrow / largest, wide / largest, 2e-6)


def _check_mask(name: str, loss: Loss, y: np.ndarray, p: np.ndarray, w: np.ndarray | None) -> None:
    """Masked rows, which hold NaN, against the same batch without them; by `Loss.on_batch`, as in training."""

    def run(rows: Any, mask: np.ndarray | None, outputs: np.ndarray) -> tuple[float, np.ndarray]:
        gradient = np.full_like(outputs[rows], 7.0)
        value = loss.on_batch(y[rows], outputs[rows], None if w is None else w[rows], mask, gradient)
        return value, gradient

    everything = slice(None)
    value, gradient = run(everything, None, p)
    same, also = run(everything, np.ones(len(p), bool), p)
    check_same_bits(f"{name}, mask of True", [np.array(same), also], [np.array(value), gradient])
    for valid in (np.arange(len(p)) % 3 == 0, np.zeros(len(p), bool)):
        broken = np.where(valid[:, None], p, np.nan)
        value, gradient = run(everything, valid, broken)
        expected, alone = run(valid, None, p) if valid.any() else (0.0, gradient[:0])
        check_close(f"{name}, masked value", np.array(value), np.array(expected), 1e-12)
        check_close(f"{name}, masked gradient of valid rows", gradient[valid], alone, 1e-12)
        check_same_bits(f"{name}, masked gradient of other rows", [gradient[~valid]], [np.zeros_like(p)[~valid]])


def _check_part(name: str, loss: Loss, y: np.ndarray, p: np.ndarray) -> None:
    """The derivative of a row is the same in any batch, but for the number of rows that the mean divides by."""
    w = np.linspace(0.5, 2, len(p))
    for weights in (None, w):
        part = None if weights is None else weights[_CHUNKS_ROWS]
        _check_value(f"{name}, {len(p)} rows", loss, y, p, weights)
        whole, alone = np.empty_like(p), np.empty_like(p[_CHUNKS_ROWS])
        loss.value_and_gradient(y, p, weights, whole)
        loss.value_and_gradient(y[_CHUNKS_ROWS], p[_CHUNKS_ROWS], part, alone)
        got, expected = whole[_CHUNKS_ROWS] * len(whole), alone * len(alone)
        check_close(f"{name}, gradient of {len(alone)} among {len(whole)} rows", got, expected, 1e-12)


def _check_nan(name: str, loss: Loss, y: np.ndarray, p: np.ndarray) -> None:
    gradient, clean = np.empty_like(p), np.empty_like(p)
    loss.value_and_gradient(y, p, None, clean)
    rest = np.arange(len(p)) != 2
    for column in range(p.shape[1]):
        broken = p.copy()
        broken[2, column] = np.nan
        value = loss.value_and_gradient(y, broken, None, gradient)
        if not np.isnan(value) or not np.isnan(gradient[2, column]).all():
            raise AssertionError(
                f"{name}: a NaN output gives the loss {value} and the gradient {gradient[2, column]} instead of NaN"
            )
        check_close(f"{name}, gradient of rows beside one with NaN", gradient[rest], clean[rest], 1e-12)


def _check_threads(name: str, loss: Loss, y: np.ndarray, p: np.ndarray) -> None:
    y, p = _as(y, np.float32), p.astype(np.float32)
    w = np.linspace(0.5, 2, len(p), dtype=np.float32)
    results = []
    for threads in range(1, min(3, maximum_threads()) + 1):
        gradient = np.empty_like(p)
        with num_threads(threads):
            value = loss.value_and_gradient(y, p, w, gradient)
        results.append([np.array(value), gradient])
        check_same_bits(f"{name}, {threads} threads against 1", results[-1], results[0])
