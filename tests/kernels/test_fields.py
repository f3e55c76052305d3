"""Every value of every field, in every pair: the dense kernels against the reference."""

from __future__ import annotations

import numpy as np
import pytest

from gradsim import fields
from gradsim.kernels import reference
from gradsim.vocabulary import CHAIN_FIELDS, RUN_FIELDS
from tests.kernels import autograd_cases, compare, oracle, pairs

PARTS = 10
SEEDS = (0, 7, 2**64 - 1)
INDICES = (0, 5, 2**32 + 3)
# What a bound must be below for a comparison to say something.
TELLING = {"float32": 0.02, "float64": 1e-5}


@pytest.fixture(autouse=True)
def each_matrix_drawn_once(monkeypatch):
    monkeypatch.setattr(reference, "weight_matrix", oracle.weight_matrix)


def well_conditioned(case, seed, first):
    """A chain of the case, near index `first`, whose bound is telling: (chain, index, bound)."""
    chain = pairs.make(case)
    for index in range(first, first + 20):
        bound = compare.bounds(chain, seed, index, case["dtype"], case["streams"])
        if max(values.max() for values in bound.values()) < TELLING[case["dtype"]]:
            return chain, index, bound
    pytest.fail(f"no chain whose end rounding does not decide: {case}")


@pytest.mark.parametrize("part", range(PARTS))
def test_kernels_agree_with_the_reference(part):
    for number, case in list(enumerate(pairs.covering_cases()))[part::PARTS]:
        seed, first = SEEDS[number % 3], INDICES[number % 3]
        chain, index, bound = well_conditioned(case, seed, first)
        found = compare.run(chain, seed, index, 1, case["dtype"], case["quantities"], case["streams"], budget=10_000)
        found = {name: values[0] for name, values in found.items()}
        assert set(found) == set(case["quantities"])
        with np.errstate(over="ignore", invalid="ignore"):
            exact = reference.simulate_chain(chain, seed, index, streams=case["streams"])
        exact = {name: exact[name] for name in bound}
        # The reference in plain float64, and the same chain kept in range, which also says what leaves the dtype.
        passes = oracle.simulate(chain, seed, index, case["streams"])
        assert not compare.differences(exact, passes.quantities, bound), case
        assert not compare.disagreements(found, chain, seed, index, case["dtype"], case["streams"], bound), case


def test_every_pair_of_values_is_covered():
    covered = set().union(*(pairs.pairs_of(case) for case in pairs.covering_cases()))
    assert covered == pairs.allowed_pairs(), sorted(map(str, covered ^ pairs.allowed_pairs()))
    # All pairs but those that exclude each other: 2557 of 2651.
    assert len(covered) > 2400


def test_pairs_that_exclude_each_other_are_known():
    allowed = pairs.allowed_pairs()
    assert pairs.pair(("kind", "recurrent"), ("profile", (3, 5, 16, 70))) not in allowed
    assert pairs.pair(("activation", "relu"), ("negative_slope", 0.3)) not in allowed
    assert pairs.pair(("kind", "feedforward"), ("input_noise", 0.2)) not in allowed
    assert pairs.pair(("init", "identity"), ("profile", (65, 64))) not in allowed
    assert pairs.pair(("gain", "critical"), ("bias", 0.1)) in allowed  # tanh has a critical gain there
    assert pairs.pair(("input_noise", 0.2), ("negative_slope", 0.3)) in allowed


def test_the_table_holds_every_name():
    assert not pairs.names_missing()
    assert {*pairs.VALUES, *autograd_cases.VALUES} == {*CHAIN_FIELDS, *pairs.SETTINGS}


@pytest.mark.parametrize(
    ("table", "field"),
    [
        (CHAIN_FIELDS, fields.choice("activation", "", (*CHAIN_FIELDS["activation"].supported, "mish"))),
        (CHAIN_FIELDS, fields.number("momentum", "")),
        (RUN_FIELDS, fields.choice("device", "", ("cpu", "cuda", "tpu"))),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_value_or_field_added_later_is_missed(monkeypatch, table, field):
    """Control: the table of values notices what it lacks."""
    monkeypatch.setitem(table, field.name, field)
    assert pairs.names_missing()


@pytest.mark.parametrize("wrong", ["gain", "bias", "negative_slope", "input_scale", "input_noise"])
def test_a_field_off_by_a_thousandth_is_seen(wrong):
    """Control: the comparison fails where the kernel is given a slightly different chain."""
    chain = oracle_chain()
    # Common streams: the same draws, so that the field itself makes the difference.
    changed = chain.replace(**{wrong: getattr(chain, wrong) * 1.001})
    bound = compare.bounds(chain, 3, 0, "float32", "common")
    exact = oracle.simulate(chain, 3, 0, "common").quantities
    for candidate, agrees in ((chain, True), (changed, False)):
        found = compare.run(candidate, 3, 0, 1, "float32", streams="common")
        wrongs = compare.differences({name: values[0] for name, values in found.items()}, exact, bound)
        assert (not wrongs) == agrees


def oracle_chain():
    return pairs.Chain(
        kind="recurrent",
        activation="leaky_relu",
        negative_slope=0.3,
        width=12,
        depth=6,
        gain=1.2,
        bias=0.5,
        input_noise=0.4,
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("init", pairs.VALUES["init"])
@pytest.mark.parametrize("activation", pairs.VALUES["activation"])
def test_one_layer_is_exact_to_rounding(activation, init, dtype):
    """One layer from the same state: every norm to 8 eps sqrt(n), whatever was drawn."""
    shapes = [(n, n) for n in (16, 63, 64, 65, 70)]
    if init != "identity":
        shapes += [(16, 70), (70, 16), (33, 64), (130, 5)]
    for shape in shapes:
        chain = pairs.Chain(profile=list(shape), activation=activation, init=init, gain=1.1, bias=0.2)
        found = compare.run(chain, 11, 4, 1, dtype)
        exact = reference.simulate_chain(chain, 11, 4)
        for name, values in found.items():
            error = np.abs(values[0] - exact[name])
            assert (error <= 8 * compare.EPS[dtype] * np.sqrt(max(shape)) + compare.stored(exact[name])).all(), (
                shape,
                name,
                error / compare.EPS[dtype],
            )
