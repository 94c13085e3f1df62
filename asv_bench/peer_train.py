"""The training steps of ``peers.py``, one function per library: forward, loss, backpropagation through time, Adam."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks import PEER_GATES, Size, batch, make_model

Step = Callable[[], float]

THREADS = 2
"""Cores that every library may use."""


def elman_steps(cell: str, size: Size) -> dict[str, Step]:
    """`Sequential.train_on_batch` with the arrays as a user holds them."""
    model = make_model(cell, size, "float32")
    x, y = batch(size, "float32")
    return {"train_on_batch": lambda: float(model.train_on_batch(x, y))}


def torch_steps(cell: str, size: Size) -> dict[str, Step]:
    """`nn.RNN`, `nn.GRU` or `nn.LSTM` (batch first) and `nn.Linear`, with the two fast forms of Adam.

    One thread is a form too: it beats two on the smallest sizes.
    """
    import torch

    x, y = (torch.from_numpy(a) for a in batch(size, "float32"))

    def make(threads: int, **adam: bool) -> Step:
        torch.manual_seed(0)
        net, head = torch_modules(cell, size)
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


def torch_modules(cell: str, size: Size) -> tuple[Any, Any]:
    """The recurrent layer and its head."""
    import torch

    kind = {"simple": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[cell]
    return kind(size.I, size.H, batch_first=True), torch.nn.Linear(size.H, 1)


def jax_cell(cell: str) -> Callable[..., Any]:
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


def jax_output(cell: str, size: Size) -> Callable[..., Any]:
    """``output(p, x, unroll)``: one input product for all steps, then `lax.scan`; gates in Keras's order.

    `p` holds kernel w, recurrent kernel r, bias b, recurrent bias br (empty unless GRU), head v and its bias c.
    """
    import jax
    import jax.numpy as jnp

    cell_step = jax_cell(cell)

    def output(p, x, unroll):
        z = jnp.swapaxes(x, 0, 1) @ p["w"] + p["b"]
        start = tuple(jnp.zeros((size.B, size.H), jnp.float32) for _ in range(2 if cell == "lstm" else 1))
        last, _ = jax.lax.scan(lambda s, zt: (cell_step(s, zt, p["r"], p["br"]), None), start, z, unroll=unroll)
        return last[0] @ p["v"] + p["c"]

    return output


def jax_steps(cell: str, size: Size) -> dict[str, Step]:
    """The whole step jitted, Adam by hand, donated buffers."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    columns, output = PEER_GATES[cell] * size.H, jax_output(cell, size)
    x, y = (jax.device_put(a) for a in batch(size, "float32"))

    def update(unroll, carry, x, y):
        p, m, v, t = carry
        value, g = jax.value_and_grad(lambda p: jnp.mean((output(p, x, unroll) - y) ** 2))(p)
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


STEPS: dict[str, Callable[[str, Size], dict[str, Step]]] = {
    "elman": elman_steps,
    "torch": torch_steps,
    "jax": jax_steps,
}


def check(step: Step, cell: str, size: Size) -> str | None:
    """What is wrong with a step; None if twenty of them learn."""
    losses = [step() for _ in range(20)]
    return None if min(losses[1:]) < losses[0] else f"does not learn: losses {losses}"
