"""Gaussian expectations, fixed points and critical gains against mpmath and quoted values."""

from __future__ import annotations

import math

import mpmath
import pytest

from gradsim import activations
from gradsim.criticality import chi, critical_gain, fixed_point, gaussian_squares, next_variance
from gradsim.errors import ExperimentError

TANH = activations.get("tanh")


@pytest.mark.parametrize("q", [1e-6, 0.3, 3.0, 75.0, 1e6])
def test_expectations_agree_with_high_precision_quadrature(q):
    root = mpmath.sqrt(q)
    edges = sorted(
        {
            0.0,
            1.0,
            3.0,
            8.0,
            20.0,
            *(x / math.sqrt(q) for x in (0.5, 1, 2, 4, 8, 16) if x < 20 * math.sqrt(q)),
        }
    )

    def expectation(f):
        return 2 * mpmath.quad(lambda z: f(root * z) ** 2 * mpmath.npdf(z), edges)

    square, slope = gaussian_squares(TANH, q)
    assert square == pytest.approx(float(expectation(mpmath.tanh)), rel=1e-12)
    assert slope == pytest.approx(float(expectation(lambda x: mpmath.sech(x) ** 2)), rel=1e-12)


def test_narrow_peak_that_gauss_hermite_misses():
    assert gaussian_squares(TANH, 75.0)[1] == pytest.approx(0.0613, abs=5e-5)


def test_zero_variance():
    assert gaussian_squares(TANH, 0.0) == (0.0, 1.0)


def test_homogeneous_expectations_are_closed_forms():
    assert gaussian_squares(activations.get("relu"), 3.0) == (1.5, 0.5)
    assert gaussian_squares(activations.get("leaky_relu", 0.5), 2.0) == (1.25, 0.625)


@pytest.mark.parametrize(("gain", "rate"), [(1.5, 0.0652), (2.0, 0.1547), (3.0, 0.3103)])
def test_growth_at_the_fixed_point_of_tanh(gain, rate):
    q = fixed_point(TANH, gain, 0.0)
    assert next_variance(TANH, q, gain, 0.0) == pytest.approx(q, rel=1e-12)
    assert math.log(chi(TANH, q, gain)) / 2 == pytest.approx(rate, abs=6e-5)


def test_fixed_points_at_the_edges():
    assert fixed_point(TANH, 1.0, 0.0) == 0.0
    assert fixed_point(TANH, 0.5, 0.0) == 0.0
    relu = activations.get("relu")
    assert fixed_point(relu, 1.0, 0.5) == pytest.approx(0.5)
    assert fixed_point(relu, 1.5, 0.5) == math.inf
    assert fixed_point(relu, math.sqrt(2.0), 0.5) == math.inf
    assert math.isnan(fixed_point(relu, math.sqrt(2.0), 0.0))


@pytest.mark.parametrize(
    ("name", "pair"),
    [
        ("linear", (1.0, 0.0)),
        ("relu", (math.sqrt(2.0), 0.0)),
        ("leaky_relu", (math.sqrt(2.0 / 1.04), 0.0)),
        ("tanh", (1.0, 0.0)),
    ],
)
def test_documented_pairs(name, pair):
    assert critical_gain(name, negative_slope=0.2) == pytest.approx(pair)
    assert critical_gain(name, bias=0.0, negative_slope=0.2) == pytest.approx(pair)


@pytest.mark.parametrize("bias", [1e-8, 1e-3, 0.1, 1.0, 30.0, 1e4])
def test_critical_line_of_tanh(bias):
    gain, same = critical_gain("tanh", bias=bias)
    assert same == bias
    assert gain > 1.0
    assert chi(TANH, fixed_point(TANH, gain, bias), gain) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("name", ["linear", "relu", "leaky_relu"])
def test_no_critical_gain_with_bias(name):
    with pytest.raises(ExperimentError, match=f"{name} has no critical gain at bias 0.1"):
        critical_gain(name, bias=0.1)


@pytest.mark.parametrize("bias", [-1.0, math.nan, math.inf])
def test_impossible_bias(bias):
    with pytest.raises(ExperimentError, match="bias must be a number from 0"):
        critical_gain("tanh", bias=bias)


@pytest.mark.parametrize("name", ["swoosh", 3, None])
def test_an_unknown_activation(name):
    with pytest.raises(ExperimentError, match="is not allowed: activation is one of linear, relu"):
        critical_gain(name)


@pytest.mark.parametrize("q", [1e-6, 0.3, 3.0, 75.0, 1e6])
def test_expectations_of_erf_have_closed_forms(q):
    """E erf^2 = (2/pi) arcsin(2q/(1 + 2q)) and E erf'^2 = (4/pi)/sqrt(1 + 4q) (Williams 1998)."""
    square, slope = gaussian_squares(activations.get("erf"), q)
    assert square == pytest.approx(2 / math.pi * math.asin(2 * q / (1 + 2 * q)), rel=1e-12)
    assert slope == pytest.approx(4 / math.pi / math.sqrt(1 + 4 * q), rel=1e-12)


def test_critical_gains_of_erf():
    assert critical_gain("erf") == (pytest.approx(math.sqrt(math.pi) / 2, rel=1e-14), 0.0)
    gain, bias = critical_gain("erf", bias=0.2)
    erf = activations.get("erf")
    assert bias == 0.2
    assert chi(erf, fixed_point(erf, gain, bias), gain) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("name", ["sigmoid", "gelu", "silu"])
def test_activations_whose_critical_gain_is_not_supported_say_so(name):
    with pytest.raises(ExperimentError, match=f"critical gain of {name} is not supported yet; it is for linear, relu"):
        critical_gain(name)
