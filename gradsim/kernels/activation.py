"""Activations over a vector held as x 2^e: exact at any scale where phi is homogeneous, elsewhere on the true value.

Where all arguments are so small that phi is linear to rounding, it is taken as linear, at any scale.
"""

from __future__ import annotations

import math

import numpy as np

from . import ops
from .bits import keep_out_of_line, prefer_wide_vectors
from .compiling import kernel
from .ops import ERF, GELU, LEAKY_RELU, LINEAR, RELU, SIGMOID, TANH
from .team import each
from .vectors import absolute_maximum, copy

# Powers of two below which phi is linear to half a unit in the last place: after the slope at zero the next term is z^3
# of tanh and erf, z^2 of GELU and SiLU.
CUBIC_32, CUBIC_64 = -13, -27
SQUARE_32, SQUARE_64 = -26, -55
# GELU and SiLU of what exceeds this power of two are those of ReLU to rounding, and exp(-z) has long left float64.
LARGE = 900


@kernel
def rectify(z, h, slopes, n, one):
    """h = max(z, 0) and its slopes."""
    prefer_wide_vectors()
    keep_out_of_line()
    for i in each(n):
        h[i], slopes[i] = ops.relu(z[i], one)


@kernel
def saturate(code, z, h, slopes, n, factor):
    """h = phi(z factor) and its slopes, phi bounded."""
    prefer_wide_vectors()
    keep_out_of_line()
    if code == TANH:
        for i in each(n):
            h[i], slopes[i] = ops.tanh(np.float64(z[i]) * factor)
    elif code == ERF:
        for i in each(n):
            h[i], slopes[i] = ops.erf(np.float64(z[i]) * factor)
    else:
        for i in each(n):
            h[i], slopes[i] = ops.sigmoid(np.float64(z[i]) * factor)


@kernel
def rectify_smoothly(code, z, h, slopes, n, factor, down):
    """h = phi(z factor) down and its slopes, phi = GELU or SiLU, which grow as z does."""
    prefer_wide_vectors()
    keep_out_of_line()
    if code == GELU:
        for i in each(n):
            value, slopes[i] = ops.gelu(np.float64(z[i]) * factor)
            h[i] = value * down
    else:
        for i in each(n):
            value, slopes[i] = ops.silu(np.float64(z[i]) * factor)
            h[i] = value * down


@kernel
def activate(spec, z, h, slopes, n, e):
    """h = phi(z 2^e), slopes = phi'(z 2^e), for the activation's code; returns the exponent of h."""
    keep_out_of_line()
    code = spec.activation
    if code == LINEAR:
        copy(z, h, n)
        return e
    one = z.dtype.type(1)
    if code == RELU:
        rectify(z, h, slopes, n, one)
        return e
    if code == LEAKY_RELU:
        slope = z.dtype.type(spec.slope)
        for i in each(n):
            h[i], slopes[i] = ops.leaky_relu(z[i], slope, one)
        return e
    if code == SIGMOID:
        saturate(code, z, h, slopes, n, math.ldexp(1.0, min(max(e, -1000), 1000)))
        return 0
    largest = absolute_maximum(z, n)
    top = e + math.frexp(largest)[1]
    bounded = code <= ERF
    if z.itemsize == 4:
        linear_below = CUBIC_32 if bounded else SQUARE_32
    else:
        linear_below = CUBIC_64 if bounded else SQUARE_64
    if largest == 0.0 or top < linear_below:
        at_zero = z.dtype.type(ops.ERF_SLOPE if code == ERF else (1.0 if code == TANH else 0.5))
        for i in each(n):
            h[i] = at_zero * z[i]
            slopes[i] = at_zero
        return e
    if bounded:
        saturate(code, z, h, slopes, n, math.ldexp(1.0, min(e, 1000)))
        return 0
    if top > LARGE:
        rectify(z, h, slopes, n, one)
        return e
    rectify_smoothly(code, z, h, slopes, n, math.ldexp(1.0, e), math.ldexp(1.0, -top))
    return top
