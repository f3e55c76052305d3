"""Chains whose law is one of infinite width: the law, and changes of fields whose law their sample must reject."""

from __future__ import annotations

from dataclasses import dataclass

from gradsim.chain import Chain
from tests.theory import cases

PLAIN = {"width": 128, "depth": 8, "gain": 1.5}
LEAKY = {"activation": "leaky_relu", "negative_slope": 0.2}
NORMED = {"width": 96, "depth": 6, "gain": 1.5, "bias": 0.3}
BATCH = {"width": 192, "depth": 5, "gain": 1.3, "bias": 0.4, "norm": "batch", "batch": 8, "input_scale": 2.0}
SKIP = {"width": 64, "depth": 30, "skip": 1.0}


@dataclass(frozen=True)
class Case(cases.Case):
    """A case of fewer chains, whose law has an error of its own."""

    chains: int = 120

    @property
    def order(self) -> float:
        """What the law's error is stated to be of: depth/width, with tied weights depth^2/width."""
        chain = Chain(**self.chain)
        return (chain.depth if chain.tied else 1) * chain.depth / min(chain.widths)


CASES = [
    Case("mean-field", {**PLAIN, "activation": "tanh"}, {"gain": 1.7}),
    Case("mean-field", {**PLAIN, "activation": "tanh", "dropout": 0.2, "bias": 0.3}, {"dropout": 0.0}),
    Case("mean-field", {**PLAIN, "activation": "erf", "output_gradient": "ones"}, {"gain": 1.7}),
    Case("mean-field", {**PLAIN, "activation": "sigmoid", "gain": 4.0}, {"gain": 3.7}),
    Case("mean-field", {**PLAIN, "activation": "gelu", "gain": "critical"}, {"gain": 1.6}),
    Case("mean-field", {**PLAIN, "activation": "gelu", "dropout": 0.2, "bias": 0.3, "batch": 3}, {"dropout": 0.3}),
    Case("mean-field", {**PLAIN, "activation": "silu", "bias": 1.0}, {"bias": 0.3}),
    Case("mean-field", {**PLAIN, "batch": 3}, {"gain": 1.6}),
    Case("mean-field", {**PLAIN, **LEAKY, "kind": "recurrent", "bias": 0.3, "depth": 5}, {"gain": 1.75}),
    Case("mean-field", {**PLAIN, "activation": "sigmoid", "kind": "recurrent", "depth": 5}, {"gain": 1.7}),
    Case(
        "mean-field",
        {"activation": "tanh", "width": 96, "depth": 6, "gain": 1.5, "init": "orthogonal", "bias": 0.3},
        {"bias": 0.6},
        60,
    ),
    Case(
        "mean-field",
        {"kind": "recurrent", "activation": "tanh", "width": 128, "depth": 6, "gain": 1.5, "input_noise": 0.5},
        {"input_noise": 0.0},
        300,
    ),
    *(
        Case(
            "mean-field-norm",
            {**NORMED, "activation": name, "norm": norm, "norm_position": position},
            {"norm_position": "after" if position == "before" else "before"},
        )
        for name, norm, position in (
            ("relu", "layer", "after"),
            ("relu", "rms", "before"),
            ("tanh", "layer", "before"),
            ("sigmoid", "rms", "after"),
            ("silu", "layer", "after"),
        )
    ),
    Case(
        "mean-field-norm",
        {**NORMED, "activation": "tanh", "norm": "rms", "norm_eps": 0.5, "dropout": 0.2, "batch": 3},
        {"norm_eps": 0.0},
    ),
    *(
        Case(
            "mean-field-norm",
            {**NORMED, "activation": name, "norm": norm, "norm_position": position, "skip": 0.8, "carry": 0.9},
            {"skip": 1.3},
        )
        for name, norm, position in (
            ("linear", "rms", "pre"),
            ("relu", "layer", "pre"),
            ("gelu", "rms", "pre"),
            ("relu", "layer", "post"),
            ("tanh", "rms", "post"),
            ("relu", "rms", "after"),
            ("tanh", "layer", "before"),
        )
    ),
    Case("batch-norm", {**BATCH, "activation": "linear"}, {"batch": 6}, 60),
    Case("batch-norm", {**BATCH, "activation": "linear", "norm_position": "after"}, {"batch": 6}, 60),
    Case("batch-norm", {**BATCH}, {"batch": 6}, 60),
    Case("batch-norm", {**BATCH, **LEAKY}, {"negative_slope": 0.5}, 60),
    Case("batch-norm", {**BATCH, "activation": "tanh"}, {"batch": 5}, 60),
    Case("batch-norm", {**BATCH, "activation": "gelu", "dropout": 0.3}, {"batch": 5}, 60),
    Case("batch-norm", {**BATCH, "depth": 1, "batch": 6}, {"activation": "gelu"}, 120),
    Case("mean-field-skip", {**SKIP}, {"gain": 1.2}),
    Case("mean-field-skip", {**SKIP, "init": "orthogonal"}, {"gain": 1.2}, 30),
    Case("mean-field-skip", {**SKIP, **LEAKY, "skip": 0.5, "bias": 0.5}, {"negative_slope": 0.6}),
    Case("mean-field-skip", {**SKIP, "activation": "gelu", "dropout": 0.2}, {"skip": 0.8}),
    Case("mean-field-skip", {**SKIP, "activation": "silu", "carry": 0.8}, {"carry": 0.9}),
    Case("mean-field-skip", {**SKIP, "activation": "sigmoid", "gain": 4.0, "bias": 1.0}, {"carry": 0.9}),
    Case("mean-field-skip", {**SKIP, "activation": "tanh"}, {"skip": 0.3}),
    Case("mean-field-skip", {**SKIP, "activation": "erf", "skip": "rsqrt-depth", "batch": 2}, {"skip": 0.5}),
]
