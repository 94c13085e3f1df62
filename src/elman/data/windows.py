"""Windows of a series by index, never materialised, and an order to shuffle them in constant memory."""

from __future__ import annotations

from typing import Any, overload

import numpy as np
from numpy.lib.stride_tricks import as_strided

from elman import checks
from elman.errors import BadValue


class Windows:
    """Windows of equal length over one series; `timeseries_windows` makes them. Only what is asked for is copied.

    Attributes
    ----------
    shape : tuple of int
        (n, L, F): windows, steps, features; F = 1 for a series without an axis of features.
    dtype : numpy dtype
        Of the series.
    ndim : int
        3.
    base : ndarray
        View of the part of the series that the windows cover, first to last step.
    targets : ndarray or None
        View of shape (n, ...): the target of each window.

    Examples
    --------
    >>> import numpy as np
    >>> windows = timeseries_windows(np.arange(6.0), None, 3)
    >>> windows.shape
    (4, 3, 1)
    >>> windows[1].ravel()
    array([1., 2., 3.])
    """

    ndim = 3

    def __init__(
        self, series: np.ndarray, targets: np.ndarray | None, length: int, stride: int, rate: int, first: int,
        count: int,
    ) -> None:  # fmt: skip
        self._series, self._targets = series, targets
        self._length, self._stride, self._rate, self._first = length, stride, rate, first
        self.shape = (count, length, 1 if series.ndim == 1 else series.shape[1])
        self.dtype = series.dtype

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def base(self) -> np.ndarray:
        """The values, (n, F) or (n,), that windows are cut from, up to the end of the last one: a view."""
        last = self._first + (len(self) - 1) * self._stride + (self._length - 1) * self._rate
        return self._series[self._first : last + 1]

    @property
    def targets(self) -> np.ndarray | None:
        """One target for each window: a view; None without targets."""
        if self._targets is None:
            return None
        return self._targets[self._first : self._first + (len(self) - 1) * self._stride + 1 : self._stride]

    @property
    def _view(self) -> np.ndarray:
        # Made when needed, 5 us: kept, it would be pickled and copied at its full size.
        base = self.base
        step = base.strides[0]
        strides = (step * self._stride, step * self._rate, base.itemsize if base.ndim == 1 else base.strides[1])
        return as_strided(base, self.shape, strides, writeable=False)

    def __getitem__(self, rows: Any) -> np.ndarray:
        """A copy of one window (L, F), or of those of a slice or of an array of indices (b, L, F)."""
        return np.array(self._view[rows])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise BadValue("copy: windows overlap, so an array of them is a copy")
        return np.array(self._view, dtype)

    def take(self, rows: np.ndarray | slice, out: np.ndarray) -> np.ndarray:
        """Copy the windows `rows` (b,) into `out` (b, L, F) of any float type; returns `out`.

        Measured against a compiled loop: 2.6 us against 11 us for 32 windows of 168 steps, since NumPy copies each
        window with memcpy.
        """
        out[...] = self._view[rows]
        return out

    def part(self, start: int, stop: int) -> Windows:
        """The windows `start` to `stop`, without a copy.

        Windows overlap: the last ones before `stop` share steps with the first ones after it.

        Examples
        --------
        >>> import numpy as np
        >>> windows = timeseries_windows(np.arange(6), np.arange(10, 16), 3)
        >>> windows.part(2, 4).targets
        array([12, 13])
        """
        if not 0 <= start < stop <= len(self):
            raise BadValue(f"start, stop: expected 0 <= start < stop <= {len(self)}, got {start} and {stop}")
        first = self._first + start * self._stride
        return Windows(self._series, self._targets, self._length, self._stride, self._rate, first, stop - start)


def timeseries_windows(
    data: Any,
    targets: Any,
    sequence_length: int,
    sequence_stride: int = 1,
    sampling_rate: int = 1,
    start_index: int | None = None,
    end_index: int | None = None,
) -> Windows:
    """Sliding windows over a series, for `fit`, as many as fit into it.

    Parameters
    ----------
    data : array_like, (n,) or (n, F)
        The series, any real dtype. Arrays and memory maps are not copied.
    targets : array_like, (m, ...), or None
        ``targets[i]`` belongs to the window that begins at ``data[i]``. To forecast the value that follows a window of
        L steps give ``data[L:]``; for h steps ahead, ``numpy.lib.stride_tricks.sliding_window_view(data[L:], h)``.
    sequence_length : int
        Steps of a window, L.
    sequence_stride : int
        Steps from the begin of one window to that of the next.
    sampling_rate : int
        Steps of the series from one step of a window to the next.
    start_index, end_index : int, optional
        Use only ``data[start_index:end_index]``; targets keep their indices.

    Returns
    -------
    Windows
        Every window that lies wholly in the data, up to the last that has a target.

    Raises
    ------
    ValueError, TypeError
        For arguments out of range, or when not one window fits.

    Notes
    -----
    Names and meaning are those of ``keras.utils.timeseries_dataset_from_array``. Its recipe for forecasts takes the
    windows from ``data[:-delay]`` and with them loses ``sequence_length - 1`` or more that have a target; here the
    whole series goes in as `data` and ``data[delay:]`` as `targets`.

    Examples
    --------
    >>> import numpy as np
    >>> import elman
    >>> series = np.sin(np.arange(200.0))
    >>> windows = timeseries_windows(series, series[12:], sequence_length=12)
    >>> windows.shape
    (188, 12, 1)
    >>> bool(windows.targets[5] == series[17])
    True
    """
    series = checks.numeric("data", data)
    if series.ndim not in (1, 2):
        raise BadValue(f"data: expected shape (n,) or (n, F), got {series.shape}")
    length = checks.integer("sequence_length", sequence_length)
    stride = checks.integer("sequence_stride", sequence_stride)
    rate = checks.integer("sampling_rate", sampling_rate)
    first = 0 if start_index is None else checks.integer("start_index", start_index, 0)
    end = len(series) if end_index is None else checks.integer("end_index", end_index, first + 1)
    if end > len(series):
        raise BadValue(f"end_index: the series has {len(series)} steps, got {end}")
    span = (length - 1) * rate + 1
    if first + span > end:
        raise BadValue(
            f"sequence_length: a window of {length} steps at sampling_rate {rate} covers {span} steps, the data from "
            f"{first} to {end} have {max(0, end - first)}"
        )
    begins = end - span - first + 1
    if targets is not None:
        targets = checks.numeric("targets", targets)
        if targets.ndim == 0 or len(targets) <= first:
            raise BadValue(f"targets: shape {targets.shape} has none for the first window, which begins at {first}")
        begins = min(begins, len(targets) - first)
    # A single window, or one of a single step, may have any: the product with the size of a step is to be an int64.
    stride, rate = min(stride, len(series)), min(rate, len(series))
    return Windows(series, targets, length, stride, rate, first, -(-begins // stride))


_TABLE = 1 << 16
"""Permutations up to this size are kept as a table, 512 KiB."""
_BLOCK = 1 << 13
"""Indices computed at a time, 64 KiB."""
_ROUNDS = 8


class Permutation:
    """A random order of n rows in constant memory: 0.5 MB, where an array would take 8 n bytes.

    Parameters
    ----------
    n : int
    rng : numpy.random.Generator
        Gives the keys: the same generator state gives the same order.

    Raises
    ------
    ValueError, TypeError
        For a negative n, or an index that is no integer and no slice of step 1.

    Notes
    -----
    Beyond 65,536 rows, index i is enciphered: a Feistel network (Luby and Rackoff, 1988, "How to construct
    pseudorandom permutations from pseudorandom functions") of 8 rounds on the bits of i, which is a permutation of
    ``range(2**bits)`` whatever its round function does, here the 64-bit finalizer of SplitMix (Steele, Lea and Flood,
    2014). A result of n or more is enciphered again until it falls below n ("cycle walking", Black and Rogaway, 2002,
    "Ciphers with arbitrary finite domains"), less than once on average. Orders reached this way are 2^512 at most, far
    fewer than n!, as with any generator.

    Examples
    --------
    >>> import numpy as np
    >>> order = Permutation(1_000_000, np.random.default_rng(0))
    >>> order[:32].shape, order[999_990:].dtype
    ((32,), dtype('int64'))
    """

    def __init__(self, n: int, rng: np.random.Generator) -> None:
        self._n = checks.integer("n", n, 0)
        self._start, self._block = 0, np.empty(0, np.int64)
        if self._n <= _TABLE:
            self._block = rng.permutation(self._n).astype(np.int64, copy=False)
            return
        bits = (self._n - 1).bit_length()
        self._shift = np.uint64(bits // 2)
        self._low = np.uint64((1 << bits // 2) - 1)
        self._high = np.uint64((1 << (bits - bits // 2)) - 1)
        self._keys = rng.integers(0, 1 << 64, _ROUNDS, np.uint64)

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, rows: slice) -> np.ndarray: ...

    @overload
    def __getitem__(self, rows: int) -> int: ...

    def __getitem__(self, rows: slice | int) -> np.ndarray | int:
        """The rows at the places of a slice, int64, or at one place."""
        if not isinstance(rows, slice):
            place = range(self._n)[checks.integer("place", rows, -self._n)]
            return int(self[place : place + 1][0])
        start, stop, step = rows.indices(self._n)
        if step != 1:
            raise BadValue(f"rows: expected a slice of step 1, got {rows}")
        stop = max(start, stop)
        if not self._start <= start <= stop <= self._start + len(self._block):
            self._block = self._encipher(start, min(self._n, max(stop, start + _BLOCK)))
            self._start = start
        return self._block[start - self._start : stop - self._start]

    def _encipher(self, start: int, stop: int) -> np.ndarray:
        numbers = self._rounds(np.arange(start, stop, dtype=np.uint64))
        beyond = np.flatnonzero(numbers >= self._n)
        while beyond.size:
            numbers[beyond] = self._rounds(numbers[beyond])
            beyond = beyond[numbers[beyond] >= self._n]
        return numbers.view(np.int64)

    def _rounds(self, numbers: np.ndarray) -> np.ndarray:
        high, low = numbers >> self._shift, numbers & self._low
        for k in range(0, _ROUNDS, 2):
            high ^= _mix(low + self._keys[k]) & self._high
            low ^= _mix(high + self._keys[k + 1]) & self._low
        return high << self._shift | low


def _mix(z: np.ndarray) -> np.ndarray:
    """SplitMix's finalizer, in place: every bit of z reaches every bit of the result."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z ^= z >> np.uint64(shift)
        z *= np.uint64(factor)
    z ^= z >> np.uint64(31)
    return z
