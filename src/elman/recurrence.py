"""One recurrence with its memory: forward, to a tape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from elman import checks
from elman.cells import Cell
from elman.errors import BadValue
from elman.frames import Frame, Noise, Ready, located
from elman.jit.calls import Call, Calls
from elman.kernels import scan, skips, units, weights
from elman.kernels.matmul import multiply_units, pack, pack_shard, product
from elman.memory import Buffers
from elman.plans import band_rows, equal_panels, make_plan, packed_panels
from elman.tape import Tape
from elman.threads import usable_threads

# Rows of the weights (I + H) up to which 256 rows (t, b) of x and h stay in the second-level cache; above it 128 do.
_BLOCKED_ROWS = 384
# Weight gradients: from this many units (padded) and panels per thread on x and h are packed, once for all panels that
# a thread has of a part of the batch; otherwise a few panels at a time share a block that is read where it lies.
_PACKED_UNITS, _PACKED_PANELS = 128, 6

_MOST_FRAMES = 8
_NO_NOISE = Noise()


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
        self.plan = make_plan(*self.key)
        # What a step that a sequence does not use takes, as a part of one that it uses: its states are carried, 8 to 30
        # ns. Measured on Zen 4: Elman net of 16 units 0.5, of 128 0.05; GRU and LSTM of 16 units 0.2, of 128 0.02.
        self.idle = min(1.0, 8 / (cell.gates * units))
        self.buffers = Buffers()
        self.h_order = self.plan.h_gates[self.plan.h_gates >= 0]
        self.x_order = self.plan.x_gates[self.plan.x_gates >= 0]
        self._functions = cell.compiled(activation, recurrent_activation)
        self._frames: dict[tuple[Any, ...], Frame] = {}
        self._handles: dict[bool, tuple[Any, ...]] = {}
        self._none = np.empty((0, 0, units), self.dtype)

    def handles(self, batch: int, *, backward: bool) -> tuple[Any, ...]:
        """Addresses of the cell's function, of its late function, and of the product."""
        found = self._handles.get(backward)
        if found is None:
            f = self._functions
            cell, late = (f.backward, f.late_backward) if backward else (f.forward, f.late_forward)
            # A cell without a late row passes its only function in both places; the second is never called.
            found = self._handles[backward] = tuple(k.handle(self.dtype) for k in (cell, late or cell))
        return *found, product(self.dtype, batch)

    def time_block(self, batch: int) -> int:
        """Steps whose weight gradients are summed together."""
        rows = weights.STEP_ROWS if self.inputs + self.units <= _BLOCKED_ROWS else weights.STEP_ROWS // 2
        return max(1, rows // band_rows(batch))

    def packs_features(self, batch: int, threads: int) -> bool:
        """Whether x and h are packed for the weight gradients; a matter of speed alone."""
        panels = len(self.plan.panels)
        return self.plan.padded >= _PACKED_UNITS and min(1, self.plan.parts(batch) / threads) * panels >= _PACKED_PANELS

    def segment(self, batch: int, steps: int, checkpoint: int | str | None) -> int:
        """Steps between two stored states: `checkpoint` or sqrt(T), in whole blocks of the weight gradients; at most T.

        Segments must begin where blocks do, or sums would be made in another order.
        """
        if checkpoint is None:
            return steps
        interval = int(np.ceil(np.sqrt(steps))) if checkpoint == "sqrt" else int(checkpoint)
        block = self.time_block(batch)
        return min(steps, -(-interval // block) * block)

    def _frame(self, batch: int, steps: int, *, training: bool, sequences: bool, noise: Noise) -> Frame:
        key = batch, steps, training, sequences, noise
        frame = self._frames.get(key)
        if frame is None or frame.version != self.buffers.version:
            # Frames of outgrown memory would keep it alive.
            self._frames = {k: f for k, f in self._frames.items() if f.version == self.buffers.version}
            if len(self._frames) >= _MOST_FRAMES:
                self._frames.clear()
            frame = self._frames[key] = Frame(self, batch, steps, training=training, sequences=sequences, noise=noise)
        return frame

    def forward(
        self,
        x: np.ndarray,
        parameters: Sequence[np.ndarray],
        state: Sequence[np.ndarray] | None,
        *,
        training: bool,
        sequences: bool,
        mask: np.ndarray | None = None,
        drop: np.ndarray | None = None,
        zoneout: np.ndarray | None = None,
        checkpoint: int | str | None = None,
    ) -> Tape:
        """Run all steps over x (B, T, I), any strides.

        `state` is one (B, H) array per state, or None for zeros; `mask` (T, B) uint8, contiguous; `drop` (B, H) the
        factors of recurrent dropout; `zoneout` what `elman.kernels.random.zoneout` gave, drawn in training. With a
        `checkpoint` training keeps the states at the ends of segments alone.
        """
        batch, steps, _ = x.shape
        segment = self.segment(batch, steps, checkpoint) if training and checkpoint is not None else steps
        noise = _NO_NOISE if drop is zoneout is None else Noise(drop is not None, zoneout is not None)
        frame = self._frame(batch, segment, training=training, sequences=sequences, noise=noise)
        most = usable_threads()
        crew = frame.crew(self.plan, most) if mask is None and noise is _NO_NOISE else None
        threads = most if frame.parallel or (crew is not None and crew.size > 1) else 1
        tape = Tape(self, x, parameters, frame, mask, threads, crew)
        unit_weights = parameters[3]
        fresh = state is None
        tape.plain = fresh and mask is None and noise is _NO_NOISE and segment == steps and not unit_weights.size
        if tape.plain:
            self._run_plain(frame, tape, parameters)
            return tape
        Calls(self._packing(frame, tape, parameters))()
        if unit_weights.size:
            frame.spread(frame.u, unit_weights)
        if drop is not None:
            frame.drop[...] = 0
            frame.put(frame.drop, drop)
        if state is not None:
            for k, value in enumerate(state):
                frame.put(frame.s[:, 0, k], value)
        if zoneout is not None:
            tape.zone = zoneout.copy()
            tape.zone[2] = training
        if segment < steps:
            tape.run_segments(segment, fresh=fresh, sequences=sequences)
        else:
            self.run(frame, tape, 0, steps, frame.slots, frame.y, fresh=fresh)
        return tape

    def _run_plain(self, frame: Frame, tape: Tape, parameters: Sequence[np.ndarray]) -> None:
        """Where nothing but numbers may differ from the last call of this frame."""
        ready, places = frame.ready, (tape.place, tape.threads, tape.crew)
        if ready is None or not ready.fits(places, parameters, None):
            steps = self._scan(frame, tape, 0, tape.steps, frame.slots, frame.y, fresh=True)
            calls = Calls(self._packing(frame, tape, parameters), steps)
            ready = frame.ready = Ready(places, parameters, None, calls)
        ready.calls()

    def run(
        self, frame: Frame, tape: Tape, begin: int, end: int, slots: tuple[int, int], y: np.ndarray, *, fresh: bool
    ) -> None:
        """Steps `begin` to `end` of a tape, from zeros or the state in ``s[:, 0]``, in so many slots of s and z.

        `y` gets the last outputs of the tape, as many as it has steps.
        """
        if tape.zone.size:
            tape.zone[1] = begin  # for the backward pass too, before which a segment is run again
        Calls(self._scan(frame, tape, begin, end, slots, y, fresh=fresh))()

    def _packing(self, frame: Frame, tape: Tape, parameters: Sequence[np.ndarray]) -> Call:
        plan = self.plan
        panels = packed_panels(self.key, 1 if tape.crew is None else tape.crew.size)
        kernel, recurrent, bias, _ = parameters
        packers = tape.launched(tape.threads) if frame.pack_parallel else 1
        return pack, packers, (
            equal_panels(len(panels), packers), pack_shard.handle(self.dtype), panels, kernel, recurrent,
            plan.x_gates, plan.h_gates, bias, frame.bias, self.units, plan.width, frame.w,
        )  # fmt: skip

    def _scan(
        self, frame: Frame, tape: Tape, begin: int, end: int, slots: tuple[int, int], y: np.ndarray, *, fresh: bool
    ) -> Call:
        plan, place, (mask, gaps, _) = self.plan, tape.place, tape.masks
        if end - begin < tape.steps:
            place, mask, gaps = located(tape.x[:, begin:end]), mask[begin:end], gaps[begin:end]
        cell, late, product_ = self.handles(frame.batch, backward=False)
        if tape.crew is not None:
            crew = tape.crew
            return units.forward, tape.launched(crew.size), (
                crew.pieces, units.forward_shard.handle(self.dtype), crew.meeting, crew.patience, cell, late,
                multiply_units.handle(self.dtype) if crew.size > 1 else product_, *place, end - begin, slots,
                frame.w, frame.bias, plan.groups, plan.early, plan.operand, self.units, plan.width, fresh, frame.u,
                frame.s, frame.z, y, begin - (tape.steps - y.shape[1]),
            )  # fmt: skip
        return scan.forward, tape.launched(min(tape.threads, len(tape.pieces))), (
            tape.pieces, frame.most_rows,
            scan.forward_shard.handle(self.dtype), cell, late, product_,
            skips.forward_addresses(mask.size > 0, tape.zone.size > 0, self.dtype), *place,
            end - begin, slots, frame.w, frame.bias, plan.groups, plan.early, plan.operand, self.units, plan.width,
            mask, gaps, frame.drop, tape.zone, frame.batch, fresh, frame.u, frame.s, frame.z, y,
            begin - (tape.steps - y.shape[1]),
        )  # fmt: skip


def checked_interval(checkpoint: Any) -> int | str | None:
    """`checkpoint` as None, "sqrt" or a positive integer; TypeError or ValueError otherwise."""
    if checkpoint is None or checks.named(checkpoint, "sqrt"):
        return checkpoint
    if isinstance(checkpoint, str):
        raise BadValue(f"checkpoint: expected None, 'sqrt' or a number of steps, got {checkpoint!r}")
    return checks.integer("checkpoint", checkpoint)
