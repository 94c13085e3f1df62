"""Python threads: many models at once, one model in many threads, calls from callbacks. Nothing aborts or is lost."""

import copy
import importlib.util
import linecache
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import workloads as w
from apart import run
from effort import thorough

import elman
from elman import jit, threads
from elman.callbacks import Callback, LambdaCallback
from elman.layers import GRU, Dense, SimpleRNN

compiled = pytest.mark.skipif(jit.DISABLED, reason="nothing is compiled under NUMBA_DISABLE_JIT")


def needs(*packages):
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


def together(functions):
    """Run functions of no arguments, one per thread, all from one moment on; results, or errors, in their order."""
    gate, results = threading.Barrier(len(functions)), [None] * len(functions)

    def job(k):
        gate.wait()
        try:
            results[k] = functions[k]()
        except Exception as error:
            results[k] = error

    threads = [threading.Thread(target=job, args=(k,)) for k in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


# ---- many models at once

MANY = """
import sys, threading
import elman, workloads as w
from test_trust_threads import together
count, rounds, most = map(int, sys.argv[1:])
elman.set_num_threads(most)
jobs = [(kind, seed) for seed in range(-(-count // 4)) for kind in w.KINDS][:count]
expected = None
for _ in range(rounds):
    found = together([lambda job=job: w.train(*job) for job in jobs])  # the first of all are in threads
    expected = expected or [w.train(*job) for job in jobs]
    assert found == expected, (found, expected)
with elman.num_threads(1):
    assert [w.train(*job) for job in jobs] == expected
print("fine")
"""


@compiled
@pytest.mark.parametrize("layer", ["omp", "workqueue"])
def test_many_models_train_and_predict_at_once(layer):
    """Also as the first things that the process does, on more threads than there are cores."""
    count, rounds = thorough((4, 1), (16, 30))
    run(MANY, count, rounds, 4, NUMBA_THREADING_LAYER=layer, NUMBA_NUM_THREADS="4")


START = """
import os, time
from test_trust_threads import together
from elman.jit import layer
kind = type(os.environ)
contains = kind.__contains__
kind.__contains__ = lambda self, name: (contains(self, name), time.sleep(0.05))[0]  # so that others come meanwhile
found = together([layer.threading_layer] * 16)
assert len(set(found)) == 1 and isinstance(found[0], str), found
assert "GOMP_SPINCOUNT" not in os.environ
print("fine")
"""


@compiled
def test_numbas_threads_are_started_by_one_thread():
    run(START)


def test_a_kernel_compiled_by_two_threads_at_once_is_compiled_once():
    before = sum(jit.compile_counts().values())

    @jit.Entry
    def twice(a):
        for k in range(a.size):
            a[k] *= 2

    arrays = [np.ones(3) for _ in range(4)]
    together([lambda a=a: twice(1, a) for a in arrays])
    assert all((a == 2).all() for a in arrays)
    if not jit.DISABLED:
        assert sum(jit.compile_counts().values()) == before + 1


@pytest.mark.parametrize("kind", w.KINDS)
def test_in_an_executor(kind):
    expected = [w.train(kind, seed) for seed in range(3)]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda seed: w.train(kind, seed), range(3))) == expected


JOBLIB = """
import sys
import joblib, workloads as w
jobs = [(kind, 0) for kind in w.KINDS]
expected = [w.train(*job) for job in jobs]
with joblib.parallel_config(sys.argv[1], n_jobs=2):
    assert joblib.Parallel()(joblib.delayed(w.train)(*job) for job in jobs) == expected
print("fine")
"""


@compiled
@needs("joblib")
@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_in_joblib(backend):
    run(JOBLIB, backend)


DASK = """
import dask, workloads as w
jobs = [(kind, seed) for seed in range(2) for kind in w.KINDS]
expected = [w.train(*job) for job in jobs]
for scheduler in ("threads", "synchronous"):
    found = dask.compute(*(dask.delayed(w.train)(*job) for job in jobs), scheduler=scheduler, num_workers=4)
    assert list(found) == expected
print("fine")
"""


@compiled
@needs("dask")
def test_in_threads_of_dask():
    run(DASK)


NOTEBOOK = """
import warnings
warnings.simplefilter("default")  # of the notebook's own machinery
import nbformat
from nbclient import NotebookClient
cells = ["import workloads as w", "expected = [w.train(kind) for kind in w.KINDS]",
    "from concurrent.futures import ThreadPoolExecutor",
    "with ThreadPoolExecutor(3) as pool: assert list(pool.map(w.train, w.KINDS)) == expected",
    "async def job(): return w.train('stacked')", "assert await job() == expected[0]",
    "print(*expected)"]
book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
NotebookClient(book, timeout=900, kernel_name="python3").execute()
import workloads as w
assert book.cells[-1].outputs[0].text.split() == [w.train(kind) for kind in w.KINDS]
print("fine")
"""


@compiled
@needs("nbclient", "ipykernel")
def test_in_a_notebook():
    run(NOTEBOOK)


# ---- one model, many threads


def small(seed=0, **layer):
    model = elman.Sequential([GRU(6, **layer), Dense(1)], seed=seed)
    model.compile(elman.optimizers.Adam(0.01), "mse")
    return model


def small_data(rng, n=24):
    x = rng.standard_normal((n, 7, 3), np.float32)
    return x, x.sum(axis=(1, 2))


def test_a_second_fit_of_a_model_is_refused_and_the_first_goes_on(rng):
    x, y = small_data(rng)
    alone, model = small(), small()
    alone.fit(x, y, epochs=4, verbose=0)
    inside, go = threading.Event(), threading.Event()
    wait = LambdaCallback(on_epoch_begin=lambda epoch, logs: (inside.set(), go.wait(900)))
    first = threading.Thread(target=lambda: model.fit(x, y, epochs=4, verbose=0, callbacks=[wait]))
    first.start()
    assert inside.wait(900)
    before = model.get_weights()
    shared = Callback()
    for call in (
        lambda: model.fit(x, y, epochs=1, verbose=0, callbacks=[shared]),
        lambda: elman.fit_many([small(1), model], [(x, y)] * 2, workers=1, epochs=1),
    ):
        with pytest.raises(RuntimeError, match=r"^model: fit\(\) while it is being fitted; wait .* or fit a copy"):
            call()
    assert shared.model is None
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    go.set()
    first.join()
    same_model(model, alone)
    model.fit(x, y, epochs=1, verbose=0)  # afterwards it can be fitted


def same_model(model, other):
    pairs = [(model.get_weights(), other.get_weights())]
    pairs.append([list(m.optimizer.state().values()) for m in (model, other)])
    for mine, theirs in pairs:
        for a, b in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(a, b)


CALLS = {
    "get_weights": lambda model, place: model.get_weights(),
    "set_weights": lambda model, place: model.set_weights([np.zeros_like(v.value) for v in model.weights]),
    "layer.get_weights": lambda model, place: model.layers[0].get_weights(),
    "layer.set_weights": lambda model, place: model.layers[1].set_weights([np.zeros((6, 1)), np.zeros(1)]),
    "deepcopy": lambda model, place: copy.deepcopy(model),
    "save": lambda model, place: model.save(place / "model.npz"),
    "compile": lambda model, place: model.compile("sgd", "mse"),
    "reset_states": lambda model, place: model.reset_states(),
    "predict": lambda model, place: model.predict(np.ones((1, 7, 3))),
}


@pytest.mark.parametrize(("call", "built"), [*((call, True) for call in CALLS), ("predict", False)])
def test_others_wait_for_the_end_of_a_batch(call, built, rng, tmp_path):
    """A model's lock is held from the begin of a batch to its end; a model that has none yet is not built meanwhile."""
    model = small()
    if built:
        model.train_on_batch(*small_data(rng))
    thread = threading.Thread(target=lambda: CALLS[call](model, tmp_path))
    with model.lock:
        thread.start()
        thread.join(0.2)
        assert thread.is_alive() and (model._vector is not None) == built
    thread.join()
    assert model._vector is not None


@pytest.mark.parametrize("kind", w.MODELS)
def test_everything_beside_a_fit_sees_the_model_between_batches(kind, tmp_path):
    """Weights, copies and files are those after a whole number of batches; the fit does not notice."""
    epochs = thorough(4, 200)
    after = []
    keep = lambda batch, logs: after.append(w.digest(*model.get_weights()))
    alone, model = w.MODELS[kind](), w.MODELS[kind]()
    alone.fit(**w.data(kind)[0], batch_size=8, epochs=epochs, verbose=0)
    w.fit(model, kind, epochs=0)  # built
    after.append(w.digest(*model.get_weights()))
    arguments = w.data(kind)[1]
    over, seen, errors = threading.Event(), [], []

    def look(number):
        try:
            while not over.is_set():
                seen.append(w.digest(*model.get_weights()))
                seen.append(w.digest(*copy.deepcopy(model).get_weights()))
                model.save(tmp_path / f"{number}.npz")
                seen.append(w.digest(*elman.load_model(tmp_path / f"{number}.npz").get_weights()))
                assert np.isfinite(model.predict(**arguments)).all()
                assert np.isfinite(model.evaluate(**w.data(kind)[0], verbose=0)).all()
        except Exception as error:
            errors.append(error)

    lookers = [threading.Thread(target=look, args=(k,)) for k in range(2)]
    for looker in lookers:
        looker.start()
    model.fit(
        **w.data(kind)[0], batch_size=8, epochs=epochs, verbose=0, callbacks=[LambdaCallback(on_train_batch_end=keep)]
    )
    over.set()
    for looker in lookers:
        looker.join()
    assert errors == []
    same_model(model, alone)
    assert len(seen) > 5 and set(seen) <= set(after)


@pytest.mark.parametrize("kind", w.MODELS)
def test_batches_from_many_threads_are_trained_one_after_another(kind):
    """Equal batches, so that their order does not matter."""
    batch = {name: value[: w.B] for name, value in w.data(kind)[0].items()}
    alone, model = w.MODELS[kind](), w.MODELS[kind]()
    each = thorough(5, 300)
    for _ in range(4 * each):
        alone.train_on_batch(**batch)

    def job():
        for _ in range(each):
            model.train_on_batch(**batch)

    # Not built yet, without optimizer state: the first batches come at once.
    assert together([job] * 4) == [None] * 4
    same_model(model, alone)


def test_a_model_is_built_once_by_many_threads(rng):
    x, _ = small_data(rng)
    for seed in range(thorough(5, 300)):
        expected = small(seed).predict(x)
        model = small(seed)
        for found in together([lambda model=model: model.predict(x)] * 6):
            np.testing.assert_array_equal(found, expected)


def test_evaluations_of_a_stateful_model_do_not_mix(rng):
    x, y = small_data(rng, 60)
    model = small(stateful=True)
    expected = model.evaluate(x, y, batch_size=2, verbose=0)
    for _ in range(thorough(2, 50)):
        found = together([lambda: model.evaluate(x, y, batch_size=2, verbose=0)] * 4)
        assert found == [expected] * 4


def test_a_forecaster_that_is_updated_forecasts_the_old_or_the_new():
    y = w.series()
    made = w.forecaster(seeds=2).fit(y[:-12])
    reference = copy.deepcopy(made)
    states = [reference.predict()]
    for k in range(2):
        states.append(reference.update(y[-12 + 6 * k :][:6], epochs=1).predict())
    known = {w.digest(state) for state in states}
    assert len(known) == 3
    over, seen, errors = threading.Event(), [], []

    def look():
        try:
            while not over.is_set():
                seen.append(w.digest(made.predict()))
                seen.append(w.digest(copy.deepcopy(made).predict()))
        except Exception as error:
            errors.append(error)

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for looker in lookers:
        looker.start()
    for k in range(2):
        made.update(y[-12 + 6 * k :][:6], epochs=1)
    over.set()
    for looker in lookers:
        looker.join()
    assert errors == []
    assert w.digest(made.predict()) == w.digest(states[-1])
    assert set(seen) <= known


def test_updates_of_a_forecaster_from_many_threads_lose_nothing():
    y = {f"series {k}": values for k, values in enumerate(w.series().T)}
    made = w.forecaster().fit(y)
    new = [{f"new {k}": np.arange(40.0) + k} for k in range(6)]
    assert all(found is made for found in together([lambda one=one: made.update(one, epochs=0.1) for one in new]))
    assert set(made._panel.ids) == {*y, *(name for one in new for name in one)}
    assert all(np.isfinite(found).all() for found in made.predict().values())


# ---- calls from callbacks


class Inside(Callback):
    """Does something at every hook of every epoch."""

    def __init__(self, act):
        self.act = act

    def on_epoch_end(self, epoch, logs):
        self.act(self.model)

    def on_train_batch_end(self, batch, logs):
        self.act(self.model)


@pytest.mark.parametrize("kind", w.MODELS)
def test_predictions_and_another_fit_within_a_fit_change_nothing(kind):
    arguments, given = w.data(kind)[1], w.data(kind)[0]
    alone, model, other = (w.MODELS[kind]() for _ in range(3))
    w.fit(alone, kind)
    found = []

    def act(model):
        found.append(model.predict(**arguments))
        model.evaluate(**given, verbose=0)
        model.predict_on_batch(arguments["x"][:5])
        w.fit(other, kind, epochs=1)
        model.get_weights(), copy.deepcopy(model)

    w.fit(model, kind, callbacks=[Inside(act)])
    same_model(model, alone)
    np.testing.assert_array_equal(found[-1], alone.predict(**arguments))
    again = w.MODELS[kind]()
    for _ in found:
        w.fit(again, kind, epochs=1)
    same_model(other, again)


def test_a_fit_within_its_own_fit_is_refused(rng):
    x, y = small_data(rng)
    model, other = small(), small(1)
    fit = lambda model, act: model.fit(x, y, epochs=1, verbose=0, callbacks=[Inside(act)])
    with pytest.raises(RuntimeError, match=r"^model: fit\(\) while it is being fitted"):
        fit(model, lambda _: fit(model, lambda _: None))
    with pytest.raises(RuntimeError, match=r"^model: fit\(\) while it is being fitted"):  # through another one
        fit(model, lambda _: fit(other, lambda _: fit(model, lambda _: None)))
    for one in (model, other):  # nothing is left locked
        one.compile("adam", "mse")
        fit(one, lambda _: None)


# ---- the interpreter's lock


def test_python_threads_take_turns_often_while_one_trains(rng):
    x, y = small_data(rng)
    before = sys.getswitchinterval()
    seen = []
    look = Inside(lambda model: seen.append(sys.getswitchinterval()))
    model = small()
    model.fit(x, y, epochs=1, verbose=0, callbacks=[look])
    assert min(seen) == max(seen) == pytest.approx(5e-6) and sys.getswitchinterval() == before
    together([lambda k=k: small(k).fit(x, y, epochs=3, verbose=0) for k in range(4)])
    assert sys.getswitchinterval() == before
    try:
        sys.setswitchinterval(2e-6)  # a user's smaller one stays
        model.fit(x, y, epochs=1, verbose=0, callbacks=[look])
        assert seen[-1] == pytest.approx(2e-6) and sys.getswitchinterval() == pytest.approx(2e-6)
        sys.setswitchinterval(before)
        # And one that is set meanwhile.
        model.fit(x, y, epochs=1, verbose=0, callbacks=[Inside(lambda model: sys.setswitchinterval(0.02))])
        assert sys.getswitchinterval() == pytest.approx(0.02)
    finally:
        sys.setswitchinterval(before)


LINUX = sys.platform == "linux"


def turns():
    """The interval in microseconds, and this thread's timer slack in nanoseconds."""
    return round(1e6 * sys.getswitchinterval()), threads._timer_slack(threads._GET_TIMER_SLACK)


def free(lock):
    """Whether a thread that calls this gets the lock, which it gives back."""
    taken = lock.acquire(timeout=1)
    if taken:
        lock.release()
    return taken


def test_a_fit_that_is_not_the_only_one_asks_for_the_lock_later():
    before, seen = turns(), []

    def look():
        with threads.sharing():
            seen.append(turns())

    with threads.sharing():
        seen.append(turns())
        look()  # the same thread
        other = threading.Thread(target=look)
        other.start()
        other.join()
        seen.append(turns())
    assert seen == [(5, LINUX), (5, LINUX), (50, LINUX), (5, LINUX)]
    assert turns() == before


def test_the_validation_of_a_fit_is_no_second_one(rng):
    x, y = small_data(rng)
    seen = []
    look = lambda batch, logs: seen.append(turns())
    small().fit(
        x, y, epochs=1, verbose=0, validation_split=0.5,
        callbacks=[LambdaCallback(on_train_batch_end=look), LambdaCallback(on_test_batch_end=look)],
    )  # fmt: skip
    assert len(seen) > 1 and set(seen) == {(5, LINUX)}


@pytest.mark.parametrize("microseconds", [33, 49, 2, 5000])
def test_the_interval_is_as_before_to_the_microsecond(microseconds):
    before = sys.getswitchinterval()
    try:
        sys.setswitchinterval(1e-6 * microseconds + 5e-7)
        with threads.sharing():
            assert turns()[0] == min(microseconds, 5)
        assert turns()[0] == microseconds
    finally:
        sys.setswitchinterval(before)


def test_an_interrupt_on_the_way_in_leaves_nothing_changed():
    """KeyboardInterrupt at the k-th line from the begin of `sharing` to its body, for every k.

    Python takes no signal between the last line of a with block and the release of its lock, so not there.
    """
    before = turns()
    for k in range(1, 100):
        left = [k]

        def trace(frame, event, argument, left=left):
            if frame.f_code.co_filename != threads.__file__:
                return None
            line = linecache.getline(threads.__file__, frame.f_lineno).strip()
            left[0] -= event == "line" and not line.startswith("with ")
            if left[0] == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
            return trace

        context = threads.sharing()
        sys.settrace(trace)
        try:
            context.__enter__()
        except KeyboardInterrupt:
            sys.settrace(None)
            assert turns() == before and not threads._sharers, k
            assert together([lambda: free(threads._sharing_lock)]) == [True]
        else:
            break
        finally:
            sys.settrace(None)
    context.__exit__(None, None, None)
    assert turns() == before and k > 10


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_forked_beside_a_fit_of_another_thread_has_the_interval_of_before():
    before = turns()
    inside, over = threading.Event(), threading.Event()

    def hold():
        with threads.sharing():
            inside.set()
            over.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    assert inside.wait(60)
    child = os.fork()
    if child == 0:
        with threads.sharing():
            within = turns()
        os._exit(0 if (turns(), within) == (before, (5, LINUX)) else 1)
    over.set()
    holder.join()
    assert os.waitpid(child, 0)[1] == 0
    assert turns() == before


def test_layers_alone_are_safe_too(rng):
    layer = SimpleRNN(5)
    layer(rng.standard_normal((2, 3, 4)))
    xs = [rng.standard_normal((n, 6, 4)) for n in (1, 3, 8, 20)]
    expected = [layer(x) for x in xs]
    for _ in range(thorough(5, 200)):
        for got, wanted in zip(together([lambda x=x: layer(x) for x in xs]), expected, strict=True):
            np.testing.assert_array_equal(got, wanted)
