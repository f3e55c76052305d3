"""The file system: guarded writing, syncing, and its refusals as one-line errors."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from gradsim.errors import StorageError

__all__ = ["GuardedFile", "check_folder", "storage_errors", "sync_folder"]

_ADVICE: Final = {
    errno.ENOSPC: "free some space or write to another disk",
    errno.EDQUOT: "free some of the quota or write to another disk",
    errno.EFBIG: "raise the limit on file sizes or write to another disk",
    errno.EACCES: "choose a folder you may write to",
    errno.EPERM: "choose a folder you may write to",
    errno.EROFS: "choose a folder you may write to",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOENT: "its folder is missing",
}


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an `OSError` into a `StorageError` of one line about `path`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
        advice = _ADVICE.get(error.errno or 0)
        text = f"cannot write {path}: {reason}" + (f": {advice}" if advice else "")
        raise StorageError(text) from error


#: What file systems take, 255 bytes, less the name of the folder the run works in.
_LONGEST_NAME = 255 - len(".parts")


def check_folder(path: Path) -> None:
    """Refuse an output whose folder does not exist or does not let files be made in it."""
    if not path.name or "\0" in str(path):
        raise StorageError(f"cannot write {str(path)!r}: that is not the name of a file")
    if len(os.fsencode(path.name)) > _LONGEST_NAME:
        raise StorageError(f"cannot write {path}: the name is too long: choose a shorter name")
    folder = path.parent
    if not folder.is_dir():
        what = "is not a folder" if os.path.lexists(folder) else "does not exist: make it first"
        raise StorageError(f"cannot write {path}: the folder {folder} {what}")
    if not os.access(folder, os.W_OK | os.X_OK):
        advice = _ADVICE[errno.EACCES]
        raise StorageError(f"cannot write {path}: the folder {folder} is not writable: {advice}")


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last through a power failure, where the file system can."""
    number = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        os.close(number)


class GuardedFile(io.RawIOBase):
    """A new file for HDF5 to write to that never lets HDF5 see a failed write.

    HDF5's own driver leaves a file that could not be written open with unsaved metadata, and then crashes the
    process when it is closed. Here the first failure is kept in `error` and everything after it is dropped,
    so that HDF5 closes in peace; whoever writes looks at `error`, and no file that has one is ever used.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = open(path, "x+b", buffering=0)  # noqa: SIM115 (closed with this object)
        self.error: OSError | None = None

    def check(self) -> None:
        """Raise the first failure."""
        if self.error is not None:
            raise self.error

    def abandon(self) -> None:
        """Drop everything from here on: the file is not wanted any more."""
        if self.error is None:
            self.error = OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._file.fileno()

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any, /) -> int:
        return self._file.readinto(buffer)

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        try:
            done = 0
            while self.error is None and done < len(view):
                done += self._file.write(view[done:])
        except OSError as error:
            self.error = error
        return len(view)

    def truncate(self, size: int | None = None, /) -> int:
        try:
            if self.error is None:
                return self._file.truncate(size)
        except OSError as error:
            self.error = error
        return size or 0

    def close(self) -> None:
        self._file.close()
        super().close()
