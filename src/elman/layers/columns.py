"""Vectors for columns that hold category numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from elman import checks, initializers
from elman.errors import BadValue
from elman.layers.base import Layer, Shape
from elman.layers.embedding import Lookup, check_exact, first_wrong
from elman.parameters import Spec


class _Column(NamedTuple):
    index: int  # type: ignore[assignment]  # hides the method of tuples
    input_dim: int
    output_dim: int


@dataclass(eq=False)
class EmbedColumns(Layer):
    """Replaces columns of category numbers by vectors, which stand behind the other columns.

    Parameters
    ----------
    columns : sequence of (int, int, int)
        For each such column its index in the input, the number of its categories and the length of their vectors
        ``(index, input_dim, output_dim)``. The vectors are appended in this order.
    embeddings_initializer : str, dict or initializer
        Of every table; see `Embedding`.
    name : str, optional
    trainable : bool

    Raises
    ------
    ValueError, TypeError
        If a column is no such triple, stands twice or not in the input. On a call: if a category is no integer from 0
        to ``input_dim - 1``; the message has its column, place and value, and nothing is changed.

    Notes
    -----
    Input (T, F) or (F,), of floats; output (T, F - k + E) or (F - k + E,) for k columns and E the sum of all
    `output_dim`. Weights: one table (input_dim, output_dim) per column, with gradients as in `Embedding`. That of the
    categories themselves is 0.

    Examples
    --------
    >>> import elman
    >>> layer = elman.layers.EmbedColumns([(0, 3, 2)], embeddings_initializer="ones")
    >>> layer([[2.0, 0.5], [0.0, -1.5]]).tolist()
    [[0.5, 1.0, 1.0], [-1.5, 1.0, 1.0]]
    """

    streams = True

    columns: Sequence[tuple[int, int, int]]
    embeddings_initializer: Any = field(default="uniform", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.columns, (tuple, list)) or not self.columns:
            raise BadValue(
                f"columns: expected at least one triple (index, input_dim, output_dim), got {self.columns!r}"
            )
        self.columns = tuple(_checked(f"columns[{k}]", c) for k, c in enumerate(self.columns))
        indices = [c.index for c in self._columns()]
        if len(set(indices)) != len(indices):
            raise BadValue(f"columns: expected each index once, got {indices}")
        self.embeddings_initializer = initializers.get(self.embeddings_initializer)

    def _columns(self) -> Iterator[_Column]:
        return (_Column(*c) for c in self.columns)

    def compute_output_shape(self, shape: Shape) -> Shape:
        """The last axis without the columns and with their vectors."""
        name = self.name or "EmbedColumns"
        if len(shape) not in (1, 2) or shape[-1] is None:
            raise BadValue(f"layer {name}: takes (features,) or (time, features), got {shape}")
        for k, column in enumerate(self._columns()):
            if column.index >= shape[-1]:
                raise BadValue(f"layer {name}: columns[{k}] names column {column.index}, but the input has {shape[-1]}")
        return (*shape[:-1], shape[-1] + sum(c.output_dim - 1 for c in self._columns()))

    def specs(self, shape: Shape) -> list[Spec]:
        """One table per column."""
        return [
            Spec(
                f"embeddings_{c.index}",
                (c.input_dim, c.output_dim),
                self.embeddings_initializer,
                trainable=self.trainable,
            )
            for c in self._columns()
        ]

    def prepare(self, shape: Shape, dtype: np.dtype) -> None:
        """Find the other columns, and where the vectors go."""
        taken = {c.index for c in self._columns()}
        self._rest = [i for i in range(shape[-1]) if i not in taken]
        ends = np.cumsum([len(self._rest), *(c.output_dim for c in self._columns())]).tolist()
        self._places = [slice(a, b) for a, b in pairwise(ends)]
        self._lookups = []
        for k, column in enumerate(self._columns()):
            check_exact(f"columns[{k}]", column.input_dim, dtype)
            self._lookups.append(Lookup())

    def check_values(self, argument: str, x: np.ndarray) -> None:
        """ValueError with the first element of a column that is no category number."""
        for column in self._columns():
            index = first_wrong(x[..., column.index], column.input_dim)
            if index is not None:
                raise BadValue(f"{argument}: {_wrong(column, x, index)}")

    def forward(self, x: np.ndarray, *, training: bool) -> np.ndarray:
        """(B, F) to (B, O) or (B, T, F) to (B, T, O)."""
        y = np.empty((*x.shape[:-1], self.output_shape[-1]), x.dtype)
        y[..., : len(self._rest)] = x[..., self._rest]
        found = []
        for column, lookup, table, place in zip(
            self._columns(), self._lookups, self.parameters, self._places, strict=True
        ):
            vectors, ids = lookup.rows(table, x[..., column.index], partial(self._refuse, column, x))
            y[..., place] = vectors.reshape(*x.shape[:-1], column.output_dim)
            found.append(ids)
        if training:
            for lookup, ids in zip(self._lookups, found, strict=True):
                lookup.ids = ids
        return y

    def _refuse(self, column: _Column, x: np.ndarray, place: int) -> None:
        """ValueError that names the category at a place of the flattened column."""
        index = tuple(int(i) for i in np.unravel_index(place, x.shape[:-1]))
        raise BadValue(f"layer {self.name or 'EmbedColumns'}: {_wrong(column, x, index)} of the batch")

    def backward(self, dy: np.ndarray, *, input_gradient: bool) -> np.ndarray | None:
        """Gradients of the rows that occurred; that of x is 0 in the columns."""
        for lookup, gradient, place in zip(self._lookups, self.gradients, self._places, strict=True):
            lookup.backward(dy[..., place], gradient)
        if not input_gradient:
            return None
        dx = np.zeros((*dy.shape[:-1], self.shape[-1]), dy.dtype)
        dx[..., self._rest] = dy[..., : len(self._rest)]
        return dx


def _checked(argument: str, given: Any) -> tuple[int, int, int]:
    """A triple of a column, checked."""
    if not isinstance(given, (tuple, list)) or len(given) != 3:
        raise BadValue(f"{argument}: expected (index, input_dim, output_dim), got {given!r}")
    index, size, width = given
    return (
        checks.integer(f"{argument}, index", index, 0),
        checks.integer(f"{argument}, input_dim", size),
        checks.integer(f"{argument}, output_dim", width),
    )


def _wrong(column: _Column, x: np.ndarray, index: tuple[int, ...]) -> str:
    """The message for a category number in a column of x, at an index of the other axes."""
    return (
        f"expected category numbers in column {column.index}, integers from 0 to {column.input_dim - 1}, got "
        f"{x[(*index, column.index)]:.17g} at index {index}"
    )
