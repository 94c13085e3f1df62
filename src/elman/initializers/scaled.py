"""Rules whose variance follows from the fans: `VarianceScaling` and its six named cases."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from elman.checks import choose
from elman.initializers.base import Initializer, fans, store
from elman.initializers.plain import truncated
from elman.registry import number

_MODES = ("fan_in", "fan_out", "fan_avg")
_DISTRIBUTIONS = ("truncated_normal", "untruncated_normal", "uniform")
# Standard deviation of a standard normal variable cut off at +-2.
_TRUNCATED_STDDEV = 0.87962566103423978


@dataclass(frozen=True)
class VarianceScaling(Initializer):
    """Random values of mean 0 and variance ``scale / n``, n being a number of connections (see `fans`).

    Parameters
    ----------
    scale : float, default 1.0
        Positive.
    mode : {"fan_in", "fan_out", "fan_avg"}, default "fan_in"
        What n is: inputs, outputs, or the mean of both; at least 1.
    distribution : {"truncated_normal", "untruncated_normal", "uniform"}, default "truncated_normal"
        "truncated_normal" is cut off at two standard deviations and widened so that the variance holds after the cut;
        "uniform" is on +-sqrt(3 scale / n).

    Examples
    --------
    >>> import numpy as np
    >>> rule = VarianceScaling(scale=3.0, mode="fan_out", distribution="uniform")
    >>> bool(abs(rule((100, 9), np.float64, np.random.default_rng(0))).max() < 1.0)
    True
    """

    scale: float = 1.0
    mode: str = "fan_in"
    distribution: str = "truncated_normal"

    def __post_init__(self) -> None:
        store(self, scale=number("scale", self.scale, 0.0, open_low=True))
        choose("mode", self.mode, _MODES)
        choose("distribution", self.distribution, _DISTRIBUTIONS)

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        fan_in, fan_out = fans(shape)
        n = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        variance = self.scale / max(1.0, n)
        if self.distribution == "uniform":
            limit = math.sqrt(3.0 * variance)
            return rng.uniform(-limit, limit, shape)
        if self.distribution == "untruncated_normal":
            return math.sqrt(variance) * rng.standard_normal(shape)
        return math.sqrt(variance) / _TRUNCATED_STDDEV * truncated(shape, rng)


class _Preset(Initializer):
    """Abstract: a `VarianceScaling` with its own name and no arguments."""

    _rule: ClassVar[VarianceScaling]

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        return self._rule.draw(shape, rng)


@dataclass(frozen=True)
class GlorotUniform(_Preset):
    """Uniform on +-sqrt(6 / (fan_in + fan_out)): Glorot & Bengio (2010).

    Examples
    --------
    >>> import numpy as np
    >>> bool(abs(GlorotUniform()((4, 2), np.float64, np.random.default_rng(0))).max() < 1.0)
    True
    """

    _rule: ClassVar[VarianceScaling] = VarianceScaling(1.0, "fan_avg", "uniform")


@dataclass(frozen=True)
class GlorotNormal(_Preset):
    """Truncated normal of variance 2 / (fan_in + fan_out): Glorot & Bengio (2010).

    Examples
    --------
    >>> import numpy as np
    >>> GlorotNormal()((4, 2), np.float32, np.random.default_rng(0)).dtype
    dtype('float32')
    """

    _rule: ClassVar[VarianceScaling] = VarianceScaling(1.0, "fan_avg", "truncated_normal")


@dataclass(frozen=True)
class HeNormal(_Preset):
    """Truncated normal of variance 2 / fan_in, made for relu: He, Zhang, Ren & Sun (2015).

    Examples
    --------
    >>> import numpy as np
    >>> HeNormal()((4, 2), np.float32, np.random.default_rng(0)).dtype
    dtype('float32')
    """

    _rule: ClassVar[VarianceScaling] = VarianceScaling(2.0, "fan_in", "truncated_normal")


@dataclass(frozen=True)
class HeUniform(_Preset):
    """Uniform on +-sqrt(6 / fan_in), made for relu: He, Zhang, Ren & Sun (2015).

    Examples
    --------
    >>> import numpy as np
    >>> bool(abs(HeUniform()((6, 2), np.float64, np.random.default_rng(0))).max() < 1.0)
    True
    """

    _rule: ClassVar[VarianceScaling] = VarianceScaling(2.0, "fan_in", "uniform")


@dataclass(frozen=True)
class LecunNormal(_Preset):
    """Truncated normal of variance 1 / fan_in: LeCun, Bottou, Orr & Müller (1998).

    Examples
    --------
    >>> import numpy as np
    >>> LecunNormal()((4, 2), np.float32, np.random.default_rng(0)).dtype
    dtype('float32')
    """

    _rule: ClassVar[VarianceScaling] = VarianceScaling(1.0, "fan_in", "truncated_normal")


@dataclass(frozen=True)
class LecunUniform(_Preset):
    """Uniform on +-sqrt(3 / fan_in): LeCun, Bottou, Orr & Müller (1998).

    Examples
    --------
    >>> import numpy as np
    >>> bool(abs(LecunUniform()((3, 2), np.float64, np.random.default_rng(0))).max() < 1.0)
    True
    """

    _rule: ClassVar[VarianceScaling] = VarianceScaling(1.0, "fan_in", "uniform")
