"""Gradients that become zero because a weight was drawn, or cancels, to exactly 0: rare, and in no law.

A law of continuous weights gives such a gradient the probability 0. The numbers drawn are finitely many, and where a
layer hands on a single entry one of them is enough. With two entries or more, several independent zeros have to meet,
with a probability of 1e-15 or less, which is left out.
"""

from __future__ import annotations

import math

import numpy as np

from gradsim.chain import Chain

__all__ = ["chance_of_zero"]

# Words of 2^32 that a float32 normal of the first row comes out 0 from, counted by going through all of them: 128 give
# a radius of 0, and so both normals of their pair; 130 others an angle whose cosine is 0. No float64 one does.
_ZERO_RADIUS, _ZERO_COSINE = 128 / 2**32, 130 / 2**32


def chance_of_zero(chain: Chain, dtype: str) -> float:
    """Probability that ||g_0|| is 0 by the drawing of Gaussian weights alone, all else passing it on.

    Parameters
    ----------
    chain : Chain
        Without tied weights: those of a chain that a law covers.
    dtype : str
        Arithmetic of the chain.

    Returns
    -------
    float
        To first order; for skip connections an upper bound.
    """
    if chain.init != "gaussian":
        return 0.0
    sizes = zip(chain.widths[:-1], chain.widths[1:], chain.gains.tolist(), strict=True)
    layers = sum(_layer(chain, dtype, n, gain) for m, n, gain in sizes if m == 1)
    # A norm makes the gradient of an input that is 0 zero.
    first = _zero_normal(dtype) if chain.norm != "none" and chain.widths[0] == 1 else 0.0
    return 0.0 - math.expm1(-layers - first)


def _layer(chain: Chain, dtype: str, rows: int, gain: float) -> float:
    """Of a matrix with one column. Two rows come from one pair of normals, more from several."""
    if chain.skip_factor and chain.carry:
        return _cancelling(abs(chain.carry / (chain.skip_factor * gain)), dtype)
    if rows == 1:
        return _zero_normal(dtype)
    return _ZERO_RADIUS if rows == 2 and dtype == "float32" else 0.0


def _zero_normal(dtype: str) -> float:
    return _ZERO_RADIUS + _ZERO_COSINE if dtype == "float32" else 0.0


def _cancelling(ratio: float, dtype: str) -> float:
    """P(carry + alpha gain w = 0) after rounding, for one weight: its density at -`ratio` times a spacing there."""
    return ratio * math.exp(-ratio * ratio / 2.0) / math.sqrt(2.0 * math.pi) * float(np.finfo(dtype).eps)
