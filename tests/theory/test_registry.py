"""Every law of the registry against real matrices, and a wrong law that the same sample rejects.

The p-values of this file, fewer than 800, are together held to 1e-4, Bonferroni; seeds are fixed. A control
must fall far below.
"""

from __future__ import annotations

from functools import lru_cache

import pytest

from gradsim.chain import Chain
from gradsim.theory.law import EXACT, LEADING_ORDER
from gradsim.theory.registry import COVERED, LAWS, LIMITS, find
from gradsim.vocabulary import CHAIN_FIELDS
from tests.brute import simulate
from tests.theory.cases import CASES
from tests.theory.checks import p_values, within_leading_order
from tests.theory.limit_cases import CASES as LIMIT_CASES

LEVEL = 1e-4 / 800
REJECTED = 1e-12


@lru_cache(maxsize=1)
def sample(index):
    case = CASES[index]
    return simulate(Chain(**case.chain), case.chains, case.seed)


def changed(case):
    """The chain of the case with the wrong fields."""
    kept = {k: v for k, v in case.chain.items() if not ("width" in case.wrong and k == "profile")}
    return Chain(**{**kept, **case.wrong})


def holds(case, logs, law):
    """Whether the sample passes under the law, and the smallest p-value where there is one."""
    true = find(Chain(**case.chain))
    if true.validity == EXACT:
        p = min(p_values(logs, law).values())
        return p > LEVEL, p
    assert true.validity == LEADING_ORDER
    gaussian = find(Chain(**{**case.chain, "init": "gaussian"}))
    return within_leading_order(logs, law, {"true": true, "law": gaussian}), None


@pytest.mark.parametrize("index", range(len(CASES)), ids=lambda i: str(CASES[i]))
def test_law_passes_and_a_wrong_one_is_rejected(index):
    case = CASES[index]
    logs = sample(index)
    law = find(Chain(**case.chain))
    assert law.name == case.law
    passed, p = holds(case, logs, law)
    assert passed, f"p = {p}: {p_values(logs, law) if p is not None else ''}"
    rejected, p = holds(case, logs, find(changed(case)))
    assert not rejected
    assert p is None or p < REJECTED


def test_every_law_has_a_simulation_and_a_control():
    assert {case.law for case in CASES} == set(LAWS)
    # That of gated chains, which has a rate alone, is held to it in test_limits.py.
    assert {case.law for case in LIMIT_CASES} | {"gated-near-zero"} == set(LIMITS)
    assert all(case.wrong for case in [*CASES, *LIMIT_CASES])


def test_laws_are_named_as_registered_and_exclude_each_other():
    for case in CASES:
        chain = Chain(**case.chain)
        found = {name: law for name, of in LAWS.items() if (law := of(chain)) is not None}
        assert list(found) == [case.law]
        assert found[case.law].name == case.law


@pytest.mark.parametrize(
    "fields",
    [
        {"output_gradient": "loss", "init": "orthogonal"},
        {"output_gradient": "loss", "bias": 0.1},
        {"gain": 0.0},
        {"output_gradient": "ones", "bias": 0.1},
        {"activation": "leaky_relu", "output_gradient": "ones", "init": "uniform"},
        {"activation": "linear", "init": "orthogonal", "kind": "recurrent", "skip": 1.0},
        {"init": "identity", "bias": 0.1},
        {"activation": "leaky_relu", "init": "identity"},
        {"kind": "recurrent", "init": "identity", "input_noise": 0.1},
    ],
    ids=str,
)
def test_chains_without_a_law(fields):
    assert find(Chain(**{"width": 8, "depth": 3, **fields})) is None


def test_one_orthogonal_unit_with_a_skip_has_no_law_of_finite_width():
    """W is a sign: the sum of two signs is no length times a uniform direction."""
    chain = Chain(activation="linear", init="orthogonal", width=1, depth=3, skip=1.0, gain=1.0)
    assert all(law_of(chain) is None for law_of in LAWS.values())


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("rms-linear", {"norm": "rms"}),
        ("layer-linear", {"norm": "layer"}),
        ("loss-rectifier", {"output_gradient": "loss"}),
        ("ones-rectifier", {"activation": "relu", "output_gradient": "ones"}),
    ],
)
def test_noise_is_seen_where_a_bias_is(name, fields):
    """One step of a recurrent chain has fresh weights: what else it adds to W h still counts."""
    chain = Chain(**({"kind": "recurrent", "activation": "linear", "depth": 1, "width": 8, "gain": 1.0} | fields))
    assert LAWS[name](chain) is not None
    assert LAWS[name](chain.replace(input_noise=1.0)) is None
    assert LAWS[name](chain.replace(bias=1.0)) is None


#: Every field of a chain, away from its default, beside chains that have a law: whether they still have one.
AWAY = [
    ({"kind": "recurrent"}, True),
    ({"kind": "lstm"}, False),
    ({"kind": "gru"}, False),
    ({"kind": "lstm", "gain": 1.0}, True),
    ({"kind": "gru", "gain": 1.0}, True),
    *(({"activation": name}, True) for name in ("linear", "relu", "tanh", "erf", "sigmoid", "gelu", "silu")),
    ({"activation": "leaky_relu", "negative_slope": 0.3}, True),
    ({"depth": 1}, True),
    ({"width": 9}, True),
    ({"profile": [8, 9, 7]}, True),
    ({"init": "orthogonal"}, True),
    ({"gain": 1.1}, True),
    ({"bias": 0.1}, True),
    ({"skip": 1.0}, True),
    ({"skip": 1.0, "carry": 0.0}, True),
    ({"skip": 1.0, "dropout": 0.1}, True),
    ({"skip": 1.0, "kind": "recurrent"}, True),
    ({"skip": 1.0, "kind": "recurrent", "dropout": 0.1}, False),
    *(({"norm": name, "batch": 4}, True) for name in ("batch", "layer", "rms")),
    *(({"norm": name}, True) for name in ("batch", "layer", "rms")),
    ({"norm": "rms", "norm_position": "after"}, True),
    ({"norm": "rms", "norm_position": "pre", "skip": 1.0}, True),
    ({"norm": "layer", "norm_position": "post", "skip": 1.0}, True),
    ({"norm": "rms", "norm_eps": 1.0}, True),
    ({"norm": "rms", "bias": 0.1}, True),
    ({"norm": "rms", "kind": "recurrent"}, True),
    ({"norm": "rms", "dropout": 0.1}, True),
    ({"norm": "rms", "skip": 1.0, "kind": "recurrent"}, False),
    ({"norm": "batch", "norm_eps": 1.0}, False),
    ({"norm": "batch", "skip": 1.0}, False),
    ({"norm": "batch", "kind": "recurrent"}, False),
    ({"batch": 2}, True),
    ({"batch": 2, "clip": 1.0}, False),
    ({"dropout": 0.1}, True),
    ({"dropout": 0.1, "output_gradient": "loss"}, False),
    ({"dropout": 0.1, "kind": "recurrent"}, True),
    ({"clip": 1.0}, True),
    ({"clip": 1.0, "kind": "recurrent", "bias": 0.1, "activation": "relu"}, False),
    ({"clip": 1.0, "output_gradient": "loss"}, False),
    ({"clip_value": 1.0}, False),
    ({"input_scale": 2.0}, True),
    ({"kind": "recurrent", "input_noise": 0.1}, True),
    ({"kind": "lstm", "gain": 1.0, "forget_bias": 0.5}, True),
    ({"kind": "lstm", "gain": 1.0, "input_noise": 0.1}, False),
    ({"kind": "gru", "gain": 1.0, "bias": 0.1}, False),
    ({"output_gradient": "ones"}, True),
    ({"output_gradient": "loss"}, True),
    ({"output_gradient": "loss", "bias": 0.1}, False),
    ({"output_gradient": "loss", "kind": "recurrent"}, False),
    ({"probes": 2}, True),
]


@pytest.mark.parametrize(("fields", "known"), AWAY, ids=str)
def test_no_law_claims_a_chain_with_a_field_it_was_not_derived_for(fields, known):
    plain = [{"activation": "linear"}, {"activation": "relu"}, {"activation": "tanh", "gain": 1.2}]
    inits = [{"init": name} for name in CHAIN_FIELDS["init"].supported if name != "identity" or "profile" not in fields]
    found = []
    for activation in plain if fields.get("kind") not in ("lstm", "gru") else [{}]:
        for init in inits:
            shape = {} if "profile" in fields else {"width": 8, "depth": 3}
            chain = Chain(**{**shape, **activation, **init, **fields})
            found.append(find(chain) is not None)
    assert any(found) == known


def test_the_fields_looked_at_above_are_all_there_are():
    away = {name for fields, _ in AWAY for name in fields}
    assert away == set(CHAIN_FIELDS)
    allowed = {name for fields, known in AWAY for name in fields if known}
    reached = [entry.fields for entry in (*LAWS.values(), *LIMITS.values())]
    assert allowed == set(COVERED).union(*reached)


def test_probes_leave_the_law_as_it_is():
    chain = Chain(width=8, depth=3)
    assert find(chain.replace(probes=3)).name == find(chain).name
