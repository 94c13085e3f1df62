"""What compiled recurrences are compared with: the activations and the loop over time in plain NumPy.

The formulas take complex numbers too, and then branch on the real part: an imaginary step of 1e-30 gives derivatives to
the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from elman.cells import Cell


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


def sequence(
    cell: Cell,
    x: np.ndarray,
    kernel: np.ndarray,
    recurrent: np.ndarray,
    bias: np.ndarray,
    state: Sequence[np.ndarray],
    activation: str = "tanh",
    recurrent_activation: str = "sigmoid",
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
        return u @ recurrent[:, columns[k]] + recurrent_bias[columns[k]]

    now, outputs = tuple(state), []
    for t in range(x.shape[1]):
        z = x[:, t] @ kernel + input_bias
        now = cell.reference([z[:, c] for c in columns], product, now, act, gate)
        outputs.append(now[0])
    return np.stack(outputs, axis=1), list(now)
