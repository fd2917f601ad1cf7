"""
Reads the first bytes of a client before its pool is chosen: the PROXY header, and for routers.

An `Inspection` feeds readers of `evproxy.wire` with the bytes that an `Intake` keeps.  The bytes
stay in the intake, and go to the server.  Only the bytes of a PROXY header are removed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from attrs import evolve
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from evproxy.errors import ClientEnded, EvproxyError
from evproxy.escape import printable
from evproxy.interfaces import Pool
from evproxy.model import ConnectionInfo
from evproxy.relay.stages import Stage
from evproxy.session.intake import EARLY_BYTES, Intake
from evproxy.session.opening import Opening
from evproxy.wire.client_hello import TLS_1_2, TLS_1_3, ClientHello, HelloReader, NotTls
from evproxy.wire.http_host import HostReader, HttpHost, NoHost
from evproxy.wire.postgres import Start, StartReader

Found = TypeVar("Found", covariant=True)


StageMaker = Callable[[Pool, str], Stage]
"""Makes a stage of a session for its pool and the name of its server."""


class Reader(Protocol[Found]):
    """Reads one message at the start of a stream."""

    def feed(self, data: bytes) -> Found | None:
        """
        Return the message that `data` completes, else ``None``.

        :raises EvproxyError: if the message is malformed.
        """


class Beginning:
    """
    A `Reader` of the first `size` bytes.

    :param size: from 1 to `EARLY_BYTES`.
    :raises ValueError: if `size` is out of this range.
    """

    def __init__(self, size: int) -> None:
        if not 1 <= size <= EARLY_BYTES:
            raise ValueError(f"from 1 to {EARLY_BYTES} bytes can be looked at, not {size}")
        self._size = size
        self._read = b""

    def feed(self, data: bytes) -> bytes | None:
        """Return the bytes once there are `size` of them, else ``None``."""
        self._read += data[: self._size - len(self._read)]
        return self._read if len(self._read) == self._size else None


_VERSIONS = {"TLSv1.2": TLS_1_2, "TLSv1.3": TLS_1_3}
"""The versions of TLS by OpenSSL's names for them."""


class Inspection:
    """
    Looks at the bytes of one client; an `evproxy.interfaces.Client`.

    `wanted` names the message that a reader waits for; empty if no reader waits.  `noted` is the
    last note of the router.

    `begin_tls` begins the TLS that evproxy ends, where that is left to the router; its Deferred
    fires once the client has shaken hands, and never if the client has not.  `agreement` is the
    request of the client for it and evproxy's answer, both already taken and sent, for recordings.

    `opening` is what evproxy asks the server before the session relays, and `stages` make the
    stages of the session for its pool and the name of its server.  evproxy's own routers set them.

    :param intake: has the bytes.
    :param info: the addresses of the client's connection.
    """

    __slots__ = (
        "_intake",
        "agreement",
        "begin_tls",
        "info",
        "noted",
        "opening",
        "stages",
        "wanted",
    )

    def __init__(self, intake: Intake, info: ConnectionInfo) -> None:
        self._intake = intake
        self.info = info
        self.wanted = self.noted = ""
        self.begin_tls: Callable[[], Deferred[None]] | None = None
        self.agreement: tuple[bytes, bytes] | None = None
        self.opening: Opening | None = None
        self.stages: list[StageMaker] = []

    def look(
        self,
        reader: Reader[Any],
        wanted: str,
        found: Callable[[Any], None],
        failed: Callable[[EvproxyError], None],
    ) -> None:
        """
        Feed `reader` with the kept bytes, and with new bytes, until it returns an answer.

        Then call `found` with the answer, or `failed` if the bytes are malformed or the client ends
        its stream first.  Exactly one of the two is called, once, unless `stop` is called first.

        :param wanted: the name of the message, with an article, for error messages.
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
        Do the same as `look`, but return a Deferred.

        :return: fires with the answer of `reader`, or fails with an `EvproxyError` that says why
            there is no answer.
        :raises RuntimeError: if another reader still waits.
        """
        if self.wanted:
            raise RuntimeError(f"the router still waits for {self.wanted}")
        deferred: Deferred[Found] = Deferred(lambda _: self.stop())
        self.look(reader, wanted, deferred.callback, lambda error: deferred.errback(Failure(error)))
        return deferred

    def stop(self) -> None:
        """Stop reading; no callback is called any more."""
        self.wanted = ""
        self._intake.looker = None

    @property
    def kept(self) -> int:
        """How many bytes of the client are kept."""
        return sum(map(len, self._intake.chunks or ()))

    def take(self, size: int) -> None:
        """Drop the first `size` bytes of the client: they were for evproxy itself."""
        self._intake.take(size)

    def answer(self, data: bytes) -> None:
        """Send `data` to the client."""
        self._intake.answer(data)

    # Called by routers: see `evproxy.interfaces.Client`.

    def note(self, text: str) -> None:
        """The session's record has `text` as its `route`."""
        self.noted = printable(text)

    def peek(self, size: int) -> Deferred[bytes]:
        """Return the first `size` bytes, or all bytes if the client has ended after fewer."""
        peeked = self.read(Beginning(size), f"its first {size} bytes")
        return peeked.addErrback(self._all_there_is)

    def _all_there_is(self, failure: Failure) -> bytes:
        failure.trap(ClientEnded)
        return b"".join(self._intake.chunks or ())

    def client_hello(self) -> Deferred[ClientHello | NotTls]:
        """
        Return the first message of a TLS client.

        Where evproxy has ended TLS, its protocol and its version are those that were agreed on.
        """
        tls = self.info.tls
        if tls is not None:
            protocols = (tls.protocol.encode(),) if tls.protocol else ()
            name = tls.server_name.lower().removesuffix(".")
            version = _VERSIONS.get(tls.version, 0)
            return succeed(ClientHello(name or None, protocols, version))
        reading: Deferred[ClientHello | NotTls] = self.read(HelloReader(), "its TLS ClientHello")
        return reading.addCallback(self._greeted)

    def _greeted(self, answer: ClientHello | NotTls) -> ClientHello | NotTls:
        if isinstance(answer, ClientHello) and answer.server_name:
            self.info = evolve(self.info, server_name=answer.server_name)
        return answer

    def http_host(self) -> Deferred[HttpHost | NoHost]:
        """Return the host in the request of an HTTP/1 client."""
        return self.read(HostReader(), "the header of its HTTP request")

    def postgres_start(self) -> Deferred[Start]:
        """Return the first message of a PostgreSQL client."""
        return self.read(StartReader(), "its first PostgreSQL message")
