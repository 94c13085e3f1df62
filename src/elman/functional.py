"""Recurrent sequences as functions: outputs, states, and a tape that gives exact gradients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from elman import checks
from elman.cells import Cell, get
from elman.errors import BadValue
from elman.masks import step_mask, time_major
from elman.recurrence import Recurrence, checked_interval
from elman.tape import Gradients, Tape

__all__ = ["Gradients", "Tape", "recurrent"]


def recurrent(
    cell: str | Cell,
    x: np.ndarray,
    parameters: Sequence[np.ndarray],
    initial_state: Sequence[np.ndarray] | None = None,
    *,
    activation: str = "tanh",
    recurrent_activation: str = "sigmoid",
    go_backwards: bool = False,
    mask: np.ndarray | None = None,
    lengths: np.ndarray | None = None,
    recurrent_dropout: np.ndarray | None = None,
    checkpoint: int | str | None = None,
) -> tuple[np.ndarray, list[np.ndarray], Tape]:
    """Run a recurrent cell over whole sequences.

    Parameters
    ----------
    cell : str or Cell
        A name in `elman.cells.CELLS` ("simple", "lstm", "gru", …) or a cell of your own.
    x : ndarray of shape (B, T, I)
        Input. Its dtype, float32 or float64, is that of the computation; other dtypes become float32.
    parameters : sequence of ndarray
        Kernel (I, gates * H), recurrent kernel (H, gates * H), and optionally the bias: (gates * H,), or
        (2, gates * H) for cells with a recurrent bias; last, for a cell that has them, the weights per unit (k, H). The
        gates' order is Keras's: i, f, g, o and u (z), r, h.
    initial_state : sequence of ndarray of shape (B, H), optional
        One array per state of the cell; zeros by default.
    activation, recurrent_activation : str
        Activations of the candidate and of the gates, from `elman.activations`.
    go_backwards : bool
        Read x from its end. Outputs stay in processing order.
    mask : ndarray of bool, shape (B, T), optional
        True where a sequence uses a step. Elsewhere its states are carried over and its last output is repeated.
    lengths : ndarray of int, shape (B,), optional
        In place of `mask`: sequence b uses its first ``lengths[b]`` steps. With the longest sequences first padding
        costs no arithmetic.
    recurrent_dropout : ndarray of shape (B, H), optional
        Factors of h before its product with the recurrent kernel, the same at every step (Y. Gal, Z. Ghahramani, A
        theoretically grounded application of dropout in recurrent neural networks, 2016).
    checkpoint : int or "sqrt", optional
        Keep the states of every so many steps only, and run each such segment once more before its backward pass: the
        memory of stored states falls from O(T) to O(sqrt T) at the price of a second forward pass, the gradients are
        the same to the bit (T. Chen et al., Training deep nets with sublinear memory cost, 2016). Rounded up to whole
        blocks of the weight gradients, at most 256 / B steps.

    Returns
    -------
    outputs : ndarray of shape (B, T, H)
    state : list of ndarray of shape (B, H)
        The states after the last step.
    tape : Tape
        ``tape.backward(d_outputs, d_state)`` gives the gradients of x, the parameters and the initial state. It reads x
        and the parameters again, of which no copies are made: leave them as they are until then.

    Raises
    ------
    ValueError, TypeError
        If a shape, dtype or name does not fit, or x holds NaN or infinity.

    Notes
    -----
    Backpropagation through time as in P. J. Werbos, Backpropagation through time: what it does and how to do it, Proc.
    IEEE 78 (1990), exact and untruncated.

    Examples
    --------
    >>> import numpy as np
    >>> import elman
    >>> rng = np.random.default_rng(0)
    >>> x, kernel, recurrent = rng.normal(size=(2, 5, 3)), rng.normal(size=(3, 4)), rng.normal(size=(4, 4))
    >>> outputs, state, tape = elman.functional.recurrent("simple", x, [kernel, recurrent])
    >>> outputs.shape, state[0].shape
    ((2, 5, 4), (2, 4))
    >>> gradients = tape.backward(np.ones_like(outputs))
    >>> [g.shape for g in gradients.parameters]
    [(3, 4), (4, 4)]
    """
    cell = get(cell)
    x = np.asarray(x)
    dtype = checks.working_dtype(x)
    x = checks.real_array("x", x, dtype, ndim=(3,))
    weights = _checked_parameters(cell, x.shape[2], parameters, dtype)
    units = weights[0].shape[1] // cell.gates
    if initial_state is not None:
        initial_state = checks.entries("initial_state", initial_state)
        if len(initial_state) != cell.states:
            raise BadValue(f"initial_state: cell {cell.name!r} has {cell.states} states, got {len(initial_state)}")
        initial_state = [
            checks.shaped(f"initial_state[{k}]", v, (x.shape[0], units), dtype) for k, v in enumerate(initial_state)
        ]
    if recurrent_dropout is not None:
        recurrent_dropout = checks.shaped("recurrent_dropout", recurrent_dropout, (x.shape[0], units), dtype)
    steps = step_mask(mask, lengths, x.shape[:2])
    recurrence = Recurrence(cell, x.shape[2], units, dtype, activation, recurrent_activation)
    tape = recurrence.forward(
        x[:, ::-1] if go_backwards else x,
        weights,
        initial_state,
        training=True,
        sequences=True,
        mask=time_major(steps, go_backwards=go_backwards),
        drop=recurrent_dropout,
        checkpoint=checked_interval(checkpoint),
    )
    tape.go_backwards = go_backwards
    return tape.outputs.copy(), [v.copy() for v in tape.state], tape


def _checked_parameters(cell: Cell, inputs: int, parameters: Sequence[np.ndarray], dtype: np.dtype) -> list[np.ndarray]:
    """Kernel, recurrent kernel, (0..2, G) bias and (k, H) weights per unit, contiguous and writable."""
    given = [
        checks.real_array(f"parameters[{k}]", p, dtype) for k, p in enumerate(checks.entries("parameters", parameters))
    ]
    matrices, rows = 1 + bool(cell.h), len(cell.unit_weights)
    least = matrices + bool(rows)
    if len(given) not in (least, least + cell.bias):
        known = ["kernel", *["recurrent kernel"][: bool(cell.h)], *["optional bias"][: cell.bias]]
        known += ["weights per unit"][: bool(rows)]
        counts = f"{least} or {least + 1}" if cell.bias else str(least)
        raise BadValue(f"parameters: cell {cell.name!r} takes {counts} arrays ({', '.join(known)}), got {len(given)}")
    columns = given[0].shape[-1] if given[0].ndim else 0
    units = columns // cell.gates
    if given[0].shape != (inputs, columns) or units * cell.gates != columns or units == 0:
        raise BadValue(
            f"parameters[0]: the kernel of cell {cell.name!r} must have shape ({inputs}, {cell.gates} * units), got "
            f"{given[0].shape}"
        )
    if cell.h and given[1].shape != (units, columns):
        raise BadValue(f"parameters[1]: the recurrent kernel must have shape {(units, columns)}, got {given[1].shape}")
    bias_shape = (2, columns) if cell.recurrent_bias else (columns,)
    biased = len(given) > least
    if biased and given[matrices].shape != bias_shape:
        raise BadValue(f"parameters[{matrices}]: the bias must have shape {bias_shape}, got {given[matrices].shape}")
    if rows and given[-1].shape != (rows, units):
        raise BadValue(f"parameters[{len(given) - 1}]: expected shape {(rows, units)}, got {given[-1].shape}")
    bias = given[matrices].reshape(-1, columns) if biased else np.empty((0, columns), dtype)
    recurrent = given[1] if cell.h else np.empty((0, columns), dtype)
    unit_weights = given[-1] if rows else np.empty((0, units), dtype)
    return [np.require(p, dtype, ["C", "A", "W"]) for p in (given[0], recurrent, bias, unit_weights)]
