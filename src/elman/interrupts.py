"""Interrupts that wait for the end of a batch, or of a compilation."""

from __future__ import annotations

import inspect
import signal
import threading
from types import FrameType
from typing import Any


class Interrupts:
    """Holds Ctrl-C, and SIGTERM where it has a handler in Python, back while `held` is set; a context.

    Handlers run between any two calls of Python, in the middle of an update too: weights and the state of the optimizer
    would no longer belong together. In the middle of a compilation they leave Numba broken: later ones fail, and the
    process may crash. A second signal does not wait, unless this is `firm`.

    Nothing happens outside the main thread, which alone runs handlers, nor to signals without a handler in Python.
    """

    def __init__(self, *, held: bool = False, firm: bool = False) -> None:
        self.held, self.firm = held, firm
        self._waiting: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                handler = signal.getsignal(number)
                if callable(handler):
                    self._before[number] = handler
                    signal.signal(number, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._handle:  # else a callback set another one
                signal.signal(number, handler)
        self.release()

    def release(self) -> None:
        """Hold nothing back any more, and pass on what was."""
        self.held = False
        if self._waiting is not None:
            number, self._waiting = self._waiting, None
            self._before[number](number, inspect.currentframe())

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.held and (self.firm or self._waiting is None):
            self._waiting = number
        else:
            self._waiting = None
            self._before[number](number, frame)
