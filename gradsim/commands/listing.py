"""``gradsim presets`` and ``gradsim bench``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gradsim.commands.output import emit, emit_json, table_width
from gradsim.commands.views import bench_table
from gradsim.tables import Column, Row, render

if TYPE_CHECKING:
    from gradsim.presets import Preset

__all__ = ["bench_command", "presets_command"]


@click.command("presets", short_help="List the presets, or print one.")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
def presets_command(name: str | None, as_json: bool) -> None:
    """List the presets and the claim that each makes, or print one as TOML."""
    from gradsim.presets import list_presets, preset_path

    if name is not None and as_json:
        raise click.UsageError("--json lists the presets: leave out the name")
    if name is not None:
        emit(preset_path(name).read_text(encoding="utf-8").rstrip("\n"))
        return
    found = list_presets()
    if as_json:
        emit_json([{"name": preset.name, "title": preset.title, "claim": preset.claim} for preset in found])
        return
    columns = (Column("preset"), Column("title, and claim", wraps=True))
    groups = [rows for preset in found for rows in _listed(preset)]
    emit(render(columns, groups, table_width()))


def _listed(preset: Preset) -> list[list[Row]]:
    """A preset's name and title, and on a line of its own what it claims."""
    title: list[list[Row]] = [[[preset.name, preset.title]]]
    return title if preset.claim is None else [*title, [["", f"claim: {preset.claim}"]]]


@click.command("bench", short_help="Time the kernels on this machine.")
@click.option("--quick", is_flag=True, help="Fewer repetitions: seconds instead of a minute.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
def bench_command(quick: bool, as_json: bool) -> None:
    """Time the kernels on this machine, beside NumPy and beside the floor."""
    from gradsim.microbench import run_microbench

    document = run_microbench(quick)
    if as_json:
        emit_json(document)
    else:
        emit(bench_table(document, table_width()))
