"""The folder ``FILE.h5.parts`` in which a run works, and the lock that gives it to one process at a time."""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from pathlib import Path

from gradsim.errors import ExperimentError, OutputExistsError, StorageError
from gradsim.experiment import Experiment
from gradsim.store.disk import check_folder, storage_errors, sync_folder
from gradsim.store.schema import stored_rows
from gradsim.store.unfinished import EXPERIMENT, LOCK, PROGRESS, PROGRESS_NEW, parts_path

__all__ = ["PartsFolder", "describe_difference"]

_RESULT = "result.h5"
_OURS = frozenset({LOCK, EXPERIMENT, PROGRESS, PROGRESS_NEW, _RESULT})
_ATTEMPTS = 100


def describe_difference(there: Experiment, wanted: Experiment) -> str:
    """Return how two experiments differ in what a result depends on, in a few words; "" where they do not."""
    names = ["seed", "method", "device", "dtype", "record", "streams", "quantities", "chains"]
    if there.record == "summary" and stored_rows(there) != stored_rows(wanted):
        names.append("keep")
    for name in names:
        found, asked = getattr(there, name), getattr(wanted, name)
        if found != asked:
            return f"{name} is {_show(found)} there and {_show(asked)} here"
    if len(there.cells) != len(wanted.cells):
        return f"{len(there.cells)} cells there and {len(wanted.cells)} here"
    for index, (found, asked) in enumerate(zip(there.cells, wanted.cells, strict=True)):
        if found.canonical() != asked.canonical():
            return f"cell {index} is {found!r} there and {asked!r} here"
    return ""


def _show(value: object) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


class PartsFolder:
    """The locked folder of one run.

    Parameters
    ----------
    path : Path
        The result file the run is to give.
    experiment : Experiment
    overwrite, resume : bool
        Whether an existing result is to be replaced, or what an ended run left is to be taken over.

    Raises
    ------
    OutputExistsError
        Where a result or a folder of parts is in the way, or another process is at work there.
    StorageError
        Where the folder is missing or cannot be written to.
    """

    def __init__(self, path: Path, experiment: Experiment, *, overwrite: bool, resume: bool) -> None:
        check_folder(path)
        self.path = path
        self.folder = parts_path(path)
        self.result = self.folder / _RESULT
        self._overwrite = overwrite
        # All that can be seen without touching anything comes before the lock is made.
        self._refuse_foreign_files()
        self._refuse_existing(overwrite or resume)
        with storage_errors(path):
            self._lock = self._acquire()
            try:
                self._refuse_existing(overwrite or resume, locked=True)
                self._refuse_foreign_files()
                if not overwrite:
                    self._refuse_other_experiment(experiment)
            except BaseException:
                self._release()
                raise
            try:
                self._sign()
                self._clear(but=LOCK)
                self._describe(experiment)
            except BaseException:
                self.remove()
                raise

    def publish(self) -> None:
        """Give the finished result its place, whole and at once, and remove the folder.

        Where that cannot be done, the result stays in the folder and the message says so.
        """
        try:
            if self._overwrite:
                os.replace(self.result, self.path)
            else:
                self._publish_beside()
        except OSError as error:
            text = f"cannot write {self.path}: {error.strerror}"
            raise StorageError(f"{text}: the finished result is {self.result}: move it") from error
        else:
            self._clear_folder()
        finally:
            self._release()
        with storage_errors(self.path):
            sync_folder(self.path.parent)

    def remove(self) -> None:
        """Remove the folder and release the lock."""
        # The lock is held until its file is gone: whoever waits for it then finds another file, or none.
        self._clear_folder()
        self._release()

    def _publish_beside(self) -> None:
        """Publish where nothing may be replaced, not even what appeared since the run began."""
        try:
            os.link(self.result, self.path)
        except FileExistsError:
            text = f"{self.path} appeared during the run and is left alone; the finished result is {self.result}"
            raise OutputExistsError(f"{text}: move it to where you want it") from None
        except OSError:
            # Not every file system has hard links; what remains is a check just before.
            self._refuse_existing(allowed=False, locked=True)
            os.replace(self.result, self.path)

    def _refuse_existing(self, allowed: bool, locked: bool = False) -> None:
        """Refuse what is in the way of the result."""
        if self.path.is_dir():
            raise StorageError(f"cannot write {self.path}: it is a folder: choose the name of a file")
        exists = os.path.lexists(self.path)
        if exists and self.path.exists() and not self.path.is_file():
            raise StorageError(f"cannot write {self.path}: it is no regular file: choose another name")
        if allowed:
            return
        flags = "resume=True continues it, overwrite=True replaces it"
        if exists:
            raise OutputExistsError(f"{self.path} exists: {flags}, or choose another name")
        if not locked and os.path.lexists(self.folder):
            self._refuse_live()
            text = f"{self.folder} is left from an earlier run into {self.path.name}"
            raise OutputExistsError(f"{text}: {flags}, or choose another name")

    def _refuse_live(self) -> None:
        """Refuse a folder in which a process is at work."""
        with suppress(OSError):
            number = os.open(self.folder / LOCK, os.O_RDWR)
            try:
                self._take(number)
            finally:
                os.close(number)

    def _acquire(self) -> int:
        """Return the number of the open and locked lock file."""
        for _ in range(_ATTEMPTS):
            with suppress(FileExistsError):
                self.folder.mkdir()
            try:
                number = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
            except FileNotFoundError:
                continue  # whoever held the lock has just removed the folder
            except OSError:
                with suppress(OSError):
                    self.folder.rmdir()
                raise
            try:
                self._take(number)
                if self._is_current(number):
                    return number
            except BaseException:
                os.close(number)
                raise
            os.close(number)
        raise StorageError(f"cannot write {self.path}: the folder {self.folder} cannot be made: remove it")

    def _take(self, number: int) -> None:
        """Lock an open lock file, or say who has it."""
        import fcntl  # POSIX alone has it; reading results needs none

        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = f"{self.path} is being written by {_owner(number)}"
            raise OutputExistsError(f"{text}: wait for it, or choose another name") from None

    def _is_current(self, number: int) -> bool:
        """Return whether an open lock file is still the one in the folder."""
        try:
            there = os.stat(self.folder / LOCK)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(number))

    def _sign(self) -> None:
        """Write who has the lock."""
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode(), 0)

    def _refuse_other_experiment(self, experiment: Experiment) -> None:
        """Refuse to take over what a run of another experiment left."""
        try:
            there = Experiment.from_json((self.folder / EXPERIMENT).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, ExperimentError):
            return  # nothing was begun, or nothing that could be gone on with
        difference = describe_difference(there, experiment)
        if difference:
            text = f"{self.folder} is left from a run of another experiment: {difference}"
            raise OutputExistsError(f"{text}: choose another name, or give overwrite=True to replace it")

    def _refuse_foreign_files(self) -> None:
        """Refuse a folder with files that no run has made: nothing of theirs is removed."""
        try:
            there = set(os.listdir(self.folder))
        except FileNotFoundError:
            return
        except NotADirectoryError:
            text = f"{self.folder} is in the way: a run works in a folder of this name"
            raise OutputExistsError(f"{text}: remove it, or choose another name") from None
        except OSError as error:
            raise StorageError(f"cannot write {self.path}: {self.folder}: {error.strerror}") from error
        if foreign := sorted(there - _OURS):
            text = f"{self.folder} holds {foreign[0]!r}, which is not gradsim's"
            raise OutputExistsError(f"{text}: remove it, or choose another name")

    def _clear(self, but: str = "") -> None:
        """Remove what a run leaves in the folder."""
        for name in _OURS - {but}:
            with suppress(FileNotFoundError):
                os.unlink(self.folder / name)

    def _clear_folder(self) -> None:
        with suppress(OSError):
            self._clear()
            self.folder.rmdir()

    def _release(self) -> None:
        """Give the lock back."""
        number, self._lock = self._lock, -1
        if number >= 0:
            os.close(number)
            # A network file system keeps the name of an open file until it is closed.
            with suppress(OSError):
                self.folder.rmdir()

    def _describe(self, experiment: Experiment) -> None:
        """Note which experiment is at work here."""
        (self.folder / EXPERIMENT).write_text(experiment.to_json(), encoding="utf-8")


def _owner(number: int) -> str:
    """Return who has signed a lock file."""
    try:
        signed = json.loads(os.pread(number, 4096, 0))
        return f"process {int(signed['pid'])} on {str(signed['host'])!s:.100}"
    except (OSError, ValueError, TypeError, KeyError):
        return "another process"
