"""What the kernels of a GPU cost, counted in their machine code; needs no GPU (``python -m bench.gpu_counts``).

Each hot loop is compiled for compute capability 9.0, assembled and disassembled, and its instructions are counted by
the unit they go to (`bench.sass`); beside them stands what the arithmetic alone needs, counted by hand. The slowest
unit, or issuing, gives a ceiling in weights a clock and multiprocessor. ``--write`` puts the tables into
docs/cuda.md between their markers; no number there is typed by hand.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bench import gpu_compile, sass
from bench.evidence import ROOT, filled, quoted
from gradsim.chain import Chain

PAGE = ROOT / "docs" / "cuda.md"
#: An H200 or H100 SXM: multiprocessors, and its highest clock in GHz. A run on hardware measures what it keeps up.
MULTIPROCESSORS, CLOCK = 132, 1.98
PIPES = ("integer", "multiply", "float", "conversion", "special", "memory", "double", "other")
#: One root of a radius makes two normals; a multiply-add is one instruction.
ROOTS, MULTIPLY_ADD = (("MUFU.SQRT", "MUFU.RSQ"), 2.0), (("FFMA",), 1.0)


class HotLoop(NamedTuple):
    """A loop to be counted.

    Attributes
    ----------
    name : str
    function : callable
        Imports and returns the function, translated for float32, and the types of its arguments.
    marker : tuple
        Instructions that tell how many weights a turn works through, and how many each stands for.
    """

    name: str
    function: Callable[[], tuple[Any, tuple[Any, ...]]]
    marker: tuple[tuple[str, ...], float]


@dataclass(frozen=True)
class Count:
    """Instructions of one loop for each weight.

    Attributes
    ----------
    name : str
    weights : float
        Of a turn.
    pipes : dict of str to float
        Instructions a weight, by unit.
    calls : int
        Functions that a turn may call, which are not counted.
    """

    name: str
    weights: float
    pipes: dict[str, float]
    calls: int = 0

    @property
    def instructions(self) -> float:
        """All of them, a weight."""
        return sum(self.pipes.values())

    @property
    def bound(self) -> str:
        """The unit that is busy longest."""
        return max(sass.lane_clocks(self.pipes), key=lambda one: one[1])[0]

    @property
    def rate(self) -> float:
        """Weights a clock and multiprocessor, at the most."""
        return 1.0 / max(clocks for _, clocks in sass.lane_clocks(self.pipes))


def main(arguments: Sequence[str] | None = None) -> int:
    """Count, print, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_counts", description=__doc__)
    parser.add_argument("--loops-only", action="store_true", help="not the whole kernels, which take minutes")
    parser.add_argument("--multiprocessors", type=int, default=MULTIPROCESSORS, metavar="N")
    parser.add_argument("--clock", type=float, default=CLOCK, metavar="GHZ")
    parser.add_argument("--registers", type=int, metavar="N", help="of a thread of a whole kernel, at the most")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts, which bench.gpu reads")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/cuda.md")
    options = parser.parse_args(arguments)
    try:
        gpu_compile.tool("ptxas"), gpu_compile.tool("nvdisasm")
    except gpu_compile.ToolMissing as error:
        print(error, file=sys.stderr)
        return 1
    counts = [*by_hand(), *counted()]
    said = {"gpu_loops": loop_table(counts, options.multiprocessors, options.clock)}
    if not options.loops_only:
        said["gpu_kernels"] = kernel_table(options.registers)
    print(*said.values(), sep="\n")
    if options.json:
        options.json.write_text(json.dumps([asdict(count) for count in counts], indent=1) + "\n", encoding="utf-8")
    if options.write:
        write(PAGE, said)
    return 0


def write(page: Path, said: Mapping[str, str]) -> None:
    """Fill a page's markers, keeping what nothing was counted for."""
    text = page.read_text(encoding="utf-8")
    page.write_text(filled(text, dict(quoted(text)) | dict(said)), encoding="utf-8")


def by_hand() -> list[Count]:
    """What a weight must cost: operations of `kernels.rng`, four weights a block, one pass of a loop.

    Threefry-4x32-13: 13 rounds of two adds, rotations and exclusive ors, and three injections of four words, of which
    two join the next round's adds (an add takes three numbers). On the way forward a lane keeps its row: two words of
    the first round, and three rotations, an exclusive or and an add of the first two, do not change from turn to turn.
    On the way back it keeps its column, which leaves one rotation more. Adds of two numbers and shifts are counted for
    the multiplier, which has nothing else to do.
    """
    # Rotations and exclusive ors; adds of three numbers, of which only the logic unit is capable; adds of two.
    turns, joined, adds = 26 + 26, 3 * 2, 26 - 3 * 2 + 3 * 2
    # Of each of two pairs: a mask for the exponent and the sign into the radius; two adds; the shift of the angle.
    masks, more = 2 * (1 + 1), 2 * (2 + 1)
    # Of each: 1 for u, 1 for f, 7 + 2 for the logarithm with its exponent, 2 for the angle and its square, 8 for cosine
    # and sine, 3 products.
    floats = 2 * (1 + 1 + 9 + 2 + 8 + 3)
    made = []
    for name, kept, products in (("forward", 4, 4), ("backward", 3, 4), ("fill", 4, 0)):
        block = {
            "integer": turns - kept + joined + masks,
            "multiply": adds - 1 + more,
            "float": floats + products,
            "conversion": 6,
            "special": 2,
        }
        made.append(Count(f"{name}, by hand", 4, {pipe: number / 4 for pipe, number in block.items()}))
    return made


def hot_loops() -> list[HotLoop]:
    """The loops in which a run spends its time, float32 and Gaussian."""
    import numba
    from numba.cuda import types

    from gradsim.kernels import draws, layout, matrices
    from gradsim.kernels.cuda import products
    from gradsim.kernels.cuda.target import Translation

    of = Translation("float32").value
    real, number, flag = types.float32[::1], types.int64, types.boolean
    key, indices, matrix = types.uint32[::1], types.int64[::1], types.float32[:, ::1]
    spec = numba.from_dtype(layout.SPEC)
    block = (spec, key, number, number, number, number, real, real, number)
    return [
        HotLoop(name, lambda function=function, types=types: (of(function), types), marker)
        for name, function, types, marker in (
            ("forward", draws.forward_gaussian, (key, flag, real, indices, number, number, real, number), ROOTS),
            ("backward", draws.backward_gaussian, (key, flag, real, number, number, real, number, number), ROOTS),
            ("fill", draws._fill_gaussian, (key, flag, number, real, number), ROOTS),
            ("rows", draws.rows_gaussian, (key, flag, *[number] * 2, matrix, *[number] * 3, real, number), ROOTS),
            ("combine", matrices.combine, (matrix, real, indices, number, real, number), MULTIPLY_ADD),
            ("row_products", matrices.row_products, (matrix, real, *[number] * 3, real, number), MULTIPLY_ADD),
            ("multiply_forward: draw", products.multiply_forward, block, ROOTS),
            ("multiply_forward: product", products.multiply_forward, block, MULTIPLY_ADD),
            ("multiply_backward: draw", products.multiply_backward, block, ROOTS),
            ("multiply_backward: product", products.multiply_backward, block, MULTIPLY_ADD),
        )
    ]


def counted() -> list[Count]:
    """The hot loops, compiled and counted."""
    listings: dict[Any, str] = {}
    made = []
    for loop in hot_loops():
        function, types = loop.function()
        if function not in listings:
            listings[function] = gpu_compile.assembled(gpu_compile.ptx_of_call(function, types))[0]
        made.append(count_of(loop.name, listings[function], loop.marker))
    return made


def count_of(name: str, listing: str, marker: tuple[tuple[str, ...], float]) -> Count:
    """The innermost loop of a listing with most of the marked instructions; without roots, unless they are marked.

    Raises
    ------
    ValueError
        Where no loop has any.
    """
    names, worth = marker
    best: tuple[float, list[sass.Instruction]] = 0.0, []
    for lines in sass.functions(listing).values():
        for loop in sass.loops(lines):
            marks = Counter(one.name for one in loop)
            drawing = any(mark.startswith(ROOTS[0]) for mark in marks)
            found = worth * sum(times for mark, times in marks.items() if mark.startswith(names))
            if found > best[0] and drawing == (names == ROOTS[0]):
                best = found, loop
    weights, loop = best
    if not loop:
        raise ValueError(f"no loop of {name} has {' or '.join(names)}")
    pipes = {pipe: number / weights for pipe, number in sass.pipes(loop).items()}
    return Count(name, weights, pipes, sum(one.base == "CALL" for one in loop))


def loop_table(counts: Sequence[Count], multiprocessors: int, clock: float) -> str:
    """Markdown: instructions a weight by unit, and the ceiling."""
    head = ["loop", "weights a turn", "instructions", *PIPES, "calls", "bound by", "weights a clock", "10⁹ weights/s"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for one in counts:
        pipes = [f"{one.pipes[pipe]:.2f}" if one.pipes.get(pipe) else "" for pipe in PIPES]
        total = f"{one.rate * multiprocessors * clock:.0f}"
        row = [one.name, f"{one.weights:g}", f"{one.instructions:.2f}", *pipes, str(one.calls or "")]
        lines.append("| " + " | ".join([*row, one.bound, f"{one.rate:.2f}", total]) + " |")
    last = f"Instructions a weight, and the ceiling: of one multiprocessor, and of {multiprocessors} at {clock:g} GHz."
    return "\n" + "\n".join(lines) + f"\n\n{last}\n"


def kernel_table(registers: int) -> str:
    """Markdown: registers, spills, shared memory and occupancy of each kernel in float32."""
    from gradsim.kernels.cuda import engine
    from gradsim.kernels.cuda.target import EDGE
    from gradsim.kernels.cuda.threads import shared_bytes

    head = ["kernel", "threads", "registers", "stack, bytes", "spilled, bytes", "shared, bytes", "blocks", "occupancy"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, chain, method, threads in (
        ("ReLU", Chain(width=8, depth=2), "dense", engine.THREADS),
        ("batch norm, batch 64", Chain(width=8, depth=2, norm="batch"), "dense", engine.THREADS),
        ("recurrent tanh", Chain(kind="recurrent", width=8, depth=2, activation="tanh"), "dense", engine.MANY_THREADS),
        ("LSTM", Chain(kind="lstm", width=8, depth=2), "dense", engine.THREADS),
        ("tanh, deferred", Chain(width=8, depth=2, activation="tanh"), "deferred", engine.THREADS),
        ("ReLU, deferred", Chain(width=8, depth=2), "deferred", engine.FEW_THREADS),
    ):
        _, takes = gpu_compile.assembled(gpu_compile.kernel_ptx("float32", chain, method), registers)
        shared = shared_bytes(threads, EDGE)
        blocks = takes.blocks(threads, shared)
        row = [threads, takes.registers, takes.stack, takes.spilled, takes.shared + shared, blocks]
        busy = f"{100 * blocks * threads / gpu_compile.THREADS:.0f} %"
        lines.append("| " + " | ".join([name, *map(str, row), busy]) + " |")
    last = "Blocks that a multiprocessor holds at once; occupancy is their threads over the most it can hold."
    return "\n" + "\n".join(lines) + f"\n\n{last}\n"


if __name__ == "__main__":
    sys.exit(main())
