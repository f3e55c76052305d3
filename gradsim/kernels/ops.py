"""Activations and their derivatives: scalar functions, written once, compiled for each target elsewhere."""

from __future__ import annotations

import math

import numpy as np

from .bits import double_bits, double_from_bits

u64 = np.uint64

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
LOG2_E = 1.0 / math.log(2.0)
LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
TO_INTEGER = 1.5 * 2.0**52  # what is added to this is rounded to an integer, in the low bits
LARGEST = 708.0  # exp(-x) beyond it is no normal number, and taken as zero
DENSITY = 1.0 / math.sqrt(2.0 * math.pi)


def relu(z, one):
    """(phi, phi') of max(z, 0), with phi'(0) = 0; NaN stays NaN. `one` and what comes out are of the type of z."""
    zero = one - one
    return zero if z <= zero else z, one if z > zero else (zero if z <= zero else z)


def leaky_relu(z, slope, one):
    """(phi, phi') of z for z > 0, slope z otherwise; phi'(0) = slope; all of one type."""
    positive = z > one - one
    return z if positive else slope * z, one if positive else slope


def decay(x):
    """exp(-x) and exp(-x) - 1 for x >= 0, neither by a difference; NaN stays NaN.

    By Cody and Waite (1980): -x = k ln 2 + r, a polynomial in r, and 2^k by its bits; the error is below two units in
    the last place. Unlike `math.exp` it is arithmetic without a call, so that loops of it run as vectors.
    """
    y = -LARGEST if x >= LARGEST else -x
    shifted = y * LOG2_E + TO_INTEGER
    k = shifted - TO_INTEGER
    r = (y - k * LN2_HIGH) - k * LN2_LOW
    p = 1.0 / 6227020800.0 * r + 1.0 / 479001600.0
    p = p * r + 1.0 / 39916800.0
    p = p * r + 1.0 / 3628800.0
    p = p * r + 1.0 / 362880.0
    p = p * r + 1.0 / 40320.0
    p = p * r + 1.0 / 5040.0
    p = p * r + 1.0 / 720.0
    p = p * r + 1.0 / 120.0
    p = p * r + 1.0 / 24.0
    p = p * r + 1.0 / 6.0
    p = p * r + 0.5
    p = p * r * r + r
    two_k = double_from_bits(u64(u64(double_bits(shifted) + u64(1023)) << u64(52)))
    return 0.0 if x >= LARGEST else two_k * p + two_k, two_k * p + (two_k - 1.0)


def tanh(z):
    """(phi, phi') of tanh, the derivative as 4 t/(1 + t)^2 with t = exp(-2|z|): it neither cancels nor overflows."""
    t, below = decay(2.0 * abs(z))
    inverse = 1.0 / (1.0 + t)
    size = -below * inverse
    return -size if z < 0.0 else size, 4.0 * t * inverse * inverse


def erf(z):
    """(phi, phi') of erf."""
    return math.erf(z), ERF_SLOPE * decay(z * z)[0]


def logistic(z):
    """1 / (1 + exp(-z)), its derivative as t / (1 + t)^2, t = exp(-|z|), and what is left of 1 without a difference."""
    t, _ = decay(abs(z))
    large = 1.0 / (1.0 + t)
    small = t * large
    return small if z < 0.0 else large, small * large, large if z < 0.0 else small


def sigmoid(z):
    """(phi, phi') of 1 / (1 + exp(-z))."""
    value, slope, _ = logistic(z)
    return value, slope


def gelu(z):
    """(phi, phi') of z Phi(z), Phi the standard normal distribution function (exact, not the tanh form)."""
    below = 0.5 * math.erfc(-ROOT_HALF * z)
    return z * below, below + z * DENSITY * decay(0.5 * z * z)[0]


def silu(z):
    """(phi, phi') of z times the sigmoid of z."""
    value, _, rest = logistic(z)
    return z * value, value * (1.0 + z * rest)
