"""Gradient norms over time against a NumPy twin, verdicts of built nets, and NaN found where it was planted."""

import sys
import warnings
from dataclasses import dataclass

import numpy as np
import pytest

import elman
from elman import Sequential
from elman.cells import CELLS
from elman.diagnostics import GradientWarning, LayerFlow, locate_nonfinite
from elman.diagnostics.flow import _SLOPES, _candidates
from elman.kernels import pointwise
from elman.layers import GRU, LSTM, Bidirectional, Dense, Input, Layer, SimpleRNN, TimeDistributed
from elman.optimizers import SGD
from elman.training.batches import Batch
from elman.training.flow import GradientFlow


def made(layers, features=2, dtype="float64", optimizer="sgd", loss="mse", **options):
    model = Sequential([Input((None, features)), *layers], dtype=dtype, seed=3)
    model.compile(optimizer, loss, **options)
    return model


def diagonal(factor, **options):
    """A linear layer of one feature and two units whose gradients change by `factor` at every step."""
    model = made([SimpleRNN(2, activation="linear", name="rnn", **options)], features=1)
    model.set_weights([np.ones((1, 2)), factor * np.eye(2), np.zeros(2)])
    return model


# ---- norms


def run(weights, h, x, used, backwards, plant=None):
    """One Elman layer in NumPy: outputs in processing order; `plant` (t, b, unit, size) is added to h after step t."""
    kernel, recurrent, bias = weights
    steps = range(x.shape[1])[::-1] if backwards else range(x.shape[1])
    outputs = []
    for t in steps:
        new = np.tanh(x[:, t] @ kernel + h @ recurrent + bias)
        h = np.where(used[:, t, None], new, h)
        if plant is not None and plant[0] == t:
            h = h.copy()
            h[plant[1], plant[2]] += plant[3]
        outputs.append(h)
    return np.stack(outputs, axis=1)


@pytest.mark.parametrize("backwards", [False, True])
def test_norms_are_those_of_finite_differences_through_two_layers_and_masks(backwards, rng):
    b, steps, h = 3, 5, 2
    x, y, w = rng.normal(size=(b, steps, 2)), rng.normal(size=(b, 1)), rng.uniform(1, 2, b)
    used = np.array([[1, 1, 1, 1, 1], [1, 0, 1, 1, 0], [0, 1, 1, 0, 0]], bool)
    layers = [SimpleRNN(h, return_sequences=True, name="one"), SimpleRNN(h, go_backwards=backwards, name="two")]
    model = made([*layers, Dense(1)], loss_weights=0.5)
    weights = [rng.normal(size=p.shape) for p in model.get_weights()]
    model.set_weights(weights)

    def loss(layer, plant):
        zero = np.zeros((b, h))
        first = run(weights[:3], zero, x, used, False, plant if layer == "one" else None)
        second = run(weights[3:6], zero, first, used, backwards, plant if layer == "two" else None)
        out = second[:, -1] @ weights[6] + weights[7]
        return 0.5 * np.sum(w * np.mean((out - y) ** 2, axis=1)) / b

    report = model.gradient_flow(x, y, w, mask=used)
    assert report.loss == pytest.approx(loss("one", None), rel=1e-12)
    assert [layer.name for layer in report] == ["one", "two"]
    for name in ("one", "two"):
        expected = np.full((steps, b), np.nan)
        for t, k in np.argwhere(used.T):
            slopes = [(loss(name, (t, k, j, 1e-5)) - loss(name, (t, k, j, -1e-5))) / 2e-5 for j in range(h)]
            expected[t, k] = np.linalg.norm(slopes)
        np.testing.assert_allclose(report[name].per_sequence, expected, rtol=0, atol=1e-9)
        np.testing.assert_allclose(report[name].norms, np.sqrt(np.nansum(expected**2, axis=1)), rtol=0, atol=1e-9)
    read = (4, 0) if backwards else (0, 4)
    assert (report["two"].first, report["two"].last) == read
    assert report["two"].ratio == pytest.approx(report["two"].norms[read[0]] / report["two"].norms[read[1]])


def test_norms_of_an_lstm_are_the_gradients_of_the_states_of_a_split_sequence(rng, blocks_of_four):
    b, steps, units = 64, 10, 2
    x, y = rng.normal(size=(b, steps, 2)), rng.normal(size=(b, steps, units))
    model = made([LSTM(units, return_sequences=True)])
    weights = [rng.normal(size=p.shape) for p in model.get_weights()]
    model.set_weights(weights)
    flow = model.gradient_flow(x, y)["lstm"]
    outputs, _, _ = elman.functional.recurrent("lstm", x, weights)
    d_outputs = 2 * (outputs - y) / y.size
    for t in range(steps - 1):
        _, state, _ = elman.functional.recurrent("lstm", x[:, : t + 1], weights)
        _, _, tape = elman.functional.recurrent("lstm", x[:, t + 1 :], weights, state)
        gradient = d_outputs[:, t] + tape.backward(d_outputs[:, t + 1 :]).state[0]
        np.testing.assert_allclose(flow.per_sequence[t], np.linalg.norm(gradient, axis=1), rtol=1e-10)
    np.testing.assert_allclose(flow.per_sequence[-1], np.linalg.norm(d_outputs[:, -1], axis=1), rtol=1e-12)
    # Checkpointed in segments of 4 steps: the same bits, and all values of the gates are counted.
    other = made([LSTM(units, return_sequences=True, checkpoint=4)])
    other.set_weights(weights)
    again = other.gradient_flow(x, y)["lstm"]
    assert other.layers[0]._tape.held_steps == 4
    np.testing.assert_array_equal(again.per_sequence, flow.per_sequence)
    assert again.saturation == flow.saturation
    assert all(0 < part < 1 for part in flow.saturation.values())


def test_sequences_keep_their_order_when_lengths_differ(rng):
    x = rng.normal(size=(3, 4, 1))
    flow = diagonal(0.5).gradient_flow(x, np.zeros((3, 2)), lengths=[2, 4, 1])["rnn"]
    assert np.isnan(flow.per_sequence).T.tolist() == [
        [False, False, True, True],
        [False] * 4,
        [False, True, True, True],
    ]
    np.testing.assert_allclose(flow.per_sequence[0, 0], flow.per_sequence[1, 0] / 2, rtol=1e-12)


# ---- verdicts


X, Y = np.zeros((2, 30, 1)), np.ones((2, 2))


@pytest.mark.parametrize("backwards", [False, True])
def test_verdicts_and_their_steps(backwards):
    place = lambda t: 29 - t if backwards else t
    flow = diagonal(0.09, go_backwards=backwards).gradient_flow(X, Y)["rnn"]
    assert (flow.verdict, flow.step) == ("vanishing", place(29 - 7))  # 0.09**6 > 1e-7 > 0.09**7
    assert flow.ratio == pytest.approx(0.09**29)
    assert flow.message == (
        f"gradients vanish in layer 'rnn': ‖dL/dh‖ at step {place(22)} is 4.8e-08 of that at step {place(29)}"
    )
    flow = diagonal(3, go_backwards=backwards).gradient_flow(X, Y)["rnn"]
    assert (flow.verdict, flow.step) == ("exploding", place(29 - 7))  # 3**6 < 1000 < 3**7
    assert flow.message == (
        f"gradients explode in layer 'rnn': ‖dL/dh‖ at step {place(22)} is 2.2e+03 of that at step {place(29)}"
    )
    flow = diagonal(0.9, go_backwards=backwards).gradient_flow(X, Y)["rnn"]
    assert (flow.verdict, flow.step, flow.message) == ("steady", None, "")
    flow = diagonal(0.9).gradient_flow(X, Y, np.zeros(2))["rnn"]
    assert (flow.verdict, flow.first, flow.last, flow.message) == (
        "none",
        None,
        None,
        "no gradient reaches layer 'rnn'",
    )
    assert np.isnan(flow.ratio)
    assert str(flow) == "rnn: no gradient"


def test_verdicts_of_norms_with_gaps_and_infinities():
    flow = lambda *norms: LayerFlow("l", np.array(norms, float)[:, None], {}, {})
    assert (flow(1, 1e-9, 1, 1).verdict, flow(1, 1e-9, 1, 1).step) == ("steady", None)  # it comes back
    assert (flow(1e-9, 0, 1, 0, 0).last, flow(1e-9, 0, 1, 0, 0).step) == (2, 1)
    assert (flow(np.inf, np.inf, 1).step, flow(np.inf, np.inf, 1).verdict) == (1, "exploding")
    assert flow(np.inf, np.inf, 1).message == "gradients explode in layer 'l': ‖dL/dh‖ at step 1 is not finite"
    assert flow(np.inf, np.inf).verdict == "exploding"
    assert (flow(np.nan, 1e-8, 1).first, flow(np.nan, 1e-8, 1).step) == (1, 1)
    assert flow(1e-7, 1).verdict == "steady"
    assert flow(1000, 1).verdict == "steady"
    assert flow(1001, 1e-9, 1).verdict == "exploding"


def test_layers_within_others_and_frozen_ones_are_reported():
    inner = SimpleRNN(2, activation="linear", name="rnn")
    model = made([Bidirectional(inner, name="both", trainable=False), Dense(1)], features=1)
    one = [np.ones((1, 2)), 0.09 * np.eye(2), np.zeros(2)]
    model.set_weights([*one, one[0], 3 * np.eye(2), one[2], np.ones((4, 1)), np.zeros(1)])
    report = model.gradient_flow(X, np.ones((2, 1)))
    assert [(f.name, f.verdict, f.step) for f in report] == [
        ("both/forward_rnn", "vanishing", 22), ("both/backward_rnn", "exploding", 7)
    ]  # fmt: skip
    assert not any(g.any() for g in model.gradients(X, np.ones((2, 1)))[:6])
    with pytest.raises(KeyError, match=r"no recurrent layer 'rnn'; there are both/forward_rnn, both/backward_rnn"):
        report["rnn"]


@dataclass(eq=False)
class Pairs(Layer):
    """(T, F) to (T / 2, 2, F)."""

    def compute_output_shape(self, shape):
        return (shape[0] and shape[0] // 2, 2, shape[1])

    def forward(self, x, *, training):
        return x.reshape(len(x), -1, 2, x.shape[2])

    def backward(self, dy, *, input_gradient):
        return dy.reshape(len(dy), -1, dy.shape[3])


def test_a_layer_at_every_step_is_reported_over_its_own_steps():
    model = made([Pairs(), TimeDistributed(SimpleRNN(2, activation="linear"), name="each")], features=1)
    flow = model.gradient_flow(np.ones((2, 6, 1)), np.zeros((2, 3, 2)))["each/simplernn"]
    assert flow.per_sequence.shape == (2, 6)


# ---- saturation and radii


def test_slopes_are_those_of_the_kernels():
    x = np.concatenate([np.linspace(-20, 20, 401), [-1e-6, 1e-6]])
    for code, name in enumerate(pointwise.ACTIVATIONS):
        y = np.array([pointwise.activate(code, v) for v in x])
        slopes = np.array([pointwise.derivative(code, v) for v in y])
        if name in _SLOPES:
            np.testing.assert_allclose(_SLOPES[name](y), slopes / slopes.max(), rtol=0, atol=2e-6, err_msg=name)
            assert slopes.min() < 0.05 * slopes.max(), name
        else:
            assert name == "exponential" or slopes.min() > 0.05 * slopes.max(), name


def test_every_cells_candidate_is_told_from_its_gates():
    found = {
        name: "".join(gate for gate, row in cell.gate_rows if row in _candidates(cell))
        for name, cell in CELLS.items()
        if cell.gate_rows
    }
    assert found.pop("lstm") == "g"
    assert found.pop("gru") == "h"
    assert set(found.values()) <= {"g", "h"}


def test_saturation_counts_the_gates_that_are_flat(rng):
    x, y = rng.normal(size=(4, 6, 2)), np.zeros((4, 3))
    layer = LSTM(3)
    model = made([layer])
    assert model.gradient_flow(0 * x, y)["lstm"].saturation == dict.fromkeys("ifgo", 0.0)
    model.weights[0].value[:] = rng.choice([-1e3, 1e3], size=(2, 12))
    x[:] = np.abs(x) * [1, 1e-3]  # products cannot cancel
    assert model.gradient_flow(x, y)["lstm"].saturation == dict.fromkeys("ifgo", 1.0)
    assert model.gradient_flow(x * [[[1]], [[0]], [[0]], [[0]]], y)["lstm"].saturation == dict.fromkeys("ifgo", 0.25)
    # Steps that a mask excludes do not count.
    quiet = x * [[1, 1]] * np.array([1, 0, 0, 0, 0, 0])[:, None]
    assert model.gradient_flow(quiet, y, lengths=[2, 2, 2, 2])["lstm"].saturation == dict.fromkeys("ifgo", 0.5)
    assert model.gradient_flow(quiet, y, lengths=[0, 0, 0, 0])["lstm"].saturation == dict.fromkeys("ifgo", 0.0)
    # One gate alone, by its bias: slopes of 4.9 % and 5.1 % of the steepest; tanh at 2.3 is flatter, sigmoid is not.
    model.set_weights([np.zeros_like(w) for w in model.get_weights()])
    for gate, block in (("f", 1), ("o", 3)):
        for bias, flat in ((4.4, 1.0), (4.3, 0.0)):
            model.weights[2].value[:] = np.repeat(np.arange(4) == block, 3) * bias
            assert model.gradient_flow(x, y)["lstm"].saturation == {**dict.fromkeys("ifgo", 0.0), gate: flat}
    model.weights[2].value[:] = 2.3
    assert model.gradient_flow(x, y)["lstm"].saturation == {**dict.fromkeys("ifo", 0.0), "g": 1.0}


def test_saturation_of_cells_with_other_rows(rng):
    x, y = np.ones((2, 3, 2)), np.zeros((2, 3))
    model = made([GRU(3)])
    model.set_weights([np.zeros_like(w) for w in model.get_weights()])
    model.weights[2].value[0] = [9] * 3 + [0] * 6
    assert model.gradient_flow(x, y)["gru"].saturation == {"z": 1, "r": 0, "h": 0}
    model.weights[2].value[0] = [0] * 6 + [2.3] * 3
    assert model.gradient_flow(x, y)["gru"].saturation == {"z": 0, "r": 0, "h": 1}
    model = made([SimpleRNN(3)])
    model.weights[2].value[:] = [9, 0, 0]
    assert model.gradient_flow(0 * x, y)["simplernn"].saturation["h"] == pytest.approx(1 / 3)


def test_spectral_radii_are_those_of_the_blocks(rng):
    for layer, gates in ((LSTM(5), "ifgo"), (GRU(5), "zrh"), (SimpleRNN(5), "h")):
        model = made([layer])
        model.weights[1].value[:] = recurrent = rng.normal(size=(5, 5 * len(gates)))
        flow = model.gradient_flow(np.ones((1, 2, 2)), np.ones((1, 5)))[layer.name]
        for k, gate in enumerate(gates):
            eigenvalues = np.linalg.eigvals(recurrent[:, 5 * k : 5 * k + 5])
            assert flow.spectral_radius[gate] == pytest.approx(np.sqrt((eigenvalues * eigenvalues.conj()).real.max()))
        assert f"spectral radius: {gates[0]} {flow.spectral_radius[gates[0]]:.3g}" in str(flow)


# ---- what stays


def test_a_measurement_changes_nothing(rng):
    x, y = rng.normal(size=(4, 6, 2)), rng.normal(size=(4, 1))

    def train(measure):
        layers = [LSTM(3, stateful=True, return_sequences=True, dropout=0.3), GRU(2, stateful=True), Dense(1)]
        model = made(layers, optimizer="adam")
        losses = []
        for _ in range(3):
            losses.append(model.train_on_batch(x, y))
            if measure:
                model.gradient_flow(x[:3], y[:3])
        return losses, model.get_weights()

    plain, measured = train(False), train(True)
    assert plain[0] == measured[0]
    for a, b in zip(plain[1], measured[1], strict=True):
        np.testing.assert_array_equal(a, b)


def test_measuring_refuses_what_cannot_be_measured():
    with pytest.raises(ValueError, match="the model has no recurrent layer"):
        made([Dense(1)]).gradient_flow(np.ones((1, 2, 2)), np.ones((1, 2)))
    with pytest.raises(ValueError, match="not compiled"):
        Sequential([Input((None, 2)), GRU(1)]).gradient_flow(np.ones((1, 2, 2)), np.ones(1))
    with pytest.raises(ValueError, match="y: targets are missing"):
        diagonal(1).gradient_flow(X)


# ---- the callback


def test_the_callback_logs_and_warns_once_per_layer_and_kind():
    model = diagonal(0.09, trainable=False)
    flow = GradientFlow(X, Y, every=2)
    with pytest.warns(GradientWarning) as caught:
        history = model.fit(X, Y, epochs=5, verbose=0, callbacks=[flow])
    assert [str(w.message) for w in caught] == [
        "epoch 2: gradients vanish in layer 'rnn': ‖dL/dh‖ at step 22 is 4.8e-08 of that at step 29"
    ]
    assert len(flow.reports) == 2
    report = flow.reports[0]["rnn"]
    assert history.history["flow/rnn/first"] == [report.norms[0]] * 2
    assert history.history["flow/rnn/last"] == [report.norms[29]] * 2
    assert history.history["flow/rnn/saturation"] == [0, 0]
    model.set_weights([np.ones((1, 2)), 3 * np.eye(2), np.zeros(2)])
    with pytest.warns(GradientWarning, match="explode in layer 'rnn'") as caught:
        model.fit(X, Y, epochs=4, verbose=0, callbacks=[flow])
    assert len(caught) == 1 and len(flow.reports) == 2
    model.set_weights([np.ones((1, 2)), np.eye(2), np.zeros(2)])
    model.fit(X, Y, verbose=0, callbacks=[GradientFlow(X, Y)])  # steady: no warning
    logs = {}
    silent = GradientFlow(X, Y, np.zeros(2))
    silent.set_model(model)
    silent.on_epoch_end(0, logs)
    assert logs["flow/rnn/first"] == logs["flow/rnn/last"] == 0
    for every in (0, 1.5):
        with pytest.raises((ValueError, TypeError), match="every"):
            GradientFlow(X, Y, every=every)


# ---- the plot


def test_the_plot_shows_norms_and_verdicts():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    model = made([GRU(2, return_sequences=True), SimpleRNN(2)], features=1)
    report = model.gradient_flow(X, Y)
    figure = report.plot()
    assert [axis.get_title() for axis in figure.axes] == [f"{f.name}: {f.verdict}" for f in report]
    for axis, flow in zip(figure.axes, report, strict=True):
        assert axis.get_yscale() == "log"
        np.testing.assert_array_equal(axis.lines[0].get_ydata(), flow.norms)
    pyplot.close(figure)
    figure = diagonal(0.09).gradient_flow(X, Y).plot()
    assert figure.axes[0].get_title() == "rnn: vanishing at step 22"
    assert list(figure.axes[0].lines[1].get_xdata()) == [22, 22]
    pyplot.close(figure)


def test_without_matplotlib_the_plot_says_what_to_install(monkeypatch):
    report = diagonal(1).gradient_flow(X, Y)
    for name in ("matplotlib", "matplotlib.pyplot"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"elman\[plot\]"):
        report.plot()


# ---- the first number that is not finite


def skipped(model, x, y, **options):
    """Where a step went wrong whose update had to be left out."""
    weights, count = model.get_weights(), model.skipped_updates
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        model.train_on_batch(x, y, **options)
    assert model.skipped_updates == count + 1
    for a, b in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    return model.nonfinite


@dataclass(eq=False)
class Plant(Layer):
    """Puts a value at one place of its output, or with `back` of its input's gradient."""

    sample: int = 0
    step: int = 0
    value: float = np.nan
    back: bool = False

    def compute_output_shape(self, shape):
        return shape

    def _plant(self, a):
        a = a.copy()
        a[self.sample, self.step, -1] = self.value
        return a

    def forward(self, x, *, training):
        return x if self.back else self._plant(x)

    def backward(self, dy, *, input_gradient):
        return self._plant(dy) if self.back else dy


def test_a_parameter_or_the_data(rng):
    x, y = rng.normal(size=(3, 4, 2)), rng.normal(size=(3, 1))
    model = made([LSTM(2), Dense(1)])
    model.weights[1].value[1, 5] = -np.inf
    assert skipped(model, x, y) == "parameter 'lstm/recurrent_kernel' is -inf at index (1, 5)"
    model = made([LSTM(2), Dense(1)])
    x[2, 1, 0] = np.nan
    assert locate_nonfinite(model, Batch(x, y, rows=np.array([7, 5, 9]))) == "x: step 1, nan (sample 9)"
    x[2, 1, 0], y[1] = 0, np.inf
    assert locate_nonfinite(model, Batch(x, y, rows=slice(4, 7))) == "y: inf (sample 5)"


def test_a_planted_nan_is_found_at_its_layer_step_and_sample(rng):
    x, y = rng.normal(size=(3, 6, 2)), rng.normal(size=(3, 1))
    model = made([GRU(2, return_sequences=True), Plant(1, 4, name="plant"), GRU(2), Dense(1)])
    assert skipped(model, x, y) == "forward: layer 'plant', output: step 4, nan (sample 1)"
    # Sorted by length, the second of the batch is the first sample.
    assert skipped(model, x, y, lengths=[5, 6, 3]) == "forward: layer 'plant', output: step 4, nan (sample 0)"
    model = made([Plant(1, 4, 1e300), GRU(2, go_backwards=True, name="back", activation="linear"), Dense(1)])
    model.weights[0].value[:] = 0
    model.weights[0].value[1, -1] = 1e300
    assert skipped(model, x, y) == "forward: layer 'back', step 4, gate 'h': inf (sample 1, unit 1)"


def test_a_gate_or_a_state_that_overflows_is_named_with_its_step(rng, blocks_of_four):
    x, y = np.zeros((64, 9, 2)), np.zeros((64, 2))
    x[2, 5, 1] = 1e200
    for checkpoint in (None, 4):
        model = made([LSTM(2, activation="linear", checkpoint=checkpoint)])
        model.weights[0].value[1, 4] = 1e200
        assert skipped(model, x, y) == "forward: layer 'lstm', step 5, gate 'g': inf (sample 2, unit 0)"
    # Without a product that overflows: c = c' + 1e307 at every step.
    model = made([LSTM(2, activation="linear")])
    weights = [np.zeros_like(w) for w in model.get_weights()]
    weights[2][:] = [99, 99, 99, 99, 0, 2e307, -99, -99]
    model.set_weights(weights)
    assert skipped(model, 0 * x, y) == "forward: layer 'lstm', step 8, state c: inf (sample 0, unit 1)"
    # A step that a mask excludes does not matter; here no gradient comes from it either.
    model = made([Bidirectional(SimpleRNN(2, activation="linear"), merge_mode="sum", name="both")])
    for k in (0, 3):
        model.weights[k].value[:] = 1e200
    found = skipped(model, x, y)
    assert found == "forward: layer 'both/forward_simplernn', step 5, state h: inf (sample 2, unit 0)"


def test_the_loss_its_gradient_and_penalties():
    x, y = np.full((2, 3, 1), 1e160), np.zeros((2, 3, 1))
    model = made([Dense(1, kernel_initializer="ones")], features=1)
    assert skipped(model, x, y) == "the loss is inf; the outputs are finite"
    model = made([Dense(1, kernel_initializer="zeros")], features=1, loss_weights=1e100)
    found = skipped(model, 0 * x, y + 1e-60, sample_weight=np.array([1, 1e308]))
    assert found == "the gradient of the loss: step 0, -inf (sample 1); the loss is finite"
    big = elman.regularizers.L2(1e200)
    model = made([Dense(1, kernel_regularizer=big, kernel_initializer="zeros")], features=1)
    model.weights[0].value[:] = 1e200
    assert skipped(model, 0 * x, y) == "backward: gradient of 'dense/kernel', its penalty included, is not finite"
    model = made([Dense(1, kernel_initializer="zeros")], features=1, optimizer=SGD(gradient_accumulation_steps=2))
    model.train_on_batch(0 * x + 6e307, y + 1)
    assert skipped(model, 0 * x + 6e307, y + 1).endswith("their sum with those accumulated before is not")


def test_an_overflow_on_the_way_back_alone():
    x, y = np.zeros((2, 12, 1)), np.ones((2, 2))
    for backwards, step in ((False, 7), (True, 4)):
        layers = [Dense(1), SimpleRNN(2, activation="linear", go_backwards=backwards, name="rnn")]
        model = made(layers, features=1, dtype="float32")
        model.weights[3].value[:] = 1e10 * np.eye(2)  # ‖dL/dh‖ is about 1 at the end, 1e40 four steps before
        assert skipped(model, x, y) == (
            f"backward: gradient of 'rnn/kernel' is not finite; layer 'rnn', ‖dL/dh‖ from step {step} back"
        )
    # The layer nearest to the loss: what the others get follows from it.
    model = made([GRU(2, return_sequences=True), Plant(1, 2, back=True, name="plant"), SimpleRNN(2)])
    assert skipped(model, np.ones((2, 4, 2)), y) == "backward: layer 'plant', gradient of its input is not finite"


@pytest.mark.parametrize(("b", "checkpoint"), [(1, None), (64, 4)])
def test_states_that_are_not_finite_are_not_carried_on(b, checkpoint, blocks_of_four):
    layer = SimpleRNN(1, activation="linear", stateful=True, checkpoint=checkpoint, name="rnn")
    model = made([layer, Dense(1)], features=1, optimizer=SGD(0.0))
    model.set_weights([np.ones((1, 1)), np.full((1, 1), 1e20), np.zeros(1), np.full((1, 1), 1e-300), np.zeros(1)])
    x, y = np.ones((b, 9, 1)), np.zeros((b, 1))
    model.train_on_batch(x, y)
    assert model._states.kept["train"][0][0][0, 0] == pytest.approx(1e160)
    # Right only if the step is run again from the states it began with: 1e180 after step 0.
    assert skipped(model, x, y) == (
        "forward: layer 'rnn', step 7, state h: inf (sample 0, unit 0); the states carried over are reset"
    )
    assert "train" not in model._states.kept
    model.train_on_batch(x, y)
    assert model._states.kept["train"][0][0][0, 0] == pytest.approx(1e160)


def test_windows_of_truncated_bptt_go_on_after_one_that_overflowed():
    model = made([SimpleRNN(1, activation="linear", return_sequences=True, name="rnn")], features=1, optimizer=SGD(0.0))
    model.set_weights([np.ones((1, 1)), np.zeros((1, 1)), np.zeros(1)])
    x = np.ones((1, 9, 1))
    x[0, 4] = 1e200
    model.weights[0].value[:] = 1e200
    x[0, [0, 1, 2, 3, 5, 6, 7, 8]] = 1e-200
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        history = model.fit(x, np.zeros((1, 9, 1)), epochs=1, verbose=0, tbptt=(3, 3))
    assert history.skipped_updates == [1]
    assert model.nonfinite == (
        "forward: layer 'rnn', step 1 of the window, state h: inf (sample 0, unit 0); the states carried over are reset"
    )


def test_a_skipped_update_warns_once_per_fit():
    x, y = np.ones((4, 3, 1)), np.full((4, 1), 3e38)
    model = elman.Sequential([elman.layers.SimpleRNN(2), elman.layers.Dense(1)], seed=0)
    model.compile(elman.optimizers.SGD(0.1), "mse")
    for _ in range(2):
        with pytest.warns(RuntimeWarning, match="an update was skipped: ") as caught:
            history = model.fit(x, y, batch_size=2, epochs=2, verbose=0)
        assert len(caught) == 1
        assert history.skipped_updates == [2, 2]
