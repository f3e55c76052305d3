"""Linear chains with skip connections: g_{l-1} = (carry + alpha W_l^T) g_l, for any g_L independent of the
weights; biases do not enter.

Given g_l, W_l^T g_l is Gaussian (or uniform on a sphere) with a law that depends on ||g_l|| alone, so that the
increments are independent, at every width. a2 = alpha^2 s2 throughout.
"""

from __future__ import annotations

import math

from gradsim.chain import Chain
from gradsim.theory.law import Increment, Law, draws_fresh_weights, law_of_layers, squared_gains
from gradsim.theory.parts import LogNoncentral, LogSphericalSum
from gradsim.theory.special import LogBeta, LogLeakyFraction


def gaussian_skip(chain: Chain) -> Law | None:
    """(a2/n) times a noncentral chi2_n with noncentrality n carry^2/a2 per layer: exact."""
    if not (_is_linear_skip(chain, "gaussian") and draws_fresh_weights(chain)):
        return None
    carry2, n = chain.carry**2, chain.widths[0]
    branches = [chain.skip_factor**2 * s2 for s2 in squared_gains(chain)]
    return law_of_layers(
        [Increment(math.log(carry2 + a2), (LogNoncentral(n, n * carry2 / a2),)) for a2 in branches],
        name="gaussian-skip-linear",
        source="product of independent noncentral chi-squared variables: (carry + alpha W^T) g is Gaussian given g",
        chain=chain,
    )


def orthogonal_skip(chain: Chain) -> Law | None:
    """||carry e + sqrt(a2) u||^2 per layer, e a unit vector and u uniform on the sphere: exact."""
    if not (_is_linear_skip(chain, "orthogonal") and draws_fresh_weights(chain)):
        return None
    increments = [
        _sum_with_sphere(chain.widths[0], chain.carry, chain.skip_factor * gain) for gain in chain.gains.tolist()
    ]
    if None in increments:
        return None
    return law_of_layers(
        [increment for increment in increments if increment is not None],
        name="orthogonal-skip-linear",
        source="Haar-orthogonal W^T turns g into a random direction: lengths of carry e + alpha gain u",
        chain=chain,
    )


def identity_skip(chain: Chain) -> Law | None:
    """W = gain eye: the norm is multiplied by carry + alpha gain in each layer, tied or not: exact."""
    if not _is_linear_skip(chain, "identity"):
        return None
    factors = [chain.carry + chain.skip_factor * gain for gain in chain.gains.tolist()]
    return law_of_layers(
        [Increment(2.0 * math.log(factor)) for factor in factors],
        name="identity-skip-linear",
        source="W = gain I: ||g_0|| = (carry + alpha gain)^L ||g_L||",
        chain=chain,
    )


def _sum_with_sphere(width: int, carry: float, radius: float) -> Increment | None:
    """ln ||carry e + radius u||^2; None where it is -inf with positive probability."""
    constant = 2.0 * math.log(carry + radius)
    slope = abs(carry - radius) / (carry + radius)
    if width == 1:
        # u = +-1 at even odds: the two values of a single leaky unit.
        return Increment(constant, (LogLeakyFraction(1, slope),) if slope < 1.0 else ()) if slope else None
    if slope == 0.0:
        return Increment(constant, (LogBeta(width - 1, width - 1),))
    return Increment(constant, (LogSphericalSum(width, slope),) if slope < 1.0 else ())


def _is_linear_skip(chain: Chain, init: str) -> bool:
    return chain.activation == "linear" and chain.init == init and chain.skip_factor > 0.0
