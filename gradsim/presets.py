"""The presets: experiments that come with gradsim, by name."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

from gradsim.errors import ExperimentError, GradsimError

__all__ = ["Preset", "find_experiment", "list_presets", "preset_path", "shadowed_file"]

_PACKAGE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Preset:
    """A preset's name, title, file, and the claim it makes, None where it makes none."""

    name: str
    title: str
    path: Path
    claim: str | None

    def text(self) -> str:
        """Return the preset as TOML."""
        return self.path.read_text(encoding="utf-8")


def list_presets() -> list[Preset]:
    """Return the presets, sorted by name."""
    found = []
    for path in sorted(_folder().glob("*.toml")):
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        found.append(Preset(path.stem, document.get("title", ""), path, document.get("claim")))
    return found


def preset_path(name: str) -> Path:
    """Return the file of the preset `name`; an `ExperimentError` lists the presets there are."""
    import difflib

    names = [path.stem for path in sorted(_folder().glob("*.toml"))]
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ExperimentError(f"there is no preset {name!r}{hint} (presets: {', '.join(names)})")
    return _folder() / f"{name}.toml"


def find_experiment(text: str) -> tuple[str, Path]:
    """Return name and file of what the user calls an experiment: a TOML file or a preset.

    What ends in ``.toml`` or contains a separator is a file, and anything else a preset: what a name means
    depends neither on the folder one is in nor on the presets a later version brings.

    Raises
    ------
    ExperimentError
        For a name that is no preset's.
    """
    path = Path(text)
    if path.suffix == ".toml" or os.sep in text:
        return path.stem, path
    try:
        return text, preset_path(text)
    except ExperimentError as error:
        file = shadowed_file(text)
        raise ExperimentError(f"{error}; the file of that name is {file}" if file else str(error)) from None


def shadowed_file(text: str) -> str | None:
    """Return how to write the file that bears the bare name `text`; None where there is none."""
    return os.path.join(os.curdir, text) if os.sep not in text and os.path.isfile(text) else None


def _folder() -> Path:
    """Return the folder of the presets: in an installed package, else in the checkout around it."""
    for folder in (_PACKAGE / "_data" / "presets", _PACKAGE.parent / "data" / "presets"):
        if folder.is_dir():
            return folder
    raise GradsimError(f"the presets are missing from {_PACKAGE}: install gradsim again")
