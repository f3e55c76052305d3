"""What is compiled is told; what is in the cache is loaded without a word."""

from __future__ import annotations

import pytest

from gradsim.backends import LocalBackend
from gradsim.experiment import Experiment
from gradsim.kernels import compiling
from gradsim.plan import plan


def twice(x):
    return x + x


def test_a_kernel_is_announced_once_until_the_cache_has_it(monkeypatch, tmp_path):
    monkeypatch.setattr(compiling, "_CACHE", str(tmp_path))
    said = []
    for expected in (1, 1, 1):
        kernel = compiling.kernel(twice)
        with compiling.announcing(lambda: said.append("compiling")):
            assert kernel(2.0) == 4.0
        assert len(said) == expected
    with compiling.announcing(lambda: said.append("compiling")):
        assert kernel(2) == 4
        assert kernel(2j) == 4j
    assert len(said) == 2, "once a context, and only in it"
    kernel(True)
    assert len(said) == 2


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kernels_in_memory_or_in_the_cache_are_not_announced(dtype):
    made = plan(Experiment({"width": 4}, dtype=dtype))
    LocalBackend(1).prepare(made)

    def refuse():
        raise AssertionError("nothing is compiled")

    LocalBackend(1).prepare(made, refuse)
