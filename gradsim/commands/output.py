"""What the commands print: results on standard output, messages on standard error.

A reader that closes the pipe early ends the printing and nothing else: a run goes on, a verdict keeps its
exit status.
"""

from __future__ import annotations

import json
import os
import sys
from typing import IO, Any

import click

__all__ = ["coloured", "drop_stream", "emit", "emit_json", "note"]

_COLOURS = {"agree": "green", "disagree": "red", "approximate": "yellow"}


def emit(text: str) -> None:
    """Print a result."""
    _echo(text, err=False)


def note(text: str) -> None:
    """Print a message."""
    _echo(text, err=True)


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


def _echo(text: str, err: bool) -> None:
    try:
        click.echo(text, err=err)
    except BrokenPipeError:
        drop_stream(sys.stderr if err else sys.stdout)
