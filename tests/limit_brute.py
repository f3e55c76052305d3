"""Brute force with every field of a layer: real matrices, forward and backward, in plain NumPy; shares nothing with
the package.

A layer: x = h or its norm ("pre"); z = W x + b, normed ("before"); y = phi(z), normed ("after"), dropped; h = y or
carry h + alpha y, normed ("post"). Arrays are (chains, units, batch).
"""

from __future__ import annotations

from math import pi, sqrt

import numpy as np
from scipy.special import erf, expit, ndtr

PHI = {
    "linear": (lambda z: z, np.ones_like),
    "relu": (lambda z: np.maximum(z, 0.0), lambda z: (z > 0) * 1.0),
    "leaky_relu": (lambda z: np.where(z > 0, z, 0.2 * z), lambda z: np.where(z > 0, 1.0, 0.2)),
    "tanh": (np.tanh, lambda z: np.cosh(np.minimum(np.abs(z), 300.0)) ** -2.0),
    "erf": (erf, lambda z: 2.0 / sqrt(pi) * np.exp(-z * z)),
    "sigmoid": (expit, lambda z: expit(z) * expit(-z)),
    "gelu": (lambda z: z * ndtr(z), lambda z: ndtr(z) + z * np.exp(-z * z / 2.0) / sqrt(2.0 * pi)),
    "silu": (lambda z: z * expit(z), lambda z: expit(z) * (1.0 + z * expit(-z))),
}


def simulate(chain, chains, seed):
    """ln||g_l|| of independent chains of a given Chain, shape (chains, L+1), float64; a leaky slope is 0.2."""
    rng = np.random.default_rng(seed)
    phi, dphi = PHI[chain.activation]
    width, carry, skip = chain.width, chain.carry, chain.skip_factor

    def normed(place, x):
        return normalise(chain.norm, x, chain.norm_eps) if place == at else (x, lambda d: d)

    at = None if chain.norm == "none" else chain.norm_position
    h = chain.input_scale * rng.standard_normal((chains, width, chain.batch))
    pulls = []
    for layer in range(chain.depth):
        if layer == 0 or not chain.tied:
            w = chain.gains[0] * matrix(rng, chain.init, (chains, width, width))
            b = chain.biases[0] * rng.standard_normal((chains, width, 1))
        x, pull_pre = normed("pre", h)
        z, pull_before = normed("before", w @ x + b)
        y, pull_after = normed("after", phi(z))
        mask = (rng.random(z.shape) >= chain.dropout) / (1.0 - chain.dropout)
        total, pull_post = normed("post", carry * h + skip * y * mask if skip else y * mask)
        slope = dphi(z)

        def pull(g, w=w, slope=slope, mask=mask, pulls=(pull_pre, pull_before, pull_after, pull_post)):
            pre, before, after, post = pulls
            g = post(g)
            below = pre(w.transpose(0, 2, 1) @ before(slope * after(mask * (skip or 1.0) * g)))
            return carry * g + below if skip else below

        pulls.append(pull)
        h = total
    g = np.ones_like(h) if chain.output_gradient == "ones" else rng.standard_normal(h.shape)
    if chain.output_gradient == "random":
        g /= np.sqrt((g**2).sum((1, 2), keepdims=True))
    logs = [np.log((g**2).sum((1, 2))) / 2.0]
    for pull in pulls[::-1]:
        g = pull(g)
        logs.append(np.log((g**2).sum((1, 2))) / 2.0)
    return np.stack(logs[::-1], axis=1)


def matrix(rng, init, shape):
    """Entries of variance 1/width, or Haar-orthogonal."""
    drawn = rng.standard_normal(shape, dtype=np.float32)
    if init == "gaussian":
        return drawn / sqrt(shape[-1])
    assert init == "orthogonal"
    q, r = np.linalg.qr(drawn)
    return q * np.sign(np.einsum("cii->ci", r))[:, None, :]


def normalise(norm, x, eps):
    """The normed array and the pullback, written as the derivative of (x - mean)/sqrt(var + eps)."""
    axis = 2 if norm == "batch" else 1
    mean = 0.0 if norm == "rms" else x.mean(axis, keepdims=True)
    centred = x - mean
    sigma = np.sqrt((centred**2).mean(axis, keepdims=True) + eps)

    def pull(d):
        d = d / sigma - centred * (d * centred).mean(axis, keepdims=True) / sigma**3
        return d if norm == "rms" else d - d.mean(axis, keepdims=True)

    return centred / sigma, pull
