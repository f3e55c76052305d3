"""ReLU and leaky ReLU chains: g_{l-1} = W_l^T (phi'(z_l) * g_l), g_L uniform on the sphere and independent of
the weights.

Where rows of (W, b) may change sign without changing their law, the signs of z_l are fair coins independent
of everything else, and the random signs of g_l make W_l^T act on phi'(z_l) * g_l as a matrix independent of
it. For Gaussian and Haar-orthogonal W the result is again uniform in direction, independent of its length and
of the layers below. So the increments are independent over the layers, given survival: the fraction of the
squared norm that phi' lets through, times what W^T does to any fixed vector. This holds at every width,
rectangular or not, and a bias enters only the deaths.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from gradsim.chain import Chain
from gradsim.theory.law import Increment, Law, draws_fresh_weights, each, law_of_layers, squared_gains
from gradsim.theory.linear import KURTOSIS, gaussian_increments, orthogonal_increments, with_kurtosis
from gradsim.theory.special import FloatArray, LogActiveFraction, LogLeakyFraction, binomial

_SOURCES = {
    "gaussian": "products of chi-squared and beta variables with binomial counts of active units",
    "orthogonal": "products of beta variables with binomial counts of active units",
}


def gaussian_relu(chain: Chain) -> Law | None:
    """(s2/n_{l-1}) chi2_{n_{l-1}} Beta(K/2, (n_l - K)/2) per layer, K ~ Bin(n_l, 1/2): exact (Hanin and Nica
    2018, arXiv:1812.05994).
    """
    if not (_is_rectifier(chain, "relu") and chain.init == "gaussian"):
        return None
    return _law(chain, "gaussian-relu", gaussian_increments(chain), _SOURCES["gaussian"] + " (Hanin and Nica 2018)")


def orthogonal_relu(chain: Chain) -> Law | None:
    """s2 Beta(K/2, (n_l - K)/2) per layer, times Beta(n_{l-1}/2, (n_l - n_{l-1})/2) where n_l > n_{l-1}:
    exact.
    """
    if not (_is_rectifier(chain, "relu") and chain.init == "orthogonal"):
        return None
    return _law(chain, "orthogonal-relu", orthogonal_increments(chain), _SOURCES["orthogonal"])


def gaussian_leaky(chain: Chain) -> Law | None:
    """(s2/n_{l-1}) chi2_{n_{l-1}} (B + a^2 (1 - B)) per layer, B the active fraction, a the slope: exact."""
    if not (_is_rectifier(chain, "leaky_relu") and chain.init == "gaussian"):
        return None
    return _law(chain, "gaussian-leaky", gaussian_increments(chain), _SOURCES["gaussian"])


def orthogonal_leaky(chain: Chain) -> Law | None:
    """s2 (B + a^2 (1 - B)) per layer, times Beta(n_{l-1}/2, (n_l - n_{l-1})/2) where n_l > n_{l-1}: exact."""
    if not (_is_rectifier(chain, "leaky_relu") and chain.init == "orthogonal"):
        return None
    return _law(chain, "orthogonal-leaky", orthogonal_increments(chain), _SOURCES["orthogonal"])


def symmetric_rectifier(chain: Chain) -> Law | None:
    """Independent uniform or Rademacher entries: the Gaussian law with its mean and variance corrected to
    leading order in 1/n.

    Rademacher entries without a bias leave out one thing that is of no order in 1/n: from the second layer on,
    units of a narrow layer share the same few magnitudes, and z_l = 0 has positive probability, by exact
    cancellation. At width 4 about one unit in 6 is at such a tie, at 8 one in 17, at 16 one in 1500, at 24 one in
    10^5. There gradsim takes the derivative from the left, as PyTorch does: phi'(0) = 0 for ReLU and the slope
    for leaky ReLU. Where the terms of the sum were rounded, a tie comes out as some 1e-8 of either sign (1e-16 in
    float64), and rounding decides which side it is on; float32 and float64 then disagree. So below a width of
    about 16 the signs of z_l are no fair coins, and neither this law nor its P(dead) is more than a rough guide.
    """
    rectifier = _is_rectifier(chain, "relu") or _is_rectifier(chain, "leaky_relu")
    if not (rectifier and chain.init in KURTOSIS):
        return None
    gaussian = _law(chain, "symmetric-rectifier", gaussian_increments(chain), "")
    a2 = _slope(chain) ** 2
    values = {n: _concentration(n, a2) for n in set(chain.widths[1:])}
    concentration = np.array([values[n] for n in chain.widths[1:]])
    law = with_kurtosis(chain, gaussian, concentration, masking=((1.0 - a2) / (1.0 + a2)) ** 2)
    if chain.init == "rademacher" and not chain.biases.all():
        return replace(law, source=f"{law.source}; z = 0 by cancellation, likely below width 16, is left out")
    return law


def identity_relu(chain: Chain) -> Law | None:
    """W = gain eye without bias and noise: the units that h_0 switches off stay off, all others stay on; tied
    or not: exact.
    """
    plain = chain.output_gradient == "random" and not chain.biases.any() and chain.input_noise == 0.0
    if not (chain.activation == "relu" and chain.init == "identity" and plain):
        return None
    gains = [Increment(math.log(s2)) for s2 in squared_gains(chain)]
    n = chain.widths[0]
    dead = np.full(chain.depth + 1, 0.5**n)
    dead[-1] = 0.0
    law = law_of_layers(
        [*gains[:-1], through(gains[-1], n, 0.0)],
        name="identity-relu",
        source="W = gain I: the active fraction of g_L at the top, the gain in every layer",
        chain=chain,
        p_dead=dead,
    )
    return replace(law, rate=gains[0].constant / 2.0)


def deaths(chain: Chain, passing: float = 0.5) -> FloatArray:
    """P(g_l = 0) for l = 0..L, with relu'(0) = 0, where each unit is active with probability `passing`.

    A layer without an active unit makes every h above it zero up to the next layer with a bias, and g_l is
    zero if any layer above l has no active unit. So the layers that count are those above l and, below them,
    those whose zeros reach layer l + 1.
    """
    log_dead = np.array(chain.widths[1:], dtype=np.float64) * math.log1p(-passing)
    # Of ln(1 - e^x) each form keeps its digits on one side of ln(1/2).
    likely = np.log(-np.expm1(np.maximum(log_dead, -1.0)))
    log_alive = np.append(
        0.0, np.cumsum(np.where(log_dead > -math.log(2.0), likely, np.log1p(-np.exp(np.minimum(log_dead, -0.5)))))
    )
    lowest = np.maximum.accumulate(np.where(chain.biases > 0.0, np.arange(chain.depth), 0))
    return np.append(-np.expm1(log_alive[-1] - log_alive[lowest]), 0.0)


def _law(chain: Chain, name: str, weights: Sequence[Increment], source: str) -> Law:
    slope = _slope(chain)
    increments = each(partial(through, slope=slope), zip(weights, chain.widths[1:], strict=True))
    return law_of_layers(
        increments, name=name, source=source, chain=chain, p_dead=deaths(chain) if slope == 0.0 else None
    )


def through(weight: Increment, width: int, slope: float) -> Increment:
    """The increment of W^T, preceded by phi' with this slope on `width` units, given survival."""
    a = abs(slope)
    if a == 0.0:
        part = (LogActiveFraction(width),) if width > 1 else ()
        return replace(weight, parts=(*weight.parts, *part))
    if a == 1.0:
        return weight
    if a < 1.0:
        return replace(weight, parts=(*weight.parts, LogLeakyFraction(width, a)))
    # K and n - K have one law: a slope above 1 is its inverse, times the slope.
    return Increment(weight.constant + 2.0 * math.log(a), (*weight.parts, LogLeakyFraction(width, 1.0 / a)))


def _concentration(width: int, a2: float) -> float:
    """E sum v^4/(sum v^2)^2 of v = phi'(z) * g for g uniform in direction, a2 the slope's square."""
    active, weights = binomial(width, at_least=1 if a2 == 0.0 else 0)
    second = active + a2 * (width - active)
    fourth = active + a2**2 * (width - active)
    return float(weights @ (3.0 * fourth / (second**2 + 2.0 * fourth)))


def _is_rectifier(chain: Chain, activation: str) -> bool:
    """Whether the chain has this activation, independent layers and a g_L for which the laws here hold."""
    return chain.activation == activation and draws_fresh_weights(chain) and chain.output_gradient == "random"


def _slope(chain: Chain) -> float:
    return chain.negative_slope if chain.activation == "leaky_relu" else 0.0
