"""p-values for samples held against a law, and Holm's adjustment. Tests are two-sided where nothing else is said."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy import special as sp

FloatArray = npt.NDArray[np.float64]

# Inverted distribution functions are good to about 1e-12; below this probability the normal tail, of the same
# order, stands in.
_SMALLEST_INVERTED = 1e-9
# Shape of a gamma law that nothing tells from a normal one.
_NEARLY_NORMAL = 1e14
# Upper tails above this are far from any level in use, and outliers would not change a verdict.
_DOUBTFUL = 0.05

Outliers = Callable[[float], float]


def normal_p(z: float) -> float:
    """P(|Z| >= |z|) for a standard normal Z."""
    return float(sp.erfc(abs(z) / math.sqrt(2.0)))


def normal_quantile(p: float) -> float:
    """The z with P(Z <= z) = p."""
    return float(sp.ndtri(p))


def mean_p(z: float, cdf: float | None) -> float:
    """p-value of a sample mean.

    Parameters
    ----------
    z : float
        Deviation of the mean in standard errors.
    cdf : float or None
        Its exact distribution function under the law, where known; the normal limit otherwise.
    """
    exact = None if cdf is None else 2.0 * min(cdf, 1.0 - cdf)
    return exact if exact is not None and exact > _SMALLEST_INVERTED else normal_p(z)


def variance_law(n: int, cumulants: FloatArray) -> tuple[float, float]:
    """Variance and third cumulant of the unbiased sample variance of n draws (Kendall and Stuart, vol. 1, ch.
    12).

    Parameters
    ----------
    n : int
        At least 2.
    cumulants : array, shape (6,)
        Cumulants of one draw.
    """
    _, k2, k3, k4, _, k6 = cumulants.tolist()
    spread = k4 / n + 2.0 * k2**2 / (n - 1)
    third = (
        k6 / n**2
        + 12.0 * k4 * k2 / (n * (n - 1))
        + 4.0 * (n - 2) * k3**2 / (n * (n - 1) ** 2)
        + 8.0 * k2**3 / (n - 1) ** 2
    )
    return spread, third


def spread_p(value: float, mean: float, variance: float, third: float, outliers: Outliers) -> float:
    """p-value of a mean of squares, from gamma laws that share its first moments and from single outliers.

    One gamma law has its mean and variance and begins at 0; the other has its third cumulant too (Pearson's
    type III). Both are chi-squared, and exact, for the sample variance of Gaussian draws. The second has the
    better upper tail but begins above 0 where draws are few and heavy-tailed; each tail takes the larger of
    the two. Where the law of a draw has rare far outliers, one of them can make up the whole excess, and the
    probability of that is added to the upper tail.

    Parameters
    ----------
    value : float
        The statistic, >= 0.
    mean, variance, third : float
        Its cumulants under the law.
    outliers : callable
        Expected number of draws that alone raise the statistic by at least its argument; asked only where it
        matters.
    """
    shape = 4.0 * variance**3 / third**2 if third > 0.0 else math.inf
    if not shape < _NEARLY_NORMAL:
        return normal_p((value - mean) / math.sqrt(variance))
    plain = _gamma_tails(value, mean, mean**2 / variance, mean)
    shifted = _gamma_tails(value, mean, shape, 2.0 * variance**2 / third)
    lower, upper = max(plain[0], shifted[0]), max(plain[1], shifted[1])
    if upper < _DOUBTFUL:
        upper += outliers(value - mean)
    return min(1.0, 2.0 * min(lower, upper))


def _gamma_tails(value: float, mean: float, shape: float, reach: float) -> tuple[float, float]:
    """Lower and upper tail at `value` of a gamma law with this mean that begins `reach` below it."""
    x = max(shape * (1.0 + (value - mean) / reach), 0.0)
    return float(sp.gammainc(shape, x)), float(sp.gammaincc(shape, x))


def ks_distance(sample: FloatArray, below: FloatArray, above: FloatArray) -> float:
    """Kolmogorov's distance between a sorted sample and a law, less what rounding of the sample can add.

    Parameters
    ----------
    sample : array, shape (n,)
        Sorted draws; only their number counts.
    below, above : array, shape (n,)
        The law's distribution function at the lower and the upper end of each draw's rounding interval.
    """
    n = sample.size
    ranks = np.arange(1, n + 1)
    return max(0.0, float(np.max(ranks / n - above)), float(np.max(below - (ranks - 1) / n)))


def ks_p(distance: float, n: int) -> float:
    """p-value of Kolmogorov's distance: twice the exact one-sided one, a little conservative where it is
    large.
    """
    return min(1.0, 2.0 * float(sp.smirnov(n, min(distance, 1.0))))


def binomial_p(count: int, n: int, p: float) -> float:
    """p-value of `count` successes in n trials of probability p: twice the smaller exact tail."""
    if p in (0.0, 1.0):
        return 1.0 if count == n * p else 0.0
    lower = float(sp.bdtr(count, n, p))
    return min(1.0, 2.0 * min(lower, binomial_excess_p(count, n, p)))


def binomial_excess_p(count: int, n: int, p: float) -> float:
    """One-sided p-value of so many successes: P(K >= count), K ~ Bin(n, p)."""
    return float(sp.bdtrc(count - 1, n, p)) if count > 0 else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: all below a level alpha are rejected at family-wise error
    alpha.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, at in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[at]))
        adjusted[at] = largest
    return adjusted
