"""Inverted distribution functions against closed forms and against each other."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from scipy import integrate, special, stats

from gradsim.chain import Chain
from gradsim.theory.inversion import Sum
from gradsim.theory.registry import find
from gradsim.theory.special import LogActiveFraction, LogBeta, LogChiSquared, LogLeakyFraction


def test_constant():
    np.testing.assert_array_equal(Sum({}, 0.5).cdf(np.array([0.4, 0.5, 0.6])), [0.0, 1.0, 1.0])


@pytest.mark.parametrize("degrees", [1, 2, 16, 1000, 100_000])
def test_one_chi_squared(degrees):
    law = stats.chi2(degrees)
    x = np.log(law.ppf(np.concatenate([[1e-10, 1e-6], np.linspace(0.001, 0.999, 101), [1 - 1e-9]])))
    result = Sum({LogChiSquared(degrees): 1}, 0.7).cdf(x + 0.7)
    np.testing.assert_allclose(result, law.cdf(np.exp(x)), atol=1e-12)


def test_many_gammas_are_lognormal_in_the_limit():
    total = Sum({LogChiSquared(50): 100_000}, 0.0)
    mean, var = total.cumulants()[:2]
    z = np.array([-2.0, 0.0, 1.0])
    np.testing.assert_allclose(total.cdf(mean + z * math.sqrt(var)), special.ndtr(z), atol=2e-4)


def test_product_of_two_squared_normals():
    x = np.array([1e-3, 0.1, 1.0, 5.0])
    direct = [
        integrate.quad(lambda u, v=v: stats.chi2.cdf(v / u, 1) * stats.chi2.pdf(u, 1), 0, np.inf, limit=500)[0]
        for v in x
    ]
    np.testing.assert_allclose(Sum({LogChiSquared(1): 2}, 0.0).cdf(np.log(x)), direct, atol=1e-7)


@pytest.mark.parametrize(("inside", "outside"), [(1, 1), (64, 1), (7, 4), (5, 60)])
def test_one_beta(inside, outside):
    law = stats.beta(inside / 2, outside / 2)
    x = np.log(law.ppf(np.linspace(0.001, 0.999, 51)))
    np.testing.assert_allclose(Sum({LogBeta(inside, outside): 1}, 0.0).cdf(x), law.cdf(np.exp(x)), atol=1e-10)


@pytest.mark.parametrize("width", [2, 5, 30, 80])
def test_one_active_fraction_with_its_atom(width):
    k = np.arange(1, width + 1)
    weights = stats.binom.pmf(k, width, 0.5) / (1 - 0.5**width)
    b = np.linspace(0.02, 0.98, 49)
    below = sum(w * special.betainc(j / 2, (width - j) / 2, b) for w, j in zip(weights[:-1], k[:-1], strict=True))
    total = Sum({LogActiveFraction(width): 1}, 0.0)
    np.testing.assert_allclose(total.cdf(np.log(b)), below, atol=1e-10)
    np.testing.assert_array_equal(total.cdf(np.array([0.0, 0.1])), [1.0, 1.0])


def test_the_two_methods_agree():
    total = Sum({LogActiveFraction(12): 6, LogBeta(9, 3): 2}, 0.0)
    mean, var = total.cumulants()[:2]
    y = mean + np.linspace(-5, 3, 41) * math.sqrt(var)
    fourier = total._by_characteristic_function(y)
    assert fourier is not None
    np.testing.assert_allclose(fourier, total._by_laplace_contour(y), atol=1e-10)


def test_law_without_a_method_says_so():
    assert Sum({LogLeakyFraction(2, 0.3): 1}, 0.0).cdf(np.zeros(3)) is None


@pytest.mark.parametrize("layer", [0, 3, 5])
def test_distribution_function_matches_mean_and_variance(layer):
    law = find(Chain(profile=[6, 3, 8, 4, 5, 7], activation="leaky_relu", negative_slope=0.2))
    x = np.linspace(-60.0, 20.0, 400_001)
    tail = 1.0 - law.cdf(x, layer)
    mean = x[0] + np.trapezoid(tail, x)
    second = x[0] ** 2 + np.trapezoid(2.0 * x * tail, x)
    assert mean == pytest.approx(law.mean[layer], abs=2e-4)
    assert second - mean**2 == pytest.approx(law.var[layer], abs=2e-3)


def test_distribution_of_the_mean_of_several_chains():
    law = find(Chain(activation="linear", width=3, depth=2, gain=1.0))
    x = np.array([-1.0, -0.5, 0.0])
    rng = np.random.default_rng(5)
    draws = 0.5 * np.log(rng.chisquare(3, (200_000, 4, 2)) / 3).sum(axis=2).mean(axis=1)
    np.testing.assert_allclose(law.mean_cdf(x, 4), [(draws <= v).mean() for v in x], atol=0.005)


@pytest.mark.parametrize("activation", ["linear", "relu", "leaky_relu"])
def test_a_deep_wide_law_is_quick(activation):
    chain = Chain(activation=activation, width=1024, depth=1000)
    find(Chain(width=8, depth=2)).cdf(np.zeros(1))
    x = np.linspace(-5.0, 5.0, 10_000)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        find(chain).cdf(x)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.2
