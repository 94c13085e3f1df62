"""The arrays of one call shape of a recurrence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from elman import ahead
from elman.jit import DISABLED
from elman.jit.calls import Calls
from elman.kernels.meeting import Crew
from elman.kernels.simd import ROWS, VECTORS, address
from elman.plans import Plan, band_rows
from elman.threads import usable_cores

# Below this many floating-point operations a kernel call runs serially: a parallel launch costs 2 to 14 us, in which
# one core does about 2 million. Two threads over one, training and prediction: LSTM (32,24,1,16), 3.6 million, 0.85 and
# 0.75, GRU, 2.7 million, 0.89 and 0.8; LSTM (16,24,1,16), 1.8 million, 0.88 to 1.4; Elman (16,24,8,32), 1.5 million,
# 1.3.
_PARALLEL_FLOPS = 2_000_000
# The same for one band, whose steps are one thread's: the other one sleeps until the weight gradients, and finds all it
# needs in the first one's cache. Two threads over one: LSTM (1,500,4,24) 1.19, GRU (4,100,8,64) 1.04, (1,500,8,64)
# 1.03, LSTM (1,500,8,64), 24 million operations, 0.99.
_ONE_BAND_FLOPS = 25_000_000
# Operations of a product that take as long as a gate does: 0.3 ns.
_GATE_FLOPS = 40
# What a thread has to do at least in each step of one sequence whose units are shared out, products and gates, in
# training and else. Two threads over one near each other: LSTM(64) (23,000) 0.78 and 0.78, Elman net of 128 units
# (20,000) 0.71 and 0.73, GRU(64) (18,000) 0.85 and 1, or 1.3; Elman net of 96 units (12,000) 0.9 and 0.8, or 1.3.
_SHARE_FLOPS = {True: 17_000, False: 19_000}
# The first thread has patience for what a meeting takes anyway, and two fifths of the time that it would take for what
# the others do; in looks at them, 0.55 ns each, in which one row has so many operations done. It waits, near and far:
# LSTM(64) 360 and 950 looks, of 530; LSTM(128) 580 and 2400, of 1340, where two threads over one take 0.65 and 1.2.
_MEETING_LOOKS, _LOOK_FLOPS = 200, 28


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


class Ready(NamedTuple):
    """Kernel calls to be made again where nothing but numbers has changed since."""

    places: Any
    """Where the arrays lie that come from outside, and what else may differ."""
    parameters: Sequence[np.ndarray]
    gradients: Sequence[np.ndarray] | None
    calls: Calls

    def fits(self, places: Any, parameters: Sequence[np.ndarray], gradients: Sequence[np.ndarray] | None) -> bool:
        """Whether the calls are those for such places and for these very lists."""
        same = parameters is self.parameters and gradients is self.gradients
        return same and not DISABLED and places == self.places  # which are arrays without compilation


@dataclass
class Scratch:
    """What the backward pass works in, with the calls of its last plain run."""

    d: np.ndarray
    dx: np.ndarray
    rt: np.ndarray
    wt: np.ndarray
    du: np.ndarray
    panel: np.ndarray
    packed: np.ndarray
    sums: np.ndarray
    time_block: int
    ready: Ready | None = None


class Frame:
    """The arrays of one call shape, cut once out of a recurrence's memory: 20 requests for memory cost 20 us a step."""

    def __init__(self, owner: Any, batch: int, steps: int, *, training: bool, sequences: bool, noise: Noise) -> None:
        plan, cell, take, dtype = owner.plan, owner.cell, owner.buffers.take, owner.dtype
        self.batch, self.steps, self.units, self.band = batch, steps, owner.units, band_rows(batch)
        bands, m = -(-batch // self.band), self.band * plan.padded
        recurrent = owner.units * bool(cell.h)
        step_flops = owner.units * cell.gates * (2 * (owner.inputs + recurrent) + _GATE_FLOPS)
        flops = batch * steps * step_flops
        self.parallel = flops > (_PARALLEL_FLOPS if bands > 1 else _ONE_BAND_FLOPS)
        # Short sequences are not worth the compilation of two kernels more.
        self.single = batch == 1 and bool(cell.h) and flops > _PARALLEL_FLOPS
        if training:
            ahead.start(dtype, single=self.single)
        most = min(step_flops // _SHARE_FLOPS[training], usable_cores())
        self.most_shares = max(1, most) if cell.elementwise else 1
        self.looks = step_flops // (_LOOK_FLOPS * (1 + (cell.late is not None)))
        self._crews: dict[int, Crew] = {}
        # Weights that fit the second-level cache are cheap to read again; smaller shards then keep a step's rows in the
        # first-level cache. Larger weights are streamed once per shard and step, so a shard takes all rows of a thread.
        small = plan.packed * dtype.itemsize <= 1 << 18
        self.most_rows = max(1, 32 // self.band) * self.band if small else 1 << 30
        self.pack_parallel = plan.packed > 1 << 16
        self.w, self.bias = take("w", (plan.packed,), dtype), take("bias", (cell.rows, plan.padded), dtype)
        rows = cell.states * (1 + noise.zoned) + noise.dropped
        self.slots = (steps + 1, steps) if training else (2, 1)
        self.s = take("s", (bands, self.slots[0], rows, m), dtype)
        self.z = take("z", (bands, self.slots[1], cell.rows, m), dtype)
        self.y = take("y", (batch, steps if sequences else 1, owner.units), dtype)
        self.u = take("u", (bands, len(cell.unit_weights), m), dtype)
        self.drop = take("drop", (bands, m if noise.dropped else 0), dtype)
        # No reference back to the owner: a cycle would keep the buffers alive until the cyclic collector runs.
        self._scratch: dict[tuple[int, bool], Scratch] = {}
        self.ready: Ready | None = None
        self.version = owner.buffers.version

    def crew(self, plan: Plan, threads: int) -> Crew | None:
        """Who does a batch of one long sequence, with that many threads at hand; None for other batches."""
        if not self.single:
            return None
        size = plan.shares(min(threads, self.most_shares))
        crew = self._crews.get(size)
        if crew is None:
            crew = self._crews[size] = Crew(size, _MEETING_LOOKS + 2 * self.looks * (size - 1) // (5 * size))
        return crew if size == 1 or crew.attempt() else self.crew(plan, 1)

    # ---- sequences in bands, and as users know them

    def _banded(self, array: np.ndarray) -> np.ndarray:
        """(bands, ..., m) as (bands, ..., band, H)."""
        return array.reshape(*array.shape[:-1], self.band, -1)[..., : self.units]

    def rows(self, array: np.ndarray) -> np.ndarray:
        """The numbers of all sequences in `array` (bands, ..., m), as (..., B, H): a view of one band, else a copy."""
        by_unit = np.moveaxis(self._banded(array), 0, -3)
        return by_unit.reshape(*by_unit.shape[:-3], -1, self.units)[..., : self.batch, :]

    def put(self, array: np.ndarray, values: np.ndarray) -> None:
        """Write values (B, H), or what broadcasts to it, to `array` (bands, m)."""
        by_unit = self._banded(array)
        if by_unit.shape[0] == 1:
            by_unit[0, : self.batch] = values
            return
        whole = self.batch // self.band
        values = np.broadcast_to(values, (self.batch, self.units))
        by_unit[:whole] = values[: whole * self.band].reshape(whole, self.band, self.units)
        if whole < len(by_unit):
            by_unit[whole, : self.batch - whole * self.band] = values[whole * self.band :]

    def spread(self, target: np.ndarray, values: np.ndarray) -> None:
        """Write values per unit (k, H) to `target` (bands, k, m) for every sequence, 0 in the padding."""
        target[...] = 0
        self._banded(target)[...] = values[:, None]

    # ---- backward

    def scratch(self, owner: Any, threads: int, *, input_gradient: bool) -> Scratch:
        """Memory of the backward pass; per thread count, as the panel depends on it."""
        found = self._scratch.get((threads, input_gradient))
        if found is None:
            found = self._scratch[threads, input_gradient] = self._make_scratch(owner, threads, input_gradient)
            self.version = owner.buffers.version
        return found

    def _make_scratch(self, owner: Any, threads: int, input_gradient: bool) -> Scratch:
        batch, steps = self.batch, self.steps
        plan, cell, take, dtype = owner.plan, owner.cell, owner.buffers.take, owner.dtype
        columns, recurrent = cell.gates * owner.units, owner.units * bool(cell.h)
        padded_inputs = -(-owner.inputs // plan.width) * plan.width if input_gradient else 0
        # One more slot and row than there are states: scratch for masks and dropout.
        d = take("d", (len(self.s), 3, cell.states + 1, self.s.shape[3]), dtype)
        dx = take("dx", (steps, batch, padded_inputs), dtype)
        rt = take("rt", (plan.padded * columns * bool(cell.h),), dtype)
        wt = take("wt", (padded_inputs * columns,), dtype)
        du = take("du", self.u.shape, dtype)
        time_block = owner.time_block(batch)
        panel_rows = min(steps, time_block) * self.band
        panel = take("panel", (threads * panel_rows * VECTORS * plan.width,), dtype)
        features = sum(-(-n // ROWS) * ROWS for n in (owner.inputs, recurrent, recurrent * (cell.late is not None)))
        packs = owner.packs_features(batch, threads)
        packed = take("packed", (threads * panel_rows * features * packs,), dtype)
        sums = take("sums", (plan.parts(batch), plan.sums), dtype)
        return Scratch(d, dx, rt, wt, du, panel, packed, sums, time_block)
