"""What a user feels beside the kernels: threads, memory, start-up, the first compilation."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gradsim.chain import Chain
from gradsim.experiment import Experiment
from gradsim.plan import plan
from gradsim.timing import Work, in_turns, sized

ROOT = Path(__file__).resolve().parent.parent
#: Chains of a run in summary mode, to show that memory does not grow with them.
MEMORY_CHAINS = (4_096, 65_536, 1_048_576)
QUICK_MEMORY_CHAINS = (1_024, 16_384)

_MEMORY = """
import json, resource, sys
import gradsim.comparison, gradsim.kernels.cpu, gradsim.runner, gradsim.store
from gradsim.cli import status_of
imported = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
status = status_of(sys.argv[1:])
print(json.dumps([status, imported, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""
_COMPILE = """
import json, sys, time
from gradsim.backends import LocalBackend
from gradsim.experiment import Experiment
from gradsim.plan import plan
made = plan(Experiment(**json.loads(sys.argv[1])), 1)
import gradsim.kernels.cpu
begun = time.perf_counter()
LocalBackend(1).prepare(made)
print(json.dumps(time.perf_counter() - begun))
"""
#: Chains that between them need every kernel.
_INITS = ["gaussian", "uniform", "orthogonal", "identity"]
_NORMS = ["batch", "layer", "rms"]
EVERYTHING: list[dict[str, Any]] = [
    {"activation": ["linear", "relu", "leaky_relu", "tanh", "erf", "sigmoid", "gelu", "silu"]},
    {"init": _INITS, "width": [8, 64], "bias": 0.1},
    {"init": _INITS, "batch": 4},
    {"init": "identity", "activation": "tanh", "skip": [0, 1.0]},
    {"norm": _NORMS, "norm_position": ["before", "after"], "batch": 4},
    {"norm": _NORMS, "norm_position": ["pre", "post"], "skip": 1.0, "batch": 4, "dropout": 0.1},
    {"clip": 1.0},
    {"clip_value": 1.0},
    {"probes": 3, "norm": ["none", "rms"], "dropout": 0.1},
    {"output_gradient": ["ones", "loss"]},
    {"kind": "recurrent", "init": _INITS, "batch": [1, 4], "input_noise": 0.1, "bias": 0.1},
    {"kind": "recurrent", "probes": 3},
    {"kind": ["lstm", "gru"], "init": _INITS, "batch": [1, 4], "input_noise": 0.1},
    {"kind": ["lstm", "gru"], "probes": 3},
]

#: And, with the kernels of those, every kernel of the deferred method.
EVERYTHING_DEFERRED: list[dict[str, Any]] = [
    {"activation": "relu"},
    {"activation": "tanh", "init": ["gaussian", "orthogonal"], "gain": 1.0, "batch": [1, 4]},
    {"activation": "tanh", "kind": "recurrent", "init": ["gaussian", "orthogonal"], "gain": 1.0, "batch": [1, 4]},
    {"kind": ["lstm", "gru"], "init": ["gaussian", "orthogonal"], "gain": 1.0, "batch": [1, 4]},
]


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run this Python on the checkout; a failure is an error with what it said."""
    search = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": search, **environment},
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments[:3])} failed: {done.stderr.strip()[-500:]}")
    return done


def thread_scaling(quick: bool = False) -> dict[str, Any]:
    """Two threads against one on the blocks of a run; ``ratio`` is the median over times next to each other.

    Parameters
    ----------
    quick : bool
        Calls of a tenth of a second.
    """
    # Kernels and threads alone, no file: the shortest call is long beside handing out pieces.
    seconds = 0.1 if quick else 1.0
    one = sized(lambda chains: _simulation(64 * chains, 1), seconds)
    chains = one.weights // _WEIGHTS
    _, timings = in_turns(_simulation(chains, 2), {"one": one}, 3 if quick else 21)
    timing = timings["one"]
    return {
        "chains": chains,
        "one_thread_s": timing.median * one.weights * 1e-9,
        "two_threads_s": statistics.median(timing.own_ns) * one.weights * 1e-9,
        "ratio": timing.ratio,
        "processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }


_SCALED = Chain(activation="relu", width=64, depth=50, gain="he")
_WEIGHTS = _SCALED.depth * 64**2


def _simulation(chains: int, threads: int) -> Work:
    from gradsim.backends import LocalBackend

    made = plan(Experiment(_SCALED, chains=chains), threads)
    backend = LocalBackend(threads)

    def run() -> int:
        return sum(block.chains for block, _ in backend.blocks(made, made.blocks, threading.Event()))

    return Work(run, chains * _WEIGHTS)


def peak_memory(quick: bool = False) -> dict[str, Any]:
    """Peak resident memory of `gradsim run` in summary mode above that of the import, for growing chains.

    Parameters
    ----------
    quick : bool
        Fewer chains.
    """
    above: dict[str, float] = {}
    imported = 0
    for chains in QUICK_MEMORY_CHAINS if quick else MEMORY_CHAINS:
        with tempfile.TemporaryDirectory() as folder:
            flags = ["--width", "8", "--depth", "50", "--activation", "relu", "--gain", "he", "--quiet"]
            sizes = ["--chains", str(chains), "--record", "summary", "-o", f"{folder}/out.h5"]
            said = python("-c", _MEMORY, "run", *flags, *sizes).stdout
        status, imported, peak = json.loads(said.splitlines()[-1])
        assert status == 0
        above[str(chains)] = (peak - imported) * _MAXRSS_BYTES / 1e6
    return {
        "import_mb": imported * _MAXRSS_BYTES / 1e6,
        "above_import_mb": above,
        "most_above_import_mb": max(above.values()),
    }


#: The unit of ru_maxrss.
_MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024


def startup(quick: bool = False) -> dict[str, Any]:
    """Seconds of `gradsim --help` and of a tiny run with compiled kernels, whole processes, medians.

    Parameters
    ----------
    quick : bool
        Three repetitions instead of eleven.
    """
    repetitions = 3 if quick else 11
    with tempfile.TemporaryDirectory() as folder:
        tiny = ["--width", "8", "--depth", "5", "--gain", "1", "--chains", "64", "-o", f"{folder}/t.h5", "--overwrite"]
        help_s = _process_seconds(["-m", "gradsim", "--help"], repetitions)
        tiny_s = _process_seconds(["-m", "gradsim", "run", *tiny], repetitions)
    return {
        "help_s": statistics.median(help_s),
        "help_s_min": min(help_s),
        "tiny_run_s": statistics.median(tiny_s),
        "tiny_run_s_min": min(tiny_s),
    }


def _process_seconds(arguments: Sequence[str], repetitions: int) -> list[float]:
    python(*arguments)
    seconds = []
    for _ in range(repetitions):
        begun = time.perf_counter()
        python(*arguments)
        seconds.append(time.perf_counter() - begun)
    return seconds


def first_compile() -> dict[str, Any]:
    """Seconds to compile what the preset `quick` uses, and all there is, in empty caches; and of a first run."""
    from gradsim.presets import preset_path

    quick = tomllib.loads(preset_path("quick").read_text())
    with tempfile.TemporaryDirectory() as folder:
        compile_s = _compile_seconds({"chain": quick["chain"]}, f"{folder}/quick")
        everything_s = 0.0
        for method, tables in (("dense", EVERYTHING), ("deferred", EVERYTHING_DEFERRED)):
            cells = [{"depth": 3, **table} for table in tables]
            everything_s += _compile_seconds({"chain": cells, "method": method}, f"{folder}/all")
        begun = time.perf_counter()
        run = ["-m", "gradsim", "run", "quick", "--progress", "-o", f"{folder}/q.h5"]
        said = python(*run, NUMBA_CACHE_DIR=f"{folder}/run").stderr
        whole_s = time.perf_counter() - begun
    return {
        "compile_s": compile_s,
        "everything_s": everything_s,
        "quick_run_s": whole_s,
        "announced": "compil" in said.lower(),
    }


def _compile_seconds(experiment: dict[str, Any], cache: str) -> float:
    return float(json.loads(python("-c", _COMPILE, json.dumps(experiment), NUMBA_CACHE_DIR=cache).stdout))
