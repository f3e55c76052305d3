"""Blocks on threads of this process.

Kernels release the interpreter's lock, so threads that each take a piece of a block scale without a threading layer of
Numba's, and a chain's numbers cannot depend on how many there are.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gradsim.chain import Chain
    from gradsim.experiment import Experiment
    from gradsim.kernels.cpu import Engine
    from gradsim.plan import Block, Plan

    Arrays = dict[str, NDArray[np.float32]]

__all__ = ["LocalBackend", "shrunk"]

#: What a piece should take: long against handing it over, short against a block, so that threads end together.
PIECE_SECONDS = 0.25
#: Chains that are simulated to have every kernel ready, and their largest width: narrower layers have kernels of their
#: own. Several, as one may die before it has needed them all.
PREPARED_CHAINS, PREPARED_WIDTH = 8, 64


def _say_nothing() -> None:
    """For callers who need not be told."""


class LocalBackend:
    """Blocks on threads of this process.

    Parameters
    ----------
    threads : int
        How many pieces are worked on at once.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def prepare(self, plan: Plan, compiling: Callable[[], None] = _say_nothing) -> None:
        """Compile the kernels of a plan, or load them, by simulating a few small chains of each kind.

        In the calling thread, so that a signal is heard meanwhile.

        Parameters
        ----------
        plan : Plan
        compiling : callable
            Called, once, where they are not in the cache and have to be compiled.
        """
        from gradsim.kernels.compiling import announcing
        from gradsim.kernels.cpu import Engine

        e = plan.experiment
        with announcing(compiling):
            for chain in _smallest_of_each_kind(e.cells):
                engine = Engine(chain, e.seed, e.dtype, e.quantities_of(chain), method=e.method)
                # Step by step: a signal is heard between two.
                engine.run(0, PREPARED_CHAINS, budget=1)

    def blocks(
        self, plan: Plan, blocks: Iterable[Block], stop: threading.Event
    ) -> Generator[tuple[Block, Arrays], None, None]:
        """Simulate blocks and hand each over, in their order.

        Parameters
        ----------
        plan : Plan
        blocks : iterable of Block
        stop : threading.Event
            Once set, what is not finished is dropped within about a second and the iteration ends.

        Yields
        ------
        Block, dict of ndarray
            Every quantity recorded, float32, one row a chain.
        """
        work = _Work(plan.experiment, stop)
        waiting: deque[tuple[Block, list[Future[Arrays | None]]]] = deque()
        source = iter(blocks)
        with ThreadPoolExecutor(self._threads, thread_name_prefix="gradsim") as pool:
            try:
                while True:
                    # One block ahead of the one awaited: threads that finish early have something to do.
                    while len(waiting) < 2 and (block := next(source, None)) is not None:
                        pieces = self._pieces(block, plan.block_seconds(block))
                        waiting.append((block, [pool.submit(work.piece, block, *piece) for piece in pieces]))
                    if not waiting:
                        return
                    block, futures = waiting.popleft()
                    parts = [future.result() for future in futures]
                    if stop.is_set() and any(part is None for part in parts):
                        return
                    yield block, _join([part for part in parts if part is not None])
            except BaseException:
                # An error in a piece, or in whoever listens, and leaving the loop stop the other threads too.
                stop.set()
                raise
            finally:
                pool.shutdown(cancel_futures=True)

    def _pieces(self, block: Block, seconds: float) -> list[tuple[int, int]]:
        """Split a block into runs of chains (first, count)."""
        wanted = max(self._threads, math.ceil(seconds / PIECE_SECONDS))
        size = max(1, math.ceil(block.chains / wanted))
        return [(first, min(size, block.stop - first)) for first in range(block.start, block.stop, size)]


class _Work:
    """The engines of an experiment's cells, made when their first piece is."""

    def __init__(self, experiment: Experiment, stop: threading.Event) -> None:
        self._experiment = experiment
        self._stop = stop
        self._engines: dict[int, Engine] = {}

    def _engine(self, cell: int) -> Engine:
        from gradsim.kernels.cpu import Engine

        if cell not in self._engines:
            e = self._experiment
            chain = e.cells[cell]
            self._engines[cell] = Engine(chain, e.seed, e.dtype, e.quantities_of(chain), e.streams, e.method)
        return self._engines[cell]

    def piece(self, block: Block, first: int, count: int) -> Arrays | None:
        """Chains first .. first + count - 1 of the block's cell; None once stopped."""
        if self._stop.is_set():
            return None
        return self._engine(block.cell).run(first, count, self._stop)


def _smallest_of_each_kind(cells: Iterable[Chain]) -> Iterable[Chain]:
    """Small chains that need every kernel these cells need."""
    found: dict[tuple[object, ...], Chain] = {}
    for chain in cells:
        found.setdefault(_features(chain), chain)
    return [shrunk(chain, PREPARED_WIDTH) for chain in found.values()]


def _features(chain: Chain) -> tuple[object, ...]:
    """What decides which kernels a chain needs."""
    named = (
        chain.kind,
        chain.activation,
        chain.init,
        chain.norm,
        chain.norm_position,
        chain.output_gradient,
        chain.bias_law,
    )
    used = (
        chain.skip,
        chain.dropout,
        chain.clip,
        chain.clip_value,
        chain.input_noise,
        max(chain.biases),
        min(chain.gains),
    )
    sizes = (chain.batch > 1, chain.probes > 1, min(chain.widths) < PREPARED_WIDTH, max(chain.widths) < PREPARED_WIDTH)
    return (*named, *(value != 0 for value in used), *sizes)


def shrunk(chain: Chain, widest: int) -> Chain:
    """The chain with little to draw."""
    shape: dict[str, Any]
    if chain.profile is None:
        shape = {"width": min(chain.widths[0], widest), "depth": min(chain.depth, 2)}
    else:
        shape = {"profile": [min(width, widest) for width in chain.profile]}
    return chain.replace(**shape, batch=min(chain.batch, 3), probes=min(chain.probes, 2))


def _join(parts: list[Arrays]) -> Arrays:
    """Pieces of a block as one set of arrays."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
