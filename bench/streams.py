"""The raw 32-bit words behind the weights, in each order in which the kernels go through them.

Every word comes from `rng.layer_key` and `rng.threefry13` themselves. Variants made weaker on purpose are the negative
controls of the battery: a test that passes them proves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradsim.kernels import keys, rng
from gradsim.kernels.compiling import kernel

Words = NDArray[np.uint32]

u32 = np.uint32
# Compiled code knows these by value; they have no type hints because Numba takes their types from the arguments.
_inject: Any = rng.inject
_layer_key: Any = rng.layer_key
_parity: Any = rng.parity
_threefry13: Any = rng.threefry13
_two_rounds: Any = rng.two_rounds

ROWS, COLUMNS, BLOCKS, LAYERS, CHAINS = "rows", "columns", "blocks", "layers", "chains"
ORDERS = {
    ROWS: "a word per weight along each row of W, row after row, then the next layer",
    COLUMNS: "a word per weight down each column of W, column after column, then the next layer",
    BLOCKS: "all four words of a block, blocks along each group of rows, then the next layer",
    LAYERS: "the word of one weight in layers 1 .. L, then the next weight",
    CHAINS: "the word of one weight in neighbouring chains, then the next weight",
}
_LAYOUT = {ROWS: 0, COLUMNS: 1, BLOCKS: 2}
# How words are made: 13 rounds under a key of 20; 6 under a key of 6; 6 in all, layer and chain being counter words.
FULL, SIX_AND_SIX, SIX_IN_ALL = range(3)
WIDTH = 256
DEPTH = 100  # layers of a chain, and neighbouring chains taken together


@dataclass(frozen=True)
class Variant:
    """The streams as they are, or with one thing wrong."""

    name: str
    rounds: int = FULL
    layer_varies: bool = True  # the layer's number enters its key
    chain_varies: bool = True  # so does the chain's


AS_USED = Variant("as used")
SIX_ROUNDS = Variant("6 rounds to draw, 6 to key", rounds=SIX_AND_SIX)
SIX_ROUNDS_IN_ALL = Variant("6 rounds in all", rounds=SIX_IN_ALL)
CONSTANT_LAYER = Variant("constant layer word", layer_varies=False)
CONSTANT_CHAIN = Variant("constant chain word", chain_varies=False)


@kernel
def six_rounds(k0: Any, k1: Any, k2: Any, k3: Any, x0: Any, x1: Any, x2: Any, x3: Any) -> Any:
    """Threefry-4x32 cut off after 6 rounds."""
    k4 = _parity(k0, k1, k2, k3)
    x0, x1, x2, x3 = _inject(x0, x1, x2, x3, k0, k1, k2, k3, 0)
    x0, x1, x2, x3 = _two_rounds(x0, x1, x2, x3, 10, 26, 11, 21)
    x0, x1, x2, x3 = _two_rounds(x0, x1, x2, x3, 13, 27, 23, 5)
    x0, x1, x2, x3 = _inject(x0, x1, x2, x3, k1, k2, k3, k4, 1)
    return _two_rounds(x0, x1, x2, x3, 6, 20, 17, 11)


@kernel
def _fill_keys(cell: Any, rounds: int, chains: Any, layers: Any, out: Any) -> None:
    """out[s] = key of the weights of layer layers[s] of chain chains[s]."""
    for s in range(len(chains)):
        chain, layer = chains[s], layers[s]
        if rounds == FULL:
            key = _layer_key(cell[0], cell[1], cell[2], cell[3], chain, layer, keys.WEIGHT)
        elif rounds == SIX_AND_SIX:
            low, high = u32(chain & 0xFFFFFFFF), u32(chain >> 32)
            key = six_rounds(cell[0], cell[1], cell[2], cell[3], low, high, u32(layer), u32(keys.WEIGHT))
        else:
            key = cell[0], cell[1], cell[2], cell[3]
        for w in range(4):
            out[s, w] = key[w]
        out[s, 4], out[s, 5] = u32(layer), u32(chain)


@kernel
def _block(key: Any, rounds: int, j: Any, i: Any) -> Any:
    """The block of column j and row group i."""
    if rounds == FULL:
        k4 = _parity(key[0], key[1], key[2], key[3])
        return _threefry13(key[0], key[1], key[2], key[3], k4, u32(j), u32(i))
    x2, x3 = (key[4], key[5]) if rounds == SIX_IN_ALL else (u32(0), u32(0))
    return six_rounds(key[0], key[1], key[2], key[3], u32(j), u32(i), x2, x3)


@kernel
def _fill_matrix(key: Any, rounds: int, n: int, layout: int, out: Any) -> None:
    """The n^2 words of one n x n matrix, n a multiple of four."""
    q = n // 4
    for i in range(q):
        for j in range(n):
            words = _block(key, rounds, j, i)
            for w in range(4):
                if layout == 0:
                    out[(i + w * q) * n + j] = words[w]
                elif layout == 1:
                    out[j * n + i + w * q] = words[w]
                else:
                    out[(i * n + j) * 4 + w] = words[w]


@kernel
def _fill_across(several: Any, rounds: int, n: int, out: Any) -> None:
    """Each weight's words under all the keys in turn, weight after weight."""
    m = len(several)
    for i in range(n // 4):
        for j in range(n):
            first = (i * n + j) * 4 * m
            for s in range(m):
                words = _block(several[s], rounds, j, i)
                for w in range(4):
                    out[first + w * m + s] = words[w]


def stream_keys(seed: int, variant: Variant, chains: NDArray[np.int64], layers: NDArray[np.int64]) -> Words:
    """Keys of the weights of the given layers of the given chains.

    Parameters
    ----------
    seed : int
        Names the cell.
    variant : Variant
    chains, layers : ndarray of int64, shape (m,)

    Returns
    -------
    ndarray of uint32, shape (m, 6)
        Four words of the key; then the words of layer and chain, for the variant that needs them.
    """
    cell = np.array(keys.cell_key(seed, "battery"), dtype=np.uint32)
    if not variant.layer_varies:
        layers = np.ones_like(layers)
    if not variant.chain_varies:
        chains = np.zeros_like(chains)
    out = np.empty((len(chains), 6), np.uint32)
    _fill_keys(cell, variant.rounds, chains, layers, out)
    return out


def words(
    order: str, seed: int, first_chain: int, variant: Variant = AS_USED, width: int = WIDTH, depth: int = DEPTH
) -> Iterator[Words]:
    """The words in one order, without end.

    Parameters
    ----------
    order : str
        One of `ORDERS`.
    seed, first_chain : int
        Where the stream starts.
    variant : Variant
    width : int
        Of the square matrices, a multiple of four.
    depth : int
        Layers of a chain; also how many neighbouring chains are taken together.

    Yields
    ------
    ndarray of uint32
        The next words; the same memory each time.
    """
    layers = np.arange(1, depth + 1)
    chain = np.int64(first_chain)
    matrix = np.empty(width * width, np.uint32)
    across = np.empty(width * width * depth if order in (LAYERS, CHAINS) else 0, np.uint32)
    while True:
        if order == CHAINS:
            for layer in layers:
                neighbours = stream_keys(seed, variant, chain + np.arange(depth), np.full(depth, layer))
                _fill_across(neighbours, variant.rounds, width, across)
                yield across
            chain += depth
            continue
        own = stream_keys(seed, variant, np.full(depth, chain), layers)
        if order == LAYERS:
            _fill_across(own, variant.rounds, width, across)
            yield across
        else:
            for key in own:
                _fill_matrix(key, variant.rounds, width, _LAYOUT[order], matrix)
                yield matrix
        chain += 1
