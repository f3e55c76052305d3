"""Machine code as nvdisasm prints it: functions, their innermost loops, and which unit each instruction goes to.

A loop is what a branch backward closes: its blocks are those from which the branch is reached without passing the
block that it goes to. Counts take every block of a loop as run once a turn, so they are counts from above where code
of a loop is conditional.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

#: Lanes a clock and multiprocessor of compute capability 9.0, from "Throughput of native arithmetic instructions" in
#: NVIDIA's CUDA C++ programming guide: float32 add, multiply and multiply-add 128; int32 add, shift, logic, compare,
#: multiply 64; special functions 16; conversions between 32-bit types 64, with 64-bit types 16; float64 64. Loads and
#: stores: 128 bytes a clock of L1 and shared memory, 32 lanes. Issue: four schedulers, an instruction of 32 lanes each.
LANES = {
    "integer": 64,
    "multiply": 64,
    "float": 128,
    "double": 64,
    "special": 16,
    "conversion": 64,
    "memory": 32,
    "other": 128,
}
ISSUE = 128

# The integer multiplier is half of the units that multiply floats, so what the compiler writes as a multiplication to
# relieve the logic unit (IMAD.MOV, IMAD.IADD, IMAD.SHL) takes those.
_PIPES = (
    ("multiply", "IMAD|IMUL|IDP"),
    (
        "integer",
        "IADD3|VIADD|LOP3|PLOP3|SHF|LEA|ISETP|VIMNMX|IMNMX|IABS|SEL|FSEL|FSETP|FMNMX|MOV|PRMT|BMSK|SGXT|P2R|R2P|CS2R",
    ),
    ("double", "DADD|DMUL|DFMA|DSETP|DMNMX"),
    ("float", "FADD|FMUL|FFMA|FCHK|FSWZADD|HFMA2|HADD2|HMUL2"),
    ("special", "MUFU|POPC|FLO|BREV"),
    ("conversion", "I2FP|I2F|F2I|F2F|I2I|FRND|F2FP"),
    ("memory", "LDG|STG|LDS|STS|LDL|STL|LD|ST|LDC|ATOM|ATOMS|ATOMG|RED|LDSM|SHFL"),
)
PIPE_OF = {name: pipe for pipe, names in _PIPES for name in names.split("|")}

_LABEL = re.compile(r"^(\.?[\w$.@]+):")
_CODE = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:(@!?U?P[T\d]+)\s+)?([A-Z][\w.]*)([^;]*);")
_TARGET = re.compile(r"`\((\.L_[\w.]+)\)")
_ENDS = ("BRA", "EXIT", "RET", "BRX", "JMP", "JMX", "BREAK")


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes
    ----------
    name : str
        With its modifiers: "IMAD.WIDE.U32".
    guarded : bool
        Under a predicate.
    operands : str
    target : str or None
        The label that a branch goes to.
    """

    name: str
    guarded: bool = False
    operands: str = ""
    target: str | None = None

    @property
    def base(self) -> str:
        """Its name without modifiers."""
        return self.name.split(".")[0]

    @property
    def pipe(self) -> str:
        """The unit it goes to, a key of `LANES`."""
        return PIPE_OF.get(self.base, "other")


@dataclass
class Block:
    """Instructions of which all run once the first does, and where it goes on."""

    code: list[Instruction] = field(default_factory=list)
    successors: list[int] = field(default_factory=list)


def functions(listing: str) -> dict[str, list[str]]:
    """Lines of each function of a listing, by its mangled name; of one inside a kernel, `$kernel$name`."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in listing.splitlines():
        label = _LABEL.match(line)
        if label and not label[1].startswith("."):
            lines = found.setdefault(label[1], [])
        elif label or _CODE.search(line):
            lines.append(line)
    return {name: lines for name, lines in found.items() if any(_CODE.search(line) for line in lines)}


def blocks(lines: Sequence[str]) -> list[Block]:
    """The blocks of a function, in the order of their addresses."""
    made, where = [Block()], {}
    for line in lines:
        label = _LABEL.match(line)
        if label:
            if made[-1].code:
                made.append(Block())
            where[label[1]] = len(made) - 1
            continue
        instruction = _instruction(line)
        if instruction is None:
            continue
        made[-1].code.append(instruction)
        if instruction.base in _ENDS:
            made.append(Block())
    for index, block in enumerate(made):
        last = block.code[-1] if block.code else None
        if last is not None and last.target in where and last.base in _ENDS:
            block.successors.append(where[last.target])
        # A branch whose condition lies among its operands may fall through as one under a predicate does.
        through = last is None or last.base not in _ENDS or last.guarded or re.match(r"\s*!?U?P\d", last.operands)
        if through and index + 1 < len(made):
            block.successors.append(index + 1)
    return made


def _instruction(line: str) -> Instruction | None:
    code = _CODE.search(line)
    if code is None or code[3] == "NOP":
        return None
    target = _TARGET.search(code[4])
    guarded = code[2] is not None and code[2] not in ("@PT", "@UPT")
    return Instruction(code[3], guarded, code[4].strip(), target[1] if target else None)


def loops(lines: Sequence[str]) -> list[list[Instruction]]:
    """The instructions of each innermost loop of a function."""
    graph = blocks(lines)
    before: list[list[int]] = [[] for _ in graph]
    for index, block in enumerate(graph):
        for successor in block.successors:
            before[successor].append(index)
    bodies = {}
    for index, block in enumerate(graph):
        for head in block.successors:
            # A branch to itself in the last block is padding behind the code.
            if head <= index and graph[index].code[0].base != "BRA":
                bodies.setdefault(head, set()).update(_body(before, head, index))
    inner = [body for head, body in bodies.items() if not any(h in body for h in bodies if h != head)]
    return [[one for index in sorted(body) for one in graph[index].code] for body in inner]


def _body(before: Sequence[Sequence[int]], head: int, latch: int) -> set[int]:
    found, waiting = {head}, [latch]
    while waiting:
        index = waiting.pop()
        if index not in found:
            found.add(index)
            waiting.extend(before[index])
    return found


def pipes(code: Sequence[Instruction]) -> Counter[str]:
    """How many instructions go to each unit."""
    return Counter(one.pipe for one in code)


def lane_clocks(counts: Counter[str] | dict[str, float]) -> Iterator[tuple[str, float]]:
    """Clocks of a multiprocessor that each unit, and issuing, is busy with for these instructions of one lane."""
    # Multiplications of integers go to half of the units of floats.
    shared = {"float": counts.get("float", 0) + counts.get("multiply", 0), "issue": sum(counts.values())}
    for name, lanes in LANES.items():
        if name != "other":
            yield name, shared.get(name, counts.get(name, 0)) / lanes
    yield "issue", shared["issue"] / ISSUE
