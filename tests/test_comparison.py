"""`compare`: its document, its size, its power, and wrong laws that it must reject."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from gradsim.chain import Chain
from gradsim.comparison import compare
from gradsim.rounding import rounding_tolerance, stored_spacing
from gradsim.theory.registry import find
from tests.brute import simulate
from tests.cells import StandIn, draw

LINEAR = Chain(activation="linear", width=16, depth=50, gain=1.0)
RELU = Chain(activation="relu", width=16, depth=50)
DEADLY = Chain(activation="relu", profile=[6, 3, 8, 4, 5])


def cell(chain, chains=2000, seed=0, **fields):
    return StandIn(chain, draw(chain, chains, np.random.default_rng(seed)), **fields)


def by_statistic(comparison, index=0):
    return {test.statistic: test for test in comparison.cells[index].tests}


@pytest.mark.parametrize("chain", [LINEAR, RELU, DEADLY], ids=["linear", "relu", "deadly"])
def test_true_law_agrees(chain):
    comparison = compare([cell(chain)])
    assert comparison.verdict == "agree"
    tests = by_statistic(comparison)
    assert set(tests) == {"mean", "variance", "ks", "deaths", "increments"}
    assert all(test.verdict == "agree" for test in tests.values())
    assert all(test.validity == "exact" and test.source for test in tests.values())


def test_document():
    document = compare([cell(LINEAR), cell(DEADLY)], alpha=0.05).to_dict()
    json.dumps(document, allow_nan=False)
    assert set(document) == {"file", "alpha", "verdict", "claim", "cells"}
    assert document["file"] is None
    assert document["claim"] is None
    assert document["alpha"] == 0.05
    first, second = document["cells"]
    fields = ["cell", "chain", "chains", "alive", "p_dead", "detectable_gain_error", "rate", "tests", "overflow"]
    assert list(first) == fields
    assert (first["cell"], second["cell"]) == (0, 1)
    assert first["chain"] == LINEAR.fields()
    assert (first["chains"], first["alive"], first["p_dead"]) == (2000, 2000, 0.0)
    assert second["alive"] < 2000
    assert second["p_dead"] == pytest.approx(1 - (1 - 1 / 8) * (1 - 1 / 256) * (1 - 1 / 16) * (1 - 1 / 32))
    columns = [
        "quantity",
        "layer",
        "statistic",
        "theory",
        "empirical",
        "standard_error",
        "z",
        "p",
        "p_adjusted",
    ]
    assert all(list(test) == [*columns, "n", "validity", "source", "verdict"] for test in first["tests"])
    assert [test["layer"] for test in first["tests"]] == [0, 0, 0, 0, None]
    ks = first["tests"][2]
    assert ks["theory"] is None
    assert ks["z"] is None
    assert 0 < ks["empirical"] < 0.05


def test_p_values_are_adjusted_over_the_file():
    one, both = compare([cell(LINEAR)]), compare([cell(LINEAR), cell(RELU, seed=1)])
    raw = sorted(test.p for c in both.cells for test in c.tests if not math.isnan(test.p))
    smallest = min((test for c in both.cells for test in c.tests if not math.isnan(test.p)), key=lambda t: t.p)
    assert smallest.p_adjusted == pytest.approx(min(1.0, raw[0] * len(raw)))
    assert by_statistic(one)["mean"].p == by_statistic(both)["mean"].p
    assert by_statistic(one)["mean"].p_adjusted <= by_statistic(both)["mean"].p_adjusted


def test_dataframe():
    frame = compare([cell(LINEAR), cell(DEADLY)]).to_dataframe()
    assert len(frame) == 10
    assert list(frame["cell"].unique()) == [0, 1]
    assert frame.loc[0, "chain_activation"] == "linear"
    assert frame.loc[0, "statistic"] == "mean"


@pytest.mark.parametrize("chain", [LINEAR, RELU], ids=["linear", "relu"])
def test_gain_off_by_one_percent_is_rejected(chain):
    wrong = chain.replace(gain=1.01 * float(chain.gains[0]))
    comparison = compare([StandIn(chain, draw(wrong, 4096, np.random.default_rng(0)))])
    assert comparison.verdict == "disagree"
    assert by_statistic(comparison)["mean"].verdict == "disagree"
    assert compare([cell(chain, 4096)]).cells[0].detectable_gain_error < 0.01


@pytest.mark.parametrize("chain", [LINEAR, RELU], ids=["linear", "relu"])
def test_theory_for_the_wrong_width_is_rejected(chain):
    comparison = compare([cell(chain)], laws=lambda given: find(given.replace(width=17)))
    assert comparison.verdict == "disagree"
    assert by_statistic(comparison)["increments"].verdict == "disagree"


@pytest.mark.parametrize("chain", [LINEAR, RELU], ids=["linear", "relu"])
def test_one_matrix_repeated_in_every_layer_is_rejected(chain):
    assert (chain.width, chain.depth) == (16, 50)
    repeated = simulate(chain.replace(kind="recurrent"), 1000, seed=0)
    tests = by_statistic(compare([StandIn(chain, repeated)]))
    assert tests["mean"].verdict == "disagree"
    assert tests["variance"].verdict == "disagree"
    assert tests["increments"].verdict == "disagree"


def test_missing_and_surplus_deaths_are_rejected():
    logs = draw(DEADLY, 2000, np.random.default_rng(0))
    alive = logs[np.isfinite(logs[:, 0])]
    assert by_statistic(compare([StandIn(DEADLY, alive)]))["deaths"].verdict == "disagree"
    linear = draw(LINEAR, 500, np.random.default_rng(0))
    linear[3] = -np.inf
    assert by_statistic(compare([StandIn(LINEAR, linear)]))["deaths"].verdict == "disagree"


def test_gradients_that_are_not_numbers_are_rejected():
    logs = draw(LINEAR, 500, np.random.default_rng(0))
    logs[7, :10] = np.nan
    tests = by_statistic(compare([StandIn(LINEAR, logs)]))
    assert tests["deaths"].verdict == "disagree"
    assert tests["mean"].n == 499


def test_size():
    """At level 0.2 the rate of false rejections lies in 0.2 +- 0.06 less Holm's and the discrete tests'
    slack, at 0.05 below 0.05 + 4 standard errors; 400 files of three cells each."""
    rng = np.random.default_rng(11)
    chains = [
        (Chain(activation="linear", width=2, depth=3, gain=1.0), 60),
        (Chain(width=8, depth=6), 100),
        (Chain(activation="linear", width=32, depth=10, gain=1.0), 300),
    ]
    smallest = []
    for _ in range(400):
        comparison = compare([StandIn(chain, draw(chain, n, rng)) for chain, n in chains])
        smallest.append(min(test.p_adjusted for c in comparison.cells for test in c.tests if test.p_adjusted >= 0))
    rejected = np.array(smallest)
    assert 0.08 < np.mean(rejected <= 0.2) < 0.26
    assert np.mean(rejected <= 0.05) < 0.05 + 4 * math.sqrt(0.05 * 0.95 / 400)


def test_detectable_gain_error_is_found_with_power_nine_tenths():
    chain = Chain(activation="linear", width=16, depth=10, gain=1.0)
    rng = np.random.default_rng(2)
    error = compare([StandIn(chain, draw(chain, 500, rng))]).cells[0].detectable_gain_error
    wrong = chain.replace(gain=1.0 + error)
    found = [by_statistic(compare([StandIn(chain, draw(wrong, 500, rng))]))["mean"].verdict for _ in range(300)]
    assert found.count("disagree") / 300 == pytest.approx(0.9, abs=0.07)


@pytest.mark.parametrize("fields", [{"norm": "rms"}, {"skip": 1.0}, {"clip": 1.0}], ids=str)
def test_no_gain_error_is_stated_where_the_gradient_does_not_follow_the_gain(fields):
    chain = Chain(activation="linear", width=16, depth=10, gain=1.0, **fields)
    comparison = compare([StandIn(chain, simulate(chain, 400, 0))])
    assert comparison.verdict == "agree"
    assert comparison.to_dict()["cells"][0]["detectable_gain_error"] is None


def test_spread_below_that_of_stored_numbers_is_none():
    chain = Chain(activation="linear", width=16, depth=10, gain=1.0, skip=1e-8, carry=0.9)
    assert 0 < find(chain).var[0] < 1e-14
    logs = simulate(chain, 200, 0).astype(np.float32)
    agreed = compare([StandIn(chain, logs)])
    assert {t.statistic: t.verdict for t in agreed.cells[0].tests} == dict.fromkeys(
        ["mean", "variance", "deaths"], "agree"
    )
    assert compare([StandIn(chain, logs)], laws=lambda c: find(c.replace(carry=0.901))).verdict == "disagree"


def test_law_without_spread_is_held_to_rounding():
    chain = Chain(activation="linear", width=64, depth=100, init="orthogonal", gain=1.1)
    law = find(chain)
    tolerance = rounding_tolerance(chain, "float32", law.mean)
    true = np.tile(law.mean, (50, 1))
    agreed = compare([StandIn(chain, true + 0.5 * tolerance * np.sin(np.arange(50))[:, None])])
    assert agreed.verdict == "agree"
    assert {t.statistic: t.verdict for t in agreed.cells[0].tests} == dict.fromkeys(
        ["mean", "variance", "deaths"], "agree"
    )
    assert 0 < agreed.cells[0].detectable_gain_error < 1e-4
    layer = true.copy()
    layer[7, 40] += 3 * tolerance[40]
    assert compare([StandIn(chain, layer)]).verdict == "disagree"
    steps = np.arange(100, -1, -1)
    wrong = true + steps * math.log1p(agreed.cells[0].detectable_gain_error)
    assert compare([StandIn(chain, wrong)]).verdict == "disagree"


def test_rounding_tolerance_covers_float32_arithmetic():
    chain = Chain(activation="linear", width=48, depth=60, init="orthogonal", gain=1.3)
    rng = np.random.default_rng(0)
    deviations = []
    for _ in range(5):
        g = rng.standard_normal(48).astype(np.float32)
        g /= np.linalg.norm(g)
        for _ in range(60):
            q = np.linalg.qr(rng.standard_normal((48, 48)).astype(np.float32))[0]
            g = np.float32(1.3) * (q.T @ g)
        deviations.append(math.log(np.linalg.norm(g.astype(np.float64))) - 60 * math.log(1.3))
    tolerance = rounding_tolerance(chain, "float32", find(chain).mean)[0]
    assert max(map(abs, deviations)) < tolerance < 60 * 1e-4


def test_stored_spacing_is_that_of_float32():
    assert stored_spacing(np.array([1.0, -1000.0])).tolist() == [2.0**-23, 2.0**-14]


def test_summary_mode_takes_mean_and_variance_from_all_chains():
    logs = draw(LINEAR, 3000, np.random.default_rng(0))
    tests = by_statistic(compare([StandIn(LINEAR, logs, keep=400)]))
    assert tests["mean"].n == tests["variance"].n == tests["deaths"].n == 3000
    assert tests["ks"].n == 400
    assert tests["increments"].n == 400 * 25


def test_chain_without_a_law_is_described():
    chain = Chain(kind="recurrent", width=8, depth=5, output_gradient="loss")
    comparison = compare([StandIn(chain, simulate(chain, 200, 0))])
    assert comparison.verdict == "no exact law"
    (only,) = comparison.to_dict()["cells"]
    assert only["p_dead"] is None
    assert only["detectable_gain_error"] is None
    assert all(test["verdict"] is None and test["theory"] is None for test in only["tests"])
    assert only["tests"][0]["empirical"] is not None


def test_recurrent_second_moment_is_described_beside_the_exact_one():
    chain = Chain(kind="recurrent", activation="linear", width=16, depth=3, gain=1.0)
    comparison = compare([StandIn(chain, simulate(chain, 5000, 0))])
    assert comparison.verdict == "no exact law"
    row = comparison.cells[0].tests[-1]
    assert (row.quantity, row.statistic, row.verdict) == ("squared_grad_norm", "mean", None)
    assert row.theory == pytest.approx(1 + 10 / 256 + 4 / 4096)
    assert row.empirical == pytest.approx(row.theory, abs=5 * row.standard_error)


@pytest.mark.parametrize(
    ("fields", "rows"),
    [
        ({"activation": "tanh", "width": 64, "depth": 5, "gain": 1.5}, {"mean"}),
        (
            {"activation": "linear", "init": "uniform", "width": 16, "depth": 5, "gain": 1.0},
            {"mean", "variance"},
        ),
        ({"init": "rademacher", "width": 3, "depth": 5}, {"mean", "variance", "deaths"}),
    ],
    ids=["mean field", "leading order", "with deaths"],
)
def test_approximate_laws_are_never_rejected(fields, rows):
    chain = Chain(**fields)
    comparison = compare([StandIn(chain, simulate(chain, 300, 0) + 1.0)])
    assert comparison.verdict == "no exact law"
    tests = comparison.cells[0].tests
    assert {test.statistic for test in tests if test.verdict == "approximate"} == rows
    assert all(math.isnan(test.p) for test in tests)
    assert all(not math.isnan(test.z) for test in tests if test.verdict)


@pytest.mark.parametrize("chain", [LINEAR, DEADLY], ids=["linear", "deadly"])
@pytest.mark.parametrize("chains", [1, 2, 3])
def test_few_chains(chain, chains):
    json.dumps(compare([cell(chain, chains, seed=3)]).to_dict(), allow_nan=False)


def test_all_chains_dead():
    logs = np.full((20, DEADLY.depth + 1), -np.inf)
    logs[:, -1] = 0.0
    comparison = compare([StandIn(DEADLY, logs)])
    tests = by_statistic(comparison)
    assert tests["deaths"].verdict == "disagree"
    assert all(tests[name].verdict is None for name in ("mean", "variance", "ks", "increments"))
    assert comparison.cells[0].alive == 0
    json.dumps(comparison.to_dict(), allow_nan=False)


def test_sample_without_spread_is_rejected():
    tests = by_statistic(compare([StandIn(LINEAR, np.tile(find(LINEAR).mean, (50, 1)))]))
    assert tests["variance"].verdict == "disagree"
    assert tests["ks"].verdict == "disagree"


def test_quantity_that_was_not_recorded():
    unrecorded = cell(LINEAR, 10)
    unrecorded.quantities, unrecorded.summary = (), {}
    comparison = compare([unrecorded])
    assert comparison.verdict == "no exact law"
    assert comparison.cells[0].tests == ()


def test_a_single_cell_is_taken():
    assert compare(cell(LINEAR, 100)).cells[0].chains == 100


def test_repr_is_a_few_short_lines():
    comparison = compare([cell(LINEAR), cell(DEADLY, seed=1)] * 6)
    lines = repr(comparison).splitlines()
    assert lines[0] == "Comparison('agree', alpha=0.01, cells=12)"
    assert "cell 0: kind=feedforward, activation=linear, width=16, depth=50: 5 agree; 2000 of 2000" in lines[1]
    assert lines[-1] == "  ... and 7 more cells"
    assert len(lines) == 7 and max(map(len, lines)) < 160
    wrong = compare([cell(LINEAR)], laws=lambda chain: find(chain.replace(gain=1.2)))
    assert "disagree (mean" in repr(wrong)
    wide = compare([StandIn(Chain(profile=[3] * 2000), np.zeros((3, 2000)))])
    assert max(map(len, repr(wide).splitlines())) < 160
