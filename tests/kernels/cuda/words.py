"""The random words as the CUDA kernels draw them: matrices and products with the word in the place of the weight.

A word is exact in float64, so that what is drawn, where, and by which thread is compared as integers. Run as a module
under the simulator it prints, as JSON, what `drawn` gives.
"""

from __future__ import annotations

import json
import sys

import numpy as np
from numba import cuda

from gradsim.kernels import keys, rng
from gradsim.kernels.cuda import device, draws, target
from gradsim.kernels.cuda.threads import shared_bytes
from tests.kernels import golden
from tests.kernels.cuda.golden_words import WAYS


@target.compiled
def words4(w0, w1, w2, w3, one, signs):
    """The four words of a block as numbers."""
    return np.float64(w0), np.float64(w1), np.float64(w2), np.float64(w3)


def kernels():
    """The ways of drawing, translated, with words in the place of weights; and keys of layers."""
    of = target.Translation("float64")
    rows = of._function(draws.make_rows(words4), False)
    forward = of._function(draws.make_forward(words4, False), False)
    backward = of._function(draws.make_backward(words4), False)
    layer_key = of.value(rng.layer_key)

    def draw_rows(key, matrix, spare, x, y):
        q = (matrix.shape[0] + 3) // 4
        rows(key, False, 0, q, matrix, 0, q, matrix.shape[0], spare, matrix.shape[1])

    def draw_forward(key, matrix, spare, x, y):
        """Column j is W e_j."""
        q = (matrix.shape[0] + 3) // 4
        for j in range(matrix.shape[1]):
            if cuda.threadIdx.x == 0:
                for i in range(len(x)):
                    x[i], y[i] = 0, 0
                x[j] = 1
            cuda.syncthreads()
            forward(key, False, x, spare, 0, matrix.shape[1], y, q)
            if cuda.threadIdx.x == 0:
                for i in range(matrix.shape[0]):
                    matrix[i, j] = y[i]
            cuda.syncthreads()

    def draw_backward(key, matrix, spare, x, y):
        """Row i is W^T e_i."""
        q = (matrix.shape[0] + 3) // 4
        for i in range(matrix.shape[0]):
            if cuda.threadIdx.x == 0:
                for j in range(len(x)):
                    x[j], y[j] = 0, 0
                x[i] = 1
            cuda.syncthreads()
            backward(key, False, x, 0, q, y, matrix.shape[1], q)
            if cuda.threadIdx.x == 0:
                for j in range(matrix.shape[1]):
                    matrix[i, j] = y[j]
            cuda.syncthreads()

    def derive(cell, chain, layer, purpose, out):
        if cuda.threadIdx.x == 0:
            out[0], out[1], out[2], out[3] = layer_key(cell[0], cell[1], cell[2], cell[3], chain, layer, purpose)

    made = {"rows": draw_rows, "forward": draw_forward, "backward": draw_backward, "derive": derive}
    return {name: cuda.jit(function) for name, function in made.items()}


def drawn():
    """The matrices of `golden` by each way, and the keys of its layers, as integers."""
    made, threads = kernels(), target.EDGE**2
    cell = device.on_device(np.array(keys.cell_key(*golden.CELLS[0]), np.uint32))

    def launch_one(name, *arguments):
        made[name][1, threads, 0, shared_bytes(threads, target.EDGE)](*arguments)

    def key_of(chain, layer, purpose):
        out = device.zeros((4,), np.uint32)
        launch_one("derive", cell, np.int64(chain), np.int64(layer), np.int64(purpose), out)
        return out

    names = [(chain, layer, name) for chain in golden.CHAINS for layer in golden.LAYERS for name in golden.PURPOSES]
    found = {"layers": [listed(key_of(chain, layer, golden.PURPOSES[name])) for chain, layer, name in names]}
    key = key_of(0, 1, keys.WEIGHT)
    for way in WAYS:
        found[way] = []
        for rows in golden.ROWS:
            matrix = device.zeros((rows, golden.COLUMNS), np.float64)
            spare, x, y = (device.zeros((4 * (rows // 4 + 8),), np.float64) for _ in range(3))
            launch_one(way, key, matrix, spare, x, y)
            found[way].append(listed(matrix))
    return found


def listed(array):
    """An array on the device as lists of integers."""
    return [[int(v) for v in row] if np.ndim(row) else int(row) for row in device.to_host(array, len(array))]


if __name__ == "__main__":
    json.dump(drawn(), sys.stdout)
