"""Real clients that load a proxy in repeated runs, and the outcome of each run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from attrs import define, field
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from tests.support.programs import requires_program
from tests.support.waiting import Waiting


class Run(ProcessProtocol):
    """One run of a program, until it ends."""

    def __init__(self, ended: Callable[[Run], None]) -> None:
        self._ended = ended
        self._output: list[bytes] = []
        self.status: int | None = None

    def outReceived(self, data: bytes) -> None:
        self._output.append(data)

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        self.status = getattr(reason.value, "exitCode", None)
        self._ended(self)

    @property
    def output(self) -> str:
        """All output of the program, on standard output and standard error."""
        return b"".join(self._output).decode("utf-8", "replace")

    def signal(self, name: str) -> None:
        """Send a signal to the program, if it still runs."""
        assert self.transport is not None
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess(name)


@define
class Load:
    """
    A real client program, which `width` clients run again and again.

    `good` counts the successful runs.  `bad` has the output of the failed runs: those with an exit
    status other than 0, or with one of `complaints` in the output.

    :param arguments: the program and its arguments.
    """

    reactor: Any
    arguments: Sequence[str]
    width: int = 1
    complaints: Sequence[str] = ()
    good: int = field(default=0, init=False)
    bad: list[str] = field(factory=list, init=False)
    last: str = field(default="", init=False)
    _running: set[Run] = field(factory=set, init=False)
    _stopping: bool = field(default=False, init=False)
    _waiting: Waiting = field(factory=Waiting, init=False)

    def start(self) -> None:
        """Start all clients."""
        self._stopping = False
        for _ in range(self.width):
            self._run()

    async def more(self, count: int) -> None:
        """Wait for `count` more good runs."""
        wanted = self.good + count
        await self.until(lambda: self.good >= wanted)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until `holds` is true; it is checked after each run."""
        await self._waiting.until(holds)

    async def stop(self, signal: str | None = None) -> None:
        """Start no more runs, and wait for the current ones, which `signal` ends."""
        self._stopping = True
        if signal is not None:
            for run in self._running:
                run.signal(signal)
        await self.until(lambda: not self._running)

    async def close(self) -> None:
        """End all runs, and leave nothing behind."""
        await self.stop("KILL")

    def _run(self) -> None:
        run = Run(self._ended)
        program = requires_program(self.arguments[0])
        environment = {**os.environ, "LC_ALL": "C", "PGCONNECT_TIMEOUT": "60"}
        self.reactor.spawnProcess(run, program, [program, *self.arguments[1:]], environment)
        self._running.add(run)

    def _ended(self, run: Run) -> None:
        self._running.discard(run)
        self.last = run.output
        if run.status != 0 or any(each in run.output for each in self.complaints):
            if not (self._stopping and run.status is None):
                self.bad.append(run.output)
        else:
            self.good += 1
        if not self._stopping:
            self._run()
        self._waiting.look()
