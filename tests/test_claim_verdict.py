"""How a claim is judged: verdicts, error rates and what a reader is shown."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from gradsim.chain import Chain
from gradsim.claim_verdict import judge
from gradsim.commands.claim_views import claim_text
from gradsim.comparison import compare
from gradsim.documents import json_ready
from gradsim.experiment import Experiment
from gradsim.results import Cell
from gradsim.rounding import rounding_tolerance
from gradsim.runner import simulate

DEPTH = 4


def experiment(*expect: dict[str, Any], gains: tuple[float, ...] = (1.0,)) -> Experiment:
    filled = [{"quantity": "log_grad_norm", "layer": 0, "op": "<", "value": 0.0} | given for given in expect]
    return Experiment(chain={"width": 4, "depth": DEPTH, "gain": list(gains)}, claim="It is so", expect=filled)


def cell_of(logs: np.ndarray, chain: Chain | None = None) -> Cell:
    chain = Chain(width=4, depth=DEPTH, gain=1.0) if chain is None else chain
    return Cell(chain, {"log_grad_norm": np.asarray(logs, dtype=np.float32)})


def walk(mean: float, spread: float, chains: int = 400, seed: int = 0) -> np.ndarray:
    """Trajectories from 0 at the top; every layer going backward adds N(mean, spread^2)."""
    steps = np.random.default_rng(seed).normal(mean, spread, (chains, DEPTH))
    return np.concatenate([steps.cumsum(axis=1)[:, ::-1], np.zeros((chains, 1))], axis=1)


def verdict_of(given: Experiment, *cells: Cell, alpha: float = 0.01) -> Any:
    assert given.claim is not None
    return judge(given.claim, cells, alpha)


@pytest.mark.parametrize(
    ("expect", "verdict"),
    [
        ({"op": "<", "value": 1.0}, "held"),
        ({"op": ">", "value": 1.0}, "not held"),
        ({"op": ">", "value": 0.0}, "held"),
        ({"op": "<", "value": 0.0}, "not held"),
        ({"op": "within", "value": [0.0, 1.0]}, "held"),
        ({"op": "within", "value": [1.0, 2.0]}, "not held"),
        ({"op": "within", "value": [-2.0, 0.0]}, "not held"),
        ({"op": "<", "value": 0.42}, "undecided"),
        ({"op": ">", "value": 0.4}, "undecided"),
        ({"op": "within", "value": [0.4, 1.0]}, "undecided"),
        ({"layer": "rate", "op": "within", "value": [0.08, 0.12]}, "held"),
        ({"layer": "rate", "op": ">", "value": 0.2}, "not held"),
        ({"layer": DEPTH, "op": "within", "value": [-1e-6, 1e-6]}, "held"),
        ({"layer": "all", "op": ">", "value": -0.1}, "held"),
        ({"layer": "all", "op": "<", "value": 0.2}, "not held"),
    ],
)
def test_verdicts(expect: dict[str, Any], verdict: str) -> None:
    # Mean 0.4 at the input with a standard error of 0.01: the nearest bounds that are decided lie 40 of them away.
    found = verdict_of(experiment(expect), cell_of(walk(0.1, 0.1)))
    assert found.verdict == verdict
    assert found.held is {"held": True, "not held": False, "undecided": None}[verdict]


def test_what_is_reported_is_the_students_interval_of_the_worst_place() -> None:
    logs = walk(0.1, 0.1)
    (found,) = verdict_of(experiment({"layer": "all", "op": "<", "value": 1.0}), cell_of(logs)).expectations
    values = logs[:, 0].astype(np.float32).astype(float)
    error = values.std(ddof=1) / math.sqrt(len(values))
    assert (found.cell, found.at, found.n, found.lost, found.intervals) == (0, 0, 400, 0, DEPTH + 1)
    assert found.estimate == pytest.approx(values.mean(), rel=1e-12)
    assert found.standard_error == pytest.approx(error, rel=1e-9)
    # Student's t with 399 degrees of freedom at 1 - 0.001/2, alpha = 0.005 over five layers: 3.3150770 (mpmath).
    (found,) = verdict_of(experiment({"layer": "all", "value": 1.0}), cell_of(logs), alpha=0.005).expectations
    rounding = rounding_tolerance(Chain(width=4, depth=DEPTH), "float32", np.array([values.mean()] * (DEPTH + 1)))[0]
    assert (found.high - found.low) / 2 == pytest.approx(3.3150770 * error + rounding, rel=1e-7)
    assert found.margin == pytest.approx(1.0 - values.mean(), rel=1e-9)


def test_every_cell_and_every_expectation_counts() -> None:
    given = experiment({"value": 1.0}, {"cells": {"gain": 2.0}, "op": ">", "value": 1.0}, gains=(1.0, 2.0))
    low, high = (cell_of(walk(mean, 0.1), chain) for mean, chain in zip((0.1, 0.5), given.cells, strict=True))
    found = verdict_of(given, low, high)
    assert [expectation.verdict for expectation in found.expectations] == ["not held", "held"]
    assert (found.expectations[0].cell, found.expectations[1].cell) == (1, 1)
    assert (found.verdict, found.held, found.intervals) == ("not held", False, 3)
    found = verdict_of(given, low, cell_of(walk(0.1, 0.1), given.cells[1]))
    assert [expectation.verdict for expectation in found.expectations] == ["held", "not held"]


def test_dead_chains_are_left_out_and_lost_ones_leave_it_open() -> None:
    logs = walk(0.1, 0.1)
    logs[:40, :2] = -np.inf
    (found,) = verdict_of(experiment({"value": 1.0}), cell_of(logs)).expectations
    assert (found.verdict, found.n, found.lost) == ("held", 360, 0)
    (found,) = verdict_of(experiment({"layer": "rate", "value": 1.0}), cell_of(logs)).expectations
    assert (found.verdict, found.n, found.lost) == ("held", 360, 0)
    logs[50, 0] = np.nan
    for layer in (0, "rate", "all"):
        (found,) = verdict_of(experiment({"layer": layer, "value": 1.0}), cell_of(logs)).expectations
        assert found.verdict == "undecided"
    (found,) = verdict_of(experiment({"value": 1.0}), cell_of(np.full((9, DEPTH + 1), -np.inf))).expectations
    assert (found.verdict, found.n) == ("undecided", 0)
    document = json_ready(verdict_of(experiment({"value": 1.0}), cell_of(logs)).to_dict())
    assert "expectation 1 is undecided in cell 0 at 0: 1 chain left the dtype" in claim_text(document)


def broken(what: str) -> np.ndarray:
    """Chains with mean 0.1 at layer 0, some or all of which are of no use there."""
    logs = walk(0.025, 0.01)
    if what == "lost":
        logs[:7, 0] = np.nan
    elif what in ("dead", "one alive"):
        logs[what == "one alive" :, 0] = -np.inf
    return logs


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("lost", "7 chains left the dtype"),
        ("dead", "no chain is alive"),
        ("one alive", "only one chain is alive"),
    ],
)
def test_the_place_is_shown_that_makes_the_verdict_and_the_reason_said(what: str, reason: str) -> None:
    """Beside it lies a cell that holds with less room, and for another bound one that does not hold."""
    given = experiment({"value": 1.0}, gains=(1.0, 2.0))
    cells = [cell_of(logs, chain) for logs, chain in zip((walk(0.2, 0.01), broken(what)), given.cells, strict=True)]
    (found,) = verdict_of(given, *cells).expectations
    assert (found.verdict, found.cell, found.reason) == ("undecided", 1, reason)
    text = claim_text(json_ready(verdict_of(given, *cells).to_dict()))
    assert f"expectation 1 is undecided in cell 1 at 0: {reason}" in text
    (found,) = verdict_of(experiment({"value": 0.5}, gains=(1.0, 2.0)), *cells).expectations
    assert (found.verdict, found.cell, found.reason, found.n) == ("not held", 0, "", 400)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("what", ["lost", "dead", "one alive"])
def test_of_undecided_places_one_without_a_fair_sample_is_shown(what: str, first: bool) -> None:
    """Before one whose interval reaches far to the wrong side, whichever cell comes first."""
    logs = [broken(what), walk(0.1, 1.0)] if first else [walk(0.1, 1.0), broken(what)]
    given = experiment({"value": 0.4}, gains=(1.0, 2.0))
    (found,) = verdict_of(given, *map(cell_of, logs, given.cells)).expectations
    (beside,) = verdict_of(experiment({"value": 0.4}), cell_of(walk(0.1, 1.0))).expectations
    assert (beside.verdict, beside.high > 0.4 > beside.low) == ("undecided", True)
    assert (found.verdict, found.cell) == ("undecided", 0 if first else 1)
    assert found.reason != beside.reason


IDENTITY = Chain(activation="linear", init="identity", gain=1.0, width=4, depth=3)


@pytest.mark.parametrize(("op", "value"), [(">", 0.0), ("<", 0.0), ("within", [0.0, 1.0]), ("within", [-1.0, 0.0])])
def test_a_bound_that_rounding_hides_is_a_reason_of_its_own(op: str, value: Any) -> None:
    """Eight chains of the identity leave what a hundred times as many leave: the interval is rounding alone."""
    expect = {"quantity": "log_grad_norm", "layer": 0, "op": op, "value": value}
    given = Experiment(chain=IDENTITY, claim="c", expect=[expect])
    half = []
    for chains in (8, 800):
        (found,) = verdict_of(given, simulate(IDENTITY, chains)).expectations
        reason = "the mean lies within rounding of the bound: no number of chains decides it"
        assert (found.verdict, found.reason) == ("undecided", reason)
        half.append((found.high - found.low) / 2)
    assert half[1] > 0.9 * half[0]


def test_more_chains_may_decide_where_the_interval_reaches_further_than_rounding() -> None:
    """The mean is within rounding of the bound, but is not known to be: a spread of 1e-6 leaves it open."""
    given = experiment({"value": 0.0})
    tolerance = rounding_tolerance(given.cells[0], "float32", np.zeros(DEPTH + 1))[0]
    for spread, reason in ((2.0, "a bound lies in the interval, more chains may decide"), (0.02, "within rounding")):
        logs = np.zeros((100, DEPTH + 1))
        logs[:, 0] = tolerance * spread * np.resize([-2.0, 2.0], 100)
        (found,) = verdict_of(given, cell_of(logs)).expectations
        assert found.verdict == "undecided"
        assert reason in found.reason


def test_a_place_that_no_chains_decide_is_shown_before_one_that_more_may() -> None:
    given = experiment({"value": 0.4}, gains=(1.0, 2.0))
    still = np.full((50, DEPTH + 1), 0.4)
    for number, logs in enumerate(([still, walk(0.1, 1.0)], [walk(0.1, 1.0), still])):
        (found,) = verdict_of(given, *map(cell_of, logs, given.cells)).expectations
        assert (found.verdict, found.cell) == ("undecided", number)
        assert "no number of chains" in found.reason


def test_an_interval_around_a_bound_is_a_reason_of_its_own() -> None:
    (found,) = verdict_of(experiment({"value": 0.4}), cell_of(walk(0.1, 0.1))).expectations
    assert (found.verdict, found.reason) == ("undecided", "a bound lies in the interval, more chains may decide")
    (found,) = verdict_of(experiment({"value": 1.0}), cell_of(walk(0.1, 0.1))).expectations
    assert (found.verdict, found.reason) == ("held", "")


@pytest.mark.parametrize("layer", [0, 3, "rate"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_mean_without_spread_is_known_up_to_rounding(layer: int | str, dtype: str) -> None:
    """The allowance is that of `compare` for a law without spread, and no verdict comes within it."""
    given = experiment({"layer": layer, "value": 0.0})
    means = np.linspace(1.0, 0.0, DEPTH + 1).astype(np.float32).astype(float)
    cell = Cell(given.cells[0], {"log_grad_norm": np.tile(means, (50, 1)).astype(np.float32)}, dtype=dtype)
    tolerance = rounding_tolerance(given.cells[0], dtype, means)
    value = means[0] / DEPTH if layer == "rate" else means[int(layer)]
    allowed = (tolerance[0] + tolerance[-1]) / DEPTH if layer == "rate" else tolerance[int(layer)]
    for shift, verdict in ((1.01, "held"), (0.99, "undecided"), (-0.99, "undecided"), (-1.01, "not held")):
        bound = value + shift * allowed
        assert verdict_of(experiment({"layer": layer, "value": bound}), cell).verdict == verdict


def test_rounding_is_that_of_the_layers_a_quantity_has_passed() -> None:
    """In a chain without spread the interval is rounding alone: 4 eps sqrt(width) a layer."""
    chain = Chain(kind="lstm", width=4, depth=DEPTH, probes=2)
    names = {"log_activation_norm": (1, 2), "log_grad_max": (1, 4), "log_cell_grad_norm": (1, 4), "lyapunov": (1, 1.25)}
    arrays = {name: np.zeros((9, 2 if name == "lyapunov" else DEPTH + 1), dtype=np.float32) for name in names}
    arrays["log_weight_grad_norm"] = np.zeros((9, 1), dtype=np.float32)
    names["log_weight_grad_norm"] = (1, 5)
    expect = [{"quantity": name, "layer": at, "op": "<", "value": 1.0} for name, (at, _) in names.items()]
    found = verdict_of(Experiment(chain=chain, claim="c", expect=expect), Cell(chain, arrays)).expectations
    for expectation, (_, layers) in zip(found, names.values(), strict=True):
        assert expectation.high == pytest.approx(4 * 2.0**-23 * 2 * layers, rel=1e-6)


@pytest.mark.parametrize("layer", [0, "rate"])
def test_a_true_bound_is_rejected_and_a_false_one_confirmed_no_more_often_than_alpha(layer: int | str) -> None:
    """The bound is the true mean: any verdict but "undecided" is an error, at most a fraction alpha of the time.

    1,000 samples; the count of errors is held to the binomial range that an exact level misses with probability
    1e-4, and a claim with the bound half a standard error off has to leave it.
    """
    errors = {0.0: 0, 0.5: 0}
    bound = 0.4 if layer == 0 else 0.1
    error = 0.1 * math.sqrt(DEPTH / 50) * (1.0 if layer == 0 else 1.0 / DEPTH)
    for seed in range(1000):
        cell = cell_of(walk(0.1, 0.1, chains=50, seed=seed))
        for shift in errors:
            given = experiment({"layer": layer, "value": bound + shift * error})
            errors[shift] += verdict_of(given, cell, alpha=0.05).verdict != "undecided"
    # scipy.stats.binom.ppf([5e-5, 1 - 5e-5], 1000, 0.05)
    assert 25 <= errors[0.0] <= 79
    assert errors[0.5] > 79


def test_compare_judges_the_claim_of_the_experiment(tmp_path: Any, call: Any) -> None:
    (tmp_path / "mine.toml").write_text(
        'claim = "Linear chains at gain 1 keep their gradient"\nchains = 200\n'
        '[chain]\nactivation = "linear"\nwidth = 8\ndepth = 5\ngain = 1\n'
        '[[expect]]\nquantity = "log_grad_norm"\nlayer = "rate"\nop = "within"\nvalue = [-0.2, 0.1]\n'
    )
    done = call("run", "mine.toml")
    assert done.status == 0
    assert done.stdout.splitlines()[-1].startswith("claim held: Linear chains at gain 1 keep their gradient (1 interv")
    assert call("compare", "mine.h5").stdout.endswith(done.stdout)
    document = json.loads(call("compare", "mine.h5", "--json").stdout)
    claim = document["claim"]
    assert list(claim) == ["text", "held", "verdict", "alpha", "intervals", "expectations"]
    assert (claim["held"], claim["verdict"], claim["alpha"]) == (True, "held", 0.01)
    (expectation,) = claim["expectations"]
    assert expectation["low"] < expectation["estimate"] < expectation["high"]
    stored = json.loads(call("info", "mine.h5", "--json").stdout)
    assert stored["experiment_hash"] == Experiment.from_toml("mine.toml").hash


def test_compare_of_cells_alone_has_no_claim() -> None:
    comparison = compare([cell_of(walk(0.1, 0.1))])
    assert comparison.claim is None
    assert comparison.to_dict()["claim"] is None


@pytest.mark.parametrize("width", [64, 100])
def test_the_table_says_by_how_much_and_keeps_to_the_width(width: int) -> None:
    given = experiment(
        {"layer": "all", "value": 1.0, "cells": {"gain": 1.0}}, {"op": "within", "value": [0.3, 0.45], "layer": 1}
    )
    text = claim_text(json_ready(verdict_of(given, cell_of(walk(0.1, 0.1))).to_dict()), width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "at every layer (here 0)" in " ".join(text.split())
    assert "0.3 to 0.45" in text and "< 1" in text
