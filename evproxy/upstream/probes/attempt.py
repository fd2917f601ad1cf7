"""
One check of one server: from the connect to the last trace gone.

An attempt owns what every kind of check needs: the bound on its time and its bytes, the
cancel, the one call of ``done``, and that the connection is closed, or reset, by then.
What is said over the connection is the business of the kinds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
    ITransport,
)
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger, LogLevel
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from evproxy.errors import Shortage
from evproxy.policy.shortages import shortage_in
from evproxy.upstream.reasons import reason_of

_log = Logger()

RECEIVE_LIMIT = 256 * 1024
"""The most bytes that a server may send during one check of any kind."""


class Attempt:
    """
    One check that runs.

    :param clock: for the timeout.
    :param timeout: seconds for the whole check, connecting and closing included, from when
        the server's address is known.  A server that was found well, but does not take part
        in closing, stays well; its connection is reset when the time is over.
    :param done: called once, never from within `begin`, as `evproxy.interfaces.Probe` says.
    :param endpoint: what is connected.
    """

    def __init__(
        self,
        clock: IReactorTime,
        timeout: float,
        done: Callable[[str | Shortage | None], None],
        endpoint: str = "",
    ) -> None:
        self._timeout = timeout
        self._done: Callable[[str | Shortage | None], None] | None = done
        self._endpoint = endpoint
        self._timer = clock.callLater(timeout, self._timed_out)
        self._work: Deferred[None] = Deferred()
        self._transport: ITransport | None = None
        self._decided = False
        self._verdict: str | Shortage | None = None
        self.left = False
        """Whether who asks has begun to close the connection."""
        self.missing: Callable[[], str] = str
        """Says what a server that did not answer in time still owes; empty for nothing."""

    def begin(self, work: Callable[[], Deferred[Any]]) -> None:
        """Start: `work` connects by an endpoint of `watched`; its failure is the check's."""
        self._work = maybeDeferred(work).addErrback(self._failed)

    def watched(self, endpoint: IStreamClientEndpoint) -> IStreamClientEndpoint:
        """`endpoint`, whose connection this attempt will bound and close."""
        return _WatchedEndpoint(endpoint, self)

    def look_up_began(self, longest: float) -> None:
        """The address is looked up first, which takes `longest` seconds at the most."""
        self._begin_time(longest + self._timeout)

    def look_up_ended(self) -> None:
        """The check's own time begins."""
        self._begin_time(self._timeout)

    def _begin_time(self, seconds: float) -> None:
        if not self._decided and self._timer.active():
            self._timer.reset(seconds)

    def decide(
        self, verdict: str | Shortage | None, close: Callable[[], None] | None = None
    ) -> None:
        """
        The server is well (``None``) or not (a reason), or cannot be asked (a `Shortage`).

        The first to say so is heard.

        `close` ends the connection, by default in order, once what was written is sent.
        """
        if self._decided:
            return
        self._decided = True
        self._verdict = verdict
        if self._transport is None:
            # Through the timer, because the one who asked still holds no cancel function.
            if self._timer.active():
                self._timer.reset(0)
        elif close is not None:
            close()
        else:
            self._transport.loseConnection()

    def cancel(self) -> None:
        """End the check without a result.  Nothing is left of it once the reactor has turned."""
        self._decided = True
        self._done = None
        self._stop()

    def opened(self, transport: ITransport) -> None:
        """The connection is there."""
        self._transport = transport

    def closed(self, reason: Failure) -> None:
        """The connection is gone."""
        self._transport = None
        if not self._decided:
            self._decided = True
            self._verdict = reason_of(reason)
        self._finish()

    def _failed(self, reason: Failure) -> None:
        self.decide(shortage_in(reason.value, self._endpoint) or reason_of(reason))

    def _timed_out(self) -> None:
        if not self._decided:
            self._decided = True
            missing = self.missing()
            self._verdict = f"timed out after {self._timeout:g} s" + (missing and f": {missing}")
        try:
            self._stop()
        finally:
            self._finish()

    def _stop(self) -> None:
        if self._timer.active():
            self._timer.cancel()
        if self._transport is not None:
            abort(self._transport)
        # An endpoint whose connection failed half made may raise when it is cancelled.
        with _log.failuresHandled("a health check could not be cancelled", LogLevel.error):
            self._work.cancel()

    def _finish(self) -> None:
        if self._timer.active():
            self._timer.cancel()
        done, self._done = self._done, None
        if done is not None:
            done(self._verdict)


def abort(transport: ITransport) -> None:
    """Reset the connection; a transport that cannot is closed."""
    getattr(transport, "abortConnection", transport.loseConnection)()


class _Watched(ProtocolWrapper):
    """Tells the attempt what happens to the connection, and counts what comes."""

    factory: _WatchedFactory
    received = 0

    def makeConnection(self, transport: ITransport) -> None:
        self.factory.attempt.opened(transport)
        super().makeConnection(transport)

    def dataReceived(self, data: bytes) -> None:
        self.received += len(data)
        if self.received > RECEIVE_LIMIT:
            attempt = self.factory.attempt
            attempt.decide(f"sent more than {RECEIVE_LIMIT} bytes", self.abortConnection)
        else:
            super().dataReceived(data)

    def loseConnection(self) -> None:
        self.factory.attempt.left = True
        super().loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        try:
            super().connectionLost(reason)
        finally:
            self.factory.attempt.closed(reason)


class _WatchedFactory(WrappingFactory):
    noisy = False
    protocol = _Watched

    def __init__(self, wrapped: IProtocolFactory, attempt: Attempt) -> None:
        super().__init__(wrapped)
        self.attempt = attempt


@implementer(IStreamClientEndpoint)
class _WatchedEndpoint:
    def __init__(self, endpoint: IStreamClientEndpoint, attempt: Attempt) -> None:
        self._endpoint = endpoint
        self._attempt = attempt

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        connecting: Deferred[Any] = self._endpoint.connect(
            _WatchedFactory(protocolFactory, self._attempt)
        )
        return connecting.addCallback(_unwrapped)


def _unwrapped(watched: _Watched) -> IProtocol:
    return watched.wrappedProtocol
