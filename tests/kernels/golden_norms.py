"""Golden numbers of whole chains, by the reference in float64: what a seed gives must not change unnoticed.

    python -m tests.kernels.golden_norms > tests/kernels/golden_norms.json

is run again only when `STREAM_VERSION` rises or a field's meaning changes.
"""

from __future__ import annotations

import json
import sys

from gradsim import Chain
from gradsim.kernels.reference import simulate_chain

CASES = (
    ({"activation": "linear", "width": 4, "depth": 3, "gain": 1.0}, 0, 0, "independent"),
    ({"activation": "linear", "width": 4, "depth": 3, "gain": 1.0}, 1, 2**32, "common"),
    ({"width": 9, "depth": 3, "bias": 0.1}, 2**64 - 1, 7, "independent"),
    ({"profile": [3, 7, 2, 5], "activation": "leaky_relu", "gain": "xavier"}, 0, 1, "independent"),
    ({"profile": [3, 7, 2, 5], "init": "orthogonal", "activation": "tanh"}, 0, 1, "independent"),
    ({"width": 5, "depth": 3, "gain": "torch", "activation": "tanh"}, 3, 0, "independent"),
    ({"width": 5, "depth": 3, "init": "rademacher", "output_gradient": "ones"}, 3, 0, "independent"),
    ({"kind": "recurrent", "width": 6, "depth": 4, "activation": "tanh", "input_noise": 0.3}, 0, 0, "independent"),
    (
        {"kind": "recurrent", "width": 6, "depth": 4, "init": "orthogonal", "output_gradient": "loss"},
        0,
        0,
        "independent",
    ),
    ({"width": 3, "depth": 2, "init": "identity", "activation": "linear", "gain": 0.5}, 0, 0, "independent"),
    ({"width": 7, "depth": 3, "activation": "gelu", "norm": "batch", "batch": 5, "dropout": 0.3}, 1, 4, "independent"),
    (
        {"width": 6, "depth": 3, "activation": "silu", "norm": "layer", "norm_position": "pre", "skip": "rsqrt-depth"},
        0,
        2,
        "common",
    ),
    (
        {"kind": "recurrent", "width": 5, "depth": 4, "activation": "erf", "input_noise": 0.2, "batch": 2, "clip": 0.3},
        0,
        0,
        "independent",
    ),
    ({"width": 5, "depth": 4, "activation": "sigmoid", "gain": 1.5, "probes": 3}, 0, 0, "independent"),
    ({"kind": "lstm", "width": 5, "depth": 4, "input_noise": 0.3, "forget_bias": 1.0}, 0, 0, "independent"),
    ({"kind": "lstm", "width": 5, "depth": 4, "gain": 1.5, "probes": 2}, 2**64 - 1, 0, "common"),
    ({"kind": "gru", "width": 6, "depth": 4, "batch": 3, "input_noise": 0.3, "clip_value": 0.1}, 0, 0, "independent"),
)


def numbers(fields, seed, index, streams):
    """Every quantity of one chain."""
    chain = Chain(**fields)
    found = simulate_chain(chain, seed, index, streams=streams)
    return {name: [float(x) for x in found[name]] for name in chain.quantities}


if __name__ == "__main__":
    keys = ("chain", "seed", "index", "streams")
    rows = [dict(zip(keys, case, strict=True)) | {"numbers": numbers(*case)} for case in CASES]
    json.dump(rows, sys.stdout, indent=1)
    sys.stdout.write("\n")
