"""Mean field: width to infinity at fixed depth, for an activation that is not homogeneous (tanh)."""

from __future__ import annotations

import math

import numpy as np

from gradsim import activations
from gradsim.chain import Chain
from gradsim.criticality import chi, fixed_point, gaussian_squares
from gradsim.theory.law import MEAN_FIELD, Law, is_uniform, log_start, squared_gains, sum_above
from gradsim.theory.special import FloatArray

_SOURCE = (
    "log E||g||^2 at infinite width: sum of log chi(q_l) (Schoenholz et al. 2017); "
    "at width n the mean of log||g||^2 lies about (1 to 3) L/n lower"
)


def mean_field_tanh(chain: Chain) -> Law | None:
    """E||g_l||^2 = ||g_L||^2 prod chi_l: independent weights of any law, Haar-orthogonal ones, tied or not.

    q_1 = s2 input_scale^2 + v (no phi on h_0), q_{l+1} = s2 E phi(sqrt(q_l) Z)^2 + v, chi_l = s2 E
    phi'(sqrt(q_l) Z)^2, with v = bias^2 + input_noise^2. The mean of ln||g|| is approximated by half the
    logarithm of that expectation. Sources: Poole et al. 2016 (arXiv:1606.05340), Schoenholz et al. 2017
    (arXiv:1611.01232); tied weights: Chen, Pennington and Schoenholz 2018 (arXiv:1806.05394).
    """
    if not (chain.activation == "tanh" and chain.init != "identity"):
        return None
    log_chi = log_growth(chain)
    start = log_start(chain)
    mean = start + sum_above(log_chi) / 2.0
    return Law(
        name="mean-field-tanh",
        validity=MEAN_FIELD,
        source=_SOURCE,
        mean=mean,
        var=None,
        log_second_moment=2.0 * mean,
        p_dead=np.zeros(chain.depth + 1),
        rate=_asymptotic_rate(chain),
        start=start,
    )


def log_growth(chain: Chain) -> FloatArray:
    """ln chi_l of layers 1..L, shape (L,)."""
    phi = activations.get(chain.activation, chain.negative_slope)
    s2 = _effective_squared_gains(chain)
    added = (chain.biases**2 + chain.input_noise**2).tolist()
    result = np.empty(chain.depth)
    square = chain.input_scale**2
    previous = (math.nan, math.nan, math.nan)
    for layer in range(chain.depth):
        q = s2[layer] * square + added[layer]
        if (q, s2[layer], added[layer]) == previous:
            # A fixed point: every further layer that is alike repeats this one.
            result[layer] = result[layer - 1]
            continue
        square, slope = gaussian_squares(phi, q)
        result[layer] = math.log(s2[layer] * slope)
        previous = (q, s2[layer], added[layer])
    return result


def _effective_squared_gains(chain: Chain) -> list[float]:
    """s2, times n_{l-1}/n_l where an orthogonal W is tall: it keeps norms, and so spreads them over more
    units.
    """
    s2 = squared_gains(chain)
    if chain.init != "orthogonal":
        return s2
    sizes = zip(s2, chain.widths[:-1], chain.widths[1:], strict=True)
    return [value * min(1.0, m / n) for value, m, n in sizes]


def _asymptotic_rate(chain: Chain) -> float:
    """(1/2) ln chi at the fixed point of the variance map, where all layers are alike."""
    if not (is_uniform(chain) and len(set(chain.biases.tolist())) == 1):
        return math.nan
    phi = activations.get(chain.activation, chain.negative_slope)
    gain, added = float(chain.gains[0]), math.hypot(float(chain.biases[0]), chain.input_noise)
    return math.log(chi(phi, fixed_point(phi, gain, added), gain)) / 2.0
