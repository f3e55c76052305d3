"""Kernels of the GPU on disk, without a GPU: numba-cuda compiles and links for a compute capability that is named."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from numba import cuda
from numba.cuda import codegen, dispatcher, types

from gradsim.kernels import compiling
from gradsim.kernels.cuda import cache
from gradsim.kernels.cuda.target import written

KERNEL = """
def met(a, factor):
    a[cuda.grid(1)] *= factor
"""
SIGNATURE = (types.float32[::1], types.float32)


@pytest.fixture
def capability(monkeypatch):
    """A GPU that need not be there as long as nothing is launched; its compute capability can be changed."""
    of = SimpleNamespace(now=(8, 0))
    monkeypatch.setattr(dispatcher, "get_current_device", lambda: SimpleNamespace(compute_capability=of.now))
    monkeypatch.setattr(codegen.JITCUDACodegen, "magic_tuple", lambda self: ((12, 9), of.now))
    monkeypatch.setattr(codegen.CUDACodeLibrary, "_ensure_cc", lambda self, cc: cc or of.now)
    monkeypatch.setattr(dispatcher._Kernel, "bind", lambda self: self._codelibrary.get_cubin())
    return of


def compiled(folder, signature=SIGNATURE, text=KERNEL):
    """Whether a kernel was compiled, rather than loaded; and its machine code."""
    said = []
    made = cuda.jit(written(text, cuda=cuda))
    cache.keep(made, folder)
    with cache.announcing(lambda: said.append("compiling")):
        kernel = made.compile(signature)
    assert len(said) <= 1, "announced once"
    assert sum(made.stats.cache_misses.values()) == len(said)
    return bool(said), kernel._codelibrary.get_cubin()


def test_a_kernel_made_from_text_is_compiled_once(capability, tmp_path):
    first, code = compiled(tmp_path)
    again, same = compiled(tmp_path)
    assert (first, again) == (True, False)
    assert bytes(code.code) == bytes(same.code)


def test_other_types_another_text_and_another_gpu_are_compiled(capability, tmp_path):
    assert compiled(tmp_path)[0]
    assert compiled(tmp_path, (types.float64[::1], types.float64))[0]
    assert compiled(tmp_path, text=KERNEL.replace("*=", "-="))[0]
    capability.now = (9, 0)
    assert compiled(tmp_path)[0]
    assert not compiled(tmp_path)[0]


@pytest.mark.parametrize("damage", ["truncated", "garbled", "index"])
def test_a_damaged_entry_is_compiled_again(capability, tmp_path, damage):
    compiled(tmp_path)
    (entry,) = tmp_path.rglob("*.nbi" if damage == "index" else "*.nbc")
    content = entry.read_bytes()
    entry.write_bytes(content[: len(content) // 2] if damage != "garbled" else b"\x80garbled" + content)
    assert compiled(tmp_path)[0]
    assert not compiled(tmp_path)[0], "healed"


def test_what_cannot_be_written_is_compiled_every_time(capability, tmp_path):
    folder = tmp_path / "file"
    folder.write_text("in the way of a folder")
    assert compiled(folder)[0]
    assert compiled(folder)[0]


def test_any_source_that_changes_makes_another_folder(monkeypatch, tmp_path):
    here = cache.Path(cache.__file__).parent
    copied = tmp_path / "cuda"
    shutil.copytree(here, copied, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(compiling, "cache_directory", lambda: tmp_path)
    before = cache.cache_directory()
    monkeypatch.setattr(cache, "__file__", str(copied / "cache.py"))
    assert cache.cache_directory() == before, "the same sources"
    for source in sorted(copied.glob("*.py")):
        content = source.read_text()
        source.write_text(content + "\n# edited\n")
        assert cache.cache_directory() != before
        source.write_text(content)
    monkeypatch.setattr(cache, "version", lambda package: "0")
    assert cache.cache_directory() != before


def test_a_setting_of_numba_stays_what_it_was(capability, tmp_path):
    before = cache.numba.config.CACHE_DIR
    compiled(tmp_path / "elsewhere")
    assert before == cache.numba.config.CACHE_DIR
    assert np.any([entry.suffix == ".nbc" for entry in (tmp_path / "elsewhere").rglob("*")])
