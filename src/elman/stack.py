"""A linear stack of layers: building it, the border for its data, and its arithmetic."""

from __future__ import annotations

import contextlib
import secrets
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from elman import checks
from elman.data import Windows
from elman.diagnostics import FlowReport, locate_nonfinite
from elman.diagnostics.flow import measure
from elman.errors import BadType, BadValue
from elman.layers import RNN, Embedding, Input, Layer
from elman.layers.activation import activation_of
from elman.layers.base import Shape, check_shape
from elman.parameters import ParameterVector
from elman.training.batches import Batch
from elman.training.data import check_rows
from elman.training.trainer import Trainer
from elman.warn import warn


class Stack(Trainer):
    """What `Sequential` is but for its weights and files."""

    def __init__(self, layers: Sequence[Layer] = (), dtype: str = "float32", seed: int | None = None) -> None:
        self.dtype = checks.float_dtype("dtype", dtype)
        self.seed = seed if seed is None else checks.integer("seed", seed, 0)
        self.layers: list[Layer] = []
        self._input: Input | None = None
        self._penalised: list[Layer] = []
        self._all_recurrent: list[RNN] = []
        self._carrying_layers: list[RNN] = []
        self._stateful_layers: list[RNN] = []
        self._last_shapes: tuple[Shape, Shape] = ((), ())  # of an input, and the output for it
        super().__init__(self.seed)
        if isinstance(layers, Layer):
            raise BadType("layers: expected a sequence of layers, got one layer")
        for layer in checks.entries("layers", layers):
            self._append(layer)
        if self._input is not None and self.layers:
            self.build(self._input.shape)

    # ---- building

    def add(self, layer: Layer) -> None:
        """Append a layer to a model that is not built yet.

        Raises
        ------
        TypeError, ValueError
            If it is no layer, or the model is built.

        Examples
        --------
        >>> import elman
        >>> model = elman.Sequential()
        >>> model.add(elman.layers.LSTM(3))
        >>> len(model.layers)
        1
        """
        if self._vector is not None:
            raise BadValue("layer: the model is built already; list all layers when making it")
        self._append(layer)

    def _append(self, layer: Layer) -> None:
        if not isinstance(layer, Layer):
            raise BadType(f"layers: expected a layer, got {type(layer).__name__} {layer!r}")
        for part in (layer, *layer.inner()):
            if any(part is known for known in self._parts()):
                raise BadValue(f"layers: the same {type(part).__name__} instance stands twice; make a second one")
        if isinstance(layer, Input):
            if self.layers or self._input is not None:
                raise BadValue("layers: Input must be the first layer")
            self._input = layer
            return
        if getattr(layer, "return_state", False):
            raise BadValue(
                f"layers: {type(layer).__name__} with return_state=True has several outputs, which Sequential cannot "
                "pass on; call the layer itself on an array"
            )
        self.layers.append(layer)
        parts = self._parts()
        self._penalised = [part for part in parts if getattr(part, "activity_regularizer", None) is not None]
        self._all_recurrent = [part for part in parts if isinstance(part, RNN)]
        # What stands inside another layer begins anew in each of its calls.
        self._carrying_layers = [part for part in self.layers if isinstance(part, RNN)]
        self._stateful_layers = [part for part in self._carrying_layers if part.stateful]

    def _parts(self) -> list[Layer]:
        """All layers, with those they hold."""
        return [part for layer in self.layers for part in (layer, *layer.inner())]

    def build(self, shape: Shape) -> None:
        """Create the parameters for inputs of `shape`, without the batch; done by the first data if not before.

        Parameters
        ----------
        shape : tuple of int or None
            (T, I) with T None for any length, or (F,).

        Raises
        ------
        ValueError
            If a layer cannot take its input; nothing is built then.

        Examples
        --------
        >>> import elman
        >>> model = elman.Sequential([elman.layers.LSTM(3)])
        >>> model.build((None, 2))
        >>> model.count_params()
        72
        """
        if not self.layers:
            raise BadValue("layers: the model has none")
        if self._vector is not None:
            raise BadValue("shape: the model is built already")
        shapes = self._shapes(Input(shape).shape)
        for part in self._parts():
            if part.owner is not None and part.owner() is not None:
                raise BadValue(f"layers: {part.name!r} belongs to another model already; make a second one")
        self._name_layers()
        specs, counts = [], []
        for layer, s in zip(self.layers, shapes[:-1], strict=True):
            own = [p._replace(name=f"{layer.name}/{p.name}") for p in layer.specs(s)]
            specs += own
            counts.append(len(own))
        vector = ParameterVector(specs, self.dtype, np.random.default_rng(self.seed))
        values, gradients = iter(vector.views(vector.values)), iter(vector.views(vector.gradients))
        for layer, s, n in zip(self.layers, shapes[:-1], counts, strict=True):
            had = layer.held_weights()
            arrays = [next(values) for _ in range(n)], [next(gradients) for _ in range(n)]
            layer.build(s, self.dtype, lambda arrays=arrays: arrays)
            layer.take_over(had)  # a layer that was called alone keeps what it has
        for part in self._parts():
            part.owner, part.lock = weakref.ref(self), self.lock
        self._vector = vector
        self._input = self._input or Input(shapes[0])
        self.output_shape = shapes[-1]
        self._set_noise(secrets.randbits(40) if self.seed is None else self.seed)
        self._note_trained(self._trainable_flags())

    def _shapes(self, shape: Shape) -> list[Shape]:
        shapes = [shape]
        for layer in self.layers:
            shapes.append(layer.compute_output_shape(shapes[-1]))
        return shapes

    def _name_layers(self) -> None:
        taken = [layer.name for layer in self.layers if layer.name]
        if len(set(taken)) != len(taken):
            raise BadValue(f"layers: names must differ, got {taken}")
        for layer in self.layers:
            if layer.name is None:
                base = type(layer).__name__.lower()
                number = sum(name == base or name.startswith(f"{base}_") for name in taken)
                layer.name = base if number == 0 else f"{base}_{number}"
                taken.append(layer.name)

    def _built(self) -> ParameterVector:
        if self._vector is None:
            raise BadValue("model: not built yet; begin it with Input(shape), call build(shape) or fit it")
        return self._vector

    # ---- data at the border

    def _check_x(self, x: Any, argument: str = "x", like: np.ndarray | None = None) -> np.ndarray:
        if not isinstance(x, Windows):
            x = checks.numeric(argument, x)
        shape = self._input.shape if self._input is not None else None if like is None else self._shape_for(like)
        given = x.shape
        if x.ndim == 2 and (self._wants_sequences(x) if shape is None else len(shape) == 2):
            x = x[:, :, None]
        check_shape(f"{argument}:", x.shape[1:], self._shape_for(x, argument) if shape is None else shape, given)
        check_rows(argument, x.base if isinstance(x, Windows) else x, self.dtype)
        if not isinstance(x, Windows):
            self._check_first(argument, x)
        return x

    def _check_first(self, argument: str, x: np.ndarray) -> None:
        """ValueError for values that the first layer cannot take, or one that x reaches as it is."""
        for layer in self.layers:
            layer.check_values(argument, x)
            if not layer.passes:
                return

    def _check_ends(self, steps: np.ndarray, count: int, prefix: str) -> None:
        layer = next((part for part in self._parts() if part.ends_together), None)
        if layer is None or steps.ndim != 1:  # a mask says itself which steps of the forecast are hidden
            return
        early = (steps < count) & (steps > 0)
        if early.any():
            raise BadValue(
                f"{prefix}x: sequence {int(np.argmax(early))} does not use the last step, which "
                f"{type(layer).__name__} forecasts; pad sequences of unequal length in front, and give mask="
            )

    def _check_values(self, x: np.ndarray, y: np.ndarray | None = None) -> None:
        self._check_first("x", x)
        if y is not None:
            self._compiled()._check_values("y", y)

    def _wants_sequences(self, x: np.ndarray) -> bool:
        """Whether the layers cannot take the vectors x (N, T), but can take them as sequences of one feature."""

        def fits(shape: Shape) -> bool:
            try:
                return bool(self._shapes(shape))
            except ValueError:
                return False

        return not fits(x.shape[1:]) and (fits((None, 1)) or fits((x.shape[1], 1)))

    def _shape_for(self, x: np.ndarray, argument: str = "x") -> Shape:
        """The input shape a model that is not built yet takes from x: any number of steps, if the layers allow it."""
        if not self.layers:
            raise BadValue("layers: the model has none")
        if x.ndim not in (2, 3):
            raise BadValue(f"{argument}: expected (N, time, features), (N, time) or (N, features), got {x.shape}")
        # Token ids (N, T) are as free in T as features (N, T, F) are.
        free = (None,) if self._takes_tokens(x) else (None,) * (x.ndim - 2) + x.shape[-1:]
        with contextlib.suppress(ValueError):
            self._shapes(free)
            return free
        self._shapes(x.shape[1:])
        return x.shape[1:]

    def _takes_tokens(self, x: np.ndarray) -> bool:
        return x.ndim == 2 and isinstance(self.layers[0], Embedding)

    def _build_for(self, x: np.ndarray) -> None:
        with self.lock:
            if self._vector is None:
                self.build(self._shape_for(x))

    def _warn_of_logits(self) -> None:
        if not type(self.layers[-1]).__module__.startswith("elman."):
            return  # what a layer of the caller's makes of its activation is its own affair
        wants, activation = getattr(self.loss, "from_logits", None), activation_of(self.layers[-1])
        if wants and activation in ("softmax", "sigmoid"):
            warn(f"loss: from_logits=True, but the last layer ends in {activation}, whose outputs are no logits")
        elif wants is False and activation == "linear":
            warn(
                "loss: the last layer has no activation, so its outputs are no probabilities; give it one (softmax or "
                "sigmoid), or the loss from_logits=True"
            )

    def _output_shape(self, x: np.ndarray) -> tuple[int, ...]:
        given, found = self._last_shapes
        if given != x.shape[1:]:
            given, found = x.shape[1:], self._shapes(x.shape[1:])[-1]
            if self._vector is not None:  # no layer is added any more
                self._last_shapes = given, found
        return (len(x), *found)

    # ---- arithmetic

    def _forward(self, x: np.ndarray, mask: np.ndarray | None, *, training: bool) -> np.ndarray:
        for layer in self.layers:
            layer.mask, layer.draw = mask, self._draws
            y = layer.forward(x, training=training)
            if y.dtype != self.dtype:  # kernels would read other numbers
                raise BadType(f"layer {layer.name!r}: forward returned {y.dtype}, the model computes in {self.dtype}")
            mask, x = layer.output_mask(x), y
            if mask is not None and mask.shape != y.shape[:2]:  # the loss would read beyond its end
                raise BadValue(f"layer {layer.name!r}: output_mask is {mask.shape}, the output {y.shape}")
        self._output_mask = mask
        return x

    def _backward(self, dy: np.ndarray) -> None:
        for k in range(len(self.layers) - 1, self._first - 1, -1):
            # None only of the first layer, where nothing is asked for.
            dy = self.layers[k].backward(dy, input_gradient=k > self._first)  # type: ignore[assignment]
            if k > self._first and dy.dtype != self.dtype:
                name = self.layers[k].name
                raise BadType(f"layer {name!r}: backward returned {dy.dtype}, the model computes in {self.dtype}")

    def _trainable_flags(self) -> list[bool]:
        return [p.trainable and layer.trainable for layer in self.layers for p in layer.specs(layer.shape)]

    def _note_trained(self, flags: Sequence[bool]) -> None:
        # The first layer that is trained needs no gradient of its input, and those before it none at all.
        rest = iter(flags)
        trained = [any([next(rest) for _ in layer.parameters]) for layer in self.layers]
        self._first = trained.index(True) if any(trained) else len(trained)

    def _recurrent_layers(self, *, stateful: bool) -> list[RNN]:
        return self._stateful_layers if stateful else self._carrying_layers

    def _activity_loss(self) -> float:
        return sum([part.activity_loss for part in self._penalised])

    def _check_streams(self, x: np.ndarray) -> None:
        shapes = self._shapes(x.shape[1:])
        for layer, before, after in zip(self.layers, shapes[:-1], shapes[1:], strict=True):
            behind_time = len(before) < 2 and len(after) < 2
            if not layer.streams and not behind_time:
                raise BadValue(
                    f"layer {layer.name or type(layer).__name__!r} needs whole sequences: its outputs depend on later "
                    "steps, or it carries no states; truncated BPTT and prediction in pieces cannot use it"
                )

    def _counts(self, x: np.ndarray) -> np.ndarray | None:
        first = self.layers[0]
        if not first.masks or isinstance(x, Windows) or x.ndim < 2:
            return None
        first.mask = None
        rows = max(1, (1 << 22) // max(1, x[:1].size))
        parts = (first.output_mask(x[k : k + rows]).sum(axis=1) for k in range(0, len(x), rows))
        return np.concatenate(list(parts))

    def _locate_nonfinite(self, batch: Batch) -> str:
        where = locate_nonfinite(self, batch)
        kept = self._states.kept.get("train", [])
        if all(np.isfinite(state).all() for layer in kept for state in layer):
            return where
        self._states.reset("train")  # they would spoil every batch to come
        return f"{where}; the states carried over are reset"

    def gradient_flow(
        self, x: Any, y: Any = None, sample_weight: Any = None, *, lengths: Any = None, mask: Any = None
    ) -> FlowReport:
        """How gradients flow back through time on one batch: norms of dL/dh_t, saturated gates, spectral radii.

        Parameters
        ----------
        x, y, sample_weight, lengths, mask
            As in `fit`; all of it is one batch.

        Returns
        -------
        FlowReport
            One `LayerFlow` per recurrent layer, frozen ones included; ``print`` it or ``plot`` it.

        Raises
        ------
        ValueError, TypeError
            As in `fit`, and if the model has no recurrent layer.

        Notes
        -----
        The loss is that of training, with the noise of the last training step, the states that begin a sequence and
        without truncation. Nothing of the model changes. With checkpointing the segments run once more for the gates.
        A spectral radius costs O(units ** 3).

        Norms as in R. Pascanu, T. Mikolov, Y. Bengio, On the difficulty of training recurrent neural networks, ICML
        2013.

        Examples
        --------
        >>> import numpy as np
        >>> import elman
        >>> model = elman.Sequential([elman.layers.LSTM(4), elman.layers.Dense(1)], seed=0)
        >>> model.compile("sgd", "mse")
        >>> report = model.gradient_flow(np.ones((2, 10, 3)), np.ones(2))
        >>> report["lstm"].norms.shape, sorted(report["lstm"].saturation)
        ((10,), ['f', 'g', 'i', 'o'])
        """
        rows = self._rows(x, y, sample_weight, lengths=lengths, mask=mask)
        self._build_for(rows.x)
        self._ready_optimizer()
        with self.lock:
            return measure(self, next(rows.batches(len(rows), sort=False)))

    def _set_noise(self, noise: int) -> None:
        """Where the random numbers of dropout begin: each part has a stream of its own."""
        self._noise = noise
        for k, part in enumerate(self._parts()):
            part.key = (noise << 20) + k
