"""SIGINT, SIGTERM and SIGHUP during a run: finish the block if that is soon, else drop it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["PATIENCE_S", "Check", "RunInterrupted", "Signals", "unchecked"]

PATIENCE_S = 5.0

#: What long work calls several times a second: where it raises, the work is dropped.
Check = Callable[[], None]


def unchecked() -> None:
    """The check of work that nobody breaks off."""


_SETTING_UP, _IN_WORK, _COMPLETING = "setting up", "in work", "completing"
_HEARD = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class RunInterrupted(KeyboardInterrupt):
    """A signal ended a run; nothing half-written is left.

    Attributes
    ----------
    signum : int
        The signal.
    exit_code : int
        128 + signum, as shells have it.
    complete : bool
        The signal came when all blocks were done, and the result was completed all the same.
    """

    def __init__(self, signum: int, complete: bool = False) -> None:
        super().__init__(f"interrupted by {signal.Signals(signum).name}")
        self.signum = signum
        self.exit_code = 128 + signum
        self.complete = complete


class Signals:
    """Hears signals while it is entered, and sets `stop` when the block in work is to be dropped.

    A first signal lets the block in work finish where less than 5 s of it are expected to remain, and drops
    it when they have passed all the same; a second one drops it at once. Where no block is in work,
    `RunInterrupted` is raised on the spot: by the first signal before `patiently`, or by the second while
    the file is being completed after `keep_going`. Signals that the process ignores (SIGHUP under nohup) or
    handles itself are left alone, and outside the main thread none is heard.

    Parameters
    ----------
    block_seconds_left : callable
        Expected seconds until the block in work is finished, or None when unknown.
    """

    def __init__(self, block_seconds_left: Callable[[], float | None]) -> None:
        self.stop = threading.Event()
        self.signum: int | None = None
        self._block_seconds_left = block_seconds_left
        self._phase = _SETTING_UP
        self._raised = False
        self._replaced: dict[int, Any] = {}
        # A handler runs in the middle of anything the main thread does, so it may take no lock that thread
        # could be holding, an event's or a starting thread's among them. It leaves a note for the watcher.
        self._notes: SimpleQueue[int | None] = SimpleQueue()
        self._watcher = threading.Thread(target=self._watch, name="gradsim-signals", daemon=True)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._watcher.start()
            for signum in _HEARD:
                handler = signal.getsignal(signum)
                if handler in (signal.SIG_DFL, signal.default_int_handler):
                    self._replaced[signum] = handler
                    signal.signal(signum, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signum, handler in self._replaced.items():
            signal.signal(signum, handler)
        self._replaced.clear()
        self._notes.put(None)

    def patiently(self) -> None:
        """From now on blocks are in work."""
        self._phase = _IN_WORK

    def keep_going(self) -> None:
        """From now on the first signal is only noted: the file is being completed; the second raises."""
        self._phase = _COMPLETING

    def check(self, complete: bool = False) -> None:
        """Raise `RunInterrupted` if a signal was heard; `complete` says that the result is."""
        if self.signum is not None:
            raise RunInterrupted(self.signum, complete)

    def check_block(self) -> None:
        """Raise `RunInterrupted` if a signal was heard and the block in work is to be dropped: a `Check`."""
        if self.stop.is_set():
            self.check()

    def _hear(self, signum: int, frame: FrameType | None) -> None:
        first = self.signum is None
        if self.signum is None:
            self.signum = signum
        self._notes.put(signum)
        at_once = self._phase == _SETTING_UP or (self._phase == _COMPLETING and not first)
        # Once only: what is raised a second time would break into the clearing up after the first.
        if at_once and not self._raised:
            self._raised = True
            self.check()

    def _watch(self) -> None:
        """Set `stop` when the time for it has come; ends on None."""
        if self._notes.get() is None:
            return
        left = self._block_seconds_left()
        if left is not None and left < PATIENCE_S:
            try:
                if self._notes.get(timeout=PATIENCE_S) is None:
                    return
            except Empty:
                pass
        self.stop.set()
