"""
The processor time of threads: how long a thread ran, and how long it waited for a processor.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import NamedTuple

SCHEDSTAT = "/proc/self/task/{}/schedstat"
"""Linux: nanoseconds on a processor, nanoseconds in a run queue (sched-stats.rst)."""

STAT = "/proc/self/task/{}/stat"
"""Linux: the state of a thread, after its name in brackets (proc_pid_stat(5))."""


class Usage(NamedTuple):
    """
    Seconds since a thread began: `ran` on a processor, `queued` in a run queue for one.

    Where the system does not say, `ran` is ``None`` and `queued` is 0.
    """

    ran: float | None
    queued: float

    def since(self, before: Usage) -> Usage:
        """Return what was used after `before`."""
        ran = None if self.ran is None or before.ran is None else self.ran - before.ran
        return Usage(ran, self.queued - before.queued)


UNKNOWN = Usage(None, 0.0)
"""The usage of a thread of which the system says nothing."""


class ThreadClock:
    """
    The clock of one thread of this process.

    :param native_id: the kernel's number of the thread.
    :param ident: Python's number of the thread, for systems without ``/proc``.
    """

    def __init__(self, native_id: int, ident: int) -> None:
        self._ident = ident
        self._usage, self._state = _open(SCHEDSTAT, native_id), _open(STAT, native_id)

    def read(self) -> Usage:
        """Return what the thread has used until now."""
        try:
            ran, queued, _ = _read(self._usage).split()
            return Usage(int(ran) / 1e9, int(queued) / 1e9)
        except (OSError, ValueError):
            return self._read_clock()

    def _read_clock(self) -> Usage:
        try:
            return Usage(time.clock_gettime(time.pthread_getcpuclockid(self._ident)), 0.0)
        except (AttributeError, OSError):
            return UNKNOWN

    def runnable(self) -> bool:
        """Return whether the thread runs or waits in a run queue; false, if that is unknown."""
        with suppress(OSError):
            return _read(self._state).rpartition(b")")[2].strip().startswith(b"R")
        return False

    def close(self) -> None:
        """Close the files of the kernel."""
        for file in (self._usage, self._state):
            if file is not None:
                os.close(file)
        self._usage = self._state = None


def _open(path: str, native_id: int) -> int | None:
    # No Linux, or no /proc (twistd --chroot): then only the clock of the thread is left.
    with suppress(OSError):
        return os.open(path.format(native_id), os.O_RDONLY | os.O_CLOEXEC)
    return None


def _read(file: int | None) -> bytes:
    return b"" if file is None else os.pread(file, 256, 0)
