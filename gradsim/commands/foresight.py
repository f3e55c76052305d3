"""What ``gradsim run --dry-run`` says: whether the output may be written, and what the run would take."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from gradsim.combinations import ROTATION_INVARIANT, can_be_deferred
from gradsim.experiment import Experiment
from gradsim.memory import format_bytes
from gradsim.plan import Plan, plan
from gradsim.progress import duration
from gradsim.runner import check_threads
from gradsim.store import is_complete
from gradsim.store.parts import PartsFolder
from gradsim.tables import counted

__all__ = ["forecast"]

#: Memory with which nothing is refused.
_NO_LIMIT = 2**63


def forecast(experiment: Experiment, path: Path, *, resume: bool, overwrite: bool, threads: int | None) -> str:
    """What a run would take, in a few lines; nothing is written.

    Raises
    ------
    GradsimError
        As the run would before it begins to simulate.
    """
    if resume and is_complete(path, experiment):
        return f"{path}: complete already, nothing would be run"
    made = plan(experiment, check_threads(threads))
    with suppress(_NothingInTheWay):
        _Look(path, experiment, overwrite=overwrite, resume=resume)
    replaced = ", to be replaced at completion" if os.path.lexists(path) else ""
    rows = (
        ("output", f"{path}{replaced}"),
        ("cells", f"{len(made.cells):,}"),
        ("chains", f"{experiment.chains:,} a cell, {experiment.chains * len(made.cells):,} in all"),
        ("method", _methods(experiment, made.threads)),
        ("blocks", f"{len(made.blocks):,}"),
        ("memory", format_bytes(made.bytes_memory)),
        *((("device", _on_device(made)),) if experiment.device == "cuda" else ()),
        ("file", f"at most {format_bytes(made.bytes_file)}"),
        ("time", _time(made)),
    )
    return "\n".join(f"{heading:<8}{text}" for heading, text in rows)


def _methods(experiment: Experiment, threads: int) -> str:
    """The method of the run, and what the other one would take."""
    other = "deferred" if experiment.method == "dense" else "dense"
    if other == "deferred" and not all(can_be_deferred(chain) for chain in experiment.cells):
        return f"{experiment.method}; deferred is for {' and '.join(ROTATION_INVARIANT)} weights alone"
    document = json.loads(experiment.to_json())
    made = plan(Experiment.from_dict(document, {"method": other}), threads, available=_NO_LIMIT)
    if experiment.device == "cuda":
        return f"{experiment.method}; {other} would take {_of_device(made, 1)} a chain"
    return f"{experiment.method}; {other} would take {_about(made.seconds)} and {format_bytes(made.bytes_memory)}"


def _on_device(made: Plan) -> str:
    """What a GPU would have to hold."""
    most = max(min(cell.block, cell.chains) for cell in made.cells)
    whole = f"{format_bytes(made.gpu_bytes(most))} for the {counted(most, 'chain')} of a block"
    return f"cuda; {_of_device(made, 1)} a chain in flight, {whole}, or as many as fit"


def _of_device(made: Plan, chains: int) -> str:
    return f"{format_bytes(made.gpu_bytes(chains))} of the GPU's memory"


def _time(made: Plan) -> str:
    if not made.foretold:
        return "unknown before the first block: how fast the GPU is shows then"
    return f"{_about(made.seconds)} on {counted(made.threads, 'thread')}, compilation apart"


def _about(seconds: float) -> str:
    return "under 0.1 s" if seconds < 0.05 else f"about {duration(seconds)}"


class _NothingInTheWay(Exception):
    """The run could begin."""


class _Look(PartsFolder):
    """Refuses what a run refuses, and stops where a run would begin to write."""

    def __init__(self, path: Path, experiment: Experiment, *, overwrite: bool, resume: bool) -> None:
        self._experiment = None if overwrite else experiment
        super().__init__(path, experiment, overwrite=overwrite, resume=resume)

    def _acquire(self) -> int:
        if os.path.lexists(self.folder):
            self._refuse_live()
            self._refuse_foreign_files()
            if self._experiment is not None:
                self._refuse_other_experiment(self._experiment)
        raise _NothingInTheWay
