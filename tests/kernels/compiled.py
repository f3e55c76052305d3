"""The scalar functions of `rng` over arrays, compiled, and vectors as the kernels draw them."""

from __future__ import annotations

import numpy as np

from gradsim.kernels import draws, rng
from gradsim.kernels.compiling import kernel

u32 = np.uint32


@kernel
def _threefry13(key, x0, x1, out):
    k4 = rng.parity(key[0], key[1], key[2], key[3])
    for m in range(len(x0)):
        words = rng.threefry13(key[0], key[1], key[2], key[3], k4, x0[m], x1[m])
        for w in range(4):
            out[w, m] = words[w]


@kernel
def _threefry20(key, x, out):
    for m in range(x.shape[1]):
        words = rng.threefry20(key[0, m], key[1, m], key[2, m], key[3, m], x[0, m], x[1, m], x[2, m], x[3, m])
        for w in range(4):
            out[w, m] = words[w]


@kernel
def _layer_keys(cell, chains, layers, purposes, out):
    for m in range(len(chains)):
        key = rng.layer_key(cell[0], cell[1], cell[2], cell[3], chains[m], layers[m], purposes[m])
        for w in range(4):
            out[m, w] = key[w]


@kernel
def _normal_pairs(r, a, one, x, y):
    for m in range(len(r)):
        x[m], y[m] = rng.normal_pair(r[m], a[m], one)


@kernel
def _bounded(words, one, signs, x):
    for m in range(len(words)):
        x[m] = rng.bounded(words[m], one, signs)


def threefry13(key, x0, x1):
    """Blocks at counters (x0, x1, 0, 0), shape (4, m)."""
    out = np.empty((4, len(x0)), u32)
    _threefry13(np.asarray(key, u32), np.asarray(x0, u32), np.asarray(x1, u32), out)
    return out


def threefry20(key, counter):
    """Blocks at counters (4, m) under keys (4, m)."""
    out = np.empty(counter.shape, u32)
    _threefry20(np.asarray(key, u32), np.asarray(counter, u32), out)
    return out


def layer_keys(cell, chains, layers, purposes):
    """Keys of all these streams, broadcast against each other; shape (..., 4)."""
    chains, layers, purposes = np.broadcast_arrays(chains, layers, purposes)
    out = np.empty((chains.size, 4), u32)
    flat = [np.ascontiguousarray(x, np.int64).ravel() for x in (chains, layers, purposes)]
    _layer_keys(np.array(cell, u32), *flat, out)
    return out.reshape(*chains.shape, 4)


def normal_pairs(r, a, dtype):
    """Both normals of each pair of words."""
    x, y = np.empty(len(r), dtype), np.empty(len(r), dtype)
    _normal_pairs(r, a, np.dtype(dtype).type(1), x, y)
    return x, y


def uniforms(words, dtype):
    """A uniform of each word."""
    x = np.empty(len(words), dtype)
    _bounded(words, np.dtype(dtype).type(1), False, x)
    return x


def signs(words, dtype):
    """A sign of each word."""
    x = np.empty(len(words), dtype)
    _bounded(words, np.dtype(dtype).type(1), True, x)
    return x


def column(key, index, rows, dtype="float64", law="gaussian"):
    """One column of a matrix of `rows` rows, as the kernels fill it."""
    x = np.zeros(4 * -(-rows // 4) + draws.SPARE, dtype)
    fill = draws._fill_gaussian if law == "gaussian" else draws.fill_bounded
    fill(key, law == "rademacher", index, x, rows)
    return x[:rows]
