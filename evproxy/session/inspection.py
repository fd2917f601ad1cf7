"""
What a client says before evproxy chooses its pool: a PROXY header, and what a router looks at.

An `Inspection` feeds readers of `evproxy.wire` with the bytes that an `Intake` keeps.  The bytes
stay there, and go to the server.  Only those of a PROXY header are taken away.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from evproxy.errors import ClientEnded, EvproxyError
from evproxy.model import ConnectionInfo
from evproxy.session.intake import EARLY_BYTES, Intake
from evproxy.wire.client_hello import ClientHello, HelloReader, NotTls
from evproxy.wire.http_host import HostReader, HttpHost, NoHost
from evproxy.wire.postgres import Start, StartReader

Found = TypeVar("Found", covariant=True)


class Reader(Protocol[Found]):
    """Reads one thing at the start of a stream."""

    def feed(self, data: bytes) -> Found | None:
        """What `data` completes, else ``None``.  Raises an `EvproxyError` if it is malformed."""


class Beginning:
    """
    A `Reader` of the first `size` bytes.

    :param size: from 1 to `EARLY_BYTES`.
    :raises ValueError: if it is another.
    """

    def __init__(self, size: int) -> None:
        if not 1 <= size <= EARLY_BYTES:
            raise ValueError(f"from 1 to {EARLY_BYTES} bytes can be looked at, not {size}")
        self._size = size
        self._read = b""

    def feed(self, data: bytes) -> bytes | None:
        """The bytes, once there are as many."""
        self._read += data[: self._size - len(self._read)]
        return self._read if len(self._read) == self._size else None


class Inspection:
    """
    Looks at the bytes of one client; an `evproxy.interfaces.Client`.

    `wanted` names what a reader waits for, empty if none waits.

    :param intake: has the bytes.
    :param info: what is known of the client's connection.
    """

    __slots__ = ("_intake", "info", "wanted")

    def __init__(self, intake: Intake, info: ConnectionInfo) -> None:
        self._intake = intake
        self.info = info
        self.wanted = ""

    def look(
        self,
        reader: Reader[Any],
        wanted: str,
        found: Callable[[Any], None],
        failed: Callable[[EvproxyError], None],
    ) -> None:
        """
        Feed `reader` with the bytes that are there, and with those that come, until it answers.

        Then call `found` with the answer, or `failed` if the bytes are malformed, or if the client
        ends its stream before.  One of the two is called, once, unless `stop` is called before.

        :param wanted: what the reader reads, with an article, for messages.
        """

        def look(data: bytes) -> None:
            try:
                answer = reader.feed(data)
            except EvproxyError as error:
                self.stop()
                failed(error)
                return
            if answer is not None:
                self.stop()
                found(answer)
            elif self._intake.over:
                self.stop()
                failed(ClientEnded(f"the client ended its stream before {wanted} was complete"))

        self.wanted = wanted
        self._intake.looker = look
        look(b"".join(self._intake.chunks or ()))

    def read(self, reader: Reader[Found], wanted: str) -> Deferred[Found]:
        """
        The same with a Deferred.

        :return: fires with the answer of `reader`.  It fails with the `EvproxyError` that says
            why there is none.
        :raises RuntimeError: if another reader still waits.
        """
        if self.wanted:
            raise RuntimeError(f"the router still waits for {self.wanted}")
        deferred: Deferred[Found] = Deferred(lambda _: self.stop())
        self.look(reader, wanted, deferred.callback, lambda error: deferred.errback(Failure(error)))
        return deferred

    def stop(self) -> None:
        """Look no more."""
        self.wanted = ""
        self._intake.looker = None

    # What routers ask for: see `evproxy.interfaces.Client`.

    def peek(self, size: int) -> Deferred[bytes]:
        """The first `size` bytes, or all bytes of a client that has sent fewer and ended."""
        peeked = self.read(Beginning(size), f"its first {size} bytes")
        return peeked.addErrback(self._all_there_is)

    def _all_there_is(self, failure: Failure) -> bytes:
        failure.trap(ClientEnded)
        return b"".join(self._intake.chunks or ())

    def client_hello(self) -> Deferred[ClientHello | NotTls]:
        """What a TLS client says first."""
        reading: Deferred[ClientHello | NotTls] = self.read(HelloReader(), "its TLS ClientHello")
        return reading.addCallback(self._greeted)

    def _greeted(self, answer: ClientHello | NotTls) -> ClientHello | NotTls:
        if isinstance(answer, ClientHello) and answer.server_name:
            self.info = evolve(self.info, server_name=answer.server_name)
        return answer

    def http_host(self) -> Deferred[HttpHost | NoHost]:
        """The host that an HTTP/1 client asks for."""
        return self.read(HostReader(), "the header of its HTTP request")

    def postgres_start(self) -> Deferred[Start]:
        """What a PostgreSQL client says first."""
        return self.read(StartReader(), "its first PostgreSQL message")
