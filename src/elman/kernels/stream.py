"""One step through a whole stack of layers, in one call from Python.

A call of compiled code costs 0.09 us for each array and as much again for what Python does around it, so a step takes x
and one number: the address of a *table* of 64-bit words. Everything else is in memory the table points to: the *arena*,
one vector of the model's float type with packed weights, states and scratch, and *reals*, a few float64. The table
begins with a `Head`; behind it stands one `Part` per layer, and what these point to.

A place in the arena is an offset in elements. A matrix of B sequences has a place and a stride: sequence b begins at
``place + b * stride``. States, buffers and products have a layout of their own, flat with ``j = b * Hp + unit`` and
notation otherwise as in `elman.kernels.scan`; a cell sees it as a batch of B sequences of one step.

Cells, the product, softmax and normalisation are the functions of the layers themselves, reached by address, and every
element of a product is one chain of multiply-adds in a fixed order: the outputs have the bits of the whole sequence.

Under ``NUMBA_DISABLE_JIT=1`` a table is a list and holds the arrays and functions themselves in place of addresses.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from elman.errors import BadType
from elman.jit import (
    DISABLED,
    Function,
    carray,
    fixed,
    helper,
    inlined,
    intrinsic,
    invoke,
    types,
)
from elman.kernels.matmul import UNBANDED
from elman.kernels.scan import Span
from elman.kernels.simd import _at, element, pointer, pointer_at
from elman.kernels.skips import _expected


class Head(NamedTuple):
    """The first words of a table."""

    arena: Any
    """Address, as are the next three."""
    reals: Any
    run: Any
    """The function `run`."""
    multiply: Any
    lanes: int
    parts: int
    """Number of parts, the first of which follows this head."""
    batch: int
    inputs: int
    """Features of x, or the size of the vocabulary."""
    x: int
    """Place of x in the arena, B rows of `inputs`."""
    ids: int
    """First of the B words that hold tokens."""
    used: int
    """First of the B words that tell whether a sequence uses this step, or carries its states over."""
    y: int
    """Place of the output, B rows of `outputs` without gaps."""
    outputs: int
    y_source: int
    """Place and stride of the last layer's output."""
    y_stride: int


class Part(NamedTuple):
    """One layer: what kind, where its input and its output are, and what it needs besides."""

    kind: int
    source: int
    """Place and stride of the input."""
    stride: int
    inputs: int
    target: int
    """Place and stride of the output."""
    gap: int
    outputs: int
    """Features of the output; units of a cell."""
    function: Any = 0
    """Address."""
    weights: int = 0
    """Packed weights of a cell, table of a lookup, gamma, the value of a mask."""
    bias: int = 0
    """Of the products, (rows, Hp); beta."""
    reals: int = 0
    """Where in `reals` epsilon and the moments are."""
    late: Any = 0
    padded: int = 0
    """Hp."""
    rows: int = 0
    states: int = 0
    kept: int = 0
    """States that are carried on: all, or none of a dense layer."""
    state: int = 0
    """States before the step (states, B * Hp), those it makes, and the buffer (rows, B * Hp)."""
    new: int = 0
    z: int = 0
    per_unit: int = 0
    """Weights per unit, (per_unit_rows, B * Hp)."""
    per_unit_rows: int = 0
    zone: int = -1
    """Of zoneout, a pair of factors per state: of the old value and of the new; -1 without."""
    groups: int = 0
    """First word of the products: (row, rows, input depth, recurrent depth, offset in the weights) for each."""
    early: int = 0
    late_groups: int = 0
    operand: int = 0


HEAD, PART = Head(*range(len(Head._fields))), Part(*range(len(Part._fields)))
WORDS = len(Part._fields)
CELL, ELEMENTWISE, SOFTMAX, NORM, LOOKUP, LOOKUP_MASKED, MASK = range(7)


# ---- memory by address


@intrinsic
def _shifted(typingctx, place, offset):
    def codegen(context, builder, sig, args):
        return builder.gep(args[0], [args[1]])

    return place(place, offset), codegen


def block(place: Any, offset: int, rows: int, columns: int) -> np.ndarray:
    """The matrix (rows, columns) that begins `offset` elements behind a pointer."""
    return _at(place, offset, (rows, columns), (columns, 1))


@inlined(block, gives_array=True)
def _block_compiled(place, offset, rows, columns):
    return lambda place, offset, rows, columns: carray(_shifted(place, offset), (rows, columns))


def flat(place: Any, offset: int, size: int) -> np.ndarray:
    """The vector that begins `offset` elements behind a pointer."""
    return _at(place, offset, (size,), (1,))


@inlined(flat, gives_array=True)
def _flat_compiled(place, offset, size):
    return lambda place, offset, size: carray(_shifted(place, offset), (size,))


# ---- parts


@helper
def _product(arena, words, at, g, batch):
    """One group of gates: ``x W + b + h R``, or the operand in place of h, into its rows of the buffer."""
    q, n = words[at + PART.groups] + 5 * g, batch * words[at + PART.padded]
    row, count, kx, kh, offset = words[q], words[q + 1], words[q + 2], words[q + 3], words[q + 4]
    padded, z = words[at + PART.padded], words[at + PART.z]
    columns, one, zero = padded // words[HEAD.lanes], np.int64(1), np.int64(0)
    hidden = words[at + PART.state] if g < words[at + PART.early] else z + words[at + PART.operand] * n
    # The product of the whole library, with the strides of this file's layout; nothing to fetch but a line at hand.
    invoke(words[HEAD.multiply], (
        batch, UNBANDED, count * columns, words[HEAD.lanes], columns,
        arena, words[at + PART.source], (words[at + PART.stride], zero), one, kx,
        arena, hidden, (padded, zero), one, kh, zero, one,
        arena, words[at + PART.weights] + offset, kx + kh, zero,
        (arena, zero, zero, zero, zero),
        arena, words[at + PART.bias] + row * padded, padded, (zero, zero),
        arena, z + row * n, n, (padded, zero),
    ))  # fmt: skip


@helper
def _carry_on(arena, words, at, batch):
    """The states a cell made become those before the next step, where the sequence uses this one."""
    padded, zone, used = words[at + PART.padded], words[at + PART.zone], words[HEAD.used]
    n, width = batch * padded, np.uint64(padded)
    for k in range(words[at + PART.kept]):
        for b in range(batch):
            if words[used + b] != 0:
                offset = k * n + b * padded
                old = flat(arena, words[at + PART.state] + offset, padded)
                new = flat(arena, words[at + PART.new] + offset, padded)
                if zone < 0:
                    for j in range(width):
                        old[j] = new[j]
                else:
                    p, q = arena[zone + 2 * k], arena[zone + 2 * k + 1]
                    for j in range(width):
                        old[j] = _expected(p, old[j], q, new[j])


@helper
def _cell(arena, words, at, batch):
    padded = words[at + PART.padded]
    n, states = batch * padded, words[at + PART.states]
    z = block(arena, words[at + PART.z], words[at + PART.rows], n)
    prev = block(arena, words[at + PART.state], states, n)
    new = block(arena, words[at + PART.new], states, n)
    u = block(arena, words[at + PART.per_unit], words[at + PART.per_unit_rows], n)
    span = Span(np.uint64(0), np.uint64(n), np.uint64(words[at + PART.outputs]), np.uint64(padded))
    for g in range(words[at + PART.early]):
        _product(arena, words, at, g, batch)
    # The cell as the scan calls it, on one step of B sequences.
    invoke(words[at + PART.function], (z, prev, new, u, span))
    if words[at + PART.late_groups] > 0:
        _product(arena, words, at, words[at + PART.early], batch)
        invoke(words[at + PART.late], (z, prev, new, u, span))
    _carry_on(arena, words, at, batch)


@helper
def _row(arena, words, reals, at, source, target):
    """Softmax, normalisation or an elementwise activation of one row."""
    kind, width = words[at + PART.kind], words[at + PART.outputs]
    begin = np.uint64(0)
    if kind == ELEMENTWISE:
        x, y = flat(arena, source, width), flat(arena, target, width)
        invoke(words[at + PART.function], (x, y, begin, np.uint64(width)))
        return
    x, y, end = block(arena, source, 1, width), block(arena, target, 1, width), np.uint64(1)
    if kind == SOFTMAX:
        invoke(words[at + PART.function], (x, y, begin, end))
    else:
        gamma, beta = flat(arena, words[at + PART.weights], width), flat(arena, words[at + PART.bias], width)
        own = words[at + PART.reals]
        moments = block(reals, own + 1, 1, 2)
        invoke(words[at + PART.function], (x, gamma, beta, reals[own], begin, end, moments, y))


@helper
def _lookup(arena, words, at, b, target):
    """The vector of a token; with a mask, token 0 is padding."""
    token, width = words[words[HEAD.ids] + b], words[at + PART.outputs]
    table = words[at + PART.weights] + token * width
    for j in range(width):
        arena[target + j] = arena[table + j]
    if words[at + PART.kind] == LOOKUP_MASKED and token == 0:
        words[words[HEAD.used] + b] = 0


@helper
def _mask(arena, words, at, b, source):
    """Whether all features equal the value of the mask: the step is not used."""
    value = arena[words[at + PART.weights]]
    for j in range(words[at + PART.inputs]):
        if arena[source + j] != value:
            return
    words[words[HEAD.used] + b] = 0


def _run(arena, words, reals):
    batch = words[HEAD.batch]
    for b in range(batch):
        words[words[HEAD.used] + b] = 1
    for i in range(words[HEAD.parts]):
        at = len(HEAD) + i * WORDS
        kind = words[at + PART.kind]
        if kind == CELL:
            _cell(arena, words, at, batch)
            continue
        for b in range(batch):
            source = words[at + PART.source] + b * words[at + PART.stride]
            target = words[at + PART.target] + b * words[at + PART.gap]
            if kind in (LOOKUP, LOOKUP_MASKED):
                _lookup(arena, words, at, b, target)
            elif kind == MASK:
                _mask(arena, words, at, b, source)
            else:
                _row(arena, words, reals, at, source, target)
    width, y = words[HEAD.outputs], words[HEAD.y]
    for b in range(batch):
        source = words[HEAD.y_source] + b * words[HEAD.y_stride]
        for j in range(width):
            arena[y + b * width + j] = arena[source + j]


def _run_signature(dtype: np.dtype) -> tuple:
    floats = types.float32 if np.dtype(dtype) == np.float32 else types.float64
    return types.CPointer(floats), types.CPointer(types.int64), types.CPointer(types.float64)


run = Function(_run, _run_signature)
"""``run(arena, words, reals)``: all parts in their order, from x or tokens that lie in their places."""


# ---- what Python calls


def _length(x: Any) -> int:
    """Number of tokens given."""
    return np.size(x)


@inlined(_length)
def _length_compiled(x):
    return (lambda x: x.size) if isinstance(x, types.Array) else lambda x: 1


def _token(x: Any, b: int) -> Any:
    return x[b] if np.ndim(x) else x


@inlined(_token)
def _token_compiled(x, b):
    return (lambda x, b: x[b]) if isinstance(x, types.Array) else lambda x, b: x


@cache
def _steps(dtype: np.dtype) -> tuple[Callable[[Any, Any], int], Callable[[Any, Any], int]]:
    """``step(x, place)`` for features and for tokens; 0, or 1 with no state changed if x is not as it should be."""
    kind, zero, limit = dtype.type, dtype.type(0), float(np.finfo(dtype).max)

    def features(x, place):
        words = pointer_at(place, np.int64(0))
        batch, width = words[HEAD.batch], words[HEAD.inputs]
        if x.shape[-1] != width or x.size != batch * width:
            return 1
        source, bad = pointer(x), 0
        for i in range(x.size):
            bad |= 0 if abs(element(source, i)) <= limit else 1
        if bad:
            return 1
        arena, target = pointer_at(words[HEAD.arena], zero), words[HEAD.x]
        for i in range(x.size):
            arena[target + i] = kind(element(source, i))
        invoke(words[HEAD.run], (arena, words, pointer_at(words[HEAD.reals], np.float64(0))))
        return 0

    def tokens(x, place):
        words = pointer_at(place, np.int64(0))
        if _length(x) != words[HEAD.batch]:
            return 1
        for b in range(words[HEAD.batch]):
            token = _token(x, b)
            if not (token >= 0 and token < words[HEAD.inputs]):
                return 1
            row = np.int64(token)
            if row != token:
                return 1
            words[words[HEAD.ids] + b] = row
        arena = pointer_at(words[HEAD.arena], zero)
        invoke(words[HEAD.run], (arena, words, pointer_at(words[HEAD.reals], np.float64(0))))
        return 0

    return features, tokens


@cache
def step_function(dtype: np.dtype, *, tokens: bool, release: bool) -> Callable[[Any, Any], int]:
    """``step(x, place)`` for the model's float type; TypeError for an x that is none of these:

    C-contiguous float32 or float64, (I,) or (B, I); of tokens one number, or int64 (B,).
    `place` is the `address` of a table. With `release` other threads of Python may run meanwhile.
    """
    python = _steps(dtype)[tokens]
    if DISABLED:
        return _twin(python, tokens)
    if tokens:
        kinds = [types.int64, types.float64, types.Array(types.int64, 1, "C")]
    else:
        kinds = [types.Array(f, n, "C") for f in (types.float32, types.float64) for n in (1, 2)]
    return fixed(python, [(kind, types.int64) for kind in kinds], release=release)


def _twin(python: Callable[[Any, Any], int], tokens: bool) -> Callable[[Any, Any], int]:
    def step(x: Any, place: Any) -> int:
        if tokens:
            known = type(x) in (int, float, np.int64, np.float64) or getattr(x, "dtype", None) == np.int64
        else:
            known = isinstance(x, np.ndarray) and x.dtype in (np.float32, np.float64) and x.flags.c_contiguous
        if not known or np.ndim(x) > 2 - tokens:
            raise BadType(f"no function for {type(x).__name__}")
        return python(x, place)

    return step
