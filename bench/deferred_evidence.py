"""The deferred engine against the dense one in law: two samples of every kind, activation, norm and feature.

    python -m bench.deferred_evidence            # a few minutes on one core; writes bench/results/deferred_two_sample.*
    python -m bench.deferred_evidence --chains 2000 --no-write

Each chain is simulated by both engines, at different seeds: they would otherwise draw the same inputs. All p-values
are one family, adjusted by Holm: right engines fail with probability at most `ALPHA`. Beside the tests of
each chain, the same test of all chains is added up, which finds a shift that all share where none shows it.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gradsim.chain import Chain
from gradsim.kernels.cpu import Engine

from . import deferred_cases
from .two_sample import POWER, Outcome, compare, holm, smallest_shift, two_sided

RESULTS = Path(__file__).resolve().parent / "results"
RECORD, REPORT = RESULTS / "deferred_two_sample.json", RESULTS / "deferred_two_sample.md"

ALPHA = 1e-4
CHAINS = 10_000
DTYPE = "float32"
SEEDS = {"dense": 1, "deferred": 2}
TOGETHER = "all chains together"


class Row(NamedTuple):
    """One test of one chain."""

    chain: str
    test: str
    z: float
    p: float
    adjusted: float


class Evidence(NamedTuple):
    """What a family of tests says."""

    chains: int  # in each sample
    cases: int
    rows: list[Row]  # by p-value
    seconds: float

    @property
    def passed(self) -> bool:
        """No adjusted p-value is below `ALPHA`."""
        return self.rows[0].adjusted >= ALPHA

    @property
    def shift(self) -> float:
        """The smallest shift of one quantity of one chain that is found with probability `POWER`."""
        return smallest_shift(self.chains, len(self.rows), ALPHA)

    @property
    def common_shift(self) -> float:
        """The same of a shift that all chains share."""
        return self.shift / math.sqrt(self.cases)


def sample(chain: Chain, method: str, chains: int, seed: int) -> dict[str, Any]:
    """Every quantity of so many chains."""
    found = Engine(chain, seed, DTYPE, chain.quantities, method=method).run(0, chains)
    assert found is not None
    return found


def outcomes(chain: Chain, chains: int) -> list[Outcome]:
    """The tests of one chain."""
    return compare(*(sample(chain, method, chains, seed) for method, seed in SEEDS.items()))


def together(found: dict[str, list[Outcome]]) -> Iterable[Outcome]:
    """Each test that has a sign, summed over the chains that have it."""
    by_test = defaultdict(list)
    for of_chain in found.values():
        for outcome in of_chain:
            if not math.isnan(outcome.z):
                by_test[outcome.name].append(outcome.z)
    for name, z in by_test.items():
        total = sum(z) / math.sqrt(len(z))
        yield Outcome(name, total, two_sided(total))


def gather(chains: int, cases: Sequence[Chain]) -> Evidence:
    """Simulate, test and adjust."""
    begun = time.monotonic()
    found = {chain.canonical(): outcomes(chain, chains) for chain in cases}
    found[TOGETHER] = list(together(found))
    flat = [(name, outcome) for name, of_chain in found.items() for outcome in of_chain]
    adjusted = holm(np.array([outcome.p for _, outcome in flat]))
    rows = [Row(name, *o, float(p)) for (name, o), p in zip(flat, adjusted, strict=True)]
    rows.sort(key=lambda row: row.p)
    return Evidence(chains, len(cases), rows, time.monotonic() - begun)


def as_dict(evidence: Evidence) -> dict[str, Any]:
    """For JSON: the verdict, and the smallest p-values."""
    smallest = evidence.rows[0]
    return {
        "alpha": ALPHA,
        "chains": evidence.chains,
        "dtype": DTYPE,
        "cases": evidence.cases,
        "tests": len(evidence.rows),
        "passed": evidence.passed,
        "smallest_p": smallest.p,
        "adjusted": smallest.adjusted,
        "power": POWER,
        "shift": evidence.shift,
        "common_shift": evidence.common_shift,
        "seconds": evidence.seconds,
        "smallest": [row._asdict() for row in evidence.rows[:20]],
        "together": [row._asdict() for row in evidence.rows if row.chain == TOGETHER],
    }


def as_markdown(record: dict[str, Any]) -> str:
    """The same for people."""
    word = "passed" if record["passed"] else "FAILED"
    lines = [
        "# The deferred engine and the dense one, two samples of each chain",
        "",
        f"Written by `python -m bench.deferred_evidence`: {record['cases']} chains (every kind, activation and norm, "
        f"every feature, Gaussian and orthogonal), {record['chains']} by each engine in {record['dtype']}, in "
        f"{record['seconds']:.0f} s.",
        "",
        f"**{word}: {record['tests']} tests, smallest p {record['smallest_p']:.3g}, adjusted by Holm "
        f"{record['adjusted']:.3g}, level {record['alpha']:g}.** Found with probability {record['power']:g}: a shift "
        f"of one quantity of one chain by {record['shift']:.3f} of its standard deviation; of one quantity of all "
        f"chains by {record['common_shift']:.4f}.",
    ]
    for title, rows in (("Smallest p-values", record["smallest"]), ("All chains together", record["together"])):
        lines += ["", f"## {title}", "", "| chain | test | z | p | adjusted |", "|" + " --- |" * 5]
        for row in rows:
            z = "" if math.isnan(row["z"]) else f"{row['z']:.2f}"
            lines.append(f"| `{row['chain']}` | {row['test']} | {z} | {row['p']:.3g} | {row['adjusted']:.3g} |")
    return "\n".join(lines) + "\n"


def write(evidence: Evidence) -> None:
    """Write both files."""
    record = as_dict(evidence)
    REPORT.write_text(as_markdown(record), encoding="utf-8")
    for row in (*record["smallest"], *record["together"]):
        row["z"] = None if math.isnan(row["z"]) else row["z"]
    RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Gather the evidence and write it; returns 1 where a test rejects."""
    parser = argparse.ArgumentParser(prog="python -m bench.deferred_evidence", description=__doc__)
    parser.add_argument("--chains", type=int, default=CHAINS, metavar="N", help="chains of each sample")
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args(arguments)
    evidence = gather(options.chains, deferred_cases.chains())
    if not options.no_write:
        write(evidence)
    print(as_markdown(as_dict(evidence)))
    return 0 if evidence.passed else 1


if __name__ == "__main__":
    sys.exit(main())
