"""Numbers by which the threads of a kernel tell each other how far they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types
from numba.extending import intrinsic

from elman.jit.target import DISABLED


def _inside(definition: Callable[..., Any]) -> Any:
    """An intrinsic; under ``NUMBA_DISABLE_JIT=1``, where one thread does all, its plain twin below."""
    return _PLAIN[definition.__name__] if DISABLED else intrinsic(definition)


def _publish_plainly(table: Any, place: int, value: int) -> None:
    table[place] = value


_PLAIN = {"published": lambda table, place: table[place], "publish": _publish_plainly}


def _place(context, builder, sig, args):
    return builder.gep(context.make_array(sig.args[0])(context, builder, args[0]).data, [args[1]])


@_inside
def published(typingctx, table, place):
    """Element `place` of an int64 vector, now; what its writer wrote before it can be read after this."""

    def codegen(context, builder, sig, args):
        return builder.load_atomic(_place(context, builder, sig, args), "acquire", 8)

    return types.int64(table, types.int64), codegen


@_inside
def publish(typingctx, table, place, value):
    """Set element `place` of an int64 vector once all that this thread wrote before can be read by others."""

    def codegen(context, builder, sig, args):
        builder.store_atomic(args[2], _place(context, builder, sig, args), "release", 8)
        return context.get_dummy_value()

    return types.void(table, types.int64, types.int64), codegen
