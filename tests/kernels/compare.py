"""Kernels against the reference: how a chain is run, and what rounding may change."""

from __future__ import annotations

import numpy as np

from gradsim.kernels.cpu import Engine
from tests.kernels import oracle

EPS = {"float32": 2.0**-24, "float64": 2.0**-53}
SMALLEST_NORMAL = {"float32": 2.0**-126, "float64": 2.0**-1022}
# An error of a drawn number, of a sum of n terms, of a slope: so many units of rounding, times sqrt(n).
ROUNDING = 4.0
# A kernel may deviate by so many times what such errors do, at the most of REPLICAS.
REPLICAS = 4
AMPLIFICATION = 6.0


def run(chain, seed=0, first=0, count=1, dtype="float64", quantities=None, streams="independent", **more):
    """Chains of a cell by the dense engine: each quantity (count, columns)."""
    engine = Engine(chain, seed, dtype, tuple(quantities or chain.quantities), streams)
    return engine.run(first, count, **more)


def stored(values):
    """Half a unit in the last place of a float32 of this size."""
    finite = np.where(np.isfinite(values), values, 0.0)
    return 0.5 * np.spacing(np.abs(finite).astype(np.float32)).astype(float)


def bounds(chain, seed, index, dtype, streams="independent"):
    """By quantity, how far a kernel of this dtype may be from the exact chain.

    Half a unit of the stored float32; and six times the largest of four deviations that relative errors of
    4 eps sqrt(n) in every draw, sum and slope make in the exact chain, but at least that error itself. A chain that
    amplifies errors has the bound it deserves; where errors decide whether it lives, the bound is infinite.
    """
    exact = oracle.simulate(chain, seed, index, streams).quantities
    rng = np.random.default_rng(1)
    noise = ROUNDING * EPS[dtype] * np.sqrt(max(chain.widths))
    largest = {name: np.full(values.shape, noise) for name, values in exact.items()}
    for _ in range(REPLICAS):
        disturbed = oracle.simulate(chain, seed, index, streams, noise, rng).quantities
        for name, values in exact.items():
            largest[name] = np.maximum(largest[name], AMPLIFICATION * change(values, disturbed[name]))
    return {name: stored(values) + largest[name] for name, values in exact.items()}


def change(values, disturbed):
    """|disturbed - values|; 0 where both are the same infinity."""
    with np.errstate(invalid="ignore"):
        return np.where(values == disturbed, 0.0, np.abs(disturbed - values))


def differences(found, exact, bound):
    """By quantity, the layers at which a chain is not what it should be; empty where all agree."""
    wrong = {}
    for name, values in found.items():
        expected = exact[name]
        with np.errstate(invalid="ignore"):
            close = np.abs(values - expected) <= bound[name]
        same = (values == expected) | (np.isnan(values) & np.isnan(expected))
        layers = np.flatnonzero(~(close | same))
        if len(layers):
            wrong[name] = [(int(i), float(values[i]), float(expected[i]), float(bound[name][i])) for i in layers]
    return wrong


def leaving(passes, chain, limit):
    """The quantities as a kernel must give them that leaves its dtype where `passes.fall` is below `limit`.

    From there down to layer 0 they are NaN.
    """
    below = np.flatnonzero(passes.fall < limit) if chain.activation == "tanh" else []
    if not len(below):
        return passes.quantities
    result = {name: values.copy() for name, values in passes.quantities.items()}
    for name in ("log_grad_norm", "log_grad_max", "log_weight_grad_norm"):
        result[name][: below[-1] + 1] = np.nan
    return result


def disagreements(found, chain, seed, index, dtype, streams="independent", bound=None):
    """By quantity, the layers at which a kernel's chain is not what it should be; empty where all agree.

    Where the largest phi' g, with the largest g between 1 and 2, is below the smallest normal number, g has left the
    dtype: NaN. The kernel holds g times some power of two, so that ln 2 below that limit it is free to say either.
    """
    bound = bound or bounds(chain, seed, index, dtype, streams)
    assert is_decided(bound), (
        f"rounding decides whether this chain lives, which shows nothing: {chain}, {seed}, {index}"
    )
    passes = oracle.simulate(chain, seed, index, streams)
    limit = np.log(SMALLEST_NORMAL[dtype])
    found = forgiven(found, passes, chain, limit)
    wrong = [differences(found, leaving(passes, chain, limit - slack), bound) for slack in (0.0, np.log(2))]
    return wrong[0] and wrong[1]


def is_decided(bound):
    """Whether a comparison with these bounds can fail everywhere."""
    return all(np.isfinite(values).all() for values in bound.values())


def forgiven(found, passes, chain, limit):
    """What an identity chain gives, the exact value in place of NaN wherever a unit has fallen out of the dtype.

    Units never meet there: the kernel may say that it no longer knows, and what it does say has to be right.
    """
    # The kernel lets go of a unit before it loses digits.
    below = np.flatnonzero(passes.spread < 0.75 * limit)
    if chain.init != "identity" or not len(below):
        return found
    known = {name: values.copy() for name, values in found.items()}
    for name in set(found) - {"log_activation_norm"}:
        last = 1 if chain.tied and name == "log_weight_grad_norm" else below[-1] + 1
        part = known[name][:last]
        part[np.isnan(part)] = passes.quantities[name][:last][np.isnan(part)]
    return known
