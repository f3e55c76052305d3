"""How far a run is: noted in the folder of parts, and read from there with suspicion."""

from __future__ import annotations

import json
import os
import socket

import pytest

from gradsim import Experiment
from gradsim.store.unfinished import ProgressNote, find_unfinished, parts_path

EXPERIMENT = Experiment({"width": [8, 16]}, chains=200)


@pytest.fixture
def folder(tmp_path):
    """A folder of parts such as a run begins with."""
    folder = parts_path(tmp_path / "out.h5")
    folder.mkdir()
    (folder / "experiment.json").write_text(EXPERIMENT.to_json())
    return folder


def test_nothing_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_unfinished(tmp_path / "out.h5") is None
    assert find_unfinished("") is None
    parts_path(tmp_path / "out.h5").mkdir()
    assert find_unfinished("out.h5") is None


def test_what_is_noted_is_read(folder, tmp_path):
    note = ProgressNote(folder, 2)
    note.add(1, 64)
    note.add(1, 64)  # within a second of the first: not yet written
    found = find_unfinished(tmp_path / "out.h5")
    assert found.experiment == EXPERIMENT
    assert found.chains_done == (0, 64)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"chains_done": 3}', '{"chains_done": ["x"]}', '{"chains_done": [1]}']
)
def test_nonsense_counts_as_nothing_done(folder, tmp_path, text):
    (folder / "progress.json").write_text(text)
    assert find_unfinished(tmp_path / "out.h5").chains_done == (0, 0)


def test_counts_stay_in_range(folder, tmp_path):
    (folder / "progress.json").write_text('{"chains_done": [-5, 100000]}')
    assert find_unfinished(tmp_path / "out.h5").chains_done == (0, 200)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"run": 1}', "\xff"])
def test_a_foreign_folder_is_none(folder, tmp_path, text):
    (folder / "experiment.json").write_bytes(text.encode("latin-1"))
    assert find_unfinished(tmp_path / "out.h5") is None


@pytest.mark.parametrize(
    ("signed", "running"),
    [
        ({"host": socket.gethostname(), "pid": os.getpid()}, True),
        ({"host": socket.gethostname(), "pid": 1}, True),
        ({"host": socket.gethostname(), "pid": 2**22 + 1}, False),
        ({"host": socket.gethostname(), "pid": -1}, None),
        ({"host": "elsewhere", "pid": os.getpid()}, None),
        ({"pid": 1}, None),
        ("nobody", None),
    ],
)
def test_who_is_at_work(folder, tmp_path, signed, running):
    (folder / "lock").write_text(json.dumps(signed))
    assert find_unfinished(tmp_path / "out.h5").running is running


def test_a_note_that_cannot_be_written_does_not_matter(tmp_path):
    ProgressNote(tmp_path / "gone", 1).add(0, 64)
