"""The oracle of the deferred engine: matrices of which only answers are drawn, in NumPy float64, from the textbook.

It shares the random numbers with the kernels and nothing else. What has been asked is kept as the columns of matrices
with orthonormal columns: U with A = W U, V with B = W^T V. `Weight` and `Gate` stand for matrices in
`gradsim.kernels.reference`, whose passes are taken as they are: see `simulate`.
"""

from __future__ import annotations

from unittest import mock

import numpy as np

from gradsim.kernels import reference, reference_gated
from gradsim.kernels.keys import ANSWER, ANSWER_BACK, cell_key
from gradsim.kernels.reference_parts import settled

_product, _sum_of_products, _backward = reference.product, reference_gated.sum_of_products, reference._backward

#: A residual below this part of its query is rounding, as in the kernels.
DEPENDENT = 2.0**-47


def residual(basis, x):
    """x without its part in the span of a basis, by Gram and Schmidt, and once more; its length; the coefficients."""
    c, rest = np.zeros(basis.shape[1]), x
    for _ in range(3):
        more = basis.T @ rest
        c, rest = c + more, rest - basis @ more
    return rest, np.linalg.norm(rest), c


def with_column(matrix, column):
    return np.column_stack([matrix, column])


class GaussianMatrix:
    """A matrix of standard normals; `ask` and `ask_back` answer W x and W^T d.

    `fresh(n)` gives normals where an answer is not known; it is called where a query has something new alone.
    """

    def __init__(self, rows, columns):
        self.u, self.a = np.zeros((columns, 0)), np.zeros((rows, 0))
        self.v, self.b = np.zeros((rows, 0)), np.zeros((columns, 0))

    def ask(self, x, fresh):
        rest, length, c = residual(self.u, x)
        if self.u.shape[1] < len(x) and length > DEPENDENT * np.linalg.norm(x):
            new = rest / length
            self.a = with_column(self.a, self.answer(self.v, self.b, new, fresh))
            self.u, c = with_column(self.u, new), np.append(c, length)
        return self.a @ c

    def ask_back(self, d, fresh):
        """The same of the transposed matrix."""
        self.transpose()
        y = self.ask(d, fresh)
        self.transpose()
        return y

    def transpose(self):
        self.u, self.v, self.a, self.b = self.v, self.u, self.b, self.a

    def answer(self, v, b, new, fresh):
        """What is known along V, and fresh normals elsewhere: V B^T u + (1 - V V^T) xi."""
        if v.shape[1] == len(v):
            return v @ (b.T @ new)
        xi = fresh(len(v))
        return v @ (b.T @ new) + xi - v @ (v.T @ xi)


class HaarMatrix:
    """A block of a matrix uniform on the orthogonal group: pairs u_i, a_i of unit vectors with W u_i = a_i.

    The square matrix has as many rows and columns as the longer side. Coordinates outside the block are turned so
    that each answer reaches one of them that was not reached before.
    """

    def __init__(self, rows, columns):
        self.shape = rows, columns
        self.order = max(rows, columns)
        self.u = self.a = np.zeros((self.order, 0))
        self.asked = self.asked_back = 0

    def ask(self, x, fresh):
        before = self.u.shape[1]
        y = self._ask(x, self.shape[0] + self.asked, fresh)[: self.shape[0]]
        self.asked += self.u.shape[1] - before
        return y

    def ask_back(self, d, fresh):
        self.u, self.a = self.a, self.u
        before = self.u.shape[1]
        y = self._ask(d, self.shape[1] + self.asked_back, fresh)[: self.shape[1]]
        self.u, self.a = self.a, self.u
        self.asked_back += self.u.shape[1] - before
        return y

    def _ask(self, x, reached, fresh):
        rest, length, c = residual(self.u, np.append(x, np.zeros(self.order - len(x))))
        if self.u.shape[1] < self.order and length > DEPENDENT * np.linalg.norm(x):
            self.a = with_column(self.a, self.answer(fresh(self.order), reached))
            self.u, c = with_column(self.u, rest / length), np.append(c, length)
        return self.a @ c

    def answer(self, xi, reached):
        """A uniform direction of those orthogonal to all answers."""
        if reached < self.order:
            xi = np.concatenate([xi[:reached], [np.linalg.norm(xi[reached:])], np.zeros(self.order - reached - 1)])
        rest, length, _ = residual(self.a, xi)
        return rest / length


class Asked:
    """A matrix that is asked column by column, a layer each time it is used, with the kernels' random numbers.

    Parameters
    ----------
    matrix
        With `ask` and `ask_back`.
    cell, index
        Key of the cell and the chain's index: of the streams.
    layers
        Layers at which it is used, in order; backward it is used in the opposite order, and again and again.
    streams, first
        A query of column b takes its normals from column `streams` b + `first` of the layer's stream.
    """

    def __init__(self, matrix, cell, index, layers, streams=1, first=0):
        self.matrix, self.cell, self.index = matrix, cell, index
        self.layers, self.uses = list(layers), [0, 0]
        self.streams, self.first = streams, first

    def forward(self, x):
        return self._columns(x, self.matrix.ask, ANSWER, self.layers)

    def back(self, d):
        return self._columns(d, self.matrix.ask_back, ANSWER_BACK, self.layers[::-1])

    def _columns(self, x, ask, purpose, layers):
        use = self.uses[purpose - ANSWER]
        self.uses[purpose - ANSWER] += 1
        layer = layers[use % len(layers)]
        return np.column_stack([ask(x[:, b], self._fresh(layer, purpose, b)) for b in range(x.shape[1])])

    def _fresh(self, layer, purpose, b):
        stream = self.streams * b + self.first

        def fresh(n):
            key = reference.stream_key(self.cell, self.index, layer, purpose)
            return reference.draw(key, n, stream + 1, "gaussian")[:, stream]

        return fresh


class Weight:
    """`scale` times a matrix, as the reference takes one."""

    def __init__(self, asked, scale, rows):
        self.asked, self.scale, self.rows = asked, scale, rows

    def __matmul__(self, x):
        return self.scale * self.asked.forward(x)

    @property
    def T(self):
        return Transposed(self)

    def __len__(self):
        return self.rows

    def any(self):
        return self.scale != 0

    def astype(self, real):
        assert real is np.float64
        return self


class Transposed:
    def __init__(self, weight):
        self.weight = weight

    def __matmul__(self, d):
        return self.weight.scale * self.weight.asked.back(d)


class Stack(Asked):
    """Several Gaussian gates, one below the other, which are one matrix: each reads its rows of one answer."""

    asked = None

    def forward(self, x):
        if x is not self.asked:
            self.asked, self.answer = x, super().forward(x)
        return self.answer


class Block(Weight):
    """One gate of a stack."""

    def __init__(self, asked, scale, rows, gate):
        super().__init__(asked, scale, rows)
        self.part = slice(gate * rows, (gate + 1) * rows)

    def __matmul__(self, h):
        return super().__matmul__(h)[self.part]


def product(a, b):
    """`reference.product`: what cancels in the law is zero, beside entries of W^T d of the size of d."""
    if not isinstance(a, Transposed):
        return _product(a, b)
    return settled(a @ b, a.weight.scale * np.linalg.norm(b, axis=0))


def sum_of_products(w, d):
    """`reference_gated.sum_of_products`: what one matrix of all gates is asked backward is one query."""
    if isinstance(w[0], Block):
        return w[0].scale * w[0].asked.back(np.vstack(d))
    return _sum_of_products(w, d)


class Weights:
    """`reference.weight_matrix` and `reference.gate_matrix`; `make` takes init, rows and columns to a matrix."""

    def __init__(self, make):
        self.make = make

    def weight_matrix(self, chain, cell, index, layer):
        rows, columns = chain.widths[layer], chain.widths[layer - 1]
        layers = range(1, chain.depth + 1) if chain.tied else [layer]
        asked = Asked(self.make(chain.init, rows, columns), cell, index, layers)
        return Weight(asked, scale_of(chain, layer), rows)

    def gate_matrix(self, chain, cell, index, gate):
        n, gates, layers = chain.width, chain.gates, range(1, chain.depth + 1)
        if chain.init == "orthogonal":
            asked = Asked(self.make(chain.init, n, n), cell, index, layers, gates, gate)
            return Weight(asked, scale_of(chain, 1), n)
        if gate == 0:
            self.stack = Stack(self.make(chain.init, gates * n, n), cell, index, layers)
        return Block(self.stack, scale_of(chain, 1), n, gate)


def scale_of(chain, layer):
    """What unit-variance entries, or an orthogonal matrix, are multiplied by."""
    gain = chain.gains[layer - 1]
    return gain if chain.init == "orthogonal" else gain / np.sqrt(chain.widths[layer - 1])


def exact(init, rows, columns):
    """The matrices of the law."""
    return HaarMatrix(rows, columns) if init == "orthogonal" else GaussianMatrix(rows, columns)


def simulate(chain, seed, index, make=exact):
    """`reference.simulate_chain` with matrices that are asked instead of formed."""
    weights = Weights(make)

    def backward(chain, steps, top):
        if chain.probes > 1:
            # All probes are asked about at a layer before the next; what comes later repeats their queries.
            cell = cell_key(seed, chain.canonical())
            reference._lyapunov(chain, steps, reference.probe_gradients(chain, cell, index))
        return _backward(chain, steps, top)

    patched = {name: getattr(weights, name) for name in ("weight_matrix", "gate_matrix")}
    patched |= {"product": product, "_backward": backward}
    with (
        mock.patch.multiple(reference, **patched),
        mock.patch.object(reference_gated, "sum_of_products", sum_of_products),
    ):
        return reference.simulate_chain(chain, seed, index)
