"""Where the first NaN or infinity of a training step stands."""

from __future__ import annotations

from typing import Any

import numpy as np

from elman.diagnostics.parts import input_step, label, pieces, recurrent_parts
from elman.kernels.optimizers import LARGEST
from elman.layers import RNN


def locate_nonfinite(model: Any, batch: Any) -> str:
    """Say where the first NaN or infinity of the last training step stands.

    For use after a step whose update was left out: parameters and noise are then still those of the step, which is run
    again, from the states it began with.

    Parameters
    ----------
    model : Sequential
    batch : Batch
        What the step was given.

    Returns
    -------
    str
        The first of these that is not finite: a parameter; the data; forward, the first layer, in a recurrent layer the
        first step and in it the first gate or state, in any other the step of its output; the loss or its gradient;
        backward, the layer nearest to the loss with such a gradient, and where it is recurrent the step from which on
        ‖dL/dh‖ is not finite; penalties; sums over the parts of an accumulated gradient. Steps count from 0 along the
        input, those that a mask excludes do not matter. Samples count as in x, or in the batch where batches come one
        by one.

    Examples
    --------
    >>> import warnings
    >>> import numpy as np
    >>> import elman
    >>> model = elman.Sequential([elman.layers.Input((9, 1)), elman.layers.SimpleRNN(1, activation="linear")], seed=0)
    >>> model.set_weights([np.ones((1, 1)), np.full((1, 1), 1e20), np.zeros(1)])
    >>> model.compile("sgd", "mse")
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore", RuntimeWarning)
    ...     loss = model.train_on_batch(np.ones((1, 9, 1)), np.ones((1, 1)))
    >>> model.nonfinite
    "forward: layer 'simplernn', step 2, state h: inf (sample 0, unit 0)"
    """
    found = _in_parameters(model) or _in_data(batch)
    if found is not None:
        return found
    carrying = []
    if batch.window is not None or model._stateful:
        carrying = model._recurrent_layers(stateful=batch.window is None)
    try:
        for part in carrying:
            # What the step carried over is lost to the states it left; its tape still holds it.
            part.carry = part.states_at(0)
        found, outputs, mask = _in_forward(model, batch)
    finally:
        for part in carrying:
            part.carry = None
    if found is not None:
        return found
    model._output_mask = mask
    return _after_forward(model, batch, outputs)


def _after_forward(model: Any, batch: Any, outputs: np.ndarray) -> str:
    mask, dy = model._loss_mask(outputs, batch), np.empty_like(outputs)
    value = model.loss.on_batch(batch.y, outputs, batch.w, mask, dy) * model._loss_weight
    if not np.isfinite(value):
        return f"the loss is {value}; the outputs are finite"
    with np.errstate(over="ignore"):
        dy *= model.dtype.type(model._loss_weight)
    if not np.isfinite(dy).all():
        return f"the gradient of the loss: {_output_place(dy, batch)}; the loss is finite"
    found = _in_backward(model, dy)
    if found is not None:
        return found
    penalty = model._vector.regularize()
    found = _in_gradients(model, how=", its penalty included,")
    if found is not None or not np.isfinite(penalty):
        return found or f"the penalty of the parameters is {penalty}"
    return _too_large(model) or "the gradients of this batch are finite, their sum with those accumulated before is not"


# ---- places


def _first(bad: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(bad)[0])


def _sample(batch: Any, row: int, count: int) -> str:
    """The sample of a row of the batch; of a row of something else, such as all steps of the batch, the row."""
    if count != len(batch.x):
        return f"row {row}"
    rows = batch.rows
    return f"sample {(rows.start or 0) + row if isinstance(rows, slice) else int(rows[row])}"


def _step(batch: Any, t: int) -> str:
    return f"step {t}" if batch.window is None else f"step {t} of the window"


def _output_place(y: np.ndarray, batch: Any, mask: np.ndarray | None = None) -> str | None:
    """The first step, with its value, of an array (B, ...) or (B, T, ...) that is not finite where a mask uses it."""
    bad = ~np.isfinite(y)
    if mask is not None and y.ndim > 2:
        bad &= mask.reshape(*mask.shape, *(1,) * (y.ndim - 2))
    if not bad.any():
        return None
    if y.ndim < 3:
        place = _first(bad)
        return f"{y[place]} ({_sample(batch, place[0], len(y))})"
    t = int(bad.any(axis=(0, *range(2, y.ndim))).argmax())
    place = _first(bad[:, t])
    return f"{_step(batch, t)}, {y[:, t][place]} ({_sample(batch, place[0], len(y))})"


# ---- before the arithmetic


def _in_parameters(model: Any) -> str | None:
    for weight in model._vector:
        bad = ~np.isfinite(weight.value)
        if bad.any():
            place = _first(bad)
            return f"parameter {weight.name!r} is {weight.value[place]} at index {place}"
    return None


def _in_data(batch: Any) -> str | None:
    for name, array in (("x", batch.x), ("y", batch.y), ("sample_weight", batch.w)):
        place = None if array is None or array.dtype.kind != "f" else _output_place(array, batch)
        if place is not None:
            return f"{name}: {place}"
    return None


# ---- forward


def _in_forward(model: Any, batch: Any) -> tuple[str | None, np.ndarray, np.ndarray | None]:
    """The forward pass of training, layer by layer; what was found, the outputs and their mask."""
    x, mask = batch.x, batch.mask
    for layer in model.layers:
        layer.mask, layer.draw = mask, model._draws
        y = layer.forward(x, training=True)
        for name, part in recurrent_parts(layer):
            found = _in_recurrence(name, part, batch)
            if found is not None:
                return found, y, None
        mask, x = layer.output_mask(x), y
        place = _output_place(y, batch, mask)
        if place is not None:
            return f"forward: layer {label(layer, layer)!r}, output: {place}", y, None
    return None, np.ascontiguousarray(x), mask


def _in_recurrence(name: str, part: RNN, batch: Any) -> str | None:
    """The first step of a recurrent layer at which a gate or a state is not finite."""
    cell = part._cell()
    letters = ("h", "c") if cell.states == 2 else ("h", *range(1, cell.states))
    for begin, gates, states, used in pieces(part._tape):
        found = [(f"gate {gate!r}", gates[:, row]) for gate, row in cell.gate_rows]
        # The other states before h, which follows from them.
        found += [(f"state {letters[k]}", states[:, k]) for k in reversed(range(cell.states))]
        bad = [~np.isfinite(values) & used[:, :, None] for _, values in found]
        steps = np.logical_or.reduce([b.any(axis=(1, 2)) for b in bad])
        if not steps.any():
            continue
        t = int(steps.argmax())
        # Within a step, numbers overflow to infinity before infinities make NaN.
        now = [(what, values[t], b[t]) for (what, values), b in zip(found, bad, strict=True)]
        choice = ((what, values, kind(values) & b) for kind in (np.isinf, np.isnan) for what, values, b in now)
        what, values, b = next(c for c in choice if c[2].any())
        row, unit = _first(b)
        where = f"{_sample(batch, row, len(values))}, unit {unit}"
        step = _step(batch, input_step(part, begin + t))
        return f"forward: layer {name!r}, {step}, {what}: {values[row, unit]} ({where})"
    return None


# ---- backward


def _in_backward(model: Any, dy: np.ndarray) -> str | None:
    """The backward pass, layer by layer."""
    parts = [found for layer in model.layers for found in recurrent_parts(layer)]
    try:
        for _, part in parts:
            part.norms = np.zeros((part._tape.steps, len(part._tape.x)))
        for k in range(len(model.layers) - 1, model._first - 1, -1):
            layer = model.layers[k]
            dy = layer.backward(dy, input_gradient=k > model._first)
            begin = sum(len(before.parameters) for before in model.layers[:k])
            found = _in_gradients(model, slice(begin, begin + len(layer.parameters)))
            where = "".join(_norms_place(name, part) for name, part in recurrent_parts(layer))
            if found is not None or where:
                return (found or f"backward: layer {layer.name!r}") + where
            if k > model._first and not np.isfinite(dy).all():
                return f"backward: layer {layer.name!r}, gradient of its input is not finite"
    finally:
        for _, part in parts:
            part.norms = None
    return None


def _in_gradients(model: Any, which: slice = slice(None), how: str = "") -> str | None:
    """The first gradient, of a trained parameter, that is not finite."""
    vector = model._vector
    found = list(zip(vector.specs, vector.views(vector.gradients), vector.trainable, strict=True))
    for spec, gradient, free in found[which]:
        if free and not np.isfinite(gradient).all():
            return f"backward: gradient of {spec.name!r}{how} is not finite"
    return None


def _too_large(model: Any) -> str | None:
    """The first gradient, of a trained parameter, whose square the optimizer's state cannot hold."""
    vector = model._vector
    for spec, gradient, free in zip(vector.specs, vector.views(vector.gradients), vector.trainable, strict=True):
        bad = np.abs(gradient) >= LARGEST[model.dtype.itemsize]
        if free and model.optimizer.bounded and bad.any():
            place = _first(bad)
            return f"backward: gradient of {spec.name!r} is {gradient[place]} at index {place}, its square overflows"
    return None


def _norms_place(name: str, part: RNN) -> str:
    """From where on, going back, the gradient of h is not finite; empty if it always is."""
    bad = ~np.isfinite(part.norms).all(axis=1)
    if not bad.any():
        return ""
    t = int(np.flatnonzero(bad)[-1])
    return f"; layer {name!r}, ‖dL/dh‖ from step {input_step(part, t)} back"
