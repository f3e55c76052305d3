"""torch on the work of a case, as one who knows it would write it for a GPU.

Many chains at once through torch.bmm; matrices drawn by torch.randn, or in place into memory that is kept; backward
written out, and left to autograd for batch norm; torch.compile, which fuses drawing and multiplying where a weight is
used once; and whole batches captured as CUDA graphs. cuDNN's LSTM and GRU take one chain's matrices at a time and
tell dLoss/dh_0 alone, which is less than what is asked of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from bench.gpu_cases import Case

#: Does one batch: returns ln||g_l||, a tensor of shape (batch, L + 1), with (batch, L) more of ln||h_l|| where those
#: are asked, or (batch, 1) where only l = 0 is known.
Batch = Callable[[], Any]


class Draws(Protocol):
    """What a batch of chains is made of."""

    def matrices(self, count: int, *shape: int) -> list[Any]:
        """So many tensors of standard normals, of one shape; at the next call their memory may be used again."""

    def vectors(self, *shape: int) -> Any:
        """Standard normals for inputs and gradients."""


class Fresh:
    """Every draw in memory of its own."""

    def __init__(self, device: str) -> None:
        self.device = device

    def matrices(self, count: int, *shape: int) -> list[Any]:
        """As of `Draws`."""
        import torch

        return [torch.randn(shape, device=self.device) for _ in range(count)]

    def vectors(self, *shape: int) -> Any:
        """As of `Draws`."""
        import torch

        return torch.randn(shape, device=self.device)


class InPlace(Fresh):
    """Matrices in memory that is kept, drawn all at once."""

    def __init__(self, device: str) -> None:
        super().__init__(device)
        self._kept: Any = None

    def matrices(self, count: int, *shape: int) -> list[Any]:
        """As of `Draws`."""
        import torch

        if self._kept is None:
            self._kept = torch.empty((count, *shape), device=self.device)
        self._kept.normal_()
        return list(self._kept)


def variants(case: Case, device: str = "cuda") -> Iterator[tuple[str, int, Callable[[], Batch]]]:
    """Ways to do the work: name, chains of a batch, and what builds it, which may fail for want of memory."""
    build = way_of(case)
    for batch in case.batches:
        ways: dict[str, Callable[[], Batch]] = {
            "randn": lambda batch=batch: build(case, batch, Fresh(device)),
            "normal_": lambda batch=batch: build(case, batch, InPlace(device)),
            "normal_ graph": lambda batch=batch: graphed(build(case, batch, InPlace(device))),
        }
        if case.chain.norm == "batch":
            ways["autograd"] = lambda batch=batch: normed_autograd(case, batch, InPlace(device))
            ways["autograd compile"] = lambda batch=batch: compiled(normed_autograd(case, batch, InPlace(device)))
        if not case.forward:
            ways["compile fused"] = lambda batch=batch: fused_backward(case, batch, Fresh(device))
            ways["compile fused graph"] = lambda batch=batch: graphed(fused_backward(case, batch, Fresh(device)))
        else:
            ways["compile"] = lambda batch=batch: compiled(build(case, batch, Fresh(device)))
        for name, way in ways.items():
            yield f"torch {name} {batch}", batch, way
    if case.chain.gates > 1:
        yield "torch cuDNN", 8, lambda: library_cell(case, 8, Fresh(device))


def way_of(case: Case) -> Callable[[Case, int, Draws], Batch]:
    """The work of a case, written out."""
    if case.chain.norm == "batch":
        return normed
    return {"lstm": lstm, "gru": gru}.get(case.chain.kind, plain)


def compiled(one: Batch) -> Batch:
    """Through torch.compile."""
    import torch

    made: Batch = torch.compile(one, dynamic=False)
    return made


def graphed(one: Batch) -> Batch:
    """A whole batch as one CUDA graph; each replay draws anew."""
    import torch

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            one()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = one()

    def replay() -> Any:
        graph.replay()
        return out.clone()

    return replay


def _forward(w: Any, h: Any) -> Any:
    """W h for each of a batch."""
    import torch

    return torch.bmm(w, h.unsqueeze(2)).squeeze(2)


def _backward(w: Any, d: Any) -> Any:
    """W^T d for each of a batch."""
    import torch

    return torch.bmm(d.unsqueeze(1), w).squeeze(1)


def _unit(g: Any) -> Any:
    """On the unit sphere, over all entries of a chain."""
    return g / g.flatten(1).norm(dim=1).reshape(-1, *[1] * (g.dim() - 1))


def _logs(gradients: list[Any]) -> Any:
    """ln||g_l|| of gradients in the order of the way back."""
    import torch

    return torch.stack([g.flatten(1).norm(dim=1) for g in reversed(gradients)], 1).log()


def plain(case: Case, batch: int, draws: Draws) -> Batch:
    """Feedforward and recurrent chains: linear, ReLU or tanh."""
    n, depth, scale, tied, activation = case.width, case.depth, case.scale, case.chain.tied, case.chain.activation
    import torch

    @torch.no_grad()
    def one() -> Any:
        drawn = draws.matrices(1 if tied else depth, batch, n, n)
        matrices = drawn * depth if tied else drawn
        slopes, lengths = [], []
        if case.forward:
            h = draws.vectors(batch, n)
            for w in matrices:
                h = _forward(w, h) * scale
                if activation == "relu":
                    slopes.append(h > 0)
                    h = h.relu()
                elif activation == "tanh":
                    h = h.tanh()
                    slopes.append(1 - h * h)
                else:
                    # What is asked of a linear chain besides its gradient, or its way forward would be for nothing.
                    lengths.append(h.norm(dim=1))
        g = _unit(draws.vectors(batch, n))
        gradients = [g]
        for layer in range(depth - 1, -1, -1):
            g = _backward(matrices[layer], g * slopes[layer] if slopes else g) * scale
            gradients.append(g)
        return torch.cat([_logs(gradients), torch.stack(lengths, 1).log()], 1) if lengths else _logs(gradients)

    return one


def fused_backward(case: Case, batch: int, draws: Draws) -> Batch:
    """A linear chain's way back, drawn and multiplied in one kernel by torch.compile: no matrix is stored."""
    n, depth, scale = case.width, case.depth, case.scale
    import torch

    @compiled
    def step(g: Any) -> Any:
        return (draws.vectors(batch, n, n) * g[:, :, None]).sum(dim=1) * scale

    @torch.no_grad()
    def one() -> Any:
        gradients = [_unit(draws.vectors(batch, n))]
        for _ in range(depth):
            gradients.append(step(gradients[-1]))
        return _logs(gradients)

    return one


def lstm(case: Case, batch: int, draws: Draws) -> Batch:
    """LSTM chains: gates i, f, g, o; g_l is dLoss/dh_l with c_l held."""
    n, depth, scale = case.width, case.depth, case.scale
    import torch

    @torch.no_grad()
    def one() -> Any:
        (w,) = draws.matrices(1, batch, 4 * n, n)
        h, c = draws.vectors(batch, n), torch.zeros_like(w[:, 0])
        kept = []
        for _ in range(depth):
            a = (_forward(w, h) * scale).view(batch, 4, n)
            gates, bent = torch.sigmoid(a), torch.tanh(a[:, 2])
            i, f, _, o = gates.unbind(1)
            before, c = c, f * c + i * bent
            squashed = torch.tanh(c)
            h = o * squashed
            kept.append((i, f, bent, o, before, squashed))
        g, cell = _unit(draws.vectors(batch, n)), torch.zeros_like(c)
        gradients = [g]
        for i, f, bent, o, before, squashed in reversed(kept):
            cell = cell + g * o * (1 - squashed * squashed)
            inner = (cell * bent * i * (1 - i), cell * before * f * (1 - f), cell * i * (1 - bent * bent))
            g = _backward(w, torch.cat([*inner, g * squashed * o * (1 - o)], 1)) * scale
            cell = cell * f
            gradients.append(g)
        return _logs(gradients)

    return one


def gru(case: Case, batch: int, draws: Draws) -> Batch:
    """GRU chains: gates r, z, n, the reset gate after the product."""
    n, depth, scale = case.width, case.depth, case.scale
    import torch

    @torch.no_grad()
    def one() -> Any:
        (w,) = draws.matrices(1, batch, 3 * n, n)
        h = draws.vectors(batch, n)
        kept = []
        for _ in range(depth):
            a = (_forward(w, h) * scale).view(batch, 3, n)
            r, z = torch.sigmoid(a[:, :2]).unbind(1)
            inner = a[:, 2]
            new = torch.tanh(r * inner)
            before, h = h, (1 - z) * new + z * h
            kept.append((r, z, inner, new, before))
        g = _unit(draws.vectors(batch, n))
        gradients = [g]
        for r, z, inner, new, before in reversed(kept):
            at_new = g * (1 - z) * (1 - new * new)
            d = torch.cat([at_new * inner * r * (1 - r), g * (before - new) * z * (1 - z), at_new * r], 1)
            g = _backward(w, d) * scale + g * z
            gradients.append(g)
        return _logs(gradients)

    return one


def library_cell(case: Case, chains: int, draws: Draws) -> Batch:
    """torch.nn.LSTM or GRU, cuDNN's on a GPU: recurrent weights only, chain after chain, g_0 alone."""
    n, depth, scale, gates = case.width, case.depth, case.scale, case.chain.gates
    import torch

    made = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[case.chain.kind](1, n, bias=False)
    torch.nn.init.zeros_(made.weight_ih_l0)
    made.weight_ih_l0.requires_grad_(False)
    made.weight_hh_l0.requires_grad_(False)
    device = draws.vectors(1).device
    made.to(device)
    x, c = torch.zeros(depth, 1, 1, device=device), torch.zeros(1, 1, n, device=device)

    def chain() -> Any:
        (w,) = draws.matrices(1, 1, gates * n, n)
        made.weight_hh_l0.copy_(w[0] * scale)
        h = draws.vectors(1, n)[None].requires_grad_(True)
        states, _ = made(x, (h, c) if case.chain.kind == "lstm" else h)
        (g,) = torch.autograd.grad(states[-1], h, _unit(draws.vectors(1, n)))
        return g[0].norm(dim=1).log()

    return lambda: torch.stack([chain() for _ in range(chains)])


def normed(case: Case, batch: int, draws: Draws) -> Batch:
    """Batch norm and ReLU, the way back written out; chains by units by inputs."""
    n, inputs, depth, scale = case.width, case.chain.batch, case.depth, case.scale
    import torch

    @torch.no_grad()
    def one() -> Any:
        matrices = draws.matrices(depth, batch, n, n)
        h = draws.vectors(batch, n, inputs)
        kept = []
        for w in matrices:
            z = torch.bmm(w, h) * scale
            variance, mean = torch.var_mean(z, dim=2, correction=0, keepdim=True)
            inverse = variance.rsqrt()
            y = (z - mean) * inverse
            h = y.relu()
            kept.append((y, inverse))
        g = _unit(draws.vectors(batch, n, inputs))
        gradients = [g]
        for w, (y, inverse) in zip(reversed(matrices), reversed(kept), strict=True):
            d = g * (y > 0)
            d = d - d.mean(dim=2, keepdim=True) - y * (d * y).mean(dim=2, keepdim=True)
            g = torch.bmm(w.transpose(1, 2), d * (inverse * scale))
            gradients.append(g)
        return _logs(gradients)

    return one


def normed_autograd(case: Case, batch: int, draws: Draws) -> Batch:
    """The same, the way back left to autograd."""
    n, inputs, depth, scale = case.width, case.chain.batch, case.depth, case.scale
    import torch

    def one() -> Any:
        with torch.no_grad():
            matrices = draws.matrices(depth, batch, n, n)
        h = draws.vectors(batch, n, inputs).requires_grad_(True)
        states = [h]
        for w in matrices:
            z = torch.bmm(w, h) * scale
            variance, mean = torch.var_mean(z, dim=2, correction=0, keepdim=True)
            h = ((z - mean) * variance.rsqrt()).relu()
            states.append(h)
        top = _unit(draws.vectors(batch, n, inputs))
        gradients = torch.autograd.grad(h, states[:-1], top)
        return _logs([top, *reversed(gradients)]).detach()

    return one
