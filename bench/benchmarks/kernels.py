"""Kernels, compiled: by kind, width and dtype, and by number of threads. Compilation itself."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

from gradsim.chain import Chain
from gradsim.experiment import Experiment
from gradsim.plan import plan

CHAINS = {
    "linear": {"activation": "linear", "depth": 16},
    "relu": {"activation": "relu", "depth": 16},
    "tanh": {"activation": "tanh", "depth": 16, "gain": 1.0},
    "orthogonal": {"activation": "linear", "init": "orthogonal", "depth": 4},
    "recurrent": {"kind": "recurrent", "activation": "relu", "depth": 100},
}


class Warm:
    """One chain after another on one thread."""

    params = (list(CHAINS), [64, 256], ["float32", "float64"])
    param_names = ("chain", "width", "dtype")
    timeout = 300

    def setup(self, kind: str, width: int, dtype: str) -> None:
        """Compile, outside the clock."""
        from gradsim.kernels.cpu import Engine

        fields: dict[str, Any] = {"width": width, "gain": "critical", **CHAINS[kind]}
        self.engine = Engine(Chain(**fields), 0, dtype, ("log_grad_norm",))
        self.engine.run(0, 1)

    def time_chains(self, kind: str, width: int, dtype: str) -> None:
        """Eight chains."""
        self.engine.run(0, 8)


class Threads:
    """The blocks of a run on several threads."""

    params = (1, 2)
    param_names = ("threads",)
    timeout = 300

    def setup(self, threads: int) -> None:
        """Compile, outside the clock."""
        from gradsim.backends import LocalBackend

        chain = Chain(activation="relu", width=64, depth=50, gain="he")
        self.plan = plan(Experiment(chain, chains=2048), threads)
        self.backend = LocalBackend(threads)
        self.backend.prepare(self.plan)

    def time_blocks(self, threads: int) -> None:
        """2048 ReLU chains, n = 64, L = 50."""
        for _ in self.backend.blocks(self.plan, self.plan.blocks, threading.Event()):
            pass


class Cold:
    """The first run on a machine."""

    timeout = 600
    unit = "s"

    def track_compilation(self) -> float:
        """Seconds to load and compile what a float32 run uses, in an empty cache."""
        code = (
            "from gradsim.chain import Chain\n"
            "from gradsim.kernels.cpu import Engine\n"
            "Engine(Chain(width=1, depth=1, gain=1.0), 0, 'float32', ('log_grad_norm',)).run(0, 0)\n"
        )
        with tempfile.TemporaryDirectory() as folder:
            begun = time.perf_counter()
            environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
            subprocess.run([sys.executable, "-c", code], check=True, env=environment)
            return time.perf_counter() - begun
