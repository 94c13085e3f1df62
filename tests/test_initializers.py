"""Initializers: formulas, statistics, reproducibility, registry and messages."""

import json
import math

import numpy as np
import pytest

from elman import initializers
from elman.initializers import INITIALIZERS

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
    assert initializers.Orthogonal().gain == initializers.Identity().gain == 1.0
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


def test_orthogonal_signs_are_uniform():
    # Without the sign correction LAPACK's first column always has the same sign in its first element.
    firsts = [draw("orthogonal", (3, 3), seed=s)[0, 0] > 0 for s in range(60)]
    assert 15 < sum(firsts) < 45


@pytest.mark.parametrize("kind", CLASSES, ids=lambda c: c.__name__)
def test_same_generator_same_bits_and_float32_is_the_rounded_float64(kind):
    a, b = draw(kind()), draw(kind())
    assert a.tobytes() == b.tobytes()
    single = draw(kind(), dtype=np.float32)
    assert single.dtype == np.float32
    assert single.flags.c_contiguous
    assert single.shape == SHAPE
    assert single.tobytes() == a.astype(np.float32).tobytes()


@pytest.mark.parametrize("kind", RANDOM, ids=lambda c: c.__name__)
def test_seeds_and_successive_calls_differ(kind):
    assert not np.array_equal(draw(kind(), seed=1), draw(kind(), seed=2))
    generator = rng()
    first, second = (kind()((4, 6), np.float64, generator) for _ in range(2))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda c: c.__name__)
def test_config_round_trip(kind):
    for rule in (kind(), *([kind(2)] if kind.__name__ in ("Constant", "Orthogonal", "VarianceScaling") else [])):
        stored = json.loads(json.dumps(initializers.serialize(rule)))
        assert initializers.get(stored) == rule
    assert initializers.get(kind.__name__) == initializers.get(kind) == kind()


def test_numpy_numbers_become_plain_floats():
    rule = initializers.RandomUniform(np.float32(-0.5), np.int64(1))
    assert json.dumps(rule.get_config()) == '{"minval": -0.5, "maxval": 1.0}'


def test_registry_has_both_spellings():
    assert INITIALIZERS["glorot_uniform"] is INITIALIZERS["GlorotUniform"] is initializers.GlorotUniform
    assert INITIALIZERS["lecun_normal"] is initializers.LecunNormal
    assert len(CLASSES) == 15
    assert len(INITIALIZERS) == 30


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
    with pytest.raises(ValueError, match=r"gave shape \(3,\), expected \(2,\)"):
        initializers.get(lambda shape, dtype: np.zeros(3))((2,), np.float32, rng())
    with pytest.raises(TypeError, match="no saved form"):
        initializers.serialize(initializers.get(ramp))


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
        (lambda: draw("zeros", (2, -1)), ValueError, "integers >= 0"),
        (lambda: draw("zeros", (2.0,)), ValueError, "integers >= 0"),
        (lambda: draw("zeros", 3), ValueError, "sequence of integers"),
        (lambda: initializers.Zeros()((2,), np.float32, 7), TypeError, "rng: expected a numpy.random.Generator"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
