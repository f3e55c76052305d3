"""Mean field: width to infinity at fixed depth, for any activation.

E||g_l||^2 = ||g_L||^2 prod chi_l with chi_l = s2 E phi'(sqrt(q_l) Z)^2, q_1 = s2 input_scale^2 + v (no phi on h_0),
q_{l+1} = s2 E phi(sqrt(q_l) Z)^2 + v, and v = bias^2 + input_noise^2; dropout takes s2 to s2/(1 - dropout) in both.
Sources: Poole et al. 2016 (arXiv:1606.05340), Schoenholz et al. 2017 (arXiv:1611.01232, with dropout); tied
weights: Chen, Pennington and Schoenholz 2018 (arXiv:1806.05394), Yang 2020 (arXiv:2006.14548).

The mean of ln||g|| is approximated by half the logarithm of that expectation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gradsim import activations
from gradsim.chain import Chain
from gradsim.criticality import chi, fixed_point
from gradsim.theory.law import MEAN_FIELD, Law, draws_fresh_weights, is_uniform, log_start, sum_above
from gradsim.theory.layer_map import layer_weights, log_growth, logarithm
from gradsim.theory.special import FloatArray

#: Odd activations: phi' is even and E z phi'(z) = 0, so that g_L = (1, ..., 1) has no overlap with W h.
ODD = ("linear", "tanh", "erf")
#: Weights whose law is continuous: no linear combination of them has a value of positive probability. Orthogonal
#: ones have that too but at width 1, where they are signs.
CONTINUOUS = ("gaussian", "uniform")

_ERROR = (
    "at width n the mean of log||g||^2 lies lower by O(L/n): 1 to 3 L/n at moderate gains, up to 9 where units saturate"
)
_TIED_ERROR = "tied weights: error O(L^2/n), for L well below sqrt(n); the rate seen beyond that is lower"


def plain(chain: Chain) -> Law | None:
    """The mean field of feedforward and recurrent chains without skip and norm: independent weights of any law,
    Haar-orthogonal ones, tied or not, any batch (its columns do not mix) and dropout.
    """
    if chain.norm != "none" or chain.skip or not mixes(chain):
        return None
    if chain.output_gradient == "ones" and chain.activation not in ODD:
        return None
    source = "log E||g||^2 at infinite width: sum of log chi(q_l) (Schoenholz et al. 2017)"
    growth, _ = log_growth(chain)
    return limit_law(chain, "mean-field", [source], growth, _asymptotic_rate(chain))


def mixes(chain: Chain) -> bool:
    """Whether every unit sees all others through its weights: not where W = gain I."""
    return chain.init != "identity"


def limit_law(chain: Chain, name: str, source: Sequence[str], growth: FloatArray, rate: float) -> Law:
    """The law whose E||g||^2 grows by exp(growth[l - 1]) through layer l, with the mean of ln||g|| half its
    logarithm.

    Parameters
    ----------
    chain : Chain
    name : str
    source : sequence of str
        Where it comes from; the order of the error in 1/width is added.
    growth : array, shape (L,)
    rate : float
    """
    start = log_start(chain)
    mean = start + sum_above(growth) / 2.0
    error = _ERROR if draws_fresh_weights(chain) else _TIED_ERROR
    return Law(
        name=name,
        validity=MEAN_FIELD,
        source="; ".join([*source, error]),
        mean=mean,
        var=None,
        log_second_moment=2.0 * mean,
        p_dead=chance_of_death(chain),
        rate=rate,
        start=start,
    )


def chance_of_death(chain: Chain) -> FloatArray:
    """P(g_l = 0) at finite width, shape (L+1,): 0 where no layer makes a gradient zero but with probability 0, NaN
    otherwise. Infinite width says nothing about it.

    That is where W is continuous and nothing is switched off: phi' is nowhere 0 (GELU's and SiLU's at one point alone)
    and no unit dropped, or h_{l-1} is carried past. A norm may still have a single value to divide by.
    """
    switched_off = chain.activation == "relu" or (chain.activation == "leaky_relu" and chain.negative_slope == 0.0)
    carried = bool(chain.skip_factor) and chain.carry != 0.0
    passes = carried or not (switched_off or chain.dropout)
    continuous = chain.init in CONTINUOUS or (chain.init == "orthogonal" and min(chain.widths) > 1)
    certain = chain.kind in ("feedforward", "recurrent") and chain.norm == "none" and passes and continuous
    dead = np.full(chain.depth + 1, 0.0 if certain else math.nan)
    dead[-1] = 0.0
    return dead


def layers_are_alike(chain: Chain) -> bool:
    """Whether all layers have the same widths, gains and biases, so that an asymptotic rate exists."""
    return is_uniform(chain) and len(set(chain.biases.tolist())) == 1


def _asymptotic_rate(chain: Chain) -> float:
    """(1/2) ln chi at the fixed point of the variance map, where all layers are alike."""
    if not layers_are_alike(chain):
        return math.nan
    phi = activations.get(chain.activation, chain.negative_slope)
    s2, b2 = next(layer_weights(chain))
    gain, added = math.sqrt(s2 / (1.0 - chain.dropout)), math.sqrt(b2)
    if phi.mean_square is not None:
        return logarithm(gain * gain * phi.mean_square) / 2.0
    q = fixed_point(phi, gain, added, s2 * chain.input_scale**2 + b2)
    return logarithm(chi(phi, q, gain)) / 2.0
