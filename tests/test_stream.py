"""Step by step as all steps at once: `Sequential.stream` against `predict`, to the bit."""

import copy
import gc
import itertools
import pickle
import sys
import threading
import tracemalloc
import weakref

import numpy as np
import pytest

from elman import Sequential
from elman.cells import CELLS
from elman.jit import compile_counts
from elman.layers import (
    GRU,
    LSTM,
    RNN,
    Activation,
    Bidirectional,
    Dense,
    Dropout,
    EmbedColumns,
    Embedding,
    Flatten,
    GaussianNoise,
    Input,
    LastSteps,
    Layer,
    LayerNormalization,
    Masking,
    RepeatVector,
    SimpleRNN,
    SpatialDropout1D,
    TimeDistributed,
)
from elman.layers.activation import ACTIVATION_NAMES
from elman.streaming import _Compiled, _Layered

T, F, V = 6, 3, 7
BATCHES = (1, 2, 5, 8)


class Doubled(Layer):
    """A layer of a user."""

    streams = True

    def compute_output_shape(self, shape):
        return shape

    def forward(self, x, *, training):
        return x + x

    def backward(self, dy, *, input_gradient):
        return dy + dy


def build(stack, shape=(None, F), dtype="float32"):
    """A model with random weights and biases."""
    model = Sequential([Input(shape), *stack], dtype, seed=1)
    rng = np.random.default_rng(2)
    model.set_weights([0.5 * rng.standard_normal(w.shape) for w in model.get_weights()])
    return model


def data(batch, dtype="float32", steps=T, features=F):
    return np.random.default_rng(3).standard_normal((batch, steps, features)).astype(dtype)


def ids(batch, steps=T):
    return np.random.default_rng(4).integers(0, V, (batch, steps))


def outputs(step, x, form=lambda x_t: x_t):
    """What the stepper gives for every step of x (B, T, ...), (B, T, O)."""
    one = step.batch_size == 1
    found = [np.copy(step(form(x[0, t] if one else x[:, t]))) for t in range(x.shape[1])]
    return np.stack([y[None] if one else y for y in found], axis=1)


def expected(model, x):
    """The same by `predict`: of the whole sequence, or of what was there at each step."""
    if len(model.output_shape) == 2:
        return model.predict(x, batch_size=len(x))
    return np.stack([model.predict(x[:, : t + 1], batch_size=len(x)) for t in range(x.shape[1])], axis=1)


def check(stack, x, shape=(None, F), dtype="float32", kind=_Compiled):
    model = build(stack, shape, dtype)
    wanted = expected(model, x)
    assert np.isfinite(wanted).all() and np.ptp(wanted) > 0
    step = model.stream(len(x))
    assert type(step) is kind
    np.testing.assert_array_equal(outputs(step, x), wanted)
    step.reset()
    np.testing.assert_array_equal(outputs(step, x), wanted)


# ---- bits


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cell", CELLS)
def test_every_cell(cell, dtype):
    for batch, units in itertools.product(BATCHES, (7, 20)):
        x = data(batch, dtype)
        check([RNN(units, cell=cell), Dense(1)], x, dtype=dtype)
        upper = RNN(5, cell=cell, return_sequences=True, activation="softsign", recurrent_activation="hard_sigmoid")
        lower = RNN(units, cell=cell, return_sequences=True, zoneout=0.2, learn_initial_state=True)
        check([lower, upper], x, dtype=dtype)


@pytest.mark.parametrize("activation", ACTIVATION_NAMES)
def test_every_activation(activation):
    for batch, units in itertools.product(BATCHES, (1, 3, 17, 70)):
        if activation != "softmax" or units > 1:
            check([LSTM(9), Dense(units, activation)], data(batch))
        check([GRU(9, return_sequences=True), Dense(units), Activation(activation), Dense(2)], data(batch))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch", BATCHES)
def test_layers_around_the_recurrent_ones(batch, dtype):
    x = data(batch, dtype)
    noise = [Dropout(0.3), SpatialDropout1D(0.2), GaussianNoise(0.1)]
    each = [TimeDistributed(Dense(4, "softmax")), TimeDistributed(LayerNormalization())]
    check([LSTM(9, return_sequences=True), LayerNormalization(), *noise, *each], x, dtype=dtype)
    norms = [LayerNormalization(center=False), LayerNormalization(scale=False, epsilon=1e-5), LayerNormalization()]
    recurrent = [GRU(33, return_sequences=True, use_bias=False), SimpleRNN(11)]
    check([norms[0], recurrent[0], norms[1], recurrent[1], norms[2], Flatten(), Dense(19)], x, dtype=dtype)
    both = LSTM(40, return_sequences=True, zoneout=(0.1, 0.3)), GRU(10, reset_after=False, dropout=0.2)
    check([Dense(20, "tanh"), *both, Dense(2)], x, dtype=dtype)
    check([Dense(5), Dense(20, "tanh")], x, dtype=dtype)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("sequences", [True, False])
def test_steps_that_a_mask_excludes(batch, sequences):
    x, tokens = data(batch, steps=12), ids(batch, 12)
    x[np.random.default_rng(5).random((batch, 12)) < 0.4] = -1
    x[0, 0] = -1
    tokens[0, :2] = 0
    recurrent = {"return_sequences": sequences, "zoneout": 0.2, "learn_initial_state": True}
    check([Masking(-1), LSTM(9, **recurrent), Dense(3)], x)
    check([Embedding(V, 5, mask_zero=True), GRU(9, **recurrent), Dense(3)], tokens, (None,))
    zeroed = LSTM(9, return_sequences=True, zero_output_for_mask=True)
    check([Masking(-1), zeroed, GRU(9, return_sequences=sequences)], x, kind=_Layered)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch", BATCHES)
def test_tokens(batch, dtype):
    tokens = ids(batch)
    check([Embedding(V, 5), LSTM(9, return_sequences=True), Dense(V, "softmax")], tokens, (None,), dtype)
    check([Embedding(V, 20), Dropout(0.1), GRU(9), Dense(V)], tokens, (None,), dtype)
    check([Embedding(V, 5), LSTM(9), Dense(V)], tokens.astype(np.float32), (None,), dtype)


@pytest.mark.parametrize("batch", BATCHES)
def test_layers_without_a_compiled_step(batch):
    x = data(batch)
    check([Doubled(), LSTM(9, return_sequences=True, learn_initial_state=True), Dense(3, "softmax")], x, kind=_Layered)
    check([Dense(3), Doubled(), GRU(9, zoneout=0.2), Dense(3)], x, dtype="float64", kind=_Layered)
    x[..., 1] = ids(batch)
    check([EmbedColumns([(1, V, 3)]), Dense(2)], x, kind=_Layered)
    each = [TimeDistributed(Embedding(V, 4)), TimeDistributed(Flatten())]
    check([*each, GRU(5)], ids(batch)[..., None], (None, 1), kind=_Layered)


def test_a_layer_so_large_that_other_threads_may_run_meanwhile():
    check([GRU(600), Dense(1)], data(1, steps=3))
    assert build([GRU(600)]).stream()._step is not build([GRU(6)]).stream()._step


def test_models_made_for_one_length():
    check([GRU(5, return_sequences=True), Dense(1)], data(2), shape=(T, F))


# ---- what a step takes and gives


def test_forms_of_x():
    model, x = build([GRU(5), Dense(2)]), data(1)
    wanted = outputs(model.stream(), x)
    for form in (
        lambda v: v.astype(np.float64),
        lambda v: v[None],
        lambda v: v[None].astype(np.float64),
        lambda v: v.tolist(),
        lambda v: np.repeat(v, 2)[::2],
        lambda v: v.astype(">f4"),
        lambda v: np.broadcast_to(v, (1, F)),
        lambda v: np.asfortranarray(v[None]),
    ):
        np.testing.assert_array_equal(outputs(model.stream(), x, form), wanted)
    whole = np.rint(4 * x)
    wanted = outputs(model.stream(), whole)
    for dtype in (np.int16, np.int64, np.float16):
        np.testing.assert_array_equal(outputs(model.stream(), whole.astype(dtype)), wanted)


def outputs_of(step, values):
    return [step(v).tolist() for v in values]


def test_forms_of_tokens():
    model = build([Embedding(V, 4), GRU(5), Dense(2)], (None,))
    wanted = outputs_of(model.stream(), [3, 1])
    for form in (np.int64, np.int32, np.uint8, float, np.float32, np.array, lambda v: [v], lambda v: np.array([v])):
        assert outputs_of(model.stream(), [form(3), form(1)]) == wanted
    pair = build([Embedding(V, 4), GRU(5), Dense(2)], (None,)).stream(2)
    both = pair(np.array([3, 1]))
    np.testing.assert_array_equal(both[0], wanted[0])
    pair.reset()
    np.testing.assert_array_equal(pair([3, 1]), both)


def test_the_output_is_one_array_and_nothing_is_allocated():
    features, tokens = build([LSTM(9), Dense(3)]), build([Embedding(V, 5), GRU(9), Dense(3)], (None,))
    for model, batch, x, shape in (
        (features, 1, data(1)[0, 0], (3,)),
        (features, 5, data(5)[:, 0].copy(), (5, 3)),
        (tokens, 1, 2, (3,)),
        (tokens, 2, np.array([1, 2]), (2, 3)),
    ):
        step = model.stream(batch)
        first = step(x)
        assert first.shape == shape and first.dtype == np.float32
        kept = first.copy()
        for _ in itertools.repeat(None, 10):
            assert step(x) is first
        assert (first != kept).all()
        gc.disable()
        try:
            before = sys.getallocatedblocks()
            for _ in itertools.repeat(None, 1000):
                step(x)
            assert sys.getallocatedblocks() - before < 10
            tracemalloc.start()
            for _ in itertools.repeat(None, 1000):
                step(x)
            now, peak = tracemalloc.get_traced_memory()
            assert now < 1000 and peak < 1000
        finally:
            tracemalloc.stop()
            gc.enable()


def test_nothing_is_left_to_compile_for_the_first_step():
    model = build([RNN(9, cell="mgu", activation="elu"), Dense(3, "softmax")])
    steps = model.stream(), model.stream(2)
    before = compile_counts()
    steps[0](data(1)[0, 0]), steps[1](data(2)[:, 0].astype(np.float64))
    assert compile_counts() == before


def test_the_output_may_be_the_next_input_or_be_written_to():
    model = build([LSTM(9), Dense(F)])
    step, other = model.stream(), model.stream()
    y = other(data(1)[0, 0]).copy()
    z = step(data(1)[0, 0])
    for _ in range(4):
        y = other(y).copy()
        z = step(z)
        np.testing.assert_array_equal(z, y)
    z[:] = 0
    np.testing.assert_array_equal(step(data(1)[0, 1]), other(data(1)[0, 1]))


NAN, WIDE = np.array([0, np.nan, 0], np.float32), np.array([0, 0, 1e300])
BAD_FEATURES = {
    r"x: expected shape \(3,\) or \(1, 3\) for one step, got \(4,\)": np.zeros(4, np.float32),
    r"x: expected shape .*, got \(1, 4\)": np.zeros((1, 4)),
    r"x: expected shape .*, got \(2, 3\)": np.zeros((2, 3), np.float32),
    r"x: expected shape .*, got \(1, 1, 3\)": np.zeros((1, 1, 3), np.float32),
    r"x: expected shape .*, got \(3, 1\)": np.zeros((3, 1)),
    r"x: expected shape .*, got \(\)": 0.5,
    r"x: the array is empty": np.zeros(0, np.float32),
    r"x: 1 of 3 values are not finite in float32 .* first at index \(1,\): nan": NAN,
    r"x: .* not finite .* index \(0, 1\): nan": NAN[None],
    r"x: .* first at index \(2,\): inf": np.array([0, 0, np.inf]),
    r"x: 1 of 3 values are not finite in float32 .* first at index \(2,\): 1e\+300": WIDE,
    r"x: expected numbers, got an array of dtype complex128": np.zeros(3, complex),
    r"x: expected numbers, got an array of dtype <U1": np.array(["a", "b", "c"]),
    r"x: expected numbers, got an array of dtype object": None,
    r"x: .* nested sequences of unequal length": [[1], [2, 3]],
}
BAD_TOKENS = {
    r"x: expected token numbers, integers from 0 to 6 \(input_dim=7\), got 7": 7,
    r"x: expected token numbers, .*, got -1": -1,
    r"x: expected token numbers, .*, got 2.5": 2.5,
    r"x: expected token numbers, .*, got 9": np.array([9]),
    r"x: .* not finite": float("nan"),
    r"x: expected shape \(\) or \(1,\) for one step, got \(2,\)": np.array([1, 2]),
    r"x: expected numbers, got an array of dtype complex128": 1 + 0j,
    r"x: expected numbers, got an array of dtype object": 10**30,
}


@pytest.mark.parametrize("message", [*BAD_FEATURES, *BAD_TOKENS])
@pytest.mark.parametrize("user_layer", [False, True])
def test_a_wrong_x_is_named_and_changes_nothing(message, user_layer):
    more = [Doubled()] if user_layer else []
    if message in BAD_FEATURES:
        x, good, model = BAD_FEATURES[message], data(1)[0, 0], build([GRU(5), Dense(2), *more])
    else:
        x, good, model = BAD_TOKENS[message], 3, build([Embedding(V, 4), GRU(5), Dense(2), *more], (None,))
    step = model.stream()
    step(good)
    before = step.states
    with pytest.raises((ValueError, TypeError), match=message):
        step(x)
    for a, b in zip(step.states[0], before[0], strict=True):
        np.testing.assert_array_equal(a, b)
    other = model.stream()
    other(good)
    np.testing.assert_array_equal(step(good), other(good))


def test_a_wrong_batch():
    step = build([GRU(5)]).stream(2)
    for x in (np.zeros(3, np.float32), np.zeros((1, 3), np.float32), np.zeros((3, 2)), np.zeros(6, np.float32)):
        with pytest.raises(ValueError, match=r"x: expected shape \(2, 3\) for one step, got"):
            step(x)
    tokens = build([Embedding(V, 4), GRU(5)], (None,)).stream(2)
    for x in (1, np.array([1]), np.array([[1, 2]])):
        with pytest.raises(ValueError, match=r"x: expected shape \(2,\) for one step, got"):
            tokens(x)
    with pytest.raises(ValueError, match=r"got 9 at index \(1,\)"):
        tokens(np.array([1, 9]))


@pytest.mark.parametrize(
    ("stack", "shape", "message"),
    [
        ([Bidirectional(GRU(2)), Dense(1)], (None, F), "layer 'bidirectional' needs whole sequences"),
        ([GRU(2, go_backwards=True, name="back")], (None, F), "layer 'back' needs whole sequences"),
        ([Flatten(), Dense(1)], (T, F), "layer 'flatten' needs whole sequences"),
        ([GRU(3), RepeatVector(4), GRU(2)], (None, F), "layer 'repeatvector' needs whole sequences"),
        ([LastSteps(2), GRU(3)], (T, F), "layer laststeps: needs at least"),
        ([Dense(1)], (F,), "model: it takes vectors"),
    ],
)
def test_layers_that_need_whole_sequences_are_named(stack, shape, message):
    with pytest.raises(ValueError, match=message):
        Sequential([Input(shape), *stack]).stream()


def test_arguments():
    with pytest.raises(ValueError, match="model: not built yet"):
        Sequential([GRU(2)]).stream()
    model = build([GRU(2)])
    with pytest.raises(ValueError, match="batch_size: expected an integer of at least 1, got 0"):
        model.stream(0)
    with pytest.raises(TypeError, match="batch_size: expected an integer"):
        model.stream(1.5)
    step = model.stream()
    for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="a stepper cannot be copied or pickled"):
            duplicate(step)


# ---- states


def stacks():
    """With a compiled step, and without."""
    for more in ([], [Doubled()]):
        recurrent = LSTM(5, return_sequences=True, learn_initial_state=True), GRU(4, zoneout=0.1)
        yield build([*recurrent, Dense(2), *more])


@pytest.mark.parametrize("batch", [1, 3])
def test_states_can_be_read_set_and_reset(batch):
    for model in stacks():
        x, step = data(batch), model.stream(batch)
        assert [[s.shape for s in layer] for layer in step.states] == [[(batch, 5)] * 2, [(batch, 4)]]
        begin = model.get_weights()[3]
        for state, row in zip(step.states[0], begin, strict=True):
            np.testing.assert_array_equal(state, np.tile(row, (batch, 1)))
        first = outputs(step, x[:, :3])
        kept = step.states
        rest = outputs(step, x[:, 3:])
        step.set_states(kept)
        np.testing.assert_array_equal(outputs(step, x[:, 3:]), rest)
        np.testing.assert_array_equal(np.concatenate([first, rest], 1), expected(model, x))
        other = model.stream(batch)
        other.set_states(kept)
        np.testing.assert_array_equal(outputs(other, x[:, 3:]), rest)
        kept[0][0][:] = 9  # copies
        assert (other.states[0][0] != 9).all()
        step.reset()
        np.testing.assert_array_equal(outputs(step, x[:, :3]), first)


def test_states_are_those_of_the_layer():
    layer, x = LSTM(5, return_state=True), data(2)
    _, h, c = layer(x)
    model = Sequential([Input((None, F)), LSTM(5)])
    model.set_weights(layer.get_weights())
    step = model.stream(2)
    outputs(step, x)
    np.testing.assert_array_equal(step.states[0], [h, c])


def test_wrong_states_change_nothing():
    for model in stacks():
        step = model.stream()
        outputs(step, data(1))
        before, y = step.states, step(data(1)[0, 0]).copy()
        step.set_states(before)
        good = [[np.ones((1, 5))] * 2, [np.ones((1, 4))]]
        for states, kind, message in (
            (5, TypeError, "states: expected a list"),
            (good[:1], ValueError, "states: expected 2 entries, one for each of the recurrent layers, got 1"),
            ([good[0][:1], good[1]], ValueError, r"states\[0\]: expected 2 entries, .* states of layer 'lstm', got 1"),
            ([good[0], np.ones(4)], TypeError, r"states\[1\]: expected a list"),
            ([good[0], [np.ones((2, 4))]], ValueError, r"states\[1\]\[0\]: expected shape \(1, 4\), got \(2, 4\)"),
            ([good[0], [np.full((1, 4), np.nan)]], ValueError, r"states\[1\]\[0\]: 4 of 4 values are not finite"),
        ):
            with pytest.raises(kind, match=message):
                step.set_states(states)
        np.testing.assert_array_equal(step(data(1)[0, 0]), y)


def test_two_steppers_and_the_model_share_nothing():
    for model in stacks():
        x, other = data(1), data(1)[:, ::-1].copy()
        wanted, more = expected(model, x), expected(model, other)
        first, second = model.stream(), model.stream()
        found, also = [], []
        for t in range(T):
            found.append(first(x[0, t]).copy())
            model.stream_step(x[:, :2])
            model.predict(other)
            also.append(second(other[0, t]).copy())
        np.testing.assert_array_equal(found, wanted[0])
        np.testing.assert_array_equal(also, more[0])


def test_stateful_models_begin_anew():
    x = data(2)
    model = build([GRU(4, stateful=True, return_sequences=True), Dense(1)])
    model.predict(x)
    model.reset_states()
    wanted = model.predict(x)
    model.predict(x)
    kept = [a.copy() for a in model._states.arrays().values()]
    np.testing.assert_array_equal(outputs(model.stream(2), x), wanted)
    for a, b in zip(model._states.arrays().values(), kept, strict=True):
        np.testing.assert_array_equal(a, b)


def test_threads_with_a_stepper_each():
    model = build([LSTM(16, return_sequences=True), GRU(8), Dense(1)])
    x = np.random.default_rng(7).standard_normal((4, 50, F), np.float32)
    wanted = [outputs(model.stream(), x[k : k + 1]) for k in range(4)]
    found, together = [None] * 4, threading.Barrier(4)

    def meet(x_t):
        together.wait(30)
        return x_t

    def work(k):
        found[k] = outputs(model.stream(), x[k : k + 1], meet)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(found, wanted)


# ---- weights and memory


def test_weights_are_read_when_the_stepper_is_made_and_by_refresh():
    for model in stacks():
        x = data(1)
        before, step, other = expected(model, x), model.stream(), model.stream()
        model.set_weights([w + 0.25 for w in model.get_weights()])
        after = expected(model, x)
        assert (after != before).any(axis=-1).all()
        np.testing.assert_array_equal(outputs(step, x), before)
        step.reset()
        np.testing.assert_array_equal(outputs(step, x), before)
        step.reset()
        step.refresh()
        step.reset()
        np.testing.assert_array_equal(outputs(step, x), after)
        outputs(other, x[:, :2])
        kept = other.states
        other.refresh()
        for a, b in zip(itertools.chain(*other.states), itertools.chain(*kept), strict=True):
            np.testing.assert_array_equal(a, b)


def test_every_kind_of_weight_is_refreshed():
    for first, x in (([], data(2)), ([Embedding(V, 4)], ids(2))):
        recurrent = RNN(5, cell="peephole_lstm", return_sequences=True), RNN(4, cell="layer_norm_lstm")
        model = build([*first, LayerNormalization(), *recurrent, Dense(2)], (None, *x.shape[2:]))
        step = model.stream(2)
        model.set_weights([w + 0.25 for w in model.get_weights()])
        step.refresh()
        np.testing.assert_array_equal(outputs(step, x), expected(model, x))


def test_training_goes_on_beside_a_stepper():
    model, x = build([GRU(5), Dense(1)]), data(8)
    model.compile("adam", "mse")
    step, wanted = model.stream(8), expected(model, x)
    model.fit(x, x[:, -1, :1], epochs=1, verbose=0)
    np.testing.assert_array_equal(outputs(step, x), wanted)
    step.reset(), step.refresh()
    np.testing.assert_array_equal(outputs(step, x), expected(model, x))


def test_a_stepper_keeps_the_model_and_frees_its_memory_at_once():
    for model in stacks():
        step = model.stream()
        weak = weakref.ref(model)
        del model
        assert weak() is step.model
    step = build([GRU(5), Dense(1)]).stream()
    arena = weakref.ref(step._packed._arena)
    gc.disable()
    try:
        del step
        assert arena() is None
    finally:
        gc.enable()
