"""What people read of the layers where number formats overflow, in `info` and `compare --json` documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

from gradsim.tables import WIDTH, Column, Row, counted, render

__all__ = ["overflow_text"]

Document = Mapping[str, Any]

_CROSSINGS = (
    Column("cell", right=True),
    Column("format"),
    Column("the gradient is"),
    Column("layer, median", right=True),
    Column("5 to 95 %", right=True),
    Column("never", right=True),
    Column("dead", right=True, minor=True),
    Column("unknown", right=True, minor=True),
    Column("theory", right=True),
)
_WORDS = {"overflow": "inf", "subnormal": "imprecise", "underflow": "0"}


def overflow_text(cells: Sequence[Document], width: int = WIDTH) -> str:
    """Where the chains of each cell leave which format, going backward; empty where that was not recorded.

    Parameters
    ----------
    cells : sequence of mapping
        Those of the document.
    width : int
        Columns to keep within.
    """
    found = [(cell["cell"], crossing) for cell in cells for crossing in cell["overflow"] or ()]
    if not found:
        return ""
    rows = [_row(cell, crossing) for cell, crossing in found if _says_something(crossing)]
    if not rows:
        names = list(dict.fromkeys(crossing["format"] for _, crossing in found))
        return "\n".join(wrap(f"every gradient stays within {', '.join(names[:-1])} and {names[-1]}", width))
    chains = counted(max(crossing["chains"] for _, crossing in found), "chain")
    heading = f"the layer, going backward, where a gradient kept in a number format would leave it; of {chains} a cell"
    return "\n".join([*wrap(heading, width), "", render(_CROSSINGS, [[row] for row in rows], width)])


def _says_something(crossing: Document) -> bool:
    return bool(crossing["crossed"]) or crossing["theory_layer"] is not None


def _row(cell: int, crossing: Document) -> Row:
    return [
        str(cell),
        crossing["format"],
        _WORDS[crossing["event"]],
        _layer(crossing["median"]),
        f"{_layer(crossing['early'])} to {_layer(crossing['late'])}",
        *(f"{crossing[name]:,}" for name in ("never", "dead", "unknown")),
        _layer(crossing["theory_layer"]),
    ]


def _layer(layer: int | None) -> str:
    return "-" if layer is None else str(layer)
