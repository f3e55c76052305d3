"""What Python cannot say to the compiler of a GPU: reinterpretation of bits, and the hardware's square root."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.cuda import types
from numba.cuda.extending import intrinsic

_SINGLE, _DOUBLE, _WORD, _LONG = ir.FloatType(), ir.DoubleType(), ir.IntType(32), ir.IntType(64)


def _conversion(returns: Any, takes: Any, build: Callable[[Any, Any], Any]) -> Any:
    """A function of one argument, as an instruction."""

    @intrinsic
    def convert(typing: Any, x: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return build(builder, arguments[0])

        return returns(takes), generate

    return convert


def _square_root(builder: Any, x: Any) -> Any:
    """In one instruction of the special function unit; relative error at most 2^-23 (PTX ISA, sqrt.approx.f32).

    Without denormals (ftz), which it would otherwise have to scale: what is drawn has none.
    """
    code = ir.InlineAsm(ir.FunctionType(_SINGLE, [_SINGLE]), "sqrt.approx.ftz.f32 $0, $1;", "=f,f", side_effect=False)
    return builder.call(code, [x])


float_bits = _conversion(types.uint32, types.float32, lambda b, x: b.bitcast(x, _WORD))
float_from_bits = _conversion(types.float32, types.uint32, lambda b, x: b.bitcast(x, _SINGLE))
double_bits = _conversion(types.uint64, types.float64, lambda b, x: b.bitcast(x, _LONG))
double_from_bits = _conversion(types.float64, types.uint64, lambda b, x: b.bitcast(x, _DOUBLE))
signed = _conversion(types.int32, types.uint32, lambda b, x: x)
signed_high = _conversion(types.int32, types.uint64, lambda b, x: b.trunc(b.lshr(x, ir.Constant(_LONG, 32)), _WORD))
root = _conversion(types.float32, types.float32, _square_root)


@intrinsic
def load(typing, array, index):  # type: ignore[no-untyped-def]
    """The entry of an array at this place in memory, whatever its rank."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.load(builder.gep(data, [arguments[1]]))

    return array.dtype(array, types.int64), generate


@intrinsic
def store(typing, array, index, value):  # type: ignore[no-untyped-def]
    """Write an entry of an array at this place in memory."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        builder.store(arguments[2], builder.gep(data, [arguments[1]]))
        return context.get_dummy_value()

    return types.void(array, types.int64, array.dtype), generate


@intrinsic
def keep_out_of_line(typing):  # type: ignore[no-untyped-def]
    """Forbid inlining the function that calls this: cold code would only crowd the instruction cache."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def stop(typing):  # type: ignore[no-untyped-def]
    """End the kernel: a function was called that was not compiled for this kind of chain."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.call(ir.InlineAsm(ir.FunctionType(ir.VoidType(), []), "trap;", "", side_effect=True), [])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def nothing(typing):  # type: ignore[no-untyped-def]
    """What the CPU's compiler is told means nothing here."""
    return types.void(), lambda context, builder, signature, arguments: context.get_dummy_value()


def first(records):  # type: ignore[no-untyped-def]
    """The first of an array of records."""
    return records[0]
