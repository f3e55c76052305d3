"""Kernels of the GPU on disk: compiled once for each version, device and kind of chain.

numba-cuda's own cache serves, in a folder of ours. Its entries tell types, compute capability and numba-cuda's
version apart, but know nothing of functions that a kernel calls: the folder is named by a hash of their sources.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numba
from numba.cuda.core import event

from gradsim.kernels import compiling

from . import launch
from .target import SIMULATED

#: What a pass of numba-cuda's compiler is called among its events.
_PASS = "numba-cuda:run_pass"


def cache_directory() -> Path:
    """Folder of the GPU's kernels, within that of the CPU's sources, which they share."""
    digest = hashlib.sha256(version("numba-cuda").encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return compiling.cache_directory() / f"cuda-{digest.hexdigest()[:16]}"


@cache
def kernel(kind: launch.Kind, dtype: str, left_out: frozenset[str]) -> Any:
    """The kernel of an engine without these functions, loaded or compiled at its first launch."""
    made = launch.kernel(kind, dtype, left_out)
    if not SIMULATED:
        # Kernels that differ in what is left out of them look the same to numba-cuda.
        names = " ".join(sorted(left_out))
        keep(made, cache_directory() / hashlib.sha256(names.encode()).hexdigest()[:16])
    return made


def keep(dispatcher: Any, folder: Path) -> None:
    """Load what this dispatcher compiles from a folder, and write it there; without one, go on without."""
    before, none = numba.config.CACHE_DIR, dispatcher._cache
    numba.config.CACHE_DIR = str(folder)
    try:
        dispatcher.enable_caching()
    except RuntimeError:  # no place that can be written to
        return
    finally:
        numba.config.CACHE_DIR = before
    if Path(dispatcher._cache.cache_path).is_relative_to(folder):
        compiling.heal(dispatcher)
    else:
        # It could not be written to, and numba-cuda's other places know nothing of all the sources.
        dispatcher._cache = none


class _Listener(compiling.FirstCompilation, event.Listener):  # type: ignore[misc]
    """Of numba-cuda's events."""


@contextmanager
def announcing(announce: Callable[[], None]) -> Iterator[None]:
    """Call `announce` before anything is compiled for the GPU in the context; loading it is no matter."""
    with event.install_listener(_PASS, _Listener(announce)):
        yield
