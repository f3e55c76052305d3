"""The work of the dense engine as a NumPy user writes it: draw a matrix, multiply, one chain at a time.

What `gradsim bench` and the peer benchmark time against. Weights are drawn once and, where there is a forward
pass, kept for the backward one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gradsim.activations import get

if TYPE_CHECKING:
    from gradsim.chain import Chain

__all__ = ["chain_norms", "drawing", "on_sphere"]

Array = NDArray[np.floating[Any]]
Draw = Callable[[tuple[int, ...]], Array]


def drawing(generator: np.random.Generator, init: str, dtype: str) -> Draw:
    """A function that draws a matrix of unit-variance entries (orthogonal: the matrix itself) of a shape."""
    real: Any = np.dtype(dtype).type

    def gaussian(shape: tuple[int, ...]) -> Array:
        return generator.standard_normal(shape, dtype=real)

    def uniform(shape: tuple[int, ...]) -> Array:
        w: Array = generator.random(shape, dtype=real)
        w -= real(0.5)
        w *= real(math.sqrt(12.0))
        return w

    def orthogonal(shape: tuple[int, ...]) -> Array:
        q, r = np.linalg.qr(gaussian(shape))
        columns: Array = q * np.sign(np.diagonal(r))
        return columns

    return {"gaussian": gaussian, "uniform": uniform, "orthogonal": orthogonal}[init]


def on_sphere(generator: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Array:
    """Vectors uniform on the unit sphere, along the last axis."""
    real: Any = np.dtype(dtype).type
    x: Array = generator.standard_normal(shape, dtype=real)
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    return x


def chain_norms(
    chain: Chain, dtype: str, generator: np.random.Generator, forward: bool, draw: Draw | None = None
) -> NDArray[np.float64]:
    """ln||g_l||, l = 0..L, of one chain of equal widths and gains, without biases.

    Parameters
    ----------
    chain : Chain
    dtype : str
        "float32" or "float64".
    generator : numpy.random.Generator
    forward : bool
        Go forward too, as every activation but linear needs.
    draw : callable, optional
        Draws a matrix of a shape; by default `drawing` of the chain's own law. What it returns is used
        until it is called again, or to the chain's end where there is a forward pass.
    """
    depth, n = chain.depth, chain.widths[0]
    scale = np.dtype(dtype).type(chain.gains[0] / (1.0 if chain.init == "orthogonal" else math.sqrt(n)))
    shape = (n, n)
    drawn = draw or drawing(generator, chain.init, dtype)
    fresh = (drawn(shape) for _ in range(depth))
    matrices = itertools.repeat(drawn(shape)) if chain.tied else fresh
    norms = np.empty(depth + 1)
    if not forward:
        g = on_sphere(generator, (n,), dtype)
        norms[depth] = np.linalg.norm(g)
        for layer, w in zip(range(depth, 0, -1), matrices, strict=False):
            g = (g @ w) * scale
            norms[layer - 1] = np.linalg.norm(g)
        return _logs(norms)
    activation = get(chain.activation, chain.negative_slope)
    kept: list[tuple[Array, Array]] = []
    h: Array = generator.standard_normal(n, dtype=scale.dtype.type)
    for _, w in zip(range(depth), matrices, strict=False):
        z = (w @ h) * scale
        h = activation.phi(z)
        kept.append((w, z))
    g = on_sphere(generator, (n,), dtype)
    norms[depth] = np.linalg.norm(g)
    for layer in range(depth, 0, -1):
        w, z = kept[layer - 1]
        g = ((g * activation.dphi(z)) @ w) * scale
        norms[layer - 1] = np.linalg.norm(g)
    return _logs(norms)


def _logs(norms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithms, -inf for a dead chain."""
    with np.errstate(divide="ignore"):
        return np.log(norms)
