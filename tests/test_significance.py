"""p-values against exact ones, and Holm's adjustment."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from gradsim import significance


def no_outliers(excess):
    return 0.0


def test_normal():
    assert significance.normal_p(-1.959963984540054) == pytest.approx(0.05)
    assert significance.normal_quantile(0.975) == pytest.approx(1.959963984540054)


def test_mean_takes_the_exact_tail_until_it_is_too_small_to_invert():
    assert significance.mean_p(0.0, 0.01) == pytest.approx(0.02)
    assert significance.mean_p(0.0, 0.99) == pytest.approx(0.02)
    assert significance.mean_p(8.0, 1.0) == significance.normal_p(8.0)
    assert significance.mean_p(2.0, None) == significance.normal_p(2.0)


@pytest.mark.parametrize("n", [2, 10, 1000])
def test_sample_variance_of_gaussian_draws_is_chi_squared(n):
    sigma2 = 2.5
    spread, third = significance.variance_law(n, np.array([1.0, sigma2, 0.0, 0.0, 0.0, 0.0]))
    assert spread == pytest.approx(2 * sigma2**2 / (n - 1))
    for value in (0.4, 2.5, 4.0):
        x = (n - 1) * value / sigma2
        p = significance.spread_p(value, sigma2, spread, third, no_outliers)
        assert p == pytest.approx(2 * min(stats.chi2.cdf(x, n - 1), stats.chi2.sf(x, n - 1)), rel=1e-9)


def test_sample_variance_of_exponential_draws():
    cumulants = np.array([math.factorial(j) for j in range(6)], dtype=float)
    n = 7
    draws = np.random.default_rng(3).exponential(size=(400_000, n)).var(axis=1, ddof=1)
    spread, third = significance.variance_law(n, cumulants)
    assert draws.var() == pytest.approx(spread, rel=0.03)
    assert np.mean((draws - 1) ** 3) == pytest.approx(third, rel=0.2)


def test_outliers_add_to_the_upper_tail_only():
    asked = []

    def outliers(excess):
        asked.append(excess)
        return 0.25

    assert significance.spread_p(0.5, 1.0, 0.02, 0.0008, outliers) < 1e-3
    assert significance.spread_p(1.0, 1.0, 0.02, 0.0008, outliers) > 0.9
    assert asked == []
    assert significance.spread_p(3.0, 1.0, 0.02, 0.0008, outliers) == pytest.approx(0.5)
    assert asked == [2.0]


def test_ks_agrees_with_scipy():
    sample = np.sort(np.random.default_rng(0).uniform(size=500) ** 1.2)
    expected = stats.kstest(sample, "uniform")
    distance = significance.ks_distance(sample, sample, sample)
    assert distance == pytest.approx(expected.statistic)
    assert significance.ks_p(distance, 500) == pytest.approx(expected.pvalue, rel=0.02)


def test_ks_forgives_rounding():
    exact = (np.arange(1000) + 0.5) / 1000
    rounded = np.round(exact, 1)
    below, above = np.clip(rounded - 0.05, 0, 1), np.clip(rounded + 0.05, 0, 1)
    assert significance.ks_distance(rounded, rounded, rounded) > 0.04
    assert significance.ks_distance(rounded, below, above) < 0.002


@pytest.mark.parametrize(
    ("count", "n", "p"), [(0, 10, 0.3), (7, 10, 0.3), (10, 10, 0.9), (40, 1000, 0.05), (0, 1, 1e-300)]
)
def test_binomial_is_twice_the_smaller_tail(count, n, p):
    law = stats.binom(n, p)
    expected = min(1.0, 2 * min(law.cdf(count), law.sf(count - 1)))
    assert significance.binomial_p(count, n, p) == pytest.approx(expected)


def test_binomial_where_the_outcome_is_certain():
    assert significance.binomial_p(0, 5, 0.0) == 1.0
    assert significance.binomial_p(1, 5, 0.0) == 0.0
    assert significance.binomial_p(5, 5, 1.0) == 1.0


def test_holm():
    assert significance.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert significance.holm([0.9, 0.8]) == [1.0, 1.0]
    assert significance.holm([]) == []
