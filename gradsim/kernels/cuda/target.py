"""From functions written for the CPU, or for any target, to functions of a GPU: one source, compiled twice.

A function is taken with everything it calls. What the CPU's compiler or its threads want otherwise is replaced on the
way: bits and square roots (`intrinsics`), loops and sums of a team (`threads`), and what has to be spread over threads
in another way (`draws`, `products`, `columns`). A function that has such a loop ends when all threads are there.
"""

from __future__ import annotations

import dis
import inspect
import math
from collections.abc import Iterable
from importlib import import_module
from types import CellType, FunctionType, ModuleType
from typing import Any

import numba
import numpy as np
from numba import cuda

from gradsim.kernels import (
    batched,
    bits,
    blas,
    draws,
    matrices,
    normalisation,
    probes,
    rng,
    team,
    vectors,
)

from . import columns, intrinsics, products, simulated, threads
from . import draws as own_draws
from .features import RETURNS
from .once import list_modules_once

SIMULATED = bool(numba.config.ENABLE_CUDASIM)
#: Threads of a block along each side of its square: under the simulator each is a thread of Python.
EDGE = 4 if SIMULATED else 16

if not SIMULATED:
    list_modules_once()

_PACKAGE = "gradsim.kernels"
_TEAM = ("each", "leads", "meet", "sum_over", "max_over", "count_over", "add_once")
_INTRINSIC = {
    bits: ("float_bits", "float_from_bits", "double_bits", "double_from_bits", "signed", "signed_high"),
    intrinsics: ("load", "store", "first"),
}
# Functions of the CPU with one of the same name here that does the same by a team.
_BY_A_TEAM: dict[Any, dict[Any, tuple[str, ...]]] = {
    columns: {
        vectors: ("absolute_maximum", "exceeds"),
        probes: ("orthogonalise",),
        batched: ("reflect_columns",),
        normalisation: ("column_forward", "column_backward", "silence"),
    },
    products: {
        matrices: ("list_nonzero", "combine", "row_products", "transpose"),
        batched: ("multiply_drawn",),
        blas: ("gemm",),
    },
    own_draws: {
        draws: (
            *("forward_gaussian", "forward_bounded", "forward_narrow_gaussian", "forward_narrow_bounded"),
            *("backward_gaussian", "backward_bounded", "rows_gaussian", "rows_bounded"),
            *("_fill_gaussian", "fill_bounded", "fill_rows_gaussian"),
        ),
    },
}


class Translation:
    """The functions of a GPU for one dtype.

    Parameters
    ----------
    dtype
        "float32" or "float64", the chain's arithmetic.
    left_out
        Names of functions, as "module.function", that are not compiled, and stop a kernel that calls them.
    """

    def __init__(self, dtype: str, left_out: Iterable[str] = ()) -> None:
        self._made: dict[int, Any] = {}
        # Identities are those of objects that live.
        self._kept: list[Any] = []
        target: Any = simulated if SIMULATED else intrinsics
        for before, after in ((threads.real, np.dtype(dtype).type), (threads.EDGE, EDGE)):
            self._remember(before, after)
        self._remember(threads.SPAN, products.HELD * EDGE)
        for module, names in _INTRINSIC.items():
            for name in names:
                self._remember(getattr(module, name), self.value(getattr(target, name)))
        self._remember(bits.keep_out_of_line, self.value(target.keep_out_of_line))
        self._remember(bits.prefer_wide_vectors, self.value(target.nothing))
        self._remember(np.sqrt, target.root)
        if SIMULATED:
            self._remember(cuda, simulated.Cuda())
            self._remember(math, simulated.math)
        for general, single, double in rng.BY_DTYPE:
            self._remember(general, self._without_last(single if dtype == "float32" else double))
        for path in left_out:
            module_name, name = path.split(".")
            function = getattr(import_module(f"{_PACKAGE}.{module_name}"), name)
            self._remember(function, self._stub(path, function, self.value(target.stop)))
        for name in _TEAM:
            self._remember(getattr(team, name), self.value(getattr(threads, name)))
        for here, originals in _BY_A_TEAM.items():
            for module, names in originals.items():
                for name in names:
                    if id(getattr(module, name)) not in self._made:
                        self._remember(getattr(module, name), self._function(getattr(here, name), True))

    def value(self, value: Any, used: tuple[str, ...] = ()) -> Any:
        """What stands for a value here: functions translated, modules with what is `used` of them, all else as is."""
        if id(value) in self._made:
            return self._made[id(value)]
        if isinstance(value, ModuleType):
            own = value.__name__.startswith(_PACKAGE) or value is np
            return self._module(value, used) if own else value
        if hasattr(value, "takes_memory"):
            if value.takes_memory:
                return self._remember(value, self._function(value.kernel.py_func, False))
            return self._remember(value, self._without_first(self.value(value.kernel), value.kernel))
        if hasattr(value, "py_func"):
            # Parts belong to what calls them; and an engine is the kernel itself.
            inlined = value.targetoptions.get("inline") == "always" or value.py_func.__name__.startswith("advance")
            return self._remember(value, self._function(value.py_func, not inlined))
        if isinstance(value, FunctionType) and value.__module__.startswith(_PACKAGE):
            return self._remember(value, self._function(value, False))
        return value

    def plain(self, function: FunctionType) -> FunctionType:
        """A function whose globals are those of the GPU."""
        globals_named, all_names = _globals_of(function), function.__code__.co_names
        own = {name: self.value(function.__globals__[name], all_names) for name in globals_named}
        cells = tuple(CellType(self.value(cell.cell_contents)) for cell in function.__closure__ or ())
        made = FunctionType(function.__code__, own, function.__name__, function.__defaults__, cells)
        made.__module__ = function.__module__
        return made

    def _remember(self, before: Any, after: Any) -> Any:
        self._kept.append(before)
        self._made[id(before)] = after
        return after

    def _function(self, function: FunctionType, apart: bool) -> Any:
        """A function translated; `apart` from those that call it, as cold code would only crowd the hot."""
        made = compiled(self.plain(function))
        named = {function.__globals__[name] for name in ("each", "leads") if name in _globals_of(function)}
        meets = bool(named & {team.each, team.leads, threads.each, threads.leads})
        if not (apart or meets):
            return made
        # All threads have come to the end when it returns.
        lines = ["keep_apart()"] * apart + ["value = inner({0})"] + ["meet()"] * meets + ["return value"]
        names = {"inner": made, "meet": self.value(threads.meet), "keep_apart": self.value(bits.keep_out_of_line)}
        return compiled(_around(function, "{0}", lines, **names))

    def _stub(self, path: str, function: Any, stop: Any) -> Any:
        """A function that stops the kernel, of the type of one that is left out."""
        linked = hasattr(function, "takes_memory")
        result = {"int64": "0", "float64": "0.0"}.get(str(function.returns), "") if linked else RETURNS.get(path, "")
        kernel = function.kernel if linked else function
        arguments = "memory, {0}" if linked and not function.takes_memory else "{0}"
        return compiled(_around(kernel.py_func, arguments, ["stop()", f"return {result}"], stop=stop))

    def _without_first(self, inner: Any, kernel: Any) -> Any:
        """A function that is called with the engine's memory first, which is not passed on."""
        return compiled(_around(kernel.py_func, "memory, {0}", ["return inner({0})"], inner=inner))

    def _without_last(self, function: Any) -> Any:
        """A function that is called with a number of the dtype last, which chose it."""
        return compiled(_around(function, "{0}, one", ["return inner({0})"], inner=self.value(function)))

    def _module(self, module: ModuleType, used: tuple[str, ...]) -> ModuleType:
        made = ModuleType(module.__name__)
        for name in used:
            if hasattr(module, name):
                setattr(made, name, self.value(getattr(module, name)))
        return made


def _globals_of(function: FunctionType) -> set[str]:
    """Names of the globals that a function uses; attributes may have the same names."""
    loaded = (i.argval for i in dis.get_instructions(function) if i.opname == "LOAD_GLOBAL")
    return {name for name in loaded if name in function.__globals__}


def _around(function: Any, arguments: str, lines: list[str], **names: Any) -> FunctionType:
    """A function with these arguments and lines, in which {0} stands for the arguments of another."""
    text = "\n    ".join([f"def met({arguments}):", *lines])
    return written(text.format(", ".join(inspect.signature(function).parameters)), **names)


def written(text: str, **names: Any) -> FunctionType:
    """A function from its text."""
    exec(compile(text, __file__, "exec"), names)
    made = names["met"]
    assert isinstance(made, FunctionType)
    return made


def compiled(function: FunctionType) -> Any:
    """A function of the device; under the simulator, Python's own."""
    return function if SIMULATED else cuda.jit(device=True)(function)
