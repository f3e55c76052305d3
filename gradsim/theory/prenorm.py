"""Linear skip connections with a layer or RMS norm on the branch's input, h_l = carry h_{l-1} + alpha (W N(h_{l-1}) +
b), at infinite width.

The gradient of the norm is orthogonal to h_{l-1}, and W_l on the complement of h_{l-1} is independent of the forward
pass. So given that pass the factors are carry^2 + a2 (n - 1)/|h_{l-1}|^2 on average, a2 = alpha^2 s2, and at infinite
width |h_l|^2/n is the number q_l = carry^2 q_{l-1} + a2 + alpha^2 bias^2, q_0 = input_scale^2.
"""

from __future__ import annotations

import math

import numpy as np

from gradsim.chain import Chain
from gradsim.theory.law import MEAN_FIELD, Law, draws_fresh_weights, log_start, squared_gains, sum_above


def pre_norm_linear(chain: Chain) -> Law | None:
    """E||g_l||^2 = ||g_L||^2 prod (carry^2 + a2/q_{l-1}): without a bias q_L/q_l, with carry 1 growth that is linear
    in depth, 1 + a2 L/q_0. The mean of ln||g|| is approximated by half the logarithm of that.
    """
    plain = chain.activation == "linear" and chain.init != "identity" and draws_fresh_weights(chain)
    position = chain.norm in ("layer", "rms") and chain.norm_position == "pre" and not chain.norm_eps
    if not (plain and position and chain.skip_factor > 0.0 and chain.widths[0] > 1):
        return None
    alpha2, carry2 = chain.skip_factor**2, chain.carry**2
    growth = np.empty(chain.depth)
    q = chain.input_scale**2
    for layer, (s2, bias) in enumerate(zip(squared_gains(chain), chain.biases.tolist(), strict=True)):
        growth[layer] = math.log(carry2 + alpha2 * s2 / q)
        q = carry2 * q + alpha2 * (s2 + bias**2)
    mean = log_start(chain) + sum_above(growth) / 2.0
    return Law(
        name="pre-norm-linear",
        validity=MEAN_FIELD,
        source="log E||g||^2 at infinite width: the norm divides the branch by sqrt(q_l), which grows; error O(L/n)",
        mean=mean,
        var=None,
        log_second_moment=2.0 * mean,
        p_dead=np.zeros(chain.depth + 1),
        rate=_rate(chain),
        start=log_start(chain),
    )


def _rate(chain: Chain) -> float:
    """Half the growth of a layer at the fixed point of q; ln carry where q grows without end."""
    carry2, s2, bias2 = chain.carry**2, squared_gains(chain)[0], float(chain.biases[0]) ** 2
    if carry2 >= 1.0:
        return math.log(chain.carry)
    return math.log(carry2 + (1.0 - carry2) * s2 / (s2 + bias2)) / 2.0
