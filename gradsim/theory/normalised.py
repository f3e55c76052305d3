"""Layer and RMS norm at infinite width, before or after the activation, on the input of a skip's branch or on the sum.

With z ~ N(0, q) over the units of a layer, q = gain^2 h^2 + bias^2, the squared gradient norm grows per layer by

    norm before the activation     gain^2 E phi'(Z)^2/q
    RMS norm after it              gain^2 E phi'(sqrt(q) Z)^2/E phi(sqrt(q) Z)^2
    layer norm after it            gain^2 E phi'(sqrt(q) Z)^2/Var phi(sqrt(q) Z)

and h^2, the mean square of h_{l-1}, is 1 behind a norm after the activation, E phi(Z)^2 behind one before it. A branch
carry h + alpha N(...) grows by carry^2 + alpha^2 of it. The norm's own projections change g by O(1/n).
"""

from __future__ import annotations

import math
from dataclasses import replace

from gradsim.chain import Chain
from gradsim.kernels.lone import input_is_lone
from gradsim.theory.law import Law, draws_fresh_weights
from gradsim.theory.layer_map import LayerMap, State, input_state, layer_weights, log_growth, logarithm, same
from gradsim.theory.mean_field import layers_are_alike, limit_law, mixes

# Layers after which the growth per layer is taken to have no limit that can be told.
_FAR = 3000


def layer_or_rms(chain: Chain) -> Law | None:
    """Layer or RMS norm, feedforward, or tied without a skip; any batch, for its columns do not mix."""
    if chain.norm not in ("layer", "rms") or not mixes(chain) or chain.output_gradient != "random":
        return None
    if chain.skip and not draws_fresh_weights(chain):
        return None
    growth, state = log_growth(chain)
    source = f"{chain.norm} norm at infinite width: it divides by a number that does not fluctuate"
    law = limit_law(chain, "mean-field-norm", [source], growth, _asymptotic_rate(chain, state))
    return _without_input_gradient(law) if input_is_lone(chain) else law


def _without_input_gradient(law: Law) -> Law:
    """Of an h_0 that is one unit: a norm that is all that sees it takes its size out, and its gradient is exactly 0."""
    mean, p_dead = law.mean.copy(), law.p_dead.copy()
    mean[0], p_dead[0] = math.nan, 1.0
    assert law.log_second_moment is not None
    second = law.log_second_moment.copy()
    second[0] = -math.inf
    return replace(law, mean=mean, log_second_moment=second, p_dead=p_dead)


def _asymptotic_rate(chain: Chain, state: State) -> float:
    """Half the growth per layer where it has become constant."""
    if not layers_are_alike(chain) or isinstance(chain.skip, str):
        return math.nan
    if chain.skip and chain.norm_position != "post" and chain.carry >= 1.0:
        # h grows without bound, and a norm makes the branch's share of it vanish.
        return math.log(chain.carry)
    return settled_rate(LayerMap.of(chain), chain, state)


def settled_rate(layer: LayerMap, chain: Chain, state: State) -> float:
    """Half the logarithm of the growth per layer in the state that the layers lead to; NaN where they lead to none."""
    weights = next(layer_weights(chain))
    # A norm on h_0 may change it in the first layer; what a chain of any depth comes to is told from there on.
    state = state if math.isfinite(state.square) else input_state(chain)
    for _ in range(_FAR):
        after, growth = layer(state, weights)
        if same(state, after):
            return logarithm(growth) / 2.0
        state = after
    return math.nan
