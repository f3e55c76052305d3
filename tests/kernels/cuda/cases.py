"""Which chains go through the CUDA kernels, and how they are run: the same for the simulator and for hardware."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

from gradsim import Chain
from gradsim.errors import ExperimentError
from gradsim.experiment import Experiment
from tests.kernels import autograd_cases, covering

#: Fields that decide what code a chain goes through: each value meets every value of every other field in CI.
STRUCTURE = ("kind", "batch")
METHODS, DTYPES, ORDERS = ("dense", "deferred"), ("float64", "float32"), ("forward", "backward")


@dataclasses.dataclass(frozen=True)
class Case:
    """Chains of one cell, and how they are run.

    `condition` is how many times errors of rounding grow on the way to what is compared; `oracle` is what exact values
    are taken from: "reference", "wide" (vectors kept in range) or "deferred". `threads` and `edge` are those of a
    block, `slots` chains in flight, `budget` weights of a launch; `order` is that of threads in the simulator;
    `broken` names a mistake made on purpose.
    """

    fields: tuple[tuple[str, Any], ...]
    dtype: str = "float64"
    method: str = "dense"
    seed: int = 0
    first: int = 0
    count: int = 1
    streams: str = "independent"
    quantities: tuple[str, ...] | None = None
    order: str = "forward"
    edge: int = 4
    threads: int | None = None
    slots: int | None = None
    budget: int | None = None
    broken: str | None = None
    condition: float = 30.0
    oracle: str = "reference"

    @property
    def chain(self):
        return Chain(**self.given)

    @property
    def given(self):
        """The fields, as keywords and JSON have them."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in self.fields}

    def __str__(self):
        plain = {field.name: field.default for field in dataclasses.fields(self)} | {"fields": None}
        shown = {name: value for name, value in vars(self).items() if value != plain[name] and name != "fields"}
        hidden = ("condition", "oracle")
        every = dict(self.fields) | {name: value for name, value in shown.items() if name not in hidden}
        return ",".join(f"{name}={value}" for name, value in every.items()).replace(" ", "")

    def with_(self, **changes):
        """The case with changes."""
        return dataclasses.replace(self, **changes)


def case(more=None, **fields):
    """A case from a chain's fields."""
    frozen = tuple((name, tuple(v) if isinstance(v, list) else v) for name, v in fields.items())
    more = more or {}
    deferred = {"oracle": "deferred"} if more.get("method") == "deferred" else {}
    return Case(frozen, **deferred | more)


def can_be_deferred(chain):
    """Whether the deferred engine takes a chain."""
    try:
        Experiment(chain=chain, chains=1, method="deferred")
    except ExperimentError:
        return False
    return True


def in_every_way(row):
    """A chain of the covering set by each engine that takes it, in each dtype and order of threads."""
    condition = max(max(values) for values in row["condition"].values())
    one = case({"seed": row["seed"], "first": row["index"], "condition": condition}, **row["chain"])
    methods = METHODS if can_be_deferred(one.chain) else METHODS[:1]
    if one.chain.columns == one.chain.gates == 1:
        # Products of several columns want a square of threads; for the others fewer are faster here.
        one = one.with_(threads=8)
    return [
        one.with_(method=method, dtype=dtype, order=order, oracle="deferred" if method == "deferred" else one.oracle)
        for method, dtype, order in itertools.product(methods, DTYPES, ORDERS)
    ]


def each_once(rows):
    """Every chain of the covering set in one way, the ways taken in turn: so that every pair of values is met."""
    chosen, taken = [], {}
    for row in rows:
        ways = in_every_way(row)
        at = taken[len(ways)] = taken.get(len(ways), -1) + 1
        # Neighbours in the covering set are alike: of 4 or 8 ways, 3 or 5 further.
        chosen.append(ways[at * (len(ways) // 2 + 1) % len(ways)])
    return chosen


def meeting_structure(rows):
    """Of the covering set as few chains as meet every pair of values of two fields one of which is in `STRUCTURE`."""
    cases = [autograd_cases.case_of(row["chain"]) for row in rows]
    pairs = [covering.pairs_of(autograd_cases.VALUES, one) if one else set() for one in cases]
    pairs = [{pair for pair in own if {pair[0][0], pair[1][0]} & set(STRUCTURE)} for own in pairs]
    missing, chosen = set().union(*pairs), [row for row, one in zip(rows, cases, strict=True) if one is None]
    while missing:
        best = max(range(len(rows)), key=lambda number: len(pairs[number] & missing))
        missing -= pairs[best]
        chosen.append(rows[best])
    return chosen


COVERING = each_once(meeting_structure(autograd_cases.fixtures()))

#: Every width up to two row groups, and one of several rows of lanes.
WIDTHS = [
    case({"count": 2, "dtype": dtype, "order": order}, width=width, depth=2, bias=0.2, activation="tanh")
    for width, dtype, order in zip(
        range(1, 10), itertools.cycle(DTYPES), itertools.cycle((*ORDERS, *reversed(ORDERS))), strict=False
    )
] + [
    case({}, width=70, depth=2),
    case({"dtype": "float32", "order": "backward"}, width=70, depth=1, init="uniform", activation="linear"),
    case({}, profile=[3, 70, 5]),
    case({"order": "backward"}, profile=[70, 9], activation="silu", batch=2),
    case({}, kind="recurrent", width=37, depth=2, activation="erf", probes=2),
    case({"order": "backward", "method": "deferred"}, width=70, depth=3, activation="tanh"),
]

#: Chains of directions alone, which have a kernel of their own.
DIRECTIONS = [
    case({"method": "deferred", "dtype": dtype, "order": order, "count": 2, "seed": 3, "condition": 60.0}, **fields)
    for (dtype, order), fields in zip(
        itertools.cycle(itertools.product(DTYPES, ORDERS)),
        [
            {"width": 5, "depth": 4},
            {"width": 8, "depth": 3, "activation": "linear", "init": "orthogonal"},
            {"width": 6, "depth": 4, "activation": "leaky_relu", "negative_slope": -0.4},
            {"width": 9, "depth": 2, "activation": "leaky_relu", "output_gradient": "ones"},
            {"width": 1, "depth": 4, "activation": "linear"},
            {"width": 2, "depth": 4, "activation": "leaky_relu", "negative_slope": 0.3},
            {"width": 3, "depth": 4, "init": "orthogonal", "output_gradient": "loss"},
            {"width": 70, "depth": 2, "gain": 1.1, "input_scale": 3.0},
            {"profile": [3, 7, 1, 5], "activation": "linear"},
            {"profile": [4, 2, 9], "activation": "leaky_relu", "negative_slope": 0.5, "init": "orthogonal"},
        ],
        strict=False,
    )
]

#: Chains that die, and numbers of any size.
EXTREME = [
    case({"count": 3, "dtype": dtype, "oracle": "wide", "condition": 60.0} | more, **fields)
    for dtype, (more, fields) in zip(
        itertools.cycle(DTYPES),
        [
            ({}, {"width": 2, "depth": 6}),
            ({"order": "backward"}, {"width": 1, "depth": 4, "output_gradient": "loss"}),
            ({"order": "backward"}, {"kind": "recurrent", "width": 2, "depth": 4}),
            ({}, {"width": 3, "depth": 4, "gain": 1e-30}),
            ({}, {"width": 4, "depth": 4, "gain": 1e30, "activation": "linear"}),
            ({"order": "backward"}, {"width": 3, "depth": 4, "gain": 1e-30, "activation": "tanh"}),
            ({}, {"width": 2, "depth": 3, "gain": 60.0, "activation": "tanh"}),
            ({"order": "backward"}, {"width": 5, "depth": 3, "gain": 1e30, "bias": 1e-30}),
            ({}, {"width": 4, "depth": 4, "gain": 0.0, "bias": 0.5}),
            ({}, {"width": 4, "depth": 3, "activation": "leaky_relu", "negative_slope": 1e30}),
            ({}, {"kind": "recurrent", "width": 4, "depth": 4, "gain": 1e30, "activation": "linear"}),
            ({}, {"init": "identity", "activation": "tanh", "width": 4, "depth": 4, "gain": 1e-20, "bias": 1e-25}),
        ],
        strict=False,
    )
] + [
    case({"count": 3, "dtype": dtype, "method": "deferred", "order": order}, **fields)
    for dtype, order, fields in [
        ("float64", "forward", {"width": 2, "depth": 6}),
        ("float32", "backward", {"width": 1, "depth": 6}),
        ("float64", "backward", {"kind": "recurrent", "width": 2, "depth": 4}),
        ("float32", "forward", {"width": 3, "depth": 4, "activation": "linear", "gain": 1e-6}),
    ]
]

#: What names a stream, and what is asked for.
ASKED = [
    case({"streams": "common", "seed": 2**64 - 1, "first": 2**32 + 3}, width=5, depth=2, input_scale=0.3),
    case({"quantities": ("log_grad_norm",)}, width=5, depth=2, activation="gelu", bias=0.1),
    case({"quantities": ("log_grad_norm", "log_weight_grad_norm")}, kind="recurrent", width=4, depth=3),
    case({"quantities": ("log_grad_norm",), "method": "deferred"}, width=5, depth=3),
]

#: One or two chains of each kernel and of each way through it.
REPRESENTATIVE = [
    case({"count": 2}, width=5, depth=3),
    case({"count": 2}, width=6, depth=2, activation="tanh", init="uniform", bias=0.3, skip=0.5, norm="layer"),
    case({"count": 2}, width=5, depth=2, init="orthogonal", clip=0.5),
    case({"count": 2}, width=5, depth=2, batch=4, norm="batch", activation="gelu", dropout=0.3),
    case({"count": 2}, width=6, depth=2, probes=3, activation="linear"),
    case({"count": 2}, kind="recurrent", width=5, depth=3, activation="tanh", input_noise=0.3),
    case({"count": 2}, kind="recurrent", width=5, depth=2, activation="erf", batch=3),
    case({"count": 2}, kind="lstm", width=4, depth=2, input_noise=0.2),
    case({"count": 2}, kind="gru", width=4, depth=2, batch=2, init="orthogonal"),
    case({"count": 2, "method": "deferred"}, width=5, depth=3),
    case({"count": 2, "method": "deferred"}, width=6, depth=3, activation="linear", init="orthogonal"),
    case({"count": 2, "method": "deferred"}, width=5, depth=2, activation="tanh", bias=0.2),
    case({"count": 2, "method": "deferred"}, width=5, depth=2, activation="tanh", batch=3),
    case({"count": 2, "method": "deferred"}, kind="recurrent", width=5, depth=3, activation="tanh", probes=2),
    case({"count": 2, "method": "deferred"}, kind="lstm", width=4, depth=2, init="gaussian"),
]

SELECTED = [*WIDTHS, *DIRECTIONS, *EXTREME, *ASKED]
