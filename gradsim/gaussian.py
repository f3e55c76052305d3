"""Gaussian expectations of activations: E phi, E phi^2 and E phi'^2 of a pre-activation N(0, q).

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
# Where q is smaller than float64 resolves beside 1, the first order in q is all there is.
_LEAST = 2.0**-54
# Where q is larger, gelu and silu are rectifiers: what they lack is of relative order 1/sqrt(q) < 1e-15.
_RECTIFIED = 2.0**100


class Moments(NamedTuple):
    """E phi(x), E phi(x)^2 and E phi'(x)^2 for x ~ N(0, q)."""

    mean: float
    square: float
    slope: float

    @property
    def variance(self) -> float:
        """Var phi(x), not below 0."""
        return max(self.square - self.mean * self.mean, 0.0)


def moments(activation: Activation, q: float) -> Moments:
    """Gaussian expectations of an activation, within 1e-12 of their value.

    Parameters
    ----------
    activation : Activation
    q : float
        Variance of the pre-activation, >= 0; inf where phi is unbounded.
    """
    if activation.mean_square is not None:
        return _homogeneous(activation, q)
    if q < _LEAST:
        return _smallest(activation, q)
    if q > _RECTIFIED and activation.name in ("gelu", "silu"):
        return _homogeneous(activations.get("relu"), q)
    octave = math.frexp(q)[1]
    t = 2.0 * (math.log2(q) - octave) + 1.0
    mean, square, slope = (_clenshaw(series, t) for series in _octave(activation.name, octave))
    return Moments(mean, square, slope)


def quadrature(activation: Activation, q: Float64Array) -> Float64Array:
    """E phi, E phi^2 and E phi'^2 at several q > 0 of one octave, shape (3, number of q).

    Composite Gauss-Legendre quadrature over ranges that double away from 0 and begin at the scale of phi, so
    that neither the kink of a rectifier at 0 nor the narrow peak of a saturating phi' at large q is missed
    (Gauss-Hermite misses it). The ranges are halved until two passes agree to 1e-13, relative.
    """
    edges = _split_range(math.sqrt(float(np.max(q))))
    previous = _integrate(activation, q, edges)
    for _ in range(_MAX_REFINEMENTS):
        edges = np.sort(np.concatenate([edges, (edges[1:] + edges[:-1]) / 2.0]))
        current = _integrate(activation, q, edges)
        # An odd phi has mean 0, and only the scale of phi says how well that is met.
        scale = np.stack([np.sqrt(current[1]), current[1], current[2]])
        if np.all(np.abs(current - previous) <= _TOLERANCE * scale):
            break
        previous = current
    return current


def _homogeneous(activation: Activation, q: float) -> Moments:
    assert activation.mean_square is not None
    one = np.ones(1)
    # phi(x) = a x_+ - b x_-, whose mean is (a - b) E x_+.
    up, down = float(activation.phi(one)[0]), float(-activation.phi(-one)[0])
    return Moments((up - down) * math.sqrt(q / (2.0 * math.pi)), activation.mean_square * q, activation.mean_square)


def _smallest(activation: Activation, q: float) -> Moments:
    """To first order in q; phi(0) phi''(0) = 0 for every activation."""
    zero = np.zeros(1)
    value, slope = float(activation.phi(zero)[0]), float(activation.dphi(zero)[0])
    curvature = {"gelu": math.sqrt(2.0 / math.pi), "silu": 0.5}.get(activation.name, 0.0)
    return Moments(value + q * curvature / 2.0, value * value + q * slope * slope, slope * slope)


@lru_cache(maxsize=2048)
def _octave(name: str, octave: int) -> tuple[tuple[float, ...], ...]:
    """Chebyshev coefficients of the three expectations over 2^(octave - 1) <= q < 2^octave, in ln q."""
    angles = math.pi * (np.arange(_TERMS) + 0.5) / _TERMS
    q = 2.0 ** (octave + (np.cos(angles) - 1.0) / 2.0)
    values = quadrature(activations.get(name), q)
    transform = np.cos(np.arange(_TERMS)[:, None] * angles) * (2.0 / _TERMS)
    transform[0] /= 2.0
    return tuple(tuple(series) for series in (values @ transform.T).tolist())


def _clenshaw(series: tuple[float, ...], t: float) -> float:
    """Sum of series[k] T_k(t)."""
    ahead = further = 0.0
    for value in series[:0:-1]:
        ahead, further = value + 2.0 * t * ahead - further, ahead
    return series[0] + t * ahead - further


def _split_range(scale: float) -> Float64Array:
    """Edges 0, s, 2 s, 4 s, ... with s the z at which sqrt(q) z = 1/2 (at most 1/2); no range is wider than
    1.
    """
    edges = [0.0, 0.5 / max(scale, 1.0)]
    while edges[-1] < _RANGE:
        edges.append(edges[-1] + min(edges[-1], 1.0))
    return np.array(edges)


def _integrate(activation: Activation, q: Float64Array, edges: Float64Array) -> Float64Array:
    nodes, weights = _legendre()
    half = np.diff(edges) / 2.0
    z = (((edges[1:] + edges[:-1]) / 2.0)[:, None] + half[:, None] * nodes).ravel()
    density = (half[:, None] * weights).ravel() * np.exp(-z * z / 2.0) / math.sqrt(2.0 * math.pi)
    x = np.sqrt(q)[:, None] * z
    values = np.stack([activation.phi(x), activation.phi(-x)])
    slopes = np.stack([activation.dphi(x), activation.dphi(-x)])
    return np.stack([values.sum(0), (values**2).sum(0), (slopes**2).sum(0)]) @ density


@lru_cache(maxsize=1)
def _legendre() -> tuple[Float64Array, Float64Array]:
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    return nodes, weights
