"""Sequences of unequal length through models: masks, lengths, lists; losses, metrics, gradients, predictions."""

import numpy as np
import pytest

from elman import Sequential, metrics, num_threads
from elman.cells import CELLS
from elman.layers import (
    GRU,
    LSTM,
    Activation,
    Dense,
    Dropout,
    Embedding,
    Input,
    Layer,
    Masking,
    RepeatVector,
    SimpleRNN,
    TimeDistributed,
)
from elman.testing import check_gradients
from elman.testing.twins import sequence

N, T, F = 6, 5, 2
LENGTHS = np.array([3, 5, 1, 4, 0, 2])
RIGHT = np.arange(T) < LENGTHS[:, None]
MASKS = {
    "right": RIGHT,
    "left": RIGHT[:, ::-1],
    "holes": np.random.default_rng(3).random((N, T)) < 0.5,
    "one row unused": np.arange(N)[:, None] != np.zeros((1, T)) + 2,
    "unused": np.zeros((N, T), bool),
}


def data(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


X, Y, LAST = data(N, T, F), data(N, T, 1, seed=1), data(N, 1, seed=2)


def scrambled(model, seed=5):
    model.build((None, F))
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(scale=0.5, size=w.shape) for w in model.get_weights()])
    return model


def stepwise(loss="mse", **options):
    """An output at every step."""
    layers = [LSTM(4, return_sequences=True, **options), GRU(3, return_sequences=True), Dense(1)]
    model = scrambled(Sequential(layers, "float64", seed=0))
    model.compile("sgd", loss, metrics=["mae"])
    return model


def last():
    """One output per sequence."""
    model = scrambled(Sequential([LSTM(4, return_sequences=True), GRU(3), Dense(1)], "float64", seed=0))
    model.compile("sgd", "mse", metrics=["mae"])
    return model


def used_steps(mask, n):
    """Sequence n without the steps it does not use."""
    return X[n : n + 1, mask[n]], Y[n : n + 1, mask[n]]


# ---- predictions


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_predictions_are_those_of_each_sequence_alone(mask):
    everywhere, end = stepwise(), last()
    outputs, ends = everywhere.predict(X, mask=mask), end.predict(X, mask=mask)
    assert np.isfinite(outputs).all() and np.isfinite(ends).all()
    nothing = end.predict(X[:1], mask=np.zeros((1, T), bool))
    for n in range(N):
        x, _ = used_steps(mask, n)
        if not mask[n].any():
            np.testing.assert_array_equal(ends[n : n + 1], nothing)
            continue
        np.testing.assert_array_equal(ends[n : n + 1], end.predict(x))
        np.testing.assert_array_equal(outputs[n : n + 1, mask[n]], everywhere.predict(x))


def test_a_sequence_without_steps_gives_the_initial_state():
    layer = LSTM(4)
    layer(X)
    assert not layer(X, mask=np.zeros((N, T), bool)).any()
    model = scrambled(Sequential([LSTM(4, learn_initial_state=True)], "float64"))
    h = model.get_weights()[-1][0]
    np.testing.assert_array_equal(model.predict(X, lengths=np.zeros(N, int)), np.tile(h, (N, 1)))


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("backwards", [False, True])
def test_steps_that_are_not_used_repeat_the_last_output_or_give_zero(mask, backwards):
    options = {"return_sequences": True, "go_backwards": backwards}
    layer = LSTM(4, **options)
    zeroed = LSTM(4, zero_output_for_mask=True, return_state=True, **options)
    layer(X)
    rng = np.random.default_rng(1)
    layer.set_weights([rng.normal(scale=0.5, size=w.shape) for w in layer.get_weights()])
    zeroed(X)
    zeroed.set_weights(layer.get_weights())
    state = [data(N, 4, seed=7), data(N, 4, seed=8)]
    kernel, recurrent, bias = layer.get_weights()
    order = slice(None, None, -1) if backwards else slice(None)
    used = mask[:, order]
    expected, ends = sequence(CELLS["lstm"], X[:, order], kernel, recurrent, bias[None], state, mask=used)
    found = layer(X, initial_state=state, mask=mask)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
    for n in range(N):
        for t in np.flatnonzero(~used[n]):
            np.testing.assert_array_equal(found[n, t], found[n, t - 1] if t else state[0][n])
    output, *states = zeroed(X, initial_state=state, mask=mask)
    np.testing.assert_array_equal(output, np.where(used[..., None], found, 0))
    for a, b in zip(states, ends, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def test_what_stands_in_padding_has_no_effect():
    model = stepwise()
    wild = np.where(RIGHT[..., None], X, 1e30)
    np.testing.assert_array_equal(model.predict(X, lengths=LENGTHS), model.predict(wild, lengths=LENGTHS))
    a = model.loss_and_gradients(X, Y, lengths=LENGTHS)
    b = model.loss_and_gradients(wild, np.where(RIGHT[..., None], Y, 1e9), lengths=LENGTHS)
    assert a[0] == b[0]
    for g, h in zip(a[1], b[1], strict=True):
        np.testing.assert_array_equal(g, h)


def test_lengths_are_masks_from_the_left():
    for model, y in ((stepwise(), Y), (last(), LAST)):
        np.testing.assert_array_equal(model.predict(X, lengths=LENGTHS), model.predict(X, mask=RIGHT))
        a, b = model.gradients(X, y, lengths=list(LENGTHS)), model.gradients(X, y, mask=RIGHT.astype(int))
        for g, h in zip(a, b, strict=True):
            np.testing.assert_array_equal(g, h)
        results = [model.evaluate(X, y, verbose=0, **w) for w in ({"lengths": LENGTHS}, {"mask": RIGHT})]
        assert results[0] == results[1]


def test_predictions_keep_the_order_of_the_rows():
    """Inside, the sequences of a batch are ordered by length."""
    rng = np.random.default_rng(0)
    x, lengths = rng.normal(size=(23, T, F)), rng.integers(0, T + 1, 23)
    for model in (stepwise(), last()):
        expected = np.concatenate([model.predict(x[k : k + 1], lengths=lengths[k : k + 1]) for k in range(23)])
        for size in (1, 4, 7, 23, 100):
            np.testing.assert_array_equal(model.predict(x, batch_size=size, lengths=lengths), expected)
        np.testing.assert_array_equal(model.predict(x, batch_size=5, steps=2, lengths=lengths), expected[:10])


# ---- losses and metrics


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("weighted", [None, "sample", "step"])
def test_loss_and_metrics_count_the_steps_in_use(mask, weighted):
    model = stepwise()
    model.compile("sgd", "mse", metrics=["mae"], weighted_metrics=["rmse"])
    weights = {None: None, "sample": data(N, seed=4) ** 2, "step": data(N, T, seed=4) ** 2}[weighted]
    loss, mae, rmse = model.evaluate(X, Y, sample_weight=weights, mask=mask, verbose=0)
    errors = (model.predict(X, mask=mask) - Y)[..., 0][mask]
    w = np.ones((N, T)) if weights is None else weights if weights.ndim == 2 else np.tile(weights[:, None], T)
    w = w[mask]
    if not mask.any():
        assert loss == 0
        return
    assert loss == pytest.approx((errors**2 * w).sum() / mask.sum(), rel=1e-12)
    assert mae == pytest.approx(np.abs(errors).mean(), rel=1e-12)
    assert rmse == pytest.approx(np.sqrt((errors**2 * w).sum() / w.sum()), rel=1e-12)
    value, _ = model.loss_and_gradients(X, Y, weights, mask=mask)
    assert value == pytest.approx(loss, rel=1e-14)
    assert model.test_on_batch(X, Y, weights, mask=mask) == pytest.approx([loss, mae, rmse], rel=1e-12)


def test_metrics_of_several_batches_weigh_by_steps():
    model = stepwise()
    mae = model.evaluate(X, Y, batch_size=2, lengths=LENGTHS, verbose=0)[1]
    errors = (model.predict(X, lengths=LENGTHS) - Y)[RIGHT]
    assert mae == pytest.approx(np.abs(errors).mean(), rel=1e-12)


def test_the_loss_of_an_epoch_is_the_mean_of_batches_by_their_size():
    model = stepwise()
    parts = [model.evaluate(X[k : k + 4], Y[k : k + 4], lengths=LENGTHS[k : k + 4], verbose=0)[0] for k in (0, 4)]
    found = model.evaluate(X, Y, batch_size=4, lengths=LENGTHS, verbose=0)[0]
    assert found == pytest.approx((4 * parts[0] + 2 * parts[1]) / 6, rel=1e-12)


def test_outputs_without_steps_all_count():
    """The mask ends where the steps do: a sequence of length 0 has a loss."""
    model = last()
    errors = model.predict(X, lengths=LENGTHS) - LAST
    assert model.evaluate(X, LAST, lengths=LENGTHS, verbose=0) == pytest.approx(
        [(errors**2).mean(), np.abs(errors).mean()], rel=1e-12
    )
    repeated = scrambled(Sequential([LSTM(4), RepeatVector(T), GRU(3, return_sequences=True), Dense(1)], "float64"))
    repeated.compile("sgd", "mse")
    errors = repeated.predict(X, lengths=LENGTHS) - Y
    assert repeated.evaluate(X, Y, lengths=LENGTHS, verbose=0) == pytest.approx((errors**2).mean(), rel=1e-12)


# ---- gradients


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_gradients_equal_a_loop_over_sequences(mask):
    model, weights = stepwise(), data(N, seed=4) ** 2
    whole = model.gradients(X, Y, weights, mask=mask)
    expected = [np.zeros_like(g) for g in whole]
    for n in range(N):
        if mask[n].any():
            x, y = used_steps(mask, n)
            for total, g in zip(expected, model.gradients(x, y, weights[n : n + 1]), strict=True):
                total += g * mask[n].sum() / mask.sum()
    for a, b in zip(whole, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("zeroed", [False, True])
def test_gradients_by_differences(mask, zeroed):
    layers = [
        GRU(3, return_sequences=True, zero_output_for_mask=zeroed),
        LSTM(3, return_sequences=True, go_backwards=True, zero_output_for_mask=zeroed),
        LSTM(4, go_backwards=True),
        Dense(1),
    ]
    model = scrambled(Sequential(layers, "float64"))
    model.compile("sgd", "mse")
    if mask.any():
        check_gradients(model, X, LAST, mask=mask)
    else:
        assert all(not g.any() for g in model.gradients(X, LAST, mask=mask)[:9])
    if not zeroed:
        return
    model = scrambled(Sequential(layers := [GRU(3, return_sequences=True, zero_output_for_mask=True)], "float64"))
    model.compile("sgd", "mse")
    if mask.any():
        # A step that is not used has an output of 0 and no loss; give the next layer a reason to look at it.
        model = scrambled(Sequential([GRU(3, return_sequences=True, zero_output_for_mask=True), _Whole()], "float64"))
        model.compile("sgd", "mse")
        check_gradients(model, X, data(N, 3, seed=9), mask=mask)


class _Whole(Activation):
    """The sum over time, masked steps included."""

    def __init__(self):
        super().__init__("linear")

    def compute_output_shape(self, shape):
        return shape[1:]

    def forward(self, x, *, training):
        self.steps = x.shape[1]
        return x.sum(axis=1)

    def backward(self, dy, *, input_gradient):
        return np.repeat(dy[:, None], self.steps, axis=1)


def test_training_equals_training_on_the_mask_and_on_single_updates():
    found = []
    for arguments in ({"lengths": LENGTHS}, {"mask": RIGHT}):
        model = stepwise()
        model.fit(X, Y, batch_size=4, epochs=3, verbose=0, **arguments)
        found.append(model.get_weights())
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)
    model = stepwise()
    expected = [w - 0.01 * g for w, g in zip(model.get_weights(), model.gradients(X, Y, lengths=LENGTHS), strict=True)]
    other = stepwise()
    model.train_on_batch(X, Y, lengths=LENGTHS)
    other.fit(X, Y, verbose=0, shuffle=False, lengths=LENGTHS)
    for a, b, c in zip(model.get_weights(), other.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(a, c, rtol=1e-12, atol=1e-15)


def test_bits_do_not_depend_on_threads(thread_counts):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(64, 20, 8)).astype(np.float32), rng.normal(size=(64, 20, 8)).astype(np.float32)
    lengths, found = rng.integers(0, 21, 64), []
    for threads in thread_counts:
        with num_threads(threads):
            model = Sequential([LSTM(32, return_sequences=True, dropout=0.2, recurrent_dropout=0.2), Dense(8)], seed=0)
            model.compile("adam", "mse")
            history = model.fit(x, y, lengths=lengths, batch_size=24, epochs=2, verbose=0).history
            found.append([*model.get_weights(), model.predict(x, lengths=lengths), np.array(history["loss"])])
    for other in found[1:]:
        for a, b in zip(other, found[0], strict=True):
            np.testing.assert_array_equal(a, b)


# ---- forms of data


def lists():
    return [X[n, :k] for n, k in enumerate(LENGTHS) if k], [Y[n, :k] for n, k in enumerate(LENGTHS) if k]


def test_lists_of_unequal_sequences_are_padded_data_with_lengths():
    xs, ys = lists()
    kept = LENGTHS > 0
    x, y, lengths = X[kept], Y[kept], LENGTHS[kept]
    for given, target in (((xs, ys), (x, y)), ((xs, y), (x, y)), ((xs, [a[:, 0] for a in ys]), (x, y))):
        a, b = stepwise(), stepwise()
        first = a.fit(*given, batch_size=2, epochs=2, verbose=0).history
        assert first == b.fit(*target, lengths=lengths, batch_size=2, epochs=2, verbose=0).history
        for v, w in zip(a.get_weights(), b.get_weights(), strict=True):
            np.testing.assert_array_equal(v, w)
        assert a.evaluate(*given, verbose=0) == b.evaluate(*target, lengths=lengths, verbose=0)
        np.testing.assert_array_equal(a.predict(given[0]), b.predict(x, lengths=lengths))
        assert a.train_on_batch(*given) == b.train_on_batch(*target, lengths=lengths)
    with_ends = last()
    found = with_ends.fit(xs, LAST[kept], verbose=0).history
    assert found == last().fit(x, LAST[kept], lengths=lengths, verbose=0).history


def test_lists_of_series_of_one_feature_and_of_token_ids():
    series = [data(k, seed=k) for k in (3, 5, 2)]
    padded = np.zeros((3, 5))
    for row, one in zip(padded, series, strict=True):
        row[: len(one)] = one
    model = Sequential([GRU(3, return_sequences=True), Dense(1)], "float64", seed=0)
    np.testing.assert_array_equal(model.predict(series), model.predict(padded, lengths=[3, 5, 2]))
    tokens = [np.array([1, 2, 3]), np.array([4]), np.array([0, 4])]
    words = Sequential([Embedding(5, 3), GRU(3), Dense(1)], "float64", seed=0)
    words.build((None,))
    expected = np.concatenate([words.predict(t[None]) for t in tokens])
    np.testing.assert_array_equal(words.predict(tokens), expected)


def test_a_model_built_by_token_ids_takes_any_number_of_them():
    words = Sequential([Embedding(5, 3), GRU(3), Dense(1)], "float64", seed=0)
    words.predict(np.array([[1, 2, 3]]))
    assert words.predict(np.array([[1, 2, 3, 4]])).shape == (1, 1)


def test_validation_data_with_lengths_in_every_form():
    xs, ys = lists()
    kept = LENGTHS > 0
    expected = None
    forms = [
        {"x": X[kept], "y": Y[kept], "lengths": LENGTHS[kept]},
        {"x": X[kept], "y": Y[kept], "mask": RIGHT[kept]},
        (xs, ys),
        [{"x": xs, "y": ys}][0],
    ]
    for form in forms:
        model = stepwise()
        history = model.fit(X, Y, lengths=LENGTHS, validation_data=form, verbose=0).history
        found = [history["val_loss"][0], history["val_mae"][0]]
        assert found == pytest.approx(model.evaluate(X[kept], Y[kept], lengths=LENGTHS[kept], verbose=0), rel=1e-14)
        assert expected is None or found == expected
        expected = found
    # A weight beside them, as a tuple and as an entry.
    weights = data(int(kept.sum()), seed=4) ** 2
    for form in ((xs, ys, weights), {**forms[0], "sample_weight": weights}):
        model = stepwise()
        history = model.fit(X, Y, lengths=LENGTHS, validation_data=form, verbose=0).history
        evaluated = model.evaluate(X[kept], Y[kept], sample_weight=weights, lengths=LENGTHS[kept], verbose=0)
        assert history["val_loss"][0] == pytest.approx(evaluated[0], rel=1e-14)


def test_validation_split_cuts_the_lengths_too():
    model, other = stepwise(), stepwise()
    first = model.fit(X, Y, lengths=LENGTHS, validation_split=0.4, epochs=2, verbose=0).history
    rest = {"x": X[3:], "y": Y[3:], "lengths": LENGTHS[3:]}
    second = other.fit(X[:3], Y[:3], lengths=LENGTHS[:3], validation_data=rest, epochs=2, verbose=0).history
    assert first == second
    assert first["val_loss"] != first["loss"]


# ---- masks through stacks


def test_a_mask_goes_through_the_layers_to_the_loss():
    x = np.where(RIGHT[..., None], X, -1.0)
    plain = scrambled(Sequential([LSTM(3, return_sequences=True), Dense(2), Dense(1)], "float64"))
    plain.compile("sgd", "mse", metrics=["mae"])
    layers = [
        Masking(-1.0),
        LSTM(3, return_sequences=True),
        Dropout(0.0),
        TimeDistributed(Dense(2)),
        Activation("linear"),
        Dense(1),
    ]
    model = Sequential(layers, "float64")
    model.build((None, F))
    model.set_weights(plain.get_weights())
    model.compile("sgd", "mse", metrics=["mae"])
    assert model.evaluate(x, Y, verbose=0) == plain.evaluate(X, Y, lengths=LENGTHS, verbose=0)
    for a, b in zip(model.gradients(x, Y), plain.gradients(X, Y, lengths=LENGTHS), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-16)
    np.testing.assert_array_equal(model.predict(x)[RIGHT], plain.predict(X, lengths=LENGTHS)[RIGHT])
    # A mask given beside the values: a step must pass both.
    both = RIGHT & MASKS["holes"]
    found = model.evaluate(x, Y, mask=MASKS["holes"], verbose=0)
    assert found == pytest.approx(plain.evaluate(X, Y, mask=both, verbose=0), rel=1e-14)
    history = model.fit(x, Y, batch_size=4, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()


class _EverySecond(Layer):
    """Has half as many steps, and says nothing of their mask."""

    def compute_output_shape(self, shape):
        return (None if shape[0] is None else shape[0] // 2, shape[1])

    def forward(self, x, *, training):
        return np.ascontiguousarray(x[:, : x.shape[1] // 2 * 2 : 2])

    def backward(self, dy, *, input_gradient):
        dx = np.zeros((len(dy), *self.shape), dy.dtype)
        dx[:, ::2] = dy
        return dx


def test_a_mask_is_only_that_of_the_steps_it_was_made_for():
    """Of others the loss would read beyond its end."""
    x, y = data(5, 6, 2), data(5, 3, 1, seed=1)
    lengths = [6, 1, 2, 3, 4]
    inner = [Dense(3), _EverySecond(), Dense(1)]
    model = Sequential([Input((6, 2)), *inner], seed=0)
    model.compile("sgd", "mae")
    expected = np.abs(model.predict(x, lengths=lengths) - y).mean()
    np.testing.assert_allclose(model.evaluate(x, y, lengths=lengths, verbose=0), expected, rtol=1e-5)
    free = Sequential([Input((None, 2)), Dense(3), _EverySecond(), Dense(1)], seed=0)
    free.compile("sgd", "mae")
    with pytest.raises(ValueError, match=r"layer '_everysecond': output_mask is \(5, 6\), the output \(5, 3, 3\)"):
        free.evaluate(x, y, lengths=lengths, verbose=0)
    np.testing.assert_allclose(free.evaluate(x, y, verbose=0), expected, rtol=1e-5)


def test_masking_needs_all_features_to_be_equal():
    model = Sequential([Masking(0.0), GRU(3)], "float64", seed=0)
    x = X.copy()
    x[:, 2:] = 0
    np.testing.assert_array_equal(model.predict(x), model.predict(x[:, :2]))
    x[:, 3, 1] = 0.5  # one feature that is not 0: this step is used
    assert (model.predict(x) != model.predict(x[:, :2])).all()
    np.testing.assert_array_equal(model.predict(x[:, :4]), model.predict(x))


def test_embedding_with_mask_zero_into_recurrent_layers():
    tokens = np.array([[1, 2, 0, 0], [3, 0, 4, 1], [0, 0, 0, 2], [4, 4, 4, 4]])
    model = Sequential([Embedding(5, 3, mask_zero=True), GRU(4), Dense(1)], "float64", seed=0)
    model.build((None,))
    model.compile("sgd", "mse")
    expected = np.concatenate([model.predict(row[row > 0][None]) for row in tokens])
    np.testing.assert_array_equal(model.predict(tokens), expected)
    y = data(4, 1)
    check_gradients(model, tokens, y)
    assert not model.gradients(tokens, y)[0][0].any()  # no gradient for the row of the padding
    steps = Sequential([Embedding(5, 3, mask_zero=True), GRU(4, return_sequences=True), Dense(1)], "float64", seed=0)
    steps.build((None,))
    steps.compile("sgd", "mse")
    errors = (steps.predict(tokens) - data(4, 4, 1))[tokens > 0]
    assert steps.evaluate(tokens, data(4, 4, 1), verbose=0) == pytest.approx((errors**2).mean(), rel=1e-12)


def test_models_that_are_not_built_find_masks_in_their_first_data():
    """The data build them; the rows are counted before."""
    tokens, y = np.array([[1, 2, 0, 0], [3, 4, 1, 0], [2, 0, 0, 0]]), data(3, 1)
    for first, x in ((Embedding(5, 3, mask_zero=True), tokens), (Masking(), X[:3])):
        model = Sequential([first, GRU(4), Dense(1)], seed=0)
        model.compile("sgd", "mse")
        model.fit(x, y, verbose=0)


# ---- metrics of a user's choice see the mask


def test_a_metric_gets_the_mask_as_weights():
    seen = []

    class Spy(metrics.MeanAbsoluteError):
        def update_state(self, y, p, sample_weight=None):
            seen.append(None if sample_weight is None else np.array(sample_weight))
            super().update_state(y, p, sample_weight)

    model = stepwise()
    model.compile("sgd", "mse", metrics=[Spy()])
    model.evaluate(X, Y, mask=MASKS["holes"], verbose=0)
    total = MASKS["holes"].sum()
    assert seen[-1].shape == (N, T) and seen[-1].sum() == total
    model.evaluate(X, Y, verbose=0)
    assert seen[-1] is None


# ---- refused


BAD = [
    (
        {"mask": np.ones((N, T - 1), bool)},
        r"mask: expected shape \(6, 5\), one value per sequence and step, got \(6, 4",
    ),
    ({"mask": np.ones((N, T, 1), bool)}, r"mask: expected shape \(6, 5\)"),
    ({"mask": np.ones((N, T))}, "mask: expected booleans, got an array of dtype float64"),
    ({"mask": np.full((N, T), 2)}, "mask: expected booleans, got an array of dtype int64"),
    ({"lengths": np.ones(N - 1, int)}, r"lengths: expected shape \(6,\), one per sequence, got \(5,\)"),
    ({"lengths": np.ones((N, 1), int)}, r"lengths: expected shape \(6,\)"),
    ({"lengths": 3}, r"lengths: expected shape \(6,\), one per sequence, got \(\)"),
    ({"lengths": np.ones(N)}, "lengths: expected integers, got an array of dtype float64"),
    ({"lengths": [1, 2, -1, 3, 4, 5]}, "lengths: expected numbers from 0 to 5, got -1 at index 2"),
    ({"lengths": [1, 2, 3, 3, 4, 6]}, "lengths: expected numbers from 0 to 5, got 6 at index 5"),
    ({"lengths": LENGTHS, "mask": RIGHT}, "mask and lengths cannot be given together"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_masks_and_lengths_that_do_not_fit(arguments, message):
    model = stepwise()
    before = model.get_weights()
    calls = [
        lambda: model.fit(X, Y, verbose=0, **arguments),
        lambda: model.evaluate(X, Y, verbose=0, **arguments),
        lambda: model.predict(X, **arguments),
        lambda: model.train_on_batch(X, Y, **arguments),
        lambda: model.test_on_batch(X, Y, **arguments),
        lambda: model.gradients(X, Y, **arguments),
    ]
    for call in calls:
        with pytest.raises((ValueError, TypeError), match=f"^{message}"):
            call()
    with pytest.raises((ValueError, TypeError), match=r"^validation_data (mask|lengths)"):
        model.fit(X, Y, validation_data={"x": X, "y": Y, **arguments}, verbose=0)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert model.optimizer.iterations == 0


def test_masks_and_lengths_for_inputs_without_steps():
    model = Sequential([Dense(1)], seed=0)
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="lengths"):
        model.fit(data(4, 3), data(4), lengths=[1, 2, 3, 3], verbose=0)
    with pytest.raises(ValueError, match="mask"):
        model.predict(data(4, 3), mask=np.ones((4, 3), bool))


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([np.ones((3, 2)), np.ones(4)], None, "x"),
        ([np.ones((3, 2)), np.ones((4, 1))], np.ones((2, 4, 1)), "features|sequences"),
        ([np.ones((3, 2)), np.ones((4, 3))], np.ones((2, 4, 1)), r"sequences\[1\]: its steps have shape \(3,\)"),
        ([np.ones((3, 2)), np.ones((4, 2, 1))], np.ones((2, 4, 1)), "x"),
        ([np.ones((3, 2)), [[1.0, 2.0]]], np.ones((2, 3, 1)), "x"),
        ([np.ones((3, 2)), np.ones((4, 2))], [np.ones((3, 1)), np.ones((3, 1))], "y"),
        (
            [np.ones((3, 2)), np.ones((4, 2))],
            [np.ones((4, 1)), np.ones((3, 1))],
            "y: sequence 0 has 4 steps, but x has 3",
        ),
        ([np.ones((3, 2)), np.ones((4, 2))], [np.ones((3, 1))], "y"),
        ([np.ones((3, 2)), np.full((4, 2), np.nan)], np.ones((2, 4, 1)), "x: 8 of .* are not finite"),
        ([np.array(["a", "b"]), np.array(["c"])], np.ones((2, 2, 1)), "sequences|x"),
        ([np.empty((0, 2)), np.ones((2, 3))], np.ones((2, 2, 1)), "x|sequences"),
    ],
)
def test_lists_that_do_not_fit(x, y, message):
    model = stepwise()
    before = model.get_weights()
    with pytest.raises((ValueError, TypeError), match=message):
        model.fit(x, y, verbose=0)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match=r"lengths.*which tells them"):
        model.fit([X[0], X[1, :2]], Y[:2], lengths=[5, 2], verbose=0)


def test_a_sequence_of_a_list_may_be_empty():
    model = stepwise()
    found = model.predict([X[0, :0], X[1], X[2, :2]])
    np.testing.assert_array_equal(found[1], model.predict(X[1:2])[0])
    np.testing.assert_array_equal(found, model.predict(X[:3], lengths=[0, 5, 2]))


@pytest.mark.parametrize("steps", [127, 128, 300, 32768])
def test_lengths_at_the_limits_of_their_types_are_the_same_as_a_mask(steps):
    """They are kept in the smallest type, a batch is ordered by them, and a mask is counted in it."""
    rng = np.random.default_rng(0)
    model = Sequential([SimpleRNN(2)], seed=0)
    x = rng.standard_normal((5, steps, 1)).astype(np.float32)
    lengths = np.array([1, steps, 0, steps - 1, steps // 2])
    found = model.predict(x, lengths=lengths)
    np.testing.assert_array_equal(found, model.predict(x, mask=np.arange(steps) < lengths[:, None]))
    for row, length, output in zip(x, lengths, found, strict=True):
        if length:
            np.testing.assert_allclose(output, model.predict(row[None, :length])[0], rtol=1e-5, atol=1e-6)
    assert not found[2].any()
