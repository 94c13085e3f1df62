"""Comparisons that name the path and show both numbers, and directional derivatives that notice kinks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def check_close(what: str, got: np.ndarray, expected: np.ndarray, budget: float) -> None:
    """AssertionError unless ``|got - expected| <= budget * max(1, max |expected|)`` everywhere.

    Examples
    --------
    >>> check_close("outputs", np.ones(2), np.array([1.0, 1.5]), 1e-6)
    Traceback (most recent call last):
    AssertionError: outputs: got 1.0 where 1.5 is expected, at (1,); difference 0.5, allowed 1.5e-06
    """
    got, expected = np.asarray(got), np.asarray(expected)
    if got.shape != expected.shape:
        raise AssertionError(f"{what}: got shape {got.shape} where {expected.shape} is expected")
    if not got.size:
        return
    error = np.abs(got.astype(np.float64) - expected)
    allowed = budget * max(1.0, float(np.abs(expected).max()))
    if not (error <= allowed).all():
        # argmax takes a NaN for the largest.
        at = tuple(int(i) for i in np.unravel_index(np.argmax(error), error.shape))
        raise AssertionError(
            f"{what}: got {got[at]} where {expected[at]} is expected, at {at}; difference {error[at]:.3g}, "
            f"allowed {allowed:.3g}"
        )


def check_same_bits(what: str, got: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> None:
    """AssertionError unless the arrays of two lists agree to the bit; any NaN equals any NaN.

    Examples
    --------
    >>> check_same_bits("two threads", [np.zeros(2)], [np.zeros(2)])
    """
    for k, (a, b) in enumerate(zip(got, expected, strict=True)):
        differs = (a != b) & ~(np.isnan(a) & np.isnan(b))
        if differs.any():
            at = tuple(int(i) for i in np.argwhere(differs)[0])
            raise AssertionError(
                f"{what}: array {k} differs in {int(differs.sum())} of {a.size} values, the first at {at}: got "
                f"{a[at]!r} where {b[at]!r} is expected to the bit"
            )


# Where two estimates that reach differently far agree to a tenth of the tolerance, no kink lies between.
_STEPS = (1e-3, 1e-4, 1e-5, 1e-6)


def check_derivative(
    what: str, function: Callable[[float], float], analytic: float, scale: float, tolerance: float
) -> None:
    """AssertionError unless `analytic` is the derivative of `function` at 0.

    Parameters
    ----------
    what : str
        Begins the message.
    function : callable
        The value at a step from the point in question; smooth but for kinks.
    analytic : float
        The claimed derivative.
    scale : float
        Size of a typical derivative there, so that one that happens to vanish is not judged by its own size.
    tolerance : float
        Allowed difference, relative to the largest of the two numbers and `scale`.

    Notes
    -----
    Central differences of fourth order, from steps h / 2 and h, and from h and 2 h. They disagree where a kink of an
    activation lies between; h then shrinks.

    Examples
    --------
    >>> check_derivative("sine", lambda t: np.sin(t), 1.0, 1.0, 1e-9)
    """
    if not np.isfinite(analytic) or not np.isfinite(scale):
        raise AssertionError(f"{what}: the gradient gives {analytic!r} in a random direction, its size is {scale!r}")
    tried = []
    for h in _STEPS:
        near, middle, far = ((function(k * h) - function(-k * h)) / (2 * k * h) for k in (0.5, 1, 2))
        first, second = (4 * near - middle) / 3, (4 * middle - far) / 3
        size = max(abs(first), abs(analytic), scale)
        tried.append(first)
        if abs(first - second) <= 0.1 * tolerance * size:
            if not abs(first - analytic) <= tolerance * size:
                raise AssertionError(
                    f"{what}: the gradient gives {analytic!r} in a random direction, central differences "
                    f"{first!r}; relative difference {abs(first - analytic) / size:.3g}, allowed {tolerance:g}"
                )
            return
    raise AssertionError(
        f"{what}: no central difference settles, for steps {_STEPS} they are {tried}; the gradient gives {analytic!r}"
    )


def random_direction(rng: np.random.Generator, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Normal numbers in the shapes of `arrays`, all together of norm 1.

    Examples
    --------
    >>> [v.shape for v in random_direction(np.random.default_rng(0), [np.zeros((2, 3)), np.zeros(4)])]
    [(2, 3), (4,)]
    """
    direction = [rng.standard_normal(a.shape) for a in arrays]
    norm = np.sqrt(sum(np.vdot(v, v) for v in direction))
    return [v / norm for v in direction]


def norm_of(arrays: Sequence[np.ndarray]) -> float:
    """Euclidean norm of all arrays together.

    Examples
    --------
    >>> norm_of([np.array([3.0]), np.array([4.0])])
    5.0
    """
    return float(np.sqrt(sum(np.vdot(a, a) for a in arrays)))
