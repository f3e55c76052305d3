"""Vectors kept in range: a vector is held as x 2^e with the largest entry of x in [1, 2), and measured in logs.

Scaling by a power of two is exact, so a chain of any depth and gain runs in any dtype without rounding for it.
"""

from __future__ import annotations

import math

import numpy as np

from .bits import double_from_bits, float_from_bits, keep_out_of_line
from .compiling import kernel, part, reduction
from .team import each, sum_over

LN2 = math.log(2.0)
# Powers of two a float32 can be multiplied by in one step without leaving its normal numbers.
MAX_SHIFT = 120
# Smallest powers of two that are normal numbers, and digits of a significand.
SMALLEST_32, SMALLEST_64 = -126, -1022
DIGITS_32, DIGITS_64 = 24, 53
# Exponent of a zero vector: below that of anything that is added to it.
NOTHING = -(2**40)


@reduction
def dot(x, y, n):
    """Sum of x_i y_i over the first n entries, in the dtype of x."""
    keep_out_of_line()
    total = x.dtype.type(0)
    for i in each(n):
        total += x[i] * y[i]
    return x.dtype.type(sum_over(total))


@reduction
def sum_of_squares(x, n):
    """Sum of squares of the first n entries, accumulated in float64."""
    keep_out_of_line()
    total = 0.0
    for i in each(n):
        v = np.float64(x[i])
        total += v * v
    return sum_over(total)


@reduction
def absolute_maximum(x, n):
    """Largest |x_i| of the first n entries as float64; NaN if any entry is NaN.

    Without the sign, the bits of floats are ordered as they are, NaN above infinity: a maximum of integers is a vector
    operation where one that minds NaN is not.
    """
    keep_out_of_line()
    if x.itemsize == 4:
        single = x.view(np.uint32)
        largest = np.uint32(0)
        for i in range(n):
            largest = max(largest, np.uint32(single[i] & np.uint32(0x7FFFFFFF)))
        return np.float64(float_from_bits(largest))
    double = x.view(np.uint64)
    most = np.uint64(0)
    for i in range(n):
        most = max(most, np.uint64(double[i] & np.uint64(0x7FFFFFFFFFFFFFFF)))
    return double_from_bits(most)


@kernel
def exceeds(x, n, bound):
    """Whether some |x_i| of the first n entries is above a bound; mostly the first few tell."""
    keep_out_of_line()
    i = 0
    while i < n and not abs(x[i]) > bound:
        i += 1
    return i < n


@kernel
def copy(source, target, n):
    """target[:n] = source[:n], without the shape checks a slice assignment compiles to."""
    keep_out_of_line()
    for i in each(n):
        target[i] = source[i]


@kernel
def _clear(x, first):
    keep_out_of_line()
    tail = x[first:]
    for i in each(len(tail)):
        tail[i] = 0


@part
def clear(x, first):
    """x[first:] = 0."""
    _clear(x, np.int64(first))  # of one type: Numba compiles a function again for every constant it is called with


@kernel
def scale(x, n, factor):
    """x *= factor."""
    keep_out_of_line()
    own = x.dtype.type(factor)
    for i in each(n):
        x[i] *= own


@kernel
def multiply(x, y, target, n):
    """target = x y, entry by entry."""
    keep_out_of_line()
    for i in each(n):
        target[i] = x[i] * y[i]


@kernel
def shift(x, n, e):
    """x *= 2^e, exactly up to underflow, in steps the dtype can hold."""
    keep_out_of_line()
    while e != 0:
        step = min(max(e, -MAX_SHIFT), MAX_SHIFT)
        factor = x.dtype.type(math.ldexp(1.0, step))
        for i in each(n):
            x[i] *= factor
        e -= step


@kernel
def normalise(x, n, e):
    """Bring the largest entry of x 2^e into [1, 2); returns (new e, that entry's magnitude, ln norm of x 2^e).

    A zero vector gives (NOTHING, 0, -inf), one with an entry that is not finite (0, NaN, NaN); both leave x as it is.
    """
    keep_out_of_line()
    largest = absolute_maximum(x, n)
    if largest == 0.0:
        return NOTHING, 0.0, -math.inf
    if not math.isfinite(largest):
        return 0, math.nan, math.nan
    own = math.frexp(largest)[1] - 1
    shift(x, n, -own)
    e += own
    return e, math.ldexp(largest, -own), e * LN2 + 0.5 * math.log(sum_of_squares(x, n))
