"""The states that recurrent layers carry from batch to batch, kept apart by what the batches are for."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from elman.errors import BadValue

PHASES = ("train", "validation", "predict", "stream")


class States:
    """States by phase: one list per carrying layer, of one (B, H) array per state."""

    def __init__(self) -> None:
        self.kept: dict[str, list[list[np.ndarray]]] = {}

    def reset(self, phase: str | None = None) -> None:
        """Forget the states of a phase, or all."""
        for name in PHASES if phase is None else (phase,):
            self.kept.pop(name, None)

    @contextmanager
    def carried(self, phase: str, layers: Sequence[Any], batch: int, keep: int | None = None) -> Any:
        """Run a forward pass with the states of `phase`, and keep those before step `keep`, or the last ones.

        ValueError, with nothing changed, for a batch of another size than the states.
        """
        found = self.kept.get(phase)
        if found and len(found[0][0]) != batch:
            raise BadValue(
                f"x: a batch of {batch} sequences cannot continue the states of {len(found[0][0])}; every batch of a "
                "stateful model must have the same size, or call reset_states() first"
            )
        try:
            for k, layer in enumerate(layers):
                layer.carry = None if found is None else found[k]
            yield
            self.kept[phase] = [layer.states_at(keep) for layer in layers]
        finally:
            for layer in layers:
                layer.carry = None

    def arrays(self) -> dict[str, np.ndarray]:
        """All states by name, for saving."""
        return {
            f"states/{phase}/{k}/{j}": state
            for phase, layers in self.kept.items()
            for k, states in enumerate(layers)
            for j, state in enumerate(states)
        }

    def restore(self, arrays: dict[str, np.ndarray], layers: Sequence[Any]) -> None:
        """What `arrays` gave; ValueError unless these are states of `layers`, or of the stateful ones among them."""
        found = _by_place(arrays)
        stateful = [layer for layer in layers if layer.stateful]
        for phase, kept in found.items():
            of = stateful if len(kept) == len(stateful) else layers
            batch = len(kept[0][0]) if kept[0][0].ndim else 0
            wanted = [[(batch, layer.units)] * layer._cell().states for layer in of]
            shapes = [[state.shape for state in states] for states in kept]
            flat = [s for states in kept for s in states]
            sound = all(s.dtype == layers[0].dtype and np.isfinite(s).all() for s in flat)
            if phase not in PHASES or shapes != wanted or not batch or not sound:
                raise BadValue(f"states: those of {phase!r} do not fit the layers")
        self.kept = found


def _by_place(arrays: dict[str, np.ndarray]) -> dict[str, list[list[np.ndarray]]]:
    """The arrays named ``states/phase/layer/state``."""
    kept: dict[str, list[list[np.ndarray]]] = {}
    places = [name.split("/") for name in arrays if name.startswith("states/")]
    for phase, k, j in sorted((phase, int(k), int(j)) for _, phase, k, j in places):
        layers = kept.setdefault(phase, [])
        if k == len(layers):
            layers.append([])
        layers[k].append(np.array(arrays[f"states/{phase}/{k}/{j}"]))
    return kept
