"""Gradients that become zero because a weight was drawn, or cancels, to exactly 0: rare, and in no law.

A law of continuous weights gives such a gradient the probability 0. The numbers drawn are finitely many, and rounded.
Where a layer hands on a single entry, the gradient is zero if that entry is: a weight drawn as 0, or a sum over the
rows of a matrix of one column that cancels. With two entries or more, several independent zeros have to meet, with a
probability of 1e-14 or less, which is left out. A rectifier and dropout leave single entries of wider layers too.
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
    """An upper bound of the probability that ||g_0|| is 0 by the drawing of Gaussian weights alone, all else
    passing it on.

    Parameters
    ----------
    chain : Chain
        Without tied weights: those of a chain that a law covers.
    dtype : str
        Arithmetic of the chain.

    Returns
    -------
    float
        To first order, with nothing to spare for width 1 without a skip; sums of several rows cancel three to ten
        times less often, and less still where one of them outweighs the rest.
    """
    if chain.init != "gaussian":
        return 0.0
    lone = [_lone(n, _share_passed(chain)) for n in chain.widths]
    lone[0] = float(chain.widths[0] == 1)
    if chain.skip_factor and chain.carry:
        carried = (_cancelling(chain, gain, dtype) for gain in chain.gains.tolist())
        return 0.0 - math.expm1(-sum(below * one for below, one in zip(lone[:-1], carried, strict=True)))
    rows = (_sum_over_rows(n, above, dtype) for n, above in zip(chain.widths[1:], lone[1:], strict=True))
    return 0.0 - math.expm1(-sum(below * one for below, one in zip(lone[:-1], rows, strict=True)))


def _share_passed(chain: Chain) -> float:
    """Probability that a unit passes its gradient on."""
    switched_off = chain.activation == "relu" or (chain.activation == "leaky_relu" and chain.negative_slope == 0.0)
    return (1.0 - chain.dropout) * (0.5 if switched_off else 1.0)


def _lone(n: int, share: float) -> float:
    """Probability that one unit alone of a layer passes its gradient on, given that any does."""
    return n * share * (1.0 - share) ** (n - 1) / -math.expm1(n * math.log1p(-share)) if share < 1.0 else float(n == 1)


def _sum_over_rows(rows: int, lone: float, dtype: str) -> float:
    """P(sum_i d_i w_i = 0) over one column, `lone` that of a single d_i.

    Two rows come from one pair of normals, more from several. A rounded sum of standard deviation s takes values near
    0 that are no further apart than floats near s: its density at 0, 1/sqrt(2 pi)/s, times their spacing.
    """
    drawn = (_ZERO_RADIUS, _ZERO_COSINE) if dtype == "float32" else (0.0, 0.0)
    if rows == 1:
        return sum(drawn)
    rounded = float(np.finfo(dtype).eps) / math.sqrt(2.0 * math.pi)
    return lone * sum(drawn) + (1.0 - lone) * ((drawn[0] if rows == 2 else 0.0) + rounded)


def _cancelling(chain: Chain, gain: float, dtype: str) -> float:
    """P(carry + alpha gain w = 0) after rounding, for one weight: its density there times a spacing."""
    if gain == 0.0:
        return 0.0
    ratio = abs(chain.carry / (chain.skip_factor * gain))
    return ratio * math.exp(-ratio * ratio / 2.0) / math.sqrt(2.0 * math.pi) * float(np.finfo(dtype).eps)
