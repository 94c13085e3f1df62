"""Initializers: formulas, statistics, reproducibility, registry and messages."""

import json
import math

import numpy as np
import pytest

from elman import initializers
from elman.initializers import INITIALIZERS
from elman.layers import GRU, LSTM, Embedding, Input
from elman.model import Sequential

CLASSES = sorted(set(INITIALIZERS.values()), key=lambda c: c.__name__)
RANDOM = [c for c in CLASSES if c.__name__ not in ("Zeros", "Ones", "Constant", "Identity")]
# Kind of distribution, and its variance from (fan_in, fan_out).
SCALED = {
    "glorot_uniform": ("uniform", lambda i, o: 2 / (i + o)),
    "glorot_normal": ("truncated_normal", lambda i, o: 2 / (i + o)),
    "he_uniform": ("uniform", lambda i, o: 2 / i),
    "he_normal": ("truncated_normal", lambda i, o: 2 / i),
    "lecun_uniform": ("uniform", lambda i, o: 1 / i),
    "lecun_normal": ("truncated_normal", lambda i, o: 1 / i),
}
SHAPE = (120, 480)
# Standard normal cut at +-2: 1 - 2 * 2 * pdf(2) / (cdf(2) - cdf(-2)), from the formula of the truncated variance.
PDF2 = math.exp(-2) / math.sqrt(2 * math.pi)
TRUNCATED = math.sqrt(1 - 4 * PDF2 / math.erf(math.sqrt(2)))


def rng(seed=3):
    return np.random.default_rng(seed)


def draw(rule, shape=SHAPE, dtype=np.float64, seed=3):
    return initializers.get(rule)(shape, dtype, rng(seed))


def check_moments(values, variance, kind):
    n = values.size
    kurtosis = {"uniform": 1.8, "untruncated_normal": 3.0, "truncated_normal": 2.37}[kind]
    assert abs(values.mean()) < 4.5 * math.sqrt(variance / n)
    assert abs(values.var() / variance - 1) < 4.5 * math.sqrt((kurtosis - 1) / n)
    assert abs((values**4).mean() / variance**2 / kurtosis - 1) < 0.05


@pytest.mark.parametrize("name", SCALED)
def test_named_scaled_rules(name):
    kind, variance = SCALED[name]
    v = variance(*SHAPE)
    values = draw(name)
    check_moments(values, v, kind)
    limit = math.sqrt(3 * v) if kind == "uniform" else 2 * math.sqrt(v) / TRUNCATED
    assert 0.995 * limit < np.abs(values).max() <= limit


@pytest.mark.parametrize("kind", ["uniform", "truncated_normal", "untruncated_normal"])
@pytest.mark.parametrize(("mode", "n"), [("fan_in", 120), ("fan_out", 480), ("fan_avg", 300)])
def test_variance_scaling(kind, mode, n):
    values = draw(initializers.VarianceScaling(3.0, mode, kind))
    check_moments(values, 3.0 / n, kind)
    if kind == "untruncated_normal":
        assert np.abs(values).max() > 3 * math.sqrt(3.0 / n)


def test_named_rules_equal_their_variance_scaling():
    pairs = {"glorot_uniform": (1, "fan_avg", "uniform"), "he_normal": (2, "fan_in", "truncated_normal")}
    for name, arguments in pairs.items():
        np.testing.assert_array_equal(draw(name), draw(initializers.VarianceScaling(*arguments)))


def test_truncation_constant_follows_from_the_normal_density():
    assert math.isclose(TRUNCATED, 0.87962566103423978, rel_tol=1e-14)


def test_fans():
    assert initializers.fans(()) == (1, 1)
    assert initializers.fans((7,)) == (7, 7)
    assert initializers.fans((3, 5)) == (3, 5)
    assert initializers.fans((2, 4, 3, 5)) == (24, 40)


def test_fan_is_at_least_one():
    values = draw(initializers.VarianceScaling(1.0, "fan_in", "uniform"), (0, 4))
    assert values.shape == (0, 4)
    assert abs(draw(initializers.VarianceScaling(1.0, "fan_in", "uniform"), ())) < math.sqrt(3)


def test_plain_distributions():
    normal = draw(initializers.RandomNormal(2.0, 0.5))
    check_moments(normal - 2.0, 0.25, "untruncated_normal")
    uniform = draw(initializers.RandomUniform(-1.0, 3.0))
    check_moments(uniform - 1.0, 16 / 12, "uniform")
    assert uniform.min() >= -1.0
    assert uniform.max() < 3.0
    cut = draw(initializers.TruncatedNormal(1.0, 0.5))
    check_moments(cut - 1.0, (0.5 * TRUNCATED) ** 2, "truncated_normal")
    assert 0.99 < np.abs(cut - 1.0).max() <= 1.0


def test_defaults():
    assert initializers.RandomNormal() == initializers.RandomNormal(0.0, 0.05)
    assert initializers.RandomUniform() == initializers.RandomUniform(-0.05, 0.05)
    assert initializers.TruncatedNormal() == initializers.TruncatedNormal(0.0, 0.05)
    assert initializers.VarianceScaling() == initializers.VarianceScaling(1.0, "fan_in", "truncated_normal")
    gains = [c().gain for c in (initializers.Orthogonal, initializers.OrthogonalPerGate, initializers.Identity)]
    assert gains == [1.0] * 3
    assert initializers.Constant().value == 0.0


def test_constants():
    np.testing.assert_array_equal(draw("zeros", (2, 3)), np.zeros((2, 3)))
    np.testing.assert_array_equal(draw("ones", (2, 3)), np.ones((2, 3)))
    np.testing.assert_array_equal(draw(initializers.Constant(-0.3), (4,)), np.full(4, -0.3))
    np.testing.assert_array_equal(draw(initializers.Identity(2.0), (3, 5)), 2.0 * np.eye(3, 5))


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (6, 1), (5, 5), (7, 28), (28, 7), (2, 3, 4), (3, 2, 20)])
def test_orthogonal(shape):
    q = draw(initializers.Orthogonal(1.5), shape).reshape(-1, shape[-1]) / 1.5
    gram = q @ q.T if q.shape[0] <= q.shape[1] else q.T @ q
    np.testing.assert_allclose(gram, np.eye(len(gram)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (4, 9)])
def test_orthogonal_is_the_sign_fixed_factor(shape):
    # With Q the sign-fixed factor, Q^T A is R with a positive diagonal: upper triangular, and only for that Q.
    a = rng().standard_normal((max(shape), min(shape)))
    q = draw("orthogonal", shape)
    r = (q if shape[0] >= shape[1] else q.T).T @ a
    np.testing.assert_allclose(np.tril(r, -1), 0, atol=1e-12)
    assert (np.diagonal(r) > 0).all()


@pytest.mark.parametrize(("rows", "gates"), [(1, 1), (1, 3), (5, 4), (8, 1)])
def test_orthogonal_per_gate(rows, gates):
    generator = rng()
    blocks = [initializers.Orthogonal(1.5)((rows, rows), np.float64, generator) for _ in range(gates)]
    kernel = draw(initializers.OrthogonalPerGate(1.5), (rows, gates * rows))
    np.testing.assert_array_equal(kernel, np.hstack(blocks))
    for k in range(gates):
        block = kernel[:, k * rows : (k + 1) * rows] / 1.5
        np.testing.assert_allclose(block.T @ block, np.eye(rows), rtol=0, atol=1e-12)


def test_orthogonal_signs_are_uniform():
    # Without the sign correction LAPACK's first column always has the same sign in its first element.
    firsts = [draw("orthogonal", (3, 3), seed=s)[0, 0] > 0 for s in range(60)]
    assert 15 < sum(firsts) < 45


@pytest.mark.parametrize("kind", CLASSES, ids=lambda c: c.__name__)
def test_same_generator_same_bits_and_float32_is_the_rounded_float64(kind):
    shape = (12, 48)
    a, b = draw(kind(), shape), draw(kind(), shape)
    assert a.tobytes() == b.tobytes()
    single = draw(kind(), shape, np.float32)
    assert single.dtype == np.float32
    assert single.flags.c_contiguous
    assert single.shape == shape
    assert single.tobytes() == a.astype(np.float32).tobytes()


@pytest.mark.parametrize("kind", RANDOM, ids=lambda c: c.__name__)
def test_seeds_and_successive_calls_differ(kind):
    assert not np.array_equal(draw(kind(), (4, 8), seed=1), draw(kind(), (4, 8), seed=2))
    generator = rng()
    first, second = (kind()((4, 8), np.float64, generator) for _ in range(2))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda c: c.__name__)
def test_config_round_trip(kind):
    takes_a_number = kind.__name__ in ("Constant", "Orthogonal", "OrthogonalPerGate", "VarianceScaling")
    for rule in (kind(), *([kind(2)] if takes_a_number else [])):
        stored = json.loads(json.dumps(initializers.serialize(rule)))
        assert initializers.get(stored) == rule
    assert initializers.get(kind.__name__) == initializers.get(kind) == kind()


def test_numpy_numbers_become_plain_floats():
    rule = initializers.RandomUniform(np.float32(-0.5), np.int64(1))
    assert json.dumps(rule.get_config()) == '{"minval": -0.5, "maxval": 1.0}'


def test_registry_has_both_spellings():
    assert INITIALIZERS["glorot_uniform"] is INITIALIZERS["GlorotUniform"] is initializers.GlorotUniform
    assert INITIALIZERS["lecun_normal"] is initializers.LecunNormal
    assert INITIALIZERS["orthogonal_per_gate"] is initializers.OrthogonalPerGate
    assert len(CLASSES) == 16
    assert len(INITIALIZERS) == 34


def test_short_names_of_keras():
    assert initializers.get("uniform") == initializers.RandomUniform()
    assert initializers.get("normal") == initializers.RandomNormal()
    stored = {"class_name": "uniform", "config": {"maxval": 1.0}}
    assert initializers.get(stored) == initializers.RandomUniform(maxval=1.0)
    for name, rule in (("uniform", "RandomUniform"), ("normal", "RandomNormal")):
        config = Embedding(3, 2, embeddings_initializer=name).get_config()
        assert config["embeddings_initializer"]["class_name"] == rule


def test_instances_are_frozen_and_returned_as_they_are():
    rule = initializers.Constant(1.0)
    assert initializers.get(rule) is rule
    with pytest.raises(AttributeError):
        rule.value = 2.0


def test_function_of_shape_and_dtype():
    def ramp(shape, dtype):
        return np.arange(math.prod(shape), dtype=dtype).reshape(shape)

    values = initializers.get(ramp)((2, 3), np.float32, rng())
    np.testing.assert_array_equal(values, np.arange(6, dtype=np.float32).reshape(2, 3))
    assert values.dtype == np.float32
    kept = np.zeros(12)
    bias = Sequential([Input((None, 2)), LSTM(3, bias_initializer=lambda shape, dtype: kept)], "float64").get_weights()
    assert bias[2].sum() == 3
    assert not kept.any()  # the layer writes its forget bias into an array of its own
    with pytest.raises(ValueError, match=r"gave shape \(3,\), expected \(2,\)"):
        initializers.get(lambda shape, dtype: np.zeros(3))((2,), np.float32, rng())
    with pytest.raises(TypeError, match="no saved form"):
        initializers.serialize(initializers.get(ramp))


# ---- chrono: biases by the time to remember


def biases(layer, dtype="float64", seed=0):
    return Sequential([Input((None, 2)), layer], dtype, seed).get_weights()


def check_chrono(bias, steps):
    """Bounds of log(u), u uniform on [1, steps - 1), and moments of u: mean steps / 2, variance (steps - 2)^2 / 12."""
    u, width = np.exp(bias), steps - 2
    assert bias.min() >= 0
    assert bias.max() < math.log(steps - 1)
    check_moments(u - steps / 2, width**2 / 12, "uniform")
    assert u.min() < 1 + 0.01 * width
    assert u.max() > 1 + 0.99 * width


@pytest.mark.parametrize("unit_forget_bias", [True, False])
def test_chrono_bias_of_an_lstm(unit_forget_bias):
    units = 4000
    options = {"bias_initializer": initializers.Constant(0.25), "kernel_initializer": "zeros"}
    options |= {"recurrent_initializer": "zeros", "unit_forget_bias": unit_forget_bias}
    i, f, c, o = biases(LSTM(units, chrono=50, **options), "float32")[2].reshape(4, units)
    check_chrono(f.astype(float), 50)
    np.testing.assert_array_equal(i, -f)
    np.testing.assert_array_equal([c, o], np.full((2, units), 0.25, np.float32))


def test_chrono_bias_of_a_gru():
    units = 4000
    options = {"bias_initializer": initializers.Constant(0.25), "kernel_initializer": "zeros"}
    options |= {"recurrent_initializer": "zeros", "chrono": 50}
    bias = biases(GRU(units, **options), "float32")[2]
    assert bias.shape == (2, 3 * units)
    check_chrono(bias[0, :units].astype(float), 50)
    np.testing.assert_array_equal(bias[0, units:], np.full(2 * units, 0.25, np.float32))
    np.testing.assert_array_equal(bias[1], np.full(3 * units, 0.25, np.float32))
    single = biases(GRU(units, reset_after=False, **options), "float32")[2]
    np.testing.assert_array_equal(single, bias[0])


@pytest.mark.parametrize("kind", [LSTM, GRU])
def test_chrono_is_an_option_like_the_others(kind):
    plain, timed = biases(kind(3)), biases(kind(3, chrono=3))
    for a, b in zip(plain[:2], timed[:2], strict=True):  # the draw comes after those of the kernels
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(plain[2], timed[2])
    assert not np.array_equal(timed[2], biases(kind(3, chrono=3), seed=1)[2])
    again = kind.from_config(json.loads(json.dumps(kind(3, chrono=np.int64(3)).get_config())))
    assert again.chrono == 3
    np.testing.assert_array_equal(timed[2], biases(again)[2])
    assert kind.from_config(kind(3).get_config()).chrono is None


@pytest.mark.parametrize("kind", [LSTM, GRU])
def test_the_chrono_gate_is_the_one_that_keeps_the_state(kind):
    """Without inputs and recurrent weights a state shrinks in each step by u / (1 + u), with u = exp(bias)."""
    units, steps = 4, 30
    layer = kind(units, chrono=20, kernel_initializer="zeros", recurrent_initializer="zeros", return_state=True)
    begin = np.linspace(0.5, 1, units)[None]
    last = layer(np.zeros((1, steps, 1)), [begin] * (2 if kind is LSTM else 1))[-1]
    bias = layer.parameters[2].reshape(-1)
    u = np.exp(bias[units : 2 * units] if kind is LSTM else bias[:units])
    assert (u > 1).all()
    np.testing.assert_allclose(last, begin * (u / (1 + u)) ** steps, rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: initializers.get("glorot_unifrom"), ValueError, "did you mean 'glorot_uniform'"),
        (lambda: initializers.get("xyzzy"), ValueError, "Known: .*zeros"),
        (lambda: initializers.get(3), TypeError, "got int"),
        (lambda: initializers.get({"config": {}}), TypeError, "class_name"),
        (lambda: initializers.get({"class_name": "Ones", "config": {"v": 1}}), ValueError, "does not fit Ones"),
        (lambda: initializers.get({"class_name": 3}), TypeError, "expected a name, got int 3"),
        (lambda: initializers.serialize("ones"), TypeError, "got str"),
        (lambda: initializers.VarianceScaling(0.0), ValueError, "scale: expected a finite number > 0, got 0"),
        (lambda: initializers.VarianceScaling(mode="fan_inn"), ValueError, "did you mean 'fan_in'"),
        (
            lambda: initializers.VarianceScaling(distribution="normal"),
            ValueError,
            "distribution: unknown name .normal., did you mean",
        ),
        (lambda: initializers.RandomNormal(stddev=-1.0), ValueError, "stddev: expected a finite number >= 0"),
        (lambda: initializers.TruncatedNormal(mean=math.nan), ValueError, "mean: expected a finite"),
        (lambda: initializers.RandomUniform(1.0, 0.0), ValueError, "maxval: must not be below"),
        (lambda: initializers.Constant("1"), TypeError, "value: expected a number, got str"),
        (lambda: initializers.Orthogonal(True), TypeError, "gain: expected a number, got bool"),
        (lambda: draw("orthogonal", (4,)), ValueError, r"at least 2 axes, got shape \(4,\)"),
        (lambda: draw("identity", (4, 4, 4)), ValueError, "needs 2 axes"),
        (lambda: draw("orthogonal_per_gate", (4, 10)), ValueError, r"\(H, gates \* H\), got shape \(4, 10\)"),
        (lambda: draw("orthogonal_per_gate", (8, 4)), ValueError, r"got shape \(8, 4\)"),
        (lambda: draw("orthogonal_per_gate", (2, 2, 4)), ValueError, r"got shape \(2, 2, 4\)"),
        (lambda: draw("orthogonal_per_gate", (4, 0)), ValueError, r"got shape \(4, 0\)"),
        (lambda: draw("orthogonal_per_gate", (0, 4)), ValueError, r"got shape \(0, 4\)"),
        (lambda: initializers.OrthogonalPerGate("1"), TypeError, "gain: expected a number, got str"),
        (lambda: LSTM(3, chrono=2), ValueError, "chrono: expected an integer of at least 3, got 2"),
        (lambda: GRU(3, chrono=-5), ValueError, "chrono: expected an integer of at least 3, got -5"),
        (lambda: LSTM(3, chrono=10.0), TypeError, "chrono: expected an integer, got float 10.0"),
        (lambda: GRU(3, chrono=True), TypeError, "chrono: expected an integer, got True"),
        (lambda: LSTM(3, chrono=9, use_bias=False), ValueError, "chrono: .*use_bias=False.* got 9"),
        (lambda: GRU(3, chrono=9, use_bias=False), ValueError, "chrono: .*use_bias=False.* got 9"),
        (lambda: draw("zeros", (2, -1)), ValueError, "integers >= 0"),
        (lambda: draw("zeros", (2.0,)), ValueError, "integers >= 0"),
        (lambda: draw("zeros", 3), ValueError, "sequence of integers"),
        (lambda: initializers.Zeros()((2,), np.float32, 7), TypeError, "rng: expected a numpy.random.Generator"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
