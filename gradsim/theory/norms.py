"""Linear chains with a layer or RMS norm, without bias.

The gradient of a norm is orthogonal to the normalised vector, and so g_{l-1} = W_l^T v is orthogonal to h_{l-1}:
<h_{l-1}, W_l^T v> = <z_l, v> = 0. On the complement of h_{l-1}, W_l is independent of z_l. So forward and backward
pass see independent parts of W_l, and the increments are independent, at every width:

- what the norm divides by: |z_l|^2 (RMS), or |z_l|^2 without its mean (layer);
- what the norm takes from g_l: nothing more below the top for RMS, since g_l is orthogonal to h_l already; the
  direction of all ones for layer norm; from the random g_L one direction more;
- the length of W_l^T v within the n_{l-1} - 1 dimensions orthogonal to h_{l-1}.

The gain cancels, the norms of h_1, h_2, ... are fixed, and that of h_0 enters once.
"""

from __future__ import annotations

import math
from dataclasses import replace

from gradsim.chain import Chain
from gradsim.theory.law import Increment, Law, adds_nothing, draws_fresh_weights, is_uniform, law_of_layers
from gradsim.theory.parts import LogResidualNorm, Reciprocal
from gradsim.theory.special import LogBeta, LogChiSquared, Part


def rms_linear(chain: Chain) -> Law | None:
    """Gaussian W: chi2_{n_{l-1} - 1}/chi2_{n_l} times n_l/n_{l-1} per layer, n_0/||h_0||^2 at the bottom and
    Beta((n_L - 1)/2, 1/2) at the top; before or after the activation: exact.
    """
    if not (_is_linear(chain, "rms") and min(chain.widths) > 1):
        return None
    return _law(chain, "rms-linear", taken=0)


def layer_linear(chain: Chain) -> Law | None:
    """Gaussian W: as `rms_linear` with chi2_{n_l - 1} in the denominator and Beta((n_l - 2)/2, 1/2) in each layer,
    Beta((n_L - 2)/2, 1) at the top: exact.
    """
    if not (_is_linear(chain, "layer") and min(chain.widths) > 1):
        return None
    return _law(chain, "layer-linear", taken=1)


def rms_post_linear(chain: Chain) -> Law | None:
    """Linear skip connections with an RMS norm on the sum, h_l = N(carry h_{l-1} + alpha W h_{l-1}): exact.

    With r = n carry^2/(2 a2), a2 = alpha^2 s2, each layer multiplies the squared norm by chi2_{n - 1 + 2 K}/chi2_{n +
    2 J}, J ~ Poisson(r), K ~ Poisson(r U), U ~ Beta((n - 1)/2 + J, 1/2), beside h_0 and the top as in `rms_linear`:
    see docs/theory/residual-norm.md.
    """
    plain = chain.activation == "linear" and chain.init == "gaussian" and draws_fresh_weights(chain)
    position = chain.norm == "rms" and chain.norm_position == "post" and not chain.norm_eps
    n = chain.widths[0]
    if not (plain and position and chain.skip_factor > 0.0 and adds_nothing(chain) and n > 1):
        return None
    ratios = [n * chain.carry**2 / (2.0 * (chain.skip_factor * gain) ** 2) for gain in chain.gains.tolist()]
    # One part for all layers that are alike: it keeps what it has computed.
    parts = {ratio: LogResidualNorm(n, ratio) for ratio in ratios}
    layers = [Increment(0.0, (parts[ratio],)) for ratio in ratios]
    law = law_of_layers(
        _ends(chain, layers, LogBeta(n - 1, 1)),
        name="rms-post-linear",
        source="ratio of noncentral chi-squared variables per layer: forward and backward see orthogonal parts of W",
        chain=chain,
    )
    return replace(law, rate=float(layers[0].cumulants[0]) / 2.0)


def _law(chain: Chain, name: str, taken: int) -> Law:
    """`taken`: directions that the norm takes out beside the normalised vector itself."""
    factor = _gaussian if chain.init == "gaussian" else _orthogonal
    inner = [factor(m, n, taken) for m, n in zip(chain.widths[:-1], chain.widths[1:], strict=True)]
    lost = [() if taken == 0 else (LogBeta(n - 1 - taken, taken),) for n in chain.widths[1:]]
    layers = [replace(layer, parts=(*layer.parts, *parts)) for layer, parts in zip(inner, lost, strict=True)]
    n = chain.widths[-1]
    top = LogBeta(n - 1 - taken, 1 + taken)
    law = law_of_layers(
        _ends(chain, [*layers[:-1], inner[-1]], top),
        name=name,
        source="ratio of independent chi-squared and beta variables: forward and backward see orthogonal parts of W",
        chain=chain,
    )
    return replace(law, rate=float(layers[0].cumulants[0]) / 2.0 if is_uniform(chain) else math.nan)


def _gaussian(m: int, n: int, taken: int) -> Increment:
    """(n/m) chi2_{m-1}/chi2_{n-taken}."""
    return Increment(math.log(n / m), (LogChiSquared(m - 1), Reciprocal(LogChiSquared(n - taken))))


def _orthogonal(m: int, n: int, taken: int) -> Increment:
    """n/m times what W^T keeps of v, over the part of |W h|^2/(s2 |h|^2) that is left of z.

    Both are 1 for equal widths and RMS norm. A tall W keeps the norm of h, and of v, orthogonal to W h, a fraction
    within m - 1 of n - 1 dimensions; a wide one keeps the norm of v.
    """
    parts: tuple[Part, ...] = (LogBeta(m - 1, n - m),) if n > m else ()
    outside = max(m - n, 0) + taken
    if outside:
        parts = (*parts, Reciprocal(LogBeta(n - taken, outside)))
    return Increment(math.log(n / m), parts)


def _ends(chain: Chain, layers: list[Increment], top: Part) -> list[Increment]:
    """The layers with n_0/||h_0||^2 at the bottom, and at the top what the norm takes of g_L."""
    n = chain.widths[0]
    bottom = (math.log(n) - 2.0 * math.log(chain.input_scale), Reciprocal(LogChiSquared(n)))
    layers = [Increment(layers[0].constant + bottom[0], (*layers[0].parts, bottom[1])), *layers[1:]]
    return [*layers[:-1], replace(layers[-1], parts=(*layers[-1].parts, top))]


def _is_linear(chain: Chain, norm: str) -> bool:
    """Whether the chain is linear with this norm on W h, and has nothing else."""
    plain = chain.activation == "linear" and chain.init in ("gaussian", "orthogonal") and draws_fresh_weights(chain)
    position = chain.norm == norm and chain.norm_position in ("before", "after") and not chain.norm_eps
    return plain and position and not chain.skip_factor and adds_nothing(chain)
