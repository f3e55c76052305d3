"""Brute force: real matrices, forward and backward, in plain NumPy; shares nothing with the package."""

from __future__ import annotations

import numpy as np


def simulate(chain, chains, seed):
    """ln||g_l|| of independent chains, shape (chains, L+1), float64; -inf where g_l is zero."""
    rng = np.random.default_rng(seed)
    widths, gains = chain.widths, chain.gains
    h = chain.input_scale * rng.standard_normal((chains, widths[0]))
    weights, derivatives = [], []
    for layer in range(chain.depth):
        if layer == 0 or not chain.tied:
            w = weight(rng, chain.init, gains[layer], widths[layer + 1], widths[layer], chains)
            b = chain.biases[layer] * unit_bias(rng, chain.bias_law, (chains, widths[layer + 1]))
        z = np.einsum("cij,cj->ci", w, h) + b
        if chain.tied:
            z += chain.input_noise * rng.standard_normal(z.shape)
        h, derivative = activate(chain, z)
        weights.append(w)
        derivatives.append(derivative)
    g = top(rng, chain, h)
    logs = [log_norm(g)]
    for w, derivative in zip(weights[::-1], derivatives[::-1], strict=True):
        g = np.einsum("cij,ci->cj", w, derivative * g)
        logs.append(log_norm(g))
    return np.stack(logs[::-1], axis=1)


def weight(rng, init, gain, fan_out, fan_in, chains):
    shape = (chains, fan_out, fan_in)
    if init == "identity":
        return np.broadcast_to(gain * np.eye(fan_out), shape)
    if init == "orthogonal":
        tall = rng.standard_normal((chains, max(fan_out, fan_in), min(fan_out, fan_in)))
        q, r = np.linalg.qr(tall)
        q = q * np.sign(np.einsum("cii->ci", r))[:, None, :]
        return gain * (q if fan_out >= fan_in else q.transpose(0, 2, 1))
    scale = gain / np.sqrt(fan_in)
    if init == "gaussian":
        return scale * rng.standard_normal(shape)
    if init == "uniform":
        return scale * np.sqrt(3.0) * rng.uniform(-1.0, 1.0, shape)
    assert init == "rademacher"
    return scale * (2.0 * rng.integers(0, 2, shape) - 1.0)


def unit_bias(rng, law, shape):
    return rng.standard_normal(shape) if law == "gaussian" else np.sqrt(3.0) * rng.uniform(-1.0, 1.0, shape)


def activate(chain, z):
    if chain.activation == "linear":
        return z, np.ones_like(z)
    if chain.activation == "relu":
        return np.where(z > 0, z, 0.0), np.where(z > 0, 1.0, 0.0)
    if chain.activation == "leaky_relu":
        slope = chain.negative_slope
        return np.where(z > 0, z, slope * z), np.where(z > 0, 1.0, slope)
    assert chain.activation == "tanh"
    return np.tanh(z), 1.0 / np.cosh(z) ** 2


def top(rng, chain, h):
    if chain.output_gradient == "ones":
        return np.ones_like(h)
    if chain.output_gradient == "loss":
        return h
    g = rng.standard_normal(h.shape)
    return g / np.linalg.norm(g, axis=1, keepdims=True)


def log_norm(g):
    with np.errstate(divide="ignore"):
        return np.log(np.linalg.norm(g, axis=1))
