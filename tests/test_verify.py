"""`verify_file` and `open_result` on files that are damaged, foreign, newer or unfinished."""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray

from gradsim.errors import ResultFileError
from gradsim.store import open_result, verify_file
from gradsim.store.digest import PLACEHOLDER, check_bytes, fill_file_digest
from tests import synthetic


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.write(tmp_path_factory.mktemp("verify") / "sound.h5", synthetic.tiny())


@pytest.fixture
def path(sound: Path, tmp_path: Path) -> Path:
    """A copy to be spoilt."""
    return Path(shutil.copy(sound, tmp_path / "result.h5"))


def seal(path: Path) -> None:
    """Give a file that was altered on purpose the digest of its bytes."""
    with h5py.File(path) as file:
        digits = bytes(file.attrs["file_sha256"])
    data = path.read_bytes()
    assert data.count(digits) == 1
    path.write_bytes(data.replace(digits, PLACEHOLDER.encode()))
    fill_file_digest(path)


def altered(path: Path, change: Callable[[h5py.File], object]) -> Path:
    """Change a file with h5py, and seal it again."""
    with h5py.File(path, "r+") as file:
        change(file)
    seal(path)
    return path


def line(path: Path, call: Callable[[Path], object] = verify_file) -> str:
    """The one line with which a file is refused."""
    with pytest.raises(ResultFileError) as caught:
        call(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


def test_a_sound_file_has_no_problems(sound: Path) -> None:
    assert verify_file(sound) == []
    assert verify_file(str(sound)) == []


def test_a_flipped_bit_in_any_byte_is_found(sound: Path) -> None:
    data = bytearray(sound.read_bytes())
    assert check_bytes(BytesIO(data)) == ""
    pick = random.Random(0)
    for at in range(len(data)):
        bit = 1 << pick.randrange(8)
        data[at] ^= bit
        assert check_bytes(BytesIO(data)), f"bit {bit} of byte {at}"
        data[at] ^= bit
    assert check_bytes(BytesIO(data)) == ""


def test_every_bit_of_the_digest_and_of_its_name_counts(sound: Path) -> None:
    data = bytearray(sound.read_bytes())
    start = data.find(b"file_sha256")
    for at in range(start, start + 150):
        for bit in range(8):
            data[at] ^= 1 << bit
            assert check_bytes(BytesIO(data)), f"bit {bit} of byte {at}"
            data[at] ^= 1 << bit


def test_a_flipped_bit_on_disk_is_found(path: Path) -> None:
    data = path.read_bytes()
    pick = random.Random(1)
    for at in pick.sample(range(len(data)), 100):
        spoilt = bytearray(data)
        spoilt[at] ^= 1 << pick.randrange(8)
        path.write_bytes(spoilt)
        line(path)


def test_bytes_are_checked_before_hdf5_sees_them(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("opened")

    monkeypatch.setattr(h5py, "File", refuse)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert "do not match" in line(path)


@pytest.mark.parametrize("call", [verify_file, open_result])
def test_a_truncated_file(path: Path, call: Callable[[Path], object]) -> None:
    data = path.read_bytes()
    for size in (len(data) - 1, len(data) // 2, 100):
        path.write_bytes(data[:size])
        assert line(path, call).endswith(f"is truncated: {size} of {len(data)} bytes are there")
    path.write_bytes(data[:20])
    assert "is truncated or its beginning is damaged" in line(path, call)
    path.write_bytes(b"")
    assert "is empty" in line(path, call)


def test_bytes_behind_the_end(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")
    assert "do not match" in line(path)


@pytest.mark.parametrize("call", [verify_file, open_result])
def test_what_is_no_result(tmp_path: Path, call: Callable[[Path], object]) -> None:
    path = tmp_path / "thing.h5"
    assert line(path, call).endswith("does not exist")
    path.write_text("title = 'an experiment'\n" * 100)
    assert "is not an HDF5 file" in line(path, call)
    path.unlink()
    path.mkdir()
    assert "is a folder" in line(path, call)


@pytest.mark.parametrize("call", [verify_file, open_result])
@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_a_file_of_another_program(tmp_path: Path, call: Callable[[Path], object], libver: str) -> None:
    path = tmp_path / "other.h5"
    for attribute in ("hdf", 3, [1.0, 2.0], None):
        with h5py.File(path, "w", libver=libver) as file:
            file["x"] = np.arange(10)
            if attribute is not None:
                file.attrs["format"] = attribute
        assert "another program's" in line(path, call)
    xarray.Dataset({"x": ("t", np.arange(3))}).to_netcdf(path, engine="netcdf4")
    assert "another program's" in line(path, call)


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.h5")
    assert "is no regular file" in line(tmp_path / "pipe.h5", open_result)
    assert "is no regular file" in line(tmp_path / "pipe.h5")


@pytest.mark.parametrize("call", [verify_file, open_result])
def test_a_newer_version(path: Path, call: Callable[[Path], object]) -> None:
    altered(path, lambda file: file.attrs.modify("format_version", 2))
    message = line(path, call)
    assert "format version 2, newer than the 1 this gradsim reads: upgrade gradsim" in message


@pytest.mark.parametrize("call", [verify_file, open_result])
def test_an_incomplete_file(path: Path, call: Callable[[Path], object]) -> None:
    altered(path, lambda file: file.attrs.modify("complete", 0))
    assert "is incomplete" in line(path, call)


def _replace(name: str, **options: object) -> Callable[[h5py.File], None]:
    """Put another array in the place of one."""

    def change(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, **options)

    return change


def _rename(file: h5py.File) -> None:
    file.move("cells/0000", "cells/0001")


def _set(name: str, value: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        group, _, attribute = name.rpartition("/")
        file[group or "/"].attrs[attribute] = value

    return change


def _value(name: str, value: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file[name][0] = value

    return change


GRADS = "cells/0000/log_grad_norm"
MEAN = "cells/0000/summary/log_grad_norm_mean"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_value(GRADS, 3.0), "content_sha256 does not match"),
        (_value(MEAN, 3.0), "content_sha256 does not match"),
        (_set("seed", np.bytes_(b"1")), "seed does not belong"),
        (_set("experiment_hash", np.bytes_(b"0" * 64)), "experiment_hash does not belong"),
        (_set("note", np.bytes_(b"mine")), "note is unknown"),
        (_set("cells/0000/width", 7), "not those of its chain|stated for this chain"),
        (_set("cells/0000/chains", 7), "not those of its chain"),
        (_set(f"{GRADS}/units", np.bytes_(b"m")), "units and long_name"),
        (lambda file: file.__delitem__(MEAN), "log_grad_norm_mean is missing"),
        (lambda file: file.__setitem__("cells/0000/more", 1), "more is unknown"),
        (lambda file: file.__setitem__("more", 1), "the root holds cells, more"),
        (_replace(MEAN, data=np.zeros(3)), "log_grad_norm_mean is float64"),
        (_replace(MEAN, data=np.zeros(2)), "units and long_name"),
        (_replace(GRADS, data=np.zeros((2, 2), "f8")), "log_grad_norm is float64"),
        (_replace(GRADS, data=np.zeros((2, 2), "f4")), "not stored with gzip"),
        (_replace(GRADS, shape=(2, 2), dtype="f4", chunks=(2, 2), compression=1), "larger than its bytes"),
    ],
)
def test_what_is_not_as_the_format_has_it_is_a_problem(
    path: Path, change: Callable[[h5py.File], None], problem: str
) -> None:
    altered(path, change)
    problems = verify_file(path)
    assert any(re.search(problem, each) for each in problems), problems
    assert all("\n" not in each for each in problems)


@pytest.mark.parametrize(
    "change",
    [
        _rename,
        lambda file: file.__delitem__("cells"),
        lambda file: file.attrs.__delitem__("experiment"),
        _set("experiment", np.bytes_(b"{" * 5000)),
        _set("experiment", np.bytes_(b'{"chain": {"flavour": "sour"}}')),
        _set("format_version", np.bytes_(b"one")),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(path: Path, change: Callable[[h5py.File], None]) -> None:
    with h5py.File(path, "r+") as file:
        change(file)
    assert "damaged" in line(path, open_result)


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((2, 2), "f4")
    layout[:] = h5py.VirtualSource("secret.h5", "x", (2, 2))
    del file[GRADS]
    file.create_virtual_dataset(GRADS, layout)


def _huge(file: h5py.File) -> None:
    del file[GRADS]
    file.create_dataset(GRADS, (2**40, 2), "f4", chunks=(64, 2), compression=1)


@pytest.mark.parametrize(
    "change",
    [
        lambda file: (file.__delitem__(GRADS), file.__setitem__(GRADS, h5py.SoftLink("/secret"))),
        lambda file: (file.__delitem__(GRADS), file.__setitem__(GRADS, h5py.ExternalLink("secret.h5", "x"))),
        _replace(GRADS, shape=(2, 2), dtype="f4", external=[("/etc/hostname", 0, 16)]),
        _replace(GRADS, shape=(2, 2), dtype="f4", chunks=(2, 2), compression="lzf"),
        _virtual,
        _huge,
    ],
)
def test_nothing_outside_the_file_is_read_nor_more_than_it_holds(
    path: Path, change: Callable[[h5py.File], object]
) -> None:
    with h5py.File(path.parent / "secret.h5", "w") as file:
        file["x"] = np.ones((2, 2), "f4")
    with h5py.File(path, "r+") as file:
        change(file)
    (cell,) = open_result(path)
    with pytest.raises(ResultFileError, match="log_grad_norm of cell 0 cannot be read"):
        cell.log_grad_norm


def test_a_damaged_chunk_is_not_read_as_numbers(tmp_path: Path) -> None:
    path = synthetic.write(tmp_path / "r.h5", synthetic.tiny(chains=500))
    with h5py.File(path) as file:
        chunk = file[GRADS].id.get_chunk_info(0)
    data = bytearray(path.read_bytes())
    data[chunk.byte_offset + chunk.size // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(ResultFileError, match="log_grad_norm of cell 0 cannot be read, so it is damaged"):
        open_result(path)[0].log_grad_norm
