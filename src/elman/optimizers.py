"""Optimizers: updates of one flat vector of parameters. The registry is `OPTIMIZERS`.

Names, defaults and formulas are Keras's. A step clips the gradients, applies weight decay, then updates. An optimizer
is a dataclass: its fields are its options, `Optimizer.kernel` its compiled update, `Optimizer.slot_names` the state
vectors it keeps, `Optimizer.numbers` what the update is told in each step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from elman import registry
from elman.jit import Function
from elman.kernels import optimizers as kernels
from elman.optimizer import Optimizer

__all__ = ["OPTIMIZERS", "SGD", "Adam", "AdamW", "Optimizer", "RMSprop", "get", "serialize"]


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

    learning_rate: float = 0.01
    momentum: float = 0.0
    nesterov: bool = False

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

    Examples
    --------
    >>> from elman.optimizers import Adam
    >>> Adam().slot_names
    ('momentum', 'velocity')
    """

    learning_rate: float = 0.001
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7
    kernel = kernels.adam
    slot_names = ("momentum", "velocity")

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

    learning_rate: float = 0.001
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


OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW, "rmsprop": RMSprop}
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
    return registry.serialize(optimizer)
