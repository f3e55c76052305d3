"""The cache of compiled kernels: named by what shaped it, healed where damaged, somewhere writable."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

import gradsim
from gradsim.kernels import compiling

ROOT = Path(gradsim.__file__).parents[1]
SOURCES = Path(compiling.__file__).parent


def doubled(x):
    for i in range(len(x)):
        x[i] *= 2


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """A cache of its own, empty."""
    monkeypatch.setattr(compiling, "_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def use(expected_hits):
    """Compile or load the kernel as a new process would, use it, and count the hits of the cache."""
    kernel = compiling.kernel(doubled)
    x = np.arange(3.0)
    kernel(x)
    assert x.tolist() == [0, 2, 4]
    assert sum(kernel.stats.cache_hits.values()) == expected_hits


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def scramble(path):
    path.write_bytes(bytes(255 - byte for byte in path.read_bytes()))


def remove(path):
    path.unlink()


class TestHealing:
    def test_an_entry_is_used_again(self, cache):
        use(expected_hits=0)
        use(expected_hits=1)

    @pytest.mark.parametrize("damage", [truncate, empty, scramble, remove])
    @pytest.mark.parametrize("suffix", ["nbi", "nbc"])
    def test_a_damaged_entry_is_compiled_again_and_then_used(self, cache, suffix, damage):
        use(expected_hits=0)
        for path in cache.rglob(f"*.{suffix}"):
            damage(path)
        use(expected_hits=0)
        use(expected_hits=1)

    def test_numba_alone_does_not_heal(self, cache, monkeypatch):
        """Control: what `kernel` adds is needed."""
        monkeypatch.setattr(compiling, "heal", lambda dispatcher: None)
        use(expected_hits=0)
        for path in cache.rglob("*.nbc"):
            truncate(path)
        with pytest.raises(Exception):  # noqa: B017, whatever unpickling half an entry raises
            use(expected_hits=0)

    def test_numba_is_left_as_it_was(self, cache):
        before = numba.config.CACHE_DIR
        compiling.kernel(doubled)
        assert before == numba.config.CACHE_DIR


def python(code, **environment):
    """Run code in a process of its own; NUMBA_CACHE_DIR and what tells the user's folder only as given."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "HOME", "TMPDIR")
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**inherited, "PYTHONPATH": str(ROOT), **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# A kernel of the package that compiles fast, and how often the cache had it.
KERNEL = """
import numpy as np
from gradsim.kernels.matrices import list_nonzero
active = np.zeros(3, np.int64)
assert list_nonzero(np.array([0.0, 2.0, 3.0]), 3, active) == 2 and active[:2].tolist() == [1, 2]
print(sum(list_nonzero.stats.cache_hits.values()))
"""
WHERE = "from gradsim.kernels.compiling import cache_directory; print(cache_directory())"


def test_a_kernel_of_the_package_heals_in_the_folder_the_user_gave(tmp_path):
    assert python(KERNEL, NUMBA_CACHE_DIR=str(tmp_path)) == "0"
    assert python(KERNEL, NUMBA_CACHE_DIR=str(tmp_path)) == "1"
    entries = list(tmp_path.rglob("*.nbc"))
    assert entries
    # In a folder of its own: the user's other kernels are not touched.
    assert {path.relative_to(tmp_path).parts[0] for path in entries} == {f"kernels-{compiling._fingerprint()}"}
    for path in entries:
        truncate(path)
    assert python(KERNEL, NUMBA_CACHE_DIR=str(tmp_path)) == "0"
    assert python(KERNEL, NUMBA_CACHE_DIR=str(tmp_path)) == "1"


def test_a_home_that_cannot_be_written_falls_back_to_a_temporary_folder(tmp_path):
    """Even root cannot make a folder in a file."""
    (tmp_path / "home").write_text("")
    (tmp_path / "temporary").mkdir()
    folder = python(WHERE, HOME=str(tmp_path / "home"), TMPDIR=str(tmp_path / "temporary"))
    assert Path(folder).is_relative_to(tmp_path / "temporary")
    assert python(KERNEL, HOME=str(tmp_path / "home"), TMPDIR=str(tmp_path / "temporary")) == "0"


class TestDirectory:
    @pytest.fixture(autouse=True)
    def no_user_folders(self, monkeypatch, tmp_path):
        monkeypatch.setattr(numba.config, "CACHE_DIR", "")
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
        for name in ("home", "temporary"):
            (tmp_path / name).mkdir()

    def test_the_users_cache(self, tmp_path):
        folder = compiling.cache_directory()
        assert folder.parent == tmp_path / "home" / ".cache" / "gradsim"
        assert folder.stat().st_mode & 0o777 == 0o700

    def test_xdg_comes_first(self, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert compiling.cache_directory().parent == tmp_path / "xdg" / "gradsim"

    def test_numbas_own_setting_comes_before_that(self, tmp_path, monkeypatch):
        monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "mine"))
        assert compiling.cache_directory().parent == tmp_path / "mine"

    def test_a_folder_of_another_user_is_not_used(self, tmp_path, monkeypatch):
        """What lies in it would be executed."""
        own = os.getuid()
        compiling.cache_directory()
        monkeypatch.setattr(os, "getuid", lambda: own + 1)
        folder = compiling.cache_directory()
        assert not folder.is_relative_to(tmp_path / "home")
        assert folder.parent == tmp_path / "temporary"


class TestFingerprint:
    @pytest.fixture
    def copy(self, tmp_path, monkeypatch):
        """The kernels' sources in another folder, under which the fingerprint is taken."""
        folder = tmp_path / "kernels"
        shutil.copytree(SOURCES, folder, ignore=shutil.ignore_patterns("__pycache__"))
        monkeypatch.setattr(compiling, "__file__", str(folder / "compiling.py"))
        return folder

    def test_it_is_that_of_the_sources_wherever_they_lie(self, copy, monkeypatch):
        elsewhere = compiling._fingerprint()
        monkeypatch.setattr(compiling, "__file__", str(SOURCES / "compiling.py"))
        assert compiling._fingerprint() == elsewhere

    @pytest.mark.parametrize("name", ["rng.py", "dense.py", "vectors.py", "keys.py"])
    def test_one_edited_source_changes_it(self, copy, name):
        before = compiling._fingerprint()
        source = copy / name
        source.write_text(source.read_text().replace("1", "2", 1))
        assert compiling._fingerprint() != before

    def test_a_new_or_renamed_source_changes_it(self, copy):
        before = compiling._fingerprint()
        (copy / "ops.py").rename(copy / "more.py")
        assert compiling._fingerprint() != before

    @pytest.mark.parametrize("module", [numba, np])
    def test_a_version_changes_it(self, module, monkeypatch):
        before = compiling._fingerprint()
        monkeypatch.setattr(module, "__version__", "0.0")
        assert compiling._fingerprint() != before
