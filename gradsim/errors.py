"""The errors gradsim raises, each with the exit status the command line gives it.

The text of every one of them is a single line that says what is wrong and what to do about it.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = ["ExperimentError", "GradsimError", "OutputExistsError", "ResultFileError", "StorageError"]


class GradsimError(Exception):
    """Base of all errors raised on purpose; ``str(error)`` is one line."""

    exit_code: ClassVar[int] = 1


class ExperimentError(GradsimError, ValueError):
    """A bad experiment or bad usage, or something that is not supported yet."""

    exit_code = 2


class OutputExistsError(GradsimError):
    """An output is in the way; the message names ``--resume`` and ``--overwrite``."""

    exit_code = 2


class ResultFileError(GradsimError):
    """A file that is not gradsim's, is of a newer version, is truncated or is corrupt."""


class StorageError(GradsimError):
    """The file system refused: no space, no permission, a missing folder."""
