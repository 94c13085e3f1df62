"""SegmentRNN: against NumPy, gradients, what it must not read, masks, dropout, what it refuses."""

import copy
import json

import numpy as np
import pytest

from elman import Sequential, load_model, num_threads
from elman.cells import CELLS
from elman.kernels.random import dropout_mask
from elman.layers import GRU, LSTM, Dense, Masking, SegmentRNN
from elman.testing import check_gradients
from elman.testing.twins import sequence

# Past 11, so that two steps are left over of segments of 3; horizon 7, so that two are missing.
PAST, HORIZON, SEGMENT, FEATURES = 11, 7, 3, 4
OPTIONS = {
    "plain": {},
    "lstm": {"cell": "lstm", "outputs": 2},
    "known": {"known": [2, 0], "layers": 2},
    "static": {"static": [3, 1], "cell": "lstm"},
    "all": {"known": (1,), "static": (2, 0), "layers": 3, "outputs": 2, "cell": "lstm"},
    "peephole": {"cell": "peephole_lstm", "known": [0], "static": [1], "layers": 2},
    "mingru": {"cell": "mingru", "known": [3], "activation": None},
    "other activations": {"activation": "softsign", "recurrent_activation": "hard_sigmoid", "static": [0]},
}
MASKS = {
    "none": None,
    "left": np.arange(PAST + HORIZON) >= np.array([0, 5, 9, 4])[:, None],
    "holes": np.random.default_rng(5).random((4, PAST + HORIZON)) < 0.4,
    "all": np.zeros((4, PAST + HORIZON), bool),
}


def data(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def made(options, dtype=np.float64, **more):
    layer = SegmentRNN(5, HORIZON, SEGMENT, **options, **more)
    layer.build_alone((None, FEATURES), np.dtype(dtype))
    rng = np.random.default_rng(1)
    layer.set_weights([rng.normal(scale=0.5, size=w.shape) for w in layer.get_weights()])
    return layer


def twin(layer, x, mask=None):
    """The forecast from the formulas, segment after segment, step after step."""
    weights = dict(zip([s.name for s in layer.specs(layer.shape)], layer.get_weights(), strict=True))
    batch, past, cell = len(x), x.shape[1] - layer.horizon, CELLS[layer.cell]
    size, count = layer.segment, (x.shape[1] - layer.horizon) // layer.segment
    x = x if mask is None else x * mask[..., None]
    dynamic = [c for c in range(x.shape[2]) if c not in layer.static]
    embedded, used = [], []
    for k in range(count):
        steps = slice(past - (count - k) * size, past - (count - k - 1) * size)
        flat = x[:, steps][:, :, dynamic].reshape(batch, -1)
        embedded.append(np.maximum(flat @ weights["embedding/kernel"] + weights["embedding/bias"], 0))
        used.append(np.ones(batch, bool) if mask is None else mask[:, steps].any(axis=1))
    h, used = np.stack(embedded, axis=1), np.stack(used, axis=1)

    def run(prefix, h, state, mask):
        columns = weights[f"{prefix}/kernel"].shape[1]
        bias = weights.get(f"{prefix}/bias", np.zeros((0, columns))).reshape(-1, columns)
        return sequence(
            cell, h, weights[f"{prefix}/kernel"], weights.get(f"{prefix}/recurrent_kernel"), bias, state,
            layer.activation, layer.recurrent_activation, unit_weights=weights.get(f"{prefix}/unit_weights"), mask=mask,
        )  # fmt: skip

    prefixes, states = [f"cell_{k}" if k else "cell" for k in range(layer.layers)], []
    for prefix in prefixes:
        h, last = run(prefix, h, [np.zeros((batch, layer.units))] * cell.states, used)
        states.append(last)
    forecast = []
    for j in range(-(-layer.horizon // size)):
        h = np.tile(weights["position"][j], (batch, 1))
        if layer.known:
            future = np.zeros((batch, size, len(layer.known)))
            for step in range(size):
                if j * size + step < layer.horizon:
                    future[:, step] = x[:, past + j * size + step][:, list(layer.known)]
            h = h + future.reshape(batch, -1) @ weights["known/kernel"]
        if layer.static:
            h = h + x[:, past - 1][:, list(layer.static)] @ weights["static/kernel"]
        for prefix, state in zip(prefixes, states, strict=True):
            h = run(prefix, h[:, None], state, None)[0][:, 0]
        y = h @ weights["output/kernel"] + weights["output/bias"]
        forecast.append(y.reshape(batch, size, layer.outputs))
    return np.concatenate(forecast, axis=1)[:, : layer.horizon]


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("name", OPTIONS)
def test_it_equals_its_equations(name, mask):
    layer, x = made(OPTIONS[name]), data(4, PAST + HORIZON, FEATURES)
    expected = twin(layer, x, MASKS[mask])
    assert np.abs(expected).max() > 0.1
    found = layer(x, mask=MASKS[mask])
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)
    layer.mask = MASKS[mask]
    np.testing.assert_array_equal(layer.forward(x, training=True), found)
    if mask == "none":
        for steps in (HORIZON + SEGMENT, HORIZON + 9):  # any length of the past
            np.testing.assert_allclose(layer(x[:, -steps:]), twin(layer, x[:, -steps:]), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("past", "horizon", "segment"), [(6, 6, 3), (3, 1, 3), (8, 2, 5), (4, 4, 1)])
def test_other_sizes(past, horizon, segment):
    layer, x = SegmentRNN(4, horizon, segment, known=[1], static=[0]), data(3, past + horizon, 2)
    layer(x)
    layer.set_weights([data(*w.shape, seed=k) for k, w in enumerate(layer.get_weights())])
    np.testing.assert_allclose(layer(x), twin(layer, x), rtol=1e-11, atol=1e-12)


def test_float32_stays_float32():
    layer, x = made(OPTIONS["all"], np.float32), data(4, PAST + HORIZON, FEATURES).astype(np.float32)
    assert layer(x).dtype == np.float32
    np.testing.assert_allclose(layer(x), twin(layer, x.astype(float)), rtol=2e-5, atol=2e-5)


# ---- gradients


def model_of(*layers, seed=2):
    model = Sequential(list(layers), "float64", seed=seed)
    model.compile("sgd", "mse")
    model.build((PAST + HORIZON, FEATURES))
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(scale=0.5, size=w.shape) for w in model.get_weights()])
    return model


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("name", OPTIONS)
def test_gradients(name, mask):
    """Of all weights, and by the dense layer below of the input; the parts of each weight alone as well."""
    layer = SegmentRNN(5, HORIZON, SEGMENT, **OPTIONS[name], dropout=0.3)
    model = model_of(Dense(FEATURES, "tanh"), layer, Dense(2))
    x, y = data(4, PAST + HORIZON, FEATURES), data(4, HORIZON, 2, seed=3)
    check_gradients(model, x, y, mask=MASKS[mask], directions=2)
    gradients = model.gradients(x, y, mask=MASKS[mask])
    if mask in ("none", "left"):
        dead = [w.name for w, g in zip(model.weights, gradients, strict=True) if not g.any()]
        assert dead == []


@pytest.mark.parametrize("name", ["all", "known"])
def test_gradients_of_each_weight_alone(name):
    model = model_of(SegmentRNN(5, HORIZON, SEGMENT, **OPTIONS[name]))
    x, y = data(4, PAST + HORIZON, FEATURES), data(4, HORIZON, model.output_shape[-1], seed=3)
    before, gradients = model.get_weights(), model.gradients(x, y)
    rng = np.random.default_rng(0)
    for k, w in enumerate(model.weights):
        direction, values = rng.normal(size=w.value.shape), []
        for step in (1e-5, -1e-5):
            model.set_weights([v + step * direction if i == k else v for i, v in enumerate(before)])
            values.append(model.test_on_batch(x, y))
        numeric = (values[0] - values[1]) / 2e-5
        assert abs(numeric) > 1e-4, w.name
        assert (gradients[k] * direction).sum() == pytest.approx(numeric, rel=1e-6, abs=1e-8), w.name


@pytest.mark.parametrize("mask", ["none", "holes"])
@pytest.mark.parametrize("name", OPTIONS)
def test_gradient_of_the_input(name, mask):
    layer, x = made(OPTIONS[name]), data(4, PAST + HORIZON, FEATURES)
    mask = layer.mask = MASKS[mask]
    dy = data(4, HORIZON, layer.outputs, seed=4)
    layer.forward(x, training=True)
    assert layer.backward(dy, input_gradient=False) is None
    alone = [g.copy() for g in layer.gradients]
    layer.forward(x, training=True)
    dx = layer.backward(dy, input_gradient=True).copy()
    for a, b in zip(layer.gradients, alone, strict=True):
        np.testing.assert_array_equal(a, b)
    numeric = np.empty_like(x)
    for at in np.ndindex(x.shape):
        moved = [x.copy(), x.copy()]
        moved[0][at] += 1e-5
        moved[1][at] -= 1e-5
        up, down = (layer(v, mask=mask) for v in moved)
        numeric[at] = ((up - down) * dy).sum() / 2e-5
    np.testing.assert_allclose(dx, numeric, rtol=1e-5, atol=1e-7)
    read = np.zeros((PAST + HORIZON, FEATURES), bool)
    read[PAST % SEGMENT : PAST] = True
    read[PAST % SEGMENT : PAST, list(layer.static)] = False
    read[PAST - 1, list(layer.static)] = True
    read[PAST:, list(layer.known)] = True
    assert not dx[:, ~read].any()
    if mask is None:
        assert (np.abs(dx).max(axis=0) > 0)[read].all()
    else:
        assert not dx[~mask].any()


@pytest.mark.parametrize("name", OPTIONS)
def test_what_is_not_read_has_no_influence(name):
    """Not even NaN: columns of the forecast that are not known, steps left over, constants before their last step."""
    layer, x = made(OPTIONS[name]), data(4, PAST + HORIZON, FEATURES)
    expected = layer.forward(x, training=False).copy()
    other = x.copy()
    other[:, PAST:, [c for c in range(FEATURES) if c not in layer.known]] = np.nan
    other[:, : PAST % SEGMENT] = np.nan
    other[:, : PAST - 1, list(layer.static)] = np.nan
    np.testing.assert_array_equal(layer.forward(other, training=False), expected)
    layer.mask = MASKS["holes"]
    expected = layer.forward(x, training=False).copy()
    np.testing.assert_array_equal(layer.forward(np.where(layer.mask[..., None], x, np.nan), training=False), expected)


# ---- masks


def test_a_short_series_padded_on_the_left_equals_it_alone():
    layer, x = made(OPTIONS["all"]), data(4, PAST + HORIZON, FEATURES)
    mask = np.arange(PAST + HORIZON) >= np.array([[0], [2], [5], [8]])
    whole = layer(x, mask=mask)
    for k, begin in enumerate((0, 2, 5, 8)):
        np.testing.assert_array_equal(whole[k], layer(x[k : k + 1, begin:])[0])
    # Padding in the middle of a segment: zeros.
    half = np.arange(PAST + HORIZON) >= np.full((4, 1), 6)
    filled = np.where(half[..., None], x, 0)[:, 5:]
    np.testing.assert_array_equal(layer(x, mask=half), layer(filled))


def test_the_mask_of_the_forecast_is_handed_on():
    layer, x = made({}), data(4, PAST + HORIZON, FEATURES)
    layer.mask = MASKS["holes"]
    layer.forward(x, training=False)
    np.testing.assert_array_equal(layer.output_mask(x), MASKS["holes"][:, -HORIZON:])
    layer.mask = None
    assert layer.output_mask(x) is None
    # In a model: steps of the forecast that are excluded enter no loss.
    model = model_of(Masking(), SegmentRNN(5, HORIZON, SEGMENT, known=[0]))
    x[1, -3:] = x[2, :4] = 0
    errors = (model.predict(x) - 1) ** 2
    assert model.evaluate(x, np.ones((4, HORIZON)), verbose=0) == pytest.approx(
        np.delete(errors.reshape(-1), [11, 12, 13]).mean(), rel=1e-12
    )


# ---- dropout


def test_dropout_scales_what_it_keeps_and_draws_anew():
    layer, x = made({"known": [1]}, dropout=0.4, seed=7), data(4, PAST + HORIZON, FEATURES)
    plain = made({"known": [1]})
    np.testing.assert_array_equal(layer(x), plain(x))
    outputs = plain.forward(x, training=True).copy()
    h = plain._decoder[-1]._y.copy()
    layer.draw = 3
    found = layer.forward(x, training=True).copy()
    factors = dropout_mask(7, 3, 0.4, h.shape, h.dtype)
    assert set(np.unique(factors)) == {0.0, 1 / 0.6}
    kernel, bias = plain.get_weights()[-3:-1]
    expected = ((h * factors) @ kernel + bias).reshape(4, -1, 1)[:, :HORIZON]
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)
    np.testing.assert_array_equal(layer.forward(x, training=True), found)
    layer.draw = 4
    second = layer.forward(x, training=True).copy()
    assert (second != found).any()
    # The mean over many draws is the forecast without dropout.
    draws = []
    for layer.draw in range(2000):
        draws.append(layer.forward(x, training=True).copy())
    deviation = np.std(draws, axis=0) / np.sqrt(len(draws))
    assert (np.abs(np.mean(draws, axis=0) - outputs) < 5 * deviation).all()


def test_dropout_is_a_function_of_the_seed():
    def fitted(seed, layer_seed=None):
        layer = SegmentRNN(5, HORIZON, SEGMENT, dropout=0.5, seed=layer_seed)
        model = Sequential([layer], seed=seed)
        model.compile("adam", "mse")
        model.fit(data(8, PAST + HORIZON, 2), data(8, HORIZON), batch_size=4, epochs=2, verbose=0)
        return model.get_weights()

    def same(a, b):
        return all((p == q).all() for p, q in zip(a, b, strict=True))

    assert same(fitted(1), fitted(1))
    assert not same(fitted(1), fitted(1, 3))
    assert same(fitted(1, 3), fitted(1, 3))


@pytest.mark.parametrize("name", ["all", "known"])
def test_bits_do_not_depend_on_threads(name, thread_counts):
    """Large enough for every part to be shared out, the dropout too."""
    x, y = data(70, 40 + 50, FEATURES).astype(np.float32), data(70, 50, 1)
    mask, found = np.arange(90) >= np.random.default_rng(0).integers(0, 40, 70)[:, None], []
    for threads in thread_counts:
        with num_threads(threads):
            model = Sequential([SegmentRNN(100, 50, 6, **{**OPTIONS[name], "outputs": 1}, dropout=0.2)], seed=0)
            model.compile("adam", "mse")
            model.fit(x, y, epochs=2, batch_size=70, verbose=0)
            model.fit(x, y, epochs=1, batch_size=70, mask=mask, verbose=0)
            found.append([*model.get_weights(), model.predict(x)])
    for other in found[1:]:
        for a, b in zip(other, found[0], strict=True):
            np.testing.assert_array_equal(a, b)


def test_rows_do_not_depend_on_their_batch():
    layer, x = made(OPTIONS["all"]), data(4, PAST + HORIZON, FEATURES)
    whole = layer(x)
    for k in range(4):
        np.testing.assert_array_equal(layer(x[k : k + 1])[0], whole[k])
    np.testing.assert_array_equal(layer(x[::-1]), whole[::-1])
    strided = np.asfortranarray(np.repeat(x, 2, axis=1))[:, ::2]
    np.testing.assert_array_equal(layer(strided), whole)


# ---- in models


def test_it_learns_a_series_that_needs_past_and_future():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 24 + 6, 2)).astype(np.float32)
    y = x[:, 18:24, 0] + x[:, 24:, 1]
    model = Sequential([SegmentRNN(32, 6, 3, known=[1], layers=2)], seed=0)
    model.compile("adam", "mse")
    model.optimizer.learning_rate = 0.01
    history = model.fit(x, y, epochs=60, batch_size=32, verbose=0).history["loss"]
    assert history[0] > 1.5 and history[-1] < 0.3


def test_weights_saving_copies_and_configuration(tmp_path):
    layer = SegmentRNN(5, HORIZON, SEGMENT, known=[2], static=[0, 1], layers=2, outputs=2, cell="lstm", dropout=0.2)
    again = SegmentRNN.from_config(json.loads(json.dumps(layer.get_config())))
    assert again.get_config() == layer.get_config() and again.static == (0, 1)
    model = Sequential([layer, Dense(1)], seed=0)
    model.compile("adam", "mse")
    x, y = data(6, PAST + HORIZON, FEATURES), data(6, HORIZON)
    model.fit(x, y, verbose=0)
    assert [(w.name.removeprefix("segmentrnn/"), w.value.shape) for w in model.weights[:12]] == [
        ("embedding/kernel", (6, 5)), ("embedding/bias", (5,)),
        ("cell/kernel", (5, 20)), ("cell/recurrent_kernel", (5, 20)), ("cell/bias", (20,)),
        ("cell_1/kernel", (5, 20)), ("cell_1/recurrent_kernel", (5, 20)), ("cell_1/bias", (20,)),
        ("known/kernel", (3, 5)), ("static/kernel", (2, 5)), ("output/kernel", (5, 6)), ("output/bias", (6,)),
    ]  # fmt: skip
    assert model.weights[12].name == "segmentrnn/position" and model.weights[12].value.shape == (3, 5)
    model.save(tmp_path / "model")
    other = load_model(tmp_path / "model")
    for twins in (other, copy.deepcopy(model)):
        np.testing.assert_array_equal(model.predict(x), twins.predict(x))
    for m in (model, other):
        m.fit(x, y, verbose=0)
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    alone = made(OPTIONS["all"])
    np.testing.assert_array_equal(copy.deepcopy(alone)(x), alone(x))


def test_frozen_and_initial_weights():
    model = Sequential([SegmentRNN(40, HORIZON, SEGMENT, known=[1], trainable=False), GRU(2), Dense(1)], seed=0)
    model.compile("sgd", "mse")
    x = data(4, PAST + HORIZON, FEATURES)
    model.fit(x, data(4), verbose=0)
    before = model.get_weights()
    model.fit(x, data(4), verbose=0)
    changed = [(a != b).any() for a, b in zip(model.get_weights(), before, strict=True)]
    assert changed == [False] * 9 + [True] * 5
    found = dict(zip([w.name.split("/", 1)[1] for w in model.weights[:9]], before[:9], strict=True))
    assert np.abs(found["position"]).max() <= 0.05 and found["position"].any()
    np.testing.assert_allclose(found["cell/recurrent_kernel"] @ found["cell/recurrent_kernel"].T, np.eye(40), atol=1e-5)
    assert not any(found[f"{part}/bias"].any() for part in ("embedding", "cell", "output"))
    given = SegmentRNN(4, 3, 1, kernel_initializer="ones", recurrent_initializer="zeros", bias_initializer="ones")
    given.build_alone((None, 1), np.dtype(float))
    assert [len(np.unique(w)) for w in given.get_weights()[:-1]] == [1] * 7
    assert not given.get_weights()[3].any() and given.get_weights()[0].all()


def test_a_layer_called_alone_keeps_its_weights_in_a_model():
    layer, x = SegmentRNN(4, 3, 2, known=[0]), data(2, 9, 2)
    alone = layer(x)
    model = Sequential([layer], "float64")
    np.testing.assert_array_equal(model.predict(x), alone)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: SegmentRNN(0, 2, 1), ValueError, "units: expected an integer of at least 1, got 0"),
        (lambda: SegmentRNN(3, 0, 1), ValueError, "horizon: expected an integer of at least 1, got 0"),
        (lambda: SegmentRNN(3, 2, 1.5), TypeError, "segment: expected an integer, got float 1.5"),
        (lambda: SegmentRNN(3, 2, 1, outputs=0), ValueError, "outputs: expected an integer of at least 1"),
        (lambda: SegmentRNN(3, 2, 1, layers=0), ValueError, "layers: expected an integer of at least 1"),
        (lambda: SegmentRNN(3, 2, 1, cell="gruu"), ValueError, "cell: unknown name 'gruu', did you mean 'gru'"),
        (lambda: SegmentRNN(3, 2, 1, activation="tahn"), ValueError, "activation: unknown name 'tahn'"),
        (lambda: SegmentRNN(3, 2, 1, recurrent_activation=3), TypeError, "recurrent_activation: expected a name"),
        (lambda: SegmentRNN(3, 2, 1, known=2), TypeError, "known: expected a sequence of column numbers, got int 2"),
        (lambda: SegmentRNN(3, 2, 1, known=[-1]), ValueError, "known: expected an integer of at least 0, got -1"),
        (lambda: SegmentRNN(3, 2, 1, static=[1, 1]), ValueError, r"static: expected each column once, got \[1, 1\]"),
        (lambda: SegmentRNN(3, 2, 1, static="ab"), TypeError, "static: expected a sequence of column numbers, got str"),
        (
            lambda: SegmentRNN(3, 2, 1, known=[1], static=[0, 1]),
            ValueError,
            r"static: columns \[1\] are named by known",
        ),
        (lambda: SegmentRNN(3, 2, 1, dropout=1), ValueError, "dropout: expected a rate from 0 to below 1, got 1"),
        (lambda: SegmentRNN(3, 2, 1, seed=-1), ValueError, "seed: expected an integer of at least 0"),
        (lambda: SegmentRNN(3, 2, 1, kernel_initializer="glorot"), ValueError, "initializer: unknown name 'glorot'"),
        (lambda: SegmentRNN(3, 4, 3)(np.ones((2, 6, 1))), ValueError, "needs at least 7 steps, .* got 6"),
    ],
)
def test_wrong_arguments_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_batch_that_is_too_short_is_refused_and_whole_sequences_are_needed():
    model = Sequential([SegmentRNN(3, 4, 3), LSTM(2)], seed=0)
    model.compile("sgd", "mse")
    model.fit(data(2, 9, 2), data(2, 2), verbose=0)
    with pytest.raises(ValueError, match=r"layer segmentrnn: needs at least 7 steps, .* got 6"):
        model.predict(data(2, 6, 2))
    with pytest.raises(ValueError, match="layer 'segmentrnn' needs whole sequences"):
        model.stream_step(data(2, 9, 2))


def test_sequences_that_end_early():
    """The last steps of a row are those of the forecast: behind a shorter sequence they would be padding."""
    model = Sequential([SegmentRNN(3, 4, 2)], seed=0)
    a, b = np.random.default_rng(0).normal(size=(8, 2)), np.ones((10, 2))
    model.compile("sgd", "mse")
    alone = model.predict([a])
    for call in (
        lambda: model.predict([b, a]),
        lambda: model.fit([b, a], np.ones((2, 4)), verbose=0),
        lambda: model.predict(np.ones((2, 10, 2)), lengths=[10, 8]),
    ):
        with pytest.raises(
            ValueError, match="x: sequence 1 does not use the last step, which SegmentRNN forecasts; pad"
        ):
            call()
    front = np.concatenate([np.zeros((2, 2)), a])[None]
    np.testing.assert_array_equal(model.predict(front, mask=np.arange(10)[None] >= 2), alone)
