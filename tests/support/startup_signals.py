"""
A log for ``twistd --logger`` that sends a signal to the process at a given moment of its start.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

from twisted.logger import ILogObserver, LogEvent, formatEvent, jsonFileLogObserver
from zope.interface import provider

REACTOR = "the reactor has its own handlers"
"""The moment right after the reactor has installed its handlers."""

TAKEN = 99
"""The exit status of a process in which a thread would take the signal."""

_SIGNAL, _MOMENT = "EVPROXY_TEST_SIGNAL", "EVPROXY_TEST_MOMENT"


def signalled(number: int, moment: str) -> dict[str, str]:
    """
    Return the environment with which `log` sends the signal `number`.

    :param moment: `REACTOR`, or a pattern; then the moment is the first event with a matching
        message.
    """
    return {_SIGNAL: str(int(number)), _MOMENT: moment}


def leave_no_taker(number: int) -> None:
    """End the process if a thread would take the signal `number`: all must block it now."""
    for status in Path("/proc/self/task").glob("*/status"):
        [blocked] = re.findall(r"^SigBlk:\s*(\w+)$", status.read_text(), re.MULTILINE)
        if not int(blocked, 16) >> (number - 1) & 1:
            os._exit(TAKEN)


def log() -> Any:
    """The function for ``--logger``: prints events as JSON, and sends the signal."""
    number, moments = int(os.environ[_SIGNAL]), [os.environ[_MOMENT]]
    shown = jsonFileLogObserver(sys.stdout)

    def strike() -> None:
        moments.clear()
        os.kill(os.getpid(), number)

    if moments == [REACTOR]:
        from twisted.internet import reactor

        reactor.addSystemEventTrigger("during", "startup", leave_no_taker, number)
        reactor.addSystemEventTrigger("during", "startup", strike)

    @provider(ILogObserver)
    def observe(event: LogEvent) -> None:
        shown(event)
        if any(re.search(moment, formatEvent(event)) for moment in moments):
            strike()

    return observe
