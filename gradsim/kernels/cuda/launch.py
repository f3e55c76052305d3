"""The kernel that a launch runs: a block of threads for each chain, which goes on where the last launch left it."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import cuda
from numpy.typing import NDArray

from gradsim.kernels import dense, directions, gated, gated_layout, layout

from . import intrinsics
from .target import SIMULATED, Translation, written

# Fields of an engine's memory that each thread has for itself (all come to the same numbers), and of which all chains
# share one.
_OWN, _SHARED = ("progress", "key"), ("spec",)


# Of a thread: so that a block may have 1,024 threads, and a multiprocessor four blocks of 256.
REGISTERS = 64

_KERNEL = """
def met(pile, cell, first_chain, out, spectra, budget, left):
    s = cuda.blockIdx.x
    held = cuda.local.array(1, STATE)
    key = cuda.local.array(4, WORD)
    held[0] = pile.progress[s]
    progress = first(held)
    m = Memory({places})
    finished = advance(m, cell, first_chain + s, 1, out[s], spectra[s], budget)
    cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        pile.progress[s] = held[0]
        left[s] = 0 if finished else 1
"""


class Kind(NamedTuple):
    """An engine: its CPU kernel, its memory, and where a chain stands in it."""

    advance: Any
    memory: Any
    progress: np.dtype[Any]


DENSE = Kind(dense.advance, layout.Memory, layout.PROGRESS)
GATED = Kind(gated.advance_gated, gated_layout.GatedMemory, gated_layout.PROGRESS)
DIRECTIONS = Kind(directions.advance_directions, directions.Directions, directions.PROGRESS)


def source(kind: Kind, dtype: str, left_out: frozenset[str] = frozenset()) -> Any:
    """The kernel of an engine as Python, without the functions of these names.

    Its arguments: the memory of all chains in flight, `kind.memory` with one axis more; the cell's key; the index of
    the first chain; results (chains, rows, 1, L + 1) and (chains, 1, probes), float32; the budget of each chain, in
    weights; and whether each is still to go on.
    """
    of = Translation(dtype, left_out)
    places = (name if name in _OWN else f"pile.{name}[{0 if name in _SHARED else 's'}]" for name in kind.memory._fields)
    # As text, since a function of the device cannot return arrays.
    return written(
        _KERNEL.format(places=", ".join(places)),
        cuda=cuda,
        Memory=kind.memory,
        STATE=kind.progress,
        WORD=np.uint32,
        advance=of.value(kind.advance),
        first=of.value(intrinsics.first),
    )


def parts_of(one: Any) -> dict[str, NDArray[Any]]:
    """The arrays of a chain's memory by name; of what only the CPU or each thread for itself has, the type alone."""
    own = {"key": np.zeros(1, np.uint32), "links": np.zeros(1, np.int64)}
    return {name: np.asarray(own.get(name, part)) for name, part in one._asdict().items()}


def signature(one: Any) -> Any:
    """The types of the kernel's arguments (see `source`) for chains with this memory."""
    # The simulator has no types.
    from numba.cuda import types

    array, number, real = types.Array, types.int64, types.float32
    parts = parts_of(one).values()
    pile = types.NamedTuple([array(numba.from_dtype(a.dtype), a.ndim + 1, "C") for a in parts], type(one))
    places = (pile, array(types.uint32, 1, "C"), number, array(real, 4, "C"), array(real, 3, "C"))
    return types.void(*places, number, array(number, 1, "C"))


@cache
def kernel(kind: Kind, dtype: str, left_out: frozenset[str]) -> Any:
    """The kernel of an engine, compiled at its first launch."""
    options = {} if SIMULATED else {"max_registers": REGISTERS}
    return cuda.jit(source(kind, dtype, left_out), **options)
