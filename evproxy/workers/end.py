"""
The end of all workers: each drains and ends by itself, or is killed if it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from evproxy.workers.slot import Slot

GRACE = 10.0
"""Seconds after the drain timeout, or after all sessions were reset, until workers are killed."""

_log = Logger(namespace="evproxy")


class End:
    """
    The end of the workers of a supervisor.

    :param reactor: the timers.
    :param slots: the places of the workers.
    :param gone: called when no worker is left.
    """

    def __init__(self, reactor: Any, slots: Sequence[Slot], gone: Callable[[], None]) -> None:
        self._reactor = reactor
        self._slots = slots
        self._gone = gone
        self._over: Deferred[None] | None = None
        self._patience: IDelayedCall | None = None

    @property
    def begun(self) -> bool:
        """Whether the workers are to end, or have ended."""
        return self._over is not None

    @property
    def over(self) -> bool:
        """Whether no worker is left."""
        return self._over is not None and self._over.called

    def begin(self, deadline: float | None, ended: Deferred[Any]) -> None:
        """
        The workers drain from now on.

        :param deadline: seconds after which they reset their sessions; ``None``: never.
        :param ended: fires when all have ended.
        """
        self._over = Deferred()
        if deadline is not None:
            self._patience = self._reactor.callLater(deadline + GRACE, self._kill)
        ended.addCallback(self._ended)

    def sooner(self, deadline: float | None) -> bool:
        """
        Wait for a shorter time than before, if that is one.

        :param deadline: seconds from now, as for `begin`.
        :return: whether the workers are to reset their sessions earlier.
        """
        if deadline is None or self.over:
            return False
        most = deadline + GRACE
        patience = self._patience
        if patience is not None and patience.getTime() <= self._reactor.seconds() + most:
            return False
        self._stop_waiting()
        self._patience = self._reactor.callLater(most, self._kill)
        return True

    def hurry(self) -> None:
        """The workers reset their sessions now: wait for them, but not for long."""
        if self.begun and not self.over:
            self._stop_waiting()
            self._patience = self._reactor.callLater(GRACE, self._kill)

    def when_over(self) -> Deferred[None]:
        """Return a Deferred that fires when no worker is left; call `begin` before."""
        assert self._over is not None
        over: Deferred[None] = Deferred()
        self._over.addCallback(lambda _: over.callback(None))
        return over

    def _kill(self) -> None:
        self._patience = None
        for slot in self._slots:
            if slot.process is not None:
                _log.error(
                    "worker {number} (process {pid}) does not end, it is killed",
                    number=slot.number + 1,
                    pid=slot.process.pid,
                )
                slot.process.kill("killed, since it did not end")

    def _ended(self, _: object) -> None:
        self._stop_waiting()
        self._gone()
        assert self._over is not None
        self._over.callback(None)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
