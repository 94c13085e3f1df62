"""One recurrence with its memory: forward to a tape, and from the tape back to gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from elman import checks
from elman.cells import Cell
from elman.kernels import scan
from elman.kernels.matmul import multiply, pack, pack_transposed
from elman.kernels.simd import ROWS, VECTORS, address, lanes
from elman.memory import Buffers
from elman.threads import usable_threads

# Below this many floating-point operations a kernel call runs serially: a parallel launch costs 2 to 14 us, in which
# one core does about 2 million.
_PARALLEL_FLOPS = 2_000_000

# Panels whose weight gradients are summed together, and the rows of their matrix (I + H) up to which a block of 256
# (t, b) rows of x and h stays in the second-level cache beside their sums; above it the block is 128 rows.
_CHUNK, _BLOCKED_ROWS = 4, 384

_MOST_FRAMES = 8


class Gradients(NamedTuple):
    """Gradients of one call of `recurrent`, each in the shape of what it belongs to."""

    x: np.ndarray | None
    """(B, T, I), or None if it was not asked for."""
    parameters: list[np.ndarray]
    """kernel (I, G), recurrent kernel (H, G) if the cell has one, bias if it was given."""
    state: list[np.ndarray]
    """One (B, H) array per state of the cell."""


@dataclass(frozen=True)
class Plan:
    """The tables kernels need for one cell, input width, unit count and dtype; see `elman.kernels.scan`."""

    width: int
    padded: int
    early: int
    groups: np.ndarray
    panels: np.ndarray
    packed: int
    x_gates: np.ndarray
    h_gates: np.ndarray
    x_rows: tuple[int, int]
    h_rows: tuple[int, int]
    operand: int


@lru_cache(maxsize=256)
def _plan(cell: Cell, inputs: int, units: int, dtype: np.dtype) -> Plan:
    width = lanes(dtype)
    block = -(-units // width)
    padded = block * width
    groups, panels, offset = [], [], 0
    for g in sorted(cell.groups, key=lambda g: g.late):
        kx, kh = inputs * g.has_input, units * g.has_recurrent
        groups.append((g.first, g.count, kx, kh, offset))
        for q in range(0, g.count * block, VECTORS):
            count = min(VECTORS, g.count * block - q)
            panels.append((g.first * block + q, count, kx, kh, int(g.late), offset + q * width * (kx + kh)))
        offset += g.count * padded * (kx + kh)
    late = int(cell.late is not None)

    def by_row(rows: tuple[int, ...]) -> np.ndarray:
        table = np.full(cell.rows, -1, np.int64)
        table[list(rows)] = np.arange(len(rows))
        return table

    return Plan(
        width=width,
        padded=padded,
        early=len(groups) - late,
        groups=np.array(groups, np.int64),
        panels=np.array(panels, np.int64),
        packed=offset,
        x_gates=by_row(cell.x),
        h_gates=by_row(cell.h),
        x_rows=(min(cell.x), len(cell.x)),
        h_rows=(min(cell.h, default=0), len(cell.h) - late),
        operand=-1 if cell.operand is None else cell.operand,
    )


@lru_cache(maxsize=256)
def _row_bounds(batch: int, threads: int, most: int) -> np.ndarray:
    """Bounds of the shards: at least one per thread, at most `most` rows each, whole tiles where possible."""
    rows = -(-batch // threads)
    rows = -(-rows // -(-rows // most))
    step = ROWS if rows >= ROWS else 4 if rows > 2 else 1
    rows = -(-rows // step) * step
    return np.append(np.arange(0, batch, rows), batch).astype(np.int64)


@lru_cache(maxsize=256)
def _balanced(plan_key: tuple, threads: int) -> tuple[np.ndarray, np.ndarray]:
    """Panels in an order, and bounds in it, that give every thread the same work (longest first)."""
    panels = _plan(*plan_key).panels
    cost = (panels[:, 2] + panels[:, 3] + 4) * panels[:, 1]
    load, mine = [0] * threads, [[] for _ in range(threads)]
    for i in np.argsort(-cost, kind="stable"):
        t = load.index(min(load))
        load[t] += int(cost[i])
        mine[t].append(int(i))
    order = [i for part in mine for i in part]
    return panels[order], np.cumsum([0, *map(len, mine)]).astype(np.int64)


def _located(array: np.ndarray) -> tuple[Any, tuple[int, int, int]]:
    """Address and strides in elements of a (B, T, .) array."""
    a, b, c = array.strides
    size = array.itemsize
    return address(array), (a // size, b // size, c // size)


class _Frame:
    """The arrays of one call shape, cut once out of a recurrence's memory: 20 requests for memory cost 20 us a step."""

    def __init__(self, owner: Recurrence, batch: int, steps: int, *, training: bool, sequences: bool) -> None:
        plan, cell, take, dtype = owner.plan, owner.cell, owner.buffers.take, owner.dtype
        n = batch * plan.padded
        recurrent = owner.units * bool(cell.h)
        flops = 2 * batch * steps * (owner.inputs + recurrent) * owner.units * cell.gates
        self.parallel = flops > _PARALLEL_FLOPS
        # Weights that fit the second-level cache are cheap to read again; smaller shards then keep a step's rows in the
        # first-level cache. Larger weights are streamed once per shard and step, so a shard takes all rows of a thread.
        self.most_rows = 32 if plan.packed * dtype.itemsize <= 1 << 18 else 1 << 30
        self.pack_parallel = plan.packed > 1 << 16
        self.w, self.sums = take("w", (plan.packed,), dtype), take("bias", (cell.rows, plan.padded), dtype)
        self.s = take("s", (steps + 1 if training else 2, cell.states, n), dtype)
        self.z = take("z", (steps if training else 1, cell.rows, n), dtype)
        self.y = take("y", (batch, 0 if training or not sequences else steps, owner.units), dtype)
        # No reference back to the owner: a cycle would keep the buffers alive until the cyclic collector runs.
        self._backward: dict[tuple[int, bool], tuple] = {}
        self._shape = batch, steps
        by_unit = (*self.s.shape[:2], batch, plan.padded)
        states = self.s.reshape(by_unit)[..., : owner.units]
        self.initial = [states[0, k] for k in range(cell.states)]
        self.last = [states[steps % len(states), k] for k in range(cell.states)]
        self.outputs = states[1:, 0].transpose(1, 0, 2) if training else self.y
        self.version = owner.buffers.version

    def backward_arrays(self, owner: Recurrence, threads: int, *, input_gradient: bool) -> tuple:
        """d, dx, rt, wt, panel, sums, time block; per thread count, as the last three depend on it."""
        found = self._backward.get((threads, input_gradient))
        if found is None:
            found = self._backward[threads, input_gradient] = self._make_backward(owner, threads, input_gradient)
            self.version = owner.buffers.version
        return found

    def _make_backward(self, owner: Recurrence, threads: int, input_gradient: bool) -> tuple:
        batch, steps = self._shape
        plan, cell, take, dtype = owner.plan, owner.cell, owner.buffers.take, owner.dtype
        columns = cell.gates * owner.units
        padded_inputs = -(-owner.inputs // plan.width) * plan.width if input_gradient else 0
        d = take("d", (2, cell.states, self.z.shape[2]), dtype)
        dx = take("dx", (steps, batch, padded_inputs), dtype)
        rt = take("rt", (plan.padded * columns * bool(cell.h),), dtype)
        wt = take("wt", (padded_inputs * columns,), dtype)
        rows = scan.STEP_ROWS if owner.inputs + owner.units <= _BLOCKED_ROWS else scan.STEP_ROWS // 2
        time_block = max(1, rows // batch)
        width = VECTORS * plan.width
        panel = take("panel", (threads * min(steps, time_block) * min(batch, scan.STEP_ROWS) * width,), dtype)
        sums = take("sums", (threads * _CHUNK * (owner.inputs + owner.units + 1) * width,), dtype)
        by_unit = d.reshape(*d.shape[:2], batch, plan.padded)[..., : owner.units]
        d_last = [by_unit[0, k] for k in range(cell.states)]
        d_initial = [by_unit[steps % 2, k] for k in range(cell.states)]
        return d, d_last, d_initial, dx, rt, wt, panel, sums, time_block


class Recurrence:
    """One cell with fixed sizes and activations, and the memory of its calls.

    The fast inner part of `recurrent` and of the layers: arguments are trusted. Arrays must have `dtype`; parameters
    must be C-contiguous and writable.
    """

    def __init__(
        self, cell: Cell, inputs: int, units: int, dtype: np.dtype, activation: str, recurrent_activation: str
    ) -> None:
        self.cell, self.inputs, self.units, self.dtype = cell, inputs, units, np.dtype(dtype)
        self.key = (cell, inputs, units, self.dtype)
        self.plan = _plan(*self.key)
        self.buffers = Buffers()
        self.h_order = self.plan.h_gates[self.plan.h_gates >= 0]
        self.x_order = self.plan.x_gates[self.plan.x_gates >= 0]
        self._functions = cell.compiled(activation, recurrent_activation)
        self._frames: dict[tuple, _Frame] = {}
        self._handles: dict[bool, tuple] = {}

    def handles(self, *, backward: bool) -> tuple:
        """Addresses of the cell's function, of its late function, and of the product."""
        found = self._handles.get(backward)
        if found is None:
            f = self._functions
            cell, late = (f.backward, f.late_backward) if backward else (f.forward, f.late_forward)
            # A cell without a late row passes its only function in both places; the second is never called.
            found = tuple(k.handle(self.dtype) for k in (cell, late or cell, multiply))
            self._handles[backward] = found
        return found

    def _frame(self, batch: int, steps: int, *, training: bool, sequences: bool) -> _Frame:
        key = batch, steps, training, sequences
        frame = self._frames.get(key)
        if frame is None or frame.version != self.buffers.version:
            # Frames of outgrown memory would keep it alive.
            self._frames = {k: f for k, f in self._frames.items() if f.version == self.buffers.version}
            if len(self._frames) >= _MOST_FRAMES:
                self._frames.clear()
            frame = self._frames[key] = _Frame(self, batch, steps, training=training, sequences=sequences)
        return frame

    def forward(
        self,
        x: np.ndarray,
        parameters: Sequence[np.ndarray],
        state: Sequence[np.ndarray] | None,
        *,
        training: bool,
        sequences: bool,
    ) -> Tape:
        """Run all steps over x (B, T, I), any strides; `state` is one (B, H) array per state, or None for zeros."""
        plan = self.plan
        batch, steps, _ = x.shape
        frame = self._frame(batch, steps, training=training, sequences=sequences)
        threads = usable_threads() if frame.parallel else 1
        kernel, recurrent, bias = parameters
        pack(
            threads if frame.pack_parallel else 1,
            threads, plan.panels, kernel, recurrent, plan.x_gates, plan.h_gates, bias, frame.sums, self.units,
            plan.width, frame.w,
        )  # fmt: skip
        frame.s[0] = 0
        if state is not None:
            for target, value in zip(frame.initial, state, strict=True):
                target[...] = value
        bounds = _row_bounds(batch, threads, frame.most_rows)
        place = _located(x)
        scan.forward(
            min(threads, len(bounds) - 1), bounds, *self.handles(backward=False), *place, steps, frame.w, frame.sums,
            plan.groups, plan.early, plan.operand, self.units, plan.width, frame.s, frame.z, frame.y,
        )  # fmt: skip
        return Tape(self, x, place, parameters, frame)


class Tape:
    """What the forward pass of a recurrence kept for its backward pass.

    Returned by `recurrent`; not made by users.

    Attributes
    ----------
    outputs : ndarray of shape (B, T, H)
        Outputs h of all steps; a view of memory the next call may reuse.
    state : list of ndarray of shape (B, H)
        The states after the last step, views likewise.
    go_backwards : bool
        True if the input was read from its end: `backward` then turns the gradient of x round once more.
    """

    go_backwards = False

    def __init__(
        self, recurrence: Recurrence, x: np.ndarray, place: tuple, parameters: Sequence[np.ndarray], frame: _Frame
    ) -> None:
        self._recurrence, self._x, self._place, self._parameters, self._frame = recurrence, x, place, parameters, frame
        self.outputs, self.state = frame.outputs, frame.last
        self._used = False

    def backward(
        self,
        d_outputs: np.ndarray | None = None,
        d_state: Sequence[np.ndarray | None] | None = None,
        *,
        input_gradient: bool = True,
    ) -> Gradients:
        """Gradients by backpropagation through time; consumes the tape.

        Parameters
        ----------
        d_outputs : ndarray of shape (B, T, H), optional
            Gradient of the loss with respect to `outputs`.
        d_state : sequence of ndarray of shape (B, H) or None, optional
            Gradient with respect to each of the last states.
        input_gradient : bool
            False saves the product that gives the gradient of x.

        Returns
        -------
        Gradients

        Raises
        ------
        ValueError
            If a shape does not fit, or if the tape was used already: its buffers now hold the gate gradients.
        """
        r = self._recurrence
        batch, steps, _ = self._x.shape
        if self._used:
            raise ValueError("tape: backward() was called before; run the forward pass again")
        if d_outputs is not None:
            d_outputs = checks.shaped("d_outputs", d_outputs, (batch, steps, r.units), r.dtype)
        states = [None] * r.cell.states if d_state is None else list(d_state)
        if len(states) != r.cell.states:
            raise ValueError(f"d_state: expected {r.cell.states} arrays, one per state, got {len(states)}")
        states = [
            v if v is None else checks.shaped(f"d_state[{k}]", v, (batch, r.units), r.dtype)
            for k, v in enumerate(states)
        ]
        gradients = [np.empty(p.shape, r.dtype) for p in self._parameters]
        dx, d_initial = self.run_backward(d_outputs, states, gradients, input_gradient=input_gradient)
        kernel, recurrent, bias = gradients
        parameters = [
            kernel,
            *([recurrent] if r.cell.h else []),
            *([bias if r.cell.recurrent_bias else bias[0]] if bias.size else []),
        ]
        if dx is not None:
            dx = (dx[:, ::-1] if self.go_backwards else dx).copy()
        return Gradients(dx, parameters, [g.copy() for g in d_initial])

    def run_backward(
        self,
        d_outputs: np.ndarray | None,
        d_state: Sequence[np.ndarray | None],
        gradients: Sequence[np.ndarray],
        *,
        input_gradient: bool,
    ) -> tuple[np.ndarray | None, list[np.ndarray]]:
        """`backward` without checks or copies: writes `gradients`, returns views of dx and d_state."""
        self._used = True
        r, frame, x = self._recurrence, self._frame, self._x
        plan, s, z = r.plan, frame.s, frame.z
        threads = usable_threads() if frame.parallel else 1
        d, d_last, d_initial, dx, rt, wt, panel, sums, time_block = frame.backward_arrays(
            r, threads, input_gradient=input_gradient
        )
        kernel, recurrent, _ = self._parameters
        pack_threads = threads if frame.pack_parallel else 1
        if recurrent.size:
            pack_transposed(pack_threads, threads, recurrent, r.h_order, r.units, plan.width, rt)
        if input_gradient:
            pack_transposed(pack_threads, threads, kernel, r.x_order, r.units, plan.width, wt)
        d[0] = 0
        for target, value in zip(d_last, d_state, strict=True):
            if value is not None:
                target[...] = value
        # Without a gradient of the outputs the kernel reads no step of it; any address will do.
        outputs, output_steps = (self._place, 0) if d_outputs is None else (_located(d_outputs), x.shape[1])
        bounds = _row_bounds(len(x), threads, frame.most_rows)
        scan.backward(
            min(threads, len(bounds) - 1), bounds, *r.handles(backward=True), plan.padded, s,
            *outputs, output_steps, rt, wt,
            plan.x_rows, plan.h_rows, plan.operand, r.units, plan.width, z, d, dx,
        )  # fmt: skip
        tasks, bounds = _balanced(r.key, threads)
        scan.weight_gradients(
            threads, bounds, tasks, _CHUNK, r.handles(backward=True)[2], *self._place, plan.padded, s, z, plan.operand,
            r.units, plan.width, plan.x_gates, plan.h_gates, time_block, panel, sums, *gradients,
        )  # fmt: skip
        return (dx.transpose(1, 0, 2)[:, :, : r.inputs] if input_gradient else None), d_initial
