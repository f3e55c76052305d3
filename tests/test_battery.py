"""The battery of statistical tests over the random streams; the long part is asked for by ``pytest -m battery``."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bench import battery, dieharder, streams
from bench.dieharder import PValue, Run
from gradsim.kernels import keys
from gradsim.kernels.reference import stream_key, threefry4x32

WIDTH, DEPTH, SEED, FIRST = 8, 3, 4, 5
RESULTS = battery.RESULTS / "battery.json"


def matrix(key, width=WIDTH, rounds=13):
    """The word behind each weight of a square matrix, by the reference."""
    column, group = np.meshgrid(np.arange(width, dtype=np.uint32), np.arange(width // 4, dtype=np.uint32))
    zero = np.zeros_like(column)
    return np.concatenate(list(threefry4x32(key[:, :, np.newaxis], np.stack([column, group, zero, zero]), rounds)))


def matrices(chains, layers):
    """Matrices of chains x layers, shape (chains, layers, WIDTH, WIDTH)."""
    cell = keys.cell_key(SEED, "battery")
    return np.array([[matrix(stream_key(cell, c, layer, keys.WEIGHT)) for layer in layers] for c in chains])


def taken(order, count, variant=streams.AS_USED):
    """The first words in an order."""
    source = streams.words(order, SEED, FIRST, variant, WIDTH, DEPTH)
    found = np.empty(0, np.uint32)
    while len(found) < count:
        found = np.concatenate([found, next(source)])
    return found[:count]


def blockwise(weights):
    """Reorder (..., rows, columns): group of rows, column, word of the block."""
    shape = (*weights.shape[:-2], 4, weights.shape[-2] // 4, weights.shape[-1])
    return np.moveaxis(weights.reshape(shape), -3, -1)


LAYERS = range(1, DEPTH + 1)


@pytest.mark.parametrize(
    ("order", "arrange"),
    [
        (streams.ROWS, lambda: matrices([FIRST, FIRST + 1], LAYERS)),
        (streams.COLUMNS, lambda: matrices([FIRST, FIRST + 1], LAYERS).swapaxes(-1, -2)),
        (streams.BLOCKS, lambda: blockwise(matrices([FIRST, FIRST + 1], LAYERS))),
        (streams.LAYERS, lambda: np.moveaxis(blockwise(matrices([FIRST, FIRST + 1], LAYERS)), 1, -1)),
        (
            streams.CHAINS,
            lambda: np.moveaxis(blockwise(matrices(range(FIRST, FIRST + DEPTH), LAYERS)), 0, -1),
        ),
    ],
)
def test_orders_are_those_of_the_kernels(order, arrange):
    expected = arrange().ravel()
    np.testing.assert_array_equal(taken(order, len(expected)), expected)


def test_chains_go_on_with_the_next_ones():
    whole = WIDTH * WIDTH * DEPTH * DEPTH
    later = matrices(range(FIRST + DEPTH, FIRST + 2 * DEPTH), [1])
    expected = np.moveaxis(blockwise(later), 0, -1).ravel()
    np.testing.assert_array_equal(taken(streams.CHAINS, whole + len(expected))[whole:], expected)


def test_six_rounds_are_six():
    cell = np.array(keys.cell_key(SEED, "battery"), np.uint32).reshape(4, 1)
    counter = np.array([[FIRST], [0], [1], [keys.WEIGHT]], np.uint32)
    expected = matrix(threefry4x32(cell, counter, 6), rounds=6).ravel()
    np.testing.assert_array_equal(taken(streams.ROWS, len(expected), streams.SIX_ROUNDS), expected)
    first = threefry4x32(cell, np.array([[0], [0], [1], [FIRST]], np.uint32), 6)[:, 0]
    found = taken(streams.BLOCKS, 4, streams.SIX_ROUNDS_IN_ALL)
    np.testing.assert_array_equal(found, first)


def test_constant_words_repeat():
    weights = matrices([FIRST], [1])[0, 0].ravel()
    np.testing.assert_array_equal(
        taken(streams.ROWS, DEPTH * len(weights), streams.CONSTANT_LAYER), np.tile(weights, DEPTH)
    )
    across = taken(streams.CHAINS, 60, streams.CONSTANT_CHAIN).reshape(-1, DEPTH)
    np.testing.assert_array_equal(across, across[:, :1].repeat(DEPTH, axis=1))


TABLE = """
#=============================================================================#
        test_name   |ntup| tsamples |psamples|  p-value |Assessment
#=============================================================================#
        diehard_runs|   0|    100000|     100|0.99991571|   WEAK
        diehard_runs|   0|    100000|     100|0.58016029|  PASSED
"""


def test_dieharders_table_is_read():
    body = "\n".join(line for line in TABLE.splitlines() if "p-value" not in line)
    assert dieharder.parse(body) == [
        PValue("diehard_runs", 0, 100000, 100, 0.99991571, "WEAK"),
        PValue("diehard_runs", 0, 100000, 100, 0.58016029, "PASSED"),
    ]


def runs(*p):
    """One run with these p-values."""
    return [Run(0, (), 0, 0.0, [PValue("name", 0, 1, 1, value, "") for value in p])]


def test_verdict_is_family_wise_and_two_sided():
    fine = np.random.default_rng(0).random(500)
    assert battery.verdict(runs(*fine)).passed
    assert not battery.verdict(runs(*fine, 1e-6)).passed
    assert not battery.verdict(runs(*fine, 1 - 1e-6)).passed
    assert battery.verdict(runs(1e-2)).passed and not battery.verdict(runs(4e-3)).passed


def test_committed_results_are_what_was_asked_for():
    """Ten tests and 2 GB of each order, all passed; every control caught."""
    results = json.loads(RESULTS.read_text())
    assert results["stream_version"] == keys.STREAM_VERSION
    assert results["passed"]
    assert {*streams.ORDERS, battery.UNRELATED} == set(results["orders"])
    for order in results["orders"].values():
        assert order["tests"] >= 10
        assert order["bytes"] >= battery.LEAST_BYTES
        assert order["passed"]
    expected = [(order, variant.name) for order, variant in battery.CONTROLS]
    assert [(control["order"], control["variant"]) for control in results["controls"]] == expected
    assert all(control["caught"] for control in results["controls"])


@pytest.mark.battery
@pytest.mark.parametrize("order", [*streams.ORDERS, battery.UNRELATED])
def test_order_passes(order):
    found = list(battery.run_order(order))
    assert len({run.test for run in found}) >= 10
    assert sum(run.read for run in found) >= battery.LEAST_BYTES
    assert battery.verdict(found).passed, "\n".join(battery.rows(found, order))


@pytest.mark.battery
@pytest.mark.parametrize(("order", "variant"), battery.CONTROLS, ids=lambda value: getattr(value, "name", value))
def test_control_fails(order, variant):
    assert battery.caught(list(battery.run_control(order, variant)))
