"""What the oracle does beside matrix products: normalisation, clipping and QR, as textbooks write them.

A vector of a layer is a matrix of n units times B columns of the batch. What goes forward comes with its pullback: the
function that takes a gradient at the output to the gradient at the input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from gradsim.chain import Chain

Array: TypeAlias = NDArray[np.floating]
Pullback: TypeAlias = Callable[[Array], Array]

# Beside its mean, a spread this small is rounding: the group has no variance.
NO_SPREAD = 2.0**-48
# What is left of a column that lies in the span of those before it, per unit of rounding and root of its length.
DEPENDENT = 16.0


def normalise(x: Array, norm: str, eps: float) -> tuple[Array, Pullback]:
    """Batch, layer or RMS norm (Ioffe and Szegedy 2015, Ba et al. 2016, Zhang and Sennrich 2019), nothing learned.

    Parameters
    ----------
    x : ndarray, shape (n, B)
    norm : str
        "batch": over the columns, for each unit; "layer" and "rms": over the units, for each column.
    eps : float
        Added to the variance or mean square.

    Returns
    -------
    tuple of ndarray and callable
        y and its pullback. A group without variance has y = 0 and gradient 0, whatever eps is.
    """
    axis = 1 if norm == "batch" else 0
    mean = np.zeros_like(x[:1]) if norm == "rms" else x.mean(axis, keepdims=True)
    variance = np.square(x - mean).mean(axis, keepdims=True)
    some = variance > np.square(NO_SPREAD * mean)
    inverse = np.where(some, 1 / np.sqrt(np.where(some, variance + x.dtype.type(eps), 1)), 0)
    y = (x - mean) * inverse

    def pull(g: Array) -> Array:
        along = y * (y * g).mean(axis, keepdims=True)
        if norm == "rms":
            return np.asarray(inverse * (g - along))
        return np.asarray(inverse * (g - g.mean(axis, keepdims=True) - along))

    return y, pull


def clipped(chain: Chain, g: Array) -> Array:
    """g_l as it is propagated: scaled to the norm `clip`, or each entry held to +-`clip_value`."""
    if chain.clip > 0:
        norm = np.linalg.norm(g)
        return g * g.dtype.type(chain.clip / norm) if norm > chain.clip else g
    return np.clip(g, -chain.clip_value, chain.clip_value) if chain.clip_value > 0 else g


def orthonormalise(columns: Array) -> tuple[Array, NDArray[np.float64]]:
    """Q, and the diagonal of R, of columns = Q R with positive diagonal, by Gram and Schmidt, twice.

    A column in the span of those before it is zero in Q and on the diagonal: its direction is dead.
    """
    q = np.zeros_like(columns)
    diagonal = np.zeros(columns.shape[1])
    smallest = DEPENDENT * np.finfo(columns.dtype).eps * np.sqrt(len(columns))
    for p, column in enumerate(columns.T):
        rest = column
        for _ in range(2):
            rest = rest - q[:, :p] @ (q[:, :p].T @ rest)
        length = np.linalg.norm(rest)
        if length > smallest * np.linalg.norm(column):
            q[:, p], diagonal[p] = rest / length, length
    return q, diagonal
