"""`GradientFlow`: how gradients flow through time, epoch by epoch."""

from __future__ import annotations

from typing import Any

from elman import checks
from elman.diagnostics import FlowReport, GradientWarning
from elman.training.callbacks import Callback, Logs
from elman.warn import warn


class GradientFlow(Callback):
    """Measure, at the ends of epochs, how gradients flow back through time on a batch; warn where they do not.

    A `elman.diagnostics.GradientWarning` names the layer and the step where gradients vanish or explode, once per layer
    and kind in each training.

    Parameters
    ----------
    x, y, sample_weight, lengths, mask
        One batch, as in `fit`; a few sequences are enough. A measurement costs one forward and one backward pass, and
        the eigenvalues of the recurrent kernels.
    every : int
        Measure every so many epochs.

    Attributes
    ----------
    reports : list of FlowReport
        Of the last training, as `Sequential.gradient_flow` gives them.

    Raises
    ------
    ValueError, TypeError
        At the end of the first epoch that is measured, if the data do not fit or the model has no recurrent layer.

    Notes
    -----
    Adds to the logs, hence to `History`, for each recurrent layer: ``flow/<layer>/first`` and ``flow/<layer>/last``,
    ‖dL/dh‖ of the step read first and of the last (0 where no gradient reaches the layer), and
    ``flow/<layer>/saturation``, the largest saturated fraction of any gate, where the cell tells its gates. Epochs that
    are not measured have no entry; `CSVLogger` keeps the columns of the first epoch alone.

    Examples
    --------
    >>> import numpy as np
    >>> import elman
    >>> model = elman.Sequential([elman.layers.GRU(4), elman.layers.Dense(1)], seed=0)
    >>> model.compile("sgd", "mse")
    >>> x, y = np.ones((8, 6, 2)), np.ones(8)
    >>> flow = elman.callbacks.GradientFlow(x[:2], y[:2])
    >>> history = model.fit(x, y, epochs=3, verbose=0, callbacks=[flow])
    >>> len(history.history["flow/gru/first"]), flow.reports[-1]["gru"].verdict
    (3, 'steady')
    """

    def __init__(
        self, x: Any, y: Any = None, sample_weight: Any = None, every: int = 1, *, lengths: Any = None, mask: Any = None
    ) -> None:
        self.x, self.y, self.sample_weight, self.lengths, self.mask = x, y, sample_weight, lengths, mask
        self.every = checks.integer("every", every)
        self.reports: list[FlowReport] = []
        self._warned: set[tuple[str, str]] = set()

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Forget the last training."""
        self.reports, self._warned = [], set()

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Measure, log and warn."""
        if (epoch + 1) % self.every:
            return
        data = self.x, self.y, self.sample_weight
        report = self.model.gradient_flow(*data, lengths=self.lengths, mask=self.mask)
        self.reports.append(report)
        for layer in report:
            reached = layer.first is not None
            logs[f"flow/{layer.name}/first"] = float(layer.norms[layer.first]) if reached else 0.0
            logs[f"flow/{layer.name}/last"] = float(layer.norms[layer.last]) if reached else 0.0
            if layer.saturation:
                logs[f"flow/{layer.name}/saturation"] = max(layer.saturation.values())
        for layer in report:
            kind = layer.name, layer.verdict
            if layer.step is not None and kind not in self._warned:
                self._warned.add(kind)
                warn(f"epoch {epoch + 1}: {layer.message}", GradientWarning)
