"""The text of an experiment file: a regular file of bounded size, or a pipe that the process already has."""

from __future__ import annotations

import os
import stat
from os import PathLike
from typing import Final

from gradsim.errors import ExperimentError, StorageError

__all__ = ["MAX_FILE_BYTES", "read_text"]

MAX_FILE_BYTES: Final = 1_000_000

#: Standard input, and the pipes that a shell gives names to.
_OPEN_ALREADY: Final = ("/dev/stdin", "/dev/fd/")


def read_text(path: str | PathLike[str]) -> str:
    """Return the text of an experiment file.

    Raises
    ------
    ExperimentError
        Where there is no such file, or it holds no text of an experiment.
    StorageError
        Where it cannot be read.
    """
    try:
        content = _content(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise ExperimentError(f"{path}: there is no such file") from None
    except IsADirectoryError:
        raise ExperimentError(f"{path}: this is a folder, not an experiment file") from None
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror}") from None
    if content is None:
        raise ExperimentError(f"{path}: not a regular file, so no experiment file")
    if len(content) > MAX_FILE_BYTES:
        raise ExperimentError(f"{path}: larger than {MAX_FILE_BYTES} bytes, so no experiment file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ExperimentError(f"{path}: not text in UTF-8: an experiment is a TOML file") from None


def _content(path: str | PathLike[str]) -> bytes | None:
    """Return the first bytes of a file; None for what may never end or waits for a writer.

    A pipe that the process already has is no such thing.
    """
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or str(path).startswith(_OPEN_ALREADY)):
        return None
    with open(path, "rb") as file:
        return file.read(MAX_FILE_BYTES + 1)
