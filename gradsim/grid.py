"""Grids: a table of chain fields, some of them axes, and the cells it stands for.

A raw table comes from TOML, JSON, Python or flags. `read_table` turns it into a `Table`, in which a list is
an axis and anything else is one value; `expand` gives the cells, the product of the axes in the order
written with the last varying fastest.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from gradsim.errors import ExperimentError
from gradsim.fields import Field, Unsuitable, Value, check_keys, plain, real, show, unknown_key, whole
from gradsim.vocabulary import ALIASES, CHAIN_FIELDS, HEAD_FIELDS, RUN_FIELDS

__all__ = ["MAX_CELLS", "Table", "count_cells", "expand", "override", "parse_flag", "read_axis", "read_table"]

#: One value per field, or a list of values where the field is an axis.
Table = dict[str, Value | list[Value]]

#: Cells of one experiment: each is at least one block of work.
MAX_CELLS: Final = 10_000

_RANGE_KEYS = ("from", "to", "num", "scale")


def read_table(raw: Mapping[str, object]) -> Table:
    """Check the fields of one raw table and normalise their values, keeping their order.

    Raises
    ------
    ExperimentError
        For an unknown field, a value that its field cannot hold, or an axis that is empty or repeats itself.
    """
    check_keys(raw, CHAIN_FIELDS)
    return {name: read_axis(CHAIN_FIELDS[name], value) for name, value in raw.items()}


def read_axis(field: Field, raw: object) -> Value | list[Value]:
    """Return one value of `field`, or the list of its values where `raw` is a list or a range."""
    raw = plain(raw)
    if isinstance(raw, Mapping):
        return _read_range(field, raw)
    if not isinstance(raw, list) or (field.form == "profile" and not _is_list_of_lists(raw)):
        return field.normalise(raw)
    if not raw:
        raise ExperimentError(f"{field.name} = [] is an empty axis: list at least one value")
    if len(raw) > MAX_CELLS:
        raise ExperimentError(f"{field.name} lists {len(raw)} values: an experiment has at most {MAX_CELLS} cells")
    return _distinct(field, [field.normalise(value) for value in raw])


def override(table: Table, overrides: Table) -> Table:
    """Return `table` with the fields of `overrides` in place of its own, their axes after its axes.

    A profile drops the table's width and depth, and either of these drops its profile.
    """
    gone = set(overrides)
    if "profile" in overrides:
        gone |= {"width", "depth"}
    if gone & {"width", "depth"}:
        gone.add("profile")
    return {name: value for name, value in table.items() if name not in gone} | overrides


def count_cells(table: Table) -> int:
    """Return the number of cells a table stands for, without making them."""
    return math.prod(len(value) for value in table.values() if isinstance(value, list))


def expand(table: Table) -> Iterator[dict[str, Value]]:
    """Yield the cells of a table, one value per field, the last axis varying fastest."""
    axes = [value if isinstance(value, list) else [value] for value in table.values()]
    for values in itertools.product(*axes):
        yield dict(zip(table, values, strict=True))


def parse_flag(name: str, text: str | Sequence[str]) -> Value | list[Value]:
    """Turn the text of a command-line flag into the value or axis it stands for.

    Parameters
    ----------
    name : str
        A chain field or a setting such as ``chains`` or ``dtype``, with underscores.
    text : str or sequence of str
        Values separated by commas, or FROM:TO:NUM for evenly spaced numbers. The text of a profile is one
        profile; a sequence holds the texts of a repeated flag, which form an axis.

    Raises
    ------
    ExperimentError
        Naming the flag, the value and what is allowed.
    """
    field = CHAIN_FIELDS.get(name) or HEAD_FIELDS.get(name) or RUN_FIELDS.get(name)
    flag = f"--{name.replace('_', '-')}"
    try:
        if field is None:
            raise unknown_key(name, [*CHAIN_FIELDS, *HEAD_FIELDS, *RUN_FIELDS])
        texts = [text] if isinstance(text, str) else list(text)
        if name not in CHAIN_FIELDS:
            return field.normalise(_setting_of(field, texts))
        return read_axis(field, _axis_of(field, texts))
    except ExperimentError as error:
        raise ExperimentError(f"{flag}: {error}") from None


def _setting_of(field: Field, texts: list[str]) -> object:
    """Return the raw value of a setting: a list takes every text, anything else the last."""
    if field.form == "list":
        return [item.strip() for text in texts for item in text.split(",")]
    text = texts[-1] if texts else ""
    return text if field.form == "line" else _scalar_of(field, text)


def _axis_of(field: Field, texts: list[str]) -> object:
    """Return the raw value or axis of a chain field."""
    if field.form == "profile":
        profiles = [[_scalar_of(field, item) for item in text.split(",")] for text in texts]
        return profiles[0] if len(profiles) == 1 else profiles
    items = [item.strip() for text in texts for item in text.split(",")]
    if len(items) != 1:
        return [_scalar_of(field, item) for item in items]
    if field.form == "text" or ":" not in items[0]:
        return _scalar_of(field, items[0])
    bounds = items[0].split(":")
    if len(bounds) != 3:
        raise ExperimentError(f"{field.name} = {show(items[0])} is not allowed: a range is FROM:TO:NUM")
    return dict(zip(_RANGE_KEYS, (_scalar_of(field, bound) for bound in bounds), strict=False))


def _scalar_of(field: Field, text: str) -> object:
    """Return text as the number it is, or as it stands where it is none."""
    text = text.strip()
    if field.form != "text":
        for number_type in (int, float):
            try:
                return number_type(text)
            except ValueError:
                continue
    return text


def _is_list_of_lists(raw: Sequence[object]) -> bool:
    return not raw or any(isinstance(plain(value), list) for value in raw)


def _read_range(field: Field, raw: Mapping[str, object]) -> list[Value]:
    """Return the values of a range {from, to, num, scale}.

    Values are rounded to twelve significant digits, integers for a field of integers, so that a range
    names the same chains as the list that writes its values out.
    """
    if field.form not in ("integer", "number"):
        raise ExperimentError(f"{field.name} holds no numbers, so it takes a value or a list and no range")
    start, stop, num, scale = _range_bounds(field, raw)
    for key in ("from", "to"):
        field.normalise(raw[key])
    steps = [i / (num - 1) for i in range(num)]
    if scale == "log":
        values = [start * (stop / start) ** step for step in steps]
    else:
        values = [start * (1 - step) + stop * step for step in steps]
    values = [start, *(float(f"{value:.12g}") for value in values[1:-1]), stop]
    if field.form == "integer":
        return _distinct(field, [field.normalise(round(value)) for value in values])
    return _distinct(field, [field.normalise(value) for value in values])


def _range_bounds(field: Field, raw: Mapping[str, object]) -> tuple[float, float, int, str]:
    """Check the keys of a range and return from, to, num and scale."""
    for key in raw:
        if key not in _RANGE_KEYS:
            raise ExperimentError(f"in the range of {field.name}: {unknown_key(key, _RANGE_KEYS)}")
    for key in ("from", "to", "num"):
        if key not in raw:
            raise ExperimentError(f"the range of {field.name} lacks {key}: give from, to and num")
    scale = raw.get("scale", "linear")
    try:
        key, allowed = "num", f"an integer from 2 to {MAX_CELLS}"
        num = whole(plain(raw["num"]), 2, MAX_CELLS)
        key, allowed = "scale", 'one of "linear", "log"'
        if scale not in ("linear", "log"):
            raise Unsuitable
        low, allowed = (0.0, "a number > 0 on a log scale") if scale == "log" else (-math.inf, "a finite number")
        key = "from"
        start = real(plain(raw[key]), low, above=scale == "log")
        key = "to"
        stop = real(plain(raw[key]), low, above=scale == "log")
    except Unsuitable:
        text = f"in the range of {field.name}: {key} = {show(raw.get(key))} is not allowed: it is {allowed}"
        raise ExperimentError(text) from None
    return start, stop, num, str(scale)


def _distinct(field: Field, values: list[Value]) -> list[Value]:
    """Refuse an axis that holds a value twice, under one name or two."""
    seen: dict[Value, Value] = {}
    for value in values:
        meant = ALIASES.get(value, value) if isinstance(value, str) else value
        if meant in seen:
            first = seen[meant]
            text = f"{show(value)} twice" if value == first else f"{show(first)} and {show(value)}, which are the same"
            raise ExperimentError(f"{field.name} holds {text}: an axis lists each value once")
        seen[meant] = value
    return values
