"""Fill the disk cache: compile, in one process, what a first fit needs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from elman import checks, losses, optimizers
from elman.cells import CELLS
from elman.jit import compile_counts, maximum_threads
from elman.kernels.stream import step_function
from elman.layers import GRU, LSTM, RNN, Dense, SimpleRNN
from elman.model import Sequential
from elman.threads import num_threads

DTYPES = ("float32", "float64")


class Report(NamedTuple):
    """What `warmup` did."""

    what: str
    """The part: "lstm float32", "losses float32", …"""
    compiled: int
    """Kernels compiled."""
    loaded: int
    """Kernels that were on disk already."""
    seconds: float


def warmup(
    cells: Sequence[str] | None = None,
    dtypes: Sequence[str] = DTYPES,
    tell: Callable[[Report], Any] | None = None,
) -> list[Report]:
    """Compile the kernels of training and inference, serial and parallel, so that later processes only load them.

    Parameters
    ----------
    cells : sequence of str, optional
        Names of `elman.cells.CELLS`; all by default. Cells come with their default activations.
    dtypes : sequence of str
        "float32" and "float64".
    tell : callable, optional
        Gets the report of every part as soon as it is done.

    Returns
    -------
    list of Report

    Raises
    ------
    ValueError
        For an unknown cell or dtype.

    Examples
    --------
    >>> from elman.warmup import warmup
    >>> [report.what for report in warmup(cells=["simple"], dtypes=["float32"])]
    ['simple float32', 'dense float32', 'losses float32', 'optimizers float32']
    """
    names = [checks.choose("cells", name, CELLS) for name in (CELLS if cells is None else cells)]
    kinds = [checks.float_dtype("dtypes", dtype) for dtype in dtypes]
    reports = []
    for what, work in _parts(names, kinds):
        before, begin = compile_counts(), time.perf_counter()
        work()
        after = compile_counts()
        reports.append(Report(what, *(after[k] - before[k] for k in before), time.perf_counter() - begin))
        if tell is not None:
            tell(reports[-1])
    return reports


def _parts(cells: Sequence[str], dtypes: Sequence[np.dtype]) -> Iterator[tuple[str, Callable[[], None]]]:
    for dtype in dtypes:
        for cell in cells:
            yield f"{cell} {dtype}", lambda cell=cell, dtype=dtype: _fit(_layer(cell), dtype)
        yield f"dense {dtype}", lambda dtype=dtype: _dense(dtype)
        yield f"losses {dtype}", lambda dtype=dtype: _losses(dtype)
        yield f"optimizers {dtype}", lambda dtype=dtype: _optimizers(dtype)


def _layer(cell: str) -> Callable[[int], RNN]:
    """The layer users take for `cell`, as a function of its units."""
    known: dict[str, Callable[[int], RNN]] = {
        "simple": SimpleRNN,
        "lstm": LSTM,
        "gru": GRU,
        "gru_reset_before": lambda units: GRU(units, reset_after=False),
    }
    return known.get(cell, lambda units: RNN(units, cell=cell))


def _each_variant(run: Callable[[bool], None]) -> None:
    """Call ``run(large)`` so that kernels take their serial variant, then the parallel one if there are threads."""
    with num_threads(1):
        run(False)
    if maximum_threads() > 1:
        with num_threads(maximum_threads()):
            run(True)


def _fit(layer: Callable[[int], RNN], dtype: np.dtype) -> None:
    """Train and predict with two layers, so that the gradient of the input is needed as well."""

    def run(large: bool) -> None:
        # Large: 100,000 weights and 50 million operations are beyond every threshold of the parallel variants.
        units = math.isqrt(100_000 // CELLS[layer(1)._cell().name].gates) if large else 3
        first, second = layer(units), layer(3)
        first.return_sequences = True
        model = Sequential([first, second, Dense(1)], dtype.name, seed=0)
        model.compile("adam", "mse")
        x = np.zeros((64 if large else 2, 8, units))
        model.fit(x, np.zeros(len(x)), batch_size=len(x), verbose=0)
        model.predict(x)
        model.stream()(x[0, 0])  # large: the variant for big layers

    _each_variant(run)


def _dense(dtype: np.dtype) -> None:
    """The heads for regression and classification, and steps that read tokens."""

    def run(large: bool) -> None:
        x = np.zeros((2048 if large else 2, 64))
        for activation in ("linear", "sigmoid", "relu", "softmax"):
            model = Sequential([Dense(64, activation), Dense(64)], dtype.name, seed=0)
            model.compile("sgd", "mse")
            model.fit(x, x, batch_size=len(x), verbose=0)
            model.predict(x)
        step_function(dtype, tokens=True, release=large)

    _each_variant(run)


def _losses(dtype: np.dtype) -> None:
    def run(large: bool) -> None:
        outputs = np.full((4096 if large else 2, 1, 66), 0.5, dtype)
        for name in losses.LOSSES:
            loss = losses.get(name)
            width = 1 if loss.labels else loss.target_width(outputs.shape, name)
            shape = (len(outputs), 1) if loss.labels else (len(outputs), 1, width)
            targets = np.zeros(shape, np.int64 if loss.labels else dtype)
            loss.on_batch(targets, outputs, None, None, np.empty_like(outputs))

    _each_variant(run)


def _optimizers(dtype: np.dtype) -> None:
    def run(large: bool) -> None:
        for name in optimizers.OPTIMIZERS:
            for options in ({"clipnorm": 1.0}, {"clipvalue": 1.0}):
                optimizer = optimizers.OPTIMIZERS[name](**options)
                vector = np.zeros(100_000 if large else 4, dtype)
                optimizer.build(vector, np.array([0, vector.size]))
                optimizer.apply(vector, np.zeros_like(vector))
        momentum = optimizers.SGD(momentum=0.9), optimizers.SGD(momentum=0.9, nesterov=True)
        amsgrad = optimizers.Adam(amsgrad=True)
        averaged = optimizers.SGD(use_ema=True, gradient_accumulation_steps=2)
        rms = optimizers.RMSprop(momentum=0.9), optimizers.RMSprop(centered=True)
        for optimizer in (*momentum, amsgrad, averaged, *rms):
            optimizer.build(vector, np.array([0, vector.size]))
            for _ in range(2):
                optimizer.apply(vector, np.zeros_like(vector))

    _each_variant(run)
