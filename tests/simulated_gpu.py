"""The command line with numba's CUDA simulator for a GPU, as a program: ``python simulated_gpu.py FAULT ARGUMENTS...``.

FAULT is what is wrong with that GPU: "none"; "small", too few chains fit at once; "tiny", not even one;
"lost", from the second block on; "compiler", which fails; "slow", a launch does next to nothing and says how many
chains it was about.
"""

from __future__ import annotations

import sys
import warnings

import numpy as np

# Chains in flight that "small" memory has room for.
ROOM = 2


def small(device, engine, room):
    """Fewer chains fit."""
    zeros = device.zeros

    def limited(shape, dtype):
        if shape[0] > room:
            raise device.OutOfMemory
        return zeros(shape, dtype)

    device.zeros = limited


def lost(device, engine):
    """Every launch from the second cell on fails: the first cell's chains have 3 layers, its engine goes first."""
    from numba.cuda.cudadrv.driver import CudaAPIError

    def configured(kernel, blocks, *sizes):
        launch = kernel[(blocks, sizes[0], 0, sizes[1])]

        def launch_or_fail(pile, cell, first, *rest):
            if pile.layers.shape[1] == 5:
                raise CudaAPIError(719, "CUDA_ERROR_LAUNCH_FAILED\nunspecified launch failure")
            launch(pile, cell, first, *rest)

        return launch_or_fail

    device.configured = configured


def compiler(device, engine):
    """No kernel can be compiled."""

    class NvvmError(Exception):
        pass

    def kernel(kind, dtype, left_out):
        raise NvvmError("unsupported\n" + "line after line " * 1000)

    engine.cache.kernel = kernel


def slow(device, engine):
    """A chain takes many launches."""
    engine.FIRST_BUDGET = 1
    engine.Engine._adapt = lambda self, seconds: None
    to_host = device.to_host

    def telling(array, count):
        sys.stdout.write(f"launched {count}\n")
        sys.stdout.flush()
        return to_host(array, count)

    device.to_host = telling


if __name__ == "__main__":
    # Threads of Python stand in for those of a block: they wait for each other all the time.
    sys.setswitchinterval(1e-5)
    warnings.simplefilter("ignore", RuntimeWarning)
    np.seterr(all="ignore")
    from gradsim.cli import main
    from gradsim.kernels.cuda import device, engine

    fault = sys.argv[1]
    if fault in ("small", "tiny"):
        small(device, engine, ROOM if fault == "small" else 0)
    elif fault != "none":
        {"lost": lost, "compiler": compiler, "slow": slow}[fault](device, engine)
    main(sys.argv[2:])
