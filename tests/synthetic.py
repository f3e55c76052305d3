"""Result files made of random numbers instead of chains: the store does not know the difference."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from gradsim.experiment import Experiment
from gradsim.plan import Block
from gradsim.quantities import QUANTITIES, axis_lengths
from gradsim.store import ResultWriter

CREATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PROVENANCE = {"python": "3.11", "threads": 2, "processor": "Größe"}


def experiment(**changes: Any) -> Experiment:
    """Four cells: two activations, a recurrent chain, and a profile whose gain differs by layer."""
    chain = [
        {"activation": ["linear", "relu"], "width": 8, "depth": 5},
        {"kind": "recurrent", "width": 6, "depth": 4},
        {"profile": [4, 8, 2], "gain": "glorot"},
    ]
    return Experiment(**({"chain": chain, "chains": 200, "seed": 2**64 - 1, "title": "größer"} | changes))


def tiny(**changes: Any) -> Experiment:
    """One cell, one layer, one quantity: the smallest file there is."""
    given = {"chain": {"depth": 1, "width": 1}, "chains": 2, "quantities": ["log_grad_norm"]}
    return Experiment(**(given | changes))


def trajectories(of: Experiment, index: int) -> dict[str, np.ndarray]:
    """Random walks of every quantity of one cell, some chains dead and some beyond the range."""
    rng = np.random.default_rng(index)
    length = axis_lengths(of.cells[index], of.chains)
    arrays = {}
    for name in of.quantities_of(of.cells[index]):
        steps = rng.normal(0.1, 0.3, (of.chains, length[QUANTITIES[name].axes[1]]))
        arrays[name] = steps.cumsum(axis=1).astype(np.float32)
        arrays[name][5::50, :1] = -np.inf
        arrays[name][7::90, :1] = np.nan
    return arrays


def blocks(of: Experiment, size: int = 64) -> list[Block]:
    """The blocks of an experiment, in order."""
    starts = range(0, of.chains, size)
    return [Block(c, at, min(at + size, of.chains)) for c in range(len(of.cells)) for at in starts]


def part(arrays: dict[str, np.ndarray], block: Block) -> dict[str, np.ndarray]:
    """The rows of a block."""
    return {name: values[block.start : block.stop] for name, values in arrays.items()}


def fill(writer: ResultWriter, size: int = 64) -> None:
    """Write all blocks."""
    made = [trajectories(writer.experiment, index) for index in range(len(writer.experiment.cells))]
    for block in blocks(writer.experiment, size):
        writer.write(block, part(made[block.cell], block))


def write(path: Path, of: Experiment, size: int = 64, **options: Any) -> Path:
    """Write a whole file."""
    with ResultWriter(path, of, **options) as writer:
        fill(writer, size)
        writer.finish(PROVENANCE, CREATED)
    return path
