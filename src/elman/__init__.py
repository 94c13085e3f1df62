"""Recurrent neural networks by exact backpropagation through time, on the CPU at the speed of the hardware."""

from elman import (
    activations,
    callbacks,
    cells,
    constraints,
    ctc,
    data,
    datasets,
    diagnostics,
    errors,
    forecasting,
    functional,
    initializers,
    layers,
    losses,
    metrics,
    optimizers,
    regularizers,
    schedules,
    streaming,
    utils,
)
from elman.forecasting import Forecaster
from elman.generation import generate
from elman.many import fit_many
from elman.model import Sequential, load_model
from elman.threads import get_num_threads, num_threads, set_num_threads

__version__ = "0.1.0"

__all__ = [
    "Forecaster",
    "Sequential",
    "__version__",
    "activations",
    "callbacks",
    "cells",
    "constraints",
    "ctc",
    "data",
    "datasets",
    "diagnostics",
    "errors",
    "fit_many",
    "forecasting",
    "functional",
    "generate",
    "get_num_threads",
    "initializers",
    "layers",
    "load_model",
    "losses",
    "metrics",
    "num_threads",
    "optimizers",
    "regularizers",
    "schedules",
    "set_num_threads",
    "streaming",
    "utils",
]
