"""The activations phi and their derivatives, in NumPy.

These are the textbook forms used by the theory and by the reference kernel. Both keep the dtype they are
given, float32 or float64. At the kink of a rectifier the derivative is the one of the left side, as in
PyTorch: ``relu'(0) = 0``, ``leaky_relu'(0) = slope``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gradsim.errors import ExperimentError

FloatArray = npt.NDArray[np.floating[Any]]

NAMES = ("linear", "relu", "leaky_relu", "tanh", "erf", "sigmoid", "gelu", "silu")


@dataclass(frozen=True)
class Activation:
    """An activation with its derivative.

    Attributes
    ----------
    name : str
        One of `NAMES`.
    phi, dphi : callable
        ``phi(z)`` and ``phi'(z)``, elementwise; arrays of any shape, dtype kept.
    homogeneous : bool
        True where ``phi(c z) = c phi(z)`` for every ``c > 0``: the law of the gradient then does not depend
        on the scale of h.
    mean_square : float or None
        For a homogeneous phi the factor m with ``E phi(sqrt(q) Z)^2 = m q`` and ``E phi'(sqrt(q) Z)^2 = m``;
        None otherwise.
    """

    name: str
    phi: Callable[[FloatArray], FloatArray]
    dphi: Callable[[FloatArray], FloatArray]
    homogeneous: bool
    mean_square: float | None


def get(name: str, negative_slope: float = 0.01) -> Activation:
    """Look up an activation by name.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    negative_slope : float
        Slope of ``leaky_relu`` for negative z; ignored by the others.

    Raises
    ------
    ExperimentError
        If there is no such activation.
    """
    if name == "linear":
        return Activation(name, _identity, np.ones_like, homogeneous=True, mean_square=1.0)
    if name == "relu":
        return Activation(name, _relu, _relu_slope, homogeneous=True, mean_square=0.5)
    if name == "leaky_relu":
        slope = float(negative_slope)
        return Activation(
            name,
            lambda z: np.where(z > 0, z, z * z.dtype.type(slope)),
            lambda z: np.where(z > 0, z.dtype.type(1), z.dtype.type(slope)),
            homogeneous=True,
            mean_square=(1.0 + slope * slope) / 2.0,
        )
    if name in _SMOOTH:
        phi, dphi = _SMOOTH[name]
        return Activation(name, phi, dphi, homogeneous=False, mean_square=None)
    raise ExperimentError(f"activation {name!r} is unknown; choose one of {', '.join(NAMES)}")


def _identity(z: FloatArray) -> FloatArray:
    return z.copy()


def _relu(z: FloatArray) -> FloatArray:
    return np.maximum(z, z.dtype.type(0))


def _relu_slope(z: FloatArray) -> FloatArray:
    return (z > 0).astype(z.dtype)


def _sech_squared(z: FloatArray) -> FloatArray:
    """tanh'(z): 1 - tanh^2 would cancel to 0 for large z, and 1/cosh^2 would overflow."""
    e = np.square(np.exp(-np.abs(z)))
    return np.asarray(4.0 * e / np.square(1.0 + e), dtype=z.dtype)


def _erf(z: FloatArray) -> FloatArray:
    # In Python's own math: NumPy has no erf, and SciPy is not needed to simulate.
    return np.asarray(np.vectorize(math.erf, otypes=[np.float64])(z), dtype=z.dtype)


def _within_reach(z: FloatArray) -> FloatArray:
    """z, cut where exp(-z^2/2) has long been 0, so that its square does not overflow."""
    return np.clip(z, -100.0, 100.0)


def _erf_slope(z: FloatArray) -> FloatArray:
    return np.asarray(2.0 / math.sqrt(math.pi) * np.exp(-np.square(_within_reach(z))), dtype=z.dtype)


def _sigmoid(z: FloatArray) -> FloatArray:
    # exp of nothing positive: 1/(1 + exp(-z)) would overflow for z far below 0.
    e = np.exp(-np.abs(z))
    return np.asarray(np.where(z >= 0, 1.0, e) / (1.0 + e), dtype=z.dtype)


def _sigmoid_slope(z: FloatArray) -> FloatArray:
    e = np.exp(-np.abs(z))
    return np.asarray(e / np.square(1.0 + e), dtype=z.dtype)


def _normal_cdf(z: FloatArray) -> FloatArray:
    # erfc keeps its digits where 1 + erf would cancel.
    return np.asarray(np.vectorize(lambda x: 0.5 * math.erfc(-x / math.sqrt(2.0)), otypes=[np.float64])(z))


def _gelu(z: FloatArray) -> FloatArray:
    return np.asarray(z * _normal_cdf(z), dtype=z.dtype)


def _gelu_slope(z: FloatArray) -> FloatArray:
    x = _within_reach(z)
    density = np.exp(-np.square(x) / 2.0) / math.sqrt(2.0 * math.pi)
    return np.asarray(_normal_cdf(x) + x * density, dtype=z.dtype)


def _silu(z: FloatArray) -> FloatArray:
    return np.asarray(z * _sigmoid(z), dtype=z.dtype)


def _silu_slope(z: FloatArray) -> FloatArray:
    return np.asarray(_sigmoid(z) + z * _sigmoid_slope(z), dtype=z.dtype)


#: phi and phi' of the activations that are neither linear nor a rectifier; gelu is the exact one, z Phi(z).
_SMOOTH: Final[dict[str, tuple[Callable[[FloatArray], FloatArray], Callable[[FloatArray], FloatArray]]]] = {
    "tanh": (np.tanh, _sech_squared),
    "erf": (_erf, _erf_slope),
    "sigmoid": (_sigmoid, _sigmoid_slope),
    "gelu": (_gelu, _gelu_slope),
    "silu": (_silu, _silu_slope),
}
