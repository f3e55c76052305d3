"""Calls by address: a kernel is compiled on its own, where a chain first needs it, and not again in what calls it.

Numba links the code of every function into each of its callers and optimises it there once more: an engine that knows
every feature of a chain would spend most of its first compilation on features that the chain at hand has not. A
linked kernel is instead reached through a table of addresses, `links` of the engine's memory, one table for each
dtype. An entry is 0 until its first call, which has Python compile the kernel, or load it from the disk cache, and
fill the entry in.
"""

from __future__ import annotations

import ctypes
import os
import threading
import traceback
from collections.abc import Callable
from functools import cache
from inspect import Parameter, Signature
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

# Entries of a table; the first is the address of what fills in the others.
CAPACITY = 128
REALS = {"float32": types.float32, "float64": types.float64}

Kinds = Callable[[Any], tuple[Any, ...]]

_WORD = ir.IntType(64)
_RESOLVER = ir.FunctionType(ir.VoidType(), [_WORD])
_C_RESOLVER = ctypes.CFUNCTYPE(None, ctypes.c_int64)


class _Link(NamedTuple):
    """A kernel, what it returns, and the types of its arguments where the chain's dtype is `real`."""

    kernel: Any
    returns: Any
    kinds: Kinds


_links: list[_Link] = []
# Callbacks that compiled code calls: they must live as long as it does.
_resolvers: list[Any] = []
_held = threading.local()


def linked(kernel: Any, returns: Any, kinds: Kinds, takes_memory: bool = False) -> Any:
    """A function to call in other kernels instead of `kernel`.

    Parameters
    ----------
    kernel
        The compiled function.
    returns
        The Numba type of what it returns.
    kinds
        The types of its arguments, from the chain's dtype.
    takes_memory
        Whether the engine's memory is its first argument. Calls give it first in any case.
    """
    _links.append(_Link(kernel, returns, kinds))
    index = len(_links)
    assert index < CAPACITY

    def call(typing: Any, memory: Any, *given: Any) -> Any:
        names = memory.fields
        real = memory.types[names.index("rows")].dtype
        place = names.index("links")

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            table = builder.extract_value(arguments[0], place)
            entries = context.make_array(signature.args[0].types[place])(context, builder, table).data
            entry = builder.gep(entries, [ir.Constant(_WORD, index)])
            with builder.if_then(builder.icmp_unsigned("==", builder.load(entry), ir.Constant(_WORD, 0)), likely=False):
                resolver = builder.inttoptr(builder.load(entries), _RESOLVER.as_pointer())
                builder.call(resolver, [ir.Constant(_WORD, index)])
            passed = slice(0 if takes_memory else 1, None)
            kinds_passed = signature.args[passed]
            callee = context.call_conv.get_function_type(signature.return_type, kinds_passed)
            address = builder.inttoptr(builder.load(entry), callee.as_pointer())
            _, value = context.call_conv.call_function(
                builder, address, signature.return_type, kinds_passed, arguments[passed]
            )
            return value

        wanted = kinds(real)
        return returns(*wanted) if takes_memory else returns(memory, *wanted), generate

    # Numba wants a name for each argument.
    count = len(kinds(types.float32)) + (0 if takes_memory else 1)
    names = ["typing", "memory", *(f"argument{i}" for i in range(1, count))]
    call.__signature__ = Signature([Parameter(n, Parameter.POSITIONAL_ONLY) for n in names])  # type: ignore[attr-defined]
    call.__name__ = kernel.py_func.__name__
    made = intrinsic(call)
    # Other targets call it directly.
    made.kernel, made.returns, made.takes_memory = kernel, returns, takes_memory
    return made


@cache
def table(dtype: str) -> NDArray[np.int64]:
    """Addresses of the linked kernels for a dtype, filled in as they are called."""
    entries = np.zeros(CAPACITY, np.int64)
    resolver = _C_RESOLVER(lambda index: _fill_in(entries, dtype, index))
    _resolvers.append(resolver)
    entries[0] = ctypes.cast(resolver, ctypes.c_void_p).value or 0
    return entries


def raise_interruption() -> None:
    """Raise what interrupted a compilation in this thread: compiled code cannot pass an exception on."""
    interruption, _held.interruption = getattr(_held, "interruption", None), None
    if interruption is not None:
        raise interruption


def _fill_in(entries: NDArray[np.int64], dtype: str, index: int) -> None:
    """Compile or load a kernel and write down its address; an interruption waits until that is done.

    Called from compiled code, which cannot go on without it: what cannot be compiled ends the process.
    """
    link = _links[index - 1]
    while not entries[index]:
        try:
            entries[index] = _address(link, REALS[dtype])
        except Exception as error:
            _end(link, error)
        except BaseException as interruption:
            _held.interruption = interruption


def _end(link: _Link, error: Exception) -> None:
    """End the process: one line that says why, and where with GRADSIM_DEBUG=1."""
    if os.environ.get("GRADSIM_DEBUG") == "1":
        traceback.print_exc()
    said = " ".join(f"{type(error).__name__}: {error}".split())[:500]
    text = f"gradsim: cannot compile {link.kernel.py_func.__name__}: {said}; GRADSIM_DEBUG=1 shows where\n"
    os.write(2, text.encode())
    os._exit(1)


def _address(link: _Link, real: Any) -> int:
    """Address of a kernel's code, in Numba's own calling convention."""
    kinds = link.kinds(real)
    link.kernel.compile(kinds)
    compiled = link.kernel.overloads[kinds]
    assert compiled.signature.return_type == link.returns, (link.kernel, compiled.signature)
    return int(compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name))
