"""What masks and zoneout do to a step of the recurrence; notation as in `elman.kernels.scan`.

The scan reaches these by address: a model without masks and zoneout never compiles them (inlined, they made a first fit
9 s slower). A sequence that a mask excludes from a step carries its states over; so does, one by one, an element that
zoneout keeps. On the way back their gradients pass the cell by.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from elman.jit import Function, force_inlined, helper, matrix, types, vector
from elman.kernels.random import bits


@helper
def _copy(source, target, states, lo, hi):
    for k in range(states):
        for j in range(lo, hi):
            target[k, j] = source[k, j]


@helper
def _carry(mask, t, first, rows, end, units, states, source, target):
    """Copy the states of the sequences that do not use step t: those behind the first `rows` of a band's `end` at once.

    Here and below a band begins with sequence number `first`, which is its sequence 0.
    """
    for b in range(rows):
        if mask[t, first + b] == 0:
            _copy(source, target, states, np.uint64(b * units), np.uint64((b + 1) * units))
    _copy(source, target, states, np.uint64(rows * units), np.uint64(end * units))


@force_inlined
def _expected(p, old, q, new):
    return p * old + q * new


@helper
def _element(zone, t, k, states, b, batch, h):
    """Number of the first unit's element in the stream."""
    return np.uint64((((np.int64(zone[1]) + t) * states + k) * batch + b) * h)


@helper
def _zone_out(zone, t, first, rows, batch, units, h, before, own, after):
    """The states after step t, from those before it and what the cell computed."""
    states, size = own.shape[0], np.uint64(units)
    for k in range(states):
        start, limit = zone[0], zone[3 + k]
        rate = np.float64(limit) * 2.0**-64
        p, q = own.dtype.type(rate), own.dtype.type(1 - rate)
        for b in range(rows):
            lo, place = b * units, _element(zone, t, k, states, first + b, batch, h)
            old, new, target = before[k, lo:], own[k, lo:], after[k, lo:]
            if zone[2] == 0:
                for j in range(size):
                    target[j] = _expected(p, old[j], q, new[j])
            else:
                for j in range(size):
                    target[j] = old[j] if bits(start, place + np.uint64(j)) < limit else new[j]


@helper
def _set_aside(mask, t, first, rows, units, states, after, kept, z):
    """Move the gradients of sequences among the first `rows` that do not use step t past the cell: it gets zeros.

    Zeros for their gates too: those may have overflowed, and 0 times infinity would be a gradient.
    """
    for b in range(rows):
        if mask[t, first + b] == 0:
            lo, hi = np.uint64(b * units), np.uint64((b + 1) * units)
            for k in range(states):
                for j in range(lo, hi):
                    kept[k, j] = after[k, j]
                    after[k, j] = 0
            for r in range(z.shape[0]):
                for j in range(lo, hi):
                    z[r, j] = 0


@helper
def _restore(mask, t, first, rows, end, read, units, states, after, kept, before, z):
    """What `_set_aside` kept, and behind the first `rows` sequences no gradient of any product.

    Behind the first `rows` sequences the gradients pass as they are; z gets zeros there up to number `read`.
    """
    for b in range(rows):
        if mask[t, first + b] == 0:
            lo, hi = np.uint64(b * units), np.uint64((b + 1) * units)
            _copy(kept, before, states, lo, hi)
    lo, hi = np.uint64(rows * units), np.uint64(end * units)
    _copy(after, before, states, lo, hi)
    hi = np.uint64(max(rows, read) * units)
    for r in range(z.shape[0]):
        for j in range(lo, hi):
            z[r, j] = 0


@helper
def _hold(zone, mask, t, first, rows, batch, units, h, after, kept):
    """Move the gradients of elements that kept their value past the cell: it gets zeros; so does `kept` elsewhere.

    Sequences that do not use step t have been set aside.
    """
    states, size = zone.size - 3, np.uint64(units)
    zero = after.dtype.type(0)
    for b in range(rows):
        if mask.size == 0 or mask[t, first + b] > 0:
            for k in range(states):
                start, limit, place = zone[0], zone[3 + k], _element(zone, t, k, states, first + b, batch, h)
                gradient, held = after[k, b * units :], kept[k, b * units :]
                for j in range(size):
                    keeps = bits(start, place + np.uint64(j)) < limit
                    held[j] = gradient[j] if keeps else zero
                    gradient[j] = zero if keeps else gradient[j]


@helper
def _release(states, lo, hi, kept, before):
    """Add what `_hold` kept."""
    for k in range(states):
        for j in range(lo, hi):
            before[k, j] += kept[k, j]


# ---- by address; each calls its helper, which may reorder nothing either: there are no sums


def _function(python: Callable[..., None], *kinds: str) -> Function:
    """Make a helper reachable by address; kinds: m mask, z zone, i index, p place, a states or buffer."""

    def signature(dtype: np.dtype) -> tuple:
        known = {
            "m": matrix(np.dtype(np.uint8)),
            "z": vector(np.dtype(np.uint64)),
            "i": types.int64,
            "p": types.uint64,
            "a": matrix(dtype),
        }
        return tuple(known[kind] for kind in "".join(kinds))

    return Function(python, signature)


def _call_carry(mask, t, first, rows, end, units, states, source, target):
    _carry(mask, t, first, rows, end, units, states, source, target)


def _call_zone_out(zone, t, first, rows, batch, units, h, before, own, after):
    _zone_out(zone, t, first, rows, batch, units, h, before, own, after)


def _call_set_aside(mask, t, first, rows, units, states, after, kept, z):
    _set_aside(mask, t, first, rows, units, states, after, kept, z)


def _call_restore(mask, t, first, rows, end, read, units, states, after, kept, before, z):
    _restore(mask, t, first, rows, end, read, units, states, after, kept, before, z)


def _call_hold(zone, mask, t, first, rows, batch, units, h, after, kept):
    _hold(zone, mask, t, first, rows, batch, units, h, after, kept)


def _call_release(states, lo, hi, kept, before):
    _release(states, lo, hi, kept, before)


carry = _function(_call_carry, "m", "iiiiii", "aa")
zone_out = _function(_call_zone_out, "z", "iiiiii", "aaa")
set_aside = _function(_call_set_aside, "m", "iiiii", "aaa")
restore = _function(_call_restore, "m", "iiiiiii", "aaaa")
hold = _function(_call_hold, "zm", "iiiiii", "aa")
release = _function(_call_release, "i", "pp", "aa")


@cache
def forward_addresses(masked: bool, zoned: bool, dtype: np.dtype) -> tuple:
    """Of `carry` and `zone_out`, or 0 for what is not needed and hence not compiled."""
    return carry.handle(dtype) if masked else 0, zone_out.handle(dtype) if zoned else 0


@cache
def backward_addresses(masked: bool, zoned: bool, dtype: np.dtype) -> tuple:
    """Of `set_aside`, `restore`, `hold` and `release`, or 0 for what is not needed."""
    return (
        *((set_aside.handle(dtype), restore.handle(dtype)) if masked else (0, 0)),
        *((hold.handle(dtype), release.handle(dtype)) if zoned else (0, 0)),
    )
