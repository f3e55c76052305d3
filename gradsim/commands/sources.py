"""Which experiment a command means, and where its results go by default."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradsim.commands.flags import starts_from_defaults
from gradsim.commands.output import note
from gradsim.errors import ExperimentError

if TYPE_CHECKING:
    from gradsim.experiment import Experiment

__all__ = ["DEFAULT_PRESET", "default_output", "load_experiment"]

DEFAULT_PRESET = "quick"
_UNNAMED = "run"


def load_experiment(source: str | None, overrides: Mapping[str, Any], quiet: bool = False) -> tuple[Experiment, str]:
    """The experiment of a command line and its name.

    Parameters
    ----------
    source : str or None
        An experiment file or a preset, see `find_experiment`. None is the preset ``quick``, or the defaults
        where a field flag is given.
    overrides : mapping
        Texts of field flags by field.
    quiet : bool
        Do not say where a preset is taken although a file bears its name.

    Raises
    ------
    ExperimentError
        For a bad experiment, a file that is not there, or an unknown preset.
    """
    from gradsim.experiment import Experiment
    from gradsim.presets import find_experiment, shadowed_file

    if source is None and starts_from_defaults(overrides):
        return Experiment.from_dict({}, overrides), _UNNAMED
    if source == "":
        raise ExperimentError("the experiment's name is empty: give a file or a preset, or leave it out")
    name, path = find_experiment(source or DEFAULT_PRESET)
    # Only a preset goes by the very text that was given.
    if name == source and (shadowed := shadowed_file(source)) and not quiet:
        note(f"{source}: the preset of that name is taken, not the file {shadowed}")
    return Experiment.from_toml(path, overrides), name or _UNNAMED


def default_output(name: str, take_existing: bool) -> Path:
    """NAME.h5 in the current folder, or NAME-2.h5, NAME-3.h5, ... where that or its .parts exists.

    Parameters
    ----------
    name : str
        The experiment's name.
    take_existing : bool
        Use NAME.h5 all the same: it is to be resumed or replaced.
    """
    path = Path(f"{name}.h5")
    number = 2
    while not take_existing and (os.path.lexists(path) or os.path.lexists(f"{path}.parts")):
        path = Path(f"{name}-{number}.h5")
        number += 1
    return path
