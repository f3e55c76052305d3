"""The dense engine as Python sees it: a cell's chains, piece by piece, on one thread."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from . import dense, keys, layout

if TYPE_CHECKING:
    from gradsim.chain import Chain

# Weights one call works through before it looks at the stop event: about a fifth of a second.
CALL_BUDGET = 200_000_000


class DenseEngine:
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
    """

    def __init__(
        self, chain: Chain, seed: int, dtype: str, quantities: tuple[str, ...], streams: str = "independent"
    ) -> None:
        self._chain = chain
        self._dtype = dtype
        self._quantities = quantities
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
        memory = layout.make_memory(self._chain, self._quantities, self._dtype)
        out = np.empty((len(layout.QUANTITY_ROWS), count, self._chain.depth + 1), np.float32)
        while not dense.advance(memory, self._key, first, count, out, budget):
            if stop is not None and stop.is_set():
                return None
        return {name: out[layout.QUANTITY_ROWS[name], :, :columns] for name, columns in self._columns().items()}
