"""Every CUDA kernel is compiled to PTX without a GPU, and its loops over weights hold no double precision.

In CI: in float32 for compute capabilities 8.0 and 9.0, in float64 for 8.0, by one process for each dtype. The rest is
behind the marker `torture`.
"""

from __future__ import annotations

import pytest

from tests.kernels.cuda import ptx
from tests.kernels.cuda.background import Background
from tests.kernels.cuda.ptx import CAPABILITIES, NAMES


@pytest.fixture(scope="module")
def modules(work):
    """PTX by name, dtype and capability."""
    for dtype in ptx.IN_CI:
        work.background.output(dtype)
    return {tuple(path.stem.split("-")): path.read_text() for path in work.folder.glob("*.ptx")}


def blocks_of(text):
    return [block for lines in ptx.functions(text).values() for block in ptx.basic_blocks(lines)]


def faults(text):
    """The basic blocks of a float32 kernel that draw or multiply in double precision."""
    return [
        block for block in blocks_of(text) if (ptx.draws_weights(block) or ptx.multiplies(block)) and ptx.doubles(block)
    ]


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("name", NAMES)
def test_float32_kernels_draw_and_multiply_in_float32(modules, name, capability):
    text = modules[name, "float32", capability]
    assert f".target sm_{capability}" in text
    drawing = [block for block in blocks_of(text) if ptx.draws_weights(block)]
    assert len(drawing) >= 2
    assert name == "directions" or any(ptx.multiplies(block) for block in blocks_of(text))
    assert not faults(text)


@pytest.mark.parametrize("name", NAMES)
def test_float64_kernels_are_compiled(modules, name):
    blocks = blocks_of(modules[name, "float64", "80"])
    # Control of the search: here double precision is meant, and is found where weights are drawn.
    assert any(ptx.draws_weights(block) and ptx.doubles(block) for block in blocks)


@pytest.mark.parametrize("name", ["gated", "dense"])
def test_kernels_are_compiled_without_what_may_be_left_out(modules, name):
    """What stands for it stops the kernel, and is of its type."""
    bare, whole = modules[f"{name}_bare", "float32", "90"], modules[name, "float32", "90"]
    assert "trap;" in bare and "trap;" not in whole
    assert len(bare) < len(whole) / 2


def test_a_constant_in_float64_is_found(modules):
    """Control: one double precision instruction in a loop that draws, and one in a loop that multiplies."""
    text = modules["dense", "float32", "80"]
    for recognised in (ptx.draws_weights, ptx.multiplies):
        block = next(block for block in blocks_of(text) if recognised(block))
        line = next(line for line in block if "shf.l.wrap" in line or "fma.rn.f32" in line)
        assert faults(text.replace(line, f"{line}\n\tmul.f64 \t%fd1, %fd2, 0d3FF0000000000001;"))


@pytest.mark.torture
@pytest.mark.parametrize("name", NAMES)
def test_float64_kernels_are_compiled_for_the_newer_devices(tmp_path, name):
    background = Background()
    background.start(name, "ptx", tmp_path, f"{name},float64,90", simulator=False)
    background.output(name)
    assert ".target sm_90" in (tmp_path / f"{name}-float64-90.ptx").read_text()
