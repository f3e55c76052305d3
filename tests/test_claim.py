"""Claims in experiment files: read, checked, kept, written out again; and what a bad one gets."""

from __future__ import annotations

import dataclasses
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradsim.chain import Chain
from gradsim.claim import Expectation
from gradsim.claim_verdict import judge
from gradsim.criticality import critical_gain
from gradsim.errors import ExperimentError
from gradsim.experiment import Experiment
from gradsim.presets import preset_path
from gradsim.results import Cell
from gradsim.rounding import rounding_tolerance
from gradsim.runner import simulate

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


@pytest.mark.parametrize(
    ("chain", "cells"),
    [
        ({"gain": "critical"}, {"gain": "critical"}),
        ({"gain": "critical"}, {"gain": 1.4142135623730951}),
        ({"gain": "critical"}, {"gain": 1.4142135}),
        ({"gain": "critical"}, {"bias": 0}),
        ({"gain": "critical", "activation": "gelu"}, {"bias": critical_gain("gelu")[1]}),
        ({"gain": "kaiming"}, {"gain": "he"}),
        ({"gain": "torch"}, {"gain": 3**-0.5}),
        ({"gain": "torch", "width": 3}, {"bias": 1 / 3}),
        ({"skip": "inv-depth", "depth": 4}, {"skip": 0.25}),
    ],
)
def test_a_field_that_goes_by_a_name_is_found_by_the_name_and_by_the_number(
    chain: dict[str, Any], cells: dict[str, Any]
) -> None:
    expect = {"quantity": "log_grad_norm", "layer": 0, "op": "<", "value": 1.0, "cells": cells}
    experiment = Experiment(chain={"width": 4, "depth": 3} | chain, claim="c", expect=[expect])
    (name,) = cells
    wrong = {"gain": "lecun"} if cells[name] == "critical" or name == "gain" else {name: 0.3}
    with pytest.raises(ExperimentError, match="no cell of the experiment has"):
        Experiment(chain=experiment.cells[0], claim="c", expect=[expect | {"cells": wrong}])


def test_a_number_is_not_found_by_a_name_nor_where_layers_differ() -> None:
    claim = claiming(cells=None, layer="rate").claim
    assert claim is not None
    (expectation,) = claim.expectations
    named = dataclasses.replace(expectation, cells={"gain": "critical"})
    assert not named.selects(Chain(gain=2**0.5))
    one = dataclasses.replace(expectation, cells={"gain": 1.0})
    assert not one.selects(Chain(profile=(4, 8, 4), gain="glorot"))
    assert one.selects(Chain(gain="glorot"))


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
    ({"control": {"gain": 2**0.5}}, ["control", "only says in other words"]),
    ({"control": {"gain": "critical"}}, ["control", "only says in other words"]),
    ({"control": {"gain": 0}}, ["control", "gain = 0", "log_grad_norm has no mean"]),
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


@pytest.mark.parametrize(
    ("settings", "layer", "words"),
    [
        ({"chains": 1}, 0, "expect 1: chains = 1: a mean without an error decides nothing; give chains >= 2"),
        ({"chains": 1}, "rate", "expect 1: chains = 1"),
        ({"chains": 9, "record": "summary", "keep": 1}, "rate", "expect 1: keep = 1: .* give keep >= 2"),
    ],
)
def test_a_sample_without_an_error_is_refused(settings: dict[str, Any], layer: Any, words: str) -> None:
    expect = {"quantity": "log_grad_norm", "layer": layer, "op": "<", "value": 1.0}
    chain = {"width": 4, "depth": 3}
    with pytest.raises(ExperimentError, match=words):
        Experiment(chain=chain, claim="c", expect=[expect], **settings)
    enough = {name: 2 if value == 1 else value for name, value in settings.items()}
    assert Experiment(chain=chain, claim="c", expect=[expect], **enough).claim is not None
    # At a layer all chains count, kept or not.
    if "keep" in settings:
        assert Experiment(chain=chain, claim="c", expect=[expect | {"layer": 0}], **settings).claim is not None


@pytest.mark.parametrize("layer", [0, "all", "rate"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_range_narrower_than_rounding_is_refused(layer: Any, dtype: str) -> None:
    """Without spread, and met in the middle, a range just wide enough holds; the bound is where judging has it."""
    chain = Chain(activation="linear", init="identity", gain=1, width=4, depth=3)

    def within(reach: float) -> Experiment:
        value = [-reach, reach]
        expect = {"quantity": "log_grad_norm", "layer": layer, "op": "within", "value": value}
        return Experiment(chain=chain, claim="c", expect=[expect], dtype=dtype)

    tolerance = rounding_tolerance(chain, dtype, np.zeros(4))
    allowed = (tolerance[0] + tolerance[-1]) / 3 if layer == "rate" else tolerance[0]
    with pytest.raises(ExperimentError, match=r"expect 1: value = \[.*\]: rounding alone may move the mean by"):
        within(0.99 * allowed)
    wide = within(1.01 * allowed)
    assert wide.claim is not None
    zeros = Cell(chain, {"log_grad_norm": np.zeros((9, 4), dtype=np.float32)}, dtype=dtype)
    assert judge(wide.claim, [zeros]).held


def test_a_cells_gradient_is_not_expected_at_the_last_step() -> None:
    expect = {"quantity": "log_cell_grad_norm", "layer": 3, "op": "<", "value": 1.0}
    chain = {"kind": "lstm", "width": 4, "depth": 3}
    with pytest.raises(ExperimentError, match=r"layer = 3: log_cell_grad_norm .* has 0 to 2"):
        Experiment(chain=chain, claim="c", expect=[expect])
    for layer in (2, "all"):
        assert Experiment(chain=chain, claim="c", expect=[expect | {"layer": layer}]).claim is not None


@pytest.mark.parametrize(
    ("chain", "passes"),
    [
        ({}, False),
        ({"activation": "sigmoid", "bias": 1}, False),
        ({"kind": "lstm"}, False),
        ({"skip": 1, "carry": 0}, False),
        ({"skip": 1}, True),
        ({"kind": "gru"}, True),
    ],
)
def test_a_chain_that_is_surely_dead_is_refused(chain: dict[str, Any], passes: bool) -> None:
    """What is refused beforehand is what a simulation finds: no chain alive, and all of them otherwise."""
    dead = Chain(width=4, depth=3, gain=0, **chain)
    logs = simulate(dead, chains=8).log_grad_norm
    assert np.isneginf(logs[:, :-1]).all() == (not passes)
    assert np.isfinite(logs).all() == passes
    expect = {"quantity": "log_grad_norm", "op": "<", "value": 1.0}
    for layer in (0, 2, "all", "rate"):
        with nullcontext() if passes else pytest.raises(ExperimentError, match="expect 1: gain = 0: in Chain"):
            Experiment(chain=dead, claim="c", expect=[expect | {"layer": layer}])
    assert Experiment(chain=dead, claim="c", expect=[expect | {"layer": 3}]).claim is not None


@pytest.mark.parametrize(
    ("chain", "layers", "refused"),
    [
        ({}, (1, 2, "all", "rate"), True),
        # The last matrix has a gradient: the sigmoid of 0 below it is 1/2.
        ({"activation": "sigmoid"}, (3,), False),
        ({"activation": "sigmoid", "depth": 1}, (1, "all"), False),
        # The total over the steps is more than 0 by the last one.
        ({"kind": "recurrent", "activation": "sigmoid"}, (1, "all"), False),
    ],
)
def test_weights_whose_gradient_is_surely_zero_are_refused(
    chain: dict[str, Any], layers: tuple[Any, ...], refused: bool
) -> None:
    """As a simulation finds it: -inf in the layers that are refused, and a number in those that are not."""
    dead = Chain(**{"width": 4, "depth": 3, "gain": 0} | chain)
    logs = simulate(dead, chains=8)["log_weight_grad_norm"]
    columns = [layer - 1 for layer in layers if isinstance(layer, int)]
    assert (np.isneginf(logs[:, columns]) if refused else np.isfinite(logs[:, columns])).all()
    expect = {"quantity": "log_weight_grad_norm", "op": "<", "value": 1.0}
    for layer in layers:
        with pytest.raises(ExperimentError, match="expect 1: gain = 0: in Chain") if refused else nullcontext():
            Experiment(chain=dead, claim="c", expect=[expect | {"layer": layer}])


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ({}, ""),
        ({"seed": "3", "dtype": "float64", "chains": "2"}, ""),
        # The same chains as without it.
        ({"bias": "0"}, ""),
        ({"bias": "1"}, "its experiment was changed by --bias"),
        ({"activation": "tanh", "input_scale": "2"}, "its experiment was changed by --activation, --input-scale"),
        (
            {"quantities": "log_grad_norm"},
            "its experiment was changed by --quantities: expect 2: log_weight_grad_norm is",
        ),
        ({"chains": "1"}, "its experiment was changed by --chains: expect 1: chains = 1"),
    ],
)
def test_a_claim_is_left_out_where_flags_change_what_it_is_about(flags: dict[str, str], reason: str) -> None:
    experiment = Experiment.from_text(CLAIM, flags)
    assert experiment.unjudged.startswith(reason)
    assert bool(experiment.unjudged) == bool(reason)
    assert (experiment.claim is None) == bool(reason)


def test_the_same_chains_in_another_order_are_judged() -> None:
    toy = preset_path("toy")
    again = Experiment.from_toml(toy, {"gain": "0.5,1.5"})
    assert (again.unjudged, again.claim) == ("", Experiment.from_toml(toy).claim)
    assert [chain.gain for chain in again.cells] == [0.5, 1.5]
    for other in ("0.5", "0.5,1.5,1", "0.5,1.4"):
        assert Experiment.from_toml(toy, {"gain": other}).unjudged == "its experiment was changed by --gain"


@pytest.mark.parametrize(
    ("right", "wrong", "words"),
    [
        ("cells = {profile = [3, 4]}", "cells = {profile = [3, 3]}", "expect 2: cells: no cell"),
        ("layer = 1", "layer = 99", "expect 2: layer = 99"),
        ("[-1, 0.5]", "[0, 1e-9]", "expect 2: value = .* rounding alone"),
        ("chains = 8", "chains = 1", "expect 1: chains = 1"),
    ],
)
@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"seed": "3"},
        {"chains": "16"},
        {"dtype": "float64"},
        {"record": "summary"},
        {"keep": "9"},
        {"quantities": "log_grad_norm"},
        {"gain": "2"},
        {"width": "5"},
    ],
)
def test_a_files_own_fault_is_refused_whatever_the_flags(
    right: str, wrong: str, words: str, flags: dict[str, str]
) -> None:
    assert Experiment.from_text(CLAIM).claim is not None
    with pytest.raises(ExperimentError, match=f"^file: {words}"):
        Experiment.from_text(CLAIM.replace(right, wrong), flags, "file")


def test_what_is_no_experiment_without_its_flags_leaves_its_claim_out() -> None:
    """No cell of it is there to hold the claim against, or not what is to be recorded of them."""
    cellless = CLAIM.replace("depth = 3\n", 'depth = 3\nnorm = "batch"\nbatch = 2\n', 1)
    with pytest.raises(ExperimentError, match="batch is at least 3"):
        Experiment.from_text(cellless)
    assert Experiment.from_text(cellless, {"batch": "3"}).unjudged == "its experiment was changed by --batch"
    # As many as no one waits for.
    endless = CLAIM.replace("depth = 3\n", f"depth = {list(range(1, 2001))}\nbias = {list(range(2000))}\n", 1)
    assert Experiment.from_text(endless, {"depth": "3", "bias": "0"}).unjudged.endswith("changed by --depth, --bias")
    unrecorded = (
        'chains = 8\nclaim = "c"\nrun = {quantities = ["log_grad_norm", "lyapunov"]}\n[chain]\nwidth = 4\ndepth = 3\n'
    )
    unrecorded += '[[expect]]\nquantity = "lyapunov"\nlayer = 1\nop = "<"\nvalue = 1\n'
    with pytest.raises(ExperimentError, match="no cell has lyapunov"):
        Experiment.from_text(unrecorded)
    assert Experiment.from_text(unrecorded, {"probes": "2"}).unjudged == "its experiment was changed by --probes"


def test_the_command_line_says_that_a_claim_is_not_judged(call: Any, tmp_path: Path) -> None:
    Path("mine.toml").write_text(CLAIM)
    done = call("run", "mine.toml", "--width", "5", "--gain", "1")
    assert done.status == 0
    assert done.stdout.splitlines()[-1] == "claim not judged: its experiment was changed by --width, --gain"
    assert "claim" not in call("compare", "mine.h5").stdout
    assert call("theory", "mine.toml", "--gain", "2").status == 0
    done = call("run", "mine.toml", "--seed", "5")
    assert done.stdout.splitlines()[-1].startswith("claim ")
    assert "not judged" not in done.stdout
    # A preset of a claim about width 128.
    assert call("theory", "depth-compounds", "--gain", "2").status == 0
    done = call("run", "depth-compounds", "--width", "4", "--chains", "8", "--depth", "3", "--dry-run")
    assert (done.status, done.stderr) == (0, "")


def test_resuming_a_complete_file_judges_the_claim_that_is_asked_for(call: Any, tmp_path: Path) -> None:
    Path("mine.toml").write_text(CLAIM)
    assert call("run", "mine.toml").status == 0
    Path("mine.toml").write_text(CLAIM.replace("Weights decide", "They do"))
    done = call("run", "mine.toml", "--resume")
    assert (done.status, "They do" in done.stdout, "Weights decide" in done.stdout) == (0, True, False)
    assert "mine.h5: its own claim is another" in done.stderr
    assert "Weights decide" in call("compare", "mine.h5").stdout
    Path("mine.toml").write_text(CLAIM.replace('claim = "Weights decide"', "").split("[[expect]]")[0])
    done = call("run", "mine.toml", "--resume")
    assert (done.status, "claim" in done.stdout) == (0, False)
    Path("mine.toml").write_text(CLAIM)
    done = call("run", "mine.toml", "--resume")
    assert "Weights decide" in done.stdout
    assert "claim" not in done.stderr
    # What the file holds must be the experiment of the claim.
    Path("mine.toml").write_text(CLAIM.replace("width = [4, 8]", "width = [4, 9]"))
    assert call("run", "mine.toml", "--resume").status == 2
