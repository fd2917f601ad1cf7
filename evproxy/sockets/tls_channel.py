"""
TLS on a kernel socket, as a `Channel` that an end reads from and writes to.

OpenSSL reads and writes the socket itself.  No record is left in OpenSSL that an event of the
engine would not report: OpenSSL takes one record at a time from the kernel, and `TLSChannel`
remembers what it meets behind the bytes that it returns.

Rules: the end of a stream is a close_notify.  A FIN without one is a stream that was cut off, which
counts as reset (RFC 8446, 6.1).  OpenSSL's queue of errors belongs to the thread, not to the
connection, so an error is believed only when OpenSSL repeats it.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import Protocol, TypeVar

from OpenSSL import SSL

from evproxy.sockets.openssl_calls import (
    RECORD,
    WAITS,
    forget,
    handle_of,
    handshake,
    read_into,
    read_on,
    write,
)

_CUT_OFF = "the stream was cut off: there was no close_notify"

T = TypeVar("T")


class StreamSocket(Protocol):
    """What a channel needs of its socket."""

    @property
    def family(self) -> int:
        """The kind of its addresses."""

    def setsockopt(self, level: int, option: int, value: int, /) -> None:
        """Set an option."""

    def recv(self, size: int, /) -> bytes:
        """Receive at most `size` bytes."""

    def send(self, data: bytes, /) -> int:
        """Send of `data` what there is room for; return how many bytes."""

    def shutdown(self, how: int, /) -> None:
        """End the stream."""


class TLSFault(OSError):
    """The peer does not keep to TLS, or has sent a fatal alert; `strerror` says which."""

    def __init__(self, why: str) -> None:
        super().__init__(errno.EPROTO, why)


class TLSChannel:
    """
    TLS on `sock`, which is non-blocking.

    `waits_to_write`: the last call to read raised `BlockingIOError`, and is to be repeated when the
    socket can be written: OpenSSL has an answer of its own to send before it reads on.

    :param sock: the socket; the caller closes it.
    :param connection: OpenSSL's connection on `sock`, with its state (client or server) set.
    """

    __slots__ = ("_ended", "_handle", "_more", "_sock", "connection", "waits_to_write")

    def __init__(self, sock: StreamSocket, connection: SSL.Connection) -> None:
        self._sock = sock
        self.connection = connection
        self._handle = handle_of(connection)
        self.waits_to_write = False
        self._ended = False
        # Whether the end, or an error, came behind the bytes that were returned last.
        self._more = False

    @property
    def ends_whole(self) -> bool:
        """Whether a peer that ends its stream ends both (RFC 5246, 7.2.1), as before TLS 1.3."""
        return self.connection.get_protocol_version() < SSL.TLS1_3_VERSION

    def handshake(self) -> None:
        """
        Go on with the handshake; return when it is over.

        :raises BlockingIOError: if it waits for the peer, or with `waits_to_write` for room to
            send.
        :raises OSError: if it failed.
        """
        result = handshake(self._handle)
        if result == WAITS:
            self.waits_to_write = False
            raise BlockingIOError
        if result <= 0:
            self._read(self.connection.do_handshake, None, _first(result))
        forget(self.connection)

    def recv_into(self, buffer: bytearray | memoryview) -> int:
        """Read into `buffer`; see `Channel`."""
        handle = self._handle
        count = read_into(handle, buffer)
        if count <= 0:
            if count == WAITS:
                self.waits_to_write = False
                raise BlockingIOError
            self._more = False
            again = self.connection.recv_into
            count = self._read(lambda: again(buffer, RECORD), 0, _first(count))
        if count == RECORD:
            # Behind a full record there are likely to be others.
            count, self._more = read_on(handle, buffer, count)
        return count

    def recv(self, most: int) -> bytes:
        """Return at most `most` bytes, none at the end of the stream; raises as `recv_into`."""
        self._more = False
        return self._read(lambda: self.connection.recv(min(most, RECORD)), b"")

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """Send `data`, one record after the other; see `Channel`."""
        if len(data) <= RECORD or self._sock.family == socket.AF_UNIX:
            return self._send(data)
        # OpenSSL writes each record by itself: corked, TCP sends them in fewer segments.
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        try:
            return self._send(data)
        finally:
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)

    def _send(self, data: bytes | bytearray | memoryview) -> int:
        sent = write(self._handle, data)
        if sent > 0:
            return sent
        if sent == WAITS:
            raise BlockingIOError
        return self._write(lambda: self.connection.send(data), _first(sent))

    def shutdown(self, how: int) -> None:
        """
        Send close_notify, and end the stream of the socket behind it.

        :raises BlockingIOError: if the socket takes no more bytes: call it again once it does.
        """
        if self._ended:
            return
        try:
            self.connection.shutdown()
        except SSL.WantWriteError:
            raise BlockingIOError from None
        except SSL.Error as error:
            raise fault_of(error) from None
        self._ended = True
        self._sock.shutdown(socket.SHUT_WR)

    def pending(self) -> int:
        """Return whether there is something that no event reports; see `Channel`."""
        return self.connection.pending() or self._more

    def _read(self, call: Callable[[], T], at_end: T, first: SSL.Error | None = None) -> T:
        """Return what `call` returns, or `at_end`; `first` is the error of the call before."""
        self.waits_to_write = False
        try:
            return call()
        except SSL.WantReadError:
            raise BlockingIOError from None
        except SSL.WantWriteError:
            self.waits_to_write = True
            raise BlockingIOError from None
        except SSL.ZeroReturnError:
            return at_end
        except SSL.Error as error:
            if first is None:
                return self._read(call, at_end, error)
            raise fault_of(first) from None

    def _write(self, call: Callable[[], int], first: SSL.Error | None = None) -> int:
        try:
            return call()
        except SSL.WantWriteError:
            raise BlockingIOError from None
        except SSL.Error as error:
            if first is None:
                return self._write(call, error)
            # Renegotiation is off: only a fault makes a write wait for a read.
            raise fault_of(first) from None


def _first(result: int) -> SSL.Error | None:
    """The error of the kernel in a `result` of `openssl_calls`, as pyOpenSSL would raise it."""
    return SSL.SysCallError(-result, os.strerror(-result)) if result < 0 else None


def fault_of(error: SSL.Error) -> OSError:
    """What `error` of OpenSSL is as an error of a socket."""
    if isinstance(error, SSL.SysCallError):
        number = error.args[0] if error.args else -1
        if number > 0:
            return OSError(number, os.strerror(number))
        return ConnectionResetError(errno.ECONNRESET, _CUT_OFF)
    reasons = [entry[2] for entry in error.args[0]] if error.args else []
    return TLSFault(next(filter(None, reasons), "TLS failed"))
