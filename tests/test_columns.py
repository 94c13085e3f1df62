"""Embedded columns, the last steps and other shapes: values, gradients, masks, what they refuse."""

import copy
import json

import numpy as np
import pytest

from elman import Sequential, num_threads
from elman.layers import GRU, Dense, EmbedColumns, Embedding, Flatten, LastSteps, Masking, Reshape
from elman.testing import check_gradients

# Behind one another: one in the middle, the first one, and the last one.
COLUMNS = [(2, 7, 3), (0, 4, 1), (4, 2, 2)]


def table(*shape, seed=0):
    """Numbers with categories in columns 0, 2 and 4."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(*shape, 5))
    for index, size, _ in COLUMNS:
        x[..., index] = rng.integers(0, size, shape)
    return x


def built(dtype=np.float64, shape=(None, 5), columns=COLUMNS):
    layer = EmbedColumns(columns)
    layer.build_alone(shape, np.dtype(dtype))
    rng = np.random.default_rng(1)
    layer.set_weights([rng.normal(size=w.shape) for w in layer.get_weights()])
    return layer


def twin(layer, x):
    parts = [np.delete(x, [c[0] for c in COLUMNS], axis=-1)]
    parts += [w[x[..., c[0]].astype(int)] for c, w in zip(COLUMNS, layer.get_weights(), strict=True)]
    return np.concatenate(parts, axis=-1)


# ---- EmbedColumns


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(4,), (3, 6), (2, 300)], ids=str)
def test_columns_become_their_rows(dtype, shape):
    layer, x = built(dtype, (None, 5)[2 - len(shape) :]), table(*shape).astype(dtype)
    y = layer.forward(x, training=False)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, twin(layer, x))
    np.testing.assert_array_equal(layer.forward(x[..., ::-1].copy()[..., ::-1], training=False), y)
    np.testing.assert_array_equal(layer(x), y)


def test_every_column_may_be_embedded():
    layer = EmbedColumns([(1, 3, 2), (0, 2, 1)], embeddings_initializer="random_normal")
    y = layer([[[0.0, 2.0], [1.0, 0.0]]])
    first, second = layer.get_weights()
    np.testing.assert_array_equal(y[0], [[*first[2], *second[0]], [*first[0], *second[1]]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradients_are_summed_by_row_over_successive_batches(dtype):
    """As with `Embedding`: to the bit, and rows of the batch before are cleared."""
    layer, alone = built(dtype), [Embedding(size, width) for _, size, width in COLUMNS]
    for other in alone:
        other.build_alone((None,), np.dtype(dtype))
    for seed in range(3):
        x = table(4, 5, seed=seed).astype(dtype)
        dy = np.random.default_rng(seed).normal(size=(4, 5, 8)).astype(dtype)
        layer.forward(x, training=True)
        dx = layer.backward(dy, input_gradient=True)
        np.testing.assert_array_equal(dx[..., [1, 3]], dy[..., :2])
        assert not dx[..., [0, 2, 4]].any() and dx.dtype == dtype
        assert layer.backward(dy, input_gradient=False) is None
        for k, (other, begin) in enumerate(zip(alone, (2, 5, 6), strict=True)):
            other.forward(x[..., COLUMNS[k][0]], training=True)
            other.backward(dy[..., begin : begin + COLUMNS[k][2]], input_gradient=False)
            np.testing.assert_array_equal(layer.gradients[k], other.gradients[0])
        layer.forward(table(2, 2, seed=9).astype(dtype), training=False)  # inference changes nothing of it


def test_gradients_in_a_model():
    model = Sequential([EmbedColumns(COLUMNS), GRU(4), Dense(1)], "float64", seed=0)
    model.compile("sgd", "mse")
    check_gradients(model, table(4, 6), np.ones((4, 1)))
    assert [w.name for w in model.weights][:3] == [f"embedcolumns/embeddings_{k}" for k in (2, 0, 4)]
    vectors = Sequential([EmbedColumns(COLUMNS), Dense(1)], "float64", seed=0)
    vectors.compile("sgd", "mse")
    check_gradients(vectors, table(4), np.ones((4, 1)))


def test_bits_of_embedded_columns_do_not_depend_on_threads(thread_counts):
    columns = [(0, 4, 100), (2, 7, 65)]
    layer, x = built(np.float32, columns=columns), table(10, 150).astype(np.float32)
    dy, found = np.random.default_rng(2).normal(size=(10, 150, 168)).astype(np.float32), []
    for threads in thread_counts:
        with num_threads(threads):
            y = layer.forward(x, training=True)
            layer.backward(dy, input_gradient=False)
            found.append([y, *(g.copy() for g in layer.gradients)])
    for other in found[1:]:
        for a, b in zip(other, found[0], strict=True):
            np.testing.assert_array_equal(a, b)


def test_categories_outside_their_range_are_named():
    layer, x = built(), table(3, 4)
    layer.forward(x, training=True)
    dy = np.ones((3, 4, 8))
    layer.backward(dy, input_gradient=False)
    before = [g.copy() for g in layer.gradients]
    for column, value, last in ((2, 7, 6), (2, -1, 6), (0, 1.5, 3), (4, np.nan, 1)):
        wrong = table(3, 4, seed=5)
        wrong[1, 2, column] = wrong[2, 0, column] = value
        message = rf"expected category numbers in column {column}, integers from 0 to {last}, got {value} at index "
        with pytest.raises(ValueError, match=rf"layer EmbedColumns: {message}\(1, 2\) of the batch"):
            layer.forward(wrong, training=True)
        layer.backward(dy, input_gradient=False)  # still that of the good batch
        for a, b in zip(layer.gradients, before, strict=True):
            np.testing.assert_array_equal(a, b)
        if not np.isnan(value):
            model = Sequential([EmbedColumns(COLUMNS), GRU(2)], seed=0)
            with pytest.raises(ValueError, match=rf"x: {message}\(1, 2\)"):
                model.predict(wrong)
    with pytest.raises(
        ValueError, match=r"columns\[0\]: float32 holds every integer only up to 16777216, got 16777217"
    ):
        EmbedColumns([(0, 2**24 + 1, 1)]).prepare((None, 1), np.dtype(np.float32))
    EmbedColumns([(0, 2**24, 1)]).prepare((None, 1), np.dtype(np.float32))


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ([], ValueError, r"columns: expected at least one triple \(index, input_dim, output_dim\), got \[\]"),
        (3, ValueError, "columns: expected at least one triple .* got 3"),
        ([(0, 2)], ValueError, r"columns\[0\]: expected \(index, input_dim, output_dim\), got \(0, 2\)"),
        ([(0, 2, 1), 5], ValueError, r"columns\[1\]: expected \(index, input_dim, output_dim\), got 5"),
        ([(-1, 2, 1)], ValueError, r"columns\[0\], index: expected an integer of at least 0, got -1"),
        ([(0, 0, 1)], ValueError, r"columns\[0\], input_dim: expected an integer of at least 1, got 0"),
        ([(0, 2, 1.5)], TypeError, r"columns\[0\], output_dim: expected an integer, got float 1.5"),
        ([(1, 2, 1), (1, 3, 1)], ValueError, r"columns: expected each index once, got \[1, 1\]"),
    ],
)
def test_wrong_columns_are_named(columns, error, message):
    with pytest.raises(error, match=message):
        EmbedColumns(columns)


def test_configuration_and_copies():
    layer = built()
    again = EmbedColumns.from_config(json.loads(json.dumps(layer.get_config())))
    assert again.columns == layer.columns == tuple(COLUMNS)
    twins, x = copy.deepcopy(layer), table(2, 3)
    np.testing.assert_array_equal(twins(x), layer(x))
    frozen = Sequential([EmbedColumns(COLUMNS, trainable=False), GRU(2), Dense(1)], seed=0)
    frozen.compile("sgd", "mse")
    frozen.fit(x, np.ones(2), verbose=0)
    assert not any(g.any() for g in frozen.gradients(x, np.ones(2))[:3])


def test_columns_may_be_given_piece_by_piece():
    layer, x = built(), table(2, 6)
    pieces = np.concatenate([layer(x[:, :4]), layer(x[:, 4:])], axis=1)
    np.testing.assert_array_equal(layer(x), pieces)
    assert layer.streams
    mask = np.arange(6) < [[6], [3]]
    layer.mask = mask
    assert layer.output_mask(x) is mask


# ---- LastSteps and Reshape


def test_the_last_steps_and_their_gradient():
    layer, x = LastSteps(2), np.random.default_rng(0).normal(size=(3, 5, 2))
    layer.build_alone((None, 2), np.dtype(float))
    for steps in (5, 2, 3):
        layer.forward(x[:, :steps], training=True)
        layer.forward(x, training=False)  # changes nothing of it
        dy = np.random.default_rng(steps).normal(size=(3, 2, 2))
        dx = layer.backward(dy, input_gradient=True)
        assert dx.shape == (3, steps, 2) and not dx[:, :-2].any()
        np.testing.assert_array_equal(dx[:, -2:], dy)
    assert layer.backward(dy, input_gradient=False) is None
    with pytest.raises(ValueError, match="layer LastSteps: needs at least n=2 steps, got 1"):
        layer(x[:, :1])
    assert not layer.streams


def test_masks_of_the_last_steps_and_of_other_shapes():
    x = np.ones((2, 6, 2))
    x[0, :4] = x[1, :5] = 0
    last = Sequential([Masking(), LastSteps(3), GRU(3), Dense(1)], "float64", seed=0)
    last.compile("sgd", "mse")
    check_gradients(last, x, np.ones((2, 1)))
    np.testing.assert_array_equal(last.predict(x), last.predict(x[:, 2:]))
    layer = LastSteps(3)
    layer.build_alone((6, 2), np.dtype(float))
    layer.mask = (x != 0).any(axis=2)
    np.testing.assert_array_equal(layer.output_mask(x), [[False, True, True], [False, False, True]])
    layer.mask = None
    assert layer.output_mask(x) is None
    for shape, kept in (((6, 2), True), ((6, -1), True), ((3, 4), False), ((12,), False), ((12, 1), False)):
        layer = Reshape(shape)
        layer.build_alone((6, 2), np.dtype(float))
        layer.mask = (x != 0).any(axis=2)
        assert (layer.output_mask(x) is layer.mask) == kept and (layer.output_mask(x) is None) != kept


def test_reshaping_needs_no_contiguous_memory():
    x = np.random.default_rng(0).normal(size=(2, 6, 4))[:, ::-1, 1:]
    np.testing.assert_array_equal(Reshape((9, 2))(x), np.ascontiguousarray(x).reshape(2, 9, 2))
    np.testing.assert_array_equal(Flatten()(Reshape((9, 2))(x)), Flatten()(x))
    assert Reshape.from_config(json.loads(json.dumps(Reshape([3, -1]).get_config()))).target_shape == (3, -1)
