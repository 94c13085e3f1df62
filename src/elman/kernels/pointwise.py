"""Scalar functions that vectorise when a kernel loops over them, and the table of activations.

Everything rests on one polynomial. With ``n = round(x / ln 2)`` and ``r = x - n ln 2``, ``expm1(r) = r + r^2 q(r)`` and
``expm1(x) = 2^n expm1(r) + (2^n - 1)``, which keeps its relative accuracy around 0. Then ``sigmoid(x) = 1 / (1 +
exp(-x))`` and ``tanh(x) = e / (e + 1)`` with ``e = expm1(2x) / 2``. The coefficients of ``q`` are a minimax fit on
``|r| <= ln(2) / 2``, computed with 50 digits: error 1.3e-8 for float32, 1.8e-17 for float64.

A comparison with NaN is false, so a clamp written ``high if x > high else x`` lets NaN pass.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir

from elman.jit import cgutils, force_inlined, inlined, intrinsic, types

_LOG2E = 1.4426950408889634
# ln 2 in two parts; the first has so few bits that n * first is exact.
_LN2_HIGH = {4: 0.693359375, 8: 0.693145751953125}
_LN2_LOW = {4: -2.12194440054690583e-4, 8: 1.42860682030941723e-6}
_Q = {
    4: (0.500000006225, 0.166665425397, 0.041666280772, 0.00836664451382, 0.00139465435933),
    8: (
        0.50000000000000056641,
        0.16666666666666682938,
        0.041666666666572463156,
        0.0083333333333165936877,
        0.0013888888932733536721,
        0.00019841269898643049933,
        0.000024801504031323951898,
        2.7557231897874443954e-6,
        2.7626489882163810672e-7,
        2.5113221179990818087e-8,
    ),
}
# Added to a number it rounds it to the nearest integer n, and its low bits are then the biased exponent of 2^n: that
# takes two instructions less than floor, conversion to an integer, addition and shift.
_ROUND = {4: 1.5 * 2**23 + 127, 8: 1.5 * 2**52 + 1023}
# Just inside the range of x for which 2^n is a normal number.
_LOW, _HIGH = {4: -87.0, 8: -708.0}, {4: 88.0, 8: 709.0}


@intrinsic
def _power_of_two(typingctx, rounded):
    """2^n of ``rounded = n + _ROUND``: the low bits, moved to where the exponent is; 0 just below the normal range."""
    bits, mantissa = (32, 23) if rounded is types.float32 else (64, 52)

    def codegen(context, builder, sig, args):
        integer = ir.IntType(bits)
        low = builder.bitcast(args[0], integer)
        return builder.bitcast(builder.shl(low, ir.Constant(integer, mantissa)), args[0].type)

    return rounded(rounded), codegen


@intrinsic
def _fma(typingctx, x, y, z):
    """x * y + z that no flag may reorder: under "reassoc" the two-part ln 2 loses its low part (24 ulp, not 2)."""

    def codegen(context, builder, sig, args):
        kind = args[0].type
        name = f"llvm.fmuladd.{'f32' if x is types.float32 else 'f64'}"
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
        return builder.call(function, args)

    return x(x, x, x), codegen


def _twin_dtype(x: Any) -> Any:
    return np.asarray(x).dtype.type


def _kind(x: Any) -> Any:
    """NumPy's type of what Numba types as `x`."""
    return np.float32 if x is types.float32 else np.float64


def exp(x: Any) -> Any:
    """e^x, at most 2 ulp; x is held at -87 and 88 (float64: -708 and 709), short of overflow. NaN stays NaN."""
    kind = _twin_dtype(x)
    size = np.dtype(kind).itemsize
    return kind(np.exp(np.clip(x, _LOW[size], _HIGH[size])))


def expm1(x: Any) -> Any:
    """e^x - 1 with full relative accuracy around 0, at most 3 ulp. NaN stays NaN."""
    kind = _twin_dtype(x)
    size = np.dtype(kind).itemsize
    return kind(np.expm1(np.clip(x, _LOW[size], _HIGH[size])))


def _clamped(x: Any) -> Any:
    """x held where `_parts` is right; used by compiled code alone."""
    raise AssertionError("compiled code only")


@inlined(_clamped)
def _clamped_compiled(x):
    kind = _kind(x)
    low, high = (kind(limits[np.dtype(kind).itemsize]) for limits in (_LOW, _HIGH))

    def run(x):
        y = high if x > high else x
        return low if y < low else y

    return run


def _parts(kind: Any, factor: int, *, exact: bool = True) -> Any:
    """Compiled function of x that gives 2^n and ``expm1(r) / abs(factor)``, where ``factor x = n ln 2 + r``.

    The factor 1, -1 or 2 is in the constants: n comes from ``factor / ln 2``, and what is left of x is ``r / factor``.
    Not `exact`, n times the second part of ln 2 is left out, which is at most 2e-9 of the result times n.
    """
    size, scale = np.dtype(kind).itemsize, abs(factor)
    rounding, log2e = kind(_ROUND[size]), kind(factor * _LOG2E)
    minus_first, minus_second = kind(-_LN2_HIGH[size] / factor), kind(-_LN2_LOW[size] / factor)
    minus_all = kind(-np.log(2) / factor)
    q = tuple(kind(scale * c * factor**k) for k, c in enumerate(_Q[size]))

    # Even and odd powers apart: with a chain of half the length a gate takes 2 % less.
    if size == 4:
        q0, q1, q2, q3, q4 = q

        def polynomial(r, rr):
            return _fma(_fma(_fma(q4, r, q3), rr, _fma(q2, r, q1)), r, q0)
    else:
        q0, q1, q2, q3, q4, q5, q6, q7, q8, q9 = q

        def polynomial(r, rr):
            upper = _fma(_fma(_fma(_fma(_fma(q9, r, q8), r, q7), r, q6), r, q5), r, q4)
            return _fma(_fma(_fma(_fma(upper, r, q3), r, q2), r, q1), r, q0)

    def rest(x, n):
        return _fma(n, minus_second, _fma(n, minus_first, x)) if exact else _fma(n, minus_all, x)

    poly, rest = force_inlined(polynomial), force_inlined(rest)

    def run(x):
        rounded = _fma(x, log2e, rounding)
        r = rest(x, rounded - rounding)
        rr = r * r
        return _power_of_two(rounded), _fma(rr, poly(r, rr), r if factor > 0 else -r)

    return force_inlined(run)


@inlined(exp)
def _exp_compiled(x):
    parts = _parts(_kind(x), 1)

    def run(x):
        power, part = parts(_clamped(x))
        return _fma(power, part, power)

    return run


@inlined(expm1)
def _expm1_compiled(x):
    one, parts = _kind(x)(1), _parts(_kind(x), 1)

    def run(x):
        power, part = parts(_clamped(x))
        return _fma(power, part, power - one)

    return run


def sigmoid(x: Any) -> Any:
    """1 / (1 + e^-x), at most 4 ulp. NaN stays NaN."""
    one = _twin_dtype(x)(1)
    return one / (one + exp(-x))


@inlined(sigmoid)
def _sigmoid_compiled(x):
    kind = _kind(x)
    one, limit, parts = kind(1), kind(_HIGH[np.dtype(kind).itemsize]), _parts(kind, -1)

    def run(x):
        # A sign turned here instead of in the constants makes LLVM clamp by masks, three instructions more.
        y = -limit if x < -limit else x
        power, part = parts(limit if y > limit else y)
        return one / _fma(power, part, power + one)

    return run


def tanh(x: Any) -> Any:
    """Hyperbolic tangent, at most 4 ulp everywhere, odd to the bit. NaN stays NaN."""
    return _twin_dtype(x)(np.tanh(x))


@inlined(tanh)
def _tanh_compiled(x):
    kind = _kind(x)
    # tanh rounds to 1 from here on. Up to here what is not `exact` is lost in e + 2.
    one, half, limit = kind(1), kind(0.5), kind(10 if kind is np.float32 else 20)
    parts = _parts(kind, 2, exact=False)

    def run(x):
        size = abs(x)
        power, part = parts(limit if size > limit else size)
        e = _fma(power, part, _fma(power, half, -half))  # half of expm1(2x)
        return np.copysign(e / (e + one), x)

    return run


# ---- activations -----------------------------------------------------------------------------------------------
#
# One row per activation: its formula in x, and its derivative in its own output y, so that nothing else need be kept.
# `kind` is the float type; constants must have it, or float32 arithmetic becomes float64. Comparisons are written so
# that a NaN takes the branch that keeps it.


def _elu(x, kind):
    return x if x >= kind(0) else expm1(x)


def _hard_sigmoid(x, kind):
    y = x * kind(1 / 6) + kind(0.5)
    y = kind(1) if y > kind(1) else y
    return kind(0) if y < kind(0) else y


def _relu6(x, kind):
    y = kind(6) if x > kind(6) else x
    return kind(0) if y < kind(0) else y


def _inside(y, high, slope):
    """`slope` where 0 < y < high, else 0; NaN stays NaN."""
    return slope if y > high - high and y < high else (high - high) * y


_inside = force_inlined(_inside)
_SCALE, _ALPHA = 1.0507009873554805, 1.6732632423543772
_FORMULAS: dict[str, tuple[Any, Any]] = {
    "linear": (lambda x, kind: x, lambda y, kind: kind(1)),
    "tanh": (lambda x, kind: tanh(x), lambda y, kind: (kind(1) - y) * (kind(1) + y)),
    "sigmoid": (lambda x, kind: sigmoid(x), lambda y, kind: y * (kind(1) - y)),
    "relu": (lambda x, kind: kind(0) if x < kind(0) else x, lambda y, kind: kind(1) if y > kind(0) else kind(0) * y),
    "hard_sigmoid": (_hard_sigmoid, lambda y, kind: _inside(y, kind(1), kind(1 / 6))),
    "softsign": (lambda x, kind: x / (kind(1) + abs(x)), lambda y, kind: (kind(1) - abs(y)) * (kind(1) - abs(y))),
    "elu": (_elu, lambda y, kind: kind(1) if y >= kind(0) else y + kind(1)),
    "selu": (
        lambda x, kind: kind(_SCALE) * (x if x >= kind(0) else kind(_ALPHA) * expm1(x)),
        lambda y, kind: kind(_SCALE) if y >= kind(0) else y + kind(_SCALE * _ALPHA),
    ),
    "softplus": (
        lambda x, kind: (kind(0) if x < kind(0) else x) + kind(np.log1p(exp(-abs(x)))),
        lambda y, kind: -expm1(-y),
    ),
    "exponential": (lambda x, kind: exp(x), lambda y, kind: y),
    "leaky_relu": (
        lambda x, kind: kind(0.2) * x if x < kind(0) else x,
        lambda y, kind: kind(1) if y >= kind(0) else kind(0.2) + kind(0) * y,
    ),
    "relu6": (_relu6, lambda y, kind: _inside(y, kind(6), kind(1))),
}

ACTIVATIONS: dict[str, int] = {name: code for code, name in enumerate(_FORMULAS)}
"""Elementwise activations by name, with the code that kernels are specialised by."""


def activate(code: int, x: Any) -> Any:
    """Activation number `code` of `ACTIVATIONS` at `x`. In kernels `code` is a compile-time constant."""
    return list(_FORMULAS.values())[code][0](x, _twin_dtype(x))


def derivative(code: int, y: Any) -> Any:
    """Derivative of activation `code` where its output is `y`. In kernels `code` is a compile-time constant."""
    return list(_FORMULAS.values())[code][1](y, _twin_dtype(y))


def _specialised(which: int) -> Any:
    def choose(code, x):
        if not isinstance(code, types.IntegerLiteral):
            return None
        kind = _kind(x)
        formula = force_inlined(list(_FORMULAS.values())[code.literal_value][which])
        return lambda code, x: formula(x, kind)

    return choose


inlined(activate)(_specialised(0))
inlined(derivative)(_specialised(1))
