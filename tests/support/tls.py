"""Peers that speak TLS, with the interface of `Peer`: a close_notify is what a FIN is there."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from evproxy.settings import ListenerTLS
from evproxy.sockets.tls_server import ServerContexts, ServerTLS
from tests.support.certificates import Certificates
from tests.support.peers import END, RESET, Peer, turn

CUT = "cut"
"""How a stream ends without a close_notify."""

VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}

T = TypeVar("T")


def context_of(certificates: Certificates, version: str, serves: bool) -> SSL.Context:
    """A peer's context, of one version of TLS."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD if serves else SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(VERSIONS[version])
    context.set_max_proto_version(VERSIONS[version])
    if serves:
        context.use_certificate_chain_file(certificates.pem)
        context.use_privatekey_file(certificates.pem)
    else:
        context.load_verify_locations(f"{certificates.authorities}/ca.pem")
        context.set_verify(SSL.VERIFY_PEER)
    return context


def server_tls(certificates: Certificates, **settings: Any) -> ServerTLS:
    """What begins TLS with clients, with the certificate for 127.0.0.1."""
    chosen = ListenerTLS(certificates=(certificates.pem,), **settings)
    return ServerTLS(ServerContexts(chosen), chosen)


class TLSPeer(Peer):
    """
    A peer that speaks TLS.  It shakes hands at once, as soon as the reactor runs.

    `fault`: why the handshake failed.

    :param serves: whether it is the server.
    :param name: the name that it asks for (SNI).
    :param before: what it sends before TLS, together with its first bytes.
    :param piece: the most bytes that it sends at once in the handshake; 0: any number.
    :param session: of an earlier connection, which a client resumes.
    """

    def __init__(
        self,
        reactor: Any,
        sock: socket.socket,
        context: SSL.Context,
        serves: bool,
        name: str = "",
        before: bytes = b"",
        piece: int = 0,
        session: SSL.Session | None = None,
    ) -> None:
        super().__init__(reactor, sock)
        # What waits in the kernel for an acknowledgment is lost with a reset.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection = SSL.Connection(context)
        if name:
            self.connection.set_tlsext_host_name(name.encode())
        self._unsent = before
        self._piece = piece
        self._over = False
        self.fault: BaseException | None = None
        if session is not None:
            self.connection.set_session(session)
        if serves:
            self.connection.set_accept_state()
        else:
            self.connection.set_connect_state()
        self._waiting: list[Deferred[None]] = []
        self._shaking = Deferred.fromCoroutine(self._do(self.connection.do_handshake))
        self._shaking.addErrback(self._not_shaken)
        self._shaking.addBoth(self._shaken)

    def _not_shaken(self, failure: Failure) -> None:
        failure.trap(OSError, SSL.Error, CancelledError)
        self.fault = failure.value

    def _shaken(self, result: object) -> None:
        self._over = True
        for waiting in self._waiting:
            waiting.callback(None)

    async def ready(self) -> None:
        """Wait until the handshake is over, well or not."""
        if not self._over:
            waiting: Deferred[None] = Deferred()
            self._waiting.append(waiting)
            await waiting

    async def send(self, data: bytes | memoryview) -> None:
        await self.ready()
        rest = memoryview(data)
        while rest:
            rest = rest[await self._do(partial(self.connection.send, rest[:65536])) :]

    def send_now(self, data: bytes | memoryview) -> int:
        self._flush_now()
        if self._unsent:
            return 0
        taken = self.connection.send(data[:65536])
        self._flush_now()
        return taken

    async def some(self, most: int = 65536) -> bytes:
        await self.ready()
        try:
            return await self._do(partial(self.connection.recv, most))
        except SSL.ZeroReturnError:
            return b""

    async def rest(self) -> tuple[bytes, str]:
        received = bytearray()
        while True:
            try:
                data = await self.some()
            except (ConnectionResetError, BrokenPipeError):
                return bytes(received), RESET
            except SSL.SysCallError:
                return bytes(received), CUT
            if not data:
                return bytes(received), END
            received += data

    def end(self) -> None:
        self.connection.shutdown()
        self._flush_now()
        if self._unsent:
            flushing = Deferred.fromCoroutine(self._flush())
            flushing.addErrback(lambda failure: failure.trap(OSError))

    def cut(self) -> None:
        """End the stream of the socket without a close_notify."""
        self.socket.shutdown(socket.SHUT_WR)

    def send_alert(self) -> None:
        """Send what OpenSSL has to say after an error."""
        self._flush_now()

    def close(self) -> None:
        """Send a close_notify, if a handshake was made, and close both ways."""
        if not self._over:
            self._shaking.cancel()
        elif self.socket.fileno() >= 0:
            try:
                if not self.connection.get_shutdown() & SSL.SENT_SHUTDOWN:
                    self.end()
            except (OSError, SSL.Error):
                """There is nobody to tell."""
        super().close()

    async def _do(self, step: Callable[[], T]) -> T:
        while True:
            try:
                result = step()
            except SSL.WantReadError:
                if self._over:
                    # Who waits to send and does not read may keep the other from reading.
                    self._flush_now()
                else:
                    await self._flush()
                data = await super().some()
                if data:
                    self.connection.bio_write(data)
                else:
                    self.connection.bio_shutdown()
            else:
                await self._flush()
                return result

    async def _flush(self) -> None:
        self._take()
        unsent, self._unsent = self._unsent, b""
        while unsent:
            size = self._piece if self._piece and not self._over else len(unsent)
            await super().send(unsent[:size])
            unsent = unsent[size:]
            if unsent:
                await turn(self._reactor)

    def _flush_now(self) -> None:
        self._take()
        if self._unsent:
            self._unsent = self._unsent[super().send_now(self._unsent) :]

    def _take(self) -> None:
        try:
            while True:
                self._unsent += self.connection.bio_read(1 << 20)
        except SSL.WantReadError:
            """There is no more."""
