"""``gradsim run``."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gradsim.commands.flags import SectionedCommand, experiment_flags, take_overrides
from gradsim.commands.output import emit, note
from gradsim.commands.sources import default_output, load_experiment
from gradsim.errors import ExperimentError
from gradsim.tables import counted

if TYPE_CHECKING:
    from gradsim.experiment import Experiment
    from gradsim.results import Results

__all__ = ["run_command"]


@click.command("run", cls=SectionedCommand, short_help="Simulate an experiment into a result file.")
@click.argument("experiment", required=False, metavar="[EXPERIMENT.toml | PRESET]")
@click.option("-o", "--output", metavar="FILE.h5", help="Result file; NAME.h5 in this folder if not given.")
@click.option("--resume", is_flag=True, help="Go on with what is there; nothing to do if it is complete.")
@click.option("--overwrite", is_flag=True, help="Replace what is there, once this run is complete.")
@click.option(
    "--threads", type=int, metavar="N", help="Threads; all processors this process may use if not given. Not for cuda."
)
@click.option("--progress/--no-progress", default=None, help="Show progress on standard error, or do not.")
@click.option("--quiet", is_flag=True, help="No table and no messages, unless something is wrong.")
@click.option("--dry-run", is_flag=True, help="Say what the run would take, or what is in its way; write nothing.")
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

    What ends in .toml or has a / in it is a file, anything else the name of a preset. Without an experiment
    the preset "quick" is run; a field flag without an experiment starts from the defaults instead. Flags
    override every table of the file, and axes from flags follow the file's.
    """
    from gradsim.interruption import RunInterrupted

    if resume and overwrite:
        raise ExperimentError("--resume and --overwrite exclude each other: give one of them")
    wanted, name = load_experiment(experiment, take_overrides(fields), quiet)
    path = Path(output) if output is not None else default_output(name, take_existing=resume or overwrite)
    if dry_run:
        from gradsim.commands.foresight import forecast

        emit(forecast(wanted, path, resume=resume, overwrite=overwrite, threads=threads))
        return
    show = progress if progress is not None else not quiet
    try:
        with _run(wanted, path, resume, overwrite, threads, show, quiet) as results:
            if not quiet:
                emit(_table(results, wanted))
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
    from gradsim.progress import Notices, duration

    begun = time.monotonic()
    there = resume and os.path.lexists(path)
    shown = runner.progress_on(sys.stderr) if show else not quiet and Notices(sys.stderr)
    results = runner.run(experiment, path, resume=resume, overwrite=overwrite, threads=threads, progress=shown)
    if there and not quiet:
        note(f"{path}: complete already, nothing was run")
    elif not quiet:
        done = f"{counted(len(results), 'cell')} of {counted(experiment.chains, 'chain')}"
        note(f"{path}: {done}, {duration(time.monotonic() - begun)}")
    return results


def _table(results: Results, wanted: Experiment) -> str:
    """The comparison, with the claim of the experiment that was asked for: a complete file may hold another."""
    from gradsim.claim_verdict import judge
    from gradsim.commands.judging import comparison_text
    from gradsim.comparison import compare

    comparison = compare(results)
    if wanted.claim != results.experiment.claim:
        claim = None if wanted.claim is None else judge(wanted.claim, list(results), comparison.alpha)
        comparison = replace(comparison, claim=claim)
        note(f"{results.path}: its own claim is another: compare judges that, and run the one it was given")
    text = comparison_text(comparison.to_dict())
    return f"{text}\n\nclaim not judged: {wanted.unjudged}" if wanted.unjudged else text
