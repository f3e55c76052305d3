"""Sums of vectors that are each held as x 2^e: biases and noise to z, the two branches of a skip connection."""

from __future__ import annotations

import math

from .bits import keep_out_of_line
from .compiling import kernel
from .team import each
from .vectors import SMALLEST_32, SMALLEST_64, shift


@kernel
def add_scaled(z, x, n, columns, deviation, e):
    """z 2^e += deviation x, x a vector of n for each of the columns; returns the new exponent, large enough for both.

    Where x is too small to change z it still gives an entry that is zero its sign: that of a unit whose inputs are all
    silent.
    """
    keep_out_of_line()
    own = math.frexp(deviation)[1]
    if own > e:
        shift(z, n * columns, max(e - own, -2000))
        e = own
    smallest = math.ldexp(1.0, SMALLEST_32 if z.itemsize == 4 else SMALLEST_64)
    factor = math.ldexp(deviation, max(-e, -2000))
    if factor < smallest:
        for i in each(n):
            for b in range(i * columns, (i + 1) * columns):
                if z[b] == 0:
                    z[b] = math.copysign(smallest, x[i])
        return e
    factor = z.dtype.type(factor)
    if columns == 1:
        for i in each(n):
            z[i] += factor * x[i]
        return e
    for i in each(n):
        for b in range(i * columns, (i + 1) * columns):
            z[b] += factor * x[i]
    return e


@kernel
def add_vectors(x, a, e, y, b, f, n):
    """x <- a x 2^e + b y 2^f; returns the exponent of the sum. y is brought to it on the way."""
    keep_out_of_line()
    largest = max(e, f)
    shift(x, n, max(e - largest, -2000))
    shift(y, n, max(f - largest, -2000))
    a, b = x.dtype.type(a), x.dtype.type(b)
    for i in each(n):
        x[i] = a * x[i] + b * y[i]
    return largest
