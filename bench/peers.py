"""gradsim against NumPy, torch and JAX: the same work in one run, one thread each (``python -m bench.peers``).

Every peer is written in several ways and the fastest counts. Repetitions go in turns and ours follows each of
theirs, so that ratios come from times next to each other. The benchmark fails, with exit status 1, where it would
say nothing: where a peer is slower relative to NumPy than it is known to be, or where a side draws another law.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench import law_check, peer_batch, peer_numpy
from bench.cases import CASES, HANDICAP, LINEAR, LSTM, NORMED, Case, Make, Target
from bench.law_check import at_input
from bench.one_thread import MOST_PROCESSORS, Processors, one_processor
from gradsim import microbench
from gradsim.microbench import floor_work, our_work
from gradsim.provenance import describe
from gradsim.tables import Column, render
from gradsim.theory.registry import find
from gradsim.timing import Timing, Work, in_turns, sized

REPETITIONS, SECONDS = 7, 0.15
QUICK_REPETITIONS, QUICK_SECONDS = 3, 0.03
#: Repetitions of everything, after which only what is this near to the fastest is repeated more often.
SCREENING, NEAR = 2, 1.5
REFERENCE = "numpy linear backward"
FLOOR = "floor"
LIBRARIES = ("numpy", "torch", "jax")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark, print it and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="width 256 only, short calls, few repetitions")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured")
    parser.add_argument("--case", metavar="TEXT", default="", help="only cases whose name holds this")
    options = parser.parse_args(arguments)
    cases = [case for case in CASES if options.case in case.name and (case.width in (256, 400) or not options.quick)]
    with one_processor():
        processors = Processors()
        measured = [measure(case, options.quick) for case in cases]
        used = processors.used()
    document = summarise(measured, used, options.quick)
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(targets_table(document))
    for problem in document["problems"]:
        print(f"problem: {problem}")
    return 1 if document["problems"] else 0


def measure(case: Case, quick: bool) -> dict[str, Any]:
    """Time one case against everything and test what was drawn; prints the times as they come."""
    seconds = QUICK_SECONDS if quick else SECONDS
    ours = sized(lambda chains: ours_on(case, chains), seconds)
    makes = variants_of(case)
    works = {name: sized(make, seconds) for name, make in makes.items()}
    if case.kind == LINEAR:
        works[FLOOR] = sized(lambda passes: floor_work(case.width, passes), seconds)
    if case.kind == NORMED:
        works[FLOOR] = sized(peer_batch.floor(case), seconds)
    own, timings = in_turns(ours, works, SCREENING)
    near = {name: works[name] for name in worth_repeating(timings)}
    more_own, more = in_turns(ours, near, QUICK_REPETITIONS if quick else REPETITIONS)
    own.extend(more_own)
    for name, timing in more.items():
        timings[name].extend(timing)
    document = {
        "case": case.name,
        "key": case.key,
        "weights_per_chain": case.weights,
        "gradsim_ns": own.median,
        "gradsim_ns_min": own.minimum,
        "variants": {
            name: {"ns": timing.median, "ns_min": timing.minimum, "ratio": timing.ratio}
            for name, timing in timings.items()
        },
        "law": [asdict(test) for test in law_tests(case, own, timings)],
    }
    print(times_table(document), end="\n\n", flush=True)
    return document


def worth_repeating(timings: Mapping[str, Timing]) -> list[str]:
    """What a ratio may come from: variants near the fastest of their family, and what all is relative to.

    Families are the libraries, and those that a target names.
    """
    kept = [name for name in timings if name in (FLOOR, REFERENCE, peer_numpy.PLAIN)]
    families = {*LIBRARIES, *(target.against for case in CASES for target in case.targets)}
    for family in sorted(families):
        meant = Target(family, 0.0)
        own = {name: timing.ratio for name, timing in timings.items() if meant.covers(name) and name != FLOOR}
        best = min(own.values(), default=0.0)
        kept += [name for name, ratio in own.items() if ratio <= NEAR * best and name not in kept]
    return kept


def variants_of(case: Case) -> dict[str, Make]:
    """Every way of every library, and the plain NumPy that the others' expected times are relative to."""
    from bench import peer_jax, peer_lstm, peer_torch

    if case.kind == LSTM:
        return peer_lstm.variants(case)
    if case.kind == NORMED:
        return peer_batch.variants(case)
    makes = {**peer_numpy.variants(case), **peer_torch.variants(case), **peer_jax.variants(case)}
    if case.kind != LINEAR and case.expected:
        makes[REFERENCE] = peer_numpy.plain(case)
    return makes


def ours_on(case: Case, chains: int) -> Work:
    """The dense engine, ln||g_l|| of every layer recorded."""
    return our_work(microbench.Case(case.name, case.chain, forward=False), chains)


def law_tests(case: Case, own: Timing, timings: Mapping[str, Timing]) -> list[law_check.LawTest]:
    """Mean and variance of ln||g_0|| of each side: against the exact law, or a peer against ours."""
    samples = {name: at_input(timing.results) for name, timing in timings.items() if name not in (FLOOR, REFERENCE)}
    ours = at_input(own.results)
    return law_check.of_all(find(case.chain), ours, samples)


def summarise(measured: Sequence[dict[str, Any]], processors: float, quick: bool) -> dict[str, Any]:
    """Targets, and what would make the benchmark worthless, from the cases measured.

    Parameters
    ----------
    measured : sequence of dict
        As `measure` returns them.
    processors : float
        Processor seconds per second of the whole run.
    quick : bool
    """
    by_name = {case.name: case for case in CASES}
    targets = [row for one in measured for row in targets_of(by_name[one["case"]], one)]
    problems = [text for one in measured for text in handicaps_of(by_name[one["case"]], one)]
    tests = [law_check.LawTest(**test) for one in measured for test in one["law"]]
    named = [one["case"] for one in measured for _ in one["law"]]
    wrong = law_check.failures(tests)
    problems += [
        f"{case}: {test.who} draws another law: {test.what} of {test.n} chains, p = {test.p:.1e}"
        for case, test in zip(named, tests, strict=True)
        if test in wrong
    ]
    if processors > MOST_PROCESSORS:
        problems.append(f"{processors:.2f} processors were busy: something ran on more than one thread")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "quick": quick,
        "machine": describe(1, 0.0),
        "libraries": {name: version(name) for name in LIBRARIES},
        "processors_busy": processors,
        "law_tests": len(tests),
        "law_tests_level": law_check.ALPHA,
        "targets": targets,
        "problems": problems,
        "cases": list(measured),
    }


def targets_of(case: Case, measured: dict[str, Any]) -> list[dict[str, Any]]:
    """What was to be reached in a case, and what was."""
    rows = []
    for target in case.targets:
        covered = {
            name: variant["ratio"]
            for name, variant in measured["variants"].items()
            if target.covers(name) and name not in (FLOOR, REFERENCE)
        }
        best = min(covered, key=covered.__getitem__)
        met = covered[best] >= target.times
        wanted = f">= {target.times:g}"
        rows.append(_row(case, measured, best, covered[best], wanted, met))
    if FLOOR in measured["variants"]:
        ratio = 1.0 / measured["variants"][FLOOR]["ratio"]
        wanted = "" if case.floor is None else f"<= {case.floor:g}"
        rows.append(_row(case, measured, FLOOR, ratio, wanted, None if case.floor is None else ratio <= case.floor))
    return rows


def _row(
    case: Case, measured: dict[str, Any], against: str, ratio: float, wanted: str, met: bool | None
) -> dict[str, Any]:
    return {
        "case": case.name,
        "key": case.key,
        "gradsim_ns": measured["gradsim_ns"],
        "against": against,
        "against_ns": measured["variants"][against]["ns"],
        "ratio": ratio,
        "wanted": wanted,
        "met": met,
    }


def handicaps_of(case: Case, measured: dict[str, Any]) -> list[str]:
    """Libraries that are slower beside NumPy than they are known to be."""
    variants = measured["variants"]
    if not case.expected:
        return []
    plain = variants[peer_numpy.PLAIN if case.kind == LINEAR else REFERENCE]["ratio"]
    problems = []
    for library, expected in case.expected.items():
        best = min(one["ratio"] for name, one in variants.items() if name.startswith(library))
        if best / plain > HANDICAP * expected:
            text = f"{library} takes {best / plain:.2f} of NumPy's time and {expected:.2f} was to be expected"
            problems.append(f"{case.name}: {text}: it was not given its chance")
    return problems


def times_table(document: dict[str, Any]) -> str:
    """All timings of a case, the fastest first."""
    columns = (
        Column(document["case"]),
        Column("ns per weight", right=True),
        Column("fastest", right=True),
        Column("over gradsim", right=True),
    )
    variants = sorted(document["variants"].items(), key=lambda item: item[1]["ratio"])
    rows = [["gradsim", f"{document['gradsim_ns']:.3f}", f"{document['gradsim_ns_min']:.3f}", ""]]
    for name, one in variants:
        rows.append([name, f"{one['ns']:.3f}", f"{one['ns_min']:.3f}", f"{one['ratio']:.2f}"])
    return render(columns, [[row] for row in rows])


def targets_table(document: dict[str, Any]) -> str:
    """Ratios to the best peers, what was wanted and whether it was reached."""
    columns = (
        Column("work"),
        Column("gradsim ns", right=True),
        Column("against"),
        Column("ns", right=True),
        Column("ratio", right=True),
        Column("wanted", right=True),
        Column(""),
    )
    words = {True: "met", False: "MISSED", None: ""}
    rows = [
        [
            row["case"],
            f"{row['gradsim_ns']:.3f}",
            row["against"],
            f"{row['against_ns']:.3f}",
            f"{row['ratio']:.2f}",
            row["wanted"],
            words[row["met"]],
        ]
        for row in document["targets"]
    ]
    spread = statistics.median([len(one["variants"]) for one in document["cases"]])
    tests = f"{document['law_tests']} tests of the law at {document['law_tests_level']:g} for all of them"
    return f"{render(columns, [[row] for row in rows], width=120)}\n\n{spread:g} ways a case, {tests}"


if __name__ == "__main__":
    sys.exit(main())
