"""Fill the disk cache: compile what a first fit needs."""

from __future__ import annotations

import math
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from typing import Any, NamedTuple

import numpy as np

from elman import checks, losses, optimizers
from elman.cells import CELLS
from elman.jit import compile_counts, maximum_threads
from elman.jit.calls import compile_repetition
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
    workers: int = 1,
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
    workers : int
        Processes to compile in. More than one are started anew, so a script must guard its own work by ``if __name__
        == "__main__":``, and they know no cells that were registered by a user.

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
    kinds = [checks.float_dtype("dtypes", dtype).name for dtype in dtypes]
    workers = checks.integer("workers", workers)
    parts = [(name, dtype) for dtype in kinds for name in (*names, *_OTHERS)]
    done = map(_report, parts) if workers == 1 else _side_by_side(parts, workers)
    reports = {}
    for report in done:
        reports[report.what] = report
        if tell is not None:
            tell(report)
    return [reports[" ".join(part)] for part in parts]


def _report(part: tuple[str, str]) -> Report:
    """Do one part of the work: a cell, or one of `_OTHERS`, in one dtype."""
    name, dtype = part
    before, begin = compile_counts(), time.perf_counter()
    work = _OTHERS.get(name)
    if work is None:
        _fit(_layer(checks.choose("cells", name, CELLS)), np.dtype(dtype))
    else:
        work(np.dtype(dtype))
    after = compile_counts()
    compiled, loaded = (after[k] - before[k] for k in ("compiled", "loaded"))
    return Report(" ".join(part), compiled, loaded, time.perf_counter() - begin)


def _side_by_side(parts: Sequence[tuple[str, str]], workers: int) -> Iterator[Report]:
    """The reports of processes. The first part of a dtype compiles what the others only load, so it goes ahead."""
    first = {dtype: (name, dtype) for name, dtype in reversed(parts)}
    context = multiprocessing.get_context("spawn")
    # An interrupt from the terminal reaches all processes; these end without a word.
    with ProcessPoolExecutor(workers, context, signal.signal, (signal.SIGINT, signal.SIG_DFL)) as pool:
        waiting = {pool.submit(_report, part) for part in first.values()}
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                report = future.result()
                dtype = report.what.split()[1]
                if first.pop(dtype, None) is not None:
                    rest = [part for part in parts if part[1] == dtype and " ".join(part) != report.what]
                    waiting |= {pool.submit(_report, part) for part in rest}
                yield report


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
    compile_repetition()


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
            for clip in ("clipnorm", "clipvalue"):
                options: dict[str, Any] = {clip: 1.0}
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


_OTHERS: dict[str, Callable[[np.dtype], None]] = {"dense": _dense, "losses": _losses, "optimizers": _optimizers}
"""Parts beside the cells."""
