"""Whatever the fields of a plain chain: kernels give the reference's numbers, and the same bits however work is cut."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gradsim import Chain
from gradsim.errors import ExperimentError
from gradsim.vocabulary import GAIN_NAMES
from tests.kernels import compare, pairs


def log_uniform(low, high):
    """Numbers of any size between two."""
    return st.floats(np.log(low), np.log(high)).map(np.exp).map(float)


def names(field):
    return st.sampled_from(pairs.VALUES[field])


FIELDS = {
    "kind": names("kind"),
    "activation": names("activation"),
    "negative_slope": st.none() | st.floats(-2, 2),
    "init": names("init"),
    "gain": st.sampled_from(GAIN_NAMES) | st.just(0.0) | log_uniform(1e-3, 1e3),
    "bias": st.none() | st.just(0.0) | log_uniform(1e-3, 1e3),
    "input_scale": log_uniform(1e-3, 1e3),
    "input_noise": st.none() | log_uniform(1e-3, 1e3),
    "output_gradient": names("output_gradient"),
}
WIDTH = st.integers(1, 12) | st.sampled_from([16, 17, 33, 63, 64, 65])
SHAPES = st.fixed_dictionaries({"width": WIDTH, "depth": st.integers(1, 6)}) | st.fixed_dictionaries(
    {"profile": st.lists(WIDTH, min_size=2, max_size=6)}
)


@st.composite
def chains(draw):
    """Any chain of few layers whose fields go together."""
    fields = draw(st.fixed_dictionaries(FIELDS)) | draw(SHAPES)
    if fields["activation"] != "leaky_relu":
        del fields["negative_slope"]
    if fields["kind"] != "recurrent":
        del fields["input_noise"]
    try:
        return Chain(**fields)
    except ExperimentError:
        assume(False)


DTYPES = st.sampled_from(["float32", "float64"])
STREAMS = st.sampled_from(["independent", "common"])
SEEDS = st.integers(0, 2**64 - 1)
INDICES = st.integers(0, 2**32)
WANTED = st.sets(st.sampled_from(pairs.QUANTITIES), min_size=1).map(tuple)


@settings(max_examples=120)
@given(chains(), SEEDS, INDICES, DTYPES, STREAMS)
def test_a_kernel_gives_the_reference(chain, seed, index, dtype, streams):
    found = compare.run(chain, seed, index, 1, dtype, streams=streams)
    found = {name: values[0] for name, values in found.items()}
    bound = compare.bounds(chain, seed, index, dtype, streams)
    assume(compare.is_decided(bound))
    assert not compare.disagreements(found, chain, seed, index, dtype, streams, bound)


@settings(max_examples=60)
@given(chains(), SEEDS, INDICES, DTYPES, st.integers(1, 20_000), st.integers(1, 4), WANTED)
def test_how_the_work_is_cut_changes_no_bit(chain, seed, first, dtype, budget, cut, wanted):
    whole = compare.run(chain, seed, first, 5, dtype)
    pieces = [
        compare.run(chain, seed, first, cut, dtype, wanted, budget=budget),
        compare.run(chain, seed, first + cut, 5 - cut, dtype, wanted),
    ]
    for name in wanted:
        np.testing.assert_array_equal(np.concatenate([piece[name] for piece in pieces]), whole[name])
