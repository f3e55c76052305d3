"""The kernels that draw, called one by one: W h and W^T d of the matrix that a key draws, and chains made of them."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np
from numba import typeof, types

from gradsim import activations
from gradsim.kernels import draws, matrices, orthogonal, reference, shapes
from gradsim.kernels.keys import INPUT, OUTPUT, WEIGHT, cell_key

LAWS = ("gaussian", "uniform", "rademacher")


def key(number=0):
    """Some stream."""
    return np.array([number, 1, 2, 3], dtype=np.uint32)


def drawn(number, rows, columns, law):
    """The matrix of `key(number)`, by the reference."""
    return reference.draw(key(number).reshape(4, 1), rows, columns, law)


def constant(kernel, *arguments):
    """Call a kernel as the engine compiled it: a bool written out in its code has a type of its own there."""
    kinds = tuple(types.literal(value) if isinstance(value, bool) else typeof(value) for value in arguments)
    return _compiled(kernel, kinds)(*arguments)


@lru_cache
def _compiled(kernel, kinds):
    return kernel.compile(kinds)


def padded(x, width, dtype):
    """A vector with zeros up to the entries that the kernels keep for this width."""
    result = np.zeros(shapes.padded(width), dtype)
    result[: len(x)] = x
    return result


def groups(n):
    """Rows in groups of four."""
    return -(-n // 4)


def lanes(n):
    """n in whole lanes."""
    return -(-n // draws.LANES) * draws.LANES


def column(stream, j, rows, dtype):
    """Column j of the Gaussian matrix: how vectors are drawn, and the reflectors of orthogonal matrices."""
    x = np.empty(shapes.padded(rows), dtype)
    constant(draws._fill_gaussian, stream, False, j, x, rows)
    return x[:rows]


def uniform_bias(stream, rows, dtype):
    """Column 0 of the uniform matrix, the only one that is ever wanted."""
    x = np.empty(shapes.padded(rows), dtype)
    arguments = (stream, False, 0, x, rows)
    kinds = (typeof(stream), types.literal(False), types.literal(0), typeof(x), typeof(rows))
    _compiled(draws.fill_bounded, kinds)(*arguments)
    return x[:rows]


def cuts(n, step):
    """0, step, 2 step, ..., n."""
    return [*range(0, n, step), n]


def forward(stream, law, h, rows, step=10**6):
    """W h by the kernel that runs down the columns, `step` active columns a call."""
    z = np.zeros(shapes.padded(max(rows, len(h))), h.dtype)
    active = np.flatnonzero(h)
    for first, last in pairwise(cuts(len(active), step)):
        if law == "gaussian":
            constant(draws.forward_gaussian, stream, False, h, active, first, last, z, groups(rows))
        else:
            draws.forward_bounded(stream, law == "rademacher", h, active, first, last, z, groups(rows))
    return z[:rows]


def forward_narrow(stream, law, h, rows, step=10**6):
    """W h by the kernel for few rows, `step` groups of rows a call."""
    z = np.zeros(shapes.padded(max(rows, len(h))), h.dtype)
    sums = np.empty(4 * draws.LANES, h.dtype)
    h = padded(h, len(h), h.dtype)
    n, q = lanes(len(h) - draws.LANES), groups(rows)
    for first, last in pairwise(cuts(q, step)):
        if law == "gaussian":
            constant(draws.forward_narrow_gaussian, stream, False, h, n, first, last, z, q, sums)
        else:
            draws.forward_narrow_bounded(stream, law == "rademacher", h, n, first, last, z, q, sums)
    return z[:rows]


def backward(stream, law, d, columns, step=10**6):
    """W^T d, `step` groups of rows a call."""
    rows = len(d)
    g = np.zeros(shapes.padded(max(rows, columns)), d.dtype)
    d, q = padded(d, rows, d.dtype), groups(rows)
    for first, last in pairwise(cuts(q, step)):
        if law == "gaussian":
            constant(draws.backward_gaussian, stream, False, d, first, last, g, lanes(columns), q)
        else:
            draws.backward_bounded(stream, law == "rademacher", d, first, last, g, lanes(columns), q)
    return g[:columns]


def times_q(stream, u, order, step=10**6):
    """Q u of the tall matrix with len(u) columns."""
    y, x = np.zeros(order, u.dtype), np.empty(shapes.padded(order), u.dtype)
    for first, last in pairwise(cuts(len(u), step)):
        orthogonal.apply_q(stream, u, order, first, last, y, x)
    return y


def times_q_transposed(stream, v, columns, step=10**6):
    """Q^T v."""
    y, x = v.copy(), np.empty(shapes.padded(len(v)), v.dtype)
    for first, last in pairwise(cuts(columns, step)):
        orthogonal.apply_q_transposed(stream, len(v), first, last, y, x)
    return y[:columns]


def stored_q(stream, order, dtype, step=10**6):
    """The square Q."""
    q = np.zeros((order, order), dtype)
    x, row = np.empty((2, shapes.padded(order)), dtype)
    for first, last in pairwise(cuts(order, step)):
        orthogonal.build_q(stream, first, last, q, x, row)
    return q


def stored(stream, law, order, dtype, step=10**6):
    """The square matrix of a tied chain, `step` groups of rows a call."""
    if law == "orthogonal":
        return stored_q(stream, order, dtype, step)
    q = groups(order)
    matrix, spare = np.zeros((order, lanes(order)), dtype), np.empty(shapes.padded(order), dtype)
    for first, last in pairwise(cuts(q, step)):
        if law == "gaussian":
            constant(draws.rows_gaussian, stream, False, first, last, matrix, 0, q, order, spare, order)
        else:
            draws.rows_bounded(stream, law == "rademacher", first, last, matrix, 0, q, order, spare, order)
    assert not matrix[:, order:].any()
    return np.ascontiguousarray(matrix[:, :order])


def combine(matrix, weights, step=10**6):
    """Sum of weights[r] matrix[r] by the kernel for matrices that are kept, that is matrix^T weights."""
    out = np.zeros(matrix.shape[1], matrix.dtype)
    active = np.flatnonzero(weights)
    for first, last in pairwise(cuts(len(active), step)):
        matrices.combine(matrix, weights, active[first:last], last - first, out, len(out))
    return out


def chain_vectors(chain, seed, index, swapped=False):
    """h_l and g_l of a bias-free Gaussian chain, by the kernels that draw; `swapped` takes W d for W^T d."""
    cell = cell_key(seed, chain.canonical())
    depth = chain.depth
    start, top = stream(cell, index, 0, INPUT), stream(cell, index, depth, OUTPUT)
    weights = [stream(cell, index, layer, WEIGHT) for layer in range(1, depth + 1)]
    scales = chain.gains / np.sqrt(chain.widths[:-1])
    phi = activations.get(chain.activation, chain.negative_slope)

    h = [chain.input_scale * column(start, 0, chain.widths[0], np.float64)]
    slopes = []
    for w, scale, rows in zip(weights, scales, chain.widths[1:], strict=True):
        z = scale * forward(w, "gaussian", h[-1], rows)
        h.append(phi.phi(z))
        slopes.append(phi.dphi(z))
    last = column(top, 0, chain.widths[-1], np.float64)
    g = [last / np.linalg.norm(last)]
    transposed = forward if swapped else backward
    for layer in range(depth - 1, -1, -1):
        d = slopes[layer] * g[0]
        g.insert(0, scales[layer] * transposed(weights[layer], "gaussian", d, chain.widths[layer]))
    return h, g


@lru_cache(maxsize=8192)
def stream(cell, index, layer, purpose):
    """Key of one stream, as kernels take it."""
    return reference.stream_key(cell, index, layer, purpose)[:, 0].copy()
