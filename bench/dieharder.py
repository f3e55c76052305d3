"""Robert G. Brown's dieharder on words from memory: one test at a time, fed through a pipe."""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

FIELDS = ("test_name", "ntuple", "tsamples", "psamples", "pvalues", "assessment")
WEAK, FAILED = "WEAK", "FAILED"


@dataclass(frozen=True)
class PValue:
    """One line of dieharder's table."""

    name: str
    ntup: int
    tsamples: int
    psamples: int
    p: float
    assessment: str

    @property
    def tail(self) -> float:
        """Two-sided: the probability of a p-value at least so close to 0 or 1."""
        return min(1.0, 2 * min(self.p, 1 - self.p))


@dataclass
class Run:
    """One test on one stream."""

    test: int
    arguments: tuple[str, ...]
    read: int  # bytes taken from the pipe, at least
    seconds: float  # of dieharder's processor time
    p_values: list[PValue]
    again: bool = False  # a second, larger run after a weak result

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass
class Stream:
    """Words and how many bytes of them have been written."""

    words: Iterator[NDArray[np.uint32]]
    written: int = field(default=0)

    def pour(self, descriptor: int) -> None:
        """Write until the reader closes its end."""
        try:
            for words in self.words:
                left = words.data.cast("B")
                while left:
                    count = os.write(descriptor, left)
                    self.written += count
                    left = left[count:]
        except BrokenPipeError:
            return


def executable() -> str:
    """Path of dieharder.

    Raises
    ------
    FileNotFoundError
        It is not installed.
    """
    path = shutil.which("dieharder")
    if path is None:
        raise FileNotFoundError("dieharder is not installed: it is Debian's package of that name")
    return path


def version() -> str:
    """Version of the dieharder that is installed."""
    banner = subprocess.run([executable(), "-l"], capture_output=True, text=True, check=False).stdout
    return banner.split("version")[1].split()[0]


def parse(table: str) -> list[PValue]:
    """The lines of dieharder's table that hold p-values, with the columns of `FIELDS`."""
    found = []
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if not line.startswith("#") and len(cells) == len(FIELDS):
            name, ntup, tsamples, psamples, p, assessment = cells
            found.append(PValue(name, int(ntup), int(tsamples), int(psamples), float(p), assessment))
    return found


def run(test: int, arguments: tuple[str, ...], words: Iterator[NDArray[np.uint32]], again: bool = False) -> Run:
    """Feed `words` to one test until it has had enough.

    Parameters
    ----------
    test : int
        dieharder's number.
    arguments : tuple of str
        Further options, as for ``-t`` and ``-p``.
    words : iterator of ndarray of uint32
    again : bool
        Noted in the result.

    Raises
    ------
    RuntimeError
        dieharder ended without a p-value.
    """
    columns = [option for name in FIELDS for option in ("-D", name)]
    command = [executable(), "-g", "200", "-d", str(test), *arguments, *columns]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    stream = Stream(words)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin is not None and process.stdout is not None
        pipe = fcntl.fcntl(process.stdin, fcntl.F_GETPIPE_SZ)
        stream.pour(process.stdin.fileno())
        table = process.stdout.read().decode()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    p_values = parse(table)
    if not p_values:
        raise RuntimeError(f"dieharder test {test} ended with status {process.returncode} and no p-value")
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    # What was written and never read still lay in the pipe when dieharder closed it.
    return Run(test, arguments, max(stream.written - pipe, 0), seconds, p_values, again)
