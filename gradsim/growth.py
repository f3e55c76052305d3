"""How fast the gradient of a cell grows, from what was simulated alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np

__all__ = ["growth_rate"]


class Cell(Protocol):
    """What a growth rate needs of a result cell."""

    @property
    def quantities(self) -> Iterable[str]: ...
    @property
    def summary(self) -> Mapping[str, Any]: ...


def growth_rate(cell: Cell) -> float:
    """Growth of ln||g|| per layer going backward: minus the least-squares slope of its mean over the layers.

    The mean is over the chains alive at each layer; NaN where some layer has none, or ln||g|| was not recorded.

    Parameters
    ----------
    cell : Cell
    """
    if "log_grad_norm" not in cell.quantities:
        return math.nan
    means = np.asarray(cell.summary["log_grad_norm_mean"], dtype=np.float64)
    layers = np.arange(means.size) - (means.size - 1) / 2.0
    return -float(layers @ means) / float(layers @ layers)
