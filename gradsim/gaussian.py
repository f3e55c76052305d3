"""Gaussian expectations of activations, E phi, E phi^2, E phi'^2 and others, of a pre-activation N(0, q).

They are computed by quadrature on split ranges, to 1e-13, and kept as polynomials of ln q, one for each octave of
q: a deep chain asks for them at every layer, each time at another q.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gradsim import activations
from gradsim.activations import Activation

Float64Array = npt.NDArray[np.float64]

# The Gaussian weight beyond 16 standard deviations is exp(-128) < 1e-55.
_RANGE = 16.0
_NODES = 16
_TOLERANCE = 1e-13
_MAX_REFINEMENTS = 6
# Nodes of the polynomial of one octave. The expectations are analytic in ln q up to |Im ln q| = pi/2 at least, which
# is 4.5 half octaves: 18 terms leave 9^-18 < 1e-17.
_TERMS = 18
_ORDERS = np.arange(_TERMS)
# Values of q that are kept. Fewer than a chain has layers would be as good as none: each is asked for in turn.
_KEPT = 32768
# Where q is smaller than float64 resolves beside 1, the first order in q is all there is.
_LEAST = 2.0**-54
# Where q is larger, gelu and silu are rectifiers: what they lack is of relative order 1/sqrt(q) < 1e-15.
_RECTIFIED = 2.0**100
# Where q is larger, that of a bounded phi is taken for infinite.
_HIGHEST = 2.0**1000


class Moments(NamedTuple):
    """E phi(x), E phi(x)^2, E phi'(x)^2 and Var phi(x) for x ~ N(0, q)."""

    mean: float
    square: float
    slope: float
    variance: float


class CrossMoments(NamedTuple):
    """E x phi', E x phi phi', E x^2 phi'^2, E phi phi'^2 and E phi^2 phi'^2 for x ~ N(0, q)."""

    slope: float
    product: float
    slope_squared: float
    value_slopes: float
    squares: float


def moments(activation: Activation, q: float) -> Moments:
    """Gaussian expectations of an activation, within 1e-12 of their value.

    Parameters
    ----------
    activation : Activation
    q : float
        Variance of the pre-activation, >= 0; inf is the limit.
    """
    if activation.mean_square is not None or _rectified(activation, q):
        up, down = _slopes(activation)
        square = (up * up + down * down) / 2.0
        root = (up - down) * math.sqrt(1.0 / (2.0 * math.pi))
        return Moments(root * math.sqrt(q), square * q, square, (square - root * root) * q)
    value, slope, curvature = _at_zero(activation)
    if q < _LEAST:
        mean, rise, slopes = q * curvature / 2.0, q * slope * slope, slope * slope
    else:
        mean, rise, slopes = _read(activation.name, q)[:3]
    # About phi(0), so that the variance of a small pre-activation keeps its digits.
    return Moments(value + mean, value * (value + 2.0 * mean) + rise, slopes, rise - mean * mean)


def cross_moments(activation: Activation, q: float) -> CrossMoments:
    """Gaussian expectations of products of x, phi(x) and phi'(x): what an overlap of a gradient with h needs.

    Parameters
    ----------
    activation : Activation
    q : float
        Variance of the pre-activation, >= 0.
    """
    if activation.mean_square is not None or _rectified(activation, q):
        up, down = _slopes(activation)
        root, square = math.sqrt(q / (2.0 * math.pi)), q * (up * up + down * down) / 2.0
        cubes, fourths = root * (up**3 - down**3), q * (up**4 + down**4) / 2.0
        return CrossMoments((up - down) * root, square, square, cubes, fourths)
    if q < _LEAST:
        value, slope, curvature = _at_zero(activation)
        squared = slope * slope
        value_slopes = squared * (value + 2.5 * curvature * q)
        return CrossMoments(q * curvature, q * squared, q * squared, value_slopes, squared * (value**2 + q * squared))
    return CrossMoments(*_read(activation.name, q)[3:])


def quadrature(activation: Activation, q: Float64Array) -> Float64Array:
    """E (phi - phi(0)), E (phi - phi(0))^2, E phi'^2 and the `CrossMoments` at several q > 0 of one octave.

    Composite Gauss-Legendre quadrature over ranges that double away from 0 and begin at the scale of phi, so
    that neither the kink of a rectifier at 0 nor the narrow peak of a saturating phi' at large q is missed
    (Gauss-Hermite misses it). The ranges are halved until two passes agree to 1e-13, relative.

    Returns
    -------
    array, shape (8, number of q)
    """
    edges = _split_range(math.sqrt(float(np.max(q))))
    previous, _ = _integrate(activation, q, edges)
    for _ in range(_MAX_REFINEMENTS):
        edges = np.sort(np.concatenate([edges, (edges[1:] + edges[:-1]) / 2.0]))
        current, magnitude = _integrate(activation, q, edges)
        if np.all(np.abs(current - previous) <= _TOLERANCE * magnitude):
            break
        previous = current
    return current


def _rectified(activation: Activation, q: float) -> bool:
    return q > _RECTIFIED and activation.name in ("gelu", "silu")


@lru_cache(maxsize=8)
def _slopes(activation: Activation) -> tuple[float, float]:
    """Slopes of a homogeneous phi to the right and to the left of 0; those of gelu and silu far out."""
    if activation.mean_square is None:
        return 1.0, 0.0
    one = np.ones(1)
    return float(activation.phi(one)[0]), float(-activation.phi(-one)[0])


@lru_cache(maxsize=8)
def _at_zero(activation: Activation) -> tuple[float, float, float]:
    """phi(0), phi'(0) and phi''(0); phi(0) phi''(0) = 0 for every activation."""
    zero = np.zeros(1)
    curvature = {"gelu": math.sqrt(2.0 / math.pi), "silu": 0.5}.get(activation.name, 0.0)
    return float(activation.phi(zero)[0]), float(activation.dphi(zero)[0]), curvature


@lru_cache(maxsize=_KEPT)
def _read(name: str, q: float) -> tuple[float, ...]:
    """The expectations that `quadrature` lists, from their polynomials."""
    q = min(q, _HIGHEST)
    octave = math.frexp(q)[1]
    t = 2.0 * (math.log2(q) - octave) + 1.0
    # Rounding may take t past the end of its octave.
    t = math.copysign(1.0, t) if abs(t) > 1.0 else t
    # The Chebyshev polynomials at t.
    terms = np.cos(_ORDERS * math.acos(t))
    return tuple((_octave(name, octave) @ terms).tolist())


@lru_cache(maxsize=2048)
def _octave(name: str, octave: int) -> Float64Array:
    """Chebyshev coefficients of the expectations over 2^(octave - 1) <= q < 2^octave, in ln q; shape (8, terms)."""
    angles = math.pi * (np.arange(_TERMS) + 0.5) / _TERMS
    q = 2.0 ** (octave + (np.cos(angles) - 1.0) / 2.0)
    values = quadrature(activations.get(name), q)
    transform = np.cos(np.arange(_TERMS)[:, None] * angles) * (2.0 / _TERMS)
    transform[0] /= 2.0
    return np.asarray(values @ transform.T)


def _split_range(scale: float) -> Float64Array:
    """Edges 0, s, 2 s, 4 s, ... of x, s = 1/2 the scale of phi or less, no range wider than one standard deviation."""
    edges = [0.0, min(0.5, 0.5 * scale)]
    while edges[-1] < _RANGE * scale:
        edges.append(edges[-1] + min(edges[-1], scale))
    return np.array(edges)


def _integrate(activation: Activation, q: Float64Array, edges: Float64Array) -> tuple[Float64Array, Float64Array]:
    """The integrals, and those of the magnitudes: an odd integrand has the value 0, met only to that scale."""
    nodes, weights = _legendre()
    half = np.diff(edges) / 2.0
    x = (((edges[1:] + edges[:-1]) / 2.0)[:, None] + half[:, None] * nodes).ravel()
    density = np.exp(-x * x / (2.0 * q[:, None])) / np.sqrt(2.0 * math.pi * q[:, None])
    density *= (half[:, None] * weights).ravel()
    value = float(activation.phi(np.zeros(1))[0])
    total, size = np.zeros((2, 8, x.size))
    for side in (x, -x):
        phi, slope = activation.phi(side), activation.dphi(side)
        rise, squared, along = phi - value, slope * slope, side * slope
        terms = np.stack(
            [rise, rise * rise, squared, along, along * phi, along * along, phi * squared, phi * phi * squared]
        )
        total += terms
        size += np.abs(terms)
    return total @ density.T, size @ density.T


@lru_cache(maxsize=1)
def _legendre() -> tuple[Float64Array, Float64Array]:
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    return nodes, weights
