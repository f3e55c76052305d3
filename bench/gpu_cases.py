"""The work that the kernels of a GPU and torch are timed on, and what of it is counted.

A weight of the network counts once, also where it is drawn twice; in a recurrent chain each use counts, T forward and
T backward; of a deferred chain, which has no weights, each unit of a layer counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from gradsim.chain import Chain

#: Inputs of the batch-normalised chain, and what a block of threads multiplies of them in one go.
INPUTS = 64
#: Layers of a feedforward chain by width: enough to be long beside its ends.
DEPTHS = {64: 64, 256: 16, 1024: 8, 4096: 4}
STEPS, NORMED_DEPTH, DEFERRED_DEPTH = 100, 30, 100


@dataclass(frozen=True)
class Case:
    """Gradients of many chains of one shape, float32, ln||g_l|| of every layer recorded.

    Attributes
    ----------
    name : str
    chain : Chain
    loops : dict of str to float
        How often each hot loop (`bench.gpu_counts`) works through a weight that is counted.
    bytes : float
        Bytes that must come from memory outside a multiprocessor, for each weight counted.
    method : str
    forward : bool
        With a forward pass, which a linear chain's gradient alone does not need.
    batches : tuple of int
        Chains that torch takes at once; () where there is no peer.
    quick : bool
        Also in a quick run.
    """

    name: str
    chain: Chain
    loops: dict[str, float] = field(hash=False)
    bytes: float = 0.0
    method: str = "dense"
    forward: bool = True
    batches: tuple[int, ...] = ()
    quick: bool = False

    @property
    def width(self) -> int:
        """Units of each layer."""
        return int(self.chain.widths[0])

    @property
    def depth(self) -> int:
        """Layers, or steps."""
        return int(self.chain.depth)

    @property
    def scale(self) -> float:
        """Standard deviation of a weight."""
        return float(self.chain.gains[0]) / math.sqrt(self.width)

    @property
    def quantities(self) -> tuple[str, ...]:
        """What is recorded: that alone makes the forward pass of a linear chain needed or not."""
        asks = self.forward and self.chain.activation == "linear"
        return ("log_grad_norm", "log_activation_norm") if asks else ("log_grad_norm",)

    @property
    def weights(self) -> int:
        """Weights, or units, counted per chain."""
        if self.method == "deferred":
            return self.depth * self.width
        return (2 if self.chain.tied else 1) * self.chain.gates * self.depth * self.width**2


def _feedforward(width: int, batches: tuple[int, ...]) -> list[Case]:
    linear = Chain(activation="linear", width=width, depth=DEPTHS[width], gain=1.0)
    relu = linear.replace(activation="relu", gain="he")
    once = {"backward": 1.0}
    # Columns that a rectified unit multiplies with zero are not drawn on the way forward: about half.
    return [
        Case(f"linear backward n={width}", linear, once, forward=False, batches=batches, quick=width == 256),
        Case(f"linear n={width}", linear, once | {"forward": 1.0}, batches=batches),
        Case(f"relu n={width}", relu, once | {"forward": 0.5}, batches=batches, quick=width == 256),
    ]


def _tied(kind: str, loops: dict[str, float], **fields: object) -> Case:
    chain = Chain(kind=kind, width=256, depth=STEPS, init="gaussian", bias=0.0, **fields)
    # float32 matrices, read once a use.
    return Case(f"{kind} n=256 T={STEPS}", chain, loops, bytes=4.0, batches=(64, 512), quick=kind == "recurrent")


def _deferred(width: int) -> Case:
    chain = Chain(activation="relu", width=width, depth=DEFERRED_DEPTH if width < 65_536 else 20, gain="he")
    loops = {"fill": 2.0}
    # The answers are written and read again; the gradient's fresh normals likewise.
    return Case(f"deferred relu n={width}", chain, loops, bytes=16.0, method="deferred", quick=width == 256)


_HALF = {"combine": 0.5, "row_products": 0.5}
_NORMED_LOOPS = {
    "multiply_forward: draw": 1.0,
    "multiply_forward: product": float(INPUTS),
    "multiply_backward: draw": 1.0,
    "multiply_backward: product": float(INPUTS),
}
CASES = (
    *_feedforward(64, (1024, 4096)),
    *_feedforward(256, (256, 1024)),
    *_feedforward(1024, (32, 128)),
    *_feedforward(4096, (2, 8)),
    _tied("recurrent", {"combine": 1.0}, activation="tanh", gain=1.0),
    _tied("lstm", _HALF, gain=1.0),
    _tied("gru", _HALF, gain=1.0),
    Case(
        f"batch norm relu n=400 B={INPUTS}",
        Chain(width=400, depth=NORMED_DEPTH, norm="batch", batch=INPUTS),
        _NORMED_LOOPS,
        batches=(1, 16, 64),
    ),
    *(_deferred(width) for width in (256, 4096, 65_536)),
    Case(
        "deferred recurrent tanh n=4096 T=100",
        Chain(kind="recurrent", activation="tanh", gain=1.5, width=4096, depth=STEPS),
        {"fill": 2.0},
        # Every query is multiplied with all answers before it, on average T of both directions.
        bytes=8.0 * STEPS,
        method="deferred",
    ),
)
