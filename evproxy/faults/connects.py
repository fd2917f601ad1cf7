"""
Faults of a connect: evproxy's connect to a server fails or hangs, or the client is reset before it.
"""

from __future__ import annotations

import errno
import os
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import getConnectError
from twisted.internet.interfaces import IConnector, IDelayedCall, IReactorTime
from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from evproxy.engine.slices import in_slices
from evproxy.errors import ConnectTimeout
from evproxy.interfaces import Dial
from evproxy.settings.fault import FaultSettings

SHORTEST = 0.001
"""Seconds for a connect that has hung until its timeout was nearly over."""


class RefusedConnect:
    """
    The `evproxy.interfaces.ConnectFault` of kind ``refused``.

    :param fault: its stream says whose connection it is.
    """

    def __init__(self, fault: FaultSettings) -> None:
        self.resets_client = fault.stream == "downstream"

    def connect(self, factory: ClientFactory, timeout: float, dial: Dial) -> IConnector:
        """Fail at once, with the error of a server that refuses."""
        attempt = _Attempt()
        error = getConnectError((errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED)))
        factory.clientConnectionFailed(attempt, Failure(error))
        return attempt


class HangingConnects:
    """
    The connects that hang because of one fault.

    :param clock: the time and the timers.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self.clock = clock
        self.attempts: dict[_HangingAttempt, None] = {}

    def one(self, seconds: float) -> HangingConnect:
        """Make a connect that hangs for at most so many seconds, or until `release`."""
        return HangingConnect(self, seconds)

    def release(self) -> None:
        """The fault is removed: the connects go on."""
        # The first ones at once, the others in the next turns of the reactor.
        held = iter(tuple(self.attempts))
        Deferred.fromCoroutine(in_slices(self.clock, held, _HangingAttempt.release))


class HangingConnect:
    """
    The `evproxy.interfaces.ConnectFault` of kind ``hang``.

    :param hanging: has the connect as long as it hangs.
    :param seconds: how long the fault lasts.
    """

    resets_client = False

    def __init__(self, hanging: HangingConnects, seconds: float) -> None:
        self._hanging = hanging
        self._seconds = seconds

    def connect(self, factory: ClientFactory, timeout: float, dial: Dial) -> IConnector:
        """Hang; afterwards call `dial` with the seconds that are left of `timeout`."""
        attempt = _HangingAttempt(self._hanging, factory, timeout, dial)
        attempt.hang(self._seconds)
        return attempt


@implementer(IConnector)
class _Attempt:
    """A connect as its session sees it; it is over."""

    def connect(self) -> None:
        raise RuntimeError("a session connects only once")

    def disconnect(self) -> None:
        self.stopConnecting()

    def stopConnecting(self) -> None:
        """Nothing to do: the attempt is over."""

    def getDestination(self) -> Any:
        raise NotImplementedError


class _HangingAttempt(_Attempt):
    """
    One connect that gets no answer for some time.

    :param hanging: has the attempt as long as it hangs.
    :param factory: is notified when it has taken too long.
    :param timeout: seconds for the whole attempt.
    :param dial: makes the connection afterwards.
    """

    def __init__(
        self, hanging: HangingConnects, factory: ClientFactory, timeout: float, dial: Dial
    ) -> None:
        self._hanging = hanging
        self._factory = factory
        self._timeout = timeout
        self._deadline = hanging.clock.seconds() + timeout
        self._dial: Dial | None = dial
        self._timer: IDelayedCall | None = None
        self._real: IConnector | None = None

    def hang(self, seconds: float) -> None:
        """Hang for so many seconds, or until the timeout."""
        later = self._hanging.clock.callLater
        if seconds < self._timeout:
            self._timer = later(seconds, self.release)
        else:
            self._timer = later(self._timeout, self._timed_out)
        self._hanging.attempts[self] = None

    def release(self) -> None:
        """The fault is over: connect."""
        dial = self._leave()
        if dial is not None:
            left = self._deadline - self._hanging.clock.seconds()
            self._real = dial(max(SHORTEST, left))

    def stopConnecting(self) -> None:
        """The session needs the connection no more."""
        self._leave()
        real, self._real = self._real, None
        if real is not None:
            real.stopConnecting()

    def _timed_out(self) -> None:
        self._leave()
        error = ConnectTimeout(f"timed out after {self._timeout:g} s")
        self._factory.clientConnectionFailed(self, Failure(error))

    def _leave(self) -> Dial | None:
        """Hang no more, and return what connects; ``None`` if it hangs no more already."""
        dial, self._dial = self._dial, None
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        self._hanging.attempts.pop(self, None)
        return dial
