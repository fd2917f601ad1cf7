"""
PROXY headers of sessions: reads the header of a client's proxy, and makes that for a server.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from attrs import evolve
from twisted.internet.address import UNIXAddress

from evproxy.config.canonical import canonical_address, host_and_port
from evproxy.escape import escaped
from evproxy.model import ConnectionInfo, TLSFacts
from evproxy.wire.proxy_protocol import (
    Address,
    InetAddress,
    ProxyHeader,
    ProxyHeaderReader,
    Ssl,
    SslClient,
    Tlvs,
    UnixAddress,
    header_bytes,
)
from evproxy.wire.proxy_protocol.framing import Tlv
from evproxy.wire.proxy_protocol.header import UNIX_LENGTH
from evproxy.wire.proxy_protocol.tlvs import TlvType


class HeaderReader:
    """An `evproxy.session.inspection.Reader` of a PROXY header and its size."""

    __slots__ = ("_reader",)

    def __init__(self) -> None:
        self._reader = ProxyHeaderReader()

    def feed(self, data: bytes) -> tuple[ProxyHeader, int] | None:
        """
        Return the header and its size in bytes, once it is complete.

        :raises evproxy.errors.ProxyHeaderError: at the first byte that cannot be part of a header.
        """
        header = self._reader.feed(data)
        return None if header is None else (header, self._reader.size)


def path_text(path: bytes) -> str:
    """The `path` of a UNIX client for logs: no other client's address looks like it."""
    text = escaped(path.decode("utf-8", "surrogateescape"))
    # A client may have bound its socket to a relative path such as 10.0.0.1.
    return text if text.startswith(("/", "\\")) or not text else f"./{text}"


def behind(header: ProxyHeader, info: ConnectionInfo) -> ConnectionInfo:
    """
    Return the addresses of the client behind `header`.

    If the header has no addresses (``LOCAL``, ``UNKNOWN``, UNSPEC), the addresses stay those of the
    socket.

    :param info: the connection of the proxy that sent the header.
    """
    via = host_and_port(info.peer_host, info.peer_port) if info.peer_port else info.peer_host
    if header.local:
        return evolve(info, via=via, header=header)
    # Also a header without addresses is about a client, whose TLS only its proxy knows.
    info = evolve(info, header_inside_tls=info.tls is not None)
    pair = header.inet_pair() or header.unix_pair()
    if pair is None:
        return evolve(info, via=via, header=header)
    source, _ = pair
    if isinstance(source, UnixAddress):
        path = path_text(source.path)
        return evolve(info, peer_host=path, peer_port=0, via=via, header=header)
    host = canonical_address(source.host)
    return evolve(info, peer_host=host, peer_port=source.port, via=via, header=header)


def header_for(version: int, info: ConnectionInfo, host: Any, unique_id: str) -> bytes:
    """
    Return the PROXY header for the server of the client that `info` describes.

    The header has the addresses and the TLVs from the header of the client's proxy, if there is
    one.  It also has the client's server name (SNI) and the unique id, unless the proxy sent them.
    If the proxy sent a ``LOCAL`` header, which describes no client, the addresses of the socket are
    used.  If the header came inside TLS, that TLS is the proxy's, and only the proxy knows of the
    client's.

    :param version: 1 or 2; only version 2 has TLVs.
    :param host: evproxy's address on the client's connection, as Twisted has it.
    :param unique_id: the unique id of the session.
    """
    source, destination = _source(info), _address(host)
    tlvs: tuple[Tlv, ...] = ()
    if info.header is not None:
        pair = info.header.inet_pair() or info.header.unix_pair()
        if pair is not None and not info.header.local:
            source, destination = pair
        tlvs = info.header.tlvs
    known = dict(tlvs)
    own: list[Tlv] = [(TlvType.UNIQUE_ID, unique_id.encode())]
    server_name, tls = info.server_name, info.tls
    if info.header_inside_tls:
        server_name, tls = "", None
    if server_name:
        own.append((TlvType.AUTHORITY, server_name.encode()))
    if tls is not None:
        own += _of_tls(tls)
        # What came in before TLS is not about this TLS.
        known.pop(TlvType.SSL, None)
        tlvs = tuple(each for each in tlvs if each[0] != TlvType.SSL)
    tlvs = (*tlvs, *(each for each in own if each[0] not in known))
    return header_bytes(ProxyHeader(version, source, destination, tlvs=Tlvs(tlvs)))


def _of_tls(tls: TLSFacts) -> Iterator[Tlv]:
    """What the server is told of TLS that evproxy has ended."""
    client = SslClient.TLS
    if tls.client_subject:
        client |= SslClient.CERTIFICATE_IN_CONNECTION | SslClient.CERTIFICATE_IN_SESSION
    ssl = Ssl(
        client=client,
        version=tls.version,
        cipher=tls.cipher,
        common_name=tls.client_name or None,
    )
    yield from Tlvs.of(alpn=tls.protocol.encode() or None, ssl=ssl)


def _source(info: ConnectionInfo) -> Address:
    if info.peer_port:
        return InetAddress(info.peer_host, info.peer_port)
    # The path of a client's UNIX socket is only for logs; most clients have none.
    return UnixAddress(b"")


def _address(host: Any) -> Address:
    if isinstance(host, UNIXAddress):
        return UnixAddress((host.name or b"")[:UNIX_LENGTH])
    return InetAddress(host.host, host.port)
