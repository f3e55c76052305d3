"""The command line as a process of its own: signals, readers that go away, a full device, progress in a log."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.test_cli import LINEAR, strict_json

ROOT = Path(__file__).resolve().parent.parent


def start(*arguments: str, seconds: float = 0.0, **options) -> subprocess.Popen[str]:
    """The command line with the fake backend, as a process of its own."""
    program = [sys.executable, str(ROOT / "tests" / "fake_backend.py"), str(seconds), *arguments]
    return subprocess.Popen(
        program,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        **options,
    )


def wait_for(path: Path) -> None:
    until = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < until
        time.sleep(0.01)


class TestProcesses:
    @pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
    def test_signals(self, tmp_path, name, status):
        process = start("run", *LINEAR, "--chains", "6400", "--block", "64", seconds=60.0, cwd=tmp_path)
        wait_for(tmp_path / "run.h5.parts" / "result.h5")
        time.sleep(0.3)
        begun = time.monotonic()
        process.send_signal(getattr(signal, name))
        time.sleep(0.2)
        process.send_signal(getattr(signal, name))
        out, err = process.communicate(timeout=30)
        assert time.monotonic() - begun < 4.0, "the second signal drops the block at once"
        assert process.returncode == status
        assert out == ""
        assert err.splitlines() == [f"gradsim: interrupted by {name}: the run is dropped and run.h5 not written"]
        assert os.listdir(tmp_path) == []

    def test_info_while_it_runs(self, call, tmp_path):
        process = start("run", *LINEAR, "--chains", "6400", "--block", "64", seconds=0.2, cwd=tmp_path)
        wait_for(tmp_path / "run.h5.parts" / "progress.json")
        done = call("info", "run.h5")
        assert done.status == 0
        assert f"being written by process {process.pid} on " in done.stdout
        document = strict_json(call("info", "run.h5", "--json").stdout)
        assert document["complete"] is False and document["running"] is True
        assert 0 < document["cells"][0]["chains_done"] < 6400
        process.kill()
        process.communicate(timeout=30)
        assert strict_json(call("info", "run.h5", "--json").stdout)["running"] is False
        assert "left unfinished by process" in call("info", "run.h5").stdout
        assert call("run", *LINEAR, "--chains", "6400", "-o", "run.h5").status == 2
        assert call("run", *LINEAR, "--chains", "6400", "-o", "run.h5", "--resume").status == 0
        assert os.listdir(tmp_path) == ["run.h5"]

    def test_nohup_is_respected(self, tmp_path):
        process = start("run", *LINEAR, seconds=1.0, cwd=tmp_path, preexec_fn=_ignore_hangup)
        wait_for(tmp_path / "run.h5.parts")
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=30)
        assert process.returncode == 0
        assert os.listdir(tmp_path) == ["run.h5"]

    @pytest.mark.parametrize(
        ("arguments", "status"),
        [(("run", *LINEAR), 0), (("--help",), 0), (("compare", "wrong.h5"), 3)],
    )
    def test_a_reader_that_goes_away(self, call, tmp_path, arguments, status):
        call("run", *LINEAR, "--activation", "relu", "-o", "wrong.h5")
        process = start(*arguments, cwd=tmp_path)
        process.stdout.close()
        err = process.stderr.read()
        process.wait(timeout=30)
        assert process.returncode == status
        assert "Broken pipe" not in err and "Traceback" not in err
        process.stderr.close()

    def test_a_full_device(self, tmp_path):
        if not Path("/dev/full").exists():
            pytest.skip("there is no /dev/full here")
        with open("/dev/full", "w") as full:
            program = [sys.executable, "-m", "gradsim", "presets"]
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            done = subprocess.run(program, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, env=environment)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1 and "No space left" in done.stderr

    def test_progress_lines(self, tmp_path):
        program = (
            "import sys, gradsim.progress as p\n"
            "p.LineProgress.__init__.__defaults__ = (0.0, *p.LineProgress.__init__.__defaults__[1:])\n"
            "from tests import fake_backend; sys.modules['gradsim.backends'] = fake_backend.as_module()\n"
            "from gradsim.cli import main; main()\n"
        )
        arguments = ["run", *LINEAR, "--block", "64", "--threads", "1"]
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 0, done.stderr
        assert "64 of 128 chains (50 %)" in done.stderr
        assert "chains (" not in done.stdout


def _ignore_hangup() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
