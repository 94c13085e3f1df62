"""Layers: shapes, forward against NumPy, gradients by finite differences in float64, configuration, initial values."""

import json

import numpy as np
import pytest

from elman import Sequential, layers
from elman.layers import (
    GRU,
    LAYERS,
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
    LayerNormalization,
    Masking,
    RepeatVector,
    Reshape,
    SegmentRNN,
    SimpleRNN,
    SpatialDropout1D,
    TimeDistributed,
)

# ---- twins, written from the formulas


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


TWINS = {
    "linear": lambda x: x,
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "relu": lambda x: np.maximum(x, 0),
    "hard_sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "elu": lambda x: np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1),
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * (np.exp(np.minimum(x, 0)) - 1)),
    "softplus": lambda x: np.log(1 + np.exp(x)),
    "exponential": np.exp,
    "leaky_relu": lambda x: np.where(x > 0, x, 0.2 * x),
    "relu6": lambda x: np.clip(x, 0, 6),
    "softmax": softmax,
}
NAMES = [name for name in TWINS if name != "softmax"]


def simple(x, h, kernel, recurrent, bias, act, gate):
    for t in range(x.shape[1]):
        h = act(x[:, t] @ kernel + bias + h @ recurrent)
        yield (h,)


def lstm(x, state, kernel, recurrent, bias, act, gate):
    h, c = state
    for t in range(x.shape[1]):
        i, f, g, o = np.split(x[:, t] @ kernel + bias + h @ recurrent, 4, axis=1)
        c = gate(f) * c + gate(i) * act(g)
        h = gate(o) * act(c)
        yield h, c


def gru(x, h, kernel, recurrent, bias, act, gate):
    for t in range(x.shape[1]):
        xz, xr, xh = np.split(x[:, t] @ kernel + bias[0], 3, axis=1)
        hz, hr, hh = np.split(h @ recurrent + bias[1], 3, axis=1)
        z = gate(xz + hz)
        h = z * h + (1 - z) * act(xh + gate(xr + hr) * hh)
        yield (h,)


def gru_before(x, h, kernel, recurrent, bias, act, gate):
    rz, rr, rh = np.split(recurrent, 3, axis=1)
    for t in range(x.shape[1]):
        xz, xr, xh = np.split(x[:, t] @ kernel + bias, 3, axis=1)
        z = gate(xz + h @ rz)
        h = z * h + (1 - z) * act(xh + (gate(xr + h @ rr) * h) @ rh)
        yield (h,)


CELLS = {
    "simple": (SimpleRNN, simple),
    "lstm": (LSTM, lstm),
    "gru": (GRU, gru),
    "gru_reset_before": (lambda units, *args, **kw: GRU(units, *args, reset_after=False, **kw), gru_before),
}


def run_twin(cell, x, weights, state, act="tanh", gate="sigmoid"):
    """Outputs (B, T, H) and the last states."""
    kernel, recurrent, *bias = weights
    bias = bias[0] if bias else np.zeros((2, kernel.shape[1]) if cell == "gru" else kernel.shape[1])
    state = state if cell == "lstm" else state[0]
    steps = list(CELLS[cell][1](x, state, kernel, recurrent, bias, TWINS[act], TWINS[gate]))
    return np.stack([s[0] for s in steps], axis=1), list(steps[-1])


# ---- helpers


def random_weights(layer, rng, scale=0.5):
    """Random values everywhere, the biases too: constant weights hide gate order and transposition."""
    layer.set_weights([rng.normal(scale=scale, size=w.shape) for w in layer.get_weights()])


def check_gradients(model, x, y, loss="mse", seed=0, weight=None, scale=0.5):
    """Directional derivatives along random directions by central differences, relative 1e-6."""
    model.compile("sgd", loss)
    rng = np.random.default_rng(seed)
    model.build(x.shape[1:])
    random_weights(model, rng, scale)
    before = model.get_weights()
    gradients = model.gradients(x, y, weight)
    assert [g.shape for g in gradients] == [w.shape for w in before]
    for w, v in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(w, v)
    directions = [[rng.normal(size=w.shape) for w in before]]
    # Each parameter alone as well: a wrong small one would drown among the others.
    for k in range(len(before)):
        directions.append([rng.normal(size=w.shape) * (i == k) for i, w in enumerate(before)])
    for direction in directions:
        values = []
        for step in (1e-5, -1e-5):
            model.set_weights([w + step * d for w, d in zip(before, direction, strict=True)])
            values.append(model.test_on_batch(x, y, weight))
        numeric = (values[0] - values[1]) / 2e-5
        exact = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True))
        assert abs(numeric) > 1e-6, "the check sees nothing"
        assert abs(exact - numeric) <= 1e-6 * max(abs(numeric), 1e-2)
    model.set_weights(before)


def data(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


# ---- forward


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("backwards", [False, True])
def test_recurrent_layer_equals_its_equations(cell, use_bias, backwards):
    rng = np.random.default_rng(7)
    x = data(3, 6, 4, seed=1)
    state = [data(3, 5, seed=k + 2) for k in range(2 if cell == "lstm" else 1)]
    options = {"use_bias": use_bias, "go_backwards": backwards, "return_state": True}
    sequences = CELLS[cell][0](5, return_sequences=True, **options)
    last = CELLS[cell][0](5, **options)
    sequences(x), last(x)
    random_weights(sequences, rng)
    last.set_weights(sequences.get_weights())
    assert len(last.get_weights()) == 2 + use_bias
    for given in (None, state):
        begin = given or [np.zeros((3, 5))] * len(state)
        expected, states = run_twin(cell, x[:, ::-1] if backwards else x, last.get_weights(), begin)
        output, *returned = sequences(x, initial_state=given)
        np.testing.assert_allclose(output, expected, rtol=1e-12, atol=1e-13)  # in processing order
        assert len(returned) == len(states)
        for a, b in zip(returned, states, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)
        output, *returned = last(x, initial_state=given)
        np.testing.assert_allclose(output, expected[:, -1], rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(returned[-1], states[-1], rtol=1e-12, atol=1e-13)


def test_initial_state_of_one_array_and_its_errors():
    layer, x = GRU(3, return_state=True), data(2, 4, 2)
    h = data(2, 3)
    np.testing.assert_array_equal(layer(x, initial_state=h)[0], layer(x, initial_state=[h])[0])
    with pytest.raises(ValueError, match=r"initial_state: cell 'gru' has 1 states, got 2"):
        layer(x, initial_state=[h, h])
    with pytest.raises(ValueError, match=r"initial_state\[0\]: expected shape \(2, 3\), got \(2, 4\)"):
        layer(x, initial_state=data(2, 4))
    with pytest.raises(ValueError, match=r"initial_state\[1\]: 1 of 6 values are not finite"):
        LSTM(3)(x, initial_state=[h, np.where(h == h[0, 0], np.nan, h)])


def test_a_sequence_in_two_parts_with_the_state_carried_equals_the_whole():
    for layer in (LSTM(5, return_sequences=True, return_state=True), GRU(5, return_sequences=True, return_state=True)):
        x = data(3, 9, 4)
        whole, *final = layer(x)
        first, *state = layer(x[:, :4])
        second, *end = layer(x[:, 4:], initial_state=state)
        np.testing.assert_array_equal(np.concatenate([first, second], axis=1), whole)
        for a, b in zip(end, final, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", TWINS)
def test_activation_names_on_dense_and_activation_layers(name):
    x = data(5, 3, 4, seed=3)
    np.testing.assert_allclose(Activation(name)(x), TWINS[name](x), rtol=2e-14, atol=2e-15)
    dense = Dense(6, activation=name)
    dense(x)
    random_weights(dense, np.random.default_rng(1))
    kernel, bias = dense.get_weights()
    np.testing.assert_allclose(dense(x), TWINS[name](x @ kernel + bias), rtol=1e-12, atol=1e-13)


def test_twins_cover_every_activation():
    assert sorted(TWINS) == sorted(layers.activation.ACTIVATION_NAMES)


def test_layers_that_move_data():
    x = np.arange(24.0).reshape(2, 3, 4)
    np.testing.assert_array_equal(Flatten()(x), x.reshape(2, 12))
    np.testing.assert_array_equal(Flatten()(x[:, 0]), x[:, 0])
    np.testing.assert_array_equal(RepeatVector(3)(x[:, 0]), np.stack([x[:, 0]] * 3, axis=1))
    for shape in ((4, 3), (-1, 3), (4, -1), (1, -1), (12,), (-1,)):
        wanted = Reshape(shape)(x)
        np.testing.assert_array_equal(wanted, x.reshape(2, *shape))
    np.testing.assert_array_equal(Reshape((2, 2))(x[:, 0]), x[:, 0].reshape(2, 2, 2))
    np.testing.assert_array_equal(LastSteps(2)(x), x[:, 1:])
    np.testing.assert_array_equal(LastSteps(3)(x), x)
    inner = Dense(2)
    np.testing.assert_array_equal(TimeDistributed(inner)(x)[:, 1], inner(x[:, 1]))
    np.testing.assert_array_equal(RNN(2, return_sequences=True)(x[:, :2]), RNN(2, return_sequences=True)(x)[:, :2])
    np.testing.assert_array_equal(TimeDistributed(RepeatVector(2))(x)[:, :, 1], x)
    np.testing.assert_array_equal(TimeDistributed(TimeDistributed(Flatten()))(x[..., None]), x[..., None])


def test_rows_of_record_arrays_and_other_strides_give_the_same_bits():
    plain = data(3, 5, 2).astype(np.float32)
    records = np.zeros(plain.shape, [("flag", "u1"), ("value", "f4")])
    records["value"] = plain
    shifted = np.frombuffer(b"x" + plain.tobytes(), np.uint8)[1:].view(np.float32).reshape(plain.shape)
    wide = np.zeros((5, 3, 7), np.float32)
    wide[:, :, 1:6:4] = plain.transpose(1, 0, 2)
    forms = [records["value"], shifted, wide.transpose(1, 0, 2)[:, :, 1:6:4], plain[:, ::-1].copy()[:, ::-1]]
    forms += [np.asfortranarray(plain), plain.astype(">f4"), plain.tolist()]
    layer = GRU(3)
    expected = layer(plain)
    for form in forms:
        np.testing.assert_array_equal(layer(form), expected)


# ---- gradients


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("use_bias", [True, False])
def test_stacks_of_a_cell_have_exact_gradients(cell, use_bias):
    make = CELLS[cell][0]
    model = Sequential(
        [
            make(4, return_sequences=True, use_bias=use_bias),
            make(3, return_sequences=True, go_backwards=True, use_bias=use_bias),
            make(5, use_bias=use_bias, go_backwards=True),
            Dense(2, use_bias=use_bias),
        ],
        "float64",
    )
    check_gradients(model, data(3, 5, 2), data(3, 2))


def test_mixed_stack_with_sequence_targets_and_weights():
    model = Sequential(
        [GRU(4, return_sequences=True), LSTM(3, return_sequences=True), TimeDistributed(Dense(2, "tanh")), Dense(2)],
        "float64",
    )
    x, y = data(3, 5, 2), data(3, 5, 2)
    check_gradients(model, x, y, weight=np.random.default_rng(0).random((3, 5)))


@pytest.mark.parametrize(
    ("stack", "x", "y"),
    [
        ([LSTM(3), RepeatVector(4), GRU(3, return_sequences=True), Dense(1)], (3, 6, 2), (3, 4, 1)),
        ([SimpleRNN(3, return_sequences=True), Flatten(), Dense(4, "relu"), Dense(2)], (4, 5, 2), (4, 2)),
        ([SimpleRNN(3, return_sequences=True), Activation("softsign"), GRU(2), Dense(2)], (4, 5, 2), (4, 2)),
        ([Dense(4, "elu"), RepeatVector(3), Flatten(), Dense(1)], (4, 3), (4, 1)),
        ([TimeDistributed(Dense(3, "sigmoid")), LSTM(2), Activation("tanh")], (4, 5, 2), (4, 2)),
        ([TimeDistributed(RepeatVector(2)), TimeDistributed(GRU(3)), LSTM(2)], (2, 4, 3), (2, 2)),
        ([GRU(3), RepeatVector(2), TimeDistributed(Flatten()), Flatten()], (3, 4, 2), (3, 6)),
        ([GRU(6, return_sequences=True), Reshape((-1, 4)), LSTM(3)], (3, 4, 2), (3, 3)),
        ([GRU(6), Reshape((2, 3)), LSTM(3, return_sequences=True), Reshape((6,)), Dense(2)], (3, 4, 2), (3, 2)),
        ([GRU(3, return_sequences=True), LastSteps(2), LSTM(2, return_sequences=True)], (3, 5, 2), (3, 2, 2)),
        ([Dense(3), SegmentRNN(4, 3, 2, known=[0], static=[1]), Dense(2)], (3, 8, 2), (3, 3, 2)),
        ([LayerNormalization(), Bidirectional(GRU(3)), LayerNormalization()], (3, 4, 4), (3, 6)),
        (
            [Masking(), TimeDistributed(RepeatVector(2)), TimeDistributed(Bidirectional(GRU(3))), GRU(2)],
            (2, 3, 4),
            (2, 2),
        ),
    ],
    ids=lambda v: "-".join(type(layer).__name__ for layer in v) if isinstance(v, list) else "",
)
def test_gradients_through_every_layer(stack, x, y):
    check_gradients(Sequential(stack, "float64"), data(*x), data(*y, seed=1))


@pytest.mark.parametrize("head", [[Dense(3, "softmax")], [Dense(3), Activation("softmax")]], ids=["dense", "layer"])
def test_gradients_of_softmax_heads(head):
    y = np.eye(3)[[0, 2, 1, 1]]
    check_gradients(Sequential([GRU(3), *head], "float64"), data(4, 5, 2), y, loss="categorical_crossentropy")


@pytest.mark.parametrize("k", range(len(NAMES)), ids=NAMES)
def test_activation_names_in_recurrent_and_dense_layers(k):
    """Every name as `activation`, as `recurrent_activation` and on a dense layer: forward, then gradients."""
    cell = ("simple", "lstm", "gru", "gru_reset_before")[k % 4]
    act, gate = NAMES[k], NAMES[(k + 5) % len(NAMES)]
    layer = CELLS[cell][0](3, act, recurrent_activation=gate)
    model = Sequential([layer, Dense(3, act), Dense(2)], "float64")
    x = data(3, 3, 2, seed=5) / 2
    # Small weights: growing activations as gates grow without bound along time.
    check_gradients(model, x, data(3, 2), seed=k + 2, scale=0.3)
    kernel, bias, last, last_bias = model.get_weights()[-4:]
    zeros = [np.zeros((3, 3))] * (2 if cell == "lstm" else 1)
    h = run_twin(cell, x, model.get_weights()[:-4], zeros, act, gate)[1][0]
    np.testing.assert_allclose(model.predict(x), TWINS[act](h @ kernel + bias) @ last + last_bias, rtol=1e-11)


# ---- shapes, configuration


@pytest.mark.parametrize(
    ("layer", "given", "expected"),
    [
        (LSTM(4), (None, 3), (4,)),
        (LSTM(4, return_sequences=True), (None, 3), (None, 4)),
        (Dense(2), (5,), (2,)),
        (Dense(2), (None, 5), (None, 2)),
        (Flatten(), (3, 4), (12,)),
        (RepeatVector(3), (4,), (3, 4)),
        (Reshape((4, -1)), (6, 2), (4, 3)),
        (Reshape((-1,)), (6, 2), (12,)),
        (LastSteps(3), (None, 4), (3, 4)),
        (LastSteps(3), (3, 4), (3, 4)),
        (EmbedColumns([(1, 5, 3), (0, 2, 1)]), (None, 4), (None, 6)),
        (EmbedColumns([(1, 5, 3)]), (2,), (4,)),
        (SegmentRNN(4, 7, 3, outputs=2), (None, 5), (7, 2)),
        (SegmentRNN(4, 7, 3), (10, 5), (7, 1)),
        (TimeDistributed(Dense(2)), (None, 5), (None, 2)),
        (TimeDistributed(GRU(2)), (7, 6, 5), (7, 2)),
        (Activation("relu"), (None, 5), (None, 5)),
        (Input((None, 3)), (None, 3), (None, 3)),
        (Dropout(0.2), (None, 5), (None, 5)),
        (SpatialDropout1D(0.2), (None, 5), (None, 5)),
        (GaussianNoise(0.1), (5,), (5,)),
        (LayerNormalization(), (None, 5), (None, 5)),
        (Embedding(5, 3), (None,), (None, 3)),
        (Masking(), (None, 5), (None, 5)),
        (Bidirectional(LSTM(4)), (None, 3), (8,)),
        (Bidirectional(LSTM(4, return_sequences=True), "sum"), (None, 3), (None, 4)),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, layers.Layer) else "",
)
def test_output_shapes(layer, given, expected):
    assert layer.compute_output_shape(given) == expected


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (LSTM(4, name="first"), (3,), r"layer first: a recurrent layer takes \(time, features\), got \(3,\)"),
        (GRU(4), (None, None), "layer GRU"),
        (Dense(2), (3, 4, 5), r"layer Dense: takes \(features,\) or \(time, features\), got \(3, 4, 5\)"),
        (Flatten(), (None, 4), "layer Flatten: the number of time steps must be known"),
        (RepeatVector(3), (2, 4), r"layer RepeatVector: takes \(features,\), got \(2, 4\)"),
        (Reshape((5, -1)), (3, 4), r"layer Reshape: the 12 elements of \(3, 4\) do not fill target_shape=\(5, -1\)"),
        (Reshape((5, 2)), (5, 4), r"layer Reshape: the 20 elements of \(5, 4\) do not fill target_shape=\(5, 2\)"),
        (Reshape((5, -1)), (None, 4), r"layer Reshape: the number of time steps must be known, got \(None, 4\)"),
        (LastSteps(3), (2, 4), "layer LastSteps: needs at least n=3 steps, got 2"),
        (LastSteps(3), (4,), r"layer LastSteps: takes \(time, features\), got \(4,\)"),
        (EmbedColumns([(2, 5, 3)]), (None, 2), r"layer EmbedColumns: columns\[0\] names column 2, but the input has 2"),
        (EmbedColumns([(2, 5, 3)]), (), r"layer EmbedColumns: takes \(features,\) or \(time, features\), got \(\)"),
        (SegmentRNN(4, 7, 3), (9, 2), "layer SegmentRNN: needs at least 10 steps, a segment of 3 and the horizon of 7"),
        (SegmentRNN(4, 7, 3, name="s"), (9,), r"layer s: takes \(time, features\), got \(9,\)"),
        (SegmentRNN(4, 7, 3, known=[0, 2]), (None, 2), "layer SegmentRNN: known names column 2, but the input has 2"),
        (SegmentRNN(4, 7, 3, static=[2]), (None, 2), "layer SegmentRNN: static names column 2, but the input has 2"),
        (SegmentRNN(4, 7, 3, static=[0, 1]), (None, 2), "static names all 2 columns, nothing is left for the segments"),
        (TimeDistributed(Dense(2)), (3,), r"layer TimeDistributed: takes \(time, ...\), got \(3,\)"),
        (SpatialDropout1D(0.2), (3,), r"layer SpatialDropout1D: takes \(time, features\), got \(3,\)"),
        (Embedding(5, 3), (3, 4), "layer Embedding"),
        (Masking(), (3,), r"layer Masking: takes \(time, features\), got \(3,\)"),
        (Bidirectional(LSTM(4, name="x")), (3,), r"layer forward_x: a recurrent layer takes \(time, features\)"),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, layers.Layer) else "",
)
def test_shapes_a_layer_cannot_take(layer, shape, message):
    with pytest.raises(ValueError, match=message):
        layer.compute_output_shape(shape)


CONFIGURED = [
    SimpleRNN(3, "relu", use_bias=False, name="mine"),
    LSTM(3, recurrent_activation="hard_sigmoid", unit_forget_bias=False, return_sequences=True),
    GRU(3, None, reset_after=False, go_backwards=True, return_state=True, kernel_initializer="he_normal"),
    RNN(3, cell="gru", recurrent_initializer={"class_name": "Orthogonal", "config": {"gain": 0.5}}),
    Dense(2, "softmax", bias_initializer="ones"),
    Activation("elu"),
    Flatten(name="flat"),
    RepeatVector(3),
    Reshape((-1, 2)),
    LastSteps(2),
    EmbedColumns([(1, 5, 3), (0, 2, 1)], embeddings_initializer="ones"),
    SegmentRNN(3, 2, 1, outputs=2, cell="lstm", layers=2, known=[1], static=[0], activation=None, dropout=0.1, seed=1),
    TimeDistributed(Dense(2, use_bias=False)),
    Input((None, 3)),
    Dropout(0.2, seed=1),
    SpatialDropout1D(0.2),
    GaussianNoise(0.1),
    LayerNormalization(epsilon=0.1),
    Embedding(5, 3, mask_zero=True),
    Masking(-1.0),
    Bidirectional(GRU(3, return_sequences=True), "mul"),
]


def test_every_layer_is_configured_here():
    assert {type(layer).__name__ for layer in CONFIGURED} == {
        n for n, c in LAYERS.items() if c.__module__.startswith("elman.layers.")
    }


@pytest.mark.parametrize("layer", CONFIGURED, ids=lambda layer: type(layer).__name__)
def test_configurations_survive_json(layer):
    config = json.loads(json.dumps(layer.get_config()))
    again = type(layer).from_config(config)
    assert type(again) is type(layer)
    assert again.get_config() == layer.get_config()
    assert layer.get_config() != type(layer).from_config({**config, "name": "other"}).get_config()
    # Each on an input that shows its options: a value to mask, features far from 1.
    x = np.where(np.arange(4)[:, None] == 1, -1.0, data(2, 4, 3))
    if isinstance(layer, Embedding):
        x = np.array([[0, 4, 1], [2, 0, 0]])
    elif isinstance(layer, EmbedColumns):
        x = np.array([[1.0, 4.0, 0.5], [0.0, 2.0, -1.5]])
    elif isinstance(layer, RepeatVector):
        x = x[:, 0]
    elif isinstance(layer, Input):
        return
    found, expected = layer(x), again(x)
    for a, b in zip(*([v] if isinstance(v, np.ndarray) else v for v in (found, expected)), strict=True):
        np.testing.assert_array_equal(a, b)
    if layer.masks:
        np.testing.assert_array_equal(layer.output_mask(x), again.output_mask(x))
        assert not layer.output_mask(x).all()


# ---- weights: shapes, order, counts, initial values


@pytest.mark.parametrize(
    ("layer", "features", "names", "shapes"),
    [
        (SimpleRNN(7), 3, ["kernel", "recurrent_kernel", "bias"], [(3, 7), (7, 7), (7,)]),
        (LSTM(7), 3, ["kernel", "recurrent_kernel", "bias"], [(3, 28), (7, 28), (28,)]),
        (GRU(7), 3, ["kernel", "recurrent_kernel", "bias"], [(3, 21), (7, 21), (2, 21)]),
        (GRU(7, reset_after=False), 3, ["kernel", "recurrent_kernel", "bias"], [(3, 21), (7, 21), (21,)]),
        (GRU(7, use_bias=False), 3, ["kernel", "recurrent_kernel"], [(3, 21), (7, 21)]),
        (Dense(7), 3, ["kernel", "bias"], [(3, 7), (7,)]),
        (TimeDistributed(Dense(7, use_bias=False)), 3, ["kernel"], [(3, 7)]),
        (LayerNormalization(), 3, ["gamma", "beta"], [(3,), (3,)]),
        (
            GRU(7, learn_initial_state=True),
            3,
            ["kernel", "recurrent_kernel", "bias", "initial_state"],
            [(3, 21), (7, 21), (2, 21), (1, 7)],
        ),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, layers.Layer) else "",
)
def test_weights_have_kerass_shapes_and_order(layer, features, names, shapes):
    model = Sequential([Input((5, features)), layer])
    assert [w.shape for w in model.get_weights()] == shapes
    assert [w.name.split("/")[1] for w in model.weights] == names
    assert {w.name.split("/")[0] for w in model.weights} == {layer.name}
    assert model.count_params() == layer.count_params() == sum(int(np.prod(s)) for s in shapes)


@pytest.mark.parametrize(
    ("layer", "count"),
    # What Keras prints for these layers on 8 features.
    [
        (SimpleRNN(32), 1312),
        (LSTM(32), 5248),
        (GRU(32), 4032),
        (GRU(32, reset_after=False), 3936),
        (Dense(10), 90),
        (LayerNormalization(), 16),
        (Bidirectional(LSTM(32)), 10496),
    ],
    ids=["simple", "lstm", "gru", "gru_before", "dense", "normalization", "bidirectional"],
)
def test_count_params_gives_kerass_numbers(layer, count):
    assert Sequential([Input((None, 8)), layer]).count_params() == count


@pytest.mark.parametrize("cell", CELLS)
def test_initial_values(cell):
    units, features = 24, 10
    model = Sequential([Input((None, features)), CELLS[cell][0](units)], "float64", seed=3)
    kernel, recurrent, bias = model.get_weights()
    limit = np.sqrt(6 / (features + kernel.shape[1]))  # fans of the whole matrix
    assert 0.97 * limit < np.abs(kernel).max() <= limit
    assert abs(kernel.mean()) < 3 * limit / np.sqrt(3 * kernel.size)
    np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(units), atol=1e-12)
    expected = np.zeros_like(bias)
    if cell == "lstm":
        expected[units : 2 * units] = 1
    np.testing.assert_array_equal(bias, expected)


def test_unit_forget_bias_off_and_beside_another_initializer():
    def bias(**options):
        return Sequential([Input((None, 2)), LSTM(3, **options)]).get_weights()[2]

    np.testing.assert_array_equal(bias(unit_forget_bias=False), np.zeros(12))
    constant = bias(bias_initializer={"class_name": "Constant", "config": {"value": 0.25}})
    np.testing.assert_array_equal(constant, np.repeat([0.25, 1, 0.25, 0.25], 3))


def test_seeds_are_reproducible():
    def weights(seed, dtype="float32"):
        return Sequential([Input((None, 2)), LSTM(3, return_sequences=True), GRU(3), Dense(1)], dtype, seed)

    a, b, c = (weights(s).get_weights() for s in (1, 1, 2))
    for p, q, r in zip(a, b, c, strict=True):
        np.testing.assert_array_equal(p, q)
        assert p.shape == r.shape
        assert not p.any() or p.ndim == 1 or not np.array_equal(p, r)
    for p, q in zip(a, weights(1, "float64").get_weights(), strict=True):
        np.testing.assert_array_equal(p, q.astype(np.float32))
    first, second = (Sequential([Input((None, 2)), GRU(3)]).get_weights() for _ in range(2))
    assert not np.array_equal(first[0], second[0])  # no seed: a new one every time


def test_a_layer_called_alone_keeps_its_weights_in_a_model():
    layer, x = GRU(3), data(2, 4, 2)
    alone = layer(x)
    model = Sequential([layer], "float64")
    np.testing.assert_array_equal(model.predict(x), alone)
    with pytest.raises(ValueError, match="'gru' belongs to another model"):
        Sequential([Input((4, 2)), layer])
    np.testing.assert_array_equal(model.predict(x), alone)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GRU(0), "units: expected an integer of at least 1, got 0"),
        (lambda: LSTM(-3), "units: .* got -3"),
        (lambda: Dense(2.5), "units: expected an integer, got float 2.5"),
        (lambda: Dense(True), "units: expected an integer"),
        (lambda: LSTM(3, "tahn"), "activation: unknown name 'tahn', did you mean 'tanh'"),
        (lambda: GRU(3, recurrent_activation="sigmoit"), "recurrent_activation: .*'sigmoid'"),
        (lambda: GRU(3, "softmax"), "activation: unknown name 'softmax'"),
        (lambda: Dense(3, "relU"), "activation: .* did you mean 'relu'"),
        (lambda: Activation("gelu6"), "activation: unknown name"),
        (lambda: Activation(3), "activation: expected a name, got int 3"),
        (lambda: RNN(3, cell="ltsm"), "cell: unknown name 'ltsm', did you mean 'lstm'"),
        (lambda: Dense(3, kernel_initializer="glorot"), "initializer: unknown name 'glorot'"),
        (lambda: RepeatVector(0), "n: expected an integer of at least 1"),
        (lambda: LastSteps(0), "n: expected an integer of at least 1, got 0"),
        (lambda: Reshape(3), r"target_shape: expected \(time, features\) or \(features,\), got 3"),
        (lambda: Reshape((1, 2, 3)), "target_shape: expected"),
        (lambda: Reshape((-1, -1)), r"target_shape: expected -1 once at most, got \(-1, -1\)"),
        (lambda: Reshape((0, 2)), "target_shape: expected an integer of at least 1, got 0"),
        (lambda: Reshape((-2, 2)), "target_shape: expected an integer of at least 1, got -2"),
        (lambda: Reshape((2.5,)), "target_shape: expected an integer, got float 2.5"),
        (lambda: Input((0, 3)), "shape: expected an integer of at least 1, got 0"),
        (lambda: Input((3, None)), "shape: the number of features must be known"),
        (lambda: Input(3), "shape: expected"),
        (lambda: Input((1, 2, 3)), "shape: expected"),
        (lambda: TimeDistributed("dense"), "layer: expected a layer, got str"),
        (lambda: Dense(3, name=""), "name: expected a non-empty string"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_layers_refuse_wrong_input_when_called():
    layer = GRU(3)
    layer(data(2, 4, 2))
    with pytest.raises(ValueError, match=r"x, for layer GRU, expected shape \(N, \*, 2\), got \(N, 4, 5\)"):
        layer(data(2, 4, 5))
    with pytest.raises(ValueError, match="x: 1 of 16 values are not finite"):
        layer(np.where(np.arange(16).reshape(2, 4, 2) == 3, np.inf, 0))
    with pytest.raises(ValueError, match="a recurrent layer takes"):
        LSTM(3)(data(4, 2))


def test_layer_called_alone_computes_in_the_type_of_x_whatever_its_byte_order():
    x = np.random.default_rng(0).normal(size=(2, 3, 4))
    swapped = GRU(5)(x.astype(">f8"))
    assert swapped.dtype == np.float64
    np.testing.assert_array_equal(swapped, GRU(5)(x))
