"""What the forward pass of a recurrence keeps, and the way from there back to gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from elman import checks
from elman.errors import BadValue
from elman.frames import Frame, Ready, Scratch, located
from elman.jit.calls import Call, Calls
from elman.kernels import scan, skips, units, weights
from elman.kernels.matmul import multiply, pack_transposed, transposed_shard
from elman.kernels.meeting import Crew
from elman.kernels.simd import VECTORS
from elman.plans import equal_items, equal_panels, equal_pieces, shared
from elman.threads import usable_threads

# Panels whose weight gradients are summed together where x and h are read where they lie.
_CHUNK = 4
# So many sums of weight gradients are added up and handed over in one thread.
_COLLECTED_ALONE = 1 << 18

_NO_MASK: tuple[np.ndarray, ...] = (np.empty((0, 0), np.uint8),) * 3
_NO_NORMS = np.empty((0, 0))
_NO_ZONE = np.empty(0, np.uint64)


class Gradients(NamedTuple):
    """Gradients of one call of `recurrent`, each in the shape of what it belongs to."""

    x: np.ndarray | None
    """(B, T, I), or None if it was not asked for."""
    parameters: list[np.ndarray]
    """kernel (I, G), recurrent kernel (H, G) if the cell has one, bias if it was given, weights per unit if it has."""
    state: list[np.ndarray]
    """One (B, H) array per state of the cell."""


class Tape:
    """What the forward pass of a recurrence kept for its backward pass.

    Returned by `recurrent`; not made by users.

    Attributes
    ----------
    outputs : ndarray of shape (B, T, H)
        Outputs h of all steps, or (B, 1, H) of the last one; memory that the next call may reuse.
    go_backwards : bool
        True if the input was read from its end: `backward` then turns the gradient of x round once more.
    """

    go_backwards = False
    plain = False  # whether nothing but numbers can differ from one call of this shape to the next
    zone = _NO_ZONE

    def __init__(
        self,
        recurrence: Any,
        x: np.ndarray,
        parameters: Sequence[np.ndarray],
        frame: Frame,
        mask: np.ndarray | None,
        threads: int,
        crew: Crew | None,
    ) -> None:
        self.crew = crew
        self._recurrence, self.x, self._parameters, self._frame = recurrence, x, parameters, frame
        self.place, self.steps, self.threads = located(x), x.shape[1], threads
        self.outputs = frame.y
        self._checkpoints: np.ndarray | None = None
        self._used = False
        if mask is None:
            self.masks, self.pieces = _NO_MASK, equal_pieces(len(x), threads)
            self._items: np.ndarray | None = None
        else:
            shares = shared(mask, threads, recurrence.time_block(len(x)), recurrence.idle, recurrence.plan)
            self.masks, self.pieces, self._items = (mask, shares.gaps, shares.read), shares.pieces, shares.items

    @staticmethod
    def launched(threads: int) -> int:
        """So many threads, or one where they may not be launched, in a child that was forked since `forward`.

        The work then is in as many pieces, which the one does.
        """
        return threads if threads == 1 or usable_threads() > 1 else 1

    # ---- segments

    def run_segments(self, segment: int, *, fresh: bool, sequences: bool) -> None:
        """The forward pass that stores a state every `segment` steps, and the outputs if they are wanted."""
        r, frame = self._recurrence, self._frame
        count = -(-self.steps // segment)
        bands, _, _, m = frame.s.shape
        stored = r.buffers.take("checkpoints", (count + 1, bands, r.cell.states, m), r.dtype)
        y = r.buffers.take("y", (len(self.x), self.steps if sequences else 1, r.units), r.dtype)
        frame.version = r.buffers.version
        states = frame.s[:, :, : r.cell.states]
        if fresh:
            states[:, 0] = 0
        stored[0] = states[:, 0]
        for i in range(count):
            begin, end = i * segment, min((i + 1) * segment, self.steps)
            r.run(frame, self, begin, end, (2, 1), y, fresh=False)
            stored[i + 1] = states[:, (end - begin) % 2]
            states[:, 0] = stored[i + 1]
        self._checkpoints, self.outputs = stored, y

    def _segments(self) -> list[tuple[int, int]]:
        length = self._frame.steps
        return [(t, min(t + length, self.steps)) for t in range(0, self.steps, length)]

    def _restore(self, i: int) -> None:
        """Run segment i once more, with everything stored."""
        frame, (begin, end) = self._frame, self._segments()[i]
        frame.s[:, 0, : self._recurrence.cell.states] = self._checkpoints[i]
        self._recurrence.run(frame, self, begin, end, frame.slots, self._recurrence._none, fresh=False)

    @property
    def state(self) -> list[np.ndarray]:
        """The states after the last step, (B, H) each; to be read before the next call."""
        frame, states = self._frame, range(self._recurrence.cell.states)
        if self._checkpoints is not None:
            return [frame.rows(self._checkpoints[-1][:, k]) for k in states]
        slot = self.steps % frame.slots[0]
        return [frame.rows(frame.s[:, slot, k]) for k in states]

    def states_at(self, t: int) -> list[np.ndarray]:
        """The states before step t, 0 to T, (B, H) each; to be called before `backward`."""
        t = checks.integer("t", t, 0, self.steps)
        if self._checkpoints is not None:
            i = min(t // self._frame.steps, len(self._segments()) - 1)
            self._restore(i)
            t -= self._segments()[i][0]
        return [self._frame.rows(self._frame.s[:, t, k]) for k in range(self._recurrence.cell.states)]

    @property
    def held_steps(self) -> int:
        """How many steps memory holds: all, or with checkpoints those of a segment."""
        return self._frame.steps

    def held(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the steps that memory holds: what the cell's forward left in the buffer (T, rows, B, H), and the states.

        The states (T, states, B, H) are those after each step. To be called before `backward`.
        """
        frame = self._frame
        return frame.rows(frame.z), frame.rows(frame.s[:, 1:, : self._recurrence.cell.states])

    # ---- gradients

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
        batch, steps, _ = self.x.shape
        if self._used:
            raise BadValue("tape: backward() was called before; run the forward pass again")
        if d_outputs is not None:
            d_outputs = checks.shaped("d_outputs", d_outputs, (batch, steps, r.units), r.dtype)
        states = [None] * r.cell.states if d_state is None else checks.entries("d_state", d_state)
        if len(states) != r.cell.states:
            raise BadValue(f"d_state: expected {r.cell.states} arrays, one per state, got {len(states)}")
        states = [
            v if v is None else checks.shaped(f"d_state[{k}]", v, (batch, r.units), r.dtype)
            for k, v in enumerate(states)
        ]
        gradients = [np.empty(p.shape, r.dtype) for p in self._parameters]
        dx = self.run_backward(d_outputs, states, gradients, input_gradient=input_gradient)
        kernel, recurrent, bias, unit_weights = gradients
        parameters = [
            kernel,
            *([recurrent] if r.cell.h else []),
            *([bias if r.cell.recurrent_bias else bias[0]] if bias.size else []),
            *([unit_weights] if r.cell.unit_weights else []),
        ]
        if dx is not None:
            dx = (dx[:, ::-1] if self.go_backwards else dx).copy()
        return Gradients(dx, parameters, [g.copy() for g in self.state_gradients()])

    def run_backward(
        self,
        d_outputs: np.ndarray | None,
        d_state: Sequence[np.ndarray | None] | None,
        gradients: Sequence[np.ndarray],
        *,
        input_gradient: bool,
        norms: np.ndarray | None = None,
    ) -> np.ndarray | None:
        """`backward` without checks or copies: writes `gradients`, returns a view of dx.

        `d_outputs` may be (B, 1, H), of the last step alone; `norms` (T, B), float64, gets the length of the gradient
        of h after every step.
        """
        self._used = True
        r, frame = self._recurrence, self._frame
        scratch = frame.scratch(r, self.threads, input_gradient=input_gradient)
        dx = scratch.dx
        if self.plain and d_state is None and norms is None:
            places = (
                self.place,
                self.crew,
                self.launched(self.threads),
                None if d_outputs is None else (located(d_outputs), d_outputs.shape[1]),
            )
            ready = scratch.ready
            if ready is None or not ready.fits(places, self._parameters, gradients):
                run = self._piece(
                    self.place, self.steps, self.masks, d_outputs, dx, _NO_NORMS, scratch, gradients, (True, True),
                    fresh=True,
                )  # fmt: skip
                calls = Calls(*self._packing(scratch, input_gradient=input_gradient), *run)
                ready = scratch.ready = Ready(places, self._parameters, gradients, calls)
            ready.calls()
            now = self.steps % 2
        else:
            Calls(*self._packing(scratch, input_gradient=input_gradient))()
            norms = _NO_NORMS if norms is None else norms
            now, dx = self._backward(d_outputs, d_state, gradients, scratch, norms)
        self._d_initial = scratch.d[:, now]
        return dx.transpose(1, 0, 2)[:, :, : r.inputs] if input_gradient else None

    def _packing(self, scratch: Scratch, *, input_gradient: bool) -> list[Call]:
        """The calls that transpose the weights the gradients run through."""
        r, threads = self._recurrence, self.launched(self.threads) if self._frame.pack_parallel else 1
        width, shard = r.plan.width, transposed_shard.handle(r.dtype)
        kernel, recurrent, _, _ = self._parameters
        used = [(recurrent, r.h_order, scratch.rt)] if recurrent.size else []
        if input_gradient:
            used.append((kernel, r.x_order, scratch.wt))
        pieces = [equal_panels(-(-len(w) // (VECTORS * width)), threads) for w, _, _ in used]
        return [
            (pack_transposed, threads, (mine, shard, w, order, r.units, width, to))
            for mine, (w, order, to) in zip(pieces, used, strict=True)
        ]

    def _backward(
        self, d_outputs: np.ndarray | None, d_state: Sequence[np.ndarray | None] | None,
        gradients: Sequence[np.ndarray], scratch: Scratch, norms: np.ndarray,
    ) -> tuple[int, np.ndarray]:  # fmt: skip
        """All of it that is not plain; the slot of d with the gradients of the first states, and dx."""
        r, frame, d, dx = self._recurrence, self._frame, scratch.d, scratch.dx
        fresh = d_state is None
        if not fresh:
            d[:, 0] = 0
            for k, value in enumerate(d_state):
                if value is not None:
                    frame.put(d[:, 0, k], value)
        if self._checkpoints is None:
            if scratch.du.size:
                scratch.du[...] = 0
            Calls(*self._piece(
                self.place, self.steps, self.masks, d_outputs, dx, norms, scratch, gradients, (True, True), fresh=fresh
            ))()  # fmt: skip
            now = self.steps % 2
        else:
            dx = r.buffers.take("dx", (self.steps, *dx.shape[1:]), r.dtype)
            frame.version = r.buffers.version
            if fresh:
                d[:, 0] = 0
            now = self._pieces(d_outputs, dx, norms, scratch, gradients)
        unit_weights = gradients[3]
        if unit_weights.size:
            np.add.reduce(frame.rows(scratch.du), axis=1, out=unit_weights)
        return now, dx

    def state_gradients(self) -> list[np.ndarray]:
        """Gradients of the states before the first step, (B, H) each; to be read after `run_backward`."""
        return [self._frame.rows(self._d_initial[:, k]) for k in range(self._recurrence.cell.states)]

    def _pieces(
        self, d_outputs: np.ndarray | None, dx: np.ndarray, norms: np.ndarray, scratch: Scratch,
        gradients: Sequence[np.ndarray],
    ) -> int:  # fmt: skip
        """Backward over all segments, from the last to the first, each run forward once more; see `_piece`."""
        segments = self._segments()
        d = scratch.d
        scratch.du[...] = 0
        now = 0
        for i in range(len(segments) - 1, -1, -1):
            begin, end = segments[i]
            if now == 1:
                d[:, 0] = d[:, 1]
            self._restore(i)
            place = located(self.x[:, begin:end])
            *masks, dx_, norms_ = (a[begin:end] if a.size else a for a in (*self.masks, dx, norms))
            # Outputs that have gradients are the last ones; those of this segment among them.
            lead = 0 if d_outputs is None else self.steps - d_outputs.shape[1]
            dy = None if d_outputs is None or end <= lead else d_outputs[:, max(0, begin - lead) : end - lead]
            ends = i == len(segments) - 1, i == 0
            Calls(*self._piece(place, end - begin, masks, dy, dx_, norms_, scratch, gradients, ends, fresh=False))()
            now = (end - begin) % 2
        return now

    def _piece(
        self, place: tuple[Any, ...], steps: int, masks: Sequence[np.ndarray], dy: np.ndarray | None, dx: np.ndarray,
        norms: np.ndarray, scratch: Scratch, gradients: Sequence[np.ndarray], which: tuple[bool, bool], *, fresh: bool,
    ) -> list[Call]:  # fmt: skip
        """The calls of the backward pass over the first `steps` of memory.

        `which` says whether it is the first segment of those of a backward pass, and whether it is the last one.
        Slot ``steps % 2`` of d then holds the gradient of the state before.
        """
        r, frame, threads, a = self._recurrence, self._frame, self.threads, scratch
        plan = r.plan
        through_time = self._through_time(place, steps, masks, dy, dx, norms, scratch, fresh=fresh)
        hidden = r.cell.states if frame.drop.size else 0
        begins, ends = which
        items = equal_items(r.key, frame.batch, threads) if self._items is None else self._items
        of_weights = weights.weight_gradients, self.launched(threads), (
            items, weights.shard.handle(r.dtype), len(plan.panels) if a.packed.size else _CHUNK, plan.panels,
            multiply.handle(r.dtype), *place, steps, frame.batch, plan.padded, frame.s, hidden, frame.z, plan.operand,
            plan.width, masks[2], a.time_block, begins, a.panel, a.packed, a.sums,
        )  # fmt: skip
        if not ends:
            return [through_time, of_weights]
        collectors = self.launched(threads) if a.sums.size > _COLLECTED_ALONE else 1
        handed_over = weights.collect, collectors, (
            equal_panels(len(plan.panels), collectors), weights.collect_shard.handle(r.dtype), plan.panels, plan.width,
            plan.padded, r.units, plan.x_gates, plan.h_gates, a.sums, *gradients[:3],
        )  # fmt: skip
        return [through_time, of_weights, handed_over]

    def _through_time(
        self, place: tuple[Any, ...], steps: int, masks: Sequence[np.ndarray], dy: np.ndarray | None, dx: np.ndarray,
        norms: np.ndarray, scratch: Scratch, *, fresh: bool,
    ) -> Call:  # fmt: skip
        """The call that leaves the gradients of all products in memory."""
        r, frame, a = self._recurrence, self._frame, scratch
        plan = r.plan
        # Without a gradient of the outputs the kernel reads no step of it; any address will do.
        outputs, output_steps = (place, 0) if dy is None else (located(dy), dy.shape[1])
        cell, late, product = r.handles(frame.batch, backward=True)
        common = frame.s, *outputs, output_steps, steps, a.rt, a.wt, plan.x_rows, plan.h_rows, plan.operand, r.units
        if self.crew is not None and norms.size == 0:
            crew = self.crew
            return units.backward, self.launched(crew.size), (
                crew.pieces, units.backward_shard.handle(r.dtype), crew.meeting, crew.patience, cell, late, product,
                plan.padded, *common, plan.width, fresh, frame.u, frame.z, a.d, a.du, dx,
            )  # fmt: skip
        return scan.backward, self.launched(min(self.threads, len(self.pieces))), (
            self.pieces, frame.most_rows, scan.backward_shard.handle(r.dtype), cell, late, product,
            skips.backward_addresses(masks[0].size > 0, self.zone.size > 0, r.dtype), plan.padded, *common,
            plan.width, *masks, frame.drop, self.zone, frame.batch, fresh, frame.u, frame.z, a.d, a.du, dx, norms,
        )  # fmt: skip
