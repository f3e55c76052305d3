"""``gradsim run``."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gradsim.commands.flags import SectionedCommand, experiment_flags, take_overrides
from gradsim.commands.output import coloured, emit, note
from gradsim.commands.sources import default_output, load_experiment
from gradsim.errors import ExperimentError

if TYPE_CHECKING:
    from gradsim.experiment import Experiment
    from gradsim.results import Results

__all__ = ["run_command"]


@click.command("run", cls=SectionedCommand, short_help="Simulate an experiment into a result file.")
@click.argument("experiment", required=False, metavar="[EXPERIMENT.toml | PRESET]")
@click.option("-o", "--output", metavar="FILE.h5", help="Result file; NAME.h5 in this folder if not given.")
@click.option("--resume", is_flag=True, help="Go on with what is there; nothing to do if it is complete.")
@click.option("--overwrite", is_flag=True, help="Replace what is there, once this run is complete.")
@click.option("--threads", type=int, metavar="N", help="Threads; all processors this process may use if not given.")
@click.option("--progress/--no-progress", default=None, help="Show progress on standard error, or do not.")
@click.option("--quiet", is_flag=True, help="No table and no messages, unless something is wrong.")
@click.option("--dry-run", is_flag=True, help="Say what the run would take; simulate and write nothing.")
@experiment_flags
@click.pass_context
def run_command(
    ctx: click.Context,
    /,
    experiment: str | None,
    output: str | None,
    resume: bool,
    overwrite: bool,
    threads: int | None,
    progress: bool | None,
    quiet: bool,
    dry_run: bool,
    **fields: Any,
) -> None:
    """Draw the chains of an experiment, backpropagate through them, and hold them against theory.

    Without an experiment the preset "quick" is run; a field flag without an experiment starts from the
    defaults instead. Flags override every table of the file, and axes from flags follow the file's.
    """
    from gradsim.interruption import RunInterrupted

    if resume and overwrite:
        raise ExperimentError("--resume and --overwrite exclude each other: give one of them")
    wanted, name = load_experiment(experiment, take_overrides(fields))
    path = Path(output) if output is not None else default_output(name, take_existing=resume or overwrite)
    if dry_run:
        emit(_forecast(wanted, path, threads))
        return
    show = progress if progress is not None else not quiet
    try:
        with _run(wanted, path, resume, overwrite, threads, show, quiet) as results:
            if not quiet:
                emit(_table(results))
    except RunInterrupted as interruption:
        end = f"{path} is complete" if interruption.complete else f"the run is dropped and {path} not written"
        note(f"gradsim: {interruption}: {end}")
        ctx.exit(interruption.exit_code)


def _run(
    experiment: Experiment,
    path: Path,
    resume: bool,
    overwrite: bool,
    threads: int | None,
    show: bool,
    quiet: bool,
) -> Results:
    from gradsim import runner
    from gradsim.progress import duration

    begun = time.monotonic()
    there = resume and os.path.lexists(path)
    shown = runner.progress_on(sys.stderr) if show else False
    results = runner.run(experiment, path, resume=resume, overwrite=overwrite, threads=threads, progress=shown)
    if there and not quiet:
        note(f"{path}: complete already, nothing was run")
    elif not quiet:
        cells = "1 cell" if len(results) == 1 else f"{len(results):,} cells"
        note(f"{path}: {cells} of {experiment.chains:,} chains, {duration(time.monotonic() - begun)}")
    return results


def _table(results: Results) -> str:
    from gradsim.commands.views import comparison_table
    from gradsim.comparison import compare

    return comparison_table(compare(results).to_dict(), coloured)


def _forecast(experiment: Experiment, path: Path, threads: int | None) -> str:
    """What a run would take, in a few lines."""
    from gradsim.memory import format_bytes
    from gradsim.plan import plan
    from gradsim.progress import duration
    from gradsim.runner import check_threads

    made = plan(experiment, check_threads(threads))
    rows = (
        ("output", str(path)),
        ("cells", f"{len(made.cells):,}"),
        ("chains", f"{experiment.chains:,} a cell, {experiment.chains * len(made.cells):,} in all"),
        ("blocks", f"{len(made.blocks):,}"),
        ("memory", format_bytes(made.bytes_memory)),
        ("file", f"at most {format_bytes(made.bytes_file)}"),
        ("time", f"about {duration(made.seconds)} on {made.threads} threads, compilation apart"),
    )
    return "\n".join(f"{heading:<8}{text}" for heading, text in rows)
