"""Activations and their derivatives against finite differences, in both dtypes and at the extremes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gradsim import activations
from gradsim.errors import ExperimentError


@pytest.mark.parametrize("name", activations.NAMES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_and_shape_are_kept(name, dtype):
    phi = activations.get(name, negative_slope=0.2)
    z = np.linspace(-3, 3, 12, dtype=dtype).reshape(3, 4)
    for f in (phi.phi, phi.dphi):
        assert f(z).dtype == dtype
        assert f(z).shape == z.shape


@pytest.mark.parametrize("name", activations.NAMES)
def test_derivative_is_the_slope(name):
    phi = activations.get(name, negative_slope=0.2)
    z = np.array([-4.0, -1.3, -0.2, 0.3, 1.1, 5.0])
    step = 1e-6
    slope = (phi.phi(z + step) - phi.phi(z - step)) / (2 * step)
    np.testing.assert_allclose(phi.dphi(z), slope, rtol=1e-8, atol=1e-9)


def test_kinks_take_the_left_derivative():
    zero = np.zeros(1)
    assert activations.get("relu").dphi(zero) == 0.0
    assert activations.get("leaky_relu", 0.3).dphi(zero) == 0.3


def test_tanh_derivative_neither_cancels_nor_overflows():
    dphi = activations.get("tanh").dphi
    z = np.array([20.0, -300.0, 1e4, -1e308])
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        result = dphi(z)
    assert result[0] == pytest.approx(4.0 * math.exp(-40.0), rel=1e-12)
    assert result[1] == pytest.approx(4.0 * math.exp(-600.0), rel=1e-12)
    assert list(result[2:]) == [0.0, 0.0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["erf", "sigmoid", "gelu", "silu"])
def test_far_out_the_value_is_the_limit(name, dtype):
    phi = activations.get(name)
    z = np.array([-1e30, -200.0, 200.0, 1e30], dtype=dtype)
    low, high = {"erf": (-1, 1), "sigmoid": (0, 1), "gelu": (0, z[2:]), "silu": (0, z[2:])}[name]
    slope = 0.0 if name in ("erf", "sigmoid") else 1.0
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        values, slopes = phi.phi(z), phi.dphi(z)
    np.testing.assert_allclose(values, [low, low, *np.broadcast_to(high, 2)], atol=1e-30)
    np.testing.assert_allclose(slopes, [0, 0, slope, slope], atol=1e-30)


def test_quoted_values():
    """At 1 and -2, to ten digits; gelu is the exact one, not the one with tanh."""
    quoted = {
        "erf": (0.8427007929, -0.9953222650),
        "sigmoid": (0.7310585786, 0.1192029220),
        "gelu": (0.8413447461, -0.0455002639),
        "silu": (0.7310585786, -0.2384058440),
    }
    for name, values in quoted.items():
        np.testing.assert_allclose(activations.get(name).phi(np.array([1.0, -2.0])), values, rtol=1e-9)


@pytest.mark.parametrize("name", ["linear", "relu", "leaky_relu"])
def test_homogeneous_activations_scale(name):
    phi = activations.get(name, negative_slope=0.2)
    z = np.random.default_rng(0).standard_normal(200_000)
    assert phi.homogeneous
    np.testing.assert_allclose(phi.phi(3.0 * z), 3.0 * phi.phi(z))
    assert np.mean(phi.dphi(z) ** 2) == pytest.approx(phi.mean_square, abs=0.01)


def test_unknown_name_is_refused():
    with pytest.raises(ExperimentError, match="'swish' is unknown; choose one of linear, relu"):
        activations.get("swish")
