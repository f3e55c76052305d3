"""``gradsim info`` and ``gradsim verify``: what a result file holds, and whether it is whole."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from gradsim.commands.output import emit, emit_json, table_width
from gradsim.commands.overflow_views import overflow_text
from gradsim.commands.views import info_text
from gradsim.errors import ResultFileError

if TYPE_CHECKING:
    from gradsim.experiment import Experiment
    from gradsim.results import Cell, Results
    from gradsim.store.unfinished import Unfinished

__all__ = ["info_command", "verify_command"]


@click.command("info", short_help="Say what a result file holds and how far it is.")
@click.argument("file", metavar="FILE")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
def info_command(file: str, as_json: bool) -> None:
    """Say what a result file holds, and how far its run is."""
    from gradsim.documents import json_ready
    from gradsim.store import find_unfinished, open_result

    unfinished = None if os.path.lexists(file) else find_unfinished(file)
    if unfinished is not None:
        document = json_ready(_unfinished_info(unfinished))
    else:
        with open_result(file) as results:
            document = json_ready(_info(results))
    if as_json:
        emit_json(document)
    else:
        overflow = overflow_text(document["cells"], table_width())
        emit("\n\n".join(text for text in (info_text(document, table_width()), overflow) if text))


@click.command("verify", short_help="Check that a result file is whole and as written.")
@click.argument("file", metavar="FILE")
def verify_command(file: str) -> None:
    """Check a result file: its bytes, completeness, schema and content.

    Exit status 1, with the reason, where something is not as it was written.
    """
    from gradsim.store import verify_file

    problems = verify_file(file)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ResultFileError(f"{file}: {problems[0]}{more}")
    emit(f"{file}: sound: every byte is as it was written, and the content is complete")


def _info(results: Results) -> dict[str, Any]:
    """What `info --json` prints of a complete file."""
    attributes = results.attributes
    return {
        "file": str(results.path),
        "bytes": os.path.getsize(results.path),
        "complete": bool(attributes["complete"]),
        "running": False,
        **_settings(results.experiment),
        **{name: attributes[name] for name in ("format_version", "stream_version", "gradsim_version")},
        **{name: attributes[name] for name in ("created", "content_sha256")},
        "provenance": results.provenance,
        "cells": [_cell_info(cell, seconds) for cell, seconds in zip(results, _cell_seconds(results), strict=True)],
    }


def _unfinished_info(unfinished: Unfinished) -> dict[str, Any]:
    """What `info --json` prints of a file that is not there yet."""
    experiment = unfinished.experiment
    cells = enumerate(zip(experiment.cells, unfinished.chains_done, strict=True))
    return {
        "file": str(unfinished.path),
        "bytes": None,
        "complete": False,
        "running": unfinished.running,
        "owner": unfinished.owner,
        **_settings(experiment),
        "cells": [
            {
                "cell": index,
                "chain": chain.fields(),
                "chains": experiment.chains,
                "chains_done": done,
                **dict.fromkeys(("log_grad_norm_mean", "log_grad_norm_var", "rate", "dead", "nonfinite", "seconds")),
                "overflow": None,
            }
            for index, (chain, done) in cells
        ],
    }


def _settings(experiment: Experiment) -> dict[str, Any]:
    names = ("title", "seed", "method", "device", "dtype", "record", "streams")
    settings = {name: getattr(experiment, name) for name in names}
    return settings | {"quantities": list(experiment.quantities), "experiment_hash": experiment.hash}


def _cell_seconds(results: Results) -> list[float | None]:
    """What each cell took, where that was noted; the provenance is whatever a file says."""
    noted = results.provenance.get("cell_seconds")
    if not isinstance(noted, list) or len(noted) != len(results):
        return [None] * len(results)
    return [float(value) if isinstance(value, int | float) else None for value in noted]


def _cell_info(cell: Cell, seconds: float | None) -> dict[str, Any]:
    from gradsim.growth import growth_rate
    from gradsim.overflow import crossings
    from gradsim.theory.registry import find

    summary = cell.summary
    return {
        "cell": cell.index,
        "chain": cell.chain.fields(),
        "chains": cell.chains,
        "chains_done": cell.chains_done,
        "log_grad_norm_mean": summary["log_grad_norm_mean"][0],
        "log_grad_norm_var": summary["log_grad_norm_var"][0],
        "rate": growth_rate(cell),
        "dead": summary["dead"][0],
        "nonfinite": summary["nonfinite"][0],
        "seconds": seconds,
        "overflow": [asdict(crossing) for crossing in crossings(cell, find(cell.chain))],
    }
