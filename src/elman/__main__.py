"""Command line: ``python -m elman info`` and ``python -m elman warmup``."""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Sequence

import elman
from elman import jit, places
from elman.cells import CELLS
from elman.warmup import DTYPES, Report, warmup


def info() -> int:
    """Print what the library runs on; 0."""
    place = jit.cache_directory()
    if place is None:
        cache = "none: no directory can be written, every process compiles anew"
    else:
        files, size = places.contents(place)
        state = "writable" if places.writable(place) else "read-only"
        cache = f"{place}\n{'':12}{files} files, {size / 1e6:.1f} MB, {state}"
    rows = {
        "elman": elman.__version__,
        "python": platform.python_version(),
        **jit.versions(),
        "CPU": jit.cpu_name(),
        "SIMD": f"{8 * jit.vector_bytes()} bits",
        "threads": f"{elman.get_num_threads()} of {jit.maximum_threads()}, layer {jit.threading_layer()}",
        "cache": cache,
    }
    for name, value in rows.items():
        print(f"{name:12}{value}")
    return 0


def fill(cells: Sequence[str], dtype: str, workers: int) -> int:
    """Compile what a first fit needs and print each part; 1 if the result cannot be kept."""

    def tell(report: Report) -> None:
        print(
            f"{report.what:26}{report.compiled:4} compiled {report.loaded:4} loaded {report.seconds:7.1f} s", flush=True
        )

    if jit.DISABLED:
        print("elman: NUMBA_DISABLE_JIT is set; there is nothing to compile", file=sys.stderr)
        return 0
    begin = time.perf_counter()
    reports = warmup(cells, DTYPES if dtype == "both" else [dtype], tell, workers)
    total = sum(r.compiled for r in reports), sum(r.loaded for r in reports)
    print(f"{'all':26}{total[0]:4} compiled {total[1]:4} loaded {time.perf_counter() - begin:7.1f} s")
    place = jit.cache_directory()
    if place is None or not places.writable(place):
        print("elman: no cache directory can be written; set ELMAN_CACHE_DIR to one that can", file=sys.stderr)
        return 1
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code: 0 done, 1 no place for the cache, 2 wrong arguments."""
    parser = argparse.ArgumentParser("python -m elman", description=elman.__doc__)
    parser.add_argument("--version", action="version", version=elman.__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("info", help="print versions, CPU, threads and the place of compiled kernels")
    warm = commands.add_parser("warmup", help="compile what a first fit needs, for images and continuous integration")
    warm.add_argument("--dtype", choices=[*DTYPES, "both"], default="both")
    warm.add_argument("--cells", nargs="+", choices=sorted(CELLS), default=sorted(CELLS), metavar="CELL")
    warm.add_argument(
        "--workers", type=int, default=jit.maximum_threads(), help="processes, as many as cores by default"
    )
    given = parser.parse_args(arguments)
    if given.command == "info":
        return info()
    if given.workers < 1:
        parser.error(f"argument --workers: expected at least 1, got {given.workers}")
    return fill(given.cells, given.dtype, given.workers)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # "python -m elman info | head"
        sys.exit(0)
