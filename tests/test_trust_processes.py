"""Forked and spawned processes: children of a process that has trained work on, with the same bits, and never hang."""

import multiprocessing
import os

import pytest
import workloads as w
from apart import PATIENCE, run
from effort import thorough

from elman import jit

pytestmark = [
    pytest.mark.skipif(jit.DISABLED, reason="nothing is compiled under NUMBA_DISABLE_JIT"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here"),
]
layers = pytest.mark.parametrize("layer", ["omp", "workqueue"])

# Children that crash or hang are reported by the parent. `alarm` ends what hangs, in any thread.
BEGIN = f"""
import os, signal, sys, threading, traceback
import numpy as np
import elman, workloads as w

def fork(job):
    child = os.fork()
    if child:
        return child
    signal.alarm({PATIENCE // 3})
    code = 1
    try:
        job()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)

def ended(*children):
    for child in children:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

def same(found, expected):
    assert found == expected, (found, expected)
"""

FORK = """
model = w.stacked()
w.fit(model, "stacked")
made = w.forecaster(seeds=2).fit(w.series())
expected = {kind: w.train(kind) for kind in w.KINDS}
bits, forecast = w.model_bits(model, "stacked"), w.digest(made.predict())
def work():
    same(w.model_bits(model, "stacked"), bits)  # what the parent made
    same(w.digest(made.predict()), forecast)
    same({kind: w.train(kind) for kind in w.KINDS}, expected)  # and anew
    w.fit(model, "stacked")
    same(w.model_bits(model, "stacked"), longer)
def generations(left):
    work() if left == depth else same({kind: w.train(kind) for kind in w.KINDS}, expected)
    if left:
        ended(fork(lambda: generations(left - 1)), fork(lambda: generations(left - 1)))
with elman.num_threads(1):
    import copy
    again = copy.deepcopy(model)
    w.fit(again, "stacked")
    longer = w.model_bits(again, "stacked")
depth = int(sys.argv[1])
ended(fork(lambda: generations(depth)), fork(lambda: generations(depth)))
same(w.model_bits(model, "stacked"), bits)  # the parent is as before, and still runs in parallel
same({kind: w.train(kind) for kind in w.KINDS}, expected)
print("fine")
"""


@layers
def test_children_and_grandchildren_of_a_fork(layer):
    """Each of two children forks two, and in a thorough run each of those two more, and so on."""
    run(BEGIN + FORK, thorough(1, 3), NUMBA_THREADING_LAYER=layer)


POOL = """
import multiprocessing, os, sys
import workloads as w

def job(task):
    return w.train(*task), os.getpid()

if __name__ == "__main__":
    method = sys.argv[1]
    tasks = [(kind, seed) for seed in range(int(sys.argv[2])) for kind in w.KINDS]
    expected = [w.train(*task) for task in tasks]
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(["elman"])
    with context.Pool(2) as pool:
        found = pool.map(job, tasks, chunksize=1)
    assert [bits for bits, _ in found] == expected
    assert os.getpid() not in {pid for _, pid in found}
    assert [w.train(*task) for task in tasks] == expected
    print("fine")
"""


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_a_pool_of_processes(method, tmp_path):
    # Children import the main module, so it must be a file.
    script = tmp_path / "pool.py"
    script.write_text(POOL)
    begin = "import runpy, sys\ndel sys.argv[0]\nrunpy.run_path(sys.argv[0], run_name='__main__')"
    run(begin, script, method, thorough(1, 20))


# A parent that trains, forks workers as gunicorn does, and replaces those that die; workers answer requests.
PREFORK = """
import socket
model = w.classifier()
w.fit(model, "classifier")
x = w.data("classifier")[1]["x"]
expected = model.predict(x)
after = w.train("classifier", 5)
workers, requests = map(int, sys.argv[1:])

def serve(connection):
    while True:
        message = connection.recv(64)
        if not message:
            return
        row = int(message)
        if row < 0:
            answer = w.train("classifier", 5).encode()
        else:
            answer = model.predict(x[row : row + 1]).tobytes()
        connection.sendall(len(answer).to_bytes(4, "big") + answer)

def read(connection, count):
    found = b""
    while len(found) < count:
        part = connection.recv(count - len(found))
        assert part, "the worker is gone"
        found += part
    return found

def ask(connection, row):
    connection.sendall(b"%d" % row)
    return read(connection, int.from_bytes(read(connection, 4), "big"))

def worker():
    mine, theirs = socket.socketpair()
    child = fork(lambda: (mine.close(), [one.close() for _, one in pool], serve(theirs)))
    theirs.close()
    return child, mine

pool = []
for _ in range(workers):
    pool.append(worker())
for row in range(requests):
    n = row % workers
    same(ask(pool[n][1], row % len(x)), expected[row % len(x)].tobytes())
    if row % 7 == 6:  # one dies, another takes its place
        child, connection = pool.pop(n)
        os.kill(child, signal.SIGKILL), os.waitpid(child, 0), connection.close()
        pool.insert(n, worker())
for child, connection in pool:
    same(ask(connection, -1).decode(), after)  # workers train, too
    connection.close()
    ended(child)
print("fine")
"""


@layers
def test_workers_forked_after_the_parent_has_trained(layer):
    run(BEGIN + PREFORK, 3, thorough(21, 700), NUMBA_THREADING_LAYER=layer)


# Forks come while another thread holds the locks of models and of the compiler.
BUSY = """
model = w.stacked()
w.fit(model, "stacked", epochs=0)
seen, over = {w.digest(*model.get_weights())}, threading.Event()
expected = w.train("bidirectional")
def train():
    note = lambda batch, logs: seen.add(w.digest(*model.get_weights()))
    keep = elman.callbacks.LambdaCallback(on_train_batch_end=note)
    while not over.is_set():
        w.fit(model, "stacked", epochs=1, callbacks=[keep])
def new():
    while not over.is_set():
        elman.layers.Dense(3)(np.ones((2, 4)))
def child():
    print(w.digest(*model.get_weights()), file=out, flush=True)
    assert np.isfinite(model.predict(**w.data("stacked")[1])).all()
    same(w.train("bidirectional"), expected)
threads = [threading.Thread(target=train), threading.Thread(target=new)]
for thread in threads: thread.start()
import tempfile
out = tempfile.TemporaryFile("w+")
ended(*[fork(child) for _ in range(int(sys.argv[1]))])
over.set()
for thread in threads: thread.join()
out.seek(0)
found = set(out.read().split())
assert found <= seen, found - seen  # no child has a model in the middle of a batch
assert w.digest(*model.get_weights()) in seen
print("fine")
"""


@layers
def test_forks_while_another_thread_trains(layer):
    run(BEGIN + BUSY, thorough(8, 300), NUMBA_THREADING_LAYER=layer)


COMPILING = """
import time
expected = elman.layers.Activation("softsign")(np.linspace(-2, 2, 9))
begun = threading.Event()
def compile_():
    begun.set()
    elman.layers.Activation("selu")(np.linspace(-2, 2, 9, dtype=np.float32))
def child():
    same(elman.layers.Activation("softsign")(np.linspace(-2, 2, 9)).tobytes(), expected.tobytes())
    elman.layers.Activation("elu")(np.linspace(-2, 2, 9))  # compiles in the child
thread = threading.Thread(target=compile_)
thread.start()
begun.wait()
time.sleep(0.05)
ended(fork(child), fork(child))
thread.join()
print("fine")
"""


def test_forks_while_another_thread_compiles(tmp_path):
    run(BEGIN + COMPILING, ELMAN_CACHE_DIR=str(tmp_path))


WITHIN = """
model = w.stacked()
expected = w.train("bidirectional")
children = []
def child():
    same(w.train("bidirectional"), expected)
    model.predict(**w.data("stacked")[1]), model.train_on_batch(**w.data("stacked")[0])
act = lambda batch, logs: children.append(fork(child)) if batch == 1 else None
class Forking(elman.losses.MeanSquaredError):
    def on_batch(self, *args):  # while a batch is computed, by the thread that holds the model
        if len(children) < 2:
            children.append(fork(child))
        return super().on_batch(*args)
alone = w.stacked()
w.fit(alone, "stacked", epochs=1)
w.fit(model, "stacked", epochs=1, callbacks=[elman.callbacks.LambdaCallback(on_train_batch_end=act)])
same(w.model_bits(model, "stacked"), w.model_bits(alone, "stacked"))
model = w.stacked()
model.compile(model.optimizer.from_config(model.optimizer.get_config()), Forking())
w.fit(model, "stacked", epochs=1)
same(w.model_bits(model, "stacked"), w.model_bits(alone, "stacked"))
ended(*children)
assert len(children) == 2
print("fine")
"""


def test_a_fork_from_a_callback_and_from_a_loss():
    run(BEGIN + WITHIN)


EXPECTED_THREADS = """
assert elman.threads.usable_threads() == 2
def child():
    assert elman.threads.usable_threads() == 1
    ended(fork(lambda: same(elman.threads.usable_threads(), 1)))
ended(fork(child))
assert elman.threads.usable_threads() == 2
print("fine")
"""


def test_forked_children_run_serially():
    run(BEGIN + EXPECTED_THREADS, NUMBA_NUM_THREADS="2")


def test_the_workloads_give_the_same_bits_twice():
    """Else the tests above would say nothing."""
    assert [w.train(kind) for kind in w.KINDS] == [w.train(kind) for kind in w.KINDS]
    assert len({w.train(kind, seed) for kind in w.KINDS for seed in (0, 1)}) == 2 * len(w.KINDS)
