"""The benchmark of a GPU where there is none: how it refuses, what it counts, and that its peers do the same work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gradsim.chain import Chain

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "bench").exists():
    pytest.skip("needs the source tree", allow_module_level=True)

from bench import gpu, gpu_compile, gpu_counts, gpu_peers, gpu_time, law_check, sass  # noqa: E402
from bench.gpu_cases import CASES, Case  # noqa: E402
from gradsim.timing import Work  # noqa: E402

torch = pytest.importorskip("torch", reason="the peers are torch's")

BATCH = 3
SMALL = {
    "linear": Chain(activation="linear", width=6, depth=3, gain=1.0),
    "relu": Chain(activation="relu", width=6, depth=3, gain="he"),
    "recurrent": Chain(kind="recurrent", activation="tanh", width=6, depth=4, gain=1.2, bias=0.0),
    "lstm": Chain(kind="lstm", width=6, depth=4, init="gaussian", gain=1.5, bias=0.0),
    "gru": Chain(kind="gru", width=6, depth=4, init="gaussian", gain=1.5, bias=0.0),
    "normed": Chain(width=6, depth=3, norm="batch", batch=8),
}

# A loop of four instructions that are counted and a branch, inside one of two more; a branch forward out of the inner.
LISTING = """
	.section	.text.outer,"ax",@progbits
outer:
.text.outer:
        /*0000*/                   MOV R1, c[0x0][0x28] ;                /* 0x00000a0000017a02 */
.L_x_0:
        /*0010*/                   IADD3 R2, R2, 0x1, RZ ;
.L_x_1:
        /*0020*/                   LDG.E R4, desc[UR4][R2.64] ;
        /*0030*/              @!P1 BRA `(.L_x_2) ;
        /*0040*/                   FFMA R5, R4, R4, R5 ;
        /*0050*/                   IMAD.WIDE R2, R6, 0x4, R2 ;
        /*0060*/               @P0 BRA `(.L_x_1) ;
.L_x_2:
        /*0070*/                   ISETP.NE.AND P2, PT, R2, RZ, PT ;
        /*0080*/               @P2 BRA `(.L_x_0) ;
        /*0090*/                   EXIT ;
.L_x_3:
        /*00a0*/                   BRA `(.L_x_3);
        /*00b0*/                   NOP ;
"""


def small(name, **fields):
    return Case(name, SMALL[name], {}, batches=(BATCH,), **fields)


class Given(gpu_peers.Fresh):
    """Draws by a seed in float64, in a fixed order, kept to be looked at."""

    def __init__(self, seed=0):
        self.generator, self.kept = torch.Generator().manual_seed(seed), []

    def matrices(self, count, *shape):
        return [self.vectors(*shape) for _ in range(count)]

    def vectors(self, *shape):
        self.kept.append(torch.randn(shape, generator=self.generator, dtype=torch.float64))
        return self.kept[-1].clone()


def test_without_a_gpu_it_says_so_in_one_line():
    hidden = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", "bench.gpu", "--quick"], cwd=ROOT, env=hidden, capture_output=True)
    assert done.returncode == 1
    assert done.stdout == b""
    (line,) = done.stderr.decode().splitlines()
    assert "GPU" in line or "numba-cuda" in line


def test_instructions_of_the_innermost_loop_by_unit():
    (lines,) = sass.functions(LISTING).values()
    (loop,) = sass.loops(lines)
    assert [one.base for one in loop] == ["LDG", "BRA", "FFMA", "IMAD", "BRA"]
    assert sass.pipes(loop) == {"memory": 1, "other": 2, "float": 1, "multiply": 1}
    count = gpu_counts.count_of("loop", LISTING, gpu_counts.MULTIPLY_ADD)
    assert (count.weights, count.instructions) == (1, 5)
    # 5 instructions at 128 lanes take longer than one load at 32 or two of the multiplier's at 128.
    assert count.bound == "issue" and count.rate == 128 / 5


def test_a_longer_loop_counts_longer():
    longer = LISTING.replace("IMAD.WIDE R2", "LDS R7, [R8] ;\n        /*0058*/                   IMAD.WIDE R2")
    count = gpu_counts.count_of("loop", longer, gpu_counts.MULTIPLY_ADD)
    assert count.pipes["memory"] == 2 and count.bound == "memory" and count.rate == 16


def test_a_loop_without_what_is_looked_for_is_refused():
    with pytest.raises(ValueError, match="no loop of forward has MUFU"):
        gpu_counts.count_of("forward", LISTING, gpu_counts.ROOTS)
    straight = LISTING.replace("@P0 BRA `(.L_x_1)", "@P0 BRA `(.L_x_2)").replace(
        "@P2 BRA `(.L_x_0)", "@P2 BRA `(.L_x_3)"
    )
    with pytest.raises(ValueError, match="no loop"):
        gpu_counts.count_of("loop", straight, gpu_counts.MULTIPLY_ADD)


def test_units_share_what_they_share():
    clocks = dict(sass.lane_clocks({"float": 64, "multiply": 64, "integer": 32}))
    assert clocks["float"] == 1.0 and clocks["multiply"] == 1.0 and clocks["integer"] == 0.5
    assert clocks["issue"] == 160 / 128


def test_resources_and_blocks_held_at_once():
    said = """ptxas info    : Function properties for a
    8 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 96 registers, used 1 barriers, 64 bytes cumulative stack size, 4096 bytes smem
ptxas info    : Function properties for b
    0 bytes stack frame, 30 bytes spill stores, 0 bytes spill loads"""
    assert gpu_compile.resources(said) == gpu_compile.Resources(96, 64, 42, 4096)
    # 65,536 registers: of 255 each, one block of 256 threads; of 64, four; of 32, all 2048 threads.
    blocks = [gpu_compile.Resources(number, 0, 0, 0).blocks(256, 0) for number in (255, 64, 32, 16)]
    assert blocks == [1, 4, 8, 8]
    assert gpu_compile.Resources(32, 0, 0, 0).blocks(256, 100 * 1024) == 2
    assert gpu_compile.Resources(32, 0, 0, 0).blocks(32, 0) == 32


def test_markers_of_a_page_are_filled_and_others_kept(tmp_path):
    page = tmp_path / "cuda.md"
    page.write_text(
        "a <!-- evidence:gpu_loops -->old<!-- /evidence --> b <!-- evidence:other -->kept<!-- /evidence -->"
    )
    gpu_counts.write(page, {"gpu_loops": "new"})
    text = page.read_text()
    assert ">new<" in text and ">kept<" in text and "old" not in text


def test_hot_loops_as_compiled():
    """Skipped, visibly, where the assembler's wheels are not installed."""
    try:
        gpu_compile.tool("ptxas"), gpu_compile.tool("nvdisasm")
    except gpu_compile.ToolMissing as error:
        pytest.skip(str(error))
    pytest.importorskip("numba_cuda")
    counts = {count.name: count for count in gpu_counts.counted()}
    least = {count.name.removesuffix(", by hand"): count for count in gpu_counts.by_hand()}
    for name, needed in least.items():
        found = counts[name]
        # Floats and roots are what the arithmetic says, the rest is more: addresses and the loop itself.
        assert needed.pipes["float"] <= found.pipes["float"] <= needed.pipes["float"] + 2
        assert found.pipes["special"] == needed.pipes["special"]
        assert found.pipes["conversion"] == needed.pipes["conversion"]
        assert found.instructions > needed.instructions
        assert found.pipes.get("double", 0) == 0


def test_the_measured_ceiling_is_of_multiply_adds():
    """Skipped, visibly, where the assembler's wheels are not installed."""
    try:
        gpu_compile.tool("ptxas"), gpu_compile.tool("nvdisasm")
    except gpu_compile.ToolMissing as error:
        pytest.skip(str(error))
    cuda = pytest.importorskip("numba.cuda")
    signature = cuda.types.void(cuda.types.float32[::1], cuda.types.float64)
    text = gpu_compile.ptx_of(gpu_time._multiply_adds().py_func, signature)
    count = gpu_counts.count_of("ceiling", gpu_compile.assembled(text)[0], gpu_counts.MULTIPLY_ADD)
    # Nothing but multiply-adds, but for the loop itself.
    assert count.weights % (gpu_time._CHAINS * gpu_time._LINKS) == 0
    assert count.pipes["float"] == 1 and count.instructions < 1.2 and count.bound in ("float", "issue")


def textbook(case, kept):
    """ln||g_l|| from the same draws: torch's own layers in float64, and its autograd."""
    chain, n, depth = case.chain, case.width, case.depth
    gates = chain.gates
    matrices = [w * case.scale for w in kept[: 1 if chain.tied else depth]]
    h = kept[len(matrices)].clone().requires_grad_(True)
    top = kept[-1]
    states, cell = [h], torch.zeros_like(h)
    for step in range(depth):
        own = []
        for b in range(BATCH):
            w, x = matrices[0 if chain.tied else step][b], h[b]
            if gates == 4:
                made = torch.nn.LSTMCell(1, n, bias=False, dtype=torch.float64)
            elif gates == 3:
                made = torch.nn.GRUCell(1, n, bias=False, dtype=torch.float64)
            if gates > 1:
                nothing = torch.zeros(1, 1, dtype=torch.float64)
                weights = {"weight_ih": torch.zeros(gates * n, 1, dtype=torch.float64), "weight_hh": w}
                before = (x[None], cell[b : b + 1]) if gates == 4 else x[None]
                after = torch.func.functional_call(made, weights, (nothing, before))
                own.append(torch.stack([after[0][0], after[1][0]]) if gates == 4 else after[0])
            elif chain.norm == "batch":
                z = torch.nn.functional.batch_norm((w @ x).T, None, None, training=True, eps=1e-30)
                own.append(z.T.relu())
            else:
                own.append({"linear": lambda z: z, "relu": torch.relu, "tanh": torch.tanh}[chain.activation](w @ x))
        h = torch.stack(own)
        if gates == 4:
            h, cell = h[:, 0], h[:, 1]
        states.append(h)
    top = top / top.flatten(1).norm(dim=1).reshape(-1, *[1] * (top.dim() - 1))
    # g_l is the gradient at h_l with c_l held: a path through c alone does not pass h_l.
    gradients = torch.autograd.grad(h, states[:-1], top)
    return torch.stack([g.flatten(1).norm(dim=1) for g in (*gradients, top)], 1).log().detach().numpy()


def ways(name):
    case = small(name)
    found = {"written out": gpu_peers.way_of(case)}
    return found | ({"autograd": gpu_peers.normed_autograd} if name == "normed" else {})


@pytest.mark.parametrize("name", SMALL)
def test_torch_does_the_same_work_exactly(name):
    case = small(name)
    for what, way in ways(name).items():
        draws = Given()
        logs = way(case, BATCH, draws)().numpy()[:, : case.depth + 1]
        np.testing.assert_allclose(logs, textbook(case, draws.kept), rtol=0, atol=1e-9, err_msg=what)
        assert np.abs(logs - textbook(case, list(reversed_matrices(case, draws.kept)))).max() > 1e-3


def reversed_matrices(case, kept):
    """The control: each gate's matrix transposed, which changes a gradient but not its law."""
    n = case.width
    for w in kept:
        square = w.shape[1:] == (case.chain.gates * n, n)
        yield w.reshape(BATCH, -1, n, n).transpose(2, 3).reshape(w.shape) if square else w


def test_a_linear_chain_with_its_way_forward():
    case = small("linear")
    draws = Given()
    found = gpu_peers.plain(case, BATCH, draws)().numpy()
    assert found.shape == (BATCH, 2 * case.depth + 1)
    h = draws.kept[case.depth]
    for layer in range(case.depth):
        h = (draws.kept[layer] * case.scale @ h[:, :, None])[:, :, 0]
        np.testing.assert_allclose(found[:, case.depth + 1 + layer], h.norm(dim=1).log())


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_library_cells_do_the_same_work(name):
    case = small(name)

    class Single(Given):
        def vectors(self, *shape):
            return super().vectors(*shape).float()

    draws = Single()
    (found,) = gpu_peers.library_cell(case, 1, draws)().numpy()
    # Draws: one that tells the device, the matrix, h_0, the gradient; each for the one chain.
    w, h, top = (x.expand(BATCH, *x.shape[1:]).double() for x in draws.kept[1:])
    wanted = textbook(case, [w, h, top])[0, 0]
    np.testing.assert_allclose(found, [wanted], atol=1e-4)
    assert abs(found[0] - textbook(case, [w, h, -h])[0, 0]) > 1e-3


@pytest.mark.parametrize("name", ["linear", "relu", "recurrent", "lstm", "gru", "normed"])
def test_torch_draws_the_law_of_our_engine(name):
    """Two tests of a mean and a variance at 1e-3 in all for each case; the control is a gain of 1.15."""
    chain = SMALL[name].replace(width=16)
    case, wrong = Case(name, chain, {}), Case(name, chain.replace(gain=1.15 * float(chain.gains[0])), {})
    torch.manual_seed(1)
    ours = gpu.engine(chain, case, on="cpu").run(0, 2000)["log_grad_norm"][:, 0]

    def failures(of):
        logs = gpu_peers.way_of(of)(of, 2000, gpu_peers.InPlace("cpu"))().numpy()[:, 0]
        alive = logs[np.isfinite(logs)], ours[np.isfinite(ours)]
        return law_check.failures(law_check.against_each_other("torch", *alive))

    assert not failures(case)
    if name != "normed":  # whose gradient does not depend on the gain
        assert failures(wrong)


def test_buffers_are_drawn_anew_and_used_again():
    draws = gpu_peers.InPlace("cpu")
    first = draws.matrices(2, 3, 3)
    before, place = first[0].clone(), first[0].data_ptr()
    second = draws.matrices(2, 3, 3)
    assert second[0].data_ptr() == place and not torch.equal(second[0], before)
    assert not torch.equal(second[0], second[1])


def test_cases_have_loops_that_are_counted():
    names = {loop.name for loop in gpu_counts.hot_loops()} if has_numba_cuda() else set()
    for case in CASES:
        assert not names or set(case.loops) <= names
        assert bool(case.batches) == (case.method == "dense")
    shapes = {(case.name, case.weights) for case in CASES}
    assert ("relu n=256", 16 * 256**2) in shapes
    assert ("lstm n=256 T=100", 2 * 4 * 100 * 256**2) in shapes
    assert ("deferred relu n=4096", 100 * 4096) in shapes


def has_numba_cuda():
    import importlib.util

    return importlib.util.find_spec("numba_cuda") is not None


def test_ceilings_from_counts():
    case = Case("x", SMALL["relu"], {"backward": 1.0, "forward": 0.5}, bytes=8.0)
    counts = {
        "backward": gpu_counts.Count("backward", 4, {"integer": 32.0}),
        "forward": gpu_counts.Count("forward", 4, {"float": 128.0}),
    }
    limits = {"multiprocessors": 10, "clock_ghz": 2.0, "bytes_per_s": 4e12}
    # Half a clock and one, halved, over 20 in a nanosecond; 8 bytes at 4 a picosecond.
    assert gpu.ceilings_of(case, counts, limits) == pytest.approx({"instructions_ns": 0.05, "bytes_ns": 0.002})
    assert gpu.ceilings_of(case, {}, limits)["instructions_ns"] is None


def test_a_difference_is_found_and_nan_is_one():
    wanted = np.array([[0.0, -np.inf, np.nan, 1.0]], np.float32)
    assert gpu.difference("x", wanted.copy(), wanted, 1e-6) == []
    for place, value in ((0, 1e-3), (1, 0.0), (2, 0.0), (3, np.nan), (3, -np.inf)):
        other = wanted.copy()
        other[0, place] = value
        assert len(gpu.difference("x", other, wanted, 1e-6)) == 1


def test_cases_are_checked_against_the_cpu(monkeypatch):
    """With the CPU's engine in the GPU's place nothing differs; with another seed's chains everything does."""
    from gradsim.kernels.cpu import Engine

    def engine(chain, case, dtype, on, quantities, slots, seed=0):
        return Engine(chain, seed if on == "cuda" else 0, dtype, quantities, method=case.method)

    monkeypatch.setattr(gpu, "engine", engine)
    cases = [case for case in CASES if case.name in ("linear n=256", "deferred relu n=256")]
    assert len(cases) == 2
    for case in cases:
        assert gpu.disagreements(case) == [], case.name
    monkeypatch.setattr(gpu, "engine", lambda *given, **named: engine(*given, **named, seed=1))
    for case in cases:
        assert len(gpu.disagreements(case)) == 2 * len(case.chain.quantities), case.name


def test_turns_pair_each_repetition_with_ours():
    order = []
    own = Work(lambda: order.append("us"), 1)
    others = {name: Work(lambda name=name: order.append(name), 1) for name in "ab"}

    def timed(work):
        return work.run(), 1.0

    mine, theirs = gpu_time.turns(own, others, 2, timed)
    assert order == ["us", "a", "b", *["a", "us", "b", "us"] * 2]
    assert len(mine.ns) == 4 and all(len(t.ns) == len(t.own_ns) == 2 for t in theirs.values())
    alone, none = gpu_time.turns(own, {}, 3, timed)
    assert len(alone.ns) == 3 and none == {}


def test_at_input_is_the_first_layer():
    np.testing.assert_array_equal(gpu.at_input([np.array([[1, 2]]), np.array([[3, 4]])]), [1, 3])
