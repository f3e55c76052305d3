"""Recurrent linear chains: every step goes backward through the same matrix, g_{l-1} = W^T g_l."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

import numpy as np

from gradsim.chain import Chain
from gradsim.theory.law import EXACT, Increment, Law, law_of_layers, log_start
from gradsim.theory.special import FloatArray

_TABLE = Path(__file__).with_name("recurrent_moments.txt")


def gaussian_linear(chain: Chain) -> Law | None:
    """E||(W^T)^k u||^2 for one real Gaussian W used k times, with a skip connection E||(carry + alpha W^T)^k u||^2:
    exact, for as many steps as are tabulated; NaN beyond.

    With G = W sqrt(n)/gain it is made of M_ij = E (G^i u, G^j u) = P_ij(n)/n for any u independent of W. Integrating
    by parts over one factor (Stein's lemma) closes on E (G^b u, G^c u) prod tr G^{a_i}, which gives P_ij as a
    polynomial with positive integer coefficients: P_11 = n^2, P_22 = n^3 + 2 n, and beside the diagonal P_02 = n, since
    tr G^2 has mean n for a real G. The mean over chains is ruled by rare ones once k^2 is large against n. See
    docs/theory/recurrent-skip.md.
    """
    applies = chain.activation == "linear" and chain.init == "gaussian"
    if not (applies and chain.tied and chain.depth > 1):
        return None
    start = log_start(chain)
    gain = float(chain.gains[0])
    carry, branch = (chain.carry, chain.skip_factor * gain) if chain.skip_factor else (0.0, gain)
    known = min(chain.depth, _largest())
    steps = np.arange(chain.depth, -1, -1.0)
    excess = np.full(chain.depth + 1, math.nan)
    excess[chain.depth - known :] = log_moment_ratios(chain.widths[0], known, branch / (carry + branch))[::-1]
    mean, var = np.full((2, chain.depth + 1), math.nan)
    mean[-1], var[-1] = start, 0.0
    return Law(
        name="recurrent-gaussian-linear",
        validity=EXACT,
        source=f"second moment by Wick's theorem, up to {_largest()} steps; no law of the mean",
        mean=mean,
        var=var,
        log_second_moment=2.0 * start + 2.0 * steps * math.log(carry + branch) + excess,
        p_dead=np.zeros(chain.depth + 1),
        rate=math.nan,
        start=start,
    )


def orthogonal_linear(chain: Chain) -> Law | None:
    """One Haar-orthogonal W used in every step keeps norms: ||g_0|| = gain^L ||g_L||, exact."""
    if not (chain.activation == "linear" and chain.init == "orthogonal" and chain.tied and chain.depth > 1):
        return None
    return law_of_layers(
        [Increment(2.0 * math.log(float(chain.gains[0])))] * chain.depth,
        name="recurrent-orthogonal-linear",
        source="an orthogonal W keeps norms: ||g_0|| = gain^L ||g_L||",
        chain=chain,
    )


def log_moment_ratios(width: int, steps: int, branch: float = 1.0) -> FloatArray:
    """ln E||((1 - p) + p V)^k u||^2, |u| = 1, for k = 0..steps, V real Gaussian with entries of variance 1/width.

    Parameters
    ----------
    width, steps : int
    branch : float
        p, between 0 and 1: 1 without a skip connection.
    """
    moments = _moments(width)
    j = np.arange(len(moments))
    from scipy import stats  # here: few runs need it, and it loads slowly

    chosen = [stats.binom.pmf(j, k, branch) for k in range(steps + 1)]
    return np.array([math.log(weights @ moments @ weights) for weights in chosen])


@lru_cache(maxsize=16)
def _moments(width: int) -> FloatArray:
    """E (V^i u, V^j u) as a symmetric matrix, from i = j = 0."""
    result = np.zeros((_largest() + 1, _largest() + 1))
    result[0, 0] = 1.0
    for (i, j), coefficients in _polynomials().items():
        # Horner's rule from the lowest coefficient, in 1/n: all terms are positive.
        total = 0.0
        for value in coefficients:
            total = total / width + value
        result[i, j] = result[j, i] = total * float(width) ** (len(coefficients) - 1 - (i + j) / 2)
    return result


def _largest() -> int:
    """How many steps are tabulated."""
    return max(j for _, j in _polynomials())


@lru_cache(maxsize=1)
def _polynomials() -> dict[tuple[int, int], tuple[float, ...]]:
    """Coefficients of n, n^2, ... in P_ij, by pair i <= j."""
    lines = (line.split() for line in _TABLE.read_text(encoding="ascii").splitlines() if not line.startswith("#"))
    return {(int(i), int(j)): tuple(map(float, row)) for i, j, *row in lines}
