"""
TLS whose first bytes were read from the socket before TLS began.

OpenSSL cannot be given bytes and a socket at once.  So this channel carries all bytes between the
two itself, for as long as the connection lasts.  It costs a copy each way, and memory.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from OpenSSL import SSL

from evproxy.engine.loop import CHUNK
from evproxy.sockets.tls_channel import StreamSocket, TLSChannel, TLSFault, fault_of

MOST_UNSENT = 2 * CHUNK
"""The most bytes of records that are taken from OpenSSL at once; one call to send makes fewer."""

T = TypeVar("T")


class BufferedTLSChannel(TLSChannel):
    """
    TLS on `sock` that begins with the bytes `received`.

    :param sock: the socket; the caller closes it.
    :param connection: an OpenSSL connection without a socket, with its state set.
    :param received: what was read from the socket and belongs to TLS.
    """

    __slots__ = ("_owed", "_unsent")

    def __init__(self, sock: StreamSocket, connection: SSL.Connection, received: bytes) -> None:
        super().__init__(sock, connection)
        # Records that the kernel has not taken, and how many bytes of the caller's are in them.
        self._unsent = b""
        self._owed = 0
        if received:
            connection.bio_write(received)

    def handshake(self) -> None:
        while True:
            try:
                super().handshake()
            except BlockingIOError:
                self._flush_handshake()
                self._feed()
            except OSError:
                self._send_alert()
                raise
            else:
                self._flush_handshake()
                self._more = True
                return

    def recv_into(self, buffer: bytearray | memoryview) -> int:
        return self._from_buffer(lambda: super(BufferedTLSChannel, self).recv_into(buffer))

    def recv(self, most: int) -> bytes:
        return self._from_buffer(lambda: super(BufferedTLSChannel, self).recv(most))

    def send(self, data: bytes | bytearray | memoryview) -> int:
        self._flush()
        owed, self._owed = self._owed, 0
        if owed:
            # The first bytes of `data`, which the caller was not told about.
            return owed
        count = self._send(data)
        try:
            self._flush()
        except BlockingIOError:
            self._owed = count
            raise
        return count

    def shutdown(self, how: int) -> None:
        if self._ended:
            return
        if not self.connection.get_shutdown() & SSL.SENT_SHUTDOWN:
            try:
                self.connection.shutdown()
            except SSL.Error as error:
                raise fault_of(error) from None
        self._flush()
        self._ended = True
        self._sock.shutdown(socket.SHUT_WR)

    def _from_buffer(self, read: Callable[[], T]) -> T:
        """What `read` reads from what was received, or from what the kernel has now."""
        try:
            result = self._fed(read)
        except TLSFault:
            self._send_alert()
            raise
        # Behind bytes there may be more, and only reading tells.
        self._more = bool(result)
        return result

    def _fed(self, read: Callable[[], T]) -> T:
        try:
            return read()
        except BlockingIOError:
            self._more = False
            self._feed()
            return read()

    def _send_alert(self) -> None:
        """Send what OpenSSL has to say of an error, if the kernel takes it."""
        with suppress(OSError):
            self._flush()

    def _feed(self) -> None:
        received = self._sock.recv(CHUNK)
        if received:
            self.connection.bio_write(received)
        else:
            self.connection.bio_shutdown()

    def _flush_handshake(self) -> None:
        try:
            self._flush()
        except BlockingIOError:
            self.waits_to_write = True
            raise

    def _flush(self) -> None:
        while True:
            if not self._unsent:
                try:
                    self._unsent = self.connection.bio_read(MOST_UNSENT)
                except SSL.WantReadError:
                    return
            self._unsent = self._unsent[self._sock.send(self._unsent) :]
