"""Distribution functions from moments of complex order.

Two methods, each to 1e-10 or better: the midpoint rule on the characteristic function (Davies 1973,
Biometrika 60, 415), whose error is a probability beyond a stated range, and a deformed Laplace contour
(Trefethen, Weideman and Schmelzer 2006, BIT 46, 653) for bounded variables whose characteristic function
decays too slowly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from gradsim.theory import tails
from gradsim.theory.parts import Tilted
from gradsim.theory.special import ORDERS, ComplexArray, FloatArray, Part, cumulants_of

BoolArray = npt.NDArray[np.bool_]

# ln of the probability allowed beyond the range of the inversion.
_LOG_TAIL = 34.0
_NEGLIGIBLE = 1e-16
_BLOCK = 32
# Slopes that Chernoff's bound is taken at: neighbours so near that the best of them is within 4 per cent of it.
_SLOPES = 16
_MAX_TERMS = 2048
_CONTOUR_NODES = 24


@dataclass(frozen=True)
class Sum:
    """A sum of independent parts, each so many times, and a constant.

    Attributes
    ----------
    counts : mapping of Part to int
    constant : float
    """

    counts: Mapping[Part, int]
    constant: float

    def cumulants(self) -> FloatArray:
        """First cumulants of the sum, the constant included; shape (ORDERS,)."""
        total = np.zeros(ORDERS)
        for part, count in self.counts.items():
            total += count * cumulants_of(part)
        total[0] += self.constant
        return total

    def atom(self) -> float:
        """Probability of the likeliest single value."""
        return math.prod(part.atom**count for part, count in self.counts.items())

    def pole(self) -> float:
        """E e^{sX} is finite for real s > -pole."""
        return min(part.pole for part in self.counts)

    def reach(self) -> float:
        """E e^{sX} is finite for real s < reach."""
        return min(part.reach for part in self.counts)

    def log_moment(self, s: ComplexArray) -> ComplexArray:
        """A logarithm of E e^{sX} without the constant."""
        total = np.zeros(s.shape, dtype=np.complex128)
        for part, count in self.counts.items():
            total += count * part.log_moment(s)
        return total

    def tilted(self, slope: float) -> Sum:
        """The sum with density e^{slope x} f(x), over the mean of that factor."""
        return Sum({Tilted(part, slope): count for part, count in self.counts.items()}, self.constant)

    def cdf(self, x: FloatArray) -> FloatArray | None:
        """P(X <= x), shape of `x`, NaN where `x` is; None where neither method reaches its accuracy.

        Small probabilities, and those of the upper tail, are known to a small relative error.
        """
        points = np.asarray(x, dtype=np.float64)
        y = points.ravel() - self.constant
        result = (y >= 0.0).astype(np.float64)
        finite = np.isfinite(y)
        if self.counts:
            inside = self._by_characteristic_function(y[finite])
            if inside is None and all(part.at_most_zero for part in self.counts):
                inside = self._by_laplace_contour(y[finite])
            if inside is None:
                return None
            result[finite] = np.clip(inside, 0.0, 1.0)
        result[np.isnan(y)] = np.nan
        return result.reshape(points.shape)

    def _by_characteristic_function(self, y: FloatArray) -> FloatArray | None:
        """F(y) = 1/2 - sum_k Im(phi((k+1/2) D) e^{-i (k+1/2) D y})/(pi (k+1/2)) + error.

        The error is at most P(X < y - 2 pi/D) + P(X > y + 2 pi/D), so the step D follows from a range outside
        which X has negligible probability, by Chernoff's bound.
        """
        mean = self.cumulants()[0] - self.constant
        low, high = self._range
        step, terms = self._transform
        if terms is None:
            return None
        inside = (y > low) & (y < high)
        result = (y >= high).astype(np.float64)
        result[inside] = 0.5 - _fourier_sum(terms, step * (y[inside] - mean)).imag / math.pi
        left, right = (tails.slopes(limit, self.cumulants()[1]) for limit in (self.pole(), self.reach()))
        lower, upper = inside & (result < tails.SMALL), inside & (result > 1.0 - tails.SMALL)
        if lower.any():
            self._refine(result, lower, tails.along_lines(self.log_moment, y[lower], -left, high - low))
        if upper.any():
            self._refine(result, upper, 1.0 - tails.along_lines(self.log_moment, y[upper], right, high - low))
        return result

    @staticmethod
    def _refine(result: FloatArray, at: BoolArray, values: FloatArray) -> None:
        """Put values in the place of a result, but for NaN."""
        result[at] = np.where(np.isnan(values), result[at], values)

    def density(self, x: FloatArray) -> FloatArray:
        """Density at `x`, 0 outside the range of X, for a sum whose `highest_frequency` is known.

        f(y) = (D/pi) sum_k Re phi((k+1/2) D) e^{-i (k+1/2) D y}, with the error of `cdf`.
        """
        low, high = self._range
        y = x - self.constant
        mean = self.cumulants()[0] - self.constant
        step, terms = self._transform
        if terms is None:
            raise ValueError("the characteristic function decays too slowly")
        inside = (y > low) & (y < high)
        result = np.zeros_like(y)
        terms = terms * (np.arange(terms.size) + 0.5)
        result[inside] = _fourier_sum(terms, step * (y[inside] - mean)).real * step / math.pi
        return result

    def highest_frequency(self) -> float | None:
        """Where the characteristic function becomes negligible; None where that is too far out."""
        step, terms = self._transform
        return None if terms is None else step * terms.size

    @cached_property
    def _transform(self) -> tuple[float, ComplexArray | None]:
        """The step of the frequencies, and `_terms` with it."""
        low, high = self._range
        step = 2.0 * math.pi / (high - low)
        return step, self._terms(step, self.cumulants()[0] - self.constant)

    def _terms(self, step: float, mean: float) -> ComplexArray | None:
        """phi(t_k) e^{-i t_k mean}/(k + 1/2) at t_k = (k + 1/2) step, until negligible; None where that takes
        too many.
        """
        blocks = []
        for first in range(0, _MAX_TERMS, _BLOCK):
            k = np.arange(first, first + _BLOCK) + 0.5
            s = np.asarray(1j * step * k, dtype=np.complex128)
            blocks.append(np.exp(self.log_moment(s) - s * mean) / k)
            if np.abs(blocks[-1]).max() < _NEGLIGIBLE:
                terms = np.concatenate(blocks)
                return terms[: np.flatnonzero(np.abs(terms) >= _NEGLIGIBLE)[-1] + 1]
        return None

    @cached_property
    def _range(self) -> tuple[float, float]:
        """Bounds outside which X lies with probability below exp(-34), each."""
        s = np.geomspace(0.05, 100.0, _SLOPES) / math.sqrt(self.cumulants()[1])
        right, left = (_before(limit, s) for limit in (self.reach(), self.pole()))
        slopes = np.concatenate([right, -left])
        bounds = (self.log_moment(slopes.astype(np.complex128)).real + _LOG_TAIL) / slopes
        return float(np.max(bounds[right.size :])), float(np.min(bounds[: right.size]))

    def _by_laplace_contour(self, y: FloatArray) -> FloatArray:
        """P(X <= y) for X <= 0 by inverting E e^{sX}/s, the transform of P(-X <= t), along a cotangent
        contour around s < 0.
        """
        result = np.ones_like(y)
        below = y < 0.0
        t = -y[below]
        total = np.zeros_like(t)
        for node, slope in zip(*tails.cotangent_contour(_CONTOUR_NODES), strict=True):
            moment = np.exp(self.log_moment(node / t))
            total += 2.0 * (np.exp(node) * slope / node * moment).imag / _CONTOUR_NODES
        result[below] = 1.0 - total
        lower = below & (result < tails.SMALL)
        slopes = tails.slopes(self.pole(), self.cumulants()[1])
        self._refine(result, lower, tails.along_contour(self.log_moment, y[lower], -slopes))
        return result


def _before(limit: float, s: FloatArray) -> FloatArray:
    """Points up to a limit where it is finite, at most the largest of s, and more of them near it."""
    return np.minimum(s, limit * (1.0 - np.geomspace(1e-3, 0.9, s.size)[::-1])) if math.isfinite(limit) else s


def _fourier_sum(terms: ComplexArray, angle: FloatArray) -> ComplexArray:
    """sum_k terms[k] exp(-i (k + 1/2) angle), by Horner's rule."""
    z = np.exp(-1j * angle)
    total = np.zeros_like(z)
    for term in terms[::-1]:
        total = total * z + term
    return np.asarray(total * np.exp(-0.5j * angle))
