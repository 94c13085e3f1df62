"""Constraints: projections against the formulas, axes, names, borders."""

import json

import numpy as np
import pytest

from elman import constraints
from elman.constraints import CONSTRAINTS, MaxNorm, MinMaxNorm, NonNeg, UnitNorm
from elman.layers import Dense
from elman.parameters import ParameterVector, Spec

CASES = [
    (NonNeg(), lambda w, n: np.where(w > 0, w, 0)),
    (MaxNorm(1.5), lambda w, n: w * np.minimum(n, 1.5) / (1e-7 + n)),
    (UnitNorm(), lambda w, n: w / (1e-7 + n)),
    (MinMaxNorm(1.0, 2.0), lambda w, n: w * np.maximum(1.0, np.minimum(n, 2.0)) / (1e-7 + n)),
    (MinMaxNorm(3.0, 4.0, 0.25), lambda w, n: w * (0.25 * np.clip(n, 3, 4) + 0.75 * n) / (1e-7 + n)),
]
cases = pytest.mark.parametrize(("constraint", "formula"), CASES, ids=lambda v: str(v) if not callable(v) else "")


def with_axis(constraint, axis):
    config = constraint.get_config()
    return type(constraint)(**({**config, "axis": axis} if "axis" in config else config))


@cases
@pytest.mark.parametrize(("shape", "axis"), [((6, 5), 0), ((6, 5), 1), ((7,), 0), ((2, 3, 4), (0, 2)), ((3, 4), [-1])])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_projections(constraint, formula, shape, axis, dtype, rng):
    # Lengths from 0 to about 5: below, between and above all limits.
    w = (rng.standard_normal(shape) * rng.uniform(0, 2, shape)).astype(dtype)
    w[0] *= 1e-4
    start = w.copy()
    exact = w.astype(float)
    axes = tuple(axis) if isinstance(axis, list) else axis
    expected = formula(exact, np.sqrt((exact**2).sum(axis=axes, keepdims=True)))
    made = with_axis(constraint, axis)
    projected = made(w)
    assert projected.dtype == dtype
    np.testing.assert_array_equal(w, start)
    np.testing.assert_allclose(projected, expected, rtol=4 * np.finfo(dtype).eps, atol=0)
    made.project(w)
    np.testing.assert_array_equal(w, projected)


def test_a_live_view_is_projected(rng):
    whole = rng.standard_normal(20) * 5
    before = whole.copy()
    MaxNorm(1.0).project(whole[4:16].reshape(3, 4))
    np.testing.assert_allclose(np.linalg.norm(whole[4:16].reshape(3, 4), axis=0), 1, rtol=1e-6)
    np.testing.assert_array_equal(whole[[0, 3, 16, 19]], before[[0, 3, 16, 19]])


@cases
def test_nan_stays_and_zero_is_no_division_by_zero(constraint, formula):
    w = np.array([[np.nan, 0.0, 3.0], [1.0, 0.0, np.inf]])
    projected = constraint(w)
    assert np.isnan(projected[0, 0])
    np.testing.assert_array_equal(projected[:, 1], 0)


def test_names_configs_and_defaults():
    assert constraints.get(None) is None
    for name, cls in CONSTRAINTS.items():
        assert constraints.get(name) == constraints.get(cls.__name__) == constraints.get(cls) == cls()
    assert MaxNorm().get_config() == {"max_value": 2.0, "axis": 0}
    assert MinMaxNorm().get_config() == {"min_value": 0.0, "max_value": 1.0, "rate": 1.0, "axis": 0}
    for constraint in (*(c for c, _ in CASES), UnitNorm(axis=[0, 1])):
        assert constraints.get(constraint) is constraint
        assert constraints.get(json.loads(json.dumps(constraints.serialize(constraint)))) == constraint
    np.testing.assert_allclose(UnitNorm()([3, 4]), [0.6, 0.8], rtol=1e-6)


def test_bad_arguments():
    for make, error, message in [
        (lambda: MaxNorm(-1), ValueError, "max_value: expected a finite number >= 0"),
        (lambda: MinMaxNorm(2.0, 1.0), ValueError, "min_value: expected at most max_value = 1.0, got 2.0"),
        (lambda: MinMaxNorm(rate=1.5), ValueError, "rate: expected a finite number >= 0 and <= 1"),
        (lambda: UnitNorm(axis=0.5), TypeError, "axis: expected an integer"),
        (lambda: UnitNorm(axis=()), ValueError, "axis: expected an integer or several"),
        (lambda: UnitNorm(axis=1)([1.0]), ValueError, r"axis: UnitNorm\(axis=1\) does not fit weights of shape \(1,\)"),
        (lambda: UnitNorm(axis=(0, -2))([[1.0]]), ValueError, "does not fit"),
        (lambda: constraints.get("maxnom"), ValueError, "did you mean 'max_norm'"),
        (lambda: constraints.get(1), TypeError, "constraint: expected a name"),
        (lambda: Dense(1, kernel_constraint="x"), ValueError, "kernel_constraint: unknown name"),
        (lambda: Dense(1, bias_constraint=2), TypeError, "bias_constraint: expected a name"),
    ]:
        with pytest.raises(error, match=message):
            make()


def test_a_vector_projects_its_trainable_parameters(rng):
    def draw(shape, dtype, rng):
        return rng.standard_normal(shape) * 9

    rows = [((3, 4), MaxNorm(1.0)), ((5,), None), ((4,), NonNeg())]
    specs = [Spec(f"p{k}", shape, draw, None, constraint) for k, (shape, constraint) in enumerate(rows)]
    made = ParameterVector([*specs, Spec("frozen", (4,), draw, None, NonNeg(), False)], np.dtype(float), rng)
    before = [v.copy() for v in made.views(made.values)]
    made.constrain()
    after = made.views(made.values)
    np.testing.assert_array_equal(after[0], MaxNorm(1.0)(before[0]))
    np.testing.assert_array_equal(after[2], np.maximum(before[2], 0))
    np.testing.assert_array_equal(np.concatenate([after[1], after[3]]), np.concatenate([before[1], before[3]]))
    assert (before[3] < 0).any() and (before[2] < 0).any()
    with pytest.raises(ValueError, match=r"axis: MaxNorm\(max_value=2.0, axis=1\) does not fit"):
        ParameterVector([Spec("p", (4,), draw, None, MaxNorm(axis=1))], np.dtype(float), rng)
