"""Every claim of the presets judged at full size, and every control, which must fail.

``python -m bench.claims`` runs them all and writes bench/results/claims.md; ``--only NAME,...`` runs some and
keeps the other sections; ``--table`` runs nothing and writes the table of claims in docs/claims.md anew.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import gradsim
from gradsim.claim_verdict import NOT_HELD, ClaimVerdict, ExpectationVerdict
from gradsim.experiment import Experiment
from gradsim.presets import list_presets
from gradsim.tables import number

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results" / "claims.md"
DOCS = ROOT / "docs" / "claims.md"
BEGIN, END = "<!-- claims -->\n", "<!-- /claims -->"

_HEAD = """# The presets' claims, judged

Written by `python -m bench.claims`. Intervals have 99 % joint confidence per claim.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge the claims and write the results; returns 1 where a claim does not hold or a control does not fail."""
    parser = argparse.ArgumentParser(prog="python -m bench.claims", description=__doc__)
    parser.add_argument("--only", metavar="NAME[,NAME]", help="presets")
    parser.add_argument("--table", action="store_true", help="only write the table in docs/claims.md")
    options = parser.parse_args(arguments)
    if options.table:
        DOCS.write_text(with_table(DOCS.read_text(encoding="utf-8")), encoding="utf-8")
        return 0
    names = [preset.name for preset in list_presets() if preset.claim is not None]
    sections = _sections()
    wrong = 0
    for name in options.only.split(",") if options.only else names:
        sections[name], right = judged(name)
        print(sections[name], flush=True)
        wrong += not right
        kept = [sections[other] for other in names if other in sections]
        RESULTS.write_text("\n".join([_HEAD, *kept]), encoding="utf-8")
    return min(wrong, 1)


def claims_table() -> str:
    """The presets and their claims, as Markdown."""
    rows = [f"| `{preset.name}` | {preset.claim} |" for preset in list_presets() if preset.claim is not None]
    return "\n".join(["| preset | claim |", "|---|---|", *rows, ""])


def with_table(text: str) -> str:
    """A page with the table between its marks written anew."""
    before, rest = text.split(BEGIN)
    return before + BEGIN + claims_table() + END + rest.split(END)[1]


def judged(name: str) -> tuple[str, bool]:
    """A section about one preset, and whether its claim holds and every control fails."""
    experiment = Experiment.from_toml(_path(name))
    claim, seconds = run(experiment)
    lines = [f"## {name}\n", f"{claim.text}: **{claim.verdict}** ({seconds:.1f} s)\n"]
    lines += ["| expected | found | +- | by | verdict | under its control | verdict |", "|---|---|---|---|---|---|---|"]
    right = bool(claim.held)
    for place, expectation in enumerate(claim.expectations, start=1):
        (control,) = run(experiment.control(place))[0].expectations
        right &= control.verdict == NOT_HELD
        lines.append(_row(expectation, control))
    return "\n".join([*lines, ""]), right


def run(experiment: Experiment) -> tuple[ClaimVerdict, float]:
    """The verdict about an experiment's claim, and the seconds its simulation took."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, gradsim.run(experiment, Path(folder) / "out.h5") as results:
        seconds = time.monotonic() - begun
        claim = gradsim.compare(results).claim
    assert claim is not None
    return claim, seconds


def _row(expectation: ExpectationVerdict, control: ExpectationVerdict) -> str:
    cells = ", ".join(f"{name} = {value}" for name, value in expectation.cells.items())
    what = f"{expectation.quantity}, {expectation.layer}: {cells or 'all'} {expectation.op} {expectation.value}"
    fields = ", ".join(f"{name} = {value}" for name, value in expectation.control.items())
    half = (expectation.high - expectation.low) / 2.0
    return (
        f"| {what} | {_number(expectation.estimate)} | {_number(half)} | {_number(expectation.margin)} "
        f"| {expectation.verdict} | {fields}: {_number(control.estimate)} | {control.verdict} |"
    )


def _number(value: float) -> str:
    return number(value, digits=5)


def _path(name: str) -> Path:
    return next(preset.path for preset in list_presets() if preset.name == name)


def _sections() -> dict[str, str]:
    """The sections that are there, by name."""
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else ""
    parts = text.split("\n## ")[1:]
    return {part.split("\n", 1)[0]: f"## {part.rstrip()}\n" for part in parts}


if __name__ == "__main__":
    sys.exit(main())
