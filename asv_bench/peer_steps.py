"""One library's side of ``peers.py``: builds its training step and times it on command.

The process is started as ``python peer_steps.py LIBRARY``; commands and answers are JSON lines on stdin and stdout.
A library lives in a process of its own because two OpenMP runtimes in one process slow each other.
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

from benchmarks import PEER_GATES, Size, batch, make_model

THREADS = 2
Step = Callable[[], float]


# ---- elman -----------------------------------------------------------------------------------------------------


def elman_steps(cell: str, size: Size) -> dict[str, Step]:
    """`Sequential.train_on_batch` with the arrays as a user holds them."""
    model = make_model(cell, size, "float32")
    x, y = batch(size, "float32")
    return {"train_on_batch": lambda: float(model.train_on_batch(x, y))}


# ---- PyTorch ---------------------------------------------------------------------------------------------------


def torch_steps(cell: str, size: Size) -> dict[str, Step]:
    """`nn.RNN`, `nn.GRU` or `nn.LSTM` (batch first) and `nn.Linear`, with the two fast forms of Adam.

    One thread is a form too: it beats two on the smallest sizes.
    """
    import torch

    x, y = (torch.from_numpy(a) for a in batch(size, "float32"))

    def make(threads: int, **adam: bool) -> Step:
        torch.manual_seed(0)
        kind = {"simple": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[cell]
        net, head = kind(size.I, size.H, batch_first=True), torch.nn.Linear(size.H, 1)
        optimizer = torch.optim.Adam([*net.parameters(), *head.parameters()], **adam)

        def step() -> float:
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)
            optimizer.zero_grad(set_to_none=True)
            loss = torch.nn.functional.mse_loss(head(net(x)[0][:, -1]), y)
            loss.backward()
            optimizer.step()
            return loss.item()

        return step

    return {
        f"Adam({kind}), threads {threads}": make(threads, **{kind: True})
        for kind in ("foreach", "fused")
        for threads in (1, THREADS)
    }


# ---- JAX -------------------------------------------------------------------------------------------------------


def _jax_cell(cell: str) -> Callable[..., Any]:
    """(state, x_t W + b, R, b_r) -> state; the output is the first state."""
    import jax
    import jax.numpy as jnp

    def simple(state, z, r, _):
        return (jnp.tanh(z + state[0] @ r),)

    def gru(state, z, r, br):
        zz, zr, zh = jnp.split(z, 3, axis=-1)
        hz, hr, hh = jnp.split(state[0] @ r + br, 3, axis=-1)
        update = jax.nn.sigmoid(zz + hz)
        candidate = jnp.tanh(zh + jax.nn.sigmoid(zr + hr) * hh)
        return (update * state[0] + (1 - update) * candidate,)

    def lstm(state, z, r, _):
        i, f, c, o = jnp.split(z + state[0] @ r, 4, axis=-1)
        new = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(c)
        return (jax.nn.sigmoid(o) * jnp.tanh(new), new)

    return {"simple": simple, "gru": gru, "lstm": lstm}[cell]


def jax_steps(cell: str, size: Size) -> dict[str, Step]:
    """The whole step jitted: one input product for all steps, `lax.scan`, Adam by hand, donated buffers."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    columns, cell_step = PEER_GATES[cell] * size.H, _jax_cell(cell)
    x, y = (jax.device_put(a) for a in batch(size, "float32"))

    def loss(p, x, y, unroll):
        z = jnp.swapaxes(x, 0, 1) @ p["w"] + p["b"]
        start = tuple(jnp.zeros((size.B, size.H), jnp.float32) for _ in range(2 if cell == "lstm" else 1))
        last, _ = jax.lax.scan(lambda s, zt: (cell_step(s, zt, p["r"], p["br"]), None), start, z, unroll=unroll)
        return jnp.mean((last[0] @ p["v"] + p["c"] - y) ** 2)

    def update(unroll, carry, x, y):
        p, m, v, t = carry
        value, g = jax.value_and_grad(loss)(p, x, y, unroll)
        t = t + 1
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
        alpha = 0.001 * jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        p = jax.tree.map(lambda p, m, v: p - alpha * m / (jnp.sqrt(v) + 1e-7), p, m, v)
        return (p, m, v, t), value

    def make(unroll: int) -> Step:
        rng = np.random.default_rng(1)
        shapes = {"w": (size.I, columns), "r": (size.H, columns), "b": (columns,), "v": (size.H, 1), "c": (1,)}
        shapes["br"] = (columns,) if cell == "gru" else (0,)
        bound = size.H**-0.5
        p = {k: jnp.asarray(rng.uniform(-bound, bound, s).astype("float32")) for k, s in shapes.items()}
        zeros = [jax.tree.map(jnp.zeros_like, p) for _ in range(2)]
        jitted = jax.jit(lambda carry, x, y: update(unroll, carry, x, y), donate_argnums=0)
        state = [(p, *zeros, jnp.float32(0))]

        def step() -> float:
            state[0], value = jitted(state[0], x, y)
            jax.block_until_ready(state[0])
            return float(value)

        return step

    return {"scan(unroll=1)": make(1), "scan(unroll=4)": make(4)}


# ---- worker ----------------------------------------------------------------------------------------------------

LIBRARIES: dict[str, Callable[[str, Size], dict[str, Step]]] = {
    "elman": elman_steps,
    "torch": torch_steps,
    "jax": jax_steps,
}


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


def prepare(library: str, cell: str, size: Size) -> tuple[str, Step]:
    """The fastest form of the step, by three short trials in turn; all forms are checked to learn."""
    forms = LIBRARIES[library](cell, size)
    for name, step in forms.items():
        losses = [step() for _ in range(20)]
        if not min(losses[1:]) < losses[0]:
            raise RuntimeError(f"{library} {name} does not learn: losses {losses}")
    if len(forms) == 1:
        return next(iter(forms.items()))
    # The least of three: another process that wakes up during one trial must not decide for the whole row.
    trials = [{name: statistics.median(measure(step, 0.1, 3)) for name, step in forms.items()} for _ in range(3)]
    best = min(forms, key=lambda name: min(trial[name] for trial in trials))
    return best, forms[best]


def _missing(library: str) -> str | None:
    """Why `library` cannot be measured by this interpreter; None if it can."""
    needed = {"peak": "elman"}.get(library, library)
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
        form, state["step"] = prepare(library, command["cell"], Size(*command["size"]))
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
