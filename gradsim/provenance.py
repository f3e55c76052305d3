"""Where a result comes from: versions, processor, threads, revision, time."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import gradsim

__all__ = ["available_threads", "describe"]

_PACKAGES = ("numpy", "numba", "llvmlite", "h5py")
_GIT_TIMEOUT_S = 5.0


def available_threads() -> int:
    """Processors this process may run on, its affinity respected."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def describe(threads: int, wall_seconds: float, device: str = "cpu") -> dict[str, Any]:
    """The provenance of a run, ready for JSON.

    Parameters
    ----------
    threads : int
        Threads that simulated.
    wall_seconds : float
        Seconds from the plan to the last block, compilation included.
    device : str
        "cuda": the GPU that was used, with its compute capability and the version of numba-cuda, too.
    """
    return {
        "gradsim": gradsim.__version__,
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor_name(),
        **(_gpu() if device == "cuda" else {}),
        "threads": threads,
        "git_revision": git_revision(Path(gradsim.__file__).resolve().parent.parent),
        "wall_seconds": round(wall_seconds, 3),
    }


def _gpu() -> dict[str, str]:
    from gradsim.kernels.cuda.device import describe as describe_gpu

    return describe_gpu()


def processor_name() -> str:
    """The processor's own name, or its architecture where the system does not tell."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def git_revision(folder: Path) -> str | None:
    """Revision of the checkout gradsim runs from, ``+`` behind it where files differ; None elsewhere."""
    if not (folder / ".git").exists():
        return None
    revision = _git(folder, "rev-parse", "HEAD")
    if not revision:
        return None
    return revision + ("+" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=_GIT_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
