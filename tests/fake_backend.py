"""A backend that simulates nothing: it stands in for the kernels where only what surrounds them is tested.

Every increment of ln||g|| is drawn from the exact law of a Gaussian linear chain, so that linear chains agree
with theory and ReLU chains do not. As a program it runs the command line with this backend in place:
``python fake_backend.py SECONDS_PER_BLOCK ARGUMENTS...``
"""

from __future__ import annotations

import sys
import time
from types import ModuleType
from typing import ClassVar

import numpy as np

from gradsim.quantities import QUANTITIES, axis_lengths


class LocalBackend:
    """Takes `seconds` for each block, and gives way to `stop` within 10 ms."""

    seconds = 0.0
    threads_seen: ClassVar[list[int]] = []

    def __init__(self, threads: int) -> None:
        self.threads_seen.append(threads)

    def prepare(self, made, compiling):
        """There is nothing to compile."""

    def blocks(self, made, blocks, stop):
        for block in blocks:
            until = time.monotonic() + self.seconds
            while time.monotonic() < until:
                if stop.wait(0.01):
                    return
            if stop.is_set():
                return
            yield block, arrays_of(made.experiment, block)


def arrays_of(experiment, block):
    """What a block records; a chain's numbers depend on the seed, the cell and its index alone."""
    chain = experiment.cells[block.cell]
    depth, width = chain.depth, chain.widths[0]
    length = axis_lengths(chain, 0)
    rows = []
    for index in range(block.start, block.stop):
        rng = np.random.default_rng([experiment.seed, block.cell, index])
        steps = 0.5 * np.log(chain.gains[0] ** 2 / width * rng.chisquare(width, size=depth))
        rows.append(np.concatenate([np.cumsum(steps[::-1])[::-1], [0.0]]))
    norms = np.array(rows, dtype=np.float32)
    quantities = experiment.quantities_of(chain)
    # A quantity with more columns than there are layers repeats them.
    return {name: np.resize(norms.T, (length[QUANTITIES[name].axes[1]], len(norms))).T for name in quantities}


def fresh():
    """A class of its own, which no other test has used."""
    return type("FreshBackend", (LocalBackend,), {"threads_seen": []})


def as_module(backend=LocalBackend) -> ModuleType:
    """This backend under the name of the real one."""
    module = ModuleType("gradsim.backends")
    module.LocalBackend = backend
    return module


if __name__ == "__main__":
    LocalBackend.seconds = float(sys.argv[1])
    sys.modules["gradsim.backends"] = as_module()
    from gradsim.cli import main

    main(sys.argv[2:])
