"""Random numbers that are a function of (key, draw, element), and the noise made of them.

There is no state to advance and none to share: element j of a stream is ``mix(start + (j + 1) g)``, the (j + 1)-th
output of SplitMix64 begun at ``start``, so any thread computes any part of it, and a backward pass computes it again
instead of keeping it. ``mix`` and g are those of Steele, Lea & Flood (2014), "Fast Splittable Pseudorandom Number
Generators" (mix: variant 13 of D. Stafford); ``start`` is itself two rounds of ``mix`` over key and draw, so that
neighbouring keys and draws give unrelated streams.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from elman.jit import Entry, Function, inlined, invoke, prange, types, vector

CHUNK = 8192
"""Elements per chunk."""

_MASK = 2**64 - 1
_STEP, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def _mix(z: int) -> int:
    """SplitMix64's finalizer: a bijection of 64 bits in which every input bit flips half of the output bits."""
    z &= _MASK
    z = (z ^ (z >> 30)) * _FIRST & _MASK
    z = (z ^ (z >> 27)) * _SECOND & _MASK
    return z ^ (z >> 31)


def stream(key: int, draw: int) -> np.uint64:
    """Start of the stream of `key` for call number `draw`.

    Examples
    --------
    >>> int(stream(1, 0)) == int(stream(0, 1))
    False
    """
    return np.uint64(_mix(_mix(int(key) + _STEP) + int(draw) * _STEP))


def bits(start: Any, index: Any) -> Any:
    """64 random bits: element `index` of a stream."""
    return np.uint64(_mix(int(start) + (int(index) + 1) * _STEP))


@inlined(bits)
def _bits_compiled(start, index):
    one, step, first, second = (np.uint64(v) for v in (1, _STEP, _FIRST, _SECOND))
    a, b, c = np.uint64(30), np.uint64(27), np.uint64(31)

    def run(start, index):
        z = start + (np.uint64(index) + one) * step
        z = (z ^ (z >> a)) * first
        z = (z ^ (z >> b)) * second
        return z ^ (z >> c)

    return run


# ---- the normal distribution

_HALF_BITS = 2.0**-32
_SQRT_HALF_BITS = int(np.float64(math.sqrt(0.5)).view(np.int64))


def normal(word: Any) -> Any:
    """Standard normal number, float64, of 64 random bits: at most 6.8 in size.

    Box & Muller (1958): ``sqrt(-2 log u) sin(pi w)``, u in (0, 1) from the upper 32 bits, w in (-1/2, 1/2) from the
    lower ones; half a turn is enough: the sine of a whole one has the same distribution. Compiled code is within 1e-14
    of the formula, relative.
    """
    u = ((int(word) >> 32) + 0.5) * _HALF_BITS
    w = ((int(word) & 0xFFFFFFFF) + 0.5) * _HALF_BITS - 0.5
    return np.sqrt(-2.0 * np.log(u)) * np.sin(np.pi * w)


# Calls of the C library do not vectorise, so both functions are their series, cut where a term falls below 2^-53:
# log m = 2 s (1 + s^2 / 3 + s^4 / 5 + ...), s = (m - 1) / (m + 1), for m in [sqrt(1/2), sqrt(2)), and that of the sine.
_L1, _L2, _L3, _L4, _L5, _L6, _L7, _L8, _L9, _L10 = (1.0 / (2 * k + 1) for k in range(1, 11))
_S1, _S2, _S3, _S4, _S5, _S6, _S7, _S8, _S9, _S10, _S11 = (
    (-1.0) ** k / math.factorial(2 * k + 1) for k in range(1, 12)
)


@inlined(normal)
def _normal_compiled(word):
    half, low, shift = np.uint64(32), np.uint64(0xFFFFFFFF), np.int64(52)

    def run(word):
        u = (np.float64(np.int64(word >> half)) + 0.5) * _HALF_BITS
        r = np.pi * ((np.float64(np.int64(word & low)) + 0.5) * _HALF_BITS - 0.5)
        # u = 2^n m: by the bits of u, relative to those of sqrt(1/2).
        pattern = np.float64(u).view(np.int64)
        n = (pattern - _SQRT_HALF_BITS) >> shift
        m = np.int64(pattern - (n << shift)).view(np.float64)
        s = (m - 1.0) / (m + 1.0)
        z = s * s
        tail = _L6 + z * (_L7 + z * (_L8 + z * (_L9 + z * _L10)))
        log_m = 2.0 * s * (1.0 + z * (_L1 + z * (_L2 + z * (_L3 + z * (_L4 + z * (_L5 + z * tail))))))
        log_u = np.float64(n) * 0.6931471805599453 + log_m
        q = r * r
        tail = _S6 + q * (_S7 + q * (_S8 + q * (_S9 + q * (_S10 + q * _S11))))
        sine = r * (1.0 + q * (_S1 + q * (_S2 + q * (_S3 + q * (_S4 + q * (_S5 + q * tail))))))
        return np.sqrt(-2.0 * log_u) * sine

    return run


# ---- noise on flat arrays
#
# One signature for all, so that one driver serves: a stream's start, a threshold, a scale, input, output, a range.


def _signature(dtype: np.dtype) -> tuple:
    return (types.uint64, types.uint64, types.float64, *(vector(dtype),) * 2, types.uint64, types.uint64)


def _mask(start, threshold, scale, x, y, lo, hi):
    """y = scale where the bits reach the threshold, else 0; x is not read."""
    zero, kept = y.dtype.type(0), y.dtype.type(scale)
    for j in range(lo, hi):
        y[j] = kept if bits(start, j) >= threshold else zero


def _dropout(start, threshold, scale, x, y, lo, hi):
    """x times the mask; NaN and infinity times 0 stay visible as NaN."""
    zero, kept = y.dtype.type(0), y.dtype.type(scale)
    for j in range(lo, hi):
        y[j] = x[j] * (kept if bits(start, j) >= threshold else zero)


def _add_normal(start, threshold, scale, x, y, lo, hi):
    """x + scale times a normal number; the threshold is not read."""
    kind = y.dtype.type
    for j in range(lo, hi):
        y[j] = x[j] + kind(scale * normal(bits(start, j)))


mask_function, dropout_function, normal_function = (Function(f, _signature) for f in (_mask, _dropout, _add_normal))


@Entry
def apply_noise(function, start, threshold, scale, x, y):
    """Run ``function(start, threshold, scale, x, y, lo, hi)`` on chunks of two flat arrays."""
    n = y.size
    for chunk in prange((n + CHUNK - 1) // CHUNK):
        lo = np.int64(chunk) * CHUNK
        invoke(function, (start, threshold, scale, x, y, np.uint64(lo), np.uint64(min(lo + CHUNK, n))))


# ---- for Python


def _dropping(rate: float) -> tuple[np.uint64, float]:
    """The threshold below which bits drop an element, and the scale of what is kept."""
    return np.uint64(int(rate * 2.0**64)), 1.0 / (1.0 - rate)


def dropout_mask(key: int, draw: int, rate: float, shape: tuple[int, ...], dtype: Any, threads: int = 1) -> np.ndarray:
    """Mask of inverted dropout: 0 with probability `rate`, else 1 / (1 - rate).

    Parameters
    ----------
    key, draw : int
        The stream; the same two give the same mask, in float32 and in float64.
    rate : float
        In [0, 1).
    shape : tuple of int
        Elements are numbered in C order; element k is the same in every shape.
    dtype : dtype
        float32 or float64.
    threads : int
        Threads to use; the bits do not depend on it.

    Returns
    -------
    ndarray of `shape`

    Examples
    --------
    >>> dropout_mask(0, 1, 0.5, (2, 4), "float32").tolist()
    [[0.0, 2.0, 0.0, 2.0], [2.0, 0.0, 2.0, 0.0]]
    """
    y = np.empty(shape, dtype)
    flat = y.reshape(-1)
    apply_noise(threads, mask_function.handle(y.dtype), stream(key, draw), *_dropping(rate), flat, flat)
    return y


def dropout(key: int, draw: int, rate: float, x: np.ndarray, threads: int = 1) -> np.ndarray:
    """C-contiguous, writable `x` times `dropout_mask` of its shape, as a new array; no mask is stored.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.arange(8.0)
    >>> bool((dropout(3, 1, 0.25, x) == x * dropout_mask(3, 1, 0.25, x.shape, x.dtype)).all())
    True
    """
    y = np.empty_like(x)
    handle = dropout_function.handle(x.dtype)
    apply_noise(threads, handle, stream(key, draw), *_dropping(rate), x.reshape(-1), y.reshape(-1))
    return y


def zoneout(key: int, draw: int, rates: Sequence[float]) -> np.ndarray:
    """The vector by which `elman.kernels.scan` knows zoneout: a stream, a step, a switch, a threshold per state.

    The step (that of the first one in a call) and the switch (1: draw; 0: take the expectation) are 0.

    Examples
    --------
    >>> zoneout(0, 1, [0.5, 0.25])[1:].tolist()
    [0, 0, 9223372036854775808, 4611686018427387904]
    """
    return np.array([stream(key, draw), 0, 0, *(_dropping(rate)[0] for rate in rates)], np.uint64)


def add_normal(key: int, draw: int, stddev: float, x: np.ndarray, threads: int = 1) -> np.ndarray:
    """C-contiguous, writable `x` plus normal numbers of mean 0 and standard deviation `stddev`, as a new array.

    Examples
    --------
    >>> import numpy as np
    >>> add_normal(0, 0, 0.1, np.zeros(3)).round(4).tolist()
    [-0.1397, -0.1029, -0.0808]
    """
    y = np.empty_like(x)
    handle = normal_function.handle(x.dtype)
    apply_noise(threads, handle, stream(key, draw), np.uint64(0), float(stddev), x.reshape(-1), y.reshape(-1))
    return y
