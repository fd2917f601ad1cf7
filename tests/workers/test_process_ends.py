"""How a process has ended, in words."""

from __future__ import annotations

import signal

import pytest
from twisted.internet.error import ProcessDone, ProcessTerminated

from evproxy.workers.process import how


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (ProcessDone(0), "ended with status 0"),
        (ProcessTerminated(exitCode=3), "ended with status 3"),
        (ProcessTerminated(signal=signal.SIGKILL), "killed by SIGKILL"),
        (ProcessTerminated(signal=signal.SIGRTMIN + 1), f"killed by signal {signal.SIGRTMIN + 1}"),
    ],
)
def test_how(end: ProcessDone | ProcessTerminated, words: str) -> None:
    """Each way to end has words, and a signal without a name has its number."""
    assert how(end) == words
