"""Several gradients of one chain, kept orthonormal: Lyapunov exponents by QR (Benettin et al. 1980).

G holds k orthonormal columns, G = Q; after each layer W^T D = Q R with positive diagonal, and the logarithms of that
diagonal add up. The first column is the plain gradient, scaled.
"""

from __future__ import annotations

import math

import numpy as np

from .bits import keep_out_of_line
from .compiling import kernel
from .team import add_once, count_over, each, leads, sum_over
from .vectors import LN2

# What is left of a column has no digits below so many units of rounding, times sqrt(n).
ROUNDING_32, ROUNDING_64 = 2.0**-22, 2.0**-51


@kernel
def column_square(g, n, k, p):
    """Squared length of column p, in float64."""
    keep_out_of_line()
    total = 0.0
    for i in each(n):
        v = np.float64(g[i * k + p])
        total += v * v
    return sum_over(total)


@kernel
def orthogonalise(g, n, k, p, along):
    """Take column p, of length 1, out of the columns after it."""
    keep_out_of_line()
    for r in range(p + 1, k):
        along[r] = 0
    for i in range(n):
        own = g[i * k + p]
        for r in range(p + 1, k):
            along[r] += own * g[i * k + r]
    for i in range(n):
        own = g[i * k + p]
        for r in range(p + 1, k):
            g[i * k + r] -= own * along[r]


@kernel
def orthonormalise(g, n, k, e, rank, logs, lengths, along):
    """G <- Q of G 2^e = Q R, and logs += ln of R's diagonal, by modified Gram-Schmidt, twice.

    `rank` is how many columns can be independent in the law; those beyond are -inf. A column of which rounding leaves
    nothing, though the law does, is NaN.
    """
    keep_out_of_line()
    rounding = (ROUNDING_32 if g.itemsize == 4 else ROUNDING_64) * math.sqrt(n)
    for p in range(k):
        lengths[p] = math.sqrt(column_square(g, n, k, p))
        add_once(logs, p, e * LN2)
    for again in range(2):
        for p in range(k):
            length = math.sqrt(column_square(g, n, k, p))
            if again == 0 and (p >= rank or length <= rounding * lengths[p]):
                if not math.isnan(logs[p]):
                    logs[p] = -math.inf if p >= rank or lengths[p] == 0.0 else math.nan
                length = 0.0
            factor = g.dtype.type(1.0 / length if length > 0.0 else 0.0)
            for i in each(n):
                g[i * k + p] *= factor
            if length > 0.0:
                add_once(logs, p, math.log(length))
                orthogonalise(g, n, k, p, along)


@kernel
def apply_slopes(d, slopes, n, columns):
    """Each of several columns times the same slopes."""
    keep_out_of_line()
    for i in each(n):
        for b in range(i * columns, (i + 1) * columns):
            d[b] *= slopes[i]


@kernel
def nonzero_rows(d, n, k):
    """Rows of D that are not all zero."""
    keep_out_of_line()
    count = 0
    for i in each(n):
        some = False
        for p in range(k):
            some = some or d[i * k + p] != 0
        count += some
    return count_over(count)


@kernel
def write_spectrum(logs, steps, k, spectrum):
    """The growth of each direction per layer, descending; NaN last."""
    keep_out_of_line()
    for p in range(k if leads() else 0):
        value = logs[p] / steps
        at = p
        while at > 0 and (spectrum[at - 1] < value or math.isnan(spectrum[at - 1])):
            spectrum[at] = spectrum[at - 1]
            at -= 1
        spectrum[at] = value
