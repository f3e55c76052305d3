"""The simulator's threads in turn: from one barrier to the next each runs alone, in an order that is given.

Numba's simulator lets the threads of a block run as Python schedules them, so that a missing barrier shows now and
then. Here a thread runs until it meets the others; then the next one does. What a block computes is then a function of
the order alone, and a value that one thread writes and another reads between two barriers is read before it is
written in one of two opposite orders: two runs in them give the same bits only where nothing of the kind happens. And
threads that meet at different places of the source, or not all of them, which a GPU does not forgive, are an error.
"""

from __future__ import annotations

import itertools
import sys
import threading
from types import SimpleNamespace

import numpy as np
from numba.cuda.simulator import kernel

from gradsim.kernels.cuda import simulated

ORDERS = ("forward", "backward")


#: Where a thread is that has ended.
END = ()


class MeetingError(Exception):
    """Threads of a block that do not all meet at the same place."""


class Cuda:
    """The `cuda` that kernels see, in the place of `simulated.Cuda`: since threads run in turn, that of one of them."""

    def enter(self, thread):
        """It is this thread's turn."""
        self.thread, self.threadIdx, self.blockIdx = thread, thread.threadIdx, thread.blockIdx

    def launch(self):
        """What a launch gives."""
        context = kernel._get_kernel_context()
        self.blockDim, self.gridDim, own = context.blockDim, context.gridDim, context.shared
        self.local = context.local
        self.shared = SimpleNamespace(array=lambda shape, dtype: own.array(shape, np.dtype(dtype)))

    def syncthreads(self):
        self.thread.syncthreads()

    def __getattr__(self, name):
        return getattr(kernel._get_kernel_context(), name)


CUDA = Cuda()


class InTurn(threading.Thread):
    """A thread of a block, which runs while it is its turn."""

    def __init__(self, block, target, index, number):
        super().__init__(daemon=True)
        self._block, self._target = block, target
        self.blockIdx, self.threadIdx = kernel.Dim3(*block.index), kernel.Dim3(*index)
        self.thread_id = number
        self.turn = threading.Lock()
        self.turn.acquire()
        self.next = None
        self.place = None

    def run(self):
        self.turn.acquire()
        if self._block.error is None:
            CUDA.enter(self)
            try:
                with np.errstate(all="ignore"):
                    self._target()
            except BaseException as error:
                self._block.error = self._block.error or error
        self.place = END
        self.pass_on()

    def syncthreads(self):
        """Let the others come here, and go on."""
        self.place = place_of(sys._getframe(1))
        self.pass_on()
        self.turn.acquire()
        CUDA.enter(self)
        if self._block.error is not None:
            raise self._block.error

    def pass_on(self):
        """The next thread's turn; after the last one's, all have met."""
        (self.next or self._block).turn.release()


def place_of(frame):
    """Where a thread stands in the source: the instructions of all functions it is in, the innermost first."""
    place = []
    while frame.f_code is not _OUTERMOST:
        place += (frame.f_code, frame.f_lasti)
        frame = frame.f_back
    return tuple(place)


_OUTERMOST = InTurn.run.__code__


class Block:
    """A block of threads, in the place of the simulator's `BlockManager`."""

    order = "forward"
    #: Threads of the last block, and how often they have met: tests look here.
    meetings = 0

    def __init__(self, f, grid_dim, block_dim, debug):
        self._f, self._block_dim = f, block_dim
        self.turn = threading.Lock()
        self.turn.acquire()
        self.error = None

    def run(self, grid_point, *args):
        self.index = grid_point
        points = list(np.ndindex(*self._block_dim))
        threads = [InTurn(self, lambda: self._f(*args), point, number) for number, point in enumerate(points)]
        if self.order == "backward":
            threads.reverse()
        for thread, following in itertools.pairwise(threads):
            thread.next = following
        CUDA.launch()
        for thread in threads:
            thread.start()
        while threads:
            threads[0].turn.release()
            self.turn.acquire()
            if self.error is None and len({thread.place for thread in threads}) > 1:
                self.error = MeetingError(describe(threads))
            Block.meetings += 1
            threads = self.still_there(threads)
        if self.error is not None:
            raise self.error

    def still_there(self, threads):
        """The threads that have not ended, each with the one after it."""
        left = [thread for thread in threads if thread.place != END]
        for thread, following in zip(left, [*left[1:], None], strict=False):
            thread.next = following
        return left


def describe(threads):
    """Where the threads stand, of each place one thread."""
    found = {thread.place: thread.thread_id for thread in threads}
    lines = []
    for place, number in found.items():
        callers = [code.co_name for code in place[::2]]
        at = " < ".join([*callers[:6], "..."]) if callers else "its end"
        lines.append(f"thread {number} at {at}")
    return "; ".join(lines)


def take(order):
    """Run the blocks of this process's simulator so."""
    Block.order = order
    kernel.BlockManager = Block
    simulated.Cuda = lambda: CUDA
