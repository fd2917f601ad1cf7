"""
The place of one worker: its process, and the replacement of a process that has died.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from evproxy.escape import printable
from evproxy.workers.process import WorkerProcess
from evproxy.workers.replacement import PERIOD, Replacement

START_TIMEOUT = 60.0
"""Seconds until a worker that has not begun to serve is killed, and replaced."""

UNSEEN = 1_000_000
"""The most sessions that a worker may begin between the last look at it and its death, so that no
number is given twice."""

_log = Logger(namespace="evproxy")


class Slot:
    """
    The place of one worker.

    `process` is ``None`` between the death of a process and its replacement.  `after`: the sessions
    of the next process have greater numbers.

    :param reactor: the time and the timers.
    :param number: the number of the worker, from 0 on.
    :param workers: how many workers there are.
    :param make: starts a process; called with the number and with what is called at its end.
    :param died: called when a process has ended that should not.
    """

    def __init__(
        self,
        reactor: Any,
        number: int,
        workers: int,
        make: Callable[[int, Callable[[WorkerProcess, str], None]], WorkerProcess],
        died: Callable[[int], None],
    ) -> None:
        self.number = number
        self.process: WorkerProcess | None = None
        self.replacement = Replacement()
        self.after = 0
        self._reactor = reactor
        self._workers = workers
        self._make = make
        self._died = died
        self._timer: IDelayedCall | None = None
        self._patience: IDelayedCall | None = None
        self._held = False
        self._due = False
        self._ends = False
        self._gone: Deferred[None] | None = None

    @property
    def serving(self) -> WorkerProcess | None:
        """The process, if it serves."""
        process = self.process
        return None if process is None or process.serves is None else process

    def start(self) -> None:
        """Start a process."""
        self._timer = None
        if self._held:
            self._due = True
            return
        try:
            process = self._make(self.number, self._ended)
        except OSError as error:
            delay = self.replacement.delay(0.0)
            # As often as deaths are said.
            if self.replacement.report(self._reactor.seconds()):
                _log.error(
                    "worker {number} cannot be started: {why}; next attempt in {delay:g} s",
                    number=self.number + 1,
                    why=error.strerror or error,
                    delay=delay,
                )
            self._timer = self._reactor.callLater(delay, self.start)
            return
        self.process = process
        late = f"killed, since it did not serve within {START_TIMEOUT:g} s"
        self._patience = self._reactor.callLater(START_TIMEOUT, process.kill, late)
        process.started.addCallbacks(self._serves, self._refused)

    def hold(self, held: bool) -> None:
        """Whether to start no process for now: `held`."""
        self._held = held
        if not held and self._due:
            self._due = False
            self.start()

    def end(self) -> Deferred[None]:
        """Start no process any more; the Deferred fires when there is none."""
        self._ends = True
        self._due = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._gone = Deferred()
        if self.process is None:
            self._gone.callback(None)
        return self._gone

    def _serves(self, _: object) -> None:
        self._end_patience()
        process = self.process
        if process is not None and self.replacement.restarts:
            _log.info(
                "worker {number} serves again (process {pid})",
                number=self.number + 1,
                pid=process.pid,
            )

    def _refused(self, failure: Failure) -> None:
        self._end_patience()
        process = self.process
        if process is not None and not failure.check(ConnectionLost):
            if not self._ends and self.replacement.in_a_row < 3:
                why = printable(failure.getErrorMessage())
                _log.error("worker {number} cannot serve: {why}", number=self.number + 1, why=why)
            process.kill("killed, since it could not serve")

    def _end_patience(self) -> None:
        patience, self._patience = self._patience, None
        if patience is not None and patience.active():
            patience.cancel()

    def _ended(self, process: WorkerProcess, how: str) -> None:
        self._end_patience()
        self.process = None
        self.after = process.last_id + UNSEEN * self._workers
        self._died(self.number)
        if self._ends:
            if not process.ended_in_order:
                self.replacement.died_at_the_end()
                _log.error(
                    "worker {number} (process {pid}) {how}; its sessions are lost",
                    number=self.number + 1,
                    pid=process.pid,
                    how=how,
                )
            assert self._gone is not None
            self._gone.callback(None)
            return
        now = self._reactor.seconds()
        delay = self.replacement.delay(now - process.since)
        deaths = self.replacement.report(now)
        if deaths == 1:
            _log.error(
                "worker {number} (process {pid}) {how}; its sessions are lost, the next process "
                "starts in {delay:g} s",
                number=self.number + 1,
                pid=process.pid,
                how=how,
                delay=delay,
            )
        elif deaths:
            _log.error(
                "worker {number} dies again and again: {deaths} more times, the last process "
                "{how}; a new one starts every {delay:g} s, and this is said every {period:g} s",
                number=self.number + 1,
                deaths=deaths,
                how=how,
                delay=delay,
                period=PERIOD,
            )
        self._timer = self._reactor.callLater(delay, self.start)
