"""One time step per call, with the states carried: microseconds in elman, ONNX Runtime, PyTorch and JAX.

LSTM(64) and GRU(16), 8 inputs, each with Dense(1), batch 1, float32, one thread. All have the same weights, and their
outputs are checked against each other before anything is timed. Each library gets x as its own kind of array and gives
its own kind of output; where there are several ways to write a step, the fastest counts. Each runs in a process of its
own, and the rounds alternate. ::

    python asv_bench/stream_peers.py [--rounds 9] [--markdown] [--python-peers PYTHON]
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks import PEER_GATES, STREAMS
from peer_train import jax_cell

TITLES = {"elman": "elman", "onnxruntime": "ONNX Runtime", "torch": "PyTorch", "jax": "JAX"}
NEEDS = {"onnxruntime": ("onnxruntime", "onnx")}
STEPS, RUN = 64, 16  # different x, taken in turn; as many in a run, so short that another process seldom cuts in

Step = Callable[[Any], Any]
# Of every form: a function that begins a sequence, and what becomes of x (I,).
Forms = dict[str, tuple[Callable[[], Step], Callable[[Any], Any]]]


def weights(cell: str, units: int, features: int) -> list[Any]:
    """Kernel, recurrent kernel, bias (2, G), dense kernel, dense bias, in Keras's order of gates."""
    import numpy as np

    rng, columns = np.random.default_rng(0), PEER_GATES[cell] * units
    shapes = (features, columns), (units, columns), (2, columns), (units, 1), (1,)
    found = [rng.uniform(-1, 1, shape).astype(np.float32) / units**0.5 for shape in shapes]
    if cell == "lstm":
        found[2][1] = 0  # elman has one bias
    return found


def gates(matrix: Any, order: Iterable[int], count: int) -> Any:
    """The blocks of columns of `matrix` in another order."""
    import numpy as np

    blocks = np.split(matrix, count, axis=-1)
    return np.concatenate([blocks[k] for k in order], axis=-1)


def elman_forms(cell: str, units: int, features: int) -> Forms:
    """`Sequential.stream`."""
    import elman

    kernel, recurrent, bias, *dense = weights(cell, units, features)
    layer = {"lstm": elman.layers.LSTM, "gru": elman.layers.GRU}[cell](units)
    model = elman.Sequential([elman.layers.Input((None, features)), layer, elman.layers.Dense(1)])
    model.set_weights([kernel, recurrent, bias if cell == "gru" else bias[0], *dense])
    return {"stream": (model.stream, lambda x: x)}


def onnxruntime_forms(cell: str, units: int, features: int) -> Forms:
    """An ONNX graph of one step with the states as inputs and outputs: `run`, and `run_with_iobinding`."""
    import numpy as np
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    kernel, recurrent, bias, dense, offset = weights(cell, units, features)
    order = (0, 3, 1, 2) if cell == "lstm" else (0, 1, 2)  # ONNX: i, o, f, c and z, r, h
    w, r, b = (gates(m, order, PEER_GATES[cell]) for m in (kernel, recurrent, bias))
    constants = {"W": w.T[None], "R": r.T[None], "B": b.reshape(1, -1), "K": dense, "O": offset}
    states = ["h", "c"] if cell == "lstm" else ["h"]
    after = [f"{s}_after" for s in states]
    attributes = {} if cell == "lstm" else {"linear_before_reset": 1}
    nodes = [
        helper.make_node(
            cell.upper(), ["x", "W", "R", "B", "", *states], ["", *after], hidden_size=units, **attributes
        ),
        helper.make_node("Squeeze", ["h_after", "axis"], ["last"]),
        helper.make_node("Gemm", ["last", "K", "O"], ["y"]),
    ]
    tensors = [numpy_helper.from_array(np.ascontiguousarray(v), k) for k, v in constants.items()]
    tensors.append(numpy_helper.from_array(np.array([0]), "axis"))
    shape = [1, 1, units]

    def declare(name: str, shape: list[int]) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    inputs = [declare("x", [1, 1, features]), *(declare(s, shape) for s in states)]
    outputs = [declare("y", [1, 1]), *(declare(s, shape) for s in after)]
    graph = helper.make_graph(nodes, "step", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def plain() -> Step:
        feed = {s: np.zeros(shape, np.float32) for s in states}
        names = ["y", *after]

        def step(x: Any) -> Any:
            feed["x"] = x
            y, *new = session.run(names, feed)
            feed.update(zip(states, new, strict=True))
            return y

        return step

    def bound() -> Step:
        # Two sets of states in fixed memory, written in turn; x is copied into its place.
        x_in, y = np.zeros((1, 1, features), np.float32), np.zeros((1, 1), np.float32)
        places = [[np.zeros(shape, np.float32) for _ in states] for _ in range(2)]
        value = onnxruntime.OrtValue.ortvalue_from_numpy
        held, bindings = [], []
        for k in range(2):
            binding = session.io_binding()
            pairs = [("x", x_in), *zip(states, places[k], strict=True)]
            held += [(name, value(array)) for name, array in pairs]
            for name, ort in held[-len(pairs) :]:
                binding.bind_ortvalue_input(name, ort)
            for name, array in [("y", y), *zip(after, places[1 - k], strict=True)]:
                binding.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
            bindings.append(binding)
        turns, run = itertools.cycle(bindings), session.run_with_iobinding

        def step(x: Any, held: Any = held) -> Any:
            x_in[...] = x
            run(next(turns))
            return y

        return step

    return {"run": (plain, lambda x: x[None, None]), "run_with_iobinding": (bound, lambda x: x)}


def torch_forms(cell: str, units: int, features: int) -> Forms:
    """`nn.LSTM` or `nn.GRU` on one step, and `nn.LSTMCell` or `nn.GRUCell`; without gradients."""
    import torch

    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    kernel, recurrent, bias, dense, offset = weights(cell, units, features)
    order = (0, 1, 2, 3) if cell == "lstm" else (1, 0, 2)  # PyTorch: r, z, n
    w, r, b = (torch.from_numpy(gates(m, order, PEER_GATES[cell])) for m in (kernel, recurrent, bias))
    head = torch.nn.Linear(units, 1)
    values = [w.T, r.T, b[0], b[1]]
    head.load_state_dict({"weight": torch.from_numpy(dense.T), "bias": torch.from_numpy(offset)})

    def make(kind: Any, shape: tuple[int, ...]) -> Callable[[], Step]:
        net = kind(features, units)
        net.load_state_dict(dict(zip(net.state_dict(), values, strict=True)))

        def begin() -> Step:
            zeros = torch.zeros(shape)
            state = [(zeros, zeros) if cell == "lstm" else zeros]

            def sequence(x: Any) -> Any:
                y, state[0] = net(x, state[0])
                return head(y[-1])

            def single(x: Any) -> Any:
                state[0] = net(x, state[0])
                return head(state[0][0] if cell == "lstm" else state[0])

            return sequence if len(shape) == 3 else single

        return begin

    upper, nn = cell.upper(), torch.nn
    return {
        f"nn.{upper}": (make(getattr(nn, upper), (1, 1, units)), lambda x: torch.from_numpy(x)[None, None]),
        f"nn.{upper}Cell": (make(getattr(nn, f"{upper}Cell"), (1, units)), lambda x: torch.from_numpy(x)[None]),
    }


def jax_forms(cell: str, units: int, features: int) -> Forms:
    """A jitted step; each output is waited for."""
    import jax
    import jax.numpy as jnp

    kernel, recurrent, bias, dense, offset = map(jnp.asarray, weights(cell, units, features))
    cell_step = jax_cell(cell)

    def one(state: Any, x: Any) -> Any:
        state = cell_step(state, x @ kernel + bias[0], recurrent, bias[1])
        return state, state[0] @ dense + offset

    def make(run: Any) -> Callable[[], Step]:
        def begin() -> Step:
            state = [tuple(jnp.zeros((1, units)) for _ in range(2 if cell == "lstm" else 1))]

            def step(x: Any) -> Any:
                state[0], y = run(state[0], x)
                return y.block_until_ready()

            return step

        return begin

    forms = {"jit": jax.jit(one), "jit, donated": jax.jit(one, donate_argnums=0)}
    return {name: (make(run), lambda x: jax.device_put(x[None])) for name, run in forms.items()}


# ---- worker ----------------------------------------------------------------------------------------------------

FORMS = {"elman": elman_forms, "onnxruntime": onnxruntime_forms, "torch": torch_forms, "jax": jax_forms}


def timed(step: Step, xs: list[Any], seconds: float) -> float:
    """Microseconds per call: the median over runs of 16 calls, for at least `seconds`."""
    runs = [xs[k : k + RUN] for k in range(0, len(xs), RUN)]
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        for run in runs:
            begin = time.perf_counter()
            for x in run:
                step(x)
            times.append(time.perf_counter() - begin)
    return 1e6 * statistics.median(times) / RUN


def prepare(library: str, label: str) -> tuple[str, Step, list[Any], list[float]]:
    """The fastest form by three short trials in turn, its x, and its first outputs."""
    import numpy as np

    cell, units, features = STREAMS[label]
    inputs = np.random.default_rng(1).standard_normal((STEPS, features)).astype(np.float32)
    ready = {}
    for name, (begin, convert) in FORMS[library](cell, units, features).items():
        xs, step = [convert(x) for x in inputs], begin()
        ready[name] = step, xs, [float(np.asarray(step(x)).reshape(())) for x in xs]
    trials = [{name: timed(step, xs, 0.1) for name, (step, xs, _) in ready.items()} for _ in range(3)]
    best = min(ready, key=lambda name: min(trial[name] for trial in trials))
    for name, (_, _, outputs) in ready.items():
        if not np.allclose(outputs, ready[best][2], atol=1e-5):
            raise RuntimeError(f"{library}: {name} and {best} differ")
    return best, *ready[best]


def serve(library: str) -> None:
    """Answer commands, a line of JSON each, until stdin ends."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints goes to stderr
    missing = [n for n in NEEDS.get(library, (library,)) if importlib.util.find_spec(n) is None]
    print(json.dumps(missing), file=out)
    ready: dict[str, Any] = {}
    for line in sys.stdin:
        label, seconds = json.loads(line)
        if label not in ready:
            ready[label] = prepare(library, label)
        form, step, xs, outputs = ready[label]
        print(json.dumps([form, outputs, timed(step, xs, seconds)]), file=out)


# ---- table -----------------------------------------------------------------------------------------------------


def ask(process: subprocess.Popen, *command: Any) -> Any:
    """Send a command and wait for its answer."""
    process.stdin.write(json.dumps(command) + "\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def measure(workers: dict[str, subprocess.Popen], label: str, options: argparse.Namespace) -> list[str]:
    """One row: the label, and the median of every library."""
    first = {name: ask(process, label, 0.0) for name, process in workers.items()}
    found: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(options.rounds):
        for name, process in workers.items():
            found[name].append(ask(process, label, options.seconds)[2])
    for name, (form, outputs, _) in first.items():
        worst = max(abs(a - b) for a, b in zip(outputs, first["elman"][1], strict=True))
        if worst > 1e-5:
            raise RuntimeError(f"{name} gives other outputs: they differ by {worst}")
        print(f"{label} {name}: {form}; rounds {[round(us, 2) for us in found[name]]}", file=sys.stderr)
    medians = {name: statistics.median(values) for name, values in found.items()}
    fastest = min((us for name, us in medians.items() if name != "elman"), default=None)
    ratio = "-" if fastest is None else f"{fastest / medians['elman']:.1f}"
    return [f"{label}, Dense(1)", *(f"{us:.2f}" for us in medians.values()), ratio]


def main() -> None:
    """Run the table, or a worker of it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=9, help="rounds per row (default 9); medians are reported")
    parser.add_argument("--seconds", type=float, default=0.2, help="least time per library and round (default 0.2)")
    parser.add_argument("--python-peers", default=sys.executable, help="interpreter that has the other libraries")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--worker", choices=TITLES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        serve(options.worker)
        return
    workers = {}
    for name in TITLES:
        python = sys.executable if name == "elman" else options.python_peers
        process = subprocess.Popen(
            [python, __file__, "--worker", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if missing := json.loads(process.stdout.readline()):
            print(f"{name}: skipped, {' and '.join(missing)} not installed", file=sys.stderr)
            process.stdin.close()
        else:
            workers[name] = process
    head = ["us per step", *(TITLES[name] for name in workers), "fastest other / elman"]
    rows = [measure(workers, label, options) for label in STREAMS]
    for process in workers.values():
        process.stdin.close()
        process.wait()
    if options.markdown:
        print("\n".join("| " + " | ".join(line) + " |" for line in [head, ["---", *["---:"] * (len(head) - 1)], *rows]))
    else:
        for line in [head, *rows]:
            print(f"{line[0]:20}", *(text.rjust(max(8, len(h))) for text, h in zip(line[1:], head[1:], strict=True)))


if __name__ == "__main__":
    main()
