"""What a cell declares, and the registry of cells."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from elman.checks import choose, entries, flag, integer
from elman.errors import BadType, BadValue
from elman.jit import Function
from elman.kernels.pointwise import ACTIVATIONS
from elman.kernels.scan import backward_signature, forward_signature
from elman.registry import number

CELLS: dict[str, Cell] = {}
"""Every cell by name. Tests, layers, benchmarks and the saved form read this table."""


class Kernels(NamedTuple):
    """The compiled functions of a cell for one pair of activations.

    ``forward(z, prev, new, w, at)`` and ``backward(z, prev, new, dnew, dprev, w, dw, at)`` as `elman.kernels.scan`
    calls them; the late pair serves cells with a late row.
    """

    forward: Function
    backward: Function
    late_forward: Function | None = None
    late_backward: Function | None = None


class Group(NamedTuple):
    """Neighbouring buffer rows that are filled by the same products."""

    first: int
    size: int
    has_input: bool
    has_recurrent: bool
    late: bool


@dataclass(frozen=True)
class Cell:
    """A recurrent cell: the arithmetic of its gates, and which product each of them takes.

    The recurrence itself, with threads, packing and weight gradients, is `elman.kernels.scan`. A cell says how one step
    turns the products ``x W + b`` and ``h R`` into the new states, and the reverse.

    Parameters
    ----------
    name : str
        Name in the registry `CELLS`.
    states : int
        Number of state vectors per unit; the first one is the output h.
    x : tuple of int
        For every gate of the kernel ``(I, gates * H)``, in the user's order, the buffer row of its input product.
    h : tuple of int
        The same for the recurrent kernel ``(H, gates * H)``; empty for a cell without one. A row named in `x` and `h`
        gets the sum.
    kernels : callable
        ``kernels(act, gate)`` returns the Python functions ``forward, backward`` (and the late pair) for the codes of
        `activation` and `recurrent_activation`; see `elman.kernels.pointwise.activate`. They work on the flat indices
        ``range(at.lo, at.hi)``; a cell that needs whole rows finds `at.units` units in every `at.padded` of them.
    reference : callable or None
        ``reference(x, r, state, act, gate)``: one step in NumPy, written from the equations. ``x[k]`` is the input
        product of gate k with its bias, ``r(u, k)`` the recurrent product of `u` for gate k with its bias, `state` a
        tuple, `act` and `gate` the activations. Returns the tuple of new states. A cell with `unit_weights` gets them
        as a sixth argument (k, H). None for a cell that is never checked.
    late : int, optional
        The row whose recurrent product takes the row `operand`, written by ``forward``, in place of h.
    operand : int, optional
        See `late`.
    keep : int
        Further rows of the buffer, after the operand, without a product: what ``forward`` leaves for ``backward``, or
        one half of ``backward`` for the other.
    elementwise : bool
        True if all kernels compute unit j from what is at j alone; h and operand reach other units by products. Threads
        may then share out the units of one sequence, with ``at.lo`` where a share begins. Claimed of a cell that reads
        elsewhere, results differ from run to run.
    bias : bool
        False for a cell to whose products nothing is added, such as one that normalises them.
    recurrent_bias : bool
        True if the bias has two rows, (2, gates * H): one added to ``x W``, one to ``h R``.
    forget : int, optional
        The gate that `unit_forget_bias` sets to 1.
    unit_weights : tuple of (str, float)
        Name and initial value of each weight per unit: row k of ``w`` (k, B * Hp), where ``w[k, j]`` is the weight of
        the unit at j. ``backward`` adds to ``dw[k, j]``. Users see them as one parameter (k, H).
    gate_rows : tuple of (str, int)
        Name of each gate and the row of the buffer that holds its activated value after the step, for diagnostics;
        none for a cell whose only gate is its output.

    Raises
    ------
    ValueError, TypeError
        If the declaration cannot work; the message says which part.

    Examples
    --------
    >>> from elman.cells import CELLS
    >>> CELLS["lstm"].gates, CELLS["lstm"].states
    (4, 2)
    """

    name: str
    states: int
    x: tuple[int, ...]
    h: tuple[int, ...]
    kernels: Callable[[int, int], tuple[Callable[..., None], ...]]
    reference: Callable[..., tuple[np.ndarray, ...]] | None
    late: int | None = None
    operand: int | None = None
    keep: int = 0
    elementwise: bool = False
    bias: bool = True
    recurrent_bias: bool = False
    forget: int | None = None
    unit_weights: tuple[tuple[str, float], ...] = ()
    gate_rows: tuple[tuple[str, int], ...] = ()
    groups: tuple[Group, ...] = field(init=False, repr=False)
    rows: int = field(init=False)

    def __post_init__(self) -> None:
        self._check_types()
        for label, own in (("x", self.x), ("h", self.h)):
            if len(set(own)) != len(own) or (own and sorted(own) != list(range(min(own), max(own) + 1))):
                raise BadValue(f"cell {self.name!r}: {label}={own} must name neighbouring buffer rows, each once")
        used = {*self.x, *self.h}
        if not self.x or used != set(range(len(used))):
            raise BadValue(f"cell {self.name!r}: x={self.x} and h={self.h} must fill the rows from 0 on, x not empty")
        if len(self.h) not in (0, len(self.x)):
            raise BadValue(f"cell {self.name!r}: x and h must name as many gates, got {len(self.x)} and {len(self.h)}")
        if (self.late is None) != (self.operand is None):
            raise BadValue(f"cell {self.name!r}: late and operand come together")
        if self.late is not None and (self.late != max(self.h) or self.operand != len(used)):
            raise BadValue(
                f"cell {self.name!r}: late must be the last row of h ({max(self.h)}) and operand the next one "
                f"({len(used)}), got {self.late} and {self.operand}"
            )
        rows = len(used) + (self.late is not None) + self.keep
        if self.recurrent_bias and not self.bias:
            raise BadValue(f"cell {self.name!r}: recurrent_bias needs bias=True")
        if self.forget is not None and not (self.bias and 0 <= self.forget < len(self.x)):
            raise BadValue(
                f"cell {self.name!r}: forget must name one of {len(self.x)} gates with a bias, got {self.forget}"
            )
        for gate, row in self.gate_rows:
            if not 0 <= row < rows:
                raise BadValue(f"cell {self.name!r}: gate {gate!r} must be in one of {rows} rows, got {row}")
        names = [gate for gate, _ in self.gate_rows]
        if len(set(names)) < len(names):
            raise BadValue(f"cell {self.name!r}: gate_rows name each gate once, got {names}")
        made, count = self.kernels(1, 2), 2 if self.late is None else 4
        if not isinstance(made, (tuple, list)) or len(made) != count or not all(map(callable, made)):
            raise BadValue(f"cell {self.name!r}: kernels must return {count} functions, got {made!r}")
        object.__setattr__(self, "rows", rows)
        object.__setattr__(self, "groups", self._grouped(len(used)))

    def _check_types(self) -> None:
        """TypeError for a part of another type than it is annotated with; numbers and lists of NumPy's become plain."""
        if not isinstance(self.name, str) or not self.name:
            raise BadType(f"cell: name must be a string that is not empty, got {self.name!r}")
        if not callable(self.kernels) or not (self.reference is None or callable(self.reference)):
            raise BadType(
                f"cell {self.name!r}: kernels and reference must be functions, got {self.kernels!r} and "
                f"{self.reference!r}"
            )
        label = f"cell {self.name!r}"
        plain: dict[str, Any] = {}
        for part in ("states", "keep", "late", "operand", "forget"):
            value, free = getattr(self, part), part not in ("states", "keep")
            plain[part] = None if free and value is None else integer(f"{label}: {part}", value, int(part == "states"))
        for part in ("elementwise", "bias", "recurrent_bias"):
            plain[part] = flag(f"{label}: {part}", getattr(self, part))
        for part in ("x", "h"):
            rows = entries(f"{label}: {part}", getattr(self, part))
            plain[part] = tuple(integer(f"{label}: {part}", row, 0) for row in rows)
        for part in ("unit_weights", "gate_rows"):
            plain[part] = entries(f"{label}: {part}", getattr(self, part))
            for pair in plain[part]:
                if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not isinstance(pair[0], str):
                    raise BadType(f"{label}: {part} must be pairs of a name and a number, got {pair!r}")
        plain["unit_weights"] = tuple(
            (w, number(f"{label}: {w}", start, -math.inf)) for w, start in plain["unit_weights"]
        )
        plain["gate_rows"] = tuple((gate, integer(f"{label}: {gate}", row, 0)) for gate, row in plain["gate_rows"])
        for part, value in plain.items():
            object.__setattr__(self, part, value)

    def _grouped(self, rows: int) -> tuple[Group, ...]:
        groups: list[Group] = []
        for row in range(rows):
            kind = row in self.x, row in self.h, row == self.late
            if groups and groups[-1][2:] == kind:
                groups[-1] = groups[-1]._replace(size=groups[-1].size + 1)
            else:
                groups.append(Group(row, 1, *kind))
        return tuple(groups)

    @property
    def gates(self) -> int:
        """Number of gates: blocks of H columns in the kernel."""
        return len(self.x)

    @property
    def bias_rows(self) -> int:
        """Rows of the bias: 2 if the recurrent product has its own, 0 if there is none, else 1."""
        return self.bias * (1 + self.recurrent_bias)

    def compiled(self, activation: str, recurrent_activation: str) -> Kernels:
        """The kernels of this cell for two activations, by name."""
        act = ACTIVATIONS[choose("activation", activation, ACTIVATIONS)]
        gate = ACTIVATIONS[choose("recurrent_activation", recurrent_activation, ACTIVATIONS)]
        return _functions(self, act, gate)


@cache
def _functions(cell: Cell, act: int, gate: int) -> Kernels:
    signatures = (forward_signature, backward_signature) * 2
    return Kernels(*map(Function, cell.kernels(act, gate), signatures))


def _origin(cell: Cell) -> tuple[str, str]:
    return cell.kernels.__module__, cell.kernels.__qualname__


def register(cell: Cell) -> Cell:
    """Put `cell` into `CELLS`, so that ``RNN(cell=name)`` and the batteries of `elman.testing` find it.

    Parameters
    ----------
    cell : Cell
        Its name must be new, or that of an equal cell, or of an earlier run of the same definition, as in a notebook.

    Returns
    -------
    Cell
        The same cell.

    Raises
    ------
    ValueError
        If another cell has that name.

    Examples
    --------
    >>> from elman.cells import CELLS, register
    >>> register(CELLS["gru"]).name
    'gru'
    """
    if not isinstance(cell, Cell):
        raise BadType(f"cell: expected a Cell, got {type(cell).__name__} {cell!r}")
    known = CELLS.get(cell.name, cell)
    # The same definition run again, as in a notebook, replaces the old one; nothing replaces one of the library's.
    again = _origin(known) == _origin(cell) and not known.kernels.__module__.startswith("elman.")
    if known != cell and not again:
        raise BadValue(f"cell: the name {cell.name!r} is taken by another cell")
    CELLS[cell.name] = cell
    return cell


def get(cell: Any) -> Cell:
    """The cell of that name, or `cell` itself if it is one already.

    Parameters
    ----------
    cell : str or Cell

    Returns
    -------
    Cell

    Raises
    ------
    ValueError, TypeError
        For an unknown name, with the nearest one, or anything else.

    Examples
    --------
    >>> from elman.cells import get
    >>> get("simple").gates
    1
    """
    if isinstance(cell, Cell):
        return cell
    return CELLS[choose("cell", cell, CELLS, "; a cell of your own needs its module to be imported first")]
