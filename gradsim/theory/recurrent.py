"""Recurrent linear chains: every step goes backward through the same matrix, g_{l-1} = W^T g_l."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

import numpy as np

from gradsim.chain import Chain
from gradsim.theory.law import EXACT, Increment, Law, law_of_layers, log_start

_TABLE = Path(__file__).with_name("recurrent_moments.txt")


def gaussian_linear(chain: Chain) -> Law | None:
    """E||(W^T)^k u||^2 for one real Gaussian W used k times: exact, for as many steps as are tabulated; NaN
    beyond.

    With G = W sqrt(n)/gain it is ``(gain^2/n)^k P_k(n)/n``, P_k(n) = E tr G^k (G^k)^T, for any u independent
    of W. Integrating by parts over one factor (Stein's lemma) closes on E (G^b u, G^c u) prod tr G^{a_i},
    which gives P_k as a polynomial with positive integer coefficients: P_2 = n^3 + 2 n, P_3 = n^4 + 10 n^2 +
    4 n. The mean over chains is ruled by rare ones once k^2 is large against n.
    """
    applies = chain.activation == "linear" and chain.init == "gaussian"
    if not (applies and chain.tied and chain.depth > 1):
        return None
    start = log_start(chain)
    steps = np.arange(chain.depth, -1, -1.0)
    excess = np.full(chain.depth + 1, math.nan)
    known = min(chain.depth, len(_polynomials()))
    excess[chain.depth - known :] = [log_moment_ratio(chain.widths[0], k) for k in range(known, -1, -1)]
    mean, var = np.full((2, chain.depth + 1), math.nan)
    mean[-1], var[-1] = start, 0.0
    return Law(
        name="recurrent-gaussian-linear",
        validity=EXACT,
        source=f"second moment by Wick's theorem, up to {len(_polynomials())} steps; no law of the mean",
        mean=mean,
        var=var,
        log_second_moment=2.0 * start + 2.0 * steps * math.log(float(chain.gains[0])) + excess,
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


def log_moment_ratio(width: int, steps: int) -> float:
    """ln of E||W^k u||^2/(gain^{2 k} ||u||^2): how far the second moment exceeds that of independent
    matrices.
    """
    if steps == 0:
        return 0.0
    coefficients = _polynomials()[steps - 1]
    # Horner's rule from the lowest coefficient, in 1/n: all terms are positive.
    total = 0.0
    for value in coefficients:
        total = total / width + value
    return math.log(total)


@lru_cache(maxsize=1)
def _polynomials() -> tuple[tuple[float, ...], ...]:
    """Coefficients of n, n^2, ..., n^{k+1} in P_k, for k = 1, 2, ..."""
    lines = _TABLE.read_text(encoding="ascii").splitlines()
    return tuple(tuple(map(float, line.split())) for line in lines if not line.startswith("#"))
