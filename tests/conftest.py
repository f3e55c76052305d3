"""Settings and fixtures for all tests: hypothesis draws the same examples every time, and no example is timed."""

from __future__ import annotations

import signal
import sys
from typing import NamedTuple

import pytest
from hypothesis import settings

from tests import fake_backend

settings.register_profile("gradsim", derandomize=True, deadline=None, print_blob=False)
settings.load_profile("gradsim")


if hasattr(signal, "SIGHUP"):
    # Under nohup it is ignored, by this process and all it starts, and gradsim leaves it so.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class Outcome(NamedTuple):
    """What a call of the command line came to."""

    status: int
    stdout: str
    stderr: str


@pytest.fixture
def call(monkeypatch, tmp_path, capsys):
    """Call the command line in an empty folder, a fake backend in the place of the kernels."""
    from gradsim.cli import status_of

    monkeypatch.setitem(sys.modules, "gradsim.backends", fake_backend.as_module())
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GRADSIM_DEBUG", raising=False)

    def calling(*arguments: str) -> Outcome:
        capsys.readouterr()
        status = status_of(arguments)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Outcome(status, captured.out, captured.err)

    return calling
