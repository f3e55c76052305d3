"""`predict` gives numbers or NaN for any valid chain, and claims no law for what its law was not derived for."""

from __future__ import annotations

import random
import warnings

import numpy as np
import pytest

from gradsim.chain import Chain
from gradsim.errors import ExperimentError
from gradsim.theory.registry import COVERED, LAWS, LIMITS, predict
from gradsim.vocabulary import CHAIN_FIELDS, DEFAULTS

CHAINS = 700


def number(rng):
    """Mostly of everyday size, sometimes as far out as a field allows."""
    kind = rng.random()
    return (
        10 ** rng.uniform(-3, 3) if kind < 0.6 else 10 ** rng.uniform(-30, 30) if kind < 0.8 else rng.choice([0, 1, 2])
    )


def fields(rng):
    """Fields of a chain, not all of which go together."""

    def sometimes(share, **values):
        return values if rng.random() < share else {}

    drawn = {"kind": rng.choice(["feedforward"] * 4 + ["recurrent", "lstm", "gru"])}
    if drawn["kind"] in ("feedforward", "recurrent"):
        drawn["activation"] = rng.choice(CHAIN_FIELDS["activation"].supported)
        if drawn["activation"] == "leaky_relu":
            drawn |= sometimes(0.5, negative_slope=rng.choice([-1, 1]) * number(rng))
        drawn |= sometimes(0.4, skip=rng.choice([number(rng), "rsqrt-depth", "inv-depth"]))
        drawn |= sometimes(0.5, carry=number(rng)) if drawn.get("skip") else {}
        drawn |= sometimes(
            0.4,
            norm=rng.choice(["batch", "layer", "rms"]),
            norm_position=rng.choice(["before", "after", "pre", "post"]),
        )
        drawn |= sometimes(0.3, norm_eps=number(rng)) if "norm" in drawn else {}
        drawn |= sometimes(0.2, dropout=rng.choice([0.5, 1e-30, 1 - 1e-16]))
    drawn["gain"] = rng.choice([number(rng), "he", "lecun", "glorot", "torch", "critical"])
    drawn["init"] = rng.choice(CHAIN_FIELDS["init"].supported)
    if drawn["kind"] == "feedforward" and rng.random() < 0.3:
        drawn["profile"] = [rng.choice([3, 4, 7, 100, 10**6]) for _ in range(rng.choice([2, 5, 30]))]
    else:
        drawn |= {"width": rng.choice([1, 2, 3, 5, 64, 10**9]), "depth": rng.choice([1, 2, 5, 60])}
    if drawn["kind"] != "feedforward":
        drawn |= sometimes(0.3, input_noise=number(rng))
    if drawn["kind"] == "lstm":
        drawn |= sometimes(0.5, forget_bias=rng.choice([-1, 1]) * number(rng))
    drawn |= sometimes(0.4, bias=number(rng)) | sometimes(0.3, input_scale=number(rng))
    drawn |= sometimes(0.2, batch=rng.choice([2, 3, 4, 64, 10**6])) | sometimes(0.1, clip=1.0)
    return drawn | sometimes(0.3, output_gradient=rng.choice(["ones", "loss"]))


def chains(seed):
    rng = random.Random(seed)
    found = 0
    while found < CHAINS:
        try:
            chain = Chain(**fields(rng))
        except ExperimentError:
            continue
        found += 1
        yield chain


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_any_chain_has_a_prediction(seed):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for chain in chains(seed):
            prediction = predict(chain)
            assert prediction.mean.shape == (chain.depth + 1,)
            assert not np.isinf(prediction.mean).any(), chain
            assert repr(prediction)
            if prediction.law is None:
                continue
            entry = (LAWS | LIMITS)[prediction.law.name]
            away = {name for name, value in DEFAULTS.items() if getattr(chain, name) != value}
            assert away <= COVERED | entry.fields, chain
            assert chain.kind in entry.kinds and chain.output_gradient in entry.gradients
            unknown = chain.output_gradient == "loss"  # ||h_L|| has no law here
            assert prediction.mean[-1] == prediction.law.start or unknown
