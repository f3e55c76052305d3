"""What gates do to vectors of float64: sigmoid, tanh and their slopes, and products of them; loops that run as vectors.

The exponential is that of Cody and Waite (1980): x = k ln 2 + r, a polynomial in r, and 2^k by its bits; its error is
below two units in the last place. Unlike `math.exp` it is arithmetic without a call, which vectors need. Each loop
has few arrays: a compiler that has to compare many for overlap gives up.
"""

from __future__ import annotations

import math

import numpy as np

from .bits import double_bits, double_from_bits, keep_out_of_line, prefer_wide_vectors
from .compiling import kernel, part
from .vectors import NOTHING, absolute_maximum, copy

u64 = np.uint64

LOG2_E = 1.0 / math.log(2.0)
LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
TO_INTEGER = 1.5 * 2.0**52  # what is added to this is rounded to an integer, in the low bits
LARGEST = 708.0  # exp(-x) beyond it is no normal number, and taken as zero
# Power of two below which tanh z = z to half a unit in the last place of float64.
LINEAR_BELOW = -27


@part
def decay(x):
    """exp(-x) and exp(-x) - 1 for x >= 0, neither by a difference."""
    y = -x if x < LARGEST else -LARGEST
    shifted = y * LOG2_E + TO_INTEGER
    k = shifted - TO_INTEGER
    r = (y - k * LN2_HIGH) - k * LN2_LOW
    p = 1.0 / 6227020800.0 * r + 1.0 / 479001600.0
    p = p * r + 1.0 / 39916800.0
    p = p * r + 1.0 / 3628800.0
    p = p * r + 1.0 / 362880.0
    p = p * r + 1.0 / 40320.0
    p = p * r + 1.0 / 5040.0
    p = p * r + 1.0 / 720.0
    p = p * r + 1.0 / 120.0
    p = p * r + 1.0 / 24.0
    p = p * r + 1.0 / 6.0
    p = p * r + 0.5
    p = p * r * r + r
    two_k = double_from_bits(u64(u64(double_bits(shifted) + u64(1023)) << u64(52)))
    below = two_k * p + (two_k - 1.0)
    value = two_k * p + two_k if x < LARGEST else 0.0
    return value, below


@kernel
def squash(x, slopes, rest, n, factor, more):
    """x <- sigmoid(factor x + more), its slope t / (1 + t)^2, t = exp(-|.|), and 1 - sigmoid without a difference."""
    prefer_wide_vectors()
    keep_out_of_line()
    for i in range(n):
        z = factor * x[i] + more
        t, _ = decay(abs(z))
        large = 1.0 / (1.0 + t)
        small = t * large
        slopes[i] = small * large
        x[i] = large if z >= 0.0 else small
        rest[i] = small if z >= 0.0 else large


@kernel
def _saturate(x, slopes, n, factor):
    """x <- tanh(factor x), and its slope 4 t / (1 + t)^2, t = exp(-2|.|)."""
    prefer_wide_vectors()
    keep_out_of_line()
    for i in range(n):
        z = factor * x[i]
        t, below = decay(2.0 * abs(z))
        inverse = 1.0 / (1.0 + t)
        size = -below * inverse
        slopes[i] = 4.0 * t * inverse * inverse
        x[i] = size if z >= 0.0 else -size


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
        for i in range(n):
            slopes[i] = 1.0
        return e
    _saturate(x, slopes, n, power(e))
    return 0


@kernel
def multiply(a, b, out, n):
    """out = a b, entry by entry."""
    prefer_wide_vectors()
    keep_out_of_line()
    for i in range(n):
        out[i] = a[i] * b[i]


@kernel
def blend(a, x, fx, b, y, fy, out, n):
    """out = a x fx + b y fy, entry by entry."""
    prefer_wide_vectors()
    keep_out_of_line()
    for i in range(n):
        out[i] = a[i] * x[i] * fx + b[i] * y[i] * fy


@kernel
def difference(x, fx, y, fy, out, n):
    """out = x fx - y fy."""
    prefer_wide_vectors()
    keep_out_of_line()
    for i in range(n):
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
    for i in range(n):
        out[i] = x[i] * factor
    return e + own


@kernel
def weigh(a, x, factor, out, n, share):
    """out = factor a x, entry by entry; `share` columns of x have the same a."""
    prefer_wide_vectors()
    keep_out_of_line()
    factor = out.dtype.type(factor)
    if share == 1:
        for i in range(n):
            out[i] = factor * (a[i] * x[i])
    else:
        for i in range(n):
            for b in range(i * share, (i + 1) * share):
                out[b] = factor * (a[i] * x[b])


@kernel
def weigh_in_place(a, x, n, share):
    """x <- a x."""
    prefer_wide_vectors()
    keep_out_of_line()
    if share == 1:
        for i in range(n):
            x[i] *= a[i]
    else:
        for i in range(n):
            for b in range(i * share, (i + 1) * share):
                x[b] *= a[i]


@kernel
def add_weighted(y, fy, a, x, fx, n, share):
    """y <- fy y + fx a x."""
    prefer_wide_vectors()
    keep_out_of_line()
    fy, fx = y.dtype.type(fy), y.dtype.type(fx)
    if share == 1:
        for i in range(n):
            y[i] = fy * y[i] + fx * (a[i] * x[i])
    else:
        for i in range(n):
            for b in range(i * share, (i + 1) * share):
                y[b] = fy * y[b] + fx * (a[i] * x[b])
