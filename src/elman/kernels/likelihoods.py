"""Negative log-likelihoods with their derivatives, and the functions around the gamma function that they need.

A row of outputs holds P blocks of k columns, one block per parameter of a distribution; a row of targets holds k. The
loss of a row is the mean over its k targets. The functions are of the kind that `elman.kernels.losses` drives.

No formula here takes the difference of two logarithms of gamma functions: for a distribution close to its limit, normal
or Poisson's, that would leave no digit in float32. With Stirling's remainder

    phi(x) = log Gamma(x) - (x - 1/2) log(x) + x - log(2 pi) / 2  ~  sum_k B_2k / (2k (2k - 1) x^(2k-1))

(DLMF 5.11.1) the large parts cancel on paper instead (Loader, 2000: "Fast and accurate computation of binomial
probabilities"). A sum serves from a least x on; below, x is raised to it by ``Gamma(x + 1) = x Gamma(x)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from elman.jit import force_inlined, inlined, types
from elman.kernels.losses import loss_function
from elman.kernels.pointwise import exp

FLOOR = 1e-6
"""Added to scales and dispersions, so that none underflows and no square of its inverse overflows."""

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
# B_2, B_4, …: as many as float64 needs.
_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)
# By bytes of the float type: terms of a sum, and the least x of a sum, by which a smaller x is raised. The first term
# left out is 3e-9 of the first one for float32, 1e-17 for float64.
_TERMS, _LEAST = {4: 6, 8: 8}, {4: 4, 8: 12}
_STIRLING = [b / (2 * k * (2 * k - 1)) for k, b in enumerate(_BERNOULLI, 1)]
# log Gamma(x + 1/2) - log Gamma(x), by DLMF 5.11.8 with B_2k(1/2) = (2^(1 - 2k) - 1) B_2k.
_HALF_STEP = [c * (0.5 ** (2 * k - 1) - 2) for k, c in enumerate(_STIRLING, 1)]
# log1p(v) = 2 (s + s^3 / 3 + s^5 / 5 + …), s = v / (2 + v), for |v| < 0.4.
_ODD = {4: [1 / (2 * k + 3) for k in range(6)], 8: [1 / (2 * k + 3) for k in range(13)]}


def _slopes(coefficients: list[float]) -> list[float]:
    """Coefficients of the derivative: of c_k / x^(2k-1) it is - (2k - 1) c_k / x^2k."""
    return [-(2 * k - 1) * c for k, c in enumerate(coefficients, 1)]


def _polynomial(coefficients: list[float], kind: Any) -> Callable[..., Any]:
    """The polynomial of these coefficients, lowest first."""
    highest, rest = kind(coefficients[-1]), tuple(kind(c) for c in coefficients[-2::-1])

    def polynomial(x):
        total = highest
        for c in rest:
            total = total * x + c
        return total

    return force_inlined(polynomial)


def _scalar(make: Callable[[Any, int], Callable[..., Any]]) -> Callable[..., Any]:
    """A function of one number from ``make(kind, bytes)``, its body for a float type: plain Python, or inlined."""
    bodies = {size: make(kind, size) for kind, size in ((np.float32, 4), (np.float64, 8))}

    def scalar(x: Any) -> Any:
        return bodies[np.asarray(x).dtype.itemsize](x)

    scalar.__doc__, scalar.__name__ = make.__doc__, make.__name__
    inlined(scalar)(lambda x: bodies[4 if x is types.float32 else 8])
    return scalar


@_scalar
def stirling(kind, size):
    """phi(x) for x > 0."""
    least, half, one, count = kind(_LEAST[size]), kind(0.5), kind(1), _LEAST[size]
    tail = _polynomial(_STIRLING[: _TERMS[size]], kind)

    def run(x):
        z = x + least if x < least else x
        inverse = one / z
        value = inverse * tail(inverse * inverse)
        if x < least:
            product = x
            for k in range(1, count):
                product *= x + kind(k)
            value += ((z - half) * np.log(z) - least) - (x - half) * np.log(x) - np.log(product)
        return value

    return run


@_scalar
def stirling_slope(kind, size):
    """phi'(x) = digamma(x) - log(x) + 1 / (2 x) for x > 0."""
    least, half, one, count = kind(_LEAST[size]), kind(0.5), kind(1), _LEAST[size]
    tail = _polynomial(_slopes(_STIRLING[: _TERMS[size]]), kind)

    def run(x):
        z = x + least if x < least else x
        inverse = one / z
        square = inverse * inverse
        value = square * tail(square)
        if x < least:
            total = -half / x
            for k in range(1, count):
                total -= one / (x + kind(k))
            value += np.log(z / x) - half * inverse + total
        return value

    return run


@_scalar
def half_step(kind, size):
    """Log Gamma(x + 1/2) - log Gamma(x) - log(x) / 2 for x > 0, with full relative accuracy.

    Raising x by 1 adds log1p(1 / (4 x (x + 1))) / 2.
    """
    least, quarter, half, one, count = kind(_LEAST[size]), kind(0.25), kind(0.5), kind(1), _LEAST[size]
    tail = _polynomial(_HALF_STEP[: _TERMS[size]], kind)

    def run(x):
        z = x + least if x < least else x
        inverse = one / z
        value = inverse * tail(inverse * inverse)
        if x < least:
            # The product of all 1 + 1 / (4 a (a + 1)), less 1.
            excess = kind(0)
            for k in range(count):
                a = x + kind(k)
                part = quarter / (a * (a + one))
                excess += part + excess * part
            value -= half * np.log1p(excess)
        return value

    return run


@_scalar
def half_step_slope(kind, size):
    """Derivative of `half_step`, with full relative accuracy."""
    least, quarter, half, one, count = kind(_LEAST[size]), kind(0.25), kind(0.5), kind(1), _LEAST[size]
    tail = _polynomial(_slopes(_HALF_STEP[: _TERMS[size]]), kind)

    def run(x):
        z = x + least if x < least else x
        square = one / (z * z)
        value = square * tail(square)
        if x < least:
            for k in range(count):
                a = x + kind(k)
                value += quarter / (a * (a + half) * (a + one))
        return value

    return run


def _deviance_of(kind: Any, size: int) -> Callable[..., Any]:
    two, limit, series = kind(2), kind(0.4), _polynomial(_ODD[size], kind)

    def run(x, m, d):
        v = d / x
        if abs(v) < limit:
            s = v / (two + v)
            # v - log1p(v): neither v nor log1p(v) is left to cancel.
            return x * (s * v - two * s * s * s * series(s * s))
        return d - x * np.log(m / x)

    return run


_DEVIANCE = {4: _deviance_of(np.float32, 4), 8: _deviance_of(np.float64, 8)}


def deviance(x: Any, m: Any, d: Any) -> Any:
    """x log(x / m) + m - x for x, m > 0, given d = m - x: about d^2 / (2 x) where d is small, without cancellation."""
    return _DEVIANCE[np.asarray(x).dtype.itemsize](x, m, d)


@inlined(deviance)
def _deviance_compiled(x, m, d):
    return _DEVIANCE[4 if x is types.float32 else 8]


@force_inlined
def _softplus(x, kind):
    """log(1 + e^x) and its derivative, the sigmoid; the quotient of both stays exact for x of any size."""
    zero, one = kind(0), kind(1)
    u = exp(-abs(x))
    return (zero if x < 0 else x) + np.log1p(u), (u if x < 0 else one) / (one + u)


@loss_function
def gaussian(y, p, options, columns, lo, hi, losses, gradient):
    """log(2 pi) / 2 + log(s) + z^2 / 2, z = (y - m) / s; blocks m and r, s = softplus(r) + FLOOR."""
    kind = options.dtype.type
    half, one, floor, constant = kind(0.5), kind(1), kind(FLOOR), kind(_HALF_LOG_2PI)
    k = columns // np.uint64(2)
    share = one / kind(k)
    for i in range(lo, hi):
        start, loss = i * columns, kind(0)
        for c in range(start, start + k):
            s, slope = _softplus(p[c + k], kind)
            s += floor
            z = (y[i * k + (c - start)] - p[c]) / s
            loss += constant + np.log(s) + half * z * z
            gradient[c] = -share * (z / s)
            gradient[c + k] = share * slope * ((one - z * z) / s)
        losses[i] = loss * share


@loss_function
def student_t(y, p, options, columns, lo, hi, losses, gradient):
    """log(2 pi) / 2 - half_step(v / 2) + log(s) + (v + 1) / 2 log1p(z^2 / v), z = (y - m) / s.

    Blocks m, r and q; s = softplus(r) + FLOOR, v = 2 + softplus(q).
    """
    kind = options.dtype.type
    half, one, two, floor, constant = kind(0.5), kind(1), kind(2), kind(FLOOR), kind(_HALF_LOG_2PI)
    large = kind(1e30)
    k = columns // np.uint64(3)
    share = one / kind(k)
    for i in range(lo, hi):
        start, loss = i * columns, kind(0)
        for c in range(start, start + k):
            s, scale_slope = _softplus(p[c + k], kind)
            v, freedom_slope = _softplus(p[c + k + k], kind)
            s += floor
            v += two
            z = (y[i * k + (c - start)] - p[c]) / s
            ratio = z * z / v
            log_ratio, x = np.log1p(ratio), half * v
            # (v + 1) z^2 / (v + z^2), which an infinite z^2 makes v + 1.
            pull = (v + one) * (one if ratio > large else ratio / (one + ratio))
            loss += constant - half_step(x) + np.log(s) + half * (v + one) * log_ratio
            gradient[c] = -share * ((v + one) * (z / (v + z * z)) / s)
            gradient[c + k] = share * scale_slope * ((one - pull) / s)
            gradient[c + k + k] = share * freedom_slope * (half * (log_ratio - half_step_slope(x) - pull / v))
        losses[i] = loss * share


@loss_function
def negative_binomial(y, p, options, columns, lo, hi, losses, gradient):
    """- log of Gamma(y + n) / (Gamma(n) y!) (n / (n + m))^n (m / (n + m))^y, n = 1 / a.

    Blocks of m and a: m = softplus, a = softplus + FLOOR. With D the deviance, for y > 0 it is

        D(y, m) - D(n + y, n + m) + log(2 pi y (1 + a y)) / 2 + phi(y) + phi(n) - phi(n + y)
    """
    kind = options.dtype.type
    half, one, floor, constant = kind(0.5), kind(1), kind(FLOOR), kind(_HALF_LOG_2PI)
    k = columns // np.uint64(2)
    share = one / kind(k)
    for i in range(lo, hi):
        start, loss = i * columns, kind(0)
        for c in range(start, start + k):
            m, mean_slope = _softplus(p[c], kind)
            a, slope = _softplus(p[c + k], kind)
            a += floor
            count = y[i * k + (c - start)]
            n, d = one / a, m - count
            spread, wide = one + a * m, one + a * count
            apart = deviance(n + count, n + m, d)
            if count > 0:
                loss += deviance(count, m, d) - apart + constant + half * np.log(count * wide)
                loss += stirling(count) + (stirling(n) - stirling(n + count))
            else:
                loss += n * np.log1p(a * m)
            gradient[c] = share * (mean_slope / m) * (d / spread)
            change = n * (apart / wide) - (d / wide) * (d / spread) + half * count / wide
            change += n * n * (stirling_slope(n + count) - stirling_slope(n))
            gradient[c + k] = share * slope * change
        losses[i] = loss * share


@loss_function
def poisson(y, p, options, columns, lo, hi, losses, gradient):
    """- log of m^y e^-m / y! = D(y, m) + log(2 pi y) / 2 + phi(y) for y > 0; m = softplus + FLOOR."""
    kind = options.dtype.type
    half, floor, constant = kind(0.5), kind(FLOOR), kind(_HALF_LOG_2PI)
    share = kind(1) / kind(columns)
    for i in range(lo, hi):
        start, loss = i * columns, kind(0)
        for c in range(start, start + columns):
            m, slope = _softplus(p[c], kind)
            m += floor
            count = y[c]
            d = m - count
            if count > 0:
                loss += deviance(count, m, d) + constant + half * np.log(count) + stirling(count)
            else:
                loss += m
            gradient[c] = share * slope * (d / m)
        losses[i] = loss * share
