"""The presets: all of them load, plan and name themselves; experiments are found by path or name."""

from __future__ import annotations

from pathlib import Path

import pytest

from gradsim import presets
from gradsim.errors import ExperimentError, GradsimError
from gradsim.experiment import Experiment
from gradsim.plan import plan
from gradsim.presets import Preset, find_experiment, list_presets, preset_path


@pytest.mark.parametrize("preset", list_presets(), ids=lambda preset: preset.name)
def test_every_preset_is_an_experiment_with_a_title(preset: Preset) -> None:
    experiment = Experiment.from_toml(preset.path)
    assert experiment.title == preset.title != ""
    assert experiment == Experiment.from_text(preset.text())
    assert experiment == Experiment.from_json(experiment.to_json())
    # On one core, none is a long wait.
    assert plan(experiment, 1).seconds < 300


def test_quick_is_quick_and_holds_linear_relu_and_recurrent_chains() -> None:
    experiment = Experiment.from_toml(preset_path("quick"))
    assert plan(experiment, 2).seconds < 10
    assert {(chain.kind, chain.activation) for chain in experiment.cells} == {
        (kind, activation) for kind in ("feedforward", "recurrent") for activation in ("linear", "relu")
    }


def test_presets_are_listed_by_name() -> None:
    names = [preset.name for preset in list_presets()]
    assert names == sorted(names)
    assert {"quick", "widths", "scale"} <= set(names)


def test_an_unknown_preset_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ExperimentError, match="did you mean quick") as caught:
        preset_path("quikc")
    assert "widths" in str(caught.value)
    for name in ("../presets/quick", "", "quick.toml"):
        with pytest.raises(ExperimentError):
            preset_path(name)


def test_what_looks_like_a_path_is_a_file_and_anything_else_a_preset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mine.toml", "mine", "quick"):
        Path(name).write_text("seed = 1")
    assert find_experiment("quick") == ("quick", preset_path("quick"))
    assert find_experiment("./quick") == ("quick", Path("quick"))
    assert find_experiment("./mine") == ("mine", Path("mine"))
    with pytest.raises(ExperimentError, match=r"no preset 'mine'.*the file of that name is ./mine"):
        find_experiment("mine")
    assert find_experiment("mine.toml") == ("mine", Path("mine.toml"))
    assert find_experiment(str(tmp_path / "quick")) == ("quick", tmp_path / "quick")
    assert find_experiment("missing.toml") == ("missing", Path("missing.toml"))
    with pytest.raises(ExperimentError, match="no preset"):
        find_experiment("missing")


def test_presets_of_a_wheel_are_found_inside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "gradsim"
    monkeypatch.setattr(presets, "_PACKAGE", package)
    with pytest.raises(GradsimError, match="install gradsim again"):
        list_presets()
    # An editable install finds those of the checkout ...
    (tmp_path / "site" / "data" / "presets").mkdir(parents=True)
    (tmp_path / "site" / "data" / "presets" / "outer.toml").write_text("")
    assert [preset.name for preset in list_presets()] == ["outer"]
    # ... and an installed one its own, whatever lies beside it.
    (package / "_data" / "presets").mkdir(parents=True)
    (package / "_data" / "presets" / "inner.toml").write_text('title = "t"')
    assert [(preset.name, preset.title) for preset in list_presets()] == [("inner", "t")]


def test_architectures_has_every_kind_norm_and_skip() -> None:
    experiment = Experiment.from_toml(preset_path("architectures"))
    found = {(chain.kind, chain.activation, chain.norm, chain.skip) for chain in experiment.cells}
    plain = {
        (kind, activation, norm, skip)
        for kind in ("feedforward", "recurrent")
        for activation in ("relu", "tanh")
        for norm in ("none", "batch", "layer", "rms")
        for skip in (0.0, "rsqrt-depth")
    }
    assert found == plain | {("lstm", "", "none", 0.0), ("gru", "", "none", 0.0)}
    assert 5 < plan(experiment, 2).seconds < 90
