"""Batches of arrays: checked once, gathered row by row, converted to the model's dtype batch by batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from elman import checks
from elman.loss import Loss, row_weights
from elman.memory import Buffers
from elman.registry import number

_FINITE_BYTES = 1 << 24


def check_rows(argument: str, array: np.ndarray, dtype: np.dtype) -> None:
    """ValueError if a value of `array` is not finite in `dtype`; reads 16 MiB at a time, so that a memmap stays one."""
    if array.dtype.kind != "f":
        return
    rows = max(1, _FINITE_BYTES // max(1, array[:1].nbytes))
    limit = float(np.finfo(dtype).max)
    for start in range(0, len(array), rows):
        part = array[start : start + rows]
        # Opposite infinities, or finite values whose sum is not, fall through to the exact test.
        with np.errstate(over="ignore", invalid="ignore"):
            if array.dtype.itemsize <= dtype.itemsize:
                clean = np.isfinite(part.sum(dtype=np.float64))
            else:
                clean = -limit <= part.min() and part.max() <= limit
        if not clean:
            # Slow and exact: name the first bad value by its index in the whole array.
            bad = ~(np.abs(array.astype(np.float64)) <= limit)
            if bad.any():
                first = tuple(int(i) for i in np.argwhere(bad)[0])
                raise ValueError(
                    f"{argument}: {int(bad.sum())} of {array.size} values are not finite in {dtype} (NaN or infinite), "
                    f"the first at index {first}: {array[first]}"
                )


class Rows:
    """Samples of x with targets and weights, all with the same first axis, cut into batches.

    Parameters
    ----------
    x : ndarray, (N, ...)
        Any real dtype, order and strides; only the batches are converted.
    y : ndarray or None
        Targets as `Loss.check_target` gave them.
    weights : ndarray or None
        (N,) or (N, T).
    dtype : numpy dtype
        Of the model.
    labels : bool
        Whether y holds class indices.
    """

    def __init__(
        self,
        x: np.ndarray,
        y: np.ndarray | None,
        weights: np.ndarray | None,
        dtype: np.dtype,
        *,
        labels: bool = False,
    ) -> None:
        self.x, self.y, self.weights, self.dtype, self._labels = x, y, weights, dtype, labels
        self._buffers = Buffers()

    def __len__(self) -> int:
        return len(self.x)

    def split(self, fraction: float) -> tuple[Rows, Rows]:
        """The first and the last rows: ``n - floor(n * (1 - fraction))`` go to the second part."""
        n = len(self)
        cut = int(np.floor(n * (1 - fraction)))
        if not 0 < cut < n:
            raise ValueError(f"validation_split: {fraction} of {n} samples leaves one side empty")

        def part(rows: slice) -> Rows:
            y = None if self.y is None else self.y[rows]
            weights = None if self.weights is None else self.weights[rows]
            return Rows(self.x[rows], y, weights, self.dtype, labels=self._labels)

        return part(slice(None, cut)), part(slice(cut, None))

    def batches(
        self, size: int, order: np.ndarray | None = None, most: int | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray | None, np.ndarray | None]]:
        """x (b, ...), y (rows, O) or labels (rows,), weights (rows,) of one batch after another, at most `most`.

        In memory that the next batch reuses.
        """
        for k, start in enumerate(range(0, len(self), size)):
            if k == most:
                return
            rows = slice(start, start + size) if order is None else order[start : start + size]
            x = self._gather("x", self.x, rows, self.dtype)
            y = None
            if self.y is not None:
                y = self._gather("y", self.y, rows, np.dtype(np.int64) if self._labels else self.dtype)
                y = y.reshape(-1) if self._labels else y.reshape(-1, y.shape[-1])
            w = None
            if self.weights is not None:
                w = self._gather("weights", self.weights, rows, self.dtype).reshape(-1)
            yield x, y, w

    def _gather(self, name: str, array: np.ndarray, rows: slice | np.ndarray, dtype: np.dtype) -> np.ndarray:
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
    x: np.ndarray, y: Any, sample_weight: Any, class_weight: Any, loss: Loss, output_shape: tuple, dtype: np.dtype,
    prefix: str = "",
) -> Rows:  # fmt: skip
    """Check targets and weights against the outputs (N, ..., O) and bundle them with x."""
    if y is None:
        raise ValueError(f"{prefix}y: targets are missing")
    y = loss.check_target(y, output_shape, f"{prefix}y")
    if class_weight is not None:
        if sample_weight is not None:
            raise ValueError("class_weight and sample_weight cannot be given together")
        sample_weight = _class_weights(class_weight, y, loss.labels)
    weights = row_weights(sample_weight, output_shape, f"{prefix}sample_weight")
    if weights is not None:
        weights = weights.reshape(output_shape[:-1])
        check_rows(f"{prefix}sample_weight", weights, dtype)
    if y.dtype.itemsize > dtype.itemsize:  # finite it is, but perhaps not in the model's dtype
        check_rows(f"{prefix}y", y, dtype)
    return Rows(x, y, weights, dtype, labels=loss.labels)


def _class_weights(class_weight: Any, y: np.ndarray, labels: bool) -> np.ndarray:
    """Weight of every row from that of its class."""
    if not isinstance(class_weight, Mapping):
        raise TypeError(f"class_weight: expected a dict of class index to weight, got {type(class_weight).__name__}")
    classes = y if labels else y[..., 0] if y.shape[-1] == 1 else y.argmax(axis=-1)
    weights = np.ones(classes.shape)
    for index, weight in class_weight.items():
        chosen = classes.astype(np.int64) == checks.integer("class_weight", index, 0)
        weights[chosen] = number(f"class_weight[{index}]", weight, -math.inf)
    return weights
