"""What a step of training works on: batches, and the windows of time that truncated BPTT cuts them into."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from elman import checks
from elman.errors import BadType, BadValue


class Window(NamedTuple):
    """The place of a batch within longer sequences."""

    begins: bool
    """Whether it begins where its sequences do, without states from before."""
    keep: int
    """Its step before which the next window begins."""
    skip: int
    """Steps at its begin whose loss belongs to the windows before."""
    update: bool
    """Whether it has a loss at all."""


class Batch(NamedTuple):
    """Sequences of equal length, with what belongs to them."""

    x: np.ndarray
    """(b, ...)."""
    y: np.ndarray | None = None
    """(b, ...), as the loss takes it."""
    w: np.ndarray | None = None
    """One weight per row of the outputs."""
    mask: np.ndarray | None = None
    """Bool (b, T): the steps in use."""
    rows: np.ndarray | slice = slice(None)
    """Which samples these are."""
    window: Window | None = None


Form = tuple[tuple[int, ...], np.dtype, tuple[int, ...], np.dtype]
"""Shape and dtype of x and of y."""


def plain_form(x: Any, y: Any, rows: Any, batch: Batch) -> Form | None:
    """The form of x and y if they became the `batch` of their `rows` without a conversion, weights or a mask."""
    if rows.weights is rows.mask is rows.counts is None and all(
        type(given) is np.ndarray and (given.shape, given.dtype) == (used.shape, used.dtype)
        for given, used in ((x, batch.x), (y, batch.y))
    ):
        return x.shape, x.dtype, y.shape, y.dtype
    return None


def check_tbptt(tbptt: Any) -> tuple[int, int] | None:
    """`tbptt` as (k1, k2), or None; TypeError or ValueError otherwise."""
    if tbptt is None:
        return None
    if not isinstance(tbptt, (tuple, list)) or len(tbptt) != 2:
        raise BadType(f"tbptt: expected (k1, k2), an update every k1 steps and gradients back k2, got {tbptt!r}")
    k1, k2 = (checks.integer(f"tbptt[{i}]", v) for i, v in enumerate(tbptt))
    if k1 > k2:
        raise BadValue(
            f"tbptt: with k1 = {k1} > k2 = {k2} the losses of {k1 - k2} of every {k1} steps would have no gradient; "
            "expected k1 <= k2"
        )
    return k1, k2


def count_windows(steps: int, tbptt: tuple[int, int] | None, *, per_step: bool) -> int:
    """Training steps that a batch of sequences of that many steps is cut into."""
    if tbptt is None:
        return 1
    k1, k2 = tbptt
    return -(-steps // k1) if per_step else -(-steps // k2)


def windows(batch: Batch, tbptt: tuple[int, int], *, per_step: bool) -> Iterator[Batch]:
    """The windows of a batch, in time.

    With an output at every step (`per_step`) each window ends k1 steps after the one before (the last one at the end),
    begins k2 - k1 steps before that one ended, and has the loss of the steps behind it. With one output at the end only
    the last window has a loss; those before it, of k2 steps, serve to carry the states.
    """
    k1, k2 = tbptt
    steps = batch.x.shape[1]
    if per_step:
        begins = range(0, steps, k1)
        spans = [(max(0, begin - (k2 - k1)), min(begin + k1, steps)) for begin in begins]
    else:
        first = steps % k2 or min(k2, steps)
        ends = list(range(first, steps + 1, k2))
        spans = [(max(0, end - k2), end) for end in ends]
        # The last window has k2 steps if there are as many; the first is the short one.
    done = 0
    for i, (begin, end) in enumerate(spans):
        following = spans[i + 1][0] if i + 1 < len(spans) else end
        last = end == steps
        part = slice(begin, end)
        window = Window(begin == 0, following - begin, done - begin if per_step else 0, per_step or last)
        # The kernels of losses take whole arrays; those of layers take any strides.
        y, w = (
            a if a is None or not per_step or a.ndim < 2 else np.ascontiguousarray(a[:, part])
            for a in (batch.y, batch.w)
        )
        mask = None if batch.mask is None else batch.mask[:, part]
        yield Batch(batch.x[:, part], y, w, mask, batch.rows, window)
        done = end
