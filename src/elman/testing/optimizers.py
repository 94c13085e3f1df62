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
        config are used. At most 50 accumulation steps.
    seed : int
        Of the random numbers.

    Raises
    ------
    AssertionError
        With the path and both numbers. Checked are, in float32 and float64: the config makes an equal optimizer; a
        saved state continues a trajectory with the same bits; `reset` begins it again with the same bits; gradients of
        zero move nothing but what weight decay moves; a tensor moves as if alone (without a global norm); a frozen
        tensor never moves, nor does its gradient move the others; a gradient that is not finite changes nothing; the
        same bits for any number of threads; 100 steps descend on a quadratic function.

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
        _check_frozen(name, optimizer, start, gradients)
        _check_guard(name, optimizer, start, gradients)
        _check_descent(name, optimizer, start)
    _check_threads(str(optimizer), optimizer, np.random.default_rng([seed, 1]))


def _fresh(optimizer: Optimizer, parameters: np.ndarray, trainable: list[bool] | None = None) -> Optimizer:
    made: Any = type(optimizer).from_config(optimizer.get_config())
    made.build(parameters, np.array([0, parameters.size // 2, parameters.size]), trainable)
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
    o = _fresh(optimizer, start)
    p = _trajectory(o, start, np.zeros((2 * (o.gradient_accumulation_steps or 1), start.size), start.dtype))
    decay = optimizer.weight_decay or 0.0
    # A weighted mean of two equal numbers may differ from them by a rounding.
    overwrites = o.use_ema and o.ema_overwrite_frequency is not None
    if decay == 0 and not overwrites:
        check_same_bits(f"{name}, gradients of zero", [p], [start])
    if decay != 0 and overwrites:
        return
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


def _check_frozen(name: str, optimizer: Optimizer, start: np.ndarray, gradients: np.ndarray) -> None:
    half = start.size // 2
    alone: Any = type(optimizer).from_config(optimizer.get_config())
    alone.build(start[:half], np.array([0, half]))
    expected = _trajectory(alone, start[:half], gradients[:, :half])
    unread = gradients.copy()
    unread[:, half:] = np.nan
    frozen = _fresh(optimizer, start, [True, False])
    p = _trajectory(frozen, start, unread)
    frozen.finalize(p)
    alone.finalize(expected)
    check_same_bits(f"{name}, a frozen tensor", [p[half:]], [start[half:]])
    check_same_bits(f"{name}, a tensor beside a frozen one", [p[:half]], [expected])


def _check_guard(name: str, optimizer: Optimizer, start: np.ndarray, gradients: np.ndarray) -> None:
    o = _fresh(optimizer, start)
    p = _trajectory(o, start, gradients[:3])
    before, state = p.copy(), [*o.state().values()]
    for bad in (np.nan, np.inf):
        g = gradients[3].copy()
        g[-1] = bad
        if o.apply(p, g):
            raise AssertionError(f"{name}: apply takes a gradient with {bad}, and does not return False")
        check_same_bits(f"{name}, after a gradient with {bad}", [p, *o.state().values()], [before, *state])


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
