"""The work that gradsim and its peers are timed on, and what is expected of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from gradsim.chain import Chain
from gradsim.timing import Work

#: Makes work of a number of batches.
Make = Callable[[int], Work]

LINEAR, RELU, RECURRENT, LSTM = "linear backward", "relu forward + backward", "recurrent relu", "lstm"
NORMED = "batch norm relu"
#: Inputs of a batch-normalised chain.
INPUTS = 64

#: A peer slower than this, times what it took elsewhere relative to NumPy, was not given its chance.
HANDICAP = 1.3


@dataclass(frozen=True)
class Target:
    """At least this many times as fast as the best of some peers.

    Attributes
    ----------
    against : str
        Begins the names of the variants meant: "torch", "torch bmm", "numpy loop"; "" is all of them, and a "|" lies
        between alternatives.
    times : float
    """

    against: str
    times: float

    def covers(self, variant: str) -> bool:
        """Whether a variant is one of those meant."""
        return variant.startswith(tuple(self.against.split("|")))


@dataclass(frozen=True)
class Case:
    """Gradients of many chains of one shape, float32, ln||g_l|| of every layer recorded.

    Attributes
    ----------
    kind : str
        `LINEAR`, `RELU`, `RECURRENT`, `LSTM` or `NORMED`.
    width, depth : int
    batches : tuple of int
        Chains a peer takes at once, where it takes several.
    targets : tuple of Target
    expected : dict of str to float
        A library's time over that of plain NumPy on linear backward, as once measured elsewhere.
    floor : float or None
        Our time over the floor's is to be at most this.
    """

    kind: str
    width: int
    depth: int
    batches: tuple[int, ...]
    targets: tuple[Target, ...]
    expected: dict[str, float]
    floor: float | None = None

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.kind} n={self.width} {'T' if self.kind in (RECURRENT, LSTM) else 'L'}={self.depth}"

    @property
    def key(self) -> str:
        """For file and marker names."""
        return f"{self.kind.split()[0]}_{self.width}"

    @property
    def chain(self) -> Chain:
        """The chain, at the gain that keeps the gradient level; an LSTM's at unit variance."""
        if self.kind == LSTM:
            return Chain(kind="lstm", width=self.width, depth=self.depth, init="gaussian", gain=1.0, bias=0.0)
        if self.kind == NORMED:
            return Chain(width=self.width, depth=self.depth, norm="batch", batch=INPUTS)
        kind = "recurrent" if self.kind == RECURRENT else "feedforward"
        activation = "linear" if self.kind == LINEAR else "relu"
        gain = 1.0 if self.kind == LINEAR else 2.0**0.5
        return Chain(kind=kind, width=self.width, depth=self.depth, activation=activation, gain=gain)

    @property
    def scale(self) -> float:
        """Standard deviation of a weight."""
        return float(self.chain.gains[0]) / math.sqrt(self.width)

    @property
    def weights(self) -> int:
        """Weights counted per chain: once each, and in a recurrent chain every use."""
        uses = 2 if self.chain.tied else 1
        return uses * self.chain.gates * self.depth * self.width**2


def _linear(width: int, depth: int, batches: tuple[int, ...], peer: float, numpy: float | None) -> Case:
    targets = [Target("torch|jax", peer)]
    if numpy is not None:
        targets.append(Target("numpy", numpy))
    torch_ns, jax_ns, numpy_ns = {64: (4.5, 5.2, 10.0), 256: (5.5, 10.0, 9.0), 1024: (8.8, 24.0, 10.0)}[width]
    expected = {"torch": torch_ns / numpy_ns, "jax": jax_ns / numpy_ns}
    return Case(LINEAR, width, depth, batches, tuple(targets), expected, 3.0 if width == 256 else None)


def _relu(width: int, depth: int, batches: tuple[int, ...]) -> Case:
    torch_ns, numpy_ns = {64: (7.1, 10.0), 256: (7.4, 9.0), 1024: (10.2, 10.0)}[width]
    return Case(RELU, width, depth, batches, (Target("", 4.5),), {"torch": torch_ns / numpy_ns})


#: Products over a batch of chains.
BATCHED = "torch bmm|torch matmul|torch baddbmm"
CASES = (
    _linear(64, 32, (4, 16, 64), 6.0, None),
    _linear(256, 16, (2, 8, 32), 7.0, 11.0),
    _linear(1024, 4, (2, 8), 6.0, None),
    _relu(64, 32, (4, 16, 64)),
    _relu(256, 16, (2, 8, 32)),
    _relu(1024, 4, (2, 8)),
    Case(RECURRENT, 256, 100, (4, 16, 64), (Target(BATCHED, 10.0), Target("numpy loop", 1.2)), {}),
    Case(LSTM, 256, 100, (2, 4, 16), (Target("torch", 3.0),), {}),
    Case(NORMED, 400, 30, (), (Target("torch autograd", 2.0),), {}, 1.5),
)
