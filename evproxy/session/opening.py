"""
What evproxy says to a server before the session relays, where the server answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from evproxy.errors import ConnectTimeout, EvproxyError, HandshakeFailed
from evproxy.relay.contract import Half
from evproxy.session.discarding import NOBODY


class Opening(Protocol):
    """A request to a server, and what its answer must be."""

    @property
    def request(self) -> bytes:
        """What is sent."""

    def answered(self, data: bytes) -> bool:
        """
        Whether `data`, all that the server has sent, is the whole answer.

        :raises EvproxyError: if the answer is no.
        """


class ServerOpening:
    """
    One exchange with a server that is connected; the receiver of its half meanwhile.

    :param clock: the timers.
    :param upstream: the half of the server.
    :param opening: what is asked.
    :param before: bytes to send before that: a PROXY header.
    :param timeout: seconds for the answer.
    :param done: called once the server has agreed.
    :param failed: called if it has not; the connection is reset then.
    """

    def __init__(
        self,
        clock: IReactorTime,
        upstream: Half,
        opening: Opening,
        before: bytes,
        timeout: float,
        done: Callable[[], None],
        failed: Callable[[Failure], None],
    ) -> None:
        self._upstream = upstream
        self._opening = opening
        self._done = done
        self._failed = failed
        self._received = b""
        self._timer: IDelayedCall | None = clock.callLater(timeout, self._too_late, timeout)
        upstream.receiver = self
        upstream.transport.write(before + opening.request)

    def received(self, data: bytes) -> None:
        """The server sent `data`."""
        self._received += data
        try:
            over = self._opening.answered(self._received)
        except EvproxyError as error:
            self._fail(error)
            return
        if over:
            self._stop()
            self._done()

    def stream_ended(self) -> None:
        """The server ended its stream instead of an answer."""
        self._fail(HandshakeFailed("the server ended the connection before its answer"))

    def peer_reset(self) -> None:
        """The server reset the connection instead of an answer."""
        self._fail(HandshakeFailed("the server reset the connection before its answer"))

    def closing_here(self, ended: bool) -> bool:
        """Code on the server's side closes the connection: its loss follows."""
        return False

    def half_broke(self) -> None:
        """The server's half raised an exception, which is logged."""
        self._fail(HandshakeFailed("the protocol of the server's connection broke"))

    def connection_lost(self, reason: Failure) -> None:
        """The connection is gone."""
        self._fail(HandshakeFailed("the connection was lost before the server's answer"))

    def _too_late(self, timeout: float) -> None:
        self._timer = None
        self._fail(ConnectTimeout(f"timed out after {timeout:g} s, before the server's answer"))

    def _fail(self, error: EvproxyError) -> None:
        self.cancel()
        self._failed(Failure(error))

    def cancel(self) -> None:
        """Give the exchange up, and reset the connection; neither callback comes."""
        self._stop()
        self._upstream.transport.abortConnection()

    def _stop(self) -> None:
        self._upstream.receiver = NOBODY
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
