"""One step of an LSTM and of a GRU in NumPy, with its pullback: PyTorch's equations without input weights.

Hochreiter and Schmidhuber 1997 with the forget gate of Gers et al. 2000; Cho et al. 2014 with the reset gate after the
product, as in torch.nn.GRUCell. Gates stand in PyTorch's order: i, f, g, o and r, z, n.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from .reference_parts import Array

# dLoss/dh' and dLoss/dc' -> dLoss/dh, dLoss/dc, and the gradient at W_k h of each gate k.
StepPullback: TypeAlias = Callable[[Array, Array], tuple[Array, Array, list[Array]]]


def sigmoid(z: Array) -> Array:
    """1 / (1 + e^-z), by tanh: nothing overflows."""
    return np.asarray((1 + np.tanh(z / 2)) / 2)


def lstm_step(w: Sequence[Array], added: Sequence[Array], h: Array, c: Array) -> tuple[Array, Array, StepPullback]:
    """h', c' and the pullback of c' = s(f) c + s(i) tanh(g), h' = s(o) tanh(c').

    Parameters
    ----------
    w : sequence of four ndarray, shape (n, n)
    added : sequence of four ndarray, shape (n, B)
        Biases, noise and the forget gate's constant.
    h, c : ndarray, shape (n, B)
    """
    zi, zf, zg, zo = (matrix @ h + extra for matrix, extra in zip(w, added, strict=True))
    i, f, g, o = sigmoid(zi), sigmoid(zf), np.tanh(zg), sigmoid(zo)
    c_next = f * c + i * g
    squashed = np.tanh(c_next)

    def pull(dh: Array, dc: Array) -> tuple[Array, Array, list[Array]]:
        # All that reaches c', directly and through h'.
        whole = dc + dh * o * (1 - squashed**2)
        d = [
            whole * g * i * (1 - i),
            whole * c * f * (1 - f),
            whole * i * (1 - g**2),
            dh * squashed * o * (1 - o),
        ]
        return sum_of_products(w, d), whole * f, d

    return o * squashed, c_next, pull


def gru_step(w: Sequence[Array], added: Sequence[Array], h: Array) -> tuple[Array, StepPullback]:
    """h' and the pullback of n = tanh(noise_n + r (W_n h + b_n)), h' = (1 - z) n + z h.

    Parameters
    ----------
    w : sequence of three ndarray, shape (n, n)
    added : sequence of four ndarray, shape (n, B)
        To r, to z, b_n inside the reset gate's reach, noise_n outside it.
    h : ndarray, shape (n, B)
    """
    r = sigmoid(w[0] @ h + added[0])
    z = sigmoid(w[1] @ h + added[1])
    inner = w[2] @ h + added[2]
    n = np.tanh(added[3] + r * inner)

    def pull(dh: Array, dc: Array) -> tuple[Array, Array, list[Array]]:
        at_n = dh * (1 - z) * (1 - n**2)
        d = [at_n * inner * r * (1 - r), dh * (h - n) * z * (1 - z), at_n * r]
        return sum_of_products(w, d) + dh * z, dc, d

    return (1 - z) * n + z * h, pull


def sum_of_products(w: Sequence[Array], d: Sequence[Array]) -> Array:
    """W_0^T d_0 + W_1^T d_1 + ..."""
    return np.asarray(sum(matrix.T @ at for matrix, at in zip(w, d, strict=True)))
