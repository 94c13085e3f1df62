"""Recurrent layers: configuration and parameters around `elman.recurrence`, as `elman.functional` is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from elman import checks, initializers
from elman.cells import CELLS, Cell, get
from elman.kernels.pointwise import ACTIVATIONS
from elman.layers.base import Layer, Shape
from elman.parameters import Spec
from elman.recurrence import Recurrence, Tape


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
    kernel_initializer, recurrent_initializer, bias_initializer : str, dict or initializer
        See `elman.initializers`. Fans are those of the whole (I, gates * H) matrix.
    return_sequences : bool
        Output (T, H) instead of the last step's (H,).
    return_state : bool
        Calling the layer returns the last states after the output. Not inside `Sequential`.
    go_backwards : bool
        Read the input from its end; outputs stay in processing order.
    name : str, optional

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or an unknown name.

    Notes
    -----
    Input (T, I), any T. Gate order and shapes of the weights are Keras's: kernel (I, gates * H), recurrent kernel
    (H, gates * H), bias (gates * H,), or (2, gates * H) where the cell has a recurrent bias.

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
    return_sequences: bool = field(default=False, kw_only=True)
    return_state: bool = field(default=False, kw_only=True)
    go_backwards: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.units = checks.integer("units", self.units)
        self.activation = checks.choose("activation", self.activation or "linear", ACTIVATIONS)
        self.recurrent_activation = checks.choose(
            "recurrent_activation", self.recurrent_activation or "linear", ACTIVATIONS
        )
        for option in ("kernel_initializer", "recurrent_initializer", "bias_initializer"):
            setattr(self, option, initializers.get(getattr(self, option)))
        for option in fields(self):
            if isinstance(option.default, bool):
                setattr(self, option.name, checks.flag(option.name, getattr(self, option.name)))
        get(self.cell)

    def _cell(self) -> Cell:
        return get(self.cell)

    def compute_output_shape(self, shape: Shape) -> Shape:
        """(T, I) to (T, H), or to (H,) without `return_sequences`."""
        if len(shape) != 2 or shape[1] is None:
            raise ValueError(
                f"layer {self.name or type(self).__name__}: a recurrent layer takes (time, features), got {shape}; "
                "one below it needs return_sequences=True"
            )
        return (shape[0], self.units) if self.return_sequences else (self.units,)

    def specs(self, shape: Shape) -> list[Spec]:
        """Kernel, recurrent kernel, bias."""
        cell = self._cell()
        columns = cell.gates * self.units
        specs = [Spec("kernel", (shape[1], columns), self.kernel_initializer)]
        if cell.h:
            specs.append(Spec("recurrent_kernel", (self.units, columns), self.recurrent_initializer))
        if self.use_bias:
            bias_shape = (2, columns) if cell.recurrent_bias else (columns,)
            specs.append(Spec("bias", bias_shape, self._initial_bias))
        return specs

    def _initial_bias(self, shape: tuple[int, ...], dtype: np.dtype, rng: np.random.Generator) -> np.ndarray:
        return self.bias_initializer(shape, dtype, rng)

    def prepare(self, shape: Shape, dtype: np.dtype) -> None:
        """Make the recurrence for I inputs."""
        cell = self._cell()
        self._recurrence = Recurrence(cell, shape[1], self.units, dtype, self.activation, self.recurrent_activation)
        self._tape: Tape | None = None
        self._arguments = self._as_arguments(self.parameters)
        self._targets = self._as_arguments(self.gradients)

    def _as_arguments(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Kernel, recurrent kernel and bias as the kernels take them: 2-D, without rows where absent."""
        cell, kernel = self._cell(), arrays[0]
        none = np.empty((0, kernel.shape[1]), kernel.dtype)
        return [
            kernel,
            arrays[1] if cell.h else none,
            arrays[-1].reshape(-1, kernel.shape[1]) if self.use_bias else none,
        ]

    def _run(self, x: np.ndarray, state: Sequence[np.ndarray] | None, *, training: bool) -> Tape:
        if x.ndim != 3 or x.shape[1] == 0:
            raise ValueError(f"layer {self.name}: x must have at least one time step, got shape {x.shape}")
        return self._recurrence.forward(
            x[:, ::-1] if self.go_backwards else x,
            self._arguments,
            state,
            training=training,
            sequences=self.return_sequences,
        )

    def _output(self, tape: Tape) -> np.ndarray:
        return tape.outputs if self.return_sequences else tape.state[0]

    def forward(self, x: np.ndarray, *, training: bool) -> np.ndarray:
        """Outputs (B, T, H) or (B, H)."""
        tape = self._run(x, None, training=training)
        self._tape = tape if training else None
        return self._output(tape)

    def backward(self, dy: np.ndarray, *, input_gradient: bool) -> np.ndarray | None:
        """Backpropagation through time."""
        tape, self._tape = self._tape, None
        rest = [None] * (self._cell().states - 1)
        sequence, state = (dy, [None, *rest]) if self.return_sequences else (None, [dy, *rest])
        dx, _ = tape.run_backward(sequence, state, self._targets, input_gradient=input_gradient)
        return dx[:, ::-1] if input_gradient and self.go_backwards else dx

    def __call__(
        self, x: np.ndarray, initial_state: np.ndarray | Sequence[np.ndarray] | None = None
    ) -> np.ndarray | list[np.ndarray]:
        """Run the layer on x (B, T, I).

        Parameters
        ----------
        x : ndarray of shape (B, T, I)
        initial_state : ndarray or sequence of ndarray of shape (B, H), optional
            One per state of the cell (LSTM: h, c); zeros by default.

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
                raise ValueError(f"initial_state: cell {cell.name!r} has {cell.states} states, got {len(states)}")
            initial_state = [
                checks.shaped(f"initial_state[{k}]", v, (x.shape[0], self.units), self.dtype)
                for k, v in enumerate(states)
            ]
        with self.lock:
            tape = self._run(x, initial_state, training=False)
            output = self._output(tape).copy()
            return [output, *(v.copy() for v in tape.state)] if self.return_state else output


@dataclass(eq=False)
class SimpleRNN(RNN):
    """Elman layer: ``h = act(x K + b + h' R)``. Parameters as in `RNN`.

    J. L. Elman, Finding structure in time, Cognitive Science 14 (1990).

    Examples
    --------
    >>> import numpy as np
    >>> import elman
    >>> elman.layers.SimpleRNN(4)(np.zeros((2, 5, 3))).shape
    (2, 4)
    """

    cell: str | Cell = field(default="simple", init=False, repr=False)


@dataclass(eq=False)
class LSTM(RNN):
    """Long short-term memory; gates i, f, c, o. Parameters as in `RNN`, and:

    Parameters
    ----------
    unit_forget_bias : bool
        Begin with a forget bias of exactly 1.

    Notes
    -----
    S. Hochreiter, J. Schmidhuber, Long short-term memory, Neural Computation 9 (1997). `return_state` gives h and c.

    Examples
    --------
    >>> import numpy as np
    >>> import elman
    >>> output, h, c = elman.layers.LSTM(4, return_state=True)(np.zeros((2, 5, 3)))
    >>> c.shape
    (2, 4)
    """

    cell: str | Cell = field(default="lstm", init=False, repr=False)
    unit_forget_bias: bool = field(default=True, kw_only=True)

    def _initial_bias(self, shape: tuple[int, ...], dtype: np.dtype, rng: np.random.Generator) -> np.ndarray:
        bias = self.bias_initializer(shape, dtype, rng)
        if self.unit_forget_bias:
            gate = CELLS["lstm"].forget
            bias[gate * self.units : (gate + 1) * self.units] = 1
        return bias


@dataclass(eq=False)
class GRU(RNN):
    """Gated recurrent unit; gates z, r, h. Parameters as in `RNN`, and:

    Parameters
    ----------
    reset_after : bool
        True: the reset gate acts after the recurrent product (one product per step; bias (2, 3H)). False: before it, as
        in K. Cho et al. (2014) (bias (3H,)).

    Examples
    --------
    >>> import numpy as np
    >>> import elman
    >>> elman.layers.GRU(4, reset_after=False)(np.zeros((2, 5, 3))).shape
    (2, 4)
    """

    cell: str | Cell = field(default="gru", init=False, repr=False)
    reset_after: bool = field(default=True, kw_only=True)

    def _cell(self) -> Cell:
        return CELLS["gru" if self.reset_after else "gru_reset_before"]
