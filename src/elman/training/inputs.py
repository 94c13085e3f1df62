"""The forms in which users give sequences: arrays, lists of unequal length, lanes, windows, batches one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np

from elman import checks
from elman.data import Lanes, Windows
from elman.errors import BadValue
from elman.training.batches import Batch, Form, plain_form
from elman.training.data import Rows
from elman.utils import pad_sequences
from elman.warn import warn


def unpack(x: Any, y: Any, lengths: Any, mask: Any, prefix: str = "", *, per_row: bool = True) -> tuple[Any, Any, Any]:
    """x, y and lengths from lanes, windows or lists of arrays of unequal length; any other x stays as it is.

    With `per_row` targets belong to steps; otherwise they are labels in lists of their own lengths.
    """
    if not per_row and _unequal(y):
        y = pad_sequences(list(y), padding="post", value=-1)
    if isinstance(x, (Lanes, Windows)):
        kind = type(x).__name__
        if y is not None:
            have = "have no" if (x.y if isinstance(x, Lanes) else x.targets) is None else "hold their"
            raise BadValue(f"{prefix}y: these {kind} {have} targets; give y when making them")
        if isinstance(x, Windows):
            return x, x.targets, lengths
        if lengths is not None or mask is not None:
            raise BadValue(f"{prefix}lengths, {prefix}mask: Lanes know the lengths of their series")
        return x.x, x.y, x.lengths if (x.lengths < x.x.shape[1]).any() else None
    if not _unequal(x):
        return x, y, lengths
    if lengths is not None or mask is not None:
        raise BadValue(f"{prefix}lengths, {prefix}mask: x is a list of sequences of unequal length, which tells them")
    own = np.array([len(a) for a in x])
    if _unequal(y):
        found = [len(a) for a in y]
        if len(found) == len(own) and (own != found).any():
            first = int(np.argmax(own != found))
            raise BadValue(
                f"{prefix}y: sequence {first} has {found[first]} steps, but x has {own[first]} there; expected a "
                "target for every step"
            )
        y = pad_sequences(list(y), padding="post")
    return pad_sequences(list(x), padding="post"), y, own


def _unequal(x: Any) -> bool:
    """Whether x is a list of arrays (T, F) or (T,) of which T differs."""
    if not isinstance(x, (list, tuple)) or not x or not all(isinstance(a, np.ndarray) for a in x):
        return False
    return {a.ndim for a in x} in ({1}, {2}) and len({len(a) for a in x}) > 1


def is_stream(x: Any) -> bool:
    """Whether x gives batches one by one: an iterable that is neither an array nor a list or tuple."""
    known = isinstance(x, (np.ndarray, list, tuple, str, bytes, dict, Lanes, Windows))
    return not known and isinstance(x, Iterable) and not hasattr(x, "__array__")


BATCH_PARTS = ("x", "y", "sample_weight", "lengths", "mask")
"""Names in a batch, or validation data, given as a dict."""


class Stream:
    """Batches that an iterable gives: x, (x, y), (x, y, sample_weight) or a dict of `BATCH_PARTS`.

    An iterator, such as a generator, is read on from epoch to epoch; any other iterable begins anew.

    `check` makes rows of a batch's parts; `repeated`, of a form and x and y that have it, the batch at once, or None.
    """

    counts = pieces = None

    def __init__(
        self, source: Iterable[Any], check: Callable[..., Rows], argument: str = "x",
        repeated: Callable[[Form | None, Any, Any], Batch | None] | None = None,
    ) -> None:  # fmt: skip
        self._source, self._check, self._argument, self._repeated = source, check, argument, repeated
        self._iterator = source if isinstance(source, Iterator) else None
        self._first: Rows | None = None

    def peek(self) -> Rows:
        """The first batch, which is not lost."""
        if self._first is None:
            items = iter(self._source)
            try:
                item = next(items)
            except StopIteration:
                raise BadValue(f"{self._argument}: the iterable gives no batch") from None
            if self._iterator is not None:
                self._iterator = chain([item], items)
            self._first = self._check(**self._parts(item))
        return self._first

    def _parts(self, item: Any) -> Mapping[str, Any]:
        if isinstance(item, Mapping):
            for name in item:
                checks.choose(self._argument, name, BATCH_PARTS)
            return item
        parts = item if isinstance(item, (tuple, list)) else (item,)
        if not 1 <= len(parts) <= 3:
            raise BadValue(
                f"{self._argument}: each batch must be x, (x, y), (x, y, sample_weight) or a dict, got {len(parts)} "
                "parts"
            )
        return dict(zip(BATCH_PARTS, parts, strict=False))

    def batches(self, size: int, order: None = None, most: int | None = None, *, sort: bool = True) -> Iterator[Batch]:
        """The batches as they come, checked; `size` is theirs."""
        items = self._source if self._iterator is None else self._iterator
        count, form = 0, None
        for item in items:
            parts = self._parts(item)
            x, y = parts.get("x"), parts.get("y")
            batch = None
            if self._repeated is not None and all(v is None for k, v in parts.items() if k not in ("x", "y")):
                batch = self._repeated(form, x, y)
            if batch is None:
                rows = self._check(**parts)
                batch = next(rows.batches(len(rows), None, None, sort=sort))
                form = None if batch.y is None else plain_form(x, y, rows, batch)
            yield batch
            count += 1
            if count == most:
                return
        if count == 0:
            raise BadValue(
                f"{self._argument}: the iterable gives no more batches; an iterator, such as a generator, is read "
                "once: give an object that can be iterated anew, or more batches"
            )
        if most is not None:
            warn(f"{self._argument}: expected {most} batches, the iterable gave {count}")


def refuse_beside_stream(x: Any, **given: Any) -> None:
    """ValueError if an argument is given that batches one by one carry themselves."""
    for name, value in given.items():
        if value is not None:
            raise BadValue(f"{name}: x gives batches one by one ({type(x).__name__}); they carry all of it")
