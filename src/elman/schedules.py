"""Schedules: the learning rate as a function of the step. The registry is `SCHEDULES`.

A schedule is a frozen dataclass whose fields are its arguments, with the names and formulas of Keras 3. It is called
with the number of steps done before, from 0 on, and given to an optimizer as its `learning_rate`.
"""

from __future__ import annotations

import bisect
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Any

from elman import registry
from elman.checks import integer
from elman.errors import BadType, BadValue

__all__ = [
    "SCHEDULES",
    "CosineDecay",
    "CosineDecayRestarts",
    "ExponentialDecay",
    "InverseTimeDecay",
    "LearningRateSchedule",
    "PiecewiseConstantDecay",
    "PolynomialDecay",
    "get",
    "serialize",
]

_BOOLEAN = ("staircase", "cycle")
# Least value, and whether it is excluded.
_RANGES: dict[str, tuple[float, bool]] = {
    "initial_learning_rate": (0, False),
    "end_learning_rate": (0, False),
    "warmup_target": (0, False),
    "decay_steps": (0, True),
    "first_decay_steps": (0, True),
    "warmup_steps": (0, False),
    "decay_rate": (0, False),
    "power": (0, False),
    "alpha": (0, False),
    "t_mul": (1, False),
    "m_mul": (0, False),
}


@dataclass(frozen=True)
class LearningRateSchedule(ABC):
    """Abstract schedule. Of your own: a frozen dataclass with `at`, entered in `SCHEDULES` if it is to be loaded.

    Raises
    ------
    TypeError, ValueError
        For an argument of a wrong type or out of its range.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> from elman.optimizers import SGD
    >>> from elman.schedules import LearningRateSchedule
    >>> @dataclass(frozen=True)
    ... class Harmonic(LearningRateSchedule):
    ...     first: float
    ...
    ...     def at(self, step):
    ...         return self.first / (step + 1)
    >>> SGD(Harmonic(0.5)).learning_rate
    0.5
    """

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name in _BOOLEAN:
                if not isinstance(value, bool):
                    raise BadType(f"{f.name}: expected True or False, got {type(value).__name__} {value!r}")
            elif f.name in _RANGES and not (value is None and f.default is None):
                low, open_low = _RANGES[f.name]
                object.__setattr__(self, f.name, registry.number(f.name, value, low, open_low=open_low))

    @abstractmethod
    def at(self, step: int) -> float:
        """Learning rate of the update that `step` others came before."""

    def __call__(self, step: int) -> float:
        """Learning rate of the update that `step` others came before.

        Parameters
        ----------
        step : int
            >= 0.

        Returns
        -------
        float
            Infinity where the formula exceeds float64; an optimizer refuses to step with it.

        Raises
        ------
        TypeError, ValueError
            If `step` is not an integer, or negative.
        """
        count = integer("step", step, 0)
        try:
            return float(self.at(count))
        except OverflowError:
            return math.inf

    def get_config(self) -> dict[str, Any]:
        """Arguments that make an equal schedule; JSON can hold them."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


@dataclass(frozen=True)
class ExponentialDecay(LearningRateSchedule):
    """``initial_learning_rate decay_rate^(step / decay_steps)``.

    Parameters
    ----------
    initial_learning_rate : float
        >= 0.
    decay_steps : float
        > 0.
    decay_rate : float
        >= 0.
    staircase : bool
        Round the exponent down, so that the rate changes every `decay_steps` only.

    Examples
    --------
    >>> from elman.schedules import ExponentialDecay
    >>> ExponentialDecay(0.1, decay_steps=10, decay_rate=0.5)(20)
    0.025
    """

    initial_learning_rate: float
    decay_steps: float
    decay_rate: float
    staircase: bool = False

    def at(self, step: int) -> float:
        t = step / self.decay_steps
        return self.initial_learning_rate * self.decay_rate ** (math.floor(t) if self.staircase else t)


@dataclass(frozen=True)
class PiecewiseConstantDecay(LearningRateSchedule):
    """``values[0]`` up to and including step ``boundaries[0]``, then ``values[1]`` up to ``boundaries[1]``, and so on.

    Parameters
    ----------
    boundaries : sequence of float
        At least one, strictly ascending, >= 0.
    values : sequence of float
        One more than boundaries, >= 0.

    Examples
    --------
    >>> from elman.schedules import PiecewiseConstantDecay
    >>> rate = PiecewiseConstantDecay([100, 200], [0.1, 0.01, 0.001])
    >>> rate(100), rate(101), rate(1000)
    (0.1, 0.01, 0.001)
    """

    boundaries: tuple[float, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("boundaries", "values"):
            given = getattr(self, name)
            try:
                numbers = () if isinstance(given, str) else tuple(given)
            except TypeError:
                raise BadType(f"{name}: expected a sequence of numbers, got {given!r}") from None
            object.__setattr__(self, name, tuple(registry.number(name, number, 0) for number in numbers))
        if not self.boundaries or any(b <= a for a, b in pairwise(self.boundaries)):
            raise BadValue(f"boundaries: expected strictly ascending numbers, got {list(self.boundaries)}")
        wanted = len(self.boundaries) + 1
        if len(self.values) != wanted:
            raise BadValue(f"values: expected {wanted} numbers, one more than boundaries, got {len(self.values)}")

    def at(self, step: int) -> float:
        return self.values[bisect.bisect_left(self.boundaries, step)]


@dataclass(frozen=True)
class PolynomialDecay(LearningRateSchedule):
    """``(initial_learning_rate - end_learning_rate) (1 - step / decay_steps)^power + end_learning_rate``.

    Parameters
    ----------
    initial_learning_rate, end_learning_rate : float
        >= 0. The end is reached at `decay_steps` and held.
    decay_steps : float
        > 0.
    power : float
        >= 0; 1 is a straight line.
    cycle : bool
        Instead of holding the end, decay to it again and again, from ever lower beginnings: `decay_steps` counts as
        its least multiple that is not below `step`.

    Examples
    --------
    >>> from elman.schedules import PolynomialDecay
    >>> PolynomialDecay(0.5, decay_steps=10, end_learning_rate=0.25)(5)
    0.375
    """

    initial_learning_rate: float
    decay_steps: float
    end_learning_rate: float = 0.0001
    power: float = 1.0
    cycle: bool = False

    def at(self, step: int) -> float:
        t = step / self.decay_steps
        t = t / max(math.ceil(t), 1) if self.cycle else min(t, 1.0)
        return (self.initial_learning_rate - self.end_learning_rate) * (1 - t) ** self.power + self.end_learning_rate


@dataclass(frozen=True)
class InverseTimeDecay(LearningRateSchedule):
    """``initial_learning_rate / (1 + decay_rate step / decay_steps)``.

    Parameters
    ----------
    initial_learning_rate : float
        >= 0.
    decay_steps : float
        > 0.
    decay_rate : float
        >= 0.
    staircase : bool
        Round ``step / decay_steps`` down.

    Examples
    --------
    >>> from elman.schedules import InverseTimeDecay
    >>> InverseTimeDecay(0.5, decay_steps=10, decay_rate=1)(30)
    0.125
    """

    initial_learning_rate: float
    decay_steps: float
    decay_rate: float
    staircase: bool = False

    def at(self, step: int) -> float:
        t = step / self.decay_steps
        return self.initial_learning_rate / (1 + self.decay_rate * (math.floor(t) if self.staircase else t))


@dataclass(frozen=True)
class CosineDecay(LearningRateSchedule):
    """Half a cosine from the initial rate to `alpha` times it (Loshchilov & Hutter, 2017), after an optional warmup.

    With t the steps since the warmup over `decay_steps`, at most 1: ``r ((1 - alpha) (1 + cos(pi t)) / 2 + alpha)``,
    where r is `warmup_target`, or without a warmup `initial_learning_rate`.

    Parameters
    ----------
    initial_learning_rate : float
        >= 0.
    decay_steps : float
        > 0; the warmup comes on top.
    alpha : float
        >= 0; the rate after the decay, as a fraction of its beginning.
    warmup_target : float or None
        >= 0. Climb from the initial rate to this, in a straight line; None: no warmup, whatever `warmup_steps`.
    warmup_steps : float
        >= 0.

    Examples
    --------
    >>> from elman.schedules import CosineDecay
    >>> rate = CosineDecay(0.0, decay_steps=100, warmup_target=0.5, warmup_steps=10)
    >>> rate(5), rate(10), rate(110)
    (0.25, 0.5, 0.0)
    """

    initial_learning_rate: float
    decay_steps: float
    alpha: float = 0.0
    # By keyword only: in Keras a name stands between them and alpha.
    warmup_target: float | None = field(default=None, kw_only=True)
    warmup_steps: float = field(default=0.0, kw_only=True)

    def at(self, step: int) -> float:
        top, since = self.initial_learning_rate, float(step)
        if self.warmup_target is not None:
            if step < self.warmup_steps:
                return (self.warmup_target - top) * (step / self.warmup_steps) + top
            top, since = self.warmup_target, step - self.warmup_steps
        wave = (1 + math.cos(math.pi * min(since / self.decay_steps, 1.0))) / 2
        return top * ((1 - self.alpha) * wave + self.alpha)


@dataclass(frozen=True)
class CosineDecayRestarts(LearningRateSchedule):
    """Half cosines one after the other, each longer and lower (SGDR, Loshchilov & Hutter, 2017).

    In period i, with t from 0 to 1 across it: ``initial_learning_rate ((1 - alpha) m_mul^i (1 + cos(pi t)) / 2 +
    alpha)``.

    Parameters
    ----------
    initial_learning_rate : float
        >= 0.
    first_decay_steps : float
        > 0; the length of the first period.
    t_mul : float
        >= 1; each period is this many times as long as the one before.
    m_mul : float
        >= 0; each period begins at this many times the height of the one before.
    alpha : float
        >= 0; the least rate as a fraction of the initial one.

    Examples
    --------
    >>> from elman.schedules import CosineDecayRestarts
    >>> rate = CosineDecayRestarts(0.5, first_decay_steps=10, m_mul=0.5)
    >>> rate(0), rate(10), rate(30)
    (0.5, 0.25, 0.125)
    """

    initial_learning_rate: float
    first_decay_steps: float
    t_mul: float = 2.0
    m_mul: float = 1.0
    alpha: float = 0.0

    def at(self, step: int) -> float:
        i, t = self._period(step / self.first_decay_steps)
        wave = self.m_mul**i * (1 + math.cos(math.pi * t)) / 2
        return self.initial_learning_rate * ((1 - self.alpha) * wave + self.alpha)

    def _period(self, elapsed: float) -> tuple[int, float]:
        """Index of the period, and how much of it is over, after so many lengths of the first one."""
        if self.t_mul == 1:
            return math.floor(elapsed), elapsed % 1.0

        def begin(i: int) -> float:
            return (self.t_mul**i - 1) / (self.t_mul - 1)

        # The quotient may be rounded below an integer, as log(243) / log(3) = 4.99... is; then i is one too small.
        i = math.floor(math.log1p(elapsed * (self.t_mul - 1)) / math.log(self.t_mul))
        i += elapsed >= begin(i + 1)
        return i, (elapsed - begin(i)) / self.t_mul**i


SCHEDULES: dict[str, type[LearningRateSchedule]] = {
    "exponential_decay": ExponentialDecay,
    "piecewise_constant_decay": PiecewiseConstantDecay,
    "polynomial_decay": PolynomialDecay,
    "inverse_time_decay": InverseTimeDecay,
    "cosine_decay": CosineDecay,
    "cosine_decay_restarts": CosineDecayRestarts,
}
"""Schedules by name. `get` also takes class names."""


def get(identifier: Any) -> LearningRateSchedule:
    """Schedule for a `LearningRateSchedule` (returned as it is) or a dict from `serialize`.

    Raises
    ------
    TypeError
        If `identifier` is of another kind; a name alone would lack the arguments.
    ValueError
        If the name in the dict is unknown, with the nearest valid one, or the config does not fit.

    Examples
    --------
    >>> from elman.schedules import get
    >>> config = {"initial_learning_rate": 0.5, "decay_steps": 10, "decay_rate": 1.0}
    >>> get({"class_name": "InverseTimeDecay", "config": config})(10)
    0.25
    """
    if not isinstance(identifier, (LearningRateSchedule, Mapping)):
        raise BadType(
            "schedule: expected a LearningRateSchedule or a dict with 'class_name' and 'config', "
            f"got {type(identifier).__name__} {identifier!r}"
        )
    return registry.resolve("schedule", identifier, SCHEDULES, LearningRateSchedule)


def serialize(schedule: LearningRateSchedule) -> dict[str, Any]:
    """Dict that JSON can hold and `get` turns back into an equal schedule.

    Examples
    --------
    >>> from elman.schedules import ExponentialDecay, serialize
    >>> serialize(ExponentialDecay(0.1, 10, 0.5))["class_name"]
    'ExponentialDecay'
    """
    return registry.serialize(schedule)
