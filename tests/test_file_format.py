"""docs/file-format.md: its program recomputes the digests, and its tables name what a file holds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import h5py
import pytest

from gradsim.quantities import STATISTICS
from gradsim.store.schema import ROOT_ATTRIBUTES
from tests import synthetic

PAGE = (Path(__file__).parent.parent / "docs" / "file-format.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def program() -> dict[str, Any]:
    """The program in the page, run; it may import h5py and the standard library alone."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert set(re.findall(r"^import (\w+)", code, re.MULTILINE)) == {"hashlib", "json", "re", "h5py"}
    names: dict[str, Any] = {}
    exec(code, names)
    return names


def stated(path: Path, name: str) -> str:
    with h5py.File(path) as file:
        digest: bytes = file.attrs[name]
        return digest.decode()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"chains": 1000},
        {"chains": 64, "quantities": ["log_grad_norm"]},
        {"record": "summary", "keep": 70},
        {"chain": {"gain": "torch", "profile": [4, 8, 2]}},
        {"chain": [{"activation": "leaky_relu", "gain": 1e-5, "width": 3}] * 12},
    ],
)
def test_the_program_recomputes_both_digests(program: dict[str, Any], tmp_path: Path, settings: dict[str, Any]) -> None:
    path = synthetic.write(tmp_path / "out.h5", synthetic.experiment(**settings))
    assert program["content_sha256"](path) == stated(path, "content_sha256")
    assert program["file_sha256"](path) == stated(path, "file_sha256")


def test_the_program_sees_a_change(program: dict[str, Any], tmp_path: Path) -> None:
    path = synthetic.write(tmp_path / "out.h5", synthetic.experiment())
    with h5py.File(path, "r+") as file:
        file["cells/0001/log_grad_norm"][3, 2] += 1
    assert program["content_sha256"](path) != stated(path, "content_sha256")
    assert program["file_sha256"](path) != stated(path, "file_sha256")


def test_the_page_names_all_that_a_file_holds(tmp_path: Path) -> None:
    named = set(re.findall(r"`([^`]+)`", PAGE))
    path = synthetic.write(tmp_path / "out.h5", synthetic.experiment(chain=[{"gain": "torch", "profile": [4, 8, 2]}]))
    recurrent = synthetic.write(tmp_path / "two.h5", synthetic.experiment(chain=[{"kind": "recurrent", "depth": 2}]))
    wanted = set(ROOT_ATTRIBUTES)
    for one in (path, recurrent):
        with h5py.File(one) as file:
            cell = file["cells/0000"]
            wanted |= set(cell.attrs) | {name for name in cell if name != "summary"} | {"summary/quantile"}
            for name in set(cell["summary"]) - {"quantile"}:
                quantity = next((there for there in cell if name.startswith(f"{there}_")), "")
                wanted.add(name.replace(quantity, "", 1) if quantity else f"summary/{name}")
    named |= {f"_{name}" for name in STATISTICS if f"summary/Q_{name}" in named}
    named |= {"_quantiles"} if "summary/Q_quantiles" in named else set()
    assert sorted(wanted - named) == []
