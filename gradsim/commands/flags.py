"""Field flags: every chain field and every setting as an option, made from the vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import click

from gradsim.fields import Field, Value
from gradsim.vocabulary import CHAIN_FIELDS, DEFAULTS, HEAD_FIELDS, OTHER_DEFAULTS, RUN_FIELDS, SETTING_DEFAULTS

__all__ = ["SectionedCommand", "chain_flags", "experiment_flags", "take_overrides"]

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

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse; what is close to an unknown option is suggested only where the help shows it."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            shown = {name for option in self.get_params(ctx) if _is_shown(option) for name in option.opts}
            possibilities = [name for name in error.possibilities or () if name in shown]
            raise click.NoSuchOption(error.option_name, possibilities=possibilities, ctx=error.ctx) from None

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
    """Add a flag for every chain field and every setting; `take_overrides` reads them."""
    return _add_flags(function, settings_shown=True)


def chain_flags(function: Function) -> Function:
    """Add the same flags for a command that simulates nothing: settings are accepted, and left out of the help."""
    return _add_flags(function, settings_shown=False)


def take_overrides(values: dict[str, Any]) -> dict[str, Any]:
    """Take the field flags out of a command's parameters; the texts of those that were given, by field."""
    given = {name: texts for name in _names() if (texts := values.pop(name))}
    return {name: _texts(name, texts) for name, texts in given.items()}


def starts_from_defaults(overrides: Mapping[str, Any]) -> bool:
    """Whether such flags, without an experiment, make one: a chain field, chains or seed is among them."""
    return any(name in CHAIN_FIELDS or name in _HEAD_FLAGS for name in overrides)


def _add_flags(function: Function, settings_shown: bool) -> Function:
    """Decorate with every flag, the last to be listed first."""
    for section, fields, shown in ((_RUN, _HEAD_FLAGS | RUN_FIELDS, settings_shown), (_CHAIN, CHAIN_FIELDS, True)):
        for field in reversed(fields.values()):
            function = _option(field, section, hidden=not shown)(function)
    return function


def _is_shown(parameter: click.Parameter) -> bool:
    return isinstance(parameter, click.Option) and not parameter.hidden


def _names() -> Iterable[str]:
    return [*CHAIN_FIELDS, *_HEAD_FLAGS, *RUN_FIELDS]


def _texts(name: str, texts: tuple[str, ...]) -> tuple[str, ...]:
    """The texts that count: every one of a profile, which may be repeated, else the last."""
    return texts if name == "profile" else texts[-1:]


def _help_of(field: Field) -> str:
    """What a field is, may be, and is where it is not given."""
    default = (DEFAULTS | SETTING_DEFAULTS).get(field.name)
    text = f"{field.meaning}; {field.allowed}"
    if default is None:
        return text
    other = f"; {OTHER_DEFAULTS[field.name]}" if field.name in OTHER_DEFAULTS else ""
    return f"{text} [default: {_default_text(field, default)}{other}]"


def _default_text(field: Field, default: Value) -> str:
    """A default as its flag would take it."""
    if isinstance(default, tuple):
        return "all" if default == field.supported else ",".join(map(str, default))
    return default if isinstance(default, str) else f"{default:g}"


def _option(field: Field, section: str, hidden: bool) -> Callable[[Function], Function]:
    def decorate(function: Function) -> Function:
        decorated = click.option(
            f"--{field.name.replace('_', '-')}",
            field.name,
            cls=FieldOption,
            multiple=True,
            metavar=_METAVARS.get(field.form, "TEXT"),
            help=_help_of(field),
            hidden=hidden,
        )(function)
        decorated.__click_params__[-1].section = section  # type: ignore[attr-defined]
        return decorated

    return decorate
