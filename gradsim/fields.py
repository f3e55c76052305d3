"""What a field of an experiment may hold, and the one-line errors for what it may not.

A `Field` checks one value and gives it back in plain Python types, so that everything after it can rely on
``int``, ``float``, ``str`` and ``tuple``. Chains and run settings are both made of fields.
"""

from __future__ import annotations

import json
import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gradsim.errors import ExperimentError

__all__ = ["Field", "Value", "choice", "integer", "number", "plain", "reject", "show", "unknown_key"]

Value = int | float | str | tuple[int, ...] | tuple[str, ...]

#: Magnitudes beyond these leave float32 once divided or multiplied by the root of a width.
SMALLEST: Final = 1e-30
LARGEST: Final = 1e30


class Unsuitable(Exception):
    """A value that a field cannot hold."""


@dataclass(frozen=True)
class Field:
    """One named setting: what it may hold, in words and as a check.

    Attributes
    ----------
    name : str
        The key in a file.
    meaning : str
        What it is, in a few words, for the help of its flag.
    allowed : str
        Completes the sentence "<name> is ...".
    check : callable
        Plain value -> normalised value; raises `Unsuitable`.
    form : str
        How the text of a flag is read: "integer" and "number" (a range makes sense), "text", "profile", and
        for settings, which form no axis, "line" (taken as it is) and "list".
    supported : tuple of str
        The names that can be chosen from, where the field holds a name.
    """

    name: str
    meaning: str
    allowed: str
    check: Callable[[object], Value]
    form: str
    supported: tuple[str, ...] = ()

    def normalise(self, value: object) -> Value:
        """Return `value` in plain types; an `ExperimentError` names key, value and what is allowed."""
        value = plain(value)
        try:
            return self.check(value)
        except Unsuitable:
            raise ExperimentError(reject(self.name, value, f"{self.name} is {self.allowed}")) from None


def choice(name: str, meaning: str, supported: Sequence[str]) -> Field:
    """Make a field that holds one of the `supported` names."""

    def check(value: object) -> str:
        return pick(value, supported)

    return Field(name, meaning, f"one of {', '.join(supported)}", check, "text", tuple(supported))


def integer(name: str, meaning: str, low: int, high: int) -> Field:
    """Make a field that holds an integer from `low` to `high`."""

    def check(value: object) -> int:
        return whole(value, low, high)

    return Field(name, meaning, f"an integer from {low} to {high}", check, "integer")


def number(name: str, meaning: str, low: float = 0.0, *, above: bool = False) -> Field:
    """Make a field that holds a finite number: any, one >= 0, or with `above` one > 0."""

    def check(value: object) -> float:
        return real(value, low, above=above)

    if low == -math.inf:
        words = f"a number from -{LARGEST:g} to {LARGEST:g}"
    elif above:
        words = f"a number from {SMALLEST:g} to {LARGEST:g}"
    else:
        words = f"{low:g} or a number from {SMALLEST:g} to {LARGEST:g}"
    return Field(name, meaning, words, check, "number")


def pick(value: object, supported: Sequence[str]) -> str:
    """Return `value` if it is one of the supported names."""
    if isinstance(value, str) and value in supported:
        return value
    raise Unsuitable


def whole(value: object, low: int, high: int) -> int:
    """Return `value` if it is an integer, not a boolean, within the bounds."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or not low <= int(value) <= high:
        raise Unsuitable
    return int(value)


def real(value: object, low: float = 0.0, *, above: bool = False) -> float:
    """Return `value` as a finite float within the bounds; a negative zero becomes zero."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise Unsuitable
    try:
        result = float(value) + 0.0
    except OverflowError:
        raise Unsuitable from None
    if not low <= result or (above and result <= low) or not abs(result) <= LARGEST:
        raise Unsuitable
    if 0.0 < abs(result) < SMALLEST:
        raise Unsuitable
    return result


def plain(value: object) -> object:
    """Turn NumPy scalars into Python numbers, arrays and sequences into lists; leave all else alone."""
    tolist = getattr(value, "tolist", None)
    if callable(tolist):
        return tolist()
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else value


def show(value: object, limit: int = 80) -> str:
    """Write a value on one line the way a TOML file would, cut where it is long."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        # Too deep, of no type that TOML has, or an integer longer than Python converts.
        text = "a number of thousands of digits" if isinstance(value, int) else f"a {type(value).__name__}"
    if isinstance(value, float) and not math.isfinite(value):
        text = str(value)
    text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= limit else f"{text[: limit - 4]} ..."


def reject(name: str, value: object, allowed: str) -> str:
    """Write the line for a value that is not allowed."""
    return f"{name} = {show(value)} is not allowed: {allowed}"


def unknown_key(name: object, known: Iterable[str]) -> ExperimentError:
    """Make the error for a key that does not exist, with the closest that does."""
    import difflib

    known = list(known)
    close = difflib.get_close_matches(str(name), known, n=1)
    hint = f"; did you mean {show(close[0])}?" if close else ""
    return ExperimentError(f"unknown key {show(name)}{hint} (allowed: {', '.join(known)})")


def check_keys(table: Mapping[str, object], known: Mapping[str, Field]) -> None:
    """Refuse the first key of `table` that is not `known`."""
    for name in table:
        if name not in known:
            raise unknown_key(name, known)
