"""A chain's bits depend on its seed, fields, dtype and index, and on nothing else."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from gradsim import Chain
from gradsim.kernels.cpu import Engine
from tests.kernels import compare, golden_norms

# One for each way in which a matrix can act, narrow and wide, with and without what a chain can add.
CHAINS = {
    "narrow": {"width": 9, "depth": 5, "bias": 0.3},
    "wide": {"width": 70, "depth": 3},
    "uniform": {"width": 65, "depth": 2, "init": "uniform", "activation": "leaky_relu"},
    "signs": {"profile": [17, 90, 19, 66], "init": "rademacher", "gain": "xavier"},
    "orthogonal": {"profile": [5, 33, 12, 12], "init": "orthogonal", "activation": "tanh"},
    "identity": {"width": 12, "depth": 6, "init": "identity", "activation": "leaky_relu", "gain": 1.1},
    "recurrent": {"kind": "recurrent", "width": 33, "depth": 20, "input_noise": 0.1, "activation": "tanh"},
    "recurrent orthogonal": {"kind": "recurrent", "width": 18, "depth": 17, "init": "orthogonal"},
    "dying": {"width": 2, "depth": 9},
}
every_chain = pytest.mark.parametrize("fields", CHAINS.values(), ids=CHAINS)
both_dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


def assert_same_bits(found, expected):
    assert set(found) <= set(expected)
    for name, values in found.items():
        np.testing.assert_array_equal(values.view(np.uint32), expected[name].view(np.uint32), err_msg=name)


def joined(parts):
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@both_dtypes
@every_chain
def test_budget_and_pieces_change_no_bit(fields, dtype):
    chain = Chain(**fields)
    whole = compare.run(chain, 4, 0, 9, dtype)
    for budget in (1, 1_000, 30_000, 10**15):
        assert_same_bits(compare.run(chain, 4, 0, 9, dtype, budget=budget), whole)
    for cuts in ([0, 1, 2, 9], [0, 5, 9], range(10)):
        parts = [compare.run(chain, 4, first, last - first, dtype) for first, last in pairwise(cuts)]
        assert_same_bits(joined(parts), whole)


@both_dtypes
@every_chain
def test_order_and_repetition_change_no_bit(fields, dtype):
    engine = Engine(Chain(**fields), 4, dtype, Chain(**fields).quantities)
    whole = engine.run(0, 6)
    parts = {index: engine.run(index, 1) for index in (5, 0, 3, 1, 4, 2, 0, 5)}
    assert_same_bits(joined([parts[index] for index in range(6)]), whole)


@both_dtypes
@every_chain
def test_what_is_recorded_changes_no_bit(fields, dtype):
    """Also where a linear chain then needs no forward pass."""
    for activation in ("linear", fields.get("activation", "relu")):
        chain = Chain(**{**fields, "activation": activation})
        whole = compare.run(chain, 4, 0, 4, dtype)
        for name in chain.quantities:
            assert_same_bits(compare.run(chain, 4, 0, 4, dtype, (name,)), whole)


@every_chain
def test_dtypes_draw_the_same_numbers(fields):
    """To rounding, since the random integers are the same."""
    chain = Chain(**fields)
    single, double = (compare.run(chain, 4, 0, 3, dtype) for dtype in ("float32", "float64"))
    for name in chain.quantities:
        np.testing.assert_allclose(single[name], double[name], atol=2e-4)


@every_chain
def test_seeds_fields_and_indices_name_streams_of_their_own(fields):
    chain = Chain(**fields)
    runs = [
        compare.run(chain, 4, 0, 1),
        compare.run(chain, 5, 0, 1),
        compare.run(chain, 4, 1, 1),
        compare.run(chain, 4, 2**32, 1),
        compare.run(chain.replace(input_scale=1.5), 4, 0, 1),
        compare.run(chain, 4, 0, 1, streams="common"),
    ]
    sizes = [run["log_activation_norm"][0, 0] for run in runs]
    sizes[4] -= np.float32(np.log(1.5))
    distances = np.abs(np.subtract.outer(sizes, sizes)) + np.eye(len(sizes))
    assert distances.min() > 1e-6


def test_a_name_is_a_stream_and_its_alias_the_same():
    he, kaiming, number = (compare.run(Chain(width=8, depth=2, gain=gain)) for gain in ("he", "kaiming", np.sqrt(2)))
    assert_same_bits(kaiming, he)
    assert not np.array_equal(number["log_grad_norm"], he["log_grad_norm"])


@both_dtypes
@every_chain
def test_common_streams_draw_the_same_weights_for_every_gain(fields, dtype):
    """A gain four times as large shifts ln||g_l|| by L - l steps of ln 4, bias and saturation apart."""
    fields = {**fields, "activation": "leaky_relu", "bias": 0.0}
    fields.pop("input_noise", None)
    chains = [Chain(**{**fields, "gain": gain}) for gain in (0.6, 2.4)]
    common = [compare.run(chain, 4, 0, 5, dtype, streams="common")["log_grad_norm"] for chain in chains]
    apart = [compare.run(chain, 4, 0, 5, dtype)["log_grad_norm"] for chain in chains]
    depth = chains[0].depth
    expected = np.log(4) * np.arange(depth, -1, -1)
    np.testing.assert_allclose(common[1] - common[0], np.tile(expected, (5, 1)), atol=1e-5)
    if fields.get("init") not in ("identity", "orthogonal"):
        assert not np.allclose(apart[1] - apart[0], expected, atol=1e-3)


def golden():
    return json.loads((Path(__file__).parent / "golden_norms.json").read_text())


@pytest.mark.parametrize("row", golden(), ids=lambda row: str(row["chain"]))
def test_golden_numbers(row):
    """The reference gives the numbers of the file to 1e-9; the kernel to rounding of what it records."""
    case = (row["chain"], row["seed"], row["index"], row["streams"])
    again = golden_norms.numbers(*case)
    chain = Chain(**row["chain"])
    found = compare.run(chain, row["seed"], row["index"], quantities=chain.quantities, streams=row["streams"])
    assert set(row["numbers"]) == set(found) == set(again)
    for name in chain.quantities:
        expected = np.array(row["numbers"][name])
        np.testing.assert_allclose(again[name], expected, rtol=0, atol=1e-9)
        np.testing.assert_allclose(found[name][0], expected, rtol=2.0**-23, atol=1e-9)


def test_golden_numbers_are_of_the_cases_listed():
    listed = [list(case) for case in golden_norms.CASES]
    assert [[row[key] for key in ("chain", "seed", "index", "streams")] for row in golden()] == listed
