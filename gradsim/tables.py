"""Plain-text tables, numbers and chains in words, for the command line. Nothing is computed here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from textwrap import wrap
from typing import Any

__all__ = ["NARROWEST", "WIDTH", "Column", "Row", "chain_in_words", "counted", "number", "render"]

#: Columns a table is kept within, and the fewest it is made for.
WIDTH = 100
NARROWEST = 64

_GAP = "  "
_NARROWEST_COLUMN = 12

Row = Sequence[str]


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes
    ----------
    heading : str
    right : bool
        Flush right.
    wraps : bool
        May be made narrower, its words then run on below, beside the group's other rows; or moved to lines of
        its own above them.
    minor : bool
        Left out where there is no room otherwise, the last of these first.
    """

    heading: str
    right: bool = False
    wraps: bool = False
    minor: bool = False


def render(
    columns: Sequence[Column],
    groups: Sequence[Sequence[Row]],
    width: int = WIDTH,
    style: Callable[[str], str] | None = None,
) -> str:
    """A table as text.

    Parameters
    ----------
    columns : sequence of Column
    groups : sequence of sequences of rows
        Rows that belong together; a column that wraps is taken from the first of them.
    width : int
        Lines are kept within it: columns that wrap are made narrower; then their words go above the rows of the
        group, the width of the table; then minor columns are left out. What is still too long stays so.
    style : callable, optional
        Colours the last cell of a row.
    """
    natural = [max(len(c.heading), *(len(row[at]) for rows in groups for row in rows)) for at, c in enumerate(columns)]
    widths = _narrowed(columns, natural, width)
    kept = list(range(len(columns)))
    above: list[int] = []
    if _length(widths) > width:
        above = [at for at in kept if columns[at].wraps]
        kept = _without_minor(columns, natural, [at for at in kept if at not in above], width)
        widths = natural
    columns_kept, widths = [columns[at] for at in kept], [widths[at] for at in kept]
    lines = [_line(columns_kept, widths, [column.heading for column in columns_kept])]
    lines.append(_GAP.join("-" * size for size in widths))
    for group in groups:
        lines += [line for at in above for line in wrap(group[0][at], width, break_on_hyphens=False)]
        unfolded = _unfold(columns_kept, widths, [[row[at] for at in kept] for row in group])
        for cells in zip_longest(*unfolded, fillvalue=""):
            styled = [*cells[:-1], style(cells[-1])] if style is not None and cells[-1] else list(cells)
            lines.append(_line(columns_kept, widths, styled))
    return "\n".join(lines)


def counted(count: int, noun: str) -> str:
    """A number of things in words: ``"1 cell"``, ``"4,096 chains"``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _length(widths: Sequence[int]) -> int:
    """The length of a line."""
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _narrowed(columns: Sequence[Column], natural: Sequence[int], width: int) -> list[int]:
    """The width of each column, the widest of those that wrap made narrower where the line is too long."""
    widths = list(natural)
    for at in sorted(range(len(columns)), key=lambda at: -natural[at]):
        if columns[at].wraps:
            excess = max(0, _length(widths) - width)
            widths[at] -= min(excess, max(0, widths[at] - _NARROWEST_COLUMN))
    return widths


def _without_minor(columns: Sequence[Column], widths: Sequence[int], kept: list[int], width: int) -> list[int]:
    """The columns of these that are kept so that they fit."""
    for at in reversed(kept):
        if columns[at].minor and _length([widths[other] for other in kept]) > width:
            kept = [other for other in kept if other != at]
    return kept


def _unfold(columns: Sequence[Column], widths: Sequence[int], group: Sequence[Row]) -> list[list[str]]:
    """The lines of each column of a group."""
    return [
        wrap(group[0][at], widths[at], break_on_hyphens=False) if column.wraps else [row[at] for row in group]
        for at, column in enumerate(columns)
    ]


def _line(columns: Sequence[Column], widths: Sequence[int], cells: Sequence[str]) -> str:
    padded = [
        cell.rjust(size) if column.right else cell.ljust(size)
        for column, size, cell in zip(columns, widths, cells, strict=True)
    ]
    return _GAP.join(padded).rstrip()


def number(value: float | str | None, digits: int = 4) -> str:
    """A number for a table: fixed point where that reads well, scientific where not, ``-`` for none."""
    if value is None or isinstance(value, str):
        return value or "-"
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if value == 0 or 5 * 10.0**-digits <= abs(value) < 1e5:
        return f"{value:.{digits}f}"
    return f"{value:.{max(digits - 2, 1)}e}"


def chain_in_words(chain: Mapping[str, Any]) -> str:
    """A chain in a few words, such as ``relu n=64 L=50 he``, what is at its default left out.

    Parameters
    ----------
    chain : mapping
        Resolved fields, as `Chain.fields` gives them.
    """
    recurrent = chain["kind"] != "feedforward"
    words = [chain["kind"]] if recurrent else []
    if "activation" in chain:
        words.append(chain["activation"])
    if "negative_slope" in chain:
        words.append(f"slope={chain['negative_slope']:g}")
    if chain["init"] != "gaussian":
        words.append(chain["init"])
    if "profile" in chain:
        words.append(f"n={_profile_in_words(chain['profile'])}")
    else:
        words += [f"n={chain['width']}", f"{'T' if recurrent else 'L'}={chain['depth']}"]
    words.append(chain["gain_name"] or _setting("gain", chain["gain"]))
    if chain["bias"] != 0.0:
        words.append(_setting("bias", chain["bias"]))
    words += _between_layers(chain)
    if chain["input_scale"] != 1.0:
        words.append(_setting("input_scale", chain["input_scale"]))
    if chain.get("input_noise"):
        words.append(_setting("input_noise", chain["input_noise"]))
    if chain.get("forget_bias"):
        words.append(_setting("forget_bias", chain["forget_bias"]))
    if chain["output_gradient"] != "random":
        words.append(f"g_L={chain['output_gradient']}")
    words += [_setting(name, chain[name]) for name in ("clip", "clip_value") if chain.get(name)]
    if chain.get("probes", 1) > 1:
        words.append(f"probes={chain['probes']}")
    return " ".join(words)


def _between_layers(chain: Mapping[str, Any]) -> list[str]:
    """Skip, norm, dropout and batch, where there are any."""
    words = []
    if chain.get("skip"):
        words.append(f"skip={chain['skip_name'] or format(chain['skip'], '.6g')}")
        if chain["carry"] != 1.0:
            words.append(_setting("carry", chain["carry"]))
    if chain.get("norm", "none") != "none":
        words.append(f"{chain['norm']}-norm")
        if chain["norm_position"] != "before":
            words.append(chain["norm_position"])
        if chain["norm_eps"]:
            words.append(_setting("eps", chain["norm_eps"]))
    if chain.get("dropout"):
        words.append(_setting("dropout", chain["dropout"]))
    if chain.get("batch", 1) > 1:
        words.append(f"batch={chain['batch']}")
    return words


def _setting(name: str, value: float | None) -> str:
    """A number by its name; where it differs by layer there is none."""
    return f"{name} by layer" if value is None or math.isnan(value) else f"{name}={value:.6g}"


def _profile_in_words(widths: Sequence[int]) -> str:
    if len(widths) <= 6:
        return ",".join(map(str, widths))
    ends = ",".join(map(str, widths[:3])), ",".join(map(str, widths[-2:]))
    return f"{ends[0]},..,{ends[1]} L={len(widths) - 1}"
