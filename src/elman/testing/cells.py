"""The battery of a recurrent cell: values, gradients on every path, and what must hold to the bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from elman.cells import Cell, get
from elman.checks import choose, entries, integer
from elman.errors import BadValue
from elman.kernels.pointwise import ACTIVATIONS
from elman.kernels.random import zoneout
from elman.kernels.scan import Span
from elman.kernels.simd import VECTORS, lanes
from elman.masks import time_major
from elman.recurrence import Recurrence
from elman.testing import exact
from elman.testing.compare import check_close, check_derivative, norm_of, random_direction
from elman.testing.twins import Zoneout, sequence

# (B, T, I, H): single elements, tails of every tile and vector, one step, more units than any vector holds.
SIZES = ((1, 1, 1, 1), (3, 5, 9, 7), (13, 3, 1, 17), (2, 4, 3, 33))
# Units that fill their vectors: the neighbour of a row's last unit is the next row.
_UNPADDED = (3, 4, 2, 16)

# Enough sequences that a block of the weight gradients is 4 steps, hence a segment at most 4 of the 11.
_SEGMENTED = (64, 11, 2, 5)

# Measured over SIZES, six seeds and seven activations: at most 3e-15.
_FLOAT64 = 1e-12
# In units of the last place of the largest value: measured 17 for outputs and 4 for gradients.
_FLOAT32 = 64 * 2.0**-23


_ZONE = 3, 5  # key and draw of every zoneout here


@dataclass(frozen=True)
class Path:
    """The options of a call."""

    label: str = ""
    mask: np.ndarray | None = None
    drop: np.ndarray | None = None
    checkpoint: int | str | None = None
    zoneout: tuple[float, ...] | None = None
    """One rate per state."""

    def arguments(self, dtype: Any) -> dict[str, Any]:
        """As `Recurrence.forward` takes them."""
        drop = None if self.drop is None else self.drop.astype(dtype)
        zone = None if self.zoneout is None else zoneout(*_ZONE, self.zoneout)
        return {"mask": time_major(self.mask), "drop": drop, "zoneout": zone, "checkpoint": self.checkpoint}

    def zone(self, *, training: bool) -> Zoneout | None:
        """Zoneout as the twin takes it."""
        if self.zoneout is None:
            return None
        return Zoneout(self.zoneout, *_ZONE) if training else Zoneout(self.zoneout, None)


def draw_paths(size: tuple[int, int, int, int], seed: Any, states: int) -> list[Path]:
    """Masks of every kind, recurrent dropout, zoneout, checkpoints, and all together, for size (B, T, I, H)."""
    batch, steps, _, units = size
    rng = np.random.default_rng(seed)
    holes = rng.random((batch, steps)) < 0.6
    holes[0] = False  # a sequence that uses no step at all
    lengths = np.sort(rng.integers(0, steps + 1, batch))[::-1]
    right = np.arange(steps) < lengths[:, None]
    drop = (rng.random((batch, units)) < 0.6) * 1.625  # exact in float32
    return [
        Path("holes", holes),
        Path("lengths", right),
        Path("left padding", right[:, ::-1]),
        Path("recurrent dropout", None, drop),
        Path("checkpoints", None, None, "sqrt"),
        Path("holes, recurrent dropout, checkpoints", holes, drop, 2),
        Path("zoneout", zoneout=exact.zone_rates(states)),
        Path("holes, recurrent dropout, zoneout, checkpoints", holes, drop, 2, exact.zone_rates(states)),
    ]


@dataclass(frozen=True)
class Problem:
    """A cell with random input, parameters and states, and a random linear loss of outputs and last states.

    The kernels draw from a normal distribution of variance 1 / I and 1 / (2 H), so that every activation is used where
    it bends and no sequence explodes.
    """

    cell: Cell
    activations: tuple[str, str]
    arrays: tuple[np.ndarray, ...]
    """x (B, T, I), kernel, recurrent kernel, bias (0..2, G), weights per unit, then the initial states; float64."""
    d_outputs: np.ndarray
    d_state: tuple[np.ndarray, ...]
    has_state: bool = True
    """False: run without initial states; those in `arrays` are zero."""
    path: Path = Path()

    @classmethod
    def draw(
        cls, cell: Cell, size: tuple[int, int, int, int], activations: tuple[str, str], seed: Any, *, bias: bool = True
    ) -> Problem:
        """A problem of size (B, T, I, H)."""
        batch, steps, inputs, units = size
        columns = cell.gates * units
        rng = np.random.default_rng(seed)
        shapes = (
            (batch, steps, inputs),
            (inputs, columns),
            (units if cell.h else 0, columns),
            (cell.bias_rows * bias, columns),
            (len(cell.unit_weights), units),
            *[(batch, units)] * cell.states,
        )
        spread = (1, inputs**-0.5, (2 * units) ** -0.5, 0.5, 0.5, *[0.7] * cell.states)
        arrays = tuple(s * rng.standard_normal(shape) for s, shape in zip(spread, shapes, strict=True))
        return cls(
            cell,
            activations,
            arrays,
            rng.standard_normal((batch, steps, units)),
            tuple(rng.standard_normal((batch, units)) for _ in range(cell.states)),
        )

    @property
    def size(self) -> tuple[int, int, int, int]:
        """(B, T, I, H)."""
        return (*self.arrays[0].shape, self.d_outputs.shape[2])

    def name(self, *extra: str) -> str:
        """What messages begin with."""
        sizes = " ".join(f"{k}={v}" for k, v in zip("BTIH", self.size, strict=True))
        path = [self.path.label] if self.path.label else []
        return ", ".join([f"cell {self.cell.name!r} ({'/'.join(self.activations)})", sizes, *path, *extra])

    def recurrence(self, dtype: Any) -> Recurrence:
        """The compiled cell for this size."""
        return Recurrence(self.cell, self.size[2], self.size[3], np.dtype(dtype), *self.activations)

    def with_arrays(self, arrays: Sequence[np.ndarray]) -> Problem:
        """The same problem elsewhere."""
        return replace(self, arrays=tuple(arrays))

    def without_state(self) -> Problem:
        """The same problem with initial states of zero."""
        zeros = [np.zeros_like(a) for a in self.arrays[5:]]
        return replace(self, arrays=(*self.arrays[:5], *zeros), has_state=False)

    def split(self, dtype: Any) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray] | None]:
        """x, parameters and states as `Recurrence.forward` takes them."""
        x, *rest = (np.array(a, dtype, order="C") for a in self.arrays)
        return x, rest[:4], rest[4:] if self.has_state else None

    def direction(self, rng: np.random.Generator) -> list[np.ndarray]:
        """A random direction in all arrays; not in absent states, whose zero may be a kink of an activation."""
        return random_direction(rng, self.arrays if self.has_state else self.arrays[:5])


def check_cell(
    cell: str | Cell, *, activations: Sequence[tuple[str, str]] = (("tanh", "sigmoid"),), seed: int = 0
) -> None:
    """Check a cell, compiled, against its own NumPy `reference` and against what any recurrence must satisfy.

    Parameters
    ----------
    cell : str or Cell
        A cell of your own, or a name in `elman.cells.CELLS`.
    activations : sequence of (str, str)
        Pairs of activation and recurrent activation to check values and gradients with; the rest of the battery runs
        with the first.
    seed : int
        Of the random numbers.

    Raises
    ------
    ValueError, TypeError
        For anything but a cell or its name, names of activations, and a seed.
    AssertionError
        With the path, the size, the place and both numbers. Checked are, after a run of the kernels in plain Python
        that finds indices beyond their arrays, for batches of 1, 2, 3, 13, widths of
        1, 7, 16, 17, 33 and 1, 2, 3, 9 inputs, with bias and without: outputs and last states in float64 (1e-12) and
        float32 (64 ulp of the largest value); gradients of parameters, input and initial states together in random
        directions (relative 1e-6 against central differences) from all outputs, the last output, the last states and
        both, without options and with masks of every kind, recurrent dropout, zoneout and checkpoints; the same bits
        for training and inference, with and without checkpoints, for masked and for shorter sequences, for one and more
        threads and any cut of the batch or of the units of one sequence, for a permuted batch, for single sequences,
        for a sequence cut in two, before a changed step, with garbage in the padding; and that NaN stays NaN and stays
        in its row.

    Examples
    --------
    >>> from elman.testing import check_cell
    >>> check_cell("simple")
    """
    cell, seed = get(cell), integer("seed", seed, 0)
    pairs = entries("activations", activations)
    if cell.reference is None:
        raise BadValue(f"cell: {cell.name!r} has no reference to be compared with")
    if not pairs or not all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in pairs):
        raise BadValue(f"activations: expected pairs of names, got {activations!r}")
    for pair in pairs:
        check_places(cell, *[ACTIVATIONS[choose("activations", name, ACTIVATIONS)] for name in pair])
    for k, pair in enumerate(activations):
        for size in SIZES:
            problem = Problem.draw(cell, size, tuple(pair), [seed, k])
            check_values(problem)
            check_values(Problem.draw(cell, size, tuple(pair), [seed, k], bias=False).without_state())
            check_cell_gradients(problem, np.random.default_rng([seed, k, 1]))
    problem = Problem.draw(cell, SIZES[1], tuple(activations[0]), [seed, len(activations)])
    without = Problem.draw(cell, SIZES[2], tuple(activations[0]), [seed, len(activations)], bias=False)
    check_cell_gradients(without.without_state(), np.random.default_rng([seed, 2]))
    check_float32_gradients(problem)
    for size in (SIZES[1], _SEGMENTED):
        for k, path in enumerate(draw_paths(size, [seed, 4], cell.states)):
            problem = replace(Problem.draw(cell, size, tuple(activations[0]), [seed, 5]), path=path)
            check_values(problem)
            check_cell_gradients(problem, np.random.default_rng([seed, 6, k]))
    for dtype in (np.float64, np.float32):
        for size in (*SIZES[1:3], _UNPADDED):
            exact.check_bits(Problem.draw(cell, size, tuple(activations[0]), [seed, 3]), dtype)
        exact.check_options(Problem.draw(cell, _SEGMENTED, tuple(activations[0]), [seed, 7]), dtype)
        if cell.h:
            # Two shares, the last one with padding, and steps enough for threads that come late.
            size = 1, 300, 3, 2 * VECTORS * lanes(np.dtype(dtype)) - 1
            exact.check_single(Problem.draw(cell, size, tuple(activations[0]), [seed, 8]), dtype)


def check_places(cell: Cell, act: int, gate: int) -> None:
    """AssertionError if a kernel reads or writes beyond its arrays, which compiled would end the process."""
    units, padded = 3, 4
    m = 2 * padded
    z, w, dw = (np.full((rows, m), 0.5) for rows in (cell.rows, len(cell.unit_weights), len(cell.unit_weights)))
    prev, new, dnew, dprev = (np.full((cell.states, m), 0.5) for _ in range(4))
    at = Span(0, m, units, padded)
    forward, backward, *late = cell.kernels(act, gate)
    ahead, back = (z, prev, new, w, at), (z, prev, new, dnew, dprev, w, dw, at)
    for kernel, arguments in ((forward, ahead), *zip(late, (ahead, back), strict=False), (backward, back)):
        try:
            kernel(*arguments)
        except (IndexError, TypeError) as error:
            raise AssertionError(f"cell {cell.name!r}: {kernel.__name__} in plain Python: {error}") from error


def run(problem: Problem, dtype: Any, *, training: bool = True) -> tuple[np.ndarray, list[np.ndarray]]:
    """Outputs and last states, as new arrays."""
    x, parameters, state = problem.split(dtype)
    options = problem.path.arguments(dtype)
    tape = problem.recurrence(dtype).forward(x, parameters, state, training=training, sequences=True, **options)
    return tape.outputs.copy(), [s.copy() for s in tape.state]


def _twin(
    problem: Problem, arrays: Sequence[np.ndarray], *, training: bool = True
) -> tuple[np.ndarray, list[np.ndarray]]:
    x, kernel, recurrent, bias, unit_weights, *state = arrays
    return sequence(
        problem.cell, x, kernel, recurrent, bias, state, *problem.activations,
        unit_weights=unit_weights, mask=problem.path.mask, drop=problem.path.drop,
        zoneout=problem.path.zone(training=training),
    )  # fmt: skip


def check_values(problem: Problem) -> None:
    """Outputs and last states against the reference, in both float types; those of inference too if they differ."""
    # The float64 twin gets what float32 can hold, so that only the arithmetic differs.
    narrow = [a.astype(np.float32).astype(np.float64) for a in problem.arrays]
    modes = (True,) if problem.path.zoneout is None else (True, False)
    for dtype, arrays, budget in (("float64", problem.arrays, _FLOAT64), ("float32", narrow, _FLOAT32)):
        for training in modes:
            names = (dtype,) if training else (dtype, "inference")
            expected, last = _twin(problem, arrays, training=training)
            outputs, states = run(problem, dtype, training=training)
            check_close(problem.name(*names, "outputs"), outputs, expected, budget)
            for k, (got, wanted) in enumerate(zip(states, last, strict=True)):
                check_close(problem.name(*names, f"last state {k}"), got, wanted, budget)


def gradients(
    problem: Problem, dtype: Any, d_outputs: np.ndarray | None, d_state: Sequence[np.ndarray | None]
) -> list[np.ndarray]:
    """Gradients in the order of `Problem.arrays`."""
    x, parameters, state = problem.split(dtype)
    options = problem.path.arguments(dtype)
    tape = problem.recurrence(dtype).forward(x, parameters, state, training=True, sequences=True, **options)
    targets = [np.full_like(p, np.nan) for p in parameters]
    cast = None if all(v is None for v in d_state) else [None if v is None else v.astype(dtype) for v in d_state]
    d_outputs = None if d_outputs is None else d_outputs.astype(dtype)
    dx = tape.run_backward(d_outputs, cast, targets, input_gradient=True)
    return [dx.copy(), *targets, *(v.copy() for v in tape.state_gradients())]


def _losses(problem: Problem) -> dict[str, tuple[np.ndarray | None, list[np.ndarray | None]]]:
    """The ways a loss reaches a recurrence: gradients of outputs and of last states, by name."""
    none: list[np.ndarray | None] = [None] * problem.cell.states
    return {
        "gradient of all outputs": (problem.d_outputs, none),
        "gradient of the last output": (problem.d_outputs[:, -1:], none),
        "gradient of the last h": (None, [problem.d_state[0], *none[1:]]),
        "gradient of the last states": (None, list(problem.d_state)),
        "gradient of outputs and last states": (problem.d_outputs, list(problem.d_state)),
    }


def _value(problem: Problem, d_outputs: np.ndarray | None, d_state: Sequence[np.ndarray | None]) -> float:
    outputs, states = run(problem, np.float64)
    total = 0.0 if d_outputs is None else np.vdot(d_outputs, outputs[:, -d_outputs.shape[1] :])
    return float(total + sum(np.vdot(d, s) for d, s in zip(d_state, states, strict=True) if d is not None))


def check_cell_gradients(
    problem: Problem, rng: np.random.Generator, tolerance: float = 1e-6, paths: Sequence[str] | None = None
) -> None:
    """Gradients of parameters, input and states together, in a random direction per path, in float64."""
    for path, (d_outputs, d_state) in _losses(problem).items():
        if paths is not None and path not in paths:
            continue
        got = gradients(problem, np.float64, d_outputs, d_state)
        direction = problem.direction(rng)
        # A gradient of norm g has a derivative of about g / sqrt(n) in a random direction.
        scale = norm_of(got) / np.sqrt(sum(a.size for a in got))
        check_derivative(
            problem.name(path),
            _along(problem, direction, lambda p, d=d_outputs, s=d_state: _value(p, d, s)),
            float(sum(np.vdot(g, v) for g, v in zip(got, direction, strict=False))),
            float(scale),
            tolerance,
        )


def _along(
    problem: Problem, direction: Sequence[np.ndarray], value: Callable[[Problem], float]
) -> Callable[[float], float]:
    def at(step: float) -> float:
        moved = [a + step * v for a, v in zip(problem.arrays, direction, strict=False)]
        return value(problem.with_arrays([*moved, *problem.arrays[len(moved) :]]))

    return at


def check_float32_gradients(problem: Problem) -> None:
    """Gradients in float32 against those in float64 at the same point."""
    narrow = problem.with_arrays([a.astype(np.float32).astype(np.float64) for a in problem.arrays])
    names = (
        "x",
        "kernel",
        "recurrent kernel",
        "bias",
        "weights per unit",
        *(f"state {k}" for k in range(problem.cell.states)),
    )
    for path, (d_outputs, d_state) in _losses(narrow).items():
        wide = gradients(narrow, np.float64, d_outputs, d_state)
        for name, got, expected in zip(names, gradients(narrow, np.float32, d_outputs, d_state), wide, strict=True):
            check_close(problem.name("float32", path, name), got, expected, _FLOAT32)
