"""Peers that speak TLS, and distinguish an ended stream from a cut stream."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import pytest

from evproxy.settings import Timeouts
from tests.support.certificates import Certificates
from tests.support.peers import RESET, Peer
from tests.support.proxies import Proxied

CLOSED = "close_notify"
CUT = "cut"

T = TypeVar("T")


class SecuredPeer:
    """
    TLS on top of a `Peer`.

    :param context: an `ssl.SSLContext` for clients, or for servers if `serves`.
    """

    def __init__(self, peer: Peer, context: ssl.SSLContext, serves: bool = False) -> None:
        self.peer = peer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, serves, None if serves else "127.0.0.1"
        )

    async def handshake(self) -> None:
        """Do the TLS handshake."""
        await self._do(self._tls.do_handshake)

    def protocol(self) -> str | None:
        """Return the selected protocol (ALPN)."""
        return self._tls.selected_alpn_protocol()

    async def send(self, data: bytes) -> None:
        """Send all of `data`."""
        for start in range(0, len(data), 65536):
            await self._do(partial(self._tls.write, data[start : start + 65536]))

    async def receive(self, count: int) -> bytes:
        """Return exactly `count` bytes."""
        received = b""
        while len(received) < count:
            data = await self._do(partial(self._tls.read, count - len(received)))
            if not data:
                raise EOFError(f"the stream ended after {len(received)} of {count} bytes")
            received += data
        return received

    async def rest(self) -> tuple[bytes, str]:
        """Return all bytes up to the end, and how it ended: `CLOSED`, `CUT` or `RESET`."""
        received = bytearray()
        while True:
            try:
                data = await self._do(partial(self._tls.read, 65536))
            except ssl.SSLEOFError:
                return bytes(received), CUT
            except ConnectionResetError:
                return bytes(received), RESET
            if not data:
                return bytes(received), CLOSED
            received += data

    async def close(self) -> None:
        """End the stream with a close_notify, and close the connection."""
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            """Do not wait for the other peer's close_notify."""
        await self._flush()
        self.peer.end()

    async def _do(self, step: Callable[[], T]) -> T:
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                await self._flush()
                data: Any = await self.peer.some()
                if data:
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
            else:
                await self._flush()
                return result

    async def _flush(self) -> None:
        await self.peer.send(self._outgoing.read())


class Secured:
    """A proxy with TLS on one side, the secured peer and the plain peer."""

    def __init__(self, proxied: Proxied, certificates: Certificates) -> None:
        self.proxied = proxied
        self.certificates = certificates
        self.timeouts: Timeouts | None = None

    async def listen(self) -> None:
        """Start the proxy, which speaks TLS with clients."""
        pem = self.certificates.pem
        await self.proxied.start(
            listen=f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}",
            timeouts=self.timeouts,
        )

    async def downstream(self) -> tuple[SecuredPeer, Peer]:
        """Return a client that speaks TLS, and its server."""
        await self.listen()
        return await self.another("downstream")

    async def upstream(self, kind: str = "tls") -> tuple[SecuredPeer, Peer]:
        """Return a server that speaks TLS, and its client."""
        port, trusted = self.proxied.upstream.port, self.certificates.authorities
        trust = {"tls": "trustRoots", "ssl": "caCertsDir"}[kind]
        await self.proxied.start(
            upstreams=[f"{kind}:127.0.0.1:{port}:{trust}={trusted}"], timeouts=self.timeouts
        )
        return await self.another("upstream")

    async def another(self, side: str) -> tuple[SecuredPeer, Peer]:
        """Return the peers of one more session through the started proxy; see `start`."""
        if side == "downstream":
            client = SecuredPeer(self.proxied.client(), self.certificates.client)
            await client.handshake()
            return client, await self.proxied.upstream.accept()
        plain = self.proxied.client()
        accepted = await self.proxied.upstream.accept()
        server = SecuredPeer(accepted, self.certificates.server, serves=True)
        await server.handshake()
        return server, plain

    async def start(self, side: str) -> tuple[SecuredPeer, Peer]:
        """Start the proxy; return the secured peer and the plain peer.  `side` has the TLS."""
        return await (self.downstream() if side == "downstream" else self.upstream())


@pytest.fixture
def secured(proxied: Proxied, certificates: Certificates) -> Secured:
    """A proxy that the test starts, with TLS on one side."""
    return Secured(proxied, certificates)


both_sides = pytest.mark.parametrize("side", ["downstream", "upstream"])
