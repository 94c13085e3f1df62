"""Properties of a recurrence that hold to the bit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from elman.jit import maximum_threads
from elman.recurrence import Recurrence
from elman.testing.compare import check_same_bits
from elman.threads import num_threads


class Runner:
    """One compiled recurrence with the arrays of a problem, for repeated runs under different conditions."""

    def __init__(self, problem: Any, dtype: Any) -> None:
        self.problem = problem
        self.recurrence: Recurrence = problem.recurrence(dtype)
        self.x, self.parameters, self.state = problem.split(dtype)
        self.d_outputs = problem.d_outputs.astype(dtype)
        self.d_state = [d.astype(dtype) for d in problem.d_state]

    def forward(self, x: np.ndarray, state: Sequence[np.ndarray] | None, *, training: bool = True) -> list[np.ndarray]:
        """Outputs and last states."""
        tape = self.recurrence.forward(x, self.parameters, state, training=training, sequences=True)
        return [tape.outputs.copy(), *(s.copy() for s in tape.state)]

    def everything(self) -> list[np.ndarray]:
        """Outputs, last states and all gradients."""
        tape = self.recurrence.forward(self.x, self.parameters, self.state, training=True, sequences=True)
        found = [tape.outputs.copy(), *(s.copy() for s in tape.state)]
        targets = [np.full_like(p, np.nan) for p in self.parameters]
        dx, d_initial = tape.run_backward(self.d_outputs, self.d_state, targets, input_gradient=True)
        return [*found, dx.copy(), *targets, *(v.copy() for v in d_initial)]

    def cut(self, rows: int) -> None:
        """From now on run in parallel, in shards of at most `rows` sequences."""
        batch, steps, _ = self.x.shape
        frame = self.recurrence._frame(batch, steps, training=True, sequences=True)
        frame.parallel = frame.pack_parallel = True
        frame.most_rows = rows

    def poison(self) -> None:
        """Fill all memory that calls reuse, padding included, with NaN."""
        for memory in self.recurrence.buffers._flat.values():
            memory[...] = np.nan


def check_bits(problem: Any, dtype: Any) -> None:
    """All exact properties of one problem (`elman.testing.cells.Problem`) in one float type."""
    name = problem.name(np.dtype(dtype).name)
    _check_order_in_time(name, Runner(problem, dtype))
    _check_order_in_batch(name, Runner(problem, dtype))
    _check_shards(name, problem, dtype)
    _check_padding(name, Runner(problem, dtype))
    _check_nan(name, Runner(problem, dtype))


def _check_order_in_time(name: str, r: Runner) -> None:
    steps = r.x.shape[1]
    whole = r.forward(r.x, r.state)
    check_same_bits(f"{name}, inference against training", r.forward(r.x, r.state, training=False), whole)
    for t in range(1, steps):
        changed = r.x.copy()
        changed[:, t:] = -3 * changed[:, t:] + 1
        late = r.forward(changed, r.state)[0]
        check_same_bits(f"{name}, outputs before step {t}, which changed", [late[:, :t]], [whole[0][:, :t]])
        if np.array_equal(late[:, t], whole[0][:, t]):
            raise AssertionError(f"{name}: outputs of step {t} do not change with its input")
        first, *carried = r.forward(r.x[:, :t], r.state)
        second, *last = r.forward(r.x[:, t:], carried)
        joined = [np.concatenate([first, second], axis=1), *last]
        check_same_bits(f"{name}, cut after {t} steps with the states carried", joined, whole)
    zeros = [np.zeros_like(s) for s in r.state]
    check_same_bits(f"{name}, states of zero against none", r.forward(r.x, zeros), r.forward(r.x, None))


def _check_order_in_batch(name: str, r: Runner) -> None:
    batch = len(r.x)
    whole = r.forward(r.x, r.state)
    order = np.random.default_rng(batch).permutation(batch)
    permuted = r.forward(r.x[order], [s[order] for s in r.state])
    check_same_bits(f"{name}, permuted batch", permuted, [a[order] for a in whole])
    for b in range(batch):
        alone = r.forward(r.x[b : b + 1], [s[b : b + 1] for s in r.state])
        check_same_bits(f"{name}, sequence {b} alone", alone, [a[b : b + 1] for a in whole])


def _check_shards(name: str, problem: Any, dtype: Any) -> None:
    with num_threads(1):
        serial = Runner(problem, dtype).everything()
    for threads in range(2, min(3, maximum_threads()) + 1):
        for rows in (1, 2, 5, 8, len(problem.arrays[0])):
            r = Runner(problem, dtype)
            with num_threads(threads):
                r.cut(rows)
                check_same_bits(f"{name}, {threads} threads, shards of {rows}", r.everything(), serial)


def _check_padding(name: str, r: Runner) -> None:
    clean = r.everything()
    r.poison()
    check_same_bits(f"{name}, NaN in reused memory and padding", r.everything(), clean)


def _check_nan(name: str, r: Runner) -> None:
    """A NaN must reach all units through the recurrent product one step later, and its own at once."""
    batch, steps, _ = r.x.shape
    whole = r.forward(r.x, r.state)[0]
    row, step = batch // 2, steps // 2
    broken = r.x.copy()
    broken[row, step] = np.nan
    outputs, *states = r.forward(broken, r.state)
    if not np.isnan(outputs[row, step:]).all() or not all(np.isnan(s[row]).all() for s in states):
        raise AssertionError(f"{name}: NaN in sequence {row} at step {step} is lost in its outputs or states")
    others = np.arange(batch) != row
    check_same_bits(f"{name}, sequences beside one with NaN", [outputs[others]], [whole[others]])
    check_same_bits(f"{name}, outputs before a NaN", [outputs[row, :step]], [whole[row, :step]])
