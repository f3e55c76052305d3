"""What people read of the claim in a `compare --json` document. Nothing is computed here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from textwrap import wrap
from typing import Any

from gradsim.tables import WIDTH, Column, Row, counted, number, render

__all__ = ["claim_text"]

Document = Mapping[str, Any]

_EXPECTATIONS = (
    Column("expected", wraps=True),
    Column("wanted", right=True),
    Column("found", right=True),
    Column("+-", right=True),
    Column("by", right=True, minor=True),
    Column("cell", right=True, minor=True),
    Column("verdict"),
)


def claim_text(claim: Document, style: Callable[[str], str] | None = None, width: int = WIDTH) -> str:
    """A claim, whether it held, by how much and with what error.

    Parameters
    ----------
    claim : mapping
        The key ``claim`` of the document.
    style : callable, optional
        Colours the verdicts.
    width : int
        Columns to keep within.
    """
    table = render(_EXPECTATIONS, [[_row(expectation)] for expectation in claim["expectations"]], width, style)
    confidence = f"{counted(claim['intervals'], 'interval')}, {1 - claim['alpha']:.6g} joint confidence"
    sentences = [*_reasons(claim["expectations"]), f"claim {claim['verdict']}: {claim['text']} ({confidence})"]
    lines = [line for sentence in sentences for line in wrap(sentence, width, break_on_hyphens=False)]
    return "\n".join([table, "", *lines])


def _reasons(expectations: Sequence[Document]) -> list[str]:
    """Why expectations are undecided, a sentence each."""
    return [
        f"expectation {number} is undecided in cell {expectation['cell']}"
        f"{'' if expectation['at'] is None else ' at ' + str(expectation['at'])}: {expectation['reason']}"
        for number, expectation in enumerate(expectations, start=1)
        if expectation["reason"]
    ]


def _row(expectation: Document) -> Row:
    half = None if expectation["low"] is None else (expectation["high"] - expectation["low"]) / 2.0
    return [
        _expected(expectation),
        _wanted(expectation),
        number(expectation["estimate"]),
        number(half),
        number(expectation["margin"]),
        str(expectation["cell"]),
        expectation["verdict"],
    ]


def _expected(expectation: Document) -> str:
    """The quantity, where, and of which cells."""
    where = {"rate": "rate", "all": "at every layer"}.get(expectation["layer"], f"at {expectation['layer']}")
    if expectation["layer"] == "all":
        where += f" (here {expectation['at']})"
    cells = " ".join(f"{name}={value}" for name, value in expectation["cells"].items())
    return " ".join(part for part in (expectation["quantity"], where, cells) if part)


def _wanted(expectation: Document) -> str:
    value = expectation["value"]
    if expectation["op"] == "within":
        return f"{value[0]:.8g} to {value[1]:.8g}"
    return f"{expectation['op']} {value:.8g}"
