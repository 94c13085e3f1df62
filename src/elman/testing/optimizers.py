"""The battery of an optimizer: what holds for any of them, whatever its formula."""

from __future__ import annotations

from typing import Any

import numpy as np

from elman.jit import maximum_threads
from elman.optimizer import Optimizer
from elman.testing.compare import check_close, check_same_bits
from elman.threads import num_threads

# More than the 65536 parameters from which on updates run in parallel; no multiple of any chunk or vector.
_LARGE = 100_003
_STEPS = 100


def check_optimizer(optimizer: Optimizer, *, seed: int = 0) -> None:
    """Check what any optimizer must satisfy. Its formula needs a test of its own, against numbers or a twin.

    Parameters
    ----------
    optimizer : Optimizer
        Of your own, or from `elman.optimizers`, with a learning rate above 0. It is not changed: copies made from its
        config are used.
    seed : int
        Of the random numbers.

    Raises
    ------
    AssertionError
        With the path and both numbers. Checked are, in float32 and float64: the config makes an equal optimizer; a
        saved state continues a trajectory with the same bits; `reset` begins it again with the same bits; gradients of
        zero move nothing but what weight decay moves; a pair of parameters moves as if alone (without a global
        norm); the same bits for any number of threads; 100 steps descend on a quadratic function.

    Examples
    --------
    >>> from elman.optimizers import SGD
    >>> from elman.testing import check_optimizer
    >>> check_optimizer(SGD(0.1, momentum=0.9))
    """
    config = optimizer.get_config()
    if type(optimizer).from_config(config).get_config() != config:
        raise AssertionError(f"{optimizer}: from_config(get_config()) makes another optimizer")
    for dtype in (np.float32, np.float64):
        name = f"{optimizer}, {np.dtype(dtype).name}"
        rng = np.random.default_rng(seed)
        start = rng.standard_normal(40).astype(dtype)
        gradients = rng.standard_normal((6, 40)).astype(dtype)
        _check_state(name, optimizer, start, gradients)
        _check_zero_gradients(name, optimizer, start)
        _check_independence(name, optimizer, start, gradients)
        _check_descent(name, optimizer, start)
    _check_threads(str(optimizer), optimizer, np.random.default_rng([seed, 1]))


def _fresh(optimizer: Optimizer, parameters: np.ndarray) -> Optimizer:
    made: Any = type(optimizer).from_config(optimizer.get_config())
    made.build(parameters, np.array([0, parameters.size // 2, parameters.size]))
    return made


def _trajectory(optimizer: Optimizer, start: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    p = start.copy()
    for g in gradients:
        optimizer.apply(p, g.copy())
    return p


def _check_state(name: str, optimizer: Optimizer, start: np.ndarray, gradients: np.ndarray) -> None:
    half = len(gradients) // 2
    one, other = _fresh(optimizer, start), _fresh(optimizer, start)
    middle = _trajectory(one, start, gradients[:half])
    saved = one.state()
    end = _trajectory(one, middle, gradients[half:])
    other.set_state(saved)
    check_same_bits(f"{name}, continued from a saved state", [_trajectory(other, middle, gradients[half:])], [end])
    check_same_bits(f"{name}, state of the continued run", [*other.state().values()], [*one.state().values()])
    one.reset()
    check_same_bits(f"{name}, after reset", [_trajectory(one, start, gradients)], [end])


def _check_zero_gradients(name: str, optimizer: Optimizer, start: np.ndarray) -> None:
    p = _trajectory(_fresh(optimizer, start), start, np.zeros((2, start.size), start.dtype))
    decay = optimizer.weight_decay or 0.0
    if decay == 0:
        check_same_bits(f"{name}, gradients of zero", [p], [start])
    shrunk = start.astype(np.float64) * (1 - optimizer.learning_rate * decay) ** 2
    check_close(f"{name}, gradients of zero with weight decay", p, shrunk, 4 * float(np.finfo(p.dtype).eps))


def _check_independence(name: str, optimizer: Optimizer, start: np.ndarray, gradients: np.ndarray) -> None:
    """Values of one tensor never enter the update of another, unless one norm is taken over all."""
    if optimizer.global_clipnorm is not None:
        return
    changed = gradients.copy()
    changed[:, start.size // 2 :] *= -2
    kept = slice(0, start.size // 2)
    a, b = (_trajectory(_fresh(optimizer, start), start, g) for g in (gradients, changed))
    check_same_bits(f"{name}, a tensor beside one with other gradients", [b[kept]], [a[kept]])


def _check_descent(name: str, optimizer: Optimizer, start: np.ndarray) -> None:
    """f(p) = sum a p^2 / 2 with curvatures a from 0.5 to 2."""
    curvature = np.linspace(0.5, 2, start.size, dtype=start.dtype)
    o, p = _fresh(optimizer, start), start.copy()
    before = float(np.vdot(curvature, p * p) / 2)
    for _ in range(_STEPS):
        o.apply(p, curvature * p)
    after = float(np.vdot(curvature, p * p) / 2)
    if not after < before:
        raise AssertionError(f"{name}: {_STEPS} steps on a quadratic function lead from {before} to {after}, not down")


def _check_threads(name: str, optimizer: Optimizer, rng: np.random.Generator) -> None:
    start = rng.standard_normal(_LARGE).astype(np.float32)
    gradients = rng.standard_normal((3, _LARGE)).astype(np.float32)
    results = []
    for threads in range(1, min(3, maximum_threads()) + 1):
        o = _fresh(optimizer, start)
        with num_threads(threads):
            p = _trajectory(o, start, gradients)
        results.append([p, *o.state().values()])
        check_same_bits(f"{name}, {threads} threads against 1", results[-1], results[0])
