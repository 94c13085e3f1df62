"""Losses that make outputs the parameters of a distribution: its negative log-likelihood at the targets."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from elman import registry
from elman.checks import finite, integer, numeric
from elman.errors import BadType, BadValue
from elman.kernels import likelihoods as kernels
from elman.loss import Loss, within
from elman.losses import quantiles

_lgamma = np.vectorize(math.lgamma, otypes=[np.float64])


def _softplus(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, x)


def _check_counts(name: str, y: np.ndarray, loss: str) -> None:
    """ValueError unless targets are integers >= 0."""
    within(name, y, loss, 0)
    if y.dtype.kind == "f" and (y != np.floor(y)).any():
        wrong = np.argwhere(y != np.floor(y))
        first = tuple(int(i) for i in wrong[0])
        raise BadValue(
            f"{name}: targets of {loss} must be counts, but {len(wrong)} of {y.size} are no integers, the first at "
            f"index {first}: {y[first]}"
        )


class Likelihood(Loss):
    """Abstract negative log-likelihood: ``blocks`` parameters per target, whose activations belong to the loss.

    The model ends in a linear layer of ``blocks * k`` outputs for k targets. The last axis holds the k first
    parameters, then the k second ones, and so on. Targets have the shape (N, ..., k); for k = 1 the last axis may be
    missing. The loss of a row is the mean over its k targets; all constants are in it, so that values of different
    distributions compare.

    Examples
    --------
    >>> from elman.losses import GaussianNLL, Likelihood
    >>> isinstance(GaussianNLL(), Likelihood)
    True
    >>> GaussianNLL().check_target([3.0, 4.0], (2, 2)).shape
    (2, 1)
    """

    elementwise = False
    blocks: ClassVar[tuple[str, ...]]
    """Names of the parameters, in the order of their blocks."""

    def target_width(self, output_shape: tuple[int, ...], other: str) -> int:
        width, rest = divmod(output_shape[-1], len(self.blocks))
        if rest:
            raise BadValue(
                f"{type(self).__name__}: a target takes {len(self.blocks)} outputs ({', '.join(self.blocks)}), so the "
                f"last axis must be a multiple of it, but the shape of {other} is {tuple(output_shape)}"
            )
        return width

    def distribution(self, outputs: Any) -> dict[str, np.ndarray]:
        """Parameters of the distributions that outputs stand for.

        Parameters
        ----------
        outputs : array_like, (N, ..., blocks * k)
            Of the model, as it is.

        Returns
        -------
        dict of str to ndarray
            By the names in `blocks`, each (N, ..., k) in float64, in the unit of the targets.

        Raises
        ------
        ValueError
            If the last axis is no multiple of the number of parameters, or an output is not finite.

        Examples
        --------
        >>> from elman.losses import GaussianNLL
        >>> {name: v.round(4).tolist() for name, v in GaussianNLL().distribution([[2.0, 0.0]]).items()}
        {'mean': [[2.0]], 'scale': [[0.6931]]}
        """
        p = numeric("outputs", outputs)
        if p.ndim == 0:
            raise BadValue("outputs: expected at least one axis, got a number")
        finite("outputs", p)
        width = self.target_width(p.shape, "outputs")
        return self._parameters(p.astype(np.float64), width)

    @abstractmethod
    def _parameters(self, p: np.ndarray, width: int) -> dict[str, np.ndarray]:
        """Parameters of outputs (..., blocks * width), float64."""

    def mean(self, outputs: Any) -> np.ndarray:
        """Mean of the distribution of each target, (N, ..., k): the forecast with the least squared error.

        Examples
        --------
        >>> from elman.losses import GaussianNLL
        >>> GaussianNLL().mean([[2.0, 0.0]])
        array([[2.]])
        """
        return self.distribution(outputs)["mean"]

    def predictions(self, outputs: np.ndarray) -> np.ndarray:
        """The means of the distributions; NaN for outputs that are NaN."""
        with np.errstate(over="ignore", invalid="ignore"):
            width = self.target_width(outputs.shape, "outputs")
            return self._parameters(outputs.astype(np.float64), width)["mean"]

    def sample(self, outputs: Any, rng: np.random.Generator, n: int = 1) -> np.ndarray:
        """Draw n independent values per target.

        Parameters
        ----------
        outputs : array_like, (N, ..., blocks * k)
            Of the model, as it is.
        rng : numpy.random.Generator
            Source of the random numbers.
        n : int
            Number of values.

        Returns
        -------
        ndarray, (n, N, ..., k)
            In float64.

        Raises
        ------
        TypeError
            If `rng` is no generator or `n` no integer.
        ValueError
            As `distribution`, or if `n` is below 1.

        Examples
        --------
        >>> from elman.losses import GaussianNLL
        >>> GaussianNLL().sample([[2.0, 0.0]], np.random.default_rng(0), 3).shape
        (3, 1, 1)
        """
        if not isinstance(rng, np.random.Generator):
            raise BadType(f"rng: expected a numpy.random.Generator, got {type(rng).__name__} {rng!r}")
        count, parameters = integer("n", n), self.distribution(outputs)
        return self._draw(parameters, rng, (count, *parameters["mean"].shape))

    @abstractmethod
    def _draw(self, parameters: dict[str, np.ndarray], rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Random values of a shape (n, ...) from parameters (...)."""

    def quantile(self, outputs: Any, q: Any) -> np.ndarray:
        """The least value that a target stays at or below with probability q; a whole number where targets are counts.

        Parameters
        ----------
        outputs : array_like, (N, ..., blocks * k)
            Of the model, as it is.
        q : float or sequence of float
            Each above 0 and below 1.

        Returns
        -------
        ndarray, (N, ..., k), or (len(q), N, ..., k) for a sequence
            In float64.

        Raises
        ------
        TypeError, ValueError
            As `distribution`, or if a q is no number in that range.

        Examples
        --------
        >>> from elman.losses import GaussianNLL, PoissonNLL
        >>> GaussianNLL().quantile([[2.0, 0.0]], [0.1, 0.5]).round(4).tolist()
        [[[1.1117]], [[2.0]]]
        >>> PoissonNLL().quantile([[2.0]], 0.9)
        array([[4.]])
        """
        parameters = self.distribution(outputs)
        levels = [registry.number("q", level, 0, 1, open_low=True) for level in np.ravel(np.asarray(q)).tolist()]
        if not levels or 1.0 in levels or np.ndim(q) > 1:
            raise BadValue(f"q: expected one or more numbers > 0 and < 1, got {q!r}")
        values = np.stack([self._quantile(parameters, level) for level in levels])
        return values if np.ndim(q) else values[0]

    @abstractmethod
    def _quantile(self, parameters: dict[str, np.ndarray], level: float) -> np.ndarray:
        """The quantile of one level, (N, ..., k), from parameters of that shape."""

    def reference(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        parameters = self._parameters(y_pred.astype(np.float64), y_pred.shape[-1] // len(self.blocks))
        return self._losses(y_true.astype(np.float64), *parameters.values()).mean(axis=-1)

    @abstractmethod
    def _losses(self, y: np.ndarray, *parameters: Any, **_: Any) -> np.ndarray:
        """Loss per target, from the targets and the parameters in the order of `blocks`."""


@dataclass(frozen=True)
class GaussianNLL(Likelihood):
    """Normal distribution: ``log(2 pi s^2) / 2 + (y - m)^2 / (2 s^2)``, outputs (m, r), ``s = softplus(r) + 1e-6``.

    The summand holds the scale away from 0, where a single exact forecast would outweigh all others. Scale targets to a
    size of about 1.

    Notes
    -----
    Keras has no such loss; PyTorch's takes the variance, already positive, as an argument of its own.

    Examples
    --------
    >>> from elman.losses import GaussianNLL
    >>> round(GaussianNLL()([1.0], [[0.0, 0.5413]]), 4)  # y = 1, mean 0, scale softplus(0.5413) = 1
    1.4189
    """

    blocks = ("mean", "scale")
    kernel = kernels.gaussian

    def _parameters(self, p: np.ndarray, width: int) -> dict[str, np.ndarray]:
        return {"mean": p[..., :width], "scale": _softplus(p[..., width:]) + kernels.FLOOR}

    def _losses(self, y: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return 0.5 * np.log(2 * np.pi * scale**2) + (y - mean) ** 2 / (2 * scale**2)

    def _draw(self, parameters: dict[str, np.ndarray], rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return parameters["mean"] + parameters["scale"] * rng.standard_normal(shape)

    def _quantile(self, parameters: dict[str, np.ndarray], level: float) -> np.ndarray:
        # Imports decimal and fractions, which cost more than all of this package's own losses.
        from statistics import NormalDist

        return parameters["mean"] + parameters["scale"] * NormalDist().inv_cdf(level)


@dataclass(frozen=True)
class StudentT(Likelihood):
    """Student's t distribution with location m, scale s and v degrees of freedom: heavy tails, less moved by outliers.

    ``-log Gamma((v + 1) / 2) + log Gamma(v / 2) + log(pi v s^2) / 2 + (v + 1) / 2 log(1 + (y - m)^2 / (v s^2))``;
    outputs (m, r, q), ``s = softplus(r) + 1e-6``, ``v = 2 + softplus(q)``, so that the variance is finite. It tends to
    `GaussianNLL` as v grows.

    Examples
    --------
    >>> from elman.losses import StudentT
    >>> round(StudentT()([1.0], [[0.0, 0.5413, 1.0]]), 4)
    1.5622
    """

    blocks = ("mean", "scale", "df")
    kernel = kernels.student_t

    def _parameters(self, p: np.ndarray, width: int) -> dict[str, np.ndarray]:
        scale, freedom = _softplus(p[..., width : 2 * width]), _softplus(p[..., 2 * width :])
        return {"mean": p[..., :width], "scale": scale + kernels.FLOOR, "df": freedom + 2}

    def _losses(self, y: np.ndarray, mean: np.ndarray, scale: np.ndarray, df: np.ndarray) -> np.ndarray:
        tail = 0.5 * (df + 1) * np.log1p((y - mean) ** 2 / (df * scale**2))
        return _lgamma(df / 2) - _lgamma((df + 1) / 2) + 0.5 * np.log(np.pi * df * scale**2) + tail

    def _draw(self, parameters: dict[str, np.ndarray], rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return parameters["mean"] + parameters["scale"] * rng.standard_t(parameters["df"], shape)

    def _quantile(self, parameters: dict[str, np.ndarray], level: float) -> np.ndarray:
        return parameters["mean"] + parameters["scale"] * quantiles.student_quantile(parameters["df"], level)


@dataclass(frozen=True)
class NegativeBinomial(Likelihood):
    """Counts y with mean m and variance ``m + a m^2``: Poisson's distribution for dispersion a = 0, wider above.

    ``-log(Gamma(y + n) / (Gamma(n) y!)) - n log(n / (n + m)) - y log(m / (n + m))`` with ``n = 1 / a``; outputs (r, q),
    ``m = softplus(r)``, ``a = softplus(q) + 1e-6`` (Salinas, Flunkert and Gasthaus, 2017).

    Examples
    --------
    >>> from elman.losses import NegativeBinomial
    >>> round(NegativeBinomial()([2.0], [[0.5413, 0.5413]]), 4)  # mean 1, dispersion 1: P(2) = 1 / 8
    2.0794
    """

    blocks = ("mean", "dispersion")
    kernel = kernels.negative_binomial

    def _check_values(self, name: str, y: np.ndarray) -> None:
        _check_counts(name, y, "the negative binomial loss")

    def _parameters(self, p: np.ndarray, width: int) -> dict[str, np.ndarray]:
        return {"mean": _softplus(p[..., :width]), "dispersion": _softplus(p[..., width:]) + kernels.FLOOR}

    def _losses(self, y: np.ndarray, mean: np.ndarray, dispersion: np.ndarray) -> np.ndarray:
        n = 1 / dispersion
        coefficient = _lgamma(y + n) - _lgamma(n) - _lgamma(y + 1)
        return (n + y) * np.log1p(dispersion * mean) - y * np.log(dispersion * mean) - coefficient

    def _draw(self, parameters: dict[str, np.ndarray], rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        mean, n = parameters["mean"], 1 / parameters["dispersion"]
        return rng.negative_binomial(n, n / (n + mean), shape).astype(np.float64)

    def _quantile(self, parameters: dict[str, np.ndarray], level: float) -> np.ndarray:
        return quantiles.negative_binomial_quantile(parameters["mean"], parameters["dispersion"], level)


@dataclass(frozen=True)
class PoissonNLL(Likelihood):
    """Counts y of Poisson's distribution with mean m: ``m - y log(m) + log(y!)``, output r, ``m = softplus(r) + 1e-6``.

    The distribution to which `NegativeBinomial` tends as its dispersion goes to 0. `Poisson` is the loss of a model
    whose output is the mean itself, without ``log(y!)``.

    Examples
    --------
    >>> from elman.losses import PoissonNLL
    >>> round(PoissonNLL()([2.0], [[0.5413]]), 3)  # mean 1: P(2) = 1 / (2 e)
    1.693
    """

    blocks = ("mean",)
    kernel = kernels.poisson

    def _check_values(self, name: str, y: np.ndarray) -> None:
        _check_counts(name, y, "the Poisson likelihood")

    def _parameters(self, p: np.ndarray, width: int) -> dict[str, np.ndarray]:
        return {"mean": _softplus(p) + kernels.FLOOR}

    def _losses(self, y: np.ndarray, mean: np.ndarray) -> np.ndarray:
        return mean - y * np.log(mean) + _lgamma(y + 1)

    def _draw(self, parameters: dict[str, np.ndarray], rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return rng.poisson(parameters["mean"], shape).astype(np.float64)

    def _quantile(self, parameters: dict[str, np.ndarray], level: float) -> np.ndarray:
        return quantiles.poisson_quantile(parameters["mean"], level)
