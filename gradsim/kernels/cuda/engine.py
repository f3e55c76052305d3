"""The engines of a GPU as Python sees them: a cell's chains, as many at a time as fit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gradsim.kernels import cpu, keys
from gradsim.kernels.direction_shapes import are_directions
from gradsim.kernels.shapes import stores_matrix
from gradsim.quantities import QUANTITIES, axis_lengths

from . import cache, device, launch
from .features import left_out
from .target import EDGE, SIMULATED
from .threads import shared_bytes

if TYPE_CHECKING:
    from gradsim.chain import Chain

    Arrays = dict[str, NDArray[np.float32]]

# Threads of a block: a square of matrix entries; fewer for chains that are no more than directions, since they have no
# matrix to share; and for one kept matrix as many as a block can have: each multiprocessor then works on one chain, and
# the matrices in use stay in the second-level cache.
THREADS, FEW_THREADS, MANY_THREADS = EDGE**2, 4 if SIMULATED else 64, EDGE**2 if SIMULATED else 1024
# Width from which a kept matrix has enough rows for them.
WIDE = 128
# Weights of each chain that the first launch goes through, and what a launch should take: a signal waits for one.
FIRST_BUDGET, LARGEST_BUDGET, LAUNCH_SECONDS = 4_000_000, 2**40, 0.2
LARGEST_CHANGE = 8


def kind_of(chain: Chain, method: str) -> launch.Kind:
    """The engine that works through a chain."""
    if chain.gates > 1:
        return launch.GATED
    return launch.DIRECTIONS if are_directions(chain, method) else launch.DENSE


def kernel_of(
    chain: Chain, quantities: tuple[str, ...], dtype: str, method: str
) -> tuple[launch.Kind, str, frozenset[str]]:
    """What tells the kernel of a chain from others."""
    one = cpu.kernel_of(chain, method)[1](chain, quantities, dtype, method)
    return kind_of(chain, method), dtype, left_out(one)


def threads_for(chain: Chain, method: str) -> int:
    """Threads of a block. Products of several columns, the gradient of gates among them, take a square of them."""
    kind = kind_of(chain, method)
    alone = kind is launch.DENSE and method == "dense" and chain.columns == 1
    if alone and stores_matrix(chain) and min(chain.widths) >= WIDE:
        return MANY_THREADS
    return FEW_THREADS if kind is launch.DIRECTIONS else THREADS


def _no_word(text: str) -> None:
    """For callers who need not be told."""


class Engine:
    """Draws and backpropagates the chains of one cell on a GPU.

    Parameters
    ----------
    chain, seed, dtype, quantities, streams, method
        As of `kernels.cpu.Engine`.
    say : callable
        Told, in one line, when fewer chains fit than were planned for.
    slots : int, optional
        Chains in flight at the most; by default what the device takes.

    Raises
    ------
    DeviceError
        Where there is no usable GPU, or a single chain does not fit.
    """

    def __init__(
        self,
        chain: Chain,
        seed: int,
        dtype: str,
        quantities: tuple[str, ...],
        streams: str = "independent",
        method: str = "dense",
        say: Callable[[str], None] = _no_word,
        slots: int | None = None,
    ) -> None:
        self._chain, self._dtype, self._quantities = chain, dtype, quantities
        device.require()
        key = np.array(keys.cell_key(seed, chain.canonical(), streams), dtype=np.uint32)
        with device.reported():
            self._cell = device.on_device(key)
        _, make_memory, self._rows = cpu.kernel_of(chain, method)
        self._one = make_memory(chain, quantities, dtype, method)
        self._kind = kind_of(chain, method)
        self._threads = threads_for(chain, method)
        self._shared = shared_bytes(self._threads, EDGE)
        self._say = say
        self._limit = device.most_in_flight() if slots is None else slots
        self._pile: _Pile | None = None
        self._budget = FIRST_BUDGET

    def run(self, first: int, count: int, stop: threading.Event | None = None) -> Arrays | None:
        """Chains first .. first + count - 1.

        Returns
        -------
        dict of ndarray, or None
            Each quantity as a (count, layers) float32 array; None if `stop` was set.

        Raises
        ------
        DeviceError
            Where the GPU or the compiler fails, or a single chain does not fit.
        """
        out = np.empty((count, len(self._rows), 1, self._chain.depth + 1), np.float32)
        spectra = np.empty((count, 1, self._chain.probes), np.float32)
        done = 0
        with device.reported():
            while done < count:
                pile = self._room(count - done)
                now = min(pile.slots, count - done)
                if not self._finish(pile, first + done, now, stop):
                    return None
                out[done : done + now] = device.to_host(pile.out, now)
                spectra[done : done + now] = device.to_host(pile.spectra, now)
                done += now
        length = axis_lengths(self._chain, count)
        found = {
            name: np.ascontiguousarray(out[:, self._rows[name], 0, : length[QUANTITIES[name].axes[1]]])
            for name in self._quantities
            if name in self._rows
        }
        return found | ({"lyapunov": spectra[:, 0]} if "lyapunov" in self._quantities else {})

    def close(self) -> None:
        """Free the device's memory."""
        self._pile = None
        device.release()

    def _finish(self, pile: _Pile, first: int, count: int, stop: threading.Event | None) -> bool:
        """Launch until these chains are done; whether they are."""
        pile.restart()
        kernel = cache.kernel(self._kind, self._dtype, left_out(self._one))
        launch_one = device.configured(kernel, count, self._threads, self._shared)
        while stop is None or not stop.is_set():
            began = time.monotonic()
            launch_one(pile.arrays, self._cell, first, pile.out, pile.spectra, self._budget, pile.left)
            unfinished = device.to_host(pile.left, count).any()
            self._adapt(time.monotonic() - began)
            if not unfinished:
                return True
        return False

    def _adapt(self, seconds: float) -> None:
        """Let the next launch take about as long as it should; no result depends on it."""
        change = min(max(LAUNCH_SECONDS / max(seconds, 1e-6), 1 / LARGEST_CHANGE), LARGEST_CHANGE)
        self._budget = min(max(1, int(self._budget * change)), LARGEST_BUDGET)

    def _room(self, wanted: int) -> _Pile:
        """Memory for up to so many chains, halved until it fits."""
        if self._pile is not None and (self._pile.slots >= wanted or self._pile.slots == self._limit):
            return self._pile
        self.close()
        planned = slots = min(wanted, self._limit)
        while True:
            try:
                self._pile = _Pile(self._one, slots, len(self._rows), self._chain)
                break
            except device.OutOfMemory:
                if slots == 1:
                    raise device.too_large(sum(part.nbytes for part in self._one)) from None
                slots = self._limit = slots // 2
                # What the attempt got before it failed.
                device.release()
        if slots < planned:
            self._say(f"the GPU's memory holds {slots} chains at a time, not {planned}: it takes them in turns")
        return self._pile


class _Pile:
    """The memory of chains in flight, on the device."""

    def __init__(self, one: Any, slots: int, rows: int, chain: Chain) -> None:
        self.slots = slots
        self._progress = np.asarray(one.progress)
        parts = launch.parts_of(one).items()
        self.arrays = type(one)(**{name: device.repeated(part, 1 if name == "spec" else slots) for name, part in parts})
        self.out = device.zeros((slots, rows, 1, chain.depth + 1), np.float32)
        self.spectra = device.zeros((slots, 1, chain.probes), np.float32)
        self.left = device.zeros((slots,), np.int64)

    def restart(self) -> None:
        """Each chain at its beginning."""
        device.write(self.arrays.progress, self._progress)
