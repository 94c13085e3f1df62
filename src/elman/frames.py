"""The arrays of one call shape of a recurrence."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from elman.kernels import weights
from elman.kernels.simd import VECTORS, address

# Below this many floating-point operations a kernel call runs serially: a parallel launch costs 2 to 14 us, in which
# one core does about 2 million.
_PARALLEL_FLOPS = 2_000_000


def located(array: np.ndarray) -> tuple[Any, tuple[int, int, int]]:
    """Address and strides in elements of a (B, T, .) array."""
    a, b, c = array.strides
    size = array.itemsize
    return address(array), (a // size, b // size, c // size)


class Noise(NamedTuple):
    """Which noise takes rows of s of its own."""

    dropped: bool = False
    """Recurrent dropout: one row."""
    zoned: bool = False
    """Zoneout: as many as there are states."""


class Frame:
    """The arrays of one call shape, cut once out of a recurrence's memory: 20 requests for memory cost 20 us a step."""

    def __init__(self, owner: Any, batch: int, steps: int, *, training: bool, sequences: bool, noise: Noise) -> None:
        plan, cell, take, dtype = owner.plan, owner.cell, owner.buffers.take, owner.dtype
        n = batch * plan.padded
        recurrent = owner.units * bool(cell.h)
        flops = 2 * batch * steps * (owner.inputs + recurrent) * owner.units * cell.gates
        self.parallel = flops > _PARALLEL_FLOPS
        # Weights that fit the second-level cache are cheap to read again; smaller shards then keep a step's rows in the
        # first-level cache. Larger weights are streamed once per shard and step, so a shard takes all rows of a thread.
        self.most_rows = 32 if plan.packed * dtype.itemsize <= 1 << 18 else 1 << 30
        self.pack_parallel = plan.packed > 1 << 16
        self.w, self.bias = take("w", (plan.packed,), dtype), take("bias", (cell.rows, plan.padded), dtype)
        rows = cell.states * (1 + noise.zoned) + noise.dropped
        self.s = take("s", (steps + 1 if training else 2, rows, n), dtype)
        self.z = take("z", (steps if training else 1, cell.rows, n), dtype)
        self.y = take("y", (batch, 0 if training or not sequences else steps, owner.units), dtype)
        self.u = take("u", (len(cell.unit_weights), n), dtype)
        self.drop = take("drop", (n if noise.dropped else 0,), dtype)
        # No reference back to the owner: a cycle would keep the buffers alive until the cyclic collector runs.
        self._backward: dict[tuple[int, bool], tuple] = {}
        self.batch, self.steps, self.padded = batch, steps, plan.padded
        states = self.s.reshape(*self.s.shape[:2], batch, plan.padded)[..., : owner.units]
        self.states = states
        self.initial = [states[0, k] for k in range(cell.states)]
        self.last = [states[steps % len(states), k] for k in range(cell.states)]
        self.outputs = states[1:, 0].transpose(1, 0, 2) if training else self.y
        self.version = owner.buffers.version

    def spread(self, target: np.ndarray, values: np.ndarray, units: int) -> None:
        """Write values per unit, broadcast to (k, B, H), to the flat rows of `target`, 0 in the padding."""
        by_unit = target.reshape(-1, self.batch, self.padded)
        by_unit[..., units:] = 0
        by_unit[..., :units] = values

    def backward_arrays(self, owner: Any, threads: int, *, input_gradient: bool) -> tuple:
        """d, dx, rt, wt, panel, time block; per thread count, as the panel depends on it."""
        found = self._backward.get((threads, input_gradient))
        if found is None:
            found = self._backward[threads, input_gradient] = self._make_backward(owner, threads, input_gradient)
            self.version = owner.buffers.version
        return found

    def _make_backward(self, owner: Any, threads: int, input_gradient: bool) -> tuple:
        batch, steps = self.batch, self.steps
        plan, cell, take, dtype = owner.plan, owner.cell, owner.buffers.take, owner.dtype
        columns = cell.gates * owner.units
        padded_inputs = -(-owner.inputs // plan.width) * plan.width if input_gradient else 0
        # One more slot and row than there are states: scratch for masks and dropout.
        d = take("d", (3, cell.states + 1, self.z.shape[2]), dtype)
        dx = take("dx", (steps, batch, padded_inputs), dtype)
        rt = take("rt", (plan.padded * columns * bool(cell.h),), dtype)
        wt = take("wt", (padded_inputs * columns,), dtype)
        du = take("du", self.u.shape, dtype)
        time_block = owner.time_block(batch)
        panel_rows = min(steps, time_block) * min(batch, weights.STEP_ROWS)
        panel = take("panel", (threads * panel_rows * VECTORS * plan.width,), dtype)
        sums = take("sums", (plan.sums,), dtype)
        by_unit = d.reshape(*d.shape[:2], batch, plan.padded)[..., : owner.units]
        return d, by_unit, dx, rt, wt, du, panel, sums, time_block
