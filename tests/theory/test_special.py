"""Cumulants and complex moments of the parts against independent evaluations."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from scipy import integrate, stats

from gradsim.theory import special
from gradsim.theory.parts import LogNoncentral, LogResidualNorm, LogSphericalSum, Reciprocal
from gradsim.theory.special import LogActiveFraction, LogBeta, LogChiSquared, LogLeakyFraction

PARTS = [
    LogChiSquared(1),
    LogChiSquared(64),
    LogBeta(5, 3),
    LogActiveFraction(2),
    LogActiveFraction(12),
    LogActiveFraction(1000),
    LogLeakyFraction(1, 0.3),
    LogLeakyFraction(12, 0.3),
    LogLeakyFraction(7, 0.001),
    LogLeakyFraction(1000, 0.3),
    LogActiveFraction(12, 0.9),
    LogActiveFraction(1000, 0.01),
    LogNoncentral(3, 0.5),
    LogNoncentral(256, 1e7),
    Reciprocal(LogChiSquared(7)),
    LogSphericalSum(2, 0.3),
    LogSphericalSum(1000, 0.01),
    LogResidualNorm(2, 0.3),
    LogResidualNorm(64, 1e6),
]


@pytest.mark.parametrize("part", PARTS, ids=str)
def test_cumulants_are_derivatives_of_the_log_moment(part):
    spread = math.sqrt(part.cumulants[1])
    # Cauchy's formula on a circle on which the moment has no zero and no pole.
    radius = min(0.5 / spread, 0.5 * part.pole, 0.5 * part.reach)
    angles = np.exp(2j * np.pi * np.arange(64) / 64)
    mean = part.cumulants[0]
    values = np.log(np.exp(part.log_moment(radius * angles) - radius * angles * mean))
    for order, value in enumerate(part.cumulants, start=1):
        taylor = np.mean(values * angles**-order).real / radius**order * math.factorial(order)
        expected = value - (mean if order == 1 else 0.0)
        assert taylor == pytest.approx(expected, rel=1e-6, abs=1e-6 * spread**order)


@pytest.mark.parametrize("part", PARTS, ids=str)
def test_moment_of_order_zero(part):
    assert abs(part.log_moment(np.zeros(1, dtype=complex))[0]) < 1e-12


@pytest.mark.parametrize("width", [2, 9, 40])
def test_active_fraction_is_a_binomial_mixture(width):
    s = np.array([0.7 + 2.0j])
    k = np.arange(1, width + 1)
    weights = stats.binom.pmf(k, width, 0.5) / (1 - 0.5**width)
    terms = [
        mpmath.gammaprod(
            [mpmath.mpf(int(j)) / 2 + s[0], mpmath.mpf(width) / 2],
            [mpmath.mpf(int(j)) / 2, mpmath.mpf(width) / 2 + s[0]],
        )
        for j in k
    ]
    expected = complex(sum(w * t for w, t in zip(weights, terms, strict=True)))
    assert np.exp(LogActiveFraction(width).log_moment(s))[0] == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("width", "slope"), [(1, 0.5), (3, 0.01), (16, 0.2), (50, 0.7)])
def test_leaky_fraction_agrees_with_the_laplace_transform(width, slope):
    """M(t) = [((1 + 2t)^-1/2 + (1 + 2 a^2 t)^-1/2)/2]^n is the Laplace transform of X = chi2_K + a^2
    chi2_{n-K}.

    With E ~ Exp(1), E/X has survival function M, so the log moments of X follow from those of E/X.
    """

    def survival(u):
        t = math.exp(u)
        return ((1 + 2 * t) ** -0.5 / 2 + (1 + 2 * slope**2 * t) ** -0.5 / 2) ** width

    def moment(order):
        below = integrate.quad(lambda u: order * u ** (order - 1) * (survival(u) - 1), -60, 0, limit=500)[0]
        above = integrate.quad(lambda u: order * u ** (order - 1) * survival(u), 0, 700, limit=2000, points=[20, 60])[0]
        return below + above

    mean = -np.euler_gamma - moment(1)
    var = moment(2) - moment(1) ** 2 - math.pi**2 / 6
    total = LogChiSquared(width).cumulants + LogLeakyFraction(width, slope).cumulants
    assert total[0] == pytest.approx(mean, rel=1e-7, abs=1e-7)
    assert total[1] == pytest.approx(var, rel=1e-6)


def test_leaky_fraction_meets_its_limits():
    np.testing.assert_allclose(LogLeakyFraction(30, 1 - 1e-9).cumulants, 0.0, atol=1e-8)
    small, none = LogLeakyFraction(60, 1e-12), LogActiveFraction(60)
    np.testing.assert_allclose(small.cumulants, none.cumulants, rtol=1e-4)


@pytest.mark.parametrize(
    ("n", "p"), [(1, 0.5), (7, 0.5), (200, 0.5), (1001, 0.5), (3000, 0.1), (2000, 1e-3), (40, 0.9)]
)
def test_thinned_binomial_keeps_smooth_means(n, p):
    values, weights = special.binomial(n, at_least=0, probability=p)
    k = np.arange(n + 1)
    full = stats.binom.pmf(k, n, p)
    for f in (lambda x: x, np.square, lambda x: np.log(x + n)):
        assert weights @ f(values) == pytest.approx(full @ f(k), rel=1e-12)


@pytest.mark.parametrize("mean", [0.0, 1e-3, 5.0, 1e3, 1e8])
def test_thinned_poisson_keeps_smooth_means(mean):
    values, weights = special.poisson(mean)
    assert weights @ values == pytest.approx(mean, rel=1e-12)
    assert weights @ (values - mean) ** 2 == pytest.approx(mean, rel=1e-9)


def test_moments_and_cumulants_are_inverse():
    cumulants = np.array([0.3, 1.2, -0.4, 2.0, 0.7, 3.0])
    moments = special.moments_from_cumulants(cumulants)
    np.testing.assert_allclose(special.cumulants_from_moments(moments), cumulants)
    poisson = special.moments_from_cumulants(np.full(6, 2.5))
    np.testing.assert_allclose(poisson, [stats.poisson.moment(j, 2.5) for j in range(1, 7)])
