"""The oracle: one chain in NumPy, from the textbook, slow and obvious.

It draws the same integers as the kernels, by an implementation of Threefry of its own, forms every weight matrix,
pushes plain float64 vectors forward and backward, and takes norms at the end. Only shapes and laws are shared
with the kernels: their formulas, their loops and their scaling are not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gradsim import activations

from .keys import BIAS, INPUT, NOISE, OUTPUT, WEIGHT, cell_key

if TYPE_CHECKING:
    from gradsim.chain import Chain

Vector = NDArray[np.floating]
Matrix = NDArray[np.float64]
Words = NDArray[np.uint32]

ROTATIONS = ((10, 26), (11, 21), (13, 27), (23, 5), (6, 20), (17, 11), (25, 10), (18, 20))


def threefry4x32(key: Words, counter: Words, rounds: int) -> Words:
    """Threefry-4x32 (Salmon et al. 2011), the generator as published.

    Parameters
    ----------
    key, counter : ndarray of uint32, shapes (4, ...)
    rounds : int

    Returns
    -------
    ndarray of uint32, shape (4, ...)
    """
    parity = key[0] ^ key[1] ^ key[2] ^ key[3] ^ np.uint32(0x1BD11BDA)
    schedule = [key[0], key[1], key[2], key[3], parity]
    x = [counter[i] + key[i] for i in range(4)]
    for r in range(rounds):
        first, second = ROTATIONS[r % 8]
        a, b = (1, 3) if r % 2 == 0 else (3, 1)
        x[0] = x[0] + x[a]
        x[a] = (x[a] << np.uint32(first) | x[a] >> np.uint32(32 - first)) ^ x[0]
        x[2] = x[2] + x[b]
        x[b] = (x[b] << np.uint32(second) | x[b] >> np.uint32(32 - second)) ^ x[2]
        if r % 4 == 3:
            step = r // 4 + 1
            for i in range(4):
                x[i] = x[i] + schedule[(step + i) % 5]
            x[3] = x[3] + np.uint32(step)
    return np.stack(np.broadcast_arrays(*x))


def stream_key(cell: tuple[int, int, int, int], index: int, layer: int, purpose: int) -> Words:
    """Key of one stream: Threefry-4x32-20 of (chain, layer, purpose) under the cell's key."""
    counter = np.array([[index & 0xFFFFFFFF], [index >> 32], [layer], [purpose]], dtype=np.uint32)
    return threefry4x32(np.array(cell, dtype=np.uint32).reshape(4, 1), counter, 20)


def draw(key: Words, rows: int, columns: int, law: str) -> Matrix:
    """A matrix of unit-variance entries; `law` is gaussian, uniform or rademacher.

    The block at counter (column, i) holds the entries of that column in rows i, i + q, i + 2q, i + 3q.
    """
    q = -(-rows // 4)
    column, group = np.meshgrid(np.arange(columns, dtype=np.uint32), np.arange(q, dtype=np.uint32))
    zero = np.zeros_like(column)
    words = threefry4x32(key[:, :, np.newaxis], np.stack([column, group, zero, zero]), 13)
    if law == "gaussian":
        values = np.concatenate([*box_muller(words[0], words[1]), *box_muller(words[2], words[3])])
    elif law == "uniform":
        values = np.concatenate(list((words.view(np.int32) + 0.5) * (np.sqrt(3) / 2**31)))
    else:
        values = np.concatenate(list(np.where(words >> np.uint32(31), -1.0, 1.0)))
    return values[:rows]


def box_muller(r: Words, a: Words) -> tuple[Matrix, Matrix]:
    """Two normals from two words: a radius, and an angle whose top bit turns it by pi."""
    radius = np.sqrt(-2 * np.log((r + 0.5) / 2**32))
    turn = np.where(a >> np.uint32(31), -1.0, 1.0)
    angle = np.pi * (a << np.uint32(1)).view(np.int32) / 2**32
    return turn * radius * np.cos(angle), turn * radius * np.sin(angle)


def stiefel(key: Words, rows: int, columns: int) -> Matrix:
    """Uniform rows x columns matrix with orthonormal columns, rows >= columns, by Householder's reflections."""
    q = np.eye(rows, columns)
    for i in reversed(range(columns)):
        # Column i of a stream of shorter and shorter columns.
        x = draw(key, rows - i, i + 1, "gaussian")[:, i]
        sign = 1.0 if x[0] >= 0 else -1.0
        v = x.copy()
        v[0] += sign * np.linalg.norm(x)
        q[:, i] *= -sign
        q[i:] -= 2 * np.outer(v, v @ q[i:]) / (v @ v)
    return q


def weight_matrix(chain: Chain, cell: tuple[int, int, int, int], index: int, layer: int) -> Matrix:
    """W_l of one chain, scaled; a tied chain has one matrix, under layer 0."""
    rows, columns, gain = chain.widths[layer], chain.widths[layer - 1], chain.gains[layer - 1]
    key = stream_key(cell, index, 0 if chain.tied else layer, WEIGHT)
    matrix: Matrix
    if chain.init == "identity":
        matrix = np.eye(rows)
    elif chain.init == "orthogonal":
        matrix = stiefel(key, rows, columns) if rows >= columns else stiefel(key, columns, rows).T
    else:
        matrix = draw(key, rows, columns, chain.init) / np.sqrt(columns)
    matrix *= gain
    return matrix


def added(chain: Chain, cell: tuple[int, int, int, int], index: int, layer: int) -> Matrix:
    """Bias and input noise of one layer."""
    rows = chain.widths[layer]
    key = stream_key(cell, index, 0 if chain.tied else layer, BIAS)
    total: Matrix = chain.biases[layer - 1] * draw(key, rows, 1, chain.bias_law)[:, 0]
    total += chain.input_noise * draw(stream_key(cell, index, layer, NOISE), rows, 1, "gaussian")[:, 0]
    return total


def output_gradient(chain: Chain, cell: tuple[int, int, int, int], index: int, h: Vector) -> Vector:
    """g_L as the chain's field says."""
    if chain.output_gradient == "loss":
        return h.copy()
    if chain.output_gradient == "ones":
        return np.ones_like(h)
    g = draw(stream_key(cell, index, chain.depth, OUTPUT), len(h), 1, "gaussian")[:, 0]
    return g / np.linalg.norm(g)


def simulate_chain(
    chain: Chain, seed: int, index: int, dtype: str = "float64", streams: str = "independent"
) -> dict[str, Matrix]:
    """One chain, every vector kept.

    Parameters
    ----------
    chain : Chain
    seed, index : int
        The experiment's seed and the chain's index.
    dtype : str
        Arithmetic of the passes; the draws are made in float64 and rounded to it.
    streams : str
        "independent" or "common".

    Returns
    -------
    dict of ndarray
        log_grad_norm, log_activation_norm, log_grad_max, each (L + 1,); log_weight_grad_norm (L,) or, tied, (1,); and
        the vectors themselves: h and g, lists over l = 0 .. L. No range is kept: vectors may overflow.
    """
    real = np.dtype(dtype).type
    cell = cell_key(seed, chain.canonical(), streams)
    activation = activations.get(chain.activation, chain.negative_slope)
    weights = [weight_matrix(chain, cell, index, layer).astype(real) for layer in range(1, chain.depth + 1)]
    x = draw(stream_key(cell, index, 0, INPUT), chain.widths[0], 1, "gaussian")[:, 0]
    h: list[Vector] = [(chain.input_scale * x).astype(real)]
    slopes: list[Vector] = []
    for layer, w in enumerate(weights, 1):
        z = w @ h[-1] + added(chain, cell, index, layer).astype(real)
        h.append(activation.phi(z))
        slopes.append(activation.dphi(z))
    g: list[Vector] = [output_gradient(chain, cell, index, h[-1]).astype(real)]
    steps: list[NDArray[np.floating]] = []
    for layer in range(chain.depth, 0, -1):
        d = slopes[layer - 1] * g[0]
        steps.insert(0, np.outer(d, h[layer - 1]))
        g.insert(0, weights[layer - 1].T @ d)
    with np.errstate(divide="ignore"):
        gradients = [np.sum(steps, axis=0)] if chain.tied else steps
        return {
            "log_grad_norm": np.log([np.linalg.norm(v.astype(float)) for v in g]),
            "log_activation_norm": np.log([np.linalg.norm(v.astype(float)) for v in h]),
            "log_weight_grad_norm": np.log([np.linalg.norm(m.astype(float)) for m in gradients]),
            "log_grad_max": np.log([np.max(np.abs(v.astype(float))) for v in g]),
            "h": h,  # type: ignore[dict-item]
            "g": g,  # type: ignore[dict-item]
        }
