"""Where a training step spends its time: share of the step and of the FMA peak, phase by phase.

Every kernel that Python calls is an `elman.jit.Entry`; while this script measures, a timer surrounds each of their
calls. The recurrence is one entry forward and one back, in which products and gates alternate step by step. Steps in
turn therefore run with a function that does nothing in place of the one that touches the buffer z second: the cell
forward, the product back. What the entry then takes is the first, with the loop over the steps; the difference is the
second. With the first left out, the second would take the misses of z that it does not have.

"Python" is what no kernel took, with 0.2 us per call of a kernel for the timer. The head is Dense(1), all its kernels
together; "other" are kernels this script does not know. ::

    python asv_bench/phases.py --markdown
    python asv_bench/phases.py --cells lstm --sizes 32x100x8x64 --threads 1 --json phases.json
"""

from __future__ import annotations

import argparse
import inspect
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import PEER_GATES, SIZES, Size, batch, make_model, product_flops, step_flops
from peak import fma_peak
from peers import aligned

import elman
from elman import jit
from elman.jit.calls import Calls
from elman.kernels.matmul import multiply

PHASES = {
    "pack": "packing",
    "pack_transposed": "packing",
    "forward": "products",
    "backward": "products back",
    "weight_gradients": "weight gradients",
    "collect": "weight gradients",
    "value_and_gradient": "loss",
    "step": "optimizer",
}
"""Phase of each entry by the name of its function."""

ORDER = (
    *("packing", "products", "gates", "products back", "gates back", "weight gradients"),
    *("head", "loss", "optimizer", "other", "Python"),
)
COUNTED = {"products": "forward", "products back": "recursion", "weight gradients": "weight_gradients"}
"""Phases with counted operations, and their names in `product_flops`."""

LEAST_STEPS = 7

PEAK = ("float32", 0.005, 10)
"""What `fma_peak` measures, seconds of one repeat and repeats: short ones, as most steps are, find a time slice."""


def _nothing_like(function: jit.Function) -> jit.Function:
    """A function of the same arguments that does nothing."""
    arguments = ", ".join(inspect.signature(function.python).parameters)
    return jit.Function(eval(f"lambda {arguments}: None"), function._signature)


LEFT_OUT = ("nothing", "gates", "products back")
"""What steps leave out in turn. Without gates all are left out, or the way back would take products for gates."""


class Clock:
    """Seconds of the kernels of one step, by phase."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.in_head = False
        self.left_out = "nothing"

    @contextmanager
    def running(self) -> Iterator[None]:
        """Meanwhile every call of an entry counts."""
        plain, together = jit.Entry.__call__, Calls.__call__

        def timed(entry: jit.Entry, threads: int, *args: Any) -> Any:
            begin = time.perf_counter()
            result = plain(entry, threads, *args)
            took = time.perf_counter() - begin
            self.seconds["head" if self.in_head else PHASES.get(entry.python.__name__, "other")] += took
            return result

        def one_by_one(calls: Calls) -> None:
            for entry, threads, args in calls._calls:
                timed(entry, threads, *args)

        jit.Entry.__call__, Calls.__call__ = timed, one_by_one
        try:
            yield
        finally:
            jit.Entry.__call__, Calls.__call__ = plain, together

    def attach(self, recurrent: Any, head: Any) -> None:
        """Tell the head's kernels from the recurrent layer's, which do without what `self.left_out` names."""
        for name in ("forward", "backward"):
            setattr(head, name, self._as_head(getattr(head, name)))
        inner = recurrent._recurrence
        plain, functions = inner.handles, inner._functions
        no_cell = {False: _nothing_like(functions.forward), True: _nothing_like(functions.backward)}
        no_product = _nothing_like(multiply)

        def handles(rows: int, *, backward: bool) -> tuple:
            cell, late, product = plain(rows, backward=backward)
            if self.left_out == "gates":
                cell = late = no_cell[backward].handle(inner.dtype)
            if self.left_out == "products back" and backward:
                product = no_product.handle(inner.dtype)
            return cell, late, product

        inner.handles = handles

    def _as_head(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def within(*args: Any, **more: Any) -> Any:
            self.in_head = True
            try:
                return method(*args, **more)
            finally:
                self.in_head = False

        return within

    def record(self, step: Callable[[], Any], seconds: float) -> list[dict[str, float]]:
        """Seconds by phase of at least `LEAST_STEPS` steps after a warm one."""
        step()
        found: list[dict[str, float]] = []
        end = time.perf_counter() + seconds
        while len(found) < LEAST_STEPS or time.perf_counter() < end:
            self.seconds.clear()
            begin = time.perf_counter()
            step()
            took = time.perf_counter() - begin
            found.append({"Python": took - self.seconds.total(), **self.seconds})
        return found


def _medians(found: list[dict[str, float]]) -> dict[str, float]:
    names = {name for one in found for name in one}
    return {name: statistics.median(one.get(name, 0.0) for one in found) for name in names}


def measure(cell: str, size: Size, threads: int, rounds: int, seconds: float) -> dict[str, Any]:
    """One row: microseconds by phase, and the peak of as many threads."""
    model, (x, y), clock = make_model(cell, size, "float32"), batch(size, "float32"), Clock()
    clock.attach(*model.layers)
    weights = model.get_weights()
    found: dict[str, list[dict[str, float]]] = {left_out: [] for left_out in LEFT_OUT}
    peaks = []
    with elman.num_threads(threads), clock.running():
        for _ in range(rounds):
            peaks.append(fma_peak(threads, *PEAK))
            for clock.left_out in LEFT_OUT:
                # Updates by what is not the gradient are nonsense, but everything in memory stays finite.
                model.set_weights(weights)
                model.layers[0]._recurrence._frames.clear()  # their calls hold the functions of the round before
                found[clock.left_out] += clock.record(lambda: model.train_on_batch(x, y), seconds)
            peaks.append(fma_peak(threads, *PEAK))
    us = _split({left_out: _medians(steps) for left_out, steps in found.items()})
    row: dict[str, Any] = {"cell": cell, "size": list(size), "threads": threads, "us": us, "peaks": peaks}
    row["peak_gflops"] = statistics.median(peaks)
    flops = product_flops(cell, size)._asdict()
    row["share"] = {"step": step_flops(cell, size) / us["step"] / row["peak_gflops"] / 1e3}
    for phase, name in COUNTED.items():
        row["share"][phase] = flops[name] / us[phase] / row["peak_gflops"] / 1e3
    return row


def _split(medians: dict[str, dict[str, float]]) -> dict[str, float]:
    """Microseconds by phase, with the two ways of the recurrence taken apart, and their sum, the step.

    The median of whole steps would be more on a machine that others use: a time slice of theirs hits one phase, but is
    in the whole of every step that is longer than a few milliseconds.
    """
    us = {name: 1e6 * took for name, took in medians["nothing"].items()}
    forward, backward = us["products"], us["products back"]
    us["products"] = min(forward, 1e6 * medians["gates"]["products"])
    us["gates back"] = min(backward, 1e6 * medians["products back"]["products back"])
    us["gates"], us["products back"] = forward - us["products"], backward - us["gates back"]
    us["step"] = sum(us.values())
    return us


def table(rows: list[dict[str, Any]], markdown: bool) -> str:
    """One line per row: per cent of the step, and for the products of the peak."""
    shown = [phase for phase in ORDER if phase != "other" or any("other" in row["us"] for row in rows)]
    head = ["cell", "BxTxIxH", "threads", "step us", "of peak"]
    for phase in shown:
        head += [phase, "of peak"] if phase in COUNTED else [phase]
    lines = [head]
    for row in rows:
        us, share = row["us"], row["share"]
        line = [row["cell"], "x".join(map(str, row["size"])), str(row["threads"]), f"{us['step']:.0f}"]
        line.append(f"{share['step']:.0%}")
        for phase in shown:
            line.append(f"{us.get(phase, 0.0) / us['step']:.1%}")
            if phase in COUNTED:
                line.append(f"{share[phase]:.0%}")
        lines.append(line)
    return aligned(lines, markdown)


def _warn(row: dict[str, Any]) -> None:
    if min(row["peaks"]) < 0.9 * max(row["peaks"]):
        where = row["cell"], "x".join(map(str, row["size"])), f"threads {row['threads']}"
        print(*where, "(the peak varied by more than 10 %: something else ran)", file=sys.stderr, flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cells", nargs="+", default=list(PEER_GATES), choices=list(PEER_GATES))
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=SIZES, metavar="BxTxIxH", help="see SIZES")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3, help="turns of steps with and without gates (default 3)")
    parser.add_argument("--seconds", type=float, default=0.3, help="least time per turn (default 0.3)")
    parser.add_argument("--json", type=Path, help="also write all figures to this file")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    options = parser.parse_args()
    most = jit.maximum_threads()
    if max(options.threads) > most:
        print(f"this process may use {most} threads; more are left out", file=sys.stderr)
    rows = []
    for cell in options.cells:
        for label in options.sizes:
            for threads in (n for n in options.threads if n <= most):
                rows.append(measure(cell, SIZES[label], threads, options.rounds, options.seconds))
                _warn(rows[-1])
                if options.json:
                    options.json.write_text(json.dumps(rows, indent=1))
    print("per cent of the step; behind the products the share of the FMA peak of as many threads")
    print(table(rows, options.markdown))


if __name__ == "__main__":
    main()
