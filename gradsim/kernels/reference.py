"""The oracle: one chain in NumPy, from the textbook, slow and obvious.

It draws the same integers as the kernels, by an implementation of Threefry of its own, forms every weight matrix,
pushes plain float64 vectors forward and backward, and takes norms at the end. Only shapes and laws are shared
with the kernels: their formulas, their loops and their scaling are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gradsim import activations

from .keys import BIAS, DROPOUT, INPUT, NOISE, OUTPUT, WEIGHT, cell_key
from .reference_gated import StepPullback, gru_step, lstm_step
from .reference_parts import Array, Pullback, clipped, normalise, orthonormalise, product

if TYPE_CHECKING:
    from gradsim.chain import Chain

Vector: TypeAlias = NDArray[np.float64]
Matrix: TypeAlias = NDArray[np.float64]
Words: TypeAlias = NDArray[np.uint32]
Cell: TypeAlias = tuple[int, int, int, int]


class Step(NamedTuple):
    """What a layer leaves for the way back: its pullback, and the vectors its matrices acted on."""

    pull: StepPullback
    x: Array


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


def stream_key(cell: Cell, index: int, layer: int, purpose: int) -> Words:
    """Key of one stream: Threefry-4x32-20 of (chain, layer, purpose) under the cell's key."""
    counter = np.array([[index & 0xFFFFFFFF], [index >> 32], [layer], [purpose]], dtype=np.uint32)
    return threefry4x32(np.array(cell, dtype=np.uint32).reshape(4, 1), counter, 20)


def words(key: Words, rows: int, columns: int) -> Words:
    """The words behind a matrix of four times ceil(rows / 4) rows, shape (4, ceil(rows / 4), columns).

    The block at counter (column, i) holds the words of that column in rows i, i + q, i + 2q, i + 3q.
    """
    q = -(-rows // 4)
    column, group = np.meshgrid(np.arange(columns, dtype=np.uint32), np.arange(q, dtype=np.uint32))
    zero = np.zeros_like(column)
    return threefry4x32(key[:, :, np.newaxis], np.stack([column, group, zero, zero]), 13)


def draw(key: Words, rows: int, columns: int, law: str) -> Matrix:
    """A matrix of unit-variance entries; `law` is gaussian, uniform or rademacher."""
    w = words(key, rows, columns)
    if law == "gaussian":
        values = np.concatenate([*box_muller(w[0], w[1]), *box_muller(w[2], w[3])])
    elif law == "uniform":
        values = np.concatenate(list((w.view(np.int32) + 0.5) * (np.sqrt(3) / 2**31)))
    else:
        values = np.concatenate(list(np.where(w >> np.uint32(31), -1.0, 1.0)))
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


def weight_matrix(chain: Chain, cell: Cell, index: int, layer: int) -> Matrix:
    """W_l of one chain, scaled; a recurrent chain has one matrix, under layer 0."""
    return _scaled_matrix(chain, stream_key(cell, index, 0 if chain.tied else layer, WEIGHT), layer)


def gate_matrix(chain: Chain, cell: Cell, index: int, gate: int) -> Matrix:
    """W_k of one gate, scaled, in PyTorch's order: i, f, g, o or r, z, n."""
    return _scaled_matrix(chain, stream_key(cell, index, gate, WEIGHT), 1)


def _scaled_matrix(chain: Chain, key: Words, layer: int) -> Matrix:
    rows, columns, gain = chain.widths[layer], chain.widths[layer - 1], chain.gains[layer - 1]
    matrix: Matrix
    if chain.init == "identity":
        matrix = np.eye(rows)
    elif chain.init == "orthogonal":
        matrix = stiefel(key, rows, columns) if rows >= columns else stiefel(key, columns, rows).T
    else:
        matrix = draw(key, rows, columns, chain.init) / np.sqrt(columns)
    matrix *= gain
    return matrix


def input_state(chain: Chain, cell: Cell, index: int) -> Matrix:
    """h_0, a column for each of the batch."""
    return chain.input_scale * draw(stream_key(cell, index, 0, INPUT), chain.widths[0], chain.batch, "gaussian")


def bias(chain: Chain, cell: Cell, index: int, layer: int, gate: int = 0) -> Vector:
    """b_l, or the one bias of a tied chain or gate."""
    key = stream_key(cell, index, gate if chain.tied else layer, BIAS)
    return np.asarray(chain.biases[layer - 1] * draw(key, chain.widths[layer], 1, chain.bias_law)[:, 0])


def noise(chain: Chain, cell: Cell, index: int, layer: int, gate: int = 0) -> Matrix:
    """Input noise of one step, a column for each of the batch; gates follow one another."""
    drawn = draw(stream_key(cell, index, layer, NOISE), chain.widths[layer], chain.gates * chain.batch, "gaussian")
    return chain.input_noise * drawn[:, gate * chain.batch : (gate + 1) * chain.batch]


def added(chain: Chain, cell: Cell, index: int, layer: int) -> Matrix:
    """Bias and input noise of one layer: a vector, with a batch one column each."""
    b, more = bias(chain, cell, index, layer), noise(chain, cell, index, layer)
    return b + more[:, 0] if chain.batch == 1 else b[:, np.newaxis] + more


def kept(chain: Chain, cell: Cell, index: int, layer: int) -> Matrix:
    """Mask of dropout at one layer, a column for each of the batch: 0 where a unit is dropped, else 1 / (1 - p)."""
    w = words(stream_key(cell, index, layer, DROPOUT), chain.widths[layer], chain.batch)
    dropped = np.concatenate(list(w))[: chain.widths[layer]] < np.uint32(int(chain.dropout * 2**32))
    return np.where(dropped, 0.0, 1 / (1 - chain.dropout))


def output_gradient(chain: Chain, cell: Cell, index: int, h: Array) -> Array:
    """g_L as the chain's field says: of the shape of h, its norm over all entries."""
    if chain.output_gradient == "loss":
        return h.copy()
    if chain.output_gradient == "ones":
        return np.ones_like(h)
    key = stream_key(cell, index, chain.depth, OUTPUT)
    g = draw(key, len(h), h.size // len(h), "gaussian").reshape(h.shape)
    return g / np.linalg.norm(g)


def probe_gradients(chain: Chain, cell: Cell, index: int) -> Matrix:
    """The k vectors that start at layer L, as columns; the first has length 1."""
    g = draw(stream_key(cell, index, chain.depth, OUTPUT), chain.widths[-1], chain.probes, "gaussian")
    g[:, 0] /= np.linalg.norm(g[:, 0])
    return g


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
        log_grad_norm, log_activation_norm, log_grad_max, each (L + 1,); log_weight_grad_norm (L,) or, tied, (1,); for
        an LSTM log_cell_grad_norm (L + 1,); with probes lyapunov (k,); and the vectors themselves: h and g, lists over
        l = 0 .. L of arrays (n_l,) or, with a batch, (n_l, B). No range is kept: vectors may overflow.
    """
    cell = cell_key(seed, chain.canonical(), streams)
    real = np.dtype(dtype).type
    h, steps = _gated_forward(chain, cell, index, real) if chain.gates > 1 else _forward(chain, cell, index, real)
    if chain.probes > 1:
        top = probe_gradients(chain, cell, index)[:, :1].astype(real)
    else:
        top = output_gradient(chain, cell, index, h[-1]).astype(real)
    g, cells, gradients = _backward(chain, steps, top)
    with np.errstate(divide="ignore"):
        found: dict[str, Any] = {
            "log_grad_norm": _log_norms(g),
            "log_activation_norm": _log_norms(h),
            "log_weight_grad_norm": _log_norms(gradients),
            "log_grad_max": np.log([np.max(np.abs(v.astype(float))) for v in g]),
        }
        if chain.kind == "lstm":
            found["log_cell_grad_norm"] = _log_norms(cells)
        if chain.probes > 1:
            found["lyapunov"] = _lyapunov(chain, steps, probe_gradients(chain, cell, index).astype(real))
    for name, vectors in (("h", h), ("g", g)):
        found[name] = vectors if chain.batch > 1 else [v[:, 0] for v in vectors]
    return found


def _log_norms(arrays: Sequence[Array]) -> Matrix:
    """ln of the norm over all entries of each."""
    return np.log([np.linalg.norm(a.astype(float)) for a in arrays])


def _forward(chain: Chain, cell: Cell, index: int, real: type[np.floating]) -> tuple[list[Array], list[Step]]:
    """h_0 .. h_L and the steps back, of feedforward and recurrent chains."""
    h: list[Array] = [input_state(chain, cell, index).astype(real)]
    steps: list[Step] = []
    for layer in range(1, chain.depth + 1):
        if layer == 1 or not chain.tied:
            w = weight_matrix(chain, cell, index, layer).astype(real)
        extra = added(chain, cell, index, layer).astype(real).reshape(len(w), -1)
        mask = kept(chain, cell, index, layer).astype(real) if chain.dropout > 0 else real(1)
        state, step = _layer(chain, w, extra, mask, h[-1])
        h.append(state)
        steps.append(step)
    return h, steps


def _layer(chain: Chain, w: Array, extra: Array, mask: Array | np.floating, h: Array) -> tuple[Array, Step]:
    """h_l from h_{l-1}, and the step back."""
    real = h.dtype.type
    alpha, carry = real(chain.skip_factor), real(chain.carry)

    def normed(position: str, x: Array) -> tuple[Array, Pullback]:
        if chain.norm == "none" or chain.norm_position != position:
            return x, lambda g: g
        return normalise(x, chain.norm, chain.norm_eps, still)

    # Nothing comes through the matrix, so that what is the same in every column is so in the law.
    alone = not alpha or not carry or chain.norm_position in ("before", "after")
    still = chain.input_noise == 0 and alone and not (w.any() and h.any())
    activation = activations.get(chain.activation, chain.negative_slope)
    x, pull_pre = normed("pre", h)
    z, pull_before = normed("before", w @ x + extra)
    y, pull_after = normed("after", activation.phi(z))
    slope = activation.dphi(z)
    y = y * mask
    state, pull_post = normed("post", carry * h + alpha * y if alpha else y)

    def pull(g: Array, dc: Array) -> tuple[Array, Array, list[Array]]:
        g = pull_post(g)
        branch = alpha * g if alpha else g
        d = pull_before(slope * pull_after(branch * mask))
        below = pull_pre(product(w.T, d))
        return (carry * g + below if alpha else below), dc, [d]

    return state, Step(pull, x)


def _gated_forward(chain: Chain, cell: Cell, index: int, real: type[np.floating]) -> tuple[list[Array], list[Step]]:
    """h_0 .. h_L and the steps back, of LSTM and GRU chains."""
    gates = range(chain.gates)
    w = [gate_matrix(chain, cell, index, k).astype(real) for k in gates]
    biases = [bias(chain, cell, index, 1, k).astype(real)[:, np.newaxis] for k in gates]
    h: list[Array] = [input_state(chain, cell, index).astype(real)]
    c = np.zeros_like(h[0])
    steps: list[Step] = []
    for layer in range(1, chain.depth + 1):
        more = [noise(chain, cell, index, layer, k).astype(real) for k in gates]
        if chain.kind == "lstm":
            extra = [b + x for b, x in zip(biases, more, strict=True)]
            extra[1] = extra[1] + real(chain.forget_bias)
            state, c, pull = lstm_step(w, extra, h[-1], c)
        else:
            state, pull = gru_step(w, [biases[0] + more[0], biases[1] + more[1], biases[2], more[2]], h[-1])
        steps.append(Step(pull, h[-1]))
        h.append(state)
    return h, steps


def _backward(chain: Chain, steps: list[Step], top: Array) -> tuple[list[Array], list[Array], list[Array]]:
    """g_0 .. g_L, the same of the cells, and dLoss/dW: of each layer, of a tied chain that of all its matrices."""
    g, cells = [clipped(chain, top)], [np.zeros_like(top)]
    gradients: list[list[Array]] = []
    for pull, x in reversed(steps):
        below, dc, d = pull(g[0], cells[0])
        g.insert(0, clipped(chain, below))
        cells.insert(0, dc)
        gradients.insert(0, [product(at, x.T) for at in d])
    if not chain.tied:
        return g, cells, [weights[0] for weights in gradients]
    return g, cells, [np.stack([np.sum(of_gate, axis=0) for of_gate in zip(*gradients, strict=True)])]


def _lyapunov(chain: Chain, steps: list[Step], top: Array) -> Matrix:
    """Growth per layer of the k directions that QR at every layer keeps apart, descending (Benettin et al. 1980).

    The state of an LSTM is h with c: its directions are those of both together.
    """
    # How many of a frame's rows, its last, are the cells'.
    n = len(top) if chain.kind == "lstm" else 0
    frame, _ = orthonormalise(np.vstack([top, np.zeros_like(top[:n])]))
    logs = np.zeros(chain.probes)
    for pull, _ in reversed(steps):
        below, cells, _ = pull(*np.split(frame, [len(frame) - n]))
        frame, diagonal = orthonormalise(np.vstack([below, cells]))
        logs += np.log(diagonal)
    return np.sort(logs / chain.depth)[::-1]
