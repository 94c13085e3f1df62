"""The same training step in elman, PyTorch and JAX: milliseconds, ratios and share of the FMA peak.

A step is forward, loss (mse), backpropagation through time and Adam, on one batch in float32: one recurrent layer with
a Dense(1) head on its last output. Each library runs in a process of its own, on the same two cores, one at a time;
the rounds of a row alternate between the libraries and the FMA peak. ::

    python asv_bench/peers.py --markdown
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
from typing import Any

from benchmarks import PEER_GATES, SIZES, Size, step_flops

LIBRARIES = ("elman", "torch", "jax")
TITLES = {"elman": "elman", "torch": "PyTorch", "jax": "JAX"}
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


def measure_row(workers: dict[str, Worker], cell: str, size: Size, options: argparse.Namespace) -> dict[str, Any]:
    """All rounds of one cell and size."""
    row: dict[str, Any] = {"cell": cell, "size": list(size), "form": {}, "ms": {}, "errors": {}}
    rounds: dict[str, list[float]] = {}
    for name, worker in workers.items():
        answer = worker.ask(do="prepare", cell=cell, size=size)
        if "error" in answer:
            row["errors"][name] = answer["error"]
        else:
            row["form"][name] = answer["form"]
    for _ in range(options.rounds):
        for name in row["form"]:
            answer = workers[name].ask(do="measure", seconds=options.seconds, steps=5)
            if "error" in answer:
                row["errors"][name] = answer["error"]
            else:
                rounds.setdefault(name, []).append(answer.get("ms") or answer["gflops"])
    row["rounds"] = rounds
    medians = {name: statistics.median(values) for name, values in rounds.items()}
    row["peak_gflops"] = medians.pop("peak", None)
    row["disturbed"] = min(rounds.get("peak", [1.0])) < 0.9 * max(rounds.get("peak", [1.0]))
    row["ms"] = medians
    return {**row, **_derived(row, step_flops(cell, size))}


def _derived(row: dict[str, Any], flops: int) -> dict[str, Any]:
    peers = {name: ms for name, ms in row["ms"].items() if name != "elman"}
    fastest = min(peers, key=peers.__getitem__) if peers else None
    ours, peak = row["ms"].get("elman"), row["peak_gflops"]
    share = {name: flops / (ms * 1e6) / peak for name, ms in row["ms"].items()} if peak else {}
    ratio = peers[fastest] / ours if fastest and ours else None
    return {"fastest_peer": fastest, "ratio": ratio, "share": share, "goal": _goal(row, ratio, fastest, share)}


def _goal(row: dict[str, Any], ratio: float | None, fastest: str | None, share: dict[str, float]) -> str:
    """Twice the faster peer, or, where that runs above a quarter of the peak, a share of the peak that grows with H."""
    if ratio is None or not share:
        return ""
    if share[fastest] <= 0.25:
        return f"2x: {'yes' if ratio >= 2 else 'NO'}"
    units = row["size"][3]
    wanted = 0.55 if units <= 64 else 0.60 if units <= 128 else 0.65
    return f"{wanted:.0%}: {'yes' if share['elman'] >= wanted else 'NO'}"


def table(rows: list[dict[str, Any]], libraries: list[str], markdown: bool) -> str:
    """The rows as aligned text or as Markdown."""
    head = ["cell", "B", "T", "I", "H", *(f"{TITLES[n]} ms" for n in libraries), "faster peer / elman"]
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
    widths = [max(2, *(len(line[j]) for line in [head, *body])) for j in range(len(head))]
    lines = [[text.rjust(w) for text, w in zip(line, widths, strict=True)] for line in [head, *body]]
    if not markdown:
        return "\n".join("  ".join(line) for line in lines)
    rule = ["-" * (w - 1) + ":" for w in widths]
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], rule, *lines[1:]])


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cells", nargs="+", default=list(PEER_GATES), choices=list(PEER_GATES))
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=SIZES, metavar="BxTxIxH", help="see SIZES")
    parser.add_argument("--rounds", type=int, default=5, help="rounds per row (default 5); medians are reported")
    parser.add_argument("--seconds", type=float, default=0.2, help="least time per library and round (default 0.2)")
    parser.add_argument("--libraries", nargs="+", default=LIBRARIES, choices=LIBRARIES)
    parser.add_argument("--python-peers", default=sys.executable, help="interpreter that has PyTorch and JAX")
    parser.add_argument("--json", type=Path, help="also write all figures to this file")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    return parser.parse_args(arguments)


def main() -> None:
    """Run the table."""
    options = parse()
    workers: dict[str, Worker] = {}
    for name in ("peak", *options.libraries):
        worker = Worker(name, options.python_peers if name in ("torch", "jax") else sys.executable)
        if worker.missing:
            print(f"{name}: skipped, {worker.missing}", file=sys.stderr)
            worker.close()
        else:
            workers[name] = worker
    rows = []
    for cell in options.cells:
        for label in options.sizes:
            row = measure_row(workers, cell, SIZES[label], options)
            rows.append(row)
            figures = ", ".join(f"{TITLES[n]} {ms:.3f} ms" for n, ms in row["ms"].items())
            note = "(the peak varied by more than 10 %: something else ran)" if row["disturbed"] else ""
            print(f"{cell} {label}: {figures}", note, *row["errors"].items(), file=sys.stderr, flush=True)
            if options.json:
                options.json.write_text(json.dumps(rows, indent=1))
    for worker in workers.values():
        worker.close()
    print(table(rows, [n for n in options.libraries if n in workers], options.markdown))


if __name__ == "__main__":
    main()
