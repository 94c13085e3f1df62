"""A recurrent forecaster over segments of a series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from elman import checks, initializers
from elman.cells import Cell
from elman.errors import BadType, BadValue
from elman.kernels.random import dropout
from elman.layers.base import Layer, Shape, Views
from elman.layers.dense import Dense
from elman.layers.noise import dropout_rate
from elman.layers.recurrent import RNN
from elman.parameters import Spec
from elman.threads import usable_threads

# Below this size a parallel launch (2 to 14 us) costs more than it saves; an element takes an estimated 0.5 ns.
_PARALLEL_SIZE = 50_000

MOST_LAYERS = 1000
"""Layers upon each other; each is made at once, whatever its size, so that a slip of the keyboard would never end."""


@dataclass(eq=False)
class SegmentRNN(Layer):
    """Forecasts `horizon` steps at once: a recurrent network that reads and writes segments in place of steps.

    S. Lin, W. Lin, W. Wu, F. Zhao, R. Mo, H. Zhang, SegRNN: Segment recurrent neural network for long-term time series
    forecasting (2023), for any cell and number of layers, with columns whose future is known and constant ones.

    Parameters
    ----------
    units : int
        H, the width of segments and states.
    horizon : int
        Steps to forecast.
    segment : int
        Steps that make one step of the recurrence.
    outputs : int
        Values per step of the forecast, such as the parameters of a distribution.
    cell : str or Cell
        As in `RNN`.
    layers : int
        Recurrent layers, one upon the other, at most 1,000.
    known : sequence of int
        Columns whose values are known over the forecast too, such as the calendar.
    static : sequence of int
        Columns that are constant; they are read at the last step of the past.
    activation, recurrent_activation : str or None
        Of the cell, as in `RNN`.
    kernel_initializer, recurrent_initializer, bias_initializer : str, dict or initializer
        The first of all kernels but the recurrent ones, the last of all biases.
    dropout : float
        Fraction of the units set to 0 before the last map in training, in [0, 1), the rest scaled up.
    seed : int, optional
        Of the dropout masks; by default they follow from the model's seed.
    name : str, optional
    trainable : bool

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or an unknown name, a column stands twice or not in the input, all are static,
        or a sequence is shorter than a segment and the horizon.

    Notes
    -----
    Input (L + horizon, F), any L >= segment: L steps of the past, then `horizon` steps of which only the columns
    `known` are read. Output (horizon, outputs).

    The encoder reads the last L // segment whole segments of the past, all columns but the static ones: each becomes
    a vector by ``relu(x K + b)``, and the recurrent layers run over the vectors. The decoder runs the same layers, with
    the same weights, one step further from their last states, once for each of the S = ceil(horizon / segment) segments
    of the forecast. What tells segment j apart is its input: a vector p_j, plus the known columns of its steps times a
    kernel (0 behind the horizon), plus the static columns times another. A last map ``h K + b`` gives the steps.

    Weights: embedding/kernel (segment * F', H) for F' columns that are not static, embedding/bias; those of each layer
    as in `RNN`, cell/..., cell_1/...; known/kernel (segment * known, H) and static/kernel (static, H), where there are
    such columns; output/kernel (H, segment * outputs), output/bias; position (S, H), the vectors p_j.

    A step that a mask excludes counts as zeros in all columns; a segment of such steps alone leaves the states as they
    are. The mask of the output is that of the forecast's steps.

    Examples
    --------
    >>> import numpy as np
    >>> import elman
    >>> x = np.random.default_rng(0).normal(size=(2, 48 + 24, 3))
    >>> elman.layers.SegmentRNN(8, horizon=24, segment=12, known=[1, 2])(x).shape
    (2, 24, 1)
    """

    ends_together = True

    units: int
    horizon: int
    segment: int
    outputs: int = field(default=1, kw_only=True)
    cell: str | Cell = field(default="gru", kw_only=True)
    layers: int = field(default=1, kw_only=True)
    known: Sequence[int] = field(default=(), kw_only=True)
    static: Sequence[int] = field(default=(), kw_only=True)
    activation: str | None = field(default="tanh", kw_only=True)
    recurrent_activation: str | None = field(default="sigmoid", kw_only=True)
    kernel_initializer: Any = field(default="glorot_uniform", kw_only=True)
    recurrent_initializer: Any = field(default="orthogonal", kw_only=True)
    bias_initializer: Any = field(default="zeros", kw_only=True)
    dropout: float = field(default=0.0, kw_only=True)
    seed: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.layers = checks.integer("layers", self.layers, 1, MOST_LAYERS)
        for option in ("units", "horizon", "segment", "outputs"):
            setattr(self, option, checks.integer(option, getattr(self, option)))
        for option in ("known", "static"):
            setattr(self, option, _columns(option, getattr(self, option)))
        both = sorted({*self.known} & {*self.static})
        if both:
            raise BadValue(f"static: columns {both} are named by known too; expected each in one of them")
        for option in ("kernel_initializer", "recurrent_initializer", "bias_initializer"):
            setattr(self, option, initializers.get(getattr(self, option)))
        self.dropout = dropout_rate("dropout", self.dropout)
        self.seed = self.seed if self.seed is None else checks.integer("seed", self.seed, 0)
        options = {"kernel_initializer": self.kernel_initializer, "bias_initializer": self.bias_initializer}
        self._embedding = Dense(self.units, "relu", **options)
        self._known, self._static = (Dense(self.units, use_bias=False, **options) for _ in range(2))
        self._head = Dense(self.segment * self.outputs, **options)
        options |= {"recurrent_initializer": self.recurrent_initializer, "cell": self.cell}
        options |= {"recurrent_activation": self.recurrent_activation}
        # The same weights in two roles, each with memory of its own.
        self._encoder = [
            RNN(self.units, self.activation, return_sequences=k < self.layers - 1, **options)
            for k in range(self.layers)
        ]
        self._decoder = [RNN(self.units, self.activation, **options) for _ in range(self.layers)]
        self.activation = self._encoder[0].activation
        self.recurrent_activation = self._encoder[0].recurrent_activation

    @property
    def _segments(self) -> int:
        return -(-self.horizon // self.segment)

    # ---- building

    def compute_output_shape(self, shape: Shape) -> Shape:
        """(L + horizon, F) to (horizon, outputs)."""
        name = self.name or "SegmentRNN"
        if len(shape) != 2 or shape[1] is None:
            raise BadValue(f"layer {name}: takes (time, features), got {shape}")
        if shape[0] is not None and shape[0] < self.horizon + self.segment:
            raise BadValue(
                f"layer {name}: needs at least {self.horizon + self.segment} steps, a segment of {self.segment} and "
                f"the horizon of {self.horizon}, got {shape[0]}"
            )
        for option in ("known", "static"):
            highest = max(getattr(self, option), default=-1)
            if highest >= shape[1]:
                raise BadValue(f"layer {name}: {option} names column {highest}, but the input has {shape[1]}")
        if len(self.static) == shape[1]:
            raise BadValue(f"layer {name}: static names all {shape[1]} columns, nothing is left for the segments")
        return (self.horizon, self.outputs)

    def _parts(self, features: int) -> list[tuple[str, Layer, Shape]]:
        """Layers with weights: their prefix, and the shape of their input."""
        width = self.segment * (features - len(self.static))
        cells = [(f"cell_{k}" if k else "cell", cell, (None, self.units)) for k, cell in enumerate(self._encoder)]
        parts = [("embedding", self._embedding, (None, width)), *cells]
        if self.known:
            parts.append(("known", self._known, (None, self.segment * len(self.known))))
        if self.static:
            parts.append(("static", self._static, (len(self.static),)))
        return [*parts, ("output", self._head, (self.units,))]

    def specs(self, shape: Shape) -> list[Spec]:
        """Those of the parts, and the vectors of the positions."""
        specs = [
            spec._replace(name=f"{prefix}/{spec.name}", trainable=self.trainable)
            for prefix, part, wanted in self._parts(shape[1])
            for spec in part.specs(wanted)
        ]
        uniform = initializers.get("uniform")
        return [*specs, Spec("position", (self._segments, self.units), uniform, trainable=self.trainable)]

    def build(self, shape: Shape, dtype: np.dtype, views: Views) -> Shape:
        """Bind each part to its arrays; the decoder's gradients are apart until they are added."""
        arrays = views()
        used = 0
        for _, part, wanted in self._parts(shape[1]):
            own = slice(used, used + len(part.specs(wanted)))
            part.build(wanted, dtype, lambda own=own: (arrays[0][own], arrays[1][own]))
            used = own.stop
        for part, shared in zip(self._decoder, self._encoder, strict=True):
            gradients = [np.zeros_like(g) for g in shared.gradients]
            part.build((1, self.units), dtype, lambda p=shared.parameters, g=gradients: (p, g))
        self._read = [k for k in range(shape[1]) if k not in self.static]
        return super().build(shape, dtype, lambda: arrays)

    # ---- arithmetic

    def forward(self, x: np.ndarray, *, training: bool) -> np.ndarray:
        """(B, L + horizon, F) to (B, horizon, outputs)."""
        self.compute_output_shape(x.shape[1:])
        self._x_shape = x.shape
        self._used = self.mask
        if self.mask is not None:
            x = np.where(self.mask[..., None], x, x.dtype.type(0))
        self._encode(x, training=training)
        h = self._inputs(x, training=training)
        for coder, decoder in zip(self._encoder, self._decoder, strict=True):
            decoder.carry = [np.repeat(s, self._segments, axis=0) for s in coder._tape.state]
            h = decoder.forward(h[:, None], training=training)
        if training and self.dropout:
            self._drawn = self.key if self.seed is None else self.seed, self.draw
            h = self._drop(h)
        y = self._head.forward(h, training=training)
        return y.reshape(len(x), self._segments * self.segment, self.outputs)[:, : self.horizon]

    def _encode(self, x: np.ndarray, *, training: bool) -> None:
        """The recurrent layers over the segments of the past."""
        past = x.shape[1] - self.horizon
        count = past // self.segment
        begin = past - count * self.segment
        columns = x[:, begin:past, self._read] if self.static else x[:, begin:past]
        h = self._embedding.forward(columns.reshape(len(x), count, -1), training=training)
        mask: Any = None
        if self.mask is not None:
            mask = self.mask[:, begin:past].reshape(len(x), count, self.segment).any(axis=2)
        for part in self._encoder:
            part.mask = mask
            h = part.forward(h, training=training)

    def _inputs(self, x: np.ndarray, *, training: bool) -> np.ndarray:
        """What the decoder reads, (B * S, H): a row per segment of the forecast."""
        batch, past = len(x), x.shape[1] - self.horizon
        u = np.empty((batch, self._segments, self.units), x.dtype)
        u[...] = self.parameters[-1]
        if self.known:
            future = np.zeros((batch, self._segments * self.segment, len(self.known)), x.dtype)
            future[:, : self.horizon] = x[:, past:, list(self.known)]
            u += self._known.forward(future.reshape(batch, self._segments, -1), training=training)
        if self.static:
            u += self._static.forward(x[:, past - 1, list(self.static)], training=training)[:, None]
        return u.reshape(-1, self.units)

    def _drop(self, h: np.ndarray) -> np.ndarray:
        threads = usable_threads() if h.size > _PARALLEL_SIZE else 1
        return dropout(*self._drawn, self.dropout, np.require(h, None, "CW"), threads)

    def backward(self, dy: np.ndarray, *, input_gradient: bool) -> np.ndarray | None:
        """Gradients of all parts; those of the cells are the sums over encoder and decoder."""
        batch = len(dy)
        whole = np.zeros((batch, self._segments * self.segment, self.outputs), dy.dtype)
        whole[:, : self.horizon] = dy
        dh = self._head.backward(whole.reshape(batch * self._segments, -1), input_gradient=True)
        if self.dropout:
            dh = self._drop(dh)
        states = []
        for part in self._decoder[::-1]:
            dh = part.backward_through_time(dh, input_gradient=True)[:, 0]
            d_initial = part._tape.state_gradients()
            states.append([d.reshape(batch, self._segments, self.units).sum(axis=1) for d in d_initial])
        dx = np.zeros(self._x_shape, dy.dtype) if input_gradient else None
        self._backward_inputs(dh.reshape(batch, self._segments, self.units), dx)
        self._backward_encoder(states, dx)
        if dx is not None and self._used is not None:
            dx *= self._used[..., None]
        return dx

    def _backward_inputs(self, du: np.ndarray, dx: np.ndarray | None) -> None:
        """Gradients of what the decoder read."""
        wanted, past = dx is not None, self._x_shape[1] - self.horizon
        np.add.reduce(du, axis=0, out=self.gradients[-1])
        if self.known:
            future = self._known.backward(du, input_gradient=wanted)
            if wanted:
                future = future.reshape(len(du), -1, len(self.known))
                dx[:, past:, list(self.known)] = future[:, : self.horizon]
        if self.static:
            constant = self._static.backward(du.sum(axis=1), input_gradient=wanted)
            if wanted:
                dx[:, past - 1, list(self.static)] = constant

    def _backward_encoder(self, states: list[list[np.ndarray]], dx: np.ndarray | None) -> None:
        """Backpropagation through the segments of the past, from the gradients of the last states."""
        dh = None
        for part, other, d_state in zip(self._encoder[::-1], self._decoder[::-1], states, strict=True):
            dh = part._tape.run_backward(dh, d_state, part._targets, input_gradient=True)
            for gradient, more in zip(part.gradients, other.gradients, strict=True):
                gradient += more
        d_columns = self._embedding.backward(dh, input_gradient=dx is not None)
        if dx is not None:
            past = self._x_shape[1] - self.horizon
            d_columns = d_columns.reshape(len(dx), -1, len(self._read))
            dx[:, past - d_columns.shape[1] : past, self._read] = d_columns

    def output_mask(self, x: np.ndarray) -> np.ndarray | None:
        """That of the forecast's steps."""
        return None if self.mask is None else self.mask[:, -self.horizon :]


def _columns(argument: str, given: Any) -> tuple[int, ...]:
    """Different column numbers, checked."""
    if not isinstance(given, (tuple, list)):
        raise BadType(f"{argument}: expected a sequence of column numbers, got {type(given).__name__} {given!r}")
    columns = tuple(checks.integer(argument, c, 0) for c in given)
    if len(set(columns)) != len(columns):
        raise BadValue(f"{argument}: expected each column once, got {list(columns)}")
    return columns
