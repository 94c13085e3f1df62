"""Progress of fit: a bar that redraws on a terminal, one line per epoch elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from typing import Any

from elman import checks
from elman.errors import BadValue
from elman.training.callbacks import Logs

_REDRAW_SECONDS = 0.1


def check_verbose(verbose: Any) -> int:
    """0, 1 or 2; "auto" is 1. ValueError otherwise."""
    if checks.named(verbose, "auto"):
        return 1
    if isinstance(verbose, (int, float)) and verbose in (0, 1, 2):
        return int(verbose)
    raise BadValue(f"verbose: expected 'auto', 0 (silent), 1 (bar) or 2 (a line per epoch), got {verbose!r}")


class Progress:
    """One epoch's display. `verbose` 1 draws a bar if the output is a terminal, else, like 2, prints a line."""

    def __init__(self, verbose: int, steps: int | None, title: str) -> None:
        self._begin, self._next_draw = time.perf_counter(), 0.0
        self._steps, self._done, self._title, self._verbose = steps, 0, title, verbose
        self._bar = None
        if verbose == 1 and sys.stdout.isatty():
            from tqdm import tqdm  # 10 ms, paid only where a bar is drawn

            # Some pseudo-terminals say they have no columns and rows, and tqdm then draws nothing; shutil says 80 x 24.
            columns, rows = shutil.get_terminal_size()
            self._bar = tqdm(total=steps, desc=title, file=sys.stdout, unit="step", ncols=columns, nrows=rows)

    def step(self, done: int, loss: float) -> None:
        """`done` steps are over; redraws at most ten times a second."""
        self._done = done
        if self._bar is None:
            return
        now = time.perf_counter()
        if now >= self._next_draw:
            self._next_draw = now + _REDRAW_SECONDS
            self._bar.set_postfix_str(f"loss: {loss:.4g}", refresh=False)
            self._bar.update(done - self._bar.n)

    def end(self, logs: Logs) -> None:
        """Show the epoch's results."""
        values = " - ".join(f"{name}: {value:.4g}" for name, value in logs.items())
        if self._bar is not None:
            self._bar.set_postfix_str(values, refresh=False)
            self._bar.update(self._done - self._bar.n)
            self._bar.close()
        elif self._verbose:
            seconds = time.perf_counter() - self._begin
            each = 1e3 * seconds / max(1, self._done)
            print(f"{self._title} - {self._done} steps - {seconds:.2f} s - {each:.3g} ms/step - {values}", flush=True)
