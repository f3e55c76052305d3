"""Distributions of sums of independent logarithms: their cumulants, moments of complex order, and
distribution functions.

Going backward through a layer multiplies the squared gradient norm by independent factors: a chi-squared
variable, a beta variable, the fraction of the squared norm that a rectifier lets through. Each such factor is
a `Part` here, in logarithms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special as sp

FloatArray = npt.NDArray[np.float64]
ComplexArray = npt.NDArray[np.complex128]

ORDERS = 6
"""Cumulants carried: the spread and skewness of a sample variance need the fourth and the sixth."""

# Probabilities below exp(-45) of the largest are left out of a binomial.
_LOG_NEGLIGIBLE = -45.0
_STIRLING_FROM = 50.0
# Range of K that a recurrence walks through.
_LONGEST_RECURRENCE = 4000
# Half-integers whose polygamma functions are kept: a call for one takes as long as for a hundred.
_TABLE = 4096
# Widths whose laws are kept: a profile may have as many as layers, and each is asked for several times.
_WIDTHS = 4096


class Part:
    """The logarithm X of one positive random factor; what is not said differently below holds of it."""

    @property
    def cumulants(self) -> FloatArray:
        """First `ORDERS` cumulants of X."""
        raise NotImplementedError

    @property
    def pole(self) -> float:
        """E e^{sX} is finite for real s > -pole."""
        return math.inf

    @property
    def reach(self) -> float:
        """E e^{sX} is finite for real s < reach."""
        return math.inf

    @property
    def at_most_zero(self) -> bool:
        """Whether X <= 0 and the singularities of E e^{sX} all lie on the negative real axis."""
        return False

    @property
    def atom(self) -> float:
        """Probability of the likeliest single value."""
        return 0.0

    def log_moment(self, s: ComplexArray) -> ComplexArray:
        """A logarithm of E e^{sX}, shape of `s`; on which branch is left open."""
        raise NotImplementedError


# Parts of one law are met again in the laws beside it, and profiles have many.
_KEPT = 2048


@lru_cache(maxsize=_KEPT)
def cumulants_of(part: Part) -> FloatArray:
    """First `ORDERS` cumulants of a part, read-only and kept."""
    result = part.cumulants.view()
    result.flags.writeable = False
    return result


@lru_cache(maxsize=_KEPT)
def log_mean_of(part: Part) -> float:
    """ln E e^X of a part, kept."""
    return float(part.log_moment(np.ones(1, dtype=np.complex128))[0].real)


@dataclass(frozen=True)
class LogChiSquared(Part):
    """ln chi2_m."""

    degrees: int

    @cached_property
    def cumulants(self) -> FloatArray:
        result = log_gamma_cumulants(self.degrees / 2.0)
        result[0] += math.log(2.0)
        return result

    @property
    def pole(self) -> float:
        return self.degrees / 2.0

    def log_moment(self, s: ComplexArray) -> ComplexArray:
        a = self.degrees / 2.0
        return s * math.log(2.0) + log_gamma_ratio(a, s)


@dataclass(frozen=True)
class LogBeta(Part):
    """ln Beta(a/2, b/2): the fraction of the squared norm of a random vector in R^(a + b) that lies in an
    a-dimensional subspace.
    """

    inside: int
    outside: int

    @cached_property
    def cumulants(self) -> FloatArray:
        return log_gamma_cumulants(self.inside / 2.0) - log_gamma_cumulants((self.inside + self.outside) / 2.0)

    @property
    def pole(self) -> float:
        return self.inside / 2.0

    @property
    def at_most_zero(self) -> bool:
        return True

    def log_moment(self, s: ComplexArray) -> ComplexArray:
        return log_beta_moment(self.inside / 2.0, self.outside / 2.0, s)


@dataclass(frozen=True)
class LogActiveFraction(Part):
    """ln F, F the fraction of a random vector's squared norm on the K ~ Bin(n, p) units that a rectifier or
    dropout lets through, given K >= 1.

    Given K it is Beta(K/2, (n - K)/2), and 1 where K = n.
    """

    width: int
    probability: float = 0.5

    @cached_property
    def _active(self) -> tuple[FloatArray, FloatArray]:
        return binomial(self.width, at_least=1, probability=self.probability)

    @cached_property
    def cumulants(self) -> FloatArray:
        active, weights = self._active
        given = log_gamma_cumulants(active / 2.0) - log_gamma_cumulants(self.width / 2.0)[:, None]
        return mixture_cumulants(weights, given)

    @property
    def pole(self) -> float:
        return float(self._active[0][0]) / 2.0

    @property
    def at_most_zero(self) -> bool:
        return True

    @property
    def atom(self) -> float:
        p = self.probability
        return float(p**self.width / -np.expm1(self.width * np.log1p(-p)))

    def log_moment(self, s: ComplexArray) -> ComplexArray:
        active, weights = self._active
        if active[-1] - active[0] <= _LONGEST_RECURRENCE:
            result = self._log_moment_by_recurrence(s)
            if np.all(np.isfinite(result)):
                return result
        given = log_gamma_ratio(active[:, None] / 2.0, s[None, :])
        return log_weighted_sum(weights, given) - log_gamma_ratio(self.width / 2.0, s)

    def _log_moment_by_recurrence(self, s: ComplexArray) -> ComplexArray:
        """From the largest K downward by Gamma(a + 1) = a Gamma(a), in steps of 2: two gamma functions instead of as
        many as there are values. Relative to the largest, so that no ratio is too small; one may be too large.
        """
        active, weights = self._active
        stride = int(active[1] - active[0]) if active.size > 1 else 2
        chains = [slice(None, None, -1)]
        if stride % 2 and active.size > 1:
            chains = [slice(None, None, -2), slice(-2, None, -2)]
        tops = self._log_given(active[-1 : -1 - len(chains) : -1], s)
        total = np.zeros_like(s)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            for chain, top in zip(chains, tops, strict=True):
                values = active[chain]
                a = np.arange(values[0] / 2.0 - 1.0, values[-1] / 2.0 - 0.5, -1.0)
                ratios = np.ones((a.size + 1, s.size), dtype=np.complex128)
                np.cumprod(a[:, None] / (a[:, None] + s), axis=0, out=ratios[1:])
                given = ratios[:: int(values[0] - values[1]) // 2] if values.size > 1 else ratios
                total += np.einsum("k,ks->s", weights[chain], given) * np.exp(top - tops[0])
            return np.asarray(np.log(total) + tops[0])

    def _log_given(self, active: FloatArray, s: ComplexArray) -> ComplexArray:
        """ln E F^s given K; shape (K, s.size)."""
        result = np.zeros((active.size, s.size), dtype=np.complex128)
        some = active < self.width
        if some.any():
            given = log_gamma_ratio(active[some, None] / 2.0, s) - log_gamma_ratio(self.width / 2.0, s)
            far = np.abs(s) > max(100.0, 2.0 * self.width)
            # Where |s| is large the gamma functions nearly cancel.
            if far.any():
                for row, inside in zip(given, active[some].tolist(), strict=True):
                    row[far] = log_beta_moment(inside / 2.0, (self.width - inside) / 2.0, s[far])
            result[some] = given
        return result


@dataclass(frozen=True)
class LogLeakyFraction(Part):
    """ln F, F = B + slope^2 (1 - B), B the active fraction as in `LogActiveFraction` with K >= 0; 0 < slope <
    1.

    K = 0 and K = n are atoms.
    """

    width: int
    slope: float

    @cached_property
    def _nodes(self) -> tuple[FloatArray, FloatArray]:
        active, weights = binomial(self.width, at_least=0)
        inner = (active > 0) & (active < self.width)
        values, mass = stretched_beta(active[inner], self.width - active[inner], weights[inner], self.slope)
        atoms = [(0.0, weights[active == self.width]), (2.0 * math.log(self.slope), weights[active == 0])]
        values = np.concatenate([values, *(np.full(w.size, value) for value, w in atoms)])
        mass = np.concatenate([mass, *(w for _, w in atoms)])
        return values, mass / mass.sum()

    @cached_property
    def cumulants(self) -> FloatArray:
        return node_cumulants(*self._nodes)

    @property
    def atom(self) -> float:
        return 0.5**self.width

    def log_moment(self, s: ComplexArray) -> ComplexArray:
        values, mass = self._nodes
        return log_weighted_sum(mass, values[:, None] * s[None, :])


def log_gamma_cumulants(a: float | FloatArray) -> FloatArray:
    """First cumulants of the logarithm of a Gamma(a, 1) variable: polygamma functions; shape (ORDERS,
    *a.shape).

    Halves of small integers, which widths are, come from a table.
    """
    halves = np.asarray(a, dtype=np.float64)
    twice = 2.0 * halves
    if np.max(twice) < _TABLE and np.all(twice == np.rint(twice)) and np.min(twice) > 0.0:
        return np.take(_half_integers(), twice.astype(np.intp), axis=1)
    return _polygammas(halves)


@lru_cache(maxsize=1)
def _half_integers() -> FloatArray:
    """`_polygammas` at n/2, n = 0.._TABLE - 1; shape (ORDERS, _TABLE)."""
    table = _polygammas(np.arange(_TABLE) / 2.0)
    table.flags.writeable = False
    return table


def _polygammas(a: FloatArray) -> FloatArray:
    return np.array([sp.polygamma(order, a) for order in range(ORDERS)])


def log_gamma_ratio(a: float | FloatArray, s: ComplexArray, scale: float = 1.0) -> ComplexArray:
    """ln Gamma(a + s) - ln Gamma(a) - s ln(scale).

    Where a is large the first two nearly cancel and, counted once per layer, their rounding would show: there
    the difference of Stirling's series is taken term by term.
    """
    base = np.asarray(a, dtype=np.float64)
    if np.min(base) >= _STIRLING_FROM and np.max(np.abs(s)) <= np.min(base) / 2.0:
        x = s / base
        log1p = sp.log1p(x)
        result: ComplexArray = base * _log1p_less(x, log1p) + (s - 0.5) * log1p + s * np.log(base / scale)
        return np.asarray(result + _stirling_tail(base + s) - _stirling_tail(base))
    direct: ComplexArray = sp.loggamma(base + s) - sp.gammaln(base) - s * math.log(scale)
    return direct


def log_beta_moment(a: float, b: float, s: ComplexArray) -> ComplexArray:
    """ln E B^s of a Beta(a, b) variable B.

    Where |s| is large the gamma functions nearly cancel: there, by the difference of Stirling's series.
    """
    result = log_gamma_ratio(a, s) - log_gamma_ratio(a + b, s)
    far = np.abs(s) > max(100.0, 4.0 * (a + b))
    low, high = a + s[far], a + b + s[far]
    stirling = (low - 0.5) * sp.log1p(-b / high) - b * np.log(high) + b + _stirling_tail(low) - _stirling_tail(high)
    result[far] = stirling + sp.gammaln(a + b) - sp.gammaln(a)
    return result


def _log1p_less(x: ComplexArray, log1p: ComplexArray) -> ComplexArray:
    """ln(1 + x) - x, given ln(1 + x): by its series where the two nearly cancel."""
    if np.max(np.abs(x)) > 0.01:
        return np.asarray(log1p - x)
    total = np.zeros_like(x)
    for order in range(8, 1, -1):
        total = x * total - (-1.0) ** order / order
    return np.asarray(total * x * x)


def _stirling_tail(z: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """ln Gamma(z) - [(z - 1/2) ln z - z + ln(2 pi)/2], to 1e-17 for |z| >= 25."""
    w = 1.0 / (z * z)
    return np.asarray((1.0 / 12.0 - w * (1.0 / 360.0 - w * (1.0 / 1260.0 - w * (1.0 / 1680.0 - w / 1188.0)))) / z)


def log_weighted_sum(weights: FloatArray, logs: ComplexArray) -> ComplexArray:
    """ln sum_k weights[k] exp(logs[k, :]), without overflow."""
    top = logs.real.max(axis=0)
    # Not by @: of a product this small BLAS makes two threads that wait for each other, ten times as long.
    total = np.einsum("k,ks->s", weights, np.exp(logs - top))
    with np.errstate(divide="ignore"):
        result: ComplexArray = np.log(total) + top
    return result


@lru_cache(maxsize=_WIDTHS)
def binomial(n: int, at_least: int, probability: float = 0.5) -> tuple[FloatArray, FloatArray]:
    """Values and probabilities of K ~ Bin(n, probability) given K >= at_least, negligible ones left out."""
    p = probability
    values = _window(n * p, math.sqrt(n * p * (1.0 - p)), at_least, n)
    logs = sp.xlogy(values, p) + sp.xlog1py(n - values, -p) - np.log1p(n) - sp.betaln(values + 1.0, n - values + 1.0)
    return _kept(values, logs)


@lru_cache(maxsize=64)
def poisson(mean: float) -> tuple[FloatArray, FloatArray]:
    """Values and probabilities of a Poisson variable, negligible ones left out."""
    values = _window(mean, math.sqrt(mean), 0, math.inf)
    logs = sp.xlogy(values, mean) - mean - sp.gammaln(values + 1.0)
    if mean > _STIRLING_FROM**2:
        # Those terms nearly cancel: with x = J/mean - 1 and Stirling's series, what is left is small.
        x = np.asarray((values - mean) / mean, dtype=np.complex128)
        log1p = np.log1p(x)
        logs = -(mean * ((1.0 + x) * _log1p_less(x, log1p) + x * x) + log1p / 2.0).real - _stirling_tail(values)
    return _kept(values, logs)


def _window(mean: float, spread: float, least: int, most: float) -> FloatArray:
    """The integers that count, around the mean, thinned where many do.

    Of a wide law only every j-th value is kept, with j at most a third of the standard deviation: a sum of a
    function that is smooth on that scale changes by less than exp(-2 pi^2 9), relative.
    """
    stride = max(1, int(spread / 3.0))
    # The tails of narrow laws are a Poisson's: 60 units hold all but exp(-45) of one of mean below 36.
    half = 11.0 * spread + (60.0 if stride == 1 else 1.0)
    centre = int(mean)
    first = max(least, centre - int(half) // stride * stride)
    return np.arange(first, min(most, centre + half) + 1, stride, dtype=np.float64)


def _kept(values: FloatArray, logs: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The values whose probability is not negligible, and their probabilities, adding to 1."""
    logs = logs - logs.max()
    kept = logs > _LOG_NEGLIGIBLE
    weights = np.exp(logs[kept])
    return values[kept], weights / weights.sum()


def mixture_cumulants(weights: FloatArray, given: FloatArray) -> FloatArray:
    """Cumulants of a mixture.

    Parameters
    ----------
    weights : array, shape (K,)
        Probabilities, adding to 1.
    given : array, shape (ORDERS, K)
        Cumulants of each component.
    """
    mean = float(weights @ given[0])
    # Moments about the mixture's mean, so that small spreads around a large mean keep their digits.
    moments = moments_from_cumulants(np.concatenate([given[:1] - mean, given[1:]]))
    result = cumulants_from_moments(moments @ weights)
    result[0] += mean
    return result


def moments_from_cumulants(cumulants: FloatArray) -> FloatArray:
    """Raw moments m_1, m_2, ... from cumulants k_1, k_2, ...; any shape behind the first axis.

    m_n = sum_j C(n-1, j-1) k_j m_{n-j}.
    """
    moments = [np.ones_like(cumulants[0])]
    for n in range(1, len(cumulants) + 1):
        moments.append(sum(math.comb(n - 1, j - 1) * cumulants[j - 1] * moments[n - j] for j in range(1, n + 1)))
    return np.array(moments[1:])


def cumulants_from_moments(moments: FloatArray) -> FloatArray:
    """The inverse of `moments_from_cumulants`."""
    raw = [np.ones_like(moments[0]), *moments]
    cumulants: list[FloatArray] = []
    for n in range(1, len(moments) + 1):
        lower = sum((math.comb(n - 1, j - 1) * cumulants[j - 1] * raw[n - j] for j in range(1, n)), start=0.0)
        cumulants.append(raw[n] - lower)
    return np.array(cumulants)


def stretched_beta(
    inside: FloatArray, outside: FloatArray, weights: FloatArray, slope: float
) -> tuple[FloatArray, FloatArray]:
    """Quadrature nodes of X = ln(B + slope^2 (1 - B)) and their masses, B a mixture of beta variables.

    B = sin^2(theta) has a smooth density in theta, integrated by composite Gauss-Legendre.

    Parameters
    ----------
    inside, outside : array, shape (K,)
        Degrees of freedom: B is Beta(inside/2, outside/2), inside + outside the same for all.
    weights : array, shape (K,)
    slope : float
        Between 0 and 1.
    """
    if not inside.size:
        return np.empty(0), np.empty(0)
    theta, dtheta = _angles(int(inside[0] + outside[0]), slope)
    a, b = inside[:, None] / 2.0, outside[:, None] / 2.0
    log_density = math.log(2.0) + (2 * a - 1) * np.log(np.sin(theta)) + (2 * b - 1) * np.log(np.cos(theta))
    mass = dtheta * (weights @ np.exp(log_density - sp.betaln(a, b)))
    return np.log(np.sin(theta) ** 2 + (slope * np.cos(theta)) ** 2), mass


def node_cumulants(values: FloatArray, mass: FloatArray) -> FloatArray:
    """Cumulants of a variable that has these values with these probabilities, shape (ORDERS,)."""
    points = np.zeros((ORDERS, values.size))
    points[0] = values
    return mixture_cumulants(mass, points)


_PANEL_NODES = 32


def _angles(width: int, slope: float) -> tuple[FloatArray, FloatArray]:
    """Quadrature nodes and weights in theta, where sin^2(theta) is the active fraction of a layer of this
    width.

    The fraction has mean 1/2 and variance 3/(4 n): theta lies within 14 standard deviations of pi/4, and
    panels are at most 2.5 of them wide. Near theta = 0 they halve down to the slope, since ln F bends there.
    """
    spread = math.sqrt(0.75 / width)
    low, high = max(0.0, math.pi / 4 - 14.0 * spread), min(math.pi / 2, math.pi / 4 + 14.0 * spread)
    edges = [low, low + min(slope / 2.0, spread)] if low == 0.0 else [low]
    while edges[-1] < high:
        edges.append(edges[-1] + min(max(edges[-1], slope / 2.0), 2.5 * spread))
    bounds = np.append(np.array(edges[:-1]), high)
    nodes, weights = np.polynomial.legendre.leggauss(_PANEL_NODES)
    half = np.diff(bounds)[:, None] / 2.0
    theta = (bounds[1:, None] + bounds[:-1, None]) / 2.0 + half * nodes
    return theta.ravel(), (half * weights).ravel()
