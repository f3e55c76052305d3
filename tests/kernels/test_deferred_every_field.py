"""Whatever the fields: the deferred engine gives the numbers of its oracle, the same bits however the work is cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from bench.two_sample import compare
from gradsim import Chain
from gradsim.errors import ExperimentError
from gradsim.kernels import cpu, layout
from gradsim.kernels.cpu import Engine
from gradsim.kernels.direction_shapes import SMALLEST_SLOPE, are_directions
from tests.kernels import naive_deferred
from tests.kernels.test_every_field import FIELDS, SEEDS, SHAPES, TOLERANCE, sometimes

ASKED_FIELDS = FIELDS | {
    "kind": st.sampled_from(["feedforward", "recurrent", "lstm", "gru"]),
    "init": st.sampled_from(["gaussian", "orthogonal"]),
    "forget_bias": sometimes(st.floats(-1.0, 2.0)),
}
#: Chains that are directions and lengths alone, which have a kernel of their own.
PLAIN_FIELDS = {
    "activation": st.sampled_from(["linear", "relu", "leaky_relu"]),
    "negative_slope": sometimes(st.floats(-1.0, 1.0).filter(lambda slope: slope == 0 or abs(slope) >= SMALLEST_SLOPE)),
    "gain": st.sampled_from(["he", "glorot"]) | st.floats(0.3, 2.0),
    "input_scale": FIELDS["input_scale"],
    "output_gradient": FIELDS["output_gradient"],
}


@st.composite
def chains(draw, fields=ASKED_FIELDS):
    """Any chain of few layers; of fields that exclude each other, those written first stay."""
    chosen = draw(SHAPES)
    for name in draw(st.permutations(list(fields))):
        value = draw(fields[name])
        if value is None:
            continue
        try:
            Chain(**chosen, **{name: value})
        except ExperimentError:
            continue
        chosen[name] = value
    return Chain(**chosen)


def run(chain, seed, dtype, quantities, first, count, **more):
    return Engine(chain, seed, dtype, quantities, method="deferred").run(first, count, **more)


def disagreement(found, expected, tolerance):
    """The first quantity of a chain that is not what it should be, or None."""
    for name, got in found.items():
        value, got = np.asarray(expected[name], float), got[0].astype(float)
        assert got.shape == value.shape
        alike = (got == value) | (np.isnan(got) & np.isnan(value))
        with np.errstate(invalid="ignore"):
            near = np.abs(got - value) <= tolerance * np.maximum(1.0, np.abs(value))
        if not (alike | near).all():
            return name, got, value
    return None


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(chains(), SEEDS, st.integers(0, 2**32 - 1))
def test_the_engine_gives_the_oracle(chain, seed, index):
    with np.errstate(all="ignore"):
        exact = naive_deferred.simulate(chain, seed, index)
    found = run(chain, seed, "float64", chain.quantities, index, 1)
    assert disagreement(found, exact, TOLERANCE["float64"]) is None


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(chains(), SEEDS, st.integers(0, 2**20), st.sampled_from(["float32", "float64"]), st.integers(1, 20_000))
def test_how_the_work_is_cut_changes_no_bit(chain, seed, first, dtype, budget):
    whole = run(chain, seed, dtype, chain.quantities, first, 4)
    pieces = [run(chain, seed, dtype, chain.quantities, first, 1)]
    pieces.append(run(chain, seed, dtype, chain.quantities, first + 1, 3, budget=budget))
    for name in chain.quantities:
        np.testing.assert_array_equal(np.concatenate([piece[name] for piece in pieces]), whole[name])


@settings(max_examples=30, deadline=None)
@given(chains(), SEEDS)
def test_what_is_recorded_changes_nothing(chain, seed):
    assume(len(chain.quantities) > 1)
    everything = run(chain, seed, "float32", chain.quantities, 0, 2)
    alone = run(chain, seed, "float32", ("log_grad_norm",), 0, 2)
    np.testing.assert_array_equal(alone["log_grad_norm"], everything["log_grad_norm"])


@settings(max_examples=60, deadline=None)
@given(chains(PLAIN_FIELDS), SEEDS, st.sampled_from(["float32", "float64"]))
def test_directions_are_the_general_engine(chain, seed, dtype):
    """Of a plain chain, dead ones among them: to rounding, and dead at the same layers."""
    assert are_directions(chain, "deferred")
    plain = run(chain, seed, dtype, chain.quantities, 0, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu, "are_directions", lambda chain, method: False)
        general = run(chain, seed, dtype, chain.quantities, 0, 3)
    for name in chain.quantities:
        np.testing.assert_allclose(plain[name], general[name], rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def test_narrow_chains_die_at_the_same_layer_either_way(monkeypatch):
    chain = Chain(width=3, depth=12)
    plain = run(chain, 0, "float32", chain.quantities, 0, 200)
    monkeypatch.setattr(cpu, "are_directions", lambda chain, method: False)
    general = run(chain, 0, "float32", chain.quantities, 0, 200)
    dead = np.isneginf(plain["log_grad_norm"][:, 0])
    assert 0.1 < dead.mean() < 0.95
    for name in chain.quantities:
        np.testing.assert_array_equal(np.isneginf(plain[name]), np.isneginf(general[name]))


NOT_CHAOTIC = [
    {},
    {"init": "orthogonal"},
    {"activation": "tanh", "gain": 1.0, "init": "orthogonal", "profile": [30, 50, 20, 40]},
    {"activation": "gelu", "norm": "layer", "skip": 0.5, "dropout": 0.2},
    {"activation": "relu", "norm": "batch", "batch": 5},
    {"activation": "tanh", "gain": 1.0, "batch": 64},
    {"activation": "tanh", "gain": 1.0, "batch": 30, "profile": [30, 7, 50, 12, 40]},
    {"activation": "gelu", "norm": "batch", "batch": 64, "bias": 0.2, "skip": 0.5},
    {"activation": "erf", "gain": 0.8, "kind": "recurrent", "depth": 30, "init": "orthogonal", "probes": 3},
    {"activation": "linear", "gain": 0.9, "kind": "recurrent", "width": 12, "depth": 30},
    {"activation": "tanh", "gain": 0.9, "kind": "recurrent", "depth": 8, "bias": 0.1, "batch": 2},
    {"kind": "lstm", "depth": 5},
    {"kind": "gru", "depth": 5, "init": "orthogonal"},
]


@pytest.mark.parametrize("fields", NOT_CHAOTIC, ids=str)
def test_float32_is_float64_to_rounding(fields):
    chain = Chain(**({"width": 40, "depth": 6} if "profile" not in fields else {}) | fields)
    narrow, wide = (run(chain, 3, dtype, chain.quantities, 0, 8) for dtype in ("float32", "float64"))
    for name in chain.quantities:
        np.testing.assert_allclose(narrow[name], wide[name], rtol=0, atol=2e-4, err_msg=name)
        assert not np.array_equal(narrow[name], wide[name])  # they are two computations


def test_a_chain_that_converges_agrees_in_law_only():
    """Its queries fall below what float32 can tell from rounding long before what float64 can (docs/deferred.md)."""
    chain = Chain(activation="tanh", gain=0.8, bias=0.1, kind="recurrent", width=40, depth=30)
    narrow, wide, other = (
        run(chain, seed, dtype, chain.quantities, 0, 1500)
        for seed, dtype in ((3, "float32"), (3, "float64"), (4, "float64"))
    )
    assert np.abs(narrow["log_grad_norm"][:8] - wide["log_grad_norm"][:8]).max() > 1e-2
    outcomes = compare(narrow, other)
    assert min(outcome.p for outcome in outcomes) * len(outcomes) > 1e-4


EDGES = [
    {"width": 1, "depth": 4},
    {"width": 2, "depth": 6, "batch": 5},
    {"profile": [1, 4, 1, 2, 1]},
    {"profile": [2, 1, 3], "batch": 3},
    {"profile": [40, 2, 17, 1, 33], "probes": 1, "bias": 0.2},
    {"width": 5, "depth": 3, "gain": 0.0, "bias": 0.3, "activation": "tanh"},
    {"width": 1, "depth": 9, "kind": "recurrent", "activation": "leaky_relu", "negative_slope": -0.4},
    {"width": 2, "depth": 9, "kind": "recurrent", "activation": "erf", "probes": 2},
    {"width": 7, "depth": 20, "kind": "recurrent", "activation": "gelu", "bias": 0.3, "batch": 2},
    {"width": 1, "depth": 5, "kind": "lstm"},
    {"width": 3, "depth": 12, "kind": "gru", "gain": 1.5},
    {"width": 3, "depth": 8, "kind": "lstm", "gain": 1.5, "batch": 3, "output_gradient": "loss"},
]


@pytest.mark.parametrize("init", ["gaussian", "orthogonal"])
@pytest.mark.parametrize("fields", EDGES, ids=str)
def test_the_smallest_chains(fields, init):
    """Widths of one and two, matrices soon known in full, a gain of zero; several chains, one after another."""
    chain = Chain(**fields, init=init)
    found = run(chain, 4, "float64", chain.quantities, 0, 6)
    for index in range(6):
        with np.errstate(all="ignore"):
            exact = naive_deferred.simulate(chain, 4, index)
        of_chain = {name: values[index : index + 1] for name, values in found.items()}
        assert disagreement(of_chain, exact, TOLERANCE["float64"]) is None


@pytest.mark.parametrize("slope", [1e-25, 1e-7, -1e9, 1e19])
@pytest.mark.parametrize("width", [1, 4])
def test_slopes_that_leave_float32_squared_are_no_death(width, slope):
    chain = Chain(width=width, depth=6, activation="leaky_relu", negative_slope=slope)
    single, double = (run(chain, 0, dtype, chain.quantities, 0, 60) for dtype in ("float32", "float64"))
    for name, values in double.items():
        np.testing.assert_allclose(single[name], values, rtol=1e-3, atol=0.05)


@pytest.mark.parametrize(
    "fields",
    [
        {"profile": [6, 12, 9, 20, 7], "batch": 5},
        {"width": 33, "depth": 4, "activation": "tanh", "batch": 33, "norm": "layer"},
        {"width": 600, "depth": 3, "activation": "tanh", "batch": 7, "bias": 0.3, "dropout": 0.2},
        {"width": 16, "depth": 8, "batch": 8, "norm": "batch"},
        {"width": 16, "depth": 5, "activation": "gelu", "probes": 4},
    ],
)
def test_columns_asked_at_once_are_columns_asked_in_turn(monkeypatch, fields):
    """Gram matrices against one query after the other, in float32; control: at another gain they are not alike."""
    chain = Chain(gain=1.3, **fields)
    names = chain.quantities
    at_once = run(chain, 5, "float32", names, 0, 20)
    assert layout.asks_blocks(chain)
    monkeypatch.setattr(layout, "asks_blocks", lambda chain: False)
    in_turn = run(chain, 5, "float32", names, 0, 20)
    # Under "common" streams the other chain draws the same normals.
    other = Engine(chain.replace(gain=1.301), 5, "float32", names, "common", "deferred").run(0, 20)
    same = Engine(chain, 5, "float32", names, "common", "deferred").run(0, 20)
    for name in names:
        np.testing.assert_allclose(at_once[name], in_turn[name], atol=1e-4)
    apart = [np.nanmax(np.abs(same[name] - other[name])) for name in names if np.isfinite(same[name]).all()]
    assert max(apart) > 2e-4
