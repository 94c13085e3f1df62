"""A stack of layers as one arena and one table, which `elman.kernels.stream` runs step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from elman.jit import DISABLED
from elman.kernels import stream
from elman.kernels.elementwise import activation_functions, softmax_function
from elman.kernels.matmul import pack, pack_shard, product
from elman.kernels.normalization import forward_function
from elman.kernels.pointwise import ACTIVATIONS
from elman.kernels.simd import address, lanes
from elman.layers import (
    GRU,
    LSTM,
    RNN,
    Activation,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    GaussianNoise,
    Layer,
    LayerNormalization,
    Masking,
    SimpleRNN,
    SpatialDropout1D,
    TimeDistributed,
)
from elman.memory import aligned
from elman.plans import equal_panels, packed_panels
from elman.recurrence import Recurrence

# Weights times sequences from which on a step lets other threads of Python run: it then takes some 20 us, and to take
# the GIL up again may cost more.
_RELEASE = 1_000_000


class _Rows(NamedTuple):
    """B rows in the arena: where the first begins, the distance between two, and how many elements of one are used."""

    place: int
    stride: int
    width: int


class Packed:
    """The arena of a stack, with its weights, and the table of its parts.

    Attributes
    ----------
    step, place : callable, address
        ``step(x, place)`` of `elman.kernels.stream.step_function`.
    y : ndarray of shape (B, O)
        Where the output goes.
    states : list of list of ndarray of shape (B, H)
        The live states of every recurrent layer.
    initial : list of ndarray of shape (states, H) or None
        What they begin with, where it was learned.
    """

    def __init__(self, layers: Sequence[Layer], batch: int, dtype: np.dtype) -> None:
        self._batch, self._dtype, self._lanes = batch, dtype, lanes(dtype)
        self._size = self._work = 0
        self._parts: list[stream.Part] = []
        self._groups: list[list[tuple[int, ...]]] = []  # of every part
        self._reals: list[float] = []
        # Called with this object, not bound to it: a cycle would keep the arena until the cyclic collector runs.
        self._readers: list[Callable[[Packed], None]] = []
        self._state_rows: list[tuple[_Rows, int]] = []
        first = layers[0]
        tokens = isinstance(first, Embedding)
        inputs = first.input_dim if isinstance(first, Embedding) else first.shape[-1]
        x = _Rows(self._reserve(0 if tokens else batch * inputs), inputs, inputs)
        rows = x
        for layer in layers:
            rows = self._add(layer, rows)
        y = self._reserve(batch * rows.width)
        self._arena = aligned(self._size, dtype)
        self._arena[:] = 0
        self._real_array = np.array(self._reals or [0.0])
        self.y = self._arena[y : y + batch * rows.width].reshape(batch, rows.width)
        self.states = [
            [self._view(at._replace(place=at.place + k * batch * at.stride)) for k in range(count)]
            for at, count in self._state_rows
        ]
        self.initial: list[np.ndarray | None] = [None] * len(self.states)
        self._make_table(inputs, x, rows, y)
        self.step = stream.step_function(dtype, tokens=tokens, release=self._work > _RELEASE)
        self.read()

    @staticmethod
    def takes(layers: Sequence[Layer]) -> bool:
        """Whether every layer has a part here."""
        masked = any(layer.masks for layer in layers)

        def known(k: int, layer: Layer) -> bool:
            if type(layer) is TimeDistributed:
                return type(layer.layer) in _EACH and len(layer.shape) == 2
            if type(layer) is Embedding:
                return k == 0
            if type(layer) is Flatten:
                return len(layer.shape) == 1
            if isinstance(layer, RNN) and masked and layer.zero_output_for_mask and layer.return_sequences:
                return False
            return type(layer) in _ADD

        return all(known(k, layer) for k, layer in enumerate(layers))

    def read(self) -> None:
        """Copy the weights of the layers."""
        for reader in self._readers:
            reader(self)

    # ---- memory

    def _reserve(self, size: int) -> int:
        """The place of that many elements, at a cache line."""
        place, line = self._size, 64 // self._dtype.itemsize
        self._size += -(-size // line) * line
        return place

    def _new_rows(self, width: int) -> _Rows:
        stride = -(-width // self._lanes) * self._lanes
        return _Rows(self._reserve(self._batch * stride), stride, width)

    def _view(self, rows: _Rows) -> np.ndarray:
        flat = self._arena[rows.place : rows.place + self._batch * rows.stride]
        return flat.reshape(self._batch, rows.stride)[:, : rows.width]

    def _constant(self, size: int, source: Callable[[], Any]) -> int:
        """The place of a vector that every `read` takes from `source`."""
        place = self._reserve(size)

        def read(self: Packed) -> None:
            self._arena[place : place + size] = np.ravel(source())

        self._readers.append(read)
        return place

    def _make_table(self, inputs: int, x: _Rows, last: _Rows, y: int) -> None:
        free = len(stream.HEAD) + stream.WORDS * len(self._parts)
        parts: list[int] = []
        groups: list[int] = []
        for part, own in zip(self._parts, self._groups, strict=True):
            parts += part._replace(groups=free + len(groups))
            groups += [word for group in own for word in group]
        ids = free + len(groups)
        head = stream.Head(
            arena=address(self._arena),
            reals=address(self._real_array),
            run=stream.run.handle(self._dtype),
            multiply=product(self._dtype, self._batch),
            lanes=self._lanes,
            parts=len(self._parts),
            batch=self._batch,
            inputs=inputs,
            x=x.place,
            ids=ids,
            used=ids + self._batch,
            y=y,
            outputs=last.width,
            y_source=last.place,
            y_stride=last.stride,
        )
        words = [*head, *parts, *groups, *[0] * (2 * self._batch)]
        self._words = words if DISABLED else np.array(words, np.int64)
        self.place = address(self._words)

    # ---- parts

    def _add(self, layer: Layer, rows: _Rows) -> _Rows:
        """Append what `layer` does to `rows`; returns where its output is."""
        return _ADD[type(layer)](self, layer, rows)

    def _append(
        self, kind: int, source: _Rows, target: _Rows, groups: Sequence[tuple[int, ...]] = (), **more: Any
    ) -> _Rows:
        self._parts.append(stream.Part(kind, *source, *target, **more))
        self._groups.append(list(groups))
        return target

    def _cell(self, recurrence: Recurrence, arguments: Sequence[np.ndarray], rows: _Rows, **more: Any) -> _Rows:
        """A recurrence with the weights `arguments`; with ``kept`` its output is the state it keeps, else a new one."""
        cell, plan, units = recurrence.cell, recurrence.plan, recurrence.units
        function, late, _ = recurrence.handles(self._batch, backward=False)
        n = self._batch * plan.padded
        new = self._reserve(cell.states * n)
        kept = more.get("kept", 0)
        state = self._reserve(cell.states * n) if kept else new
        weights, bias = self._reserve(plan.packed), self._reserve(cell.rows * plan.padded)
        per_unit = self._reserve(len(cell.unit_weights) * n)

        def read(self: Packed) -> None:
            kernel, recurrent, biases, unit_weights = arguments
            sums = self._arena[bias : bias + cell.rows * plan.padded].reshape(cell.rows, plan.padded)
            # The panels of the whole library, as the product takes them.
            panels = packed_panels(recurrence.key)
            pack(
                1, equal_panels(len(panels), 1), pack_shard.handle(recurrence.dtype), panels, kernel, recurrent,
                plan.x_gates, plan.h_gates, biases, sums, units, plan.width,
                self._arena[weights : weights + plan.packed],
            )  # fmt: skip
            spread = self._arena[per_unit : per_unit + len(cell.unit_weights) * n]
            spread.reshape(-1, self._batch, plan.padded)[..., :units] = unit_weights[:, None]

        self._readers.append(read)
        self._work += self._batch * plan.packed
        return self._append(
            stream.CELL,
            rows,
            _Rows(state, plan.padded, units),
            plan.groups.tolist(),
            function=function,
            weights=weights,
            bias=bias,
            late=late,
            padded=plan.padded,
            rows=cell.rows,
            states=cell.states,
            state=state,
            new=new,
            z=self._reserve(cell.rows * n),
            per_unit=per_unit,
            per_unit_rows=len(cell.unit_weights),
            early=plan.early,
            late_groups=len(plan.groups) - plan.early,
            operand=plan.operand,
            **more,
        )

    def _recurrent(self, layer: RNN, rows: _Rows) -> _Rows:
        states, zone = layer._cell().states, layer._zone(0)
        more = {"kept": states}
        if zone is not None:
            rates = [np.float64(limit) * 2.0**-64 for limit in zone[3:]]
            more["zone"] = self._constant(2 * states, lambda: [[rate, 1 - rate] for rate in rates])
        out = self._cell(layer._recurrence, layer._arguments, rows, **more)
        self._state_rows.append((out, states))
        if layer.learn_initial_state:
            k = len(self._state_rows) - 1

            def read(self: Packed) -> None:
                self.initial[k] = layer.parameters[-1].copy()

            self._readers.append(read)
        return out

    def _dense(self, layer: Dense, rows: _Rows) -> _Rows:
        out = self._cell(layer._map, layer._arguments, rows)
        return self._softmax(out) if layer.activation == "softmax" else out

    def _softmax(self, rows: _Rows) -> _Rows:
        function = softmax_function.handle(self._dtype)
        return self._append(stream.SOFTMAX, rows, self._new_rows(rows.width), function=function)

    def _activation(self, layer: Activation, rows: _Rows) -> _Rows:
        if layer.activation == "softmax":
            return self._softmax(rows)
        function = activation_functions(ACTIVATIONS[layer.activation])[0].handle(self._dtype)
        return self._append(stream.ELEMENTWISE, rows, self._new_rows(rows.width), function=function)

    def _normalization(self, layer: LayerNormalization, rows: _Rows) -> _Rows:
        reals = len(self._reals)
        self._reals += [layer.epsilon, 0.0, 0.0]
        return self._append(
            stream.NORM,
            rows,
            self._new_rows(rows.width),
            function=forward_function.handle(self._dtype),
            weights=self._constant(rows.width, lambda: layer._gamma),
            bias=self._constant(rows.width, lambda: layer._beta),
            reals=reals,
        )

    def _embedding(self, layer: Embedding, rows: _Rows) -> _Rows:
        table = self._constant(layer.input_dim * layer.output_dim, lambda: layer.parameters[0])
        kind = stream.LOOKUP_MASKED if layer.mask_zero else stream.LOOKUP
        return self._append(kind, rows, self._new_rows(layer.output_dim), weights=table)

    def _masking(self, layer: Masking, rows: _Rows) -> _Rows:
        return self._append(stream.MASK, rows, rows, weights=self._constant(1, lambda: layer.mask_value))

    def _inner(self, layer: TimeDistributed, rows: _Rows) -> _Rows:
        return self._add(layer.layer, rows)

    def _nothing(self, layer: Layer, rows: _Rows) -> _Rows:
        return rows


_ADD: dict[type[Layer], Callable[[Packed, Any, _Rows], _Rows]] = {
    **dict.fromkeys((RNN, SimpleRNN, LSTM, GRU), Packed._recurrent),
    **dict.fromkeys((Dropout, SpatialDropout1D, GaussianNoise, Flatten), Packed._nothing),
    Dense: Packed._dense,
    Activation: Packed._activation,
    LayerNormalization: Packed._normalization,
    Embedding: Packed._embedding,
    Masking: Packed._masking,
    TimeDistributed: Packed._inner,
}
# Layers that may stand in a TimeDistributed.
_EACH = (Activation, Dense, Dropout, GaussianNoise, LayerNormalization)
