"""Warnings that name the line of the caller, however deep inside of the library they arise."""

from __future__ import annotations

import sys
import warnings


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn of something in the line outside of this package that led to it.

    A level counted by hand is right for one of the ways to a warning; of another one Python would show, and count as
    one place, a line of the library.
    """
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == __package__:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
