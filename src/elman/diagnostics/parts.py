"""The recurrent layers of a model, and what their forward pass left behind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from elman.layers import RNN, Layer
from elman.tape import Tape


def label(layer: Layer, part: Layer) -> str:
    """The name of a layer of the model, or of a part that it holds: "outer/inner"."""
    return str(layer.name) if part is layer else f"{layer.name}/{part.name or type(part).__name__.lower()}"


def recurrent_parts(layer: Layer) -> list[tuple[str, RNN]]:
    """The recurrent layers a layer is or holds, with their names."""
    return [(label(layer, part), part) for part in (layer, *layer.inner()) if isinstance(part, RNN)]


def pieces(tape: Tape) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """What a training forward kept, as long as `backward` has not run.

    Tuples of the first step, the gates (t, rows, B, H), the states after each step (t, states, B, H) and the steps in
    use, bool (t, B), in processing order. One tuple holds all steps, or with checkpointing those of a segment, which is
    run again.
    """
    held, batch = tape.held_steps, len(tape.x)
    for begin in range(0, tape.steps, held):
        tape.states_at(begin)  # with checkpointing runs the segment again
        count = min(held, tape.steps - begin)
        used = np.ones((count, batch), bool)
        if tape.masks[0].size:
            used = tape.masks[0][begin : begin + count].astype(bool)
        gates, states = tape.held()
        yield begin, gates[:count], states[:count], used


def input_step(part: RNN, t: int) -> int:
    """The step of the input that is read at step t of the processing."""
    return part._tape.steps - 1 - t if part.go_backwards else t


def gate_names(part: RNN) -> list[str]:
    """One name per block of the recurrent kernel."""
    cell: Any = part._cell()
    if len(cell.gate_rows) == cell.gates:
        return [name for name, _ in cell.gate_rows]
    return ["h"] if cell.gates == 1 else [f"gate {k}" for k in range(cell.gates)]
