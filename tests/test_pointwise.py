"""Scalar functions in units of the last place, activations and their derivatives, and what they compile to."""

import functools
import re

import numba
import numpy as np
import pytest
from callable_kernels import called

from elman.jit import vector_bytes
from elman.kernels import pointwise
from elman.kernels.elementwise import activation_functions
from elman.kernels.pointwise import ACTIVATIONS
from elman.testing.twins import ACTIVATION_TWINS

DTYPES = [np.float32, np.float64]
FUNCTIONS = {"exp": 2, "expm1": 3, "sigmoid": 4, "tanh": 4}
"""Allowed error in units of the last place; long double (64 bits of precision) is the measure."""
longdouble_suffices = np.finfo(np.longdouble).nmant >= 63
wide = pytest.mark.skipif(not longdouble_suffices, reason="long double is no wider than double here")


@functools.cache
def compiled(name):
    """The function over an array, as kernels use it: in a loop, so that it is the vectorised code that is tested."""
    function = getattr(pointwise, name)

    @called
    def over(x, y, n):
        for k in range(np.uint64(0), n):
            y[k] = function(x[k])

    return over


def apply(name, x):
    y = np.empty_like(x)
    compiled(name)(x, y, np.uint64(x.size))
    return y


def exact(name, x):
    x = x.astype(np.longdouble)
    with np.errstate(all="ignore"):
        return {
            "exp": np.exp,
            "expm1": np.expm1,
            "tanh": np.tanh,
            "sigmoid": lambda v: 1 / (1 + np.exp(-v)),
        }[name](x)


def ulps(got, expected, dtype):
    """Distance in units of the last place of the exact value; below the normal range in those of its smallest value."""
    info = np.finfo(dtype)
    size = np.maximum(np.abs(expected), np.longdouble(info.tiny))
    unit = np.ldexp(np.longdouble(1), np.frexp(size)[1].astype(int) - 1 - info.nmant)
    return np.abs(got.astype(np.longdouble) - expected) / unit


def samples(dtype, low, high):
    """Points all over [low, high]: evenly, and of every order of magnitude down to the smallest normal number."""
    rng = np.random.default_rng(3)
    even = rng.uniform(low, high, 200_000)
    with np.errstate(under="ignore"):
        sizes = 10.0 ** rng.uniform(np.log10(np.finfo(dtype).tiny), np.log10(min(-low, high)), 100_000)
    corners = [0.0, -0.0, low, high, 0.5 * np.log(2), -0.5 * np.log(2), np.log(2), 1.0, -1.0]
    return np.concatenate([even, sizes, -sizes, corners]).astype(dtype)


@wide
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_errors_in_units_of_the_last_place(name, dtype):
    # Inside the normal range of exp; sigmoid uses exp(-x).
    low, high = (-87, 88) if dtype == np.float32 else (-708, 709)
    if name == "sigmoid":
        low, high = (-86, 86) if dtype == np.float32 else (-707, 707)
    x = samples(dtype, low, high)
    error = ulps(apply(name, x), exact(name, x), dtype)
    worst = int(np.argmax(error))
    assert error[worst] <= FUNCTIONS[name], f"{name}({x[worst]!r}) is off by {float(error[worst]):.2f} ulp"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_special_values(name, dtype):
    x = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 0, -0.0] * 5, dtype)
    y = apply(name, x)[:7]
    zero, tiny = float(exact(name, np.zeros(1))[0]), 1e-37 if dtype == np.float32 else 1e-307
    assert np.isnan(y[0]) and y[5] == y[6] == zero
    highest = {"exp": np.inf, "expm1": np.inf, "sigmoid": 1, "tanh": 1}[name]
    lowest = {"exp": 0, "expm1": -1, "sigmoid": 0, "tanh": -1}[name]
    for k, limit in ((1, highest), (2, lowest), (3, highest), (4, lowest)):
        if limit == np.inf:  # held at the end of the normal range
            assert np.finfo(dtype).max / 4 < y[k] <= np.finfo(dtype).max
        else:
            assert abs(y[k] - limit) <= tiny and y[k] >= lowest
    assert np.isnan(apply(name, np.full(100, np.nan, dtype))).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_monotone_where_the_clamps_are(name, dtype):
    ends = (-87, 88, 20, -20) if dtype == np.float32 else (-708, 709, 40, -40)
    for end in ends:
        # Steps of many ulp: neighbours may come out in the wrong order by one.
        y = apply(name, np.linspace(end - 2, end + 2, 401).astype(dtype))
        assert (np.diff(y) >= -np.abs(y[1:]) * np.finfo(dtype).eps).all()
        assert y[-1] >= y[0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_tanh_is_odd_to_the_bit(dtype):
    x = samples(dtype, -50, 50)
    np.testing.assert_array_equal(apply("tanh", -x), -apply("tanh", x))
    assert np.abs(apply("tanh", x)).max() == 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_element_has_the_same_bits_wherever_it_lies(name, dtype):
    x = samples(dtype, -80, 80)[:1000]
    whole = apply(name, x)
    for start, stop in ((1, 1000), (7, 13), (500, 501), (3, 998)):
        np.testing.assert_array_equal(apply(name, x[start:stop].copy()), whole[start:stop])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_python_twins(name, dtype):
    x = np.concatenate([np.linspace(-100, 100, 401), [np.nan, np.inf, -np.inf]]).astype(dtype)
    function = getattr(pointwise, name)
    with np.errstate(all="ignore"):
        twin = np.array([function(v) for v in x], dtype)
    assert all(type(function(dtype(v))) is dtype for v in (0.5, -3))
    budget = 8 * np.finfo(dtype).eps
    np.testing.assert_allclose(apply(name, x), twin, rtol=budget, atol=1e-36)


# ---- activations


@functools.cache
def compiled_activation(code, which):
    function = activation_functions(code)[which].python
    return called(function)


def run_activation(name, x):
    y = np.empty_like(x)
    compiled_activation(ACTIVATIONS[name], 0)(x, y, np.uint64(0), np.uint64(x.size))
    return y


def run_derivative(name, y):
    d = np.ones_like(y)
    compiled_activation(ACTIVATIONS[name], 1)(y, d, np.uint64(0), np.uint64(y.size))
    return d


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name, dtype):
    rng = np.random.default_rng(4)
    x = np.concatenate([rng.normal(scale=4, size=2000), rng.normal(scale=1e-3, size=500)]).astype(dtype)
    expected = ACTIVATION_TWINS[name](x.astype(np.float64))
    y = run_activation(name, x)
    budget = 16 * np.finfo(dtype).eps
    np.testing.assert_allclose(y, expected, rtol=budget, atol=budget)
    twin = np.array([pointwise.activate(ACTIVATIONS[name], v) for v in x[:300]])
    assert twin.dtype == dtype
    np.testing.assert_allclose(twin, expected[:300], rtol=budget, atol=budget)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_derivatives(name, dtype):
    """The derivative, written in the output, against an imaginary step through the formula."""
    rng = np.random.default_rng(5)
    x = rng.normal(scale=3, size=3000).astype(dtype)
    expected = ACTIVATION_TWINS[name](x.astype(np.float64) + 1e-30j).imag / 1e-30
    y = run_activation(name, x)
    slope = run_derivative(name, y)
    # The output forgets: where it rounds to 1, 1 - y has lost everything; hence the error is one of the output.
    budget = 64 * np.finfo(dtype).eps * np.maximum(1, np.abs(expected))
    assert (np.abs(slope - expected) <= budget).all()
    twin = np.array([pointwise.derivative(ACTIVATIONS[name], v) for v in y[:300]])
    np.testing.assert_allclose(twin, slope[:300], rtol=8 * np.finfo(dtype).eps, atol=8 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_nan_passes_activations(name, dtype):
    x = np.full(37, np.nan, dtype)
    assert np.isnan(run_activation(name, x)).all()
    if name != "linear":
        slope = run_derivative(name, x)
        # elu and its like know slope 1 above 0 and something below: NaN is neither, and must not become a number.
        assert np.isnan(slope).all()
    mixed = np.where(np.arange(37) == 20, np.nan, 0.25).astype(dtype)
    assert np.isnan(run_activation(name, mixed)).sum() == 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_activations_of_infinity(dtype):
    x = np.array([-np.inf, np.inf], dtype)
    limits = {"tanh": (-1, 1), "relu": (0, np.inf), "hard_sigmoid": (0, 1), "relu6": (0, 6), "elu": (-1, np.inf)}
    for name, expected in limits.items():
        np.testing.assert_array_equal(run_activation(name, x), np.array(expected, dtype))


# ---- machine code


def code_of(function, *types):
    function.compile(types)
    return function.inspect_llvm(types), function.inspect_asm(types)


# log1p of the C library is called element by element.
VECTORISED = [name for name in ACTIVATIONS if name != "softplus"]


@pytest.mark.parametrize("name", VECTORISED)
@pytest.mark.parametrize("which", [0, 1], ids=["value", "derivative"])
def test_float32_stays_float32_and_vectorises(name, which):
    array = numba.types.Array(numba.float32, 1, "C")
    function = compiled_activation(ACTIVATIONS[name], which)
    llvm, assembly = code_of(function, array, array, numba.uint64, numba.uint64)
    body = "\n".join(line for line in llvm.splitlines() if not line.lstrip().startswith(("declare", ";", "!")))
    assert not re.search(r"\bdouble\b", body), f"{name} computes in double"
    if vector_bytes() > 16 and (name, which) != ("linear", 0):
        # LLVM may prefer half of an AVX-512 register.
        assert re.search("[yz]mm", assembly), f"{name} uses no wide registers"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_scalar_functions_vectorise(name):
    for kind, width in ((numba.float32, 4), (numba.float64, 8)):
        array = numba.types.Array(kind, 1, "C")
        llvm, _ = code_of(compiled(name), array, array, numba.uint64)
        letter = "float" if width == 4 else "double"
        assert re.search(rf"<\d+ x {letter}>", llvm), f"{name} is not vectorised for {kind}"
        # No call of a mathematical library.
        assert not re.search(r"call .*@(expf?|tanhf?|expm1f?)\(", llvm)
