"""Blocks on a GPU, one after the other; while one is on its way to the file, the next is being simulated."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

from gradsim.backends.local import shrunk

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gradsim.chain import Chain
    from gradsim.experiment import Experiment
    from gradsim.kernels.cuda.engine import Engine
    from gradsim.plan import Block, Plan

    Arrays = dict[str, NDArray[np.float32]]

__all__ = ["CudaBackend"]

#: Width of the chains that are simulated to have every kernel ready: one kernel serves all widths.
PREPARED_WIDTH = 4
COMPILATION = "up to a minute for each kind of chain"


class CudaBackend:
    """Blocks on the current GPU.

    Parameters
    ----------
    say : callable
        Told, in one line and once, where the GPU holds fewer chains than were planned for.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def prepare(self, plan: Plan, compiling: Callable[[str], None]) -> None:
        """Compile the kernels of a plan, or load them, by simulating a small chain of each kind.

        Parameters
        ----------
        plan : Plan
        compiling : callable
            Called, with how long that takes, where they are not in the cache and have to be compiled.

        Raises
        ------
        DeviceError
            Where there is no GPU that can be used, or a kernel cannot be compiled for it.
        """
        from gradsim.kernels.cuda import cache, device

        if device.is_simulated():
            self._say("NUMBA_ENABLE_CUDASIM is set: the GPU is simulated on the CPU, thousands of times slower")
        with cache.announcing(lambda: compiling(COMPILATION)):
            for chain in _one_of_each_kind(plan.experiment):
                with closing(self._engine(plan.experiment, chain)) as engine:
                    engine.run(0, 1)

    def blocks(
        self, plan: Plan, blocks: Iterable[Block], stop: threading.Event
    ) -> Generator[tuple[Block, Arrays], None, None]:
        """Simulate blocks and hand each over, in their order.

        Parameters
        ----------
        plan : Plan
        blocks : iterable of Block
        stop : threading.Event
            Once set, what is not finished is dropped after the launch at hand and the iteration ends.

        Yields
        ------
        Block, dict of ndarray
            Every quantity recorded, float32, one row a chain.

        Raises
        ------
        DeviceError
            Where the GPU fails, or a single chain does not fit into its memory.
        """
        source = iter(blocks)
        with closing(_Work(plan.experiment, self._engine, stop)) as work, ThreadPoolExecutor(1, "gradsim") as pool:
            try:
                ahead = pool.submit(work.simulate, next(source, None))
                while (done := ahead.result()) is not None:
                    ahead = pool.submit(work.simulate, next(source, None))
                    yield done
            except BaseException:
                # Also where whoever listens leaves the loop: the launch at hand is the last.
                stop.set()
                raise
            finally:
                pool.shutdown(cancel_futures=True)

    def _engine(self, experiment: Experiment, chain: Chain) -> Engine:
        from gradsim.kernels.cuda.engine import Engine

        quantities = experiment.quantities_of(chain)
        seed, dtype, streams, method = experiment.seed, experiment.dtype, experiment.streams, experiment.method
        return Engine(chain, seed, dtype, quantities, streams, method, say=self._say_once)

    def _say_once(self, text: str) -> None:
        say, self._say = self._say, _say_nothing
        say(text)


class _Work:
    """The engine of the cell at hand, kept for its blocks; its memory is freed when the next cell begins."""

    def __init__(
        self, experiment: Experiment, make: Callable[[Experiment, Chain], Engine], stop: threading.Event
    ) -> None:
        self._experiment, self._make, self._stop = experiment, make, stop
        self._cell: int | None = None
        self._engine: Engine | None = None

    def simulate(self, block: Block | None) -> tuple[Block, Arrays] | None:
        """A block with its results; None where there is none, or once stopped."""
        if block is None or self._stop.is_set():
            return None
        found = self._of(block.cell).run(block.start, block.chains, self._stop)
        return None if found is None else (block, found)

    def close(self) -> None:
        """Free the memory."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    def _of(self, cell: int) -> Engine:
        if self._engine is None or cell != self._cell:
            self.close()
            self._cell, self._engine = cell, self._make(self._experiment, self._experiment.cells[cell])
        return self._engine


def _one_of_each_kind(experiment: Experiment) -> Iterable[Chain]:
    """A small chain for each kernel that the cells need."""
    from gradsim.kernels.cuda.engine import kernel_of

    found: dict[object, Chain] = {}
    for chain in experiment.cells:
        small = shrunk(chain, PREPARED_WIDTH)
        quantities = experiment.quantities_of(small)
        found.setdefault(kernel_of(small, quantities, experiment.dtype, experiment.method), small)
    return found.values()


def _say_nothing(text: str) -> None:
    """What is said once has been said."""
