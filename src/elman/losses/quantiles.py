"""Quantiles of distributions: the inverse of Student's t, and searches for those of counts.

Continued fractions are evaluated by the method of Lentz, modified by Thompson and Barnett (Press et al., Numerical
Recipes, section 5.2); they take about the square root of the smaller parameter of terms.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.polynomial.laguerre import laggauss
from numpy.polynomial.legendre import leggauss

# Elements at a time, so that the terms of a quadrature take 2 MB.
_CHUNK = 4096
# The tail begins where y > 1 for any v: with 64 nodes its error is 3e-14 of the tail, with 40 nodes 2e-11.
_TAIL, _TAIL_NODES, _CENTRE_NODES = 0.07, 64, 32
# Of normal numbers: with as many degrees of freedom nothing else is left, and y / v does not underflow.
_MOST_FREEDOM = 1e30
# Mean above which a count is as good as continuous. Fractions would lose its digits, or take more than 1e4 terms.
_LARGE_MEAN = 1e8
# Dispersion above which all but 1e-27 of a distribution is at 0.
_MOST_DISPERSION = 1e30

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_lgamma = np.vectorize(math.lgamma, otypes=[np.float64])


# ---- Student's t
#
# With y = v / 2 log(1 + t^2 / v), which is t^2 / 2 for the normal distribution, the probability of more than t is
# proportional to the integral from y on of e^-y h(y), h(y) = 1 / sqrt(v (1 - e^(-2 y / v))). That is smooth but for
# y = 0, where y = r^2 takes away the root. Both quadratures are Gauss's; their sum over all y gives the factor.


@cache
def _nodes() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    x, w = leggauss(_CENTRE_NODES)
    return *laggauss(_TAIL_NODES), (x + 1) / 2, w / 2


def _density(v: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The function h."""
    return 1 / np.sqrt(-v * np.expm1(-2 * y / v))


def _beyond(v: np.ndarray, y: np.ndarray) -> np.ndarray:
    """e^y times the integral of e^-y h(y) from y > 1 to infinity; v and y are (n,)."""
    z, w, _, _ = _nodes()
    return (w * _density(v[:, None], y[:, None] + z)).sum(axis=1)


def _slope(v: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Derivative of `_within`."""
    r = np.maximum(r, 1e-100)
    return 2 * r * np.exp(-r * r) * _density(v, r * r)


def _within(v: np.ndarray, r: np.ndarray) -> np.ndarray:
    """The integral of e^-y h(y) from 0 to r^2."""
    _, _, z, w = _nodes()
    return r * (w * _slope(v[:, None], r[:, None] * z)).sum(axis=1)


def _half_quantile(v: np.ndarray, p: float) -> np.ndarray:
    """t >= 0 that Student's t with v (n,) degrees of freedom exceeds with probability p <= 1/2."""
    one = np.ones_like(v)
    factor = 0.5 / (_within(v, 1.25 * one) + np.exp(-(1.25**2)) * _beyond(v, 1.25**2 * one))
    if p < _TAIL:
        y = np.full_like(v, -math.log(4 * p))
        # The logarithm of the tail is nearly a line. Newton's method converges from the left in any case.
        for _ in range(20):
            beyond = _beyond(v, y)
            step = (np.log(factor * beyond) - y - math.log(p)) * beyond / _density(v, y)
            y = np.maximum(y + step, 1.0)
            if (abs(step) <= 1e-14 * y).all():
                break
    else:
        # The integral is concave: from the left Newton's method never passes the solution.
        wanted = (0.5 - p) / factor
        r = wanted / math.sqrt(2)
        for _ in range(20):
            step = (wanted - _within(v, r)) / _slope(v, r)
            r = r + step
            if (abs(step) <= 1e-15 * r).all():
                break
        y = r * r
    return np.sqrt(v * np.expm1(2 * y / v))


def student_quantile(df: np.ndarray, level: float) -> np.ndarray:
    """Value that Student's t with `df` >= 2 degrees of freedom stays below with probability `level`, in float64.

    The relative error is about 1e-13; of a level near 1, that which its rounding causes.

    Examples
    --------
    >>> student_quantile(np.array([2.0, 10.0]), 0.975).round(4).tolist()
    [4.3027, 2.2281]
    """
    p = min(level, 1 - level)
    flat = np.minimum(df, _MOST_FREEDOM).reshape(-1)
    parts = [_half_quantile(flat[k : k + _CHUNK], p) for k in range(0, flat.size, _CHUNK)]
    t = np.concatenate(parts).reshape(df.shape)
    return t if level >= 0.5 else -t


# ---- counts


def _fraction(first: np.ndarray, term: Callable[[int], tuple[np.ndarray, np.ndarray | float]]) -> np.ndarray:
    """``first + a_1 / (b_1 + a_2 / (b_2 + ...))`` with ``a_k, b_k = term(k)``; the parts converge together."""
    value, c, d, tiny = first, first, np.zeros_like(first), 1e-300
    k = 0
    while True:
        k += 1
        a, b = term(k)
        d = b + a * d
        d = 1 / np.where(d == 0, tiny, d)
        c = b + a / c
        c = np.where(c == 0, tiny, c)
        value = value * (c * d)
        if not (abs(c * d - 1) > 1e-14).any():
            return value


def _beta_fraction(a: np.ndarray, b: np.ndarray, x: np.ndarray) -> np.ndarray:
    """``a B(a, b) I_x(a, b) / (x^a (1 - x)^b)`` for x < (a + 1) / (a + b + 2), by DLMF 8.17.22."""

    def term(k: int) -> tuple[np.ndarray, float]:
        m, odd = divmod(k, 2)
        if odd:
            return -(a + m) * ((a + b + m) * x) / ((a + 2 * m) * (a + 2 * m + 1)), 1.0
        return m * ((b - m) * x) / ((a + 2 * m - 1) * (a + 2 * m)), 1.0

    return 1 / _fraction(np.ones_like(x), term)


def _remainder(x: np.ndarray) -> np.ndarray:
    """Stirling's remainder of log Gamma(x), x > 0; see `elman.kernels.likelihoods`."""
    square = 1 / (x * x)
    series = (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square / 1680))) / x
    small = np.clip(x, 1e-300, 32)
    exact = _lgamma(small) - (small - 0.5) * np.log(small) + small - _HALF_LOG_2PI
    return np.where(x < 32, exact, series)  # from 32 on the first term left out is 2e-17


def _deviance(x: np.ndarray, m: np.ndarray, d: np.ndarray) -> np.ndarray:
    """x log(x / m) + m - x for x > 0, d = m - x: with an error of about 1e-16 d."""
    return d - x * np.log1p(d / x)


def poisson_mass(k: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Probability of k under Poisson's distribution.

    Examples
    --------
    >>> poisson_mass(np.array([0.0, 2.0]), np.array([1.0, 1.0])).round(4).tolist()
    [0.3679, 0.1839]
    """
    x = np.maximum(k, 1)
    nll = _deviance(x, mean, mean - x) + _HALF_LOG_2PI + 0.5 * np.log(x) + _remainder(x)
    return np.exp(-np.where(k > 0, nll, mean))


def poisson_cdf(k: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Probability of at most k >= 0 under Poisson's distribution.

    Examples
    --------
    >>> poisson_cdf(np.array([0.0, 2.0]), np.array([1.0, 1.0])).round(4).tolist()
    [0.3679, 0.9197]
    """
    a, mass = k + 1, poisson_mass(k, mean)
    above = mean < k + 2
    # Where the other side is meant, numbers for which the fraction ends at once.
    m, shape = np.where(above, mean, 0), a

    def term(i: int) -> tuple[np.ndarray, float]:
        half, odd = divmod(i, 2)
        if odd:
            return -(shape + half) * m / ((shape + 2 * half) * (shape + 2 * half + 1)), 1.0
        return half * m / ((shape + 2 * half - 1) * (shape + 2 * half)), 1.0

    upper = mass * mean / a / _fraction(np.ones_like(m), term)  # of more than k: the limit of `_beta_fraction`
    x, shape_below = np.where(above, 2.0, mean), np.where(above, 1.0, a)
    lower = (
        mass
        * mean
        / _fraction(  # DLMF 8.9.2
            x + 1 - shape_below, lambda i: (-i * (i - shape_below), x + 2 * i + 1 - shape_below)
        )
    )
    return np.where(above, 1 - upper, lower)


def negative_binomial_mass(k: np.ndarray, mean: np.ndarray, dispersion: np.ndarray) -> np.ndarray:
    """Probability of k under the negative binomial distribution.

    Examples
    --------
    >>> negative_binomial_mass(np.array([2.0]), np.array([1.0]), np.array([1.0])).round(4).tolist()
    [0.125]
    """
    x, n = np.maximum(k, 1), 1 / dispersion
    d = x - mean
    # The difference of two deviances, of which both may be large.
    nll = x * np.log1p(n / (n + x) * (d / mean)) - n * np.log1p(d / (n + mean))
    nll += _HALF_LOG_2PI + 0.5 * np.log(x * (1 + dispersion * x)) + _remainder(x) + (_remainder(n) - _remainder(n + x))
    return np.exp(-np.where(k > 0, nll, n * np.log1p(dispersion * mean)))


def negative_binomial_cdf(k: np.ndarray, mean: np.ndarray, dispersion: np.ndarray) -> np.ndarray:
    """Probability of at most k >= 0 under the negative binomial distribution.

    Examples
    --------
    >>> negative_binomial_cdf(np.array([2.0]), np.array([1.0]), np.array([1.0])).round(4).tolist()
    [0.875]
    """
    n, a = 1 / dispersion, k + 1
    p, rest = 1 / (1 + dispersion * mean), dispersion * mean / (1 + dispersion * mean)
    # I_p(n, k + 1), or 1 - I_{1-p}(k + 1, n): whose fraction converges.
    above = p >= (n + 1) / (n + a + 2)
    fraction = _beta_fraction(*(np.where(above, x, y) for x, y in ((a, n), (n, a), (rest, p))))
    side = negative_binomial_mass(k, mean, dispersion) * (n + k) * rest / np.where(above, a, n) * fraction
    return np.where(above, 1 - side, side)


def count_quantile(
    cdf: Callable[..., np.ndarray], level: float, mean: np.ndarray, variance: np.ndarray, *more: np.ndarray
) -> np.ndarray:
    """The least k with ``cdf(k, mean, *more) >= level``, by bisection between the bounds of Cantelli's inequality.

    Examples
    --------
    >>> count_quantile(poisson_cdf, 0.9, np.array([1.0, 30.0]), np.array([1.0, 30.0])).tolist()
    [2.0, 37.0]
    """
    ratio = math.sqrt(level / (1 - level))
    least = level - 1e-13 * min(level, 1 - level)  # a level that only rounding keeps from a count is reached
    deviation = np.sqrt(variance)
    low = np.maximum(np.floor(mean - deviation / ratio), 0) - 1
    high = np.ceil(mean + deviation * ratio)
    while True:
        middle = np.floor((low + high) / 2)
        undecided = (middle > low) & (middle < high)
        if not undecided.any():
            return high
        k = middle[undecided]
        reached = cdf(k, *(p[undecided] for p in (mean, *more))) >= least
        high[undecided] = np.where(reached, k, high[undecided])
        low[undecided] = np.where(reached, low[undecided], k)


def poisson_quantile(mean: np.ndarray, level: float) -> np.ndarray:
    """The least k that a count of Poisson's distribution exceeds with a probability of at most ``1 - level``.

    Exact for means up to 1e8, off by at most one above.

    Examples
    --------
    >>> poisson_quantile(np.array([1.0, 1e10]), 0.5).tolist()
    [1.0, 10000000000.0]
    """
    from statistics import NormalDist  # see `GaussianNLL`

    z = NormalDist().inv_cdf(level)
    small = np.minimum(mean, _LARGE_MEAN)
    large = np.ceil(mean + z * np.sqrt(mean) + (z * z - 4) / 6)  # Cornish and Fisher, less a half for continuity
    return np.where(mean > _LARGE_MEAN, large, count_quantile(poisson_cdf, level, small, small))


def negative_binomial_quantile(mean: np.ndarray, dispersion: np.ndarray, level: float) -> np.ndarray:
    """The least k that a negative binomial count exceeds with a probability of at most ``1 - level``.

    Exact for means up to 1e8, but where the probability differs from `level` by less than 1e-9; above that, within 1e-7
    of the mean.

    Examples
    --------
    >>> negative_binomial_quantile(np.array([1.0, 1e10]), np.array([1.0, 1e-6]), 0.9).round(-8).tolist()
    [0.0, 10000000000.0]
    """
    small = np.clip(mean, 1e-300, _LARGE_MEAN)
    scale = np.maximum(mean / _LARGE_MEAN, 1)
    # A large count divided by its mean has a distribution of its relative variance alone, 1 / m + a.
    spread = np.minimum(
        dispersion + np.where(scale > 1, 1 / np.maximum(mean, 1) - 1 / _LARGE_MEAN, 0), _MOST_DISPERSION
    )
    found = count_quantile(negative_binomial_cdf, level, small, small + spread * small**2, spread)
    return np.floor(found * scale)
