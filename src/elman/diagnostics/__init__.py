"""What gradients do on their way through a model, and where a number went wrong."""

from elman.diagnostics.flow import FlowReport, GradientWarning, LayerFlow
from elman.diagnostics.nonfinite import locate_nonfinite

__all__ = ["FlowReport", "GradientWarning", "LayerFlow", "locate_nonfinite"]
