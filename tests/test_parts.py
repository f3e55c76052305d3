"""What is in the way, who else is writing, and what is left when writing fails or is killed."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gradsim.errors import GradsimError, OutputExistsError, ResultFileError, StorageError
from gradsim.plan import Block
from gradsim.store import ResultWriter, disk, is_complete, open_result, parts_path, verify_file
from tests import synthetic


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "result.h5"


def refused(kind: type[GradsimError], path: Path, **options: object) -> str:
    """The one line with which a writer is refused."""
    options.setdefault("experiment", synthetic.tiny())
    with pytest.raises(kind) as caught:
        ResultWriter(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def leave_parts(path: Path, **changes: object) -> None:
    """Leave the parts of a run that was killed."""
    parts = parts_path(path)
    parts.mkdir()
    (parts / "lock").write_text(json.dumps({"host": "elsewhere", "pid": 1}))
    (parts / "experiment.json").write_text(synthetic.tiny(**changes).to_json())
    (parts / "result.h5").write_bytes(b"half a file")


# --- an output in the way


def test_an_existing_file_is_refused_and_both_arguments_named(path: Path) -> None:
    path.write_text("precious")
    message = refused(OutputExistsError, path)
    assert "resume=True" in message
    assert "overwrite=True" in message
    assert "--" not in message
    assert path.read_text() == "precious"
    assert list(path.parent.iterdir()) == [path]


def test_the_command_line_names_its_flags(path: Path) -> None:
    leave_parts(path)
    with pytest.raises(OutputExistsError) as caught:
        ResultWriter(path, synthetic.tiny())
    said = caught.value.for_command_line
    assert "--resume continues it, --overwrite replaces it" in said
    assert "=True" not in said


def test_parts_of_an_ended_run_are_refused_and_both_arguments_named(path: Path) -> None:
    leave_parts(path)
    message = refused(OutputExistsError, path)
    assert "resume=True" in message
    assert "overwrite=True" in message
    assert (parts_path(path) / "result.h5").read_bytes() == b"half a file"


@pytest.mark.parametrize("flag", ["resume", "overwrite"])
def test_parts_of_an_ended_run_are_taken_over(path: Path, flag: str) -> None:
    leave_parts(path)
    synthetic.write(path, synthetic.tiny(), **{flag: True})
    assert verify_file(path) == []
    assert list(path.parent.iterdir()) == [path]


def test_parts_of_another_experiment_are_not_resumed(path: Path) -> None:
    leave_parts(path, seed=7)
    assert "seed is 7 there and 0 here" in refused(OutputExistsError, path, resume=True)
    assert (parts_path(path) / "result.h5").exists()
    synthetic.write(path, synthetic.tiny(), overwrite=True)
    assert verify_file(path) == []


def test_files_of_others_in_the_parts_folder_are_left_alone(path: Path) -> None:
    leave_parts(path)
    (parts_path(path) / "thesis.tex").write_text("precious")
    for flag in ("resume", "overwrite"):
        assert "thesis.tex" in refused(OutputExistsError, path, **{flag: True})
    assert (parts_path(path) / "thesis.tex").read_text() == "precious"


@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}])
def test_a_folder_of_somebody_else_is_not_touched(path: Path, flags: dict[str, bool]) -> None:
    parts = parts_path(path)
    parts.mkdir()
    (parts / "thesis.tex").write_text("precious")
    before = parts.stat().st_mtime_ns
    message = refused(OutputExistsError, path, **flags)
    assert message == f"{parts} holds 'thesis.tex', which is not gradsim's: remove it, or choose another name"
    assert [entry.name for entry in parts.iterdir()] == ["thesis.tex"]
    assert parts.stat().st_mtime_ns == before


@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}])
def test_a_file_in_the_place_of_the_parts_folder(path: Path, flags: dict[str, bool]) -> None:
    parts_path(path).write_text("precious")
    message = refused(OutputExistsError, path, **flags)
    assert message.startswith(f"{parts_path(path)} is in the way")
    assert parts_path(path).read_text() == "precious"


def test_overwrite_replaces_only_at_the_end(path: Path) -> None:
    old = synthetic.write(path, synthetic.tiny()).read_bytes()
    with ResultWriter(path, synthetic.tiny(seed=1), overwrite=True) as writer:
        synthetic.fill(writer)
        assert path.read_bytes() == old
        writer.finish({})
    assert open_result(path).experiment.seed == 1
    with ResultWriter(path, synthetic.tiny(seed=2), overwrite=True) as writer:
        synthetic.fill(writer)
    assert open_result(path).experiment.seed == 1
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_appears_meanwhile_is_left_alone(path: Path) -> None:
    with ResultWriter(path, synthetic.tiny()) as writer:
        synthetic.fill(writer)
        path.write_text("precious")
        with pytest.raises(OutputExistsError, match="appeared during the run") as caught:
            writer.finish({})
    assert path.read_text() == "precious"
    kept = parts_path(path) / "result.h5"
    assert str(kept) in str(caught.value)
    assert verify_file(kept) == []


def test_where_there_are_no_hard_links(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    synthetic.write(path, synthetic.tiny())
    assert verify_file(path) == []
    assert list(path.parent.iterdir()) == [path]


# --- what is complete, and of which experiment


def test_a_complete_file_of_the_same_experiment(path: Path) -> None:
    of = synthetic.tiny()
    assert not is_complete(path, of)
    synthetic.write(path, of)
    assert is_complete(path, of)
    # What a result does not depend on may differ.
    assert is_complete(path, synthetic.tiny(title="again", block=64, keep=1))
    assert "is complete" in refused(OutputExistsError, path, resume=True)


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"seed": 5}, "seed is 0 there and 5 here"),
        ({"chains": 3}, "chains is 2 there and 3 here"),
        ({"dtype": "float64"}, "dtype is float32 there and float64 here"),
        ({"quantities": ["log_grad_norm", "log_grad_max"]}, "quantities is log_grad_norm there"),
        ({"chain": {"width": [1, 2], "depth": 1}}, "1 cells there and 2 here"),
        ({"chain": {"width": 2, "depth": 1}}, "cell 0 is Chain"),
        ({"record": "summary"}, "record is trajectories there and summary here"),
    ],
)
def test_a_complete_file_of_another_experiment(path: Path, changes: dict[str, object], difference: str) -> None:
    synthetic.write(path, synthetic.tiny())
    other = synthetic.tiny(**changes)
    with pytest.raises(OutputExistsError) as caught:
        is_complete(path, other)
    assert difference in str(caught.value)
    assert difference in refused(OutputExistsError, path, experiment=other, resume=True)


def test_keep_matters_to_a_summary(path: Path) -> None:
    synthetic.write(path, synthetic.tiny(record="summary", keep=5))
    assert is_complete(path, synthetic.tiny(record="summary", keep=2))
    synthetic.write(path, synthetic.tiny(record="summary", keep=1), overwrite=True)
    with pytest.raises(OutputExistsError, match="keep is 1 there and 2 here"):
        is_complete(path, synthetic.tiny(record="summary", keep=2))


def test_a_file_that_is_no_result_is_not_resumed(path: Path) -> None:
    path.write_text("precious")
    refused(ResultFileError, path, resume=True)
    assert path.read_text() == "precious"


# --- one writer at a time


@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}])
def test_a_second_writer_is_told_who_the_first_is(path: Path, flags: dict[str, bool]) -> None:
    with ResultWriter(path, synthetic.tiny()) as writer:
        message = refused(OutputExistsError, path, **flags)
        assert f"is being written by process {os.getpid()} on {socket.gethostname()}" in message
        synthetic.fill(writer)
        writer.finish({})
    assert verify_file(path) == []


def test_a_writer_in_another_process_is_seen(path: Path) -> None:
    code = f"""
        import sys
        from gradsim.store import ResultWriter
        from tests import synthetic
        with ResultWriter({str(path)!r}, synthetic.tiny()):
            print("writing", flush=True)
            sys.stdin.readline()
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "writing\n"
        assert f"process {other.pid} on" in refused(OutputExistsError, path, overwrite=True)
        other.kill()
    # The lock of a dead process holds nobody up, but its parts are in the way.
    assert "overwrite=True" in refused(OutputExistsError, path)
    synthetic.write(path, synthetic.tiny(), overwrite=True)


# --- what the file system refuses


def test_a_missing_folder(tmp_path: Path) -> None:
    message = refused(StorageError, tmp_path / "missing" / "result.h5")
    assert f"the folder {tmp_path / 'missing'} does not exist" in message
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "is not a folder" in refused(StorageError, tmp_path / "file" / "result.h5")


@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}])
def test_an_output_that_is_a_folder(path: Path, flags: dict[str, bool]) -> None:
    path.mkdir()
    kind = ResultFileError if "resume" in flags else StorageError
    assert "folder" in refused(kind, path, **flags)
    assert list(path.parent.iterdir()) == [path]


def test_an_output_that_is_no_regular_file(path: Path) -> None:
    os.mkfifo(path)
    assert "no regular file" in refused(StorageError, path, overwrite=True)


def test_a_folder_that_is_not_writable(path: Path) -> None:
    path.parent.chmod(0o555)
    try:
        if os.access(path.parent, os.W_OK):
            pytest.skip("the permissions of a folder do not bind this user")
        assert "is not writable: choose a folder you may write to" in refused(StorageError, path)
    finally:
        path.parent.chmod(0o755)


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC])
def test_a_folder_in_which_nothing_can_be_made(path: Path, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "mkdir", refuse)
    message = refused(StorageError, path)
    assert message.startswith(f"cannot write {path}: {os.strerror(code)}: ")


def test_a_name_too_long_for_its_parts(tmp_path: Path) -> None:
    assert "choose a shorter name" in refused(StorageError, tmp_path / ("x" * 250 + ".h5"))
    assert not list(tmp_path.iterdir())


class FullDisk:
    """A raw file that fails from its n-th write on."""

    def __init__(self, file: object, allowed: int) -> None:
        self._file = file
        self._left = allowed

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)

    def write(self, data: memoryview) -> int:
        self._left -= 1
        if self._left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._file.write(data)


@pytest.mark.parametrize("existing", [False, True])
def test_a_disk_that_is_full_at_any_moment(path: Path, existing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if existing:
        synthetic.write(path, synthetic.tiny(seed=9))
    before = {entry.name: entry.read_bytes() for entry in path.parent.iterdir()}
    start = disk.GuardedFile.__init__
    for allowed in range(0, 1000, 3):

        def limited(self: disk.GuardedFile, path: Path, allowed: int = allowed) -> None:
            start(self, path)
            self._file = FullDisk(self._file, allowed)

        monkeypatch.setattr(disk.GuardedFile, "__init__", limited)
        try:
            synthetic.write(path, synthetic.tiny(), overwrite=existing)
        except StorageError as error:
            expected = f"cannot write {path}: No space left on device: free some space or write to another disk"
            assert str(error) == expected
            assert {entry.name: entry.read_bytes() for entry in path.parent.iterdir()} == before
        else:
            break
    assert allowed > 10
    assert verify_file(path) == []


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own; it must end well and say nothing on standard error."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parent.parent,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done


def test_a_real_limit_on_the_size_of_files(path: Path) -> None:
    size = synthetic.write(path, synthetic.tiny()).stat().st_size
    path.unlink()
    code = """
        import os, resource, signal, sys
        from gradsim.errors import StorageError
        from gradsim.store import ResultWriter, verify_file
        from tests import synthetic

        path, size = sys.argv[1], int(sys.argv[2])
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        for limit in (0, 1, 100, 1000, 2000, 4096, 8000, size // 2, size - 1):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            try:
                synthetic.write(path, synthetic.tiny())
            except StorageError as error:
                assert "File too large" in str(error) and chr(10) not in str(error), error
            else:
                raise AssertionError(limit)
            assert not os.listdir(os.path.dirname(path)), os.listdir(os.path.dirname(path))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        synthetic.write(path, synthetic.tiny())
        assert verify_file(path) == []
    """
    run(code, path, size)


# --- interrupted and killed


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_exception_leaves_nothing(path: Path, error: type[BaseException]) -> None:
    of = synthetic.experiment()
    with pytest.raises(error), ResultWriter(path, of) as writer:
        writer.write(Block(0, 0, 64), synthetic.part(synthetic.trajectories(of, 0), Block(0, 0, 64)))
        raise error
    assert not list(path.parent.iterdir())
    with pytest.raises(ValueError, match="finished or aborted"):
        writer.write(Block(0, 64, 128), {})
    with pytest.raises(ValueError, match="finished or aborted"):
        writer.finish({})


@pytest.mark.parametrize("existing", [False, True])
def test_a_stop_at_any_check_leaves_nothing(path: Path, existing: bool) -> None:
    class Stopped(BaseException):
        pass

    if existing:
        synthetic.write(path, synthetic.tiny(seed=9))
    before = {entry.name: entry.read_bytes() for entry in path.parent.iterdir()}
    of = synthetic.experiment(chains=70)
    checks = 0
    for allowed in range(0, 10_000, 7):
        countdown = iter(range(allowed))

        def check(countdown: Iterator[int] = countdown) -> None:
            if next(countdown, None) is None:
                raise Stopped

        try:
            synthetic.write(path, of, overwrite=existing, check=check)
        except Stopped:
            assert {entry.name: entry.read_bytes() for entry in path.parent.iterdir()} == before
            checks += 1
        else:
            break
    assert checks > 10
    assert verify_file(path) == []


@pytest.mark.parametrize("chains", [2, 64])
def test_a_very_long_chain_is_written_in_short_steps(path: Path, chains: int) -> None:
    depth = 1_000_000
    of = synthetic.tiny(chain={"depth": depth, "width": 1}, chains=chains)
    steps = []
    last = time.process_time()

    def check() -> None:
        nonlocal last
        now = time.process_time()
        steps.append(now - last)
        last = now

    values = np.random.default_rng(0).normal(0, 1, (chains, depth + 1)).astype(np.float32)
    with ResultWriter(path, of, check=check) as writer:
        last = time.process_time()
        writer.write(Block(0, 0, chains), {"log_grad_norm": values})
        check()
    assert max(steps) < 1.0, max(steps)
    assert sum(steps) < 40.0, sum(steps)


def test_an_interrupt_inside_of_hdf5_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: object, data: object) -> int:
        raise KeyboardInterrupt

    kinds = (KeyboardInterrupt, OSError, RuntimeError, StorageError)
    with pytest.raises(kinds), ResultWriter(path, synthetic.tiny()) as writer:
        monkeypatch.setattr(disk.GuardedFile, "write", interrupted)
        synthetic.fill(writer)
        writer.finish({})
    assert not list(path.parent.iterdir())


def test_a_writer_that_is_forgotten_leaves_nothing(path: Path) -> None:
    code = """
        import sys
        from gradsim.plan import Block
        from gradsim.store import ResultWriter
        from tests import synthetic

        of = synthetic.experiment()
        writer = ResultWriter(sys.argv[1], of)
        writer.write(Block(0, 0, 200), synthetic.trajectories(of, 0))
    """
    run(code, path)
    assert not list(path.parent.iterdir())


def test_a_writer_killed_at_any_moment_leaves_the_old_file_or_the_new(path: Path) -> None:
    code = """
        import os, signal, sys
        from pathlib import Path
        from gradsim.store import disk, parts_path, verify_file
        from tests import synthetic

        path = Path(sys.argv[1])
        count = written = 0
        fatal = None

        def step(*event):
            # Each event is something asked of the file system, or about to be.
            global count
            count += 1
            if count == fatal:
                os.kill(os.getpid(), signal.SIGKILL)

        def audit(name, arguments):
            if name.startswith(("os.", "fcntl.")) or name == "open":
                step()

        def some_writes(self, data):
            global written
            written += 1
            if written % 20 == 0:
                step()
            return write(self, data)

        def attempt(existing, at):
            global fatal
            fatal = at
            sys.addaudithook(audit)
            synthetic.write(path, synthetic.tiny(), overwrite=existing)
            os._exit(0)

        write, disk.GuardedFile.write = disk.GuardedFile.write, some_writes
        fsync, os.fsync = os.fsync, lambda number: (step(), fsync(number), step())
        new = synthetic.write(path, synthetic.tiny()).read_bytes()
        old = synthetic.write(path, synthetic.tiny(seed=9), overwrite=True).read_bytes()
        for existing in (False, True):
            seen, status, at = set(), 1, 0
            while status:
                path.unlink(missing_ok=True)
                if existing:
                    path.write_bytes(old)
                at += 1
                count = written = 0
                child = os.fork()
                if not child:
                    attempt(existing, at)
                status = os.waitpid(child, 0)[1]
                found = path.read_bytes() if path.exists() else None
                assert found in ((old, new) if existing else (None, new)), (existing, at)
                seen.add(found)
                if at % 16 == 0 or not status:
                    synthetic.write(path, synthetic.tiny(), overwrite=True)
                    assert path.read_bytes() == new
                    assert not parts_path(path).exists()
                elif parts_path(path).exists():
                    for entry in parts_path(path).iterdir():
                        entry.unlink()
                    parts_path(path).rmdir()
            assert len(seen) == 2 and at > 20, (len(seen), at)
            print(at)
    """
    assert len(run(code, path).stdout.split()) == 2
