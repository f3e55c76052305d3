"""Reinterpretation of bits, which Python cannot say: intrinsics of the compiler."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


@intrinsic
def float_bits(typingctx, x):
    """Bits of a float32 as uint32."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.IntType(32))

    return types.uint32(types.float32), codegen


@intrinsic
def float_from_bits(typingctx, bits):
    """The float32 with these bits."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.uint32), codegen


@intrinsic
def double_bits(typingctx, x):
    """Bits of a float64 as uint64."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.IntType(64))

    return types.uint64(types.float64), codegen


@intrinsic
def double_from_bits(typingctx, bits):
    """The float64 with these bits."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.uint64), codegen


@intrinsic
def signed_high(typingctx, bits):
    """The upper half of a uint64, read as two's complement int32."""

    def codegen(context, builder, signature, args):
        return builder.trunc(builder.lshr(args[0], ir.Constant(ir.IntType(64), 32)), ir.IntType(32))

    return types.int32(types.uint64), codegen


@intrinsic
def signed(typingctx, x):
    """A uint32 read as two's complement int32."""

    def codegen(context, builder, signature, args):
        return args[0]

    return types.int32(types.uint32), codegen


@intrinsic
def prefer_wide_vectors(typingctx):
    """Ask the compiler for 512-bit vectors in the function that calls this, where the processor has them.

    LLVM prefers 256 bits on processors that once lowered their clock for wider ones; these loops gain from the full
    width. The attribute is a preference: elsewhere it changes nothing.
    """

    def codegen(context, builder, signature, args):
        # llvmlite checks attributes against a list that lacks this one; a set's own `add` does not.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def keep_out_of_line(typingctx):
    """Forbid inlining the function that calls this: one copy of a long loop is enough, and it compiles once."""

    def codegen(context, builder, signature, args):
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), codegen
