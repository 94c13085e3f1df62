"""The models behind the heads of a forecaster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from elman import checks, initializers
from elman.forecasting.layout import Layout
from elman.layers import RNN, Dense, Dropout, EmbedColumns, Input, Layer, Reshape, SegmentRNN
from elman.layers.base import Shape, deserialize, serialize
from elman.model import Sequential
from elman.parameters import Spec

HEADS = ("direct", "segment", "recursive")


@dataclass(frozen=True)
class Body:
    """What decides the layers of a forecaster's model, beside what it reads."""

    head: str
    cell: Any
    units: int
    layers: int
    dropout: float
    segment: int
    outputs: int
    revin: bool
    channels: int


def make_model(body: Body, layout: Layout, seed: int) -> Sequential:
    """An unfitted model that maps windows of the layout to (H, P), or stepwise ones to (L + H, P)."""
    columns = layout.columns
    coded = [k for k, c in enumerate(columns) if c.categories]
    embedding = [(k, columns[k].categories, _width(columns[k].categories)) for k in coded]
    # Vectors stand behind the numbers, in the order of their codes.
    roles = [c.role for c in columns if not c.categories]
    roles += [columns[k].role for k, _, width in embedding for _ in range(width)]
    inner: list[Layer] = [EmbedColumns(embedding)] if embedding else []
    inner += _head(body, layout, roles)
    if body.revin:
        values = [k for k, c in enumerate(columns) if c.name == "value" or c.role == "lag"]
        group = next((k for k in coded if columns[k].name == "channel"), None)
        inner = [ReversibleNorm(inner, values, group, max(1, body.channels))]
    return Sequential([Input((None if layout.stepwise else steps(body, layout), len(columns))), *inner], seed=seed)


def steps(body: Body, layout: Layout) -> int:
    """Rows of a window that the model reads: those of the past, or of the forecast as well."""
    return layout.lookback + (layout.horizon if reads_future(body, layout) else 0)


def reads_future(body: Body, layout: Layout) -> bool:
    """Whether the model reads columns behind the origin."""
    return body.head != "direct" or any(c.role == "known" for c in layout.columns)


def _width(categories: int) -> int:
    """Length of a category's vector: the half of their number, at most 16."""
    return min(16, (categories + 1) // 2)


def _head(body: Body, layout: Layout, roles: list[str]) -> list[Layer]:
    cells = [
        RNN(
            body.units, cell=body.cell, dropout=body.dropout * (k > 0),
            return_sequences=body.head == "recursive" or k < body.layers - 1,
        )
        for k in range(body.layers)
    ]  # fmt: skip
    drop = [Dropout(body.dropout)] if body.dropout else []
    if body.head == "recursive":
        return [*cells, *drop, Dense(body.outputs)]
    if not reads_future(body, layout):
        shape = (layout.horizon, body.outputs)
        return [*cells, *drop, Dense(layout.horizon * body.outputs), Reshape(shape)]
    ahead = ("lag", "known") if body.head == "segment" else ("known",)
    return [
        SegmentRNN(
            body.units, layout.horizon, body.segment, outputs=body.outputs, cell=body.cell, layers=body.layers,
            known=[k for k, role in enumerate(roles) if role in ahead],
            static=[k for k, role in enumerate(roles) if role == "static"], dropout=body.dropout,
        )
    ]  # fmt: skip


@dataclass(eq=False)
class ReversibleNorm(Layer):
    """A learned scale and shift per channel of what the layers inside read, undone in what they return.

    T. Kim et al., Reversible instance normalization for accurate time-series forecasting against distribution shift,
    ICLR 2022: the affine part; windows come standardised.

    Parameters
    ----------
    layers : list of Layer
    columns : sequence of int
        The columns that are scaled.
    channel : int or None
        The column with the number of the channel; None for one channel.
    channels : int

    Notes
    -----
    Input (T, F), output that of the layers, (H, P). Weights: gain (channels,), bias (channels,), those of the layers.
    """

    layers: list[Any]
    columns: Sequence[int]
    channel: int | None = None
    channels: int = 1
    name: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.layers = [deserialize(part) if isinstance(part, dict) else part for part in self.layers]
        self.columns = tuple(checks.integer("columns", k, 0) for k in self.columns)
        self.channels = checks.integer("channels", self.channels)

    def get_config(self) -> dict[str, Any]:
        """The configuration, the layers described."""
        return {
            "layers": [serialize(part) for part in self.layers], "columns": list(self.columns),
            "channel": self.channel, "channels": self.channels, "name": self.name, "trainable": self.trainable,
        }  # fmt: skip

    def inner(self) -> tuple[Layer, ...]:
        """The layers inside, and what these hold."""
        return tuple(part for layer in self.layers for part in (layer, *layer.inner()))

    def _shapes(self, shape: Shape) -> list[Shape]:
        shapes = [shape]
        for layer in self.layers:
            shapes.append(layer.compute_output_shape(shapes[-1]))
        return shapes

    def compute_output_shape(self, shape: Shape) -> Shape:
        """That of the last layer."""
        return self._shapes(shape)[-1]

    def specs(self, shape: Shape) -> list[Spec]:
        """Gain and bias, then those of the layers."""
        ones, zeros = initializers.get("ones"), initializers.get("zeros")
        own = [Spec("gain", (self.channels,), ones), Spec("bias", (self.channels,), zeros)]
        for k, (layer, s) in enumerate(zip(self.layers, self._shapes(shape)[:-1], strict=True)):
            own += [p._replace(name=f"{k}/{p.name}") for p in layer.specs(s)]
        return own

    def build(self, shape: Shape, dtype: np.dtype, views: Any) -> Shape:
        """Bind the layers to their parts of the arrays."""
        arrays, used = views(), 2
        for layer, s in zip(self.layers, self._shapes(shape)[:-1], strict=True):
            own = slice(used, used + len(layer.specs(s)))
            layer.build(s, dtype, lambda own=own: (arrays[0][own], arrays[1][own]))
            used = own.stop
        return super().build(shape, dtype, lambda: arrays)

    def forward(self, x: np.ndarray, *, training: bool) -> np.ndarray:
        """Scale, run the layers, scale back."""
        self._x, mask = x, self.mask
        self._rows = np.zeros(len(x), np.int64) if self.channel is None else x[:, 0, self.channel].astype(np.int64)
        gain, bias = (p[self._rows][:, None, None] for p in self.parameters[:2])
        h = x.copy()
        h[..., self.columns] = h[..., self.columns] * gain + bias
        for layer in self.layers:
            layer.mask, layer.draw = mask, self.draw
            y = layer.forward(h, training=training)
            mask, h = layer.output_mask(h), y
        self._mask_behind = mask
        self._y = (h - bias) / gain
        return self._y

    def output_mask(self, x: np.ndarray) -> np.ndarray | None:
        """That of the last layer inside."""
        return self._mask_behind

    def backward(self, dy: np.ndarray, *, input_gradient: bool) -> np.ndarray | None:
        """Gradients of gain and bias from both ends."""
        gain = self.parameters[0][self._rows][:, None, None]
        d_gain, d_bias = -(dy * self._y / gain).sum(axis=(1, 2)), -(dy / gain).sum(axis=(1, 2))
        d = dy / gain
        for layer in self.layers[::-1]:
            d = layer.backward(d, input_gradient=True)
        part = d[..., self.columns]
        d_gain += (part * self._x[..., self.columns]).sum(axis=(1, 2))
        d_bias += part.sum(axis=(1, 2))
        for target, values in zip(self.gradients[:2], (d_gain, d_bias), strict=True):
            target[...] = np.bincount(self._rows, values, self.channels)
        if input_gradient:
            d[..., self.columns] = part * gain
        return d if input_gradient else None
