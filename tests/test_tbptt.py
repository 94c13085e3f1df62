"""Truncated BPTT against a loop written from its definition; checkpointed BPTT against full storage, to the bit."""

import numpy as np
import pytest

from elman import Sequential, functional, num_threads
from elman.data import Lanes
from elman.layers import (
    GRU,
    LSTM,
    Bidirectional,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    RepeatVector,
    TimeDistributed,
)
from elman.optimizers import SGD

N, T, F = 4, 7, 2
LENGTHS = np.array([7, 3, 0, 5])


def data(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


X, Y, LAST = data(N, T, F), data(N, T, 1, seed=1), data(N, 1, seed=2)


def build(layers, dtype="float64", features=F, seed=5, optimizer=None, loss="mse", **compiled):
    model = Sequential(layers, dtype, seed=3)
    model.build((None, features))
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(scale=0.5, size=w.shape) for w in model.get_weights()])
    model.compile(SGD(0.3) if optimizer is None else optimizer, loss, **compiled)
    return model


def stepwise(**options):
    return build([LSTM(4, return_sequences=True, **options), Dense(1)])


def same(a, b):
    for v, w in zip(a, b, strict=True):
        np.testing.assert_array_equal(v, w)


def by_hand(weights, x, y, k1, k2, mask=None, rate=0.3, epochs=1):
    """Weights after an epoch on one batch, and its mean loss: the definition, with an LSTM and a linear layer.

    Every k1 steps, and at the end: what is new is run together with the k2 - k1 steps before it, from the states that
    the update before had there, with the weights of now; the loss is that of the new steps.
    """
    weights, total, count, updates = [w.copy() for w in weights], 0.0, 0, 0
    mask = np.ones(x.shape[:2], bool) if mask is None else mask
    for _ in range(epochs):
        state, old, begin, done = [np.zeros((len(x), 4))] * 2, weights, 0, 0
        total = count = updates = 0
        while done < x.shape[1]:
            end = min(done + k1, x.shape[1])
            first = max(0, done - (k2 - k1))
            if first > begin:
                passed = slice(begin, first)
                state = functional.recurrent("lstm", x[:, passed], old[:3], state, mask=mask[:, passed])[1]
                begin = first
            old, now = weights, slice(begin, end)
            h, _, tape = functional.recurrent("lstm", x[:, now], old[:3], state, mask=mask[:, now])
            counted = mask[:, now] & (np.arange(begin, end) >= done)
            errors = (h @ weights[3] + weights[4] - y[:, now]) * counted[..., None]
            d = 2 * errors / max(1, counted.sum())
            gradients = tape.backward(d @ weights[3].T).parameters
            gradients += [np.einsum("bth,bto->ho", h, d), d.sum(axis=(0, 1))]
            weights = [w - rate * g for w, g in zip(weights, gradients, strict=True)]
            total, count = total + (errors**2).sum(), count + counted.sum()
            updates, done = updates + 1, end
    return weights, total / max(1, count), updates


WINDOWS = [(1, 1), (1, 3), (2, 2), (2, 3), (2, 5), (3, 3), (3, 4), (3, 7), (2, 100), (6, 6), (7, 9), (100, 200)]


@pytest.mark.parametrize(("k1", "k2"), WINDOWS)
@pytest.mark.parametrize(
    "mask", [None, np.arange(T) < LENGTHS[:, None], data(N, T, seed=9) > 0], ids=["", "l", "holes"]
)
def test_updates_are_those_of_the_definition(k1, k2, mask):
    model = stepwise()
    expected, loss, updates = by_hand(model.get_weights(), X, Y, k1, k2, mask, epochs=2)
    history = model.fit(X, Y, tbptt=(k1, k2), mask=mask, epochs=2, verbose=0)
    for a, b in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    assert history.history["loss"][1] == pytest.approx(loss, rel=1e-10)
    assert model.optimizer.iterations == 2 * updates == 2 * -(-T // k1)
    assert history.params["steps"] == updates


def test_k2_and_the_carried_state_matter():
    """The definition above would not see a mistake that it shares: results differ where they must."""
    start = stepwise().get_weights()
    losses, ends = {}, {}
    for cut in [(2, 2), (2, 3), (2, 7), (3, 3)]:
        model = stepwise()
        losses[cut] = model.fit(X, Y, tbptt=cut, verbose=0).history["loss"][0]
        ends[cut] = model.get_weights()[1]
        assert all((a != b).any() for a, b in zip(start, model.get_weights(), strict=True))
    assert len(set(losses.values())) == 4
    # Without the carried state, pieces would be sequences of their own.
    model = stepwise()
    for k in range(0, T, 2):
        model.train_on_batch(X[:, k : k + 2], Y[:, k : k + 2])
    assert np.abs(model.get_weights()[1] - ends[2, 2]).max() > 1e-3


@pytest.mark.parametrize("cut", [(7, 7), (8, 9), (100, 100), [7, 20]])
def test_windows_of_the_whole_sequence_give_the_bits_of_full_bptt(cut):
    for layers, y in (
        (lambda: [LSTM(4, return_sequences=True, dropout=0.2, recurrent_dropout=0.2), Dropout(0.1), Dense(1)], Y),
        (lambda: [GRU(4, return_sequences=True, learn_initial_state=True), LSTM(3), Dense(1)], LAST),
    ):
        for arguments in ({}, {"lengths": LENGTHS}):
            a, b = build(layers(), optimizer="adam"), build(layers(), optimizer="adam")
            first = a.fit(X, y, batch_size=3, epochs=3, verbose=0, **arguments).history
            second = b.fit(X, y, batch_size=3, epochs=3, tbptt=cut, verbose=0, **arguments).history
            same(a.get_weights(), b.get_weights())
            if y is LAST or not arguments:  # with lengths the mean is over steps, not over batches
                assert first["loss"] == pytest.approx(second["loss"], rel=1e-12)


def test_the_loss_of_an_epoch_is_the_mean_over_all_valid_steps():
    model = stepwise()
    model.compile(SGD(0), "mse", metrics=["mae"])
    mask = np.arange(T) < LENGTHS[:, None]
    errors = (model.predict(X, lengths=LENGTHS) - Y)[mask]
    for cut in [(2, 3), (3, 3), (7, 7)]:
        history = model.fit(X, Y, lengths=LENGTHS, tbptt=cut, batch_size=3, shuffle=False, verbose=0).history
        assert history["loss"][0] == pytest.approx((errors**2).mean(), rel=1e-12)
        assert history["mae"][0] == pytest.approx(np.abs(errors).mean(), rel=1e-12)


def test_sample_weights_go_with_their_steps():
    for weights in (data(N, seed=4) ** 2, data(N, T, seed=4) ** 2):
        model = stepwise()
        model.compile(SGD(0), "mse", weighted_metrics=["mae"])
        spread = weights if weights.ndim == 2 else np.tile(weights[:, None], T)
        errors = (model.predict(X) - Y)[..., 0]
        history = model.fit(X, Y, sample_weight=weights, tbptt=(2, 3), verbose=0).history
        assert history["loss"][0] == pytest.approx((errors**2 * spread).mean(), rel=1e-12)
        assert history["mae"][0] == pytest.approx((np.abs(errors) * spread).sum() / spread.sum(), rel=1e-12)


@pytest.mark.parametrize(("k1", "k2"), [(1, 1), (2, 3), (1, 5), (3, 7), (1, 100)])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["", "lengths"])
def test_models_with_one_output_get_gradients_through_the_last_k2_steps(k1, k2, lengths):
    model = build([LSTM(4), Dense(1)])
    kernel, recurrent, bias, dense, offset = weights = model.get_weights()
    cut, used = max(0, T - k2), None if lengths is None else np.arange(T) < lengths[:, None]
    part = lambda s: {} if used is None else {"mask": used[:, s]}
    begin, end = slice(None, cut), slice(cut, None)
    state = None
    if cut:
        state = functional.recurrent("lstm", X[:, begin], weights[:3], **part(begin))[1]
    _, last, tape = functional.recurrent("lstm", X[:, end], weights[:3], state, **part(end))
    errors = last[0] @ dense + offset - LAST
    d = 2 * errors / errors.size
    found = tape.backward(None, [d @ dense.T, None]).parameters
    expected = [kernel, recurrent, bias, dense, offset]
    for w, g in zip(expected, [*found, last[0].T @ d, d.sum(axis=0)], strict=True):
        w -= 0.3 * g
    history = model.fit(X, LAST, tbptt=(k1, k2), lengths=lengths, verbose=0)
    for a, b in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13)
    assert history.history["loss"][0] == pytest.approx((errors**2).mean(), rel=1e-12)
    assert model.optimizer.iterations == 1


def test_stacks_carry_all_states():
    """Two layers, and a linear one between: against the same updates through a layer's own states."""
    layers = lambda: [GRU(3, return_sequences=True), Dense(3), LSTM(4, return_sequences=True), Dense(1)]
    model, other = build(layers()), build(layers())
    model.fit(X, Y, tbptt=(3, 3), verbose=0)
    # With k1 = k2 the windows do not overlap: a stateful model on the pieces does the same.
    stateful = build([GRU(3, return_sequences=True, stateful=True), Dense(3),
                      LSTM(4, return_sequences=True, stateful=True), Dense(1)])  # fmt: skip
    stateful.set_weights(other.get_weights())
    for k in range(0, T, 3):
        stateful.train_on_batch(X[:, k : k + 3], Y[:, k : k + 3])
    same(model.get_weights(), stateful.get_weights())


@pytest.mark.parametrize("cut", [(2, 2), (2, 3)])
def test_the_learned_initial_state_gets_a_gradient_in_the_first_window_alone(cut):
    """Its update is that of training on the windows that begin at step 0."""
    model = build([LSTM(4, return_sequences=True, learn_initial_state=True), Dense(1)])
    other = build([LSTM(4, return_sequences=True, learn_initial_state=True), Dense(1)])
    k1, k2 = cut
    model.fit(X[:, : 2 * k1], Y[:, : 2 * k1], tbptt=cut, verbose=0)
    other.train_on_batch(X[:, :k1], Y[:, :k1])
    if k2 == k1:
        np.testing.assert_array_equal(model.get_weights()[3], other.get_weights()[3])
    assert (other.get_weights()[3] != build([LSTM(4, learn_initial_state=True), Dense(1)]).get_weights()[3]).all()


def test_batches_and_epochs_begin_anew():
    model, other = stepwise(), stepwise()
    model.fit(X, Y, batch_size=2, shuffle=False, tbptt=(2, 3), epochs=2, verbose=0)
    for _ in range(2):
        for k in (0, 2):
            other.fit(X[k : k + 2], Y[k : k + 2], tbptt=(2, 3), shuffle=False, verbose=0)
    same(model.get_weights(), other.get_weights())
    # The order of the sequences is drawn; the windows of a batch stay together.
    a, b = stepwise(), stepwise()
    for m in (a, b):
        m.fit(X, Y, batch_size=1, tbptt=(2, 3), epochs=2, verbose=0)
    same(a.get_weights(), b.get_weights())
    assert any((v != w).any() for v, w in zip(a.get_weights(), model.get_weights(), strict=True))


def test_steps_per_epoch_counts_updates():
    model = stepwise()
    history = model.fit(X, Y, batch_size=2, tbptt=(2, 3), steps_per_epoch=5, verbose=0)
    assert model.optimizer.iterations == 5 == history.params["steps"]
    with pytest.raises(ValueError, match="steps_per_epoch: 4 samples give 8 windows, in batches of 2, got 9"):
        model.fit(X, Y, batch_size=2, tbptt=(2, 3), steps_per_epoch=9, verbose=0)


def test_validation_sees_whole_sequences_and_leaves_the_states():
    a, b = stepwise(), stepwise()
    rest = data(3, T, F, seed=6), data(3, T, 1, seed=7)
    history = a.fit(X, Y, tbptt=(2, 3), validation_data=rest, epochs=2, verbose=0).history
    b.fit(X, Y, tbptt=(2, 3), epochs=2, verbose=0)
    same(a.get_weights(), b.get_weights())
    assert history["val_loss"][1] == pytest.approx(a.evaluate(*rest, verbose=0), rel=1e-12)


def test_bits_do_not_depend_on_threads(thread_counts):
    x, y = data(40, 24, 8).astype(np.float32), data(40, 24, 8, seed=1).astype(np.float32)
    lengths, found = np.arange(40) % 25, []
    for threads in thread_counts:
        with num_threads(threads):
            layers = [LSTM(32, return_sequences=True, recurrent_dropout=0.2), Dense(8)]
            model = build(layers, "float32", 8, optimizer="adam")
            model.fit(x, y, lengths=lengths, tbptt=(5, 9), verbose=0)
            found.append(model.get_weights())
    for other in found[1:]:
        same(other, found[0])


# ---- lanes


@pytest.mark.parametrize("cut", [(4, 4), (3, 5), (2, 100)])
def test_lanes_of_a_series_train_as_the_definition_says(cut):
    series, targets = data(20, F), data(20, 1, seed=1)
    lanes = Lanes(series, targets, lanes=3)
    assert lanes.lengths.tolist() == [7, 7, 6]
    model = stepwise()
    mask = np.arange(7) < lanes.lengths[:, None]
    expected, loss, _ = by_hand(model.get_weights(), lanes.x, lanes.y, *cut, mask)
    history = model.fit(lanes, tbptt=cut, verbose=0).history
    for a, b in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    assert history["loss"][0] == pytest.approx(loss, rel=1e-10)


def test_lanes_are_evaluated_in_pieces_with_the_states_carried():
    series, targets = data(1500, F), data(1500, 1, seed=1)
    model, lanes = stepwise(), Lanes(series, targets, lanes=2)
    model.compile("sgd", "mse", metrics=["mae"])
    errors = model.predict(lanes.x) - lanes.y
    expected = [(errors**2).mean(), np.abs(errors).mean()]
    assert model.evaluate(lanes, verbose=0) == pytest.approx(expected, rel=1e-12)
    history = model.fit(lanes, tbptt=(300, 300), validation_data=Lanes(series[:600], targets[:600], 1), verbose=0)
    errors = model.predict(series[None, :600]) - targets[None, :600]
    assert history.history["val_loss"][0] == pytest.approx((errors**2).mean(), rel=1e-12)
    with pytest.raises(ValueError, match="y: these Lanes hold their targets"):
        model.fit(lanes, targets, tbptt=(2, 2), verbose=0)
    with pytest.raises(ValueError, match="Lanes know the lengths of their series"):
        model.fit(lanes, lengths=[1, 2], tbptt=(2, 2), verbose=0)


def test_lanes_of_token_ids():
    tokens = np.random.default_rng(0).integers(0, 5, 50)
    model = Sequential([Embedding(5, 3), GRU(4, return_sequences=True), Dense(5)], seed=0)
    model.compile("adam", {"class_name": "SparseCategoricalCrossentropy", "config": {"from_logits": True}})
    history = model.fit(Lanes.next_token(tokens, lanes=3), tbptt=(4, 6), epochs=30, verbose=0).history["loss"]
    assert history[-1] < 0.99 * history[0]


# ---- what it refuses


@pytest.mark.parametrize(
    ("layers", "y", "cut", "message"),
    [
        (None, Y, (3, 2), "tbptt: with k1 = 3 > k2 = 2 the losses of 1 of every 3 steps would have no gradient"),
        (None, Y, 3, r"tbptt: expected \(k1, k2\)"),
        (None, Y, (3,), r"tbptt: expected \(k1, k2\)"),
        (None, Y, "23", r"tbptt: expected \(k1, k2\)"),
        (None, Y, (0, 3), r"tbptt\[0\]: expected an integer of at least 1, got 0"),
        (None, Y, (1, 2.5), r"tbptt\[1\]: expected an integer, got float 2.5"),
        ([GRU(3, return_sequences=True, go_backwards=True), Dense(1)], Y, (2, 3), "layer 'gru' needs whole sequences"),
        ([Bidirectional(GRU(3, return_sequences=True)), Dense(1)], Y, (2, 3), "layer 'bidirectional' needs whole seq"),
        ([GRU(3), RepeatVector(T), Dense(1)], Y, (2, 3), "layer 'repeatvector' needs whole sequences"),
        ([GRU(3, return_sequences=True, stateful=True), Dense(1)], Y, (2, 3), "tbptt: it carries the states itself"),
        (None, LAST, (2, 3), r"y: shape \(4, 1\) does not fit"),
    ],
)
def test_what_truncation_refuses(layers, y, cut, message):
    model = build(layers or [GRU(3, return_sequences=True), Dense(1)])
    before = model.get_weights()
    with pytest.raises((ValueError, TypeError), match=message):
        model.fit(X, y, tbptt=cut, verbose=0)
    same(model.get_weights(), before)
    assert model.optimizer.iterations == 0


def test_layers_that_need_the_number_of_steps_are_refused():
    model = Sequential([GRU(3, return_sequences=True), Flatten(), Dense(1)], seed=0)
    model.build((T, F))
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="layer 'flatten' needs whole sequences"):
        model.fit(X, LAST, tbptt=(2, 3), verbose=0)


def test_recurrent_layers_within_a_step_carry_nothing():
    """TimeDistributed(RNN) runs over each step's own axis: its states are not those of the sequence."""
    layers = lambda: [
        TimeDistributed(RepeatVector(2)), TimeDistributed(GRU(3)), LSTM(4, return_sequences=True), Dense(1),
    ]  # fmt: skip
    model, stateful = build(layers()), build(layers())
    stateful = build([*layers()[:2], LSTM(4, return_sequences=True, stateful=True), Dense(1)])
    stateful.set_weights(model.get_weights())
    model.fit(X[:, :6], Y[:, :6], tbptt=(3, 3), verbose=0)
    for k in (0, 3):
        stateful.train_on_batch(X[:, k : k + 3], Y[:, k : k + 3])
    same(model.get_weights(), stateful.get_weights())
    whole = model.predict(X)
    found = np.concatenate([model.stream_step(X[:, :3]), model.stream_step(X[:, 3:])], axis=1)
    np.testing.assert_array_equal(found, whole)


# ---- checkpoints


LONG, LONG_Y = data(4, 300, 3).astype(np.float32), data(4, 300, 1, seed=1).astype(np.float32)
LONG_LENGTHS = np.array([300, 120, 0, 211])


@pytest.mark.parametrize("arguments", [{}, {"lengths": LONG_LENGTHS}, {"tbptt": (70, 150)},
                                       {"tbptt": (90, 150), "lengths": LONG_LENGTHS}])  # fmt: skip
@pytest.mark.parametrize(("layer", "whole"), [("sqrt", None), (None, "sqrt"), (70, None), (None, 1), (10**6, "sqrt")])
def test_checkpoints_change_no_bit(arguments, layer, whole):
    found = []
    for own, default in ((None, None), (layer, whole)):
        layers = [
            LSTM(3, return_sequences=True, checkpoint=own, dropout=0.2, recurrent_dropout=0.2),
            GRU(3, return_sequences=True, checkpoint=own, learn_initial_state=True),
            Dense(1),
        ]
        model = build(layers, "float32", 3, optimizer="adam", checkpoint=default)
        model.fit(LONG, LONG_Y, epochs=2, verbose=0, **arguments)
        found.append([*model.get_weights(), model.predict(LONG)])
        kept = [part._tape._checkpoints is not None for part in model.layers[:2]]
        model.gradients(LONG, LONG_Y)
        kept = [part._tape._checkpoints is not None for part in model.layers[:2]]
        assert kept == [bool(own or default) and own != 10**6] * 2
    same(*found)


def test_checkpoints_of_layers_with_one_output_and_backwards():
    found = []
    for own in (None, "sqrt"):
        layers = [LSTM(3, return_sequences=True, go_backwards=True, checkpoint=own), LSTM(3, checkpoint=own), Dense(1)]
        model = build(layers, "float32", 3)
        found.append(model.gradients(LONG, LONG_Y[:, 0], lengths=LONG_LENGTHS))
    same(*found)


def test_stateful_layers_carry_states_out_of_segments():
    found = []
    for own in (None, "sqrt"):
        model = build([GRU(3, return_sequences=True, stateful=True, checkpoint=own), Dense(1)], "float32", 3)
        for _ in range(2):
            model.train_on_batch(LONG, LONG_Y)
        found.append(model.get_weights())
    same(*found)


@pytest.mark.parametrize("value", ["root", 0, -1, 2.5, True])
def test_checkpoints_that_make_no_sense(value):
    with pytest.raises((ValueError, TypeError), match="checkpoint: expected"):
        LSTM(3, checkpoint=value)
    model = build([LSTM(3), Dense(1)])
    with pytest.raises((ValueError, TypeError), match="checkpoint: expected"):
        model.compile("sgd", "mse", checkpoint=value)
    model.fit(X, LAST, verbose=0)  # as it was compiled before
