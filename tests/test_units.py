"""One long sequence, whose units are shared out to threads."""

import copy
import os
import pickle
import time
from dataclasses import replace
from itertools import chain, repeat

import numpy as np
import pytest
from children import run

import elman
from elman import frames
from elman.cells import CELLS
from elman.jit import maximum_threads
from elman.jit.calls import Calls
from elman.kernels import meeting
from elman.kernels.meeting import _ALONE, _LOST, Crew
from elman.kernels.simd import VECTORS, lanes
from elman.plans import make_plan, packed_panels
from elman.recurrence import Recurrence
from elman.testing.cells import Problem, check_cell_gradients, check_values
from elman.testing.exact import Runner, check_single
from elman.threads import usable_cores

DTYPES = [np.dtype("float64"), np.dtype("float32")]
RECURRENT = [name for name, cell in CELLS.items() if cell.h]
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)
two_threads = pytest.mark.skipif(min(maximum_threads(), usable_cores()) < 2, reason="needs two threads and cores")


def units(dtype, panels):
    """Units whose gates have that many panels, and some padding."""
    return panels * VECTORS * lanes(dtype) - 3


def draw(cell, dtype, panels, steps=12, inputs=3):
    return Problem.draw(CELLS[cell], (1, steps, inputs, units(dtype, panels)), ("tanh", "sigmoid"), [panels, inputs])


def as_a_batch(problem):
    r = Runner(problem, DTYPES[1])
    r.single(0)
    return r.everything()


@pytest.fixture
def all_long(monkeypatch):
    """Every sequence counts as long, every share as large, and hardly anybody waits too long."""
    for name, value in (("_PARALLEL_FLOPS", -1), ("_SHARE_FLOPS", {True: 1, False: 1}), ("_LOOK_FLOPS", 1)):
        monkeypatch.setattr(frames, name, value)


# ---- numbers


@pytest.mark.parametrize("cell", RECURRENT)
@pytest.mark.parametrize("has_state", [True, False])
def test_values_and_gradients(cell, has_state, thread_counts, all_long):
    problem = draw(cell, DTYPES[0], 3, steps=5)
    problem = problem if has_state else problem.without_state()
    for threads in thread_counts:
        with elman.num_threads(threads):
            r = Runner(problem, DTYPES[0])
            tape = r.recurrence.forward(r.x, r.parameters, r.state, training=True, sequences=True)
            assert r.recurrence.plan.shares(threads) == threads
            assert tape.crew.size == (min(threads, usable_cores()) if CELLS[cell].elementwise else 1)
            check_values(problem)
            check_cell_gradients(problem, np.random.default_rng(threads))


@dtypes
@pytest.mark.parametrize("panels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("cell", ["gru", "gru_reset_before", "peephole_lstm"])
def test_bits_do_not_depend_on_shares(cell, panels, dtype):
    for inputs in (1, 2 * VECTORS * lanes(dtype) + 5):
        check_single(draw(cell, dtype, panels, inputs=inputs), dtype)


@dtypes
@pytest.mark.parametrize("vectors", [3, 5, 7])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_gates_with_an_odd_number_of_vectors(cell, vectors, dtype):
    problem = Problem.draw(CELLS[cell], (1, 40, 3, vectors * lanes(dtype) - 1), ("tanh", "sigmoid"), 1)
    check_single(problem, dtype)


@pytest.mark.parametrize("checkpoint", [None, 1, "sqrt"])
def test_segments(checkpoint, thread_counts):
    problem = draw("gru_reset_before", DTYPES[1], 2, steps=11)
    plain = as_a_batch(problem)
    problem = replace(problem, path=replace(problem.path, checkpoint=checkpoint))
    for threads in thread_counts:
        with elman.num_threads(threads):
            r = Runner(problem, DTYPES[1])
            r.single(threads)
            for got, wanted in zip(r.everything(), plain, strict=True):
                np.testing.assert_array_equal(got, wanted)


def some(r, *, single, threads, norms):
    """The outputs, of inference too, and gradients of x read backwards, of the last output alone, without dx."""
    steps, batch = r.x.shape[1], r.x.shape[0]
    x, found = r.x[:, ::-1], []
    for sequences in (True, False):
        frame = r.recurrence._frame(batch, steps, training=True, sequences=sequences, noise=frames.Noise())
        frame.single, frame.most_shares, frame.looks = single, threads, 1 << 40
        tape = r.recurrence.forward(x, r.parameters, None, training=True, sequences=sequences)
        assert (tape.crew.size if tape.crew else 0) == (threads if single else 0)
        targets = [np.full_like(p, np.nan) for p in r.parameters]
        lengths = np.full((steps, batch), np.nan) if norms else None
        dx = tape.run_backward(
            r.d_outputs if sequences else r.d_outputs[:, -1:], None, targets, input_gradient=sequences, norms=lengths
        )
        found += [tape.outputs.copy(), *targets, *([dx.copy()] if sequences else []), *([lengths] if norms else [])]
    frame = r.recurrence._frame(batch, steps, training=False, sequences=True, noise=frames.Noise())
    frame.single, frame.most_shares, frame.looks = single, threads, 1 << 40
    return [*found, r.recurrence.forward(x, r.parameters, None, training=False, sequences=True).outputs.copy()]


@pytest.mark.parametrize("norms", [False, True])
@pytest.mark.parametrize("cell", ["lstm", "gru_reset_before"])
def test_other_calls(cell, norms, thread_counts):
    problem = draw(cell, DTYPES[1], 3)
    expected = some(Runner(problem, DTYPES[1]), single=False, threads=1, norms=norms)
    for threads in thread_counts:
        with elman.num_threads(threads):
            found = some(Runner(problem, DTYPES[1]), single=True, threads=threads, norms=norms)
        for got, wanted in zip(found, expected, strict=True):
            np.testing.assert_array_equal(got, wanted)


@two_threads
def test_many_meetings():
    """A number that is read before it is there, once in some thousand meetings, would show."""
    problem = draw("gru_reset_before", DTYPES[1], 2, steps=200)
    whole = as_a_batch(problem)
    some_looks, together = np.random.default_rng(1).integers(-1000, 10_000, 100), 0
    deadline = time.monotonic() + 60  # beside a busy process the second thread may come too late two hundred times
    with elman.num_threads(2):
        for k, looks in enumerate(chain(some_looks, repeat(1 << 40))):
            if k >= 200 and (together > 0 or time.monotonic() > deadline):
                break
            r = Runner(problem, DTYPES[1])
            r.single(2, int(looks))
            for got, wanted in zip(r.everything(), whole, strict=True):
                np.testing.assert_array_equal(got, wanted)
            together += 2 - r._frame().crew(None, 2).meeting[_ALONE]  # on the way forward, on the way back
    assert together > 0


@two_threads
def test_a_fit_gives_the_same_bits_for_any_threads(thread_counts, rng):
    x, y = rng.standard_normal((3, 120, 5)), rng.standard_normal((3, 1))
    found = []
    for threads in thread_counts:
        with elman.num_threads(threads):
            layers = [elman.layers.LSTM(64, return_sequences=True), elman.layers.GRU(128), elman.layers.Dense(1)]
            model = elman.Sequential(layers, seed=3)
            model.compile("adam", "mse")
            losses = model.fit(x, y, batch_size=1, epochs=3, verbose=0).history["loss"]
            found.append([losses, *model.get_weights(), model.predict(x, batch_size=1)])
            crews = [c for f in model.layers[1]._recurrence._frames.values() for c in f._crews]
            assert max(crews) == min(threads, usable_cores())
    for other in found[1:]:
        for got, wanted in zip(other, found[0], strict=True):
            np.testing.assert_array_equal(got, wanted)
    assert found[0][0][-1] < found[0][0][0]


# ---- threads that do not come, and that are sent home


@two_threads
@pytest.mark.parametrize("cell", ["lstm", "gru_reset_before"])
def test_one_thread_does_the_work_of_all(cell, monkeypatch):
    """One after another, as where a process may have one thread alone."""
    problem = draw(cell, DTYPES[1], 3)
    whole = as_a_batch(problem)

    def one_after_another(calls):
        for entry, _, args in calls._calls:
            entry(1, *args)

    monkeypatch.setattr(Calls, "__call__", one_after_another)
    with elman.num_threads(2):
        r = Runner(problem, DTYPES[1])
        r.single(2)
        for _ in range(3):  # the memory of the meetings lasts
            for got, wanted in zip(r.everything(), whole, strict=True):
                np.testing.assert_array_equal(got, wanted)
        alone, lost = r._frame().crew(None, 2).meeting[[_ALONE, _LOST]]
    assert alone == 6 and lost == 6 * meeting._TOO_LATE  # on the way forward and back


INTERLEAVED = """
import sys, threading
import numpy as np
from elman.kernels import meeting
from elman.kernels.meeting import Crew, arrive, gathered, meet, part

sys.setswitchinterval(1e-6)
rng = np.random.default_rng(int(sys.argv[1]))
for case in range(150):
    threads, steps, meetings = (int(n) for n in rng.integers((2, 1, 1), (5, 12, 3)))
    crew = Crew(threads, 0)
    for call in range(4):
        # Phases of all steps, by share; nobody may begin one before all shares of the last one are done.
        done = np.zeros((steps * meetings, threads), int)
        patience = int(rng.choice([-1, 0, 3, 1 << 40]))

        def work(i):
            start, t = arrive(crew.meeting, i, steps * meetings)
            home, together = start + steps * meetings + 1, i > 0
            while 0 <= t < steps:
                together = together or gathered(crew.meeting, start, t, t * meetings)
                for m in range(meetings):
                    phase = t * meetings + m
                    assert (done[:phase] == 1).all()
                    done[phase, slice(i, i + 1) if together else slice(None)] += 1
                    if together:
                        together = meet(crew.meeting, i, start + phase + 1, home, patience)
                        if i > 0 and not together:
                            return
                t += 1
            part(crew.meeting, i, home, together)

        failed = []
        threading.excepthook = lambda what: failed.append(what)
        team = [threading.Thread(target=work, args=(i,), daemon=True) for i in rng.permutation(threads)]
        for one in team:
            one.start()
        for one in team:
            one.join(60)
        assert not failed and not any(one.is_alive() for one in team), (case, call, patience, done)
        assert (done == 1).all(), (case, call, patience, done)
"""


@pytest.mark.parametrize("seed", [1, 2])
def test_any_order_of_what_threads_do(seed, tmp_path):
    """Threads of Python, which may change at every line: each share of each phase is done once, and nobody is lost."""
    script = INTERLEAVED.replace("sys.argv[1]", str(seed))
    assert not run(script, tmp_path, NUMBA_DISABLE_JIT="1").stderr


SLOW = """
import threading, time
from elman.kernels import meeting as m

crew, steps = m.Crew(2, 0), 50

def call(patience, rest):
    done = [0, 0]

    def work(i):
        start, _ = m.arrive(crew.meeting, i, steps)
        while i == 0 and not m.gathered(crew.meeting, start, 0, 0):
            pass
        together, t = True, 0
        while t < steps and together:
            time.sleep(rest * i)
            done[i], t = t + 1, t + 1
            together = m.meet(crew.meeting, i, start + t, start + steps + 1, patience)
        m.part(crew.meeting, i, start + steps + 1, together)

    team = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for one in team:
        one.start()
    for one in team:
        one.join()
    return done

# The first meeting takes more looks than it has patience for in 32: the second one is the last.
assert call(10, 0.01) == [2, 2]
assert crew.meeting[m._ALONE] == 1 and crew.meeting[m._EXCESS] > 320 and crew.meeting[m._LOST] > 320
lost = int(crew.meeting[m._LOST])
assert call(1 << 40, 0) == [steps, steps]
assert crew.meeting[m._ALONE] == 1 and crew.meeting[m._LOST] == lost and crew.meeting[m._EXCESS] == 0
crew.meeting[m._EXCESS] = 5  # of the call before
assert m.arrive(crew.meeting, 0, 1)[1] == 0 and crew.meeting[m._EXCESS] == 0
"""


def test_the_first_thread_counts_its_looks(tmp_path):
    assert not run(SLOW, tmp_path, NUMBA_DISABLE_JIT="1").stderr


def test_after_failures_ever_more_time_goes_by(monkeypatch):
    crew, now, tried = Crew(2, 5), [1000.0], []
    monkeypatch.setattr(meeting.time, "monotonic", lambda: now[0])
    for _ in range(50_000):
        if crew.attempt():
            tried.append(now[0])
            crew.meeting[_ALONE] += 1
        now[0] += 0.0001
    np.testing.assert_allclose(np.diff(tried)[:7], [0.001, 0.004, 0.016, 0.064, 0.256, 1, 1], atol=3e-4)
    now[0] += 2
    assert [crew.attempt() for _ in range(3)] == [True] * 3  # it went well
    crew.meeting[_ALONE] += 2  # on the way forward and back
    assert not crew.attempt()
    now[0] += 0.0011
    assert crew.attempt()


def test_after_a_loss_its_twentyfold_goes_by(monkeypatch):
    crew, now = Crew(2, 5), [1000.0]
    monkeypatch.setattr(meeting.time, "monotonic", lambda: now[0])
    assert crew.attempt()
    crew.meeting[_ALONE] += 1
    crew.meeting[_LOST] += round(0.004 / meeting._LOOK)
    assert not crew.attempt()
    now[0] += 0.079
    assert not crew.attempt()
    now[0] += 0.002
    assert crew.attempt()


@two_threads
def test_who_is_sent_home_is_left_out(all_long, monkeypatch):
    monkeypatch.setattr(frames, "_MEETING_LOOKS", -(1 << 40))
    problem = draw("lstm", DTYPES[1], 2, steps=200)
    with elman.num_threads(2):
        r, sizes = Runner(problem, DTYPES[1]), []
        for _ in range(200):
            tape = r.recurrence.forward(r.x, r.parameters, None, training=True, sequences=True)
            sizes.append(tape.crew.size)
    assert sizes[0] == 2 and sizes[1] == 1 and sizes.count(1) > sizes.count(2)


FORKED = """
import os, sys
import numpy as np
from elman.functional import recurrent

x, kernel, recurrent_kernel = (np.full(shape, 0.01, np.float32) for shape in ((1, 100, 8), (8, 512), (128, 512)))
x[0, :, 0] = np.linspace(-1, 1, 100)
tape = recurrent("lstm", x, [kernel, recurrent_kernel])[2]
assert tape.crew.size == 2
child = os.fork()
if child == 0:
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cpus[-1:])
    found = tape.backward(np.ones((1, 100, 128), np.float32))
    os._exit(0 if all(np.isfinite(p).all() and p.any() for p in found.parameters) else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@two_threads
@pytest.mark.skipif(not hasattr(os, "fork") or not hasattr(os, "sched_setaffinity"), reason="Linux")
def test_a_forked_child_goes_back_in_one_thread(kernel_cache):
    assert run(FORKED, kernel_cache, check=False).returncode == 0


def test_a_copy_has_memory_of_its_own():
    crew = Crew(2, 5)
    crew.meeting[...] = 3
    for other in (copy.deepcopy(crew), pickle.loads(pickle.dumps(crew))):
        assert (other.size, other.patience) == (2, 5) and not other.meeting.any()


# ---- who shares what


def crew_of(cell, size, threads=2, mask=None, drop=None, **options):
    batch, steps, inputs, h = size
    cell = CELLS[cell]
    r = Recurrence(cell, inputs, h, DTYPES[1], "tanh", "sigmoid")
    _, parameters, _ = Problem.draw(cell, (1, 1, inputs, h), ("tanh", "sigmoid"), 0).split(DTYPES[1])
    with elman.num_threads(threads):
        x = np.zeros((batch, steps, inputs), np.float32)
        tape = r.forward(x, parameters, None, training=False, sequences=False, mask=mask, drop=drop, **options)
    return tape.crew.size if tape.crew else 0


@two_threads
def test_which_sequences_are_shared_out():
    assert crew_of("lstm", (1, 500, 8, 64)) == 2
    assert crew_of("lstm", (1, 500, 8, 64), threads=1) == 1
    assert crew_of("simple", (1, 500, 8, 64)) == 1  # little work in each step
    assert crew_of("layer_norm_lstm", (1, 500, 8, 64)) == 1  # its units see each other
    assert crew_of("lstm", (1, 500, 8, 100)) == crew_of("simple", (1, 500, 8, 128)) == 2
    assert crew_of("lstm", (1, 20, 8, 64)) == 0  # short
    assert crew_of("lstm", (2, 500, 8, 64)) == 0
    assert crew_of("mingru", (1, 500, 8, 256)) == 0  # no recurrent product
    assert crew_of("lstm", (1, 500, 8, 64), mask=np.ones((500, 1), np.uint8)) == 0
    assert crew_of("lstm", (1, 500, 8, 64), drop=np.ones((1, 64), np.float32)) == 0


def test_all_cells_but_one_work_unit_by_unit():
    assert [name for name, cell in CELLS.items() if not cell.elementwise] == ["layer_norm_lstm"]


@two_threads
def test_a_process_with_one_core_shares_nothing(monkeypatch):
    monkeypatch.setattr(frames, "usable_cores", lambda: 1)
    assert crew_of("lstm", (1, 500, 8, 64)) == 1


@two_threads
def test_a_cell_that_mixes_units_is_caught():
    """It takes a share for a whole sequence, and writes nowhere else."""
    wrong = replace(CELLS["layer_norm_lstm"], name="wrong", elementwise=True)
    problem = replace(draw("layer_norm_lstm", DTYPES[1], 2, steps=300), cell=wrong)
    with pytest.raises(AssertionError, match="units in 2 shares"):
        for _ in range(100):  # all by the first thread where the other one comes late
            check_single(problem, DTYPES[1])


@dtypes
def test_shares_are_whole_panels(dtype):
    def shares(panels, threads):
        return make_plan(CELLS["gru"], 3, units(dtype, panels), dtype).shares(threads)

    assert [shares(1, n) for n in (1, 2, 8)] == [1, 1, 1]
    assert [shares(4, n) for n in (1, 2, 3, 4, 8)] == [1, 2, 2, 4, 4]
    assert [shares(5, n) for n in (2, 3, 4, 5)] == [2, 3, 3, 5]


@dtypes
@pytest.mark.parametrize("vectors", [9, 10])
@pytest.mark.parametrize("cell", ["gru", "gru_reset_before", "simple"])
def test_every_share_of_a_group_has_its_weights_in_one_piece(cell, vectors, dtype):
    plan_key = CELLS[cell], 3, vectors * lanes(dtype), dtype
    plan = make_plan(*plan_key)
    for shares in (1, 2, 3, 5):
        # Where each number of each vector lies: its place in the order of shares, gates, panels, rows.
        places = {}
        for q, count, kx, kh, to, line in packed_panels(plan_key, shares):
            for v in range(count):
                places[q + v] = to + v * plan.width + np.arange(kx + kh) * line * plan.width
        assert len(places) == plan.groups[:, 1].sum() * vectors
        starts = [first + np.arange(plan.width) for place in places.values() for first in place]
        np.testing.assert_array_equal(np.sort(np.concatenate(starts)), np.arange(plan.packed))
        size = -(-vectors // (VECTORS * shares)) * VECTORS
        for first, gates, kx, kh, offset in plan.groups:
            wanted = offset
            for begin in range(0, vectors, size):
                own = range(begin, min(begin + size, vectors))
                order = [(first + gate) * vectors + v for gate in range(gates) for v in own]
                for k in range(0, len(order), VECTORS):
                    line = order[k : k + VECTORS]
                    for v, q in enumerate(line):
                        assert places[q][0] == wanted + v * plan.width
                        assert (np.diff(places[q]) == len(line) * plan.width).all()
                    wanted += len(line) * plan.width * (kx + kh)
