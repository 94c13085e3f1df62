"""The inference steps of ``peers.py``, one function per library: all have the same weights, and answer in NumPy arrays.

Every form is compared with an evaluation in NumPy before it is timed: a peer that computes something else, such as a
GRU whose reset gate acts before the product, must not be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from benchmarks import PEER_GATES, Size, batch, make_model
from peer_train import THREADS, jax_output, torch_modules

Step = Callable[[], np.ndarray]

TOLERANCE = 1e-4
"""Largest absolute difference from NumPy; outputs are of order 0.1 to 1, float32 alone makes 1e-6."""


class Weights(NamedTuple):
    """Parameters in Keras's shapes and gate order: LSTM i, f, g, o; GRU z, r, h."""

    kernel: np.ndarray
    recurrent: np.ndarray
    bias: np.ndarray
    """(G,), or (2, G) for GRU, whose recurrent product has its own."""
    head: np.ndarray
    head_bias: np.ndarray


@cache
def draw(cell: str, size: Size) -> Weights:
    """Random parameters, the same in every process."""
    rng, bound, columns = np.random.default_rng(1), size.H**-0.5, PEER_GATES[cell] * size.H
    bias = (2, columns) if cell == "gru" else (columns,)
    shapes = (size.I, columns), (size.H, columns), bias, (size.H, 1), (1,)
    return Weights(*(rng.uniform(-bound, bound, shape).astype(np.float32) for shape in shapes))


@cache
def evaluate(cell: str, size: Size) -> np.ndarray:
    """Outputs (B, 1) by NumPy in float64, from the equations."""
    w = Weights(*(a.astype(np.float64) for a in draw(cell, size)))
    x = batch(size, "float32")[0].astype(np.float64)
    bias, recurrent_bias = w.bias if cell == "gru" else (w.bias, 0.0)
    h = c = np.zeros((size.B, size.H))

    def sigmoid(a: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-a))

    for t in range(size.T):
        z, r = x[:, t] @ w.kernel + bias, h @ w.recurrent + recurrent_bias
        if cell == "simple":
            h = np.tanh(z + r)
        elif cell == "gru":
            (zu, zr, zn), (ru, rr, rn) = np.split(z, 3, axis=1), np.split(r, 3, axis=1)
            u = sigmoid(zu + ru)
            h = u * h + (1 - u) * np.tanh(zn + sigmoid(zr + rr) * rn)
        else:
            i, f, g, o = np.split(z + r, 4, axis=1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
    return h @ w.head + w.head_bias


def _ordered(matrix: np.ndarray, order: Sequence[int]) -> np.ndarray:
    """Blocks of H columns in another order of the gates, transposed: (G, K), as PyTorch and ONNX hold weights."""
    blocks = np.split(matrix, len(order), axis=-1)
    return np.ascontiguousarray(np.concatenate([blocks[k] for k in order], axis=-1).T)


def elman_steps(cell: str, size: Size) -> dict[str, Step]:
    """Both public ways: `predict_on_batch` and `predict`, whose batch of 256 takes every size of the table whole."""
    model = make_model(cell, size, "float32")
    model.set_weights(list(draw(cell, size)))
    x, _ = batch(size, "float32")
    return {"predict_on_batch": lambda: model.predict_on_batch(x), "predict": lambda: model.predict(x)}


def onnxruntime_steps(cell: str, size: Size) -> dict[str, Step]:
    """A session on a graph of one recurrent node and a Gemm on its last state, with 1 and 2 threads inside a node."""
    import onnxruntime

    x, _ = batch(size, "float32")
    graph = onnx_graph(cell, size)

    def make(threads: int) -> Step:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        return lambda: session.run(None, {"x": x})[0]

    return {f"session, threads {threads}": make(threads) for threads in (1, THREADS)}


def onnx_graph(cell: str, size: Size) -> bytes:
    """The serialized graph. Its input is batch first, as the other libraries' is; ONNX Runtime's nodes are not."""
    from onnx import TensorProto, helper, numpy_helper

    w = draw(cell, size)
    # ONNX: LSTM i, o, f, c; GRU z, r, h.
    order = {"simple": (0,), "gru": (0, 1, 2), "lstm": (0, 3, 1, 2)}[cell]
    bias, recurrent_bias = w.bias if cell == "gru" else (w.bias, np.zeros_like(w.bias))
    arrays = {
        "w": _ordered(w.kernel, order)[None],
        "r": _ordered(w.recurrent, order)[None],
        "b": np.concatenate([_ordered(bias, order), _ordered(recurrent_bias, order)])[None],
        "axis": np.zeros(1, np.int64),
        "v": w.head,
        "c": w.head_bias,
    }
    kind, more = {"simple": ("RNN", {}), "gru": ("GRU", {"linear_before_reset": 1}), "lstm": ("LSTM", {})}[cell]
    nodes = [
        helper.make_node("Transpose", ["x"], ["steps"], perm=[1, 0, 2]),
        helper.make_node(kind, ["steps", "w", "r", "b"], ["", "last"], hidden_size=size.H, **more),
        helper.make_node("Squeeze", ["last", "axis"], ["h"]),
        helper.make_node("Gemm", ["h", "v", "c"], ["y"]),
    ]
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]
        for name, shape in (("x", (size.B, size.T, size.I)), ("y", (size.B, 1)))
    ]
    constants = [numpy_helper.from_array(value, name) for name, value in arrays.items()]
    graph = helper.make_graph(nodes, "net", *ends, constants)
    # Not the newest versions: an ONNX Runtime older than the onnx package must read them.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return model.SerializeToString()


def torch_steps(cell: str, size: Size) -> dict[str, Step]:
    """The modules of the training step in eval mode, under `inference_mode`, with 1 and 2 threads."""
    import torch

    x = torch.from_numpy(batch(size, "float32")[0])
    net, head = torch_modules(cell, size)
    w = draw(cell, size)
    order = (1, 0, 2) if cell == "gru" else range(PEER_GATES[cell])  # GRU r, z, n; LSTM as Keras
    bias, recurrent_bias = w.bias if cell == "gru" else (w.bias, np.zeros_like(w.bias))
    with torch.no_grad():
        for name, value in (
            ("weight_ih_l0", w.kernel),
            ("weight_hh_l0", w.recurrent),
            ("bias_ih_l0", bias),
            ("bias_hh_l0", recurrent_bias),
        ):
            getattr(net, name).copy_(torch.from_numpy(_ordered(value, order)))
        head.weight.copy_(torch.from_numpy(w.head.T.copy()))
        head.bias.copy_(torch.from_numpy(w.head_bias))
    net.eval(), head.eval()

    def make(threads: int) -> Step:
        def step() -> np.ndarray:
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)
            with torch.inference_mode():
                return head(net(x)[0][:, -1]).numpy()

        return step

    return {f"inference_mode, threads {threads}": make(threads) for threads in (1, THREADS)}


def jax_steps(cell: str, size: Size) -> dict[str, Step]:
    """The network of the training step, jitted."""
    import jax

    w, output = draw(cell, size), jax_output(cell, size)
    bias, recurrent_bias = w.bias if cell == "gru" else (w.bias, np.zeros(0, np.float32))
    arrays = {"w": w.kernel, "r": w.recurrent, "b": bias, "br": recurrent_bias, "v": w.head, "c": w.head_bias}
    p: dict[str, Any] = {name: jax.device_put(value) for name, value in arrays.items()}
    x = jax.device_put(batch(size, "float32")[0])

    def make(unroll: int) -> Step:
        jitted = jax.jit(lambda p, x: output(p, x, unroll))
        return lambda: np.asarray(jitted(p, x))  # waits for the result

    return {"scan(unroll=1)": make(1), "scan(unroll=4)": make(4)}


STEPS: dict[str, Callable[[str, Size], dict[str, Step]]] = {
    "elman": elman_steps,
    "onnxruntime": onnxruntime_steps,
    "torch": torch_steps,
    "jax": jax_steps,
}


def check(step: Step, cell: str, size: Size) -> str | None:
    """What is wrong with a step; None if it computes what NumPy does."""
    found, wanted = step(), evaluate(cell, size)
    if found.shape != wanted.shape:
        return f"outputs have shape {found.shape}, not {wanted.shape}"
    error = float(np.abs(found - wanted).max())
    return None if error <= TOLERANCE else f"outputs differ from NumPy's by {error:.1e}"
