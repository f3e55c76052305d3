"""How far rounding may move the logarithm of a norm, where nothing is random that would hide it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from gradsim.chain import Chain

__all__ = ["rounding_of_layer", "rounding_of_mean", "rounding_tolerance", "stored_spacing"]

FloatArray = npt.NDArray[np.float64]


def rounding_tolerance(chain: Chain, dtype: str, values: FloatArray) -> FloatArray:
    """How far rounding may move ln||g_l|| where the law has no spread.

    That of `rounding_of_layer` for every layer passed and one more for the norm of g_L, all of one sign, plus the
    spacing of the float32 in which the logarithm is stored.

    Parameters
    ----------
    chain : Chain
    dtype : str
        Arithmetic of the chain.
    values : array, shape (L+1,)
        ln||g_l|| in the law.
    """
    layers = np.arange(chain.depth + 1, 0, -1.0)
    return rounding_of_layer(chain, dtype) * layers + stored_spacing(values)


def rounding_of_layer(chain: Chain, dtype: str) -> float:
    """How far rounding in one layer may move the logarithm of a norm.

    A step g -> W^T g with dot products of n terms moves g by a vector of relative length at most about lambda
    sqrt(n) u, u the unit roundoff, with rounding errors that are independent (Higham and Mary 2019, SIAM J.
    Sci. Comput. 41, A2815); drawing and orthogonalising W and rounding the gain add as much again: 4 eps sqrt(n)
    = 8 u sqrt(n).
    """
    return 4.0 * float(np.finfo(dtype).eps) * math.sqrt(max(chain.widths))


def stored_spacing(values: FloatArray) -> FloatArray:
    """Distance between neighbouring float32 at these values."""
    return np.spacing(np.abs(values).astype(np.float32)).astype(np.float64)


def rounding_of_mean(quantity: str, chain: Chain, dtype: str, layer: int, value: float) -> float:
    """How far rounding may move a mean over chains, were all of them rounded alike.

    That of `rounding_tolerance`, for any quantity: activations have passed the layers below, gradients those above,
    weights' gradients and exponents, which are per layer, all.

    Parameters
    ----------
    quantity : str
    chain : Chain
    dtype : str
        Arithmetic of the chain.
    layer : int
        The column, as its quantity numbers them.
    value : float
        The mean.
    """
    depth = chain.depth
    passed = {"log_activation_norm": layer, "log_weight_grad_norm": depth, "lyapunov": depth}
    layers = (passed.get(quantity, depth - layer) + 1) / (depth if quantity == "lyapunov" else 1)
    return rounding_of_layer(chain, dtype) * layers + float(stored_spacing(np.array([value]))[0])
