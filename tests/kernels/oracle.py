"""A chain in float64 whose vectors are kept in range: what the kernels must give at any depth, gain and scale.

Every vector is x e^s with the largest |x_i| equal to 1. The weights, biases and gradients at the top are those of
`gradsim.kernels.reference`; the passes are written a second time, with phi' of tanh held as a logarithm, so that
nothing overflows and nothing rounds to zero. With `noise` every step is disturbed by relative errors of that
size, which shows what rounding to a dtype may do to a chain.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from gradsim.kernels import reference
from gradsim.kernels.keys import INPUT, cell_key

TANH_IS_LINEAR = -45.0  # ln z below which tanh z = z in float64


@dataclass(frozen=True)
class Vector:
    """x e^log, the largest |x_i| 1; a zero vector has log 0."""

    x: np.ndarray
    log: float = 0.0

    def scaled(self):
        largest = np.abs(self.x).max()
        return Vector(self.x / largest, self.log + np.log(largest)) if largest > 0 else Vector(self.x, 0.0)

    def log_norm(self):
        return 0.5 * np.log(self.x @ self.x) + self.log

    def log_max(self):
        return np.log(np.abs(self.x).max()) + self.log

    def plus(self, other):
        if not other.any():
            return self
        if not self.x.any():
            return Vector(other)
        log = max(self.log, float(np.log(np.abs(other).max())))
        return Vector(self.x * np.exp(self.log - log) + other * np.exp(-log), log)


@dataclass(frozen=True)
class Passes:
    """What one chain gives: the quantities by name and, for l = 1 .. L, how far the way back leads down.

    `fall` is ln(max |d_l| / max |g_l|): a dtype is left where that is below the ln of its smallest normal number.
    `spread` is ln(min |d_l| / max |d_l|) over nonzero entries: how far the last unit is behind the first.
    """

    quantities: dict[str, np.ndarray]
    fall: np.ndarray
    spread: np.ndarray


_drawn = lru_cache(maxsize=128)(reference.weight_matrix)


def weight_matrix(chain, cell, index, layer):
    """`reference.weight_matrix`, each matrix drawn once."""
    return _drawn(chain, cell, index, 1 if chain.tied else layer)


@lru_cache(maxsize=64)
def draws(chain, seed, index, streams):
    """Weights and additions of every layer, and h_0."""
    cell = cell_key(seed, chain.canonical(), streams)
    layers = range(1, chain.depth + 1)
    weights = [weight_matrix(chain, cell, index, layer) for layer in layers]
    added = [
        reference.added(chain, cell, index, layer) if size > 0 else np.zeros(chain.widths[layer])
        for layer, size in zip(layers, sizes(chain), strict=True)
    ]
    key = reference.stream_key(cell, index, 0, INPUT)
    h = chain.input_scale * reference.draw(key, chain.widths[0], 1, "gaussian")[:, 0]
    return cell, weights, added, h


@np.errstate(divide="ignore", over="ignore", invalid="ignore")  # ln 0 = -inf is meant
def simulate(chain, seed, index, streams="independent", noise=0.0, rng=None):
    """One chain; `noise` disturbs weights, sums and slopes by relative errors drawn from `rng`."""
    cell, weights, added, h0 = draws(chain, seed, index, streams)
    if noise:
        weights = disturbed_weights(chain, weights, noise, rng)
        added = [disturbed(x, deviation, noise, rng) for x, deviation in zip(added, sizes(chain), strict=True)]
        h0 = disturbed(h0, chain.input_scale, noise, rng)
    h = [Vector(h0).scaled()]
    slopes = []
    for w, extra in zip(weights, added, strict=True):
        z = Vector(product(w, h[-1].x, noise, rng), h[-1].log).plus(extra)
        state, slope = activate(chain, z.scaled())
        h.append(state.scaled())
        slopes.append(slope)
    last = top(chain, cell, index, h[-1])
    if noise and chain.output_gradient == "random":
        last = Vector(disturbed(last.x, 1 / np.sqrt(len(last.x)), noise, rng))
    g = [last.scaled()]
    steps, fall, spread = [], [], []
    for layer in range(chain.depth, 0, -1):
        d = take_slopes(g[0], slopes[layer - 1], noise, rng)
        spread.insert(0, behind(g[0], slopes[layer - 1]))
        fall.insert(0, d.log_max() - g[0].log_max() if g[0].x.any() else 0.0)
        d = d.scaled()
        steps.insert(0, (d, h[layer - 1]))
        g.insert(0, Vector(product(weights[layer - 1].T, d.x, noise, rng), d.log).scaled())
    quantities = {
        "log_grad_norm": np.array([v.log_norm() for v in g]),
        "log_activation_norm": np.array([v.log_norm() for v in h]),
        "log_weight_grad_norm": weight_gradient(chain, steps),
        "log_grad_max": np.array([v.log_max() for v in g]),
    }
    return Passes(quantities, np.array(fall), np.array(spread))


def disturbed(x, size, noise, rng):
    """Draws of typical size `size` with errors: a draw near zero has the error of a large one, or a greater one.

    The radius R of a pair of normals comes from a uniform near 1 where it is small, and has an error of eps / R.
    """
    if size == 0:
        return x
    radius = np.maximum(np.abs(x) / size, 1e-3)
    return x + noise * size * (1 + 0.25 / radius) * rng.standard_normal(x.shape)


def disturbed_weights(chain, weights, noise, rng):
    """Weights with errors; of eye only its factor has one."""
    once = weights[:1] if chain.tied else weights
    if chain.init == "identity":
        once = [w * (1 + noise * rng.standard_normal()) for w in once]
    else:
        # The size of an entry by its law, gain / sqrt(fan_in), for orthogonal matrices at least that.
        scales = chain.gains / np.sqrt(chain.widths[:-1])
        once = [disturbed(w, scale, noise, rng) for w, scale in zip(once, scales, strict=False)]
    return once * chain.depth if chain.tied else once


def sizes(chain):
    """Typical size of what each layer adds."""
    return np.hypot(chain.biases, chain.input_noise)


def product(w, x, noise, rng):
    """W x, with what accumulating it in another order and precision may change."""
    y = w @ x
    if noise:
        y = y + noise * (np.abs(w) @ np.abs(x)) * rng.standard_normal(len(y))
    return y


def activate(chain, z):
    """h = phi(z), and phi'(z) as (sign, ln |phi'|)."""
    if chain.activation == "linear" or (chain.activation == "tanh" and z.log < TANH_IS_LINEAR):
        return z, (np.ones_like(z.x), np.zeros_like(z.x))
    if chain.activation == "tanh":
        true = z.x * np.exp(z.log)
        size = np.abs(true)
        log_slopes = np.log(4) - 2 * size - 2 * np.log1p(np.exp(-2 * size))
        return Vector(np.tanh(true)), (np.ones_like(true), log_slopes)
    slope = chain.negative_slope if chain.activation == "leaky_relu" else 0.0
    factor = np.where(z.x > 0, 1.0, slope)
    return Vector(z.x * factor, z.log), (np.sign(factor), np.log(np.abs(factor)))


def take_slopes(g, slope, noise, rng):
    """d = phi' g."""
    sign, log_slope = slope
    logs = log_slope + np.log(np.abs(g.x))
    largest = logs.max()
    if largest == -np.inf:
        return Vector(np.zeros_like(g.x))
    x = sign * np.sign(g.x) * np.exp(logs - largest)
    if noise:
        x = x * (1 + noise * rng.standard_normal(len(x)))
    return Vector(x, g.log + largest)


def behind(g, slope):
    """ln(min |d| / max |d|) over the nonzero entries of d = phi' g."""
    logs = slope[1] + np.log(np.abs(g.x))
    logs = logs[logs > -np.inf]
    return logs.min() - logs.max() if len(logs) else 0.0


def top(chain, cell, index, h):
    """g_L."""
    if chain.output_gradient == "loss":
        return h
    return Vector(reference.output_gradient(chain, cell, index, h.x))


def weight_gradient(chain, steps):
    """ln ||d h^T|| of each layer, or of their sum."""
    if not chain.tied:
        return np.array([d.log_norm() + h.log_norm() for d, h in steps])
    alive = [(d, h) for d, h in steps if d.x.any() and h.x.any()]
    if not alive:
        return np.array([-np.inf])
    log = max(d.log + h.log for d, h in alive)
    total = sum(np.exp(d.log + h.log - log) * np.outer(d.x, h.x) for d, h in alive)
    return np.array([np.log(np.linalg.norm(total)) + log])
