"""Norms of dL/dh over time, saturated gates and spectral radii of the recurrent layers of a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np

from elman.cells import Cell
from elman.diagnostics.parts import gate_names, pieces, recurrent_parts
from elman.errors import BadValue
from elman.kernels.pointwise import ACTIVATIONS
from elman.kernels.scan import Span
from elman.layers import RNN
from elman.plotting import plot_flow

_VANISHED, _EXPLODED, _FLAT = 1e-7, 1e3, 0.05
_VERBS = {"vanishing": "vanish", "exploding": "explode"}
_SCALE, _ALPHA = 1.0507009873554805, 1.6732632423543772

# The slope of an activation where its output is y, as a fraction of its steepest. Those that are nowhere flat, or have
# no steepest place, are absent: they do not saturate.
_SLOPES: dict[str, Any] = {
    "tanh": lambda y: 1 - y * y,
    "sigmoid": lambda y: 4 * y * (1 - y),
    "relu": lambda y: y > 0,
    "relu6": lambda y: (y > 0) & (y < 6),
    "hard_sigmoid": lambda y: (y > 0) & (y < 1),
    "softsign": lambda y: (1 - abs(y)) ** 2,
    "softplus": lambda y: -np.expm1(-y),
    "elu": lambda y: np.where(y >= 0, 1, y + 1),
    "selu": lambda y: np.where(y >= 0, 1 / _ALPHA, y / (_SCALE * _ALPHA) + 1),
}


class GradientWarning(UserWarning):
    """Gradients vanish or explode on their way through time; `elman.callbacks.GradientFlow` warns of it.

    Examples
    --------
    >>> import warnings
    >>> from elman.diagnostics import GradientWarning
    >>> warnings.simplefilter("error", GradientWarning)  # training then ends with an error
    >>> warnings.simplefilter("default", GradientWarning)
    """


@dataclass(frozen=True, eq=False)
class LayerFlow:
    """What one recurrent layer does to gradients; part of a `FlowReport`.

    Parameters
    ----------
    name : str
        Of the layer; "outer/inner" for one within another.
    per_sequence : ndarray of float64, shape (T, B)
        ‖dL/dh_t‖ for each step t of the layer's input and each sequence: the length of the gradient, over the units, of
        the state h after step t, by all paths. NaN at steps that a mask excludes, infinite where it is not finite.
    saturation : dict of str to float
        For each gate the fraction of its values, over sequences, used steps and units, at which the slope of its
        activation is below 5 % of its steepest. For a cell of one gate without a name, that of h. "linear",
        "exponential" and "leaky_relu" never saturate.
    spectral_radius : dict of str to float
        For each gate the largest absolute eigenvalue of its (H, H) block of the recurrent kernel; NaN where the block
        is not finite. Empty for cells without one.
    go_backwards : bool
        True if the layer reads its input from the end.

    Attributes
    ----------
    norms : ndarray of float64, shape (T,)
        The same over all sequences that use a step: the root of the sum of squares. NaN where none does.
    first, last : int or None
        The step read first, and the one read last that gets any gradient; None if none does.
    ratio : float
        ``norms[first] / norms[last]``; NaN without gradients.
    verdict : "steady", "vanishing", "exploding" or "none"
        "exploding" if a norm exceeds 1000 times that of the last step, or is not finite; "vanishing" if that of the
        first step is below 1e-7 of it; "none" if no gradient reaches the layer.
    step : int or None
        Going back from the last step, the one at which the norm exceeds 1000 times, or from which on it stays below
        1e-7 of, that of the last step.

    Examples
    --------
    >>> import numpy as np
    >>> from elman.diagnostics import LayerFlow
    >>> flow = LayerFlow("lstm", np.logspace(-12, 0, 5)[:, None], {}, {})
    >>> flow.verdict, flow.step
    ('vanishing', 1)
    >>> flow.message
    "gradients vanish in layer 'lstm': ‖dL/dh‖ at step 1 is 1e-09 of that at step 4"
    """

    name: str
    per_sequence: np.ndarray
    saturation: dict[str, float]
    spectral_radius: dict[str, float]
    go_backwards: bool = False

    @cached_property
    def norms(self) -> np.ndarray:
        """Norms over all sequences, (T,)."""
        used = ~np.isnan(self.per_sequence)
        with np.errstate(over="ignore"):
            total = np.sqrt(np.square(np.where(used, self.per_sequence, 0)).sum(axis=1))
        return np.where(used.any(axis=1), total, np.nan)

    @cached_property
    def _read(self) -> list[int]:
        """Steps in the order they are read, those no sequence uses left out, up to the last one with a gradient."""
        steps = np.flatnonzero(~np.isnan(self.norms))
        steps = steps[::-1] if self.go_backwards else steps
        reached = np.flatnonzero(self.norms[steps] > 0)
        return steps[: reached[-1] + 1].tolist() if len(reached) else []

    @property
    def first(self) -> int | None:
        """The step read first."""
        return self._read[0] if self._read else None

    @property
    def last(self) -> int | None:
        """The step read last that gets any gradient."""
        return self._read[-1] if self._read else None

    @cached_property
    def _relative(self) -> np.ndarray:
        """Norms of the steps in `_read` over that of the last."""
        norms = self.norms[self._read]
        with np.errstate(invalid="ignore", over="ignore"):  # two infinities, or a huge ratio
            return norms / norms[-1:]

    @property
    def ratio(self) -> float:
        """Norm of the first step over that of the last."""
        return float(self._relative[0]) if self._read else float("nan")

    @cached_property
    def _judged(self) -> tuple[str, int | None]:
        if not self._read:
            return "none", None
        above = np.flatnonzero(~(self._relative <= _EXPLODED))
        if len(above):
            return "exploding", self._read[above[-1]]
        alive = int(np.argmax(self._relative >= _VANISHED))
        return ("steady", None) if alive == 0 else ("vanishing", self._read[alive - 1])

    @property
    def verdict(self) -> str:
        """What becomes of gradients."""
        return self._judged[0]

    @property
    def step(self) -> int | None:
        """Where they vanish or explode."""
        return self._judged[1]

    @property
    def message(self) -> str:
        """The verdict as a sentence; empty for "steady"."""
        if self.verdict == "none":
            return f"no gradient reaches layer {self.name!r}"
        if self.step is None:
            return ""
        begin = f"gradients {_VERBS[self.verdict]} in layer {self.name!r}: "
        if not np.isfinite(self.norms[self.step]):
            return f"{begin}‖dL/dh‖ at step {self.step} is not finite"
        ratio = self.norms[self.step] / self.norms[self.last]
        return f"{begin}‖dL/dh‖ at step {self.step} is {ratio:.2g} of that at step {self.last}"

    def __str__(self) -> str:
        if not self._read:
            return f"{self.name}: no gradient"
        norms = f"‖dL/dh‖ {self.norms[self.first]:.3g} at step {self.first}, {self.norms[self.last]:.3g} at {self.last}"
        where = self.verdict if self.step is None else f"{self.verdict} at step {self.step}"
        flat = ", ".join(f"{gate} {part:.0%}" for gate, part in self.saturation.items())
        radii = ", ".join(f"{gate} {radius:.3g}" for gate, radius in self.spectral_radius.items())
        extra = [f"{title}: {text}" for title, text in (("saturated", flat), ("spectral radius", radii)) if text]
        return "; ".join([f"{self.name}: {norms}, {where}", *extra])


@dataclass(frozen=True, eq=False)
class FlowReport:
    """How gradients flow back through time in the recurrent layers of a model; `Sequential.gradient_flow` makes it.

    Parameters
    ----------
    loss : float
        Of the batch, without penalties.
    layers : tuple of LayerFlow
        Recurrent layers in the model's order, those within others included.

    Notes
    -----
    Iterates over `layers`; ``report["lstm"]`` is that of a layer; ``print(report)`` gives a line for each.

    Examples
    --------
    >>> import numpy as np
    >>> import elman
    >>> model = elman.Sequential([elman.layers.Input((40, 1)), elman.layers.SimpleRNN(2)], seed=0)
    >>> model.set_weights([np.ones((1, 2)), 0.1 * np.eye(2), np.zeros(2)])
    >>> model.compile("sgd", "mse")
    >>> report = model.gradient_flow(np.zeros((1, 40, 1)), np.ones((1, 2)))
    >>> report["simplernn"].message
    "gradients vanish in layer 'simplernn': ‖dL/dh‖ at step 31 is 1e-08 of that at step 39"
    """

    loss: float
    layers: tuple[LayerFlow, ...]

    def __iter__(self) -> Iterator[LayerFlow]:
        return iter(self.layers)

    def __getitem__(self, name: str) -> LayerFlow:
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(f"layer: no recurrent layer {name!r}; there are {', '.join(f.name for f in self.layers)}")

    def __str__(self) -> str:
        return "\n".join(map(str, self.layers))

    def plot(self) -> Any:
        """Draw ‖dL/dh_t‖ over time, one axes per layer, on a log scale, with the verdict as its title.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ImportError
            If matplotlib is not installed; ``pip install 'elman[plot]'``.
        """
        return plot_flow(self)


# ---- measuring


def measure(model: Any, batch: Any) -> FlowReport:
    """The report for one batch. Only memory that the next training step overwrites is written."""
    found = [(k, name, part) for k, layer in enumerate(model.layers) for name, part in recurrent_parts(layer)]
    if not found:
        raise BadValue("layers: the model has no recurrent layer, whose gradients could be followed through time")
    kept = model._vector.gradients.copy()  # those of frozen layers are 0 and must stay so
    try:
        outputs = np.ascontiguousarray(model._forward(batch.x, batch.mask, training=True))
        mask, dy = model._loss_mask(outputs, batch), np.empty_like(outputs)
        loss = model.loss.on_batch(batch.y, outputs, batch.w, mask, dy) * model._loss_weight
        dy *= model.dtype.type(model._loss_weight)
        saturation = [_saturation(part) for _, _, part in found]
        for _, _, part in found:
            part.norms = np.zeros((part._tape.steps, len(part._tape.x)))
        for k in range(len(model.layers) - 1, found[0][0] - 1, -1):
            dy = model.layers[k].backward(dy, input_gradient=k > found[0][0])
        shares = zip(found, saturation, strict=True)
        return FlowReport(loss, tuple(_layer_flow(name, part, flat) for (_, name, part), flat in shares))
    finally:
        model._vector.gradients[:] = kept
        for _, _, part in found:
            part.norms = None


def _layer_flow(name: str, part: RNN, saturation: dict[str, float]) -> LayerFlow:
    tape, norms = part._tape, part.norms
    norms = np.where(np.isfinite(norms), norms, np.inf)
    if tape.masks[0].size:
        norms[tape.masks[0] == 0] = np.nan
    norms = norms[::-1] if part.go_backwards else norms
    return LayerFlow(name, np.ascontiguousarray(norms), saturation, _radii(part), part.go_backwards)


def _radii(part: RNN) -> dict[str, float]:
    """The spectral radius of every (H, H) block of the recurrent kernel."""
    recurrent = part._arguments[1]
    if not recurrent.size:
        return {}
    names = gate_names(part)
    blocks = zip(names, np.split(recurrent.astype(np.float64), len(names), axis=1), strict=True)
    return {
        name: float(abs(np.linalg.eigvals(block)).max()) if np.isfinite(block).all() else float("nan")
        for name, block in blocks
    }


def _saturation(part: RNN) -> dict[str, float]:
    """For every gate the fraction of values where its activation is flat."""
    cell, tape = part._cell(), part._tape
    rows = cell.gate_rows or (((gate_names(part)[0], -1),) if cell.gates == 1 else ())
    flat, total = dict.fromkeys((name for name, _ in rows), 0), 0
    candidates = _candidates(cell)
    for _, gates, states, used in pieces(tape):
        total += int(used.sum()) * part.units
        for name, row in rows:
            slope = _SLOPES.get(part.activation if row in candidates else part.recurrent_activation)
            if slope is not None:
                values = (states[:, 0] if row < 0 else gates[:, row])[used]
                with np.errstate(over="ignore", invalid="ignore"):  # an unbounded gate may have any value
                    flat[name] += int((slope(values) < _FLAT).sum())
    return {name: count / max(1, total) for name, count in flat.items()}


@cache
def _candidates(cell: Cell) -> frozenset[int]:
    """The buffer rows that hold values of `activation`, -1 for h itself; other gates are `recurrent_activation`'s.

    A cell does not say which gate has which. Run in Python with "linear" for the one and "sigmoid" for the other, on
    products from -8 to 8, its gates stay within 0 and 1, its candidate does not.
    """
    functions = cell.kernels(ACTIVATIONS["linear"], ACTIVATIONS["sigmoid"])
    n = 16
    at = Span(*map(np.uint64, (0, n, n, n)))
    z = np.tile(np.linspace(-8, 8, n), (cell.rows, 1))
    new, weights = np.zeros((cell.states, n)), np.ones((len(cell.unit_weights), n))
    for forward in (functions[0], *functions[2:3]):
        forward(z, np.zeros((cell.states, n)), new, weights, at)
    outside = {row for _, row in cell.gate_rows if z[row].min() < 0 or z[row].max() > 1}
    return frozenset(outside | {-1})
