"""Every law of the registry beside a simulation by the kernels: `python -m bench.law_table` writes docs/theory.md.

The settings are those in which the tests hold each law against real matrices, one a law; here the kernels simulate
them, with a seed of its own.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import gradsim
from gradsim.growth import growth_rate
from gradsim.theory.law import MEAN_FIELD
from gradsim.theory.registry import LAWS, LIMITS, find
from tests.theory import cases, limit_cases

PAGE = Path(__file__).resolve().parent.parent / "docs" / "theory.md"
BEGIN, END = "<!-- law table -->", "<!-- /law table -->"
CHAINS, QUICK_CHAINS, SEED = 20_000, 200, 11
#: Kinds whose law is a rate alone, in a setting where it holds from the first layers on.
RATES = [("gated-near-zero", {"kind": "gru", "width": 200, "depth": 45, "gain": 1.0, "input_scale": 1e-6})]

_HEAD = (
    "| law | validity | source | setting | statistic | predicted | simulated | error |",
    "|---|---|---|---|---|---|---|---|",
)


def settings() -> dict[str, dict[str, Any]]:
    """The first setting in which each law is tested, by law."""
    found: dict[str, dict[str, Any]] = {}
    for case in [*cases.CASES, *limit_cases.CASES]:
        found.setdefault(case.law, case.chain)
    return found | dict(RATES)


def rows(chains: int) -> Iterator[str]:
    """Lines of the table, law by law in the registry's order."""
    by_law = settings()
    for name in (*LAWS, *LIMITS):
        chain = gradsim.Chain(**by_law[name])
        law = find(chain)
        assert law is not None and law.name == name, (name, law)
        cell = gradsim.simulate(chain, chains=chains, seed=SEED, quantities=["log_grad_norm"])
        shown = ", ".join(f"{key} = {value}" for key, value in by_law[name].items())
        head = " | ".join(text.replace("|", "\\|") for text in (name, law.validity, law.source, shown))
        for statistic, *numbers in comparisons(law, cell):
            yield f"| {head} | {statistic} | {' | '.join(f'{x:.4f}' for x in numbers)} |"
            head = " | | | "


def comparisons(law: Any, cell: Any) -> Iterator[tuple[str, float, float, float]]:
    """What the law says of ln||g_0||, what was simulated, and one standard error of that."""
    logs = np.asarray(cell.log_grad_norm[:, 0], dtype=np.float64)
    alive = logs[np.isfinite(logs)]
    n = len(alive)
    if math.isfinite(law.mean[0]):
        yield "mean", float(law.mean[0]), float(alive.mean()), float(alive.std() / math.sqrt(n))
        if law.var is not None and math.isfinite(law.var[0]):
            fourth = float(np.mean((alive - alive.mean()) ** 4))
            error = math.sqrt(max(fourth - float(alive.var()) ** 2, 0.0) / n)
            yield "variance", float(law.var[0]), float(alive.var()), error
    second = law.log_second_moment
    if law.validity == MEAN_FIELD or math.isnan(law.mean[0]):
        if second is None or math.isnan(second[0]):
            yield _rate(law, cell)
            return
        squared = np.exp(2.0 * logs - second[0])
        error = float(squared.std() / math.sqrt(len(squared)) / squared.mean())
        yield "ln of mean square", float(second[0]), float(second[0]) + math.log(float(squared.mean())), error


def _rate(law: Any, cell: Any) -> tuple[str, float, float, float]:
    slopes = -np.diff(np.asarray(cell.log_grad_norm, dtype=np.float64), axis=1).mean(axis=1)
    return "rate", float(law.rate), growth_rate(cell), float(slopes.std() / math.sqrt(len(slopes)))


def main() -> None:
    """Write the table into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few chains, printed and not written")
    quick = parser.parse_args().quick
    table = "\n".join([*_HEAD, *rows(QUICK_CHAINS if quick else CHAINS)])
    if quick:
        print(table)
        return
    page = PAGE.read_text()
    before, after = page[: page.index(BEGIN) + len(BEGIN)], page[page.index(END) :]
    PAGE.write_text(f"{before}\n{table}\n{after}")


if __name__ == "__main__":
    main()
