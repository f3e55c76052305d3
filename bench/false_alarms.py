"""How often `compare` rejects what is right, and finds what is wrong by as much as it says it can find.

``python -m bench.false_alarms --runs 250`` adds that many fresh seeds to bench/results/false_alarms.json, so that it
can be done in pieces, and writes bench/results/false_alarms.md from all there are. ``--from-laws 2000`` adds as many
runs whose trajectories are drawn from the laws themselves, in NumPy, without a kernel.

False alarms: experiments like the preset ``quick``, only smaller, are simulated and compared in full; a run in which
any test of an exact law is rejected is a false alarm. Holm keeps their frequency at most alpha. A run is one where the
smallest of m p-values is at most alpha/m, which independent tests of that size do with probability
1 - (1 - alpha/m)^m; that of deaths is discrete and does it less often (see `expected_alarms`). The band is around that
frequency.

Power: the gain of what is simulated is wrong by exactly `detectable_gain_error`, and the test of the mean has to find
that with frequency 0.9.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import gradsim
from gradsim.chain import Chain
from gradsim.comparison import compare
from gradsim.results import Cell
from gradsim.significance import binomial_p
from gradsim.theory.registry import find
from tests.cells import StandIn, draw

RESULTS = Path(__file__).resolve().parent / "results"
RECORD, REPORT = RESULTS / "false_alarms.json", RESULTS / "false_alarms.md"

CHAINS = 256
LINEAR = Chain(activation="linear", width=16, depth=20, gain=1.0)
RELU = Chain(activation="relu", width=16, depth=20, gain="he")
ORTHOGONAL = Chain(kind="recurrent", activation="linear", init="orthogonal", width=16, depth=20, gain=1.0)
LEVELS = (0.01, 0.05, 0.1)
POWER = 0.9
#: Probability that a frequency leaves its binomial band although all is right.
BAND = 0.001
# Tests of a cell with a continuous p-value: mean, variance, KS, increments.
_CONTINUOUS = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Add runs and write the report; returns 1 where a frequency lies outside its band."""
    parser = argparse.ArgumentParser(prog="python -m bench.false_alarms", description=__doc__)
    parser.add_argument("--runs", type=int, default=0, metavar="N", help="fresh seeds to add")
    parser.add_argument("--from-laws", type=int, default=0, metavar="N", help="runs drawn from the laws to add")
    parser.add_argument("--minutes", type=float, default=3.5, help="stop adding after this time")
    options = parser.parse_args(arguments)
    record = load()
    begun = time.monotonic()
    for _ in range(options.runs):
        if time.monotonic() - begun > 60 * options.minutes:
            break
        add_run(record, seed=len(record["smallest_p"]))
    for _ in range(options.from_laws):
        if time.monotonic() - begun > 60 * options.minutes:
            break
        record["from_laws"].append(smallest_p(drawn_from_laws(seed=len(record["from_laws"]))))
    save(record)
    text, right = report(record)
    REPORT.write_text(text, encoding="utf-8")
    print(text)
    return 0 if right else 1


def load() -> dict[str, Any]:
    """What was found so far, one entry per seed 0, 1, 2, ..."""
    if RECORD.exists():
        record: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8"))
        return {"from_laws": []} | record
    return {"chains": CHAINS, "smallest_p": [], "from_laws": [], "found": {"linear": [], "relu": []}}


def save(record: dict[str, Any]) -> None:
    """Write the record."""
    RECORD.write_text(json.dumps(record, separators=(",", ":")) + "\n", encoding="utf-8")


def add_run(record: dict[str, Any], seed: int) -> None:
    """One seed: the smallest adjusted p-value of an experiment, and whether wrong gains were found in two cells."""
    record["smallest_p"].append(smallest_p([gradsim.simulate(c, CHAINS, seed) for c in (LINEAR, RELU, ORTHOGONAL)]))
    for name, chain in (("linear", LINEAR), ("relu", RELU)):
        record["found"][name].append(int(is_found(chain, seed)))


def smallest_p(cells: Sequence[Cell | StandIn]) -> float:
    """Smallest adjusted p-value; 0 where a law without a p-value (no spread, no deaths) is rejected."""
    comparison = compare(cells)
    tests = [test for cell in comparison.cells for test in cell.tests]
    if any(test.verdict == "disagree" and math.isnan(test.p) for test in tests):
        return 0.0
    return float(f"{min(test.p_adjusted for test in tests if not math.isnan(test.p)):.4g}")


def drawn_from_laws(seed: int) -> list[Any]:
    """The cells with p-values, their trajectories from chi-squared and beta variables."""
    rng = np.random.default_rng(seed)
    return [StandIn(chain, draw(chain, CHAINS, rng)) for chain in (LINEAR, RELU)]


def is_found(chain: Chain, seed: int, alpha: float = 0.01) -> bool:
    """Whether the mean rejects a gain that is off by exactly the error it is said to find.

    That error depends on how many survive: it is the one that the chains with the right gain state.
    """
    law = find(chain)
    assert law is not None
    (right,) = compare(gradsim.simulate(chain, CHAINS, seed), alpha).cells
    wrong = chain.replace(gain=float(chain.gains[0]) * (1.0 + right.detectable_gain_error))
    (found,) = compare(gradsim.simulate(wrong, CHAINS, seed), alpha, laws=lambda _: law).cells
    (mean,) = (test for test in found.tests if test.statistic == "mean")
    return mean.p <= alpha / sum(not math.isnan(test.p) for test in found.tests)


def band(n: int, p: float) -> tuple[int, int]:
    """Counts of n that a probability p leaves with probability at most `BAND`."""
    from scipy.stats import binom

    return int(binom.ppf(BAND / 2, n, p)), int(binom.ppf(1.0 - BAND / 2, n, p))


def expected_alarms(alpha: float) -> float:
    """Frequency of false alarms if all tests were independent, and all but that of deaths of exactly their level.

    The law without spread of the third cell has no p-value. Of the others, mean, variance, KS and increments are
    continuous. Deaths are a count: its test is rejected by the counts whose p-value is at most the level alpha/m.
    """
    chances = [float(law.p_dead[0]) for chain in (LINEAR, RELU) if (law := find(chain)) is not None]
    deadly = [p for p in chances if p > 0.0]
    m = _CONTINUOUS * len(chances) + len(deadly)
    none = (1.0 - alpha / m) ** (_CONTINUOUS * len(chances))
    return 1.0 - none * math.prod(1.0 - death_size(alpha / m, CHAINS, p) for p in deadly)


def death_size(level: float, chains: int, p: float) -> float:
    """Probability that the test of deaths has a p-value at most `level` under its own law."""
    from scipy.stats import binom

    return float(sum(binom.pmf(k, chains, p) for k in range(chains + 1) if binomial_p(k, chains, p) <= level))


def report(record: dict[str, Any]) -> tuple[str, bool]:
    """The record as Markdown, and whether every frequency lies within its band."""
    n, laws = len(record["smallest_p"]), len(record["from_laws"])
    lines = [
        "# False alarms and power of `gradsim compare`\n",
        f"Written by `python -m bench.false_alarms`; {n:,} seeds, {record['chains']} chains a cell, float32. Cells:",
        f"linear and ReLU of width {LINEAR.width} and depth {LINEAR.depth}, recurrent orthogonal of the same size.",
        f"A band is what a right frequency leaves with probability {BAND:g}. Holm's alpha is an upper bound: m",
        "independent tests come to 1 - (1 - alpha/m)^m, and the discrete test of deaths has less than its share. That",
        "is what is expected, still a little high: tests of one cell are dependent (mean, KS), and some p-values err",
        f"on the safe side. From the laws: {laws:,} runs drawn from the laws in NumPy, with one standard error.\n",
        "| false alarms at alpha | of runs | frequency | from the laws | expected | band | |",
        "|---|---|---|---|---|---|---|",
    ]
    right = True
    for alpha in LEVELS:
        count = sum(p <= alpha for p in record["smallest_p"])
        expected = expected_alarms(alpha)
        low, high = band(n, expected)
        # The expectation is an upper bound: fewer are no fault, and are shown.
        right &= count <= high
        verdict = "within" if low <= count <= high else "fewer" if count < low else "TOO MANY"
        frequency = f"{count / max(n, 1):.4f} | {_frequency(record['from_laws'], alpha)} | {expected:.4f}"
        lines.append(f"| {alpha:g} | {count} of {n:,} | {frequency} | {low} to {high} | {verdict} |")
    lines += [
        "",
        "| gain off by the detectable error | found | frequency | band around 0.9 | |",
        "|---|---|---|---|---|",
    ]
    for name, found in record["found"].items():
        n, count = len(found), sum(found)
        low, high = band(n, POWER)
        right &= low <= count <= high
        verdict = "within" if low <= count <= high else "OUTSIDE"
        lines.append(f"| {name} | {count} of {n:,} | {count / max(n, 1):.4f} | {low} to {high} | {verdict} |")
    return "\n".join([*lines, ""]), right


def _frequency(smallest: Sequence[float], alpha: float) -> str:
    """How often one of these p-values is at most alpha, and its standard error."""
    n = len(smallest)
    if not n:
        return "-"
    share = sum(p <= alpha for p in smallest) / n
    return f"{share:.4f} +- {math.sqrt(share * (1.0 - share) / n):.4f}"


if __name__ == "__main__":
    sys.exit(main())
