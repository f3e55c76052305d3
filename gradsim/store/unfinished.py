"""How far a run is whose result is not complete: noted in its folder of parts, and read from there."""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gradsim.errors import ExperimentError
from gradsim.experiment import Experiment

__all__ = ["ProgressNote", "Unfinished", "find_unfinished", "parts_path"]

EXPERIMENT: Final = "experiment.json"
LOCK: Final = "lock"
PROGRESS: Final = "progress.json"
PROGRESS_NEW: Final = "progress.new"

_INTERVAL_S = 1.0
_MOST_BYTES = 1 << 20


def parts_path(path: Path) -> Path:
    """Return the folder in which a run into `path` works."""
    return path.with_name(f"{path.name}.parts")


class ProgressNote:
    """Notes in a folder of parts how many chains of each cell are done, at most once a second.

    It is there to be looked at; a run goes on where it cannot be written.
    """

    def __init__(self, folder: Path, cells: int) -> None:
        self._folder = folder
        self._done = [0] * cells
        self._last = -_INTERVAL_S

    def add(self, cell: int, chains: int) -> None:
        """Count a block."""
        self._done[cell] += chains
        if time.monotonic() - self._last < _INTERVAL_S:
            return
        self._last = time.monotonic()
        with suppress(OSError):
            new = self._folder / PROGRESS_NEW
            new.write_text(json.dumps({"chains_done": self._done}), encoding="utf-8")
            os.replace(new, self._folder / PROGRESS)


@dataclass(frozen=True)
class Unfinished:
    """A run whose result is not complete.

    Attributes
    ----------
    path : Path
        The result file there is to be.
    experiment : Experiment
    chains_done : tuple of int
        Chains done in each cell.
    running : bool or None
        Whether the process is still at work; None where that cannot be seen from this machine.
    owner : str
        The process, in words.
    """

    path: Path
    experiment: Experiment
    chains_done: tuple[int, ...]
    running: bool | None
    owner: str


def find_unfinished(path: str | os.PathLike[str]) -> Unfinished | None:
    """Look at the folder of parts of a result file; None where there is none that a run has begun."""
    path = Path(path)
    if not path.name:
        return None
    folder = parts_path(path)
    try:
        experiment = Experiment.from_json(_read(folder / EXPERIMENT))
    except (OSError, ValueError, ExperimentError):
        return None
    running, owner = _owner(folder / LOCK)
    return Unfinished(path, experiment, _chains_done(folder / PROGRESS, experiment), running, owner)


def _chains_done(path: Path, experiment: Experiment) -> tuple[int, ...]:
    """Read what `ProgressNote` wrote; nothing is done where it is not there."""
    try:
        done = json.loads(_read(path))["chains_done"]
        counts = tuple(min(max(int(count), 0), experiment.chains) for count in done)
    except (OSError, ValueError, TypeError, KeyError):
        counts = ()
    cells = len(experiment.cells)
    return counts if len(counts) == cells else (0,) * cells


def _owner(path: Path) -> tuple[bool | None, str]:
    """Return whether the process that signed a lock file is alive, and the process in words."""
    try:
        signed = json.loads(_read(path))
        host, pid = f"{signed['host']!s:.100}", int(signed["pid"])
    except (OSError, ValueError, TypeError, KeyError):
        return None, "another process"
    words = f"process {pid} on {host}"
    if host != socket.gethostname() or pid <= 0:
        return None, words
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False, words
    except OSError:
        return True, words
    return True, words


def _read(path: Path) -> str:
    with open(path, "rb") as file:
        return file.read(_MOST_BYTES).decode("utf-8")
