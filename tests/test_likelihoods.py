"""Likelihood losses: distributions that sum to 1, numbers of 50-digit arithmetic, limits, borders."""

import json

import numpy as np
import pytest

from elman import losses
from elman.jit import helper
from elman.kernels import likelihoods as kernels
from elman.losses import GaussianNLL, NegativeBinomial, Poisson, StudentT

ALL = [GaussianNLL(), StudentT(), NegativeBinomial()]
every = pytest.mark.parametrize("loss", ALL, ids=str)

# x; phi, phi', half_step, half_step_slope, from mpmath with 50 digits.
GAMMA = np.array([
    (0.015625, 1.232290846946925, -28.392919889808185, -1.5283448037379361, 30.663405008003587),
    (0.5, 0.15342640972002735, -0.27036284546147817, -0.22579135264472743, 0.38629436111989062),
    (1.0, 0.081061466795327258, -0.077215664901532861, -0.12078223763524522, 0.11370563888010938),
    (2.5, 0.033162873519936287, -0.013134091228911878, -0.049681055850051383, 0.019627694453223952),
    (3.875, 0.021458503099904537, -0.0055139131414916414, -0.03217025748660124, 0.008257523005679352),
    (4.0, 0.020790672103765093, -0.0051766926880901461, -0.03117007894555809, 0.0077532579277284288),
    (11.5, 0.0072445543013203832, -0.00062964496385755063, -0.010866148377957672, 0.00094428957046518598),
    (12.0, 0.0069428401072095299, -0.00057830314552162682, -0.010413658831440293, 0.00086730463243336475),
    (100.0, 0.00083333055563491468, -8.3332500039678374e-6, -0.0012499947918229048, 1.249984375781167e-5),
    (1e6, 8.3333333333330556e-8, -8.3333333333325e-14, -1.2499999999999479e-7, 1.2499999999998438e-13),
])  # fmt: skip

# Loss, target, outputs, value, gradient: from mpmath with 50 digits.
GOLDEN = [
    (GaussianNLL(), 0.5, [0.25, -3.0], 11.1314488865959, [-105.895054478, -24.8643027319]),
    (GaussianNLL(), 2.0, [1.0, 40.0], 4.60813051230298, [-0.00062499996875, 0.0249843743762]),
    (StudentT(), 2.0, [-1.0, 0.5, 1.0], 3.88156944398956, [-1.0655540629, -1.40372013233, 0.125318699808]),
    (StudentT(), 1.5, [0.25, 0.0, 1e6], 2.17849111187557, [-2.60169785998, -1.62456051111, 7.68012740087e-13]),
    (StudentT(), 300.0, [0.0, -2.0, -40.0], 21.2396025949411, [-0.00999999641978, -1.87826024999, 2.81006705e-17]),
    (StudentT(), 1.0, [1.0, 3.0, 20.0], 2.04497691403936, [0.0, 0.312464005293, -0.000515997506097]),
    (NegativeBinomial(), 0.0, [1.0, -1.0], 1.09996887029078, [0.517968477919, -0.145517608206]),
    (NegativeBinomial(), 3.0, [2.0, -30.0], 1.65465252811224, [-0.361553196508, 1.04699682352e-13]),
    (NegativeBinomial(), 1.0, [-60.0, 0.0], 60.0, [-1.0, 4.37825538135e-27]),
    (NegativeBinomial(), 7.0, [5.0, 30.0], 5.47999179868154, [-0.00261543531012, 0.0299860751792]),
    (NegativeBinomial(), 1e5, [100300.0, -3.0], 10.9239221024143, [6.13618037648e-7, 0.491798278226]),
    (NegativeBinomial(), 40.0, [35.0, -7.0], 3.1136075212569, [-0.138436005473, 0.00692190045208]),
]
stirling, stirling_slope = kernels.stirling, kernels.stirling_slope
half_step, half_step_slope = kernels.half_step, kernels.half_step_slope


@helper
def around_gamma(x, out):
    for i in range(x.size):
        out[i, 0] = stirling(x[i])
        out[i, 1] = stirling_slope(x[i])
        out[i, 2] = half_step(x[i])
        out[i, 3] = half_step_slope(x[i])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_functions_around_gamma(dtype):
    x, expected = GAMMA[:, 0].astype(dtype), GAMMA[:, 1:]
    found, eps = np.empty((len(x), 4), dtype), np.finfo(dtype).eps
    around_gamma(x, found)
    # Raised by a recurrence, phi keeps its absolute accuracy; the step by a half its relative one.
    error = np.abs(found - expected) / eps
    assert (error[:, :2] <= 60 * np.maximum(1, np.abs(expected[:, :2]))).all()
    raised = x < (4 if dtype == np.float32 else 12)
    assert (error[~raised, :2] <= 4 * np.abs(expected[~raised, :2])).all()
    assert (error[:, 2:] <= 5 * np.abs(expected[:, 2:])).all()
    # The plain Python twins are the same formulas.
    for k, twin in enumerate((stirling, stirling_slope, half_step, half_step_slope)):
        np.testing.assert_allclose([twin(v) for v in x], found[:, k], rtol=1e-4, atol=60 * eps)
    around_gamma(np.array([np.nan, 1, np.nan], dtype), found)
    np.testing.assert_array_equal(np.isnan(found[:3]), [[True] * 4, [False] * 4, [True] * 4])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("loss", "y", "outputs", "value", "slopes"), GOLDEN, ids=[str(row[:3]) for row in GOLDEN])
def test_numbers_of_many_digits(loss, y, outputs, value, slopes, dtype):
    p, gradient = np.array([outputs], dtype), np.empty((1, len(outputs)), dtype)
    found = loss.value_and_gradient(np.array([[y]], dtype), p, None, gradient)
    tolerance = 1e-11 if dtype == np.float64 else 3e-6
    assert found == pytest.approx(value, rel=tolerance)
    # Where the derivative is the small rest of terms of size 1, float32 has an absolute accuracy only.
    np.testing.assert_allclose(gradient[0], slopes, rtol=4 * tolerance, atol=1e-12 if dtype == np.float64 else 1e-6)


@pytest.mark.parametrize("loss", ALL[:2], ids=str)
def test_densities_integrate_to_one(loss):
    outputs = np.array([0.7, -0.4, 1.5])[: len(loss.blocks)]
    parameters = loss.distribution(outputs)
    t = np.linspace(-9, 9, 40_001)
    y = parameters["mean"] + np.sinh(t)  # to 4000 on both sides
    density = np.exp(-loss.reference(y[:, None], np.tile(outputs, (y.size, 1)))) * np.cosh(t)
    step = t[1] - t[0]
    assert density.sum() * step == pytest.approx(1, abs=1e-7)
    variance = parameters["scale"] ** 2
    if "df" in parameters:
        assert parameters["df"] == 2 + np.log1p(np.exp(1.5))
        variance = variance * parameters["df"] / (parameters["df"] - 2)
    # Beyond 4000 lies a part of the variance of heavy tails.
    assert (density * np.sinh(t) ** 2).sum() * step == pytest.approx(variance[0], rel=1e-3)


def test_counts_sum_to_one():
    loss, outputs, y = NegativeBinomial(), np.array([1.3, 0.2]), np.arange(1500.0)
    p = np.exp(-loss.reference(y[:, None], np.tile(outputs, (y.size, 1))))
    parameters = loss.distribution(outputs)
    mean, dispersion = parameters["mean"][0], parameters["dispersion"][0]
    assert p.sum() == pytest.approx(1, rel=1e-12)
    assert p @ y == pytest.approx(mean, rel=1e-11) and mean == pytest.approx(np.log1p(np.exp(1.3)), rel=1e-14)
    assert p @ (y - mean) ** 2 == pytest.approx(mean + dispersion * mean**2, rel=1e-10)


@every
def test_blocks_of_parameters_belong_to_columns(loss):
    rng = np.random.default_rng(1)
    y, p = rng.poisson(2.0, (4, 5, 3)).astype(float), rng.standard_normal((4, 5, 3 * len(loss.blocks)))
    columns = [loss(y[..., k], np.ascontiguousarray(p[..., k::3])) for k in range(3)]
    assert loss(y, p) == pytest.approx(np.mean(columns), rel=1e-13)
    w = rng.uniform(size=(4, 5))
    rows = loss.reference(y.reshape(20, 3), p.reshape(20, -1))
    assert loss(y, p, w) == pytest.approx((rows * w.ravel()).mean(), rel=1e-12)
    parameters = loss.distribution(p)
    assert tuple(parameters) == loss.blocks
    assert all(v.shape == y.shape and v.dtype == np.float64 for v in parameters.values())
    alone = loss.distribution(p[..., 2::3])
    for name in loss.blocks:
        np.testing.assert_array_equal(parameters[name][..., 2], alone[name][..., 0])
    np.testing.assert_array_equal(loss.mean(p), parameters["mean"])


def test_limits_of_the_distributions():
    rng = np.random.default_rng(2)
    y, p = rng.standard_normal((6, 1)), rng.standard_normal((6, 2))
    far = np.column_stack([p, np.full(6, 1e9)])
    assert StudentT()(y, far) == pytest.approx(GaussianNLL()(y, p), rel=1e-8)
    counts, a = rng.poisson(3.0, (6, 1)).astype(float), rng.standard_normal(6)
    mean = np.logaddexp(0, a)[:, None]
    factorials = np.mean([np.log(np.arange(1, k + 1)).sum() for k in counts[:, 0]])
    narrow = NegativeBinomial()(counts, np.column_stack([a, np.full(6, -50.0)]))
    assert narrow == pytest.approx(Poisson()(counts, mean) + factorials, rel=1e-5)


def test_the_pull_of_an_infinitely_far_target():
    p, gradient = np.array([[0.0, -30.0, 1.0]], np.float32), np.empty((1, 3), np.float32)
    with np.errstate(over="ignore"):  # (1e15 / 1e-6)^2
        StudentT().value_and_gradient(np.array([[1e15]], np.float32), p, None, gradient)
    freedom, slope = 2 + np.log1p(np.e), np.exp(-30.0) / (1 + np.exp(-30.0))
    assert gradient[0, 1] == pytest.approx(-freedom * slope / 1e-6, rel=1e-5) and gradient[0, 0] == 0


@every
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_outputs_stay_finite(loss, dtype):
    corners = np.array(np.meshgrid(*[[-1e4, -80.0, 0.0, 80.0, 1e4]] * len(loss.blocks))).reshape(len(loss.blocks), -1)
    p = np.ascontiguousarray(corners.T, dtype)
    for target in (0.0, 3.0):
        gradient, y = np.full_like(p, np.nan), np.full((len(p), 1), target, dtype)
        value = loss.value_and_gradient(y, p, None, gradient)
        assert np.isfinite(value) and np.isfinite(gradient).all()


def test_an_outlier_pulls_on_the_mean_less():
    gradients = {}
    for loss in (GaussianNLL(), StudentT()):
        p, g = np.zeros((1, len(loss.blocks))), np.empty((1, len(loss.blocks)))
        loss.value_and_gradient(np.array([[100.0]]), p, None, g)
        gradients[type(loss)] = abs(g[0, 0])
    assert gradients[StudentT] < 0.001 * gradients[GaussianNLL]


@every
def test_samples_have_the_moments(loss):
    outputs = np.array([[1.0, -0.5, 4.0, 2.0, 0.5, 0.0][: 2 * len(loss.blocks)]])
    drawn = loss.sample(outputs, np.random.default_rng(3), 40_000)
    assert drawn.shape == (40_000, 1, 2) and drawn.dtype == np.float64
    parameters = loss.distribution(outputs)
    variance = parameters["scale"] ** 2 if "scale" in parameters else None
    if isinstance(loss, StudentT):
        variance = variance * parameters["df"] / (parameters["df"] - 2)
    elif isinstance(loss, NegativeBinomial):
        variance = parameters["mean"] + parameters["dispersion"] * parameters["mean"] ** 2
    deviation = np.sqrt(variance)
    assert (np.abs(drawn.mean(axis=0) - parameters["mean"]) < 5 * deviation / 200).all()
    if not isinstance(loss, StudentT):
        np.testing.assert_allclose(drawn.std(axis=0), deviation, rtol=0.06)
    np.testing.assert_array_equal(drawn[:, 0, 0] == np.floor(drawn[:, 0, 0]), isinstance(loss, NegativeBinomial))
    np.testing.assert_array_equal(drawn, loss.sample(outputs, np.random.default_rng(3), 40_000))


def test_spread_of_student_samples():
    # Quartiles, which exist for any tail: by the density between them.
    loss, outputs = StudentT(), np.array([[1.0, 0.3, 0.0]])
    low, high = np.quantile(loss.sample(outputs, np.random.default_rng(4), 40_000), [0.25, 0.75])
    y = np.linspace(low, high, 2001)
    density = np.exp(-loss.reference(y[:, None], outputs.repeat(2001, axis=0)))
    assert np.trapezoid(density, y) == pytest.approx(0.5, abs=0.01)


def test_quantiles_of_the_normal():
    loss, p = GaussianNLL(), np.array([[1.0, 2.0, 0.0, 1.0]])
    found = loss.quantile(p, [0.025, 0.5, 0.975])
    assert found.shape == (3, 1, 2)
    scale = np.logaddexp(0, p[:, 2:]) + 1e-6
    np.testing.assert_allclose(found[2], p[:, :2] + 1.959963984540054 * scale, rtol=1e-14)
    np.testing.assert_allclose(found[0] + found[2], 2 * found[1], rtol=1e-14)
    np.testing.assert_array_equal(found[1], loss.quantile(p, 0.5))
    for bad in (0, 1, 1.5, np.nan, []):
        with pytest.raises(ValueError, match="q: expected"):
            loss.quantile(p, bad)
    with pytest.raises(TypeError, match="q: expected a number"):
        loss.quantile(p, "half")


@every
def test_shapes_and_values_are_checked(loss):
    count = len(loss.blocks)
    for shape, output in [((6,), (6, count)), ((6, 1), (6, count)), ((6, 2), (6, 2 * count)), ((6, 4), (6, 4, count))]:
        assert loss.check_target(np.ones(shape), output).shape == (*output[:-1], output[-1] // count)
    with pytest.raises(ValueError, match=rf"a target takes {count} outputs \({', '.join(loss.blocks)}\).*\(6, 5\)"):
        loss.check_target(np.ones((6, 2)), (6, 5))
    with pytest.raises(ValueError, match=r"y: shape \(6, 4\) does not fit .*expected \(6, 2\)"):
        loss.check_target(np.ones((6, 4)), (6, 2 * count))
    with pytest.raises(ValueError, match="y: 1 of 2 values are not finite"):
        loss.check_target([1.0, np.nan], (2, count))
    with pytest.raises(ValueError, match=r"outputs: .* not finite"):
        loss.mean(np.full((1, count), np.nan))
    with pytest.raises(ValueError, match="last axis must be a multiple"):
        loss.distribution(np.ones((1, 2 * count - 1)))
    with pytest.raises(ValueError, match="at least one axis"):
        loss.distribution(1.0)
    with pytest.raises(TypeError, match="rng: expected a numpy"):
        loss.sample(np.ones((1, count)), 3)
    with pytest.raises(ValueError, match="n: expected an integer of at least 1"):
        loss.sample(np.ones((1, count)), np.random.default_rng(0), 0)


def test_targets_must_be_counts():
    loss = NegativeBinomial()
    with pytest.raises(ValueError, match=r"must lie in \[0, inf\)"):
        loss.check_target([1, -1], (2, 2))
    with pytest.raises(
        ValueError, match=r"must be counts, but 1 of 2 are no integers, the first at index \(1, 0\): 1.5"
    ):
        loss.check_target([1, 1.5], (2, 2))
    assert loss.check_target([1, 2], (2, 2)).tolist() == [[1], [2]]


@every
def test_names_and_configs(loss):
    name = {GaussianNLL: "gaussian", StudentT: "student_t", NegativeBinomial: "negative_binomial"}[type(loss)]
    assert losses.get(name) == losses.get(type(loss).__name__) == loss
    assert losses.get(json.loads(json.dumps(losses.serialize(loss)))) == loss
