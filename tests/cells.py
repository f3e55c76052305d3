"""Cells for comparisons: trajectories drawn from the laws in NumPy, without matrices."""

from __future__ import annotations

import numpy as np


class StandIn:
    """What a comparison needs of a result cell, from trajectories of shape (chains, L+1)."""

    def __init__(self, chain, logs, dtype="float32", keep=None):
        self.chain = chain
        self.dtype = dtype
        self.chains = len(logs)
        self.quantities = ("log_grad_norm",)
        stored = np.asarray(logs).astype(np.float32)
        finite = np.isfinite(stored)
        values = np.where(finite, stored, np.nan).astype(np.float64)
        count = finite.sum(axis=0)
        mean = np.nansum(values, axis=0) / np.where(count > 0, count, np.nan)
        var = np.nansum((values - mean) ** 2, axis=0) / np.where(count > 1, count - 1, np.nan)
        self.summary = {
            "log_grad_norm_mean": mean,
            "log_grad_norm_var": var,
            "log_grad_norm_count": count,
            "dead": np.isneginf(stored).sum(axis=0),
        }
        self.log_grad_norm = stored[:keep]


def draw(chain, chains, rng):
    """Trajectories of a feedforward linear or ReLU chain with Gaussian weights, from chi-squared and beta
    variables.
    """
    m, n = np.array(chain.widths[:-1]), np.array(chain.widths[1:])
    shape = (chains, chain.depth)
    squares = chain.gains**2 / m * rng.chisquare(m, shape)
    if chain.activation == "relu":
        active = rng.binomial(n, 0.5, shape)
        part = rng.beta(np.maximum(active, 0.5) / 2, np.maximum(n - active, 0.5) / 2)
        squares *= np.where(active == n, 1.0, np.where(active == 0, 0.0, part))
    with np.errstate(divide="ignore"):
        logs = np.log(squares) / 2.0
    logs = np.concatenate([np.cumsum(logs[:, ::-1], axis=1)[:, ::-1], np.zeros((chains, 1))], axis=1)
    # Without a bias one dead layer anywhere leaves nothing below the top.
    logs[np.isneginf(logs[:, 0]), :-1] = -np.inf
    return logs
