"""Calls by address, inside kernels: of functions that a kernel is compiled without knowing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from elman.errors import BadValue
from elman.jit.target import DISABLED


def _inside(definition: Callable[..., Any]) -> Any:
    """An intrinsic; under ``NUMBA_DISABLE_JIT=1`` its plain twin below."""
    return _PLAIN[definition.__name__] if DISABLED else intrinsic(definition)


def _invoke_plainly(function: Callable[..., None], args: tuple) -> None:
    function(*args)


def _bundle_plainly(function: Callable[..., None], args: tuple, team: tuple) -> tuple:
    return lambda thread, begin, end, place: function(thread, begin, end, *place), args


def _words_plainly(address: int) -> None:
    """Never called: without compilation no call is kept."""


_PLAIN = {"invoke": _invoke_plainly, "bundle": _bundle_plainly, "words": _words_plainly}


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


HEAD = 8
"""Words before the arguments of a kept call: see `elman.jit.spread`."""
KEPT = 512
"""Words of memory that a kept call may take."""


@_inside
def bundle(typingctx, function, args, team):
    """``bundle(function, args, team)`` gives a function of three numbers and a place, and the place.

    It calls `function` (*numbers, *args). The place is behind the head of the memory at ``team[1]``, or where that is 0
    in the frame of the caller, and must then not be kept.
    """
    signature = types.UniTuple(types.int64, 2)(function, args, team)
    numbers = (types.int64,) * 3
    known = (*numbers, *args)

    def codegen(context, builder, sig, values):
        convention, integer = context.call_conv, context.get_value_type(types.int64)
        held = cgutils.pack_struct(builder, values[:2])
        if context.get_abi_sizeof(held.type) > 8 * (KEPT - HEAD):
            raise BadValue("args: the arguments of this kernel need more memory than there is for a kept call")
        frame, memory = cgutils.alloca_once(builder, held.type), builder.extract_value(values[2], 1)
        kept = builder.inttoptr(builder.add(memory, integer(8 * HEAD)), frame.type)
        place = builder.select(builder.icmp_unsigned("!=", memory, integer(0)), kept, frame)
        builder.store(held, place)
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


@_inside
def words(typingctx, address):
    """Pointer to the int64 numbers at an address."""

    def codegen(context, builder, sig, values):
        return builder.inttoptr(values[0], context.get_value_type(sig.return_type))

    return types.CPointer(types.int64)(address), codegen
