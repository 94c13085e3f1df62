"""Samples checked once, and gathered, ordered by length and converted to the model's dtype batch by batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from elman import checks
from elman.data import Permutation, Windows
from elman.errors import BadType, BadValue
from elman.kernels.elementwise import LARGEST, all_within
from elman.loss import Loss, row_weights
from elman.masks import expanded
from elman.memory import Buffers
from elman.registry import number
from elman.training.batches import Batch

_FINITE_BYTES = 1 << 24

# A permutation of more rows than this is computed as it is needed, not stored: 8 bytes per row.
_STORED_ORDER = 1 << 20


def check_rows(argument: str, array: np.ndarray, dtype: np.dtype) -> None:
    """ValueError if a value of `array` is not finite in `dtype`; reads 16 MiB at a time, so that a memmap stays one."""
    if array.dtype.kind != "f":
        return
    rows = max(1, _FINITE_BYTES // max(1, array[:1].nbytes))
    limit = LARGEST[dtype]
    for start in range(0, len(array), rows):
        part = array[start : start + rows]
        clean = all_within(part, limit)
        if clean is None:
            with np.errstate(invalid="ignore"):
                clean = -limit <= float(part.min()) and float(part.max()) <= limit
        if not clean:
            # Slow and exact: name the first bad value by its index in the whole array.
            bad = ~(np.abs(array.astype(np.float64)) <= limit)
            if bad.any():
                first = tuple(int(i) for i in np.argwhere(bad)[0])
                raise BadValue(
                    f"{argument}: {int(bad.sum())} of {array.size} values are not finite in {dtype} (NaN or infinite), "
                    f"the first at index {first}: {array[first]}"
                )


class Rows:
    """Samples of x with targets and weights, all with the same first axis, cut into batches.

    Parameters
    ----------
    x : ndarray or Windows, (N, ...)
        Any real dtype, order and strides; only the batches are converted.
    y : ndarray or None
        Targets as `Loss.check_target` gave them.
    weights : ndarray or None
        (N,) or (N, T).
    dtype : numpy dtype
        Of the model.
    labels : bool
        Whether y holds class indices.
    mask : ndarray of bool, (N, T), of int, (N,), or None
        The steps each sequence uses, or how many from its first on.
    counts : ndarray of int, (N,), or None
        How many these are, as far as known: a batch is then ordered by them, longest first.
    """

    def __init__(
        self,
        x: np.ndarray | Windows,
        y: np.ndarray | None,
        weights: np.ndarray | None,
        dtype: np.dtype,
        *,
        labels: bool = False,
        mask: np.ndarray | None = None,
        counts: np.ndarray | None = None,
    ) -> None:
        self.x, self.y, self.weights, self.dtype, self._labels = x, y, weights, dtype, labels
        self.mask, self.counts = mask, counts
        self._longest_first = None if counts is None else -counts
        self.pieces: int | None = None  # evaluate so many steps at a time, with the states carried
        self._buffers = Buffers()

    def __len__(self) -> int:
        return len(self.x)

    def split(self, fraction: float) -> tuple[Rows, Rows]:
        """The first and the last rows: ``n - floor(n * (1 - fraction))`` go to the second part."""
        n = len(self)
        cut = int(np.floor(n * (1 - fraction)))
        if not 0 < cut < n:
            raise BadValue(f"validation_split: {fraction} of {n} samples leaves one side empty")

        def part(start: int, stop: int) -> Rows:
            x = self.x.part(start, stop) if isinstance(self.x, Windows) else self.x[start:stop]
            y, w, mask, counts = (
                None if a is None else a[start:stop] for a in (self.y, self.weights, self.mask, self.counts)
            )
            rows = Rows(x, y, w, self.dtype, labels=self._labels, mask=mask, counts=counts)
            rows.pieces = self.pieces
            return rows

        return part(0, cut), part(cut, n)

    def shuffled(self, rng: np.random.Generator) -> np.ndarray | Permutation:
        """A new order."""
        return rng.permutation(len(self)) if len(self) <= _STORED_ORDER else Permutation(len(self), rng)

    def batches(
        self, size: int, order: np.ndarray | Permutation | None = None, most: int | None = None, *, sort: bool = True
    ) -> Iterator[Batch]:
        """One batch after another, at most `most`, in memory that the next one reuses.

        With `sort` and known counts the sequences of a batch are ordered by them: padding then costs no arithmetic.
        """
        for k, start in enumerate(range(0, len(self), size)):
            if k == most:
                return
            stop = min(start + size, len(self))
            rows = slice(start, stop) if order is None else order[start:stop]
            if sort and self._longest_first is not None:
                places = self._longest_first[rows].argsort(kind="stable")
                rows = places + start if order is None else rows[places]
            x = self._gather("x", self.x, rows, self.dtype)
            y = None
            if self.y is not None:
                y = self._gather("y", self.y, rows, np.dtype(np.int64) if self._labels else self.dtype)
            w = None if self.weights is None else self._gather("weights", self.weights, rows, self.dtype)
            mask = None
            if self.mask is not None:
                # take() of a row of bytes is 1 us faster than an index.
                used = self.mask[rows] if isinstance(rows, slice) else self.mask.take(rows, axis=0)
                mask = expanded(used, x.shape[1])
            yield Batch(x, y, w, mask, rows)

    def _gather(self, name: str, array: np.ndarray | Windows, rows: slice | np.ndarray, dtype: np.dtype) -> np.ndarray:
        if isinstance(array, Windows):
            count = len(range(*rows.indices(len(array)))) if isinstance(rows, slice) else len(rows)
            out = self._buffers.take(name, (count, *array.shape[1:]), dtype)
            array.take(rows, out)
            return out
        if isinstance(rows, slice):
            part = array[rows]
            if part.dtype == dtype and part.flags.c_contiguous and part.flags.aligned:
                return part
        elif array.dtype == dtype and array.flags.c_contiguous:
            out = self._buffers.take(name, (len(rows), *array.shape[1:]), dtype)
            # take() copies rows with memcpy; mode "clip" lets it write to `out` directly.
            return np.take(array, rows, axis=0, out=out, mode="clip")
        else:
            part = array[rows]
        out = self._buffers.take(name, part.shape, dtype)
        out[...] = part
        return out


def prepare(
    x: np.ndarray | Windows, y: Any, sample_weight: Any, class_weight: Any, loss: Loss, output_shape: tuple[Any, ...],
    dtype: np.dtype, mask: np.ndarray | None = None, counts: np.ndarray | None = None, prefix: str = "",
) -> Rows:  # fmt: skip
    """Check targets and weights against the outputs (N, ..., O) and bundle them with x."""
    if y is None:
        raise BadValue(f"{prefix}y: targets are missing")
    y = loss.check_target(y, output_shape, f"{prefix}y")
    if counts is not None:
        loss.check_steps(f"{prefix}y", y, counts)
    if class_weight is not None:
        if not loss.per_row:
            raise BadValue(f"class_weight: {type(loss).__name__} has one loss per sample, not one per label")
        if sample_weight is not None:
            raise BadValue("class_weight and sample_weight cannot be given together")
        sample_weight = _class_weights(class_weight, y, loss.labels)
    weights = row_weights(sample_weight, output_shape, f"{prefix}sample_weight")
    if weights is not None:
        weights = weights.reshape(output_shape[:-1])
        check_rows(f"{prefix}sample_weight", weights, dtype)
        if mask is None and counts is None:  # else only layers can tell which steps of the outputs count
            loss.check_weights(f"{prefix}sample_weight", weights, None)
    if y.dtype.itemsize > dtype.itemsize:  # finite it is, but perhaps not in the model's dtype
        check_rows(f"{prefix}y", y, dtype)
    return Rows(x, y, weights, dtype, labels=loss.labels, mask=mask, counts=counts)


def _class_weights(class_weight: Any, y: np.ndarray, labels: bool) -> np.ndarray:
    """Weight of every row from that of its class."""
    if not isinstance(class_weight, Mapping):
        raise BadType(f"class_weight: expected a dict of class index to weight, got {type(class_weight).__name__}")
    classes = y if labels else y[..., 0] if y.shape[-1] == 1 else y.argmax(axis=-1)
    weights = np.ones(classes.shape)
    for index, weight in class_weight.items():
        chosen = classes.astype(np.int64) == checks.integer("class_weight", index, 0)
        weights[chosen] = number(f"class_weight[{index}]", weight, -math.inf)
    return weights
