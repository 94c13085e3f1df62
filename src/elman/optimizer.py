"""The abstract optimizer: options and their ranges, the step and what surrounds it, saving."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, TypeAlias

import numpy as np

from elman import registry, schedules
from elman.checks import flag, float_dtype, integer
from elman.errors import BadValue
from elman.jit import Function
from elman.kernels import optimizers as kernels
from elman.schedules import LearningRateSchedule
from elman.threads import usable_threads

# Below this many parameters a second thread costs more than it saves.
_PARALLEL = 65_536

_CLIPS = ("clipnorm", "global_clipnorm", "clipvalue")
_OPTIONAL = ("weight_decay", *_CLIPS)
_BOOLEAN = ("nesterov", "centered", "amsgrad", "use_ema")
# Least value; None is allowed.
_INTEGERS = {"ema_overwrite_frequency": 1, "gradient_accumulation_steps": 2}
# Least and greatest value, and whether the least itself is excluded.
_RANGES: dict[str, tuple[float, float | None, bool]] = {
    "learning_rate": (0, None, False),
    "weight_decay": (0, None, False),
    "clipnorm": (0, None, True),
    "global_clipnorm": (0, None, True),
    "clipvalue": (0, None, True),
    "momentum": (0, 1, False),
    "rho": (0, 1, False),
    "beta_1": (0, 1 - 2**-53, False),
    "beta_2": (0, 1 - 2**-53, False),
    "epsilon": (0, None, True),
    "initial_accumulator_value": (0, None, False),
    "ema_momentum": (0, 1, False),
}

Rate: TypeAlias = Any
"""A number or a `LearningRateSchedule` where it is set, a float where it is read."""


@dataclass(eq=False)
class Optimizer(ABC):
    """Abstract optimizer, and the options that all have.

    Parameters
    ----------
    learning_rate : float or LearningRateSchedule
        Finite, >= 0; an int is accepted. The one option that may be set at any time. With a schedule (see
        `elman.schedules`, or a dict from its `serialize`) the attribute is its value at `calls`, and only another
        schedule may replace it.
    weight_decay : float or None
        Decoupled decay (Loshchilov & Hutter, 2019): before the update ``p -= p weight_decay learning_rate``, for every
        parameter, biases too.
    clipnorm : float or None
        Each tensor's gradient is scaled to a norm of at most this.
    global_clipnorm : float or None
        All gradients are scaled together to a norm of at most this.
    clipvalue : float or None
        Every gradient value is held in [-clipvalue, clipvalue]. Only one of the three clips may be given.
    use_ema : bool
        Keep a moving average of the parameters, which `finalize` writes into them: the parameters after the first
        update, then ``average = ema_momentum average + (1 - ema_momentum) p`` in each call.
    ema_momentum : float
        Memory of the average, in [0, 1].
    ema_overwrite_frequency : int or None
        The average also overwrites the parameters in every iteration whose number, from 1, is a multiple of this. Of
        no effect without `use_ema`.
    gradient_accumulation_steps : int or None
        n, at least 2: the mean of the gradients of n calls makes one update. Clipping sees the mean.

    Attributes
    ----------
    calls : int
        Gradients taken so far. A schedule counts these, as in Keras: one for n calls gets steps n times as long.
    iterations : int
        Updates made so far: `calls`, or a whole n-th of it with n accumulation steps.

    Raises
    ------
    TypeError, ValueError
        For a wrong type, a value out of its range, or two clips; AttributeError when an option other than the learning
        rate is set after `build`, or a number where a schedule gives the learning rate.

    Notes
    -----
    A gradient with a NaN or an infinite value is refused as a whole and changes nothing; see `apply`. Norms are summed
    in float64 and in one order. The bits do not depend on the number of threads.

    Examples
    --------
    >>> import numpy as np
    >>> from elman.optimizers import SGD
    >>> parameters = np.array([1.0, 2.0])
    >>> sgd = SGD(learning_rate=0.5)
    >>> sgd.build(parameters, np.array([0, 2]))
    >>> sgd.apply(parameters, np.array([1.0, -1.0]))
    True
    >>> parameters
    array([0.5, 2.5])
    """

    aliases: ClassVar[tuple[str, ...]] = ()
    bounded: ClassVar[bool] = True  # whether the state holds squares or differences of gradients, which may overflow
    _schedule: ClassVar[LearningRateSchedule | None] = None

    learning_rate: Rate
    weight_decay: float | None = field(default=None, kw_only=True)
    clipnorm: float | None = field(default=None, kw_only=True)
    global_clipnorm: float | None = field(default=None, kw_only=True)
    clipvalue: float | None = field(default=None, kw_only=True)
    use_ema: bool = field(default=False, kw_only=True)
    ema_momentum: float = field(default=0.99, kw_only=True)
    ema_overwrite_frequency: int | None = field(default=None, kw_only=True)
    gradient_accumulation_steps: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        given = [name for name in _CLIPS if getattr(self, name) is not None]
        if len(given) > 1:
            raise BadValue(f"optimizer: only one of {', '.join(_CLIPS)} may be given, got {' and '.join(given)}")
        self.calls = 0
        self.owner: Any = None  # weak reference to the model whose parameters the state vectors belong to
        self._slots: np.ndarray | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _RANGES or name in _BOOLEAN or name in _INTEGERS:
            if name != "learning_rate" and self.__dict__.get("_slots") is not None:
                raise AttributeError(f"{name}: fixed once the optimizer is built; only learning_rate may change")
            if name == "learning_rate":
                self._set_learning_rate(value)
                return
            value = _checked(name, value)
        object.__setattr__(self, name, value)
        if name == "calls" and self._schedule is not None:
            self.__dict__["learning_rate"] = self._schedule(value)

    def _set_learning_rate(self, value: Any) -> None:
        if isinstance(value, (Mapping, LearningRateSchedule)):
            self.__dict__["_schedule"] = schedule = schedules.get(value)
            self.__dict__["learning_rate"] = schedule(self.__dict__.get("calls", 0))
        elif self._schedule is not None:
            raise AttributeError(
                f"learning_rate: follows {self._schedule} and cannot be set to {value!r}; make the optimizer with a "
                "number to set it"
            )
        else:
            self.__dict__["learning_rate"] = _checked("learning_rate", value)

    def __getstate__(self) -> dict[str, Any]:
        """For copy and pickle: a copy belongs to no model."""
        return {**self.__dict__, "owner": None}

    @property
    def iterations(self) -> int:
        """Updates made so far; setting it drops what gradients are accumulated."""
        return self.calls // (self.gradient_accumulation_steps or 1)

    @iterations.setter
    def iterations(self, value: int) -> None:
        self.calls = value * (self.gradient_accumulation_steps or 1)
        if self._slots is not None and self.gradient_accumulation_steps is not None:
            self._slots[-1] = 0

    # ---- what a subclass says ----

    @property
    @abstractmethod
    def kernel(self) -> Function:
        """Compiled update; see `elman.kernels.optimizers`."""

    @property
    @abstractmethod
    def slot_names(self) -> tuple[str, ...]:
        """Names of the state vectors, in the kernel's order."""

    @abstractmethod
    def numbers(self, step: int) -> tuple[float, ...]:
        """Numbers of step 1, 2, …, in the kernel's order; computed in float64."""

    @property
    def slot_start(self) -> float:
        """Value that all state vectors begin with."""
        return 0.0

    # ---- steps ----

    def build(self, parameters: np.ndarray, offsets: np.ndarray, trainable: Sequence[bool] | None = None) -> None:
        """Start afresh for a vector of parameters: state vectors at their start, iteration 0.

        Parameters
        ----------
        parameters : ndarray, (n,)
            float32 or float64, contiguous.
        offsets : ndarray of int, (tensors + 1,)
            Where each tensor begins, from 0, and the end, n.
        trainable : sequence of bool, (tensors,), optional
            False freezes a tensor: no step changes it or reads its gradient. By default none is frozen.

        Raises
        ------
        ValueError
            If one of them is of another form.
        """
        dtype = float_dtype("parameters", getattr(parameters, "dtype", None))
        if parameters.ndim != 1 or not parameters.flags.c_contiguous:
            raise BadValue(f"parameters: expected one contiguous axis, got shape {parameters.shape}")
        bounds = np.ascontiguousarray(offsets, dtype=np.int64)
        ordered = bounds.ndim == 1 and bounds.size > 0 and not (np.diff(bounds) < 0).any()
        if not ordered or bounds[0] != 0 or bounds[-1] != parameters.size:
            raise BadValue(f"offsets: expected ascending integers from 0 to {parameters.size}, got {offsets!r}")
        chosen = np.ones(bounds.size - 1, bool) if trainable is None else np.asarray(trainable)
        # An empty list is an array of floats.
        if chosen.shape != (bounds.size - 1,) or (chosen.size and chosen.dtype != bool):
            raise BadValue(f"trainable: expected {bounds.size - 1} booleans, one per tensor, got {trainable!r}")
        tensors = np.stack([bounds[:-1], bounds[1:]], 1)[chosen.astype(bool)].tolist()
        self._layout = kernels.layout(tensors, self.clipnorm is not None)
        self._parallel = sum(b - a for a, b in self._layout.runs) >= _PARALLEL
        self._slots = np.zeros((len(self._rows), parameters.size), dtype)
        self.reset()

    @property
    def _rows(self) -> tuple[str, ...]:
        """Names of all state vectors: the update's, then those around it."""
        accumulator = () if self.gradient_accumulation_steps is None else ("gradient_accumulator",)
        return (*self.slot_names, *(("average",) if self.use_ema else ()), *accumulator)

    def apply(self, parameters: np.ndarray, gradients: np.ndarray) -> bool:
        """One call: an update in place, or with `gradient_accumulation_steps` a part of one.

        Parameters
        ----------
        parameters : ndarray, (n,)
            As given to `build`.
        gradients : ndarray, (n,)
            Derivatives of the loss, of the same dtype; clipping and accumulation overwrite them.

        Returns
        -------
        bool
            False if a gradient of a trainable tensor, or a sum of them in the accumulator, is NaN, infinite or (but for
            SGD) beyond 1e16, 1e151 in float64. Then nothing has changed: parameters, state and counters.

        Raises
        ------
        ValueError
            If the optimizer is not built, an array does not have the size or dtype it was built for, or the schedule
            gives no finite learning rate >= 0. Nothing has changed then.
        """
        slots = self._slots
        if slots is None:
            raise BadValue("optimizer: not built yet; call build(parameters, offsets) first")
        for name, array in (("parameters", parameters), ("gradients", gradients)):
            if array.shape != slots.shape[1:] or array.dtype != slots.dtype or not array.flags.c_contiguous:
                raise BadValue(
                    f"{name}: the optimizer was built for a contiguous {slots.dtype} array of shape "
                    f"{slots.shape[1:]}, got {array.dtype} of shape {array.shape}"
                )
        if self._schedule is not None:
            registry.number(f"learning_rate of step {self.calls}", self.learning_rate, 0)
        threads = usable_threads() if self._parallel else 1
        parts = self.gradient_accumulation_steps
        due = parts is None or (self.calls + 1) % parts == 0
        if parts is not None and not self._accumulate(threads, gradients, due):
            return False
        if due and not self._update(threads, parameters, gradients):
            return False
        if self.use_ema:
            self._average(threads, parameters)
        self.calls += 1
        return True

    def _update(self, threads: int, parameters: np.ndarray, gradients: np.ndarray) -> bool:
        """Clip, decay and update."""
        slots, where = self._slots, self._layout
        limit = self.clipnorm or self.global_clipnorm
        if limit is not None:
            if not kernels.clip_norms(1, gradients, where.pieces, where.groups, where.norms, limit):
                return False
        elif self.clipvalue is not None and not kernels.clip_values(1, gradients, where.pieces, self.clipvalue):
            return False
        numbers = self.numbers(self.iterations + 1)
        hyper = np.array([(self.weight_decay or 0.0) * self.learning_rate, *numbers], slots.dtype)
        update, decay = self.kernel.handle(slots.dtype), kernels.decay.handle(slots.dtype)
        most = kernels.LARGEST[slots.itemsize] if self.bounded else np.inf
        return kernels.step(threads, update, decay, parameters, gradients, slots, hyper, where.chunks, where.bad, most)

    def _accumulate(self, threads: int, gradients: np.ndarray, due: bool) -> bool:
        """Add the accumulator to the gradients, then keep the sum, or with `due` make it a mean and start again."""
        parts, accumulator = self.gradient_accumulation_steps, self._slots[-1]
        self._each(threads, kernels.collect, accumulator, gradients)
        if not kernels.finite(threads, gradients, self._layout.chunks, self._layout.bad):
            return False
        self._each(threads, kernels.release if due else kernels.keep, accumulator, gradients, parts)
        return True

    def _average(self, threads: int, parameters: np.ndarray) -> None:
        """Move the average, and write it into the parameters where that is due."""
        mu, every = self.ema_momentum if self.iterations else 0.0, self.ema_overwrite_frequency
        self._each(threads, kernels.average, parameters, self._slots[len(self.slot_names)], mu, 1 - mu)
        if every is not None and (self.iterations + 1) % every == 0:
            self._overwrite(parameters)

    def _each(self, threads: int, function: Function, p: np.ndarray, g: np.ndarray, *numbers: float) -> None:
        slots, chunks = self._slots, self._layout.chunks
        kernels.each(threads, function.handle(slots.dtype), p, g, slots, np.array(numbers, slots.dtype), chunks)

    def _overwrite(self, parameters: np.ndarray) -> None:
        for a, b in self._layout.runs:
            parameters[a:b] = self._slots[len(self.slot_names), a:b]

    def finalize(self, parameters: np.ndarray) -> None:
        """Write the averages into the parameters, as the end of `fit` does; nothing without `use_ema` or any step.

        Parameters
        ----------
        parameters : ndarray, (n,)
            As given to `build`; frozen tensors stay.

        Examples
        --------
        >>> import numpy as np
        >>> from elman.optimizers import SGD
        >>> parameters = np.zeros(1)
        >>> sgd = SGD(1.0, use_ema=True, ema_momentum=0.5)
        >>> sgd.build(parameters, np.array([0, 1]))
        >>> for _ in range(2):
        ...     done = sgd.apply(parameters, np.ones(1))
        >>> sgd.finalize(parameters)
        >>> parameters
        array([-1.5])
        """
        if self.use_ema and self.calls:
            self._overwrite(parameters)

    def reset(self) -> None:
        """State vectors at their start and iteration 0; the options stay."""
        self.calls = 0
        if self._slots is not None:
            own = len(self.slot_names)
            self._slots[:own] = self.slot_start
            self._slots[own:] = 0

    # ---- saving ----

    def state(self) -> dict[str, np.ndarray]:
        """Copies of everything that steps change.

        Returns
        -------
        dict
            "iterations", an int64 scalar array; each state vector, (n,), "average" and "gradient_accumulator" among
            them where they exist; with the latter "accumulated", the gradients in it.
        """
        state = {"iterations": np.array(self.iterations, np.int64)}
        if self.gradient_accumulation_steps is not None:
            state["accumulated"] = np.array(self.calls % self.gradient_accumulation_steps, np.int64)
        slots = () if self._slots is None else self._slots
        return state | {name: slot.copy() for name, slot in zip(self._rows, slots, strict=False)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from what `state` gave; the optimizer must be built for the same parameters.

        Raises
        ------
        ValueError
            If a name is missing or unknown, or a shape differs; the optimizer is then unchanged.
        """
        slots, parts = self._slots, self.gradient_accumulation_steps
        if slots is None:
            raise BadValue("optimizer: not built yet; call build(parameters, offsets) first")
        counters = ("iterations",) if parts is None else ("iterations", "accumulated")
        expected = {*counters, *self._rows}
        if set(state) != expected:
            raise BadValue(f"state: expected the names {sorted(expected)}, got {sorted(state)}")
        counts = []
        for name in counters:
            counter = np.asarray(state[name])
            if counter.ndim != 0:
                raise BadValue(f"state: {name} must be a scalar, got shape {counter.shape}")
            counts.append(integer(name, counter.item(), 0))
        if parts is not None and counts[1] >= parts:
            raise BadValue(f"state: accumulated must be below the {parts} accumulation steps, got {counts[1]}")
        vectors = [np.asarray(state[name]) for name in self._rows]
        for name, vector in zip(self._rows, vectors, strict=True):
            if vector.shape != slots.shape[1:] or vector.dtype.kind != "f":
                wanted = f"floats of shape {slots.shape[1:]}"
                raise BadValue(f"state: {name} must hold {wanted}, got {vector.dtype} of shape {vector.shape}")
        for slot, vector in zip(slots, vectors, strict=True):
            slot[...] = vector
        self.calls = counts[0] if parts is None else counts[0] * parts + counts[1]

    def get_config(self) -> dict[str, Any]:
        """Arguments that make an equal optimizer without its state; JSON can hold them."""
        config = {f.name: getattr(self, f.name) for f in fields(self)}
        if self._schedule is not None:
            config["learning_rate"] = schedules.serialize(self._schedule)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Optimizer:
        """Optimizer from what `get_config` gave."""
        return registry.resolve("optimizer", {"class_name": cls.__name__, "config": config}, {"": cls}, Optimizer)


def _checked(name: str, value: Any) -> Any:
    """`value` as option `name` holds it."""
    if name in _BOOLEAN:
        return flag(name, value)
    if value is None and (name in _OPTIONAL or name in _INTEGERS):
        return None
    if name in _INTEGERS:
        return integer(name, value, _INTEGERS[name])
    low, high, open_low = _RANGES[name]
    return registry.number(name, value, low, high, open_low=open_low)
