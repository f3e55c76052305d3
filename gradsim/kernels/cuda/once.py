"""Each module of a kernel is given to the GPU's compiler once.

numba-cuda (0.30) lists the modules of a function that a kernel reaches along several paths once for each path: what
is compiled grows exponentially with the depth of the calls, and a shared array is then defined twice, which NVVM
refuses.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def _libraries(library: Any) -> Iterator[Any]:
    """A library and all it is linked with, each once."""
    waiting, seen = [library], set()
    while waiting:
        own = waiting.pop()
        if id(own) not in seen:
            seen.add(id(own))
            yield own
            waiting.extend(own._linking_libraries)


def list_modules_once() -> None:
    """Make it so, for this process; where there is no compiler, as under the simulator, nothing is done."""
    from numba.cuda import codegen

    codegen.CUDACodeLibrary.modules = property(lambda self: [own._module for own in _libraries(self)])
    codegen.CUDACodeLibrary.linking_libraries = property(lambda self: list(_libraries(self))[1:])
