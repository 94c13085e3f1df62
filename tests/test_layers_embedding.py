"""Embedding and Masking: lookup, gradients by row, masks, tokens outside the vocabulary."""

import copy
import json
import pickle

import numpy as np
import pytest

from elman import Sequential, load_model, num_threads, optimizers, regularizers
from elman.kernels.embedding import COLUMNS, TOKENS
from elman.layers import GRU, Dense, Embedding, Masking, TimeDistributed

DTYPES = (np.float32, np.float64)


def built(vocabulary, width, dtype=np.float64, shape=(None,), **options):
    layer = Embedding(vocabulary, width, **options)
    layer.build_alone(shape, np.dtype(dtype))
    layer.set_weights([np.random.default_rng(vocabulary).normal(size=(vocabulary, width))])
    return layer


def tokens(vocabulary, *shape, seed=0):
    return np.random.default_rng(seed).integers(0, vocabulary, shape)


# ---- forward


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 5), (4,), (7, TOKENS)], ids=str)
def test_every_token_becomes_its_row(dtype, shape):
    layer = built(11, 3, dtype, (None,) * (len(shape) - 1))
    ids = tokens(11, *shape)
    expected = layer.get_weights()[0][ids]
    for x in (ids, ids.astype(dtype), ids.astype(np.uint8), ids[::-1].astype(dtype)[::-1]):
        y = layer.forward(x, training=False)
        assert y.dtype == dtype
        np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(layer(ids), expected)


def test_a_layer_called_alone_takes_any_number_of_steps_afterwards():
    layer = Embedding(5, 2)
    np.testing.assert_array_equal(layer([[1, 2, 3]])[:, :2], layer([[1, 2]]))
    assert layer.shape == (None,)
    assert Embedding(5, 2)([1, 4, 4]).shape == (3, 2)


def test_shapes():
    assert Embedding(5, 2).compute_output_shape((None,)) == (None, 2)
    assert Embedding(5, 2).compute_output_shape((7,)) == (7, 2)
    assert Embedding(5, 2).compute_output_shape(()) == (2,)
    with pytest.raises(ValueError, match=r"layer words: takes token numbers, \(time,\) or \(\), got \(7, 3\)"):
        Embedding(5, 2, name="words").compute_output_shape((7, 3))


def test_initial_values():
    table = built_alone(Embedding(400, 50))
    assert -0.05 <= table.min() < -0.0499
    assert 0.0499 < table.max() <= 0.05
    assert abs(table.mean()) < 4.5 * 0.05 / np.sqrt(3 * table.size)
    np.testing.assert_array_equal(built_alone(Embedding(3, 4, embeddings_initializer="ones")), np.ones((3, 4)))


def built_alone(layer, dtype=np.float64):
    layer.build_alone((None,), np.dtype(dtype))
    return layer.parameters[0]


# ---- backward


def sums(ids, dy, vocabulary):
    """Rows of dy added up by token, one after another in the dtype of dy."""
    gradient = np.zeros((vocabulary, dy.shape[-1]), dy.dtype)
    for token, row in zip(ids.reshape(-1), dy.reshape(-1, dy.shape[-1]), strict=True):
        gradient[token] += row
    return gradient


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, COLUMNS, 2 * COLUMNS + 3])
def test_gradients_are_summed_by_row_over_successive_batches(dtype, width):
    """To the bit: the order of the sum is that of the tokens. Rows of the batch before are cleared."""
    layer = built(9, width, dtype)
    rng = np.random.default_rng(1)
    for seed, vocabulary in enumerate([9, 2, 4, 9]):  # the second and the third batch leave rows untouched
        ids = tokens(vocabulary, 6, 7, seed=seed)
        dy = rng.normal(size=(6, 7, width)).astype(dtype)
        layer.forward(ids, training=True)
        assert layer.backward(dy, input_gradient=False) is None
        np.testing.assert_array_equal(layer.gradients[0], sums(ids, dy, 9))
        np.testing.assert_array_equal(layer.backward(dy, input_gradient=True), np.zeros((6, 7)))
        np.testing.assert_array_equal(layer.gradients[0], sums(ids, dy, 9))
        layer.forward(tokens(9, 2, 2, seed=9), training=False)  # inference changes nothing of it
        layer.gradients[0] *= 0.5  # as clipping does


def test_rows_that_did_not_occur_are_not_written():
    layer = built(6, 2)
    layer.gradients[0][4] = 7.0
    dy = np.ones((1, 3, 2))
    layer.forward(np.array([[1, 1, 2]]), training=True)
    layer.backward(dy, input_gradient=False)
    layer.forward(np.array([[5, 1, 0]]), training=True)
    layer.backward(2 * dy, input_gradient=False)
    np.testing.assert_array_equal(layer.gradients[0][:, 0], [2, 2, 0, 0, 7, 2])


def test_gradient_of_a_batch_of_single_tokens():
    layer = built(4, 3, shape=())
    ids, dy = np.array([3, 0, 3]), np.random.default_rng(2).normal(size=(3, 3))
    layer.forward(ids, training=True)
    np.testing.assert_array_equal(layer.backward(dy, input_gradient=True), np.zeros(3))
    np.testing.assert_array_equal(layer.gradients[0], sums(ids, dy, 4))


def test_a_frozen_table_stays_and_has_no_gradient_in_a_model():
    """Whether a layer is trained is decided by `compile`; the table's own backward always does its work."""
    model = Sequential([Embedding(5, 2, trainable=False), GRU(3), Dense(1)], seed=0)
    model.compile(optimizers.Adam(0.1, weight_decay=0.1), "mse")
    x, y = tokens(5, 4, 3), np.ones(4)
    model.fit(x, y, verbose=0)
    before = model.get_weights()
    model.fit(x, y, verbose=0)
    np.testing.assert_array_equal(model.get_weights()[0], before[0])
    assert (model.get_weights()[1] != before[1]).any()
    assert not model.gradients(x, y)[0].any()


def test_building_again_begins_without_touched_rows():
    layer = built(5, 2)
    layer.forward(np.array([[1, 2]]), training=True)
    layer.backward(np.ones((1, 2, 2)), input_gradient=False)
    layer.build_alone((None,), np.dtype(float))
    layer.gradients[0][:] = 3.0
    layer.forward(np.array([[4]]), training=True)
    layer.backward(np.ones((1, 1, 2)), input_gradient=False)
    np.testing.assert_array_equal(layer.gradients[0][:, 0], [3, 3, 3, 3, 4])


def test_bits_do_not_depend_on_threads(thread_counts):
    layer = built(50, 3 * COLUMNS, np.float32)
    ids = tokens(50, 10, 150)
    dy = np.random.default_rng(3).normal(size=(10, 150, 3 * COLUMNS)).astype(np.float32)
    for threads in thread_counts:
        with num_threads(threads):
            np.testing.assert_array_equal(layer.forward(ids, training=True), layer.parameters[0][ids])
            layer.backward(dy, input_gradient=False)
        np.testing.assert_array_equal(layer.gradients[0], sums(ids, dy, 50))


# ---- tokens outside the vocabulary


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("token", "shown"),
    [
        (5, "5"),
        (-1, "-1"),
        (1.5, "1.5"),
        (np.nan, "nan"),
        (np.inf, "inf"),
        (-np.inf, "-inf"),
        (1e30, "1e\\+30|1.00000001"),
    ],
)
def test_tokens_outside_the_vocabulary_are_named_with_their_place(dtype, token, shown):
    layer = built(5, 2, dtype)
    good = tokens(5, 2, 3)
    layer.forward(good, training=True)
    bad = np.zeros((3, 300), dtype)
    bad[1, 2] = bad[1, 3] = bad[2, 299] = token
    message = (
        rf"layer Embedding: expected token numbers, integers from 0 to 4 \(input_dim=5\), got ({shown}).* at index"
    )
    with pytest.raises(ValueError, match=message + r" \(1, 2\) of the batch"):
        layer.forward(bad, training=True)
    dy = np.ones((2, 3, 2), dtype)
    layer.backward(dy, input_gradient=False)  # still that of the good batch
    np.testing.assert_array_equal(layer.gradients[0], sums(good, dy, 5))


def test_integers_are_named_exactly():
    with pytest.raises(ValueError, match=r"got 16777217 at index \(0, 1\)"):
        built(5, 2, np.float32).forward(np.array([[0, 2**24 + 1]]), training=False)
    with pytest.raises(ValueError, match=r"got -1 at index \(0,\)"):
        built(5, 2, shape=()).forward(np.array([-1]), training=False)


def test_the_last_token_is_inside_and_the_first_place_of_the_last_chunk_is_found():
    layer = built(5, 1)
    x = np.full((1, 3 * TOKENS), 4.0)
    layer.forward(x, training=False)
    for place in (0, TOKENS - 1, TOKENS, 3 * TOKENS - 1):
        wrong = x.copy()
        wrong[0, place:] = 5  # the first of many
        with pytest.raises(ValueError, match=rf"at index \(0, {place}\)"):
            layer.forward(wrong, training=False)


def test_vocabularies_whose_numbers_float32_cannot_hold():
    with pytest.raises(ValueError, match=r"input_dim: float32 holds every integer only up to 16777216, got 16777217"):
        Embedding(2**24 + 1, 1).prepare((None,), np.dtype(np.float32))
    Embedding(2**24 + 1, 1).prepare((None,), np.dtype(np.float64))
    Embedding(2**24, 1).prepare((None,), np.dtype(np.float32))


# ---- given weights, configuration, copies


def test_given_weights_are_the_initial_values():
    given = np.random.default_rng(4).normal(size=(5, 3))
    layer = Embedding(5, 3, weights=given, trainable=False)
    given[:] = 0  # the layer has its own
    table = built_alone(layer)
    assert table.any()
    np.testing.assert_array_equal(built_alone(Embedding(5, 3, weights=table.tolist()), np.float32), table.astype("f4"))
    np.testing.assert_array_equal(built_alone(Embedding(2, 1, weights=np.array([[1], [2]]))), [[1], [2]])


def test_configurations_survive_json_without_the_weights():
    layer = Embedding(
        5, 3, mask_zero=True, weights=np.ones((5, 3)), trainable=False, embeddings_initializer="he_normal"
    )
    config = json.loads(json.dumps(layer.get_config()))
    assert config["weights"] is None
    assert layer.weights is not None
    again = Embedding.from_config(config)
    assert again.get_config() == config
    assert (again.input_dim, again.output_dim, again.mask_zero, again.trainable) == (5, 3, True, False)
    assert Embedding.from_config(Embedding(2, 2).get_config()).get_config() == Embedding(2, 2).get_config()


def test_copies_keep_the_given_weights_before_building_and_the_parameters_after():
    given = np.random.default_rng(5).normal(size=(4, 2))
    layer = Embedding(4, 2, weights=given)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        np.testing.assert_array_equal(built_alone(twin), given)
    layer.build_alone((None,), np.dtype(float))
    layer.set_weights([given + 1])
    twin = pickle.loads(pickle.dumps(layer))
    np.testing.assert_array_equal(twin([[0, 3]]), (given + 1)[[[0, 3]]])
    assert twin.weights is None


def test_a_model_trains_and_saves_given_weights(tmp_path):
    given = np.random.default_rng(6).normal(size=(6, 3))
    model = Sequential([Embedding(6, 3, weights=given), GRU(4), Dense(1)], "float64", seed=0)
    x, y = tokens(6, 8, 5), np.random.default_rng(7).normal(size=(8, 1))
    model.compile("sgd", "mse")
    x[:, 0] = 0
    assert not (x == 5).all()
    gradients = model.gradients(np.where(x == 5, 0, x), y)
    np.testing.assert_array_equal(model.get_weights()[0], given)
    assert not gradients[0][5].any()
    before, values = model.get_weights(), []
    directions = [np.random.default_rng(8).normal(size=w.shape) for w in before]
    for step in (1e-5, -1e-5):
        model.set_weights([w + step * d for w, d in zip(before, directions, strict=True)])
        values.append(model.test_on_batch(np.where(x == 5, 0, x), y))
    numeric = (values[0] - values[1]) / 2e-5
    assert abs(numeric - sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))) < 1e-7 * abs(numeric)
    model.train_on_batch(x, y)
    model.save(tmp_path / "model.npz")
    again = load_model(tmp_path / "model.npz")
    np.testing.assert_array_equal(again.get_weights()[0], model.get_weights()[0])
    np.testing.assert_array_equal(again.predict(x), model.predict(x))
    with pytest.raises(ValueError, match=r"x: expected token numbers, .* got 6 at index \(0, 0\)"):
        model.predict(x + 6)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Embedding(0, 3), ValueError, r"input_dim: expected an integer of at least 1, got 0"),
        (lambda: Embedding(3, 2.5), TypeError, r"output_dim: expected an integer, got float 2.5"),
        (lambda: Embedding(3, 2, mask_zero="yes"), TypeError, r"mask_zero: expected True or False"),
        (lambda: Embedding(3, 2, embeddings_initializer="unifrm"), ValueError, r"initializer: unknown name 'unifrm'"),
        (
            lambda: Embedding(3, 2, weights=np.ones((2, 3))),
            ValueError,
            r"weights: expected shape \(3, 2\), got \(2, 3\)",
        ),
        (lambda: Embedding(1, 2, weights=[[1, np.nan]]), ValueError, r"weights: 1 of 2 values are not finite"),
        (lambda: built_alone(Embedding(1, 1, weights=[[1e300]]), np.float32), ValueError, r"weights \(as float32\)"),
        (lambda: Embedding(3, 2)([["a"]]), TypeError, r"x: expected numbers"),
    ],
)
def test_bad_input(make, error, message):
    with pytest.raises(error, match=message):
        make()


# ---- masks


def test_mask_zero_masks_padding():
    layer = built(5, 2, mask_zero=True)
    x = np.array([[1.0, 0.0, 4.0], [0.0, 0.0, 2.0]])
    np.testing.assert_array_equal(layer.output_mask(x), [[True, False, True], [False, False, True]])
    layer.mask = np.array([[True, True, False], [False, True, True]])
    np.testing.assert_array_equal(layer.output_mask(x), [[True, False, False], [False, False, True]])
    plain = built(5, 2)
    assert plain.output_mask(x) is None
    plain.mask = layer.mask
    assert plain.output_mask(x) is layer.mask
    assert built(5, 2, shape=(), mask_zero=True).output_mask(x[0]) is None


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [0.0, -1.0, 0.1])
def test_masking_masks_steps_whose_features_all_equal_the_value(dtype, value):
    layer = Masking(value)
    layer.build_alone((None, 3), np.dtype(dtype))
    v = dtype(value)
    x = np.array(
        [
            [[v, v, v], [v, v, 5], [5, v, v]],
            [[v, 5, v], [v, v, v], [np.nan, v, v]],
            [[v, v, np.nan], [5, 5, 5], [v] * 3],
        ],
        dtype,
    )
    expected = np.array([[False, True, True], [True, False, True], [True, True, False]])
    mask = layer.output_mask(x)
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, expected)
    layer.mask = np.array([[True, False, True], [True, True, False], [False, True, True]])
    np.testing.assert_array_equal(layer.output_mask(x), expected & layer.mask)
    assert layer.forward(x, training=True) is x
    assert layer.backward(x, input_gradient=True) is x
    assert layer.backward(x, input_gradient=False) is None
    one = Masking(value)
    one.build_alone((None, 1), np.dtype(dtype))
    np.testing.assert_array_equal(one.output_mask(x[:, :, :1])[:, :, None], x[:, :, :1] != v)


def test_masking_rounds_its_value_to_the_models_type():
    x = np.full((1, 2, 2), np.float32(0.1))
    layer = Masking(0.1)
    layer.build_alone((2, 2), np.dtype(np.float32))
    assert not layer.output_mask(x).any()
    assert layer.output_mask(x.astype(np.float64)).all()


def test_masking_configuration_and_bad_input():
    assert Masking.from_config(json.loads(json.dumps(Masking(-2).get_config()))).mask_value == -2.0
    assert Masking().mask_value == 0.0
    with pytest.raises(TypeError, match=r"mask_value: expected a number, got str 'pad'"):
        Masking("pad")
    with pytest.raises(ValueError, match=r"mask_value: expected a finite number"):
        Masking(float("nan"))
    with pytest.raises(ValueError, match=r"layer Masking: takes \(time, features\), got \(3,\)"):
        Masking().compute_output_shape((3,))


@pytest.mark.parametrize(
    "options", [{}, {"gradient_accumulation_steps": 3}, {"clipnorm": 0.05}, {"weight_decay": 0.1}], ids=str
)
def test_an_embedding_is_a_dense_map_of_one_hot_vectors(options):
    """Over several updates: rows that a batch does not touch must get no gradient left from another batch."""
    rng = np.random.default_rng(0)
    batches = [(rng.integers(0, 20, (4, 5)), rng.normal(size=(4, 1))) for _ in range(7)]

    def train(first, prepare):
        model = Sequential([first, GRU(4), Dense(1)], dtype="float64", seed=0)
        model.compile(optimizers.Adam(0.1, **options), "mse")
        model.build(prepare(batches[0][0]).shape[1:])
        draw = np.random.default_rng(1)
        model.set_weights([draw.normal(size=w.shape) for w in model.get_weights()])
        for ids, y in batches:
            model.train_on_batch(prepare(ids), y)
        return model.get_weights()

    table = train(Embedding(20, 3), lambda ids: ids)
    dense = train(TimeDistributed(Dense(3, use_bias=False)), lambda ids: np.eye(20)[ids])
    for a, b in zip(table, dense, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


def test_embeddings_regularizer_and_constraint():
    rng = np.random.default_rng(3)
    options = {"embeddings_regularizer": regularizers.L2(0.1), "embeddings_constraint": "non_neg"}
    model = Sequential([Embedding(6, 2, **options), GRU(3)], dtype="float64", seed=0)
    model.compile(optimizers.SGD(0.1), "mse")
    x, y = rng.integers(0, 3, (4, 5)), rng.normal(size=(4, 3))
    plain = Sequential([Embedding(6, 2), GRU(3)], dtype="float64", seed=0)
    plain.compile(optimizers.SGD(0.1), "mse")
    for _ in range(2):  # a second backward pass must not find the first one's
        value, gradients = model.loss_and_gradients(x, y)
    without, expected = plain.loss_and_gradients(x, y)
    table = plain.get_weights()[0]
    np.testing.assert_allclose(value, without + 0.1 * (table**2).sum(), rtol=1e-12)
    np.testing.assert_allclose(gradients[0], expected[0] + 0.2 * table, rtol=0, atol=1e-14)
    model.train_on_batch(x, y)
    np.testing.assert_allclose(model.get_weights()[0], np.maximum(table - 0.1 * gradients[0], 0), atol=1e-14)
