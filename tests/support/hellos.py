"""ClientHellos: OpenSSL's, and others made by hand, with what OpenSSL reads in them."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

from attrs import define, frozen
from OpenSSL import SSL

HANDSHAKE = 22


def prefixed(width: int, content: bytes) -> bytes:
    """A vector: `content` behind its length of `width` bytes."""
    return len(content).to_bytes(width) + content


def server_name(name: bytes, kind: int = 0) -> tuple[int, bytes]:
    """The extension server_name with one name."""
    return 0, prefixed(2, bytes([kind]) + prefixed(2, name))


def alpn(*protocols: bytes) -> tuple[int, bytes]:
    """The extension for ALPN."""
    return 16, prefixed(2, b"".join(prefixed(1, each) for each in protocols))


def supported_versions(*versions: int) -> tuple[int, bytes]:
    """The extension supported_versions."""
    return 43, prefixed(1, b"".join(version.to_bytes(2) for version in versions))


@frozen
class Hello:
    """A ClientHello made by hand.  Every field can be set to what no client would send."""

    extensions: Sequence[tuple[int, bytes]] | None = ()
    version: int = 0x0303
    session_id: bytes = b""
    suites: bytes = b"\x13\x01\xc0\x2b\xc0\x2f"
    compression: bytes = b"\0"
    after: bytes = b""

    def message(self) -> bytes:
        """The handshake message, without records."""
        body = self.version.to_bytes(2) + bytes(32) + prefixed(1, self.session_id)
        body += prefixed(2, self.suites) + prefixed(1, self.compression)
        if self.extensions is not None:
            extensions = [kind.to_bytes(2) + prefixed(2, data) for kind, data in self.extensions]
            body += prefixed(2, b"".join(extensions))
        return b"\x01" + prefixed(3, body + self.after)

    def records(self) -> bytes:
        """The message in one TLS record."""
        return in_records(self.message(), ())


def in_records(message: bytes, cuts: Iterable[int], version: int = 0x0301) -> bytes:
    """`message` in TLS records that begin at `cuts`."""
    places = sorted({0, len(message), *(cut for cut in cuts if 0 < cut < len(message))})
    return b"".join(
        bytes([HANDSHAKE]) + version.to_bytes(2) + prefixed(2, message[start:end])
        for start, end in pairwise(places)
    )


def message_in(records: bytes) -> bytes:
    """The handshake message in `records`."""
    message = b""
    while records:
        end = 5 + int.from_bytes(records[3:5])
        message += records[5:end]
        records = records[end:]
    return message


def of_ssl(context: ssl.SSLContext, name: str | None) -> bytes:
    """The hello of Python's `ssl` with `context`."""
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake without a server")


def of_openssl(context: SSL.Context, name: bytes | None) -> bytes:
    """The hello of pyOpenSSL with `context`, which has a current OpenSSL."""
    client = SSL.Connection(context, None)
    client.set_connect_state()
    if name is not None:
        client.set_tlsext_host_name(name)
    try:
        client.do_handshake()
    except SSL.WantReadError:
        return client.bio_read(2**16)
    raise AssertionError("a handshake without a server")


@define
class Read:
    """
    What OpenSSL read in a ClientHello.

    `sound`: it took the hello for one.  `name` and `alpn` are as they were sent.
    """

    sound: bool = False
    name: bytes | None = None
    alpn: tuple[bytes, ...] = ()


class Oracle:
    """OpenSSL as a parser of ClientHellos, with the certificate of a server."""

    def __init__(self, certificate: Any, key: Any) -> None:
        self._read = Read()
        self._context = SSL.Context(SSL.TLS_SERVER_METHOD)
        self._context.use_certificate(certificate)
        self._context.use_privatekey(key)
        self._context.set_tlsext_servername_callback(self._name)
        self._context.set_alpn_select_callback(self._alpn)

    def _name(self, connection: SSL.Connection) -> None:
        self._read.sound = True
        self._read.name = connection.get_servername()

    def _alpn(self, connection: SSL.Connection, protocols: list[bytes]) -> Any:
        self._read.alpn = tuple(protocols)
        return SSL.NO_OVERLAPPING_PROTOCOLS

    def read(self, data: bytes) -> Read:
        """What OpenSSL reads in `data`."""
        self._read = Read()
        server = SSL.Connection(self._context, None)
        server.set_accept_state()
        server.bio_write(data)
        with suppress(SSL.Error):
            server.do_handshake()
        return self._read
