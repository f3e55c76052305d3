"""Values of the fields of plain chains, of any size, and a set of chains that meets each pair of them.

These are the chains that `oracle` follows at any depth and scale; the others are held to automatic differentiation, see
`autograd_cases`. A name a field can take is read off `gradsim.vocabulary`: one that is in neither table fails a test.
"""

from __future__ import annotations

import itertools
import random
from functools import lru_cache

from gradsim import Chain
from gradsim.errors import ExperimentError
from gradsim.vocabulary import CHAIN_FIELDS, GAIN_NAMES, RUN_FIELDS
from tests.kernels import autograd_cases

# Settings of [run] that no kernel sees: how much is kept, and in what pieces the work is done.
NOT_SEEN = ("record", "block", "keep")
SETTINGS = tuple(name for name in RUN_FIELDS if name not in NOT_SEEN)

# What every chain has.
QUANTITIES = Chain().quantities

# None leaves a field out. A shape is a width and a depth, or a profile.
VALUES = {
    "kind": ("feedforward", "recurrent"),
    "activation": ("linear", "relu", "leaky_relu", "tanh"),
    "negative_slope": (None, 0.0, 0.3, -0.4, 2.0),
    "depth": (None, 1, 2, 3, 5, 17, 33),
    "width": (None, 1, 2, 3, 5, 16, 63, 64, 65, 70),
    "profile": (
        None,
        (3, 5, 16, 70),
        (70, 33, 8, 2),
        (1, 64, 5, 65, 63),
        (5, 1, 4),
        (65, 64),
        (6, 6, 6, 6),
    ),
    "init": ("gaussian", "uniform", "rademacher", "orthogonal", "identity"),
    "gain": (*GAIN_NAMES, 0.0, 1e-3, 0.7, 1.0, 1.9, 5.0),
    "bias": (None, 0.0, 0.1, 3.0),
    "input_scale": (1e-3, 1.0, 50.0),
    "input_noise": (None, 0.0, 0.2),
    "output_gradient": ("random", "ones", "loss"),
    "method": ("dense",),
    "device": ("cpu",),
    "dtype": ("float32", "float64"),
    "streams": ("independent", "common"),
    "quantities": (
        QUANTITIES,
        ("log_grad_norm",),
        ("log_grad_norm", "log_activation_norm"),
        ("log_grad_norm", "log_weight_grad_norm"),
        ("log_grad_norm", "log_grad_max"),
    ),
}

# Held to an oracle of their own, whatever the fields: `test_deferred_every_field`, and the tests of the GPU's kernels.
HELD_ELSEWHERE = {"method": ("deferred",), "device": ("cuda",)}

SHAPE = ("depth", "width", "profile")
SHAPES = (
    *((depth, width, None) for depth in VALUES["depth"][1:] for width in VALUES["width"][1:]),
    *((None, None, profile) for profile in VALUES["profile"][1:]),
)


def names_missing():
    """Fields, and names of values, that the package knows and no table has."""
    known = {name: CHAIN_FIELDS[name].supported for name in CHAIN_FIELDS}
    known |= {name: RUN_FIELDS[name].supported for name in SETTINGS if name != "quantities"}
    known |= {"gain": GAIN_NAMES, "quantities": (QUANTITIES,)}
    held = (VALUES, autograd_cases.VALUES, HELD_ELSEWHERE)
    tables = {name: tuple(value for table in held for value in table.get(name, ())) for name in known}
    missing = [name for name, values in tables.items() if not values]
    return missing + [
        f"{name} = {value}" for name, values in known.items() for value in values if value not in tables[name]
    ]


def make(case):
    """The chain of a case, or None where its fields exclude each other."""
    given = {name: case[name] for name in CHAIN_FIELDS if case.get(name) is not None}
    if given.get("profile") is not None:
        given["profile"] = list(given["profile"])
    try:
        return Chain(**given)
    except ExperimentError:
        return None


def fits(case):
    """Whether the values of a case go together, and rounding does not decide what comes out.

    Deep tanh chains of large gain are chaotic: in float32 nothing could be compared at their end. A 2 x 2 matrix of
    signs is singular half the time: of deep chains none is left.
    """
    chain = make(case)
    if chain is None:
        return False
    chaotic = chain.activation == "tanh" and case.get("gain") in (1.9, 5.0)
    singular = chain.init == "rademacher" and chain.width == 2
    return chain.depth <= 5 or not (chaotic or singular)


def completions(partial, rng=None):
    """Cases with kind, activation and shape filled in, among which the fields given can all apply."""
    kinds, activations = ((partial[name],) if name in partial else VALUES[name] for name in ("kind", "activation"))
    given = {name: partial[name] for name in SHAPE if name in partial}
    shapes = [dict(zip(SHAPE, shape, strict=True)) for shape in SHAPES]
    shapes = [shape for shape in shapes if given.items() <= shape.items()]
    options = list(itertools.product(kinds, activations, shapes))
    for kind, activation, shape in rng.sample(options, len(options)) if rng else options:
        case = {"kind": kind, "activation": activation, **shape, **partial}
        if fits(case):
            yield case


def pair(first, second):
    """A pair of (field, value) in the order of the table."""
    return tuple(sorted((first, second), key=lambda item: list(VALUES).index(item[0])))


@lru_cache(maxsize=1)
def allowed_pairs():
    """Every pair of values of two fields that some chain can have."""
    items = [(name, value) for name, values in VALUES.items() for value in values]
    couples = ((a, b) for a, b in itertools.combinations(items, 2) if a[0] != b[0])
    return {pair(a, b) for a, b in couples if next(completions(dict((a, b))), None) is not None}


def pairs_of(case):
    """The pairs a case meets."""
    return {pair(a, b) for a, b in itertools.combinations(case.items(), 2)}


@lru_cache(maxsize=1)
def covering_cases():
    """Cases that together meet every allowed pair: each begins with a pair not yet met and adds the values that
    meet most of the rest."""
    rng = random.Random(0)
    missing = set(allowed_pairs())
    cases = []
    while missing:
        case = next(completions(dict(min(missing, key=str)), rng))
        for name in rng.sample(list(VALUES), len(VALUES)):
            if name not in case:
                case[name] = best_value(case, name, missing, rng)
        missing -= pairs_of(case)
        cases.append(case)
    return cases


def best_value(case, name, missing, rng):
    """The value of a field, among those that fit, that meets most pairs not yet met."""
    fitting = [value for value in VALUES[name] if fits(case | {name: value})]
    rng.shuffle(fitting)
    return max(fitting, key=lambda value: sum(pair((name, value), item) in missing for item in case.items()))
