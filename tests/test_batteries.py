"""The public batteries: the library's own losses, optimizers and models pass them, and wrong ones do not."""

from dataclasses import dataclass

import numpy as np
import pytest

import elman
from elman import layers, losses
from elman.kernels import losses as loss_kernels
from elman.kernels.optimizers import update_function
from elman.losses import LOSSES, Huber, Loss
from elman.optimizers import OPTIMIZERS, SGD, Adam, Optimizer, RMSprop
from elman.testing import check_cell, check_gradients, check_loss, check_optimizer
from elman.testing.compare import check_close, check_derivative, check_same_bits

# ---- losses

OPTIONS = {
    "binary_crossentropy": [{"from_logits": True, "label_smoothing": 0.2}, {"label_smoothing": 0.1}],
    "categorical_crossentropy": [{"from_logits": True, "label_smoothing": 0.2}, {"label_smoothing": 0.1}],
    "sparse_categorical_crossentropy": [{"from_logits": True}],
    "huber": [{"delta": 0.3}],
    "quantile": [{"quantiles": (0.9,)}, {"quantiles": (0.1, 0.5, 0.8)}],
}
ALL_LOSSES = [cls(**options) for name, cls in LOSSES.items() for options in ({}, *OPTIONS.get(name, []))]


@pytest.mark.parametrize("loss", ALL_LOSSES, ids=str)
def test_losses(loss):
    check_loss(loss)


def loss_of(kernel, value=lambda e: (e**2).mean(axis=-1)):
    @dataclass(frozen=True)
    class Own(Loss):
        def reference(self, y_true, y_pred):
            return value(y_pred - y_true)

    Own.kernel = kernel
    Own.__abstractmethods__ = frozenset()
    return Own()


def test_a_loss_of_ones_own():
    @loss_kernels.loss_function
    def cubed(y, p, options, columns, lo, hi, losses, gradient):
        three = options.dtype.type(3)
        for k in range(lo * columns, hi * columns):
            e = p[k] - y[k]
            losses[k] = e * e * e
            gradient[k] = three * e * e

    check_loss(loss_of(cubed, lambda e: (e**3).mean(axis=-1)))
    check_loss(
        loss_of(cubed, lambda e: (e**3).mean(axis=-1)),
        draw=lambda rng, n, columns: (rng.uniform(size=(n, columns)), rng.uniform(size=(n, columns))),
    )


def test_wrong_losses_are_caught():
    @loss_kernels.loss_function
    def half_gradient(y, p, options, columns, lo, hi, losses, gradient):
        for k in range(lo * columns, hi * columns):
            e = p[k] - y[k]
            losses[k] = e * e
            gradient[k] = e

    with pytest.raises(AssertionError, match=r"1 rows of 2, no weights, gradient: the gradient gives"):
        check_loss(loss_of(half_gradient))
    with pytest.raises(AssertionError, match=r"1 rows of 2, no weights, value: got"):
        check_loss(loss_of(loss_kernels.absolute))

    @loss_kernels.loss_function
    def drops_nan(y, p, options, columns, lo, hi, losses, gradient):
        zero = options.dtype.type(0)
        for k in range(lo * columns, hi * columns):
            e = p[k] - y[k]
            e = e if e == e else zero
            losses[k] = e * e
            gradient[k] = e + e

    with pytest.raises(AssertionError, match="a NaN output gives the loss"):
        check_loss(loss_of(drops_nan))


# ---- optimizers


OWN = [
    SGD(0.1, momentum=0.9, nesterov=True),
    Adam(clipnorm=0.1),
    SGD(global_clipnorm=0.1),
    RMSprop(momentum=0.5, centered=True, weight_decay=0.1),
]


@pytest.mark.parametrize("optimizer", [*(cls() for cls in OPTIMIZERS.values()), *OWN], ids=str)
def test_optimizers(optimizer):
    before = optimizer.get_config()
    check_optimizer(optimizer)
    assert optimizer.get_config() == before and optimizer.iterations == 0


def optimizer_of(update, slots=("step",), step_numbers=lambda self, step: (self.learning_rate,)):
    @dataclass(eq=False)
    class Own(Optimizer):
        learning_rate: float = 0.01
        kernel = update
        slot_names = slots
        numbers = step_numbers

    return Own()


def test_an_optimizer_of_ones_own():
    @update_function
    def sign(p, g, slots, hyper, lo, hi):
        lr, m = hyper[1], slots[0]
        for k in range(lo, hi):
            m[k] = g[k]
            p[k] -= lr * np.sign(m[k])

    check_optimizer(optimizer_of(sign))


def test_wrong_optimizers_are_caught():
    @update_function
    def climbs(p, g, slots, hyper, lo, hi):
        for k in range(lo, hi):
            p[k] += hyper[1] * g[k]

    with pytest.raises(AssertionError, match=r"100 steps on a quadratic function lead from .* to .*, not down"):
        check_optimizer(optimizer_of(climbs, ()))

    @update_function
    def drifts(p, g, slots, hyper, lo, hi):
        for k in range(lo, hi):
            p[k] -= hyper[1] * (g[k] + hyper[1])

    with pytest.raises(AssertionError, match="gradients of zero: array 0 differs in 40 of 40 values"):
        check_optimizer(optimizer_of(drifts, ()))

    @update_function
    def neighbours(p, g, slots, hyper, lo, hi):
        for k in range(lo, hi):
            p[k] -= hyper[1] * (g[k] + g[p.size - np.uint64(1) - k])

    with pytest.raises(AssertionError, match="a tensor beside one with other gradients"):
        check_optimizer(optimizer_of(neighbours, ()))

    class Remembers(SGD):
        """Counts in an attribute that neither state nor reset know."""

        count = 0

        def numbers(self, step):
            self.__dict__["count"] = self.count + 1
            return self.learning_rate / self.count, self.momentum

    with pytest.raises(AssertionError, match="continued from a saved state"):
        check_optimizer(Remembers(momentum=0.5))


# ---- models

MODELS = {
    "last output": lambda: [layers.LSTM(4), layers.Dense(2)],
    "sequences": lambda: [layers.GRU(3, return_sequences=True), layers.Dense(2, activation="softmax")],
    "stacked": lambda: [layers.SimpleRNN(4, return_sequences=True), layers.LSTM(3, go_backwards=True), layers.Dense(2)],
    "flat": lambda: [layers.GRU(3, reset_after=False, return_sequences=True), layers.Flatten(), layers.Dense(2)],
    "repeated": lambda: [layers.LSTM(3), layers.RepeatVector(3), layers.GRU(4, return_sequences=True), layers.Dense(2)],
    "spread": lambda: [layers.LSTM(3, return_sequences=True), layers.TimeDistributed(layers.Dense(2, "tanh"))],
    "activation": lambda: [layers.RNN(3, cell="gru", use_bias=False), layers.Activation("relu"), layers.Dense(2)],
}


def build(name, loss="mse", dtype="float64"):
    model = elman.Sequential([layers.Input((5, 3)), *MODELS[name]()], dtype=dtype, seed=3)
    rng = np.random.default_rng(4)
    model.set_weights([w + 0.2 * rng.standard_normal(w.shape) for w in model.get_weights()])
    model.compile("sgd", loss)
    return model, rng.standard_normal((4, 5, 3)), rng.uniform(size=(4, *model.output_shape))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("loss", ["mse", Huber(0.3)], ids=str)
def test_models(name, loss):
    model, x, y = build(name, loss)
    before = model.get_weights()
    check_gradients(model, x, y)
    check_gradients(model, x, y, sample_weight=np.array([1.0, 0.0, 2.0, 0.5]), directions=1, seed=7)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_models_with_classes():
    model, x, _ = build("sequences", "sparse_categorical_crossentropy")
    check_gradients(model, x, np.arange(20).reshape(4, 5) % 2)
    model.compile("sgd", losses.get("categorical_crossentropy"), metrics=["accuracy"], loss_weights=3.0)
    check_gradients(model, x, np.eye(2)[np.arange(20).reshape(4, 5) % 2])


def test_models_with_quantiles():
    for name, shape in (("last output", (4,)), ("spread", (4, 5))):
        model, x, _ = build(name, losses.Quantile((0.2, 0.7)))
        y = np.random.default_rng(5).standard_normal(shape)
        check_gradients(model, x, y)
        assert model.evaluate(x, y, verbose=0) == pytest.approx(model.loss(y, model.predict(x)), rel=1e-12)
        model.fit(x, y, batch_size=3, epochs=2, validation_split=0.25, verbose=0)


def test_a_model_in_float32_is_refused():
    model, x, y = build("last output", dtype="float32")
    with pytest.raises(ValueError, match="model: gradients are checked in float64, got a model of float32"):
        check_gradients(model, x, y)


def test_wrong_gradients_of_a_model_are_caught(monkeypatch):
    model, x, y = build("last output")
    before, right = model.get_weights(), model.gradients(x, y)
    monkeypatch.setattr(model, "gradients", lambda *args, **options: [right[0] * 1.0001, *right[1:]])
    with pytest.raises(AssertionError, match="model, direction 0: the gradient gives"):
        check_gradients(model, x, y)
    monkeypatch.setattr(model, "gradients", lambda *args, **options: [np.zeros_like(g) for g in right])
    with pytest.raises(AssertionError, match=r"the gradient gives 0\.0 in a random direction"):
        check_gradients(model, x, y)
    monkeypatch.setattr(model, "gradients", lambda *args, **options: [right[0].T, *right[1:]])
    with pytest.raises(AssertionError, match=r"gradient 0: shape \(16, 3\), but its parameter has \(3, 16\)"):
        check_gradients(model, x, y)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


# ---- comparisons


def test_kinks_are_stepped_over():
    """A kink at 2e-4 spoils the widest differences only."""
    check_derivative("relu", lambda t: max(t - 2e-4, 0.0) + np.sin(t), 1.0, 1.0, 1e-6)
    with pytest.raises(AssertionError, match=r"the gradient gives 2\.0"):
        check_derivative("relu", lambda t: max(t - 2e-4, 0.0) + np.sin(t), 2.0, 1.0, 1e-6)
    with pytest.raises(AssertionError, match="no central difference settles"):
        check_derivative("noise", lambda t: np.sin(1e12 * t), 0.0, 1.0, 1e-6)
    with pytest.raises(AssertionError):
        check_derivative("nan", lambda t: np.nan, 0.0, 1.0, 1e-6)
    for claimed in (np.nan, np.inf):
        with pytest.raises(AssertionError, match=f"the gradient gives {claimed} in a random direction"):
            check_derivative("line", lambda t: t, claimed, claimed, 1e-6)


def test_comparisons_see_nan_and_shapes():
    with pytest.raises(AssertionError, match=r"a: got nan where 1.0 is expected, at \(1,\)"):
        check_close("a", np.array([1.0, np.nan]), np.ones(2), 1e-3)
    with pytest.raises(AssertionError, match=r"a: got shape \(2,\) where \(3,\) is expected"):
        check_close("a", np.ones(2), np.ones(3), 1e-3)
    check_same_bits("a", [np.array([np.nan, 1.0])], [np.array([np.nan, 1.0])])
    with pytest.raises(AssertionError, match=r"a: array 0 differs in 1 of 2 values, the first at \(0,\)"):
        check_same_bits("a", [np.array([np.nan, 1.0])], [np.array([0.0, 1.0])])


def test_unknown_cells_are_named():
    with pytest.raises(ValueError, match="cell: unknown name 'gruu', did you mean 'gru'"):
        check_cell("gruu")
