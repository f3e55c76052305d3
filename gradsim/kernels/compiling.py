"""How kernels are compiled, in one place: decorators, the disk cache, and the scalar functions made jitable.

Numba's disk cache does not notice that a callee in another file was edited, and does not heal a truncated entry.
So the cache lives in a folder named by a hash of every kernel source and of the versions involved, and an entry
that cannot be read is thrown away and compiled again.
"""

from __future__ import annotations

import hashlib
import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from numba import types
from numba.core import event
from numba.extending import overload, register_jitable

from . import ops, rng, team

# `contract` lets a multiply and an add fuse; unlike full fastmath it keeps NaN and infinity what they are.
FASTMATH = {"contract"}
# No interpreter lock; division by zero as IEEE has it; no reference counts: kernels get all their memory from outside,
# and counting the views they take of it doubled the time of a narrow layer.
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "_nrt": False}
_INLINED: dict[str, Any] = {"forceinline": True, "fastmath": FASTMATH, "error_model": "numpy"}


def _fingerprint() -> str:
    """Hash of the kernel sources and of every version that shapes the machine code."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    versions = (numba.__version__, llvmlite.__version__, np.__version__, platform.python_version())
    digest.update(repr(versions).encode())
    return digest.hexdigest()[:16]


def cache_directory() -> Path:
    """Folder of compiled kernels: under the user's NUMBA_CACHE_DIR if set, else the user's cache, else temporary.

    Returns
    -------
    Path
        An existing, writable folder that belongs to these sources and versions alone.
    """
    roots = [Path(numba.config.CACHE_DIR)] if numba.config.CACHE_DIR else []
    if "XDG_CACHE_HOME" in os.environ:
        roots.append(Path(os.environ["XDG_CACHE_HOME"]) / "gradsim")
    elif os.path.expanduser("~") != "~":
        roots.append(Path(os.path.expanduser("~")) / ".cache" / "gradsim")
    roots.append(Path(tempfile.gettempdir()) / f"gradsim-{os.getuid()}")
    fingerprint = _fingerprint()
    for root in roots:
        folder = root / f"kernels-{fingerprint}"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError:
            continue
        if os.access(folder, os.W_OK) and folder.stat().st_uid == os.getuid():
            return folder
    return Path(tempfile.mkdtemp(prefix="gradsim-"))


_CACHE = str(cache_directory())


def heal(dispatcher: Any) -> None:
    """Make an unreadable cache entry a miss instead of an error, and one that cannot be written none at all."""
    cache = dispatcher._cache
    load = cache.load_overload

    def load_or_forget(*args: Any) -> Any:
        try:
            return load(*args)
        except Exception:  # whatever unpickling a damaged file raises: the entry is rebuilt
            cache.flush()
            return None

    cache.load_overload = load_or_forget
    save = cache.save_overload

    def save_or_go_on(*args: Any) -> None:
        # A full or unwritable disk: what was compiled serves this process, and the next one compiles again.
        with suppress(OSError):
            save(*args)

    cache.save_overload = save_or_go_on


def _compiled(function: Callable[..., Any], fastmath: set[str]) -> Any:
    """Compile and cache in our own folder."""
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = _CACHE
    try:
        dispatcher = numba.njit(cache=True, fastmath=fastmath, **_OPTIONS)(function)
    finally:
        numba.config.CACHE_DIR = before
    heal(dispatcher)
    return dispatcher


def kernel(function: Callable[..., Any]) -> Any:
    """Compile for the CPU, floating-point operations in the order written."""
    return _compiled(function, FASTMATH)


def reduction(function: Callable[..., Any]) -> Any:
    """Compile a sum as vectors: in the compiler's order, which is fixed; NaN and infinity survive."""
    return _compiled(function, FASTMATH | {"reassoc"})


def part(function: Callable[..., Any]) -> Any:
    """Compile as a part of the kernels that call it: inlined before typing, so compiled and optimised once.

    Numba links and optimises a callee again in each caller; a tower of small functions would multiply the first
    compile.
    """
    return numba.njit(inline="always", fastmath=FASTMATH, **_OPTIONS)(function)


class FirstCompilation:
    """Tells of the first compilation, and of no later one: a listener of a compiler's events."""

    def __init__(self, announce: Callable[[], None]) -> None:
        self._announce: Callable[[], None] | None = announce

    def on_start(self, event: Any) -> None:
        """It begins."""
        announce, self._announce = self._announce, None
        if announce is not None:
            announce()

    def on_end(self, event: Any) -> None:
        """That it is over shows anyhow."""


class _Listener(FirstCompilation, event.Listener):  # type: ignore[misc]
    """Of Numba's events."""


@contextmanager
def announcing(announce: Callable[[], None]) -> Iterator[None]:
    """Call `announce` before anything is compiled in the context; what the cache holds is loaded without a word."""
    with event.install_listener("numba:compile", _Listener(announce)):
        yield


def _register(module: Any, dispatched: tuple[Any, ...] = ()) -> None:
    """Let compiled code call the plain functions of `module`, inlined."""
    for value in vars(module).values():
        if callable(value) and getattr(value, "__module__", None) == module.__name__ and value not in dispatched:
            register_jitable(**_INLINED)(value)


def _choose_by_dtype(function: Any, single: Any, double: Any) -> None:
    """Compile `function` as `single` where its last argument is a float32, else as `double`."""

    @overload(function, jit_options=_INLINED, strict=False)
    def choose(*args: Any) -> Any:
        chosen = single if args[-1] == types.float32 else double
        if len(args) == 2:
            return lambda w, one: chosen(w)
        return lambda r, a, one: chosen(r, a)


_register(rng, tuple(function for function, _, _ in rng.BY_DTYPE))
_register(ops)
_register(team)
for _names in rng.BY_DTYPE:
    _choose_by_dtype(*_names)
