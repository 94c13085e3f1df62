"""Calls by address, inside kernels: of functions that a kernel is compiled without knowing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from elman.jit.target import DISABLED


def _inside(definition: Callable[..., Any]) -> Any:
    """An intrinsic; under ``NUMBA_DISABLE_JIT=1`` its plain twin below."""
    return _PLAIN[definition.__name__] if DISABLED else intrinsic(definition)


def _invoke_plainly(function: Callable[..., None], args: tuple) -> None:
    function(*args)


def _bundle_plainly(function: Callable[..., None], args: tuple) -> tuple:
    return lambda thread, begin, end, place: function(thread, begin, end, *place), args


_PLAIN = {"invoke": _invoke_plainly, "bundle": _bundle_plainly}


@_inside
def invoke(typingctx, function, args):
    """``invoke(function, args)`` calls, inside a kernel, the function whose handle `Function.handle` gave.

    Numba's own first-class functions cost 19 us per call from Python to unbox (measured, Numba 0.68); an address costs
    nothing.
    """

    def codegen(context, builder, sig, values):
        elements = [builder.extract_value(values[1], i) for i in range(len(args))]
        ftype = context.call_conv.get_function_type(types.void, tuple(args))
        pointer = builder.inttoptr(values[0], ftype.as_pointer())
        context.call_conv.call_function(builder, pointer, types.void, tuple(args), elements)
        return context.get_dummy_value()

    return types.void(function, args), codegen


@_inside
def bundle(typingctx, function, args):
    """``bundle(function, args)`` gives a function of three numbers and a place, and the place.

    It calls `function` (*numbers, *args). The place is in the frame of the caller, so it must not be kept.
    """
    signature = types.UniTuple(types.int64, 2)(function, args)
    numbers = (types.int64,) * 3
    known = (*numbers, *args)

    def codegen(context, builder, sig, values):
        convention, integer = context.call_conv, context.get_value_type(types.int64)
        place = cgutils.alloca_once_value(builder, cgutils.pack_struct(builder, values))
        kind = convention.get_function_type(types.void, (*numbers, types.int64))
        call = ir.Function(builder.module, kind, builder.module.get_unique_name("call_bundled"))
        call.linkage = "internal"
        inner = ir.IRBuilder(call.append_basic_block("entry"))
        *given, where = convention.get_arguments(call)
        held = inner.load(inner.inttoptr(where, place.type))
        address, elements = inner.extract_value(held, 0), inner.extract_value(held, 1)
        pointer = inner.inttoptr(address, convention.get_function_type(types.void, known).as_pointer())
        each = [inner.extract_value(elements, i) for i in range(len(args))]
        convention.call_function(inner, pointer, types.void, known, [*given, *each])
        convention.return_value(inner, context.get_dummy_value())
        return cgutils.pack_array(builder, [builder.ptrtoint(it, integer) for it in (call, place)])

    return signature, codegen
