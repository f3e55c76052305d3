"""The errors gradsim raises, each with the exit status the command line gives it.

The text of every one of them is a single line that says what is wrong and what to do about it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

__all__ = [
    "DeviceError",
    "ExperimentError",
    "GradsimError",
    "OutputExistsError",
    "ResultFileError",
    "StorageError",
    "naming",
]


class GradsimError(Exception):
    """Base of all errors raised on purpose; ``str(error)`` is one line."""

    exit_code: ClassVar[int] = 1

    @property
    def for_command_line(self) -> str:
        """The same line with the names that the command line has."""
        return str(self)


class ExperimentError(GradsimError, ValueError):
    """A bad experiment or bad usage, or something that is not supported yet."""

    exit_code = 2


class OutputExistsError(GradsimError):
    """An output is in the way; the message names the arguments that help, ``resume`` and ``overwrite``."""

    exit_code = 2

    @property
    def for_command_line(self) -> str:
        """The same line with the flags ``--resume`` and ``--overwrite``."""
        return re.sub(r"\b(resume|overwrite)=True\b", r"--\1", str(self))


class ResultFileError(GradsimError):
    """A file that is not gradsim's, is of a newer version, is truncated or is corrupt."""


class StorageError(GradsimError):
    """The file system refused: no space, no permission, a missing folder."""


class DeviceError(GradsimError):
    """No GPU that can be used, or one that failed or has too little memory."""


@contextmanager
def naming(*places: str) -> Iterator[None]:
    """Put the file, and the places in it, before the message of an `ExperimentError`."""
    try:
        yield
    except ExperimentError as error:
        raise ExperimentError("".join(f"{place}: " for place in places if place) + str(error)) from None
