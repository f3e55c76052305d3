"""Distribution functions to 1e-10 in the body and to a relative 1e-4 in tails down to 1e-12.

References: SciPy's closed forms, and mixtures summed term by term, with mpmath where no closed form is at hand. What is
1 - F cannot be known better than the spacing of float64 near 1.
"""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from mpmath import mpf
from scipy import optimize, special, stats

from gradsim.theory.inversion import Sum
from gradsim.theory.parts import LogNoncentral, LogResidualNorm, LogSphericalSum, Reciprocal, Tilted
from gradsim.theory.special import LogActiveFraction, LogBeta, LogChiSquared, log_beta_moment, log_gamma_cumulants

PROBABILITIES = np.array([1e-12, 1e-9, 1e-7, 1e-5, 1e-3, 0.3])
SPACING = 2.0**-53
LN2 = np.log(2.0) * (np.arange(6) == 0)


def check(total, low, high, lower, upper):
    """The distribution function of `total` at low and high, against lower and upper tails there."""
    np.testing.assert_allclose(total.cdf(np.asarray(low)), lower, rtol=1e-4, atol=0)
    np.testing.assert_allclose(1.0 - total.cdf(np.asarray(high)), upper, rtol=1e-4, atol=SPACING)
    for x, expected in ((low, np.asarray(lower)), (high, 1.0 - np.asarray(upper))):
        np.testing.assert_allclose(total.cdf(np.asarray(x)), expected, rtol=0, atol=1e-10)


def by_quantiles(total, law):
    check(total, np.log(law.ppf(PROBABILITIES)), np.log(law.isf(PROBABILITIES)), PROBABILITIES, PROBABILITIES)


@pytest.mark.parametrize("degrees", [1, 2, 16, 1000])
def test_chi_squared_and_its_reciprocal(degrees):
    by_quantiles(Sum({LogChiSquared(degrees): 1}, 0.0), stats.chi2(degrees))
    by_quantiles(Sum({Reciprocal(LogChiSquared(degrees)): 1}, 0.0), stats.invgamma(degrees / 2, scale=0.5))


@pytest.mark.parametrize(("degrees", "slope"), [(1, -0.2), (16, -5.0), (300, 40.0)])
def test_a_tilted_chi_squared_is_one_of_other_degrees(degrees, slope):
    tilted, other = Tilted(LogChiSquared(degrees), slope), stats.chi2(degrees + 2 * slope)
    expected = log_gamma_cumulants(degrees / 2 + slope) + LN2
    np.testing.assert_allclose(tilted.cumulants[:3], expected[:3], rtol=1e-6)
    assert (tilted.pole, tilted.reach) == (degrees / 2 + slope, np.inf)
    x = np.log(other.ppf([1e-3, 0.3, 0.99]))
    np.testing.assert_allclose(Sum({tilted: 1}, 0.0).density(x), other.pdf(np.exp(x)) * np.exp(x), rtol=1e-9)
    np.testing.assert_allclose(
        Sum({LogChiSquared(degrees): 1}, 0.5).tilted(slope).density(x + 0.5), Sum({tilted: 1}, 0.0).density(x)
    )
    reciprocal = Tilted(Reciprocal(LogChiSquared(degrees)), -slope)
    assert reciprocal.reach == tilted.pole
    np.testing.assert_allclose(reciprocal.cumulants[:2], tilted.cumulants[:2] * [-1.0, 1.0], rtol=1e-9)


@pytest.mark.parametrize(("above", "below"), [(1, 2), (7, 8), (255, 256)])
def test_ratio_of_chi_squared(above, below):
    total = Sum({LogChiSquared(above): 1, Reciprocal(LogChiSquared(below)): 1}, 0.0)
    by_quantiles(total, stats.betaprime(above / 2, below / 2))


@pytest.mark.parametrize(("inside", "outside"), [(1, 3), (64, 1), (7, 4), (5, 60)])
def test_beta(inside, outside):
    law = stats.beta(inside / 2, outside / 2)
    total = Sum({LogBeta(inside, outside): 1}, 0.0)
    low = np.log(law.ppf(PROBABILITIES))
    np.testing.assert_allclose(total.cdf(low), PROBABILITIES, rtol=1e-4)
    # Near B = 1 what is left of it is the small number; -ln B = -log1p(-(1 - B)).
    left = stats.beta(outside / 2, inside / 2).ppf(PROBABILITIES)
    np.testing.assert_allclose(1.0 - total.cdf(np.log1p(-left)), PROBABILITIES, rtol=1e-4, atol=4 * SPACING)


@pytest.mark.parametrize(("degrees", "noncentrality"), [(3, 0.5), (16, 40.0), (256, 1e5)])
def test_noncentral_chi_squared(degrees, noncentrality):
    j = np.arange(max(0, int(noncentrality / 2 - 4000)), int(noncentrality / 2 + 4000))
    weights = stats.poisson.pmf(j, noncentrality / 2)

    def tail(log_x, incomplete):
        return weights @ incomplete(degrees / 2 + j, np.exp(log_x) / 2)

    total = Sum({LogNoncentral(degrees, noncentrality): 1}, np.log(degrees + noncentrality))
    mean, sd = total.cumulants()[0], np.sqrt(total.cumulants()[1])
    low, high = mean - sd * np.array([2.0, 5.0, 7.0]), mean + sd * np.array([2.0, 3.0])
    below, above = [tail(x, special.gammainc) for x in low], [tail(x, special.gammaincc) for x in high]
    check(total, low, high, below, above)
    with mpmath.workdps(30):
        x = mpmath.exp(mpf(float(low[1]))) / 2
        few = range(max(0, int(noncentrality / 2) - 60), int(noncentrality / 2) + 60)
        one = [mpmath.gammainc(mpf(degrees) / 2 + i, 0, x, regularized=True) for i in few[::20]]
        one = np.array([float(value) for value in one])
        np.testing.assert_allclose(special.gammainc(degrees / 2 + np.array(few[::20]), float(x)), one, rtol=1e-8)


@pytest.mark.parametrize(("width", "ratio"), [(3, 0.8), (8, 6.0)])
def test_residual_norm(width, ratio):
    """Both Poisson variables summed, the second's mixed law in closed form by Kummer's function."""
    n, r = mpf(width), mpf(ratio)

    def joint(k, j):
        a = (n - 1) / 2 + j
        mixed = mpmath.hyp1f1(0.5, a + k + 0.5, r) * mpmath.exp(-r) * r**k / mpmath.factorial(k)
        mixed *= mpmath.beta(a + k, 0.5) / mpmath.beta(a, 0.5)
        return mixed * mpmath.exp(-r) * r**j / mpmath.factorial(j)

    size = int(ratio + 14 * ratio**0.5 + 25)
    weights = [[joint(k, j) for j in range(size)] for k in range(size)]

    def tail(log_x, lower):
        x = mpmath.exp(mpf(float(log_x)))
        ends = (0, x / (1 + x)) if lower else (x / (1 + x), 1)
        return float(
            sum(
                weights[k][j] * mpmath.betainc((n - 1) / 2 + k, n / 2 + j, *ends, regularized=True)
                for k in range(size)
                for j in range(size)
                if weights[k][j] > 1e-22
            )
        )

    total = Sum({LogResidualNorm(width, ratio): 1}, 0.0)
    sd = np.sqrt(total.cumulants()[1])
    low, high = total.cumulants()[0] - sd * np.array([1.0, 6.0]), total.cumulants()[0] + sd * np.array([1.0, 5.0])
    check(total, low, high, [tail(x, True) for x in low], [tail(x, False) for x in high])


@pytest.mark.parametrize(("width", "probability"), [(2, 0.9), (9, 0.2), (40, 0.45)])
def test_active_fraction_of_other_odds(width, probability):
    k = np.arange(1, width + 1)
    weights = stats.binom.pmf(k, width, probability) / (1 - (1 - probability) ** width)
    b = np.array([1e-9, 0.01, 0.3, 0.8])
    inner = [stats.beta(j / 2, (width - j) / 2) for j in k[:-1]]
    below = np.array([sum(w * law.cdf(v) for w, law in zip(weights[:-1], inner, strict=True)) for v in b])
    total = Sum({LogActiveFraction(width, probability): 1}, 0.0)
    np.testing.assert_allclose(total.cdf(np.log(b)), below, atol=1e-10, rtol=1e-4)
    assert total.atom() == pytest.approx(weights[-1], rel=1e-12)


@pytest.mark.parametrize(("width", "slope"), [(2, 0.3), (9, 0.02), (200, 0.6)])
def test_spherical_sum(width, slope):
    """E e^{sX} by quadrature over the angle between the two vectors."""
    r = (1 - slope) / (1 + slope)
    for s in (0.7 + 2.0j, -0.2 + 5.0j):
        norm = mpmath.quad(lambda t: mpmath.sin(t) ** (width - 2), [0, mpmath.pi / 2, mpmath.pi])
        moment = mpmath.quad(
            lambda t, s=s: mpmath.sin(t) ** (width - 2) * ((1 + 2 * r * mpmath.cos(t) + r**2) / (1 + r) ** 2) ** s,
            np.linspace(0, np.pi, 9).tolist(),
        )
        found = np.exp(LogSphericalSum(width, slope).log_moment(np.array([s])))[0]
        assert found == pytest.approx(complex(moment / norm), rel=1e-9)


def test_beta_moment_far_out():
    s = np.array([1e13 + 1e12j, -3e5 + 2e5j, 150.0 + 10.0j])
    expected = [complex(mpmath.log(mpmath.gammaprod([3 + v, mpf(3.5)], [3, 3.5 + v]))) for v in s]
    assert np.exp(log_beta_moment(3.0, 0.5, s) - expected) == pytest.approx(1.0, rel=1e-10)


def test_tails_join_the_body():
    total = Sum({LogActiveFraction(12): 6, LogChiSquared(12): 6}, 0.0)
    mean, sd = total.cumulants()[0], np.sqrt(total.cumulants()[1])
    edge = optimize.brentq(lambda x: total.cdf(np.array(x)) - 1e-6, mean - 12 * sd, mean)
    x = edge + np.linspace(-1e-3, 1e-3, 201) * sd
    logs = np.log(total.cdf(x))
    assert np.abs(np.diff(logs, 2)).max() < 1e-7
