"""The GPU itself: whether there is one, what it holds, and what goes to and fro."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradsim.errors import DeviceError, GradsimError
from gradsim.memory import format_bytes

# Chains in flight for each multiprocessor: several times as many as it holds at once, so that none waits for the last.
IN_FLIGHT = 64
# What is left of the device's memory to others.
SPARE = 0.1
_OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY
_INSTALL = "pip install 'gradsim[cuda12]' or 'gradsim[cuda13]', as the driver's CUDA version"


#: Copies of one array on their way to the device at a time.
COPIED_BYTES = 2**26
_MOST_SAID = 300
#: What errors of the compiler and the linker are called, in any version of numba-cuda.
_COMPILERS = frozenset(
    (
        *("CCSupportError", "LinkerError", "NumbaError", "NvrtcError"),
        *("NvvmError", "NvvmSupportError", "nvJitLinkError", "nvvmError"),
    )
)


class OutOfMemory(Exception):
    """What was asked for does not fit into the device's memory."""


def require() -> None:
    """Make sure that there is a GPU that can be used.

    Raises
    ------
    DeviceError
        With the reason, and what to install.
    """
    if importlib.util.find_spec("numba_cuda") is None:
        raise DeviceError(f'device = "cuda" needs the package numba-cuda: {_INSTALL}')
    try:
        from numba import cuda

        if cuda.is_available():
            # Counting devices is what finds that there is none.
            cuda.current_context()
            return
        cuda.current_context()
        reason = "numba-cuda finds no NVVM, its compiler"
    except Exception as error:
        reason = _one_line(error).removeprefix("Error at driver init: ").strip(" :.")
    raise DeviceError(
        f'device = "cuda" finds no usable GPU ({reason}): it needs an NVIDIA GPU with its driver, and {_INSTALL}; '
        'device = "cpu" runs without'
    )


def is_simulated() -> bool:
    """Whether kernels run in numba's simulator, as NUMBA_ENABLE_CUDASIM=1 asks."""
    from numba import config

    return bool(config.ENABLE_CUDASIM)


@contextmanager
def reported() -> Iterator[None]:
    """Make a `DeviceError` of what goes wrong in a launch or a copy: a fault, a lost device, a failed compilation."""
    try:
        yield
    except (OutOfMemory, MemoryError, GradsimError):
        raise
    except Exception as error:
        named = {of.__name__ for of in type(error).__mro__}
        did = "cannot compile a kernel for this GPU" if named & _COMPILERS else "the GPU failed"
        advice = 'run it again, or with device = "cpu"; GRADSIM_DEBUG=1 shows where it failed'
        raise DeviceError(f"{did} ({type(error).__name__}: {_one_line(error)}): {advice}") from error


def describe() -> dict[str, str]:
    """The device for the provenance of a result: its name, its compute capability, and numba-cuda's version."""
    from numba import cuda

    own = cuda.get_current_device()
    name = "numba's simulator" if is_simulated() else own.name
    return {
        "gpu": name.decode() if isinstance(name, bytes) else str(name),
        "compute_capability": ".".join(map(str, own.compute_capability)),
        "numba_cuda": version("numba-cuda"),
    }


def _one_line(error: Exception) -> str:
    """What an error says; a compiler says pages."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _MOST_SAID else f"{text[:_MOST_SAID]} ..."


def most_in_flight() -> int:
    """Chains that are worth working on at once."""
    from numba import cuda

    return IN_FLIGHT * (1 if is_simulated() else int(cuda.get_current_device().MULTIPROCESSOR_COUNT))


def too_large(size: int) -> DeviceError:
    """The error for a chain that does not fit."""
    return DeviceError(
        f"one chain needs {format_bytes(size)} of the GPU's memory, which has less: use a smaller width, depth or "
        'batch, or device = "cpu"'
    )


def zeros(shape: tuple[int, ...], dtype: Any) -> Any:
    """An array on the device.

    Raises
    ------
    OutOfMemory
    """
    from numba import cuda
    from numba.cuda.cudadrv.driver import CudaAPIError, device_memset

    of = np.dtype(dtype)
    if is_simulated():
        made = np.zeros(shape, of)
        return made.view(np.recarray) if of.names else made
    size = math.prod(shape) * of.itemsize
    try:
        if not _is_free(size):
            raise OutOfMemory
        array = cuda.device_array(shape, of)
    except CudaAPIError as error:
        if error.code == _OUT_OF_MEMORY:
            raise OutOfMemory from None
        raise
    device_memset(array, 0, size)
    return array


def repeated(one: NDArray[Any], times: int) -> Any:
    """An array on the device that holds another so many times, along a new first axis.

    Raises
    ------
    OutOfMemory
    """
    made = zeros((times, *one.shape), one.dtype)
    if one.dtype.names or one.any():
        write(made, one)
    return made


def write(array: Any, one: NDArray[Any]) -> None:
    """Write the same into an array for each index along its first axis."""
    if isinstance(array, np.ndarray):
        array[...] = one
        return
    step = max(1, COPIED_BYTES // max(1, one.nbytes))
    for start in range(0, array.shape[0], step):
        part = array[start : start + step]
        part.copy_to_device(np.ascontiguousarray(np.broadcast_to(one, part.shape)))


def to_host(array: Any, count: int) -> NDArray[Any]:
    """The first entries of an array on the device."""
    found: NDArray[Any] = array[:count] if isinstance(array, np.ndarray) else array[:count].copy_to_host()
    return found


def on_device(array: NDArray[Any]) -> Any:
    """A copy on the device."""
    from numba import cuda

    return array if is_simulated() else cuda.to_device(array)


def release() -> None:
    """Free what is no longer held: numba-cuda keeps it for a while."""
    from numba import cuda

    # A device that was lost has taken its memory along.
    with suppress(Exception):
        if not is_simulated():
            cuda.current_context().deallocations.clear()


def _is_free(size: int) -> bool:
    """Whether the device has so many bytes, and some to spare."""
    from numba import cuda

    free, total = cuda.current_context().get_memory_info()
    return bool(size <= free - SPARE * total)


def configured(kernel: Any, blocks: int, threads: int, shared_bytes: int) -> Any:
    """A kernel with its launch's sizes, without numba-cuda's warning that the last chains of a cell are few."""
    from numba import config

    if is_simulated():
        return kernel[blocks, threads, 0, shared_bytes]
    before = config.CUDA_LOW_OCCUPANCY_WARNINGS
    config.CUDA_LOW_OCCUPANCY_WARNINGS = 0
    try:
        return kernel[blocks, threads, 0, shared_bytes]
    finally:
        config.CUDA_LOW_OCCUPANCY_WARNINGS = before
