"""Properties of a recurrence that hold to the bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from elman.frames import Frame, Noise
from elman.jit import maximum_threads
from elman.recurrence import Recurrence
from elman.testing.compare import check_close, check_same_bits
from elman.threads import num_threads


class Runner:
    """One compiled recurrence with the arrays of a problem, for repeated runs under different conditions."""

    def __init__(self, problem: Any, dtype: Any) -> None:
        self.problem = problem
        self.recurrence: Recurrence = problem.recurrence(dtype)
        # Short blocks of the weight gradients, so that a few steps make several blocks, and segments of checkpoints.
        self.recurrence.time_block = lambda batch: 2
        self.pack = False  # what the weight gradients read, as large layers do
        self.recurrence.packs_features = lambda batch, threads: self.pack
        self.x, self.parameters, self.state = problem.split(dtype)
        self.d_outputs = problem.d_outputs.astype(dtype)
        self.d_state = [d.astype(dtype) for d in problem.d_state]
        self.options = problem.path.arguments(dtype)

    def forward(self, x: np.ndarray, state: Sequence[np.ndarray] | None, *, training: bool = True) -> list[np.ndarray]:
        """Outputs and last states."""
        tape = self.recurrence.forward(x, self.parameters, state, training=training, sequences=True)
        return [tape.outputs.copy(), *(s.copy() for s in tape.state)]

    def everything(self) -> list[np.ndarray]:
        """Outputs, last states and all gradients."""
        tape = self.recurrence.forward(
            self.x, self.parameters, self.state, training=True, sequences=True, **self.options
        )
        found = [tape.outputs.copy(), *(s.copy() for s in tape.state)]
        targets = [np.full_like(p, np.nan) for p in self.parameters]
        dx = tape.run_backward(self.d_outputs, self.d_state, targets, input_gradient=True)
        return [*found, dx.copy(), *targets, *(v.copy() for v in tape.state_gradients())]

    def _frame(self) -> Frame:
        """The frame of `everything`."""
        batch, steps, _ = self.x.shape
        segment = self.recurrence.segment(batch, steps, self.options["checkpoint"])
        noise = Noise(*(self.options[name] is not None for name in ("drop", "zoneout")))
        return self.recurrence._frame(batch, segment, training=True, sequences=True, noise=noise)

    def cut(self, rows: int) -> None:
        """From now on run in parallel, in shards of at most `rows` sequences, or one band."""
        frame = self._frame()
        frame.parallel = frame.pack_parallel = True
        frame.most_rows = -(-rows // frame.band) * frame.band

    def single(self, shares: int, looks: int = 1 << 40) -> None:
        """From now on run one sequence as long ones run, shared out among so many threads where the cell allows it.

        `looks` is that of the frame; below -1000 they part in the first step that they meet in. With no `shares` it
        runs as a batch of one.
        """
        frame = self._frame()
        frame.single, frame.looks = shares > 0, looks
        frame.most_shares = shares if self.problem.cell.elementwise else 1
        crew = frame.crew(self.recurrence.plan, shares)
        # Whether or not it went well the last time.
        frame.crew = lambda plan, threads: crew  # type: ignore[method-assign]

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


def check_options(problem: Any, dtype: Any) -> None:
    """What masks, recurrent dropout, zoneout and checkpoints must leave as it is."""
    batch, steps, _, units = problem.size
    zoned = replace(problem, path=replace(problem.path, zoneout=zone_rates(problem.cell.states)))
    for plain in (problem, zoned):
        _check_neutral(plain, dtype)
    rng = np.random.default_rng(steps)
    lengths = np.sort(rng.integers(1, steps + 1, batch))[::-1]
    drop = (rng.random((batch, units)) < 0.5) * 1.5
    path = replace(problem.path, mask=np.arange(steps) < lengths[:, None], drop=drop, checkpoint="sqrt")
    masked = replace(problem, path=path)
    name = masked.name(np.dtype(dtype).name, "lengths, recurrent dropout and checkpoints")
    _check_shards(name, masked, dtype)
    _check_padding(name, Runner(masked, dtype))
    _check_masked_tail(name, Runner(masked, dtype), lengths)
    masked = replace(masked, path=replace(masked.path, zoneout=zoned.path.zoneout))
    name = masked.name(np.dtype(dtype).name, "lengths, recurrent dropout, zoneout and checkpoints")
    _check_shards(name, masked, dtype)
    _check_padding(name, Runner(masked, dtype))


def zone_rates(states: int) -> tuple[float, ...]:
    """A different rate of zoneout for each state, exact in float32.

    Examples
    --------
    >>> zone_rates(2)
    (0.375, 0.1875)
    """
    return tuple(0.375 * 2.0**-k for k in range(states))


def _check_neutral(problem: Any, dtype: Any) -> None:
    """Options that change no bit."""
    whole = Runner(problem, dtype).everything()
    batch, steps, _, _ = problem.size
    paths = {
        "checkpoints": replace(problem.path, checkpoint="sqrt"),
        "a checkpoint at every block": replace(problem.path, checkpoint=1),
        "a mask without holes": replace(problem.path, mask=np.ones((batch, steps), bool)),
    }
    for label, path in paths.items():
        same = Runner(replace(problem, path=path), dtype).everything()
        check_same_bits(f"{problem.name(np.dtype(dtype).name)}, {label}", same, whole)


def _check_masked_tail(name: str, r: Runner, lengths: np.ndarray) -> None:
    """A sequence with a masked tail, whatever numbers are in it, is the shorter sequence."""
    r.x[~(np.arange(r.x.shape[1]) < lengths[:, None])] = 1e30
    outputs, *rest = r.everything()
    states, dx = rest[: len(r.state)], rest[len(r.state)]
    for b in (0, len(lengths) // 2, len(lengths) - 1):
        row, n = slice(b, b + 1), int(lengths[b])
        options = {"drop": r.options["drop"][row]}
        tape = r.recurrence.forward(
            np.ascontiguousarray(r.x[row, :n]), r.parameters, [s[row] for s in r.state], training=True, sequences=True,
            **options,
        )  # fmt: skip
        alone = [tape.outputs.copy(), *(s.copy() for s in tape.state)]
        found = [outputs[row, :n], *(s[row] for s in states)]
        check_same_bits(f"{name}, sequence {b} of {n} steps alone", found, alone)
        d_outputs = r.d_outputs[row, :n].copy()
        d_outputs[:, -1] += r.d_outputs[row, n:].sum(axis=1)  # its last output is repeated to the end
        targets = [np.empty_like(p) for p in r.parameters]
        short = tape.run_backward(d_outputs, [d[row] for d in r.d_state], targets, input_gradient=True)
        check_close(f"{name}, dx of sequence {b}", dx[row, :n], short, 1e-3 if short.dtype == np.float32 else 1e-10)
        if dx[row, n:].any():
            raise AssertionError(f"{name}: a masked step of sequence {b} has a gradient")


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
            r.pack = rows > 2
            with num_threads(threads):
                r.cut(rows)
                check_same_bits(f"{name}, {threads} threads, shards of {rows}", r.everything(), serial)


def check_single(problem: Any, dtype: Any) -> None:
    """A long sequence alone, in one thread and with its units shared out, against the same as a batch of one."""
    batch = Runner(problem, dtype)
    batch.single(0)
    whole = batch.everything()
    for threads in range(1, min(3, maximum_threads()) + 1):
        for looks in (1 << 40, -1001):
            r = Runner(problem, dtype)
            r.single(threads, looks)
            name = problem.name(np.dtype(dtype).name, f"units in {threads} shares, of {looks} looks")
            with num_threads(threads):
                for _ in range(3):
                    r.poison()
                    check_same_bits(name, r.everything(), whole)


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
