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

# Beside its mean, a spread of so many units of rounding is rounding.
NO_SPREAD = 64.0
# A sum this far below its terms, in roots of the unit of rounding, is zero in the law: its terms cancel.
CANCELS = 1.0 / 16.0
# What is left of a column that lies in the span of those before it, per unit of rounding and root of its length.
DEPENDENT = 4096.0


def settled(value: Array, terms: Array) -> Array:
    """Sums whose terms cancel to rounding, as the zeros they are in the law; `terms` are the sums of their magnitudes.

    Of terms that do not cancel in the law, one in about 10^9 sums is that small in float64; to anything that is added
    to it, it is nothing.
    """
    return np.where(np.abs(value) <= CANCELS * np.sqrt(np.finfo(value.dtype).eps) * terms, 0, value)


def product(a: Array, b: Array) -> Array:
    """The matrix product, with zeros where its terms cancel in the law."""
    return settled(a @ b, np.abs(a) @ np.abs(b))


def normalise(x: Array, norm: str, eps: float, still: bool) -> tuple[Array, Pullback]:
    """Batch, layer or RMS norm (Ioffe and Szegedy 2015, Ba et al. 2016, Zhang and Sennrich 2019), nothing learned.

    Parameters
    ----------
    x : ndarray, shape (n, B)
    norm : str
        "batch": over the columns, for each unit; "layer" and "rms": over the units, for each column.
    eps : float
        Added to the variance or mean square.
    still : bool
        Whether a group whose entries are the same to rounding is so in the law.

    Returns
    -------
    tuple of ndarray and callable
        y and its pullback. A group without variance has y = 0 and gradient 0, whatever eps is; one whose variance is
        lost in rounding is NaN.
    """
    axis = 1 if norm == "batch" else 0
    mean = np.zeros_like(x[:1]) if norm == "rms" else x.mean(axis, keepdims=True)
    variance = np.square(x - mean).mean(axis, keepdims=True)
    some = variance > np.square(NO_SPREAD * np.finfo(x.dtype).eps * mean)
    without = np.where((mean == 0) | still, 0, np.nan)
    inverse = np.where(some, 1 / np.sqrt(np.where(some, variance + x.dtype.type(eps), 1)), without)
    y = (x - mean) * inverse

    def pull(g: Array) -> Array:
        size = np.abs(g)
        out, terms = (
            g - y * (y * g).mean(axis, keepdims=True),
            size + np.abs(y) * np.abs(y * g).mean(axis, keepdims=True),
        )
        if norm != "rms":
            out, terms = out - g.mean(axis, keepdims=True), terms + size.mean(axis, keepdims=True)
        return settled(inverse * out, inverse * terms)

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
