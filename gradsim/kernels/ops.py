"""Activations and their derivatives: scalar functions, written once, compiled for each target elsewhere."""

from __future__ import annotations

import math

# From TANH on, phi is not homogeneous: its slopes are never all zero in the law, however small they are.
LINEAR, RELU, LEAKY_RELU, TANH, ERF, SIGMOID, GELU, SILU = range(8)
ACTIVATION_CODES = {
    "linear": LINEAR,
    "relu": RELU,
    "leaky_relu": LEAKY_RELU,
    "tanh": TANH,
    "erf": ERF,
    "sigmoid": SIGMOID,
    "gelu": GELU,
    "silu": SILU,
}

ROOT_HALF = math.sqrt(0.5)
ERF_SLOPE = 2.0 / math.sqrt(math.pi)
DENSITY = 1.0 / math.sqrt(2.0 * math.pi)


def relu(z):
    """(phi, phi') of max(z, 0), with phi'(0) = 0; NaN stays NaN."""
    if z > 0.0:
        return z, 1.0
    if z <= 0.0:
        return 0.0, 0.0
    return z, z


def leaky_relu(z, slope):
    """(phi, phi') of z for z > 0, slope z otherwise; phi'(0) = slope."""
    if z > 0.0:
        return z, 1.0
    return slope * z, slope


def tanh(z):
    """(phi, phi') of tanh, the derivative as 4 t/(1 + t)^2 with t = exp(-2|z|): it neither cancels nor overflows."""
    t = math.exp(-2.0 * abs(z))
    return math.tanh(z), 4.0 * t / ((1.0 + t) * (1.0 + t))


def erf(z):
    """(phi, phi') of erf."""
    return math.erf(z), ERF_SLOPE * math.exp(-z * z)


def sigmoid(z):
    """(phi, phi') of 1 / (1 + exp(-z)), the derivative as t / (1 + t)^2 with t = exp(-|z|)."""
    t = math.exp(-abs(z))
    value = 1.0 / (1.0 + t) if z >= 0.0 else t / (1.0 + t)
    return value, t / ((1.0 + t) * (1.0 + t))


def gelu(z):
    """(phi, phi') of z Phi(z), Phi the standard normal distribution function (exact, not the tanh form)."""
    below = 0.5 * math.erfc(-ROOT_HALF * z)
    return z * below, below + z * DENSITY * math.exp(-0.5 * z * z)


def silu(z):
    """(phi, phi') of z times the sigmoid of z."""
    t = math.exp(-abs(z))
    small, large = t / (1.0 + t), 1.0 / (1.0 + t)
    value, rest = (large, small) if z >= 0.0 else (small, large)
    return z * value, value * (1.0 + z * rest)
