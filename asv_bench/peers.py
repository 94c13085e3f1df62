"""The same step in elman and other libraries: milliseconds, ratios and share of the FMA peak.

The network is one recurrent layer with a Dense(1) head on its last output, in float32; a step is that of one batch.

``--task train`` (the default)
    forward, loss (mse), backpropagation through time and Adam: elman, PyTorch, JAX.
``--task predict``
    inference: elman, ONNX Runtime, PyTorch, JAX, all with the same weights and checked against NumPy.

Each library runs in a process of its own, on the same two cores, one at a time, in the fastest of its forms (such as
one thread or two); the rounds of a row alternate between the libraries and the FMA peak. ::

    python asv_bench/peers.py --markdown
    python asv_bench/peers.py --task predict --markdown
    python asv_bench/peers.py --cells lstm --sizes 32x100x8x64 --rounds 9 --json result.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import PEER_GATES, SIZES, Size, step_flops

TITLES = {"elman": "elman", "onnxruntime": "ONNX Runtime", "torch": "PyTorch", "jax": "JAX"}
LIBRARIES = {"train": ("elman", "torch", "jax"), "predict": ("elman", "onnxruntime", "torch", "jax")}


class Goal(NamedTuple):
    """What a row should reach: so many times the fastest peer, or a share of the peak, which the gates limit."""

    ratio: int
    shares: tuple[float, float, float]

    def share(self, units: int) -> float:
        """The share of the peak for that many units: up to 64, up to 128, above."""
        return self.shares[(units > 64) + (units > 128)]


GOALS = {"train": Goal(3, (0.64, 0.70, 0.78)), "predict": Goal(2, (0.52, 0.62, 0.72))}

# An idle OpenMP or XLA pool spins for some milliseconds after its last step; the next library waits that long.
PAUSE = 0.03


class Worker:
    """The process of one library."""

    def __init__(self, library: str, python: str) -> None:
        self.library = library
        script = Path(__file__).with_name("peer_steps.py")
        self._process = subprocess.Popen(
            [python, str(script), library], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.missing = self._read().get("missing")

    def ask(self, **command: Any) -> dict[str, Any]:
        """Send one command and wait for its answer; no other worker runs meanwhile."""
        time.sleep(PAUSE)
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        return json.loads(line) if line else {"missing": "its process ended", "error": "its process ended"}

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.wait()


def start(libraries: list[str], python_peers: str) -> dict[str, Worker]:
    """A worker for each library that is there; the others are named on stderr."""
    workers = {}
    for name in libraries:
        worker = Worker(name, sys.executable if name in ("peak", "elman") else python_peers)
        if worker.missing:
            print(f"{name}: skipped, {worker.missing}", file=sys.stderr)
            worker.close()
        else:
            workers[name] = worker
    return workers


def measure_row(
    workers: dict[str, Worker], task: str, cell: str, size: Size, rounds: int = 5, seconds: float = 0.2
) -> dict[str, Any]:
    """All rounds of one cell and size."""
    row: dict[str, Any] = {"task": task, "cell": cell, "size": list(size), "form": {}, "ms": {}, "errors": {}}
    found: dict[str, list[float]] = {}
    for name, worker in workers.items():
        answer = worker.ask(do="prepare", task=task, cell=cell, size=size)
        if "error" in answer:
            row["errors"][name] = answer["error"]
        else:
            row["form"][name] = answer["form"]
    for _ in range(rounds):
        for name in row["form"]:
            answer = workers[name].ask(do="measure", seconds=seconds, steps=5)
            if "error" in answer:
                row["errors"][name] = answer["error"]
            else:
                found.setdefault(name, []).append(answer.get("ms") or answer["gflops"])
    row["rounds"] = found
    medians = {name: statistics.median(values) for name, values in found.items()}
    row["peak_gflops"] = medians.pop("peak", None)
    row["disturbed"] = min(found.get("peak", [1.0])) < 0.9 * max(found.get("peak", [1.0]))
    row["ms"] = medians
    return {**row, **_derived(row, step_flops(cell, size, task))}


def _derived(row: dict[str, Any], flops: int) -> dict[str, Any]:
    peers = {name: ms for name, ms in row["ms"].items() if name != "elman"}
    fastest = min(peers, key=peers.__getitem__) if peers else None
    ours, peak = row["ms"].get("elman"), row["peak_gflops"]
    share = {name: flops / (ms * 1e6) / peak for name, ms in row["ms"].items()} if peak else {}
    ratio = peers[fastest] / ours if fastest and ours else None
    goal, wanted = GOALS[row["task"]], GOALS[row["task"]].share(row["size"][3])
    by_ratio, by_share = (ratio or 0) >= goal.ratio, share.get("elman", 0) >= wanted
    text = (
        f"{goal.ratio}x: yes"
        if by_ratio
        else f"{wanted:.0%}: yes"
        if by_share
        else f"{goal.ratio}x or {wanted:.0%}: NO"
    )
    return {
        "fastest_peer": fastest,
        "ratio": ratio,
        "share": share,
        "reached": by_ratio or by_share,
        "goal": text if ours and (ratio or share) else "",
    }


def table(rows: list[dict[str, Any]], libraries: list[str], markdown: bool) -> str:
    """The rows as aligned text or as Markdown."""
    head = ["cell", "B", "T", "I", "H", *(f"{TITLES[n]} ms" for n in libraries), "fastest peer / elman"]
    head += [f"{TITLES[n]} of peak" for n in libraries] + ["peak GFLOP/s", "goal"]
    body = [
        [
            row["cell"],
            *map(str, row["size"]),
            *(_cell(row["ms"].get(n), "{:.3f}") for n in libraries),
            _cell(row["ratio"], "{:.2f}x"),
            *(_cell(row["share"].get(n), "{:.0%}") for n in libraries),
            _cell(row["peak_gflops"], "{:.0f}"),
            row["goal"],
        ]
        for row in rows
    ]
    return aligned([head, *body], markdown)


def aligned(lines: list[list[str]], markdown: bool) -> str:
    """Lines of texts as a table, the first being its head."""
    widths = [max(2, *(len(line[j]) for line in lines)) for j in range(len(lines[0]))]
    lines = [[text.rjust(w) for text, w in zip(line, widths, strict=True)] for line in lines]
    if not markdown:
        return "\n".join("  ".join(line) for line in lines)
    rule = ["-" * (w - 1) + ":" for w in widths]
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], rule, *lines[1:]])


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def at_the_peak(rows: list[dict[str, Any]]) -> list[float]:
    """The ratios, those of batches of 64 units and more as they would be at 100 % of the peak."""
    found = []
    for row in rows:
        batch, _, _, units = row["size"]
        free = batch > 1 and units >= 64
        if row["ratio"]:
            found.append(row["ratio"] / (row["share"]["elman"] if free else 1))
    return found


def summary(rows: list[dict[str, Any]], task: str) -> str:
    """The mean of the ratios, and how many rows reach the goal of the task."""
    ratios = [row["ratio"] for row in rows if row["ratio"]]
    compared = [row for row in rows if row["goal"]]
    goal = GOALS[task]
    small, middle, large = (f"{share:.0%}" for share in goal.shares)
    mean, most = (f"{statistics.geometric_mean(r):.2f}" if r else "-" for r in (ratios, at_the_peak(rows)))
    return (
        f"Geometric mean of fastest peer / elman: {mean}, over {len(ratios)} rows; {most} if the products of batches "
        "of 64 units and more ran at the peak, and all else in these rows took no time.\n"
        f"Goal of {task}: {goal.ratio} times the fastest peer, or {small} (H <= 64), {middle} (H <= 128), {large} "
        f"(H > 128) of the peak; reached by {sum(row['reached'] for row in compared)} of {len(compared)} rows."
    )


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--task", default="train", choices=list(LIBRARIES))
    parser.add_argument("--cells", nargs="+", default=list(PEER_GATES), choices=list(PEER_GATES))
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=SIZES, metavar="BxTxIxH", help="see SIZES")
    parser.add_argument("--rounds", type=int, default=5, help="rounds per row (default 5); medians are reported")
    parser.add_argument("--seconds", type=float, default=0.2, help="least time per library and round (default 0.2)")
    parser.add_argument("--libraries", nargs="+", choices=list(TITLES), help="by default all that know the task")
    parser.add_argument("--python-peers", default=sys.executable, help="interpreter that has the other libraries")
    parser.add_argument("--json", type=Path, help="also write all figures to this file")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    options = parser.parse_args(arguments)
    options.libraries = options.libraries or list(LIBRARIES[options.task])
    unknown = set(options.libraries) - set(LIBRARIES[options.task])
    if unknown:
        parser.error(f"--libraries: {', '.join(unknown)} has no task {options.task}")
    return options


def main() -> None:
    """Run the table."""
    options = parse()
    workers = start(["peak", *options.libraries], options.python_peers)
    rows = []
    for cell in options.cells:
        for label in options.sizes:
            row = measure_row(workers, options.task, cell, SIZES[label], options.rounds, options.seconds)
            rows.append(row)
            figures = ", ".join(f"{TITLES[n]} {ms:.3f} ms ({row['form'][n]})" for n, ms in row["ms"].items())
            note = "(the peak varied by more than 10 %: something else ran)" if row["disturbed"] else ""
            print(f"{cell} {label}: {figures}", note, *row["errors"].items(), file=sys.stderr, flush=True)
            if options.json:
                options.json.write_text(json.dumps(rows, indent=1))
    for worker in workers.values():
        worker.close()
    print(table(rows, [n for n in options.libraries if n in workers], options.markdown))
    print(f"\n{summary(rows, options.task)}")


if __name__ == "__main__":
    main()
