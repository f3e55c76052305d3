"""What people read of the documents that ``--json`` prints. Nothing is computed here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from textwrap import wrap
from typing import Any

from gradsim.tables import WIDTH, Column, Row, chain_in_words, counted, number, render

__all__ = ["bench_table", "comparison_table", "info_text", "theory_table"]

Document = Mapping[str, Any]

_SHORT = {"leading order": "leading"}

_COMPARISON = (
    Column("cell", right=True),
    Column("chain", wraps=True),
    Column("law", minor=True),
    Column("tested"),
    Column("theory", right=True),
    Column("empirical", right=True),
    Column("z", right=True, minor=True),
    Column("p (Holm)", right=True),
    Column("verdict"),
)


def comparison_table(document: Document, style: Callable[[str], str] | None = None, width: int = WIDTH) -> str:
    """Theory against empirical, of a `compare --json` document, and the verdict under it.

    Parameters
    ----------
    document : mapping
        As ``Comparison.to_dict()`` gives it.
    style : callable, optional
        Colours the verdicts.
    width : int
        Columns to keep within.
    """
    table = render(_COMPARISON, [_comparison_rows(cell) for cell in document["cells"]], width, style)
    return f"{table}\n\n{_verdict(document)}"


def _comparison_rows(cell: Document) -> list[Row]:
    head = [str(cell["cell"]), chain_in_words(cell["chain"])]
    rows: list[Row] = []
    law = ""
    for test in cell["tests"]:
        if test["verdict"]:
            same, law = law, _law(test["validity"])
            rows.append([*head, "" if law == same else law, *_test(test)])
            head = ["", ""]
    return rows or [[*head, "none", "rate", "-", number(cell["rate"]), "-", "-", "no law"]]


def _test(test: Document) -> list[str]:
    return [
        test["statistic"],
        number(test["theory"]),
        number(test["empirical"]),
        _z(test["z"]),
        _p_value(test["p_adjusted"]),
        test["verdict"],
    ]


def _law(validity: str | None) -> str:
    return "none" if validity is None else _SHORT.get(validity, validity)


def _z(z: float | str | None) -> str:
    # Rounded first: minus nothing is nothing.
    return f"{round(z, 2) + 0.0:.2f}" if isinstance(z, int | float) and abs(z) < 1e5 else number(z, 3)


def _p_value(p: float | None) -> str:
    if p is None:
        return "-"
    return f"{p:.3f}" if p >= 0.001 else f"{p:.0e}"


def _verdict(document: Document) -> str:
    """The last line: how many exact tests there were and how many were rejected."""
    verdicts = [test["verdict"] for cell in document["cells"] for test in cell["tests"]]
    tests = verdicts.count("agree") + verdicts.count("disagree")
    if tests == 0:
        return "no exact law: nothing here can be rejected"
    of_laws = f"{counted(tests, 'test')} of exact laws"
    rejected = verdicts.count("disagree") or "none"
    return f"{document['verdict']}: {of_laws}, {rejected} rejected at {document['alpha']:g} after Holm"


_THEORY = (
    Column("cell", right=True),
    Column("chain", wraps=True),
    Column("of"),
    Column("law", minor=True),
    Column("mean", right=True),
    Column("sd", right=True),
    Column("ln E|.|^2", right=True, minor=True),
    Column("rate", right=True),
    Column("P(dead)", right=True),
    Column("source"),
)


#: Rates at criticality come from quadratures good to this; the rate of the widest chain is a hundred times as large.
_RATE_ROUNDING = 1e-12


def theory_table(document: Document, width: int = WIDTH) -> str:
    """The predictions of a `theory --json` document: logarithms given survival, their spread, rate and deaths.

    Of each quantity one layer is shown: the last that is computed, of weight gradients and exponents the first.

    The sources follow the table, numbered.
    """
    groups: list[list[Row]] = []
    sources: dict[str, int] = {}
    for index, cell in enumerate(document["cells"]):
        head = [str(index), chain_in_words(cell["chain"])]
        rows: list[Row] = []
        for prediction in cell["predictions"]:
            at = sources.setdefault(prediction["source"], len(sources) + 1)
            rows.append([*head, *_prediction(prediction), f"[{at}]"])
            head = ["", ""]
        groups.append(rows or [[*head, "-", "none", *["-"] * 6]])
    notes = [f"[{at}] {source}" for source, at in sources.items()]
    wrapped = ["\n".join(wrap(note, width, subsequent_indent="    ")) for note in notes]
    return "\n".join([render(_THEORY, groups, width), *([""] if notes else []), *wrapped])


#: What is shown of each quantity, and its place in the arrays.
_SHOWN = {
    "log_grad_norm": ("g_0", 0),
    "log_activation_norm": ("h_L", -1),
    "log_weight_grad_norm": ("dW_1", 0),
    "lyapunov": ("lyapunov", 0),
    "log_spectral_radius": ("radius", 0),
}


def _prediction(prediction: Document) -> list[str]:
    name, at = _SHOWN[prediction["quantity"]]
    mean, var, second = (_at(prediction[key], at) for key in ("mean", "var", "log_second_moment"))
    return [
        name,
        _law(prediction["validity"]),
        _logarithm(mean),
        _logarithm(math.sqrt(var) if isinstance(var, int | float) else var),
        _logarithm(second),
        number(_unless_rounding(prediction["rate"], _RATE_ROUNDING)),
        number(prediction["p_dead"], 3),
    ]


def _at(values: Sequence[Any] | None, at: int) -> Any:
    """One value of an array, where there is one."""
    return None if values is None else values[at]


def _logarithm(value: float | str | None) -> str:
    """A logarithm: what is below its last digit is rounding."""
    return number(_unless_rounding(value, 0.0005), 3)


def _unless_rounding(value: float | str | None, smallest: float) -> float | str | None:
    """Zero in the place of what is nearer to it than it is known."""
    return 0.0 if isinstance(value, int | float) and abs(value) < smallest else value


_INFO = (
    Column("cell", right=True),
    Column("chain", wraps=True),
    Column("chains", right=True),
    Column("done", right=True),
    Column("mean ln|g0|", right=True),
    Column("sd", right=True, minor=True),
    Column("rate", right=True),
    Column("dead", right=True),
    Column("nonfinite", right=True, minor=True),
    Column("seconds", right=True, minor=True),
)


def info_text(document: Document, width: int = WIDTH) -> str:
    """What an `info --json` document says."""
    facts = (
        ("file", f"{document['file']}: {_state(document)}"),
        ("title", document["title"]),
        ("seed", str(document["seed"])),
        ("run", ", ".join(document[name] for name in ("method", "device", "dtype", "record"))),
        ("quantities", ", ".join(document["quantities"])),
        ("made", _origin(document)),
        ("on", _machine(document.get("provenance") or {})),
    )
    lines = [line for heading, text in facts if text for line in _fact(heading, text, width)]
    return "\n".join([*lines, "", render(_INFO, [[_cell(cell)] for cell in document["cells"]], width)])


def _fact(heading: str, text: str, width: int) -> list[str]:
    """The lines of a fact; a name is not broken."""
    heading = f"{heading:<12}"
    return wrap(
        text,
        width,
        initial_indent=heading,
        subsequent_indent=" " * len(heading),
        break_on_hyphens=False,
        break_long_words=False,
    )


def _state(document: Document) -> str:
    if document["complete"]:
        return f"{document['bytes']:,} bytes, complete"
    done = sum(cell["chains_done"] for cell in document["cells"])
    chains = sum(cell["chains"] for cell in document["cells"])
    share = f"{done:,} of {chains:,} chains ({100 * done // chains} %)"
    if document["running"]:
        return f"being written by {document['owner']}, {share}"
    if document["running"] is None:
        return f"not complete, begun by {document['owner']}, {share}"
    return f"left unfinished by {document['owner']}, {share}"


def _origin(document: Document) -> str:
    provenance = document.get("provenance")
    if not provenance:
        return ""
    named = ("python", "numpy", "numba")
    versions = ", ".join(f"{name} {provenance[name]}" for name in named if provenance.get(name))
    return f"{document['created']} by gradsim {document['gradsim_version']}, {versions}"


def _machine(provenance: Document) -> str:
    facts = [provenance.get("gpu"), provenance.get("processor")]
    threads = provenance.get("threads")
    if threads is not None:
        facts.append(counted(threads, "thread"))
    if provenance.get("wall_seconds"):
        facts.append(f"{provenance['wall_seconds']:,.1f} s")
    return ", ".join(fact for fact in facts if fact)


def _cell(cell: Document) -> Row:
    var = cell["log_grad_norm_var"]
    return [
        str(cell["cell"]),
        chain_in_words(cell["chain"]),
        f"{cell['chains']:,}",
        f"{cell['chains_done']:,}",
        number(cell["log_grad_norm_mean"], 3),
        number(None if var is None else math.sqrt(var), 3),
        number(cell["rate"]),
        _count(cell["dead"]),
        _count(cell["nonfinite"]),
        number(cell["seconds"], 2),
    ]


def _count(count: int | None) -> str:
    return "-" if count is None else f"{count:,}"


_BENCH = (
    Column("kernel", wraps=True),
    Column("ns/weight", right=True),
    Column("NumPy", right=True),
    Column("NumPy / ours", right=True),
    Column("floor", right=True),
    Column("ours / floor", right=True),
)


def bench_table(document: Document, width: int = WIDTH) -> str:
    """Nanoseconds per weight of each kernel beside NumPy and the floor, of a `bench --json` document."""
    table = render(_BENCH, [[_kernel(kernel)] for kernel in document["kernels"]], width)
    notes = [f"One thread; ns {document['counting']}.", f"{_machine(document['machine'])}."]
    return "\n".join([table, "", *(line for note in notes for line in wrap(note, width))])


def _kernel(kernel: Document) -> Row:
    return [
        kernel["kernel"],
        number(kernel["ns_per_weight"], 3),
        number(kernel["numpy_ns_per_weight"], 3),
        number(kernel["numpy_ratio"], 2),
        number(kernel["floor_ns_per_weight"], 3),
        number(kernel["floor_ratio"], 2),
    ]
