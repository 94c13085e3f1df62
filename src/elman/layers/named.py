"""The recurrent layers people name: `RNN` with one cell each."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from elman import checks
from elman.cells import CELLS, Cell
from elman.errors import BadValue
from elman.layers.recurrent import RNN


def _checked_chrono(layer: LSTM | GRU) -> int | None:
    """`chrono` as an int of at least 3, or None; with 2 the range of the draw would be empty."""
    if layer.chrono is None:
        return None
    steps = checks.integer("chrono", layer.chrono, 3)
    if not layer.use_bias:
        raise BadValue(f"chrono: draws the bias of a gate, and with use_bias=False there is none, got {steps}")
    return steps


def _chrono_bias(steps: int, units: int, rng: np.random.Generator) -> np.ndarray:
    """Biases under which the units of a gate that keeps the state forget after 2 to `steps` steps."""
    return np.log(rng.uniform(1, steps - 1, units))


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
    chrono : int or None
        T, the longest time over which something is to be remembered, in steps, at least 3. Begin with forget biases
        log(u), u uniform on [1, T - 1), one draw per unit, and input biases of exactly the negative, whatever
        `unit_forget_bias` and `bias_initializer` say of these two gates. At f = u / (1 + u) a unit forgets after about
        1 + u steps, 2 to T.

    Notes
    -----
    S. Hochreiter, J. Schmidhuber, Long short-term memory, Neural Computation 9 (1997). `return_state` gives h and c.
    `chrono`: C. Tallec, Y. Ollivier, Can recurrent neural networks warp time?, ICLR (2018).

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
    chrono: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.chrono = _checked_chrono(self)

    def _initial_bias(self, shape: tuple[int, ...], dtype: np.dtype, rng: np.random.Generator) -> np.ndarray:
        bias = self.bias_initializer(shape, dtype, rng)
        if self.unit_forget_bias:
            gate = CELLS["lstm"].forget
            bias[gate * self.units : (gate + 1) * self.units] = 1
        if self.chrono is not None:
            i, f = bias[: 2 * self.units].reshape(2, self.units)
            f[...] = _chrono_bias(self.chrono, self.units, rng)
            i[...] = -f
        return bias


@dataclass(eq=False)
class GRU(RNN):
    """Gated recurrent unit; gates z, r, h. Parameters as in `RNN`, and:

    Parameters
    ----------
    reset_after : bool
        True: the reset gate acts after the recurrent product (one product per step; bias (2, 3H)). False: before it, as
        in K. Cho et al. (2014) (bias (3H,)).
    chrono : int or None
        T, the longest time over which something is to be remembered, in steps, at least 3. Begin with update biases
        log(u), u uniform on [1, T - 1), one draw per unit, whatever `bias_initializer` says of this gate: z keeps the
        state, so z = u / (1 + u) forgets after about 1 + u steps, 2 to T. With `reset_after` in row 0 of the bias only.

    Notes
    -----
    `chrono`: C. Tallec, Y. Ollivier, Can recurrent neural networks warp time?, ICLR (2018).

    Examples
    --------
    >>> import numpy as np
    >>> import elman
    >>> elman.layers.GRU(4, reset_after=False)(np.zeros((2, 5, 3))).shape
    (2, 4)
    """

    cell: str | Cell = field(default="gru", init=False, repr=False)
    reset_after: bool = field(default=True, kw_only=True)
    chrono: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.chrono = _checked_chrono(self)

    def _initial_bias(self, shape: tuple[int, ...], dtype: np.dtype, rng: np.random.Generator) -> np.ndarray:
        bias = self.bias_initializer(shape, dtype, rng)
        if self.chrono is not None:
            bias.reshape(-1)[: self.units] = _chrono_bias(self.chrono, self.units, rng)
        return bias

    def _cell(self) -> Cell:
        return CELLS["gru" if self.reset_after else "gru_reset_before"]
