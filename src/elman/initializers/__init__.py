"""Initial values of weights: one frozen dataclass per rule, the registry `INITIALIZERS`, `get` and `serialize`.

Names, arguments and defaults are those of Keras 3. An initializer holds no seed and no state: every call is given the
random generator, so the same generator state gives the same bits. All rules draw in float64 and cast at the end; a
float32 model therefore starts at the rounded weights of the float64 model of the same seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from elman import registry
from elman.errors import BadType, BadValue
from elman.initializers.base import Initializer, fans
from elman.initializers.plain import (
    Constant,
    Identity,
    Ones,
    Orthogonal,
    OrthogonalPerGate,
    RandomNormal,
    RandomUniform,
    TruncatedNormal,
    Zeros,
)
from elman.initializers.scaled import (
    GlorotNormal,
    GlorotUniform,
    HeNormal,
    HeUniform,
    LecunNormal,
    LecunUniform,
    VarianceScaling,
)

__all__ = [
    "INITIALIZERS",
    "Constant",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "Identity",
    "Initializer",
    "LecunNormal",
    "LecunUniform",
    "Ones",
    "Orthogonal",
    "OrthogonalPerGate",
    "RandomNormal",
    "RandomUniform",
    "TruncatedNormal",
    "VarianceScaling",
    "Zeros",
    "fans",
    "get",
    "serialize",
]

InitializerLike: TypeAlias = "str | Initializer | type[Initializer] | Mapping[str, Any] | Callable[..., Any]"


@dataclass(frozen=True)
class _Custom(Initializer):
    """A user's function of (shape, dtype); it brings its own randomness and has no saved form."""

    function: Callable[..., Any]

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        values = np.array(self.function(shape, np.dtype(np.float64)), dtype=np.float64)  # a copy: callers write into it
        if values.shape != shape:
            raise BadValue(f"initializer: {self.function!r} gave shape {values.shape}, expected {shape}")
        return values


def _snake(name: str) -> str:
    return "".join("_" + c.lower() if c.isupper() and i else c.lower() for i, c in enumerate(name))


_CLASSES: tuple[type[Initializer], ...] = (
    Zeros,
    Ones,
    Constant,
    RandomNormal,
    RandomUniform,
    TruncatedNormal,
    VarianceScaling,
    GlorotUniform,
    GlorotNormal,
    HeNormal,
    HeUniform,
    LecunNormal,
    LecunUniform,
    Orthogonal,
    OrthogonalPerGate,
    Identity,
)

INITIALIZERS: dict[str, type[Initializer]] = {
    **{_snake(c.__name__): c for c in _CLASSES},
    **{c.__name__: c for c in _CLASSES},
    "uniform": RandomUniform,
    "normal": RandomNormal,
}
"""Every initializer by its snake_case name and by its class name; "uniform" and "normal" as in Keras."""


def get(identifier: InitializerLike) -> Initializer:
    """Initializer that `identifier` stands for.

    Parameters
    ----------
    identifier : str, Initializer, type, mapping or callable
        A name of `INITIALIZERS`; an instance (returned as it is) or a class; what `serialize` gave; or a function of
        (shape, dtype) that returns the values.

    Returns
    -------
    Initializer

    Raises
    ------
    ValueError
        If the name is unknown (the message has the nearest one), or a mapping's arguments do not fit.
    TypeError
        If `identifier` is none of these.

    Examples
    --------
    >>> get("he_normal"), get("uniform")
    (HeNormal(), RandomUniform(minval=-0.05, maxval=0.05))
    >>> get({"class_name": "Orthogonal", "config": {"gain": 2.0}})
    Orthogonal(gain=2.0)
    """
    if callable(identifier) and not isinstance(identifier, (Initializer, type)):
        return _Custom(identifier)
    return registry.resolve("initializer", identifier, INITIALIZERS, Initializer)


def serialize(initializer: Initializer) -> dict[str, Any]:
    """Mapping from which `get` makes an equal initializer; JSON can hold it.

    Parameters
    ----------
    initializer : Initializer

    Returns
    -------
    dict
        ``{"class_name": ..., "config": ...}``.

    Raises
    ------
    TypeError
        If `initializer` wraps a user's function or is no initializer.

    Examples
    --------
    >>> serialize(Constant(1.0))
    {'class_name': 'Constant', 'config': {'value': 1.0}}
    """
    if isinstance(initializer, _Custom):
        raise BadType(f"initializer: {initializer.function!r} is a function of yours and has no saved form")
    if not isinstance(initializer, Initializer):
        raise BadType(f"initializer: expected an Initializer, got {type(initializer).__name__}")
    return registry.serialize(initializer)
