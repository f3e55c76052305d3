"""torch on the work of a case, on the CPU: batches, loops, fresh and reused memory, manual, autograd, compiled.

Weights are drawn once and kept for the backward pass, which is the fastest way there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.cases import LINEAR, RECURRENT, Case, Make
from gradsim.timing import Work

#: Does one batch: returns ln||g_l||, a tensor of shape (L + 1, batch).
Batch = Callable[[], Any]


def variants(case: Case) -> dict[str, Make]:
    """Ways to do the work, by name."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    made: dict[str, Make] = {}
    build = {LINEAR: _linear, RECURRENT: _recurrent}.get(case.kind, _relu)
    for name, (batch, one) in build(case).items():
        made[f"torch {name}"] = _make(case, batch, one)
    return made


def _make(case: Case, batch: int, one: Batch) -> Make:
    def make(batches: int) -> Work:
        def run() -> Any:
            return np.concatenate([np.asarray(one()).T for _ in range(batches)])

        return Work(run, batches * batch * case.weights)

    return make


def _sphere(batch: int, n: int) -> Any:
    import torch

    g = torch.randn(batch, n)
    return g / g.norm(dim=1, keepdim=True)


def _bmm(v: Any, w: Any) -> Any:
    """v W for each of a batch."""
    import torch

    return torch.bmm(v.unsqueeze(1), w).squeeze(1)


def _matmul(v: Any, w: Any) -> Any:
    return (v.unsqueeze(1) @ w).squeeze(1)


def _einsum(v: Any, w: Any) -> Any:
    import torch

    return torch.einsum("bi,bij->bj", v, w)


def _baddbmm(v: Any, w: Any) -> Any:
    import torch

    return torch.baddbmm(v.unsqueeze(1), v.unsqueeze(1), w, beta=0).squeeze(1)


def _single(v: Any, w: Any) -> Any:
    """v W of a batch of one, as vector times matrix."""
    return (v[0] @ w[0]).unsqueeze(0)


def _fresh(batch: int, n: int, buffers: int) -> Callable[[], Any]:
    """Draws into new memory."""
    import torch

    return lambda: torch.randn(batch, n, n)


def _in_place(batch: int, n: int, buffers: int) -> Callable[[], Any]:
    """Draws into so many buffers by turns."""
    import torch

    kept = [torch.empty(batch, n, n) for _ in range(buffers)]
    drawn = 0

    def draw() -> Any:
        nonlocal drawn
        drawn += 1
        return kept[drawn % buffers].normal_()

    return draw


def _linear(case: Case) -> dict[str, tuple[int, Batch]]:
    n, small = case.width, case.batches[0]
    made: dict[str, tuple[int, Batch]] = {
        "loop randn": (1, _linear_batch(case, 1, _single, _fresh)),
        "loop normal_": (1, _linear_batch(case, 1, _single, _in_place)),
    }
    for batch in case.batches:
        made[f"bmm {batch} randn"] = (batch, _linear_batch(case, batch, _bmm, _fresh))
        made[f"bmm {batch} normal_"] = (batch, _linear_batch(case, batch, _bmm, _in_place))
    for name, product in (("matmul", _matmul), ("einsum", _einsum), ("baddbmm", _baddbmm)):
        made[f"{name} {small} normal_"] = (small, _linear_batch(case, small, product, _in_place))
    if compiles():
        import torch

        def step(g: Any) -> Any:
            return _bmm(g, torch.randn(len(g), n, n))

        def fused(g: Any) -> Any:
            return (torch.randn(len(g), n, n) * g[:, :, None]).sum(dim=1)

        for name, function in (("bmm", step), ("fused sum", fused)):
            compiled = torch.compile(function, dynamic=False)
            made[f"compile {name} {small}"] = (small, _stepwise(case, small, compiled))
    return made


def _linear_batch(case: Case, batch: int, product: Any, drawing: Any) -> Batch:
    draw = drawing(batch, case.width, 1)
    return _stepwise(case, batch, lambda g: product(g, draw()))


def _stepwise(case: Case, batch: int, step: Callable[[Any], Any]) -> Batch:
    import torch

    n, scale = case.width, case.scale

    @torch.inference_mode()
    def one() -> Any:
        g = _sphere(batch, n)
        norms = [g.norm(dim=1)]
        for _ in range(case.depth):
            g = step(g) * scale
            norms.append(g.norm(dim=1))
        return torch.stack(norms[::-1]).log()

    return one


def _relu(case: Case) -> dict[str, tuple[int, Batch]]:
    made: dict[str, tuple[int, Batch]] = {
        "loop randn": (1, _manual(case, 1, _single, _fresh)),
        "loop normal_": (1, _manual(case, 1, _single, _in_place)),
        "autograd loop": (1, _autograd(case, 1, _in_place)),
    }
    for batch in case.batches:
        made[f"bmm {batch} randn"] = (batch, _manual(case, batch, _bmm, _fresh))
        made[f"bmm {batch} normal_"] = (batch, _manual(case, batch, _bmm, _in_place))
    small, big = case.batches[0], case.batches[-1]
    made[f"matmul {small} normal_"] = (small, _manual(case, small, _matmul, _in_place))
    made[f"autograd bmm {small}"] = (small, _autograd(case, small, _in_place))
    made[f"autograd bmm {big}"] = (big, _autograd(case, big, _fresh))
    if compiles() and case.depth <= 16:
        made[f"compile {small}"] = (small, _compiled(case, small))
    return made


def _recurrent(case: Case) -> dict[str, tuple[int, Batch]]:
    made: dict[str, tuple[int, Batch]] = {
        "loop randn": (1, _manual(case, 1, _single, _fresh)),
        "loop normal_": (1, _manual(case, 1, _single, _in_place)),
    }
    for batch in case.batches:
        made[f"bmm {batch} normal_"] = (batch, _manual(case, batch, _bmm, _in_place))
    small = case.batches[0]
    made[f"bmm {small} randn"] = (small, _manual(case, small, _bmm, _fresh))
    made[f"matmul {small} normal_"] = (small, _manual(case, small, _matmul, _in_place))
    made[f"baddbmm {small} normal_"] = (small, _manual(case, small, _baddbmm, _in_place))
    made[f"autograd bmm {small}"] = (small, _autograd(case, small, _in_place))
    return made


def _matrices(case: Case, batch: int, drawing: Any) -> Callable[[], list[Any]]:
    """Draws the matrices of a batch of chains, layer by layer."""
    tied = case.kind == RECURRENT
    draw = drawing(batch, case.width, 1 if tied else case.depth)

    def matrices() -> list[Any]:
        return [draw()] * case.depth if tied else [draw() for _ in range(case.depth)]

    return matrices


def _manual(case: Case, batch: int, product: Any, drawing: Any) -> Batch:
    """Forward and backward written out."""
    import torch

    n, scale, draw_all = case.width, case.scale, _matrices(case, batch, drawing)
    if product is _single:

        def forward(h: Any, w: Any) -> Any:
            return (w[0] @ h[0]).unsqueeze(0)
    else:

        def forward(h: Any, w: Any) -> Any:
            return torch.bmm(w, h.unsqueeze(2)).squeeze(2)

    @torch.inference_mode()
    def one() -> Any:
        matrices = draw_all()
        slopes = []
        h = torch.randn(batch, n)
        for w in matrices:
            z = forward(h, w).mul_(scale)
            h = z.relu()
            slopes.append(z > 0)
        g = _sphere(batch, n)
        norms = [g.norm(dim=1)]
        for w, slope in zip(reversed(matrices), reversed(slopes), strict=True):
            g = product(g * slope, w).mul_(scale)
            norms.append(g.norm(dim=1))
        return torch.stack(norms[::-1]).log()

    return one


def _autograd(case: Case, batch: int, drawing: Any) -> Batch:
    """Forward written out, backward left to autograd."""
    import torch

    n, scale, draw_all = case.width, case.scale, _matrices(case, batch, drawing)

    def one() -> Any:
        with torch.no_grad():
            matrices = draw_all()
        h = torch.randn(batch, n, requires_grad=True)
        states = [h]
        for w in matrices:
            h = (torch.bmm(w, h.unsqueeze(2)).squeeze(2) * scale).relu()
            states.append(h)
        top = _sphere(batch, n)
        gradients = torch.autograd.grad(h, states[:-1], top)
        return torch.stack([g.norm(dim=1) for g in (*gradients, top)]).log()

    return one


def _compiled(case: Case, batch: int) -> Batch:
    """Forward and backward written out and compiled as one."""
    import torch

    n, depth, scale = case.width, case.depth, case.scale

    def whole(h: Any, g: Any) -> Any:
        matrices, slopes = [], []
        for _ in range(depth):
            w = torch.randn(batch, n, n)
            z = torch.bmm(w, h.unsqueeze(2)).squeeze(2) * scale
            h = z.relu()
            matrices.append(w)
            slopes.append(z > 0)
        norms = [g.norm(dim=1)]
        for w, slope in zip(reversed(matrices), reversed(slopes), strict=True):
            g = _bmm(g * slope, w) * scale
            norms.append(g.norm(dim=1))
        return torch.stack(norms[::-1]).log()

    compiled = torch.compile(whole, dynamic=False)

    @torch.inference_mode()
    def one() -> Any:
        return compiled(torch.randn(batch, n), _sphere(batch, n))

    return one


def compiles() -> bool:
    """Whether torch.compile works here: it wants a C++ compiler."""
    import torch

    global _COMPILES
    if _COMPILES is None:
        try:
            probe = torch.compile(lambda x: x * math.pi + 1.0)(torch.ones(3))
            _COMPILES = bool(torch.isfinite(probe).all())
        except Exception:  # whatever a missing compiler raises: the variant is left out
            _COMPILES = False
    return _COMPILES


_COMPILES: bool | None = None
