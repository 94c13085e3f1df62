"""The same bits for any number of threads, any cut of the batch, and any place in it."""

import sys

import numpy as np
import pytest
import workloads as w
from apart import run
from effort import thorough

import elman
from elman import jit
from elman.cells import CELLS
from elman.frames import _PARALLEL_FLOPS
from elman.kernels.simd import ROWS
from elman.plans import equal_items, equal_pieces, make_plan, shared
from elman.recurrence import Recurrence
from elman.testing.cells import Problem
from elman.testing.exact import Runner

DTYPES = ["float32", "float64"]
# Large enough that every call takes the parallel path; tails in every direction.
B, T, F, H = 37, 22, 9, 49
cells = pytest.mark.parametrize("cell", CELLS)
dtypes = pytest.mark.parametrize("dtype", DTYPES)


def build(cell, dtype, seed=5):
    layers = elman.layers
    model = elman.Sequential(
        [
            layers.Input((T, F)),
            layers.RNN(H, cell=cell, return_sequences=True),
            layers.RNN(H + 3, cell=cell),
            layers.Dense(33, activation="relu"),
            layers.Dense(2),
        ],
        dtype=dtype,
        seed=seed,
    )
    model.compile(elman.optimizers.Adam(0.01, clipnorm=1.0), "mse")
    return model


def data(rng, n=B):
    return rng.standard_normal((n, T, F)), rng.standard_normal((n, 2))


def assert_same(got, expected):
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    assert all(np.isfinite(a).all() for a in got)


def test_the_sizes_take_the_parallel_path():
    assert 2 * B * T * (F + H) * H > _PARALLEL_FLOPS


@cells
@dtypes
def test_forward_and_gradients_for_any_threads(cell, dtype, thread_counts, rng):
    (x, y), weights = data(rng), rng.uniform(0.5, 2, B)
    results = []
    for threads in thread_counts:
        with elman.num_threads(threads):
            model = build(cell, dtype)
            results.append([model.predict(x), *model.gradients(x, y, weights)])
    for r in results:
        assert_same(r, results[0])


@cells
@dtypes
def test_ten_training_steps_for_any_threads(cell, dtype, thread_counts, rng):
    x, y = data(rng)
    results = []
    for threads in thread_counts:
        with elman.num_threads(threads):
            model = build(cell, dtype)
            losses = [model.train_on_batch(x, y) for _ in range(10)]
            results.append([np.array(losses), *model.get_weights()])
    for r in results:
        assert_same(r, results[0])
    assert results[0][0][-1] < results[0][0][0]


@cells
@dtypes
def test_any_cut_of_the_batch(cell, dtype, thread_counts):
    problem = Problem.draw(CELLS[cell], (B, 7, F, H), ("tanh", "sigmoid"), 8)
    with elman.num_threads(1):
        whole = Runner(problem, dtype).everything()
        for rows in (1, 3, 8, 11, 16):
            r = Runner(problem, dtype)
            r.cut(rows)
            assert_same(r.everything(), whole)
    for threads in thread_counts[1:]:
        for rows in (1, 3, 8, 11, 16, B):
            r = Runner(problem, dtype)
            r.cut(rows)
            with elman.num_threads(threads):
                assert_same(r.everything(), whole)


@dtypes
def test_a_fit_gives_the_same_bits_for_any_threads(dtype, thread_counts, rng):
    x, y = data(rng, 3 * B + 5)
    results = []
    for threads in thread_counts:
        with elman.num_threads(threads):
            model = build("gru", dtype)
            history = model.fit(x, y, batch_size=B, epochs=2, validation_split=0.2, verbose=0).history
            results.append([*(np.array(v) for v in history.values()), *model.get_weights()])
    for r in results:
        assert_same(r, results[0])


def test_the_same_seed_gives_the_same_bits_and_another_does_not(rng):
    x, y = data(rng)

    def trained(seed):
        model = build("lstm", "float32", seed)
        model.fit(x, y, batch_size=8, epochs=2, verbose=0)
        return model.get_weights()

    first = trained(5)
    np.random.seed(1)  # noqa: NPY002 - NumPy's global state must neither matter nor change
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    assert_same(trained(5), first)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert not np.array_equal(trained(6)[0], first[0])


@cells
@dtypes
def test_a_prediction_does_not_depend_on_the_place_in_the_batch(cell, dtype, rng):
    x, _ = data(rng)
    model = build(cell, dtype)
    whole = model.predict(x)
    order = rng.permutation(B)
    assert_same([model.predict(x[order])], [whole[order]])
    for size in (1, 2, 5, 8, 36):
        assert_same([model.predict(x, batch_size=size)], [whole])
    assert_same([model.predict_on_batch(x[4:5])], [whole[4:5]])


def test_predicting_between_steps_changes_nothing(rng):
    x, y = data(rng)
    one, other = build("lstm", "float32"), build("lstm", "float32")
    for _ in range(3):
        one.train_on_batch(x, y)
        other.predict(x[:5])
        other.train_on_batch(x, y)
        other.gradients(x[:7], y[:7])
    assert_same(one.get_weights(), other.get_weights())


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 8, 9, 13, 32, 33, 64, 257])
@pytest.mark.parametrize("threads", [1, 2, 3, 5, 16])
def test_shards_cover_the_batch(batch, threads):
    pieces = equal_pieces(batch, threads)
    assert pieces.shape[1:] == (1, 2) and len(pieces) <= threads
    np.testing.assert_array_equal(np.concatenate([np.arange(*piece) for (piece,) in pieces]), np.arange(batch))


def test_shards_of_unequal_sequences_have_about_as_many_steps_each(rng):
    counts = np.sort(rng.integers(0, 200, 256))[::-1]
    mask = (np.arange(200)[:, None] < counts).view(np.uint8)
    for batch in (256, 1280):  # dealt out, and cut
        some = np.repeat(mask, batch // 256, axis=1)
        pieces = shared(some, 4, 8, 1 / 64, make_plan(CELLS["lstm"], 9, 49, np.dtype("float32"))).pieces
        assert (pieces.shape[1] == 1) == (batch == 1280)
        steps = np.array([sum(some[:, a:b].sum() for a, b in mine) for mine in pieces])
        assert steps.sum() == some.sum() and steps.max() < 1.2 * steps.min()  # whole tiles of 8
    # As many sequences for each would not do.
    even = counts.reshape(4, 64).sum(axis=1)
    assert even.max() > 5 * even.min()


@pytest.mark.parametrize("threads", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("batch", [1, 7, 16, 32, 40, 32 * ROWS])
@cells
def test_panels_of_all_parts_are_shared_out_once_each(cell, batch, threads):
    key = (CELLS[cell], 9, 49, np.dtype("float32"))
    plan, items = make_plan(*key), equal_items(key, batch, threads)
    begins, ends = items[:, 0].T
    assert items.shape == (threads, 1, 2)
    assert begins[0] == 0 and ends[-1] == plan.parts(batch) * len(plan.panels)
    assert (begins[1:] == ends[:-1]).all() and (begins <= ends).all()
    if threads == 2 and batch % (2 * ROWS * plan.parts(batch)) == 0:  # each has the parts that it wrote itself
        assert ends[0] * 2 == ends[-1] and plan.parts(batch) % 2 == 0


def test_parts_of_a_batch_follow_from_its_size():
    def parts(batch, units=49):
        return make_plan(CELLS["lstm"], 9, units, np.dtype("float32")).parts(batch)

    assert [parts(n) for n in (1, 2, 4, 8, 16, 32, 64, 128, 1024)] == [1, 2, 1, 2, 2, 2, 4, 8, 8]
    assert parts(64, 512) == 1  # 4 MB of sums


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("cell", ["lstm", "gru_reset_before"])
@pytest.mark.parametrize(("batch", "count"), [(32, 2), (70, 4), (130, 8)])
def test_parts_add_up_to_the_gradients_of_the_batch(batch, count, cell, threads, rng):
    """Those of its sequences a few at a time, in one part each."""
    kind, steps, inputs, units = CELLS[cell], 5, 3, 2 * ROWS + 1
    r = Recurrence(kind, inputs, units, np.dtype("float64"), "tanh", "sigmoid")
    assert r.plan.parts(batch) == count and r.plan.parts(4) == 1
    shapes = (inputs, kind.gates * units), (units, kind.gates * units), (1, kind.gates * units), (0, units)
    parameters = [rng.standard_normal(shape) / 3 for shape in shapes]
    x, d = (rng.standard_normal((batch, steps, n)) for n in (inputs, units))

    def gradients(some):
        tape = r.forward(x[some], parameters, None, training=True, sequences=True)
        return [g.copy() for g in tape.backward(d[some]).parameters]

    with elman.num_threads(min(threads, jit.maximum_threads())):
        whole = gradients(slice(None))
        pieces = [gradients(slice(b, b + 4)) for b in range(0, batch, 4)]
    for found, *some in zip(whole, *pieces, strict=True):
        assert np.abs(found).min() > 0
        np.testing.assert_allclose(found, np.sum(some, axis=0), rtol=0, atol=1e-13 * batch * steps)


# ---- the promise: whole trainings, in processes of their own

compiled = pytest.mark.skipif(jit.DISABLED, reason="nothing is compiled under NUMBA_DISABLE_JIT")

PRINT = """
import sys
import elman, workloads as w
counts, layer = eval(sys.argv[1]), sys.argv[2]
for threads in counts:
    elman.set_num_threads(threads)
    print(*[w.train(kind, seed) for seed in range(int(sys.argv[3])) for kind in w.KINDS])
if layer != "any":
    assert elman.jit.threading_layer() == layer
print("fine")
"""


def printed(counts, layer="any", **environment):
    """The bits of all workloads, one entry per number of threads."""
    seeds = thorough(1, 5)
    if layer != "any":
        environment["NUMBA_THREADING_LAYER"] = layer
    done = run(PRINT, counts, layer, seeds, **environment)
    return [line.split() for line in done.stdout.splitlines()[:-1]]


@pytest.fixture(scope="module")
def bits():
    """Those of this process, with the threads it has."""
    return [w.train(kind, seed) for seed in range(thorough(1, 5)) for kind in w.KINDS]


def layers():
    """The thread layers of Numba that there are here; tbb is a package of its own."""
    try:
        from numba.np.ufunc import tbbpool  # noqa: F401
    except ImportError:
        return ["omp", "workqueue"]
    return ["omp", "workqueue", "tbb"]


@compiled
@pytest.mark.parametrize("layer", layers())
def test_trainings_have_the_same_bits_on_1_to_4_threads_of_any_layer(layer, bits):
    """More threads than cores included."""
    assert printed([1, 2, 3, 4, 2], layer, NUMBA_NUM_THREADS="4") == [bits] * 5
    assert printed([1], layer, NUMBA_NUM_THREADS="1") == [bits]


@compiled
def test_the_first_process_which_compiles_has_the_bits_of_later_ones(tmp_path, bits):
    """In a thorough run with an empty cache, else with a simple network alone."""
    if thorough(False, True):
        first = printed([2], ELMAN_CACHE_DIR=str(tmp_path), NUMBA_NUM_THREADS="2")
        assert first == printed([2], ELMAN_CACHE_DIR=str(tmp_path), NUMBA_NUM_THREADS="2") == [bits]
        return
    script = """
import numpy as np, elman
y = elman.layers.Activation("softplus")(np.random.default_rng(0).normal(size=(7, 33)))
print(y.tobytes().hex(), elman.jit.compile_counts()["compiled"], "fine")
"""
    first, second = (run(script, ELMAN_CACHE_DIR=str(tmp_path)).stdout.split() for _ in range(2))
    assert first[0] == second[0] and int(first[1]) > 0 == int(second[1])


@pytest.mark.parametrize("kind", w.MODELS)
def test_a_training_that_is_saved_and_continued_has_the_same_bits(kind, tmp_path, thread_counts):
    """Saved after any number of single epochs, and loaded with any number of threads."""
    whole = w.MODELS[kind]()
    for _ in range(4):
        w.fit(whole, kind, epochs=1)
    for cut in range(4):
        model = w.MODELS[kind]()
        for epoch in range(4):
            with elman.num_threads(1 + epoch % len(thread_counts)):
                w.fit(model, kind, epochs=1)
            if epoch == cut:
                model.save(tmp_path / "model.npz")
                model = elman.load_model(tmp_path / "model.npz")
        assert w.model_bits(model, kind) == w.model_bits(whole, kind)


def test_a_forecaster_that_is_saved_and_continued_has_the_same_bits(tmp_path):
    y = w.series()

    def go(*, save):
        made = w.forecaster(seeds=2).fit(y[:-12])
        for k in range(2):
            if save:
                made.save(tmp_path / "f.npz")
                made = elman.Forecaster.load(tmp_path / "f.npz")
            made.update(y[-12 + 6 * k :][:6], epochs=0.3)
        return w.digest(made.predict(quantiles=[0.1]), *made.model_.get_weights())

    assert go(save=True) == go(save=False)


@pytest.mark.parametrize("count", [1, 3, 7])
def test_any_number_of_shards_gives_the_same_bits(count, monkeypatch, bits):
    """Cuts that no number of threads here would give."""
    seen, call = set(), jit.on_team

    def clipped(calls):
        seen.update(threads for threads, _, _ in calls)
        return call([(min(threads, jit.maximum_threads()), run, arguments) for threads, run, arguments in calls])

    for module in (jit, jit.calls):
        monkeypatch.setattr(module, "on_team", clipped)
    for name, module in list(sys.modules.items()):
        if name.startswith("elman.") and hasattr(module, "usable_threads"):
            monkeypatch.setattr(module, "usable_threads", lambda: count)
    assert [w.train(kind) for kind in w.KINDS] == bits[: len(w.KINDS)]
    assert max(seen) == count


def test_the_order_of_trainings_in_a_process_does_not_matter(bits):
    assert [w.train(kind) for kind in reversed(w.KINDS)] == bits[: len(w.KINDS)][::-1]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("batch", "steps"), [(13, 9), (16, 70), (3, 5), (1, 40)])
@pytest.mark.parametrize("cell", ["lstm", "gru_reset_before"])
def test_packed_inputs_give_the_gradients_of_inputs_in_place(cell, batch, steps, dtype, rng):
    """Features of several bands of ROWS and a rest, in one thread: machines of any number of cores see it."""
    kind, inputs, units = CELLS[cell], 2 * ROWS + 3, 3 * ROWS + 1
    shapes = (inputs, kind.gates * units), (units, kind.gates * units), (1, kind.gates * units), (0, units)
    parameters = [rng.standard_normal(shape).astype(dtype) / 3 for shape in shapes]
    x, d = (rng.standard_normal((batch, steps, n)).astype(dtype) for n in (inputs, units))
    found = []
    for packs in (False, True):
        r = Recurrence(kind, inputs, units, np.dtype(dtype), "tanh", "sigmoid")
        r.packs_features = lambda batch, threads, packs=packs: packs
        with elman.num_threads(1):
            tape = r.forward(x, parameters, None, training=True, sequences=True)
            found.append([g.copy() for g in tape.backward(d).parameters])
    for in_place, packed in zip(*found, strict=True):
        assert np.abs(in_place).max() > 0
        np.testing.assert_array_equal(packed, in_place)
