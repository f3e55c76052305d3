"""Deep linear chains: g_{l-1} = W_l^T g_l with independent W_l, for any g_L independent of the weights;
biases do not enter.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from gradsim.chain import Chain
from gradsim.theory.law import (
    LEADING_ORDER,
    Increment,
    Law,
    draws_fresh_weights,
    each,
    law_of_layers,
    log_start,
    squared_gains,
    sum_above,
)
from gradsim.theory.special import FloatArray, LogBeta, LogChiSquared

KURTOSIS = {"uniform": 1.8, "rademacher": 1.0}
"""E w^4/(E w^2)^2 of an entry of W."""


def gaussian_linear(chain: Chain) -> Law | None:
    """ln||g_{l-1}||^2 - ln||g_l||^2 = ln((s2/m) chi2_m), m = n_{l-1}, independent over the layers: exact."""
    if not (chain.activation == "linear" and chain.init == "gaussian" and draws_fresh_weights(chain)):
        return None
    return law_of_layers(
        gaussian_increments(chain),
        name="gaussian-linear",
        source="product of independent chi-squared variables: W^T g is Gaussian given g",
        chain=chain,
    )


def gaussian_increments(chain: Chain) -> list[Increment]:
    """The increments of `gaussian_linear`, layers 1..L."""

    def increment(s2: float, m: int) -> Increment:
        return Increment(math.log(s2 / m), (LogChiSquared(m),))

    return each(increment, zip(squared_gains(chain), chain.widths[:-1], strict=True))


def orthogonal_linear(chain: Chain) -> Law | None:
    """s2 per layer without spread; s2 Beta(n_{l-1}/2, (n_l - n_{l-1})/2) where n_l > n_{l-1}: exact.

    With torch's scaling W has orthonormal columns where it is tall, so that W^T projects on a random
    subspace, and orthonormal rows where it is wide, so that W^T keeps norms.
    """
    if not (chain.activation == "linear" and chain.init == "orthogonal" and draws_fresh_weights(chain)):
        return None
    return law_of_layers(
        orthogonal_increments(chain),
        name="orthogonal-linear",
        source="Haar-orthogonal W^T keeps norms, or projects on a random subspace where n_l > n_{l-1}",
        chain=chain,
    )


def orthogonal_increments(chain: Chain) -> list[Increment]:
    """The increments of `orthogonal_linear`, layers 1..L."""
    sizes = zip(squared_gains(chain), chain.widths[:-1], chain.widths[1:], strict=True)
    return [Increment(math.log(s2), (LogBeta(m, n - m),) if n > m else ()) for s2, m, n in sizes]


def identity_linear(chain: Chain) -> Law | None:
    """W = gain eye: the norm is multiplied by the gain in each layer, tied or not: exact."""
    if not (chain.activation == "linear" and chain.init == "identity"):
        return None
    return law_of_layers(
        [Increment(math.log(s2)) for s2 in squared_gains(chain)],
        name="identity-linear",
        source="W = gain I: ||g_0|| = gain^L ||g_L||",
        chain=chain,
    )


def symmetric_linear(chain: Chain) -> Law | None:
    """Independent uniform or Rademacher entries: the Gaussian law with its mean and variance corrected to
    leading order in 1/n.
    """
    if not (chain.activation == "linear" and chain.init in KURTOSIS and draws_fresh_weights(chain)):
        return None
    gaussian = law_of_layers(gaussian_increments(chain), name="symmetric-linear", source="", chain=chain)
    concentration = np.array([3.0 / (n + 2.0) for n in chain.widths[1:]])
    if chain.output_gradient == "ones":
        concentration[-1] = 1.0 / chain.widths[-1]
    return with_kurtosis(chain, gaussian, concentration)


def with_kurtosis(chain: Chain, gaussian: Law, concentration: FloatArray, masking: float = 0.0) -> Law:
    """The law of Gaussian weights corrected for the kurtosis kappa of the chain's own weights, to leading
    order in 1/n.

    Given v = phi'(z_l) * g_l, the entries of W^T v are uncorrelated with excess kurtosis (kappa - 3) c,
    c = sum v^4/(sum v^2)^2, which adds d_l = (kappa - 3) c/n_{l-1} to the relative variance of their mean
    square. The same excess kurtosis adds `masking` d_l to that of the fraction which phi' lets through in the
    layer below. The logarithm has mean lower by half of both and variance higher by both.

    Parameters
    ----------
    chain : Chain
    gaussian : Law
        The law of the same chain with Gaussian weights.
    concentration : array, shape (L,)
        E c of each layer.
    masking : float
        Squared relative spread of phi'^2 over the units of a layer: 0 for linear, 1 for ReLU.
    """
    d = (KURTOSIS[chain.init] - 3.0) * concentration / np.array(chain.widths[:-1])
    below = np.append(masking * d[1:], 0.0)
    added = sum_above(d + below)
    assert gaussian.var is not None
    return replace(
        gaussian,
        validity=LEADING_ORDER,
        source=f"Gaussian law with the kurtosis of {chain.init} weights; error O(1/n^3) per layer",
        mean=gaussian.mean - added / 4.0,
        var=gaussian.var + added / 4.0,
        rate=gaussian.rate - (1.0 + masking) * float(d[0]) / 4.0,
        start=log_start(chain),
        layers=None,
    )
