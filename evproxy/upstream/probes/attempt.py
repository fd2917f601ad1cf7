"""
One check of one server, from the connect to the closed connection.

An attempt has what every kind of check needs: the timeout, the limit on received bytes, and
the cancellation.  It calls ``done`` once, after the connection is closed or reset.  The kinds
of checks decide what to send and what to expect.
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
    One running check.

    :param clock: the timers.
    :param timeout: seconds for the whole check, including the connect and the close, from when
        the server's address is known.  If the check succeeds but the server does not close,
        the check still counts as a success; the connection is reset at the timeout.
    :param done: called once, never from within `begin`; see `evproxy.interfaces.Probe`.
    :param endpoint: the endpoint of the server.
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
        self.closed_here = False
        """Whether the check has begun to close the connection."""
        self.missing: Callable[[], str] = str
        """Returns what the check still expects of the server, for the reason of a timeout."""

    def begin(self, work: Callable[[], Deferred[Any]]) -> None:
        """Start the check: `work` connects by an endpoint of `watched`; its failure counts."""
        self._work = maybeDeferred(work).addErrback(self._failed)

    def watched(self, endpoint: IStreamClientEndpoint) -> IStreamClientEndpoint:
        """Wrap `endpoint`, so that this attempt limits and closes its connection."""
        return _WatchedEndpoint(endpoint, self)

    def look_up_began(self, longest: float) -> None:
        """A look-up of the address has begun, which takes `longest` seconds at the most."""
        self._begin_time(longest + self._timeout)

    def look_up_ended(self, shortage: Shortage | None) -> None:
        """The timeout of the check begins, unless the look-up failed because of `shortage`."""
        if shortage is None:
            self._begin_time(self._timeout)
        else:
            self.decide(shortage)

    def _begin_time(self, seconds: float) -> None:
        if not self._decided and self._timer.active():
            self._timer.reset(seconds)

    def decide(
        self, verdict: str | Shortage | None, close: Callable[[], None] | None = None
    ) -> None:
        """
        Set the verdict and close the connection.  Only the first call has an effect.

        :param verdict: ``None`` if the server is healthy, else a reason, or the `Shortage` that
            prevented the check.
        :param close: closes the connection; by default in order, after all data is sent.
        """
        if self._decided:
            return
        self._decided = True
        self._verdict = verdict
        if self._transport is None:
            # By the timer, because the caller of the probe has no cancel function yet.
            if self._timer.active():
                self._timer.reset(0)
        elif close is not None:
            close()
        else:
            self._transport.loseConnection()

    def cancel(self) -> None:
        """End the check without a verdict.  The connection is gone after a turn of the reactor."""
        self._decided = True
        self._done = None
        self._stop()

    def opened(self, transport: ITransport) -> None:
        """The connection is open."""
        self._transport = transport

    def closed(self, reason: Failure) -> None:
        """The connection is closed."""
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
        # Cancelling an endpoint may raise if its connect has failed half way.
        with _log.failuresHandled("a health check could not be cancelled", LogLevel.error):
            self._work.cancel()

    def _finish(self) -> None:
        if self._timer.active():
            self._timer.cancel()
        done, self._done = self._done, None
        if done is not None:
            done(self._verdict)


def abort(transport: ITransport) -> None:
    """Reset the connection, or close it if the transport cannot reset."""
    getattr(transport, "abortConnection", transport.loseConnection)()


class _Watched(ProtocolWrapper):
    """Notifies the attempt of the connection's events, and limits the received bytes."""

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
        self.factory.attempt.closed_here = True
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
