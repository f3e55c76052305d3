"""The plan of a run: experiment -> cells -> blocks, with the memory, file size and time to expect."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from gradsim.chain import Chain
from gradsim.costs import count_weights, nanoseconds
from gradsim.errors import ExperimentError
from gradsim.experiment import Experiment
from gradsim.kernels.direction_shapes import are_directions, direction_bytes
from gradsim.kernels.gated_shapes import gated_working_bytes
from gradsim.kernels.shapes import working_bytes
from gradsim.memory import available_memory, format_bytes
from gradsim.quantities import QUANTITIES, axis_lengths

__all__ = ["HELD_BYTES", "LEAF", "MAX_BLOCKS", "Block", "CellPlan", "Plan", "plan"]

#: Chains per leaf of the summary's tree; blocks begin and end on its multiples.
LEAF: Final = 64
#: Trajectories of a cell up to this size are kept until its quantiles are taken; larger ones are read back.
HELD_BYTES: Final = 64 * 2**20
MAX_BLOCKS: Final = 10_000
MAX_BLOCKS_ASKED: Final = 1_000_000

# Time a block should take, and the size its results should stay under, when the choice is ours.
_BLOCK_SECONDS = 2.0
_BLOCK_BYTES = 32 * 2**20
#: Blocks held at once as the kernels made them: one being made, one waiting, one being joined for the file.
_BLOCKS_IN_FLIGHT = 3
# The speed of a GPU is not known here. For it to have enough to work on, a block has these chains at the least, and as
# many as it would do in a few seconds if it were worth so many cores; its results may be larger.
_GPU_CHAINS, _GPU_CORES, _GPU_BLOCK_SECONDS = 1024, 256, 4.0
_GPU_BLOCK_BYTES = 128 * 2**20
#: Blocks held at once: one being made, with what comes from the device and what it becomes, one waiting, one written.
_GPU_BLOCKS_IN_FLIGHT = 5
#: An array on its way to a GPU, which is copied there in pieces.
_GPU_COPY_BYTES = 2**26

# Rows a kernel records of each chain, float32 and one entry a layer, wanted or not; and of gates.
_KERNEL_ROWS = 4
_KERNEL_ROWS_GATED = 5
# Of each column of a summary: seven moments in each node of its tree, and what comes of them in the end.
_NODE_BYTES = 7 * 8
_SUMMARY_BYTES = (16 + 2) * 8

# Bytes of a result file beside its trajectories: per cell, and per layer and quantity of its summary.
_FILE_BYTES_CELL = 40_000
_FILE_BYTES_LAYER = 16 * 8


@dataclass(frozen=True)
class Block:
    """The unit of work: chains `start` to `stop` - 1 of one cell."""

    cell: int
    start: int
    stop: int

    @property
    def chains(self) -> int:
        """Number of chains."""
        return self.stop - self.start


@dataclass(frozen=True)
class CellPlan:
    """What one cell of an experiment takes.

    Attributes
    ----------
    chain : Chain
    chains : int
        Chains to simulate.
    block : int
        Chains per block, a multiple of 64.
    weights : int
        Weights of a chain, counted once where they are tied.
    nanoseconds : float
        Expected time of one chain on one core.
    bytes_result : int
        What one chain records.
    bytes_memory : int
        Working memory of the kernel, per thread; on a GPU, of each chain in flight.
    bytes_file : int
        Upper estimate of the cell's share of the result file.
    """

    chain: Chain
    chains: int
    block: int
    weights: int
    nanoseconds: float
    bytes_result: int
    bytes_memory: int
    bytes_file: int

    @property
    def block_count(self) -> int:
        """Number of blocks."""
        return -(-self.chains // self.block)


@dataclass(frozen=True)
class Plan:
    """An experiment in blocks, with what it takes.

    Attributes
    ----------
    experiment : Experiment
    threads : int
    cells : tuple of CellPlan
    blocks : tuple of Block
        In the order of cells and chains.
    bytes_memory : int
        Memory the run needs beside the program itself; that of a GPU is not counted.
    bytes_file : int
        Upper estimate of the result file's size.
    seconds : float
        Expected time on `threads` cores, compilation apart; for a GPU only a measure of the work (see `foretold`).
    """

    experiment: Experiment
    threads: int
    cells: tuple[CellPlan, ...]
    blocks: tuple[Block, ...]
    bytes_memory: int
    bytes_file: int
    seconds: float

    @property
    def foretold(self) -> bool:
        """Whether the seconds are those to expect: how fast a GPU is shows once it has done a block."""
        return self.experiment.device == "cpu"

    def gpu_bytes(self, chains: int) -> int:
        """Memory of a GPU that so many chains in flight take, of the cell that takes most."""
        return max(min(chains, cell.block) * (cell.bytes_memory + _bytes_made(cell)) for cell in self.cells)

    def block_seconds(self, block: Block) -> float:
        """Return the expected time of one block in seconds."""
        return block.chains * self.cells[block.cell].nanoseconds * 1e-9 / self.threads


def plan(experiment: Experiment, threads: int = 1, available: int | None = None) -> Plan:
    """Cut an experiment into blocks and estimate what it takes.

    Blocks are multiples of 64 chains except a cell's last. With ``block = "auto"`` they take about two
    seconds each and number at most 10,000 in all; for a GPU they have a thousand chains at the least, unless these
    record too much. A given number of chains is rounded up to a multiple of 64.

    Parameters
    ----------
    experiment : Experiment
    threads : int
        Chains simulated at once; for a GPU, one thread feeds it.
    available : int, optional
        Bytes of memory to be had; by default what the system says.

    Raises
    ------
    ExperimentError
        Where the run needs more memory than is available, or a block size makes too many blocks.
    """
    threads = threads if experiment.device == "cpu" else 1
    cells = _cut(experiment, threads)
    blocks = [
        Block(index, start, min(start + cell.block, cell.chains))
        for index, cell in enumerate(cells)
        for start in range(0, cell.chains, cell.block)
    ]
    made = Plan(
        experiment=experiment,
        threads=threads,
        cells=tuple(cells),
        blocks=tuple(blocks),
        bytes_memory=max(_bytes_needed(experiment, cell, threads) for cell in cells),
        bytes_file=sum(cell.bytes_file for cell in cells),
        seconds=sum(cell.chains * cell.nanoseconds for cell in cells) * 1e-9 / threads,
    )
    _check_memory(made, available_memory() if available is None else available)
    return made


def _cut(experiment: Experiment, threads: int) -> list[CellPlan]:
    """Plan each cell; automatic blocks grow until there are few enough."""
    asked = experiment.block
    if isinstance(asked, int):
        cells = [_plan_cell(experiment, chain, _round_up(asked)) for chain in experiment.cells]
        count = sum(cell.block_count for cell in cells)
        if count > MAX_BLOCKS_ASKED:
            text = f"block = {asked} makes {count} blocks: at most {MAX_BLOCKS_ASKED}; use larger blocks"
            raise ExperimentError(f'{text} or block = "auto"')
        return cells
    growth = 1
    while True:
        sizes = [_auto_block(experiment, chain, threads, growth) for chain in experiment.cells]
        cells = [_plan_cell(experiment, *pair) for pair in zip(experiment.cells, sizes, strict=True)]
        if sum(cell.block_count for cell in cells) <= max(MAX_BLOCKS, len(cells)):
            return cells
        growth *= 2


def _auto_block(experiment: Experiment, chain: Chain, threads: int, growth: int) -> int:
    """Return the chains per block that keep its time and its results near their targets."""
    by_time = growth * _BLOCK_SECONDS * threads * 1e9 / nanoseconds(chain, experiment.dtype, experiment.method)
    by_size = growth * _BLOCK_BYTES / _bytes_result(experiment, chain)
    if experiment.device == "cuda":
        by_time = max(growth * _GPU_CHAINS, by_time / _BLOCK_SECONDS * _GPU_BLOCK_SECONDS * _GPU_CORES)
        by_size *= _GPU_BLOCK_BYTES / _BLOCK_BYTES
    whole_cell = _round_up(experiment.chains)
    return max(LEAF, min(int(min(by_time, by_size, whole_cell)) // LEAF * LEAF, whole_cell))


def _round_up(chains: int) -> int:
    return -(-chains // LEAF) * LEAF


def _plan_cell(experiment: Experiment, chain: Chain, block: int) -> CellPlan:
    result = _bytes_result(experiment, chain)
    kept = experiment.chains if experiment.record == "trajectories" else min(experiment.keep, experiment.chains)
    return CellPlan(
        chain=chain,
        chains=experiment.chains,
        block=min(block, _round_up(experiment.chains)),
        weights=count_weights(chain),
        nanoseconds=nanoseconds(chain, experiment.dtype, experiment.method),
        bytes_result=result,
        bytes_memory=_bytes_memory(experiment, chain),
        bytes_file=kept * (result + 8) + result // 4 * _FILE_BYTES_LAYER + _FILE_BYTES_CELL,
    )


def _bytes_memory(experiment: Experiment, chain: Chain) -> int:
    """Return the bytes one thread of the kernel works in."""
    itemsize, quantities, method = (
        4 if experiment.dtype == "float32" else 8,
        experiment.quantities_of(chain),
        experiment.method,
    )
    if are_directions(chain, method):
        return direction_bytes(chain, itemsize)
    works_in = gated_working_bytes if chain.gates > 1 else working_bytes
    return works_in(chain, quantities, itemsize, method)


def _bytes_result(experiment: Experiment, chain: Chain) -> int:
    """Return the bytes one chain records: float32, one number a column and quantity."""
    length = axis_lengths(chain, 0)
    return 4 * sum(length[QUANTITIES[name].axes[1]] for name in experiment.quantities_of(chain))


def _bytes_made(cell: CellPlan) -> int:
    """Return the bytes a kernel fills for one chain."""
    return 4 * (_KERNEL_ROWS_GATED if cell.chain.gates > 1 else _KERNEL_ROWS) * (cell.chain.depth + 1)


def _bytes_needed(experiment: Experiment, cell: CellPlan, threads: int) -> int:
    """Return the memory one cell needs: threads, blocks on their way to the file, and its summary."""
    on_gpu = experiment.device == "cuda"
    made = (_GPU_BLOCKS_IN_FLIGHT if on_gpu else _BLOCKS_IN_FLIGHT) * _bytes_made(cell)
    blocks = min(cell.block, cell.chains) * (made + cell.bytes_result)
    kept = min(experiment.keep, cell.chains) if experiment.record == "summary" else cell.chains
    held = min(kept * cell.bytes_result, HELD_BYTES)
    levels = 1 + math.ceil(math.log2(1 + cell.chains / LEAF))
    summary = (levels * _NODE_BYTES + _SUMMARY_BYTES) * (cell.bytes_result // 4)
    return threads * cell.bytes_memory + on_gpu * _GPU_COPY_BYTES + blocks + held + summary


def _check_memory(made: Plan, available: int | None) -> None:
    """Refuse a run larger than the memory, naming the cell that needs most."""
    if available is None or made.bytes_memory <= available:
        return
    needs = [_bytes_needed(made.experiment, cell, made.threads) for cell in made.cells]
    worst = needs.index(max(needs))
    needed, left = format_bytes(made.bytes_memory), format_bytes(available)
    text = f"this run needs {needed} of memory and {left} is available"
    advice = "use a smaller width or depth, fewer threads or smaller blocks"
    raise ExperimentError(f"{text} (cell {worst}: {made.cells[worst].chain!r}): {advice}")
