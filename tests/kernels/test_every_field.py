"""Whatever the fields: the engine gives the reference's numbers, and the same bits however the work is cut."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from gradsim import Chain
from gradsim.errors import ExperimentError
from gradsim.kernels import reference
from gradsim.kernels.cpu import Engine
from gradsim.vocabulary import CHAIN_FIELDS

#: Of float64 chains of few layers, rounded to float32 at the end: logarithms of this size and less.
TOLERANCE = {"float64": 2e-5, "float32": 5e-3}


def names(field):
    return st.sampled_from(CHAIN_FIELDS[field].supported)


def sometimes(values):
    """A value, or the field's default, which is to be left out."""
    return st.none() | values


FIELDS = {
    "kind": st.sampled_from(["feedforward", "recurrent"]),
    "activation": names("activation"),
    "init": names("init"),
    "gain": st.sampled_from(["he", "torch", "glorot"]) | st.floats(0.3, 2.0),
    "bias": sometimes(st.floats(0.05, 1.0)),
    "input_noise": sometimes(st.floats(0.05, 1.0)),
    "input_scale": sometimes(st.floats(0.3, 3.0)),
    "skip": sometimes(st.sampled_from(["rsqrt-depth", "inv-depth"]) | st.floats(0.1, 1.0)),
    "carry": sometimes(st.floats(0.2, 1.2)),
    "norm": sometimes(st.sampled_from(["batch", "layer", "rms"])),
    "norm_position": sometimes(st.sampled_from(["before", "after", "pre", "post"])),
    "norm_eps": sometimes(st.floats(1e-6, 0.5)),
    "batch": sometimes(st.integers(2, 7)),
    "dropout": sometimes(st.floats(0.05, 0.5)),
    "clip": sometimes(st.floats(0.05, 2.0)),
    "clip_value": sometimes(st.floats(0.01, 0.5)),
    "probes": sometimes(st.integers(2, 4)),
    "output_gradient": sometimes(st.sampled_from(["ones", "loss"])),
}
WIDTH = st.integers(3, 12) | st.sampled_from([16, 33, 64, 70])
SHAPES = st.fixed_dictionaries({"width": WIDTH, "depth": st.integers(1, 5)}) | st.fixed_dictionaries(
    {"profile": st.lists(WIDTH, min_size=2, max_size=6)}
)
SEEDS = st.integers(0, 2**64 - 1)


@st.composite
def chains(draw):
    """Any chain of few layers; of fields that exclude each other, those written first stay."""
    chosen = draw(SHAPES)
    for name in draw(st.permutations(list(FIELDS))):
        value = draw(FIELDS[name])
        if value is None:
            continue
        try:
            Chain(**chosen, **{name: value})
        except ExperimentError:
            continue
        chosen[name] = value
    return Chain(**chosen)


def engine(chain, seed, dtype, quantities):
    return Engine(chain, seed, dtype, quantities)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(chains(), SEEDS, st.integers(0, 2**32 - 1))
def test_the_engine_gives_the_reference(chain, seed, index):
    quantities = chain.quantities
    with np.errstate(all="ignore"):
        exact = reference.simulate_chain(chain, seed, index)
    found = engine(chain, seed, "float64", quantities).run(index, 1)
    for name in quantities:
        expected, got = np.asarray(exact[name]), found[name][0].astype(float)
        assert got.shape == expected.shape
        alike = (got == expected) | (np.isnan(got) & np.isnan(expected))
        with np.errstate(invalid="ignore"):
            near = np.abs(got - expected) <= TOLERANCE["float64"] * np.maximum(1.0, np.abs(expected))
        assert (alike | near).all(), (name, got, expected)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(chains(), SEEDS, st.integers(0, 2**20), st.sampled_from(["float32", "float64"]), st.integers(1, 20_000))
def test_how_the_work_is_cut_changes_no_bit(chain, seed, first, dtype, budget):
    quantities = chain.quantities
    whole = engine(chain, seed, dtype, quantities).run(first, 4)
    pieces = [engine(chain, seed, dtype, quantities).run(first, 1), None]
    pieces[1] = engine(chain, seed, dtype, quantities).run(first + 1, 3, budget=budget)
    for name in quantities:
        np.testing.assert_array_equal(np.concatenate([piece[name] for piece in pieces]), whole[name])


@settings(max_examples=30, deadline=None)
@given(chains(), SEEDS)
def test_what_is_recorded_changes_nothing(chain, seed):
    assume(len(chain.quantities) > 1)
    everything = engine(chain, seed, "float32", chain.quantities).run(0, 2)
    alone = engine(chain, seed, "float32", ("log_grad_norm",)).run(0, 2)
    np.testing.assert_array_equal(alone["log_grad_norm"], everything["log_grad_norm"])
