"""What the kernels cost on this machine: nanoseconds per weight on one thread, beside NumPy and beside the floor.

A weight of the network counts once, also where it is drawn twice, forward and backward; in a recurrent chain each
use of a weight counts, T forward and T backward. The floor is one bare integer mixer and multiply-add a weight and
pass (see `kernels.floor`); where weights are not drawn one by one there is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gradsim.chain import Chain
from gradsim.kernels.blas_threads import one_blas_thread
from gradsim.provenance import describe
from gradsim.timing import Work, in_turns, sized

__all__ = ["CASES", "Case", "floor_work", "numpy_work", "our_work", "run_microbench"]

REPETITIONS = 5
SECONDS = 0.2
QUICK_SECONDS = 0.04
#: Layers of a feedforward chain by width: enough for a chain to take long beside its ends.
DEPTHS = {64: 64, 256: 16, 1024: 4}
STEPS = 100
COUNTING = "per weight of the network, forward and backward together; recurrent: per use of a weight"


@dataclass(frozen=True)
class Case:
    """One kernel at one width.

    Attributes
    ----------
    name : str
    chain : Chain
    forward : bool
        With a forward pass; without, only g is taken back through a linear chain.
    dtype : str
    """

    name: str
    chain: Chain
    forward: bool = True
    dtype: str = "float32"

    @property
    def width(self) -> int:
        """Units of each layer."""
        return self.chain.widths[0]

    @property
    def quantities(self) -> tuple[str, ...]:
        """What is recorded: that alone makes the forward pass of a linear chain needed or not."""
        asks = self.forward and self.chain.activation == "linear"
        return ("log_grad_norm", "log_activation_norm") if asks else ("log_grad_norm",)

    @property
    def weights(self) -> int:
        """Weights counted per chain."""
        uses = 2 if self.chain.tied else 1
        return uses * self.chain.gates * self.chain.depth * self.width**2

    @property
    def floor_passes(self) -> int | None:
        """Times the floor goes over a weight; None where weights are not drawn where they are used."""
        if self.chain.tied or self.chain.init == "orthogonal" or self.dtype != "float32":
            return None
        return 2 if self.forward else 1


def _chain(width: int, activation: str, **fields: Any) -> Chain:
    """A chain whose gradient neither grows nor vanishes, so that NumPy needs no rescaling either."""
    settings = {"depth": DEPTHS[width], "gain": "critical", **fields}
    return Chain(width=width, activation=activation, **settings)


def _cases(width: int) -> list[Case]:
    linear, relu = _chain(width, "linear"), _chain(width, "relu")
    cases = [
        Case("linear backward", linear, forward=False),
        Case("linear forward + backward", linear),
        Case("relu forward + backward", relu),
        Case("uniform linear backward", _chain(width, "linear", init="uniform"), forward=False),
        Case("orthogonal linear backward", _chain(width, "linear", init="orthogonal"), forward=False),
        Case("recurrent relu", _chain(width, "relu", kind="recurrent", depth=STEPS)),
    ]
    if width == 256:
        others = [
            Case("leaky relu forward + backward", _chain(width, "leaky_relu")),
            Case("tanh forward + backward", _chain(width, "tanh", gain=1.0)),
            Case("linear backward float64", linear, forward=False, dtype="float64"),
            Case("relu forward + backward float64", relu, dtype="float64"),
        ]
        cases[3:3] = others
    return cases


CASES = {width: _cases(width) for width in DEPTHS}


def run_microbench(quick: bool = False) -> dict[str, Any]:
    """Time every kernel beside NumPy and the floor, on one thread.

    Parameters
    ----------
    quick : bool
        Width 256 alone, and calls of a few hundredths of a second.

    Returns
    -------
    dict
        Ready for JSON. ``kernels`` lists, for each, ``kernel``, ``width``, ``dtype``, ``ns_per_weight``,
        ``numpy_ns_per_weight`` and ``floor_ns_per_weight`` (medians; None where there is no floor), the same names
        ending in ``_min``, and ``numpy_ratio`` and ``floor_ratio``, medians over times taken next to each other.
    """
    with one_blas_thread():
        seconds = QUICK_SECONDS if quick else SECONDS
        cases = [case for width, some in CASES.items() if width == 256 or not quick for case in some]
        return {
            "quick": quick,
            "repetitions": REPETITIONS,
            "counting": COUNTING,
            "machine": describe(1, 0.0),
            "kernels": [_measure(case, seconds) for case in cases],
        }


def _measure(case: Case, seconds: float) -> dict[str, Any]:
    ours = sized(lambda chains: our_work(case, chains), seconds)
    others = {"numpy": sized(lambda chains: numpy_work(case, chains), seconds)}
    if case.floor_passes is not None:
        others["floor"] = sized(lambda passes: floor_work(case.width, passes), seconds)
    own, timings = in_turns(ours, others, REPETITIONS)
    numpy, floor, passes = timings["numpy"], timings.get("floor"), case.floor_passes or 1
    return {
        "kernel": f"{case.name} n={case.width}",
        "width": case.width,
        "depth": case.chain.depth,
        "dtype": case.dtype,
        "ns_per_weight": own.median,
        "ns_per_weight_min": own.minimum,
        "numpy_ns_per_weight": numpy.median,
        "numpy_ns_per_weight_min": numpy.minimum,
        "numpy_ratio": numpy.ratio,
        "floor_ns_per_weight": floor.median * passes if floor else None,
        "floor_ns_per_weight_min": floor.minimum * passes if floor else None,
        "floor_ratio": 1.0 / (floor.ratio * passes) if floor else None,
    }


def our_work(case: Case, chains: int) -> Work:
    """The dense engine on `chains` chains a call, other ones in each; returns their ln||g_l||."""
    from gradsim.kernels.cpu import Engine

    engine = Engine(case.chain, 0, case.dtype, case.quantities)
    first = 0

    def run() -> Any:
        nonlocal first
        arrays = engine.run(first, chains)
        first += chains
        assert arrays is not None
        return arrays["log_grad_norm"]

    return Work(run, chains * case.weights)


def numpy_work(case: Case, chains: int) -> Work:
    """NumPy on `chains` chains a call, one after the other; returns their ln||g_l||."""
    import numpy as np

    from gradsim.numpy_peer import chain_norms

    generator = np.random.default_rng(0)

    def run() -> Any:
        norms = [chain_norms(case.chain, case.dtype, generator, case.forward) for _ in range(chains)]
        return np.array(norms)

    return Work(run, chains * case.weights)


def floor_work(width: int, passes: int) -> Work:
    """The floor over `passes` matrices a call; width a multiple of 8."""
    import numpy as np

    from gradsim.kernels.floor import floor_backward

    d = np.ones(width, np.float32)
    g = np.zeros(width, np.float32)

    def run() -> None:
        for index in range(passes):
            floor_backward(np.uint32(index * width * width % 2**32), d, g, width, width // 4)

    return Work(run, passes * width * width)
