"""Chains at which the deferred engine is held against the dense one: every kind, activation and norm, every feature."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gradsim.chain import Chain

Fields = dict[str, Any]

ACTIVATIONS = ("linear", "relu", "leaky_relu", "tanh", "erf", "sigmoid", "gelu", "silu")
NORMS: tuple[Fields, ...] = ({}, {"norm": "batch", "batch": 4}, {"norm": "layer"}, {"norm": "rms"})
INITS = ("gaussian", "orthogonal")
SMALL: Fields = {"width": 8, "depth": 5}

# Of all kinds; the last fills the space of a tied chain's queries.
FEATURES: tuple[Fields, ...] = (
    {"batch": 3},
    {"probes": 3},
    {"clip": 0.8},
    {"clip_value": 0.2},
    {"output_gradient": "ones"},
    {"output_gradient": "loss"},
    {"output_gradient": "loss", "batch": 2},
    {"bias": 0.3},
    {"width": 4, "depth": 12},
)
# Of feedforward and recurrent chains.
LAYER_FEATURES: tuple[Fields, ...] = (
    {"dropout": 0.2},
    {"skip": 0.7},
    {"skip": "rsqrt-depth", "norm": "layer", "norm_position": "pre"},
    {"skip": 0.7, "carry": 0.8, "norm": "rms", "norm_position": "post"},
    {"norm": "layer", "norm_position": "after", "activation": "tanh"},
    {"output_gradient": "loss", "activation": "tanh", "gain": 1.5},
    {"negative_slope": -0.5, "activation": "leaky_relu"},
)
PROFILE: Fields = {"profile": [6, 9, 4, 7, 7, 3]}
PROFILES: tuple[Fields, ...] = (
    {},
    {"activation": "linear", "output_gradient": "loss"},
    {"activation": "tanh", "batch": 3},
    {"activation": "gelu", "probes": 2, "bias": 0.2},
    {"norm": "layer", "dropout": 0.1},
)


def _fields() -> Iterator[Fields]:
    for kind in ("feedforward", "recurrent"):
        for activation in ACTIVATIONS:
            for norm in NORMS:
                yield {"kind": kind, "activation": activation, **norm}
        for feature in (*FEATURES, *LAYER_FEATURES):
            yield {"kind": kind, **feature}
    yield {"kind": "recurrent", "input_noise": 0.5, "activation": "tanh"}
    for kind in ("lstm", "gru"):
        for feature in ({}, *FEATURES, {"input_noise": 0.5}):
            yield {"kind": kind, **({} if "bias" in feature else {"gain": 1.5}), **feature}
    yield {"kind": "lstm", "forget_bias": 1.0}
    for feature in PROFILES:
        yield {**PROFILE, **feature}


def chains() -> list[Chain]:
    """All of them, of Gaussian and of orthogonal matrices."""
    found = [Chain(**(({} if "profile" in f else SMALL) | f), init=init) for f in _fields() for init in INITS]
    assert len({chain.canonical() for chain in found}) == len(found)
    return found
