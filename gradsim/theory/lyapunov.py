"""Lyapunov exponents of deep linear chains with Gaussian weights: means over the layers of ln R_kk.

Given an orthonormal frame Q of k columns that does not depend on W, W^T Q has independent Gaussian entries, so that its
QR decomposition has independent diagonals R_kk^2 = (s2/m) chi2_{m-k+1}, m = n_{l-1}, and a new frame independent of
them (Bartlett 1933; Newman 1986, Commun. Math. Phys. 103, 121). So a chain's exponents, in the order of the columns,
are independent of each other, and each a sum over the layers. They are recorded in descending order: the law of those
is the one of order statistics of independent variables that are not alike.
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
from scipy import special as sp

from gradsim.chain import Chain
from gradsim.theory.inversion import Sum
from gradsim.theory.law import squared_gains
from gradsim.theory.special import FloatArray, LogChiSquared

# Different factors up to which the distribution functions take less than 0.2 s: about four milliseconds each. Beyond
# it those of fewest degrees of freedom have theirs, the least normal ones, and the others are taken to be normal.
_MOST_FACTORS = 32
# Products up to which sorting takes less than half a second.
_MOST_PRODUCTS = 3e8
# Reach of the grid in standard deviations: ln chi2_1 falls off as e^{x/2}, 25 of its 2.2, to the left.
_BELOW, _ABOVE = 25.0, 9.0
# Points to a standard deviation: fewer where sums over many layers are nearly normal and so smoother.
_POINTS, _FEWER_POINTS, _MANY_LAYERS = 8, 4, 16


def in_order(chain: Chain) -> tuple[FloatArray, FloatArray]:
    """Mean and variance of each exponent in the order of the columns, shapes (probes,)."""
    k = np.arange(chain.probes)
    sizes = list(zip(squared_gains(chain), chain.widths[:-1], strict=True))
    # Equal layers are the rule, and polygamma takes its time.
    means = {(s2, m): math.log(2.0 * s2 / m) + sp.digamma((m - k) / 2.0) for s2, m in set(sizes)}
    variances = {m: sp.polygamma(1, (m - k) / 2.0) for m in {m for _, m in sizes}}
    mean = np.mean([means[size] for size in sizes], axis=0) / 2.0
    return mean, np.mean([variances[m] for _, m in sizes], axis=0) / (4.0 * chain.depth)


def is_sorted_law_exact(chain: Chain) -> bool:
    """Whether `descending` inverts every distribution function."""
    return _inverted(chain) == chain.probes


def _inverted(chain: Chain) -> int:
    """How many of the exponents, from the last one on, have their distribution functions inverted."""
    return min(chain.probes, _MOST_FACTORS // len(set(chain.widths[:-1])))


def descending(chain: Chain) -> tuple[FloatArray, FloatArray] | None:
    """Mean and variance of each exponent once they are sorted, shapes (probes,); None where that would take seconds.

    The j-th largest is at most x where at most j - 1 of the exponents exceed x, a count of independent events.
    Its moments are those of the j-th in order, and integrals of the difference of the two distribution functions;
    these are smooth and fall off on both sides, where the trapezoidal rule converges exponentially.
    """
    mean, var = in_order(chain)
    spread = np.sqrt(var)
    step = float(spread.min()) / (_POINTS if chain.depth < _MANY_LAYERS else _FEWER_POINTS)
    reach = np.where(np.arange(chain.probes) < chain.probes - _inverted(chain), _ABOVE, _BELOW)
    low, high = mean - reach * spread, mean + _ABOVE * spread
    if chain.probes**2 * (high.max() - low.min()) / step > _MOST_PRODUCTS:
        return None
    x = np.arange(float(low.min()), float(high.max()), step)
    below = _distribution_functions(chain, x, low, high)
    # exceeding[i]: probability that i of the exponents so far exceed x.
    exceeding = np.zeros((chain.probes + 1, x.size))
    exceeding[0] = 1.0
    for k in range(chain.probes):
        one_more = exceeding[: k + 1] * (1.0 - below[k])
        exceeding[: k + 1] *= below[k]
        exceeding[1 : k + 2] += one_more
    difference = below - np.cumsum(exceeding, axis=0)[:-1]
    centred = x - mean[:, None]
    shift = step * difference.sum(axis=1)
    return mean + shift, var + 2.0 * step * (difference * centred).sum(axis=1) - shift * shift


def _distribution_functions(chain: Chain, x: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """P(exponent <= x) of each in the order of the columns, shape (probes, x.size): 0 up to `low`, 1 from `high` on."""
    layers = Counter(chain.widths[:-1])
    constant = sum(math.log(s2 / m) for s2, m in zip(squared_gains(chain), chain.widths[:-1], strict=True))
    mean, var = in_order(chain)
    rows = sp.ndtr((x - mean[:, None]) / np.sqrt(var)[:, None])
    for k in range(chain.probes - _inverted(chain), chain.probes):
        first, last = np.searchsorted(x, (low[k], high[k]))
        total = Sum({LogChiSquared(m - k): count for m, count in layers.items()}, constant)
        inside = total.cdf(2.0 * chain.depth * x[first:last])
        assert inside is not None
        rows[k, :first], rows[k, first:last], rows[k, last:] = 0.0, inside, 1.0
    return rows
