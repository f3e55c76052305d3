"""Counter-based random numbers: scalar functions, written once, compiled for each target elsewhere.

Threefry-4x32 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011): 20 rounds,
its authors' default, derive keys; 13 rounds draw. A block of four 32-bit words becomes four weights, so that
any weight can be drawn again from its position alone. docs/rng.md states the layout; `reference` implements it a
second time, independently.

Every operation on words is wrapped in ``uint32``: Numba would otherwise widen to 64 bits and halve the vectors.
"""

from __future__ import annotations

import math

import numpy as np

from .bits import double_bits, double_from_bits, float_bits, float_from_bits, signed, signed_high

f32 = np.float32
u32 = np.uint32
u64 = np.uint64

PARITY = u32(0x1BD11BDA)
SIGN = u32(0x80000000)
EXPONENT = u32(0xFF800000)
SQRT_HALF = u32(0x3F3504F3)  # the bits of float32 sqrt(1/2)

# Minimax polynomials, fitted by `python -m bench.polynomials`, which also prints their errors:
# -2 ln(1 + f)/f on [sqrt(1/2) - 1, sqrt(2) - 1], relative error 1.7e-7;
LOG = tuple(
    f32(c)
    for c in (
        -1.9999998906196437,
        1.0000073024566305,
        -0.666701178778292,
        0.49939818172621836,
        -0.3980033134487897,
        0.34501659415030805,
        -0.3244515798825326,
        0.20213787304118216,
    )
)
LOG0, LOG1, LOG2, LOG3, LOG4, LOG5, LOG6, LOG7 = LOG
# cos(pi y), absolute error 4.7e-8, and sin(pi y)/y, relative error 5.3e-9, both in y^2 for y in [-1/2, 1/2].
COS = tuple(
    f32(c) for c in (0.9999999534666968, -4.934792858675628, 4.058411914163459, -1.33188016119871, 0.21969679847098889)
)
COS0, COS1, COS2, COS3, COS4 = COS
SIN = tuple(
    f32(c) for c in (3.141592636895401, -5.16770968479864, 2.5500697263291623, -0.5982421263871489, 0.07756038693518182)
)
SIN0, SIN1, SIN2, SIN3, SIN4 = SIN

# The same in float64: ln m = s P(s^2) for -2 ln m, s = (m - 1)/(m + 1), relative error 1.2e-18; cos and sin as above,
# errors 4e-18 and 3e-19.
LOG64 = (
    -4.0,
    -1.333333333333353,
    -0.7999999999859777,
    -0.5714285752269327,
    -0.4444439397649768,
    -0.3636727018849191,
    -0.3062488751178369,
    -0.29621059687302503,
)
COS64 = (
    1.0,
    -4.934802200544676,
    4.058712126416498,
    -1.3352627688434646,
    0.23533063012980837,
    -0.025806888739352947,
    0.00192955628359316,
    -0.00010456658073627058,
    4.149591700574967e-06,
)
SIN64 = (
    3.141592653589793,
    -5.167712780049969,
    2.550164039877294,
    -0.5992645293187383,
    0.082145886569893,
    -0.007370430478764316,
    0.0004662996887778211,
    -2.190318542640384e-05,
    7.694727353510915e-07,
)
SQRT_HALF_64 = u64(0x3FE6A09E667F3BCD)  # the bits of float64 sqrt(1/2)
EXPONENT_64 = u64(0xFFF0000000000000)

TWO_TO_MINUS_32 = f32(2.0**-32)
TWO_TO_MINUS_33 = f32(2.0**-33)
MINUS_TWO_LN2_PER_EXPONENT_STEP = f32(-2.0 * math.log(2.0) / 2**23)
MINUS_TWO_LN2_PER_HIGH_STEP = -2.0 * math.log(2.0) / 2**20
SQRT3 = math.sqrt(3.0)


def rotate_left(x, r):
    """32-bit rotation by r bits, 0 < r < 32."""
    return u32(u32(x << u32(r)) | u32(x >> u32(32 - r)))


def two_rounds(x0, x1, x2, x3, ra0, ra1, rb0, rb1):
    """Two rounds of Threefry-4x32: mix (0,1) and (2,3), then (0,3) and (2,1)."""
    x0 = u32(x0 + x1)
    x1 = u32(rotate_left(x1, ra0) ^ x0)
    x2 = u32(x2 + x3)
    x3 = u32(rotate_left(x3, ra1) ^ x2)
    x0 = u32(x0 + x3)
    x3 = u32(rotate_left(x3, rb0) ^ x0)
    x2 = u32(x2 + x1)
    x1 = u32(rotate_left(x1, rb1) ^ x2)
    return x0, x1, x2, x3


def inject(x0, x1, x2, x3, ka, kb, kc, kd, step):
    """Add the key words of one injection, its number to the last."""
    return u32(x0 + ka), u32(x1 + kb), u32(x2 + kc), u32(u32(x3 + kd) + u32(step))


def parity(k0, k1, k2, k3):
    """Fifth word of Threefry's key schedule."""
    return u32(u32(u32(k0 ^ k1) ^ u32(k2 ^ k3)) ^ PARITY)


def twelve_rounds(k0, k1, k2, k3, k4, x0, x1, x2, x3):
    """First twelve rounds of Threefry-4x32 with the key injections after rounds 4, 8 and 12."""
    x0, x1, x2, x3 = inject(x0, x1, x2, x3, k0, k1, k2, k3, 0)
    x0, x1, x2, x3 = two_rounds(x0, x1, x2, x3, 10, 26, 11, 21)
    x0, x1, x2, x3 = two_rounds(x0, x1, x2, x3, 13, 27, 23, 5)
    x0, x1, x2, x3 = inject(x0, x1, x2, x3, k1, k2, k3, k4, 1)
    x0, x1, x2, x3 = two_rounds(x0, x1, x2, x3, 6, 20, 17, 11)
    x0, x1, x2, x3 = two_rounds(x0, x1, x2, x3, 25, 10, 18, 20)
    x0, x1, x2, x3 = inject(x0, x1, x2, x3, k2, k3, k4, k0, 2)
    x0, x1, x2, x3 = two_rounds(x0, x1, x2, x3, 10, 26, 11, 21)
    x0, x1, x2, x3 = two_rounds(x0, x1, x2, x3, 13, 27, 23, 5)
    return inject(x0, x1, x2, x3, k3, k4, k0, k1, 3)


def threefry13(k0, k1, k2, k3, k4, x0, x1):
    """Threefry-4x32 of 13 rounds at counter (x0, x1, 0, 0); k4 is `parity` of the key."""
    zero = u32(0)
    x0, x1, x2, x3 = twelve_rounds(k0, k1, k2, k3, k4, x0, x1, zero, zero)
    x0 = u32(x0 + x1)
    x1 = u32(rotate_left(x1, 6) ^ x0)
    x2 = u32(x2 + x3)
    x3 = u32(rotate_left(x3, 20) ^ x2)
    return x0, x1, x2, x3


def threefry20(k0, k1, k2, k3, x0, x1, x2, x3):
    """Threefry-4x32 of 20 rounds, the published default."""
    k4 = parity(k0, k1, k2, k3)
    x0, x1, x2, x3 = twelve_rounds(k0, k1, k2, k3, k4, x0, x1, x2, x3)
    x0, x1, x2, x3 = two_rounds(x0, x1, x2, x3, 6, 20, 17, 11)
    x0, x1, x2, x3 = two_rounds(x0, x1, x2, x3, 25, 10, 18, 20)
    x0, x1, x2, x3 = inject(x0, x1, x2, x3, k4, k0, k1, k2, 4)
    x0, x1, x2, x3 = two_rounds(x0, x1, x2, x3, 10, 26, 11, 21)
    x0, x1, x2, x3 = two_rounds(x0, x1, x2, x3, 13, 27, 23, 5)
    return inject(x0, x1, x2, x3, k0, k1, k2, k3, 5)


def layer_key(c0, c1, c2, c3, chain, layer, purpose):
    """Key of one layer's stream: a permutation of (chain, layer, purpose) under the cell key, so never shared."""
    low = u32(chain & 0xFFFFFFFF)
    high = u32(chain >> 32)
    return threefry20(c0, c1, c2, c3, low, high, u32(layer), u32(purpose))


def radius32(r):
    """sqrt(-2 ln u), u = (r + 1/2) / 2^32, in float32: all 32 bits count, so normals reach 6.76."""
    u = f32(r) * TWO_TO_MINUS_32 + TWO_TO_MINUS_33
    bits = float_bits(u)
    exponent = u32(u32(bits - SQRT_HALF) & EXPONENT)
    f = float_from_bits(u32(bits - exponent)) - f32(1)
    p = LOG7 * f + LOG6
    p = p * f + LOG5
    p = p * f + LOG4
    p = p * f + LOG3
    p = p * f + LOG2
    p = p * f + LOG1
    p = p * f + LOG0
    return np.sqrt(p * f + f32(signed(exponent)) * MINUS_TWO_LN2_PER_EXPONENT_STEP)


def normal_pair32(r, a):
    """Box-Muller in float32: radius from r; from a, a sign and 31 bits of an angle in [-pi/2, pi/2)."""
    radius = radius32(r)
    y = f32(signed(u32(a << u32(1)))) * TWO_TO_MINUS_32
    z = y * y
    c = COS4 * z + COS3
    c = c * z + COS2
    c = c * z + COS1
    c = c * z + COS0
    s = SIN4 * z + SIN3
    s = s * z + SIN2
    s = s * z + SIN1
    s = s * z + SIN0
    radius = float_from_bits(u32(float_bits(radius) ^ u32(a & SIGN)))
    return radius * c, radius * (s * y)


def radius64(r):
    """`radius32` in float64, through the inverse hyperbolic tangent: ln m = 2 atanh((m - 1)/(m + 1))."""
    u = np.float64(r) * (2.0**-32) + 2.0**-33
    bits = double_bits(u)
    exponent = u64(u64(bits - SQRT_HALF_64) & EXPONENT_64)
    f = double_from_bits(u64(bits - exponent)) - 1.0
    s = f / (f + 2.0)
    z = s * s
    p = LOG64[7] * z + LOG64[6]
    p = p * z + LOG64[5]
    p = p * z + LOG64[4]
    p = p * z + LOG64[3]
    p = p * z + LOG64[2]
    p = p * z + LOG64[1]
    p = p * z + LOG64[0]
    return math.sqrt(p * s + np.float64(signed_high(exponent)) * MINUS_TWO_LN2_PER_HIGH_STEP)


def normal_pair64(r, a):
    """The pair of `normal_pair32` from the same words, in float64 arithmetic."""
    radius = radius64(r)
    y = np.float64(signed(u32(a << u32(1)))) * 2.0**-32
    z = y * y
    c = COS64[8] * z + COS64[7]
    c = c * z + COS64[6]
    c = c * z + COS64[5]
    c = c * z + COS64[4]
    c = c * z + COS64[3]
    c = c * z + COS64[2]
    c = c * z + COS64[1]
    c = c * z + COS64[0]
    s = SIN64[8] * z + SIN64[7]
    s = s * z + SIN64[6]
    s = s * z + SIN64[5]
    s = s * z + SIN64[4]
    s = s * z + SIN64[3]
    s = s * z + SIN64[2]
    s = s * z + SIN64[1]
    s = s * z + SIN64[0]
    radius = radius if u32(a & SIGN) == u32(0) else -radius
    return radius * c, radius * (s * y)


def uniform32(w):
    """Uniform on (-sqrt 3, sqrt 3), variance 1: the centres of 2^32 cells, in float32."""
    return (f32(signed(w)) + f32(0.5)) * f32(SQRT3 * 2.0**-31)


def uniform64(w):
    """`uniform32` in float64."""
    return (np.float64(signed(w)) + 0.5) * (SQRT3 * 2.0**-31)


def sign32(w):
    """+1 or -1 by the top bit of w, in float32."""
    return float_from_bits(u32(u32(w & SIGN) | u32(0x3F800000)))


def sign64(w):
    """+1 or -1 by the top bit of w, in float64."""
    return np.float64(sign32(w))


def normal_pair(r, a, one):
    """`normal_pair32` or `normal_pair64`, by the type of `one`."""
    return normal_pair32(r, a) if isinstance(one, f32) else normal_pair64(r, a)


def uniform(w, one):
    """`uniform32` or `uniform64`, by the type of `one`."""
    return uniform32(w) if isinstance(one, f32) else uniform64(w)


def sign(w, one):
    """`sign32` or `sign64`, by the type of `one`."""
    return sign32(w) if isinstance(one, f32) else sign64(w)


# What compiled code calls by the type of `one`: the compiler chooses (see `compiling`).
BY_DTYPE = (
    (normal_pair, normal_pair32, normal_pair64),
    (uniform, uniform32, uniform64),
    (sign, sign32, sign64),
)


def bounded(w, one, signs):
    """A sign where `signs`, else a uniform: variance 1 either way."""
    return sign(w, one) if signs else uniform(w, one)


def gaussian4(w0, w1, w2, w3, one, signs):
    """Four standard normals from one block."""
    x0, x1 = normal_pair(w0, w1, one)
    x2, x3 = normal_pair(w2, w3, one)
    return x0, x1, x2, x3


def bounded4(w0, w1, w2, w3, one, signs):
    """Four signs or uniforms from one block."""
    return bounded(w0, one, signs), bounded(w1, one, signs), bounded(w2, one, signs), bounded(w3, one, signs)
