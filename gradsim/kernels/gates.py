"""What gates do to vectors of float64: sigmoid, tanh and their slopes, and products of them; loops that run as vectors.

Each loop has few arrays: a compiler that has to compare many for overlap gives up.
"""

from __future__ import annotations

import math

from . import ops
from .bits import keep_out_of_line, prefer_wide_vectors
from .compiling import kernel
from .team import each
from .vectors import NOTHING, absolute_maximum, copy

# Power of two below which tanh z = z to half a unit in the last place of float64.
LINEAR_BELOW = -27


@kernel
def squash(x, slopes, rest, n, factor, more):
    """x <- sigmoid(factor x + more), its slope, and 1 - sigmoid without a difference."""
    prefer_wide_vectors()
    keep_out_of_line()
    for i in each(n):
        x[i], slopes[i], rest[i] = ops.logistic(factor * x[i] + more)


@kernel
def _saturate(x, slopes, n, factor):
    """x <- tanh(factor x), and its slope."""
    prefer_wide_vectors()
    keep_out_of_line()
    for i in each(n):
        x[i], slopes[i] = ops.tanh(factor * x[i])


@kernel
def power(e):
    """2^e, zero far below all else."""
    return math.ldexp(1.0, min(max(e, -2000), 1000))


@kernel
def size_of(x, n, e):
    """Exponent of the largest entry of x 2^e: all are below that power of two; NOTHING for a zero vector."""
    keep_out_of_line()
    largest = absolute_maximum(x, n)
    return e + math.frexp(largest)[1] if largest > 0.0 else NOTHING


@kernel
def saturate(x, slopes, n, e):
    """x <- tanh(x 2^e) and its slope; returns the exponent of x: that it had, where tanh is linear, else 0."""
    keep_out_of_line()
    if size_of(x, n, e) < LINEAR_BELOW:
        for i in each(n):
            slopes[i] = 1.0
        return e
    _saturate(x, slopes, n, power(e))
    return 0


@kernel
def multiply(a, b, out, n):
    """out = a b, entry by entry."""
    prefer_wide_vectors()
    keep_out_of_line()
    for i in each(n):
        out[i] = a[i] * b[i]


@kernel
def blend(a, x, fx, b, y, fy, out, n):
    """out = a x fx + b y fy, entry by entry."""
    prefer_wide_vectors()
    keep_out_of_line()
    for i in each(n):
        out[i] = a[i] * x[i] * fx + b[i] * y[i] * fy


@kernel
def difference(x, fx, y, fy, out, n):
    """out = x fx - y fy."""
    prefer_wide_vectors()
    keep_out_of_line()
    for i in each(n):
        out[i] = x[i] * fx - y[i] * fy


@kernel
def keep(x, out, n, e):
    """out = x with its largest entry below 1; returns the exponent that makes it x 2^e again."""
    prefer_wide_vectors()
    keep_out_of_line()
    largest = absolute_maximum(x, n)
    if largest == 0.0:
        copy(x, out, n)
        return NOTHING
    own = max(math.frexp(largest)[1], -1000)
    factor = math.ldexp(1.0, -own)
    for i in each(n):
        out[i] = x[i] * factor
    return e + own


@kernel
def weigh(a, x, factor, out, n, share):
    """out = factor a x, entry by entry; `share` columns of x have the same a."""
    prefer_wide_vectors()
    keep_out_of_line()
    factor = out.dtype.type(factor)
    if share == 1:
        for i in each(n):
            out[i] = factor * (a[i] * x[i])
    else:
        for i in each(n):
            for b in range(i * share, (i + 1) * share):
                out[b] = factor * (a[i] * x[b])


@kernel
def weigh_in_place(a, x, n, share):
    """x <- a x."""
    prefer_wide_vectors()
    keep_out_of_line()
    if share == 1:
        for i in each(n):
            x[i] *= a[i]
    else:
        for i in each(n):
            for b in range(i * share, (i + 1) * share):
                x[b] *= a[i]


@kernel
def add_weighted(y, fy, a, x, fx, n, share):
    """y <- fy y + fx a x."""
    prefer_wide_vectors()
    keep_out_of_line()
    fy, fx = y.dtype.type(fy), y.dtype.type(fx)
    if share == 1:
        for i in each(n):
            y[i] = fy * y[i] + fx * (a[i] * x[i])
    else:
        for i in each(n):
            for b in range(i * share, (i + 1) * share):
                y[b] = fy * y[b] + fx * (a[i] * x[b])
