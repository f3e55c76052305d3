"""``gradsim compare`` and ``gradsim theory``: what theory says, and whether the simulation agrees."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

import click

from gradsim.commands.claim_views import claim_text
from gradsim.commands.flags import SectionedCommand, chain_flags, take_overrides
from gradsim.commands.output import coloured, emit, emit_json, table_width
from gradsim.commands.overflow_views import overflow_text
from gradsim.commands.sources import load_experiment
from gradsim.commands.views import comparison_table, theory_table
from gradsim.tables import chain_in_words

__all__ = ["compare_command", "theory_command"]

EXIT_REJECTED = 3


@click.command("compare", short_help="Hold a result file against theory.")
@click.argument("file", metavar="FILE")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
@click.option("--csv", "as_csv", is_flag=True, help="One line per test, as comma-separated values.")
@click.option("--alpha", type=float, default=0.01, show_default=True, help="Level of the tests, over the whole file.")
@click.pass_context
def compare_command(ctx: click.Context, /, file: str, as_json: bool, as_csv: bool, alpha: float) -> None:
    """Hold a result file against theory; exit status 3 where an exact law is rejected."""
    from gradsim.comparison import compare
    from gradsim.store import open_result

    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other: give one of them")
    if not 0.0 < alpha < 1.0:
        raise click.UsageError(f"--alpha {alpha:g} is not allowed: alpha is a number between 0 and 1")
    with open_result(file) as results:
        document = compare(results, alpha=alpha).to_dict()
    if as_json:
        emit_json(document)
    elif as_csv:
        emit(_csv(document))
    else:
        # First, so that the verdict is what one ends on.
        overflow = overflow_text(document["cells"], table_width())
        emit("\n\n".join(text for text in (overflow, comparison_text(document)) if text))
    if document["verdict"] == "disagree":
        ctx.exit(EXIT_REJECTED)


def comparison_text(document: Mapping[str, Any]) -> str:
    """What people read of a `compare --json` document: the tests, and then the claim where there is one."""
    table, claim = comparison_table(document, coloured, table_width()), document["claim"]
    return table if claim is None else f"{table}\n\n{claim_text(claim, coloured, table_width())}"


@click.command("theory", cls=SectionedCommand, short_help="Print what theory predicts; nothing is simulated.")
@click.argument("experiment", required=False, metavar="[EXPERIMENT.toml | PRESET]")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
@chain_flags
def theory_command(experiment: str | None, as_json: bool, **fields: Any) -> None:
    """Print what theory predicts for an experiment; nothing is simulated.

    What ends in .toml or has a / in it is a file, anything else the name of a preset. Without an experiment
    the preset "quick" is taken, or the defaults where a field flag is given.
    """
    from gradsim.theory.registry import predict

    wanted, _ = load_experiment(experiment, take_overrides(fields))
    document = {"cells": [predict(chain).to_dict() for chain in wanted.cells]}
    if as_json:
        emit_json(document)
    else:
        emit(theory_table(document, table_width()))


def _csv(document: Mapping[str, Any]) -> str:
    """The tests of a comparison, one line each; unknown is empty."""
    cells = document["cells"]
    names = list(dict.fromkeys(name for cell in cells for test in cell["tests"] for name in test))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["cell", "chain", "chains", "alive", *names])
    for cell in cells:
        head = [cell["cell"], chain_in_words(cell["chain"]), cell["chains"], cell["alive"]]
        writer.writerows([*head, *(test.get(name) for name in names)] for test in cell["tests"])
    return text.getvalue().rstrip("\n")
