"""The deferred engine: what a unit costs, beside the dense engine; how wide and how many; and the exact law by width.

`python -m bench.evidence --only deferred` measures; the figure goes to docs/figures/variance-by-width.svg.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import system
from bench.one_thread import one_processor
from gradsim.chain import Chain
from gradsim.timing import Work, in_turns, sized

FIGURE = Path(__file__).resolve().parent.parent / "docs" / "figures" / "variance-by-width.svg"
#: Widths at which a unit is timed, and those beside the dense engine.
UNIT_WIDTHS, BESIDE_WIDTHS = (256, 1024, 4096, 65_536), (256, 1024)
#: Widths of the figure, and how many unit-layers each may take.
LAW_WIDTHS = (16, 64, 256, 1024, 4096, 16_384, 65_536, 262_144, 1_000_000)
LAW_DEPTH, LAW_UNITS, LAW_CHAINS = 20, 4e9, 4000
_RUN = """
import json, re, sys, time
from gradsim.cli import status_of
begun = time.perf_counter()
status = status_of(sys.argv[1:])
seconds = time.perf_counter() - begun
# Not ru_maxrss, which a process has from the one that started it.
peak = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())
print(json.dumps([status, seconds, int(peak[1])]))
"""


def measure(quick: bool = False) -> dict[str, Any]:
    """Everything; `quick` at small sizes, to see that it works."""
    with one_processor():
        found: dict[str, Any] = {
            "relu": [unit_time(n, "relu", n in BESIDE_WIDTHS, quick) for n in UNIT_WIDTHS[: 2 if quick else None]],
            "tanh": [unit_time(n, "tanh", n in BESIDE_WIDTHS, quick) for n in UNIT_WIDTHS[: 2 if quick else None]],
            "recurrent": recurrent(256 if quick else 4096, quick),
            "wide": run_of(width=1000 if quick else 1_000_000, depth=50, chains=1, threads=1),
        }
    found["many"] = run_of(width=128, depth=100, chains=2000 if quick else 1_000_000, threads=2, record="summary")
    found["law"] = law_by_width(quick)
    if not quick:
        draw(found["law"], FIGURE)
    return found


def engine_work(chain: Chain, method: str, chains: int) -> Work:
    """So many chains a call, other ones in each; a weight stands for a unit of a layer."""
    from gradsim.kernels.cpu import Engine

    engine = Engine(chain, 0, "float32", ("log_grad_norm",), method=method)
    first = 0

    def run() -> Any:
        nonlocal first
        arrays = engine.run(first, chains)
        first += chains
        return arrays

    return Work(run, chains * chain.depth * int(chain.widths[0]))


def unit_time(width: int, activation: str, beside: bool, quick: bool) -> dict[str, Any]:
    """Nanoseconds a unit and layer, forward and backward together, float32, one thread."""
    chain = Chain(activation=activation, width=width, depth=100 if width < 65_536 else 20, gain="he")
    seconds, repetitions = (0.02, 3) if quick else (0.3, 21)
    ours = sized(lambda chains: engine_work(chain, "deferred", chains), seconds)
    others = {"again": ours}
    if beside:
        others = {"dense": sized(lambda chains: engine_work(chain.replace(depth=4), "dense", chains), seconds)}
    own, timings = in_turns(ours, others, repetitions)
    found = {"width": width, "ns_per_unit": own.median, "ns_per_unit_min": own.minimum}
    return found | ({"dense_ratio": timings["dense"].ratio} if beside else {})


def recurrent(width: int, quick: bool) -> dict[str, Any]:
    """A tanh chain of 100 steps with tied weights against the dense engine, the same work."""
    chain = Chain(kind="recurrent", activation="tanh", gain=1.5, width=width, depth=100)
    ours = engine_work(chain, "deferred", 1)
    own, timings = in_turns(ours, {"dense": engine_work(chain, "dense", 1)}, 3 if quick else 7)
    seconds = own.median * 1e-9 * ours.weights
    return {"width": width, "steps": 100, "seconds": seconds, "dense_ratio": timings["dense"].ratio}


def run_of(width: int, depth: int, chains: int, threads: int, record: str = "trajectories") -> dict[str, Any]:
    """`gradsim run --method deferred` on ReLU chains: seconds and peak memory of the process, with compiled kernels."""
    shape = ["--width", str(width), "--depth", str(depth), "--activation", "relu", "--gain", "he"]
    how = ["--method", "deferred", "--threads", str(threads), "--record", record, "--quiet", "--overwrite"]
    with tempfile.TemporaryDirectory() as folder:
        flags = ["run", *shape, *how, "-o", f"{folder}/out.h5", "--chains"]
        system.python("-c", _RUN, *flags, "1")
        status, seconds, peak = json.loads(system.python("-c", _RUN, *flags, str(chains)).stdout.splitlines()[-1])
    assert status == 0
    megabytes = peak * 1024 / 1e6
    return {
        "width": width,
        "depth": depth,
        "chains": chains,
        "threads": threads,
        "seconds": seconds,
        "peak_mb": megabytes,
    }


def law_by_width(quick: bool) -> list[dict[str, Any]]:
    """Variance of ln||g_0|| per layer of ReLU chains, simulated and by the exact law."""
    from gradsim import predict, simulate

    rows = []
    for width in LAW_WIDTHS[: 2 if quick else None]:
        chain = Chain(activation="relu", width=width, depth=LAW_DEPTH, gain="he")
        chains = int(min(LAW_CHAINS, LAW_UNITS / (width * LAW_DEPTH)))
        begun = time.perf_counter()
        cell = simulate(chain, chains=chains, seed=5, method="deferred", quantities=["log_grad_norm"])
        seconds = time.perf_counter() - begun
        variance = predict(chain).var
        assert variance is not None
        logs = cell.log_grad_norm[:, 0].astype(float)
        logs = logs[logs > -math.inf]
        found = float(logs.var(ddof=1))
        fourth = float(((logs - logs.mean()) ** 4).mean())
        error = math.sqrt(max(fourth - found**2, 0.0) / len(logs))
        rows.append(
            {
                "width": width,
                "chains": chains,
                "theory": float(variance[0]) / LAW_DEPTH,
                "simulated": found / LAW_DEPTH,
                "error": error / LAW_DEPTH,
                "seconds": seconds,
            }
        )
    return rows


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """The figure: variance per layer against 1 / n, theory as a line, simulation as points with two standard errors."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "gradsim"
    inverse = [1 / row["width"] for row in rows]
    figure, axes = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    axes.plot(inverse, [row["theory"] for row in rows], color="0.4", label="exact law")
    axes.errorbar(
        inverse,
        [row["simulated"] for row in rows],
        yerr=[2 * row["error"] for row in rows],
        fmt="o",
        color="C0",
        capsize=3,
        label="simulated, ±2 standard errors",
    )
    axes.set(xscale="log", yscale="log", xlabel="1 / width", ylabel="variance of ln‖g₀‖ per layer")
    axes.set_title(f"ReLU chains, L = {LAW_DEPTH}, width {rows[0]['width']:,} to {rows[-1]['width']:,}")
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
