"""Features that meet: what each of them promises must hold beside the others."""

import copy

import numpy as np
import pytest

import elman
from elman import Sequential, layers, losses, optimizers
from elman.layers import GRU, Bidirectional, Dense, Embedding, Input, TimeDistributed

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(12, 6, 2)), RNG.normal(size=(12, 1))
STEPS = RNG.normal(size=(12, 6, 3))


def model(*stack, optimizer="sgd", loss="mse", **options):
    built = Sequential([Input((None, 2)), *stack], dtype="float64", seed=0)
    built.compile(optimizer, loss, **options)
    return built


def same(a, b):
    for left, right in zip(a.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


def test_every_window_that_begins_with_the_sequence_trains_the_initial_state():
    """k2 = T: each window starts at step 0 with the initial state as it is by then."""
    rate = 0.1
    trained = model(GRU(3, return_sequences=True, learn_initial_state=True), optimizer=optimizers.SGD(rate))
    by_hand = copy.deepcopy(trained)
    trained.fit(X[:4], STEPS[:4], batch_size=4, shuffle=False, tbptt=(2, 6), verbose=0)
    for end in (2, 4, 6):
        weight = np.where(np.arange(end) >= end - 2, end / 2, 0.0)  # the mean is over the two steps that count
        by_hand.train_on_batch(X[:4, :end], STEPS[:4, :end], sample_weight=np.tile(weight, (4, 1)))
    for a, b in zip(trained.get_weights(), by_hand.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-13)


@pytest.mark.parametrize("wrap", [TimeDistributed, lambda layer: TimeDistributed(TimeDistributed(layer))])
def test_wrapped_layers_that_were_called_alone_keep_their_weights(wrap):
    dense = Dense(2)
    dense(np.ones((1, 3)))
    dense.set_weights([np.full((3, 2), 7.0), np.ones(2)])
    expected = dense.get_weights()
    wrapped = wrap(dense)
    depth = 3 if isinstance(wrapped.layer, TimeDistributed) else 2
    wrapped(np.ones((1, *(2,) * (depth - 1), 3)))
    for a, b in zip(wrapped.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_bidirectional_layers_keep_their_weights_in_a_model():
    alone = Bidirectional(GRU(3))
    alone(X)
    alone.set_weights([RNG.normal(size=w.shape) for w in alone.get_weights()])
    expected = alone.get_weights()
    built = Sequential([Input((None, 2)), alone, Dense(1)], dtype="float64", seed=0)
    for a, b in zip(built.get_weights(), expected, strict=False):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("first", [lambda: Embedding(9, 3), lambda: TimeDistributed(Dense(3))], ids=["table", "dense"])
def test_trainable_takes_effect_at_compile(first):
    x = RNG.integers(0, 9, (8, 5)) if isinstance(first(), Embedding) else RNG.normal(size=(8, 5, 9))
    y = RNG.normal(size=(8, 1))
    built = Sequential([first(), GRU(3), Dense(1)], seed=0)
    built.compile("adam", "mse")
    built.fit(x, y, verbose=0)
    built.layers[0].trainable = False
    copied = copy.deepcopy(built)
    before = built.get_weights()[0]
    built.fit(x, y, shuffle=False, verbose=0)
    assert (built.get_weights()[0] != before).any()
    copied.fit(x, y, shuffle=False, verbose=0)
    same(built, copied)
    built.compile("adam", "mse")
    built.layers[0].trainable = True  # after compile: too late
    before = built.get_weights()
    built.fit(x, y, verbose=0)
    np.testing.assert_array_equal(built.get_weights()[0], before[0])
    assert (built.get_weights()[-2] != before[-2]).any()


@pytest.mark.parametrize("how", ["lengths", "mask"])
def test_ctc_names_the_sample_whose_labels_are_too_long_before_training(how):
    labels = np.tile([1, 2, 1], (12, 1))
    lengths = np.full(12, 6)
    lengths[10] = 2
    given = {"lengths": lengths} if how == "lengths" else {"mask": np.arange(6) < lengths[:, None]}
    built = model(GRU(3, return_sequences=True), loss=losses.CTC())
    before = built.get_weights()
    with pytest.raises(ValueError, match=r"^y: sample 10 has 3 labels"):
        built.fit(X, labels, batch_size=4, verbose=0, **given)
    for a, b in zip(built.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_ctc_takes_lists_of_labels_of_any_length():
    frames = [X[0], X[1, :5], X[2, :4]]
    labels = [np.array([1, 2]), np.array([2]), np.array([1, 1])]
    built = model(GRU(3, return_sequences=True), loss=losses.CTC())
    padded = np.array([[1, 2], [2, -1], [1, 1]])
    x = np.zeros((3, 6, 2))
    for row, part in zip(x, frames, strict=True):
        row[: len(part)] = part
    expected = built.loss_and_gradients(x, padded, lengths=[6, 5, 4])[0]
    assert built.evaluate(frames, labels, verbose=0) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("hook", ["on_epoch_begin", "on_train_batch_end", "on_test_begin"])
def test_compile_is_refused_while_a_loop_runs(hook):
    built = model(GRU(3), Dense(1))
    callback = elman.callbacks.LambdaCallback(**{hook: lambda *args: built.compile("adam", "mae")})
    with pytest.raises(RuntimeError, match=r"^model: compile\(\) while"):
        built.fit(X, Y, verbose=0, callbacks=[callback], validation_split=0.5)
    built.compile("adam", "mae")
    built.fit(X, Y, verbose=0)


def test_an_evaluation_within_a_stateful_evaluation_leaves_its_states():
    def run(callbacks):
        built = model(GRU(3, stateful=True), Dense(1))
        return built.evaluate(X, Y, batch_size=4, verbose=0, callbacks=callbacks)

    class Nosy(elman.callbacks.Callback):
        busy = False

        def on_test_batch_end(self, batch, logs):
            if not self.busy:
                self.busy = True
                self.model.evaluate(X[4:8], Y[4:8], batch_size=4, verbose=0)
                self.busy = False

    assert run([Nosy()]) == run([])


def test_small_things():
    built = model(GRU(3), Dense(1), optimizer=optimizers.SGD(0.1, use_ema=True))
    with pytest.raises(ValueError, match=r"^validation_data: unknown name 'batch_size'"):
        built.fit(X, Y, verbose=0, validation_data={"x": X, "y": Y, "batch_size": 2})
    built.fit(X, Y, verbose=0)
    built.set_weights([np.zeros_like(w) for w in built.get_weights()])
    built.fit(X, Y, epochs=0, verbose=0)  # trains nothing: nothing to average
    assert not any(w.any() for w in built.get_weights())
    for steps in (0, -1, 2.5):
        with pytest.raises((ValueError, TypeError), match=r"^steps: "):
            built.evaluate(iter([(X, Y)]), steps=steps, verbose=0)
        with pytest.raises((ValueError, TypeError), match=r"^steps: "):
            built.predict(iter([X]), steps=steps)
    called = []
    end = elman.callbacks.LambdaCallback(on_predict_end=lambda logs: called.append(1))
    assert built.predict([[X, Y], (X,), X].__iter__(), callbacks=[end]).shape == (36, 1)
    assert called == [1]
    sequences = model(GRU(3, return_sequences=True))
    with pytest.raises(ValueError, match=r"^x: batch 1 gives outputs of shape \(3, 3\), the first one of \(6, 3\)"):
        sequences.predict(iter([X, X[:, :3]]))
    with pytest.raises(ValueError, match="it has one output, which predicts a number and no token"):
        elman.generate(Sequential([Input((None,)), Embedding(4, 2), GRU(1)]), [1, 2], 3)


def test_a_stream_goes_on_in_a_copy():
    built = model(GRU(3))
    built.stream_step(X[:, :3])
    copied = copy.deepcopy(built)
    np.testing.assert_array_equal(copied.stream_step(X[:, 3:]), built.predict(X))


def test_lanes_split_for_validation_are_evaluated_in_pieces():
    series = RNG.normal(size=(80, 2))
    lanes = elman.data.Lanes(series, series[:, :1], lanes=8)
    built = model(GRU(3, return_sequences=True), Dense(1), optimizer=optimizers.SGD(0.0))
    history = built.fit(lanes, tbptt=(5, 5), validation_split=0.5, verbose=0, validation_batch_size=3)
    expected = built.evaluate(series.reshape(8, 10, 2)[4:], series.reshape(8, 10, 2)[4:, :, :1], verbose=0)
    assert history.history["val_loss"][0] == pytest.approx(expected, rel=1e-12)


def test_rates_of_zero_do_nothing():
    plain = model(GRU(3), Dense(1))
    noisy = model(GRU(3, dropout=0, recurrent_dropout=0, zoneout=0), layers.Dropout(0), Dense(1))
    plain.fit(X, Y, verbose=0)
    noisy.fit(X, Y, verbose=0)
    same(plain, noisy)
    for options in ({"dropout": 0.3}, {"recurrent_dropout": 0.3}, {"zoneout": 0.3}):
        noisy = model(GRU(3, **options), Dense(1))
        noisy.fit(X, Y, verbose=0)
        with pytest.raises(AssertionError):
            same(plain, noisy)
