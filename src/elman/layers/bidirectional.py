"""A recurrent layer in both directions of time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from elman import checks
from elman.errors import BadType, BadValue
from elman.layers.base import Layer, Shape, Views, deserialize
from elman.layers.recurrent import RNN
from elman.masks import step_mask
from elman.memory import Buffers
from elman.parameters import ParameterVector, Spec

_MERGE_MODES = ("concat", "sum", "mul", "ave")


@dataclass(eq=False)
class Bidirectional(Layer):
    """A recurrent layer that reads the sequence forwards, and one that reads it backwards.

    M. Schuster, K. K. Paliwal, Bidirectional recurrent neural networks, IEEE Trans. Signal Processing 45 (1997).

    Parameters
    ----------
    layer : RNN
        `LSTM`, `GRU`, `SimpleRNN` or `RNN`. Copies of its configuration are made, with weights of their own.
    merge_mode : "concat", "sum", "mul", "ave" or None
        What becomes of the two outputs at each step. None leaves them apart: calling the layer returns both; not inside
        `Sequential`.
    backward_layer : RNN, optional
        By default `layer` with `go_backwards` the other way round.
    name : str, optional
    trainable : bool
        False freezes both.

    Attributes
    ----------
    layer, backward_layer : RNN
        The two copies, named ``forward_<name>`` and ``backward_<name>``.

    Raises
    ------
    TypeError, ValueError
        If a layer is not recurrent or stateful, both read in the same direction, differ in `return_sequences` or
        `return_state`, or have different `units` where outputs are not concatenated.

    Notes
    -----
    Input (T, I). With ``return_sequences=True`` the outputs of both stand at the step they belong to, and are 0 at
    steps that a mask excludes, whatever `zero_output_for_mask` says, as in Keras. Otherwise the backward layer gives
    its output after reading the first step. Weights: those of the forward layer, then those of the backward layer.

    ``stateful=True``, which Keras takes, is refused: the backward layer would begin the end of one batch with what it
    knew at the begin of the batch before. A `seed` is that of both; without one their dropout masks differ.

    Examples
    --------
    >>> import numpy as np
    >>> import elman
    >>> from elman.layers import GRU, Bidirectional
    >>> x = np.random.default_rng(0).normal(size=(2, 5, 3))
    >>> Bidirectional(GRU(4, return_sequences=True))(x).shape
    (2, 5, 8)
    >>> Bidirectional(GRU(4), merge_mode="ave")(x).shape
    (2, 4)
    """

    layer: RNN
    merge_mode: str | None = "concat"
    backward_layer: RNN | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.merge_mode is not None:
            self.merge_mode = checks.choose("merge_mode", self.merge_mode, _MERGE_MODES)
        first = _recurrent("layer", self.layer)
        if self.backward_layer is None:
            second = replace(first, go_backwards=not first.go_backwards)
        else:
            second = _recurrent("backward_layer", self.backward_layer)
        self.layer, self.backward_layer = _copy(first, "forward_"), _copy(second, "backward_")
        if first.go_backwards == second.go_backwards:
            raise BadValue(f"backward_layer: both layers have go_backwards={first.go_backwards}; they must differ")
        for option in ("return_sequences", "return_state"):
            values = getattr(first, option), getattr(second, option)
            if values[0] != values[1]:
                raise BadValue(f"backward_layer: {option} is {values[1]}, that of layer {values[0]}; expected equal")
        if self.merge_mode not in ("concat", None) and first.units != second.units:
            raise BadValue(
                f"backward_layer: merge_mode={self.merge_mode!r} takes equal units, got {first.units}, {second.units}"
            )
        self._buffers = Buffers()
        self.backward_layer.key = 1  # other noise than the forward layer's, outside models too

    @property
    def return_sequences(self) -> bool:
        """Whether there is an output at every step."""
        return self.layer.return_sequences

    @property
    def return_state(self) -> bool:
        """Whether calling the layer returns the last states too."""
        return self.layer.return_state

    def inner(self) -> tuple[Any, ...]:
        """The forward and the backward layer."""
        return self.layer, self.backward_layer

    # ---- building

    def compute_output_shape(self, shape: Shape) -> Shape:
        """The forward layer's; with "concat" both layers' units."""
        output = self._merged_shape(shape)
        if self.merge_mode is None:
            raise BadValue(
                f"layer {self.name or 'Bidirectional'}: merge_mode=None gives two outputs, which Sequential cannot "
                "pass on; call the layer itself on an array"
            )
        return output

    def _merged_shape(self, shape: Shape) -> Shape:
        output, other = (part.compute_output_shape(shape) for part in self.inner())
        return (*output[:-1], output[-1] + other[-1]) if self.merge_mode == "concat" else output

    def specs(self, shape: Shape) -> list[Spec]:
        """Those of the forward layer, then those of the backward layer, with its name before each."""
        return [
            spec._replace(name=f"{part.name}/{spec.name}", trainable=spec.trainable and self.trainable)
            for part in self.inner()
            for spec in part.specs(shape)
        ]

    def build(self, shape: Shape, dtype: np.dtype, views: Views) -> Shape:
        """Bind this layer to all arrays, and each inner one to its own."""
        output = self._merged_shape(shape)
        self.parameters, self.gradients = views()
        cut = len(self.layer.specs(shape))
        for part, own in ((self.layer, slice(None, cut)), (self.backward_layer, slice(cut, None))):
            arrays = self.parameters[own], self.gradients[own]
            part.build(shape, dtype, lambda arrays=arrays: arrays)
        self.shape, self.output_shape, self.dtype = shape, output, dtype
        return output

    def build_alone(self, shape: Shape, dtype: np.dtype) -> None:
        """Build with parameters of its own; any merge mode."""
        self._merged_shape(shape)
        vector = ParameterVector(self.specs(shape), dtype, np.random.default_rng(0))
        self.build(shape, dtype, lambda: (vector.views(vector.values), vector.views(vector.gradients)))

    def _free_shape(self, shape: Shape) -> Shape:
        return (None, *shape[1:]) if len(shape) == 2 else shape

    # ---- arithmetic

    def forward(self, x: np.ndarray, *, training: bool) -> np.ndarray:
        """Both layers' outputs, merged."""
        for part in self.inner():
            part.mask, part.draw = self.mask, self.draw
        ahead = self.layer.forward(x, training=training)
        back = self.backward_layer.forward(x, training=training)
        self._outputs = ahead, back = ahead, self._turned(back)
        width = ahead.shape[-1] + (back.shape[-1] if self.merge_mode == "concat" else 0)
        # The layer above finds its input where it was the last time, and large arrays need no new pages.
        return self._merge(ahead, back, self._buffers.take("merged", (*ahead.shape[:-1], width), ahead.dtype))

    def backward(self, dy: np.ndarray, *, input_gradient: bool) -> np.ndarray | None:
        """Each layer's backpropagation through time, on its share of dy."""
        ahead, back = self._shares(dy)
        dx = self.layer.backward(ahead, input_gradient=input_gradient)
        other = self.backward_layer.backward(self._turned(back), input_gradient=input_gradient)
        return np.add(dx, other, out=self._buffers.take("dx", dx.shape, dx.dtype)) if input_gradient else None

    def output_mask(self, x: np.ndarray) -> np.ndarray | None:
        """That of the forward layer."""
        return self.layer.output_mask(x)

    def _turned(self, y: np.ndarray) -> np.ndarray:
        """What the backward layer gives in processing order, in the order of the forward layer; and back again."""
        return y[:, ::-1] if self.return_sequences else y

    def _merge(self, ahead: np.ndarray, back: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        if self.merge_mode == "concat":
            return np.concatenate([ahead, back], axis=-1, out=out)
        if self.merge_mode == "mul":
            return np.multiply(ahead, back, out=out)
        total = np.add(ahead, back, out=out)
        return total if self.merge_mode == "sum" else np.multiply(total, 0.5, out=out)

    def _shares(self, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gradients of the two outputs from that of the merged one."""
        if self.merge_mode == "concat":
            return dy[..., : self.layer.units], dy[..., self.layer.units :]
        if self.merge_mode == "mul":
            ahead, back = self._outputs
            return dy * back, dy * ahead
        half = dy if self.merge_mode == "sum" else dy * 0.5
        return half, half

    def __call__(  # type: ignore[override]  # states before the mask, as in Keras
        self,
        x: np.ndarray,
        initial_state: Sequence[np.ndarray] | None = None,
        mask: np.ndarray | None = None,
        training: bool = False,
    ) -> np.ndarray | list[np.ndarray]:
        """Run the layer on x (B, T, I).

        Parameters
        ----------
        x : ndarray of shape (B, T, I)
        initial_state : sequence of ndarray of shape (B, H), optional
            The forward layer's states, then the backward layer's.
        mask : ndarray of bool, shape (B, T), optional
            True where a sequence uses a step.
        training : bool
            Draw dropout masks.

        Returns
        -------
        ndarray, or list of ndarray
            The output, two of them for ``merge_mode=None``; with `return_state` followed by the last states of the
            forward layer and of the backward layer.
        """
        x = self._called(x)
        states = [None, None] if initial_state is None else self._split(initial_state)
        with self.lock:
            mask = step_mask(mask, None, x.shape[:2])
            found = [part(x, s, mask, training) for part, s in zip(self.inner(), states, strict=True)]
        (ahead, *first), (back, *second) = found if self.return_state else [[y] for y in found]
        back = self._turned(back)
        outputs = [ahead, np.array(back)] if self.merge_mode is None else [self._merge(ahead, back)]
        several = self.return_state or self.merge_mode is None
        return [*outputs, *first, *second] if several else outputs[0]

    def _split(self, initial_state: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
        counts = [part._cell().states for part in self.inner()]
        given = list(initial_state)
        if len(given) != sum(counts):
            raise BadValue(
                f"initial_state: expected {sum(counts)} arrays, the states of the forward and of the backward layer, "
                f"got {len(given)}"
            )
        return [given[: counts[0]], given[counts[0] :]]


def _recurrent(argument: str, given: Any) -> RNN:
    """`given`, or the layer it describes; refused unless it is recurrent and not stateful."""
    layer = deserialize(given) if isinstance(given, dict) else given
    if not isinstance(layer, RNN):
        raise BadType(f"{argument}: expected a recurrent layer, got {type(layer).__name__}")
    if layer.stateful:
        raise BadValue(
            f"{argument}: stateful=True has no meaning in Bidirectional: the backward states of a batch would have to "
            "come from the batch after it"
        )
    return layer


def _copy(layer: RNN, prefix: str) -> RNN:
    """An unbuilt layer of the same options, whose name begins with `prefix`."""
    name = (layer.name or type(layer).__name__.lower()).removeprefix(prefix)
    return replace(layer, name=prefix + name, zero_output_for_mask=layer.return_sequences)
