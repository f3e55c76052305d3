"""Random factors of skip connections and norms, in logarithms: noncentral chi-squared, reciprocals, and the
length of a sum with a vector of random direction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import special as sp

from gradsim.theory.special import (
    ORDERS,
    ComplexArray,
    FloatArray,
    Part,
    cumulants_of,
    log_gamma_cumulants,
    log_gamma_ratio,
    log_weighted_sum,
    mixture_cumulants,
    node_cumulants,
    poisson,
    stretched_beta,
)


@dataclass(frozen=True)
class LogNoncentral(Part):
    """ln of a noncentral chi-squared variable with n degrees of freedom and noncentrality lambda, over its
    mean n + lambda: a chi2_{n + 2 J} with J a Poisson variable of mean lambda/2.
    """

    degrees: int
    noncentrality: float

    @cached_property
    def _shapes(self) -> tuple[FloatArray, FloatArray]:
        count, weights = poisson(self.noncentrality / 2.0)
        return self.degrees / 2.0 + count, weights

    @property
    def _half_mean(self) -> float:
        return (self.degrees + self.noncentrality) / 2.0

    @cached_property
    def cumulants(self) -> FloatArray:
        shapes, weights = self._shapes
        given = log_gamma_cumulants(shapes)
        given[0] -= math.log(self._half_mean)
        return mixture_cumulants(weights, given)

    @property
    def pole(self) -> float:
        return float(self._shapes[0][0])

    def log_moment(self, s: ComplexArray) -> ComplexArray:
        shapes, weights = self._shapes
        return log_weighted_sum(weights, log_gamma_ratio(shapes[:, None], s[None, :], self._half_mean))


@dataclass(frozen=True)
class Reciprocal(Part):
    """-X of another part."""

    part: Part

    @cached_property
    def cumulants(self) -> FloatArray:
        return self.part.cumulants * (-1.0) ** np.arange(1, ORDERS + 1)

    @property
    def pole(self) -> float:
        return self.part.reach

    @property
    def reach(self) -> float:
        return self.part.pole

    @property
    def atom(self) -> float:
        return self.part.atom

    def log_moment(self, s: ComplexArray) -> ComplexArray:
        return self.part.log_moment(-s)


# Points on a circle that derivatives are taken from.
_CIRCLE = 64


@dataclass(frozen=True)
class Tilted(Part):
    """A part with density e^{slope x} f(x), over the mean of that factor (Esscher 1932).

    Its cumulants are derivatives of ln E e^{sX} at the slope, by Cauchy's integral on a circle
    around it, small so that no zero of the moment lies inside; rounding leaves the higher ones few digits.
    """

    part: Part
    slope: float

    @property
    def pole(self) -> float:
        return self.part.pole + self.slope

    @property
    def reach(self) -> float:
        return self.part.reach - self.slope

    @property
    def _at_slope(self) -> float:
        return float(self.part.log_moment(np.array([self.slope], dtype=np.complex128))[0].real)

    @cached_property
    def cumulants(self) -> FloatArray:
        mean, var = cumulants_of(self.part)[:2].tolist()
        radius = min(0.5 * self.pole, 0.5 * self.reach, 0.02 / math.sqrt(var))
        z = radius * np.exp(2j * math.pi * np.arange(_CIRCLE) / _CIRCLE)
        # Less the mean it turns slowly, so that its branches can be joined.
        values = self.log_moment(z) - z * mean
        values = values.real + 1j * np.unwrap(values.imag)
        orders = np.arange(1, ORDERS + 1)
        result = np.array([float(np.mean(values * z ** (-k)).real) * math.factorial(k) for k in orders.tolist()])
        result[0] += mean
        return result

    def log_moment(self, s: ComplexArray) -> ComplexArray:
        return self.part.log_moment(s + self.slope) - self._at_slope


@dataclass(frozen=True)
class LogSphericalSum(Part):
    """ln(|e + r u|^2/(1 + r)^2) for a fixed unit vector e and u uniform on the unit sphere of R^n, n >= 2, r !=
    1.

    With the coordinate u_1 = 2 B - 1 along e, B ~ Beta((n-1)/2, (n-1)/2), it is ln(B + a^2 (1 - B)), a =
    |1 - r|/(1 + r).
    """

    width: int
    slope: float

    @cached_property
    def _nodes(self) -> tuple[FloatArray, FloatArray]:
        half = np.array([self.width - 1.0])
        values, mass = stretched_beta(half, half, np.ones(1), self.slope)
        return values, mass / mass.sum()

    @cached_property
    def cumulants(self) -> FloatArray:
        return node_cumulants(*self._nodes)

    def log_moment(self, s: ComplexArray) -> ComplexArray:
        values, mass = self._nodes
        return log_weighted_sum(mass, values[:, None] * s[None, :])


_ANGLES = 48


@dataclass(frozen=True)
class LogResidualNorm(Part):
    """ln(chi2_{n - 1 + 2 K}/chi2_{n + 2 J}), independent given J ~ Poisson(r) and K ~ Poisson(r U), U ~ Beta((n -
    1)/2 + J, 1/2).
    """

    width: int
    ratio: float

    @cached_property
    def _joint(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """(n - 1)/2 + K, n/2 + J, and their joint probabilities, shape (K, J)."""
        count, weights = poisson(self.ratio)
        inside = (self.width - 1) / 2.0 + count
        # U = cos^2(angle), where the angle has a density proportional to cos^(2 a - 1), a = inside: nothing is
        # left beyond 11 of its standard deviations.
        nodes, steps = np.polynomial.legendre.leggauss(_ANGLES)
        reach = np.minimum(math.pi / 2.0, 11.0 / np.sqrt(2.0 * inside))[:, None]
        cos = np.cos(reach * (nodes + 1.0) / 2.0)
        density = steps * reach * cos ** (2.0 * inside[:, None] - 1.0)
        density /= density.sum(axis=1, keepdims=True)
        rates = (self.ratio * cos**2).ravel()
        logs = sp.xlogy(count[:, None], rates) - rates - sp.gammaln(count + 1.0)[:, None]
        given = np.exp(logs - logs.max(axis=0)).reshape(count.size, count.size, _ANGLES)
        given /= given.sum(axis=0)
        return inside, self.width / 2.0 + count, np.einsum("kja,ja->kj", given, density) * weights

    @property
    def _scale(self) -> float:
        return self.width / 2.0 + self.ratio

    @cached_property
    def cumulants(self) -> FloatArray:
        above, below, joint = self._joint
        signs = (-1.0) ** np.arange(ORDERS)[:, None, None]
        given = log_gamma_cumulants(above)[:, :, None] - signs * log_gamma_cumulants(below)[:, None, :]
        return mixture_cumulants(joint.ravel(), given.reshape(ORDERS, -1))

    @property
    def pole(self) -> float:
        return float(self._joint[0][0])

    @property
    def reach(self) -> float:
        return float(self._joint[1][0])

    def log_moment(self, s: ComplexArray) -> ComplexArray:
        above, below, joint = self._joint
        up = log_gamma_ratio(above[:, None], s[None, :], self._scale)
        down = log_gamma_ratio(below[:, None], -s[None, :], self._scale)
        tops = up.real.max(axis=0), down.real.max(axis=0)
        total = np.einsum("ks,ks->s", np.exp(up - tops[0]), joint @ np.exp(down - tops[1]))
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(total) + tops[0] + tops[1])
