"""Every ratio and count that the README quotes: measured, kept in one file, put where it is quoted.

``python -m bench.evidence`` measures and writes bench/results/evidence.json, then fills the README's markers,
such as ``<!-- evidence:tests -->123<!-- /evidence -->``, so that no number is typed by hand. ``--only`` measures
some parts again and keeps the others; ``--insert`` measures nothing.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import deferred, showcase, system
from gradsim.provenance import describe

ROOT = Path(__file__).resolve().parent.parent
EVIDENCE = ROOT / "bench" / "results" / "evidence.json"
README = ROOT / "README.md"

MARKER = re.compile(r"(<!-- evidence:([a-z0-9_]+) -->)(.*?)(<!-- /evidence -->)", re.DOTALL)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write the evidence, fill the README; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.evidence", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--only", metavar="PART[,PART]", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--insert", action="store_true", help="only fill the README from the file")
    parser.add_argument("--output", type=Path, default=EVIDENCE, metavar="FILE")
    options = parser.parse_args(arguments)
    parts = options.only.split(",") if options.only else list(PARTS)
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        parser.error(f"no part {', '.join(unknown)}: the parts are {', '.join(PARTS)}")
    for part in [] if options.insert else parts:
        print(f"{part} ...", flush=True)
        measured = load(options.output).get("measured", {})
        measured[part] = {"date": today(), "quick": options.quick, **PARTS[part](options.quick)}
        save(options.output, measured)
    if options.output == EVIDENCE and (not options.quick or options.insert):
        README.write_text(filled(README.read_text(encoding="utf-8"), load(EVIDENCE)["quotes"]), encoding="utf-8")
    return 0


def today() -> str:
    """The date, UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%d")


def load(path: Path) -> dict[str, Any]:
    """The evidence as it stands; nothing where there is none."""
    if not path.exists():
        return {}
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def save(path: Path, measured: Mapping[str, Any]) -> None:
    """Write what was measured and, worked out from it, what is quoted."""
    document = {"machine": describe(1, 0.0), "quotes": quotes(measured), "measured": measured}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _peers(quick: bool) -> dict[str, Any]:
    """The peer benchmark, in a process of its own; one that fails still says what it measured."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "peers.json"
        flags = ["--quick"] if quick else []
        command = [sys.executable, "-m", "bench.peers", "--json", str(path), *flags]
        subprocess.run(command, cwd=ROOT, check=False)
        if not path.exists():
            raise RuntimeError("bench.peers measured nothing: see above")
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def _kernels(quick: bool) -> dict[str, Any]:
    flags = ["--quick"] if quick else []
    document: dict[str, Any] = json.loads(system.python("-m", "gradsim", "bench", "--json", *flags).stdout)
    return document


def _tests(quick: bool) -> dict[str, Any]:
    """How many tests pytest collects in the default run, and with every marker."""
    found = {}
    for name, flags in {"default": [], "all": ["-m", ""]}.items():
        said = system.python("-m", "pytest", "--collect-only", "-q", *flags, str(ROOT / "tests")).stdout
        found[name] = collected(said)
    return found


def collected(said: str) -> int:
    """The number of tests from what ``pytest --collect-only -q`` says last."""
    counts: list[str] = re.findall(r"^(\d+)(?:/\d+)? tests? collected", said, re.MULTILINE)
    if not counts:
        raise ValueError("pytest did not say how many tests it collected")
    return int(counts[-1])


PARTS: dict[str, Callable[[bool], dict[str, Any]]] = {
    "peers": _peers,
    "kernels": _kernels,
    "threads": system.thread_scaling,
    "memory": system.peak_memory,
    "startup": system.startup,
    "compile": lambda quick: system.first_compile(),
    "tests": _tests,
    "quick": showcase.quick_run,
    "scale": showcase.scale_run,
    "architectures": showcase.architectures_run,
    "deferred": deferred.measure,
}


def quotes(measured: Mapping[str, Any]) -> dict[str, str]:
    """What may be quoted, by marker name, as it is to be printed."""
    said: dict[str, str] = {}
    if "peers" in measured:
        said |= _peer_quotes(measured["peers"])
    if "kernels" in measured:
        said["kernel_table"] = _kernel_rows(measured["kernels"])
    if "threads" in measured:
        said["threads_ratio"] = f"{measured['threads']['ratio']:.2f}"
    if "memory" in measured:
        said["memory_mb"] = f"{measured['memory']['most_above_import_mb']:.0f}"
        said["memory_chains"] = f"{max(map(int, measured['memory']['above_import_mb'])):,}"
    if "startup" in measured:
        said["help_s"] = f"{measured['startup']['help_s']:.2f}"
        said["tiny_run_s"] = f"{measured['startup']['tiny_run_s']:.2f}"
    if "compile" in measured:
        said["compile_s"] = f"{measured['compile']['compile_s']:.0f}"
        said["compile_all_s"] = f"{measured['compile']['everything_s']:.0f}"
        said["quick_run_s"] = f"{measured['compile']['quick_run_s']:.0f}"
    for name in ("quick", "scale", "architectures"):
        if name in measured:
            said[f"{name}_table"] = f"\n```text\n{measured[name]['printed'].strip()}\n```\n"
            said[f"{name}_command"] = measured[name]["command"]
            said[f"{name}_seconds"] = f"{measured[name]['seconds']:.0f}"
    if "deferred" in measured:
        said |= _deferred_quotes(measured["deferred"])
    if "tests" in measured:
        said["tests"] = f"{measured['tests']['default']:,}"
        said["tests_all"] = f"{measured['tests']['all']:,}"
    return said


def _deferred_quotes(measured: Mapping[str, Any]) -> dict[str, str]:
    """What a unit costs, the widest and the most chains."""
    wide, many = measured["wide"], measured["many"]
    said = {f"deferred_{row['width']}_ns": f"{row['ns_per_unit']:.1f}" for row in measured["relu"]}
    ratios = {row["width"]: row["dense_ratio"] for row in measured["relu"] if "dense_ratio" in row}
    said |= {f"deferred_{width}_ratio": f"{ratio:.0f}" for width, ratio in ratios.items()}
    return said | {
        "deferred_wide_s": f"{wide['seconds']:.1f}",
        "deferred_wide_mb": f"{wide['peak_mb']:.0f}",
        "deferred_many_s": f"{many['seconds']:.0f}",
        "deferred_recurrent_ratio": f"{measured['recurrent']['dense_ratio']:.0f}",
    }


def _peer_quotes(peers: Mapping[str, Any]) -> dict[str, str]:
    said = {
        "peers_date": peers["date"],
        "peers_processor": peers["machine"]["processor"],
        "peers_versions": ", ".join(f"{name} {number}" for name, number in peers["libraries"].items()),
        "peers_law_tests": str(peers["law_tests"]),
        "peer_table": _peer_rows(peers["targets"]),
    }
    for row in peers["targets"]:
        against = row["against"].split()[0]
        said[f"{row['key']}_ns"] = f"{row['gradsim_ns']:.2f}"
        said[f"{row['key']}_{against}"] = f"{row['ratio']:.1f}"
    return said


def _peer_rows(targets: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table, on lines of its own."""
    lines = [
        "| work | gradsim, ns per weight | against | ns per weight | ratio | wanted |",
        "|---|---|---|---|---|---|",
    ]
    for row in targets:
        wanted = row["wanted"].replace(">=", "≥").replace("<=", "≤")
        missed = " (missed)" if row["met"] is False else ""
        own, other, ratio = f"{row['gradsim_ns']:.2f}", f"{row['against_ns']:.2f}", f"{row['ratio']:.1f}"
        lines.append(f"| {row['case']} | {own} | {row['against']} | {other} | {ratio} | {wanted}{missed} |")
    return "\n" + "\n".join(lines) + "\n"


def _kernel_rows(document: Mapping[str, Any]) -> str:
    """A Markdown table, on lines of its own."""
    lines = ["| kernel | ns per weight | NumPy / gradsim | gradsim / floor |", "|---|---|---|---|"]
    for kernel in document["kernels"]:
        floor = "" if kernel["floor_ratio"] is None else f"{kernel['floor_ratio']:.2f}"
        ratio = f"{kernel['numpy_ratio']:.1f}"
        lines.append(f"| {kernel['kernel']} | {kernel['ns_per_weight']:.2f} | {ratio} | {floor} |")
    return "\n" + "\n".join(lines) + "\n"


def filled(text: str, said: Mapping[str, str]) -> str:
    """A text with every marker's content replaced by what is to be quoted there.

    Raises
    ------
    KeyError
        For a marker that nothing was measured for.
    """
    return MARKER.sub(lambda found: f"{found[1]}{said[found[2]]}{found[4]}", text)


def quoted(text: str) -> list[tuple[str, str]]:
    """Marker names and contents of a text."""
    return [(found[2], found[3]) for found in MARKER.finditer(text)]


if __name__ == "__main__":
    sys.exit(main())
