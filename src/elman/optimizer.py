"""The abstract optimizer: options and their ranges, clipping, the step, saving."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, TypeAlias

import numpy as np

from elman import registry, schedules
from elman.checks import float_dtype, integer
from elman.jit import Function
from elman.kernels import optimizers as kernels
from elman.schedules import LearningRateSchedule
from elman.threads import usable_threads

# Below this many parameters a second thread costs more than it saves.
_PARALLEL = 65_536

_CLIPS = ("clipnorm", "global_clipnorm", "clipvalue")
_OPTIONAL = ("weight_decay", *_CLIPS)
_BOOLEAN = ("nesterov", "centered", "amsgrad")
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
        `elman.schedules`, or a dict from its `serialize`) the attribute is its value at `iterations`, and only another
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

    Raises
    ------
    TypeError, ValueError
        For a wrong type, a value out of its range, or two clips; AttributeError when an option other than the learning
        rate is set after `build`, or a number where a schedule gives the learning rate.

    Notes
    -----
    A norm that is NaN or infinite leaves the gradients as they are: scaling by it would turn each of them into NaN.
    Norms are summed in float64 and in one order.

    Examples
    --------
    >>> import numpy as np
    >>> from elman.optimizers import SGD
    >>> parameters = np.array([1.0, 2.0])
    >>> sgd = SGD(learning_rate=0.5)
    >>> sgd.build(parameters, np.array([0, 2]))
    >>> sgd.apply(parameters, np.array([1.0, -1.0]))
    >>> parameters
    array([0.5, 2.5])
    """

    aliases: ClassVar[tuple[str, ...]] = ()
    _schedule: ClassVar[LearningRateSchedule | None] = None

    learning_rate: Rate
    weight_decay: float | None = field(default=None, kw_only=True)
    clipnorm: float | None = field(default=None, kw_only=True)
    global_clipnorm: float | None = field(default=None, kw_only=True)
    clipvalue: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        given = [name for name in _CLIPS if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"optimizer: only one of {', '.join(_CLIPS)} may be given, got {' and '.join(given)}")
        self.iterations = 0
        self.owner: Any = None  # weak reference to the model whose parameters the state vectors belong to
        self._slots: np.ndarray | None = None
        self._offsets = np.zeros(2, np.int64)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _RANGES or name in _BOOLEAN:
            if name != "learning_rate" and self.__dict__.get("_slots") is not None:
                raise AttributeError(f"{name}: fixed once the optimizer is built; only learning_rate may change")
            if name == "learning_rate":
                self._set_learning_rate(value)
                return
            value = _checked(name, value)
        self.__dict__[name] = value
        if name == "iterations" and self._schedule is not None:
            self.__dict__["learning_rate"] = self._schedule(value)

    def _set_learning_rate(self, value: Any) -> None:
        if isinstance(value, (Mapping, LearningRateSchedule)):
            self.__dict__["_schedule"] = schedules.get(value)
            self.__dict__["learning_rate"] = self._schedule(self.__dict__.get("iterations", 0))
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

    def build(self, parameters: np.ndarray, offsets: np.ndarray) -> None:
        """Start afresh for a vector of parameters: state vectors at their start, iteration 0.

        Parameters
        ----------
        parameters : ndarray, (n,)
            float32 or float64, contiguous.
        offsets : ndarray of int, (tensors + 1,)
            Where each tensor begins, from 0, and the end, n.

        Raises
        ------
        ValueError
            If one of them is of another form.
        """
        dtype = float_dtype("parameters", getattr(parameters, "dtype", None))
        if parameters.ndim != 1 or not parameters.flags.c_contiguous:
            raise ValueError(f"parameters: expected one contiguous axis, got shape {parameters.shape}")
        bounds = np.ascontiguousarray(offsets, dtype=np.int64)
        ordered = bounds.ndim == 1 and bounds.size > 0 and not (np.diff(bounds) < 0).any()
        if not ordered or bounds[0] != 0 or bounds[-1] != parameters.size:
            raise ValueError(f"offsets: expected ascending integers from 0 to {parameters.size}, got {offsets!r}")
        self._offsets = bounds if self.global_clipnorm is None else np.array([0, parameters.size])
        self.iterations = 0
        self._slots = np.full((len(self.slot_names), parameters.size), self.slot_start, dtype)

    def apply(self, parameters: np.ndarray, gradients: np.ndarray) -> None:
        """One step, in place.

        Parameters
        ----------
        parameters : ndarray, (n,)
            As given to `build`.
        gradients : ndarray, (n,)
            Derivatives of the loss, of the same dtype; clipping overwrites them.

        Raises
        ------
        ValueError
            If the optimizer is not built, an array does not have the size or dtype it was built for, or the schedule
            gives no finite learning rate >= 0. Nothing has changed then.

        Notes
        -----
        Gradients are not searched for NaN here. The bits do not depend on the number of threads.
        """
        slots = self._slots
        if slots is None:
            raise ValueError("optimizer: not built yet; call build(parameters, offsets) first")
        dtype, size = slots.dtype, slots.shape[1]
        for array in (parameters, gradients):
            if array.shape != (size,) or array.dtype != dtype or not array.flags.c_contiguous:
                name = "parameters" if array is parameters else "gradients"
                raise ValueError(
                    f"{name}: the optimizer was built for a contiguous {dtype} array of shape ({size},), "
                    f"got {array.dtype} of shape {array.shape}"
                )
        if self._schedule is not None:
            registry.number(f"learning_rate of step {self.iterations}", self.learning_rate, 0)
        limit = self.clipnorm or self.global_clipnorm
        if limit is not None:
            kernels.clip_norms(1, gradients, self._offsets, limit)
        elif self.clipvalue is not None:
            kernels.clip_values(1, gradients, self.clipvalue)
        step = self.iterations + 1
        hyper = np.array(((self.weight_decay or 0.0) * self.learning_rate, *self.numbers(step)), dtype)
        threads = 1 if size < _PARALLEL else usable_threads()
        update, decay = self.kernel.handle(dtype), kernels.decay.handle(dtype)
        kernels.step(threads, update, decay, parameters, gradients, slots, hyper)
        self.iterations = step

    def reset(self) -> None:
        """State vectors at their start and iteration 0; the options stay."""
        self.iterations = 0
        if self._slots is not None:
            self._slots[...] = self.slot_start

    # ---- saving ----

    def state(self) -> dict[str, np.ndarray]:
        """Copies of everything that steps change: "iterations", an int64 scalar array, and each state vector, (n,)."""
        slots = () if self._slots is None else self._slots
        return {
            "iterations": np.array(self.iterations, np.int64),
            **{name: slot.copy() for name, slot in zip(self.slot_names, slots, strict=False)},
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from what `state` gave; the optimizer must be built for the same parameters.

        Raises
        ------
        ValueError
            If a name is missing or unknown, or a shape differs; the optimizer is then unchanged.
        """
        slots = self._slots
        if slots is None:
            raise ValueError("optimizer: not built yet; call build(parameters, offsets) first")
        expected = {"iterations", *self.slot_names}
        if set(state) != expected:
            raise ValueError(f"state: expected the names {sorted(expected)}, got {sorted(state)}")
        counter = np.asarray(state["iterations"])
        if counter.ndim != 0:
            raise ValueError(f"state: iterations must be a scalar, got shape {counter.shape}")
        iterations = integer("iterations", counter.item(), 0)
        vectors = [np.asarray(state[name]) for name in self.slot_names]
        for name, vector in zip(self.slot_names, vectors, strict=True):
            if vector.shape != slots.shape[1:] or vector.dtype.kind != "f":
                wanted = f"floats of shape {slots.shape[1:]}"
                raise ValueError(f"state: {name} must hold {wanted}, got {vector.dtype} of shape {vector.shape}")
        for slot, vector in zip(slots, vectors, strict=True):
            slot[...] = vector
        self.iterations = iterations

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
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"{name}: expected True or False, got {type(value).__name__} {value!r}")
        return bool(value)
    if value is None and name in _OPTIONAL:
        return None
    low, high, open_low = _RANGES[name]
    return registry.number(name, value, low, high, open_low=open_low)
