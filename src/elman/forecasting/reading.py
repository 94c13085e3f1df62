"""How data came in, so that more of the same kind can be read and forecasts go out as they came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from elman import checks
from elman.errors import BadType, BadValue
from elman.forecasting import arrays, tables
from elman.forecasting.columns import Columns, FrameSpec
from elman.forecasting.panel import Panel
from elman.warn import warn


@dataclass(frozen=True)
class Reader:
    """The form of the data a forecaster was fitted to.

    Attributes
    ----------
    form : "frame", "vector", "matrix", "list" or "dict"
    multivariate : bool
    spec : FrameSpec or None
        Of a frame.
    """

    form: str
    multivariate: bool = False
    spec: FrameSpec | None = None

    @classmethod
    def first(
        cls, y: Any, columns: Columns, past: Any, future: Any, static: Any, *, multivariate: bool
    ) -> tuple[Reader, Panel]:
        """The reader for the data of `fit`, and these as a panel."""
        listed = all(names is None or isinstance(names, (list, tuple, str)) for names in (past, future, static))
        if not (tables.is_frame(y) or (tables.is_dated(y) and listed)):
            panel = arrays.from_arrays(y, multivariate, past, future, static)
            return cls(_form(y), multivariate), _with_channels(panel)
        if multivariate:
            raise BadValue("multivariate: a frame holds one series per id; give an array (T, channels)")
        named = (() if names is None else names for names in (past, future, static))
        panel, spec, ignored = tables.from_frame(y, columns, *named)
        if ignored:
            warn(f"y: the columns {', '.join(map(repr, ignored))} are not used; name them in past=, future= or static=")
        return cls("frame", False, spec), panel

    def read(self, y: Any, past: Any, future: Any, static: Any, like: Panel) -> Panel:
        """More data of this form, with the covariates, categories and grid of an earlier panel."""
        framed = tables.is_frame(y) or (tables.is_dated(y) and self.form == "frame")
        if framed != (self.form == "frame"):
            known = "a frame" if self.form == "frame" else "arrays"
            raise BadType(f"y: the forecaster was fitted to {known}, got {type(y).__name__}; give the same kind")
        if framed:
            return tables.from_frame_like(y, like, self.spec).panel
        panel = _with_channels(arrays.from_arrays(y, self.multivariate, past, future, static, like=like))
        if panel.channels and panel.ids != like.ids:
            raise BadValue(f"y: the forecaster knows {len(like)} channels, got {len(panel)}")
        for argument, kind in (("past", "past"), ("future", "known"), ("static", "static")):
            wanted, got = (getattr(p, f"{kind}_names") for p in (like, panel))
            if wanted != got:
                raise BadValue(
                    f"{argument}: the forecaster was fitted with {len(wanted)} such covariates, got {len(got)}"
                )
        return panel

    def validation(self, later: Any, past: Any, future: Any, static: Any, panel: Panel) -> Panel:
        """Later data as a panel, whose covariates are columns of its frame."""
        if self.form != "frame" and (past is not None or future is not None):
            raise BadValue("val: arrays with covariates cannot be validated on; give frames, or val='last'")
        return self.read(later, None, None, static, panel)

    def read_ahead(
        self, y: Any, past: Any, future: Any, static: Any, like: Panel, horizon: int
    ) -> tuple[Panel, np.ndarray]:
        """Arrays with covariates of T + H rows, known ahead: a panel, and the covariates behind it (S, H, K)."""
        if tables.is_frame(y):
            raise BadType(f"y: the forecaster was fitted to arrays, got {type(y).__name__}; give the same kind")
        panel = arrays.from_arrays(y, self.multivariate)
        shared = isinstance(y, np.ndarray) and y.ndim == 2
        parts = arrays.split_future(future, panel, horizon, shared)
        known: Any = {label: part[:-horizon] for label, part in parts.items()}
        ahead = {label: part[-horizon:] for label, part in parts.items()}
        if not isinstance(y, Mapping):
            known = list(known.values()) if len(known) > 1 else known[0]
        panel = self.read(y, past, known, static, like)
        return panel, arrays.future_array(ahead, panel, horizon)

    def future_rows(self, future: Any, panel: Panel, horizon: int) -> np.ndarray | None:
        """Known covariates of the horizon behind each series, (S, H, K); None where there are none."""
        if not panel.known_names:
            if future is not None:
                raise BadValue("future: the forecaster was fitted without covariates that are known ahead")
            return None
        if future is None:
            names = ", ".join(map(repr, panel.known_names))
            raise BadValue(
                f"future: the forecaster was fitted with {names}, known ahead; give the next {horizon} steps of them"
            )
        if self.form != "frame":
            return arrays.future_array(future, panel, horizon)
        from elman.forecasting.future import future_frame

        if not tables.is_frame(future):
            raise BadType(f"future: expected a frame with {', '.join(map(repr, panel.known_names))}, got "
                            f"{type(future).__name__}")  # fmt: skip
        return future_frame(future, self.spec, panel, horizon)

    # ---- out

    def write(self, panel: Panel, values: dict[str, np.ndarray], *, stacked: bool = False) -> Any:
        """Forecasts (S, H) behind the series of a panel, as the data came: a frame, or arrays, `stacked` (S, H, n)."""
        if self.form == "frame":
            ticks = panel.ends[:, None] + np.arange(next(iter(values.values())).shape[1])
            return self._frame(panel, panel.ids, ticks, self._named(values))
        parts = list(values.values())
        return self._arrays(panel, np.stack(parts, axis=-1) if stacked else parts[0])

    def _arrays(self, panel: Panel, values: np.ndarray) -> Any:
        """Values (S, ...) of all series; of the only one; or by id."""
        if self.form == "dict":
            return dict(zip(panel.ids, values, strict=True))
        return values[0] if self.form == "vector" and len(panel) == 1 else values

    def write_samples(self, panel: Panel, drawn: np.ndarray) -> Any:
        """Paths (S, n, H) behind the series of a panel."""
        if self.form != "frame":
            return self._arrays(panel, drawn)
        ticks = panel.ends[:, None, None] + np.broadcast_to(np.arange(drawn.shape[2]), drawn.shape)
        numbers = np.arange(drawn.shape[1])[:, None]
        if self.spec.target == "sample":
            raise BadValue("target: the paths get a column 'sample'; rename that of the data")
        return self._frame(panel, panel.ids, ticks, {"sample": numbers, self.spec.target: drawn})

    def write_windows(
        self, panel: Panel, series: np.ndarray, origins: np.ndarray, values: dict[str, np.ndarray]
    ) -> Any:
        """Windows (N, H): a frame with their cutoffs, the last time each forecast knew; or a dict of arrays."""
        labels, begins = [panel.ids[s] for s in series], panel.first[series] + origins
        actual = {"y" if self.form != "frame" else self.spec.target: values["y"]}
        rest = self._named({k: v for k, v in values.items() if k != "y"})
        if self.form != "frame":
            return {"series": np.array(labels), "cutoff": origins - 1, **actual, **rest}
        steps = begins[:, None] + np.arange(values["y"].shape[1])
        return self._frame(panel, labels, steps, {**actual, **rest}, begins[:, None] - 1)

    def _frame(self, panel: Panel, labels: list[Any], ticks: np.ndarray, columns: Any, cutoff: Any = None) -> Any:
        from elman.forecasting.output import to_frame

        return to_frame(self.spec, panel.grid, labels, ticks, columns, cutoff)

    def _named(self, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Columns of forecasts: their kind after the target's name."""
        target = "y" if self.spec is None else self.spec.target
        return {f"{target}_{key}": value for key, value in values.items()}

    # ---- saving

    def config(self) -> dict[str, Any]:
        """JSON values; `from_config` reads them."""
        spec = None if self.spec is None else self.spec.config()
        return {"form": self.form, "multivariate": self.multivariate, "spec": spec}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Reader:
        """The reader that `config` described."""
        spec = config["spec"]
        return cls(config["form"], config["multivariate"], None if spec is None else FrameSpec.from_config(spec))


def _form(y: Any) -> str:
    if isinstance(y, Mapping):
        return "dict"
    if isinstance(y, (list, tuple)) and any(arrays.nested(v) for v in y):
        return "list"
    return "vector" if checks.axes(y) == 1 else "matrix"


def _with_channels(panel: Panel) -> Panel:
    """A multivariate panel with the number of its channel as a static category."""
    if not panel.channels:
        return panel
    codes = np.arange(len(panel), dtype=np.float32)[:, None]
    return replace(
        panel,
        static=np.concatenate([panel.static, codes], axis=1),
        static_names=(*panel.static_names, "channel"),
        categories={**panel.categories, "channel": tuple(map(str, panel.ids))},
    )
