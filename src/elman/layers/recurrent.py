"""Recurrent layers: configuration and parameters around `elman.recurrence`, as `elman.functional` is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from elman import checks, constraints, initializers, regularizers
from elman.cells import Cell, get
from elman.errors import BadValue
from elman.kernels.pointwise import ACTIVATIONS
from elman.kernels.random import dropout_mask, zoneout
from elman.layers.activity import activity_loss, with_activity_gradient
from elman.layers.base import Layer, Shape
from elman.layers.noise import dropout_rate
from elman.masks import step_mask, time_major
from elman.parameters import Spec
from elman.recurrence import Recurrence, checked_interval
from elman.tape import Tape

# The masks of input and states, and zoneout, come from three streams of random numbers.
_RECURRENT_STREAM, _ZONEOUT_STREAM = 0x5EED, 0x20E0


@dataclass(eq=False)
class RNN(Layer):
    """Any registered cell, run over time. `SimpleRNN`, `LSTM` and `GRU` are this layer with their cell.

    Parameters
    ----------
    units : int
        H, the number of units.
    activation : str or None
        Activation of the candidate and the output: "tanh", "relu", "sigmoid", "hard_sigmoid", "linear" (or None),
        "softsign", "elu" and the others of `elman.kernels.pointwise.ACTIVATIONS`.
    cell : str or Cell
        A name in `elman.cells.CELLS`, or a cell of your own.
    recurrent_activation : str or None
        Activation of the gates.
    use_bias : bool
        Has no effect on a cell without a bias.
    kernel_initializer, recurrent_initializer, bias_initializer : str, dict or initializer
        See `elman.initializers`. Fans are those of the whole (I, gates * H) matrix.
    kernel_regularizer, recurrent_regularizer, bias_regularizer : str, dict, Regularizer or None
        Penalties added to the loss; see `elman.regularizers`.
    activity_regularizer : str, dict, Regularizer or None
        Penalty of the output, divided by the batch size.
    kernel_constraint, recurrent_constraint, bias_constraint : str, dict, Constraint or None
        Projections after each update; see `elman.constraints`.
    dropout : float
        Fraction of the inputs set to 0 in training, in [0, 1), the rest scaled up; one mask per sequence for all steps.
    recurrent_dropout : float
        The same for h before its product with the recurrent kernel (Gal & Ghahramani, 2016); other paths of h and other
        states are never dropped.
    zoneout : float or tuple of float
        Probability, in [0, 1), that a unit of a state keeps its value in a step of training, drawn anew for every step
        (Krueger et al., 2016): one for all states, or one per state, such as (0.05, 0.5) for h and c of an LSTM. At
        inference the new state is ``p * old + (1 - p) * new``. Training stores all states twice.
    seed : int, optional
        Of the dropout masks and of zoneout; by default they follow from the model's seed.
    return_sequences : bool
        Output (T, H) instead of the last step's (H,).
    return_state : bool
        Calling the layer returns the last states after the output. Not inside `Sequential`.
    go_backwards : bool
        Read the input from its end; outputs stay in processing order.
    stateful : bool
        Begin each batch with the states the last one ended with. Training, validation and prediction have states of
        their own, saved with the model. Training states are reset at every epoch, those of validation before it; see
        `Sequential.reset_states`. Batches must keep their size and order: `fit` refuses to shuffle.
    zero_output_for_mask : bool
        Output 0, not the last output again, at steps a mask excludes.
    checkpoint : int, "sqrt" or None
        Store the states of every so many steps only (sqrt(T) of them), and run each segment again before its backward
        pass: memory O(sqrt T), the same gradients to the bit, a second forward pass (Chen et al., 2016). The interval
        is rounded up to whole blocks of the weight gradients: of 32 steps from 16 sequences on, 64 from 4 on, else 256.
    learn_initial_state : bool
        The states before the first step are a parameter, (states, H), that begins at 0.
    name : str, optional
    trainable : bool

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or an unknown name.

    Notes
    -----
    Input (T, I), any T. Gate order and shapes of the weights are Keras's: kernel (I, gates * H), recurrent kernel
    (H, gates * H), bias (gates * H,), or (2, gates * H) where the cell has a recurrent bias; then, where there are any,
    the cell's weights per unit (k, H) and the initial state (states, H).

    A step that a mask excludes carries all states over and repeats the output before it; at first that is the initial
    state.

    Examples
    --------
    >>> import numpy as np
    >>> import elman
    >>> layer = elman.layers.RNN(4, cell="gru", return_sequences=True)
    >>> layer(np.zeros((2, 5, 3))).shape
    (2, 5, 4)
    """

    units: int
    activation: str | None = "tanh"
    cell: str | Cell = field(default="simple", kw_only=True)
    recurrent_activation: str | None = field(default="sigmoid", kw_only=True)
    use_bias: bool = field(default=True, kw_only=True)
    kernel_initializer: Any = field(default="glorot_uniform", kw_only=True)
    recurrent_initializer: Any = field(default="orthogonal", kw_only=True)
    bias_initializer: Any = field(default="zeros", kw_only=True)
    kernel_regularizer: Any = field(default=None, kw_only=True)
    recurrent_regularizer: Any = field(default=None, kw_only=True)
    bias_regularizer: Any = field(default=None, kw_only=True)
    activity_regularizer: Any = field(default=None, kw_only=True)
    kernel_constraint: Any = field(default=None, kw_only=True)
    recurrent_constraint: Any = field(default=None, kw_only=True)
    bias_constraint: Any = field(default=None, kw_only=True)
    dropout: float = field(default=0.0, kw_only=True)
    recurrent_dropout: float = field(default=0.0, kw_only=True)
    zoneout: float | tuple[float, ...] = field(default=0.0, kw_only=True)
    seed: int | None = field(default=None, kw_only=True)
    return_sequences: bool = field(default=False, kw_only=True)
    return_state: bool = field(default=False, kw_only=True)
    go_backwards: bool = field(default=False, kw_only=True)
    stateful: bool = field(default=False, kw_only=True)
    zero_output_for_mask: bool = field(default=False, kw_only=True)
    checkpoint: int | str | None = field(default=None, kw_only=True)
    learn_initial_state: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.units = checks.integer("units", self.units)
        self.activation = checks.choose(
            "activation", "linear" if self.activation is None else self.activation, ACTIVATIONS
        )
        self.recurrent_activation = checks.choose(
            "recurrent_activation",
            "linear" if self.recurrent_activation is None else self.recurrent_activation,
            ACTIVATIONS,
        )
        for option in fields(self):
            value = getattr(self, option.name)
            for suffix, module in _MODULES.items():
                if option.name.endswith(suffix):
                    value = module.get(value, option.name) if module is not initializers else module.get(value)
            if isinstance(option.default, bool):
                value = checks.flag(option.name, value)
            setattr(self, option.name, value)
        for rate in ("dropout", "recurrent_dropout"):
            setattr(self, rate, dropout_rate(rate, getattr(self, rate)))
        self.zoneout = self._checked_zoneout(self.zoneout)
        self.seed = self.seed if self.seed is None else checks.integer("seed", self.seed, 0)
        self.checkpoint = checked_interval(self.checkpoint)
        get(self.cell)
        self.default_checkpoint: int | str | None = None  # what `compile` chose for the whole model
        self.carry: Sequence[np.ndarray] | None = None  # states (B, H) that the next forward begins with
        self.norms: np.ndarray | None = None  # (T, B) float64 that `backward` fills, where somebody wants them
        self._carried = False
        self._tape: Tape | None = None

    @property
    def streams(self) -> bool:  # type: ignore[override]
        """Whether a sequence may be given piece by piece: not from its end."""
        return not self.go_backwards

    def _cell(self) -> Cell:
        return get(self.cell)

    def _checked_zoneout(self, given: Any) -> float | tuple[float, ...]:
        if not isinstance(given, (tuple, list)):
            return dropout_rate("zoneout", given)
        cell = self._cell()
        if len(given) != cell.states:
            raise BadValue(
                f"zoneout: expected one rate or as many as cell {cell.name!r} has states, {cell.states}, "
                f"got {len(given)}"
            )
        return tuple(dropout_rate(f"zoneout[{k}]", rate) for k, rate in enumerate(given))

    def _zone(self, key: int) -> np.ndarray | None:
        """Zoneout as the recurrence takes it; None without."""
        if not self.zoneout:
            return None
        rates = self.zoneout if isinstance(self.zoneout, tuple) else (self.zoneout,) * self._cell().states
        return zoneout(key ^ _ZONEOUT_STREAM, self.draw, rates) if any(rates) else None

    def compute_output_shape(self, shape: Shape) -> Shape:
        """(T, I) to (T, H), or to (H,) without `return_sequences`."""
        if len(shape) != 2 or shape[1] is None:
            raise BadValue(
                f"layer {self.name or type(self).__name__}: a recurrent layer takes (time, features), got {shape}; "
                "one below it needs return_sequences=True"
            )
        return (shape[0], self.units) if self.return_sequences else (self.units,)

    def specs(self, shape: Shape) -> list[Spec]:
        """Kernel, recurrent kernel, bias, weights per unit, initial state: those there are."""
        cell = self._cell()
        columns = cell.gates * self.units

        def spec(name: str, option: str, shape: tuple[int, ...], initializer: Any) -> Spec:
            regularizer = getattr(self, f"{option}_regularizer")
            return Spec(name, shape, initializer, regularizer, getattr(self, f"{option}_constraint"), self.trainable)

        specs = [spec("kernel", "kernel", (shape[1], columns), self.kernel_initializer)]
        if cell.h:
            specs.append(spec("recurrent_kernel", "recurrent", (self.units, columns), self.recurrent_initializer))
        if self.use_bias and cell.bias:
            bias_shape = (2, columns) if cell.recurrent_bias else (columns,)
            specs.append(spec("bias", "bias", bias_shape, self._initial_bias))
        if cell.unit_weights:
            unit_shape = len(cell.unit_weights), self.units
            specs.append(Spec("unit_weights", unit_shape, self._initial_unit_weights, trainable=self.trainable))
        if self.learn_initial_state:
            zeros = initializers.get("zeros")
            specs.append(Spec("initial_state", (cell.states, self.units), zeros, trainable=self.trainable))
        return specs

    def _initial_bias(self, shape: tuple[int, ...], dtype: np.dtype, rng: np.random.Generator) -> np.ndarray:
        return self.bias_initializer(shape, dtype, rng)

    def _initial_unit_weights(self, shape: tuple[int, ...], dtype: np.dtype, rng: np.random.Generator) -> np.ndarray:
        return np.repeat(np.array([[v] for _, v in self._cell().unit_weights], dtype), shape[1], axis=1)

    def prepare(self, shape: Shape, dtype: np.dtype) -> None:
        """Make the recurrence for I inputs."""
        cell = self._cell()
        self._recurrence = Recurrence(cell, shape[1], self.units, dtype, self.activation, self.recurrent_activation)
        self._tape = None
        self._arguments = self._as_arguments(self.parameters)
        self._targets = self._as_arguments(self.gradients)

    def _as_arguments(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Kernel, recurrent kernel, bias and weights per unit as the kernels take them: without rows where absent."""
        cell, rest = self._cell(), iter(arrays)
        kernel = next(rest)
        columns = kernel.shape[1]
        none = np.empty((0, columns), kernel.dtype)
        recurrent = next(rest) if cell.h else none
        bias = next(rest).reshape(-1, columns) if self.use_bias and cell.bias else none
        return [kernel, recurrent, bias, next(rest) if cell.unit_weights else np.empty((0, self.units), kernel.dtype)]

    # ---- arithmetic

    def _begin(self, batch: int) -> Sequence[np.ndarray] | None:
        """The states before the first step."""
        if self.carry is not None:
            return self.carry
        if not self.learn_initial_state:
            return None
        return [np.broadcast_to(row, (batch, self.units)) for row in self.parameters[-1]]

    def _run(self, x: np.ndarray, state: Sequence[np.ndarray] | None, *, training: bool) -> Tape:
        if x.ndim != 3 or x.shape[1] == 0:
            raise BadValue(f"layer {self.name}: x must have at least one time step, got shape {x.shape}")
        key, self._x_drop, drop = self.key if self.seed is None else self.seed, None, None
        if training and self.dropout:
            self._x_drop = dropout_mask(key, self.draw, self.dropout, (len(x), 1, x.shape[2]), x.dtype)
            x = x * self._x_drop
        if training and self.recurrent_dropout:
            shape = len(x), self.units
            drop = dropout_mask(key ^ _RECURRENT_STREAM, self.draw, self.recurrent_dropout, shape, x.dtype)
        return self._recurrence.forward(
            x[:, ::-1] if self.go_backwards else x,
            self._arguments,
            state,
            training=training,
            sequences=self.return_sequences,
            mask=time_major(self.mask, go_backwards=self.go_backwards),
            drop=drop,
            zoneout=self._zone(key),
            checkpoint=self.checkpoint or self.default_checkpoint,
        )

    def output_mask(self, x: np.ndarray) -> np.ndarray | None:
        """The mask in the order of the outputs, with `return_sequences`."""
        if self.mask is None or not self.return_sequences:
            return None
        return self.mask[:, ::-1] if self.go_backwards else self.mask

    def _output(self, tape: Tape) -> np.ndarray:
        y = tape.outputs if self.return_sequences else tape.outputs[:, 0]
        if self._zeroed():
            y = y * self.output_mask(y)[..., None]
        return y

    def _zeroed(self) -> bool:
        return self.zero_output_for_mask and self.return_sequences and self.mask is not None

    def forward(self, x: np.ndarray, *, training: bool) -> np.ndarray:
        """Outputs (B, T, H) or (B, H)."""
        self._carried = self.carry is not None
        tape = self._tape = self._run(x, self._begin(len(x)), training=training)
        self._y = self._output(tape)
        self.activity_loss = activity_loss(self.activity_regularizer, self._y)
        return self._y

    def backward(self, dy: np.ndarray, *, input_gradient: bool) -> np.ndarray | None:
        """Backpropagation through time."""
        return self.backward_through_time(dy, input_gradient=input_gradient, norms=self.norms)

    def backward_through_time(
        self, dy: np.ndarray, *, input_gradient: bool, norms: np.ndarray | None = None
    ) -> np.ndarray | None:
        """Gradient of x; `norms` (T, B) gets the length of the gradient of each h."""
        tape = self._tape
        dy = with_activity_gradient(self.activity_regularizer, self._y, dy)
        if self._zeroed():
            dy = dy * self.output_mask(dy)[..., None]
        outputs = dy if self.return_sequences else dy[:, None]
        dx = tape.run_backward(outputs, None, self._targets, input_gradient=input_gradient, norms=norms)
        if self.learn_initial_state:
            for target, d in zip(self.gradients[-1], tape.state_gradients(), strict=True):
                # States that were carried over depend on no parameter.
                target[...] = 0 if self._carried else d.sum(axis=0)
        if input_gradient:
            dx = dx[:, ::-1] if self.go_backwards else dx
            dx = dx if self._x_drop is None else dx * self._x_drop
        return dx

    def states_at(self, t: int | None = None) -> list[np.ndarray]:
        """Copies of the states before step t of the last forward, which was for training; of the last without t."""
        found = self._tape.state if t is None else self._tape.states_at(t)
        return [s.copy() for s in found]

    def __call__(  # type: ignore[override]  # states before the mask, as in Keras
        self,
        x: np.ndarray,
        initial_state: np.ndarray | Sequence[np.ndarray] | None = None,
        mask: np.ndarray | None = None,
        training: bool = False,
    ) -> np.ndarray | list[np.ndarray]:
        """Run the layer on x (B, T, I).

        Parameters
        ----------
        x : ndarray of shape (B, T, I)
        initial_state : ndarray or sequence of ndarray of shape (B, H), optional
            One per state of the cell (LSTM: h, c); zeros by default. For gradients see `elman.functional.recurrent`.
        mask : ndarray of bool, shape (B, T), optional
            True where a sequence uses a step.
        training : bool
            Draw dropout masks and zoneout.

        Returns
        -------
        ndarray, or list of ndarray with `return_state`
            The output, followed by the last states.
        """
        x = self._called(x)
        cell = self._cell()
        if initial_state is not None:
            states = [initial_state] if isinstance(initial_state, np.ndarray) else list(initial_state)
            if len(states) != cell.states:
                raise BadValue(f"initial_state: cell {cell.name!r} has {cell.states} states, got {len(states)}")
            initial_state = [
                checks.shaped(f"initial_state[{k}]", v, (x.shape[0], self.units), self.dtype)
                for k, v in enumerate(states)
            ]
        with self.lock:
            self.mask = step_mask(mask, None, x.shape[:2])
            self.draw += training
            tape = self._run(x, initial_state or self._begin(len(x)), training=training)
            output = self._output(tape).copy()
            return [output, *(v.copy() for v in tape.state)] if self.return_state else output


_MODULES: dict[str, Any] = {"_initializer": initializers, "_regularizer": regularizers, "_constraint": constraints}
