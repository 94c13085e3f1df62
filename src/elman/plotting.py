"""Figures of what the library measures; matplotlib is imported when one is drawn."""

from __future__ import annotations

from typing import Any

from elman.errors import MissingPackage


def pyplot() -> Any:
    """``matplotlib.pyplot``; ImportError that names the extra to install where it is missing."""
    try:
        import matplotlib.pyplot as module
    except ImportError as error:
        raise MissingPackage("plot: needs matplotlib, which is not installed; pip install 'elman[plot]'") from error
    return module


def plot_flow(report: Any) -> Any:
    """One axes per layer of a `elman.diagnostics.FlowReport`, norms over time on a log scale; the figure."""
    count = len(report.layers)
    figure, axes = pyplot().subplots(count, 1, sharex=True, squeeze=False, figsize=(7, 1 + 2 * count))
    for axis, layer in zip(axes[:, 0], report.layers, strict=True):
        # A log scale has no place for 0 nor for infinity: gaps.
        drawn = [value if 0 < value < float("inf") else float("nan") for value in layer.norms.tolist()]
        axis.plot(range(len(drawn)), drawn)
        axis.set_yscale("log")
        axis.set_ylabel("‖dL/dh‖")
        if layer.step is not None:
            axis.axvline(layer.step, color="black", linestyle=":")
        where = "" if layer.step is None else f" at step {layer.step}"
        axis.set_title(f"{layer.name}: {layer.verdict}{where}")
    axes[-1, 0].set_xlabel("step")
    figure.tight_layout()
    return figure
