"""Writes a PROXY header."""

from __future__ import annotations

from evproxy.wire.proxy_protocol.header import ProxyHeader
from evproxy.wire.proxy_protocol.version_1 import line_bytes
from evproxy.wire.proxy_protocol.version_2 import block_bytes


def header_bytes(header: ProxyHeader) -> bytes:
    """
    The bytes of `header`, to be sent before any other byte of the connection.

    What a version cannot say is left out: see `line_bytes` and `block_bytes`.

    :raises ProxyHeaderError: if a TLV is impossible, or there are too many (version 2 only).
    """
    return line_bytes(header) if header.version == 1 else block_bytes(header)
