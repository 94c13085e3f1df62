"""Losses: what training minimises, with exact gradients. The registry is `LOSSES`.

A loss is a frozen dataclass: its fields are its options, `Loss.kernel` its compiled arithmetic, `Loss.reference` the
same formula in NumPy for tests. Names, defaults and formulas are Keras's. The value of a batch is ``sum_i w_i l_i / n``
over its n rows (samples times steps), never divided by the sum of the weights; where steps are masked, over the valid
rows. `CTC` alone has one loss per sample.
"""

from __future__ import annotations

from typing import Any

from elman import registry
from elman.loss import Loss, align, row_weights
from elman.losses.classification import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    Hinge,
    KLDivergence,
    SparseCategoricalCrossentropy,
    SquaredHinge,
)
from elman.losses.ctc import CTC
from elman.losses.likelihoods import GaussianNLL, Likelihood, NegativeBinomial, PoissonNLL, StudentT
from elman.losses.regression import (
    CosineSimilarity,
    Huber,
    LogCosh,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    Poisson,
    Quantile,
)

__all__ = [
    "CTC",
    "LOSSES",
    "BinaryCrossentropy",
    "CategoricalCrossentropy",
    "CosineSimilarity",
    "GaussianNLL",
    "Hinge",
    "Huber",
    "KLDivergence",
    "Likelihood",
    "LogCosh",
    "Loss",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "NegativeBinomial",
    "Poisson",
    "PoissonNLL",
    "Quantile",
    "SparseCategoricalCrossentropy",
    "SquaredHinge",
    "StudentT",
    "align",
    "get",
    "row_weights",
    "serialize",
]

LOSSES: dict[str, type[Loss]] = {
    "mean_squared_error": MeanSquaredError,
    "mean_absolute_error": MeanAbsoluteError,
    "mean_absolute_percentage_error": MeanAbsolutePercentageError,
    "mean_squared_logarithmic_error": MeanSquaredLogarithmicError,
    "huber": Huber,
    "log_cosh": LogCosh,
    "poisson": Poisson,
    "cosine_similarity": CosineSimilarity,
    "quantile": Quantile,
    "binary_crossentropy": BinaryCrossentropy,
    "categorical_crossentropy": CategoricalCrossentropy,
    "sparse_categorical_crossentropy": SparseCategoricalCrossentropy,
    "kl_divergence": KLDivergence,
    "hinge": Hinge,
    "squared_hinge": SquaredHinge,
    "gaussian": GaussianNLL,
    "student_t": StudentT,
    "negative_binomial": NegativeBinomial,
    "poisson_nll": PoissonNLL,
    "ctc": CTC,
}
"""Losses by name. `get` also takes class names and aliases such as "mse" or "MSE"."""


def get(identifier: Any) -> Loss:
    """Loss for a name, a `Loss` (returned as it is), a class, or a dict from `serialize`.

    Raises
    ------
    TypeError
        If `identifier` is of another kind.
    ValueError
        If the name is unknown, with the nearest valid one, or a config does not fit.

    Examples
    --------
    >>> from elman.losses import get
    >>> get("mse")
    MeanSquaredError()
    >>> get({"class_name": "Huber", "config": {"delta": 2.0}})
    Huber(delta=2.0)
    """
    return registry.resolve("loss", identifier, LOSSES, Loss)


def serialize(loss: Loss) -> dict[str, Any]:
    """Dict that JSON can hold and `get` turns back into an equal loss.

    Examples
    --------
    >>> from elman.losses import Huber, serialize
    >>> serialize(Huber())
    {'class_name': 'Huber', 'config': {'delta': 1.0}}
    """
    registry.registered("loss", loss, LOSSES)
    return registry.serialize(loss)
