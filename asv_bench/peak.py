"""The FMA peak of this machine: independent chains of fused multiply-adds on vector registers, no memory.

Run it alone to see the figure: ``python asv_bench/peak.py``.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from elman import jit
from elman.kernels.simd import _Emitter, lanes

# An FMA takes 4 cycles and two start per cycle on the CPUs of interest: at least 8 chains; 12 leave registers for the
# two operands even on AVX2, which has 16.
CHAINS = 12


@jit.intrinsic
def _chains(typingctx, array, count):
    signature = jit.types.void(array, jit.types.int64)

    def codegen(context, builder, sig, values):
        dtype = np.dtype(str(array.dtype))
        emit = _Emitter(builder, context.get_value_type(array.dtype), lanes(dtype))
        data = context.make_array(array)(context, builder, values[0]).data
        length = values[1].type

        def element(i: int) -> object:
            return emit.element(data, length(i))

        factor, term = emit.broadcast(element(0)), emit.broadcast(element(1))
        starts = [emit.broadcast(element(2 + i)) for i in range(CHAINS)]
        ends = emit.loop(values[1], starts, lambda _, sums: [emit.fma(s, factor, term) for s in sums])
        for i, end in enumerate(ends):
            emit.store(end, element(i * lanes(dtype)))
        return context.get_dummy_value()

    return signature, codegen


@jit.Entry
def _run(array, count):
    _chains(array, count)


def _seconds(dtype: str, count: int) -> float:
    # x <- x / 2 + 1 / 2 stays at normal numbers for ever.
    array = np.full(CHAINS * lanes(np.dtype(dtype)), 0.5, dtype)
    start = time.perf_counter()
    _run(1, array, count)
    return time.perf_counter() - start


def fma_peak(threads: int, dtype: str = "float32", seconds: float = 0.05, repeats: int = 3) -> float:
    """Measure the fused multiply-add throughput in registers.

    Parameters
    ----------
    threads : int
        Threads that run at the same time; the kernel releases the GIL.
    dtype : str
        "float32" or "float64".
    seconds : float
        Length of one repeat.
    repeats : int
        The best repeat counts.

    Returns
    -------
    float
        GFLOP/s of all threads together, two operations per fused multiply-add.
    """
    _seconds(dtype, 1)
    trial = 1_000_000
    count = max(trial, int(trial * seconds / min(_seconds(dtype, trial) for _ in range(3))))
    flops = 2.0 * CHAINS * lanes(np.dtype(dtype)) * count
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(repeats):
            best = max(best, sum(flops / s for s in pool.map(_seconds, [dtype] * threads, [count] * threads)))
    return best / 1e9


if __name__ == "__main__":
    for kind in ("float32", "float64"):
        for n in (1, 2):
            print(f"{kind}, threads {n}: {fma_peak(n, kind):.0f} GFLOP/s")
