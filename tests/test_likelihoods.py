"""Likelihood losses: distributions that sum to 1, numbers of 50-digit arithmetic, limits, borders."""

import json
from statistics import NormalDist

import numpy as np
import pytest
from callable_kernels import called

from elman import losses
from elman.kernels import likelihoods as kernels
from elman.losses import GaussianNLL, NegativeBinomial, Poisson, PoissonNLL, StudentT, quantiles

ALL = [GaussianNLL(), StudentT(), NegativeBinomial(), PoissonNLL()]
COUNTS = ALL[2:]
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

# Loss, target, outputs, value, gradient: from mpmath or decimal with 50 digits.
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
    (PoissonNLL(), 0.0, [0.5], 0.974077984180107, [0.622459331202]),
    (PoissonNLL(), 3.0, [2.0], 1.65465099875592, [-0.3615533814]),
    (PoissonNLL(), 1.0, [-40.0], 13.81551155796, [-4.24835000692e-12]),
    (PoissonNLL(), 7.0, [-3.0], 29.7443499071315, [-6.78509882647]),
    (PoissonNLL(), 1e5, [100300.0], 7.12450412216627, [0.00299102692918]),
    (PoissonNLL(), 40.0, [35.0], 3.10671711232372, [-0.142857110204]),
]
stirling, stirling_slope = kernels.stirling, kernels.stirling_slope
half_step, half_step_slope = kernels.half_step, kernels.half_step_slope


@called
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


@pytest.mark.parametrize("loss", COUNTS, ids=str)
def test_counts_sum_to_one(loss):
    outputs, y = np.array([1.3, 0.2])[: len(loss.blocks)], np.arange(1500.0)
    p = np.exp(-loss.reference(y[:, None], np.tile(outputs, (y.size, 1))))
    parameters = loss.distribution(outputs)
    mean = parameters["mean"][0]
    dispersion = parameters["dispersion"][0] if "dispersion" in parameters else 0.0
    assert p.sum() == pytest.approx(1, rel=1e-12)
    assert p @ y == pytest.approx(mean, rel=1e-11) and mean == pytest.approx(np.log1p(np.exp(1.3)), rel=1e-6)
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
    assert PoissonNLL()(counts, a[:, None]) == pytest.approx(Poisson()(counts, mean) + factorials, rel=1e-5)


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
    elif loss in COUNTS:
        variance = parameters["mean"] + parameters.get("dispersion", 0) * parameters["mean"] ** 2
    deviation = np.sqrt(variance)
    assert (np.abs(drawn.mean(axis=0) - parameters["mean"]) < 5 * deviation / 200).all()
    if not isinstance(loss, StudentT):
        np.testing.assert_allclose(drawn.std(axis=0), deviation, rtol=0.06)
    np.testing.assert_array_equal(drawn[:, 0, 0] == np.floor(drawn[:, 0, 0]), loss in COUNTS)
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


@every
def test_shapes_and_levels_of_quantiles(loss):
    p = np.random.default_rng(6).standard_normal((4, 3, 2 * len(loss.blocks)))
    found = loss.quantile(p, [0.1, 0.9, 0.5])
    assert found.shape == (3, 4, 3, 2) and found.dtype == np.float64
    assert (found[0] <= found[2]).all() and (found[2] <= found[1]).all() and (found[0] < found[1]).mean() > 0.5
    for k, level in enumerate((0.1, 0.9, 0.5)):
        np.testing.assert_array_equal(found[k], loss.quantile(p, level))
    np.testing.assert_array_equal(found[:, 2:3, 1, 1:], loss.quantile(p[2:3, 1, 1::2], (0.1, 0.9, 0.5)))
    np.testing.assert_array_equal(found[0, 2, 1], loss.quantile(p[2, 1], 0.1))
    for bad in (0, 1, 1.5, np.nan, [], [[0.5]]):
        with pytest.raises(ValueError, match="q: expected"):
            loss.quantile(p, bad)
    with pytest.raises(TypeError, match="q: expected a number"):
        loss.quantile(p, "half")
    with pytest.raises(ValueError, match=r"outputs: .* not finite"):
        loss.quantile(np.full((1, len(loss.blocks)), np.nan), 0.5)


@every
def test_quantiles_of_samples(loss):
    p = np.array([[2.0, 0.5, 1.0]])[:, : len(loss.blocks)]
    drawn = loss.sample(p, np.random.default_rng(8), 100_000)[:, 0, 0]
    for level in (0.02, 0.3, 0.5, 0.9, 0.99):
        value = loss.quantile(p, level)[0, 0]
        # The share at or below it, less one count, and with it.
        slack = 4.5 * np.sqrt(level * (1 - level) / drawn.size)
        assert (drawn < value).mean() - slack <= level <= (drawn <= value).mean() + slack


# Degrees of freedom, level, value: SciPy's, which has 15 digits of these.
STUDENT = [
    (2.5, 1e-4, -34.8679693211148), (2.5, 0.3, -0.597307738252318), (2.5, 0.975, 3.57465484200368),
    (7.3, 1e-4, -6.8503813203123), (7.3, 0.3, -0.548062897942177), (7.3, 0.975, 2.3450667365477),
    (100.0, 1e-4, -3.86159979095006), (100.0, 0.3, -0.526076270600346), (100.0, 0.975, 1.98397151852355),
    (1e6, 1e-4, -3.71903027476254), (1e6, 0.3, -0.524400679860209), (1e6, 0.975, 1.95996635681411),
    # From the tables.
    (3.0, 0.95, 2.353363435), (5.0, 0.99, 3.364929997), (10.0, 0.995, 3.169272673), (30.0, 0.9, 1.310415025),
]  # fmt: skip


@pytest.mark.parametrize(("df", "level", "value"), STUDENT)
def test_quantiles_of_student(df, level, value):
    found = quantiles.student_quantile(np.array([df, 2.0, df]), level)
    np.testing.assert_allclose(found[[0, 2]], value, rtol=1e-13 if value != round(value, 9) else 1e-9)
    raw = np.log(np.expm1(df - 2)) if df < 100 else df - 2
    p = np.array([[1.0, 0.3, raw]])
    scale = np.log1p(np.exp(0.3)) + 1e-6
    assert StudentT().quantile(p, level)[0, 0] == pytest.approx(1 + scale * value, rel=1e-9)


@pytest.mark.parametrize("level", [1e-300, 1e-9, 1e-4, 0.02, 0.0699999, 0.07, 0.2, 0.499, 0.5, 0.6, 0.98, 0.9999])
def test_quantiles_of_student_in_closed_form(level):
    """Two degrees of freedom, four of them, and the limits; more elements than one chunk holds."""
    p = min(level, 1 - level)
    two = (1 - 2 * p) / np.sqrt(2 * p * (1 - p))
    alpha = np.sqrt(4 * p * (1 - p))
    four = 2 * np.sqrt(np.cos(np.arccos(alpha) / 3) / alpha - 1) if 1e-100 < p < 0.49 else None
    sign = -1 if level < 0.5 else 1
    df = np.tile([2.0, 4.0, 1e35, 1e12], 1500).reshape(2, 3000)
    found = quantiles.student_quantile(df, level)
    assert found.shape == df.shape
    assert (found[:, :4] == found[:1, 4:8]).all()
    np.testing.assert_allclose(found[0, 0], sign * two, rtol=1e-12, atol=1e-15)
    if four is not None:
        np.testing.assert_allclose(found[0, 1], sign * four, rtol=1e-11)
    np.testing.assert_allclose(found[0, 2:4], NormalDist().inv_cdf(level), rtol=1e-9, atol=1e-15)
    if level > 1e-10:
        np.testing.assert_allclose(found, -quantiles.student_quantile(df, 1 - level), rtol=1e-6, atol=1e-13)


@pytest.mark.parametrize("level", [1e-4, 0.03, 0.4, 0.8])
def test_the_density_of_student_below_its_quantiles(level):
    """By the trapezoidal rule on t = sinh(s), whose error vanishes for a smooth density that ends at the quantile."""
    loss, outputs = StudentT(), np.array([0.0, 0.5413, 0.7])
    end = np.arcsinh(loss.quantile(outputs, level)[0])
    s = np.linspace(end - 30, end, 40_001)
    density = np.exp(-loss.reference(np.sinh(s)[:, None], np.tile(outputs, (s.size, 1)))) * np.cosh(s)
    # Simpson's rule.
    weights = np.tile([2.0, 4.0], 20_001)[: s.size]
    weights[[0, -1]] = 1
    assert (density @ weights) * (s[1] - s[0]) / 3 == pytest.approx(level, rel=1e-9)


@pytest.mark.parametrize("loss", COUNTS, ids=str)
@pytest.mark.parametrize("level", [1e-4, 0.05, 0.5, 0.77, 0.999, 1 - 1e-6])
def test_quantiles_of_counts_are_the_least_that_reach_their_level(loss, level):
    """Against the sum of all probabilities, for means from 0 to 300 and dispersions from 1e-6 to 3.

    For small dispersions the reference loses digits that the highest level needs.
    """
    rng = np.random.default_rng(9)
    p = np.column_stack([rng.uniform(-8, 12, 200), rng.uniform(-14 if level < 0.9999 else -5, 3, 200)])[
        :, : len(loss.blocks)
    ]
    p[::4, 0] = rng.uniform(20, 300, 50)
    p[0, 0] = -1000.0
    found = loss.quantile(p, level)[:, 0]
    k = np.arange(20_000.0)
    for row, value in zip(p, found, strict=True):
        with np.errstate(divide="ignore", invalid="ignore"):  # a mean of 0
            mass = np.exp(-loss.reference(k[:, None], np.tile(row, (k.size, 1))))
        below = np.cumsum(np.nan_to_num(mass, nan=1.0) if row[0] == -1000 else mass)
        assert value == np.searchsorted(below, level * (1 - 1e-12))


@pytest.mark.parametrize("mean", [1e4, 1e6, 3e7])
@pytest.mark.parametrize("loss", COUNTS, ids=str)
def test_quantiles_of_large_counts(loss, mean):
    p = np.array([mean, -16.0])[: len(loss.blocks)]
    parameters = loss.distribution(p)
    deviation = np.sqrt(mean + parameters.get("dispersion", np.zeros(1))[0] * mean**2)
    k = np.arange(max(0, np.floor(mean - 10 * deviation)), mean + 11 * deviation)
    if isinstance(loss, PoissonNLL):
        mass = quantiles.poisson_mass(k, np.full(k.shape, mean + 1e-6))
    else:
        mass = quantiles.negative_binomial_mass(k, *(np.full(k.shape, v[0]) for v in parameters.values()))
    few = k[:: max(1, k.size // 50)]
    # The logarithms of gamma functions lose digits to their size.
    expected = np.exp(-loss.reference(few[:, None], np.tile(p, (few.size, 1))))
    np.testing.assert_allclose(mass[:: max(1, k.size // 50)], expected, rtol=4e-14 * (mean + 1e6))
    below = np.cumsum(mass)
    assert below[-1] == pytest.approx(1, rel=1e-8)
    for level in (1e-4, 0.3, 0.5, 0.9999):
        assert abs(loss.quantile(p, level)[0] - k[np.searchsorted(below, level)]) <= 1


def test_quantiles_of_counts_beyond_all_counting():
    loss, levels = NegativeBinomial(), [1e-4, 0.5, 0.9999]
    # Of the exponential distribution, to which a count of dispersion 1 tends.
    raw = np.log(np.expm1(1 - 1e-6))
    for mean in (1e9, 1e12, 1e38):
        found = loss.quantile([[mean, raw]], levels)[:, 0, 0]
        np.testing.assert_allclose(found, -mean * np.log1p(-np.array(levels)), rtol=1e-4)
        np.testing.assert_array_equal(found, np.floor(found))
    normal = np.array([NormalDist().inv_cdf(q) for q in levels])
    # A narrow one: a gamma distribution of shape 1 / a, by the expansion of Cornish and Fisher.
    a = np.logaddexp(0, -14.0) + 1e-6
    found = loss.quantile([[1e12, -14.0]], levels)[:, 0, 0]
    np.testing.assert_allclose(found, 1e12 * (1 + normal * np.sqrt(a) + (normal**2 - 1) * a / 3), rtol=2e-7)
    found = PoissonNLL().quantile([[1e12]], levels)[:, 0, 0]
    np.testing.assert_allclose(found, 1e12 + 1e6 * normal + (normal**2 - 1) / 6, rtol=0, atol=2)
    # Both sides of the border between exact and asymptotic.
    exact, beyond = (quantiles.poisson_quantile(np.array([1e8 + d]), 0.9)[0] for d in (0, 1))
    assert 0 <= beyond - exact <= 2
    for outputs in np.array(np.meshgrid([-1e300, 0.0, 1e4, 1e300], [-1e300, 0.0, 1e300])).T.reshape(-1, 2):
        for level in (1e-12, 0.5, 1 - 1e-12):
            assert np.isfinite(loss.quantile(outputs, level)).all()
            assert np.isfinite(PoissonNLL().quantile(outputs[:1], level)).all()
            assert np.isfinite(StudentT().quantile([0.0, 0.0, outputs[0]], level)).all()


def test_a_level_that_a_count_just_reaches():
    # P(0) = 1/2, P(y <= 1) = 3/4 for mean and dispersion 1.
    one = np.ones(1)
    for level, value in ((0.5, 0), (0.5000001, 1), (0.75, 1), (0.7500001, 2), (0.875, 2)):
        assert quantiles.negative_binomial_quantile(one, one, level)[0] == value


def test_probabilities_of_counts():
    """Sums of many terms, on both sides of the border between the two fractions, against continued fractions."""
    for mean in (0.3, 4.0, 60.0):
        k = np.arange(200.0)
        m = np.full(200, mean)
        np.testing.assert_allclose(quantiles.poisson_cdf(k, m), np.cumsum(quantiles.poisson_mass(k, m)), rtol=1e-12)
        for dispersion in (1e-6, 0.2, 5.0):
            a = np.full(200, dispersion)
            expected = np.cumsum(quantiles.negative_binomial_mass(k, m, a))
            np.testing.assert_allclose(quantiles.negative_binomial_cdf(k, m, a), expected, rtol=1e-10)


@every
def test_shapes_and_values_are_checked(loss):
    count = len(loss.blocks)
    for shape, output in [((6,), (6, count)), ((6, 1), (6, count)), ((6, 2), (6, 2 * count)), ((6, 4), (6, 4, count))]:
        assert loss.check_target(np.ones(shape), output).shape == (*output[:-1], output[-1] // count)
    if count > 1:
        with pytest.raises(ValueError, match=rf"a target takes {count} outputs \({', '.join(loss.blocks)}\).*\(6, 5\)"):
            loss.check_target(np.ones((6, 2)), (6, 5))
        with pytest.raises(ValueError, match="last axis must be a multiple"):
            loss.distribution(np.ones((1, 2 * count - 1)))
    with pytest.raises(ValueError, match=r"y: shape \(6, 4\) does not fit .*expected \(6, 2\)"):
        loss.check_target(np.ones((6, 4)), (6, 2 * count))
    with pytest.raises(ValueError, match="y: 1 of 2 values are not finite"):
        loss.check_target([1.0, np.nan], (2, count))
    with pytest.raises(ValueError, match=r"outputs: .* not finite"):
        loss.mean(np.full((1, count), np.nan))
    with pytest.raises(ValueError, match="at least one axis"):
        loss.distribution(1.0)
    with pytest.raises(TypeError, match="rng: expected a numpy"):
        loss.sample(np.ones((1, count)), 3)
    with pytest.raises(ValueError, match="n: expected an integer of at least 1"):
        loss.sample(np.ones((1, count)), np.random.default_rng(0), 0)


@pytest.mark.parametrize("loss", COUNTS, ids=str)
def test_targets_must_be_counts(loss):
    with pytest.raises(ValueError, match=r"must lie in \[0, inf\)"):
        loss.check_target([1, -1], (2, len(loss.blocks)))
    with pytest.raises(
        ValueError, match=r"must be counts, but 1 of 2 are no integers, the first at index \(1, 0\): 1.5"
    ):
        loss.check_target([1, 1.5], (2, len(loss.blocks)))
    assert loss.check_target([1, 2], (2, len(loss.blocks))).tolist() == [[1], [2]]


@every
def test_names_and_configs(loss):
    name = {
        GaussianNLL: "gaussian", StudentT: "student_t", NegativeBinomial: "negative_binomial", PoissonNLL: "poisson_nll"
    }[type(loss)]  # fmt: skip
    assert losses.get(name) == losses.get(type(loss).__name__) == loss
    assert losses.get(json.loads(json.dumps(losses.serialize(loss)))) == loss
