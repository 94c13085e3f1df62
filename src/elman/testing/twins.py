"""What compiled recurrences are compared with: the activations and the loop over time in plain NumPy.

The formulas take complex numbers too, and then branch on the real part: an imaginary step of 1e-30 gives derivatives to
the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from elman.cells import Cell
from elman.kernels.random import bits, stream


def _elu(x: np.ndarray) -> np.ndarray:
    return np.where(x.real > 0, x, np.exp(np.where(x.real > 0, 0, x)) - 1)


ACTIVATION_TWINS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "linear": lambda x: x,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "relu": lambda x: np.where(x.real > 0, x, 0),
    "hard_sigmoid": lambda x: np.where(x.real >= 3, 1, np.where(x.real > -3, x / 6 + 0.5, 0)),
    "softsign": lambda x: x / (1 + x * np.sign(x.real)),
    "elu": _elu,
    "selu": lambda x: 1.0507009873554805 * np.where(x.real > 0, x, 1.6732632423543772 * _elu(x)),
    "softplus": lambda x: np.log(1 + np.exp(x)),
    "exponential": np.exp,
    "leaky_relu": lambda x: np.where(x.real > 0, x, 0.2 * x),
    "relu6": lambda x: np.where(x.real >= 6, 6, np.where(x.real > 0, x, 0)),
}
"""Every activation of `elman.activations`, written from its published formula."""


class Zoneout(NamedTuple):
    """Zoneout of one call: a rate per state; which elements, or the expectation without a key."""

    rates: tuple[float, ...]
    key: int | None
    draw: int = 0

    def __call__(self, t: int, new: Sequence[np.ndarray], old: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The states (B, H) after step t from what the cell gave and what was before."""
        if self.key is None:
            return [p * b + (1 - p) * a for p, a, b in zip(self.rates, new, old, strict=True)]
        # Elements of a call are numbered in the order of an array (T, states, B, H).
        first, size, start = t * len(new) * new[0].size, new[0].size, stream(self.key, self.draw)
        mixed = []
        for k, p in enumerate(self.rates):
            words = [int(bits(start, first + k * size + j)) for j in range(size)]
            keeps = (np.array(words, np.float64) * 2.0**-64 < p).reshape(new[k].shape)
            mixed.append(np.where(keeps, old[k], new[k]))
        return mixed


def sequence(
    cell: Cell,
    x: np.ndarray,
    kernel: np.ndarray,
    recurrent: np.ndarray,
    bias: np.ndarray,
    state: Sequence[np.ndarray],
    activation: str = "tanh",
    recurrent_activation: str = "sigmoid",
    *,
    unit_weights: np.ndarray | None = None,
    mask: np.ndarray | None = None,
    drop: np.ndarray | None = None,
    zoneout: Zoneout | None = None,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Run ``cell.reference`` over time.

    Parameters
    ----------
    cell : Cell
    x : ndarray of shape (B, T, I)
    kernel : ndarray of shape (I, gates * H)
    recurrent : ndarray of shape (H, gates * H)
        Not read for a cell without recurrence.
    bias : ndarray of shape (0, gates * H), (1, gates * H) or (2, gates * H)
        The second row belongs to the recurrent product.
    state : sequence of ndarray of shape (B, H)
        One per state of the cell.
    activation, recurrent_activation : str
        Names in `ACTIVATION_TWINS`.
    unit_weights : ndarray of shape (k, H), optional
    mask : ndarray of bool, shape (B, T), optional
        True: the sequence uses the step.
    drop : ndarray of shape (B, H), optional
        Factors of what is multiplied by the recurrent kernel.
    zoneout : Zoneout, optional
        Which elements of the states keep their value.

    Returns
    -------
    outputs : ndarray of shape (B, T, H)
    state : list of ndarray of shape (B, H)

    Examples
    --------
    >>> from elman.cells import CELLS
    >>> outputs, state = sequence(
    ...     CELLS["simple"], np.ones((1, 2, 1)), np.ones((1, 1)), np.zeros((1, 1)), np.zeros((1, 1)), [np.zeros((1, 1))]
    ... )
    >>> outputs.round(4).tolist()
    [[[0.7616], [0.7616]]]
    """
    units = kernel.shape[1] // cell.gates
    act, gate = ACTIVATION_TWINS[activation], ACTIVATION_TWINS[recurrent_activation]
    columns = [slice(k * units, (k + 1) * units) for k in range(cell.gates)]
    none = np.zeros(kernel.shape[1])
    input_bias = bias[0] if len(bias) else none
    recurrent_bias = bias[1] if len(bias) > 1 else none

    def product(u: np.ndarray, k: int) -> np.ndarray:
        used = u if drop is None else u * drop
        return used @ recurrent[:, columns[k]] + recurrent_bias[columns[k]]

    now: Sequence[np.ndarray] = state
    outputs = []
    for t in range(x.shape[1]):
        z = x[:, t] @ kernel + input_bias
        extra = () if unit_weights is None or not len(unit_weights) else (unit_weights,)
        new: Sequence[np.ndarray] = cell.reference([z[:, c] for c in columns], product, now, act, gate, *extra)
        new = new if zoneout is None else zoneout(t, new, now)
        used = True if mask is None else mask[:, t, None]
        now = tuple(np.where(used, a, b) for a, b in zip(new, now, strict=True))
        outputs.append(now[0])
    return np.stack(outputs, axis=1), list(now)
