"""Gaussian expectations, fixed points and critical gains against mpmath and quoted values."""

from __future__ import annotations

import itertools
import math

import mpmath
import pytest
from scipy import integrate

from gradsim import activations
from gradsim.criticality import chi, critical_gain, fixed_point, gaussian_squares, half_stable, next_variance
from gradsim.errors import ExperimentError
from gradsim.gaussian import cross_moments, moments
from tests.limit_brute import PHI

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


#: (q, gain^2, bias^2) at the half-stable points, solved with mpmath to 25 digits as E phi phi'' = 0, chi = 1.
HALF_STABLE = {
    "gelu": (3.5615528128088, 1.9830582574375, 0.17292239075607),
    "silu": (14.320173618026, 1.9880046782695, 0.55514317072153),
}


@pytest.mark.parametrize("name", HALF_STABLE)
def test_half_stable_points(name):
    """Roberts, Yaida and Hanin quote 1.98305826, 0.17292239 and 1.98800468, 0.55514317; 0.0555 is a slip."""
    point = half_stable(name)
    assert point == pytest.approx(HALF_STABLE[name], abs=1e-8)
    gain, bias = critical_gain(name)
    assert (gain**2, bias**2) == pytest.approx(HALF_STABLE[name][1:], abs=1e-9)
    phi = activations.get(name)
    # The map touches the diagonal from one side: it crosses it nowhere within 0.2 % of the point.
    near = [next_variance(phi, point.q * x, gain, bias) - point.q * x for x in (0.998, 0.999, 1.001, 1.002)]
    assert all(value > 0 for value in near) or all(value < 0 for value in near)
    # With the bias of the slip (0.0555) it is no fixed point.
    assert abs(next_variance(phi, point.q, gain, math.sqrt(0.0555)) - point.q) > 0.1


@pytest.mark.parametrize(
    ("name", "bias"),
    [("gelu", 0.42), ("gelu", 2.0), ("gelu", 1e6), ("silu", 0.75), ("silu", 3.0), ("sigmoid", 0.0), ("sigmoid", 5.0)],
)
def test_critical_gains_are_at_a_stable_fixed_point(name, bias):
    gain, same = critical_gain(name, bias=bias)
    assert same == bias
    phi = activations.get(name)
    q = fixed_point(phi, gain, bias, 1e3)
    assert chi(phi, q, gain) == pytest.approx(1.0, abs=1e-9)
    if math.isfinite(q) and bias < 10.0:
        # The iterates come back to it from both sides.
        assert abs(next_variance(phi, 1.01 * q, gain, bias) - q) < 0.01 * q
        assert abs(next_variance(phi, 0.99 * q, gain, bias) - q) < 0.01 * q


def test_sigmoid_is_critical_at_a_large_gain():
    """chi stays below 1 up to gain^2 = 103.0076, where q* = 45.624: mpmath."""
    gain, bias = critical_gain("sigmoid")
    assert (gain**2, bias) == (pytest.approx(103.0075538555, abs=1e-9), 0.0)
    phi = activations.get("sigmoid")
    for smaller in (1.0, 5.0, 10.0, 10.14):
        assert chi(phi, fixed_point(phi, smaller, 0.0), smaller) < 1.0


@pytest.mark.parametrize(("name", "bias"), [("gelu", 0.0), ("gelu", 0.4), ("silu", 0.0), ("silu", 0.7)])
def test_no_critical_gain_where_the_fixed_point_is_unstable(name, bias):
    with pytest.raises(ExperimentError, match=f"{name} has no critical gain at bias {bias:g}: .* unstable"):
        critical_gain(name, bias=bias)


def test_fixed_points_depend_on_the_start_where_one_is_unstable():
    gelu = activations.get("gelu")
    gain = math.sqrt(3.0)
    assert fixed_point(gelu, gain, 0.0, 0.05) == 0.0
    assert fixed_point(gelu, gain, 0.0, 3.0) == math.inf
    assert fixed_point(gelu, math.sqrt(2.0), 0.0) == 0.0
    point = half_stable("silu")
    assert fixed_point(activations.get("silu"), *critical_gain("silu")) == pytest.approx(point.q)


@pytest.mark.parametrize("name", ["tanh", "erf", "sigmoid", "gelu", "silu"])
def test_the_variance_map_increases(name):
    phi = activations.get(name)
    values = [gaussian_squares(phi, 1.3**k)[0] for k in range(-40, 60)]
    assert all(a < b for a, b in itertools.pairwise(values))


@pytest.mark.parametrize("name", ["sigmoid", "gelu", "silu"])
@pytest.mark.parametrize("q", [1e-3, 2.0, 75.0, 1e6])
def test_moments_agree_with_another_quadrature(name, q):
    """SciPy's adaptive quadrature on the two sides of 0, with SciPy's own functions."""
    phi, dphi = PHI[name]
    root = math.sqrt(q)
    edges = [0.0, *(x / max(root, 1.0) for x in (0.5, 2.0, 8.0, 32.0)), 14.0]
    ranges = list(itertools.pairwise(sorted({min(x, 14.0) for x in edges})))

    def expectation(f):
        def both(z):
            return (f(root * z) + f(-root * z)) * math.exp(-z * z / 2.0) / math.sqrt(2.0 * math.pi)

        return sum(integrate.quad(both, a, b, epsabs=0.0, epsrel=1e-12, limit=200)[0] for a, b in ranges if b > a)

    activation = activations.get(name)
    found = moments(activation, q)
    mean = expectation(phi)
    expected = (mean, expectation(lambda x: phi(x) ** 2), expectation(lambda x: dphi(x) ** 2))
    assert found[:3] == pytest.approx(expected, rel=1e-11)
    assert found.variance == pytest.approx(expectation(lambda x: (phi(x) - mean) ** 2), rel=1e-9)
    crossed = (
        expectation(lambda x: x * dphi(x)),
        expectation(lambda x: x * phi(x) * dphi(x)),
        expectation(lambda x: (x * dphi(x)) ** 2),
        expectation(lambda x: phi(x) * dphi(x) ** 2),
        expectation(lambda x: (phi(x) * dphi(x)) ** 2),
    )
    # x phi' of sigmoid is odd: only its scale says how well 0 is met.
    assert cross_moments(activation, q) == pytest.approx(crossed, rel=1e-10, abs=1e-11 * min(1.0, math.sqrt(q)))


@pytest.mark.parametrize("name", ["tanh", "erf", "sigmoid", "gelu", "silu"])
def test_small_variances_join_the_first_order(name):
    phi = activations.get(name)
    below, above = ((*moments(phi, q), *cross_moments(phi, q)) for q in (0.999 * 2.0**-54, 1.001 * 2.0**-54))
    for a, b in zip(below, above, strict=True):
        # Each is constant, of order q, or (the products of phi(0) = 0 with odd functions) zero.
        assert any(a == pytest.approx(b * ratio, rel=1e-5, abs=1e-24) for ratio in (1.0, 0.999 / 1.001))


def test_what_is_no_number_stays_none():
    assert all(math.isnan(value) for value in moments(TANH, math.nan))
    assert moments(TANH, math.inf)[1] == pytest.approx(1.0)


def test_means_of_rectifiers():
    assert moments(activations.get("relu"), 3.0).mean == pytest.approx(math.sqrt(3.0 / (2.0 * math.pi)))
    assert moments(activations.get("leaky_relu", 0.5), 3.0).mean == pytest.approx(math.sqrt(3.0 / (8.0 * math.pi)))
    assert moments(activations.get("linear"), 3.0).mean == 0.0


def test_far_out_gelu_is_a_rectifier():
    gelu = activations.get("gelu")
    below, above = moments(gelu, 0.99 * 2.0**100), moments(gelu, 1.01 * 2.0**100)
    assert below.square / 0.99 == pytest.approx(above.square / 1.01, rel=1e-12)
    assert moments(gelu, math.inf).slope == 0.5
