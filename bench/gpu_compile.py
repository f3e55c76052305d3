"""Kernels of a GPU compiled where there is none: to PTX by numba-cuda, to machine code by ptxas, read by nvdisasm.

ptxas and nvdisasm are looked for on the PATH and in the wheels that carry them:
``pip install nvidia-cuda-nvcc-cu12 nvidia-cuda-nvdisasm`` (the second reads the machine code of the first).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from gradsim.chain import Chain

#: Compute capability of the H100 and the H200.
CAPABILITY = (9, 0)
WHEELS = {"ptxas": "nvidia-cuda-nvcc-cu12", "nvdisasm": "nvidia-cuda-nvdisasm"}
#: Of a multiprocessor of compute capability 9.0 (CUDA C++ programming guide, technical specifications): threads,
#: blocks, registers, and bytes of shared memory, of which each block takes one KiB more than it asks for. Registers
#: are handed out to each group of 32 threads in units of 256.
THREADS, BLOCKS, REGISTERS, SHARED, RESERVED = 2048, 32, 65_536, 228 * 1024, 1024
WARP, REGISTER_UNIT = 32, 256


class ToolMissing(RuntimeError):
    """ptxas or nvdisasm is not there; the message says how to get it."""


@dataclass(frozen=True)
class Resources:
    """What ptxas says that a kernel takes.

    Attributes
    ----------
    registers, stack, spilled, shared : int
        Registers of a thread; bytes of its stack along the deepest calls; bytes that all its functions store because
        registers ran out; bytes of shared memory besides what a launch asks for.
    """

    registers: int
    stack: int
    spilled: int
    shared: int

    def blocks(self, threads: int, shared: int) -> int:
        """Blocks that a multiprocessor holds at once, of so many threads and launched with so many shared bytes."""
        warps = -(-threads // WARP)
        registers = -(-self.registers * WARP // REGISTER_UNIT) * REGISTER_UNIT * warps
        room = self.shared + shared + RESERVED
        return min(BLOCKS, THREADS // (warps * WARP), REGISTERS // registers, SHARED // room)


def tool(name: str) -> str:
    """Path of a tool.

    Raises
    ------
    ToolMissing
    """
    found = shutil.which(name)
    if found:
        return found
    try:
        import nvidia

        folders = [Path(folder) for folder in nvidia.__path__]
    except ImportError:
        folders = []
    for folder in folders:
        for path in sorted(folder.glob(f"*/bin/{name}")):
            return str(path)
    raise ToolMissing(f"{name} is not there: pip install {WHEELS[name]}")


@contextmanager
def without_gpu() -> Iterator[None]:
    """Compile for `CAPABILITY`, whatever is there: numba-cuda asks the device when it types functions of the device."""
    from numba.cuda import dispatcher

    before = dispatcher.get_current_device
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=CAPABILITY)
    try:
        yield
    finally:
        dispatcher.get_current_device = before


def ptx_of(function: Any, signature: Any) -> str:
    """PTX of a kernel that is not yet compiled."""
    from numba import cuda

    with without_gpu():
        text: str = cuda.compile_ptx(function, signature, cc=CAPABILITY)[0]
    return text


def ptx_of_call(function: Any, arguments: Sequence[Any]) -> str:
    """PTX of a kernel that calls one function of the device."""
    from numba.cuda import types

    from gradsim.kernels.cuda.target import written

    names = ", ".join(f"a{k}" for k in range(len(arguments)))
    caller = written(f"def met({names}):\n    inner({names})", inner=function)
    return ptx_of(caller, types.void(*arguments))


def assembled(ptx: str, registers: int | None = None) -> tuple[str, Resources]:
    """The listing of the machine code of a PTX text, and what its kernel takes, of so many registers at the most."""
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder) / "kernel.ptx", Path(folder) / "kernel.cubin"
        source.write_text(ptx, encoding="utf-8")
        target = f"sm_{CAPABILITY[0]}{CAPABILITY[1]}"
        limit = [] if registers is None else ["-maxrregcount", str(registers)]
        said = _run(tool("ptxas"), "-arch", target, "-v", *limit, str(source), "-o", str(made)).stderr
        return _run(tool("nvdisasm"), "-c", str(made)).stdout, resources(said)


def resources(said: str) -> Resources:
    """What ``ptxas -v`` says of a file with one kernel."""

    def total(pattern: str) -> int:
        return sum(int(number) for number in re.findall(pattern, said))

    return Resources(
        total(r"Used (\d+) registers"),
        total(r"(\d+) bytes cumulative stack size"),
        total(r"(\d+) bytes spill stores"),
        total(r"(\d+) bytes smem"),
    )


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=True, capture_output=True, text=True)


def kernel_ptx(dtype: str, chain: Chain, method: str) -> str:
    """PTX of the kernel of a kind of chain, with the types that `kernels.cuda.engine` launches it with."""
    from gradsim.kernels import cpu
    from gradsim.kernels.cuda import engine, launch
    from gradsim.kernels.cuda.features import left_out

    one = cpu.kernel_of(chain, method)[1](chain, ("log_grad_norm", "log_weight_grad_norm"), dtype, method)
    return ptx_of(launch.source(engine.kind_of(chain, method), dtype, left_out(one)), launch.signature(one))
