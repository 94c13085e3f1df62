"""Bidirectional: both directions against NumPy, all merge modes, masks, gradients, and what it refuses."""

import copy
import json

import numpy as np
import pytest

from elman import Sequential, load_model, num_threads
from elman.cells import CELLS
from elman.layers import GRU, LSTM, RNN, Bidirectional, Dense, Dropout, Input, Masking, TimeDistributed
from elman.regularizers import L2
from elman.testing import check_gradients
from elman.testing.twins import sequence

MERGE = {
    "concat": lambda a, b: np.concatenate([a, b], axis=-1),
    "sum": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "ave": lambda a, b: (a + b) / 2,
}
MASKS = {
    "none": None,
    "right": np.arange(6) < np.array([6, 2, 4])[:, None],
    "left": np.arange(6) >= np.array([0, 5, 3])[:, None],
    "holes": np.array([[1, 0, 1, 1, 0, 1], [0, 0, 1, 0, 1, 0], [0, 0, 0, 0, 0, 0]], bool),
}


def data(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def scramble(layer, seed=1):
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.normal(scale=0.5, size=w.shape) for w in layer.get_weights()])


def twin(weights, x, mask, sequences):
    """The forward and the backward outputs of an LSTM with these six weights, in the order of time."""
    found = []
    for (kernel, recurrent, bias), order in ((weights[:3], slice(None)), (weights[3:], slice(None, None, -1))):
        zeros = [np.zeros((len(x), recurrent.shape[0]))] * 2
        used = None if mask is None else mask[:, order]
        y, last = sequence(CELLS["lstm"], x[:, order], kernel, recurrent, bias[None], zeros, mask=used)
        if used is not None:
            y = y * used[..., None]
        found.append(y[:, order] if sequences else last[0])
    return found


@pytest.mark.parametrize("sequences", [True, False])
@pytest.mark.parametrize("mode", [*MERGE, None])
def test_both_directions_against_numpy(mode, sequences):
    layer, x = Bidirectional(LSTM(4, return_sequences=sequences), mode), data(3, 6, 2)
    layer(x)
    scramble(layer)
    for mask in MASKS.values():
        expected = twin(layer.get_weights(), x, mask, sequences)
        found = layer(x, mask=mask)
        if mode is None:
            assert len(found) == 2
        else:
            found, expected = [found], [MERGE[mode](*expected)]
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def test_float32_stays_float32():
    x = data(2, 3, 2).astype(np.float32)
    for mode in MERGE:
        assert Bidirectional(LSTM(3), mode)(x).dtype == np.float32


@pytest.mark.parametrize("mode", MERGE)
@pytest.mark.parametrize("sequences", [True, False])
def test_gradients_of_every_mode(mode, sequences):
    below = Bidirectional(GRU(3, return_sequences=True), "concat")
    model = Sequential([below, Bidirectional(LSTM(4, return_sequences=sequences), mode), Dense(2)], "float64")
    model.compile("sgd", "mse")
    x, y = data(3, 6, 2), data(3, 6, 2, seed=2) if sequences else data(3, 2, seed=2)
    model.build((None, 2))
    scramble(model)
    for mask in MASKS.values():
        check_gradients(model, x, y, mask=mask)


def test_dropout_checkpoints_and_initial_states_in_both_directions():
    options = {"dropout": 0.3, "recurrent_dropout": 0.3, "learn_initial_state": True}
    inner = GRU(3, return_sequences=True, **options)
    model = Sequential([Bidirectional(inner, "mul"), Dense(1)], "float64", seed=3)
    model.compile("sgd", "mse")
    x, y = data(3, 6, 2), data(3, 6, 1)
    model.build((None, 2))
    scramble(model)
    check_gradients(model, x, y, mask=MASKS["holes"])
    names = [w.name for w in model.weights]
    for k, direction in enumerate(("forward", "backward")):
        assert names[4 * k + 3] == f"bidirectional/{direction}_gru/initial_state"
        assert np.abs(model.gradients(x, y)[4 * k + 3]).max() > 1e-3
    forward, backward = model.layers[0].inner()
    assert forward.key != backward.key
    # The two directions drop different inputs, anew in every step.
    first, second = forward._x_drop.copy(), backward._x_drop.copy()
    assert (first != second).any()
    model.train_on_batch(x, y)
    assert (forward._x_drop != first).any()


def test_outside_models_the_directions_draw_different_noise():
    layer, x = Bidirectional(GRU(3, dropout=0.5)), data(8, 3, 4)
    first = layer(x, training=True)
    assert (layer.layer._x_drop != layer.backward_layer._x_drop).any()
    assert (layer(x, training=True) != first).any()
    np.testing.assert_array_equal(layer(x), layer(x))


def test_checkpoints_change_no_bit():
    x, y = data(2, 300, 2).astype(np.float32), data(2, 1).astype(np.float32)
    found = []
    for inner, whole in ((None, None), ("sqrt", None), (None, "sqrt")):
        model = Sequential([Bidirectional(GRU(3, checkpoint=inner)), Dense(1)], seed=0)
        model.compile("sgd", "mse", checkpoint=whole)
        found.append(model.gradients(x, y, lengths=[300, 170]))
        # That it was done with segments at all:
        stored = [layer._tape._checkpoints is not None for layer in model.layers[0].inner()]
        assert stored == [bool(inner or whole)] * 2
    for other in found[1:]:
        for a, b in zip(other, found[0], strict=True):
            np.testing.assert_array_equal(a, b)


def test_bits_do_not_depend_on_threads(thread_counts):
    x, y, lengths = data(40, 20, 8).astype(np.float32), data(40, 20, 8), np.arange(1, 41) // 2
    found = []
    for threads in thread_counts:
        with num_threads(threads):
            model = Sequential([Bidirectional(LSTM(32, return_sequences=True), "sum"), Dense(8)], seed=0)
            model.compile("adam", "mse")
            model.fit(x, y, lengths=lengths, epochs=2, verbose=0)
            found.append(model.get_weights())
    for other in found[1:]:
        for a, b in zip(other, found[0], strict=True):
            np.testing.assert_array_equal(a, b)


# ---- masks


@pytest.mark.parametrize("sequences", [True, False])
def test_a_padded_sequence_equals_it_alone(sequences):
    model = Sequential([Bidirectional(GRU(3, return_sequences=sequences)), Dense(2)], "float64", seed=1)
    x, lengths = data(4, 6, 2), [3, 6, 1, 4]
    whole = model.predict(x, lengths=lengths)
    for k, n in enumerate(lengths):
        alone = model.predict(x[k : k + 1, :n])[0]
        np.testing.assert_array_equal(whole[k, :n] if sequences else whole[k], alone)


def test_the_mask_is_handed_on():
    layer, x = Bidirectional(GRU(3, return_sequences=True)), data(3, 6, 2)
    mask = MASKS["holes"]
    layer(x, mask=mask)
    np.testing.assert_array_equal(layer.layer.mask, mask)
    layer.mask = mask
    layer.forward(x, training=False)
    np.testing.assert_array_equal(layer.output_mask(x), mask)
    last = Bidirectional(GRU(3))
    last(x)
    last.mask = mask
    last.forward(x, training=False)
    assert last.output_mask(x) is None
    backwards = Bidirectional(GRU(3, return_sequences=True, go_backwards=True))
    backwards(x)
    backwards.mask = mask
    backwards.forward(x, training=False)
    np.testing.assert_array_equal(backwards.output_mask(x), mask[:, ::-1])
    # In a model: masked steps enter neither the loss nor the second layer.
    model = Sequential(
        [Masking(), Bidirectional(LSTM(2, return_sequences=True)), Bidirectional(GRU(2, return_sequences=True))],
        "float64", seed=0,
    )  # fmt: skip
    model.compile("sgd", "mse")
    x, y = np.where(MASKS["right"][..., None], x, 0), data(3, 6, 4)
    errors = (model.predict(x) - y) ** 2
    assert model.evaluate(x, y, verbose=0) == pytest.approx(errors[MASKS["right"]].mean(), rel=1e-12)
    alone = [model.predict(x[k : k + 1, :n])[0] for k, n in enumerate((6, 2, 4))]
    np.testing.assert_array_equal(model.predict(x)[MASKS["right"]], np.concatenate(alone))


# ---- go_backwards, states, other backward layers


@pytest.mark.parametrize("sequences", [True, False])
def test_a_layer_that_reads_backwards_changes_places(sequences):
    x = data(3, 6, 2)
    plain = Bidirectional(GRU(3, return_sequences=sequences))
    turned = Bidirectional(GRU(3, return_sequences=sequences, go_backwards=True))
    plain(x), turned(x)
    scramble(plain)
    weights = plain.get_weights()
    turned.set_weights([*weights[3:], *weights[:3]])
    forward, backward = np.split(plain(x, mask=MASKS["holes"]), 2, axis=-1)
    expected = np.concatenate([backward, forward], axis=-1)
    found = turned(x, mask=MASKS["holes"])
    np.testing.assert_array_equal(found, expected[:, ::-1] if sequences else expected)


def test_states_in_and_out():
    options = {"return_sequences": True, "return_state": True}
    layer, x = Bidirectional(LSTM(3, **options), "sum"), data(2, 5, 2)
    given = [data(2, 3, seed=k) for k in range(4)]
    output, *states = layer(x, initial_state=given)
    assert len(states) == 4
    forward = LSTM(3, **options)
    forward(x)
    forward.set_weights(layer.get_weights()[:3])
    backward = LSTM(3, go_backwards=True, **options)
    backward(x)
    backward.set_weights(layer.get_weights()[3:])
    ahead, *first = forward(x, initial_state=given[:2])
    back, *second = backward(x, initial_state=given[2:])
    np.testing.assert_array_equal(output, ahead + back[:, ::-1])
    for a, b in zip(states, [*first, *second], strict=True):
        np.testing.assert_array_equal(a, b)
    apart = Bidirectional(LSTM(3, **options), None)
    assert len(apart(x)) == 6
    with pytest.raises(ValueError, match="initial_state: expected 4 arrays, the states of the forward and of the"):
        layer(x, initial_state=given[:2])
    with pytest.raises(ValueError, match="return_state=True has several outputs"):
        Sequential([layer])


def test_a_backward_layer_of_its_own():
    x = data(2, 5, 2)
    layer = Bidirectional(LSTM(3), backward_layer=GRU(4, go_backwards=True, name="back"))
    assert layer(x).shape == (2, 7)
    assert [p.name for p in layer.inner()] == ["forward_lstm", "backward_back"]
    assert Sequential(
        [Input((5, 2)), Bidirectional(LSTM(3), backward_layer=GRU(4, go_backwards=True))]
    ).output_shape == (7,)
    model = Sequential([Bidirectional(LSTM(3), backward_layer=GRU(4, go_backwards=True)), Dense(1)], "float64", seed=0)
    model.compile("sgd", "mse")
    check_gradients(model, x, data(2))


# ---- in models: names, freezing, penalties, saving


def test_names_order_and_frozen_weights():
    model = Sequential([Input((None, 2)), Bidirectional(LSTM(3)), Dense(1)], seed=0)
    parts = ("kernel", "recurrent_kernel", "bias")
    expected = [f"bidirectional/{d}_lstm/{p}" for d in ("forward", "backward") for p in parts]
    assert [w.name for w in model.weights][:6] == expected
    np.testing.assert_array_equal(model.get_weights()[5], np.repeat([0, 1, 0, 0], 3))
    assert (model.get_weights()[0] != model.get_weights()[3]).all()
    assert model.count_params() == 2 * LSTM_PARAMS + 7
    for frozen, kept in (
        (Bidirectional(LSTM(3), trainable=False), range(6)),
        (TimeDistributed(Bidirectional(LSTM(3), trainable=False)), None),
        (Bidirectional(LSTM(3, trainable=False), backward_layer=LSTM(3, go_backwards=True)), range(3)),
    ):
        if kept is None:
            assert not any(s.trainable for s in frozen.specs((None, None, 2)))
            continue
        model = Sequential([frozen, Dense(1)], seed=0)
        model.compile("sgd", "mse")
        model.build((None, 2))
        before = model.get_weights()
        model.fit(data(4, 3, 2), data(4), verbose=0)
        changed = [(a != b).any() for a, b in zip(model.get_weights(), before, strict=True)]
        assert changed == [k not in kept for k in range(8)]


LSTM_PARAMS = 12 * (2 + 3 + 1)


def test_penalties_of_both_directions_enter_loss_and_gradient():
    options = {"kernel_regularizer": L2(0.3), "activity_regularizer": L2(0.2)}
    model = Sequential([Bidirectional(GRU(3, return_sequences=True, **options), "mul"), Dense(1)], "float64", seed=0)
    model.compile("sgd", "mse")
    x, y = data(2, 4, 2), data(2, 4, 1)
    check_gradients(model, x, y)
    forward, kernels = model.layers[0], [model.get_weights()[k] for k in (0, 3)]
    apart = Bidirectional(GRU(3, return_sequences=True), None)
    apart(x)
    apart.set_weights(forward.get_weights())
    outputs = apart(x)
    expected = ((model.predict(x) - y) ** 2).mean() + 0.3 * sum((k**2).sum() for k in kernels)
    expected += 0.2 * sum((o**2).sum() for o in outputs) / 2
    assert model.evaluate(x, y, verbose=0) == pytest.approx(expected, rel=1e-12)


def test_saving_copying_and_configuration(tmp_path):
    layer = Bidirectional(RNN(3, cell="gru", return_sequences=True), "mul", name="both")
    again = Bidirectional.from_config(json.loads(json.dumps(layer.get_config())))
    assert again.get_config() == layer.get_config()
    assert again.inner()[1].go_backwards
    model = Sequential([layer, Dropout(0.2), Dense(1)], seed=0)
    model.compile("adam", "mse")
    x, y = data(6, 4, 2), data(6, 4, 1)
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model")
    for other in (load_model(tmp_path / "model"), copy.deepcopy(model)):
        np.testing.assert_array_equal(model.predict(x), other.predict(x))
    other = load_model(tmp_path / "model")
    for m in (model, other):
        m.fit(x, y, verbose=0)
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    apart = Bidirectional(GRU(3), None)
    outputs = apart(x)
    for a, b in zip(copy.deepcopy(apart)(x), outputs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_copies_are_made_of_the_layers_given():
    inner = GRU(3, return_sequences=True)
    first, second = Bidirectional(inner), Bidirectional(inner)
    assert inner.name is None and not inner.zero_output_for_mask and not inner.go_backwards
    Sequential([Input((4, 2)), first, second, inner])


# ---- refused


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Bidirectional(Dense(3)), "layer: expected a recurrent layer, got Dense"),
        (lambda: Bidirectional("lstm"), "layer: expected a recurrent layer, got str"),
        (lambda: Bidirectional(GRU(3), backward_layer=Dense(3)), "backward_layer: expected a recurrent layer, got Den"),
        (lambda: Bidirectional(GRU(3), "conct"), "merge_mode: unknown name 'conct', did you mean 'concat'"),
        (lambda: Bidirectional(GRU(3, stateful=True)), "layer: stateful=True has no meaning in Bidirectional"),
        (lambda: Bidirectional(GRU(3), backward_layer=GRU(3)), "backward_layer: both layers have go_backwards=False"),
        (
            lambda: Bidirectional(GRU(3), backward_layer=GRU(3, go_backwards=True, return_sequences=True)),
            "backward_layer: return_sequences is True, that of layer False",
        ),
        (
            lambda: Bidirectional(GRU(3), backward_layer=GRU(3, go_backwards=True, return_state=True)),
            "backward_layer: return_state is True, that of layer False",
        ),
        (
            lambda: Bidirectional(GRU(3), "sum", backward_layer=GRU(4, go_backwards=True)),
            "backward_layer: merge_mode='sum' takes equal units, got 3, 4",
        ),
        (
            lambda: Sequential([Input((4, 2)), Bidirectional(GRU(3), None)]),
            "merge_mode=None gives two outputs, which Seq",
        ),
        (lambda: Sequential([Input((4,)), Bidirectional(GRU(3))]), r"a recurrent layer takes \(time, features\)"),
        (lambda: Bidirectional(GRU(3))(np.ones((2, 3))), r"a recurrent layer takes \(time, features\)"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_it_needs_whole_sequences():
    model = Sequential([Bidirectional(GRU(3, return_sequences=True)), Dense(1)], seed=0)
    model.compile("sgd", "mse")
    x, y = data(2, 4, 2), data(2, 4, 1)
    before = model.fit(x, y, verbose=0), model.get_weights()
    with pytest.raises(ValueError, match="layer 'bidirectional' needs whole sequences"):
        model.fit(x, y, tbptt=(2, 2), verbose=0)
    with pytest.raises(ValueError, match="layer 'bidirectional' needs whole sequences"):
        model.stream_step(x)
    for a, b in zip(model.get_weights(), before[1], strict=True):
        np.testing.assert_array_equal(a, b)
