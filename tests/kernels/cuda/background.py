"""Processes that work while other tests run: what the simulator and the compiler take minutes for."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[3]
#: Processes side by side, and by how much they stand back behind the tests that run meanwhile.
PROCESSES, NICENESS = 2, 15


def environment(simulator):
    """Of a process in which kernels run in the simulator, or are compiled."""
    own = {name: value for name, value in os.environ.items() if name != "NUMBA_ENABLE_CUDASIM"}
    return own | {"PYTHONPATH": str(ROOT)} | ({"NUMBA_ENABLE_CUDASIM": "1"} if simulator else {})


class Background:
    """Modules of this package, each run as a process, in the order in which they were asked for."""

    def __init__(self):
        self._pool = ThreadPoolExecutor(PROCESSES)
        self._running, self._asked = [], {}

    def start(self, name, module, *arguments, simulator=True):
        """Ask for a process: python -m tests.kernels.cuda.MODULE ARGUMENTS."""
        self._asked[name] = self._pool.submit(self._run, module, arguments, simulator)

    def output(self, name):
        """What a process printed, once it has ended well."""
        process, out, errors = self._asked[name].result()
        assert process.returncode == 0, errors[-4000:]
        return out

    def close(self):
        """End what is not done."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in self._running:
            if process.poll() is None:
                process.kill()

    def _run(self, module, arguments, simulator):
        process = subprocess.Popen(
            ["nice", f"-n{NICENESS}", sys.executable, "-m", f"{__package__}.{module}", *map(str, arguments)],
            cwd=ROOT,
            env=environment(simulator),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._running.append(process)
        return process, *process.communicate()
