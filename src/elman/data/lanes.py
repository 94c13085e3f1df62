"""`Lanes`: long series cut into contiguous pieces that a stateful model reads side by side."""

from __future__ import annotations

from typing import Any

import numpy as np

from elman import checks
from elman.errors import BadType, BadValue


class Lanes:
    """One or several long series cut into contiguous lanes of equal length, for ``fit(..., tbptt=(k1, k2))``.

    A model reads all lanes side by side, k1 steps at a time, and carries its states from one piece to the next: so it
    sees a series in order, with a batch of B at once.

    Parameters
    ----------
    x : array_like, (n,) or (n, F), or list of arrays of these shapes
        One series or several; any real dtype. A list of numbers is one series, a list of lists or arrays several.
    y : array_like, (n,) or (n, O), or list, optional
        Targets or labels, one per step of `x`.
    lanes : int
        At most so many lanes. Their length L is the smallest with ``sum(ceil(n_i / L)) <= lanes``, so that at times
        there are fewer.

    Attributes
    ----------
    x : ndarray, (B, L) or (B, L, F)
        A view of one series where L divides n; else a copy, zeros at the end of lanes that are shorter.
    y : ndarray or None, (B, L) or (B, L, O)
        The same of `y`.
    lengths : ndarray of int64, (B,)
        Steps of each lane, 1 to L; only the last lane of a series is shorter. No step is lost, none is there twice.

    Raises
    ------
    ValueError, TypeError
        If a series is empty, `y` has other lengths than `x`, series have different features, there are more series than
        lanes, or one series is shorter than `lanes`.

    Notes
    -----
    Every lane begins with states of its own, so with B lanes there are B places, one per epoch, where a series goes on
    without its past.

    Examples
    --------
    >>> import numpy as np
    >>> lanes = Lanes(np.arange(10), lanes=4)
    >>> lanes.x
    array([[0, 1, 2],
           [3, 4, 5],
           [6, 7, 8],
           [9, 0, 0]])
    >>> lanes.lengths
    array([3, 3, 3, 1])
    """

    def __init__(self, x: Any, y: Any = None, lanes: int = 32) -> None:
        lanes = checks.integer("lanes", lanes)
        series = _series("x", x)
        counts = [len(s) for s in series]
        if len(series) > lanes:
            raise BadValue(f"lanes: {len(series)} series need at least as many lanes, got {lanes}")
        if sum(counts) < lanes:
            raise BadValue(f"lanes: x has {sum(counts)} steps in all, too few for {lanes} lanes")
        length = _lane_length(counts, lanes)
        self.lengths = np.concatenate([_lengths(n, length) for n in counts])
        targets = None if y is None else _series("y", y)
        if targets is not None and [len(t) for t in targets] != counts:
            found = _listed([len(t) for t in targets])
            raise BadValue(f"y: expected series of {_listed(counts)} steps, as in x, got {found}")
        self.x = _cut(series, length, len(self.lengths))
        self.y = None if targets is None else _cut(targets, length, len(self.lengths))

    def __len__(self) -> int:
        return len(self.lengths)

    @classmethod
    def next_token(cls, tokens: Any, lanes: int = 32) -> Lanes:
        """Lanes for a language model: `x` is all tokens but the last, `y` the token that follows each.

        Parameters
        ----------
        tokens : array_like of int, (n,), or list of such
            One text or several.
        lanes : int

        Raises
        ------
        ValueError, TypeError
            As above; if tokens are no integers, or a text has fewer than two.

        Examples
        --------
        >>> lanes = Lanes.next_token([7, 8, 9, 4, 5], lanes=2)
        >>> lanes.x.tolist(), lanes.y.tolist()
        ([[7, 8], [9, 4]], [[8, 9], [4, 5]])
        """
        texts = _series("tokens", tokens)
        for k, text in enumerate(texts):
            if text.dtype.kind not in "iu" or text.ndim != 1:
                raise BadType(f"tokens: expected integers (n,), got {text.dtype} of shape {text.shape} in series {k}")
            if len(text) < 2:
                raise BadValue(f"tokens: series {k} has {len(text)}, a token and the next one make 2")
        return cls([t[:-1] for t in texts], [t[1:] for t in texts], lanes)


def _series(argument: str, given: Any) -> list[np.ndarray]:
    """The series given: one array, or a list whose entries are arrays or lists."""
    several = isinstance(given, (list, tuple)) and len(given) > 0 and checks.axes(given[0]) > 0
    # A list of lists of numbers is read as several series, an array never.
    series = [checks.numeric(f"{argument}[{k}]", s) for k, s in enumerate(given)] if several else None
    if series is None:
        series = [checks.numeric(argument, given)]
    for k, one in enumerate(series):
        name = f"{argument}[{k}]" if several else argument
        if one.ndim not in (1, 2):
            raise BadValue(f"{name}: expected a series (n,) or (n, F), got shape {one.shape}")
        if one.shape[1:] != series[0].shape[1:]:
            raise BadValue(f"{name}: its steps have shape {one.shape[1:]}, those of the first {series[0].shape[1:]}")
    return series


def _lane_length(counts: list[int], lanes: int) -> int:
    """The smallest L with ``sum(ceil(n / L)) <= lanes``, by bisection: the sum never rises with L."""
    low, high = 1, max(counts)
    while low < high:
        middle = (low + high) // 2
        if sum(-(-n // middle) for n in counts) <= lanes:
            high = middle
        else:
            low = middle + 1
    return low


def _lengths(n: int, length: int) -> np.ndarray:
    """Steps of the lanes of a series of n."""
    lengths = np.full(-(-n // length), length, np.int64)
    lengths[-1] = n - length * (len(lengths) - 1)
    return lengths


def _cut(series: list[np.ndarray], length: int, lanes: int) -> np.ndarray:
    """All series in lanes (B, L, ...), one after another."""
    rest = series[0].shape[1:]
    if len(series) == 1 and len(series[0]) == length * lanes:
        return series[0].reshape(lanes, length, *rest)
    out = np.zeros((lanes * length, *rest), np.result_type(*{s.dtype for s in series}))
    start = 0
    for one in series:
        out[start : start + len(one)] = one
        start += -(-len(one) // length) * length
    return out.reshape(lanes, length, *rest)


def _listed(numbers: list[int]) -> str:
    """Numbers for a message, the first few."""
    return ", ".join(map(str, numbers[:5])) + (", …" if len(numbers) > 5 else "")
