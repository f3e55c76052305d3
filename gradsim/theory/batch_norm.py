"""Batch norm of W h + b over B inputs, width to infinity, any activation (Yang et al. 2019, arXiv:1902.08129, who have
the rates of linear and ReLU chains).

Over the B inputs a unit of z is N(0, v I), up to a part that all inputs share, which the norm takes out together
with the bias. Normed it is y = sqrt(B) times a point of the unit sphere in the B - 1 dimensions orthogonal to
(1, ..., 1), at every layer. With p = phi'(y) and means over that sphere,

    K1 = E phi(y_1)^2           E1 = E p_1^2      F1 = E (y_1 p_1)^2
    K2 = E phi(y_1) phi(y_2)    E2 = E p_1 p_2    F2 = E y_1 p_1 y_2 p_2

h has covariance (K1 - K2) I + K2 11' over the inputs, so that v = gain^2 (K1 - K2), in the first layer gain^2
input_scale^2; 1/sigma^2 has mean B/((B - 3) v) and is independent of y. Going back through the norm, d = (C - y y'/B)
(p * g)/sigma with C = I - 11'/B; g has covariance C over the inputs but for a factor, as every W'd has, and I at the
top. The trace of the covariance of d gives the growth of ||g||^2 through a layer,

    ((B - 1) E1 + E2 - F1 + F2)/((B - 3)(K1 - K2)),    at the top ((B - 1) E1 - F1)/((B - 3)(K1 - K2)).

Dropout divides K1, E1 and F1 by the probability of keeping. For B = 3 the mean of 1/sigma^2 is infinite.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from gradsim import activations
from gradsim.activations import Activation
from gradsim.chain import Chain
from gradsim.theory.law import Law
from gradsim.theory.layer_map import logarithm
from gradsim.theory.mean_field import limit_law, mixes
from gradsim.theory.special import FloatArray

# Directions of (y_1, y_2) in their plane, equally spaced: |y| is below 14, and tanh' has its pole at i pi/2, so that
# an error of exp(-512 asinh(pi/28)) < 1e-24 is left.
_DIRECTIONS = 512
_NODES = 16
# Radii beyond 14 standard deviations have a weight below exp(-98).
_REACH = 14.0


class Averages(NamedTuple):
    """Means over the sphere, as named above, K1 and K2 less a `shared` part that both have from phi(0)."""

    k1: float
    k2: float
    e1: float
    e2: float
    f1: float
    f2: float
    shared: float = 0.0


def before_activation(chain: Chain) -> Law | None:
    """Batch norm over at least 4 inputs before the activation, or anywhere in a linear chain; bias and gain cancel."""
    straight = chain.norm_position == "before" or (chain.activation == "linear" and not chain.dropout)
    applies = chain.norm == "batch" and straight and not chain.skip and chain.norm_eps == 0.0
    if not (applies and chain.batch >= 4 and mixes(chain) and chain.output_gradient == "random"):
        return None
    b, keep = float(chain.batch), 1.0 - chain.dropout
    k1, k2, e1, e2, f1, f2, shared = averages(chain.activation, chain.negative_slope, chain.batch)
    variance = logarithm((k1 + shared) / keep - (k2 + shared) if chain.dropout else k1 - k2)
    e1, f1 = e1 / keep, f1 / keep
    inner = logarithm(((b - 1.0) * e1 + e2 - f1 + f2) / (b - 3.0))
    top = logarithm(((b - 1.0) * e1 - f1) / (b - 3.0))
    growth = np.full(chain.depth, inner - variance)
    growth[-1] += top - inner
    growth[0] += variance - 2.0 * math.log(chain.input_scale)
    source = f"batch norm at infinite width, batch {chain.batch} well below it (Yang et al. 2019)"
    return limit_law(chain, "batch-norm", [source], growth, (inner - variance) / 2.0)


@lru_cache(maxsize=256)
def averages(name: str, negative_slope: float, batch: int) -> Averages:
    """The means over the sphere of y_1 and y_2 and of the slopes there, for a batch of at least 4.

    Those of linear and the rectifiers are closed forms, of degree 2 in y or 0, and so the ones of a Gaussian pair of
    correlation r (Cho and Saul 2009); the others are integrated in polar coordinates of the plane of y_1 and y_2.
    """
    phi = activations.get(name, negative_slope)
    return _integrated(phi, batch) if phi.mean_square is None else _rectifier(phi, batch)


def _rectifier(phi: Activation, batch: int) -> Averages:
    one = np.ones(1)
    up, down = float(phi.phi(one)[0]), float(-phi.phi(-one)[0])
    r = -1.0 / (batch - 1.0)
    angle = math.acos(r)
    # E y_1+ y_2+, E y_1+ y_2-, and the probability that both are positive.
    alike = (math.sqrt(1.0 - r * r) + r * (math.pi - angle)) / (2.0 * math.pi)
    unlike = alike - r / 2.0
    both = (math.pi - angle) / (2.0 * math.pi)
    square, product = (up * up + down * down) / 2.0, up * down
    k2 = 2.0 * square * alike - 2.0 * product * unlike
    e2 = 2.0 * square * both + product * (1.0 - 2.0 * both)
    return Averages(square, k2, square, e2, square, k2)


def _integrated(phi: Activation, batch: int) -> Averages:
    """By the radius sin psi in the plane, of density sin psi cos^(B-4) psi, and the direction there."""
    dimensions = batch - 1.0
    psi, weights = _radii(batch)
    theta = 2.0 * math.pi * np.arange(_DIRECTIONS) / _DIRECTIONS
    radius = math.sqrt(dimensions) * np.sin(psi)[:, None]
    first, second = radius * np.cos(theta), radius * np.cos(theta - math.acos(-1.0 / dimensions))
    weights = weights[:, None] / (weights.sum() * _DIRECTIONS)
    # Without phi(0) the difference of K1 and K2 keeps its digits.
    value = float(phi.phi(np.zeros(1))[0])
    h = phi.phi(first) - value, phi.phi(second) - value
    p = phi.dphi(first), phi.dphi(second)
    y = first * p[0], second * p[1]
    means = [float(np.sum(weights * a * b)) for pair in (h, p, y) for a, b in ((pair[0], pair[0]), pair)]
    shared = value * (value + 2.0 * float(np.sum(weights * h[0])))
    k1, k2, e1, e2, f1, f2 = means
    return Averages(k1, k2, e1, e2, f1, f2, shared)


def _radii(batch: int) -> tuple[FloatArray, FloatArray]:
    """Nodes psi in 0..pi/2 and weights with the density, on ranges of a quarter of a standard deviation and more."""
    scale = 0.5 / math.sqrt(batch)
    edges = [0.0]
    while edges[-1] < min(math.pi / 2.0, 2.0 * scale * _REACH):
        edges.append(edges[-1] + scale)
    edges[-1] = min(edges[-1], math.pi / 2.0)
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    half = np.diff(edges)[:, None] / 2.0
    psi = (np.array(edges)[:-1, None] + half * (1.0 + nodes)).ravel()
    return psi, (half * weights).ravel() * np.sin(psi) * np.cos(psi) ** (batch - 4.0)
