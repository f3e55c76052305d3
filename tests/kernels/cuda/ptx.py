"""The CUDA kernels as PTX, made without a GPU, and the pieces of PTX that are worked through once for each weight.

    python -m tests.kernels.cuda.ptx FOLDER NAME,DTYPE,CAPABILITY ...

compiles kernels, of which a capability is written as 80 or 90, to FOLDER/NAME-DTYPE-CAPABILITY.ptx.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

NAMES, CAPABILITIES = ("directions", "gated", "dense"), ("80", "90")
#: What CI compiles, by dtype; the rest is behind a marker.
IN_CI = {
    "float32": [f"{name},float32,{capability}" for name in NAMES for capability in CAPABILITIES]
    # All that a kernel may be compiled without left out at once.
    + ["gated_bare,float32,90", "dense_bare,float32,90"],
    "float64": [f"{name},float64,80" for name in NAMES],
}
# A block of 13 rounds of Threefry has 26 rotations; the compiler drops those of words that are zero.
ROTATIONS = 20
# Fused multiply-adds in one basic block, of a loop over matrix entries.
PRODUCTS = 4
_ROTATION = re.compile(r"shf\.l\.wrap\.b32\s+%\w+, (%\w+), \1,")


def functions(text):
    """The definitions in a PTX module: name to lines."""
    found = {}
    for part in re.split(r"^(?=\.(?:weak |visible )*\.?(?:func|entry)\b)", text, flags=re.M):
        head, brace, body = part.partition("\n{")
        named = re.search(r"\.(?:func|entry)\s*(?:\([^)]*\)\s*)?([\w$]+)", head)
        if brace and named:
            found[named.group(1)] = body.splitlines()
    return found


def basic_blocks(lines):
    """Runs of instructions with one way in and one way out."""
    block = []
    for line in map(str.strip, lines):
        if re.match(r"\$?\w+:$", line):
            yield block
            block = []
        block.append(line)
        if re.search(r"\b(bra|ret|brx)\b", line):
            yield block
            block = []
    yield block


def draws_weights(block):
    """Whether a block works out Threefry."""
    return sum(bool(_ROTATION.search(line)) for line in block) >= ROTATIONS


def multiplies(block):
    """Whether a block adds up products with what it reads from memory."""
    return sum("fma.rn.f32" in line for line in block) >= PRODUCTS and any(
        re.match(r"(@%p\d+ )?ld\.(global|shared)?\.?f32", line) for line in block
    )


def doubles(block):
    """The instructions of a block in double precision."""
    return [line for line in block if ".f64" in line]


def memory(name, dtype):
    """The memory of a chain of the engine of this name."""
    from gradsim import Chain
    from gradsim.kernels import cpu

    chain = Chain(kind="lstm", width=8, depth=2) if name == "gated" else Chain(width=8, depth=2)
    method = "deferred" if name == "directions" else "dense"
    return cpu.kernel_of(chain, method)[1](chain, ("log_grad_norm",), dtype, method)


def compiled(name, dtype, capability):
    """PTX of a kernel."""
    from numba import cuda
    from numba.cuda import dispatcher

    from gradsim.kernels.cuda import features, launch

    name, _, bare = name.partition("_")
    kind = {"dense": launch.DENSE, "gated": launch.GATED, "directions": launch.DIRECTIONS}[name]
    one = memory(name, dtype)
    left_out = features.optional(one) if bare else frozenset()
    # Device functions are compiled for the device at hand: here there is none.
    device = SimpleNamespace(compute_capability=capability)
    with mock.patch.object(dispatcher, "get_current_device", lambda: device):
        return cuda.compile_ptx(launch.source(kind, dtype, left_out), launch.signature(one), cc=capability)[0]


def main(folder, *wanted):
    for one in wanted:
        name, dtype, capability = one.split(",")
        text = compiled(name, dtype, tuple(map(int, capability)))
        (Path(folder) / f"{name}-{dtype}-{capability}.ptx").write_text(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
