"""
A health check of your own: run a program, and use its exit status.

    python examples/own_health_check.py ./is-well tcp:8080 127.0.0.1:8001 127.0.0.1:8002

The argument of the program is the server's endpoint.  Status 0 means that the server is healthy;
with any other status, the last line that the program wrote is the reason in the log:

    default/127.0.0.1:8001 down: the disk is full (3 of 3)
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import react
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.python.failure import Failure

from evproxy import HealthCheck, Pool, ProxyService, UpstreamServer


class Outcome(ProcessProtocol):
    """One run of the program."""

    def __init__(self, done: Callable[[str | None], None]) -> None:
        self.done: Callable[[str | None], None] | None = done
        self.output = b""

    def outReceived(self, data: bytes) -> None:
        self.output = (self.output + data)[-1000:]

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        if self.done is not None:
            lines = self.output.decode(errors="replace").split("\n")
            said = [line for line in lines if line.strip()] or [reason.getErrorMessage()]
            self.done(None if reason.check(ProcessDone) else said[-1])

    def cancel(self) -> None:
        """Called after a timeout, or when the server leaves the pool; do not call `done` now."""
        self.done = None
        assert self.transport is not None
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")


class Program:
    """An `evproxy.Probe`."""

    def __init__(self, reactor: Any, program: str) -> None:
        self._reactor = reactor
        self._program = program

    def check(
        self, server: UpstreamServer, done: Callable[[str | None], None]
    ) -> Callable[[], None]:
        """Called for each check: call `done` with ``None`` or a reason; return how to cancel."""
        outcome = Outcome(done)
        self._reactor.spawnProcess(outcome, self._program, [self._program, server.endpoint], None)
        return outcome.cancel


def main(reactor: Any, program: str, listen: str, *servers: str) -> Deferred[None]:
    pool = Pool(
        reactor,
        servers,
        health_check=Program(reactor, program),
        check_timing=HealthCheck(interval=1.0, timeout=5.0, rise=2, fall=3),
        on_down="reset",
    )
    proxy = ProxyService(reactor, [listen], pool=pool)
    proxy.startService()
    reactor.addSystemEventTrigger("before", "shutdown", proxy.stopService)
    return Deferred()


if __name__ == "__main__":
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)])
    react(main, sys.argv[1:])
