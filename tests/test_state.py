"""What models carry: states from batch to batch and piece by piece, learned initial states, noise; frozen layers."""

import copy

import numpy as np
import pytest

from elman import Sequential, load_model, num_threads
from elman.layers import GRU, LSTM, Dense, Dropout, GaussianNoise, Masking, SimpleRNN, SpatialDropout1D
from elman.optimizers import SGD
from elman.regularizers import L1, L2
from elman.testing import check_gradients
from elman.testing.twins import sequence


def data(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


X, Y = data(4, 12, 2), data(4, 12, 1, seed=1)


def build(layers, optimizer="sgd", dtype="float64", **compiled):
    model = Sequential(layers, dtype, seed=3)
    model.build((None, 2))
    rng = np.random.default_rng(5)
    model.set_weights([rng.normal(scale=0.5, size=w.shape) for w in model.get_weights()])
    model.compile(optimizer, "mse", **compiled)
    return model


def stateful(optimizer="sgd", **options):
    layers = [LSTM(4, return_sequences=True, stateful=True, **options), GRU(3, return_sequences=True, stateful=True)]
    return build([*layers, Dense(1)], optimizer)


def plain(optimizer="sgd"):
    return build([LSTM(4, return_sequences=True), GRU(3, return_sequences=True), Dense(1)], optimizer)


def same(a, b):
    assert len(a) == len(b)
    for v, w in zip(a, b, strict=True):
        np.testing.assert_array_equal(v, w)


def differ(a, b):
    return any((v != w).any() for v, w in zip(a, b, strict=True))


def joined(x, pieces):
    """Sequences cut into pieces, as batches one after another."""
    return np.concatenate(np.split(x, pieces, axis=1))


# ---- stateful


def test_predictions_of_pieces_are_those_of_the_whole():
    model = stateful()
    whole = plain().predict(X)
    pieces = [model.predict(X[:, k : k + 4]) for k in range(0, 12, 4)]
    np.testing.assert_array_equal(np.concatenate(pieces, axis=1), whole)
    assert (model.predict(X[:, :4]) != pieces[0]).all()  # nothing resets them but the user
    model.reset_states("predict")
    batches = model.predict(joined(X, 3), batch_size=4)
    np.testing.assert_array_equal(np.concatenate(np.split(batches, 3), axis=1), whole)


def test_an_epoch_on_pieces_is_one_pass_over_the_whole():
    """With a learning rate of 0 the loss and the metrics of the pieces are those of the sequence."""
    model = stateful(SGD(0))
    errors = plain().predict(X) - Y
    x, y = joined(X, 3), joined(Y, 3)
    losses = model.fit(x, y, batch_size=4, shuffle=False, epochs=2, verbose=0).history["loss"]
    assert losses == pytest.approx([(errors**2).mean()] * 2, rel=1e-12)  # every epoch begins anew
    assert model.evaluate(x, y, batch_size=4, verbose=0) == pytest.approx((errors**2).mean(), rel=1e-12)


def test_training_on_pieces_is_truncated_bptt():
    model, other = stateful(SGD(0.3)), plain(SGD(0.3))
    model.fit(joined(X, 3), joined(Y, 3), batch_size=4, shuffle=False, epochs=2, verbose=0)
    other.fit(X, Y, tbptt=(4, 4), shuffle=False, epochs=2, verbose=0)
    same(model.get_weights(), other.get_weights())


def test_gradients_begin_with_the_carried_states_and_leave_them():
    model = stateful(SGD(0))
    x, y = X[:, 6:], Y[:, 6:]
    fresh = model.loss_and_gradients(x, y)[0]
    model.train_on_batch(X[:, :6], Y[:, :6])
    carried, gradients = model.loss_and_gradients(x, y)
    errors = plain().predict(X)[:, 6:] - y
    assert carried == pytest.approx((errors**2).mean(), rel=1e-12)
    assert fresh != carried
    same(model.gradients(x, y), gradients)
    check_gradients(model, x, y)
    assert model.train_on_batch(x, y) == pytest.approx(carried, rel=1e-14)


def test_training_validation_and_predictions_have_states_of_their_own():
    a, b = stateful("adam"), stateful("adam")
    rest = data(8, 4, 2, seed=6), data(8, 4, 1, seed=7)
    first = a.fit(joined(X, 3), joined(Y, 3), batch_size=4, shuffle=False, verbose=0).history
    second = b.fit(
        joined(X, 3), joined(Y, 3), batch_size=4, shuffle=False, validation_data=rest, verbose=0
    ).history  # fmt: skip
    assert first["loss"] == second["loss"]
    same(a.get_weights(), b.get_weights())
    assert second["val_loss"][0] == pytest.approx(b.evaluate(*rest, batch_size=4, verbose=0), rel=1e-14)
    # In between, none disturbs another.
    expected = np.concatenate([a.predict(X[:, :6]), a.predict(X[:, 6:])], axis=1)
    a.reset_states("predict")
    begin = a.predict(X[:, :6])
    a.evaluate(X[:, :6], Y[:, :6], verbose=0)
    a.train_on_batch(X[:, :6], Y[:, :6])
    a.set_weights(b.get_weights())
    np.testing.assert_array_equal(np.concatenate([begin, a.predict(X[:, 6:])], axis=1), expected)


def test_when_states_are_reset():
    model = stateful(SGD(0))
    x, y = joined(X, 3), joined(Y, 3)

    def training():
        return [model.train_on_batch(X[:, :4], Y[:, :4]) for _ in range(2)]

    model.reset_states()
    first, second = training()
    assert first != second
    assert training()[0] not in (first, second)
    model.reset_states("validation")
    assert training()[0] != first
    model.reset_states("train")
    assert training() == [first, second]
    assert model.fit(x[:4], y[:4], batch_size=4, shuffle=False, verbose=0).history["loss"] == [first]
    assert model.evaluate(x[:4], y[:4], verbose=0) == model.evaluate(x[:4], y[:4], verbose=0)
    with pytest.raises(ValueError, match="phase: unknown name 'training', did you mean 'train'"):
        model.reset_states("training")


def test_states_are_saved_with_the_model(tmp_path):
    model = stateful("adam")
    model.fit(joined(X, 3), joined(Y, 3), batch_size=4, shuffle=False, verbose=0)
    model.predict(X[:, :5])
    model.save(tmp_path / "model")
    for other in (load_model(tmp_path / "model"), copy.deepcopy(model)):
        me = copy.deepcopy(model)
        np.testing.assert_array_equal(other.predict(X[:, 5:]), me.predict(X[:, 5:]))
        assert other.train_on_batch(X, Y) == me.train_on_batch(X, Y)
        same(other.get_weights(), me.get_weights())
        other.reset_states()
        assert (other.predict(X[:, 5:]) != me.predict(X[:, 5:])).any()


def test_states_pass_over_steps_that_are_not_used():
    """A sequence that ended keeps its state: the next piece goes on from its last step."""
    lengths = np.array([3, 0, 6, 5])
    model, other = stateful(), plain()
    model.predict(X[:, :6], lengths=lengths)
    second = model.predict(X[:, 6:])
    for n, k in enumerate(lengths):
        alone = other.predict(np.concatenate([X[n : n + 1, :k], X[n : n + 1, 6:]], axis=1))
        np.testing.assert_array_equal(second[n], alone[0, k:])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shuffle": True}, "shuffle: stateful layers need the batches in order; pass shuffle=False"),
        ({}, "shuffle: stateful layers need the batches in order"),
        ({"shuffle": False, "batch_size": 5}, "batch_size: stateful layers need batches of one size, but 12 sam"),
        ({"shuffle": False, "batch_size": 4, "tbptt": (2, 2)}, "tbptt: it carries the states itself"),
        ({"shuffle": False, "batch_size": 4, "validation_data": (X[:3, :4], Y[:3, :4]), "validation_batch_size": 2},
         "validation"),
        ({"shuffle": False, "batch_size": 4, "validation_split": 1 / 3, "validation_batch_size": 3}, "validation"),
    ],
)  # fmt: skip
def test_misuse_is_an_error_and_changes_nothing(arguments, message):
    model = stateful("adam")
    x, y = joined(X, 3), joined(Y, 3)
    model.predict(X[:, :4])
    kept = copy.deepcopy(model)
    with pytest.raises(ValueError, match=message):
        model.fit(x, y, verbose=0, **arguments)
    same(model.get_weights(), kept.get_weights())
    assert model.optimizer.iterations == 0
    np.testing.assert_array_equal(model.predict(X[:, 4:]), kept.predict(X[:, 4:]))


def test_a_batch_of_another_size_cannot_go_on():
    model = stateful("adam")
    first = model.predict(X[:, :6])
    message = "x: a batch of 3 sequences cannot continue the states of 4"
    with pytest.raises(ValueError, match=message):
        model.predict(X[:3, 6:])
    with pytest.raises(ValueError, match="no multiple"):
        model.predict(X, batch_size=3)
    with pytest.raises(ValueError, match="no multiple"):
        model.evaluate(X, Y, batch_size=3, verbose=0)
    second = model.predict(X[:, 6:])
    np.testing.assert_array_equal(np.concatenate([first, second], axis=1), plain().predict(X))
    model.train_on_batch(X, Y)
    before = model.get_weights(), model.optimizer.iterations
    with pytest.raises(ValueError, match=message):
        model.train_on_batch(X[:3], Y[:3])
    with pytest.raises(ValueError, match=message):
        model.gradients(X[:3], Y[:3])
    same(model.get_weights(), before[0])
    assert model.optimizer.iterations == before[1]
    model.reset_states()
    model.train_on_batch(X[:3], Y[:3])


# ---- piece by piece


@pytest.mark.parametrize("make", [plain, stateful])
def test_a_stream_gives_the_outputs_of_the_whole(make):
    model, whole = make(), plain().predict(X)
    model.predict(X[:2] if make is plain else X)  # not its states
    found, at = [], 0
    for steps in (1, 4, 1, 6):
        found.append(model.stream_step(X[:, at : at + steps]))
        at += steps
    np.testing.assert_array_equal(np.concatenate(found, axis=1), whole)
    assert (model.stream_step(X) != whole).all()
    model.reset_states("stream")
    np.testing.assert_array_equal(model.stream_step(X), whole)
    with pytest.raises(ValueError, match="x: a batch of 2 sequences cannot continue the states of 4"):
        model.stream_step(X[:2])


def test_streams_of_models_with_one_output_and_their_errors():
    model = build([GRU(3), Dense(1)])
    found = [model.stream_step(X[:, k : k + 1]) for k in range(12)]
    for k in (0, 5, 11):
        np.testing.assert_array_equal(found[k], model.predict(X[:, : k + 1]))
    backwards = build([GRU(3, go_backwards=True), Dense(1)])
    with pytest.raises(ValueError, match="layer 'gru' needs whole sequences"):
        backwards.stream_step(X)
    with pytest.raises(ValueError, match=r"x: expected shape \(N, \*, 2\)"):
        model.stream_step(data(4, 1, 3))
    with pytest.raises(ValueError, match="not finite"):
        model.stream_step(np.full((4, 1, 2), np.nan))
    np.testing.assert_array_equal(model.stream_step(X[:, :1]), model.predict(np.concatenate([X, X[:, :1]], axis=1)))


def test_streams_of_models_without_states():
    model = build([Dense(3)])
    pieces = [model.stream_step(X[:, :5]), model.stream_step(X[:, 5:])]
    np.testing.assert_array_equal(np.concatenate(pieces, axis=1), model.predict(X))


def test_masks_of_values_hold_in_a_stream():
    model = build([Masking(), GRU(3, return_sequences=True), Dense(1)])
    x = np.where(data(4, 12, 1, seed=8) > 0, X, 0)
    found = np.concatenate([model.stream_step(x[:, :5]), model.stream_step(x[:, 5:])], axis=1)
    np.testing.assert_array_equal(found, model.predict(x))


# ---- learned initial states


@pytest.mark.parametrize("layer", [SimpleRNN, GRU, LSTM])
@pytest.mark.parametrize("sequences", [True, False])
def test_learned_initial_states(layer, sequences):
    model = build([layer(3, return_sequences=sequences, learn_initial_state=True), Dense(1)])
    check_gradients(model, X, Y if sequences else Y[:, 0])
    check_gradients(model, X, Y if sequences else Y[:, 0], lengths=[3, 12, 0, 7])
    kernel, recurrent, bias, initial = model.get_weights()[:4]
    states = 2 if layer is LSTM else 1
    assert initial.shape == (states, 3)
    assert model.weights[3].name.endswith("/initial_state")
    begin = [np.tile(row, (4, 1)) for row in initial]
    h = sequence(model.layers[0]._cell(), X, kernel, recurrent, np.atleast_2d(bias), begin)[0]
    dense, offset = model.get_weights()[4:]
    np.testing.assert_allclose(model.predict(X), (h if sequences else h[:, -1]) @ dense + offset, rtol=1e-11)


def test_learned_initial_states_begin_at_zero_and_learn_saved_and_frozen(tmp_path):
    model = Sequential([GRU(3, learn_initial_state=True), Dense(1)], seed=0)
    model.compile("adam", "mse")
    model.build((None, 2))
    assert not model.get_weights()[3].any()
    model.fit(X, Y[:, 0], verbose=0)
    assert model.get_weights()[3].all()
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(load_model(tmp_path / "model").predict(X), model.predict(X))
    frozen = build([GRU(3, learn_initial_state=True, trainable=False), Dense(1)])
    before = frozen.get_weights()
    frozen.fit(X, Y[:, 0], verbose=0)
    same(frozen.get_weights()[:4], before[:4])


def test_carried_states_do_not_depend_on_the_learned_ones():
    model = build([GRU(3, return_sequences=True, stateful=True, learn_initial_state=True), Dense(1)], SGD(0))
    first = model.gradients(X, Y)[3]
    assert first.all()
    model.train_on_batch(X, Y)
    np.testing.assert_array_equal(model.gradients(X, Y)[3], np.zeros_like(first))
    check_gradients(model, X, Y)
    model.reset_states()
    np.testing.assert_array_equal(model.gradients(X, Y)[3], first)


# ---- noise


NOISY = {
    "dropout": lambda: [LSTM(4, dropout=0.3), Dense(1)],
    "recurrent_dropout": lambda: [LSTM(4, recurrent_dropout=0.3), Dense(1)],
    "both": lambda: [GRU(4, dropout=0.3, recurrent_dropout=0.2, go_backwards=True), Dense(1)],
    "reset before": lambda: [GRU(4, recurrent_dropout=0.4, reset_after=False), Dense(1)],
    "stack": lambda: [
        GaussianNoise(0.3),
        SimpleRNN(3, return_sequences=True, recurrent_dropout=0.3),
        SpatialDropout1D(0.3),
        LSTM(4, dropout=0.2, recurrent_dropout=0.2),
        Dropout(0.3),
        Dense(1),
    ],
}


@pytest.mark.parametrize("layers", NOISY.values(), ids=NOISY)
def test_gradients_of_the_noise_that_was_drawn(layers):
    model = build(layers())
    x, y = X, Y[:, 0]
    for _ in range(2):
        check_gradients(model, x, y)
        check_gradients(model, x, y, lengths=[12, 4, 0, 7])
        model.train_on_batch(x, y)  # another draw
    noisy, calm = model.loss_and_gradients(x, y)[0], model.test_on_batch(x, y)
    assert noisy != calm


@pytest.mark.parametrize("layers", NOISY.values(), ids=NOISY)
def test_noise_is_drawn_anew_in_every_step_and_never_at_inference(layers):
    model = build(layers(), SGD(0))
    x, y = X, Y[:, 0]
    losses = [model.train_on_batch(x, y) for _ in range(4)]
    assert len(set(losses)) == 4
    model.predict(x), model.evaluate(x, y, verbose=0)
    before = model.loss_and_gradients(x, y)[0]
    assert before == model.loss_and_gradients(x, y)[0] == losses[-1]
    np.testing.assert_array_equal(model.predict(x), model.predict(x))
    calm = build([copy.deepcopy(layer) for layer in layers()])
    calm.set_weights(model.get_weights())
    np.testing.assert_array_equal(calm.predict(x), model.predict(x))


def test_recurrent_dropout_drops_h_before_its_product_alone():
    model = build([LSTM(4, recurrent_dropout=0.5, dropout=0.3, return_sequences=True)])
    layer = model.layers[0]
    model.train_on_batch(X, data(4, 12, 4))
    y = layer.forward(X, training=True)
    h_drop = layer._tape._frame.drop.reshape(4, -1)[:, :4]
    assert set(np.unique(h_drop)) == {0.0, 2.0}
    kernel, recurrent, bias = model.get_weights()
    zeros = [np.zeros((4, 4))] * 2
    expected = sequence(
        layer._cell(), X * layer._x_drop, kernel, recurrent, bias[None], zeros, drop=h_drop
    )[0]  # fmt: skip
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("layers", NOISY.values(), ids=NOISY)
def test_noise_goes_on_after_saving(layers, tmp_path):
    a, b = build(layers(), "adam", "float32"), build(layers(), "adam", "float32")
    y = Y[:, 0]
    a.fit(X, y, batch_size=2, epochs=2, verbose=0)
    b.fit(X, y, batch_size=2, epochs=1, verbose=0)
    b.save(tmp_path / "model")
    again = load_model(tmp_path / "model")
    again.fit(X, y, batch_size=2, initial_epoch=1, epochs=2, verbose=0)
    same(a.get_weights(), again.get_weights())


def test_a_seed_on_the_layer_and_none_on_the_model():
    """The draws of the layer are then its own; a model without a seed differs from run to run."""

    def first_loss(seed, layer_seed):
        model = Sequential([GRU(4, dropout=0.5, recurrent_dropout=0.5, seed=layer_seed), Dense(1)], "float64", seed)
        model.build((None, 2))
        rng = np.random.default_rng(0)
        model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
        model.compile("sgd", "mse")
        return model.train_on_batch(X, Y[:, 0])

    assert first_loss(1, 7) == first_loss(2, 7) == first_loss(None, 7)
    assert len({first_loss(1, 7), first_loss(1, 8), first_loss(1, None), first_loss(2, None)}) == 4
    assert first_loss(None, None) != first_loss(None, None)


def test_noise_does_not_depend_on_threads(thread_counts):
    x, y, found = data(64, 20, 2).astype(np.float32), data(64), []
    for threads in thread_counts:
        with num_threads(threads):
            model = Sequential([GaussianNoise(0.1), LSTM(32, dropout=0.3, recurrent_dropout=0.3), Dense(1)], seed=1)
            model.compile("adam", "mse")
            model.fit(x, y, epochs=2, verbose=0)
            found.append(model.get_weights())
    for other in found[1:]:
        same(other, found[0])


# ---- frozen layers, penalties


def test_frozen_layers_do_not_change_and_those_below_do():
    layers = [LSTM(4, return_sequences=True), GRU(3, trainable=False, kernel_regularizer=L2(0.1)), Dense(1)]
    model = build(layers, "adam")
    x, y = X, Y[:, 0]
    check = model.gradients(x, y)
    assert all(not g.any() for g in check[3:6]) and all(g.any() for g in check[:3])
    before = model.get_weights()
    model.fit(x, y, epochs=2, batch_size=2, verbose=0)
    after = model.get_weights()
    same(after[3:6], before[3:6])
    assert differ(after[:3], before[:3]) and differ(after[6:], before[6:])
    free = build([LSTM(4, return_sequences=True), GRU(3), Dense(1)], "adam")
    for a, b in zip(free.gradients(x, y)[:3], check[:3], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_penalties_of_recurrent_layers_enter_loss_and_gradient():
    layer = GRU(
        3, return_sequences=True, kernel_regularizer=L2(0.3), recurrent_regularizer=L1(0.2), bias_regularizer=L2(0.1),
        activity_regularizer=L2(0.4),
    )  # fmt: skip
    model = build([layer, LSTM(2, activity_regularizer="l2"), Dense(1)])
    x, y = X, Y[:, 0]
    check_gradients(model, x, y)
    check_gradients(model, x, y, lengths=[12, 4, 0, 7])
    bare = build([GRU(3, return_sequences=True), LSTM(2)])
    bare.set_weights(model.get_weights()[:-2])
    kernel, recurrent, bias = model.get_weights()[:3]
    h = bare.layers[0]
    hidden, top = h(X), bare.predict(X)
    expected = 0.3 * (kernel**2).sum() + 0.2 * np.abs(recurrent).sum() + 0.1 * (bias**2).sum()
    expected += 0.4 * (hidden**2).sum() / 4 + 0.01 * (top**2).sum() / 4
    expected += ((model.predict(X) - y) ** 2).mean()
    assert model.evaluate(x, y, verbose=0) == pytest.approx(expected, rel=1e-12)
    assert model.loss_and_gradients(x, y)[0] == pytest.approx(expected, rel=1e-12)
