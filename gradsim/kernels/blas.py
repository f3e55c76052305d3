"""Matrix products inside kernels, by the BLAS that SciPy brings: Numba's own link to it, without its checks and copies.

Matrices are row-major blocks of larger arrays: a first entry and a pitch, the distance between rows. BLAS keeps to the
one thread that the engine allows it, so that a product is the same numbers wherever it is computed.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_BYTE, _SIZE = ir.IntType(8), ir.IntType(64)
_POINTER = _BYTE.as_pointer()
#: kind, two transpositions, m, n, k, alpha, A, its pitch, B, its pitch, beta, C, its pitch.
_XXGEMM = ir.FunctionType(
    ir.IntType(32),
    [_BYTE, _BYTE, _BYTE, _SIZE, _SIZE, _SIZE, _POINTER, _POINTER, _SIZE, _POINTER, _SIZE, _POINTER, _POINTER, _SIZE],
)


@intrinsic
def gemm(typing, transpose_a, transpose_b, m, n, k, a, a0, pitch_a, b, b0, pitch_b, accumulate, c, c0, pitch_c):  # type: ignore[no-untyped-def]
    """C = op(A) op(B), or C += it: op(A) is m x k, op(B) k x n, and a0 is where A begins in its array."""
    size = types.intp
    signature = types.void(
        types.boolean, types.boolean, size, size, size, a, size, size, b, size, size, types.boolean, c, size, size
    )

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        ta, tb, m, n, k, a, a0, pitch_a, b, b0, pitch_b, accumulate, c, c0, pitch_c = arguments
        type_a, type_b, type_c = signature.args[5], signature.args[8], signature.args[12]
        real = context.get_data_type(type_a.dtype)
        kind = ir.Constant(_BYTE, ord("s" if type_a.dtype == types.float32 else "d"))

        def address(array: Any, of: Any, first: Any) -> Any:
            data = context.make_array(of)(context, builder, array).data
            return builder.bitcast(builder.gep(data, [first]), _POINTER)

        def constant(value: Any) -> Any:
            return builder.bitcast(cgutils.alloca_once_value(builder, value), _POINTER)

        def letter(flag: Any) -> Any:
            return builder.select(flag, ir.Constant(_BYTE, ord("t")), ir.Constant(_BYTE, ord("n")))

        one, zero = ir.Constant(real, 1.0), ir.Constant(real, 0.0)
        beta = builder.select(accumulate, one, zero)
        # BLAS is column-major: what it sees is C^T = op(B)^T op(A)^T.
        function = cgutils.get_or_insert_function(builder.module, _XXGEMM, "numba_xxgemm")
        first, second = address(b, type_b, b0), address(a, type_a, a0)
        matrices = [constant(one), first, pitch_b, second, pitch_a, constant(beta), address(c, type_c, c0), pitch_c]
        builder.call(function, [kind, letter(tb), letter(ta), n, m, k, *matrices])
        return context.get_dummy_value()

    return signature, generate
