"""What the commands print: results on standard output, messages on standard error.

A reader that closes the pipe early ends the printing and nothing else: a run goes on, a verdict keeps its
exit status. So does whatever keeps a message from being written; a result that cannot be written is a failure.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import IO, Any

import click

from gradsim.tables import NARROWEST, WIDTH

__all__ = ["coloured", "drop_stream", "emit", "emit_json", "note", "table_width"]

_COLOURS = {"agree": "green", "disagree": "red", "approximate": "yellow"}
_COLOURS |= {"held": "green", "not held": "red", "undecided": "yellow"}


def emit(text: str) -> None:
    """Print a result; an `OSError` says where standard output takes no more, as on a full disk."""
    try:
        click.echo(text)
    except BrokenPipeError:
        drop_stream(sys.stdout)
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard output") from error


def note(text: str) -> None:
    """Print a message."""
    try:
        click.echo(text, err=True)
    except OSError:
        drop_stream(sys.stderr)


def table_width() -> int:
    """Columns for a table on standard output: those of a terminal, up to what a table takes elsewhere."""
    if not sys.stdout.isatty():
        return WIDTH
    return max(NARROWEST, min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns))


def emit_json(document: Any) -> None:
    """Print one JSON document: unknown is null, infinities are ``"inf"`` and ``"-inf"``."""
    from gradsim.documents import json_ready

    emit(json.dumps(json_ready(document), allow_nan=False, indent=1))


def coloured(verdict: str) -> str:
    """A verdict in its colour; click drops the colour where the output is not a terminal."""
    if os.environ.get("NO_COLOR"):
        return verdict
    return click.style(verdict, fg=_COLOURS.get(verdict))


def drop_stream(stream: IO[str]) -> None:
    """Send what is still to be written to ``stream`` nowhere: its reader has gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
