"""The abstract layer: configuration, building, forward and backward."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from elman import checks, constraints, initializers, locks, regularizers
from elman.cells import CELLS, Cell
from elman.errors import BadValue, ElmanError
from elman.masks import step_mask
from elman.parameters import ParameterVector, Spec

LAYERS: dict[str, type[Layer]] = {}
"""Every layer class by name; `from_config` and saved models read it."""

Shape = tuple[int | None, ...]
Views = Callable[[], tuple[list[np.ndarray], list[np.ndarray]]]


@dataclass(eq=False, kw_only=True)
class Layer(ABC):
    """One step of a model.

    A layer is its configuration (the fields of the dataclass), which becomes arithmetic when it is built for an input
    shape and bound to its parameters. Shapes never include the batch. Calling a layer on an array runs it at once, for
    scripts; a layer that is not part of a model then builds itself, with ``seed`` 0.

    Parameters
    ----------
    name : str, optional
        By default the class name in lower case; `Sequential` adds a number where two layers share a name.
    trainable : bool
        False freezes the parameters of this layer and of all it holds; takes effect at `compile`.
    """

    name: str | None = None
    trainable: bool = True

    shape: ClassVar[Shape | None] = None
    output_shape: ClassVar[Shape | None] = None
    activity_loss: ClassVar[float] = 0.0
    streams: ClassVar[bool] = False
    """Whether a sequence may be given piece by piece: an output depends on no later step, states are carried."""
    passes: ClassVar[bool] = False
    """Whether x reaches the next layer as it is, but for noise: that one's `check_values` then holds for it too."""
    ends_together: ClassVar[bool] = False
    """Whether all sequences must end at the last step of x, and be padded in front."""
    masks: ClassVar[bool] = False
    """Whether `output_mask` excludes steps by the values of x."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        taken = LAYERS.get(cls.__name__)
        if taken is not None and taken.__module__ != cls.__module__:
            raise BadValue(
                f"layer: a class {cls.__name__!r} exists in {taken.__module__}, and saved models find layers by name; "
                "choose another name"
            )
        LAYERS[cls.__name__] = cls

    def __post_init__(self) -> None:
        if self.name is not None and (not isinstance(self.name, str) or not self.name):
            raise BadValue(f"name: expected a non-empty string, got {self.name!r}")
        self.trainable = checks.flag("trainable", self.trainable)
        self.mask: np.ndarray | None = None  # (B, T), True: use the step; of the next forward's x
        self.key, self.draw = 0, 0  # random numbers of a training forward are a function of these two
        self.owner: Callable[[], Any] | None = None  # weak reference to the model that holds the parameters
        self.lock = locks.make()  # memory of a call is reused by the next: one at a time
        self.parameters: list[np.ndarray] = []
        self.gradients: list[np.ndarray] = []

    # ---- what a layer defines

    @abstractmethod
    def compute_output_shape(self, shape: Shape) -> Shape:
        """Output shape for an input shape; ValueError if the layer cannot take it."""

    def specs(self, shape: Shape) -> list[Spec]:
        """The parameters for an input shape."""
        return []

    def prepare(self, shape: Shape, dtype: np.dtype) -> None:
        """Set up what forward needs for inputs of `shape`, once the parameters are bound. Nothing by default."""
        return None

    @abstractmethod
    def forward(self, x: np.ndarray, *, training: bool) -> np.ndarray:
        """Output for x (batch, *shape). May return memory that the next call reuses."""

    @abstractmethod
    def backward(self, dy: np.ndarray, *, input_gradient: bool) -> np.ndarray | None:
        """Write the parameters' gradients for the last training forward; return that of x if asked for."""

    def check_values(self, argument: str, x: np.ndarray) -> None:
        """ValueError if x (N, *shape), given by a user, holds values the layer cannot take; by default it takes any."""
        return None

    def output_mask(self, x: np.ndarray) -> np.ndarray | None:
        """The mask of the output's steps after `forward` on x; by default that of the input if they are the same."""
        return self.mask if len(self.output_shape) > 1 and self.output_shape[0] == self.shape[0] else None

    # ---- shared

    def build(self, shape: Shape, dtype: np.dtype, views: Views) -> Shape:
        """Bind the layer to the arrays `views` gives for its parameters and gradients; return the output shape."""
        output = self.compute_output_shape(shape)
        self.parameters, self.gradients = views()
        self.prepare(shape, dtype)
        self.shape, self.output_shape, self.dtype = shape, output, dtype
        return output

    def build_alone(self, shape: Shape, dtype: np.dtype) -> None:
        """Build with parameters of its own."""
        self.compute_output_shape(shape)
        had = self.held_weights()
        vector = ParameterVector(self.specs(shape), dtype, np.random.default_rng(0))
        self.build(shape, dtype, lambda: (vector.views(vector.values), vector.views(vector.gradients)))
        self.take_over(had)

    def held_weights(self) -> list[np.ndarray]:
        """Copies of the parameters, or where there are none yet of those of the layers it holds, which may be built."""
        return self.get_weights() or [w for part in self.inner() if not part.inner() for w in part.get_weights()]

    def take_over(self, weights: list[np.ndarray]) -> None:
        """Keep what the layer had before it was built anew, if it fits."""
        if [w.shape for w in weights] == [p.shape for p in self.parameters]:
            self.set_weights(weights)

    def __call__(self, x: np.ndarray, mask: np.ndarray | None = None, training: bool = False) -> np.ndarray:
        """Run the layer on x (batch, *shape) and return a new array.

        `mask` (batch, T): True where a step is used. With `training` noise is drawn, anew in each call.
        """
        x = self._called(x)
        with self.lock:
            self.mask = step_mask(mask, None, x.shape[:2])
            self.draw += training
            return np.array(self.forward(x, training=training))

    def _called(self, x: np.ndarray) -> np.ndarray:
        x = np.asarray(x)
        dtype = self.dtype if self.shape is not None else checks.working_dtype(x)
        x = checks.real_array("x", x, dtype)
        if self.shape is None:
            self.build_alone(self._free_shape(x.shape[1:]), dtype)
        check_shape(f"x, for layer {self.name or type(self).__name__},", x.shape[1:], self.shape)
        return x

    def _free_shape(self, shape: Shape) -> Shape:
        """`shape` with any number of steps, if the layer allows it."""
        free = (None, *shape[1:]) if len(shape) == 2 else shape
        try:
            self.compute_output_shape(free)
        except ValueError:
            return shape
        return free

    def inner(self) -> tuple[Layer, ...]:
        """The layers this one holds."""
        return ()

    def __reduce__(self) -> tuple[Any, ...]:
        return _remake, (type(self), self.get_config(), self.shape, getattr(self, "dtype", None), self.get_weights())

    def get_weights(self) -> list[np.ndarray]:
        """Copies of the parameters."""
        with self.lock:
            return [p.copy() for p in self.parameters]

    def set_weights(self, weights: Sequence[np.ndarray]) -> None:
        """Overwrite the parameters; all shapes are checked before the first is written."""
        with self.lock:
            assign(self.parameters, weights)

    def count_params(self) -> int:
        """Number of scalar parameters."""
        return sum(p.size for p in self.parameters)

    def get_config(self) -> dict[str, Any]:
        """The configuration as JSON values; ``type(layer).from_config(config)`` gives an equal unbuilt layer."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self) if f.init}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Layer:
        """The layer that `get_config` described."""
        return cls(**config)


def _remake(
    cls: type[Layer], config: dict[str, Any], shape: Shape | None, dtype: np.dtype | None, weights: list[Any]
) -> Layer:
    """The copy that `copy` and `pickle` make of a layer, with parameters of its own."""
    layer = cls.from_config(config)
    if shape is not None:
        layer.build_alone(shape, dtype)
        layer.set_weights(weights)
    return layer


def serialize(layer: Layer) -> dict[str, Any]:
    """Class name and configuration of a layer, as JSON values."""
    return {"class_name": type(layer).__name__, "config": layer.get_config()}


def deserialize(description: dict[str, Any]) -> Layer:
    """The layer that `serialize` described; ValueError for an unknown class, or a configuration that does not fit."""
    if not isinstance(description, dict) or not isinstance(description.get("config"), dict):
        raise BadValue(f"layer: expected a dict with 'class_name' and 'config', got {description!r}")
    name, config = checks.choose("layer", description.get("class_name"), LAYERS), description["config"]
    try:
        return LAYERS[name].from_config(config)
    except TypeError as error:
        if isinstance(error, ElmanError):
            raise
        raise BadValue(f"layer: config {config!r} does not fit {name}: {error}") from None


_OPTIONS = {
    initializers.Initializer: initializers,
    regularizers.Regularizer: regularizers,
    constraints.Constraint: constraints,
}


def _plain(value: Any) -> Any:
    if isinstance(value, Layer):
        return serialize(value)
    if isinstance(value, Cell):
        if CELLS.get(value.name) is not value:
            raise BadValue(f"cell: {value.name!r} is not registered; call elman.cells.register(cell) to save it")
        return value.name
    for base, module in _OPTIONS.items():
        if isinstance(value, base):
            return module.serialize(value)
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return value


def check_shape(argument: str, shape: tuple[int, ...], expected: Shape, given: tuple[int, ...] | None = None) -> None:
    """ValueError unless `shape` agrees with `expected`, where None stands for any length; it names `given`."""
    if len(shape) != len(expected) or any(e is not None and s != e for s, e in zip(shape, expected, strict=True)):
        got = display(shape) if given is None else given
        raise BadValue(f"{argument} expected shape {display(expected)}, got {got} (the first axis is the batch)")


def display(shape: Shape) -> str:
    """A shape with its batch axis, None written as a star."""
    return "(" + ", ".join(["N", *("*" if s is None else str(s) for s in shape)]) + ")"


def assign(targets: Sequence[np.ndarray], weights: Sequence[np.ndarray]) -> None:
    """Copy `weights` into `targets` after checking number, shapes and finiteness of all."""
    weights = checks.entries("weights", weights)
    if len(weights) != len(targets):
        raise BadValue(f"weights: expected {len(targets)} arrays, got {len(weights)}")
    checked = [
        np.array(checks.shaped(f"weights[{k}]", w, t.shape, t.dtype))  # copies: they may be views of the targets
        for k, (w, t) in enumerate(zip(weights, targets, strict=True))
    ]
    for target, value in zip(targets, checked, strict=True):
        target[...] = value
