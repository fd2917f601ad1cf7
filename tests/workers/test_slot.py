"""The place of one worker: a process that cannot be started."""

from __future__ import annotations

import errno
import os
from typing import Any

from twisted.internet.task import Clock

from evproxy.workers.replacement import LONGEST_DELAY, PERIOD, SAID_EACH
from evproxy.workers.slot import Slot
from tests.support.leaks import LoggedErrors
from tests.support.logged import logged_lines


def test_a_process_that_cannot_be_started(logged_errors: LoggedErrors) -> None:
    """It is tried again without an end, and the log says so a few times, and then once a period."""
    attempts: list[int] = []

    def make(number: int, ended: Any) -> Any:
        attempts.append(number)
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    clock = Clock()
    slot = Slot(clock, 0, 2, make, lambda number: None)
    with logged_lines() as lines:
        slot.start()
        clock.pump([0.1] * int(3 * PERIOD / 0.1))
    assert len(attempts) > 3 * PERIOD / LONGEST_DELAY
    assert lines[0] == "worker 1 cannot be started: Permission denied; next attempt in 0.1 s"
    assert SAID_EACH < len(lines) <= SAID_EACH + 4
    slot.end()
    assert clock.getDelayedCalls() == []
    assert len(logged_errors.flush()) == len(lines)
