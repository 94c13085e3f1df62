"""What models share, and what they must not: copies, threads, layers, memory."""

import copy
import gc
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest

import elman
from elman.layers import GRU, LSTM, Activation, Dense, Layer, RepeatVector, TimeDistributed
from elman.testing import check_gradients

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(40, 6, 3)), RNG.normal(size=(40, 1))


def trained(optimizer="adam"):
    model = elman.Sequential([GRU(5, return_sequences=True), TimeDistributed(Dense(4)), LSTM(3), Dense(1)], seed=0)
    model.compile(optimizer, "mse", metrics=["mae"])
    model.fit(X, Y, epochs=2, verbose=0)
    return model


@pytest.mark.parametrize("copier", [copy.deepcopy, copy.copy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_of_a_model_goes_on_alone_with_the_same_bits(copier):
    model = trained()
    other = copier(model)
    before = model.get_weights()
    theirs = other.fit(X, Y, epochs=2, verbose=0).history
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert model.fit(X, Y, epochs=2, verbose=0).history == theirs
    np.testing.assert_array_equal(model.predict(X), other.predict(X))


def test_a_model_that_is_not_built_can_be_copied():
    model = elman.Sequential([LSTM(3), Dense(1)], seed=1)
    model.compile("sgd", "mse")
    other = copy.deepcopy(model)
    assert model.fit(X, Y, verbose=0).history == other.fit(X, Y, verbose=0).history


def test_a_copy_of_a_layer_has_its_own_parameters():
    layer = LSTM(4)
    outputs = layer(X)
    other = pickle.loads(pickle.dumps(layer))
    np.testing.assert_array_equal(other(X), outputs)
    other.set_weights([np.zeros_like(w) for w in other.get_weights()])
    assert not other(X).any()
    np.testing.assert_array_equal(layer(X), outputs)


def test_an_optimizer_can_be_pickled_after_training():
    model = trained(elman.optimizers.Adam(1e-2))
    assert pickle.loads(pickle.dumps(model.optimizer)).iterations == model.optimizer.iterations


def test_one_model_in_two_threads_gives_each_its_own_numbers():
    model = elman.Sequential([LSTM(32, return_sequences=True), GRU(16), Dense(2)], seed=0)
    inputs = [RNG.normal(size=(64, 20, 3)).astype(np.float32) for _ in range(2)]
    expected = [model.predict(x) for x in inputs]
    wrong = []

    def work(x, y):
        for _ in range(40):
            if not np.array_equal(model.predict(x), y):
                wrong.append(1)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(inputs, expected, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_layer_inside_another_is_shared_by_nobody():
    dense = Dense(3)
    with pytest.raises(ValueError, match="the same Dense instance stands twice"):
        elman.Sequential([TimeDistributed(dense), TimeDistributed(dense), GRU(2)])
    with pytest.raises(ValueError, match="the same Dense instance stands twice"):
        elman.Sequential([dense, TimeDistributed(dense), GRU(2)])
    first = elman.Sequential([TimeDistributed(dense), GRU(2)], seed=0)
    first.build((None, 3))
    with pytest.raises(ValueError, match="belongs to another model"):
        elman.Sequential([TimeDistributed(dense), GRU(2)], seed=0).build((None, 64))
    assert first.predict(X).shape == (40, 2)


def test_layer_and_optimizer_are_free_again_once_their_model_is_gone():
    layer, adam = Dense(1), elman.optimizers.Adam()
    model = elman.Sequential([GRU(2), layer], seed=0)
    model.compile(adam, "mse")
    model.fit(X, Y, verbose=0)
    del model
    gc.collect()
    other = elman.Sequential([GRU(2), layer], seed=0)
    other.compile(adam, "mse")
    other.fit(X, Y, verbose=0)


class Doubling(Layer):
    """A user's layer whose arithmetic widens the dtype in one direction."""

    def compute_output_shape(self, shape):
        return shape

    def forward(self, x, *, training):
        return x * np.array([2.0]) if self.name == "wide" else x * np.float32(2)

    def backward(self, dy, *, input_gradient):
        return dy * np.array([2.0])


elman.layers.LAYERS.pop("Doubling")  # for tests that go through all layers


@pytest.mark.parametrize(("name", "direction"), [("wide", "forward"), ("narrow", "backward")])
def test_a_layer_that_changes_the_dtype_is_told(name, direction):
    model = elman.Sequential([LSTM(3, return_sequences=True), Doubling(name=name), LSTM(2), Dense(1)], seed=0)
    model.compile("sgd", "mse")
    with pytest.raises(TypeError, match=f"layer '{name}': {direction} returned float64"):
        model.train_on_batch(X, Y)


def test_a_layer_may_not_take_the_name_of_another_modules():
    with pytest.raises(ValueError, match="a class 'Dense' exists in elman"):
        type("Dense", (Layer,), {"__module__": "mine"})


def test_set_weights_from_the_models_own_views():
    model = elman.Sequential([Dense(3), Dense(3), Dense(3)], seed=0)
    model.build((3,))
    first, bias, second, *rest = (w.value for w in model.weights)
    expected = first.copy(), second.copy()
    model.set_weights([second, bias, first, *rest])
    np.testing.assert_array_equal(model.get_weights()[0], expected[1])
    np.testing.assert_array_equal(model.get_weights()[2], expected[0])


def test_sequences_of_one_feature_below_layers_that_take_anything():
    model = elman.Sequential([Activation("tanh"), LSTM(3), Dense(1)], seed=0)
    assert model.predict(X[:, :, 0]).shape == (40, 1)
    flat = elman.Sequential([Dense(4), RepeatVector(3), LSTM(2)], seed=0)
    assert flat.predict(X[:, :, 0]).shape == (40, 2)
    assert flat.get_weights()[0].shape == (6, 4)


def test_an_unregistered_cell_is_refused_when_it_is_saved(tmp_path):
    from dataclasses import replace

    cell = replace(elman.cells.CELLS["simple"], name="nobody")
    model = elman.Sequential([elman.layers.RNN(3, cell=cell), Dense(1)], "float64", seed=0)
    model.compile("sgd", "mse")
    check_gradients(model, X, Y)
    with pytest.raises(ValueError, match="'nobody' is not registered"):
        model.save(tmp_path / "model.npz")
    assert not list(tmp_path.iterdir())


def test_the_same_definition_may_be_registered_again():
    source = """
from elman.cells import CELLS, Cell, register
def kernels(act, gate):
    return CELLS["simple"].kernels(act, gate)
for _ in range(2):
    def kernels(act, gate):
        return CELLS["simple"].kernels(act, gate)
    register(Cell("again", states=1, x=(0,), h=(0,), kernels=kernels, reference=CELLS["simple"].reference))
"""
    try:
        exec(source, {"__name__": "notebook"})
        with pytest.raises(ValueError, match="taken by another cell"):
            exec(source, {"__name__": "elsewhere"})
    finally:
        elman.cells.CELLS.pop("again", None)


def test_evaluating_in_a_callback_leaves_the_means_alone():
    class Curious(elman.callbacks.Callback):
        def on_train_batch_end(self, batch, logs):
            self.model.evaluate(X[:1], Y[:1] + 9, verbose=0)

        def on_test_batch_end(self, batch, logs):
            if len(calls) < 50:  # it is called in its own evaluation too
                calls.append(1)
                self.model.evaluate(X[:1], Y[:1] + 9, verbose=0)

    calls: list[int] = []
    plain, curious = trained(), trained()
    kwargs = {"epochs": 2, "verbose": 0, "validation_data": (X[:20], Y[:20]), "validation_batch_size": 5}
    assert curious.fit(X, Y, callbacks=[Curious()], **kwargs).history == plain.fit(X, Y, **kwargs).history
    assert calls


@pytest.mark.parametrize("weights", [{"sample_weight": np.full(40, 1e300)}, {"class_weight": {0: 1e300}}])
def test_weights_beyond_the_dtype_are_refused(weights):
    model = trained()
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"sample_weight: .* not finite in float32"):
        model.train_on_batch(X, (Y > 0).astype(float), **weights)
    with pytest.raises(ValueError, match="loss_weights"):
        model.compile("sgd", "mse", loss_weights=1e300)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("make", [lambda v: LSTM(2, return_sequences=v), lambda v: Dense(2, use_bias=v)])
def test_flags_are_true_or_false(make):
    with pytest.raises(TypeError, match="expected True or False, got str 'no'"):
        make("no")
    assert make(np.True_).get_config()


def test_buffers_go_with_their_model_without_the_cyclic_collector():
    script = """
import gc, resource
import numpy as np, elman
gc.disable()
x = np.zeros((64, 200, 8), np.float32)
rng = np.random.default_rng(0)
p = [rng.normal(size=s).astype(np.float32) for s in ((8, 256), (64, 256))]
peaks = []
for _ in range(12):
    outputs, state, tape = elman.functional.recurrent("lstm", x, p)
    tape.backward(outputs)
    del outputs, state, tape
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(peaks[-1] - peaks[1])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 20_000  # KiB; one call holds 25 MB


def test_an_unregistered_loss_is_refused_when_the_model_is_saved(tmp_path):
    class Mine(elman.losses.MeanSquaredError):
        pass

    model = elman.Sequential([Dense(1)], seed=0)
    model.compile("sgd", Mine())
    model.fit(X[:, 0], Y, verbose=0)
    with pytest.raises(ValueError, match="loss: Mine is in no registry"):
        model.save(tmp_path / "model.npz")
    assert not list(tmp_path.iterdir())
