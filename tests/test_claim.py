"""Claims in experiment files: read, checked, kept, written out again; and what a bad one gets."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from gradsim.chain import Chain
from gradsim.claim import Expectation
from gradsim.errors import ExperimentError
from gradsim.experiment import Experiment

CLAIM = """
claim = "Weights decide"
chains = 8
[[chain]]
activation = ["linear", "relu"]
width = [4, 8]
depth = 3
gain = ["xavier", 2]
[[chain]]
kind = "recurrent"
width = 4
depth = 3
[[chain]]
profile = [[3, 4], [4, 3]]
[[expect]]
quantity = "log_grad_norm"
layer = "rate"
cells = {activation = "relu", gain = "glorot"}
op = "<"
value = 0
control = {gain = 3}
[[expect]]
quantity = "log_weight_grad_norm"
layer = 1
cells = {profile = [3, 4]}
op = "within"
value = [-1, 0.5]
"""


def claiming(**expect: Any) -> Experiment:
    """One cell and one expectation, some of it changed."""
    given = {"quantity": "log_grad_norm", "layer": 0, "op": "<", "value": 1.0} | expect
    given = {name: value for name, value in given.items() if value is not None}
    return Experiment(chain={"width": 4, "depth": 3}, claim="It is so", expect=[given])


def test_a_file_gives_its_claim() -> None:
    claim = Experiment.from_text(CLAIM).claim
    assert claim is not None
    assert claim.text == "Weights decide"
    assert claim.expectations == (
        Expectation("log_grad_norm", "rate", {"activation": "relu", "gain": "glorot"}, "<", 0.0, control={"gain": 3.0}),
        Expectation("log_weight_grad_norm", 1, {"profile": (3, 4)}, "within", (-1.0, 0.5), control={}),
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        claim.text = "Nothing does"  # type: ignore[misc]
    assert Experiment().claim is None


def test_it_selects_the_cells_that_have_all_values() -> None:
    experiment = Experiment.from_text(CLAIM)
    assert experiment.claim is not None
    first, second = experiment.claim.expectations
    chosen = [chain for chain in experiment.cells if first.selects(chain)]
    assert chosen == [Chain(activation="relu", width=width, depth=3, gain="glorot") for width in (4, 8)]
    assert [chain.profile for chain in experiment.cells if second.selects(chain)] == [(3, 4)]
    everything = dataclasses.replace(first, cells={})
    assert all(everything.selects(chain) for chain in experiment.cells)
    # A field that a chain does not have selects nothing, whatever its default.
    assert not dataclasses.replace(first, cells={"norm_eps": 0.0}).selects(Chain())


def test_it_goes_through_json_and_leaves_the_hash_alone() -> None:
    experiment = Experiment.from_text(CLAIM)
    again = Experiment.from_json(experiment.to_json())
    assert again == experiment
    assert again.claim == experiment.claim
    document = json.loads(experiment.to_json())
    assert document["claim"] == "Weights decide"
    assert document["expect"][1]["value"] == [-1.0, 0.5]
    without = Experiment.from_text(CLAIM.replace('claim = "Weights decide"', "").split("[[expect]]")[0])
    assert without.claim is None
    assert without.hash == experiment.hash
    assert without != experiment
    assert "claim" not in json.loads(without.to_json())


def test_a_control_is_an_experiment_of_its_own() -> None:
    experiment = Experiment.from_text(CLAIM)
    control = experiment.control(1, chains=5)
    assert control.cells == tuple(Chain(activation="relu", width=width, depth=3, gain=3.0) for width in (4, 8))
    assert (control.chains, control.seed) == (5, experiment.seed)
    assert control.claim is not None
    (expectation,) = control.claim.expectations
    assert (expectation.layer, expectation.op, expectation.value) == ("rate", "<", 0.0)
    assert all(expectation.selects(chain) for chain in control.cells)
    with pytest.raises(ExperimentError, match="expectation 2 has no control"):
        experiment.control(2)
    with pytest.raises(ExperimentError, match=r"no expectation 3: .* 2"):
        experiment.control(3)
    with pytest.raises(ExperimentError, match="no expectation 1"):
        Experiment().control(1)


def test_a_control_records_what_its_chains_have() -> None:
    expect = {"quantity": "log_grad_norm", "layer": 0, "op": "<", "value": 1.0, "control": {"kind": "gru"}}
    experiment = Experiment(chain={"kind": "lstm", "width": 4, "depth": 3}, claim="c", expect=[expect])
    assert "log_cell_grad_norm" in experiment.quantities
    assert "log_cell_grad_norm" not in experiment.control(1).quantities


REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    ({"quantity": "log_grad"}, ['quantity = "log_grad"', "log_grad_norm"]),
    ({"quantity": None}, ["quantity is missing"]),
    ({"layer": None}, ["layer is missing"]),
    ({"op": "<="}, ['op = "<="', "within"]),
    ({"op": "within"}, ["value = 1.0", "[low, high]"]),
    ({"value": [0, 1]}, ["value = [0, 1]", "a number beside op <"]),
    ({"op": "within", "value": [1, 1]}, ["value = [1, 1]", "low < high"]),
    ({"op": "within", "value": [0, "1"]}, ["value"]),
    ({"value": float("nan")}, ["value = nan"]),
    ({"value": True}, ["value = true"]),
    ({"layer": "top"}, ['layer = "top"', "rate"]),
    ({"layer": -1}, ["layer = -1"]),
    ({"layer": 1.0}, ["layer = 1.0"]),
    ({"layer": 4}, ["layer = 4", "has 0 to 3"]),
    ({"quantity": "log_weight_grad_norm", "layer": 0}, ["layer = 0", "has 1 to 3"]),
    ({"quantity": "lyapunov", "layer": "rate"}, ["rate", "exponents"]),
    ({"quantity": "log_cell_grad_norm", "layer": "rate"}, ["rate", "last step"]),
    ({"quantity": "lyapunov"}, ["lyapunov is not recorded"]),
    ({"cells": {"widht": 4}}, ["cells", "widht", 'did you mean "width"']),
    ({"cells": {"width": [4]}}, ["cells", "width = [4]"]),
    ({"cells": {"width": 5}}, ["cells", "no cell of the experiment has width = 5"]),
    ({"cells": 3}, ["cells = 3", "table of chain fields"]),
    ({"control": {"gain": "big"}}, ["control", 'gain = "big"']),
    ({"control": {"width": 4}}, ["control", "changes nothing"]),
    ({"control": {"norm": "batch", "batch": 2}}, ["control", "batch is at least 3"]),
    ({"layer": 3, "control": {"depth": 2}}, ["control", "layer = 3", "has 0 to 2"]),
    ({"contrl": {}}, ["contrl", 'did you mean "control"']),
]


@pytest.mark.parametrize(("expect", "words"), REFUSED)
def test_a_bad_expectation_is_refused_on_one_line(expect: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ExperimentError) as caught:
        claiming(**expect)
    text = str(caught.value)
    assert text.startswith("expect 1: ")
    assert "\n" not in text
    assert all(word in text for word in words), text


def test_a_rate_needs_two_columns() -> None:
    expect = {"quantity": "log_weight_grad_norm", "layer": "rate", "op": "<", "value": 1.0}
    with pytest.raises(ExperimentError, match="one such number, the total over its steps"):
        Experiment(chain={"kind": "recurrent", "width": 4, "depth": 3}, claim="c", expect=[expect])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('claim = "ReLU explodes"', "claim without expect"),
        ("[[expect]]\nlayer = 0", "expect without claim"),
        ('claim = "c"\nexpect = []', r"expect = \[\]"),
        ('claim = "c"\nexpect = [3]', "expect 1: 3 is not a table"),
        ('claim = "c"\n[expect]\nlayer = 0', "expect is one to"),
        ('claim = ""\n[[expect]]', 'claim = "" is not allowed'),
        ('claim = "a\\nb"\n[[expect]]', "claim is one line"),
        ("claim = 3\n[[expect]]", "claim = 3"),
    ],
)
def test_a_bad_claim_is_refused(text: str, words: str) -> None:
    with pytest.raises(ExperimentError, match=words):
        Experiment.from_text(text)


def test_the_command_line_says_so_on_one_line(call: Any, tmp_path: Path) -> None:
    Path("mine.toml").write_text(CLAIM)
    assert call("run", "mine.toml", "--bias", "1", "--dry-run").status == 0, "no expectation names a bias"
    done = call("run", "mine.toml", "--activation", "tanh")
    assert done.status == 2
    assert done.stderr.splitlines() == [
        'gradsim: mine.toml: expect 1: cells: no cell of the experiment has activation = "relu", gain = "glorot"; '
        "the claim is not about chains with another activation: change a copy"
    ]
