"""Kernels on memory between two pages that nobody may touch: ``guards.py COUNT``; see tests/test_trust_memory.py.

Every array that NumPy or the library makes here, uninitialised or filled, lies so. By turns its end or its begin stands
exactly at such a page, so that to read or write beyond it ends the process; beyond the other one lie guard values up to
the page, which are compared when the memory is freed.
"""

import ctypes
import faulthandler
import gc
import json
import math
import mmap
import sys
from dataclasses import replace

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import elman
from elman import layers, losses, memory, optimizers, packing, parameters
from elman.cells import CELLS
from elman.testing import exact
from elman.testing.cells import Path, Problem
from elman.testing.exact import Runner

PAGE = mmap.PAGESIZE
GUARD = 0xA5
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
plain = {name: getattr(np, name) for name in ("empty", "full", "full_like")}
counts = {"arrays": 0, "written": 0}


class Block:
    """Memory of `size` bytes between two forbidden pages, at the end or at the begin of what lies between them."""

    turn = 0

    def __init__(self, size):
        Block.turn += 1
        counts["arrays"] += 1
        self.room, self.size = -(-size // PAGE) * PAGE, size
        self.address = libc.mmap(None, self.room + 2 * PAGE, 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
        assert self.address not in (None, ctypes.c_void_p(-1).value)
        for at in (self.address, self.address + PAGE + self.room):
            assert libc.mprotect(at, PAGE, 0) == 0
        self.begin = self.room - size if Block.turn % 2 else 0
        self._inside()[:] = GUARD
        place = self.address + PAGE + self.begin
        self.__array_interface__ = {"data": (place, False), "shape": (size,), "typestr": "|u1", "version": 3}

    def _inside(self):
        return np.frombuffer((ctypes.c_ubyte * self.room).from_address(self.address + PAGE), np.uint8)

    def __del__(self):
        inside = self._inside()
        if (inside[: self.begin] != GUARD).any() or (inside[self.begin + self.size :] != GUARD).any():
            counts["written"] += 1
        libc.munmap(self.address, self.room + 2 * PAGE)


def guarded(shape, dtype):
    """Uninitialised memory between two forbidden pages."""
    dtype, shape = np.dtype(dtype), (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    size = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or size == 0:
        return plain["empty"](shape, dtype)
    return np.asarray(Block(size)).view(dtype).reshape(shape)


def _filled(value):
    def make(shape, *rest, dtype=None, **more):
        if more or isinstance(shape, np.ndarray):
            return plain["full"](shape, value, dtype)
        array = guarded(shape, dtype if dtype is not None else rest[0] if rest else float)
        if value is not None:
            array[...] = value
        return array

    return make


def _like(value):
    def make(other, dtype=None, **more):
        other = np.asarray(other)
        if more or not other.flags.c_contiguous:
            return plain["full_like"](other, 0 if value is None else value, dtype, **more)
        return _filled(value)(other.shape, other.dtype if dtype is None else dtype)

    return make


def copy(array):
    """The same numbers between forbidden pages."""
    out = guarded(array.shape, array.dtype)
    out[...] = array
    return out


def _take(self, name, shape, dtype):
    """`Buffers.take` with memory of exactly the size asked for."""
    key = name, tuple(shape), np.dtype(dtype)
    found = self._flat.get(key)
    if found is None:
        found = self._flat[key] = guarded(shape, dtype)
        self.version += 1
    return found


def install():
    np.empty, np.zeros, np.ones = _filled(None), _filled(0), _filled(1)
    np.empty_like, np.zeros_like = _like(None), _like(0)
    memory.Buffers.take = _take
    for module in (memory, packing, parameters):
        module.aligned = lambda size, dtype: guarded((size,), dtype)


# ---- cases


def recurrence(draw):
    """A cell forward and backward, on every path."""
    cell = CELLS[draw(st.sampled_from(sorted(CELLS)))]
    size = draw(st.tuples(st.integers(1, 37), st.integers(1, 9), st.integers(1, 35), st.integers(1, 70)))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    problem = Problem.draw(cell, size, ("tanh", "sigmoid"), 0, bias=draw(st.booleans()))
    batch, steps, _, units = size
    path = Path(
        "",
        rng.random((batch, steps)) < 0.7 if draw(st.booleans()) else None,
        (rng.random((batch, units)) < 0.5) * 2.0 if draw(st.booleans()) else None,
        draw(st.sampled_from([None, None, "sqrt", 2])),
        exact.zone_rates(cell.states) if draw(st.booleans()) else None,
    )
    problem = replace(problem, path=path)
    if draw(st.booleans()):
        problem = problem.without_state()
    runner = Runner(problem, draw(st.sampled_from(["float32", "float64"])))
    runner.pack = draw(st.booleans())
    runner.x, runner.d_outputs = copy(runner.x), copy(runner.d_outputs)
    runner.parameters = [copy(p) for p in runner.parameters]
    if runner.state is not None:
        runner.state = [copy(s) for s in runner.state]
    with elman.num_threads(draw(st.sampled_from([1, 1, 2]))):
        if draw(st.booleans()):
            runner.cut(draw(st.integers(1, 9)))
        found = runner.everything()
    assert all(np.isfinite(a).all() for a in found)


def training(draw):
    """A stack of layers: a step of an optimizer, a prediction, the same step by step."""
    dtype = draw(st.sampled_from(["float32", "float64"]))
    size = st.integers(1, 40)
    batch, steps, features, units, outputs = (draw(size) for _ in range(5))
    steps = min(steps, 9)
    tokens = draw(st.booleans())
    first = (
        layers.Embedding(max(2, features), draw(size))
        if tokens
        else layers.TimeDistributed(layers.Dense(draw(size), "tanh"))
    )
    inner = draw(st.sampled_from(["none", "norm", "dropout", "activation"]))
    more = {
        "none": [], "norm": [layers.LayerNormalization()], "dropout": [layers.SpatialDropout1D(0.3)],
        "activation": [layers.Activation("softsign")],
    }[inner]  # fmt: skip
    cell = draw(st.sampled_from([layers.GRU, layers.LSTM, layers.SimpleRNN]))
    labels = draw(st.booleans())
    last = layers.Dense(max(2, outputs), "softmax") if labels else layers.Dense(outputs)
    shape = (None,) if tokens else (None, features)
    model = elman.Sequential([layers.Input(shape), first, *more, cell(units), last], dtype, seed=0)
    optimizer = draw(st.sampled_from(sorted(optimizers.OPTIMIZERS)))
    model.compile(
        optimizer, "sparse_categorical_crossentropy" if labels else draw(st.sampled_from(["mse", "huber", "mae"]))
    )
    rng = np.random.default_rng(0)
    x = (
        rng.integers(0, max(2, features), (batch, steps))
        if tokens
        else rng.normal(size=(batch, steps, features)).astype(dtype)
    )
    x = copy(x)
    y = rng.integers(0, max(2, outputs), batch) if labels else rng.normal(size=(batch, outputs)).astype(dtype)
    with elman.num_threads(draw(st.sampled_from([1, 1, 2]))):
        assert np.isfinite(model.train_on_batch(x, copy(y)))
        expected = model.predict_on_batch(x)
    step = model.stream(batch)
    for t in range(steps):
        got = step(copy(x[:, t]))
    np.testing.assert_array_equal(got.reshape(expected.shape), expected)


def windows(draw):
    """Windows of series with gaps, direct and stepwise, with lags and covariates."""
    from elman.forecasting.arrays import from_arrays
    from elman.forecasting.layout import Covariate, Layout, Source
    from elman.forecasting.transform import Transform

    lengths = draw(st.lists(st.integers(1, 30), min_size=1, max_size=4))
    series = [np.where(np.arange(n) % 5 == 3, np.nan, np.arange(n) + 1.0) for n in lengths]
    panel = from_arrays(series, past=[copy(np.ones((n, 2), np.float32)) for n in lengths])
    panel = replace(panel, values=copy(panel.values), past=copy(panel.past), offsets=copy(panel.offsets))
    lags, seasons = (tuple(draw(st.lists(st.integers(1, 40), max_size=2))) for _ in range(2))
    lookback, horizon = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    scale = draw(st.sampled_from(["mean-abs", "standard", "last-value", "series"]))
    past = tuple(Covariate(name) for name in panel.past_names)
    layout = Layout(
        lookback, horizon, draw(st.booleans()), scale, lags, seasons, (), draw(st.booleans()), past, (), (), 0.0, 1.0
    )
    source = Source(layout, panel, Transform())
    rows = [(s, o) for s, n in enumerate(lengths) for o in range(1, n + 1)]
    chosen = draw(st.lists(st.sampled_from(rows), min_size=1, max_size=20))
    found = source.gather(*(copy(a) for a in np.ascontiguousarray(np.array(chosen, np.int64).T)))
    assert np.isfinite(found.x).all() and np.isfinite(found.y).all()


def alignment(draw):
    """CTC, forward and backward."""
    batch, steps, classes = draw(st.integers(1, 9)), draw(st.integers(3, 12)), draw(st.integers(2, 7))
    loss, rng = losses.CTC(), np.random.default_rng(0)
    y = rng.integers(0, classes, (batch, 1))
    y[y == 0] = -1 if draw(st.booleans()) else 1
    p = copy(rng.normal(size=(batch, steps, classes)).astype(draw(st.sampled_from(["f4", "f8"]))))
    gradient = guarded(p.shape, p.dtype)
    assert np.isfinite(loss.value_and_gradient(y, p, None, gradient)) and np.isfinite(gradient).all()


KINDS = [recurrence, recurrence, recurrence, training, training, windows, alignment]


def main(count):
    faulthandler.enable()
    install()
    done = 0
    for chunk in range(0, count, 1000):

        @seed(chunk)
        @settings(
            max_examples=min(1000, count - chunk), deadline=None, database=None, phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(st.data())
        def trial(data):
            nonlocal done
            kind = data.draw(st.sampled_from(KINDS))
            print(kind.__name__, file=sys.stderr)
            kind(data.draw)
            done += 1

        trial()
        gc.collect()
        assert counts["written"] == 0, f"{counts['written']} arrays were written beyond their begin or end"
    json.dump({"cases": done, **counts}, sys.stdout)


if __name__ == "__main__":
    main(int(sys.argv[1]))
