"""What a simulation records: the variables of a result, with their axes, types and meaning.

A result file, an xarray dataset and a table all describe the same variables; this is where they are
described.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from gradsim.chain import Chain

__all__ = [
    "COORDINATES",
    "QUANTILES",
    "QUANTITIES",
    "STATISTICS",
    "Variable",
    "axis_lengths",
    "coordinates",
    "summary_variables",
    "trajectory_variables",
]


@dataclass(frozen=True)
class Variable:
    """One array of a result.

    Attributes
    ----------
    name : str
    axes : tuple of str
        Names of its dimensions: chain, layer, weight, probe, quantile.
    dtype : str
        NumPy type, little-endian.
    long_name : str
        Its meaning in words.
    units : str
        "1" throughout: logarithms, counts and indices have no unit.
    """

    name: str
    axes: tuple[str, ...]
    dtype: str
    long_name: str
    units: str = "1"

    @property
    def attributes(self) -> dict[str, str]:
        """The attributes it carries in a file or dataset."""
        return {"units": self.units, "long_name": self.long_name}


#: Recorded of every chain. Logarithms are natural; the columns are layers 0..L, or weight matrices 1..L.
QUANTITIES: Final[dict[str, Variable]] = {
    variable.name: variable
    for variable in (
        Variable(
            "log_grad_norm",
            ("chain", "layer"),
            "<f4",
            "natural logarithm of the Euclidean norm of the backpropagated gradient g_l",
        ),
        Variable(
            "log_activation_norm",
            ("chain", "layer"),
            "<f4",
            "natural logarithm of the Euclidean norm of the activation h_l",
        ),
        Variable(
            "log_weight_grad_norm",
            ("chain", "weight"),
            "<f4",
            "natural logarithm of the Frobenius norm of the gradient of the weight matrix W_l",
        ),
        Variable(
            "log_grad_max",
            ("chain", "layer"),
            "<f4",
            "natural logarithm of the largest magnitude among the entries of the backpropagated gradient g_l",
        ),
        Variable(
            "log_cell_grad_norm",
            ("chain", "layer"),
            "<f4",
            "natural logarithm of the norm of the backpropagated gradient of an LSTM's cell state c_l",
        ),
        Variable(
            "lyapunov",
            ("chain", "probe"),
            "<f4",
            "growth of the backpropagated gradient per layer along each of its principal directions, descending",
        ),
    )
}

#: Probabilities of the quantiles in a summary, in thousandths: exact, unlike 0.999.
PER_MILLE: Final = (1, 10, 50, 250, 500, 750, 950, 990, 999)
QUANTILES: Final = tuple(thousandths / 1000 for thousandths in PER_MILLE)

COORDINATES: Final[dict[str, Variable]] = {
    variable.name: variable
    for variable in (
        Variable("chain", ("chain",), "<i8", "chain index"),
        Variable("layer", ("layer",), "<i4", "layer index, 0 for the input and the depth L for the output"),
        Variable("weight", ("weight",), "<i4", "index of the weight matrix, W_l leading into layer l"),
        Variable("probe", ("probe",), "<i4", "index of the Lyapunov exponent, 0 for the largest"),
        Variable("quantile", ("quantile",), "<f8", "probability of the quantile"),
    )
}

#: Statistic -> how it is named before the quantity it is of. All are over the chains with a finite value.
STATISTICS: Final[dict[str, str]] = {
    "count": "number of chains with a finite value",
    "mean": "mean over chains",
    "var": "variance over chains (divisor n - 1)",
    "skew": "skewness over chains",
    "kurtosis": "excess kurtosis over chains",
    "min": "minimum over chains",
    "max": "maximum over chains",
}


def trajectory_variables(quantities: Iterable[str]) -> tuple[Variable, ...]:
    """Return the variables that hold one row per chain."""
    return tuple(QUANTITIES[name] for name in quantities)


def summary_variables(quantities: Iterable[str]) -> tuple[Variable, ...]:
    """Return the variables of the summary of these quantities, in the order a file lists them."""
    variables: list[Variable] = []
    for name in quantities:
        quantity = QUANTITIES[name]
        column = quantity.axes[1]
        for statistic, words in STATISTICS.items():
            variables.append(Variable(f"{name}_{statistic}", (column,), "<f8", f"{words}: {quantity.long_name}"))
        long_name = f"quantiles over the stored chains with a finite value: {quantity.long_name}"
        variables.append(Variable(f"{name}_quantiles", ("quantile", column), "<f8", long_name))
    if "log_grad_norm" in quantities:
        dead = "number of chains whose backpropagated gradient is exactly zero (log_grad_norm -inf)"
        nonfinite = "number of chains whose log_grad_norm left the range of the arithmetic (NaN)"
        variables.append(Variable("dead", ("layer",), "<i8", dead))
        variables.append(Variable("nonfinite", ("layer",), "<i8", nonfinite))
    return tuple(variables)


def axis_lengths(chain: Chain, rows: int) -> dict[str, int]:
    """Return the length of each axis of a cell of which `rows` chains are stored.

    A chain with tied weights has one column on the weight axis, the total over its steps.
    """
    return {
        "chain": rows,
        "layer": chain.depth + 1,
        "weight": 1 if chain.tied else chain.depth,
        "probe": chain.probes,
        "quantile": len(QUANTILES),
    }


def coordinates(chain: Chain, rows: int) -> dict[str, NDArray[np.generic]]:
    """Return the values along each axis: chains, layers and probes from 0, weights from 1, probabilities."""
    length = axis_lengths(chain, rows)
    return {
        "chain": np.arange(length["chain"], dtype=COORDINATES["chain"].dtype),
        "layer": np.arange(length["layer"], dtype=COORDINATES["layer"].dtype),
        "weight": np.arange(1, length["weight"] + 1, dtype=COORDINATES["weight"].dtype),
        "probe": np.arange(length["probe"], dtype=COORDINATES["probe"].dtype),
        "quantile": np.array(QUANTILES, dtype=COORDINATES["quantile"].dtype),
    }
