"""Inference step by step, for control loops, audio and text: what `Sequential.stream` returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from elman import checks
from elman.errors import BadType, BadValue
from elman.layers import RNN, Embedding
from elman.layers.base import Layer
from elman.packing import Packed
from elman.training.data import check_rows
from elman.training.states import States

__all__ = ["Stepper"]


class Stepper(ABC):
    """Runs a model one time step per call and carries its states; `Sequential.stream` makes it.

    Attributes
    ----------
    model : Sequential
        The model whose weights were read; the stepper keeps it alive.
    batch_size : int
        B, the sequences that are continued side by side.

    Notes
    -----
    The weights are copies of those the model had when the stepper was made, or at its last `refresh`: training in
    between is not seen. A stepper belongs to one thread at a time; two of them share nothing, and neither do a stepper
    and the model's own methods. It cannot be copied or pickled.

    Every step has the bits that `Sequential.predict` gives for it on the whole sequence. A step that a mask excludes
    (`Masking`, ``Embedding(mask_zero=True)``) carries the states over, as it does there.

    A stack of recurrent layers, `Dense`, `Activation`, `Embedding`, `LayerNormalization`, `Masking` and what does
    nothing at inference runs in one call of compiled code, without allocating, on the calling thread. A stack with any
    other layer runs layer by layer on a copy of the model, which takes 30 us and more.

    Examples
    --------
    >>> import numpy as np
    >>> import elman
    >>> model = elman.Sequential([elman.layers.Input((None, 2)), elman.layers.LSTM(4), elman.layers.Dense(1)], seed=0)
    >>> x = np.random.default_rng(0).normal(size=(1, 5, 2)).astype("float32")
    >>> step = model.stream()
    >>> outputs = [step(x_t).copy() for x_t in x[0]]
    >>> bool((outputs[-1] == model.predict(x)[0]).all())
    True
    """

    def __init__(self, model: Any, batch_size: int) -> None:
        self.model, self.batch_size = model, batch_size
        self._first: Layer = model.layers[0]
        shape = self._first.shape
        self._tokens = len(shape) == 1
        self._one: tuple[int, ...] = () if self._tokens else shape[1:]  # the shape of one step of one sequence
        self._recurrent: list[RNN] = list(model._recurrent_layers(stateful=False))
        y = self._make()
        self._y = y[0] if batch_size == 1 else y
        self.reset()

    @abstractmethod
    def _make(self) -> np.ndarray:
        """Read the weights; returns the place of the outputs (B, O)."""

    @abstractmethod
    def __call__(self, x: Any) -> np.ndarray:
        """The output for the next step.

        Parameters
        ----------
        x : array_like
            (B, I), or (I,) for one sequence; for a model that takes token numbers (B,), or one number. C-contiguous
            writable arrays of float32 or float64 are read as they are, and so are tokens as int64; anything else is
            converted first, which takes some 40 us.

        Returns
        -------
        ndarray
            (B, O), or (O,) for one sequence. The next call overwrites it: ``copy()`` what is to stay.

        Raises
        ------
        ValueError, TypeError
            If x has another shape, is not finite in the model's dtype, is no real number or no token number; no state
            is changed then.
        """

    @abstractmethod
    def refresh(self) -> None:
        """Read the model's weights again; the states stay as they are."""

    @abstractmethod
    def _places(self) -> list[list[np.ndarray]]:
        """The live states: (B, H) for every state of every recurrent layer."""

    @abstractmethod
    def _initial(self, k: int) -> np.ndarray | Sequence[np.ndarray] | None:
        """The states (H,) that recurrent layer k begins with, if it learned them."""

    # ---- states

    @property
    def states(self) -> list[list[np.ndarray]]:
        """Copies of the states: for every recurrent layer a list of (B, H), such as [h, c]."""
        return [[state.copy() for state in layer] for layer in self._places()]

    def set_states(self, states: Sequence[Sequence[Any]]) -> None:
        """Overwrite all states.

        Parameters
        ----------
        states : sequence of sequence of array_like
            As `states` gives them.

        Raises
        ------
        ValueError, TypeError
            If a number of arrays, a shape or a value does not fit; nothing is written then.
        """
        places = self._places()
        _check_list("states", states, len(places), "recurrent layers")
        checked = []
        for k, (targets, given) in enumerate(zip(places, states, strict=True)):
            _check_list(f"states[{k}]", given, len(targets), f"states of layer {self._recurrent[k].name!r}")
            checked += [
                (target, checks.shaped(f"states[{k}][{j}]", value, target.shape, target.dtype))
                for j, (target, value) in enumerate(zip(targets, given, strict=True))
            ]
        for target, value in checked:
            target[...] = value

    def reset(self) -> None:
        """Begin new sequences: states 0, or those a layer learned."""
        for k, layer in enumerate(self._places()):
            begin = self._initial(k)
            for j, state in enumerate(layer):
                state[...] = 0 if begin is None else begin[j]

    def __reduce__(self) -> Any:
        raise BadType("a stepper cannot be copied or pickled: call model.stream(), then set_states(step.states)")

    # ---- the border

    def _accepted(self, x: Any) -> np.ndarray:
        """x as a new array, (B, I) in the model's dtype or int64 (B,); TypeError or ValueError if it is no step."""
        array, dtype = checks.numeric("x", x), self.model.dtype
        wanted = (self.batch_size, *self._one)
        if array.shape != wanted and (self.batch_size != 1 or array.shape != self._one):
            also = f"{self._one} or " if self.batch_size == 1 else ""
            raise BadValue(f"x: expected shape {also}{wanted} for one step, got {array.shape}")
        if self._tokens:
            array = array.reshape(wanted)
            check_rows("x", array, dtype)
            self._first.check_values("x", array)
            return array.astype(np.int64)
        check_rows("x", array, dtype)
        array = array.reshape(wanted)
        self._first.check_values("x", array[:, None])
        return np.array(array, dtype, order="C")


class _Compiled(Stepper):
    """All layers in one call of compiled code."""

    def _make(self) -> np.ndarray:
        with self.model.lock:
            self._packed = Packed(self.model.layers, self.batch_size, self.model.dtype)
        self._step, self._place = self._packed.step, self._packed.place
        return self._packed.y

    def __call__(self, x: Any) -> np.ndarray:
        try:
            if self._step(x, self._place) == 0:
                return self._y
        except (TypeError, ValueError, OverflowError):  # not compiled for x as it is
            pass
        if self._step(self._accepted(x), self._place) != 0:
            raise BadValue(f"x: cannot be read, got {x!r}")
        return self._y

    def refresh(self) -> None:
        with self.model.lock:
            self._packed.read()

    def _places(self) -> list[list[np.ndarray]]:
        return self._packed.states

    def _initial(self, k: int) -> np.ndarray | Sequence[np.ndarray] | None:
        return self._packed.initial[k]


class _Layered(Stepper):
    """Layer by layer on a copy of the model, for layers that have no compiled step."""

    def _make(self) -> np.ndarray:
        model = self.model
        self._copy = type(model).from_config({**model.get_config(), "input_shape": None})
        shape = model._input.shape
        self._copy.build((None, *shape[1:]))
        self.refresh()
        self._layers = list(self._copy._recurrent_layers(stateful=False))
        self._states = States()
        self._last: list[list[np.ndarray]] = [[] for _ in self._layers]
        for layer, kept in zip(self._layers, self._last, strict=True):
            kept += [np.zeros((self.batch_size, layer.units), model.dtype) for _ in range(layer._cell().states)]
        return np.empty((self.batch_size, model.output_shape[-1]), model.dtype)

    def __call__(self, x: Any) -> np.ndarray:
        batch = self._accepted(x).astype(self.model.dtype)[:, None]
        self._states.kept["stream"] = self._last
        with self._copy.lock, self._states.carried("stream", self._layers, self.batch_size):
            self._y[...] = self._copy._forward(batch, None, training=False).reshape(self._y.shape)
        self._last = self._states.kept["stream"]
        return self._y

    def refresh(self) -> None:
        with self.model.lock:
            self._copy.set_weights(self.model.get_weights())

    def _places(self) -> list[list[np.ndarray]]:
        return self._last

    def _initial(self, k: int) -> np.ndarray | Sequence[np.ndarray] | None:
        layer = self._layers[k]
        return layer.parameters[-1] if layer.learn_initial_state else None


def _check_list(argument: str, given: Any, length: int, what: str) -> None:
    """TypeError or ValueError unless `given` is a list or tuple of that length."""
    if not isinstance(given, (list, tuple)):
        raise BadType(f"{argument}: expected a list, one entry for each of the {what}, got {type(given).__name__}")
    if len(given) != length:
        raise BadValue(f"{argument}: expected {length} entries, one for each of the {what}, got {len(given)}")


def make(model: Any, batch_size: int) -> Stepper:
    """The stepper of a model that is built; see `Sequential.stream`."""
    batch_size = checks.integer("batch_size", batch_size)
    shape = model._input.shape
    tokens = len(shape) == 1 and isinstance(model.layers[0], Embedding)
    if len(shape) == 1 and not tokens:
        raise BadValue(f"model: it takes vectors {shape} and no sequences; use predict")
    model._check_streams(np.empty((1, 1, *shape[1:])))
    return (_Compiled if Packed.takes(model.layers) else _Layered)(model, batch_size)
