"""Rules that do not look at the fans: constants, plain distributions, orthogonal matrices."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from elman.errors import BadValue
from elman.initializers.base import Initializer, store
from elman.registry import number


@dataclass(frozen=True)
class Zeros(Initializer):
    """Zeros.

    Examples
    --------
    >>> import numpy as np
    >>> Zeros()((3,), np.float32, np.random.default_rng(0))
    array([0., 0., 0.], dtype=float32)
    """

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        return np.zeros(shape)


@dataclass(frozen=True)
class Ones(Initializer):
    """Ones.

    Examples
    --------
    >>> import numpy as np
    >>> Ones()((3,), np.float32, np.random.default_rng(0))
    array([1., 1., 1.], dtype=float32)
    """

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        return np.ones(shape)


@dataclass(frozen=True)
class Constant(Initializer):
    """One number everywhere.

    Parameters
    ----------
    value : float, default 0.0
        Finite.

    Examples
    --------
    >>> import numpy as np
    >>> Constant(0.5)((2,), np.float64, np.random.default_rng(0))
    array([0.5, 0.5])
    """

    value: float = 0.0

    def __post_init__(self) -> None:
        store(self, value=number("value", self.value, -math.inf))

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        return np.full(shape, self.value)


@dataclass(frozen=True)
class Identity(Initializer):
    """`gain` on the main diagonal of a matrix, zeros elsewhere.

    With it and relu a simple recurrent net starts by keeping its state: Le, Jaitly & Hinton (2015), "A Simple Way to
    Initialize Recurrent Networks of Rectified Linear Units".

    Parameters
    ----------
    gain : float, default 1.0
        Value on the diagonal.

    Raises
    ------
    ValueError
        When called with a shape of other than two axes.

    Examples
    --------
    >>> import numpy as np
    >>> Identity()((2, 3), np.float64, np.random.default_rng(0))
    array([[1., 0., 0.],
           [0., 1., 0.]])
    """

    gain: float = 1.0

    def __post_init__(self) -> None:
        store(self, gain=number("gain", self.gain, -math.inf))

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        if len(shape) != 2:
            raise BadValue(f"shape: Identity makes matrices and needs 2 axes, got shape {shape}")
        return self.gain * np.eye(*shape)


@dataclass(frozen=True)
class RandomNormal(Initializer):
    """Normal distribution.

    Parameters
    ----------
    mean : float, default 0.0
    stddev : float, default 0.05
        Standard deviation, >= 0.

    Examples
    --------
    >>> import numpy as np
    >>> RandomNormal(stddev=0.1)((2, 2), np.float64, np.random.default_rng(0)).round(3)
    array([[ 0.013, -0.013],
           [ 0.064,  0.01 ]])
    """

    mean: float = 0.0
    stddev: float = 0.05

    def __post_init__(self) -> None:
        store(self, mean=number("mean", self.mean, -math.inf), stddev=number("stddev", self.stddev, 0.0))

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        return self.mean + self.stddev * rng.standard_normal(shape)


@dataclass(frozen=True)
class RandomUniform(Initializer):
    """Uniform distribution on [minval, maxval).

    Parameters
    ----------
    minval : float, default -0.05
    maxval : float, default 0.05
        Not below `minval`.

    Examples
    --------
    >>> import numpy as np
    >>> RandomUniform(0, 1)((3,), np.float64, np.random.default_rng(0)).round(3)
    array([0.637, 0.27 , 0.041])
    """

    minval: float = -0.05
    maxval: float = 0.05

    def __post_init__(self) -> None:
        store(self, minval=number("minval", self.minval, -math.inf), maxval=number("maxval", self.maxval, -math.inf))
        if self.minval > self.maxval:
            raise BadValue(f"maxval: must not be below minval={self.minval}, got {self.maxval}")
        if math.isinf(self.maxval - self.minval):
            raise BadValue(f"maxval: its distance from minval={self.minval} is beyond float64, got {self.maxval}")

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        return rng.uniform(self.minval, self.maxval + 0.0, shape)  # NumPy takes -0 for less than 0


@dataclass(frozen=True)
class TruncatedNormal(Initializer):
    """Normal distribution; values more than two standard deviations from the mean are drawn again.

    Parameters
    ----------
    mean : float, default 0.0
    stddev : float, default 0.05
        Standard deviation *before* the truncation, >= 0; that of the values is 0.8796 of it.

    Examples
    --------
    >>> import numpy as np
    >>> values = TruncatedNormal()((1000,), np.float64, np.random.default_rng(0))
    >>> bool(abs(values).max() <= 0.1)
    True
    """

    mean: float = 0.0
    stddev: float = 0.05

    def __post_init__(self) -> None:
        store(self, mean=number("mean", self.mean, -math.inf), stddev=number("stddev", self.stddev, 0.0))

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        return self.mean + self.stddev * truncated(shape, rng)


@dataclass(frozen=True)
class Orthogonal(Initializer):
    """Orthonormal rows or columns, whichever are fewer, times `gain`.

    Q of the QR decomposition of a normal matrix, its columns multiplied by the signs of the diagonal of R, which makes
    Q uniform over all such matrices: Saxe, McClelland & Ganguli (2014), "Exact solutions to the nonlinear dynamics of
    learning in deep linear neural networks". All axes but the last form the rows.

    Parameters
    ----------
    gain : float, default 1.0
        Length of the rows or columns.

    Raises
    ------
    ValueError
        When called with a shape of fewer than two axes.

    Examples
    --------
    >>> import numpy as np
    >>> q = Orthogonal()((2, 8), np.float64, np.random.default_rng(0))
    >>> bool(np.allclose(q @ q.T, np.eye(2)))
    True
    """

    gain: float = 1.0

    def __post_init__(self) -> None:
        store(self, gain=number("gain", self.gain, -math.inf))

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        if len(shape) < 2:
            raise BadValue(f"shape: Orthogonal makes matrices and needs at least 2 axes, got shape {shape}")
        rows, columns = math.prod(shape[:-1]), shape[-1]
        q = _orthonormal(rng.standard_normal((max(rows, columns), min(rows, columns))).T.copy())
        return self.gain * (q.T if rows >= columns else q)


def _orthonormal(a: np.ndarray) -> np.ndarray:
    """The rows of `a`, each made orthogonal to those before it, in place: Gram and Schmidt, each step done twice.

    L. Giraud, J. Langou, M. Rozloznik and J. van den Eshof, Rounding error analysis of the classical Gram-Schmidt
    orthogonalization process, 2005: twice is enough. Without BLAS, whose second thread waits busily after a QR: the
    first 0.1 s of a fit of LSTM(64) then took three times as long on two cores.
    """
    for j, row in enumerate(a):
        for _ in range(2):
            row -= np.einsum("i,ij->j", np.einsum("ij,j->i", a[:j], row), a[:j])
        row /= np.sqrt(np.einsum("i,i->", row, row))
    return a


@dataclass(frozen=True)
class OrthogonalPerGate(Initializer):
    """For a recurrent kernel (H, gates * H): an orthogonal (H, H) matrix for each gate, times `gain`.

    `Orthogonal` makes the rows of the whole matrix orthonormal instead, so that the block of one of G gates shortens a
    state, on average to 1 / sqrt(G) of its length; here each block keeps it.

    Parameters
    ----------
    gain : float, default 1.0
        Length of the rows and columns of each block.

    Raises
    ------
    ValueError
        When called with a shape of other than two axes, or whose columns are no whole multiple of its rows.

    Notes
    -----
    Each block is what `Orthogonal` draws, one gate after the other.

    Examples
    --------
    >>> import numpy as np
    >>> r = OrthogonalPerGate()((2, 6), np.float64, np.random.default_rng(0))
    >>> bool(np.allclose(r @ r.T, 3 * np.eye(2)))
    True
    """

    gain: float = 1.0

    def __post_init__(self) -> None:
        store(self, gain=number("gain", self.gain, -math.inf))

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        if len(shape) != 2 or not all(shape) or shape[1] % shape[0]:
            raise BadValue(f"shape: OrthogonalPerGate makes recurrent kernels (H, gates * H), got shape {shape}")
        block = Orthogonal(self.gain)
        return np.concatenate([block.draw((shape[0], shape[0]), rng) for _ in range(shape[1] // shape[0])], axis=1)


def truncated(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Standard normal values, drawn again while outside +-2 (4.6 % of them each time)."""
    values = rng.standard_normal(shape)
    flat = values.reshape(-1)
    outside = np.flatnonzero(np.abs(flat) > 2.0)
    while outside.size:
        flat[outside] = rng.standard_normal(outside.size)
        outside = outside[np.abs(flat[outside]) > 2.0]
    return values
