"""What a new user of the Python interface tries first and gets wrong: one line that says what is wanted."""

from __future__ import annotations

import pytest

import gradsim
from gradsim.commands.sources import load_experiment

SMALL = gradsim.Experiment(chain={"width": 4, "depth": 3}, chains=5)


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (lambda: gradsim.simulate({"width": 16, "gain": ["he", 1.0]}), "simulate takes one Chain, not dict"),
        (lambda: gradsim.simulate([gradsim.Chain(), gradsim.Chain()]), "a grid is an Experiment"),
        (lambda: gradsim.predict({"width": 4}), "predict takes a Chain, not dict"),
        (lambda: gradsim.run("quick", "y.h5"), "run takes an Experiment, not str"),
        (lambda: gradsim.run(gradsim.Chain(), "y.h5"), "run takes an Experiment, not Chain"),
        (lambda: gradsim.run(SMALL, ""), "not the name of a file"),
        (lambda: gradsim.run(SMALL, "x\0.h5"), "not the name of a file"),
        (lambda: gradsim.run(SMALL, "x" * 300), "choose a shorter name"),
        (lambda: gradsim.compare("x.h5"), "compare takes results, not a path"),
        (lambda: gradsim.compare([], alpha=2), "alpha = 2 is not allowed"),
        (lambda: gradsim.compare([], alpha=float("nan")), "alpha = nan is not allowed"),
        (lambda: gradsim.compare([], alpha="x"), "alpha = 'x' is not allowed"),
        (lambda: gradsim.critical_gain("tanh", bias="x"), "bias must be a number"),
        (lambda: gradsim.critical_gain("tanh", bias=1e200), "bias must be a number"),
        (lambda: gradsim.critical_gain("leaky_relu", negative_slope=float("nan")), "negative_slope must be a number"),
        (lambda: load_experiment("", {}), "the experiment's name is empty"),
    ],
)
def test_one_line_says_what_is_wanted(attempt, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(gradsim.GradsimError) as caught:
        attempt()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
