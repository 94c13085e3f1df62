"""Decoders for outputs trained with `elman.losses.CTC`: from logits per step to labels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from elman.checks import finite, integer, numeric
from elman.errors import BadValue

__all__ = ["beam_decode", "greedy_decode"]


def greedy_decode(outputs: Any, lengths: Any = None, blank: int = 0) -> list[np.ndarray]:
    """Labels of the most probable alignment: the best class of each step, equal neighbours as one, without blanks.

    Parameters
    ----------
    outputs : array_like, (N, T, C)
        Logits, or any numbers of which the largest is the best.
    lengths : array_like of int or None
        (N,): how many steps of each sample, from its first on, are valid; for None all T.
    blank : int
        Class that stands for no label.

    Returns
    -------
    list of ndarray of int64
        N arrays of labels, of different lengths. The first of equally good classes is taken.

    Raises
    ------
    TypeError, ValueError
        If outputs are not finite or have another shape, a length lies outside 0 ... T, or the blank outside the
        classes.

    Examples
    --------
    >>> from elman.ctc import greedy_decode
    >>> greedy_decode([[[0, 1, 0], [0, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]])
    [array([1, 1, 2])]
    """
    x, steps, blank = _checked(outputs, lengths, blank)
    found = []
    for best, length in zip(x.argmax(axis=-1), steps, strict=True):
        path = best[:length]
        new = np.ones(length, bool)
        new[1:] = path[1:] != path[:-1]
        found.append(path[new & (path != blank)].astype(np.int64))
    return found


def beam_decode(
    outputs: Any, lengths: Any = None, beam_width: int = 10, blank: int = 0
) -> list[tuple[np.ndarray, float]]:
    """Labels of the highest probability, summed over their alignments, by a prefix beam search.

    Of all labellings that begin a sample the `beam_width` most probable are kept after each step, with the
    log-probability of their alignments that end in a blank and of those that do not, so that alignments of the same
    labels are merged exactly (Hannun, Maas, Jurafsky and Ng, 2014). With a beam as wide as there are labellings the
    result is exact.

    Parameters
    ----------
    outputs : array_like, (N, T, C)
        Logits.
    lengths : array_like of int or None
        As in `greedy_decode`.
    beam_width : int
        Number of labellings kept. Time grows by N T C beam_width.
    blank : int
        Class that stands for no label.

    Returns
    -------
    list of (ndarray of int64, float)
        N pairs of labels and the logarithm of their probability, natural, summed over the alignments that the beam
        kept. Of equally probable ones the first in the order of their labels is taken.

    Raises
    ------
    TypeError, ValueError
        As `greedy_decode`, or if `beam_width` is no integer of at least 1.

    Examples
    --------
    >>> import numpy as np
    >>> from elman.ctc import beam_decode
    >>> logits = np.log([[[0.6, 0.4], [0.6, 0.4]]])  # blank-blank has 0.36, the three alignments of 1 have 0.64
    >>> labels, log_probability = beam_decode(logits)[0]
    >>> labels.tolist(), round(float(np.exp(log_probability)), 12)
    ([1], 0.64)
    """
    x, steps, blank = _checked(outputs, lengths, blank)
    width = integer("beam_width", beam_width)
    x = x.astype(np.float64)
    x -= x.max(axis=-1, keepdims=True)
    x -= np.log(np.exp(x).sum(axis=-1, keepdims=True))
    return [_search(sample[:length].tolist(), width, blank) for sample, length in zip(x, steps, strict=True)]


def _search(log_p: list[list[float]], width: int, blank: int) -> tuple[np.ndarray, float]:
    """The most probable labelling of one sample, from log-probabilities (T, C)."""
    # By labels: log-probability of the alignments that end in a blank, and of those that end in the last label.
    beam: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, -math.inf)}
    for step in log_p:
        grown: dict[tuple[int, ...], tuple[float, float]] = {}

        def grow(labels: tuple[int, ...], blanks: float, last: float, grown: dict[Any, Any] = grown) -> None:
            before = grown.get(labels, (-math.inf, -math.inf))
            grown[labels] = _add(before[0], blanks), _add(before[1], last)

        for labels, (blanks, last) in beam.items():
            both = _add(blanks, last)
            for k, p in enumerate(step):
                if k == blank:
                    grow(labels, both + p, -math.inf)
                elif labels and k == labels[-1]:
                    # The same label again needs a blank before it; without one it is still the same label.
                    grow(labels, -math.inf, last + p)
                    grow((*labels, k), -math.inf, blanks + p)
                else:
                    grow((*labels, k), -math.inf, both + p)
        order = sorted(grown.items(), key=lambda item: (-_add(*item[1]), item[0]))
        beam = dict(order[:width])
    labels, ends = min(beam.items(), key=lambda item: (-_add(*item[1]), item[0]))
    return np.array(labels, np.int64), _add(*ends)


def _add(a: float, b: float) -> float:
    """log(e^a + e^b)."""
    low, high = (a, b) if a < b else (b, a)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))


def _checked(outputs: Any, lengths: Any, blank: Any) -> tuple[np.ndarray, list[int], int]:
    x = numeric("outputs", outputs)
    if x.ndim != 3:
        raise BadValue(f"outputs: expected shape (N, T, C), got {x.shape}")
    finite("outputs", x)
    blank = integer("blank", blank, 0)
    if blank >= x.shape[2]:
        raise BadValue(f"blank: class {blank} is none of the {x.shape[2]} classes of outputs of shape {x.shape}")
    if lengths is None:
        return x, [x.shape[1]] * len(x), blank
    steps = numeric("lengths", lengths)
    if steps.shape != (len(x),):
        raise BadValue(f"lengths: expected shape ({len(x)},), got {steps.shape}")
    wrong = ~((steps >= 0) & (steps <= x.shape[1]) & (steps == np.floor(steps)))
    if wrong.any():
        i = int(wrong.argmax())
        raise BadValue(f"lengths: expected integers from 0 to {x.shape[1]}, got {steps[i]} at index {i}")
    return x, [int(k) for k in steps], blank
