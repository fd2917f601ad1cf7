"""The PROXY protocol, versions 1 and 2: a header's bytes to one value, and back."""

from evproxy.wire.proxy_protocol.header import (
    Address,
    InetAddress,
    ProxyHeader,
    Transport,
    UnixAddress,
)
from evproxy.wire.proxy_protocol.reader import ProxyHeaderReader
from evproxy.wire.proxy_protocol.ssl_tlv import Ssl, SslClient
from evproxy.wire.proxy_protocol.tlvs import Tlvs
from evproxy.wire.proxy_protocol.writer import header_bytes

__all__ = [
    "Address",
    "InetAddress",
    "ProxyHeader",
    "ProxyHeaderReader",
    "Ssl",
    "SslClient",
    "Tlvs",
    "Transport",
    "UnixAddress",
    "header_bytes",
]
