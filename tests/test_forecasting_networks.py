"""The parts of a forecaster's model: the learned norm, losses of counts, what outputs stand for."""

import copy

import numpy as np
import pytest

from elman import Sequential, losses
from elman.forecasting.network import ReversibleNorm
from elman.forecasting.targets import Quantiles, ScaledCounts, scaled_up, target
from elman.layers import GRU, Dense, EmbedColumns, Input, Reshape, SegmentRNN
from elman.testing import check_gradients

L, H, F = 7, 4, 4


def windows(n=6, seed=0):
    """x (n, L + H, F) whose last column is a channel, 0 to 2."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, L + H, F))
    x[..., 3] = rng.integers(0, 3, (n, 1))
    return x, rng.normal(size=(n, H, 1))


def normed(inner, dtype="float64"):
    model = Sequential([Input((L + H, F)), ReversibleNorm(inner, (0, 2), 3, 3)], dtype=dtype, seed=0)
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(size=w.shape) + (k == 0) * 2 for k, w in enumerate(model.get_weights())])
    model.compile("sgd", "mse")
    return model


INNER = {
    "segment": lambda: [EmbedColumns([(3, 3, 2)]), SegmentRNN(3, H, 2, known=(1, 2), static=(3, 4))],
    "direct": lambda: [EmbedColumns([(3, 3, 2)]), GRU(3), Dense(H), Reshape((H, 1))],
}


@pytest.mark.parametrize("inner", INNER.values(), ids=INNER)
def test_the_gradients_of_the_learned_norm(inner):
    x, y = windows()
    check_gradients(normed(inner()), x, y)


@pytest.mark.parametrize("inner", INNER.values(), ids=INNER)
def test_the_learned_norm_is_undone_in_the_outputs(inner):
    model, (x, _) = normed(inner()), windows()
    gain, bias, *rest = model.get_weights()
    plain = Sequential([Input((L + H, F)), *inner()], dtype="float64")
    plain.set_weights(rest)
    g, b = (v[x[:, 0, 3].astype(int)][:, None, None] for v in (gain, bias))
    scaled = x.copy()
    scaled[..., [0, 2]] = x[..., [0, 2]] * g + b
    np.testing.assert_allclose(model.predict(x), (plain.predict(scaled) - b) / g, rtol=1e-12)


@pytest.mark.parametrize("inner", INNER.values(), ids=INNER)
@pytest.mark.parametrize("hidden", ["left", "holes"])
def test_a_mask_of_the_input_reaches_the_loss_as_without_the_norm(inner, hidden):
    """H outputs have no mask of L + H steps: they would be taken for hidden, or the loss would read elsewhere."""
    (x, y), rng = windows(), np.random.default_rng(2)
    mask = np.broadcast_to(np.arange(L + H) >= 3, x.shape[:2]) if hidden == "left" else rng.random(x.shape[:2]) < 0.7
    model, plain = normed(inner()), Sequential([Input((L + H, F)), *inner()], dtype="float64")
    gain, bias, *rest = model.get_weights()
    model.set_weights([np.ones_like(gain), np.zeros_like(bias), *rest])
    plain.set_weights(rest)
    plain.compile("sgd", "mse")
    assert model.evaluate(x, y, mask=mask, verbose=0) == plain.evaluate(x, y, mask=mask, verbose=0) > 0
    check_gradients(normed(inner()), x, y, mask=mask)


def test_the_learned_norm_is_saved_and_copied(tmp_path):
    model, (x, _) = normed(INNER["segment"]()), windows()
    model.save(tmp_path / "m.npz")
    for other in (Sequential.load(tmp_path / "m.npz"), copy.deepcopy(model)):
        np.testing.assert_array_equal(other.predict(x), model.predict(x))


# ---- counts


@pytest.mark.parametrize("inner", [losses.NegativeBinomial(), losses.PoissonNLL()], ids=lambda v: type(v).__name__)
def test_counts_with_a_scale(inner):
    """Value and derivative, by differences; with scale 1 they are the inner loss's."""
    loss, rng = ScaledCounts(inner), np.random.default_rng(0)
    n, width = 20, len(inner.blocks)
    out = rng.normal(size=(n, width)) * 2
    counts, scale = rng.poisson(3.0, n).astype(float), rng.uniform(0.01, 50, n)
    y = np.stack([counts, scale], axis=1)
    gradient = np.empty_like(out)
    value = loss.value_and_gradient(y, out, None, gradient)
    assert value == pytest.approx(loss.reference(y, out).mean(), rel=1e-10)
    direction = rng.normal(size=out.shape)
    step = 1e-6
    ends = [loss.value_and_gradient(y, out + s * direction, None, None) for s in (step, -step)]
    assert (ends[0] - ends[1]) / (2 * step) == pytest.approx((gradient * direction).sum(), rel=1e-6)
    ones = np.stack([counts, np.ones(n)], axis=1)
    alone = inner.value_and_gradient(counts[:, None], out, None, None)
    assert loss.value_and_gradient(ones, out, None, None) == pytest.approx(alone, rel=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("r", [-60.0, -3.0, 0.0, 4.0, 200.0])
def test_the_mean_is_scaled_exactly(dtype, r):
    scale = np.array([1e-3, 1.0, 37.0, 1e6])
    out, slope = scaled_up(np.full((4, 2), r, dtype), scale)
    mean = np.logaddexp(0, np.float64(dtype(r))) * scale
    found = np.logaddexp(0, out[:, 0].astype(np.float64))
    np.testing.assert_allclose(found, np.maximum(mean, 1e-30), rtol=1e-3 if dtype == np.float32 and r < -3 else 1e-5)
    assert (out[:, 1] == dtype(r)).all() and np.isfinite(slope).all() and (slope > 0).all()


# ---- outputs


def test_quantiles_never_cross_and_are_interpolated():
    found = Quantiles((0.9, 0.1, 0.5))
    out = np.array([[[3.0, 5.0, 1.0]]])
    np.testing.assert_allclose(found.quantiles(out, [0.1, 0.3, 0.5, 0.7, 0.9])[0, 0], [1, 2, 3, 4, 5])
    assert found.point(out).tolist() == [[3.0]]
    np.testing.assert_allclose(found.quantiles(out, [0.5 - 0.8 / 2, 0.5 + 0.8 / 2])[0, 0], [1, 5])
    with pytest.raises(ValueError, match=r"knows those from 0.1 to 0.9, not 0.95"):
        found.quantiles(out, [0.95])


@pytest.mark.parametrize("loss", ["mae", "mse", "huber"])
def test_points_have_neither_quantiles_nor_samples(loss):
    found = target(loss, ())
    with pytest.raises(ValueError, match="quantiles: a model trained with this loss"):
        found.quantiles(np.zeros((1, 1, 1)), [0.5])
    with pytest.raises(ValueError, match="sample: needs loss="):
        found.sample(np.zeros((1, 1, 1)), np.random.default_rng(0))


@pytest.mark.parametrize("loss", ["normal", "studentt", "negbin", "poisson"])
def test_distributions_have_both(loss):
    found, rng = target(loss, ()), np.random.default_rng(0)
    out = np.repeat(np.array([[[2.0, -1.0, 3.0][: found.outputs]]]), 4000, axis=0)
    drawn = found.sample(out, rng)
    low, middle, high = found.quantiles(out[:1], [0.1, 0.5, 0.9])[0, 0]
    assert low <= middle <= high
    assert np.mean(drawn <= low) >= 0.08 and np.mean(drawn < low) <= 0.12
    assert np.mean(drawn <= high) >= 0.88 and np.mean(drawn < high) <= 0.92
    assert drawn.mean() == pytest.approx(found.point(out[:1])[0, 0], abs=0.2)
