"""
Reads a PROXY header from the start of a connection, in pieces of any size.

It does no I/O, and keeps no more than a header and what came after it in the same piece.

Never ask a reader whether there is a header: the specification forbids to guess.  Know it from
the listener and from the network of the sender.
"""

from __future__ import annotations

from collections.abc import Callable

from evproxy.errors import ProxyHeaderError
from evproxy.wire.proxy_protocol import version_1
from evproxy.wire.proxy_protocol.header import ProxyHeader
from evproxy.wire.proxy_protocol.version_2 import LENGTH_LIMIT, SIGNATURE, BlockReader

_SHOWN = 12


class ProxyHeaderReader:
    """
    Reads one header of either version.

    :param length_limit: the most bytes of version 2 after the first 16, at most 65535.
    """

    __slots__ = ("_block", "_done", "_received", "size")

    def __init__(self, length_limit: int = LENGTH_LIMIT) -> None:
        self._received = bytearray()
        self._block = BlockReader(length_limit)
        self._done = False
        self.size = 0
        """The size of the header in bytes; 0 until it is complete."""

    @property
    def rest(self) -> bytes:
        """What was fed after the header; empty until it is complete."""
        return bytes(self._received[self.size :]) if self.size else b""

    def feed(self, data: bytes) -> ProxyHeader | None:
        """
        Take the next bytes of the connection, and return the header once it is complete.

        :returns: ``None`` if more bytes are needed.
        :raises ProxyHeaderError: at the first byte that shows that this is no header.
        :raises RuntimeError: if it returned the header, or raised, before.
        """
        if self._done:
            raise RuntimeError("the header is complete, or wrong")
        self._received += data
        self._done = True
        header = self._read()
        self._done = header is not None
        return header

    def _read(self) -> ProxyHeader | None:
        received = self._received
        if not received:
            return None
        if received[0] == SIGNATURE[0]:
            return self._read_version(2, self._read_block)
        if received[0] == ord(version_1.START[0]):
            return self._read_version(1, self._read_line)
        shown = ascii(bytes(received[:_SHOWN]))[1:]
        raise ProxyHeaderError(f"no PROXY header: the connection begins with {shown}")

    def _read_version(
        self, version: int, read: Callable[[], ProxyHeader | None]
    ) -> ProxyHeader | None:
        try:
            return read()
        except ProxyHeaderError as error:
            message = f"wrong PROXY header of version {version}: {error}"
            raise ProxyHeaderError(message) from None

    def _read_line(self) -> ProxyHeader | None:
        size = version_1.line_size(self._received)
        if size is None:
            version_1.check_beginning(self._received)
            return None
        header = version_1.read_line(self._received[: size - 2].decode("latin-1"))
        self.size = size
        return header

    def _read_block(self) -> ProxyHeader | None:
        header = self._block.read(self._received)
        if header is not None and self._block.size is not None:
            self.size = self._block.size
        return header
