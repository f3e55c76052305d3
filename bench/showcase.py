"""The main job as a user sees it: what a run prints, word for word, and how long it took."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import system


def quick_run(quick: bool) -> dict[str, Any]:
    """``gradsim run``, the preset `quick`, with the kernels compiled."""
    return _run("quick", [])


def scale_run(quick: bool) -> dict[str, Any]:
    """``gradsim run scale``: linear, ReLU and recurrent chains, 10,000 of each."""
    return _run("scale", ["--chains", "256"] if quick else [])


def architectures_run(quick: bool) -> dict[str, Any]:
    """``gradsim run architectures``, then what ``gradsim info`` says of each cell: growth rate and time."""
    flags = ["--chains", "64"] if quick else []
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "architectures.h5")
        begun = time.perf_counter()
        system.python("-m", "gradsim", "run", "architectures", "--quiet", "-o", path, *flags)
        seconds = time.perf_counter() - begun
        said = system.python("-m", "gradsim", "info", path).stdout
    return {
        "command": f"gradsim run architectures {' '.join(flags)}".strip(),
        "seconds": seconds,
        "printed": said[said.index("cell  chain") :].split("\n\n")[0] + "\n",
    }


def _run(preset: str, flags: list[str]) -> dict[str, Any]:
    """Run a preset, keep its printed table and compare's own account of the tests."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{preset}.h5"
        begun = time.perf_counter()
        said = system.python("-m", "gradsim", "run", preset, "-o", str(path), *flags).stdout
        seconds = time.perf_counter() - begun
        judged = json.loads(system.python("-m", "gradsim", "compare", str(path), "--json").stdout)
    tests = [test for cell in judged["cells"] for test in cell["tests"] if test["verdict"] in ("agree", "disagree")]
    adjusted = [test["p_adjusted"] for test in tests if test["p_adjusted"] is not None]
    return {
        "command": f"gradsim run {preset} {' '.join(flags)}".strip(),
        "seconds": seconds,
        "printed": said.replace(folder + "/", ""),
        "verdict": judged["verdict"],
        "tests": len(tests),
        "rejected": sum(test["verdict"] == "disagree" for test in tests),
        "smallest_adjusted_p": min(adjusted, default=None),
        "detectable_gain_error": [cell["detectable_gain_error"] for cell in judged["cells"]],
    }


if __name__ == "__main__":
    sys.stdout.write(quick_run(False)["printed"])
