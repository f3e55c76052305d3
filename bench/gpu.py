"""gradsim's kernels on a GPU against torch on the same work in the same run (``python -m bench.gpu``).

Nothing is built: Numba compiles at the first launch. First all kernels are held against the CPU's, and where they
disagree nothing is timed. Then each case is timed by CUDA events, ours after each repetition of each way of torch,
and the fastest way counts; float32 arithmetic throughout, with TF32 stated apart. Beside them stand two ceilings: what
the kernel's own instructions allow (``python -m bench.gpu_counts --json FILE``, given by ``--counts``, or counted
here where ptxas and nvdisasm are) at the clock measured, and what its bytes allow at the bandwidth measured.

A run that is kept goes to bench/results/gpu-NAME.json, NAME that of the GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from bench import gpu_compile, gpu_counts, gpu_peers, gpu_time, law_check
from bench.gpu_cases import CASES, Case
from bench.law_check import at_input
from gradsim.chain import Chain
from gradsim.errors import DeviceError
from gradsim.provenance import describe
from gradsim.tables import Column, render
from gradsim.theory.registry import find
from gradsim.timing import Timing, Work

REPETITIONS, QUICK_REPETITIONS, SCREENING, NEAR = 9, 3, 2, 1.5
#: Chains of ours at once: so many for each multiprocessor.
CHAINS, QUICK_CHAINS = 16, 4
#: How far ln||g_l|| may be from the CPU's: in float64 by the rounding of results to float32, in float32 in units of
#: eps sqrt(n) a layer.
TOLERANCE_64, TOLERANCE_32 = 2.0**-20, 4.0
CHECKED_CHAINS, CHECKED_WIDTH, CHECKED_DEPTH = 4, 1024, 6
PACKAGES = ("numba-cuda", "torch")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark, print it and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few cases, few repetitions")
    parser.add_argument("--case", metavar="TEXT", default="", help="only cases whose name holds this")
    parser.add_argument("--counts", type=Path, metavar="FILE", help="what bench.gpu_counts --json wrote")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured")
    options = parser.parse_args(arguments)
    missing = unusable()
    if missing:
        print(missing, file=sys.stderr)
        return 1
    cases = [case for case in CASES if options.case in case.name and (case.quick or not options.quick)]
    wrong = [problem for case in cases for problem in disagreements(case)]
    if wrong:
        print(*wrong, "the kernels disagree with the CPU's: nothing was timed", sep="\n", file=sys.stderr)
        return 1
    limits, counts = gpu_time.ceilings(), counts_of(options.counts)
    measured = []
    for case in cases:
        measured.append(measure(case, options.quick) | ceilings_of(case, counts, limits))
        print(times_table(measured[-1]), end="\n\n", flush=True)
    document = summarise(measured, limits, options.quick)
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    for problem in document["problems"]:
        print(f"problem: {problem}")
    return 1 if document["problems"] else 0


def unusable() -> str | None:
    """Why this cannot be run here, in one line; None where it can."""
    from gradsim.kernels.cuda import device

    try:
        device.require()
        import torch
    except DeviceError as error:
        return str(error)
    except ImportError:
        return "bench.gpu needs torch with CUDA: pip install torch"
    return None if torch.cuda.is_available() else "torch sees no GPU: it needs a build for CUDA (pip install torch)"


def disagreements(case: Case) -> list[str]:
    """Where the GPU's chains are not the CPU's: the case's chain, cut in depth, all that it records, in two waves."""
    small = case.chain.replace(width=min(case.width, CHECKED_WIDTH), depth=CHECKED_DEPTH)
    problems = []
    for dtype in ("float64", "float32"):
        found, wanted = (
            engine(small, case, dtype, on, small.quantities, CHECKED_CHAINS - 1).run(0, CHECKED_CHAINS)
            for on in ("cuda", "cpu")
        )
        for name in wanted:
            problems += difference(f"{case.name}, {dtype}, {name}", found[name], wanted[name], tolerance(small, dtype))
    return problems


def tolerance(chain: Chain, dtype: str) -> float:
    """How far apart two logarithms may be."""
    if dtype == "float64":
        return TOLERANCE_64
    return TOLERANCE_32 * 2.0**-23 * float(np.sqrt(chain.widths[0])) * chain.depth


def difference(what: str, found: Any, wanted: Any, most: float) -> list[str]:
    """In words, where two arrays are further apart than they may be; infinities and NaN are to be the same."""
    same = (found == wanted) | (np.isnan(found) & np.isnan(wanted))
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(found.astype(float) - wanted))
    worst = float(np.nan_to_num(apart, nan=np.inf).max())
    return [f"{what}: {worst:.2e} apart, {most:.2e} allowed"] if worst > most else []


def engine(
    chain: Chain,
    case: Case,
    dtype: str = "float32",
    on: str = "cuda",
    quantities: tuple[str, ...] | None = None,
    slots: int | None = None,
) -> Any:
    """The engine of a case for a chain; of a GPU with so many chains in flight at the most."""
    recorded = case.quantities if quantities is None else quantities
    if on == "cpu":
        from gradsim.kernels.cpu import Engine as Cpu

        return Cpu(chain, 0, dtype, recorded, method=case.method)
    from gradsim.kernels.cuda.engine import Engine

    return Engine(chain, 0, dtype, recorded, method=case.method, say=print, slots=slots)


def measure(case: Case, quick: bool) -> dict[str, Any]:
    """Time one case against every way of torch that fits, and test what was drawn."""
    ours = our_work(case, chains_of(case, quick))
    works, left_out = peer_works(case)
    own, timings = gpu_time.turns(ours, works, SCREENING)
    best = min((timing.ratio for timing in timings.values()), default=0.0)
    near = {name: works[name] for name, timing in timings.items() if timing.ratio <= NEAR * best}
    more_own, more = gpu_time.turns(ours, near, QUICK_REPETITIONS if quick else REPETITIONS)
    own.extend(more_own)
    for name, timing in more.items():
        timings[name].extend(timing)
    # On the same draws and products, stated apart.
    with tf32():
        # Built anew: a graph keeps the arithmetic in which it was captured.
        fast = {f"{name}, TF32": work for name, work in peer_works(case, near)[0].items()}
        timings |= gpu_time.turns(ours, fast, SCREENING if quick else REPETITIONS)[1]
    seconds = own.median * 1e-9 * case.weights
    return {
        "case": case.name,
        "weights_per_chain": case.weights,
        "chains_at_once": ours.weights // case.weights,
        "gradsim_ns": own.median,
        "gradsim_ns_all": own.ns,
        "chains_per_s": 1 / seconds,
        "layer_steps_per_s": case.depth / seconds,
        "variants": {
            name: {"ns": timing.median, "ns_all": timing.ns, "ratio": timing.ratio} for name, timing in timings.items()
        },
        "left_out": left_out,
        "law": [asdict(test) for test in law_tests(case, own, timings)],
    }


def our_work(case: Case, chains: int) -> Work:
    """So many chains a call, other ones in each."""
    ours, first = engine(case.chain, case), 0

    def run() -> Any:
        nonlocal first
        found = ours.run(first, chains)["log_grad_norm"]
        first += chains
        return found

    return Work(run, chains * case.weights)


def chains_of(case: Case, quick: bool) -> int:
    """Enough chains for every multiprocessor, also of the shortest."""
    import torch

    processors = torch.cuda.get_device_properties(0).multi_processor_count
    short = max(1, 2**24 // case.weights)
    return int(processors * (QUICK_CHAINS if quick else CHAINS) * min(short, 16))


def peer_works(case: Case, names: Container[str] | None = None) -> tuple[dict[str, Work], dict[str, str]]:
    """Ways of torch that could be built and run once, and why the others could not; of these names alone, if given."""
    import torch

    works, left_out = {}, {}
    for name, batch, build in gpu_peers.variants(case):
        if names is not None and name not in names:
            continue
        try:
            one = build()
            one()
            torch.cuda.synchronize()
        except Exception as error:  # out of memory, no compiler: said in the results
            left_out[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            torch.cuda.empty_cache()
            continue
        works[name] = Work(lambda one=one: one().cpu().numpy(), batch * case.weights)
    return works, left_out


@contextmanager
def tf32() -> Iterator[None]:
    """Products by torch with factors of ten bits."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def law_tests(case: Case, own: Timing, timings: Mapping[str, Timing]) -> list[law_check.LawTest]:
    """Mean and variance of ln||g_0|| of each side: against the exact law, or a peer against ours."""
    ours = at_input(own.results)
    samples = {name: at_input(timing.results) for name, timing in timings.items()}
    samples = {name: sample for name, sample in samples.items() if sample.size > 1}
    return law_check.of_all(find(case.chain), ours, samples)


def counts_of(path: Path | None) -> dict[str, gpu_counts.Count]:
    """The hot loops' counts by name, from a file, or counted here; empty where neither can be."""
    if path is not None:
        counts = [gpu_counts.Count(**one) for one in json.loads(path.read_text(encoding="utf-8"))]
    else:
        try:
            counts = gpu_counts.counted()
        except gpu_compile.ToolMissing as error:
            print(f"no ceiling of instructions: {error}", file=sys.stderr)
            counts = []
    return {count.name: count for count in counts}


def ceilings_of(case: Case, counts: Mapping[str, gpu_counts.Count], limits: Mapping[str, float]) -> dict[str, Any]:
    """Nanoseconds a weight that instructions and bytes alone would take on this GPU; None where not counted."""
    instructions = None
    if all(name in counts for name in case.loops):
        clocks = sum(times / counts[name].rate for name, times in case.loops.items())
        instructions = clocks / (limits["multiprocessors"] * limits["clock_ghz"])
    return {"instructions_ns": instructions, "bytes_ns": case.bytes * 1e9 / limits["bytes_per_s"]}


def summarise(measured: Sequence[dict[str, Any]], limits: Mapping[str, float], quick: bool) -> dict[str, Any]:
    """Everything, with where it was measured and what would make it worthless."""
    tests = [law_check.LawTest(**test) for one in measured for test in one["law"]]
    named = [one["case"] for one in measured for _ in one["law"]]
    wrong = law_check.failures(tests)
    problems = [
        f"{case}: {test.who} draws another law: {test.what} of {test.n} chains, p = {test.p:.1e}"
        for case, test in zip(named, tests, strict=True)
        if test in wrong
    ]
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "quick": quick,
        "gpu": gpu_described(),
        "machine": describe(1, 0.0),
        "packages": {name: version_of(name) for name in PACKAGES},
        "measured_ceilings": dict(limits),
        "law_tests": len(tests),
        "law_tests_level": law_check.ALPHA,
        "problems": problems,
        "cases": list(measured),
    }


def gpu_described() -> dict[str, Any]:
    """Name, driver and clocks of the GPU as nvidia-smi tells them, and torch's CUDA; None for what cannot be read."""
    import subprocess

    import torch

    asked = ("name", "driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem", "power.limit", "temperature.gpu")
    command = ["nvidia-smi", "-i", "0", f"--query-gpu={','.join(asked)}", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout
        found = dict(zip(asked, (part.strip() for part in said.strip().split(",")), strict=True))
    except (OSError, subprocess.SubprocessError, ValueError):
        found = dict.fromkeys(asked)
    of = torch.cuda.get_device_properties(0)
    return found | {
        "name": of.name,
        "compute_capability": f"{of.major}.{of.minor}",
        "memory_bytes": of.total_memory,
        "torch_cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def version_of(package: str) -> str | None:
    """Of what is installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def times_table(document: Mapping[str, Any]) -> str:
    """All timings of a case, the fastest first, and the ceilings."""
    columns = (Column(document["case"]), Column("ns per weight", right=True), Column("over gradsim", right=True))
    own = document["gradsim_ns"]
    rows = [["gradsim", f"{own:.5f}", ""]]
    for name, ns in (("instructions", document["instructions_ns"]), ("bytes", document["bytes_ns"])):
        if ns:
            rows.append([f"ceiling: {name}", f"{ns:.5f}", f"{ns / own:.2f}"])
    for name, one in sorted(document["variants"].items(), key=lambda item: item[1]["ratio"]):
        rows.append([name, f"{one['ns']:.5f}", f"{one['ratio']:.2f}"])
    said = f"{document['chains_per_s']:.4g} chains/s, {document['layer_steps_per_s']:.4g} layer-steps/s"
    return f"{render(columns, [[row] for row in rows])}\n{said}"


if __name__ == "__main__":
    sys.exit(main())
