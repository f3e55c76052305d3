"""The values of chain fields that fixtures by automatic differentiation hold in every pair, and the fixtures.

The fixtures are made by `make_autograd_fixtures.py`. Names a field can take are read off `gradsim.vocabulary`: one
added there and not here, or here and not in the fixtures, fails a test.
"""

from __future__ import annotations

import itertools
import json
from functools import lru_cache
from pathlib import Path

from gradsim import Chain
from gradsim.errors import ExperimentError
from gradsim.vocabulary import CHAIN_FIELDS, GAIN_NAMES, SKIP_NAMES
from tests.kernels import covering

PATH = Path(__file__).parent / "autograd_fixtures.json"
SEED = 11
# Relative errors in all that a chain is made of may grow so many times on the way to what a fixture holds.
CONDITION = 500.0

# None leaves a field out. Clipping to 0.3 and 0.05 acts nearly everywhere, to 3 and 0.5 where gradients grow.
VALUES = {
    "kind": ("feedforward", "recurrent", "lstm", "gru"),
    "activation": (None, "linear", "relu", "leaky_relu", "tanh", "erf", "sigmoid", "gelu", "silu"),
    "negative_slope": (None, 0.3, -0.4),
    "depth": (None, 1, 3, 6),
    "width": (None, 3, 4, 6, 9),
    "profile": (None, (5, 3, 4), (3, 4, 7, 6), (6, 6, 6, 6), (4, 9)),
    "init": ("gaussian", "uniform", "rademacher", "orthogonal", "identity"),
    "gain": (None, *GAIN_NAMES, 0.8, 1.6),
    "bias": (None, 0.0, 0.4),
    "skip": (None, 0.0, 0.6, *SKIP_NAMES),
    "carry": (None, 0.0, 0.8),
    "norm": ("none", "batch", "layer", "rms"),
    "norm_position": (None, "before", "after", "pre", "post"),
    "norm_eps": (None, 0.0, 1e-5, 0.3),
    "batch": (None, 1, 3, 6),
    "dropout": (None, 0.0, 0.2, 0.6),
    "clip": (None, 0.0, 0.3, 3.0),
    "clip_value": (None, 0.0, 0.05, 0.5),
    "input_scale": (None, 0.3, 4.0),
    "input_noise": (None, 0.0, 0.4),
    "forget_bias": (None, 1.0, -0.7),
    "output_gradient": ("random", "ones", "loss"),
    "probes": (None, 1, 2, 3),
}
SHAPE = ("depth", "width", "profile")
SHAPES = (
    *((depth, width, None) for depth in VALUES["depth"][1:] for width in VALUES["width"][1:]),
    *((None, None, profile) for profile in VALUES["profile"][1:]),
)
# What has to be chosen for a given pair of values to have a meaning; a chain without them is tried first.
STRUCTURE = {
    "kind": VALUES["kind"],
    "activation": (None, "tanh", "leaky_relu"),
    "skip": (None, 0.6),
    "norm": ("none", "rms", "batch"),
    "norm_position": (None, "pre"),
    "batch": (None, 6),
}

# Beside the covering set: exact zeros, the widest frame of probes, and shapes of one unit.
MORE = (
    ({"activation": "linear", "width": 4, "depth": 3, "gain": 0.0}, 0),
    ({"activation": "tanh", "width": 4, "depth": 3, "gain": 0.0, "skip": 0.5, "carry": 0.9, "bias": 0.2}, 0),
    ({"kind": "lstm", "width": 4, "depth": 3, "gain": 0.0, "forget_bias": 1.0}, 0),
    ({"kind": "gru", "width": 4, "depth": 3, "gain": 0.0, "input_noise": 0.3}, 0),
    ({"kind": "lstm", "width": 1, "depth": 3, "input_noise": 0.3}, 0),
    ({"kind": "gru", "width": 2, "depth": 4, "batch": 3, "bias": 0.0}, 0),
    ({"activation": "gelu", "width": 1, "depth": 3, "batch": 4, "norm": "batch", "norm_eps": 0.1}, 0),
    ({"activation": "silu", "width": 2, "depth": 3, "norm": "rms", "norm_position": "post", "skip": 1.0}, 0),
    ({"activation": "linear", "width": 6, "depth": 5, "gain": 1.0, "probes": 6}, 0),
    ({"activation": "tanh", "kind": "recurrent", "width": 5, "depth": 6, "gain": 1.5, "probes": 5}, 0),
    ({"kind": "lstm", "width": 4, "depth": 5, "gain": 1.5, "probes": 4}, 0),
    ({"kind": "gru", "width": 4, "depth": 5, "gain": 1.5, "probes": 4}, 0),
    ({"activation": "erf", "width": 5, "depth": 3, "norm": "batch", "skip": "rsqrt-depth", "dropout": 0.3}, 0),
    *(
        (
            {"activation": name, "width": 4, "depth": 3, "gain": "critical", "kind": "feedforward", "init": "gaussian"}
            | {"norm": "none", "output_gradient": "random"},
            0,
        )
        for name in ("sigmoid", "gelu", "silu")
    ),
)


def names_missing():
    """Fields and names that the package knows and `VALUES` lacks; of a number it needs two values and its absence."""
    missing = [name for name in CHAIN_FIELDS if name not in VALUES]
    for name, spec in CHAIN_FIELDS.items():
        values = VALUES.get(name, ())
        named = {"gain": GAIN_NAMES, "skip": SKIP_NAMES}.get(name, spec.supported)
        missing += [f"{name} = {value}" for value in named if value not in values]
        if not spec.supported and len(values) < 3:
            missing.append(f"{name}: numbers")
    return missing


def make(case):
    """The chain of a case, or None where its fields exclude each other."""
    try:
        return Chain(**given(case))
    except ExperimentError:
        return None


def given(case):
    """The fields that a case gives, as keywords and JSON have them."""
    return {name: list(v) if isinstance(v, tuple) else v for name, v in case.items() if v is not None}


def fits(case):
    """Whether the values of a case go together."""
    return make(case) is not None


def completions(partial, rng):
    """Cases with a shape and all of `STRUCTURE`, among which the values given can all apply."""
    shaped = {name: partial[name] for name in SHAPE if name in partial}
    shapes = [dict(zip(SHAPE, shape, strict=True)) for shape in SHAPES]
    shapes = [shape for shape in shapes if shaped.items() <= shape.items()]
    choices = [(partial[name],) if name in partial else values for name, values in STRUCTURE.items()]
    # Only equal widths go with everything: of those that are free, the profile of equal widths and one other do.
    if rng is None and not shaped:
        shapes = [{"depth": 3, "width": 4, "profile": None}]
    options = list(itertools.product(shapes, *choices))
    for shape, *values in rng.sample(options, len(options)) if rng else options:
        case = {**shape, **dict(zip(STRUCTURE, values, strict=True)), **partial}
        if fits(case):
            yield case


@lru_cache(maxsize=1)
def allowed_pairs():
    """Every pair of values of two fields that some chain can have."""
    return covering.allowed_pairs(VALUES, completions)


def case_of(fields):
    """The case with these fields given, as the table writes values, or None where one is not in the table."""
    case = {name: fields.get(name) for name in VALUES}
    case["profile"] = tuple(case["profile"]) if case["profile"] else None
    return case if all(value in VALUES[name] for name, value in case.items()) else None


@lru_cache(maxsize=1)
def fixtures():
    """Rows of chain, seed, index, values and condition by quantity; lists over layers, weights or probes."""
    return json.loads(PATH.read_text())


@lru_cache(maxsize=1)
def covered_pairs():
    """The pairs that the fixtures meet."""
    cases = [case_of(row["chain"]) for row in fixtures()]
    return set().union(*(covering.pairs_of(VALUES, case) for case in cases if case is not None))
