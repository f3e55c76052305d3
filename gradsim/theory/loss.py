"""Gradients that depend on the weights: g_L = h_L, the gradient of ||h_L||^2/2, and g_L of all ones behind a
rectifier. Their second moments at finite width.

With J_l = D_l W_l J_{l-1}, J = 1 at the layer looked at, D = phi'(z), the gradient there is J_L^T g_L, and its squared
norm is g_L^T P_L g_L, P_l = J_l J_l^T. Given h = h_{l-1}, W_l = z h^T/|h|^2 + W~ with W~ independent of z on the
complement of h, which closes in two numbers: see docs/theory/loss-gradients.md.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from gradsim.chain import Chain
from gradsim.theory.law import EXACT, Law, adds_nothing, draws_fresh_weights, log_start, squared_gains
from gradsim.theory.relu import deaths
from gradsim.theory.special import FloatArray, LogLeakyFraction

_SLOPES = {"linear": 1.0, "relu": 0.0}


def loss_gradient(chain: Chain) -> Law | None:
    """E||g_l||^2 for g_L = h_L in linear, ReLU and leaky ReLU chains without bias: exact.

    (a, b) = E (h^T P h, |h|^2 tr P) over |h_l|^2 starts at (1, n_l); a layer of width n above one of width m takes it
    to (s2/m)^2 ((E1 - E2) a + E2 b, (E1 - E3) a + E3 b), E1 = 3 n v + n (n - 1) u^2, E2 = n v, E3 = n v + n (n - 1)
    u^2, u = E phi'^2, v = E phi'^4. At width to infinity and He's gain, 1 + 2 L for ReLU and L + 1 for linear.
    """
    if not (_applies(chain) and chain.output_gradient == "loss"):
        return None
    u, v = _moments(_slope(chain))
    log_second = np.empty(chain.depth + 1)
    left, log_scale = np.array([1.0, 0.0]), 0.0
    log_forward = _log_forward(chain, u)
    log_second[-1] = log_forward[-1]
    for layer in range(chain.depth, 0, -1):
        m, n = chain.widths[layer - 1], chain.widths[layer]
        e2, e3 = n * v, n * v + n * (n - 1) * u * u
        e1 = e3 + 2.0 * n * v
        left = left @ np.array([[e1 - e2, e2], [e1 - e3, e3]]) / m**2
        log_scale += math.log(left.sum())
        left /= left.sum()
        log_scale += 4.0 * math.log(float(chain.gains[layer - 1]))
        log_second[layer - 1] = log_forward[layer - 1] + log_scale + math.log(left @ [1.0, m])
    dead = _dead(chain)
    dead[-1] = dead[0]
    return _law(chain, "loss-rectifier", log_second, dead)


def ones_gradient(chain: Chain) -> Law | None:
    """E||g_l||^2 for g_L of all ones in ReLU and leaky ReLU chains without bias: exact.

    (p, t) = E (h^T P h/|h|^2, tr P) starts at (1, n_l); a layer takes it to (s2/m) (n u p + k (t - p), n u t), u = E
    phi'^2, k = E (sum phi'^4 Z^2/sum phi'^2 Z^2), 1 - 2^-n for ReLU; the last one gives (s2/m) (n u t + n (n - 1)
    (E phi)^2 p); all this given h_l != 0. Per unit of ||g_L||^2 = n, 1 + (2 L - 1)/pi at width to infinity for ReLU and
    He's gain.
    """
    if not (_applies(chain) and chain.output_gradient == "ones" and chain.activation != "linear"):
        return None
    slope = _slope(chain)
    u, _ = _moments(slope)
    top = chain.widths[-1]
    left, log_scale = np.array([top * (top - 1) * (1.0 - slope) ** 2 / (2.0 * math.pi), top * u]), 0.0
    log_second = np.full(chain.depth + 1, math.log(top))
    for layer in range(chain.depth, 0, -1):
        m, n = chain.widths[layer - 1], chain.widths[layer]
        if layer < chain.depth:
            k = _spread(n, slope)
            left = left @ np.array([[n * u - k, k], [0.0, n * u]])
        log_scale += math.log(left.sum() / m) + 2.0 * math.log(float(chain.gains[layer - 1]))
        left /= left.sum()
        log_second[layer - 1] = log_scale + math.log(left @ [1.0, m])
    if slope == 0.0:
        # Where the forward pass has died below layer l already, g_l is zero.
        log_second[1:-1] += np.cumsum(np.log1p(-(0.5 ** np.array(chain.widths[1:-1], dtype=np.float64))))
    return _law(chain, "ones-rectifier", log_second, _dead(chain))


def _law(chain: Chain, name: str, log_second: FloatArray, dead: FloatArray) -> Law:
    """A law of second moments alone; the logarithm of g_L is known where it is not random."""
    fixed = chain.output_gradient == "ones"
    mean, var = np.full((2, chain.depth + 1), math.nan)
    if fixed:
        mean[-1], var[-1] = log_start(chain), 0.0
    return Law(
        name=name,
        validity=EXACT,
        source="second moment by a recursion in two numbers; no law of the mean",
        mean=mean,
        var=var,
        log_second_moment=log_second,
        p_dead=dead,
        rate=math.nan,
        start=log_start(chain) if fixed else math.nan,
    )


def _applies(chain: Chain) -> bool:
    plain = chain.activation in ("linear", "relu", "leaky_relu") and chain.init == "gaussian"
    return plain and draws_fresh_weights(chain) and adds_nothing(chain)


def _slope(chain: Chain) -> float:
    return _SLOPES.get(chain.activation, chain.negative_slope)


def _moments(slope: float) -> tuple[float, float]:
    """E phi'^2 and E phi'^4 over the two signs of z."""
    return (1.0 + slope**2) / 2.0, (1.0 + slope**4) / 2.0


@lru_cache(maxsize=64)
def _spread(width: int, slope: float) -> float:
    """E (X + a^4 Y)/(X + a^2 Y), X and Y the squared norms of a Gaussian vector on its K ~ Bin(n, 1/2) active units and
    on the others; 0 where both are.
    """
    a2 = slope**2
    if a2 in (0.0, 1.0):
        return 1.0 - 0.5**width if a2 == 0.0 else 1.0
    # X + a^2 Y = F (X + Y): the ratio is 1 + a^2 - a^2/F.
    inverse = LogLeakyFraction(width, min(abs(slope), 1.0 / abs(slope))).log_moment(np.array([-1.0 + 0.0j]))
    return 1.0 + a2 - min(a2, 1.0) * math.exp(float(inverse[0].real))


def _log_forward(chain: Chain, u: float) -> FloatArray:
    """ln E||h_l||^2, shape (L+1,)."""
    widths = np.array(chain.widths, dtype=np.float64)
    growth = np.log(np.array(squared_gains(chain)) * u * widths[1:] / widths[:-1])
    return math.log(widths[0] * chain.input_scale**2) + np.concatenate([[0.0], np.cumsum(growth)])


def _dead(chain: Chain) -> FloatArray:
    return deaths(chain) if _slope(chain) == 0.0 else np.zeros(chain.depth + 1)
