"""Chains through the CUDA kernels, in numba's simulator: run in a process of its own.

    NUMBA_ENABLE_CUDASIM=1 python -m tests.kernels.cuda.simulate_cases CASES.json RESULTS.npz

A case says which chain, and how it is run; see `cases.Case`. Results are `number/quantity`, float64; an error is the
text `number/error`.
"""

from __future__ import annotations

import json
import sys
import traceback
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from numba import config

from gradsim import Chain
from gradsim.kernels.cuda import engine as engines
from gradsim.kernels.cuda import target
from gradsim.kernels.cuda.threads import shared_bytes
from tests.kernels.cuda import broken, turns
from tests.kernels.cuda.kept import forget_kernels


class Engine(engines.Engine):
    """An engine whose launches and blocks are of given sizes."""

    def shape(self, threads, budget):
        """So many threads in a block, and so many weights in a launch; None leaves it."""
        if threads is not None:
            self._threads, self._shared = threads, shared_bytes(threads, engines.EDGE)
        self._given = budget
        if budget is not None:
            self._budget = budget

    def _adapt(self, seconds):
        self.launches = getattr(self, "launches", 0) + 1
        if self._given is None:
            super()._adapt(seconds)


def keep_results_in_double():
    """Results as the threads compute them, before they are rounded to the float32 of a file."""
    engines.np = SimpleNamespace(**vars(np) | {"float32": np.float64})


def set_edge(edge):
    """Blocks of edge^2 threads."""
    target.EDGE = engines.EDGE = edge
    engines.THREADS = edge**2
    forget_kernels()


def simulate(case):
    """The quantities of a case."""
    turns.take(case["order"])
    if case["edge"] != engines.EDGE:
        set_edge(case["edge"])
    chain = Chain(**case["chain"])
    names = tuple(case["quantities"] or chain.quantities)
    with broken.on_purpose(case["broken"]):
        engine = Engine(chain, case["seed"], case["dtype"], names, case["streams"], case["method"], slots=case["slots"])
        engine.shape(case["threads"], case["budget"])
        found = engine.run(case["first"], case["count"])
    return found | {"launches": np.array(engine.launches)}


def main(cases_path, results_path):
    assert config.ENABLE_CUDASIM
    # The words of the random numbers wrap around.
    warnings.simplefilter("ignore", RuntimeWarning)
    keep_results_in_double()
    results = {}
    for number, case in json.loads(Path(cases_path).read_text()):
        try:
            found = simulate(case)
        except Exception:
            found = {"error": np.array(traceback.format_exc(limit=-6))}
        results |= {f"{number}/{name}": values for name, values in found.items()}
    np.savez(results_path, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
