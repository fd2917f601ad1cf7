"""A channel that is no kernel socket: records with their own end of stream, as in TLS."""

from __future__ import annotations

import socket
from socket import SocketType

RECORD = 1000
"""The most bytes of one record."""

LAST = b"\0\0"
"""The record that ends a stream."""

_KEY = bytes(byte ^ 0x5A for byte in range(256))


def record(data: bytes) -> bytes:
    """Return `data` as a record."""
    return len(data).to_bytes(2, "big") + data.translate(_KEY)


def records(data: bytes) -> bytes:
    """Return `data` as records."""
    return b"".join(record(data[at : at + RECORD]) for at in range(0, len(data), RECORD))


def opened(raw: bytes) -> tuple[bytes, bool]:
    """Return the content of the records in `raw`, and whether the last one ends the stream."""
    reader = Reader()
    reader.feed(raw)
    return bytes(reader.data), reader.ended


class Reader:
    """Parses records."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.ended = False
        self._raw = bytearray()

    def feed(self, raw: bytes) -> None:
        """Parse `raw`."""
        self._raw += raw
        while len(self._raw) >= 2 and not self.ended:
            size = int.from_bytes(self._raw[:2], "big")
            if len(self._raw) < 2 + size:
                return
            self.data += self._raw[2 : 2 + size].translate(_KEY)
            self.ended = not size
            del self._raw[: 2 + size]


class RecordChannel:
    """A `Channel` of records on `sock`; each read returns the content of one record."""

    def __init__(self, sock: SocketType) -> None:
        self._socket = sock
        self._reader = Reader()
        self._sending = b""
        self._size = 0

    def take(self, raw: bytes) -> None:
        """Take `raw`, which was read from the kernel before."""
        self._reader.feed(raw)

    def recv_into(self, buffer: bytearray | memoryview) -> int:
        reader = self._reader
        while not reader.data:
            if reader.ended:
                return 0
            raw = self._socket.recv(65536)
            if not raw:
                raise ConnectionResetError("cut off")
            reader.feed(raw)
        count = min(RECORD, len(reader.data))
        buffer[:count] = reader.data[:count]
        del reader.data[:count]
        return count

    def send(self, data: bytes | bytearray | memoryview) -> int:
        if not self._sending:
            part = bytes(data[:RECORD])
            self._sending, self._size = record(part), len(part)
        self._sending = self._sending[self._socket.send(self._sending) :]
        if self._sending:
            raise BlockingIOError
        return self._size

    def recv(self, most: int) -> bytes:
        buffer = bytearray(most)
        return bytes(buffer[: self.recv_into(buffer)])

    def shutdown(self, how: int) -> None:
        self._socket.send(LAST)
        self._socket.shutdown(socket.SHUT_WR)

    def pending(self) -> int:
        return len(self._reader.data)
