"""Chains whose law is held against real matrices, each with a wrong law that the same sample must reject."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

LEAKY = {"activation": "leaky_relu", "negative_slope": 0.3}
LINEAR = {"activation": "linear"}
POST = {"norm": "rms", "norm_position": "post"}
UNEVEN = {"profile": [6, 3, 8, 2, 5]}


@dataclass(frozen=True)
class Case:
    """A chain, the law it must find, and changes of fields whose law the chain's sample must reject."""

    law: str
    chain: dict[str, Any]
    wrong: dict[str, Any]
    chains: int = 20_000
    seed: int = 1

    def __str__(self):
        return f"{self.law} {self.chain}"


CASES = [
    Case("gaussian-linear", {**LINEAR, "width": 12, "depth": 6, "gain": 1.3, "bias": 0.5}, {"gain": 1.33}),
    Case("gaussian-linear", {**LINEAR, "width": 12, "depth": 6, "gain": 1.0}, {"width": 13}),
    Case(
        "gaussian-linear",
        {**LINEAR, "profile": [5, 9, 3, 7], "gain": "glorot", "output_gradient": "ones"},
        {"profile": [5, 9, 4, 7]},
    ),
    Case("gaussian-linear", {**LINEAR, "width": 1, "depth": 2, "gain": 1.0}, {"gain": 1.2}),
    Case(
        "orthogonal-linear",
        {**LINEAR, "width": 6, "depth": 5, "init": "orthogonal", "gain": 1.1},
        {"gain": 1.1001},
        500,
    ),
    Case(
        "orthogonal-linear",
        {**LINEAR, "profile": [5, 9, 3, 7], "init": "orthogonal", "gain": 1.1, "output_gradient": "ones"},
        {"gain": 1.13},
    ),
    Case(
        "orthogonal-linear",
        {**LINEAR, "profile": [4, 5, 4, 6], "init": "orthogonal", "gain": 1.0},
        {"profile": [4, 6, 4, 6]},
    ),
    Case(
        "identity-linear",
        {**LINEAR, "width": 4, "depth": 10, "init": "identity", "gain": 1.5},
        {"gain": 1.5001},
        100,
    ),
    Case(
        "identity-linear",
        {**LINEAR, "kind": "recurrent", "width": 4, "depth": 10, "init": "identity", "gain": 0.9},
        {"gain": 0.9001},
        100,
    ),
    Case("gaussian-relu", {"width": 12, "depth": 6}, {"gain": 1.44}),
    Case("gaussian-relu", {"width": 12, "depth": 6, "bias": 0.7}, {"width": 13}),
    Case("gaussian-relu", {**UNEVEN}, {"gain": 1.48}),
    Case("gaussian-relu", {**UNEVEN, "bias": 0.5, "gain": 1.0}, {"bias": 0.0}),
    Case("orthogonal-relu", {"width": 12, "depth": 5, "init": "orthogonal"}, {"gain": 1.44}),
    Case("orthogonal-relu", {"width": 3, "depth": 3, "init": "orthogonal"}, {"width": 4}),
    Case("orthogonal-relu", {**UNEVEN, "init": "orthogonal"}, {"init": "gaussian"}),
    Case("orthogonal-relu", {**UNEVEN, "init": "orthogonal", "bias": 0.5}, {"bias": 0.0}),
    Case("gaussian-leaky", {**LEAKY, "width": 12, "depth": 6}, {"negative_slope": 0.33}),
    Case("gaussian-leaky", {**LEAKY, **UNEVEN, "bias": 0.5}, {"gain": 1.46}),
    Case(
        "gaussian-leaky",
        {**LEAKY, "width": 5, "depth": 3, "negative_slope": -1.7, "gain": 0.7},
        {"negative_slope": 1.6},
    ),
    Case("gaussian-leaky", {**LEAKY, "width": 1, "depth": 2}, {"width": 2}),
    Case("orthogonal-leaky", {**LEAKY, "width": 12, "depth": 5, "init": "orthogonal"}, {"negative_slope": 0.33}),
    Case("orthogonal-leaky", {**LEAKY, **UNEVEN, "init": "orthogonal", "bias": 0.5}, {"gain": 1.46}),
    Case("identity-relu", {"width": 5, "depth": 6, "init": "identity", "gain": 1.1}, {"gain": 1.12}),
    Case("identity-relu", {"kind": "recurrent", "width": 5, "depth": 6, "init": "identity"}, {"width": 6}),
    Case(
        "recurrent-gaussian-linear",
        {**LINEAR, "kind": "recurrent", "width": 8, "depth": 4, "gain": 1.0, "bias": 0.3, "input_noise": 0.2},
        {"width": 16},
        200_000,
    ),
    Case(
        "recurrent-orthogonal-linear",
        {**LINEAR, "kind": "recurrent", "width": 6, "depth": 7, "init": "orthogonal", "gain": 1.1},
        {"gain": 1.1001},
        500,
    ),
    Case(
        "symmetric-linear",
        {**LINEAR, "width": 16, "depth": 4, "init": "uniform", "gain": 1.0},
        {"init": "gaussian"},
        40_000,
    ),
    Case(
        "symmetric-linear",
        {**LINEAR, "width": 16, "depth": 4, "init": "rademacher", "gain": 1.0},
        {"init": "gaussian"},
    ),
    Case(
        "symmetric-linear",
        {**LINEAR, "width": 12, "depth": 1, "init": "rademacher", "gain": 1.0, "output_gradient": "ones"},
        {"init": "gaussian"},
        40_000,
    ),
    Case(
        "symmetric-rectifier",
        {"width": 16, "depth": 4, "init": "uniform", "bias": 0.3},
        {"init": "gaussian"},
        40_000,
    ),
    Case("symmetric-rectifier", {"width": 16, "depth": 4, "init": "rademacher"}, {"init": "gaussian"}),
    Case("symmetric-rectifier", {**LEAKY, "width": 16, "depth": 4, "init": "rademacher"}, {"init": "gaussian"}),
    Case("dropout-linear", {**LINEAR, "width": 12, "depth": 5, "gain": 1.1, "dropout": 0.2}, {"dropout": 0.23}),
    Case("dropout-linear", {**LINEAR, **UNEVEN, "gain": 1.1, "dropout": 0.3, "bias": 0.2}, {"gain": 1.14}),
    Case(
        "dropout-linear",
        {**LINEAR, **UNEVEN, "gain": 1.1, "dropout": 0.3, "init": "orthogonal"},
        {"init": "gaussian"},
    ),
    Case("dropout-linear", {**LINEAR, "width": 5, "depth": 4, "dropout": 0.1, "init": "orthogonal"}, {"width": 6}),
    Case("dropout-relu", {"width": 12, "depth": 5, "dropout": 0.2}, {"dropout": 0.0}),
    Case("dropout-relu", {**UNEVEN, "dropout": 0.1, "bias": 0.3}, {"bias": 0.0}),
    Case("dropout-relu", {**UNEVEN, "dropout": 0.1, "init": "orthogonal"}, {"init": "gaussian"}),
    Case(
        "gaussian-skip-linear",
        {**LINEAR, "width": 12, "depth": 5, "gain": 1.1, "skip": 0.7, "carry": 1.2, "bias": 0.2},
        {"carry": 1.17},
    ),
    Case(
        "gaussian-skip-linear",
        {**LINEAR, "width": 3, "depth": 5, "gain": 1.1, "skip": "rsqrt-depth", "output_gradient": "ones"},
        {"width": 4},
    ),
    Case("gaussian-skip-linear", {**LINEAR, "width": 9, "depth": 4, "skip": 0.7, "carry": 0.0}, {"skip": 0.73}),
    Case(
        "orthogonal-skip-linear",
        {**LINEAR, "width": 12, "depth": 5, "gain": 1.1, "skip": 0.7, "carry": 1.2, "init": "orthogonal"},
        {"init": "gaussian"},
    ),
    Case(
        "orthogonal-skip-linear",
        {**LINEAR, "width": 5, "depth": 4, "gain": 1.0, "skip": 1.0, "init": "orthogonal"},
        {"width": 6},
    ),
    Case(
        "orthogonal-skip-linear",
        {**LINEAR, "width": 1, "depth": 4, "gain": 1.0, "skip": 0.5, "init": "orthogonal"},
        {"gain": 1.1},
    ),
    Case(
        "identity-skip-linear",
        {**LINEAR, "kind": "recurrent", "width": 5, "depth": 6, "skip": 0.7, "carry": 0.4, "init": "identity"},
        {"carry": 0.4001},
        100,
    ),
    Case("rms-linear", {**LINEAR, "width": 8, "depth": 5, "norm": "rms", "input_scale": 1.5}, {"input_scale": 1.65}),
    Case("rms-linear", {**LINEAR, **UNEVEN, "norm": "rms", "norm_position": "after"}, {"profile": [6, 4, 8, 2, 5]}),
    Case("rms-linear", {**LINEAR, "width": 5, "depth": 3, "norm": "rms", "output_gradient": "ones"}, {"width": 6}),
    Case(
        "rms-linear",
        {**LINEAR, "profile": [6, 3, 8, 4, 5], "norm": "rms", "init": "orthogonal"},
        {"profile": [6, 4, 8, 4, 5]},
    ),
    Case("layer-linear", {**LINEAR, "width": 8, "depth": 5, "norm": "layer"}, {"norm": "rms"}),
    Case(
        "layer-linear",
        {**LINEAR, "profile": [6, 4, 8, 3, 5], "norm": "layer", "norm_position": "after", "input_scale": 0.5},
        {"input_scale": 0.55},
    ),
    Case(
        "layer-linear",
        {**LINEAR, "profile": [6, 4, 8, 3, 5], "norm": "layer", "init": "orthogonal"},
        {"init": "gaussian"},
    ),
    Case(
        "rms-post-linear",
        {**LINEAR, **POST, "width": 8, "depth": 5, "gain": 1.1, "skip": 0.7, "input_scale": 1.5},
        {"width": 9},
        40_000,
    ),
    Case(
        "rms-post-linear",
        {**LINEAR, **POST, "width": 3, "depth": 4, "gain": 1.1, "skip": 1.0, "carry": 1.5},
        {"carry": 1.4},
        100_000,
    ),
    Case("rms-post-linear", {**LINEAR, **POST, "width": 2, "depth": 3, "gain": 1.0, "skip": 1.0}, {"skip": 1.2}),
    Case(
        "loss-rectifier",
        {**LINEAR, "width": 8, "depth": 4, "gain": 1.1, "output_gradient": "loss", "input_scale": 1.3},
        {"width": 9},
        200_000,
    ),
    Case("loss-rectifier", {"profile": [6, 9, 8, 12], "output_gradient": "loss"}, {"gain": 1.5}, 100_000),
    Case("loss-rectifier", {"width": 2, "depth": 3, "output_gradient": "loss", "gain": 1.0}, {"width": 3}, 100_000),
    Case(
        "loss-rectifier",
        {**LEAKY, "profile": [6, 9, 8, 12], "negative_slope": -1.3, "output_gradient": "loss"},
        {"negative_slope": -1.4},
        100_000,
    ),
    Case("ones-rectifier", {"width": 8, "depth": 4, "output_gradient": "ones"}, {"gain": 1.44}, 100_000),
    Case("ones-rectifier", {**UNEVEN, "output_gradient": "ones"}, {"gain": 1.48}, 100_000),
    Case(
        "ones-rectifier",
        {**LEAKY, **UNEVEN, "negative_slope": -1.5, "output_gradient": "ones"},
        {"negative_slope": 1.5},
        100_000,
    ),
    Case("ones-rectifier", {**LEAKY, **UNEVEN, "output_gradient": "ones"}, {"negative_slope": 0.45}, 100_000),
    Case(
        "recurrent-gaussian-linear",
        {**LINEAR, "kind": "recurrent", "width": 8, "depth": 4, "gain": 0.9, "bias": 0.3, "skip": 0.7, "carry": 0.8},
        {"width": 10},
        200_000,
    ),
    Case("clipped", {**LINEAR, "width": 12, "depth": 6, "gain": 1.0, "clip": 0.8}, {"clip": 0.81}),
    Case("clipped", {**LINEAR, "width": 12, "depth": 6, "gain": 1.05, "clip": 1.3}, {"gain": 1.03}, 50_000),
    Case("clipped", {"profile": [6, 9, 4, 12], "gain": 1.5, "clip": 0.5}, {"clip": 0.55}),
    Case("clipped", {"width": 4, "depth": 6, "gain": 1.5, "clip": 1.5, "dropout": 0.1}, {"clip": 0.0}),
    Case("clipped", {**LINEAR, "width": 12, "depth": 6, "skip": 0.5, "gain": 1.0, "clip": 1.2}, {"skip": 0.4}),
    Case(
        "clipped",
        {**LINEAR, "width": 6, "depth": 6, "init": "orthogonal", "gain": 1.1, "clip": 1.3},
        {"clip": 1.3001},
        100,
    ),
]
