"""Vectors for token numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from elman import checks, constraints, initializers, regularizers
from elman.errors import BadValue
from elman.kernels.embedding import COLUMNS, TOKENS, gather, scatter
from elman.layers.base import Layer, Shape
from elman.parameters import Spec
from elman.threads import usable_threads

# Below this size a parallel launch (2 to 14 us) costs more than it saves; an element takes an estimated 0.2 ns.
_PARALLEL_SIZE = 100_000
# Tokens checked at a time, so that a memory map stays one.
_CHECKED = 1 << 20


class Lookup:
    """Rows of one table by number, with what the gradient of the table needs to know of the last training batch."""

    def __init__(self) -> None:
        self._touched = self.ids = np.empty(0, np.int64)

    def rows(
        self, table: np.ndarray, tokens: np.ndarray, refuse: Callable[[int], None]
    ) -> tuple[np.ndarray, np.ndarray]:
        """``table[tokens]``, (tokens.size, E), and the tokens as integers, which become `ids` in training.

        Calls `refuse` with the place of the first token that has no row.
        """
        tokens = np.require(tokens, table.dtype, "CW").reshape(-1)
        ids, bad = np.empty(tokens.size, np.int64), np.empty(-(-tokens.size // TOKENS), np.int64)
        y = np.empty((tokens.size, table.shape[1]), table.dtype)
        threads = usable_threads() if y.size > _PARALLEL_SIZE else 1
        gather(threads, tokens, table, table.dtype.type(len(table)), ids, bad, y)
        if bad.max() >= 0:
            refuse(int(bad[bad >= 0][0]))
        return y, ids

    def backward(self, dy: np.ndarray, gradient: np.ndarray) -> None:
        """Sum dy (..., E) into the rows of the last training batch, and clear those of the one before."""
        width = gradient.shape[1]
        flat = np.require(dy, None, "CW").reshape(-1, width)
        threads = usable_threads() if flat.size > _PARALLEL_SIZE and width > COLUMNS else 1
        scatter(threads, self._touched, self.ids, flat, gradient)
        self._touched = self.ids


def first_wrong(x: np.ndarray, input_dim: int) -> tuple[int, ...] | None:
    """Index of the first element of x (N, ...) that is no integer from 0 to `input_dim` - 1; None if all are.

    Examples
    --------
    >>> first_wrong(np.array([[0.0, 2.0], [1.5, 3.0]]), 3)
    (1, 0)
    """
    rows = max(1, _CHECKED // max(1, x[:1].size))
    for start in range(0, len(x), rows):
        part = x[start : start + rows]
        whole = part.dtype.kind != "f" or (part == part.round()).all()
        if whole and part.min() >= 0 and part.max() < input_dim:
            continue
        bad = (part < 0) | (part >= input_dim) | (part != np.round(part))
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        return (first[0] + start, *first[1:])
    return None


def check_exact(argument: str, input_dim: int, dtype: np.dtype) -> None:
    """ValueError if `dtype` does not hold every number below `input_dim`."""
    exact = 2 ** (np.finfo(dtype).nmant + 1)
    if input_dim > exact:
        raise BadValue(
            f"{argument}: {dtype} holds every integer only up to {exact}, got {input_dim}; use dtype='float64'"
        )


@dataclass(eq=False)
class Embedding(Layer):
    """Row `k` of a table in place of token number `k`.

    Parameters
    ----------
    input_dim : int
        Size of the vocabulary: tokens are integers from 0 to ``input_dim - 1``, with the 0 of `mask_zero` counted. At
        most 2**24 in a float32 model, where larger integers would merge.
    output_dim : int
        E, the length of a vector.
    embeddings_initializer : str, dict or initializer
        "uniform" is uniform on [-0.05, 0.05); for others see `elman.initializers`.
    embeddings_regularizer : str, dict, Regularizer or None
        Penalty of the whole table; see `elman.regularizers`.
    embeddings_constraint : str, dict, Constraint or None
        Projection after each update; see `elman.constraints`.
    mask_zero : bool
        Token 0 is padding: its steps are masked in the layers that follow.
    weights : array_like of shape (input_dim, output_dim), optional
        Initial values in place of the initializer's; frozen with ``trainable=False``. They are no part of the
        configuration: `get_config` gives None, and a saved model has the parameters themselves.
    name : str, optional
    trainable : bool

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range, `weights` has another shape or a value that is not finite. On a call: if a token
        is no integer or outside the vocabulary; the message has its place and value, and nothing is changed.

    Notes
    -----
    Input (T,) or (); output (T, E) or (E,). Weights: embeddings (input_dim, E). The gradient is summed into the rows
    of the tokens that occurred, in the order of the tokens; no other row is touched.

    Examples
    --------
    >>> import elman
    >>> layer = elman.layers.Embedding(3, 2, weights=[[0, 0], [1, 2], [3, 4]])
    >>> layer([[2, 1, 2]]).tolist()
    [[[3.0, 4.0], [1.0, 2.0], [3.0, 4.0]]]
    """

    streams = True

    input_dim: int
    output_dim: int
    embeddings_initializer: Any = field(default="uniform", kw_only=True)
    embeddings_regularizer: Any = field(default=None, kw_only=True)
    embeddings_constraint: Any = field(default=None, kw_only=True)
    mask_zero: bool = field(default=False, kw_only=True)
    weights: Any = field(default=None, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.input_dim = checks.integer("input_dim", self.input_dim)
        self.output_dim = checks.integer("output_dim", self.output_dim)
        self.embeddings_initializer = initializers.get(self.embeddings_initializer)
        self.embeddings_regularizer = regularizers.get(self.embeddings_regularizer, "embeddings_regularizer")
        self.embeddings_constraint = constraints.get(self.embeddings_constraint, "embeddings_constraint")
        self.mask_zero = checks.flag("mask_zero", self.mask_zero)
        if self.weights is not None:
            values = checks.numeric("weights", self.weights)
            self.weights = self._checked_weights(values, checks.working_dtype(values))

    def _checked_weights(self, values: np.ndarray, dtype: np.dtype) -> np.ndarray:
        return np.array(checks.shaped("weights", values, (self.input_dim, self.output_dim), dtype))

    def get_config(self) -> dict[str, Any]:
        """The configuration as JSON values, without `weights`."""
        given, self.weights = self.weights, None
        try:
            return super().get_config()
        finally:
            self.weights = given

    def __reduce__(self) -> tuple[Any, ...]:
        # Once built, the parameters are what matters.
        return super().__reduce__() if self.shape is not None else (*super().__reduce__(), {"weights": self.weights})

    def compute_output_shape(self, shape: Shape) -> Shape:
        """An axis of E more."""
        if len(shape) > 1:
            raise BadValue(f"layer {self.name or 'Embedding'}: takes token numbers, (time,) or (), got {shape}")
        return (*shape, self.output_dim)

    def _free_shape(self, shape: Shape) -> Shape:
        return (None,) * len(shape) if len(shape) == 1 else shape

    def specs(self, shape: Shape) -> list[Spec]:
        """The table."""
        initializer = self.embeddings_initializer
        if self.weights is not None:
            initializer = lambda shape, dtype, rng: self._checked_weights(self.weights, dtype)
        options = self.embeddings_regularizer, self.embeddings_constraint, self.trainable
        return [Spec("embeddings", (self.input_dim, self.output_dim), initializer, *options)]

    def prepare(self, shape: Shape, dtype: np.dtype) -> None:
        """Check that the tokens are numbers of `dtype`."""
        check_exact("input_dim", self.input_dim, dtype)
        self._lookup = Lookup()

    def check_values(self, argument: str, x: np.ndarray) -> None:
        """ValueError with the first element of x that is no token number."""
        index = first_wrong(x, self.input_dim)
        if index is not None:
            raise BadValue(
                f"{argument}: expected token numbers, integers from 0 to {self.input_dim - 1} "
                f"(input_dim={self.input_dim}), got {x[index]} at index {index}"
            )

    def forward(self, x: np.ndarray, *, training: bool) -> np.ndarray:
        """(B,) to (B, E) or (B, T) to (B, T, E)."""
        y, ids = self._lookup.rows(self.parameters[0], x, lambda place: self._refuse(x, place))
        if training:
            self._lookup.ids = ids
        return y.reshape(*x.shape, self.output_dim)

    def _refuse(self, x: np.ndarray, place: int) -> None:
        """ValueError that names the token at a place of the flattened x."""
        index = tuple(int(i) for i in np.unravel_index(place, x.shape))
        raise BadValue(
            f"layer {self.name or 'Embedding'}: expected token numbers, integers from 0 to {self.input_dim - 1} "
            f"(input_dim={self.input_dim}), got {x[index]:.17g} at index {index} of the batch"
        )

    def backward(self, dy: np.ndarray, *, input_gradient: bool) -> np.ndarray | None:
        """Gradient of the rows that occurred. That of the tokens is 0."""
        gradient = self.gradients[0]
        if self.embeddings_regularizer is not None:  # its gradient reaches every row
            gradient[...] = 0
        self._lookup.backward(dy, gradient)
        return np.zeros(dy.shape[:-1], dy.dtype) if input_gradient else None

    def output_mask(self, x: np.ndarray) -> np.ndarray | None:
        """With `mask_zero` the steps whose token is not 0, of those that the input's mask has."""
        if not self.mask_zero or x.ndim != 2:
            return self.mask
        return x != 0 if self.mask is None else (x != 0) & self.mask

    @property
    def masks(self) -> bool:  # type: ignore[override]
        """Whether id 0 is padding."""
        return self.mask_zero
