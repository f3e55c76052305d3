"""The package as it is installed: light to import, whole in a wheel and in an editable install."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import resource
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import gradsim

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("numba", "h5py", "scipy", "matplotlib", "numpy", "rich", "xarray", "pandas")
HELP_SECONDS = 0.25

in_checkout = pytest.mark.skipif(not (ROOT / "pyproject.toml").exists(), reason="needs the source tree")
can_build = pytest.mark.skipif(
    importlib.util.find_spec("hatchling") is None or importlib.util.find_spec("editables") is None,
    reason="building needs hatchling and editables: pip install gradsim[test]",
)


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run this Python in a folder that is not the repository."""
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=environment.pop("cwd", None),
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


def loaded_by(statement: str) -> set[str]:
    """The heavy packages that are loaded after `statement`."""
    code = f"{statement}\nimport sys, json; print(json.dumps([n for n in {HEAVY!r} if n in sys.modules]))"
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "statement",
    [
        "import gradsim",
        "import gradsim; dir(gradsim); gradsim.Chain(width=8, gain=1.0); gradsim.Experiment",
        "from gradsim.cli import status_of; assert status_of(['--help']) == 0",
        "from gradsim.cli import status_of; assert status_of(['run', '--help']) == 0",
        "from gradsim.cli import status_of; assert status_of(['presets']) == 0",
    ],
)
def test_import_and_help_stay_light(statement):
    assert loaded_by(statement) == set()


def test_help_is_fast():
    """In processor time, which other work on the machine disturbs less than the clock on the wall."""
    best = float("inf")
    for _ in range(10):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert python("-m", "gradsim", "--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert best < HELP_SECONDS


def test_public_names():
    for name in gradsim.__all__:
        assert getattr(gradsim, name) is not None
    assert set(gradsim.__all__) <= set(dir(gradsim))
    assert callable(gradsim.open) and gradsim.open.__name__ == "open_result"
    with pytest.raises(AttributeError, match="no attribute 'simulat'"):
        _ = gradsim.simulat


def test_no_module_bears_the_name_of_a_public_function():
    modules = {path.stem for path in Path(gradsim.__file__).parent.iterdir()}
    functions = {name for name in gradsim.__all__ if not name.startswith("__")}
    assert not modules & (functions | {"plot_growth", "from_torch"})


def test_public_functions_survive_importing_every_module():
    code = (
        "import gradsim, importlib, pkgutil\n"
        "before = {n: getattr(gradsim, n) for n in gradsim.__all__}\n"
        "for m in pkgutil.walk_packages(gradsim.__path__, 'gradsim.'):\n"
        "    if not m.name.endswith('__main__'): importlib.import_module(m.name)\n"
        "assert all(getattr(gradsim, n) is v for n, v in before.items())\n"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr


@in_checkout
def test_one_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+([abrc.+].*)?", gradsim.__version__)
    assert f"\nversion: {gradsim.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## {gradsim.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@in_checkout
def test_dependencies_have_lower_bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for requirement in [*project["dependencies"], *extras["test"], *extras["bench"]]:
        assert ">=" in requirement


@in_checkout
def test_readme_has_the_two_lines():
    readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    lines = [line for line in readme if line.startswith("python3 -m venv .venv && ")]
    assert len(lines) == 2
    assert lines[0].endswith("gradsim run")
    assert lines[1].endswith("pytest")


def presets_seen(site: Path, folder: Path) -> set[str]:
    """The presets that the gradsim in a site folder finds, asked from elsewhere."""
    code = (
        "import site, sys; site.addsitedir(sys.argv[1])\n"
        "import gradsim; print(gradsim.__file__, file=sys.stderr)\n"
        "from gradsim.cli import main; main(['presets', '--json'])\n"
    )
    done = python("-c", code, str(site), PYTHONPATH="", cwd=str(folder))
    assert done.returncode == 0, done.stderr
    return {preset["name"] for preset in json.loads(done.stdout)}


def pip(*arguments: str) -> None:
    done = python("-m", "pip", "--disable-pip-version-check", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr


@in_checkout
@can_build
def test_presets_are_found_in_a_wheel(tmp_path):
    pip("wheel", str(ROOT), "--no-deps", "--no-build-isolation", "--no-index", "-w", str(tmp_path))
    (wheel,) = tmp_path.glob("gradsim-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"gradsim/py.typed", "gradsim/_data/presets/quick.toml", "gradsim/theory/__init__.py"} <= names
    data = {path.name for path in (ROOT / "gradsim").rglob("*.txt")}
    assert data <= {Path(name).name for name in names}
    assert not any(name.startswith(("tests/", "bench/", "docs/")) for name in names)
    site = tmp_path / "site"
    pip("install", "--no-deps", "--no-index", "--target", str(site), str(wheel))
    assert presets_seen(site, tmp_path) == presets_here()


@in_checkout
@can_build
def test_presets_are_found_in_an_editable_install(tmp_path):
    site = tmp_path / "site"
    pip("install", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(site), "-e", str(ROOT))
    assert not (site / "gradsim" / "__init__.py").exists()
    assert presets_seen(site, tmp_path) == presets_here()


def presets_here() -> set[str]:
    names = {path.stem for path in (ROOT / "data" / "presets").glob("*.toml")}
    assert "quick" in names
    return names
