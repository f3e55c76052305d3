"""Activations and their derivatives: scalar functions, written once, compiled for each target elsewhere."""

from __future__ import annotations

import math

LINEAR, RELU, LEAKY_RELU, TANH = range(4)
ACTIVATION_CODES = {"linear": LINEAR, "relu": RELU, "leaky_relu": LEAKY_RELU, "tanh": TANH}


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
