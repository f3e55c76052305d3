"""Chains in which races are looked for; and controls, in which functions named by `broken` leave out their barriers."""

PLAIN = {"width": 5, "depth": 2}
TIED = {"kind": "recurrent", "width": 5, "depth": 3}
CASES = [
    PLAIN,
    {"width": 70, "depth": 1, "activation": "linear", "dtype": "float32"},
    {"profile": [3, 6, 4], "init": "orthogonal", "activation": "tanh", "bias": 0.2},
    {**PLAIN, "init": "identity", "activation": "tanh"},
    {**PLAIN, "init": "uniform", "dropout": 0.3, "norm": "layer", "norm_position": "after"},
    {**PLAIN, "skip": 0.5, "norm": "rms", "norm_position": "pre", "activation": "gelu"},
    {**PLAIN, "skip": 0.5, "norm": "batch", "batch": 3, "norm_position": "post", "dropout": 0.2},
    {**PLAIN, "batch": 3, "init": "rademacher", "output_gradient": "loss", "clip": 0.5},
    {**PLAIN, "batch": 3, "init": "orthogonal", "norm": "layer"},
    {**PLAIN, "probes": 3, "activation": "tanh"},
    {**PLAIN, "clip_value": 0.1, "output_gradient": "ones"},
    {**TIED, "activation": "tanh", "input_noise": 0.3, "bias": 0.2},
    {**TIED, "init": "orthogonal"},
    {**TIED, "batch": 3},
    {**TIED, "probes": 2},
    {"kind": "lstm", "width": 4, "depth": 2, "input_noise": 0.5},
    {"kind": "lstm", "width": 4, "depth": 2, "probes": 2},
    {"kind": "gru", "width": 4, "depth": 2, "init": "orthogonal", "gain": 1.0},
    {"kind": "gru", "width": 4, "depth": 2, "batch": 2},
    {**PLAIN, "method": "deferred"},
    {**PLAIN, "method": "deferred", "output_gradient": "loss", "activation": "leaky_relu"},
    {**PLAIN, "method": "deferred", "activation": "tanh", "bias": 0.2},
    {**PLAIN, "method": "deferred", "init": "orthogonal", "batch": 2},
    {**PLAIN, "method": "deferred", "batch": 3, "activation": "tanh", "dtype": "float32"},
    {**TIED, "method": "deferred", "activation": "tanh"},
    {"kind": "gru", "width": 4, "depth": 2, "gain": 1.0, "init": "gaussian", "method": "deferred"},
    {"kind": "lstm", "width": 4, "depth": 2, "gain": 1.0, "init": "orthogonal", "method": "deferred"},
]
CONTROLS = [
    {**PLAIN, "broken": ["_clear"]},
    {**TIED, "init": "orthogonal", "broken": ["build_q"]},
    {**TIED, "init": "orthogonal", "broken": ["reflector"]},
    {**TIED, "batch": 3, "broken": ["fetch"]},
    {"kind": "gru", "width": 4, "depth": 2, "broken": ["weigh"]},
    {**PLAIN, "method": "deferred", "activation": "tanh", "broken": ["draw"]},
]
EVERYTHING = [*CASES, *CONTROLS]
