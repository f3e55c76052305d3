"""Field flags: every chain field and every setting as an option, made from the vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import click

from gradsim.fields import Field, check_keys
from gradsim.vocabulary import CHAIN_FIELDS, HEAD_FIELDS, LATER_FIELDS, RUN_FIELDS

__all__ = ["SectionedCommand", "experiment_flags", "take_overrides"]

Function = TypeVar("Function", bound=Callable[..., Any])

_HEAD_FLAGS = {name: field for name, field in HEAD_FIELDS.items() if name != "title"}
_METAVARS = {
    "integer": "INTEGER",
    "number": "NUMBER",
    "text": "NAME",
    "profile": "N,N,...",
    "list": "NAME,...",
}
_CHAIN, _RUN = "Chain fields (commas or FROM:TO:NUM make an axis)", "Run settings"


class FieldOption(click.Option):
    """An option made from a field, listed under its own heading."""

    section = ""


class SectionedCommand(click.Command):
    """A command whose help lists field flags under headings of their own."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options: the command's own first, then chain fields and run settings."""
        sections: dict[str, list[tuple[str, str]]] = {"Options": [], _CHAIN: [], _RUN: []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                sections[getattr(parameter, "section", "Options")].append(record)
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


def experiment_flags(function: Function) -> Function:
    """Add a flag for every chain field and every setting; `take_overrides` reads them.

    Fields that no kernel supports yet are flags too, left out of the help, so that they are refused by name.
    """
    for name in reversed(LATER_FIELDS):
        function = _option(name, _CHAIN, hidden=True)(function)
    for section, fields in ((_RUN, RUN_FIELDS), (_CHAIN, {**CHAIN_FIELDS, **_HEAD_FLAGS})):
        for field in reversed(fields.values()):
            function = _option(field.name, section, field)(function)
    return function


def take_overrides(values: dict[str, Any]) -> dict[str, Any]:
    """Take the field flags out of a command's parameters; the texts of those that were given, by field.

    Raises
    ------
    ExperimentError
        For a field that no kernel supports yet.
    """
    given = {name: texts for name in _names() if (texts := values.pop(name))}
    check_keys({name: given[name][-1] for name in given if name in LATER_FIELDS}, CHAIN_FIELDS, LATER_FIELDS)
    return {name: _texts(name, texts) for name, texts in given.items()}


def starts_from_defaults(overrides: Mapping[str, Any]) -> bool:
    """Whether such flags, without an experiment, make one: a chain field, chains or seed is among them."""
    return any(name in CHAIN_FIELDS or name in _HEAD_FLAGS for name in overrides)


def _names() -> Iterable[str]:
    return [*CHAIN_FIELDS, *LATER_FIELDS, *_HEAD_FLAGS, *RUN_FIELDS]


def _texts(name: str, texts: tuple[str, ...]) -> tuple[str, ...]:
    """The texts that count: every one of a profile, which may be repeated, else the last."""
    return texts if name == "profile" else texts[-1:]


def _option(
    name: str, section: str, field: Field | None = None, hidden: bool = False
) -> Callable[[Function], Function]:
    metavar = _METAVARS.get(field.form, "TEXT") if field is not None else "TEXT"
    text = f"{field.allowed}." if field is not None else None

    def decorate(function: Function) -> Function:
        decorated = click.option(
            f"--{name.replace('_', '-')}",
            name,
            cls=FieldOption,
            multiple=True,
            metavar=metavar,
            help=text,
            hidden=hidden,
        )(function)
        decorated.__click_params__[-1].section = section  # type: ignore[attr-defined]
        return decorated

    return decorate
