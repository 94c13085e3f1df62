"""Optimizers: updates of one flat vector of parameters. The registry is `OPTIMIZERS`.

Names, defaults and formulas are Keras's. A step accumulates the gradients, clips them, applies weight decay, updates,
then averages. An optimizer is a dataclass: its fields are its options, `Optimizer.kernel` its compiled update,
`Optimizer.slot_names` the state vectors it keeps, `Optimizer.numbers` what the update is told in each step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from elman import registry
from elman.jit import Function
from elman.kernels import optimizers as kernels
from elman.optimizer import Optimizer, Rate

__all__ = [
    "OPTIMIZERS",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Lion",
    "Nadam",
    "Optimizer",
    "RMSprop",
    "get",
    "serialize",
]


@dataclass(eq=False)
class SGD(Optimizer):
    """Gradient descent: ``p -= lr g``; with momentum ``m = mu m - lr g; p += m``; Nesterov ``p += mu m - lr g``.

    Parameters
    ----------
    learning_rate : float
        Default 0.01.
    momentum : float
        mu, in [0, 1].
    nesterov : bool
        Look ahead along the momentum (Nesterov, 1983, as in Sutskever et al., 2013).

    Examples
    --------
    >>> from elman.optimizers import SGD
    >>> SGD(learning_rate=1, momentum=0.9).get_config()["learning_rate"]
    1.0
    """

    learning_rate: Rate = 0.01
    momentum: float = 0.0
    nesterov: bool = False

    bounded = False

    @property
    def kernel(self) -> Function:
        if self.momentum == 0:
            return kernels.sgd
        return kernels.sgd_nesterov if self.nesterov else kernels.sgd_momentum

    @property
    def slot_names(self) -> tuple[str, ...]:
        return () if self.momentum == 0 else ("momentum",)

    def numbers(self, step: int) -> tuple[float, ...]:
        return self.learning_rate, self.momentum


@dataclass(eq=False)
class Adam(Optimizer):
    """Adam (Kingma & Ba, 2015): steps of the mean gradient over the root of the mean square.

    With ``m += (1 - beta_1) (g - m)`` and ``v += (1 - beta_2) (g^2 - v)``, step t is ``p -= alpha m / (sqrt(v) +
    epsilon)``, where ``alpha = lr sqrt(1 - beta_2^t) / (1 - beta_1^t)``.

    Parameters
    ----------
    learning_rate : float
        Default 0.001.
    beta_1, beta_2 : float
        Memory of the mean and of the mean square, in [0, 1).
    epsilon : float
        > 0; beside the root, not scaled by the bias correction.
    amsgrad : bool
        Divide by the root of the greatest v so far, not corrected for bias (Reddi et al., 2018).

    Examples
    --------
    >>> from elman.optimizers import Adam
    >>> Adam().slot_names
    ('momentum', 'velocity')
    """

    learning_rate: Rate = 0.001
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7
    amsgrad: bool = False

    @property
    def kernel(self) -> Function:
        return kernels.adam_amsgrad if self.amsgrad else kernels.adam

    @property
    def slot_names(self) -> tuple[str, ...]:
        return ("momentum", "velocity", "velocity_hat") if self.amsgrad else ("momentum", "velocity")

    def numbers(self, step: int) -> tuple[float, ...]:
        alpha = self.learning_rate * math.sqrt(1 - self.beta_2**step) / (1 - self.beta_1**step)
        return alpha, 1 - self.beta_1, 1 - self.beta_2, self.epsilon


@dataclass(eq=False)
class AdamW(Adam):
    """`Adam` with a weight decay of 0.004 by default (Loshchilov & Hutter, 2019).

    Examples
    --------
    >>> from elman.optimizers import AdamW
    >>> AdamW().weight_decay
    0.004
    """

    weight_decay: float | None = field(default=0.004, kw_only=True)


@dataclass(eq=False)
class RMSprop(Optimizer):
    """RMSprop (Tieleman & Hinton, 2012): ``v = rho v + (1 - rho) g^2; p -= lr g / sqrt(v + epsilon)``.

    Parameters
    ----------
    learning_rate : float
        Default 0.001.
    rho : float
        Memory of the mean square, in [0, 1].
    momentum : float
        mu, in [0, 1]: the step s goes through ``m = mu m + s; p -= m``.
    epsilon : float
        > 0; inside the root.
    centered : bool
        Divide by the root of the variance instead: ``v - c^2`` with ``c = rho c + (1 - rho) g`` (Graves, 2013). Where
        rounding makes it negative it counts as 0; Keras takes the root of it.

    Examples
    --------
    >>> from elman.optimizers import RMSprop
    >>> RMSprop(centered=True).slot_names
    ('velocity', 'average_gradient')
    """

    learning_rate: Rate = 0.001
    rho: float = 0.9
    momentum: float = 0.0
    epsilon: float = 1e-7
    centered: bool = False

    @property
    def kernel(self) -> Function:
        if self.momentum == 0:
            return kernels.rmsprop_centered if self.centered else kernels.rmsprop
        return kernels.rmsprop_centered_momentum if self.centered else kernels.rmsprop_momentum

    @property
    def slot_names(self) -> tuple[str, ...]:
        mean = ("average_gradient",) if self.centered else ()
        return ("velocity", *mean) if self.momentum == 0 else ("velocity", *mean, "momentum")

    def numbers(self, step: int) -> tuple[float, ...]:
        return self.learning_rate, 1 - self.rho, self.epsilon, self.momentum


@dataclass(eq=False)
class Adagrad(Optimizer):
    """Adagrad (Duchi et al., 2011): ``v += g^2; p -= lr g / sqrt(v + epsilon)``.

    Parameters
    ----------
    learning_rate : float
        Default 0.001.
    initial_accumulator_value : float
        v at the beginning, >= 0.
    epsilon : float
        > 0; inside the root.

    Examples
    --------
    >>> from elman.optimizers import Adagrad
    >>> Adagrad().slot_start
    0.1
    """

    learning_rate: Rate = 0.001
    initial_accumulator_value: float = 0.1
    epsilon: float = 1e-7
    kernel = kernels.adagrad
    slot_names = ("accumulator",)

    @property
    def slot_start(self) -> float:
        return self.initial_accumulator_value

    def numbers(self, step: int) -> tuple[float, ...]:
        return self.learning_rate, self.epsilon


@dataclass(eq=False)
class Adadelta(Optimizer):
    """Adadelta (Zeiler, 2012): steps of the root mean square of the steps before.

    With ``v = rho v + (1 - rho) g^2``: ``d = g sqrt(s + epsilon) / sqrt(v + epsilon); p -= lr d``, and ``s = rho s +
    (1 - rho) d^2``. The paper has lr = 1.

    Parameters
    ----------
    learning_rate : float
        Default 0.001.
    rho : float
        Memory of both mean squares, in [0, 1].
    epsilon : float
        > 0; inside the roots, and the size of the first steps.

    Examples
    --------
    >>> from elman.optimizers import Adadelta
    >>> Adadelta(1.0).rho
    0.95
    """

    learning_rate: Rate = 0.001
    rho: float = 0.95
    epsilon: float = 1e-7
    kernel = kernels.adadelta
    slot_names = ("accumulated_grad", "accumulated_delta_var")

    def numbers(self, step: int) -> tuple[float, ...]:
        return self.learning_rate, 1 - self.rho, self.epsilon


@dataclass(eq=False)
class Adamax(Optimizer):
    """Adamax (Kingma & Ba, 2015, section 7.1): `Adam` with a fading maximum in place of the root mean square.

    With ``m += (1 - beta_1) (g - m)`` and ``u = max(beta_2 u, |g|)``, step t is ``p -= lr m / ((1 - beta_1^t) (u +
    epsilon))``.

    Parameters
    ----------
    learning_rate : float
        Default 0.001.
    beta_1, beta_2 : float
        Memory of the mean and of the maximum, in [0, 1).
    epsilon : float
        > 0.

    Examples
    --------
    >>> from elman.optimizers import Adamax
    >>> Adamax().slot_names
    ('momentum', 'norm')
    """

    learning_rate: Rate = 0.001
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7
    kernel = kernels.adamax
    slot_names = ("momentum", "norm")

    def numbers(self, step: int) -> tuple[float, ...]:
        return self.learning_rate / (1 - self.beta_1**step), 1 - self.beta_1, self.beta_2, self.epsilon


# Entry t is the product of 1 - 0.96^s / 2 for s = 1 to t. From s = 900 on the factors are 1 in float64.
_WARMING = np.cumprod(1 - 0.5 * 0.96 ** np.arange(1, 1000)).tolist()
_WARMING.insert(0, 1.0)


@dataclass(eq=False)
class Nadam(Optimizer):
    """Nadam (Dozat, 2016): `Adam` with Nesterov's look ahead.

    With m and v as in `Adam`, ``u_t = beta_1 (1 - 0.96^t / 2)`` and U_t the product of u_1 to u_t, step t is ``p -= lr
    (u_{t+1} m / (1 - U_{t+1}) + (1 - u_t) g / (1 - U_t)) / (sqrt(v / (1 - beta_2^t)) + epsilon)``.

    Parameters
    ----------
    learning_rate : float
        Default 0.001.
    beta_1, beta_2 : float
        Memory of the mean and of the mean square, in [0, 1).
    epsilon : float
        > 0; beside the root.

    Examples
    --------
    >>> from elman.optimizers import Nadam
    >>> Nadam().slot_names
    ('momentum', 'velocity')
    """

    learning_rate: Rate = 0.001
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7
    kernel = kernels.nadam
    slot_names = ("momentum", "velocity")

    def numbers(self, step: int) -> tuple[float, ...]:
        def u(t: int) -> float:
            return self.beta_1 * (1 - 0.5 * 0.96**t)

        def product(t: int) -> float:
            return self.beta_1**t * _WARMING[min(t, len(_WARMING) - 1)]

        of_mean = self.learning_rate * u(step + 1) / (1 - product(step + 1))
        of_gradient = self.learning_rate * (1 - u(step)) / (1 - product(step))
        correction = 1 / (1 - self.beta_2**step)
        return of_mean, of_gradient, correction, 1 - self.beta_1, 1 - self.beta_2, self.epsilon


@dataclass(eq=False)
class Lion(Optimizer):
    """Lion (Chen et al., 2023): ``p -= lr sign(beta_1 m + (1 - beta_1) g)``, then ``m = beta_2 m + (1 - beta_2) g``.

    Parameters
    ----------
    learning_rate : float
        Default 0.001; the size of every step.
    beta_1 : float
        Share of m in the sign, in (0, 1).
    beta_2 : float
        Memory of the mean, in [0, 1).

    Examples
    --------
    >>> from elman.optimizers import Lion
    >>> Lion().slot_names
    ('momentum',)
    """

    learning_rate: Rate = 0.001
    beta_1: float = 0.9
    beta_2: float = 0.99
    kernel = kernels.lion
    slot_names = ("momentum",)

    def __post_init__(self) -> None:
        super().__post_init__()
        registry.number("beta_1", self.beta_1, 0, open_low=True)

    def numbers(self, step: int) -> tuple[float, ...]:
        return self.learning_rate, self.beta_1, 1 - self.beta_1, 1 - self.beta_2


OPTIMIZERS: dict[str, type[Optimizer]] = {
    "sgd": SGD,
    "adam": Adam,
    "adamw": AdamW,
    "rmsprop": RMSprop,
    "adagrad": Adagrad,
    "adadelta": Adadelta,
    "adamax": Adamax,
    "nadam": Nadam,
    "lion": Lion,
}
"""Optimizers by name. `get` also takes class names."""


def get(identifier: Any) -> Optimizer:
    """Optimizer for a name, an `Optimizer` (returned as it is), a class, or a dict from `serialize`.

    Raises
    ------
    TypeError
        If `identifier` is of another kind.
    ValueError
        If the name is unknown, with the nearest valid one, or a config does not fit.

    Examples
    --------
    >>> from elman.optimizers import get
    >>> get("adam").learning_rate
    0.001
    """
    return registry.resolve("optimizer", identifier, OPTIMIZERS, Optimizer)


def serialize(optimizer: Optimizer) -> dict[str, Any]:
    """Dict that JSON can hold and `get` turns back into an equal optimizer, without its state.

    Examples
    --------
    >>> from elman.optimizers import SGD, serialize
    >>> serialize(SGD())["class_name"]
    'SGD'
    """
    registry.registered("optimizer", optimizer, OPTIMIZERS)
    return registry.serialize(optimizer)
