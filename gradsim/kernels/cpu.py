"""The CPU engines as Python sees them: a cell's chains, piece by piece, on one thread."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import keys
from .blas_threads import one_blas_thread
from .direction_shapes import are_directions

if TYPE_CHECKING:
    from gradsim.chain import Chain

# Weights one call works through before it looks at the stop event: about a fifth of a second.
CALL_BUDGET = 200_000_000


def kernel_of(chain: Chain, method: str) -> tuple[Any, Any, dict[str, int]]:
    """The kernel of a kind of chain, what makes its memory, and the rows of its result by quantity.

    Imported here: whoever simulates no gated chain neither loads nor compiles their kernel.
    """
    if chain.gates > 1:
        from . import gated, gated_layout

        return gated.advance_gated, gated_layout.make_gated_memory, gated_layout.GATED_ROWS
    if are_directions(chain, method):
        from . import directions, layout

        return directions.advance_directions, directions.make_directions, layout.QUANTITY_ROWS
    from . import dense, layout

    return dense.advance, layout.make_memory, layout.QUANTITY_ROWS


class Engine:
    """Draws and backpropagates the chains of one cell.

    Parameters
    ----------
    chain
        The cell's chain.
    seed
        The experiment's seed.
    dtype
        "float32" or "float64": the arithmetic.
    quantities
        Names of the quantities to record.
    streams
        "independent" or "common" (see `keys.cell_key`).
    method
        "dense": matrices are drawn; "deferred": their answers alone (see `deferred`).
    """

    def __init__(
        self,
        chain: Chain,
        seed: int,
        dtype: str,
        quantities: tuple[str, ...],
        streams: str = "independent",
        method: str = "dense",
    ) -> None:
        self._chain = chain
        self._dtype = dtype
        self._quantities = quantities
        self._method = method
        # Memory of pieces that were completed, for the next ones: making it again costs as much as a small chain.
        self._free: list[Any] = []
        self._key = np.array(keys.cell_key(seed, chain.canonical(), streams), dtype=np.uint32)

    def _columns(self) -> dict[str, int]:
        """Columns of each recorded quantity."""
        depth = self._chain.depth
        columns = dict.fromkeys(self._quantities, depth + 1)
        if "log_weight_grad_norm" in columns:
            columns["log_weight_grad_norm"] = 1 if self._chain.tied else depth
        return columns

    def run(
        self, first: int, count: int, stop: threading.Event | None = None, budget: int = CALL_BUDGET
    ) -> dict[str, NDArray[np.float32]] | None:
        """Chains first .. first + count - 1.

        Parameters
        ----------
        first, count
            Which chains.
        stop
            Once set, the work is dropped within about a second.
        budget
            Weights per call of the kernel; no result depends on it.

        Returns
        -------
        dict of ndarray, or None
            Each quantity as a (count, layers) float32 array; None if `stop` was set.
        """
        from .linking import raise_interruption

        advance, make_memory, rows = kernel_of(self._chain, self._method)
        memory = (
            self._free.pop() if self._free else make_memory(self._chain, self._quantities, self._dtype, self._method)
        )
        memory.progress.chain = 0
        out = np.empty((len(rows), count, self._chain.depth + 1), np.float32)
        spectra = np.empty((count, self._chain.probes), np.float32)
        products = self._chain.columns > 1 or self._chain.gates > 1
        with one_blas_thread() if products else nullcontext():
            complete = False
            while not complete:
                complete = advance(memory, self._key, first, count, out, spectra, budget)
                raise_interruption()
                if not complete and stop is not None and stop.is_set():
                    return None
        self._free.append(memory)
        found = {name: out[rows[name], :, :columns] for name, columns in self._columns().items() if name in rows}
        return found | ({"lyapunov": spectra} if "lyapunov" in self._quantities else {})
