"""Kernels' flags for code that tests call from Python."""

from typing import Any

import numba

from elman.jit.target import SERIAL


def called(function: Any) -> Any:
    """`function` with the flags of `elman.jit.helper`, and with what a call from Python needs."""
    return numba.njit(**SERIAL)(function)
