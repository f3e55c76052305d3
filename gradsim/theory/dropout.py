"""Dropout in feedforward chains: each unit of h_l is kept with probability p, and divided by p.

The masks are independent of everything else. Backward, g_l loses the units that were dropped, as it does those
that a ReLU switches off: with g_l uniform in direction, the fraction of its squared norm on K kept units of n
is Beta(K/2, (n - K)/2). A ReLU lets a kept unit through with probability 1/2, so that K ~ Bin(n, p/2) there and
Bin(n, p) in linear chains.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from gradsim.chain import Chain
from gradsim.theory.law import Increment, Law, draws_fresh_weights, law_of_layers
from gradsim.theory.linear import gaussian_increments, orthogonal_increments
from gradsim.theory.relu import deaths
from gradsim.theory.special import FloatArray, LogActiveFraction

_INCREMENTS = {"gaussian": gaussian_increments, "orthogonal": orthogonal_increments}


def dropout_linear(chain: Chain) -> Law | None:
    """Gaussian W: (s2/(n_{l-1} p^2)) chi2_{n_{l-1}} Beta(K/2, (n_l - K)/2), K ~ Bin(n_l, p), per layer;
    Haar-orthogonal W: what it does without dropout in the place of the first factor: exact.

    A chain is dead where a layer above keeps no unit.
    """
    kept = 1.0 - chain.dropout
    alive = np.log1p(-(chain.dropout ** np.array(chain.widths[1:], dtype=np.float64)))
    dead = -np.expm1(np.append(np.cumsum(alive[::-1])[::-1], 0.0))
    return _law(chain, "linear", kept, dead)


def dropout_relu(chain: Chain) -> Law | None:
    """As `dropout_linear` with K ~ Bin(n_l, p/2), and deaths as of a ReLU that lets a unit through with
    probability p/2: exact.
    """
    passing = (1.0 - chain.dropout) / 2.0
    return _law(chain, "relu", passing, deaths(chain, passing))


def _law(chain: Chain, activation: str, passing: float, dead: FloatArray) -> Law | None:
    plain = chain.activation == activation and draws_fresh_weights(chain) and chain.init in _INCREMENTS
    if not (plain and chain.dropout):
        return None
    increments = zip(_INCREMENTS[chain.init](chain), chain.widths[1:], strict=True)
    return law_of_layers(
        [masked(weight, n, passing, 1.0 - chain.dropout) for weight, n in increments],
        name=f"dropout-{activation}",
        source=f"{chain.init} {activation} law with binomial counts of units that dropout lets through",
        chain=chain,
        p_dead=dead,
    )


def masked(weight: Increment, width: int, passing: float, kept: float) -> Increment:
    """The increment of W^T, preceded by masks that let each of `width` units through with probability `passing`."""
    fraction = (LogActiveFraction(width, passing),) if width > 1 else ()
    return replace(weight, constant=weight.constant - 2.0 * math.log(kept), parts=(*weight.parts, *fraction))
