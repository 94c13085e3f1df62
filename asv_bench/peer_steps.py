"""One library's side of ``peers.py``: builds its step of a task and times it on command.

The process is started as ``python peer_steps.py LIBRARY``; commands and answers are JSON lines on stdin and stdout.
A library lives in a process of its own because two OpenMP runtimes in one process slow each other. The steps themselves
are in ``peer_train.py`` and ``peer_predict.py``.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import peer_predict
import peer_train
from benchmarks import Size
from peer_train import THREADS

Step = Callable[[], Any]

TASKS = {"train": peer_train, "predict": peer_predict}


def measure(step: Step, seconds: float, steps: int) -> list[float]:
    """Milliseconds of single steps: at least `steps` of them, for at least `seconds` in all, after a warm one."""
    step()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < steps or time.perf_counter() < end:
        start = time.perf_counter()
        step()
        times.append(1e3 * (time.perf_counter() - start))
    return times


def prepare(library: str, task: str, cell: str, size: Size) -> tuple[str, Step]:
    """The fastest form of the step, by three short trials in turn; all forms are checked."""
    forms = TASKS[task].STEPS[library](cell, size)
    for name, step in forms.items():
        wrong = TASKS[task].check(step, cell, size)
        if wrong:
            raise RuntimeError(f"{library} {name} {wrong}")
    if len(forms) == 1:
        return next(iter(forms.items()))
    # The least of three: another process that wakes up during one trial must not decide for the whole row.
    trials = [{name: statistics.median(measure(step, 0.1, 3)) for name, step in forms.items()} for _ in range(3)]
    best = min(forms, key=lambda name: min(trial[name] for trial in trials))
    return best, forms[best]


def _missing(library: str) -> str | None:
    """Why `library` cannot be measured by this interpreter; None if it can."""
    for needed in {"peak": ("elman",), "onnxruntime": ("onnxruntime", "onnx")}.get(library, (library,)):
        if importlib.util.find_spec(needed) is None:
            return f"{needed} is not installed"
    if library == "elman":
        import elman

        if not hasattr(elman, "Sequential"):
            return "this elman has no Sequential"
    return None


def _answer(library: str, state: dict[str, Any], command: dict[str, Any]) -> dict[str, Any]:
    if library == "peak":
        from peak import fma_peak  # needs elman, which the other workers may lack

        # The preparation of a row is a warm-up: the very first measurement of a process compiles and reads low.
        return {"gflops": fma_peak(THREADS), "form": "FMA chains"}
    if command["do"] == "prepare":
        # The last row's step goes first: it holds memory, and ONNX Runtime's sessions hold threads.
        state.clear()
        form, state["step"] = prepare(library, command["task"], command["cell"], Size(*command["size"]))
        return {"form": form}
    return {"ms": statistics.median(measure(state["step"], command["seconds"], command["steps"]))}


def serve(library: str) -> None:
    """Answer commands until stdin ends."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints goes to stderr
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    missing = _missing(library)
    print(json.dumps({"missing": missing}), file=out)
    if missing:
        return
    state: dict[str, Any] = {}
    for line in sys.stdin:
        try:
            answer = _answer(library, state, json.loads(line))
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=out)


if __name__ == "__main__":
    serve(sys.argv[1])
