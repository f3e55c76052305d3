"""Stand-ins under numba's CUDA simulator, in which kernels run as Python, thread by thread."""

from __future__ import annotations

import math as python_math
from types import SimpleNamespace
from typing import Any

import numpy as np


def _ldexp(x: Any, e: Any) -> float:
    """x 2^e, also for the integers of NumPy, which Python's function does not take."""
    return python_math.ldexp(x, int(e))


def _log(x: Any) -> float:
    """ln x; of 0 as compiled code has it."""
    return python_math.log(x) if x != 0 else -python_math.inf


#: Python's functions where they do as compiled code does.
math = SimpleNamespace(**vars(python_math) | {"ldexp": _ldexp, "log": _log})


class Cuda:
    """The `cuda` that kernels see: that of the block at hand, in whichever function it is named."""

    def __getattr__(self, name: str) -> Any:
        from numba.cuda.simulator import kernel

        return getattr(kernel._get_kernel_context(), name)

    @property
    def shared(self) -> Any:
        """Shared memory, whose dtype the simulator wants as NumPy writes it."""
        own = self.__getattr__("shared")
        return SimpleNamespace(array=lambda shape, dtype: own.array(shape, np.dtype(dtype)))


def float_bits(x: Any) -> Any:
    """Bits of a float32 as uint32."""
    return np.float32(x).view(np.uint32)


def float_from_bits(bits: Any) -> Any:
    """The float32 with these bits."""
    return np.uint32(bits).view(np.float32)


def double_bits(x: Any) -> Any:
    """Bits of a float64 as uint64."""
    return np.float64(x).view(np.uint64)


def double_from_bits(bits: Any) -> Any:
    """The float64 with these bits."""
    return np.uint64(bits).view(np.float64)


def signed(x: Any) -> Any:
    """A uint32 read as two's complement int32."""
    return np.uint32(x).view(np.int32)


def signed_high(bits: Any) -> Any:
    """The upper half of a uint64, read as two's complement int32."""
    return np.uint32(int(bits) >> 32).view(np.int32)


def root(x: Any) -> Any:
    """The square root of a float32."""
    return np.sqrt(np.float32(x))


def load(array: Any, index: int) -> Any:
    """The entry of an array at this place in memory, whatever its rank."""
    return array.reshape(-1)[index]


def store(array: Any, index: int, value: Any) -> None:
    """Write an entry of an array at this place in memory."""
    array.reshape(-1)[index] = value


def keep_out_of_line() -> None:
    """What the GPU's compiler is told means nothing here."""


def stop() -> None:
    """End the kernel: a function was called that was not compiled for this kind of chain."""
    raise RuntimeError("a function was called that was left out of the kernel")


def nothing() -> None:
    """What the CPU's compiler is told means nothing here."""


def first(records: Any) -> Any:
    """The first of an array of records, its fields as attributes."""
    return records.view(np.recarray)[0]
