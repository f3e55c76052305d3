"""Kernels with a mistake made on purpose, for the controls: a piece of a function's source is replaced by another."""

from __future__ import annotations

import inspect
from contextlib import contextmanager

from gradsim.kernels import rng
from gradsim.kernels.cuda import draws, products, threads
from tests.kernels.cuda.kept import forget_kernels

BARRIER = "cuda.syncthreads()"


def edited(module, name, old, new, which=0):
    """A function of a module with one piece of its source replaced; an error where the piece is not there."""
    pieces = inspect.getsource(getattr(module, name)).split(old)
    assert len(pieces) > which + 1, f"{name} has no {old!r} number {which}"
    text = old.join(pieces[: which + 1]) + new + old.join(pieces[which + 1 :])
    names = dict(vars(module))
    exec(compile(text, module.__file__, "exec"), names)
    names[name].__globals__.update({name: names[name]})
    return names[name]


def drawing(factory, function, old, new, which=0):
    """A drawing function whose factory has a piece replaced."""
    return lambda: {(draws, function): edited(draws, factory, old, new, which)(rng.gaussian4, *MORE.get(factory, ()))}


def of(module, name, old, new, which=0):
    """A function with a piece replaced."""
    return lambda: {(module, name): edited(module, name, old, new, which)}


MORE = {"make_forward": (True,)}

#: Each mistake: what stands for which function of which module.
MISTAKES = {
    # Barriers.
    "no meeting after loops": of(threads, "meet", BARRIER, "pass"),
    "sum read early": of(threads, "join", BARRIER, "pass", 0),
    "sum joined early": of(threads, "join", BARRIER, "pass", 1),
    "slices added early": drawing("make_backward", "backward_gaussian", BARRIER, "pass", 0),
    "kept square overwritten early": of(products, "gemm", BARRIER, "pass", 0),
    "square overwritten early": of(products, "multiply_forward", BARRIER, "pass", 0),
    "meeting of some threads": of(threads, "join", "own = room[thread]", "own = room[thread]; " + BARRIER),
    # Draws.
    "next counter": drawing("make_forward", "forward_gaussian", "u32(column), u32(i)", "u32(column), u32(i + 1)"),
    "row and column swapped": drawing("make_backward", "backward_gaussian", "u32(j), u32(i)", "u32(i), u32(j)"),
    # What is done with them.
    "rows of a block swapped": drawing("make_backward", "backward_gaussian", "d[i] * a0", "d[i] * a1"),
    "one slice": drawing("make_backward", "backward_gaussian", "for s in range(slices)", "for s in range(1, slices)"),
    "one row of lanes": drawing(
        "make_forward", "forward_gaussian", "range(0, q, lanes)", "range(0, min(q, lanes), lanes)"
    ),
    "d and h swapped": of(products, "multiply_drawn", "if transposed:", "if not transposed:"),
    "a thread's sum left out": of(
        threads, "join", "range(1, min(JOINERS, threads))", "range(2, min(JOINERS, threads))"
    ),
}


@contextmanager
def on_purpose(name):
    """The kernels with this mistake; None: as they are."""
    if name is None:
        yield
        return
    replaced = MISTAKES[name]()
    before = {place: getattr(*place) for place in replaced}
    put(replaced)
    try:
        yield
    finally:
        put(before)


def put(functions):
    """Let these functions be translated from now on."""
    for (module, name), function in functions.items():
        setattr(module, name, function)
    forget_kernels()
