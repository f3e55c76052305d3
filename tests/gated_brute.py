"""LSTM and GRU without bias by real matrices, forward and backward, in plain NumPy; shares nothing with the package."""

from __future__ import annotations

import numpy as np
from scipy.special import expit


def simulate(kind, width, depth, gain, forget_bias, chains, seed):
    """ln||dLoss/dh_l|| for h_0 ~ N(0, 1) and a random unit dLoss/dh_L, shape (chains, L+1)."""
    rng = np.random.default_rng(seed)
    run = lstm if kind == "lstm" else gru
    return np.stack([run(rng, width, depth, gain, forget_bias) for _ in range(chains)])


def gru(rng, n, depth, gain, _):
    reset, update, new = gain / np.sqrt(n) * rng.standard_normal((3, n, n))
    h, jacobians = rng.standard_normal(n), []
    for _ in range(depth):
        r, z, a = expit(reset @ h), expit(update @ h), new @ h
        m = np.tanh(r * a)
        through = (1.0 - z) * (1.0 - m * m)
        rows = (through * a * r * (1.0 - r))[:, None] * reset + (through * r)[:, None] * new
        jacobians.append(rows + ((h - m) * z * (1.0 - z))[:, None] * update + np.diag(z))
        h = (1.0 - z) * m + z * h
    g = rng.standard_normal(n)
    logs = [0.0]
    g /= np.linalg.norm(g)
    for jacobian in jacobians[::-1]:
        g = jacobian.T @ g
        logs.append(np.log(np.linalg.norm(g)))
    return np.array(logs[::-1])


def lstm(rng, n, depth, gain, forget_bias):
    wi, wf, wu, wo = gain / np.sqrt(n) * rng.standard_normal((4, n, n))
    h, c, steps = rng.standard_normal(n), np.zeros(n), []
    for _ in range(depth):
        i, f, u, o = expit(wi @ h), expit(wf @ h + forget_bias), np.tanh(wu @ h), expit(wo @ h)
        below, c = c, f * c + i * u
        t = np.tanh(c)
        steps.append((i, f, u, o, t, below))
        h = o * t
    gh, gc = rng.standard_normal(n), np.zeros(n)
    gh /= np.linalg.norm(gh)
    logs = [0.0]
    for i, f, u, o, t, below in steps[::-1]:
        gc = gc + gh * o * (1.0 - t * t)
        gh = (
            wi.T @ (i * (1.0 - i) * u * gc)
            + wf.T @ (f * (1.0 - f) * below * gc)
            + wu.T @ ((1.0 - u * u) * i * gc)
            + wo.T @ (o * (1.0 - o) * t * gh)
        )
        gc = f * gc
        logs.append(np.log(np.linalg.norm(gh)))
    return np.array(logs[::-1])
