"""Brute force: real matrices, forward and backward, in plain NumPy; shares nothing with the package.

Arrays have shape (chains, units). A step of a layer is a pair of the value and the function that takes the gradient at
it back to the gradient at its argument.
"""

from __future__ import annotations

import numpy as np


def simulate(chain, chains, seed):
    """ln||g_l|| of independent chains, shape (chains, L+1), float64; -inf where g_l is zero."""
    return norms(chain, chains, seed)["log_grad_norm"]


def norms(chain, chains, seed):
    """ln||g_l||, ln||h_l|| (chains, L+1) and ln||dLoss/dW_l|| (chains, L) of independent chains, by name."""
    rng = np.random.default_rng(seed)
    widths, gains = chain.widths, chain.gains
    h = [chain.input_scale * rng.standard_normal((chains, widths[0]))]
    steps = []
    for layer in range(chain.depth):
        if layer == 0 or not chain.tied:
            w = weight(rng, chain.init, gains[layer], widths[layer + 1], widths[layer], chains)
            b = chain.biases[layer] * unit_bias(rng, chain.bias_law, (chains, widths[layer + 1]))
        noise = chain.input_noise * rng.standard_normal(b.shape) if chain.tied else 0.0
        mask = (rng.random(b.shape) >= chain.dropout) / (1.0 - chain.dropout)
        value, back = step(chain, w, b + noise, mask, h[-1])
        h.append(value)
        steps.append(back)
    g = clipped(chain, top(rng, chain, h[-1]))
    logs, of_weights = [log_norm(g)], []
    for back, x in zip(steps[::-1], h[-2::-1], strict=True):
        g, at_z = back(g)
        g = clipped(chain, g)
        logs.append(log_norm(g))
        of_weights.append(log_norm(at_z) + log_norm(x))
    return {
        "log_grad_norm": np.stack(logs[::-1], axis=1),
        "log_activation_norm": np.stack([log_norm(x) for x in h], axis=1),
        "log_weight_grad_norm": np.stack(of_weights[::-1], axis=1),
    }


def step(chain, w, added, mask, h):
    """h_l, and the function from its gradient to those of h_{l-1} and of W h + b."""

    def normed(position, x):
        return normalise(chain.norm, x) if chain.norm_position == position else (x, lambda g: g)

    x, back_pre = normed("pre", h)
    z, back_before = normed("before", np.einsum("cij,cj->ci", w, x) + added)
    y, derivative = activate(chain, z)
    y, back_after = normed("after", y)
    alpha = chain.skip_factor
    value, back_post = normed("post", chain.carry * h + alpha * mask * y if alpha else mask * y)

    def back(g):
        g = back_post(g)
        at_z = back_before(derivative * back_after((alpha if alpha else 1.0) * mask * g))
        below = back_pre(np.einsum("cij,ci->cj", w, at_z))
        return (chain.carry * g + below if alpha else below), at_z

    return value, back


def normalise(norm, x):
    if norm == "none":
        return x, lambda g: g
    assert norm in ("rms", "layer")
    centred = x - x.mean(axis=1, keepdims=True) if norm == "layer" else x
    scale = np.sqrt(np.mean(centred**2, axis=1, keepdims=True))
    unit = centred / scale

    def back(g):
        g = g - unit * np.mean(unit * g, axis=1, keepdims=True)
        return (g - g.mean(axis=1, keepdims=True) if norm == "layer" else g) / scale

    return unit, back


def clipped(chain, g):
    if not chain.clip:
        return g
    length = np.linalg.norm(g, axis=1, keepdims=True)
    return np.where(length > chain.clip, g * (chain.clip / np.where(length > 0, length, 1.0)), g)


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
