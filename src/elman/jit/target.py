"""What kernels are compiled for and how: flags, vector width, versions."""

from __future__ import annotations

from functools import cache
from typing import Any

import llvmlite
import numba
import numpy as np
from numba.core import config

DISABLED = bool(config.DISABLE_JIT)
"""True under ``NUMBA_DISABLE_JIT=1``: every kernel then runs as plain Python."""

# Elementwise code is strict: LLVM runs the last elements of a loop by scalar code, and under "contract" or "reassoc"
# that rounds otherwise than the vector code, so that bits would depend on an element's place, hence on the shards.
# False, said aloud: a flag left out is that of the first caller, and (1 - p) h once became h - p h in float64.
# Without _nrt every slice of an array counts a reference, which two threads do on one cache line: 3 to 6 % of a step of
# (32,24,1,16). No kernel allocates, so there is nothing to count.
STRICT: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": False, "_nrt": False}
# For code that compiled code alone calls: what Python or C would call it by takes a sixth of a first fit to compile.
INNER: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
# Loops over whole arrays may reorder sums. Never fastmath=True: it implies nnan and ninf, which delete tests for NaN.
FASTMATH = {"contract", "reassoc", "arcp", "nsz", "afn"}
SERIAL: dict[str, Any] = {**STRICT, "fastmath": FASTMATH}
# Only explicit prange runs in parallel; all automatic parallelisation and fusion is off.
PARALLEL = {
    "comprehension": False,
    "reduction": False,
    "inplace_binop": False,
    "setitem": False,
    "numpy": False,
    "stencil": False,
    "fusion": False,
}


def versions() -> dict[str, str]:
    """Versions of what compiles the kernels, by package."""
    return {"numba": numba.__version__, "llvmlite": llvmlite.__version__, "numpy": np.__version__}


_WIDE_NAMES = ("avx512", "x86-64-v4", "znver4", "znver5", "icelake", "sapphirerapids", "graniterapids", "cascadelake")
_AVX_NAMES = ("haswell", "broadwell", "skylake", "x86-64-v3", "znver", "alderlake", "raptorlake")


def cpu_name() -> str:
    """LLVM's name of the CPU that kernels are compiled for."""
    import llvmlite.binding as llvm

    return config.CPU_NAME or llvm.get_host_cpu_name()


@cache
def vector_bytes() -> int:
    """Bytes of the widest vector register of the CPU that kernels are compiled for: 64, 32 or 16."""
    import llvmlite.binding as llvm

    if config.CPU_NAME:
        name = config.CPU_NAME.lower() + (config.CPU_FEATURES or "")
        wide, avx = any(w in name for w in _WIDE_NAMES), any(w in name for w in _AVX_NAMES)
    else:
        features = llvm.get_host_cpu_features()
        wide, avx = features.get("avx512f", False), features.get("avx2", False)
    return 64 if wide else 32 if avx else 16
